//! `fleetline-bench`: measures Fleetline and its peers with the same work in one run.
//!
//! Standard output: one JSON object a line, nothing else. Standard error: progress. Systems take turns
//! within each case and round; servers and load share the machine, so rates mostly tell who got the CPU:
//! look at `server_cpu_s_per_million`, and at ratios within a run. What the cases are and how to read
//! them: `benches/README.md`.

mod disk;
mod etcd;
mod fleetline;
mod install;
mod load;
mod mqtt;
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
    /// MQTT: ingest, idle connections, new connections.
    Mqtt,
    /// Not a group: a process of ours that holds idle connections.
    #[value(hide = true)]
    Hold,
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

impl Arguments {
    fn wants(&self, case: &str) -> bool {
        case.contains(&self.only)
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Which of the systems take turns in a case, round by round; says so at each turn.
    fn turns(&self, case: &'static str, systems: &[System]) -> impl Iterator<Item = System> + use<> {
        let (only, peers) = (self.system, self.peers == 1);
        let asked = move |system: &System| match only {
            Some(only) => only == *system,
            None => *system == System::Fleetline || peers,
        };
        let asked: Vec<System> = systems.iter().copied().filter(asked).collect();
        let rounds = std::iter::repeat_n(asked, self.rounds as usize).flatten();
        rounds.inspect(move |system| eprintln!("{case} {} …", system.name()))
    }
}

/// What was printed so far.
#[derive(Default)]
struct Report {
    lines: usize,
    /// Cases of which our own system gave no result.
    failed: Vec<String>,
}

impl Report {
    fn print(&mut self, line: Line) -> Outcome<()> {
        self.lines += 1;
        if line.is_our_failure() {
            self.failed.push(line.case.clone());
        }
        line.print()
    }
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum System {
    Fleetline,
    Nats,
    Etcd,
    Mosquitto,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            System::Fleetline => "fleetline",
            System::Nats => "nats",
            System::Etcd => "etcd",
            System::Mosquitto => "mosquitto",
        }
    }

    async fn append(self, nodes: usize, load: &Load) -> Outcome<load::Measured> {
        match self {
            System::Fleetline => fleetline::append(nodes, load).await,
            System::Nats => nats::append(nodes, load).await,
            System::Etcd => etcd::append(nodes, load).await,
            System::Mosquitto => Err("mosquitto keeps no records".into()),
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
        outcome = run(&arguments) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
    }
}

/// Runs the cases that were asked for.
///
/// # Errors
/// When there are none, or one of our own gave no result. Peers may be missing.
async fn run(arguments: &Arguments) -> Outcome<()> {
    let mut report = Report::default();
    match arguments.what {
        What::Core => core(arguments, &mut report).await?,
        What::Mqtt => mqtt::run(arguments, &mut report).await?,
        What::Hold => return mqtt::hold::serve().await,
    }
    if report.lines == 0 {
        return Err(format!("no case and system with {:?} in its name", arguments.only).into());
    }
    match report.failed.is_empty() {
        true => Ok(()),
        false => Err(format!("no result of fleetline in {}", report.failed.join(", ")).into()),
    }
}

async fn core(arguments: &Arguments, report: &mut Report) -> Outcome<()> {
    let duration = arguments.duration();
    for case in APPENDS.iter().filter(|case| arguments.wants(case.name)) {
        let load = Load { bytes: case.bytes, duration, flight: case.flight };
        for system in arguments.turns(case.name, &[System::Fleetline, System::Nats, System::Etcd]) {
            let measured = system.append(case.nodes, &load).await;
            report.print(Line::append(case.name, system.name(), case.nodes, measured))?;
        }
    }
    if arguments.wants(READ) {
        for _ in arguments.turns(READ, &[System::Fleetline]) {
            report.print(Line::read(READ, fleetline::read(duration).await))?;
        }
    }
    if arguments.wants(IDLE) {
        for _ in arguments.turns(IDLE, &[System::Fleetline]) {
            report.print(Line::idle(IDLE, fleetline::idle(duration.max(IDLE_MIN)).await))?;
        }
    }
    Ok(())
}
