//! What fan-out and an idle connection cost: run with
//! `cargo run --release -p fleetline-realtime --example fan_out_cost`.
//!
//! Clients are sinks in memory behind the real front: a system call's price isn't in the numbers, everything
//! else is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use fleetline_realtime::{Destination, Realtime, RealtimeLimits, RealtimeOptions};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/realtime/client.rs"]
mod client;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../tests/realtime/world.rs"]
mod world;

use client::{client_token, serve};
use world::{ENDPOINT, Node, World};

/// The allocator of the server: what is measured is what it costs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A client that opens a WebSocket, says its handshake, and reads whatever comes at once.
struct Sink {
    script: Vec<u8>,
    read: usize,
    bytes: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
}

impl AsyncRead for Sink {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.script[self.read..];
        if left.is_empty() {
            self.script = Vec::new();
            self.read = 0;
            // Never woken: nothing more comes.
            return Poll::Pending;
        }
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        self.read += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.writes.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count: usize = slices.iter().map(|slice| slice.len()).sum();
        self.bytes.fetch_add(count as u64, Ordering::Relaxed);
        self.writes.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Counters {
    bytes: Arc<AtomicU64>,
    writes: Arc<AtomicU64>,
}

fn attach(tier: &Arc<Realtime>, token: &str, counters: &Counters) {
    let mut script = format!(
        "GET /client/?hub=chat HTTP/1.1\r\nhost: hub.test\r\nauthorization: Bearer {token}\r\n\
         upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes();
    let handshake = b"{\"protocol\":\"json\",\"version\":1}\x1e";
    // A mask of zeros leaves the payload as it is.
    script.extend([0x81, 0x80 | handshake.len() as u8, 0, 0, 0, 0]);
    script.extend(handshake);
    let sink = Sink { script, read: 0, bytes: counters.bytes.clone(), writes: counters.writes.clone() };
    serve(tier, sink);
}

/// CPU time of the process, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("fields").1.split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().expect("number")).sum();
    ticks / 100.0
}

/// Resident memory, in bytes.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    statm.split_whitespace().nth(1).expect("field").parse::<f64>().expect("number") * 4096.0
}

async fn with_clients(count: usize) -> (Arc<World>, Node, Counters) {
    let world = World::new();
    let limits = RealtimeLimits { connections_max: 1_000_000, ..RealtimeLimits::default() };
    let node = world.start(1, RealtimeOptions { limits, ..RealtimeOptions::new(ENDPOINT) }).await;
    let counters = Counters { bytes: Arc::default(), writes: Arc::default() };
    let token = client_token(&world, &node.tier, "chat", None);
    for number in 0..count {
        attach(&node.tier, &token, &counters);
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    // Each client is answered with the head of the switch and an answer to its handshake.
    while counters.writes.load(Ordering::Relaxed) < 2 * count as u64 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    (world, node, counters)
}

/// One, some and many messages at a time to 10,000 clients.
async fn fan_out() {
    const CLIENTS: u64 = 10_000;
    let (_world, node, counters) = with_clients(CLIENTS as usize).await;
    for (messages, burst) in [(200_u64, 1_u64), (1_000, 10), (2_000, 100)] {
        let (start, before) = (Instant::now(), cpu());
        let (writes, target) =
            (counters.writes.load(Ordering::Relaxed), node.tier.stats().sent + messages * CLIENTS);
        let bytes = counters.bytes.load(Ordering::Relaxed);
        let frame = fleetline_realtime::Encoded::json(&message("m", 1_000)).len() as u64 + 2;
        for round in 0..messages / burst {
            for number in 0..burst {
                let to = Destination::All { excluded: Vec::new() };
                node.tier.publish("chat", &to, message("m", 1_000 + (round + number) % 1_000)).expect("room");
            }
            let wanted = bytes + (round + 1) * burst * CLIENTS * frame;
            // Waiting must not be what is measured.
            while counters.bytes.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
        assert_eq!(node.tier.stats().sent, target);
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu() - before);
        let deliveries = (messages * CLIENTS) as f64;
        let writes = counters.writes.load(Ordering::Relaxed) - writes;
        println!(
            "{CLIENTS} clients, {burst} messages at a time: {:.0} deliveries/s, {:.2} CPU-s per million, {:.1} \
             messages a write",
            deliveries / wall,
            cpu / deliveries * 1e6,
            deliveries / writes as f64,
        );
    }
    assert_eq!(node.tier.stats().slow_clients, 0);
}

async fn memory() {
    const CLIENTS: usize = 100_000;
    let (_world, _node, _counters) = with_clients(1_000).await;
    let before = resident();
    let (_world, node, _counters) = with_clients(CLIENTS).await;
    let after = resident();
    println!("{CLIENTS} idle connections: {:.0} bytes each", (after - before) / CLIENTS as f64);
    assert_eq!(node.tier.stats().connections, CLIENTS);
}

fn message(target: &str, number: u64) -> fleetline_realtime::Encoded {
    fleetline_realtime::Encoded::invocation(target, format!("[{number}]").into()).expect("json")
}

#[tokio::main]
async fn main() {
    fan_out().await;
    memory().await;
}
