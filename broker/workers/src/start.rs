//! From a new process to one that takes invocations: hello, initialisation, functions (§6.1, steps 1–7).
//!
//! Each step has its time limit (§5). A worker that ends, refuses or is silent meanwhile has not
//! started; the reason then holds the last lines that it wrote. A function that can't be loaded is left
//! out, with what is wrong with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleetline_worker::convert::{error_of, function_from, log_line, metadata_to};
use fleetline_worker::rpc::status_result::Status;
use fleetline_worker::rpc::{self, Content, StreamingMessage};
use fleetline_worker::{Capabilities, FunctionMetadata};
use tokio::time::{Instant, timeout_at};

use crate::gate::{Link, Ticket};
use crate::lines::Lines;
use crate::options::{MOST_FUNCTIONS, Options};
use crate::process::{Process, describe};
use crate::scan;
use crate::worker::LoadedFunction;

/// A worker that is ready.
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) link: Link,
    pub(crate) capabilities: Capabilities,
    pub(crate) functions: Vec<LoadedFunction>,
    /// The worker's own ids of the functions that were loaded, by our id.
    pub(crate) ids: HashMap<String, String>,
}

/// What the steps need.
pub(crate) struct Starter<'a> {
    pub(crate) options: &'a Options,
    pub(crate) language: &'static str,
    pub(crate) launcher: &'a Path,
    pub(crate) root: &'a Path,
    pub(crate) lines: &'a Arc<Lines>,
}

/// A function on its way to being loaded.
struct Candidate {
    function: LoadedFunction,
    message: Option<rpc::RpcFunctionMetadata>,
}

impl Starter<'_> {
    /// Takes the process through all steps; it is killed when one of them fails.
    pub(crate) async fn run(&self, mut process: Process, mut ticket: Ticket) -> Result<Started, String> {
        match self.steps(&mut process, &mut ticket).await {
            Ok((link, capabilities, functions, ids)) => {
                Ok(Started { process, link, capabilities, functions, ids })
            }
            Err(reason) => {
                let tail = Arc::clone(&process.tail);
                process.finish().await;
                Err(tail.explain(&reason))
            }
        }
    }

    async fn steps(&self, process: &mut Process, ticket: &mut Ticket) -> Result<Steps, String> {
        let limits = &self.options.limits;
        let mut talk = self.hello(process, ticket, limits.start).await?;
        let capabilities = self.initialize(&mut talk, limits.init).await?;
        let candidates = self.functions(&mut talk, limits.load).await?;
        let (functions, ids) = self.load(&mut talk, candidates, limits.load).await?;
        Ok((talk.link, capabilities, functions, ids))
    }

    async fn hello<'p>(
        &self,
        process: &'p mut Process,
        ticket: &mut Ticket,
        limit: Duration,
    ) -> Result<Talk<'p>, String> {
        let deadline = Instant::now() + limit;
        let link = tokio::select! {
            link = timeout_at(deadline, &mut ticket.link) => match link {
                Ok(Ok(link)) => link,
                Ok(Err(_)) => return Err("the gate for workers is closed".to_owned()),
                Err(_) => return Err(format!("it did not connect within {limit:?}")),
            },
            status = process.ended() => return Err(format!("it {} before it connected", describe(status))),
        };
        let mut talk = Talk { process, link, lines: Arc::clone(self.lines) };
        let start = talk.answer(limit, "hello", |content| match content {
            Content::StartStream(start) => Some(start),
            _ => None,
        });
        if start.await?.worker_id != ticket.id {
            return Err("it said hello with another id".to_owned());
        }
        Ok(talk)
    }

    async fn initialize(&self, talk: &mut Talk<'_>, limit: Duration) -> Result<Capabilities, String> {
        let root = self.root.to_string_lossy().into_owned();
        let request = rpc::WorkerInitRequest {
            host_version: self.options.host_version.clone(),
            capabilities: BTreeMap::from([("MultiStream".to_owned(), "10".to_owned())]),
            worker_directory: self.launcher.to_string_lossy().into_owned(),
            function_app_directory: root,
            ..Default::default()
        };
        talk.send(Content::WorkerInitRequest(request)).await?;
        let answer = talk.answer(limit, "its initialisation", |content| match content {
            Content::WorkerInitResponse(response) => Some(response),
            _ => None,
        });
        let response = answer.await?;
        succeeded(response.result, "the app can't be started")?;
        let capabilities = Capabilities::read(&response.capabilities);
        if capabilities.http_uri {
            let reason = "the app wants HTTP requests as streams (HttpUri), which this host does not offer";
            return Err(reason.to_owned());
        }
        Ok(capabilities)
    }

    async fn functions(&self, talk: &mut Talk<'_>, limit: Duration) -> Result<Vec<Candidate>, String> {
        let function_app_directory = self.root.to_string_lossy().into_owned();
        let request = rpc::FunctionsMetadataRequest { function_app_directory };
        talk.send(Content::FunctionsMetadataRequest(request)).await?;
        let answer = talk.answer(limit, "which functions it has", |content| match content {
            Content::FunctionMetadataResponse(response) => Some(response),
            _ => None,
        });
        let response = answer.await?;
        succeeded(response.result, "the functions can't be indexed")?;
        if response.use_default_metadata_indexing {
            return self.scan().await;
        }
        let count = response.function_metadata_results.len();
        if count > MOST_FUNCTIONS {
            return Err(format!("the app has {count} functions, allowed are {MOST_FUNCTIONS}"));
        }
        let mut names = HashSet::new();
        let results = response.function_metadata_results.into_iter();
        // A name is an id here, so the second of the same name has no place.
        Ok(results.filter(|one| names.insert(one.name.clone())).map(candidate).collect())
    }

    async fn scan(&self) -> Result<Vec<Candidate>, String> {
        let root = self.root.to_owned();
        let work = tokio::task::spawn_blocking(move || scan::functions(&root));
        let found = work.await.map_err(|error| error.to_string())??;
        let candidates = found.into_iter().map(|one| {
            let message = match &one.script {
                Ok(script) => Some(metadata_to(&one.metadata, script, self.language)),
                Err(_) => None,
            };
            let function = LoadedFunction { metadata: one.metadata, load_error: one.script.err() };
            Candidate { function, message }
        });
        Ok(candidates.collect())
    }

    async fn load(
        &self,
        talk: &mut Talk<'_>,
        candidates: Vec<Candidate>,
        limit: Duration,
    ) -> Result<(Vec<LoadedFunction>, HashMap<String, String>), String> {
        let deadline = Instant::now() + limit;
        let (mut functions, mut ids) = (Vec::with_capacity(candidates.len()), HashMap::new());
        // One after the other: a worker loads them one after the other anyway, and nothing piles up.
        for Candidate { mut function, message } in candidates {
            if let (None, Some(metadata)) = (&function.load_error, message) {
                let id = metadata.function_id.clone();
                let rest = deadline.saturating_duration_since(Instant::now());
                match self.load_one(talk, metadata, rest).await? {
                    None => drop(ids.insert(function.metadata.id.clone(), id)),
                    error => function.load_error = error,
                }
            }
            functions.push(function);
        }
        Ok((functions, ids))
    }

    async fn load_one(
        &self,
        talk: &mut Talk<'_>,
        metadata: rpc::RpcFunctionMetadata,
        limit: Duration,
    ) -> Result<Option<String>, String> {
        let id = metadata.function_id.clone();
        let request = rpc::FunctionLoadRequest {
            function_id: id.clone(),
            metadata: Some(metadata),
            ..Default::default()
        };
        talk.send(Content::FunctionLoadRequest(request)).await?;
        let answer = talk.answer(limit, "the loading of its functions", |content| match content {
            Content::FunctionLoadResponse(response) if response.function_id == id => Some(response),
            _ => None,
        });
        Ok(succeeded(answer.await?.result, "it can't be loaded").err())
    }
}

