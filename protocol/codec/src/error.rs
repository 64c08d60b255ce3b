//! What can be wrong with bytes.

use thiserror::Error;

/// Bytes don't have the form that was asked for. `what` names the field in the words of the format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The input ends inside a field.
    #[error("{what} is cut short: {need} bytes needed, {have} left")]
    Truncated {
        /// The field.
        what: &'static str,
        /// Bytes that the field needs, at the least.
        need: usize,
        /// Bytes left in the input.
        have: usize,
    },
    /// A length, count or number is above its bound.
    #[error("{what} is {value}, at most {limit} is allowed")]
    OverLimit {
        /// The field.
        what: &'static str,
        /// What came.
        value: u64,
        /// The bound.
        limit: u64,
    },
    /// A varint is longer than ten bytes or its value needs more than 64 bits, or it isn't in its
    /// shortest form.
    #[error("{what} is not a varint in its shortest form")]
    BadVarint {
        /// The field.
        what: &'static str,
    },
    /// The input is something else.
    #[error("{what} begins with {found:#x}, expected {expected:#x}: not the format that was asked for")]
    BadMagic {
        /// The format.
        what: &'static str,
        /// The format's number.
        expected: u32,
        /// What came.
        found: u32,
    },
    /// The input was damaged on its way or on disk.
    #[error("{what} has checksum {found:#010x}, its bytes say {expected:#010x}: damaged")]
    BadChecksum {
        /// The format.
        what: &'static str,
        /// Checksum of the bytes as they came.
        expected: u32,
        /// Checksum stored beside them.
        found: u32,
    },
    /// The input was written by a newer release (or isn't what it seems).
    #[error("{what} has version {found}, this release knows up to {highest}: upgrade this node")]
    UnknownVersion {
        /// The format.
        what: &'static str,
        /// What came.
        found: u32,
        /// The highest version known here.
        highest: u32,
    },
    /// A kind number that this release gives no meaning.
    #[error("{what} is of kind {found}, which this release does not know: upgrade this node")]
    UnknownKind {
        /// The format.
        what: &'static str,
        /// What came.
        found: u32,
    },
    /// A field is well formed but can't be true.
    #[error("{what} is invalid: {reason}")]
    Invalid {
        /// The field.
        what: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// Bytes follow behind the end.
    #[error("{what} is followed by {count} bytes that do not belong to it")]
    Trailing {
        /// The format.
        what: &'static str,
        /// How many bytes.
        count: usize,
    },
}

impl DecodeError {
    /// Whether the writer seems to be a newer release, as opposed to damaged or hostile bytes.
    pub fn is_newer_format(&self) -> bool {
        matches!(self, DecodeError::UnknownVersion { .. } | DecodeError::UnknownKind { .. })
    }
}
