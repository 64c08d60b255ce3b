//! The seam between the functions engine and what runs functions.
//!
//! Called by `broker/functions`; implemented by the Python and Node workers of this crate and by
//! `broker/wasm`. An invocation is *at most once* per call of [`Worker::invoke`]: whether to repeat
//! it is the engine's decision, and [`WorkerError::may_have_run`] says when it is safe.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fleetline_worker::{FunctionMetadata, Invocation, InvocationResult, LogLine};
use tokio::sync::watch;

/// A function app that lies on this node's disk.
#[derive(Debug, Clone)]
pub struct AppFolder {
    /// Folder with `host.json`; the working directory of a worker process.
    pub root: PathBuf,
    /// The app's settings; they become the environment of a worker process.
    pub settings: BTreeMap<String, String>,
    /// The content of `host.json`.
    pub host_json: serde_json::Value,
}

/// A function that a worker has tried to load.
#[derive(Debug, Clone)]
pub struct LoadedFunction {
    /// What it is.
    pub metadata: FunctionMetadata,
    /// Why it can't be invoked; the app's other functions can.
    pub load_error: Option<String>,
}

/// Why a worker didn't start or an invocation has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// The worker didn't start, or refused the app. Nothing ran.
    #[error("the {kind} worker did not start: {reason}")]
    NotStarted {
        /// Which kind of worker.
        kind: &'static str,
        /// What went wrong, for the app's owner.
        reason: String,
    },
    /// The worker ended while the invocation was with it. It may have run.
    #[error("the worker ended during the invocation: {reason}")]
    Exited {
        /// How it ended.
        reason: String,
    },
    /// The invocation took longer than its limit; its worker was ended. It may have run.
    #[error("the invocation took longer than {limit:?}")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The invocation never reached a worker: none is up, or all have what they can hold. It didn't
    /// run, so it can be sent again.
    #[error("the invocation was not sent: {reason}")]
    NotSent {
        /// Why.
        reason: String,
    },
    /// The worker can't do this: an unknown function, one that didn't load, a value that is too
    /// large. It didn't run, and sending it again changes nothing.
    #[error("the invocation was refused: {0}")]
    Refused(String),
}

impl WorkerError {
    /// Whether the function may have run, wholly or in part.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        matches!(self, Self::Exited { .. } | Self::TimedOut { .. })
    }

    /// Whether the same invocation may succeed later without a change of the app.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// An app that runs.
#[async_trait]
pub trait Worker: Send + Sync {
    /// Which kind it is: `python`, `node`, `wasm`.
    fn kind(&self) -> &'static str;

    /// The app's functions, those that didn't load among them.
    fn functions(&self) -> &[LoadedFunction];

    /// Runs a function and waits for its result, at most `limit`.
    ///
    /// Dropping the future gives the result up: the function goes on until it ends or its limit is
    /// over. A function that throws is a result ([`fleetline_worker::Outcome::Failure`]), not an error.
    async fn invoke(&self, invocation: Invocation, limit: Duration) -> Result<InvocationResult, WorkerError>;

    /// Becomes `Some(reason)` when the worker is gone for good: it was stopped, or it failed so often
    /// that it isn't started again. A single process that ends is replaced and doesn't show here.
    fn exited(&self) -> watch::Receiver<Option<String>>;

    /// Takes no more invocations, lets those that run end for at most `grace`, then ends the worker.
    async fn stop(&self, grace: Duration);
}

/// Takes the lines that functions and workers write.
pub trait LogSink: Send + Sync {
    /// Takes a line. Must not block: called from the task that reads the worker.
    fn log(&self, line: LogLine);
}

/// A way to run apps.
#[async_trait]
pub trait WorkerKind: Send + Sync {
    /// Its name: `python`, `node`, `wasm`.
    fn name(&self) -> &'static str;

    /// Whether the app in this folder is written for it.
    fn fits(&self, app: &AppFolder) -> bool;

    /// Starts the app and loads its functions.
    async fn start(&self, app: AppFolder, logs: Arc<dyn LogSink>) -> Result<Arc<dyn Worker>, WorkerError>;
}
