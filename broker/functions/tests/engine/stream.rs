//! Functions that the stream starts: order, retries, poison, crashes, fencing, unknown outcomes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fleetline_functions::Destination;
use fleetline_worker::{Invocation, Value};
use fleetline_workers::WorkerError;
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;

use super::fakes::{Answer, Handler, Rig, bodies, handler, outputs, throws};
use super::world::Fault;

const GROUP: &str = "$fn-app-f";

/// A function `f` on the stream, with every output.
fn app(many: bool, more: Json) -> Json {
    let cardinality = if many { "MANY" } else { "one" };
    let mut function = json!({ "name": "f", "bindings": [
        { "type": "eventHubTrigger", "direction": "in", "name": "e", "cardinality": cardinality },
        { "type": "twin", "direction": "out", "name": "twins" },
        { "type": "command", "direction": "out", "name": "commands" },
        { "type": "eventHub", "direction": "out", "name": "stream" },
        { "type": "signalR", "direction": "out", "name": "screen", "hubName": "live" },
    ] });
    function.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    json!([function])
}

/// Sends a command with each body to its device.
fn echo(_: &str, invocation: &Invocation) -> Answer {
    let metadata = metadata(invocation, "SystemPropertiesArray");
    let bodies = bodies(&invocation.inputs[0].1);
    let command = |(number, body): (usize, String)| {
        let device = &metadata[number]["iothub-connection-device-id"];
        json!({ "deviceId": device, "body": body })
    };
    let commands: Vec<Json> = bodies.into_iter().enumerate().map(command).collect();
    outputs(&[("commands", json!(commands))])
}

fn metadata(invocation: &Invocation, name: &str) -> Json {
    let found = invocation.metadata.iter().find(|(found, _)| found == name).unwrap();
    let Value::Json(bytes) = &found.1 else { panic!("{found:?}") };
    serde_json::from_slice(bytes).unwrap()
}

fn command_bodies(rig: &Rig, device: &str) -> Vec<String> {
    let text = |row: fleetline_devices::CommandRow| String::from_utf8(row.body.to_vec()).unwrap();
    rig.world.commands(device).into_iter().map(text).collect()
}

