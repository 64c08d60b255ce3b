//! The contract of `PeerTransport`, run on the real and on the memory implementation.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use fleetline_raft_transport::memory::{MemNetwork, MemOptions};
use fleetline_raft_transport::{Lane, PeerAddress, PeerTransport, TransportError};
use fleetline_types::NodeId;
use futures::future::join_all;
use parking_lot::Mutex;

use common::{Authority, ECHO, GROW, HOLD, Heard, Recorder, is_pending, joined, message};

const QUEUE_BYTES: usize = 256 * 1024;

/// Two nodes, 1 and 2, that know each other.
trait Pair: Send + Sync {
    fn transport(&self, node: u64) -> Arc<dyn PeerTransport>;
    fn recorder(&self, node: u64) -> Arc<Recorder>;
    /// Node 2 takes nothing more on Bulk until its gate opens.
    fn stall_second(&self);
    /// Node 2 dies.
    fn kill_second(&self) -> impl Future<Output = ()> + Send;
    /// Node 2 is back, and node 1 is told where.
    fn revive_second(&self);
}

type Node = (Arc<dyn PeerTransport>, Arc<Recorder>);

struct Tcp {
    authority: Authority,
    first: Node,
    second: Mutex<Node>,
}

fn start_tcp(authority: &Authority, node: u64) -> (Node, PeerAddress) {
    let (transport, recorder) = authority.start(node, |options| options.lane_queue_bytes_max = QUEUE_BYTES);
    let address = PeerAddress { address: transport.local_addr().to_string() };
    ((transport, recorder), address)
}

impl Tcp {
    fn new() -> Tcp {
        let authority = Authority::new();
        let ((first, at_first), (second, at_second)) = (start_tcp(&authority, 1), start_tcp(&authority, 2));
        first.0.set_peer(NodeId(2), at_second);
        second.0.set_peer(NodeId(1), at_first);
        Tcp { authority, first, second: Mutex::new(second) }
    }
}

impl Pair for Tcp {
    fn transport(&self, node: u64) -> Arc<dyn PeerTransport> {
        if node == 1 { self.first.0.clone() } else { self.second.lock().0.clone() }
    }

    fn recorder(&self, node: u64) -> Arc<Recorder> {
        if node == 1 { self.first.1.clone() } else { self.second.lock().1.clone() }
    }

    fn stall_second(&self) {
        self.recorder(2).shut_gate();
    }

    async fn kill_second(&self) {
        self.transport(2).shutdown().await;
    }

    fn revive_second(&self) {
        let (node, address) = start_tcp(&self.authority, 2);
        *self.second.lock() = node;
        self.first.0.set_peer(NodeId(2), address);
    }
}

struct Memory {
    network: MemNetwork,
    first: Node,
    second: Mutex<Node>,
}

fn start_memory(network: &MemNetwork, node: u64) -> Node {
    let recorder = Arc::new(Recorder::default());
    (network.endpoint(NodeId(node), recorder.clone()), recorder)
}

impl Memory {
    fn new() -> Memory {
        let network =
            MemNetwork::new(MemOptions { lane_queue_bytes_max: QUEUE_BYTES, ..MemOptions::default() });
        let (first, second) = (start_memory(&network, 1), start_memory(&network, 2));
        let address = PeerAddress { address: "memory".into() };
        first.0.set_peer(NodeId(2), address.clone());
        second.0.set_peer(NodeId(1), address);
        Memory { network, first, second: Mutex::new(second) }
    }
}

impl Pair for Memory {
    fn transport(&self, node: u64) -> Arc<dyn PeerTransport> {
        if node == 1 { self.first.0.clone() } else { self.second.lock().0.clone() }
    }

    fn recorder(&self, node: u64) -> Arc<Recorder> {
        if node == 1 { self.first.1.clone() } else { self.second.lock().1.clone() }
    }

    fn stall_second(&self) {
        // Delays do it: what Control needs for its answers is too short for 100 MB of Bulk.
    }

    async fn kill_second(&self) {
        self.network.kill(NodeId(2));
    }

    fn revive_second(&self) {
        *self.second.lock() = start_memory(&self.network, 2);
    }
}

macro_rules! contract {
    ($($name:ident)*) => {
        mod tcp {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() { super::$name(super::Tcp::new()).await; })*
        }
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $name() { super::$name(super::Memory::new()).await; })*
        }
    };
}

contract! {
    order_and_answers
    answers_out_of_order
    large_bodies
    refused_sends
    back_pressure_and_lanes
    large_frames_pass_a_small_queue
    broken_on_death
    removed_peer
    unread_answers_are_bounded
    shutdown_closes
}

