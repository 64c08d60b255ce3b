//! Measures WASM functions: `cargo run -p fleetline-wasm --example invocation_cost -- [EVENTS [APP]]`.
//!
//! Two apps: one with a component of a few hundred bytes that gives back each event, which shows what the
//! node itself costs, and the samples (`samples/build.sh`) or another app. Prints how long the app takes to
//! start without and with compiled code on disk, its first invocation, and those after it. Each invocation has an instance of its own, so "warm" means that the code is in
//! memory and the pool has been used, not that an instance is used again. Start from a release build for
//! figures to write down.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetline_wasm::{STATE, WasmHost, WasmKind, WasmOptions, apply_changes};
use fleetline_worker::{Invocation, LogLevel, LogLine, Outcome, Value};
use fleetline_workers::{AppFolder, LogSink, Worker, WorkerKind};
use serde_json::json;

// Shared with the tests, which may unwrap.
#[allow(dead_code, clippy::unwrap_used)]
#[path = "../tests/wasm/guest.rs"]
mod guest;

const RUNS: usize = 1000;
const LIMIT: Duration = Duration::from_secs(5);

/// Shows what the worker or a broken function says.
struct Errors;

impl LogSink for Errors {
    fn log(&self, line: LogLine) {
        if line.level >= LogLevel::Error {
            eprintln!("{}: {}", line.category, line.message);
        }
    }
}

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let events = arguments.next().map_or(Ok(100), |count| count.parse())?;
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/wasm-samples");
    let app = PathBuf::from(arguments.next().unwrap_or_else(|| default.into()));
    let small = tempfile::tempdir()?;
    write_echo(&small.path().join("echo"))?;
    for app in [small.path(), &app] {
        let cache = tempfile::tempdir()?;
        start(app, cache.path(), "start, compiling").await?;
        let worker = start(app, cache.path(), "start, from the cache").await?;
        for function in worker.functions() {
            if let Some(error) = &function.load_error {
                return Err(format!("{}: {error}", function.metadata.name).into());
            }
            println!("{}, {events} events a batch:", function.metadata.name);
            measure(&*worker, &function.metadata.id, events).await?;
        }
    }
    Ok(())
}

fn write_echo(folder: &Path) -> Result<(), Failure> {
    let bindings = json!([
        { "type": "eventHubTrigger", "name": "events", "direction": "in", "cardinality": "many" },
        { "type": "eventHub", "name": "stream", "direction": "out" },
    ]);
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("function.json"), json!({ "bindings": bindings }).to_string())?;
    std::fs::write(folder.join("function.wasm"), guest::echo())?;
    Ok(())
}

async fn start(app: &Path, cache: &Path, what: &str) -> Result<Arc<dyn Worker>, Failure> {
    let begin = Instant::now();
    let options = WasmOptions { cache: Some(cache.to_owned()), ..WasmOptions::default() };
    let host = WasmHost::new(options)?;
    let folder = AppFolder { root: app.to_owned(), settings: Default::default(), host_json: json!({}) };
    let worker = WasmKind::new(host).start(folder, Arc::new(Errors)).await?;
    println!("{what}: {:.1} ms", ms(begin.elapsed()));
    Ok(worker)
}

async fn measure(worker: &dyn Worker, function: &str, events: usize) -> Result<(), Failure> {
    let mut state = Value::Null;
    let mut times = Vec::with_capacity(RUNS);
    for run in 0..RUNS {
        let call = invocation(function, run, events, &state);
        let begin = Instant::now();
        let result = worker.invoke(call, LIMIT).await?;
        times.push(begin.elapsed());
        if result.outcome != Outcome::Success {
            return Err(format!("{:?}", result.outcome).into());
        }
        if let Some((_, changes)) = result.outputs.iter().find(|(name, _)| name == STATE) {
            state = apply_changes(&state, changes)?;
        }
    }
    let first = times.remove(0);
    times.sort();
    let at = |part: f64| ms(times[((times.len() - 1) as f64 * part) as usize]);
    println!("  first: {:.3} ms", ms(first));
    println!(
        "  after: p50 {:.3} ms, p90 {:.3} ms, p99 {:.3} ms, most {:.3} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

/// A batch of telemetry of twenty devices.
fn invocation(function: &str, run: usize, events: usize, state: &Value) -> Invocation {
    let body = |event: usize| json!({ "altitude": 3000 + event, "groundSpeed": 200 + run % 50 }).to_string();
    let system = |event: usize| json!({ "iothub-connection-device-id": format!("device-{}", event % 20) });
    let all = || 0..events;
    Invocation {
        id: format!("{run}"),
        function: function.into(),
        inputs: vec![
            ("events".into(), Value::TextList(all().map(body).collect())),
            (STATE.into(), state.clone()),
        ],
        metadata: vec![
            ("PartitionContext".into(), Value::json(&json!({ "PartitionId": "0" }))),
            ("SystemPropertiesArray".into(), Value::json(&all().map(system).collect())),
            (
                "SequenceNumberArray".into(),
                Value::IntList(all().map(|event| (run * events + event) as i64).collect()),
            ),
        ],
        ..Invocation::default()
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