/// All effects in the own partition happen once, in order; those elsewhere happen; the checkpoint is behind.
#[tokio::test(flavor = "multi_thread")]
async fn effects_of_a_batch() {
    let rig = Rig::new(
        1,
        4,
        handler(|_, invocation| {
            let device =
                metadata(invocation, "SystemPropertiesArray")[0]["iothub-connection-device-id"].clone();
            let text = device.as_str().unwrap().to_owned();
            outputs(&[
                (
                    "twins",
                    json!([{ "deviceId": device, "tags": { "seen": true } }, { "deviceId": "ghost", "tags": {} }]),
                ),
                ("commands", json!({ "deviceId": device, "body": "go" })),
                ("stream", json!([{ "made": 1 }])),
                (
                    "screen",
                    json!([{ "target": "show", "arguments": [text], "groupName": "g" },
                { "action": "add", "userId": "u", "groupName": "g" }]),
                ),
            ])
        }),
    );
    rig.realtime.busy.store(2, Ordering::SeqCst);
    let device = rig.world.device_in(1, 0);
    rig.world.create_device(&device);
    rig.world.send(&device, "1");
    rig.deploy("app", app(true, json!({}))).await;
    rig.until_processed(GROUP, 4).await;
    let (version, tags, _) = rig.world.twin(&device);
    assert_eq!((version, tags), (2, json!({ "seen": true })));
    assert_eq!(command_bodies(&rig, &device), ["go"]);
    // A record without a device of its own is of the batch's only one.
    let made = rig.world.records_from("functionOutput");
    assert_eq!(made.len(), 1);
    assert_eq!((made[0].0.as_str(), made[0].1["iothub-function"].as_str()), (r#"{"made":1}"#, "app/f"));
    assert_eq!(rig.realtime.sent.lock().len(), 1);
    let (hub, to, target, arguments) = rig.realtime.sent.lock()[0].clone();
    assert_eq!((hub.as_str(), to, target.as_str()), ("live", Destination::Group("g".into()), "show"));
    assert_eq!(arguments, format!("[\"{device}\"]"));
    assert_eq!(rig.realtime.groups.lock().len(), 1);
    // What it has put into the stream itself did not start it again, and what was refused was counted.
    assert_eq!(rig.workers.calls(), 1);
    let status = rig.tiers[0].status("app").await.unwrap();
    let function = &status["functions"][0];
    assert_eq!((&function["invocations"], &function["refusedEffects"]), (&json!(1), &json!(1)));
    assert_eq!((&function["lag"], &function["failures"]), (&json!(0), &json!(0)));
}

/// A partition's records come in order, each once, and batches don't overlap.
#[tokio::test(flavor = "multi_thread")]
async fn order_of_a_partition() {
    let busy = Arc::new(AtomicU64::new(0));
    let running = busy.clone();
    let slow: Handler = Arc::new(move |_, function, invocation| {
        let busy = running.clone();
        Box::pin(async move {
            assert_eq!(busy.fetch_add(1, Ordering::SeqCst), 0, "two batches of a partition at once");
            tokio::task::yield_now().await;
            let answer = echo(&function, &invocation);
            busy.fetch_sub(1, Ordering::SeqCst);
            answer
        })
    });
    let rig = Rig::new(1, 1, slow);
    let host = json!({ "extensions": { "eventHubs": { "maxEventBatchSize": 7 } } });
    rig.deploy_with("app", app(true, json!({})), host).await;
    (0..50).for_each(|number| rig.world.send("d", &number.to_string()));
    rig.until_processed(GROUP, 1).await;
    let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(rig.workers.bodies(), expected);
    let seen = rig.workers.seen.lock();
    assert!(seen.iter().all(|(_, _, invocation)| bodies(&invocation.inputs[0].1).len() <= 7));
    let ids: std::collections::BTreeSet<_> =
        seen.iter().map(|(_, _, invocation)| invocation.id.clone()).collect();
    assert_eq!(ids.len(), seen.len());
}

/// A failing batch is tried as its policy says, with the context; then it is poison, and the next goes on.
#[tokio::test(flavor = "multi_thread")]
async fn retries_and_poison() {
    let rig = Rig::new(
        1,
        1,
        handler(|_, invocation| {
            match bodies(&invocation.inputs[0].1).iter().any(|body| body.contains("bad")) {
                true => throws("can't be"),
                false => outputs(&[]),
            }
        }),
    );
    let retry = json!({ "retry": { "max": 2 } });
    let host = json!({ "extensions": { "eventHubs": { "maxEventBatchSize": 1 } } });
    rig.deploy_with("app", app(true, retry), host).await;
    ["\"ok\"", "\"bad\"", "\"after\""].iter().for_each(|body| rig.world.send("d", body));
    rig.until_processed(GROUP, 1).await;
    assert_eq!(rig.workers.bodies(), ["\"ok\"", "\"bad\"", "\"bad\"", "\"bad\"", "\"after\""]);
    let seen = rig.workers.seen.lock().clone();
    let contexts: Vec<_> = seen[1..4]
        .iter()
        .map(|(_, _, invocation)| {
            let retry = invocation.retry.clone().unwrap();
            (retry.count, retry.max, retry.error.map(|error| error.message))
        })
        .collect();
    let error = Some("can't be".to_owned());
    assert_eq!(contexts, [(0, 2, None), (1, 2, error.clone()), (2, 2, error)]);
    assert!(seen[1].2.id == seen[2].2.id && seen[2].2.id == seen[3].2.id);
    let poison = rig.world.records_from("functionPoison");
    assert_eq!(poison.len(), 1);
    let (body, properties) = &poison[0];
    assert_eq!(body, "\"bad\"");
    let expected = [
        ("iothub-poison-function", "app/f"),
        ("iothub-poison-reason", "can't be"),
        ("iothub-poison-offset", "1"),
        ("iothub-poison-partition", "0"),
        ("iothub-poison-count", "1"),
    ];
    expected.iter().for_each(|(name, value)| assert_eq!(properties[*name], *value));
    let status = rig.tiers[0].status("app").await.unwrap();
    let function = &status["functions"][0];
    assert_eq!((&function["failures"], &function["poison"]), (&json!(3), &json!(1)));
    assert_eq!(function["lastError"], "can't be");
}

/// A worker that ends is not the function's fault, until it ends with the same batch again and again.
#[tokio::test(flavor = "multi_thread")]
async fn crashes() {
    let left = Arc::new(AtomicU64::new(2));
    let crashing = left.clone();
    let rig = Rig::new(
        1,
        1,
        handler(move |function, invocation| {
            let is_bad = bodies(&invocation.inputs[0].1)[0].contains("bad");
            let crash = is_bad
                || crashing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
            match crash {
                true => Err(WorkerError::Exited { reason: "killed".into() }),
                false => echo(function, invocation),
            }
        }),
    );
    rig.world.create_device("d");
    rig.deploy("app", app(true, json!({}))).await;
    rig.world.send("d", "1");
    rig.until_processed(GROUP, 1).await;
    assert_eq!((rig.workers.calls(), command_bodies(&rig, "d")), (3, vec!["1".to_owned()]));
    assert_eq!(rig.world.records_from("functionPoison").len(), 0);
    rig.world.send("d", "\"bad\"");
    rig.until_processed(GROUP, 1).await;
    assert_eq!(rig.workers.calls(), 6);
    assert!(rig.world.records_from("functionPoison")[0].1["iothub-poison-reason"].contains("ended 3 times"));
}

/// A commit whose outcome is unknown: applied or not, its effects happen once, and nothing is left out.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_outcomes() {
    for fault in [Fault::Applied, Fault::Lost, Fault::Refused] {
        let rig = Rig::new(1, 1, handler(echo));
        rig.world.create_device("d");
        let host = json!({ "extensions": { "eventHubs": { "maxEventBatchSize": 1 } } });
        rig.world.fault(fault);
        rig.world.fault(fault);
        rig.deploy_with("app", app(true, json!({})), host).await;
        ["1", "2", "3"].iter().for_each(|body| rig.world.send("d", body));
        rig.until_processed(GROUP, 1).await;
        assert_eq!(command_bodies(&rig, "d"), ["1", "2", "3"], "{fault:?}");
        assert_eq!(rig.workers.calls(), 3, "{fault:?}");
        // One commit each: a repeated one is refused by the log.
        let with_changes = || rig.world.commits().iter().filter(|(_, _, _, changes)| *changes > 0).count();
        rig.world.until(|| with_changes() >= 3).await;
        assert_eq!(with_changes(), 3, "{fault:?} {:?}", rig.world.commits());
    }
}

/// An owner that is fenced in the middle of a batch, and doesn't know it, changes nothing any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_owner_changes_nothing() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let gated: Handler = Arc::new(move |_, function, invocation| {
        let held = held.clone();
        Box::pin(async move {
            held.acquire().await.unwrap().forget();
            echo(&function, &invocation)
        })
    });
    // Heartbeats are far apart: nobody tells the owner.
    let rig = Rig::with(1, 1, "fake", gated, |options| fleetline_functions::FunctionsOptions {
        session_timeout: std::time::Duration::from_secs(600),
        ..options
    });
    rig.world.create_device("d");
    rig.deploy("app", app(true, json!({}))).await;
    rig.world.send("d", "1");
    rig.world.until(|| rig.workers.calls() == 1).await;
    let stranger = rig.world.take_over(GROUP, 0);
    gate.add_permits(1);
    rig.world.until(|| rig.world.refused() == 1).await;
    assert_eq!(command_bodies(&rig, "d"), Vec::<String>::new());
    rig.world.leave(GROUP, stranger);
    gate.add_permits(100);
    rig.until_processed(GROUP, 1).await;
    assert_eq!(command_bodies(&rig, "d"), ["1"]);
    assert!(rig.workers.calls() >= 2);
}

