//! One partition: its replicated state machine, and reads of its stream.
//!
//! `broker/node` starts a partition's group with a [`PartitionMachine`] and wraps it into a
//! [`Partition`], through which everything else appends, reads, claims, checkpoints and changes devices. The
//! machine hands commands to `broker/streams` and `broker/devices` and publishes the new head of the stream once a
//! round is in the store.
//!
//! Invariants:
//! 1. A reader sees only what is applied, and never a part of a batch.
//! 2. Offsets handed out are those of the stream index; a batch that was a duplicate has no row
//!    and is therefore not part of the stream, although the log holds it.
//! 3. The head only grows, except when a snapshot replaces everything.
//!
//! Not here: where replicas lie, who may ask (`broker/node`, `broker/gateway`), the rules of
//! producers and consumer groups (`broker/streams`).
#![deny(missing_docs)]

mod consumer_groups;
mod devices;
mod liveness;
mod machine;
mod partition;
mod read;
mod retention;

pub use machine::{Effects, PartitionMachine, Published};
pub use partition::{Partition, PartitionParts};
pub use retention::RetentionPolicy;
