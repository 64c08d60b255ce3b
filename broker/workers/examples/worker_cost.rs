//! What a start and an invocation of a worker cost, one JSON line a figure:
//! `cargo run --example worker_cost -p fleetline-workers [-- PREFIX]`, PREFIX as made by `setup.sh`.
//!
//! A start is from nothing to functions that are loaded; the apps are those of the tests.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetline_worker::{Invocation, LogLine, Value};
use fleetline_workers::{AppFolder, LogSink, Options, Worker, WorkerKind, Workers};
use serde_json::json;

const STARTS: usize = 9;
const CALLS: usize = 5000;
const LIMIT: Duration = Duration::from_secs(60);

struct Nowhere;

impl LogSink for Nowhere {
    fn log(&self, _: LogLine) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let prefix = std::env::args().nth(1).map_or_else(|| here.join("../../target/workers"), PathBuf::from);
    let scratch = tempfile::tempdir()?;
    let workers = Workers::start(Options::of_prefix(scratch.path(), &prefix.canonicalize()?)).await?;
    for (kind, name) in [(workers.python(), "python_v2"), (workers.node(), "node_v4")] {
        let root = here.join("tests/apps").join(name);
        let app = AppFolder { root, settings: BTreeMap::new(), host_json: json!({}) };
        measure(&*kind, &app).await?;
    }
    Ok(())
}

async fn measure(kind: &dyn WorkerKind, app: &AppFolder) -> Result<(), Box<dyn Error>> {
    let mut starts = Vec::new();
    let mut worker = None;
    for _ in 0..STARTS {
        let begin = Instant::now();
        let started = kind.start(app.clone(), Arc::new(Nowhere)).await?;
        let up = begin.elapsed();
        call(&*started, 0).await?;
        starts.push((up, begin.elapsed()));
        worker = Some(started);
    }
    // The first start reads the interpreter from the disk.
    let cold = starts[0].1;
    starts.sort();
    let (up, first) = starts[STARTS / 2];
    say(
        json!({"worker": kind.name(), "start_ms": ms(up), "start_and_call_ms": ms(first), "very_first_ms": ms(cold)}),
    );
    let Some(worker) = worker else { return Ok(()) };
    let mut times = Vec::with_capacity(CALLS);
    for number in 0..CALLS {
        let begin = Instant::now();
        call(&*worker, number).await?;
        times.push(begin.elapsed());
    }
    times.sort();
    let (p50, p99) = (times[CALLS / 2], times[CALLS * 99 / 100]);
    say(json!({"worker": kind.name(), "at_a_time": 1, "p50_ms": ms(p50), "p99_ms": ms(p99)}));
    for lanes in [8, 64] {
        let begin = Instant::now();
        let calls = (0..lanes).map(|lane| lane_of_calls(Arc::clone(&worker), lane, lanes));
        futures::future::try_join_all(calls).await?;
        let rate = (CALLS as f64 / begin.elapsed().as_secs_f64()).round();
        say(json!({"worker": kind.name(), "at_a_time": lanes, "calls_per_second": rate}));
    }
    worker.stop(Duration::ZERO).await;
    Ok(())
}

async fn lane_of_calls(worker: Arc<dyn Worker>, lane: usize, lanes: usize) -> Result<(), Box<dyn Error>> {
    for number in (lane..CALLS).step_by(lanes) {
        call(&*worker, number).await?;
    }
    Ok(())
}

async fn call(worker: &dyn Worker, number: usize) -> Result<(), Box<dyn Error>> {
    let invocation = Invocation {
        id: format!("call-{number}"),
        function: "act".to_owned(),
        inputs: vec![("command".to_owned(), Value::Text("number".to_owned()))],
        ..Invocation::default()
    };
    worker.invoke(invocation, LIMIT).await?;
    Ok(())
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

fn say(line: serde_json::Value) {
    println!("{line}");
}
