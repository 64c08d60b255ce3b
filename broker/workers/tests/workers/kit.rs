//! Starts apps and calls their functions, for all tests here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleetline_worker::{HttpMessage, Invocation, InvocationResult, LogLine, Outcome, Value};
use fleetline_workers::{AppFolder, LogSink, Options, Worker, WorkerError, WorkerKind, Workers};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Longer than any function of the tests takes.
pub const LONG: Duration = Duration::from_secs(300);

pub fn prefix() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let prefix =
        std::env::var_os("FLEETLINE_WORKERS").map_or_else(|| root.join("target/workers"), PathBuf::from);
    assert!(
        prefix.join("python.stamp").is_file() && prefix.join("node.stamp").is_file(),
        "{} has no worker packages: run `broker/workers/setup.sh {}` first, or set FLEETLINE_WORKERS",
        prefix.display(),
        prefix.display(),
    );
    prefix.canonicalize().unwrap()
}

/// Whether Python's own packages run the app (from 3.13 on), not this crate's launcher alone.
pub fn has_official_runtime() -> bool {
    let stamp = std::fs::read_to_string(prefix().join("python.stamp")).unwrap();
    stamp.contains("azure-functions-runtime==")
}

/// Keeps all lines.
#[derive(Default)]
pub struct Sink {
    lines: Mutex<Vec<LogLine>>,
    more: Notify,
}

impl LogSink for Sink {
    fn log(&self, line: LogLine) {
        self.lines.lock().push(line);
        self.more.notify_waiters();
    }
}

impl Sink {
    pub fn lines(&self) -> Vec<LogLine> {
        self.lines.lock().clone()
    }

    /// The first line that fits, as soon as there is one.
    pub async fn line(&self, fits: impl Fn(&LogLine) -> bool) -> LogLine {
        loop {
            let more = self.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            if let Some(line) = self.lines.lock().iter().find(|line| fits(line)) {
                return line.clone();
            }
            more.await;
        }
    }

    pub async fn line_with(&self, text: &str) -> LogLine {
        self.line(|line| line.message.contains(text)).await
    }
}

/// A node's workers in a scratch folder of their own.
pub struct Node {
    pub scratch: tempfile::TempDir,
    pub workers: Workers,
    pub sink: Arc<Sink>,
}

impl Node {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let mut options = Options::of_prefix(scratch.path(), &prefix());
        options.restarts.first_wait = Duration::from_millis(10);
        change(&mut options);
        let workers = Workers::start(options).await.unwrap();
        Self { scratch, workers, sink: Arc::default() }
    }

    pub fn kind_of(&self, app: &AppFolder) -> Arc<dyn WorkerKind> {
        let kinds = [self.workers.python(), self.workers.node()];
        kinds.into_iter().find(|kind| kind.fits(app)).expect("no kind of worker fits the app")
    }

    pub async fn app(&self, name: &str) -> Arc<dyn Worker> {
        self.try_app(app(name)).await.unwrap()
    }

    pub async fn try_app(&self, app: AppFolder) -> Result<Arc<dyn Worker>, WorkerError> {
        let sink = Arc::clone(&self.sink) as Arc<dyn LogSink>;
        self.kind_of(&app).start(app, sink).await
    }
}

pub fn app(name: &str) -> AppFolder {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps").join(name);
    AppFolder { root, settings: BTreeMap::new(), host_json: serde_json::json!({"version": "2.0"}) }
}

pub fn with_settings(name: &str, settings: &[(&str, &str)]) -> AppFolder {
    let pairs = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    AppFolder { settings: pairs.collect(), ..app(name) }
}

pub fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub fn json(value: serde_json::Value) -> Value {
    Value::json(&value)
}

pub fn invocation(id: &str, function: &str, inputs: Vec<(&str, Value)>) -> Invocation {
    Invocation {
        id: id.to_owned(),
        function: function.to_owned(),
        inputs: inputs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        ..Invocation::default()
    }
}