/// The process of the owner dies in the middle of a batch: another node does it again, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_owner_is_replaced() {
    let dead = Arc::new(AtomicU64::new(0));
    let first = dead.clone();
    let dying: Handler = Arc::new(move |node, function, invocation| {
        let first = first.clone();
        Box::pin(async move {
            if first.compare_exchange(0, node, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                std::future::pending::<()>().await;
            }
            echo(&function, &invocation)
        })
    });
    let mut rig = Rig::new(3, 2, dying);
    let device = rig.world.device_in(1, 0);
    rig.world.create_device(&device);
    rig.deploy("app", app(true, json!({}))).await;
    rig.world.send(&device, "1");
    rig.world.until(|| rig.workers.calls() == 1).await;
    let owner = rig.workers.seen.lock()[0].0;
    rig.kill(owner);
    rig.until_processed(GROUP, 2).await;
    assert_eq!(command_bodies(&rig, &device), ["1"]);
    let seen = rig.workers.seen.lock();
    assert!(seen[1].0 != owner && seen[0].2.id == seen[1].2.id);
}

/// Records one by one: those of a device in order, those of others meanwhile; effects in the records' order.
#[tokio::test(flavor = "multi_thread")]
async fn single_records() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let gated: Handler = Arc::new(move |_, _, invocation| {
        let held = held.clone();
        Box::pin(async move {
            let device = metadata(&invocation, "SystemProperties")["iothub-connection-device-id"].clone();
            let body = bodies(&invocation.inputs[0].1)[0].clone();
            if body == "0" && device == "slow" {
                held.acquire().await.unwrap().forget();
            }
            outputs(&[("stream", json!([{ "from": device, "body": body }]))])
        })
    });
    let rig = Rig::new(1, 1, gated);
    for number in 0..3 {
        rig.world.send("slow", &number.to_string());
        rig.world.send("fast", &number.to_string());
    }
    rig.deploy("app", app(false, json!({}))).await;
    // The fast one's are done while the slow one's first waits, and its second isn't begun.
    rig.world.until(|| rig.workers.calls() == 4).await;
    assert_eq!(rig.world.records_from("functionOutput").len(), 0);
    gate.add_permits(1);
    rig.until_processed(GROUP, 1).await;
    let made: Vec<String> =
        rig.world.records_from("functionOutput").into_iter().map(|(body, _)| body).collect();
    let expected: Vec<String> = (0..3)
        .flat_map(|n| {
            ["slow", "fast"].map(|device| json!({ "from": device, "body": n.to_string() }).to_string())
        })
        .collect();
    assert_eq!(made, expected);
}

