//! Why a component can't be used. What goes wrong while one runs is a result of the invocation, see
//! `run.rs`.

use std::io;
use std::path::PathBuf;

/// Why the host or a component can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WasmError {
    /// An option has a value that can't be.
    #[error("option {option} of the wasm host is {found}, which it can't be")]
    Option {
        /// The option.
        option: &'static str,
        /// Its value.
        found: usize,
    },
    /// The engine can't start on this machine with these options.
    #[error("the wasm engine did not start: {0}")]
    Engine(String),
    /// The component doesn't compile, or isn't one.
    #[error("the component did not compile: {0}")]
    Compile(String),
    /// The component isn't a function: it exports or imports something else.
    #[error("the component is not a function: {0}")]
    World(String),
    /// A file is larger than it may be.
    #[error("{} has {found} bytes, more than {max}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The most that is read.
        max: u64,
    },
    /// A file can't be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A `function.json` that can't be used.
    #[error("{}: {reason}", path.display())]
    FunctionJson {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl WasmError {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::File { path, error }
    }
}
