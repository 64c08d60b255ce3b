//! MQTT: ingest at QoS 1, idle connections and new connections, of Fleetline, Mosquitto and NATS.
//!
//! `main` runs these cases. Every system gets the same bytes from the same clients; what differs is how its
//! servers are started (`brokers`) and what its PUBACK means, which each line says.
//!
//! Not here: the phases of a measurement and their figures (`load`), and what is printed (`report`).

mod brokers;
mod connects;
mod dial;
pub mod hold;
mod hub;
mod link;
mod mosquitto;
mod nats;
mod packet;
mod rest;
mod sas;

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::brokers::{Brokers, Transport, Wanted};
use self::link::{Link, Pace};
use self::packet::Publish;
use crate::load::{Flight, Load, Measured, Phases, Tally, measure};
use crate::report::Line;
use crate::{Arguments, Outcome, Report, System};

/// Connections of the ingest cases.
const CONNECTIONS: usize = 100;
/// PUBLISHes in flight on each at saturation.
const WINDOW: usize = 16;

/// A case of ingest.
struct Case {
    name: &'static str,
    bytes: usize,
    nodes: usize,
    flight: Flight,
}

const INGESTS: [Case; 5] = [
    Case { name: "qos1-100B-r1", bytes: 100, nodes: 1, flight: Flight::Eager },
    Case { name: "qos1-1KiB-r1", bytes: 1024, nodes: 1, flight: Flight::Eager },
    Case { name: "qos1-100B-r3", bytes: 100, nodes: 3, flight: Flight::Eager },
    Case { name: "qos1-1KiB-r3", bytes: 1024, nodes: 3, flight: Flight::Eager },
    Case { name: "qos1-100B-r1-1x1", bytes: 100, nodes: 1, flight: Flight::One },
];
const IDLES: [(&str, Transport); 2] = [("idle-plain", Transport::Plain), ("idle-tls", Transport::Tls)];
const CONNECTS: &str = "connect-tls";
const SYSTEMS: [System; 3] = [System::Fleetline, System::Mosquitto, System::Nats];

/// Runs the cases that were asked for.
///
/// # Errors
/// When nobody reads the output.
pub async fn run(arguments: &Arguments, report: &mut Report) -> Outcome<()> {
    for case in INGESTS.iter().filter(|case| arguments.wants(case.name)) {
        let load = Load { bytes: case.bytes, duration: arguments.duration(), flight: case.flight };
        for system in arguments.turns(case.name, &SYSTEMS) {
            let measured = ingest(system, case.nodes, &load).await;
            report.print(Line::ingest(case.name, system.name(), durability(system, case.nodes), measured))?;
        }
    }
    for (name, transport) in IDLES.into_iter().filter(|(name, _)| arguments.wants(name)) {
        for system in arguments.turns(name, &SYSTEMS) {
            let held = idle(system, transport, arguments.duration()).await;
            report.print(Line::connections(name, system.name(), durability(system, 1), held))?;
        }
    }
    if arguments.wants(CONNECTS) {
        for system in arguments.turns(CONNECTS, &SYSTEMS) {
            let measured = connect(system, arguments.duration()).await;
            report.print(Line::ingest(CONNECTS, system.name(), durability(system, 1), measured))?;
        }
    }
    Ok(())
}

/// What a PUBACK means.
fn durability(system: System, nodes: usize) -> &'static str {
    match (system, nodes) {
        (System::Mosquitto, _) => "memory",
        (_, 1) => "fsync",
        _ => "quorum-fsync",
    }
}

async fn idle(system: System, transport: Transport, duration: Duration) -> Outcome<hold::Held> {
    let count = hold::connections_max()?;
    let mut brokers = Brokers::start(system, Wanted { nodes: 1, transport, devices: count }).await?;
    hold::measure(&mut brokers, count, duration).await
}

async fn connect(system: System, duration: Duration) -> Outcome<Measured> {
    let wanted = Wanted { nodes: 1, transport: Transport::Tls, devices: connects::DEVICES };
    let mut brokers = Brokers::start(system, wanted).await?;
    connects::measure(&mut brokers, duration).await
}

async fn ingest(system: System, nodes: usize, load: &Load) -> Outcome<Measured> {
    let (devices, window) = match load.flight {
        Flight::One => (1, 1),
        Flight::Eager | Flight::Thousand => (CONNECTIONS, WINDOW),
    };
    let wanted = Wanted { nodes, transport: Transport::Plain, devices };
    let mut brokers = Brokers::start(system, wanted).await?;
    let mut links = Vec::new();
    for number in 0..devices {
        let address = brokers.addresses[number % brokers.addresses.len()];
        let stream = dial::tcp(address, &brokers.login.connect(number)?).await?;
        links.push(Link::new(stream, Publish::new(&dial::topic(number), load.bytes)?));
    }
    let mut ingest = Ingest { links, window, acknowledged: 0 };
    let measured = measure(load, 1, &mut ingest, &mut brokers.servers).await?;
    brokers.check_kept(ingest.acknowledged).await?;
    Ok(measured)
}

/// All links of a case.
struct Ingest {
    links: Vec<Link<TcpStream>>,
    window: usize,
    /// PUBACKs of all phases.
    acknowledged: u64,
}

impl Ingest {
    /// Runs a phase on all links, each with a pace of its own.
    async fn phase(&mut self, pace: impl Fn(usize) -> Pace) -> Outcome<Tally> {
        let mut running = JoinSet::new();
        for (number, mut link) in self.links.drain(..).enumerate() {
            let pace = pace(number);
            running.spawn(async move {
                let tally = link.run(pace).await?;
                Outcome::Ok((link, tally))
            });
        }
        let mut all = Tally::new()?;
        while let Some(done) = running.join_next().await {
            let (link, tally) = done??;
            self.links.push(link);
            all.add(tally)?;
        }
        self.acknowledged += all.done();
        Ok(all)
    }
}

impl Phases for Ingest {
    async fn closed(&mut self, duration: Duration) -> Outcome<Tally> {
        let (window, end) = (self.window, Instant::now() + duration);
        self.phase(|_| Pace::Closed { window, end }).await
    }

    async fn open(&mut self, per_s: f64, duration: Duration) -> Outcome<Tally> {
        let (now, links) = (Instant::now(), self.links.len());
        let gap = Duration::from_secs_f64(links as f64 / per_s.max(1.0));
        // Links take turns, so that what is due is spread over the gap.
        self.phase(|number| Pace::Open {
            begun: now + gap.mul_f64(number as f64 / links as f64),
            gap,
            end: now + duration,
        })
        .await
    }
}
