//! How many nodes and workers there are.

use std::sync::Arc;
use std::time::Duration;

use fleetline_functions::FunctionsOptions;
use serde_json::json;
use tokio::sync::Semaphore;

use super::fakes::{Handler, Rig, handler, outputs};

const GROUP: &str = "$fn-app-f";

fn app() -> serde_json::Value {
    json!([{ "name": "f", "bindings": [{ "type": "eventHubTrigger", "name": "e", "cardinality": "many" }] }])
}

/// Nobody runs a worker until the first record; afterwards, with nothing to do, nobody does again.
#[tokio::test(flavor = "multi_thread")]
async fn from_zero_to_zero() {
    let rig = Rig::with(3, 4, "fake", handler(|_, _| outputs(&[])), |options| FunctionsOptions {
        idle_stop: Duration::from_millis(300),
        ..options
    });
    rig.deploy("app", app()).await;
    rig.world.until(|| rig.world.members(GROUP).len() == 1).await;
    // Only the one that found out what functions there are.
    assert_eq!(rig.workers.starts(), 1);
    rig.world.send("d", "1");
    rig.world.until(|| rig.workers.calls() == 1).await;
    assert_eq!(rig.workers.starts(), 2);
    rig.world.until(|| rig.workers.stops.load(std::sync::atomic::Ordering::SeqCst) == 2).await;
    rig.world.send("d", "2");
    rig.world.until(|| rig.workers.calls() == 2).await;
    assert_eq!((rig.workers.bodies(), rig.workers.starts()), (vec!["1".to_owned(), "2".to_owned()], 3));
}

/// A long queue brings all nodes, its end sends them home; every record is processed once.
#[tokio::test(flavor = "multi_thread")]
async fn up_and_down() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let gated: Handler = Arc::new(move |_, _, _| {
        let held = held.clone();
        Box::pin(async move {
            held.acquire().await.unwrap().forget();
            outputs(&[])
        })
    });
    let rig = Rig::with(3, 6, "fake", gated, |options| FunctionsOptions {
        idle_stop: Duration::from_millis(500),
        ..options
    });
    let host = json!({ "extensions": { "eventHubs":
        { "maxEventBatchSize": 1, "targetUnprocessedEventThreshold": 2 } } });
    rig.deploy_with("app", app(), host).await;
    let devices: Vec<String> = (0..6).map(|partition| rig.world.device_in(partition, 0)).collect();
    for number in 0..5 {
        devices.iter().for_each(|device| rig.world.send(device, &number.to_string()));
    }
    rig.world.until(|| rig.world.members(GROUP).len() == 3).await;
    let status = rig.tiers[1].status("app").await.unwrap();
    assert_eq!(status["functions"][0]["desiredInstances"], 3);
    gate.add_permits(1000);
    rig.until_processed(GROUP, 6).await;
    rig.world.until(|| rig.world.members(GROUP).len() == 1).await;
    let mut bodies = rig.workers.bodies();
    bodies.sort();
    // A batch that was under way when its partition moved may have run twice; none is left out.
    assert!(bodies.len() >= 30, "{bodies:?}");
    bodies.dedup();
    assert_eq!(bodies, ["0", "1", "2", "3", "4"]);
}

/// A worker that doesn't start is started again later; its records wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_start() {
    let rig = Rig::new(1, 1, handler(|_, _| outputs(&[])));
    rig.deploy("app", app()).await;
    *rig.workers.broken.lock() = Some("no python here".into());
    rig.world.send("d", "1");
    let mut last = serde_json::Value::Null;
    while last["nodes"][0]["worker"].as_str().is_none_or(|text| !text.contains("no python here")) {
        last = rig.tiers[0].status("app").await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(last["functions"][0]["lag"], 1);
    *rig.workers.broken.lock() = None;
    rig.until_processed(GROUP, 1).await;
    assert_eq!(rig.workers.bodies(), ["1"]);
    assert_eq!(rig.world.records_from("functionPoison").len(), 0);
}

/// A node whose workers don't start leaves the work to one whose do.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_can_not_run_it() {
    let rig = Rig::new(2, 2, handler(|_, _| outputs(&[])));
    rig.deploy("app", app()).await;
    rig.world.until(|| rig.world.members(GROUP).len() == 1).await;
    let first = rig.world.members(GROUP).pop_first().unwrap();
    let node: u64 = first.strip_prefix("functions@").unwrap().parse().unwrap();
    rig.workers.broken_node.store(node, std::sync::atomic::Ordering::SeqCst);
    *rig.workers.broken.lock() = Some("no python here".into());
    rig.world.send("d", "1");
    rig.until_processed(GROUP, 2).await;
    assert_eq!(rig.workers.bodies(), ["1"]);
    assert_ne!(rig.workers.seen.lock()[0].0, node);
    rig.world.until(|| !rig.world.members(GROUP).contains(&first)).await;
}

/// Settings of the app reach its functions; a new revision takes over without losing its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_goes_on() {
    let rig = Rig::new(2, 2, handler(|_, _| outputs(&[])));
    rig.deploy("app", app()).await;
    rig.world.send("d", "1");
    rig.until_processed(GROUP, 2).await;
    rig.world.until(|| rig.workers.calls() == 1).await;
    rig.deploy_with("app", app(), json!({ "version": "2.0" })).await;
    rig.world.send("d", "2");
    rig.world.until(|| rig.workers.bodies() == ["1", "2"]).await;
    rig.until_processed(GROUP, 2).await;
}