/// One bad record of several is poison alone.
#[tokio::test(flavor = "multi_thread")]
async fn single_poison() {
    let rig = Rig::new(
        1,
        1,
        handler(|_, invocation| match bodies(&invocation.inputs[0].1)[0].as_str() {
            "1" => throws("one"),
            _ => outputs(&[("stream", json!({ "x": 1 }))]),
        }),
    );
    (0..3).for_each(|number| rig.world.send("d", &number.to_string()));
    rig.deploy("app", app(false, json!({}))).await;
    rig.until_processed(GROUP, 1).await;
    assert_eq!(rig.world.records_from("functionPoison").len(), 1);
    assert_eq!(rig.world.records_from("functionOutput").len(), 2);
}

/// More effects than an entry holds: single records go into several entries, a batch runs again in halves,
/// and one record's that are too many are a failure.
#[tokio::test(flavor = "multi_thread")]
async fn effects_beyond_one_commit() {
    let events = |count: usize| json!(vec![json!({ "x": 1 }); count]);
    let rig = Rig::new(1, 1, handler(move |_, _| outputs(&[("stream", events(100))])));
    (0..6).for_each(|number| rig.world.send("d", &number.to_string()));
    rig.deploy("app", app(false, json!({}))).await;
    rig.until_processed(GROUP, 1).await;
    assert_eq!(rig.world.records_from("functionOutput").len(), 600);
    assert_eq!(rig.workers.calls(), 6);
    let sizes: Vec<usize> =
        rig.world.commits().into_iter().map(|commit| commit.3).filter(|n| *n > 0).collect();
    assert!(sizes.iter().all(|size| *size <= 256) && sizes.iter().sum::<usize>() == 600, "{sizes:?}");

    let each = move |_: &str, invocation: &Invocation| {
        let count = bodies(&invocation.inputs[0].1).len();
        outputs(&[("stream", events(count * 30))])
    };
    let rig = Rig::new(1, 1, handler(each));
    (0..20).for_each(|number| rig.world.send("d", &number.to_string()));
    rig.deploy("app", app(true, json!({}))).await;
    rig.until_processed(GROUP, 1).await;
    assert_eq!(rig.world.records_from("functionOutput").len(), 600);
    assert_eq!(rig.world.records_from("functionPoison").len(), 0);

    let rig = Rig::new(1, 1, handler(move |_, _| outputs(&[("stream", json!(vec![1; 300]))])));
    rig.world.send("d", "1");
    rig.deploy("app", app(true, json!({}))).await;
    rig.until_processed(GROUP, 1).await;
    let poison = rig.world.records_from("functionPoison");
    assert!(poison[0].1["iothub-poison-reason"].contains("fit into one commit"), "{poison:?}");
    assert_eq!(rig.world.records_from("functionOutput").len(), 0);
}

