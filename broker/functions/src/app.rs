//! One app on one node: its functions, and the worker that runs them while there is something to do.
//!
//! ```text
//!   none ──first invocation──► starting ──► up ──idle, or a new revision──► none
//!                                 │          └─worker gone─► none, with a wait that grows
//!                                 └─failed─► none, with a wait that grows
//! ```
//!
//! Invariants:
//! 1. At most one worker of a revision runs on a node, and at most `concurrency` invocations are with it.
//! 2. An invocation id is with the worker once at a time, also when whoever asked has gone: an answer to an
//!    earlier call can't be taken for that to a later one.
//! 3. A worker is stopped only when nothing runs in it, except when the app is removed or replaced.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fleetline_worker::{Invocation, InvocationResult, LogLevel, LogLine};
use fleetline_workers::{AppFolder, LogSink, Worker, WorkerError, WorkerKind};
use parking_lot::{Mutex, RwLock};
use serde_json::Value as Json;
use tokio::sync::Semaphore;

use crate::core::{Backoff, Core};
use crate::error::FunctionsError;
use crate::host_json::HostJson;
use crate::manifest::Keys;
use crate::spec::FunctionSpec;
use crate::store::{self, BlobRef};
use crate::stored::StoredApp;

/// Starts of a worker that fail one after the other until a node leaves the app's work to others …
const FAILED_STARTS_MAX: u32 = 3;
/// … for so long.
const STAND_DOWN: Duration = Duration::from_secs(60);

/// Where an app's files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The cluster's storage.
    Stored(BlobRef),
    /// A folder of this machine, for local development.
    Folder(PathBuf),
}

/// What an app is made of.
pub(crate) struct AppParts {
    pub(crate) name: String,
    pub(crate) revision: String,
    pub(crate) version: u64,
    /// The kind of worker that runs it.
    pub(crate) kind: String,
    pub(crate) source: Source,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) stored: StoredApp,
    pub(crate) disabled: std::collections::BTreeSet<String>,
    pub(crate) keys: Keys,
}

/// A worker that is up.
struct Up {
    worker: Arc<dyn Worker>,
    /// Function by name: the worker's id for it, or why it didn't load.
    functions: HashMap<String, Result<String, String>>,
}

struct Slot {
    up: Option<Arc<Up>>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

/// See the module's header.
pub(crate) struct App {
    pub(crate) core: Arc<Core>,
    pub(crate) name: String,
    pub(crate) revision: String,
    pub(crate) version: u64,
    pub(crate) kind: String,
    pub(crate) host: HostJson,
    pub(crate) functions: Vec<Arc<FunctionSpec>>,
    pub(crate) keys: RwLock<Keys>,
    source: Source,
    settings: BTreeMap<String, String>,
    host_json: Json,
    slot: tokio::sync::Mutex<Slot>,
    permits: Semaphore,
    /// HTTP requests that run or wait.
    pub(crate) outstanding: AtomicUsize,
    /// Invocations that a worker has, with their functions.
    running: Arc<Mutex<HashMap<String, String>>>,
    last_used: Mutex<Instant>,
    cold_starts: AtomicU64,
    /// Starts that failed one after the other, and when the last one did.
    failed_starts: Mutex<(u32, Option<Instant>)>,
    /// The worker as people see it.
    state: Mutex<String>,
}

/// Keeps an invocation's id while a worker has it.
struct Running {
    all: Arc<Mutex<HashMap<String, String>>>,
    id: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}

/// Takes the lines of an app's worker.
struct Sink {
    core: Arc<Core>,
    app: String,
    running: Arc<Mutex<HashMap<String, String>>>,
}

impl LogSink for Sink {
    fn log(&self, line: LogLine) {
        let running = line.invocation.as_ref().and_then(|id| self.running.lock().get(id).cloned());
        self.core.log(&self.app, &running.unwrap_or_default(), line);
    }
}

impl App {
    pub(crate) fn new(core: Arc<Core>, parts: AppParts) -> Arc<App> {
        let AppParts { name, revision, version, kind, source, settings, stored, disabled, keys } = parts;
        let host = HostJson::read(&stored.host, &core.options);
        let read = |(metadata, error): (fleetline_worker::FunctionMetadata, Option<String>)| {
            let is_off = disabled.contains(&metadata.name);
            Arc::new(FunctionSpec::read(metadata, error, &settings, is_off))
        };
        let functions = stored.functions().into_iter().map(read).collect();
        let concurrency = core.options.concurrency.max(1);
        Arc::new(App {
            functions,
            host,
            revision,
            version,
            kind,
            source,
            settings,
            host_json: stored.host,
            keys: RwLock::new(keys),
            slot: tokio::sync::Mutex::new(Slot { up: None, backoff: core.backoff(), not_before: None }),
            permits: Semaphore::new(concurrency),
            outstanding: AtomicUsize::new(0),
            running: Arc::default(),
            last_used: Mutex::new(Instant::now()),
            cold_starts: AtomicU64::new(0),
            failed_starts: Mutex::default(),
            state: Mutex::new("stopped".to_owned()),
            name,
            core,
        })
    }