/// Requests of a lane arrive in the order they were sent, all lanes and both directions at once,
/// and every answer belongs to its request.
async fn order_and_answers(pair: impl Pair) {
    let both = [(1, 2), (2, 1)].map(|(from, to)| {
        let transport = pair.transport(from);
        join_all(Lane::ALL.map(|lane| {
            let transport = transport.clone();
            async move {
                let mut replies = Vec::new();
                for number in 0..400 {
                    let body = [Bytes::from(vec![number as u8; number as usize * 31 % 6000])];
                    let sent = transport.send(NodeId(to), lane, message(ECHO, number, &body)).await;
                    replies.push((number, body, sent.unwrap()));
                }
                for (number, body, reply) in replies {
                    let reply = reply.await.unwrap();
                    assert_eq!((reply.group.0, reply.kind), (number, ECHO));
                    assert_eq!(reply.head, number.to_le_bytes()[..]);
                    assert_eq!(joined(&reply), body[0]);
                }
            }
        }))
    });
    join_all(both).await;
    let expected: Vec<u32> = (0..400).collect();
    for (at, from) in [(1, 2), (2, 1)] {
        for lane in Lane::ALL {
            assert_eq!(pair.recorder(at).numbers(from, lane), expected, "{lane:?} to {at}");
        }
        assert!(pair.transport(at).is_up(NodeId(from)));
        let heard = pair.recorder(at).heard();
        assert_eq!(heard[0], Heard::Up(from), "up comes first");
        assert_eq!(heard.iter().filter(|heard| **heard == Heard::Up(from)).count(), 1);
    }
}

/// Answers that are given in another order still reach their requests.
async fn answers_out_of_order(pair: impl Pair) {
    let (transport, second) = (pair.transport(1), pair.recorder(2));
    let mut replies = Vec::new();
    for number in 0..50 {
        replies.push(transport.send(NodeId(2), Lane::Control, message(HOLD, number, &[])).await.unwrap());
    }
    second.until(|heard| heard.len() == 51).await;
    let held = std::mem::take(&mut *second.held.lock());
    for (message, replier) in held.into_iter().rev() {
        replier.reply(message);
    }
    for (number, reply) in replies.into_iter().enumerate() {
        assert_eq!(reply.await.unwrap().group.0, number as u32);
    }
}

/// Bodies of 10 MiB in many slices, and answers of that size, arrive bit-equal.
async fn large_bodies(pair: impl Pair) {
    let pattern = Bytes::from((0..10 * 1024 * 1024).map(|i: u32| (i / 251) as u8).collect::<Vec<u8>>());
    let mut rest = pattern.clone();
    let mut slices = Vec::new();
    let mut len = 1;
    while !rest.is_empty() {
        slices.push(rest.split_to(len.min(rest.len())));
        len = len * 3 % 99_991 + 1;
    }
    let transport = pair.transport(1);
    let sent = transport.send(NodeId(2), Lane::Bulk, message(ECHO, 5, &slices)).await.unwrap();
    assert!(joined(&sent.await.unwrap()) == pattern);
    let mut grow = message(GROW, 6, &[]);
    grow.head = Bytes::copy_from_slice(&(10u32 << 20).to_le_bytes());
    let sent = transport.send(NodeId(2), Lane::Bulk, grow).await.unwrap();
    let answer = joined(&sent.await.unwrap());
    assert!(answer.len() == 10 << 20 && answer.iter().all(|byte| *byte == 7));
}

/// Sends that can't be are refused with the reason, and harm nothing else.
async fn refused_sends(pair: impl Pair) {
    let transport = pair.transport(1);
    let unknown = transport.send(NodeId(9), Lane::Control, message(ECHO, 1, &[])).await;
    assert_eq!(unknown.unwrap_err(), TransportError::UnknownPeer(NodeId(9)));
    let body = [Bytes::from(vec![0; 16 << 20])];
    let large = transport.send(NodeId(2), Lane::Bulk, message(ECHO, 1, &body)).await;
    let (len, limit) = ((16 << 20) + 4, 16 << 20);
    assert_eq!(large.unwrap_err(), TransportError::TooLarge { len, limit });
    assert!(!transport.is_up(NodeId(2)), "nothing was sent, so nothing is connected");
    transport.send(NodeId(2), Lane::Bulk, message(ECHO, 1, &[])).await.unwrap().await.unwrap();
    assert!(transport.is_up(NodeId(2)));
}

/// A lane whose peer doesn't keep up makes its senders wait and no others: with 100 MB for Bulk
/// (more than all buffers hold) Control is answered at once, and afterwards all of it arrives.
async fn back_pressure_and_lanes(pair: impl Pair) {
    const COUNT: usize = 1600;
    let (transport, second) = (pair.transport(1), pair.recorder(2));
    pair.stall_second();
    let sent = Arc::new(AtomicUsize::new(0));
    let sender = {
        let (transport, sent) = (transport.clone(), sent.clone());
        tokio::spawn(async move {
            let body = [Bytes::from(vec![1; 64 * 1024])];
            let mut replies = Vec::new();
            for number in 0..COUNT {
                let message = message(ECHO, number as u32, &body);
                replies.push(transport.send(NodeId(2), Lane::Bulk, message).await.unwrap());
                sent.fetch_add(1, Ordering::Relaxed);
            }
            replies
        })
    };
    for number in 0..20 {
        let sent = transport.send(NodeId(2), Lane::Control, message(ECHO, number, &[])).await.unwrap();
        sent.await.unwrap();
    }
    assert!(sent.load(Ordering::Relaxed) < COUNT, "Bulk took more than its queue");
    assert!(!sender.is_finished());
    second.open_gate();
    for reply in sender.await.unwrap() {
        reply.await.unwrap();
    }
    assert_eq!(second.numbers(1, Lane::Bulk), (0..COUNT as u32).collect::<Vec<_>>());
}

