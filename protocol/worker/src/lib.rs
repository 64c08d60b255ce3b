//! What the functions host and its workers say to each other.
//!
//! `model` is the engine's view: functions, invocations, values. `rpc` holds the messages of the
//! FunctionRpc protocol that Python and Node workers speak, compiled from `proto/worker.proto`, and
//! `convert` turns one into the other as the worker's capabilities ask for.
//!
//! No sockets and no processes here; those are in `broker/workers`.

mod capabilities;
pub mod convert;
pub mod model;
pub mod rpc;

pub use capabilities::Capabilities;
pub use model::*;
