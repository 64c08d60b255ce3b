//! `fleetline-bench`: measures Fleetline and its peers with the same work in one run.
//!
//! Standard output: one JSON object a line, nothing else. Standard error: progress. Systems take turns
//! within each case; servers and load share the machine, so rates mostly tell who got the CPU: look at
//! `server_cpu_s_per_million`, and at ratios within a run. See `benches/README.md`.

mod disk;
mod etcd;
mod fleetline;
mod load;
mod nats;
mod process;
mod report;

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::load::Load;
use crate::report::Line;

/// A result or why there is none.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Groups of cases.
#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Appends, reads and idle groups.
    Core,
}

/// Measures Fleetline and its peers.
#[derive(Parser)]
struct Arguments {
    /// Which cases.
    what: What,
    /// How long each phase of a case takes.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// 1: also measure the peers.
    #[arg(long, default_value_t = 1)]
    peers: u8,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// A case of appends.
struct Case {
    name: &'static str,
    bytes: usize,
    nodes: usize,
    one_in_flight: bool,
}

const APPENDS: [Case; 5] = [
    Case { name: "append-100B-r1", bytes: 100, nodes: 1, one_in_flight: false },
    Case { name: "append-1KiB-r1", bytes: 1024, nodes: 1, one_in_flight: false },
    Case { name: "append-100B-r3", bytes: 100, nodes: 3, one_in_flight: false },
    Case { name: "append-1KiB-r3", bytes: 1024, nodes: 3, one_in_flight: false },
    Case { name: "append-100B-r3-1x1", bytes: 100, nodes: 3, one_in_flight: true },
];

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let What::Core = arguments.what;
    drop(rustls::crypto::ring::default_provider().install_default());
    let wanted = |name: &str| name.contains(&arguments.only);
    let systems: &[&str] = if arguments.peers == 0 { &["fleetline"] } else { &["fleetline", "nats", "etcd"] };
    for case in APPENDS.iter().filter(|case| wanted(case.name)) {
        let load = Load {
            bytes: case.bytes,
            duration: Duration::from_secs(arguments.seconds),
            one_in_flight: case.one_in_flight,
        };
        for system in systems {
            eprintln!("{} {system} …", case.name);
            let measured = match *system {
                "fleetline" => fleetline::append(case.nodes, &load).await,
                "nats" => nats::append(case.nodes, &load).await,
                _ => etcd::append(case.nodes, &load).await,
            };
            Line::append(case.name, system, case.nodes, measured).print();
        }
    }
    let duration = Duration::from_secs(arguments.seconds);
    if wanted("read-100B-r3") {
        eprintln!("read-100B-r3 fleetline …");
        Line::read("read-100B-r3", fleetline::read(duration).await).print();
    }
    if wanted("idle-256-groups") {
        eprintln!("idle-256-groups fleetline …");
        Line::idle("idle-256-groups", fleetline::idle(duration.max(Duration::from_secs(10))).await).print();
    }
    Ok(())
}
