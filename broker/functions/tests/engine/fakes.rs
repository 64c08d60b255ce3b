//! Workers and a real-time tier that do what a test says, and remember what they were asked.
//!
//! An app is a folder with `functions.json`: `[{"name","bindings":[…],"retry"?}]`, and perhaps `host.json`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_functions::{
    ConnectionInfo, Destination, Functions, FunctionsOptions, GroupAction, RealtimeError, RealtimeOut,
};
use fleetline_worker::{
    Binding, FunctionError, FunctionMetadata, Invocation, InvocationResult, LogLevel, LogLine, Outcome,
    RetryPolicy, RetryStrategy, Value,
};
use fleetline_workers::{AppFolder, LoadedFunction, LogSink, Worker, WorkerError, WorkerKind};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tokio::sync::watch;

use super::world::World;

pub type Answer = Result<InvocationResult, WorkerError>;
pub type Handler = Arc<dyn Fn(u64, String, Invocation) -> BoxFuture<'static, Answer> + Send + Sync>;

/// A call that a worker got: node, function, invocation.
pub type Seen = (u64, String, Invocation);

/// What the workers of all nodes share.
pub struct Workers {
    world: Arc<World>,
    pub handler: Mutex<Handler>,
    pub seen: Mutex<Vec<Seen>>,
    pub starts: AtomicU64,
    pub stops: AtomicU64,
    /// What a start fails with.
    pub broken: Mutex<Option<String>>,
    /// A setting that apps can't be loaded without.
    pub needed: Mutex<Option<String>>,
    /// The node where that is so; 0 for all.
    pub broken_node: AtomicU64,
}

impl Workers {
    pub fn new(world: &Arc<World>, handler: Handler) -> Arc<Workers> {
        Arc::new(Workers {
            world: world.clone(),
            handler: Mutex::new(handler),
            seen: Mutex::default(),
            starts: AtomicU64::new(0),
            stops: AtomicU64::new(0),
            broken: Mutex::default(),
            needed: Mutex::default(),
            broken_node: AtomicU64::new(0),
        })
    }

    /// Bodies that a function got, in the order in which it got them, of lists and single ones.
    pub fn bodies(&self) -> Vec<String> {
        let seen = self.seen.lock();
        seen.iter().flat_map(|(_, _, invocation)| bodies(&invocation.inputs[0].1)).collect()
    }

    pub fn calls(&self) -> usize {
        self.seen.lock().len()
    }

    pub fn starts(&self) -> u64 {
        self.starts.load(Ordering::SeqCst)
    }
}

/// The bodies in a trigger's value.
pub fn bodies(value: &Value) -> Vec<String> {
    match value {
        Value::Json(bytes) => match serde_json::from_slice(bytes).unwrap() {
            Json::Array(list) => list.iter().map(Json::to_string).collect(),
            other => vec![other.to_string()],
        },
        Value::Text(text) => vec![text.clone()],
        Value::TextList(list) => list.clone(),
        other => panic!("{other:?}"),
    }
}

/// A handler that answers at once.
pub fn handler(answer: impl Fn(&str, &Invocation) -> Answer + Send + Sync + 'static) -> Handler {
    Arc::new(move |_, function, invocation| {
        let answer = answer(&function, &invocation);
        Box::pin(async move { answer })
    })
}

/// Success with these outputs.
pub fn outputs(outputs: &[(&str, Json)]) -> Answer {
    let output = |(name, value): &(&str, Json)| ((*name).to_owned(), Value::json(value));
    let outputs = outputs.iter().map(output).collect();
    Ok(InvocationResult { outcome: Outcome::Success, outputs, returned: None })
}

/// A function that throws.
pub fn throws(message: &str) -> Answer {
    let error = FunctionError { message: message.into(), ..FunctionError::default() };
    Ok(InvocationResult { outcome: Outcome::Failure(error), outputs: Vec::new(), returned: None })
}

pub struct Kind {
    name: &'static str,
    node: u64,
    workers: Arc<Workers>,
}

impl Kind {
    pub fn shared(name: &'static str, node: u64, workers: &Arc<Workers>) -> Arc<dyn WorkerKind> {
        Arc::new(Kind { name, node, workers: workers.clone() })
    }
}

