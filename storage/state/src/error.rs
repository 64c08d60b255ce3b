//! What can go wrong in the keyed state.

use thiserror::Error;

/// An error of the state store. All of them stop the node: replicated state that can't be read or
/// written must not be guessed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StateError {
    /// The store failed underneath.
    #[error("state store failed: {0}")]
    Store(String),
    /// A row doesn't have the form that its kind demands.
    #[error("state row of kind {kind} is malformed: {reason}")]
    Malformed {
        /// The row's kind byte.
        kind: u8,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has the folder open.
    #[error("state folder {0} is in use by another process")]
    InUse(String),
}
