//! Runs function apps in workers: processes of Python and Node, or whatever implements [`Worker`].
//!
//! The functions engine (`broker/functions`) holds a list of [`WorkerKind`]s, asks each whether it
//! fits an app's folder, starts the first that does, and sends invocations to the [`Worker`] that it
//! gets. It knows neither processes nor the worker protocol.

mod worker;

pub use worker::{AppFolder, LoadedFunction, LogSink, Worker, WorkerError, WorkerKind};