fn read_functions(app: &AppFolder) -> Vec<LoadedFunction> {
    let text = std::fs::read(app.root.join("functions.json")).unwrap();
    let list: Vec<Json> = serde_json::from_slice(&text).unwrap();
    let function = |json: &Json| {
        let name = json["name"].as_str().unwrap().to_owned();
        let binding = |raw: &Json| Binding::parse(raw.as_object().unwrap().clone()).unwrap();
        let retry = json.get("retry").map(|retry| RetryPolicy {
            max: retry["max"].as_u64().map(|max| max as u32),
            strategy: RetryStrategy::Fixed { delay: Duration::from_millis(1) },
        });
        let metadata = FunctionMetadata {
            id: format!("id-of-{name}"),
            name,
            bindings: json["bindings"].as_array().unwrap().iter().map(binding).collect(),
            retry,
            ..FunctionMetadata::default()
        };
        let load_error = json.get("loadError").and_then(Json::as_str).map(str::to_owned);
        LoadedFunction { metadata, load_error }
    };
    list.iter().map(function).collect()
}

#[async_trait]
impl WorkerKind for Kind {
    fn name(&self) -> &'static str {
        self.name
    }

    fn fits(&self, app: &AppFolder) -> bool {
        app.root.join("functions.json").exists()
    }

    async fn start(&self, app: AppFolder, logs: Arc<dyn LogSink>) -> Result<Arc<dyn Worker>, WorkerError> {
        let broken_node = self.workers.broken_node.load(Ordering::SeqCst);
        let broken = self.workers.broken.lock().clone();
        if let Some(reason) = broken.filter(|_| broken_node == 0 || broken_node == self.node) {
            return Err(WorkerError::NotStarted { kind: self.name, reason });
        }
        if let Some(needed) =
            self.workers.needed.lock().clone().filter(|name| !app.settings.contains_key(name))
        {
            return Err(WorkerError::NotStarted { kind: self.name, reason: format!("KeyError: {needed}") });
        }
        self.workers.starts.fetch_add(1, Ordering::SeqCst);
        let functions = read_functions(&app);
        let ids = functions.iter().map(|f| (f.metadata.id.clone(), f.metadata.name.clone())).collect();
        let (name, node, workers) = (self.name, self.node, self.workers.clone());
        Ok(Arc::new(FakeWorker { name, node, workers, functions, ids, logs, exited: watch::channel(None).0 }))
    }
}

struct FakeWorker {
    name: &'static str,
    node: u64,
    workers: Arc<Workers>,
    functions: Vec<LoadedFunction>,
    ids: HashMap<String, String>,
    logs: Arc<dyn LogSink>,
    exited: watch::Sender<Option<String>>,
}

#[async_trait]
impl Worker for FakeWorker {
    fn kind(&self) -> &'static str {
        self.name
    }

    fn functions(&self) -> &[LoadedFunction] {
        &self.functions
    }

    async fn invoke(&self, invocation: Invocation, _limit: Duration) -> Answer {
        let function = self.ids.get(&invocation.function).cloned();
        let function = function.ok_or_else(|| WorkerError::Refused("unknown function".into()))?;
        self.logs.log(LogLine {
            invocation: Some(invocation.id.clone()),
            level: LogLevel::Information,
            category: "test".into(),
            message: format!("{function} runs"),
            is_system: false,
        });
        self.workers.seen.lock().push((self.node, function.clone(), invocation.clone()));
        self.workers.world.bump();
        let handler = self.workers.handler.lock().clone();
        let answer = handler(self.node, function, invocation).await;
        self.workers.world.bump();
        answer
    }

    fn exited(&self) -> watch::Receiver<Option<String>> {
        self.exited.subscribe()
    }

    async fn stop(&self, _grace: Duration) {
        self.workers.stops.fetch_add(1, Ordering::SeqCst);
        self.exited.send_replace(Some("stopped".into()));
        self.workers.world.bump();
    }
}

/// Remembers what was sent.
#[derive(Default)]
pub struct Realtime {
    pub sent: Mutex<Vec<(String, Destination, String, Bytes)>>,
    pub groups: Mutex<Vec<(String, GroupAction)>>,
    /// How often it is busy first.
    pub busy: AtomicU64,
}

