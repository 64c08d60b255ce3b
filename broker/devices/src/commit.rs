//! The commit of a function: a consumer group's checkpoint and the changes that processing caused, in
//! one entry.
//!
//! ```text
//! entry head = 0x41, version u8 = 1     entry body = Commit (prost)
//! ```
//!
//! The checkpoint is judged first (`broker/streams`): from an owner that isn't the newest any more, or
//! for records that were checkpointed before, the whole commit is refused and nothing is changed. So
//! what it changes happens exactly once for each record, whatever fails and is tried again. One change
//! that is refused for itself (a device that isn't there) doesn't keep the others back, as in a bulk.

use bytes::Bytes;
use fleetline_codec::DecodeError;
use prost::Message;

use crate::command::{Bulk, DeviceCommand, DeviceReply, Op};
use crate::error::DeviceError;
use crate::limits;

/// The first byte of the head of an entry that holds a commit.
pub const COMMIT_HEAD_KIND: u8 = 0x41;
const VERSION: u8 = 1;

/// Checkpoint and changes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Commit {
    /// The consumer group.
    #[prost(string, tag = "1")]
    pub group: String,
    /// The epoch of the owner's claim.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// The checkpoint as it must be (`first` record of what was processed); a commit for records that are
    /// checkpointed already is refused.
    #[prost(uint64, tag = "3")]
    pub first: u64,
    /// The first record not yet processed.
    #[prost(uint64, tag = "4")]
    pub next: u64,
    /// Changes, in order.
    #[prost(message, required, tag = "5")]
    pub changes: Bulk,
    /// The proposing leader's time.
    #[prost(uint64, tag = "6")]
    pub now_ms: u64,
}

impl Commit {
    /// The stored form: head and body of an entry.
    pub fn encode_entry(&self) -> (Bytes, Bytes) {
        (Bytes::from_static(&[COMMIT_HEAD_KIND, VERSION]), self.encode_to_vec().into())
    }

    /// Whether an entry with this head holds a commit.
    pub fn is_head(head: &[u8]) -> bool {
        head.first() == Some(&COMMIT_HEAD_KIND)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// For a version or a change that this release doesn't know, and for bytes of another form.
    pub fn decode_entry(head: &[u8], body: &[u8]) -> Result<Commit, DecodeError> {
        match head {
            [COMMIT_HEAD_KIND, VERSION] => {}
            [COMMIT_HEAD_KIND, found, ..] => {
                let found = u32::from(*found);
                return Err(DecodeError::UnknownVersion { what: "commit", found, highest: VERSION.into() });
            }
            _ => return Err(DecodeError::Invalid { what: "commit", reason: "of another kind" }),
        }
        let commit =
            Commit::decode(body).map_err(|_| DecodeError::Invalid { what: "commit", reason: "malformed" })?;
        match commit.changes.ops.iter().all(|item| item.op.is_some()) {
            true => Ok(commit),
            // A later release's operation: skipping it would make replicas differ.
            false => Err(DecodeError::UnknownKind { what: "device command", found: 0 }),
        }
    }

    /// Its changes as a command.
    pub fn command(&self) -> DeviceCommand {
        DeviceCommand { now_ms: self.now_ms, op: Some(Op::Bulk(self.changes.clone())) }
    }

    /// Checks bounds that don't depend on state.
    ///
    /// # Errors
    /// What is out of bounds.
    pub fn check(&self) -> Result<(), DeviceError> {
        let bytes = self.encoded_len();
        if bytes > limits::COMMIT_BYTES_MAX {
            let text =
                format!("a commit has {bytes} bytes, at most {} are allowed", limits::COMMIT_BYTES_MAX);
            return Err(DeviceError::TooLarge(text));
        }
        if self.next < self.first {
            return Err(DeviceError::invalid("a commit that goes back"));
        }
        self.command().check()
    }
}

/// What a commit answers.
#[derive(Clone, PartialEq, Message)]
pub struct CommitReply {
    /// What the stream answered to the checkpoint, in its own stored form; when that is a refusal,
    /// nothing was changed.
    #[prost(bytes = "bytes", tag = "1")]
    pub stream: Bytes,
    /// What each change answered.
    #[prost(message, optional, tag = "2")]
    pub changes: Option<DeviceReply>,
}
