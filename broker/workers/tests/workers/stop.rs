//! Ends of workers: stopped, dropped, and several processes of one app.

use std::sync::Arc;
use std::time::Duration;

use fleetline_worker::Value;
use fleetline_workers::WorkerError;

use crate::kit::{LONG, Node, act, acted, acted_json, is_alive, read_json, with_settings};

async fn gone(pid: i64) {
    while is_alive(pid) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What runs may finish, nothing more is taken, and the process is gone afterwards.
#[tokio::test]
async fn stopping_lets_invocations_finish() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    let pid = acted_json(&*worker, "about").await["pid"].as_i64().unwrap();
    let beside = Arc::clone(&worker);
    let running = tokio::spawn(async move { beside.invoke(act("slow"), LONG).await });
    tokio::task::yield_now().await;
    worker.stop(LONG).await;
    assert_eq!(running.await.unwrap().unwrap().returned, Some(Value::Text("slow but done".to_owned())));
    assert!(!is_alive(pid));
    assert!(worker.exited().borrow().is_some());
    let error = worker.invoke(act("number"), LONG).await.unwrap_err();
    assert!(matches!(error, WorkerError::NotSent { .. }));
    worker.stop(LONG).await;
}

/// The grace is an end: a function that hangs is cut off with it.
#[tokio::test]
async fn stopping_ends_what_hangs() {
    for name in ["python_v2", "node_v4"] {
        let node = Node::with(|options| options.limits.terminate = Duration::from_millis(200)).await;
        let worker = node.app(name).await;
        let pid = acted_json(&*worker, "about").await["pid"].as_i64().unwrap();
        let beside = Arc::clone(&worker);
        let running = tokio::spawn(async move { beside.invoke(act("hang"), LONG).await });
        tokio::task::yield_now().await;
        worker.stop(Duration::from_millis(50)).await;
        assert!(matches!(running.await.unwrap(), Err(WorkerError::Exited { .. })));
        assert!(!is_alive(pid), "{name}");
    }
}

/// §6.1, end: a worker that handles it is told to end, and its hooks run.
#[tokio::test]
async fn a_worker_is_told_to_end() {
    let node = Node::start().await;
    let worker = node.app("node_v4").await;
    worker.stop(LONG).await;
    node.sink.line_with("terminate hook ran").await;
}

/// Dropping everything ends the process, and what it has started.
#[tokio::test]
async fn dropping_ends_the_whole_group() {
    let node = Node::start().await;
    let worker = node.app("python_v2").await;
    let pid = acted_json(&*worker, "about").await["pid"].as_i64().unwrap();
    let Value::Text(child) = acted(&*worker, "child").await else { panic!() };
    let child = child.parse().unwrap();
    assert!(is_alive(child));
    drop(worker);
    gone(pid).await;
    gone(child).await;
}

/// §5: `FUNCTIONS_WORKER_PROCESS_COUNT`. Further processes follow, and take calls that others can't.
#[tokio::test]
async fn an_app_can_have_several_processes() {
    let node = Node::with(|options| options.limits.between = Duration::from_millis(1)).await;
    let worker =
        node.try_app(with_settings("python_v2", &[("FUNCTIONS_WORKER_PROCESS_COUNT", "2")])).await.unwrap();
    let first = acted_json(&*worker, "about").await["pid"].as_i64().unwrap();
    // While one process is busy the other answers.
    loop {
        let beside = Arc::clone(&worker);
        let slow = tokio::spawn(async move { beside.invoke(act("slow"), LONG).await });
        tokio::task::yield_now().await;
        let result = worker.invoke(act("about"), LONG).await.unwrap();
        let second = read_json(result.returned.as_ref().unwrap())["pid"].as_i64().unwrap();
        slow.await.unwrap().unwrap();
        if second != first {
            break;
        }
    }
    worker.stop(LONG).await;
}

/// Stopping doesn't wait for a process that is just being started.
#[tokio::test]
async fn stopping_ends_a_start() {
    let node = Node::with(|options| options.restarts.first_wait = Duration::from_secs(3600)).await;
    let worker = node.app("python_v2").await;
    let _ = worker.invoke(act("die"), LONG).await.unwrap_err();
    worker.stop(Duration::ZERO).await;
    assert!(worker.exited().borrow().is_some());
}
