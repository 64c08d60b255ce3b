//! What can be wrong with messages and values.

use thiserror::Error;

/// A message from the peer is malformed or goes over a limit. Decoding can't go on behind it: the
/// connection ends, and the text may be told to the peer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Longer than [`crate::Limits::message_bytes_max`].
    #[error("the message has at least {bytes} bytes, at most {limit} are allowed")]
    TooLong {
        /// What is known of its length.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The length prefix goes on after its fifth byte, or over 31 bits.
    #[error("the length prefix of the message is not one")]
    BadPrefix,
    /// Deeper than [`crate::Limits::depth_max`].
    #[error("the message has more than {limit} levels")]
    TooDeep {
        /// The bound.
        limit: usize,
    },
    /// More of something than is allowed.
    #[error("the message has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// Not JSON, or a property has a wrong type.
    #[error("the message is not json of a hub message: {detail}")]
    BadJson {
        /// What the parser says: the place and what it expected, never the text.
        detail: String,
    },
    /// Not MessagePack, or a field has a wrong type.
    #[error("the message is not messagepack of a hub message: {what}")]
    BadMsgpack {
        /// What was expected.
        what: &'static str,
    },
    /// Bytes follow behind the message inside its frame.
    #[error("{count} bytes follow the message in its frame")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A field that the message type demands isn't there or is empty.
    #[error("{message} has no {what}")]
    Missing {
        /// The message type.
        message: &'static str,
        /// The field.
        what: &'static str,
    },
    /// A completion has both a result and an error.
    #[error("completion has both a result and an error")]
    ResultAndError,
    /// A completion is of a kind that isn't known.
    #[error("completion is of kind {kind}")]
    CompletionKind {
        /// The number.
        kind: u64,
    },
}

/// A value that one protocol can say can't be said in the other, or isn't a value at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Not JSON, a number beyond what a double holds, or a broken surrogate in a string.
    #[error("not json that can be read: {detail}")]
    BadJson {
        /// What the parser says: the place, never the text.
        detail: String,
    },
    /// Not one value of MessagePack.
    #[error("not messagepack: {what}")]
    BadMsgpack {
        /// What was expected.
        what: &'static str,
    },
    /// Deeper than [`crate::limits::DEPTH_MAX`].
    #[error("the value has more than {limit} levels")]
    TooDeep {
        /// The bound.
        limit: usize,
    },
    /// Arguments aren't an array.
    #[error("arguments are not an array")]
    NotArray,
    /// A key of a MessagePack map is neither a string nor a number.
    #[error("a key of a map is neither a string nor a number")]
    BadKey,
    /// An extension of MessagePack for which JSON has no form. Only timestamps have one.
    #[error("messagepack extension {kind} has no form in json")]
    Extension {
        /// Its number.
        kind: i8,
    },
    /// The message would be longer than a length prefix can say.
    #[error("the message would have {bytes} bytes, at most {limit} are possible")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
}
