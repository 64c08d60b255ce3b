//! Snapshots: what a replica needs to start, as one stream of bytes that is checked to the last bit.
//!
//! A snapshot of a group is its state rows plus the retained part of its log up to the entry that
//! the rows reflect (the log is the stream, so its history is data). The leader writes the rows to
//! a file once; the log part is read from the log while it is sent. The receiver stages the
//! stream, verifies the whole, renames it, and only then touches state and log.
//!
//! Called by `raft/group` (build, install) and `raft/driver` (transfer). It calls `storage/env`,
//! `storage/log` and `storage/state`. All calls may block on the disk.
//!
//! ```text
//!   sender                                         receiver
//!   write_state ─► g7.state                        begin ─► g7.staging, resume offset
//!   source ──────► rows from g7.state              write ─► appended in order
//!                  entries from the log   ─bytes─► finish ─► sync, verify all, rename to g7.install
//!                  trailer                         install ─► rows, flush, log, then remove the file
//! ```
//!
//! The bytes of a snapshot are a pure function of its state file and the log range that its header
//! fixes (`first_retained ..= last.index`; frames end by a rule that looks only at entries). So a
//! transfer resumes at any offset, on any later connection, also after either side restarted. When
//! retention has removed a part of the range meanwhile, the source answers
//! [`SnapshotError::Gone`] and a new snapshot is made.
//!
//! Invariants:
//! 1. A file named `.state` or `.install` was complete and synced before it got the name, and a
//!    `.install` file was read back and verified too.
//! 2. While `g7.install` exists, group 7 on this node is what that file says and nothing else: it
//!    must be installed (again) before the group runs. Doing it again gives the same result.
//! 3. No length is believed before it is bounded; memory is bounded by one frame.
//!
//! Not here: when to make a snapshot, the messages that carry the bytes, what rows and entries mean.
#![deny(missing_docs)]

mod dir;
mod error;
mod format;
mod install;
mod source;
mod staging;
mod walk;

pub use dir::{SnapshotDir, SnapshotOptions};
pub use error::SnapshotError;
pub use format::{
    CHUNK_BYTES, ENTRY_BYTES_MAX, FRAME_BYTES_MAX, ID_BYTES_MAX, MEMBERSHIP_BYTES_MAX, ROW_BYTES_MAX,
    SnapshotMeta,
};
pub use source::{Piece, SnapshotSource};
pub use staging::Staging;
pub use walk::{Chunk, Part, SnapshotReader};