/// Tells the function `act` of both apps what to do.
pub fn act(command: &str) -> Invocation {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = format!("{command}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    invocation(&id, "act", vec![("command", Value::Text(command.to_owned()))])
}

/// What `act` returned.
pub async fn acted(worker: &dyn Worker, command: &str) -> Value {
    let result = worker.invoke(act(command), LONG).await.unwrap();
    assert_eq!(result.outcome, Outcome::Success, "{command}");
    result.returned.unwrap_or(Value::Null)
}

pub async fn acted_json(worker: &dyn Worker, command: &str) -> serde_json::Value {
    read_json(&acted(worker, command).await)
}

/// As [`acted`], again while no process is up.
pub async fn acted_when_up(worker: &dyn Worker, command: &str) -> Value {
    loop {
        match worker.invoke(act(command), LONG).await {
            Ok(result) => return result.returned.unwrap_or(Value::Null),
            Err(WorkerError::NotSent { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

pub fn read_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Json(bytes) | Value::Bytes(bytes) => serde_json::from_slice(bytes).unwrap(),
        Value::Text(text) => serde_json::from_str(text).unwrap(),
        other => panic!("not JSON: {other:?}"),
    }
}

pub fn succeeded(result: &InvocationResult) {
    assert_eq!(result.outcome, Outcome::Success);
}

pub fn output(result: &InvocationResult, name: &str) -> serde_json::Value {
    let found = result.outputs.iter().find(|(found, _)| found == name);
    read_json(&found.unwrap_or_else(|| panic!("no output {name} in {result:?}")).1)
}

/// A request with everything in it that a function can ask for.
pub fn request() -> HttpMessage {
    HttpMessage {
        method: "POST".to_owned(),
        url: "http://hub.local/api/hello/ada?q=one%20two".to_owned(),
        headers: pairs(&[("Content-Type", "text/plain"), ("X-Fleet", "seven")]),
        query: pairs(&[("q", "one two")]),
        params: pairs(&[("name", "ada")]),
        body: Some(Value::Bytes("grüße".as_bytes().to_vec().into())),
        ..HttpMessage::default()
    }
}

/// What both apps' `hello` makes of [`request`].
pub fn hello_answer() -> serde_json::Value {
    serde_json::json!({
        "method": "POST",
        "url": "http://hub.local/api/hello/ada?q=one%20two",
        "name": "ada",
        "q": "one two",
        "header": "seven",
        "body": "grüße",
    })
}

pub fn http(result: &InvocationResult) -> &HttpMessage {
    match &result.returned {
        Some(Value::Http(message)) => message,
        other => panic!("not HTTP: {other:?}"),
    }
}

pub fn body(message: &HttpMessage) -> serde_json::Value {
    read_json(message.body.as_ref().unwrap())
}

/// Metadata of one event (§4), as the engine sends it.
pub fn one_event_metadata() -> Vec<(String, Value)> {
    let system = serde_json::json!({
        "iothub-connection-device-id": "pump-7",
        "SequenceNumber": 41,
        "Offset": "1024",
        "EnqueuedTimeUtc": "2026-01-02T03:04:05.678Z",
    });
    vec![
        ("SystemProperties".to_owned(), json(system)),
        ("Properties".to_owned(), json(serde_json::json!({"level": "3"}))),
        ("SequenceNumber".to_owned(), json(serde_json::json!(41))),
        ("Offset".to_owned(), json(serde_json::json!("1024"))),
        ("EnqueuedTimeUtc".to_owned(), json(serde_json::json!("2026-01-02T03:04:05.678Z"))),
    ]
}

/// Metadata of a batch (§4): one entry an event.
pub fn batch_metadata(sequences: &[i64]) -> Vec<(String, Value)> {
    let system: Vec<_> = sequences
        .iter()
        .map(|sequence| {
            serde_json::json!({
                "iothub-connection-device-id": "pump-7",
                "SequenceNumber": sequence,
                "Offset": (sequence * 100).to_string(),
                "EnqueuedTimeUtc": "2026-01-02T03:04:05Z",
            })
        })
        .collect();
    vec![("SystemPropertiesArray".to_owned(), json(serde_json::json!(system)))]
}

pub fn timer() -> Value {
    json(serde_json::json!({
        "Schedule": {"AdjustForDST": true},
        "ScheduleStatus": {"Last": "2026-01-02T03:00:00Z", "LastUpdated": "2026-01-02T03:00:00Z",
                           "Next": "2026-01-02T03:05:00Z"},
        "IsPastDue": true,
    }))
}

/// Whether a process of this id is there, and no zombie.
pub fn is_alive(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}