    pub(crate) fn function(&self, name: &str) -> Option<&Arc<FunctionSpec>> {
        self.functions.iter().find(|function| function.name.eq_ignore_ascii_case(name))
    }

    /// The worker's state for people, cold starts, and running invocations.
    pub(crate) fn worker_state(&self) -> (String, u64, usize) {
        let cold = self.cold_starts.load(Ordering::Relaxed);
        (self.state.lock().clone(), cold, self.running.lock().len())
    }

    /// Whether this node should leave the app's work to others for now: it has no such workers, or they
    /// don't start here.
    pub(crate) fn is_unable(&self) -> bool {
        if self.core.kinds.iter().all(|kind| kind.name() != self.kind) {
            return true;
        }
        let (count, last) = *self.failed_starts.lock();
        count >= FAILED_STARTS_MAX && last.is_some_and(|last| last.elapsed() < STAND_DOWN)
    }

    /// Whether its worker keeps state for it (`broker/wasm`).
    pub(crate) fn keeps_state(&self) -> bool {
        self.kind == "wasm"
    }

    /// Runs a function once. Waits for a place and, when there is none, for a worker.
    pub(crate) async fn invoke(
        self: &Arc<Self>,
        spec: &FunctionSpec,
        mut invocation: Invocation,
    ) -> Result<InvocationResult, WorkerError> {
        let not_sent = |reason: &str| WorkerError::NotSent { reason: reason.to_owned() };
        let _permit = self.permits.acquire().await.map_err(|_| not_sent("the app ends"))?;
        let running = self.enter(&invocation.id, &spec.name)?;
        *self.last_used.lock() = Instant::now();
        let up = self.ensure().await?;
        invocation.function = match up.functions.get(&spec.name) {
            Some(Ok(id)) => id.clone(),
            Some(Err(error)) => return Err(WorkerError::Refused(error.clone())),
            None => return Err(WorkerError::Refused(format!("the app has no function {}", spec.name))),
        };
        let limit = self.host.function_timeout;
        let started = Instant::now();
        // In a task of its own: when the caller goes, the id stays taken until the worker is done.
        let call = tokio::spawn(async move {
            let _running = running;
            up.worker.invoke(invocation, limit).await
        });
        let outcome = match call.await {
            Ok(outcome) => outcome,
            Err(error) => Err(WorkerError::Exited { reason: error.to_string() }),
        };
        *self.last_used.lock() = Instant::now();
        if !matches!(outcome, Err(WorkerError::NotSent { .. } | WorkerError::Refused(_))) {
            self.core.stats(&self.name, &spec.name).invoked(started.elapsed(), self.core.now_ms());
        }
        outcome
    }

    /// Takes an invocation's id.
    fn enter(&self, id: &str, function: &str) -> Result<Running, WorkerError> {
        let mut all = self.running.lock();
        if let Some(before) = all.get(id) {
            let reason = format!("an earlier call of {before} with the same id still runs");
            return Err(WorkerError::NotSent { reason });
        }
        all.insert(id.to_owned(), function.to_owned());
        Ok(Running { all: self.running.clone(), id: id.to_owned() })
    }

    /// The worker; starts it when there is none.
    async fn ensure(self: &Arc<Self>) -> Result<Arc<Up>, WorkerError> {
        let mut slot = self.slot.lock().await;
        if let Some(up) = &slot.up {
            let gone = up.worker.exited().borrow().clone();
            match gone {
                None => return Ok(up.clone()),
                Some(reason) => {
                    self.core.say(&self.name, "", LogLevel::Error, format!("the worker has ended: {reason}"));
                    slot.up = None;
                    self.set_failed(&mut slot, &reason);
                }
            }
        }
        if let Some(wait) = slot.not_before.and_then(|at| at.checked_duration_since(Instant::now())) {
            let reason = format!("the worker is started again in {} ms", wait.as_millis());
            return Err(WorkerError::NotSent { reason });
        }
        "starting".clone_into(&mut self.state.lock());
        let started = Instant::now();
        let outcome = match self.start().await {
            Ok(worker) => {
                let functions = worker.functions().iter().map(|loaded| {
                    let id = loaded.load_error.clone().map_or(Ok(loaded.metadata.id.clone()), Err);
                    (loaded.metadata.name.clone(), id)
                });
                let up = Arc::new(Up { functions: functions.collect(), worker });
                slot.up = Some(up.clone());
                slot.backoff.reset();
                *self.failed_starts.lock() = (0, None);
                slot.not_before = None;
                "running".clone_into(&mut self.state.lock());
                Ok(up)
            }
            Err(error) => {
                self.core.say(&self.name, "", LogLevel::Error, error.to_string());
                self.set_failed(&mut slot, &error.to_string());
                let mut failed = self.failed_starts.lock();
                *failed = (failed.0 + 1, Some(Instant::now()));
                Err(error)
            }
        };
        self.cold_starts.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("fleetline_function_cold_starts_total", "app" => self.name.clone()).increment(1);
        metrics::histogram!("fleetline_function_cold_start_seconds", "app" => self.name.clone())
            .record(started.elapsed().as_secs_f64());
        outcome
    }

