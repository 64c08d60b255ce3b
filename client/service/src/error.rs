//! The outcomes of what a client asks for: ok, failed, unknown.
//!
//! *Failed* means that it did not happen and will not. *Unknown* means that it may have happened
//! once, may still happen, or never will: the answer was lost. A caller that can't live with that
//! reads back what it wanted to change.

use fleetline_native::{HubError, ProtocolError};
use thiserror::Error;

use crate::options::OptionsError;

/// Why a request was not done, or may not have been.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The options can't work.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// No node could be asked in the time allowed; nothing was done.
    #[error("{what} was not done: {reason}")]
    Unreachable {
        /// What was asked for.
        what: &'static str,
        /// The last obstacle.
        reason: String,
    },
    /// A node answered with an error. Nothing was done, unless it says that it doesn't know.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The request was sent and no answer came.
    #[error("{what} may have been done: {reason}")]
    Unknown {
        /// What was asked for.
        what: &'static str,
        /// What happened to the answer.
        reason: String,
    },
    /// A node answered with something that is no answer; whether the request was done is unknown.
    #[error("a node broke the protocol: {0}")]
    Protocol(#[from] ProtocolError),
}

impl ClientError {
    /// Whether the request definitely did not happen.
    pub fn is_definite(&self) -> bool {
        match self {
            ClientError::Options(_) | ClientError::Unreachable { .. } => true,
            ClientError::Hub(error) => error.is_definite(),
            ClientError::Unknown { .. } | ClientError::Protocol(_) => false,
        }
    }
}

/// Why a record has no known place in its stream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// It was not stored and will not be.
    #[error("not stored: {0}")]
    Failed(String),
    /// It was sent and no answer came in time: it may be stored, once.
    #[error("may be stored: {0}")]
    Unknown(String),
}
