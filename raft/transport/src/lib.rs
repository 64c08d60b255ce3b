//! Links between the nodes of a cluster: a trait, TCP with mutual TLS, and a network in memory.
//!
//! `raft/driver` sends requests through [`PeerTransport`] and receives them through
//! [`PeerHandler`]; nothing else speaks between nodes. `tcp` is the real one; `memory` is a
//! seeded network on tokio's (virtual) time that delays, drops, duplicates and cuts.
//!
//! Invariants:
//! 1. Requests on one lane to one peer arrive in the order they were sent, or not at all: when a
//!    connection breaks, every open request on it fails and nothing sent before is delivered later
//!    on a new connection. (The memory network may break this on purpose, except for appends of
//!    one group, which stay in order as on a real connection.)
//! 2. Queues are bounded in bytes: [`PeerTransport::send`] waits for room (back-pressure), and a
//!    slow lane never blocks another lane.
//! 3. A peer whose process dies is reported by [`PeerHandler::on_peer_down`] at once, because its
//!    sockets close.
//! 4. The receiver knows who speaks: the peer's node id comes from its certificate, and a wrong
//!    cluster, node or disk incarnation is refused in the handshake.
//!
//! Not here: what messages mean, retries, elections.
#![deny(missing_docs)]

mod api;
mod frame;
pub mod memory;
mod metric_definitions;
mod open_requests;
mod rng;
pub mod tcp;

pub use api::{
    Lane, PeerAddress, PeerHandler, PeerMessage, PeerTransport, Replier, ReplyFuture, TransportError,
};
pub use frame::RefusedReason;
