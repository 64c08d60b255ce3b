//! The worker: an app of WASM functions inside the node, behind the seam of `broker/workers`.
//!
//! The functions engine asks [`WasmKind`] whether an app fits and starts it; each function's component is
//! made ready then, so that an invocation needs an instance only. An app's worker has no process that can
//! end: it is there until it is stopped.
//!
//! Invariants:
//! 1. An invocation that is refused or not sent didn't run; one that timed out may have run, and has no
//!    effects here: effects leave a component only as its result.
//! 2. When [`Worker::invoke`]'s future is dropped, the component stops at the next tick.
//! 3. After [`Worker::stop`] nothing of the app runs.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fleetline_worker::{FunctionMetadata, Invocation, InvocationResult, Outcome, Value};
use fleetline_workers::{AppFolder, LoadedFunction, LogSink, Worker, WorkerError, WorkerKind};
use tokio::sync::{Semaphore, watch};

use crate::app;
use crate::batch::{TriggerKind, batch};
use crate::call::{Call, Frame, Log};
use crate::effects::{Outputs, Produced, produce};
use crate::host::{Prepared, WasmHost};
use crate::run::{Ended, failure, prime, run};
use crate::state::{STATE, State};

/// Name of the kind.
const KIND: &str = "wasm";
/// The setting with which an app says what runs it (`functions.md` §5).
const RUNTIME_SETTING: &str = "FUNCTIONS_WORKER_RUNTIME";

/// Runs apps whose functions are WebAssembly components.
#[derive(Debug, Clone)]
pub struct WasmKind {
    host: Arc<WasmHost>,
}

impl WasmKind {
    /// Runs apps with `host`.
    #[must_use]
    pub fn new(host: Arc<WasmHost>) -> Self {
        Self { host }
    }
}

#[async_trait]
impl WorkerKind for WasmKind {
    fn name(&self) -> &'static str {
        KIND
    }

    fn fits(&self, app: &AppFolder) -> bool {
        match app.settings.get(RUNTIME_SETTING) {
            Some(runtime) => runtime.eq_ignore_ascii_case(KIND),
            None => app::has_components(&app.root),
        }
    }

    async fn start(&self, app: AppFolder, logs: Arc<dyn LogSink>) -> Result<Arc<dyn Worker>, WorkerError> {
        let host = self.host.clone();
        let not_started = |reason: String| WorkerError::NotStarted { kind: KIND, reason };
        let loading = tokio::task::spawn_blocking(move || WasmWorker::load(host, app, logs));
        match loading.await {
            Ok(Ok(worker)) => Ok(Arc::new(worker)),
            Ok(Err(reason)) => Err(not_started(reason)),
            Err(error) => Err(not_started(error.to_string())),
        }
    }
}

/// A function that can be invoked.
struct Ready {
    metadata: FunctionMetadata,
    trigger: usize,
    kind: TriggerKind,
    outputs: Outputs,
    prepared: Prepared,
}

/// An app that runs in this process.
struct WasmWorker {
    host: Arc<WasmHost>,
    functions: Vec<LoadedFunction>,
    ready: HashMap<String, Arc<Ready>>,
    settings: Arc<BTreeMap<String, String>>,
    logs: Arc<dyn LogSink>,
    /// One permit for each invocation that is with the worker.
    places: Arc<Semaphore>,
    places_count: u32,
    is_stopping: AtomicBool,
    /// Stops every component of the app.
    ends: Arc<AtomicBool>,
    exited: watch::Sender<Option<String>>,
}