#[async_trait]
impl RealtimeOut for Realtime {
    async fn send(
        &self,
        hub: &str,
        destination: Destination,
        target: &str,
        arguments: Bytes,
    ) -> Result<(), RealtimeError> {
        if self.busy.load(Ordering::SeqCst) > 0 {
            self.busy.fetch_sub(1, Ordering::SeqCst);
            return Err(RealtimeError::Busy("made to be".into()));
        }
        self.sent.lock().push((hub.to_owned(), destination, target.to_owned(), arguments));
        Ok(())
    }

    async fn group(&self, hub: &str, action: GroupAction) -> Result<(), RealtimeError> {
        self.groups.lock().push((hub.to_owned(), action));
        Ok(())
    }

    fn negotiate(
        &self,
        hub: &str,
        user: Option<&str>,
        _claims: &[(String, String)],
        _ttl: Duration,
    ) -> Result<ConnectionInfo, RealtimeError> {
        let url = format!("https://{hub}/client/?user={}", user.unwrap_or("nobody"));
        Ok(ConnectionInfo { url, access_token: "token".into() })
    }
}

/// Some nodes with their tiers.
pub struct Rig {
    pub world: Arc<World>,
    pub workers: Arc<Workers>,
    pub realtime: Arc<Realtime>,
    pub tiers: Vec<Arc<Functions>>,
    tasks: Vec<Option<tokio::task::JoinHandle<()>>>,
    /// Removed with the rig.
    _scratch: tempfile::TempDir,
}

/// Short waits: tests wait for conditions, and nobody for seconds.
pub fn options(scratch: &std::path::Path) -> FunctionsOptions {
    FunctionsOptions {
        backoff: (Duration::from_millis(1), Duration::from_millis(20)),
        read_wait: Duration::from_millis(200),
        session_timeout: Duration::from_millis(600),
        scale_interval: Duration::from_millis(50),
        revoke_grace: Duration::from_millis(500),
        stop_grace: Duration::ZERO,
        skip_interval: Duration::from_millis(50),
        ..FunctionsOptions::new(scratch)
    }
}

impl Rig {
    pub fn new(nodes: u64, partitions: u32, handler: Handler) -> Rig {
        Rig::with(nodes, partitions, "fake", handler, |options| options)
    }

    pub fn with(
        nodes: u64,
        partitions: u32,
        kind: &'static str,
        handler: Handler,
        change: impl Fn(FunctionsOptions) -> FunctionsOptions,
    ) -> Rig {
        let world = World::new(nodes, partitions);
        let workers = Workers::new(&world, handler);
        let realtime = Arc::new(Realtime::default());
        let scratch = tempfile::tempdir().unwrap();
        let tier = |node: u64| {
            let options = change(options(&scratch.path().join(format!("node-{node}"))));
            let kinds = vec![Kind::shared(kind, node, &workers)];
            Functions::new(world.node(node), realtime.clone(), kinds, options)
        };
        let tiers: Vec<Arc<Functions>> = (1..=nodes).map(tier).collect();
        let tasks = tiers.iter().map(|tier| Some(tokio::spawn(tier.clone().run()))).collect();
        Rig { world, workers, realtime, tiers, tasks, _scratch: scratch }
    }

    /// An archive of an app.
    pub fn archive(&self, functions: &Json, host: &Json) -> Bytes {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("functions.json"), functions.to_string()).unwrap();
        std::fs::write(folder.path().join("host.json"), host.to_string()).unwrap();
        fleetline_functions::pack(folder.path(), &options(folder.path())).unwrap().into()
    }

    pub async fn deploy(&self, app: &str, functions: Json) -> u64 {
        self.deploy_with(app, functions, json!({})).await
    }

    pub async fn deploy_with(&self, app: &str, functions: Json, host: Json) -> u64 {
        let archive = self.archive(&functions, &host);
        self.tiers[0].deploy(app, archive).await.unwrap()
    }

    /// The process of a node dies.
    pub fn kill(&mut self, node: u64) {
        self.world.kill(node);
        if let Some(task) = self.tasks[node as usize - 1].take() {
            task.abort();
        }
    }

    /// Waits until a group's checkpoint is at the end of all partitions.
    pub async fn until_processed(&self, group: &str, partitions: u32) {
        let world = self.world.clone();
        self.world
            .until(|| (0..partitions).all(|p| world.checkpoint(p, group).unwrap_or(0) >= world.end(p)))
            .await;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.tasks.iter().flatten().for_each(tokio::task::JoinHandle::abort);
    }
}
