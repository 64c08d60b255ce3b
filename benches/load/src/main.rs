//! `fleetline-bench`: measures Fleetline and its peers with the same work in one run.
//!
//! Standard output: one JSON object a line, nothing else. Standard error: progress. Systems take turns
//! within each case and round; servers and load share the machine, so rates mostly tell who got the CPU:
//! look at `server_cpu_s_per_million`, and at ratios within a run. What the cases are and how to read
//! them: `benches/README.md`.

mod disk;
mod etcd;
mod fleetline;
mod load;
mod nats;
mod process;
mod report;

use std::time::Duration;

use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::load::{Flight, Load};
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
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// 1: also measure the peers.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    peers: u8,
    /// How often the systems take turns in each case; one line each time. Compare medians of 3 or more.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only this system.
    #[arg(long)]
    system: Option<System>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum System {
    Fleetline,
    Nats,
    Etcd,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            System::Fleetline => "fleetline",
            System::Nats => "nats",
            System::Etcd => "etcd",
        }
    }

    async fn append(self, nodes: usize, load: &Load) -> Outcome<load::Measured> {
        match self {
            System::Fleetline => fleetline::append(nodes, load).await,
            System::Nats => nats::append(nodes, load).await,
            System::Etcd => etcd::append(nodes, load).await,
        }
    }
}

/// A case of appends.
struct Case {
    name: &'static str,
    bytes: usize,
    nodes: usize,
    flight: Flight,
}

const APPENDS: [Case; 6] = [
    Case { name: "append-100B-r1", bytes: 100, nodes: 1, flight: Flight::Eager },
    Case { name: "append-1KiB-r1", bytes: 1024, nodes: 1, flight: Flight::Eager },
    Case { name: "append-100B-r3", bytes: 100, nodes: 3, flight: Flight::Eager },
    Case { name: "append-1KiB-r3", bytes: 1024, nodes: 3, flight: Flight::Eager },
    Case { name: "append-100B-r3-x1000", bytes: 100, nodes: 3, flight: Flight::Thousand },
    Case { name: "append-100B-r3-1x1", bytes: 100, nodes: 3, flight: Flight::One },
];
const READ: &str = "read-100B-r3";
const IDLE: &str = "idle-256-groups";
/// The idle case is as long as this at least: little is used, in hundredths of a second.
const IDLE_MIN: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut terminate = signal(SignalKind::terminate())?;
    // What ends early drops the cases that run, and they kill their servers.
    tokio::select! {
        outcome = core(&arguments) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
    }
}

/// Runs the cases that were asked for.
///
/// # Errors
/// When there are none, or one of our own gave no result. Peers may be missing.
async fn core(arguments: &Arguments) -> Outcome<()> {
    let What::Core = arguments.what;
    let wanted = |name: &str| name.contains(&arguments.only);
    let asked = |system: &System| match arguments.system {
        Some(only) => only == *system,
        None => *system == System::Fleetline || arguments.peers == 1,
    };
    let ours = asked(&System::Fleetline);
    let duration = Duration::from_secs(arguments.seconds);
    let mut lines = 0;
    let mut failed = Vec::new();
    let mut print = |line: Line| {
        lines += 1;
        if line.is_our_failure() {
            failed.push(line.case.clone());
        }
        line.print()
    };
    for case in APPENDS.iter().filter(|case| wanted(case.name)) {
        let load = Load { bytes: case.bytes, duration, flight: case.flight };
        for _ in 0..arguments.rounds {
            for system in [System::Fleetline, System::Nats, System::Etcd].iter().filter(|s| asked(s)) {
                eprintln!("{} {} …", case.name, system.name());
                let measured = system.append(case.nodes, &load).await;
                print(Line::append(case.name, system.name(), case.nodes, measured))?;
            }
        }
    }
    for _ in 0..arguments.rounds {
        if ours && wanted(READ) {
            eprintln!("{READ} fleetline …");
            print(Line::read(READ, fleetline::read(duration).await))?;
        }
    }
    for _ in 0..arguments.rounds {
        if ours && wanted(IDLE) {
            eprintln!("{IDLE} fleetline …");
            print(Line::idle(IDLE, fleetline::idle(duration.max(IDLE_MIN)).await))?;
        }
    }
    if lines == 0 {
        return Err(format!("no case has {:?} in its name", arguments.only).into());
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("no result of fleetline in {}", failed.join(", ")).into()),
    }
}
