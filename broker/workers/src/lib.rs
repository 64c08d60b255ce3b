//! Runs function apps in workers: processes of Python and Node, or whatever implements [`Worker`].
//!
//! The functions engine (`broker/functions`) holds a list of [`WorkerKind`]s, asks each whether it
//! fits an app's folder, starts the first that does, and sends invocations to the [`Worker`] that it
//! gets. It knows neither processes nor the worker protocol.
//!
//! ```text
//!   engine ── Worker::invoke ──► pool ──► session (table of calls) ── gRPC on loopback ──► launcher ──► app
//!                                  │          ▲                              ▲               (Python, Node)
//!                                  │        start (hello, init, load)       gate: id and secret, once
//!                                  └── restarts, process (user, limits, group), lines, memory
//! ```
//!
//! The launchers (`launchers/`) are ours, the libraries that apps are written for are the public ones,
//! unmodified; `setup.sh` installs them. Not here: triggers, bindings, retries, checkpoints.
//!
//! What a worker process can't do: read the node's environment, files of the node's user (when the node
//! is root), hold more memory than allowed, outlive the node, write logs without end. What it can: use the
//! network, and what every user of the machine can read.

mod gate;
mod host;
mod identity;
mod launchers;
mod lines;
mod memory;
mod options;
mod pool;
mod process;
mod restarts;
mod scan;
mod session;
mod start;
mod worker;

pub use host::Workers;
pub use options::{Limits, Options, Restarts, RunAs};
pub use worker::{AppFolder, LoadedFunction, LogSink, Worker, WorkerError, WorkerKind};
