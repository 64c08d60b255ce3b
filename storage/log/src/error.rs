//! What can go wrong in the log, sorted by who must act.

use fleetline_types::{GroupId, LogIndex};
use thiserror::Error;

/// An error of the log. Cheap to clone: one failure completes many requests.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LogError {
    /// A write or sync failed earlier in the life of this process; nothing is acknowledged any
    /// more. The process must exit and reopen from what is really on disk.
    #[error("log is poisoned by an earlier failure: {reason}; restart the node to recover from disk")]
    Poisoned {
        /// The first failure.
        reason: String,
    },
    /// The free space fell below the reserve; refused before anything was written. Ask again later.
    #[error(
        "disk is full: {free_bytes} bytes free, {reserve_bytes} are kept in reserve; free space or add a node"
    )]
    DiskFull {
        /// What is free.
        free_bytes: u64,
        /// What must stay free.
        reserve_bytes: u64,
    },
    /// The queue of the writer is full; refused before anything was queued. Ask again soon.
    #[error("log writer is busy: {queued_bytes} bytes wait, {bytes_max} may; slow down and retry")]
    Busy {
        /// What waits.
        queued_bytes: u64,
        /// What may wait.
        bytes_max: u64,
    },
    /// The entry is known to exist but its bytes on this disk are damaged. Fetch it from a peer
    /// and give it to [`crate::NodeLog::repair`].
    #[error("entry {index} of group {group} is damaged on this disk and must be repaired from a peer")]
    EntryUnavailable {
        /// Whose entry.
        group: GroupId,
        /// Which entry.
        index: LogIndex,
    },
    /// The range asked for begins before what is retained.
    #[error("entry {index} of group {group} is gone, the log now starts at {first}")]
    Gone {
        /// Whose entry.
        group: GroupId,
        /// Which entry.
        index: LogIndex,
        /// The first entry that is still there.
        first: LogIndex,
    },
    /// The caller broke the contract: a hole, a wrong order, an unknown group.
    #[error("log misuse: {0}")]
    Misuse(String),
    /// Reading failed in the operating system.
    #[error("log i/o failed: {0}")]
    Io(String),
    /// Stored bytes contradict themselves beyond a torn tail, and no rule can decide what is true.
    #[error("log is damaged: {0}; restore this node from its peers with `fleetline cluster replace`")]
    Damaged(String),
}

impl LogError {
    /// Whether the same call may succeed later without anybody repairing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, LogError::DiskFull { .. } | LogError::Busy { .. })
    }
}
