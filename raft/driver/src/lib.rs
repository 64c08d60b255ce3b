//! Many raft groups on one node: start, stop, routing, heartbeats, catch-up.
//!
//! `broker/node` gives the driver a log, a state store and a transport, starts and stops groups on
//! it, and proposes through the [`fleetline_raft_group::Group`] handles that it returns. The driver
//! turns openraft's calls into peer messages (`network`), peer messages into calls on groups
//! (`inbound`), sends all groups' heartbeats to one peer in one frame (`heartbeats`), transfers
//! snapshots (`snapshot_transfer`), fetches damaged entries from peers (`fetch`), asks a group's
//! leader who its members are (`confirm`), and carries calls between brokers (`calls`).
//!
//! Invariants:
//! 1. Appends of one group from one peer reach openraft in the order they were sent.
//! 2. A group that isn't here answers every peer; it never leaves one waiting for a time-out.
//! 3. When a peer's process dies, groups that it led campaign at once, one after the other by rank.
//! 4. Inboxes are bounded; what doesn't fit is refused with a reason, which the sender retries.
//!
//! Not here: sockets (`raft/transport`), consensus (openraft), which groups a node has
//! (`broker/cluster`).
#![deny(missing_docs)]

mod amnesia;
mod calls;
mod confirm;
mod driver;
mod fetch;
mod heartbeats;
mod inbound;
mod messages;
mod network;
mod snapshot_transfer;
mod succession;

pub use calls::{CallError, PeerService};
pub use driver::{Driver, DriverOptions, ForwardError};
