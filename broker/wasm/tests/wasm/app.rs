//! Folders of apps, invocations, and a log that is kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_wasm::{WasmHost, WasmKind, WasmOptions};
use fleetline_worker::{FunctionError, Invocation, InvocationResult, LogLine, Outcome, Value};
use fleetline_workers::{AppFolder, LogSink, Worker, WorkerError, WorkerKind};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// Longer than any test's invocation: the host's own limit is what ends those that don't.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Lines that functions wrote.
#[derive(Default)]
pub struct Lines(pub Mutex<Vec<LogLine>>);

impl LogSink for Lines {
    fn log(&self, line: LogLine) {
        self.0.lock().push(line);
    }
}

/// An app with one function `f`, running.
pub struct App {
    pub worker: Arc<dyn Worker>,
    pub lines: Arc<Lines>,
    _folder: TempDir,
}

/// All outputs that a function can have.
pub fn all_outputs() -> Json {
    json!([
        { "type": "signalR", "name": "screen", "direction": "out", "hubName": "live" },
        { "type": "twin", "name": "twins", "direction": "out" },
        { "type": "command", "name": "commands", "direction": "out" },
        { "type": "eventHub", "name": "stream", "direction": "out" },
        { "type": "http", "name": "$return", "direction": "out" },
    ])
}

/// Writes function `name` with this component into the app at `root`.
pub fn write_function(root: &Path, name: &str, trigger: &str, outputs: &Json, component: &[u8]) {
    let mut bindings = vec![json!({ "type": trigger, "name": "input", "direction": "in" })];
    bindings.extend(outputs.as_array().unwrap().iter().cloned());
    let folder = root.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let function = json!({ "scriptFile": "function.wasm", "bindings": bindings });
    std::fs::write(folder.join("function.json"), function.to_string()).unwrap();
    std::fs::write(folder.join("function.wasm"), component).unwrap();
}

/// The app's folder as the engine gives it.
pub fn folder(root: &Path) -> AppFolder {
    let settings = BTreeMap::from([("COLOUR".to_owned(), "blue".to_owned())]);
    AppFolder { root: root.to_owned(), settings, host_json: json!({ "version": "2.0" }) }
}

impl App {
    /// Starts an app with one function on a host of its own.
    pub async fn start(trigger: &str, component: &[u8]) -> App {
        Self::with(&WasmHost::new(WasmOptions::default()).unwrap(), trigger, &all_outputs(), component).await
    }

    /// Starts an app with one function.
    pub async fn with(host: &Arc<WasmHost>, trigger: &str, outputs: &Json, component: &[u8]) -> App {
        let root = tempfile::tempdir().unwrap();
        write_function(root.path(), "f", trigger, outputs, component);
        let lines = Arc::new(Lines::default());
        let worker = start(host, root.path(), &lines).await.unwrap();
        for function in worker.functions() {
            assert_eq!(function.load_error, None, "{}", function.metadata.name);
        }
        App { worker, lines, _folder: root }
    }

    /// Invokes the function with this value.
    pub async fn invoke(&self, value: Value) -> Result<InvocationResult, WorkerError> {
        self.worker.invoke(invocation(vec![("input".into(), value)]), LIMIT).await
    }

    /// The messages of the log.
    pub fn messages(&self) -> Vec<String> {
        self.lines.0.lock().iter().map(|line| line.message.clone()).collect()
    }
}

/// Starts the app at `root`.
pub async fn start(
    host: &Arc<WasmHost>,
    root: &Path,
    lines: &Arc<Lines>,
) -> Result<Arc<dyn Worker>, WorkerError> {
    let kind = WasmKind::new(host.clone());
    assert!(kind.fits(&folder(root)));
    kind.start(folder(root), lines.clone()).await
}

/// An invocation of `f`.
pub fn invocation(inputs: Vec<(String, Value)>) -> Invocation {
    Invocation { id: "i-1".into(), function: "f".into(), inputs, ..Invocation::default() }
}

/// One event without metadata.
pub fn event(body: &'static str) -> Value {
    Value::Bytes(Bytes::from_static(body.as_bytes()))
}

/// An output as JSON.
#[track_caller]
pub fn output(result: &InvocationResult, name: &str) -> Json {
    assert_eq!(result.outcome, Outcome::Success);
    match result.outputs.iter().find(|(found, _)| found == name) {
        Some((_, Value::Json(bytes))) => serde_json::from_slice(bytes).unwrap(),
        other => panic!("{name}: {other:?} in {result:?}"),
    }
}

/// What a failed invocation says.
#[track_caller]
pub fn failure(result: Result<InvocationResult, WorkerError>) -> FunctionError {
    let result = result.unwrap();
    assert_eq!((&result.outputs, &result.returned), (&Vec::new(), &None), "a failure has no effects");
    match result.outcome {
        Outcome::Failure(error) => error,
        other => panic!("{other:?}"),
    }
}
