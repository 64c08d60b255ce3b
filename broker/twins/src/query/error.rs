//! Why a query is refused.

use thiserror::Error;

/// A query can't be answered. `at` is the place in the text in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QueryError {
    /// The text is longer than queries may be.
    #[error("the query is {found} bytes, at most {limit} are allowed")]
    TooLong {
        /// Its length.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// Parentheses and NOTs are nested too deep.
    #[error("the query is nested deeper than {limit} levels at {at}")]
    TooDeep {
        /// Where the limit was passed.
        at: usize,
        /// The limit.
        limit: usize,
    },
    /// The text isn't a query.
    #[error("expected {expected} at {at}, found {found}")]
    Syntax {
        /// Where.
        at: usize,
        /// What could have stood there.
        expected: &'static str,
        /// What stands there, shortened.
        found: String,
    },
    /// A string, number, quoted name or comment is malformed.
    #[error("{what} at {at} {reason}")]
    BadToken {
        /// Where it begins.
        at: usize,
        /// What it seems to be.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The language has it, but this hub doesn't answer it.
    #[error("{what} at {at} is not supported")]
    Unsupported {
        /// Where.
        at: usize,
        /// What, as it is called in the language.
        what: String,
    },
}

impl QueryError {
    /// The error number of the answer.
    pub fn code(&self) -> u32 {
        400_004
    }

    /// The name of [`QueryError::code`].
    pub fn name(&self) -> &'static str {
        "ArgumentInvalid"
    }
}