/// A frame larger than the whole queue passes, alone, and room is given back exactly: it can be
/// done again and again.
async fn large_frames_pass_a_small_queue(pair: impl Pair) {
    let transport = pair.transport(1);
    let body = [Bytes::from(vec![3; QUEUE_BYTES * 2])];
    for number in 0..20 {
        let sent = transport.send(NodeId(2), Lane::Append(1), message(ECHO, number, &body)).await.unwrap();
        let small = transport.send(NodeId(2), Lane::Append(1), message(ECHO, number, &[])).await.unwrap();
        assert_eq!(sent.await.unwrap().len(), QUEUE_BYTES * 2 + 4);
        small.await.unwrap();
    }
}

/// When a node dies its peers hear it, open requests fail as broken, new ones as unreachable; when
/// it is back, all is as before, and nothing that failed arrives late.
async fn broken_on_death(pair: impl Pair) {
    let (transport, first) = (pair.transport(1), pair.recorder(1));
    let mut replies = Vec::new();
    for number in 0..10 {
        for lane in [Lane::Control, Lane::Append(0)] {
            replies.push(transport.send(NodeId(2), lane, message(HOLD, number, &[])).await.unwrap());
        }
    }
    pair.recorder(2).until(|heard| heard.len() == 21).await;
    assert!(is_pending(&mut replies[0]).await);
    pair.kill_second().await;
    for reply in replies {
        assert_eq!(reply.await.unwrap_err(), TransportError::Broken(NodeId(2)));
    }
    first.until_heard(Heard::Down(2)).await;
    assert!(!transport.is_up(NodeId(2)));
    let refused = transport.send(NodeId(2), Lane::Control, message(ECHO, 0, &[])).await.unwrap_err();
    assert!(matches!(refused, TransportError::Unreachable { node: NodeId(2), .. }), "{refused}");

    pair.revive_second();
    let sent = transport.send(NodeId(2), Lane::Control, message(ECHO, 77, &[])).await.unwrap();
    assert_eq!(sent.await.unwrap().group.0, 77);
    assert_eq!(pair.recorder(2).numbers(1, Lane::Control), [77]);
    assert_eq!(first.heard(), [Heard::Up(2), Heard::Down(2), Heard::Up(2)]);
}

/// A removed peer is unknown, and its open requests fail.
async fn removed_peer(pair: impl Pair) {
    let transport = pair.transport(1);
    let reply = transport.send(NodeId(2), Lane::Append(0), message(HOLD, 1, &[])).await.unwrap();
    transport.remove_peer(NodeId(2));
    assert_eq!(reply.await.unwrap_err(), TransportError::Broken(NodeId(2)));
    pair.recorder(1).until_heard(Heard::Down(2)).await;
    let unknown = transport.send(NodeId(2), Lane::Append(0), message(ECHO, 1, &[])).await;
    assert_eq!(unknown.unwrap_err(), TransportError::UnknownPeer(NodeId(2)));
}

/// Answers queue up to a bound; beyond it the requester is disconnected, not waited for.
async fn unread_answers_are_bounded(pair: impl Pair) {
    let (transport, second) = (pair.transport(1), pair.recorder(2));
    let mut replies = Vec::new();
    for number in 0..200 {
        replies.push(transport.send(NodeId(2), Lane::Control, message(HOLD, number, &[])).await.unwrap());
    }
    second.until(|heard| heard.len() == 201).await;
    let body = [Bytes::from(vec![9; 1 << 20])];
    for (_, replier) in std::mem::take(&mut *second.held.lock()) {
        // All at once: no task between here and the queue could have drained 200 MB.
        replier.reply(message(ECHO, 0, &body));
    }
    let answers = join_all(replies).await;
    assert!(answers.contains(&Err(TransportError::Broken(NodeId(2)))));
}

/// After shutdown everything is refused as closed and both sides know.
async fn shutdown_closes(pair: impl Pair) {
    let transport = pair.transport(1);
    transport.send(NodeId(2), Lane::Bulk, message(ECHO, 1, &[])).await.unwrap().await.unwrap();
    transport.shutdown().await;
    let closed = transport.send(NodeId(2), Lane::Bulk, message(ECHO, 1, &[])).await;
    assert_eq!(closed.unwrap_err(), TransportError::Closed);
    pair.recorder(2).until_heard(Heard::Down(1)).await;
    assert!(!transport.is_up(NodeId(2)));
    transport.shutdown().await;
}
