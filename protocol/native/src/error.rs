//! What can go wrong: the outcomes of requests, and bytes that break the protocol.
//!
//! [`HubError`] is what a node answers; its wire form is in `error_map`. [`FrameError`] and
//! [`ProtocolError`] never cross the wire: the side that finds one closes the stream or connection.

use fleetline_types::{NodeId, Offset};
use thiserror::Error;

use crate::frame::FrameKind;

/// Why a request was not done (or may not have been).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HubError {
    /// Another node leads; ask there.
    #[error("node does not lead {what}, the leader is {leader:?}")]
    NotLeader {
        /// Which partition or group.
        what: String,
        /// The leader, when known.
        leader: Option<NodeId>,
    },
    /// There is no leader or no quorum now; nothing was done.
    #[error("{0} has no quorum now, nothing was done; try again")]
    Unavailable(String),
    /// A bound was reached; nothing was done.
    #[error("busy: {reason}; try again in {retry_after_ms} ms")]
    Busy {
        /// Which bound.
        reason: String,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The node's disk is at its reserve; nothing was done.
    #[error("disk full on the leader, nothing was stored: {0}")]
    DiskFull(String),
    /// The request was proposed and no answer came: it may have happened once, later, or never.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// No such partition, group, member or node.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The offset was removed by retention.
    #[error("offset {asked} is gone, the stream now starts at {start}")]
    OffsetGone {
        /// What was asked for.
        asked: Offset,
        /// Where the stream begins now.
        start: Offset,
    },
    /// The offset lies behind the end.
    #[error("offset {asked} is behind the end of the stream, which is {end}")]
    OffsetBeyondEnd {
        /// What was asked for.
        asked: Offset,
        /// One behind the last committed record.
        end: Offset,
    },
    /// A newer epoch exists: this producer, member or owner is no longer valid.
    #[error("fenced: {what} has epoch {current}, the request carries {given}")]
    Fenced {
        /// Who.
        what: String,
        /// The epoch that is valid.
        current: u64,
        /// The epoch that came.
        given: u64,
    },
    /// A producer left out a sequence number, or repeats one too old to be known.
    #[error("sequence {given} of the producer is out of order, {expected} was expected")]
    OutOfSequence {
        /// What was expected.
        expected: u64,
        /// What came.
        given: u64,
    },
    /// The bytes or values of the request are wrong.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The caller may not do this.
    #[error("not permitted: {0}")]
    Forbidden(String),
    /// A bug or a broken disk on the node.
    #[error("internal error: {0}")]
    Internal(String),
}

impl HubError {
    /// Whether the request definitely did not happen.
    pub fn is_definite(&self) -> bool {
        !matches!(self, HubError::Unknown(_) | HubError::Internal(_))
    }

    /// Whether the same request may succeed on this or another node.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            HubError::NotLeader { .. }
                | HubError::Unavailable(_)
                | HubError::Busy { .. }
                | HubError::DiskFull(_)
                | HubError::Unknown(_)
        )
    }
}

/// Bytes that are not a frame of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length leaves no room for kind and head length.
    #[error("frame length {len} is too short, the least is 5")]
    TooShort {
        /// What came.
        len: usize,
    },
    /// The length is beyond what this side takes.
    #[error("frame length {len} is beyond the limit of {max} bytes")]
    TooLong {
        /// What came.
        len: usize,
        /// What is taken.
        max: usize,
    },
    /// A kind that this version doesn't know.
    #[error("frame kind {code:#04x} is unknown")]
    UnknownKind {
        /// What came.
        code: u8,
    },
    /// The head is longer than its frame or than the limit.
    #[error("head length {head_len} of a {kind:?} frame is beyond {max} bytes")]
    BadHeadLength {
        /// Kind of the frame.
        kind: FrameKind,
        /// What came.
        head_len: usize,
        /// What the frame and the limit leave.
        max: usize,
    },
    /// The head does not decode.
    #[error("head of a {kind:?} frame does not decode: {reason}")]
    BadHead {
        /// Kind of the frame.
        kind: FrameKind,
        /// What the decoder says.
        reason: String,
    },
}

/// A well-formed frame that is wrong at its place, or holds values that can't be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A kind that may not come here.
    #[error("a {found:?} frame came where {expected} was expected")]
    UnexpectedFrame {
        /// What may come here.
        expected: &'static str,
        /// What came.
        found: FrameKind,
    },
    /// The stream ended where it may not.
    #[error("the stream ended where {expected} was expected")]
    UnexpectedEnd {
        /// What was expected.
        expected: &'static str,
    },
    /// A field that must be there is not (or holds something that this version doesn't know).
    #[error("{what} is missing or unknown")]
    Missing {
        /// Which field.
        what: &'static str,
    },
    /// A value is outside its bounds.
    #[error("{what} has {found}, the limit is {max}")]
    OverLimit {
        /// Which value.
        what: &'static str,
        /// What came.
        found: u64,
        /// What is taken.
        max: u64,
    },
}
