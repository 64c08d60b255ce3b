//! Streams and consumer groups as replicated state: producers, offsets, owners, checkpoints.
//!
//! Called by `broker/partition` on every replica, in log order, and pure: no clock, no randomness,
//! no I/O beyond reading its own rows at load. Time reaches it only inside commands.
//!
//! Invariants:
//! 1. Offsets are dense: the first record has 0, each accepted record adds one. A batch that is
//!    refused or was stored before adds none.
//! 2. Enqueued times never go back.
//! 3. What [`StreamState::load`] reads after any crash equals what was in memory at the round that
//!    the store shows, and replies don't depend on where rounds end.
//! 4. A partition has at most one owner in a consumer group, and each grant has a higher epoch than
//!    every earlier grant of that partition. A checkpoint is taken from the newest claimed epoch only,
//!    and never goes back.
//!
//! Not here: who is leader, when members are silent (`broker/partition`), reading records.
#![deny(missing_docs)]

mod apply;
mod command;
mod consumer_group;
mod error;
mod limits;
mod producer;
mod query;
mod reply;
mod state;
mod stream_index;

pub use command::StreamCommand;
pub use consumer_group::{Assignment, ConsumerGroup, Member};
pub use error::StreamError;
pub use limits::StreamLimits;
pub use query::{StreamQuery, TrimPoint};
pub use reply::{Claimed, StreamReply};
pub use state::{Head, StreamState};
pub use stream_index::{BatchPlace, Run};
