//! What can be wrong with bytes, and what a peer is told.
//!
//! Two kinds that never mix: [`DecodeError`] says why bytes aren't AMQP, [`Error`] is the `error` that
//! travels in detach, end, close and rejected. [`Error::from`] maps the first to the second.

use std::borrow::Cow;

use crate::condition;

/// Why bytes aren't what the standard says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A value ends behind its container.
    #[error("value is cut off")]
    Truncated,
    /// No type has this constructor.
    #[error("unknown constructor {0:#04x}")]
    UnknownConstructor(u8),
    /// Values lie deeper in each other than [`crate::value::DEPTH_MAX`].
    #[error("values are nested too deep")]
    TooDeep,
    /// A string isn't UTF-8, a symbol isn't ASCII, a char isn't one.
    #[error("text in the wrong encoding")]
    BadText,
    /// A count that its bytes can't hold, or odd in a map.
    #[error("count {0} doesn't fit the bytes")]
    BadCount(u32),
    /// Bytes behind the last element.
    #[error("bytes behind the last element")]
    Trailing,
    /// A boolean is neither 0 nor 1.
    #[error("boolean of value {0}")]
    BadBool(u8),
    /// A field has another type than it must.
    #[error("field `{field}` has another type")]
    WrongType {
        /// Its name in the standard.
        field: &'static str,
    },
    /// A mandatory field is null or not there.
    #[error("field `{field}` is missing")]
    MissingField {
        /// Its name in the standard.
        field: &'static str,
    },
    /// A field has a value that it can't have.
    #[error("field `{field}` has a value that it can't have")]
    BadField {
        /// Its name in the standard.
        field: &'static str,
    },
    /// More fields than the type has.
    #[error("more fields than the type has")]
    TooManyFields,
    /// A descriptor that isn't due here.
    #[error("descriptor isn't due here")]
    UnknownDescriptor,
    /// Sections of a message are in the wrong order, or of two kinds of body.
    #[error("sections of the message are in the wrong order")]
    SectionOrder,
}

/// Why bytes aren't a frame that may come now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Below the eight bytes of a header, or above what was negotiated.
    #[error("frame of {0} bytes")]
    Size(u32),
    /// The data offset lies before the header's end or behind the frame's.
    #[error("data offset {0}")]
    Offset(u8),
    /// Neither an AMQP frame nor, while that is due, a SASL frame.
    #[error("frame type {0}")]
    Type(u8),
}

/// A value in an error's `info` map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Info {
    /// A string.
    Text(String),
    /// An unsigned number (uint).
    Number(u32),
}

/// The `error` type of the standard (2.8.14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// See [`crate::condition`].
    pub condition: Cow<'static, str>,
    /// For people.
    pub description: String,
    /// For programs; keys are symbols.
    pub info: Vec<(&'static str, Info)>,
}

impl Error {
    /// An error without `info`.
    pub fn new(condition: &'static str, description: impl Into<String>) -> Error {
        Error { condition: Cow::Borrowed(condition), description: description.into(), info: Vec::new() }
    }

    /// The same with one more piece of information.
    #[must_use]
    pub fn with(mut self, key: &'static str, info: Info) -> Error {
        self.info.push((key, info));
        self
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.condition, self.description)
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Error {
        let condition = match error {
            DecodeError::BadField { .. } | DecodeError::MissingField { .. } => condition::INVALID_FIELD,
            DecodeError::TooDeep => condition::RESOURCE_LIMIT_EXCEEDED,
            DecodeError::UnknownDescriptor => condition::NOT_IMPLEMENTED,
            _ => condition::DECODE_ERROR,
        };
        Error::new(condition, error.to_string())
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Error {
        Error::new(condition::FRAMING_ERROR, error.to_string())
    }
}