impl WasmWorker {
    /// Reads the app and makes its components ready. For blocking threads.
    fn load(host: Arc<WasmHost>, app: AppFolder, logs: Arc<dyn LogSink>) -> Result<Self, String> {
        let found = app::functions(&app.root).map_err(|error| error.to_string())?;
        if found.is_empty() {
            return Err(format!("{} has no function with a component", app.root.display()));
        }
        let settings = Arc::new(app.settings);
        let mut components =
            Components { host: &host, logs: &logs, settings: &settings, by_path: HashMap::new() };
        let (mut functions, mut ready) = (Vec::new(), HashMap::new());
        for found in found {
            let loaded = found
                .script
                .and_then(|path| Ready::new(&found.metadata, &settings, || components.prepared(path)));
            let load_error = loaded.as_ref().err().cloned();
            if let Ok(loaded) = loaded {
                ready.insert(found.metadata.id.clone(), Arc::new(loaded));
            }
            functions.push(LoadedFunction { metadata: found.metadata, load_error });
        }
        let places_count = (host.options().running_max + host.options().waiting_max) as u32;
        Ok(Self {
            host,
            functions,
            ready,
            settings,
            logs,
            places: Arc::new(Semaphore::new(places_count as usize)),
            places_count,
            is_stopping: AtomicBool::new(false),
            ends: Arc::new(AtomicBool::new(false)),
            exited: watch::Sender::new(None),
        })
    }

    fn ready(&self, id: &str) -> Result<Arc<Ready>, WorkerError> {
        if let Some(ready) = self.ready.get(id) {
            return Ok(ready.clone());
        }
        let known = self.functions.iter().find(|function| function.metadata.id == id);
        let reason = match known.and_then(|function| function.load_error.as_deref()) {
            Some(error) => format!("function {id} did not load: {error}"),
            None => format!("there is no function {id}"),
        };
        Err(WorkerError::Refused(reason))
    }
}

/// Components of an app; functions may share one.
struct Components<'a> {
    host: &'a WasmHost,
    logs: &'a Arc<dyn LogSink>,
    settings: &'a Arc<BTreeMap<String, String>>,
    by_path: HashMap<PathBuf, Result<Prepared, String>>,
}

impl Components<'_> {
    fn prepared(&mut self, path: PathBuf) -> Result<Prepared, String> {
        if let Some(known) = self.by_path.get(&path) {
            return known.clone();
        }
        let made = self.made(&path);
        self.by_path.insert(path, made.clone());
        made
    }

    fn made(&self, path: &Path) -> Result<Prepared, String> {
        let start = Instant::now();
        let bytes = app::read_component(path).map_err(|error| error.to_string())?;
        let (prepared, origin) = self.host.prepare(&bytes).map_err(|error| error.to_string())?;
        let options = self.host.options();
        let frame = Frame {
            settings: self.settings.clone(),
            limit: options.time_max,
            given_up: Arc::default(),
            ends: Arc::default(),
        };
        let log = Log::new(self.logs.clone(), None, &path.display().to_string());
        prime(self.host, &prepared, Call::new(log, State::default(), frame, options.memory_bytes_max))?;
        tracing::info!(path = %path.display(), ?origin, took = ?start.elapsed(), "a component is ready");
        Ok(prepared)
    }
}

impl Ready {
    /// Checks what the function declares, then asks for its component. `Err` is for the app's owner.
    fn new(
        metadata: &FunctionMetadata,
        settings: &BTreeMap<String, String>,
        component: impl FnOnce() -> Result<Prepared, String>,
    ) -> Result<Self, String> {
        let bindings = &metadata.bindings;
        let trigger = bindings.iter().position(|binding| binding.is_trigger()).ok_or("it has no trigger")?;
        let kind = TriggerKind::of(&bindings[trigger])
            .ok_or_else(|| format!("a wasm function can't have a {}", bindings[trigger].kind))?;
        if let Some(binding) = bindings.iter().find(|binding| !binding.is_trigger() && !binding.is_output()) {
            return Err(format!("a wasm function has no inputs of type {}", binding.kind));
        }
        if bindings.iter().any(|binding| binding.name == STATE) {
            return Err(format!("{STATE} is reserved: no binding can have that name"));
        }
        let outputs = Outputs::of(bindings, settings)?;
        Ok(Self { metadata: metadata.clone(), trigger, kind, outputs, prepared: component()? })
    }

