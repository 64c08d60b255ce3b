//! What a start and an invocation cost; run by hand:
//! `cargo test --release -p fleetline-workers --test workers -- --ignored --nocapture measure`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetline_workers::Worker;

use crate::kit::{LONG, Node, act, acted};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures, checks nothing"]
async fn measure() {
    for name in ["python_v2", "node_v4"] {
        let node = Node::start().await;
        acted(&*node.app(name).await, "number").await;
        let mut starts = Vec::new();
        for _ in 0..7 {
            let begin = Instant::now();
            let worker = node.app(name).await;
            let up = begin.elapsed();
            acted(&*worker, "number").await;
            starts.push((up, begin.elapsed()));
        }
        starts.sort();
        let (up, first) = starts[starts.len() / 2];
        println!("{name}: start {up:?}, with the first invocation {first:?} (median of {})", starts.len());
        let worker = node.app(name).await;
        one_by_one(name, &*worker).await;
        for lanes in [8, 64] {
            pipelined(name, &worker, lanes).await;
        }
    }
}

async fn one_by_one(name: &str, worker: &dyn Worker) {
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..2000 {
        let begin = Instant::now();
        acted(worker, "number").await;
        times.push(begin.elapsed());
    }
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize];
    println!("{name}: warm, one at a time: p50 {:?}, p99 {:?}", at(0.5), at(0.99));
}

async fn pipelined(name: &str, worker: &Arc<dyn Worker>, lanes: usize) {
    const EACH: usize = 5000;
    let begin = Instant::now();
    let tasks: Vec<_> = (0..lanes)
        .map(|_| {
            let worker = Arc::clone(worker);
            tokio::spawn(async move {
                for _ in 0..EACH / lanes {
                    worker.invoke(act("number"), LONG).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let rate = EACH as f64 / begin.elapsed().as_secs_f64();
    println!("{name}: {lanes} at a time: {rate:.0} invocations a second");
}
