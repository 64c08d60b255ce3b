//! What can go wrong with snapshots, sorted by who must act.

use std::io;
use std::path::Path;

use fleetline_codec::DecodeError;
use fleetline_log::LogError;
use fleetline_state::StateError;
use fleetline_types::{GroupId, LogIndex};
use thiserror::Error;

/// An error of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SnapshotError {
    /// The operating system refused.
    #[error("snapshot i/o on {path} failed: {reason}")]
    Io {
        /// The file or folder.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// Too little space would be left for the log. Try again when there is more.
    #[error("snapshot needs space: {free_bytes} bytes free, {reserve_bytes} are kept for the log")]
    DiskFull {
        /// What is free.
        free_bytes: u64,
        /// What must stay free.
        reserve_bytes: u64,
    },
    /// The bytes contradict themselves. Nothing of them was used; transfer the snapshot again.
    #[error("snapshot {path} is damaged at byte {offset}: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// Where the damage was seen.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Written by a release that this one can't read.
    #[error("snapshot {path} has a newer format: {reason}")]
    NewerFormat {
        /// The file.
        path: String,
        /// What was found and what is known.
        reason: String,
    },
    /// Retention removed a part of the log range that the snapshot's header promises. Make a new
    /// snapshot.
    #[error("snapshot of group {group} is stale: entry {index} is gone, the log now starts at {first}")]
    Gone {
        /// Whose snapshot.
        group: GroupId,
        /// The entry that was to be sent.
        index: LogIndex,
        /// The first entry that is still there.
        first: LogIndex,
    },
    /// An entry of the log range can't be read here now. Repair it from a peer, or let another
    /// replica send.
    #[error("entry {index} of group {group} can't be sent: {reason}")]
    Unavailable {
        /// Whose entry.
        group: GroupId,
        /// Which entry.
        index: LogIndex,
        /// Why not.
        reason: String,
    },
    /// The caller's offset is not where the stream stands. Go on from `expected`.
    #[error("snapshot bytes came for offset {found}, expected {expected}")]
    WrongOffset {
        /// Where the stream stands.
        expected: u64,
        /// What the caller said.
        found: u64,
    },
    /// A value that the format doesn't hold.
    #[error("snapshot {what} is {value}, at most {limit} is allowed")]
    OverLimit {
        /// Which value.
        what: &'static str,
        /// The value.
        value: u64,
        /// The bound.
        limit: u64,
    },
    /// The bytes are sound but are not the snapshot that was announced.
    #[error("snapshot {path} is another one than announced: {found}, expected {expected}")]
    Unexpected {
        /// The file.
        path: String,
        /// What was announced.
        expected: String,
        /// What came.
        found: String,
    },
    /// There is no such file.
    #[error("there is no snapshot {path}")]
    Missing {
        /// The file.
        path: String,
    },
    /// The state store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl SnapshotError {
    /// Whether the same call may succeed later without anybody repairing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            SnapshotError::DiskFull { .. } => true,
            SnapshotError::Log(error) => error.is_retryable(),
            _ => false,
        }
    }

    pub(crate) fn io(path: &Path, error: &io::Error) -> SnapshotError {
        let path = path.display().to_string();
        if error.kind() == io::ErrorKind::NotFound {
            return SnapshotError::Missing { path };
        }
        SnapshotError::Io { path, reason: error.to_string() }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, reason: impl Into<String>) -> SnapshotError {
        SnapshotError::Damaged { path: path.display().to_string(), offset, reason: reason.into() }
    }

    pub(crate) fn decode(path: &Path, offset: u64, error: &DecodeError) -> SnapshotError {
        if error.is_newer_format() {
            return SnapshotError::NewerFormat {
                path: path.display().to_string(),
                reason: error.to_string(),
            };
        }
        SnapshotError::damaged(path, offset, error.to_string())
    }
}
