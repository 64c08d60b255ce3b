//! Why a command was refused. A refusal is a reply: it is the same on every replica.

use thiserror::Error;

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// A newer epoch exists.
    #[error("{what} has epoch {current}, the command carries {given}")]
    Fenced {
        /// Who is fenced.
        what: String,
        /// The epoch that is valid.
        current: u64,
        /// The epoch that came.
        given: u64,
    },
    /// A producer left out a sequence number, or repeats one too old to be known.
    #[error("sequence {given} is out of order, {expected} was expected")]
    OutOfSequence {
        /// What was expected.
        expected: u64,
        /// What came.
        given: u64,
    },
    /// No such consumer group or member.
    #[error("{0} does not exist")]
    NotFound(String),
    /// A value makes no sense here.
    #[error("invalid: {0}")]
    Invalid(String),
    /// A bound is reached.
    #[error("limit reached: {0}")]
    Limit(String),
}