    fn set_failed(&self, slot: &mut Slot, reason: &str) {
        slot.not_before = Some(Instant::now() + slot.backoff.next());
        let reason: String = reason.chars().take(300).collect();
        *self.state.lock() = format!("failed: {reason}");
    }

    async fn start(&self) -> Result<Arc<dyn Worker>, WorkerError> {
        let failed = |reason: String| WorkerError::NotStarted { kind: "function", reason };
        let root =
            folder(&self.core, &self.name, &self.source).await.map_err(|error| failed(error.to_string()))?;
        let app = AppFolder { root, settings: self.settings.clone(), host_json: self.host_json.clone() };
        let kind = self.core.kinds.iter().find(|kind| kind.name() == self.kind);
        let kind = kind.ok_or_else(|| failed(format!("this node has no workers of kind {}", self.kind)))?;
        kind.start(app, self.sink()).await
    }

    fn sink(&self) -> Arc<dyn LogSink> {
        Arc::new(Sink { core: self.core.clone(), app: self.name.clone(), running: self.running.clone() })
    }

    /// Stops the worker when it had nothing to do for long enough; called now and then.
    pub(crate) async fn rest(&self) {
        let is_idle = || {
            self.running.lock().is_empty() && self.last_used.lock().elapsed() >= self.core.options.idle_stop
        };
        if !is_idle() {
            return;
        }
        // Whoever starts an invocation now waits for the lock, or has been seen as running.
        let mut slot = self.slot.lock().await;
        if !is_idle() {
            return;
        }
        if let Some(up) = slot.up.take() {
            "stopped".clone_into(&mut self.state.lock());
            drop(slot);
            self.core.say(
                &self.name,
                "",
                LogLevel::Information,
                "the worker had nothing to do and was stopped",
            );
            up.worker.stop(self.core.options.stop_grace).await;
        }
    }

    /// Ends the worker: the app is removed or replaced.
    pub(crate) async fn stop(&self) {
        self.permits.close();
        let up = self.slot.lock().await.up.take();
        if let Some(up) = up {
            up.worker.stop(self.core.options.stop_grace).await;
        }
        "stopped".clone_into(&mut self.state.lock());
    }
}

/// The app's files on this node; fetched and unpacked when they aren't there.
async fn folder(core: &Arc<Core>, app: &str, source: &Source) -> Result<PathBuf, FunctionsError> {
    let blob = match source {
        Source::Folder(path) => return Ok(path.clone()),
        Source::Stored(blob) => blob,
    };
    let folder = core.options.scratch.join("apps").join(&blob.sha256);
    if tokio::fs::try_exists(&folder).await? {
        return Ok(folder);
    }
    let bytes = store::get(core.devices.as_ref(), app, blob).await?;
    unpack(core, bytes, folder.clone()).await?;
    Ok(folder)
}

/// Unpacks on a thread for blocking work.
pub(crate) async fn unpack(
    core: &Arc<Core>,
    bytes: bytes::Bytes,
    folder: PathBuf,
) -> Result<(), FunctionsError> {
    let options = core.options.clone();
    let unpacking = tokio::task::spawn_blocking(move || crate::archive::unpack(&bytes, &folder, &options));
    unpacking.await.map_err(|error| FunctionsError::Disk(error.to_string()))?
}

/// Reads `host.json`; an app without one has the defaults.
pub(crate) async fn host_json(root: &std::path::Path) -> Result<Json, FunctionsError> {
    match tokio::fs::read(root.join("host.json")).await {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|error| FunctionsError::Invalid(format!("host.json can't be read: {error}"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Json::Object(serde_json::Map::new()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Finds out what functions an app has: starts its worker once, and stops it.
pub(crate) async fn index(
    core: &Arc<Core>,
    app: &str,
    root: PathBuf,
    settings: BTreeMap<String, String>,
) -> Result<(String, StoredApp), FunctionsError> {
    let host_json = host_json(&root).await?;
    let folder = AppFolder { root, settings, host_json: host_json.clone() };
    let kind: Arc<dyn WorkerKind> =
        core.kinds.iter().find(|kind| kind.fits(&folder)).cloned().ok_or_else(|| {
            let names: Vec<&str> = core.kinds.iter().map(|kind| kind.name()).collect();
            FunctionsError::Invalid(format!(
                "the app is for none of the workers of this node ({}): has it function_app.py, package.json, \
             function.wasm or function.json at its top?",
                names.join(", ")
            ))
        })?;
    let sink: Arc<dyn LogSink> =
        Arc::new(Sink { core: core.clone(), app: app.to_owned(), running: Arc::default() });
    let worker = kind.start(folder, sink).await?;
    let stored = StoredApp::new(host_json, worker.functions());
    worker.stop(Duration::ZERO).await;
    Ok((kind.name().to_owned(), stored?))
}