/// Effects in other partitions: at least once, with an id that stays the same when the batch comes again.
#[tokio::test(flavor = "multi_thread")]
async fn effects_elsewhere() {
    let rig = Rig::new(
        1,
        2,
        handler(|_, invocation| {
            let body: Json = serde_json::from_str(&bodies(&invocation.inputs[0].1)[0]).unwrap();
            outputs(&[
                ("commands", json!({ "deviceId": body["other"], "body": "go" })),
                (
                    "stream",
                    json!({ "deviceId": body["other"], "bodyBase64": "eA==", "properties": { "a": "b" } }),
                ),
            ])
        }),
    );
    let (own, other) = (rig.world.device_in(0, 0), rig.world.device_in(1, 0));
    rig.world.create_device(&own);
    rig.world.create_device(&other);
    rig.world.send(&own, &json!({ "other": other }).to_string());
    rig.deploy("app", app(true, json!({}))).await;
    rig.until_processed(GROUP, 2).await;
    let commands = rig.world.commands(&other);
    let id = rig.workers.seen.lock()[0].2.id.clone();
    assert_eq!(commands.iter().map(|row| row.message_id.clone()).collect::<Vec<_>>(), [format!("{id}-0")]);
    let made = rig.world.records_from("functionOutput");
    assert_eq!((made.len(), made[0].0.as_str(), made[0].1["a"].as_str()), (1, "x", "b"));
}

/// State of components: read at the claim, changed with the checkpoint; an unknown outcome counts once.
#[tokio::test(flavor = "multi_thread")]
async fn keyed_state() {
    let count = |_: &str, invocation: &Invocation| {
        let state = invocation.inputs.iter().find(|(name, _)| name == "$state").map(|(_, value)| value);
        let Some(Value::Json(state)) = state else { panic!("no state") };
        let state: BTreeMap<String, String> = serde_json::from_slice(state).unwrap();
        let before = state.get("n").map_or(0, |text| BASE64.decode(text).unwrap()[0]);
        let after = before + bodies(&invocation.inputs[0].1).len() as u8;
        outputs(&[("$state", json!({ "n": BASE64.encode([after]), "gone": null }))])
    };
    for many in [true, false] {
        let mut rig = Rig::with(2, 1, "wasm", handler(count), |options| options);
        rig.world.fault(Fault::Applied);
        rig.world.fault(Fault::Lost);
        rig.deploy("app", app(many, json!({}))).await;
        (0..5).for_each(|number| rig.world.send("d", &number.to_string()));
        rig.until_processed(GROUP, 1).await;
        // Another owner goes on from there.
        let owner = rig.workers.seen.lock()[0].0;
        rig.kill(owner);
        (5..9).for_each(|number| rig.world.send("d", &number.to_string()));
        rig.until_processed(GROUP, 1).await;
        let last = rig.workers.seen.lock().last().cloned().unwrap();
        assert_ne!(last.0, owner);
        let documents = rig.world.documents("fn/s/app/f/0/");
        assert_eq!(documents, [("fn/s/app/f/0/n".to_owned(), 1)]);
        assert_eq!(rig.world.document("fn/s/app/f/0/n", 0), [9], "many {many}");
    }
}

/// A batch waits for its least size, but not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn least_size_of_a_batch() {
    let rig = Rig::new(1, 1, handler(|_, _| outputs(&[])));
    let host =
        json!({ "extensions": { "eventHubs": { "minEventBatchSize": 3, "maxWaitTime": "00:00:01" } } });
    let mut functions = app(true, json!({}));
    functions[0]["bindings"][0]["consumerGroup"] = "%GROUP%".into();
    rig.deploy_with("app", functions, host).await;
    rig.tiers[0].set_settings("app", [("GROUP".to_owned(), "mine".to_owned())].into()).await.unwrap();
    rig.world.until(|| rig.world.checkpoint(0, "mine").is_some()).await;
    rig.world.send("d", "1");
    rig.world.send("d", "2");
    rig.world.send("d", "3");
    rig.until_processed("mine", 1).await;
    rig.world.send("d", "4");
    rig.until_processed("mine", 1).await;
    let seen = rig.workers.seen.lock();
    let sizes: Vec<usize> = seen.iter().map(|(_, _, call)| bodies(&call.inputs[0].1).len()).collect();
    assert_eq!(sizes, [3, 1]);
}

