//! Devices as replicated state: identities, twins, command queues, sessions, fences.
//!
//! `broker/partition` hands the entries of its group whose head is that of a [`DeviceCommand`] to
//! [`DeviceState::apply`] and asks [`DeviceState::batch_passes`] about gateways' batches. The node's
//! leader side proposes the commands, answers reads from [`DeviceQuery`], and performs [`Effect`]s.
//!
//! Invariants:
//! 1. Everything of one device is in one partition, so each promise about one device (compare-and-set
//!    of identity and twin, disable-then-nothing, at most one session, order) rests on one log.
//! 2. Whatever takes a right away raises a fence: sessions with a lower epoch are over, and a gateway's
//!    batch that was formed before is refused if it names the device.
//! 3. A command that is refused has changed nothing. Apply reads no clock and draws nothing: time, keys
//!    and tokens come with the command.
//! 4. An event becomes a record of the stream exactly once, in order (`apply/events.rs`).
//!
//! Not here: checking proofs (`broker/gateway`, with `fleetline_iothub`), sockets, when to propose.
#![deny(missing_docs)]

mod apply;
mod command;
mod commit;
mod document;
mod effect;
mod error;
pub mod limits;
mod proof;
mod query;
mod request;
mod rows;
mod state;

pub use command::*;
pub use commit::{COMMIT_HEAD_KIND, Commit, CommitReply};
pub use document::{Emit, PutDocument};
pub use effect::{Effect, Wake};
pub use error::DeviceError;
pub use proof::{ProofError, check_proof};
pub use query::{DeviceQuery, Page};
pub use request::*;
pub use rows::*;
pub use state::DeviceState;

/// Endpoint bits of records.
pub mod endpoints {
    /// Telemetry, for the built-in stream.
    pub const TELEMETRY: u64 = 1;
    /// The hub's own events.
    pub const EVENTS: u64 = 2;
}

/// The producer of a partition's outbox, which no client has.
pub const OUTBOX_PRODUCER: u64 = u64::MAX;
