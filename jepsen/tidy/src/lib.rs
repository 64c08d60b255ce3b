//! Checks of the source itself: what the compiler and clippy don't see, but a reviewer would.
//!
//! Run by `tests/tree.rs` on the whole tree, with every other test. Each rule is a function from the
//! text of a file (or manifest) to problems, and has a test that shows it can fail:
//!
//! - [`source`]: module headers, file size, leftovers, and what deterministic code may not call.
//! - [`manifest`]: arrows between crates point downward; licence and lints are the workspace's.
//! - [`links`]: relative links in documents lead somewhere.
//!
//! Not here: format and style, which rustfmt and clippy decide.
#![deny(missing_docs)]

pub mod links;
pub mod manifest;
pub mod source;
pub mod tree;

use std::fmt;

/// Something that is not tidy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, relative to the root of the tree.
    pub path: String,
    /// The line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Problem {
        Problem { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}