/// Where a function begins that was never there, and that it begins there once.
#[tokio::test(flavor = "multi_thread")]
async fn from_the_end() {
    let rig = Rig::new(1, 1, handler(echo));
    rig.world.send("d", "0");
    let host = json!({ "extensions": { "eventHubs": { "initialOffsetOptions": { "type": "fromEnd" } } } });
    rig.deploy_with("app", app(true, json!({})), host).await;
    rig.world.until(|| rig.world.checkpoint(0, GROUP) == Some(1)).await;
    rig.world.send("d", "1");
    rig.until_processed(GROUP, 1).await;
    assert_eq!(rig.workers.bodies(), ["1"]);
}

/// Changes of twins, and events of the hub in Event Grid's form.
#[tokio::test(flavor = "multi_thread")]
async fn other_triggers_of_the_stream() {
    let rig = Rig::new(1, 1, handler(|_, _| outputs(&[])));
    let functions = json!([
        { "name": "twins", "bindings": [{ "type": "twinTrigger", "name": "t" }] },
        { "name": "grid", "bindings": [{ "type": "eventGridTrigger", "name": "g" }] },
    ]);
    rig.deploy("app", functions).await;
    rig.world.create_device("d");
    let patch = fleetline_devices::PatchTwin {
        key: fleetline_devices::DeviceKey::device("d"),
        tags: r#"{"a":1}"#.into(),
        condition: fleetline_devices::Condition::any(),
        ..fleetline_devices::PatchTwin::default()
    };
    let reply = rig.world.change(rig.world.partition_of("d"), fleetline_devices::Op::PatchTwin(patch));
    assert_eq!(reply.error, None);
    rig.world.until(|| rig.workers.calls() == 2).await;
    let seen = rig.workers.seen.lock().clone();
    let of = |name: &str| seen.iter().find(|(_, function, _)| function == name).unwrap().2.clone();
    let twin: Json = serde_json::from_str(&bodies(&of("twins").inputs[0].1)[0]).unwrap();
    assert_eq!(twin["tags"], json!({ "a": 1 }));
    assert_eq!(metadata(&of("twins"), "Properties")["opType"], "updateTwin");
    let event: Json = serde_json::from_str(&bodies(&of("grid").inputs[0].1)[0]).unwrap();
    assert_eq!(event["eventType"], "Microsoft.Devices.DeviceCreated");
}

/// What is skipped doesn't hold the checkpoint back for ever.
#[tokio::test(flavor = "multi_thread")]
async fn skipped_records_move_the_checkpoint() {
    let rig = Rig::with(1, 1, "fake", handler(|_, _| outputs(&[])), |options| {
        fleetline_functions::FunctionsOptions {
            skip_checkpoint: 10,
            skip_interval: std::time::Duration::from_secs(3600),
            ..options
        }
    });
    let functions = json!([{ "name": "f", "bindings": [{ "type": "twinTrigger", "name": "t" }] }]);
    rig.deploy("app", functions).await;
    (0..25).for_each(|number| rig.world.send("d", &number.to_string()));
    rig.world.until(|| rig.world.checkpoint(0, GROUP).unwrap_or(0) >= 10).await;
    assert_eq!(rig.workers.calls(), 0);
}

/// An input binding gives the twin of the record's device.
#[tokio::test(flavor = "multi_thread")]
async fn twin_input() {
    let rig = Rig::new(1, 1, handler(|_, _| outputs(&[])));
    rig.world.create_device("d");
    let functions = json!([{ "name": "f", "bindings": [
        { "type": "eventHubTrigger", "name": "e" },
        { "type": "twin", "direction": "in", "name": "twin", "deviceId": "{deviceId}" },
    ] }]);
    rig.deploy("app", functions).await;
    rig.world.send("d", "1");
    rig.world.send("ghost", "1");
    rig.until_processed(GROUP, 1).await;
    let inputs: BTreeMap<String, Json> = rig
        .workers
        .seen
        .lock()
        .iter()
        .map(|(_, _, invocation)| {
            let Value::Json(twin) = &invocation.inputs[1].1 else { panic!("{invocation:?}") };
            let device = metadata(invocation, "PartitionKey").as_str().unwrap().to_owned();
            (device, serde_json::from_slice(twin).unwrap())
        })
        .collect();
    assert_eq!(inputs["d"]["deviceId"], "d");
    assert_eq!(inputs["d"]["properties"]["desired"]["$version"], 1);
    assert_eq!(inputs["ghost"], Json::Null);
}