    /// Runs an invocation. For blocking threads.
    fn run(
        &self,
        host: &WasmHost,
        invocation: Invocation,
        frame: Frame,
        logs: Arc<dyn LogSink>,
    ) -> Result<InvocationResult, WorkerError> {
        let refused = WorkerError::Refused;
        let input = invocation.inputs.iter().find(|(name, _)| name == STATE);
        let state = input.map_or_else(|| Ok(State::default()), |(_, value)| State::from_value(value));
        let state = state.map_err(|error| refused(error.to_string()))?;
        let log = Log::new(logs, Some(&invocation.id), &self.metadata.name);
        let trigger = &self.metadata.bindings[self.trigger];
        let batch = batch(&self.metadata.name, trigger, self.kind, invocation).map_err(refused)?;
        let limit = frame.limit;
        let call = Call::new(log, state, frame, host.options().memory_bytes_max);
        let (ended, call) = run(host, &self.prepared, &batch, call);
        match ended {
            Ended::Returned(effects) => Ok(match produce(&self.outputs, effects) {
                Ok(produced) => success(produced, &call.state),
                Err(error) => failed(failure("EffectRefused", error.to_string(), String::new())),
            }),
            Ended::Failed(error) => Ok(failed(error)),
            Ended::TimedOut => Err(WorkerError::TimedOut { limit }),
            Ended::Cancelled => Err(WorkerError::Exited { reason: "the worker was stopped".into() }),
        }
    }
}

fn success(produced: Produced, state: &State) -> InvocationResult {
    let Produced { mut outputs, returned } = produced;
    outputs.extend(state.changes().map(|changes| (STATE.to_owned(), changes)));
    InvocationResult { outcome: Outcome::Success, outputs, returned }
}

fn failed(error: fleetline_worker::FunctionError) -> InvocationResult {
    InvocationResult { outcome: Outcome::Failure(error), outputs: Vec::new(), returned: None::<Value> }
}

/// Stops a component when whoever waits for it no longer does.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[async_trait]
impl Worker for WasmWorker {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn functions(&self) -> &[LoadedFunction] {
        &self.functions
    }

    async fn invoke(&self, invocation: Invocation, limit: Duration) -> Result<InvocationResult, WorkerError> {
        let ready = self.ready(&invocation.function)?;
        let not_sent = |reason: String| WorkerError::NotSent { reason };
        let place = self.places.clone().try_acquire_owned();
        let place =
            place.map_err(|_| not_sent("the worker has as many invocations as it can hold".into()))?;
        // After taking a place: `stop` waits for all of them.
        if self.is_stopping.load(Ordering::Acquire) {
            return Err(not_sent("the worker is stopping".into()));
        }
        let limit = limit.min(self.host.options().time_max);
        let permit = self.host.admit(limit).await.map_err(not_sent)?;
        let give_up = GiveUp(Arc::default());
        let logs = self.logs.clone();
        let frame = Frame {
            settings: self.settings.clone(),
            limit,
            given_up: give_up.0.clone(),
            ends: self.ends.clone(),
        };
        let host = self.host.clone();
        let running = tokio::task::spawn_blocking(move || {
            let _held = (place, permit);
            ready.run(&host, invocation, frame, logs)
        });
        running.await.unwrap_or_else(|error| Err(WorkerError::Exited { reason: error.to_string() }))
    }

    fn exited(&self) -> watch::Receiver<Option<String>> {
        self.exited.subscribe()
    }

    async fn stop(&self, grace: Duration) {
        self.is_stopping.store(true, Ordering::Release);
        let all = self.places.acquire_many(self.places_count);
        let all = match tokio::time::timeout(grace, all).await {
            Ok(all) => all,
            Err(_) => {
                self.ends.store(true, Ordering::Relaxed);
                self.places.acquire_many(self.places_count).await
            }
        };
        // An error means that another call of `stop` was here first.
        if let Ok(all) = all {
            all.forget();
            self.places.close();
        }
        self.exited.send_replace(Some("the worker was stopped".into()));
    }
}

impl Drop for WasmWorker {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}