type Steps = (Link, Capabilities, Vec<LoadedFunction>, HashMap<String, String>);

fn candidate(message: rpc::RpcFunctionMetadata) -> Candidate {
    // A worker that couldn't load a part of the app says so in the status of an entry of its own.
    let refused =
        message.status.clone().and_then(|status| succeeded(Some(status), "it can't be loaded").err());
    match function_from(&message) {
        Ok(metadata) => {
            Candidate { function: LoadedFunction { metadata, load_error: refused }, message: Some(message) }
        }
        Err(error) => {
            let name = message.name;
            let metadata = FunctionMetadata { id: name.clone(), name, ..FunctionMetadata::default() };
            let load_error = Some(refused.unwrap_or_else(|| error.to_string()));
            Candidate { function: LoadedFunction { metadata, load_error }, message: None }
        }
    }
}

/// §6.3: "note default is Failure", so a missing result is one.
fn succeeded(result: Option<rpc::StatusResult>, what: &str) -> Result<(), String> {
    let result = result.unwrap_or_default();
    if result.status() == Status::Success {
        return Ok(());
    }
    let error = error_of(result);
    let mut reason = format!("{what}: {}", error.message);
    if !error.stack.is_empty() {
        reason.push('\n');
        reason.push_str(&error.stack);
    }
    Err(reason)
}

/// Question and answer with a worker that doesn't take invocations yet.
struct Talk<'p> {
    process: &'p mut Process,
    link: Link,
    lines: Arc<Lines>,
}

impl Talk<'_> {
    async fn send(&mut self, content: Content) -> Result<(), String> {
        let sent = self.link.outbound.send(StreamingMessage::from(content)).await;
        sent.map_err(|_| "its stream has ended".to_owned())
    }

    /// The next message that `pick` takes. Log lines go their way; others are passed over.
    async fn answer<T>(
        &mut self,
        limit: Duration,
        what: &str,
        pick: impl Fn(Content) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + limit;
        loop {
            let message = tokio::select! {
                message = timeout_at(deadline, self.link.inbound.message()) => match message {
                    Ok(Ok(Some(message))) => message,
                    Ok(Ok(None)) => return Err(self.end(what).await),
                    Ok(Err(status)) => {
                        let end = self.end(what).await;
                        return Err(format!("{end} ({})", status.message()));
                    }
                    Err(_) => return Err(format!("it did not answer {what} within {limit:?}")),
                },
                status = self.process.ended() => return Err(format!("it {} during {what}", describe(status))),
            };
            match message.content {
                Some(Content::RpcLog(log)) => {
                    if let Some(line) = log_line(log, self.lines.line_bytes()) {
                        self.lines.take(line);
                    }
                }
                Some(content) => {
                    if let Some(found) = pick(content) {
                        return Ok(found);
                    }
                }
                None => {}
            }
        }
    }

    /// A stream ends a moment before its process does; the exit says more.
    async fn end(&mut self, what: &str) -> String {
        let wait = tokio::time::timeout(Duration::from_secs(1), self.process.ended());
        match wait.await {
            Ok(status) => format!("it {} during {what}", describe(status)),
            Err(_) => format!("its stream ended during {what}"),
        }
    }
}
