//! What a peer request costs: 16 KiB requests, pipelined over TLS on the loopback interface, between
//! two transports of this process. Prints throughput, and the CPU time of both sides together.
//!
//! `cargo run --release -p fleetline-raft-transport --example peer_cost [seconds] [in flight]`
#![allow(clippy::unwrap_used)] // a tool for engineers: any failure ends it

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleetline_raft_transport::{Lane, PeerAddress, PeerHandler, PeerMessage, PeerTransport, Replier};
use fleetline_types::NodeId;

const BODY_BYTES: usize = 16 * 1024;
const ANSWER_BYTES: usize = 64;

#[derive(Default)]
struct Answerer(AtomicU64);

impl PeerHandler for Answerer {
    fn on_request(&self, _: NodeId, _: Lane, message: PeerMessage, replier: Replier) {
        self.0.fetch_add(message.len() as u64, Ordering::Relaxed);
        let head = Bytes::from_static(&[0; ANSWER_BYTES]);
        replier.reply(PeerMessage { head, body: Vec::new(), ..message });
    }

    fn on_peer_up(&self, _: NodeId) {}
    fn on_peer_down(&self, _: NodeId) {}
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>().unwrap());
    let seconds = arguments.next().unwrap_or(5);
    let in_flight = arguments.next().unwrap_or(16) as usize;
    let authority = common::Authority::new();
    let answerer = Arc::new(Answerer::default());
    let server =
        fleetline_raft_transport::tcp::TcpTransport::start(authority.options(1), answerer.clone()).unwrap();
    let (client, _) = authority.start(2, |_| {});
    client.set_peer(NodeId(1), PeerAddress { address: server.local_addr().to_string() });

    let request = common::message(1, 0, &[Bytes::from(vec![42; BODY_BYTES])]);
    let send = || client.send(NodeId(1), Lane::Append(0), request.clone());
    send().await.unwrap().await.unwrap();

    let (start, cpu, bytes) = (Instant::now(), cpu_time(), answerer.0.load(Ordering::Relaxed));
    let mut open = VecDeque::new();
    let mut count = 0u64;
    while start.elapsed() < Duration::from_secs(seconds) {
        open.push_back(send().await.unwrap());
        if open.len() >= in_flight {
            open.pop_front().unwrap().await.unwrap();
            count += 1;
        }
    }
    for reply in open {
        reply.await.unwrap();
        count += 1;
    }
    let (took, cpu) = (start.elapsed().as_secs_f64(), (cpu_time() - cpu).as_secs_f64());
    let bytes = (answerer.0.load(Ordering::Relaxed) - bytes) as f64;
    println!("{in_flight} in flight, {BODY_BYTES} B requests, {ANSWER_BYTES} B answers, TLS on loopback");
    println!("{:.0} MB/s, {:.0} requests/s", bytes / took / 1e6, count as f64 / took);
    println!(
        "{:.2} CPU us a request, both sides; {:.2} CPU s a GB",
        cpu / count as f64 * 1e6,
        cpu / bytes * 1e9
    );
}

/// CPU time of this process, user and system.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
