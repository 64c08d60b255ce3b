//! Timers over several nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetline_worker::{Invocation, Value};
use serde_json::{Value as Json, json};

use super::fakes::{Handler, Rig, handler, outputs, throws};

fn timer(schedule: &str, more: Json) -> Json {
    let mut binding = json!({ "type": "timerTrigger", "direction": "in", "name": "t", "schedule": schedule });
    binding.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!([{ "name": "f", "retry": { "max": 1 }, "bindings": [binding,
        { "type": "command", "direction": "out", "name": "commands" }] }])
}

fn status(invocation: &Invocation) -> Json {
    let Value::Json(bytes) = &invocation.inputs[0].1 else { panic!("{invocation:?}") };
    serde_json::from_slice(bytes).unwrap()
}

/// Each tick runs once, whichever node takes it.
#[tokio::test(flavor = "multi_thread")]
async fn once_in_the_cluster() {
    let rig = Rig::new(3, 4, handler(|_, _| outputs(&[])));
    rig.deploy("app", timer("* * * * * *", json!({}))).await;
    rig.world.until(|| rig.workers.calls() >= 4).await;
    let seen = rig.workers.seen.lock().clone();
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    seen.iter().for_each(|(_, _, invocation)| *ids.entry(invocation.id.clone()).or_default() += 1);
    assert!(ids.values().all(|count| *count == 1), "{ids:?}");
    let status = status(&seen[1].2);
    assert_eq!(status["IsPastDue"], false);
    assert_eq!(status["Schedule"], json!({ "AdjustForDST": true }));
    let last = status["ScheduleStatus"]["Last"].as_str().unwrap();
    assert!(last.starts_with("20") && status["ScheduleStatus"]["Next"].as_str().unwrap() > last);
}

/// A tick whose node dies in the middle of it is run again by another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_s_tick() {
    let first = Arc::new(AtomicU64::new(0));
    let winner = first.clone();
    let dying: Handler = Arc::new(move |node, _, _| {
        let winner = winner.clone();
        Box::pin(async move {
            if winner.compare_exchange(0, node, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                std::future::pending::<()>().await;
            }
            outputs(&[])
        })
    });
    let mut rig = Rig::new(3, 4, dying);
    // Far in the future: only the tick that is made due counts.
    rig.deploy("app", timer("0 0 0 1 1 *", json!({ "runOnStartup": true }))).await;
    rig.world.until(|| rig.workers.calls() == 1).await;
    let dead = rig.workers.seen.lock()[0].0;
    rig.kill(dead);
    rig.world.until(|| rig.workers.calls() == 2).await;
    let seen = rig.workers.seen.lock().clone();
    assert!(seen[1].0 != dead && seen[0].2.id == seen[1].2.id);
    assert_eq!(status(&seen[1].2)["IsPastDue"], true);
    rig.world
        .until(|| {
            let partition = rig.world.partition_of("fn/t/app/f").0;
            let row: Json = serde_json::from_slice(&rig.world.document("fn/t/app/f", partition)).unwrap();
            row["done"] == true
        })
        .await;
}

/// Missed ticks become one late run, if the timer is monitored.
#[tokio::test(flavor = "multi_thread")]
async fn missed_ticks() {
    for monitored in [true, false] {
        let rig = Rig::new(1, 1, handler(|_, _| outputs(&[])));
        rig.deploy("app", timer("0 0 * * * *", json!({ "useMonitor": monitored }))).await;
        let document = || rig.world.documents("fn/t/app/f");
        rig.world.until(|| !document().is_empty()).await;
        let tick = || -> u64 {
            let row: Json = serde_json::from_slice(&rig.world.document("fn/t/app/f", 0)).unwrap();
            row["tick"].as_u64().unwrap()
        };
        let before = tick();
        rig.world.advance(Duration::from_secs(5 * 3600 + 60));
        // A new revision looks at once.
        rig.tiers[0].set_settings("app", [("A".to_owned(), "b".to_owned())].into()).await.unwrap();
        rig.world.until(|| tick() > before + 3 * 3_600_000).await;
        if monitored {
            rig.world.until(|| rig.workers.calls() == 1).await;
            assert_eq!(status(&rig.workers.seen.lock()[0].2)["IsPastDue"], true);
        } else {
            assert_eq!(rig.workers.calls(), 0);
        }
    }
}

/// A run that fails is tried again as its policy says, then its tick is done with.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_run() {
    let rig = Rig::new(1, 1, handler(|_, _| throws("no")));
    rig.deploy("app", timer("0 0 0 1 1 *", json!({ "runOnStartup": true }))).await;
    rig.world.until(|| rig.workers.calls() == 2).await;
    let seen = rig.workers.seen.lock().clone();
    assert_eq!(seen[1].2.retry.clone().unwrap().count, 1);
    rig.world
        .until(|| {
            let row: Json = serde_json::from_slice(&rig.world.document("fn/t/app/f", 0)).unwrap();
            row["done"] == true
        })
        .await;
}

/// What a timer wants done is done, wherever the device is.
#[tokio::test(flavor = "multi_thread")]
async fn effects() {
    let rig =
        Rig::new(1, 4, handler(|_, _| outputs(&[("commands", json!({ "deviceId": "d", "body": "tick" }))])));
    rig.world.create_device("d");
    rig.deploy("app", timer("0 0 0 1 1 *", json!({ "runOnStartup": true }))).await;
    rig.world.until(|| !rig.world.commands("d").is_empty()).await;
    let id = rig.workers.seen.lock()[0].2.id.clone();
    assert_eq!(rig.world.commands("d")[0].message_id, format!("{id}-0"));
}
