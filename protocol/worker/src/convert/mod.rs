//! The model as FunctionRpc messages, and back.
//!
//! To a worker (`to_worker`) the form of a value depends on the worker's [`Capabilities`]; from a worker
//! (`from_worker`) every form is understood. Definitions of functions (`metadata`) come from workers
//! and from `function.json`. Pure: no I/O, no clock.
//!
//! [`Capabilities`]: crate::Capabilities

mod from_worker;
mod metadata;
mod to_worker;

pub use from_worker::{error_of, invocation_result, log_line, value_from};
pub use metadata::{function_from, function_json, metadata_to};
pub use to_worker::{invocation_request, typed_data};

/// Why something that a worker sent has no meaning here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Data by reference to an SDK's own type, or in shared memory: never asked for by us.
    #[error("a value comes as {form}, which this host does not take")]
    Form {
        /// Which form.
        form: &'static str,
    },
    /// The status of a response isn't one.
    #[error("a response has the status {found:?}")]
    Status {
        /// What was found.
        found: String,
    },
    /// A binding can't be read.
    #[error("{0}")]
    Binding(#[from] crate::model::BindingError),
    /// Text that should be JSON isn't.
    #[error("{what} is not JSON: {reason}")]
    Json {
        /// What it is.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// A field of a definition has a value that isn't allowed.
    #[error("{what} is {found}")]
    Field {
        /// Which field.
        what: &'static str,
        /// What was found.
        found: String,
    },
}
