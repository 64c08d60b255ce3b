//! The node's one log: shared append segments, group commit over all partitions.
//!
//! All Raft groups of a node append to one sequence of large append-only files through one writer.
//! The writer drains its queue, writes once, syncs once, and completes all requests of that round.
//! Entries, votes, truncations and purges are frames of the same log, so there is one durable path.
//!
//! Called by `raft/group` (openraft's log storage), by `broker/partition` (stream reads: the Raft
//! log is the stream) and by `storage/snapshot`. It calls only `storage/env`.
//!
//! Invariants:
//! 1. What `append` took is readable when it returns, and durable when its completion says `Ok`.
//! 2. Requests become durable in the order they were made, over all groups.
//! 3. Per group: `first_retained <= purged + 1 <= last + 1`; entries are without holes from
//!    `first_retained` to `last`, except those known as damaged, which read as
//!    [`LogError::EntryUnavailable`] until repaired.
//! 4. After the first failed write or sync nothing succeeds any more in this process
//!    ([`LogError::Poisoned`]).
//! 5. A logical purge deletes nothing. Bytes go only by [`NodeLog::retain_from`].
//!
//! Not here: consensus, what a payload means, when to retain or purge.
#![deny(missing_docs)]

mod api;
mod cell;
mod error;
mod frame;
mod high_water;
mod index;
pub mod memory;
mod options;
mod queue;
mod reader;
mod recovery;
mod repair;
mod retention;
mod scan;
mod seg_log;
mod segment;
mod shared;
mod writer;

pub use api::{Done, GroupLogState, InstallPrefix, LogEntry, LogStats, NodeLog, Payload, VoteRecord};
pub use error::LogError;
pub use high_water::MarkPolicy;
pub use options::{DamagedRange, LogOptions, RecoveryReport, WriterMode};
pub use seg_log::SegLog;
