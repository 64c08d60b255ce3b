//! Telemetry, commands, twins, methods.

use std::time::Duration;

use fleetline_amqp::DeliveryState;
use fleetline_amqp::message::{FORMAT_BATCH, Message, Properties};
use fleetline_amqp::performative::Role;
use fleetline_amqp::value::Value;
use fleetline_devices::{AckMode, CommandRow, DeviceKey, Property};
use fleetline_gateway::devices::hub::MethodCall;
use fleetline_iothub::bag::SystemProperty;

use crate::client::{Client, Wish, body, data, message, written};
use crate::world::World;

const EVENTS: &str = "/devices/a/messages/events";
const COMMANDS: &str = "/devices/a/messages/deviceBound";

fn released<'a>() -> DeliveryState<'a> {
    DeliveryState::Released
}

/// A message with everything becomes a record with everything, and is accepted when it is stored.
#[tokio::test(start_paused = true)]
async fn telemetry() {
    let world = World::new().await;
    let mut client = world.device("a").await;
    let model = written(|w| {
        w.map(|w| {
            w.symbol("com.microsoft:model-id");
            w.string("dtmi:x;1");
        });
    });
    let wish = Wish { properties: &model, ..Wish::default() };
    let events =
        client.try_attach(0, Role::Sender, "amqps://hub.example:5671/devices/a/messages/events", wish);
    let events = events.await.unwrap();
    world.hub.held.send_replace(true);
    let payload = message(|w| {
        w.message_annotations(|w| {
            w.symbol("dt-subject");
            w.string("part");
        })
        .properties(&Properties {
            message_id: Value::String("m1"),
            content_type: Some("application/json"),
            ..Properties::default()
        })
        .application_properties(|w| {
            w.string("room");
            w.string("4");
        })
        .data(b"{}");
    });
    let id = client.give(0, events, 0, false, &payload).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.hub.records().is_empty());
    world.hub.held.send_replace(false);
    assert_eq!(client.outcome(id).await, "accepted");
    let record = &world.hub.records()[0];
    let system = |property: SystemProperty| {
        let mut rows = record.system();
        rows.find(|(id, _)| *id == property.number())
            .map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
    };
    assert_eq!(record.device.as_ref(), b"a");
    assert_eq!(system(SystemProperty::MessageId).as_deref(), Some("m1"));
    assert_eq!(system(SystemProperty::Component).as_deref(), Some("part"));
    assert_eq!(system(SystemProperty::ModelId).as_deref(), Some("dtmi:x;1"));
    assert_eq!(system(SystemProperty::ConnectionAuthMethod).as_deref(), Some("s"));
    let generation = world.hub.view(&DeviceKey::device("a")).device.generation;
    assert_eq!(system(SystemProperty::ConnectionGenerationId), Some(generation));
    let properties: Vec<_> = record.properties().collect();
    assert_eq!(properties, [(bytes::Bytes::from("room"), bytes::Bytes::from("4"))]);
}

/// A batch is one delivery: all its messages are stored, in order, with one outcome.
#[tokio::test(start_paused = true)]
async fn batches() {
    let world = World::new().await;
    let mut client = world.device("a").await;
    let events = client.sender(EVENTS).await;
    let batch = |bodies: &[&str]| {
        message(|w| {
            for body in bodies {
                w.data(&data(body));
            }
        })
    };
    let id = client.give(0, events, FORMAT_BATCH, false, &batch(&["1", "2", "3"])).await;
    assert_eq!(client.outcome(id).await, "accepted");
    assert_eq!(world.hub.bodies(), ["1", "2", "3"]);
    // Together they are too large; the link lives on.
    let large = "x".repeat(150_000);
    let id = client.give(0, events, FORMAT_BATCH, false, &batch(&[&large, &large])).await;
    assert_eq!(client.outcome(id).await, "amqp:link:message-size-exceeded");
    let id = client.give(0, events, FORMAT_BATCH, false, &[]).await;
    assert_eq!(client.outcome(id).await, "amqp:decode-error");
    let id = client.give(0, events, FORMAT_BATCH, false, &data("not a message")).await;
    assert_eq!(client.outcome(id).await, "amqp:decode-error");
    assert_eq!(client.deliver(events, &[0x40]).await, "amqp:decode-error");
    assert_eq!(client.deliver(events, &data("4")).await, "accepted");
    assert_eq!(world.hub.bodies(), ["1", "2", "3", "4"]);
}

/// What is settled when it is sent is stored too, and nobody hears of it.
#[tokio::test(start_paused = true)]
async fn settled_telemetry() {
    let world = World::new().await;
    let mut client = world.device("a").await;
    let events = client.sender(EVENTS).await;
    for at in 0..600 {
        client.give(0, events, 0, true, &data(&at.to_string())).await;
    }
    assert_eq!(client.deliver(events, &data("last")).await, "accepted");
    assert_eq!(world.hub.bodies().len(), 601);
}

fn command(text: &str) -> CommandRow {
    CommandRow {
        body: text.as_bytes().to_vec().into(),
        message_id: format!("id-{text}"),
        ack: AckMode::Full as i32,
        properties: vec![Property { name: "p".into(), value: "v".into() }],
        ..CommandRow::default()
    }
}

/// Types as .NET reads them, a tag of 16 bytes, and each outcome.
#[tokio::test(start_paused = true)]
async fn commands() {
    let world = World::new().await;
    world.command("a", command("one"));
    let mut client = world.device("a").await;
    let commands = client.receiver(COMMANDS, 10).await;
    let (id, tag, payload) = client.delivery(commands).await;
    assert_eq!(tag.len(), 16);
    let message = Message::parse(&payload).unwrap();
    let annotation = |name: &str| message.message_annotations.get(name).unwrap();
    assert!(matches!(annotation("iothub-enqueuedtime"), Value::Timestamp(_)));
    assert_eq!(annotation("iothub-deliverycount"), Value::Ubyte(0));
    assert!(matches!(annotation("x-opt-sequence-number"), Value::Ulong(_)));
    assert!(matches!(annotation("x-opt-lock-token"), Value::String(_)));
    let properties = message.properties().unwrap();
    assert_eq!(properties.message_id, Value::String("id-one"));
    assert_eq!(properties.to, Some("/devices/a/messages/devicebound"));
    assert_eq!(message.application_properties.get("iothub-ack"), Some(Value::String("full")));
    assert_eq!(message.application_properties.get("p"), Some(Value::String("v")));
    assert_eq!(body(&payload), "one");
    // Abandoned: again, with a higher count.
    client.dispose(id, true, released()).await;
    let (id, _, payload) = client.delivery(commands).await;
    let again = Message::parse(&payload).unwrap();
    assert_eq!(again.message_annotations.get("iothub-deliverycount"), Some(Value::Ubyte(1)));
    client.dispose(id, true, DeliveryState::Accepted).await;
    world.command("a", command("two"));
    let (id, _, payload) = client.delivery(commands).await;
    assert_eq!(body(&payload), "two");
    client.dispose(id, true, DeliveryState::Rejected(None)).await;
    world.command("a", command("three"));
    let (id, _, payload) = client.delivery(commands).await;
    assert_eq!(body(&payload), "three");
    let modified =
        DeliveryState::Modified { delivery_failed: true, undeliverable_here: false, annotations: None };
    client.dispose(id, true, modified).await;
    let (id, _, _) = client.delivery(commands).await;
    client.dispose(id, true, DeliveryState::Accepted).await;
    wait_for(&world, 0).await;
    assert_eq!(world.hub.view(&DeviceKey::device("a")).commands, 0);
}

/// Until the device's queue has so many.
async fn wait_for(world: &World, commands: u32) {
    while world.hub.view(&DeviceKey::device("a")).commands != commands {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A receiver that settles second hears `accepted`, whatever it said.
#[tokio::test(start_paused = true)]
async fn settling_second() {
    let world = World::new().await;
    world.command("a", command("one"));
    world.command("a", command("two"));
    let mut client = world.device("a").await;
    let wish = Wish { second: true, ..Wish::default() };
    let commands = client.try_attach(0, Role::Receiver, COMMANDS, wish).await.unwrap();
    client.credit(0, commands, 0, 2).await;
    let (first, _, _) = client.delivery(commands).await;
    let (second, _, _) = client.delivery(commands).await;
    client.dispose(first, false, DeliveryState::Rejected(None)).await;
    assert_eq!(client.settled_by_server(first).await, "accepted");
    client.dispose(second, false, released()).await;
    assert_eq!(client.settled_by_server(second).await, "accepted");
    client.credit(0, commands, 2, 1).await;
    let (third, _, payload) = client.delivery(commands).await;
    assert_eq!(body(&payload), "two");
    // It was purged meanwhile.
    let purge = fleetline_devices::PurgeCommands { key: DeviceKey::device("a") };
    world.hub.apply_to(&DeviceKey::device("a"), fleetline_devices::Op::PurgeCommands(purge));
    client.dispose(third, false, DeliveryState::Accepted).await;
    assert_eq!(client.settled_by_server(third).await, "com.microsoft:message-lock-lost");
}

/// What a link had and didn't settle comes again, in order, without a higher count.
#[tokio::test(start_paused = true)]
async fn commands_of_a_lost_link() {
    let world = World::new().await;
    (1..=3).for_each(|at| world.command("a", command(&at.to_string())));
    let mut client = world.device("a").await;
    let commands = client.receiver(COMMANDS, 2).await;
    assert_eq!(body(&client.delivery(commands).await.2), "1");
    assert_eq!(body(&client.delivery(commands).await.2), "2");
    client.detach(commands).await;
    let commands = client.receiver(COMMANDS, 10).await;
    for at in 1..=3 {
        let (_, _, payload) = client.delivery(commands).await;
        assert_eq!(body(&payload), at.to_string());
        let count = Message::parse(&payload).unwrap().message_annotations.get("iothub-deliverycount");
        assert_eq!(count, Some(Value::Ubyte(0)));
    }
}

/// Credit that is drained comes back when there is nothing, and not before what there is.
#[tokio::test(start_paused = true)]
async fn drained_commands() {
    let world = World::new().await;
    world.command("a", command("one"));
    let mut client = world.device("a").await;
    let commands = client.attach(Role::Receiver, COMMANDS).await;
    client.flow(0, commands, 0, 5, true).await;
    assert_eq!(body(&client.delivery(commands).await.2), "one");
    let flow = client
        .find(|seen| match seen.performative {
            fleetline_amqp::performative::Performative::Flow(flow) if flow.handle == Some(commands) => {
                Some(flow)
            }
            _ => None,
        })
        .await;
    assert_eq!((flow.delivery_count, flow.link_credit), (Some(5), Some(0)));
}

struct TwinLinks {
    requests: u32,
    replies: u32,
}

async fn twin_links(client: &mut Client) -> TwinLinks {
    let wish = Wish { settled: true, ..Wish::default() };
    let requests = client.try_attach(0, Role::Sender, "/devices/a/twin", wish).await.unwrap();
    let replies = client.try_attach(0, Role::Receiver, "/devices/a/twin", wish).await.unwrap();
    client.credit(0, replies, 0, 100).await;
    TwinLinks { requests, replies }
}

fn twin_request(operation: &str, resource: &str, id: &str, version: Option<i64>, text: &str) -> Vec<u8> {
    message(|w| {
        w.message_annotations(|w| {
            w.symbol("operation");
            w.string(operation);
            if !resource.is_empty() {
                w.symbol("resource");
                w.string(resource);
            }
            w.symbol("version");
            match version {
                Some(version) => w.long(version),
                None => w.null(),
            }
        })
        .properties(&Properties { correlation_id: Value::String(id), ..Properties::default() })
        .data(text.as_bytes());
    })
}

/// The reply to a request: correlation id, status, version, body.
async fn reply(
    client: &mut Client,
    links: &TwinLinks,
) -> (Option<String>, Option<Value<'static>>, Option<i64>, String) {
    let (_, _, payload) = client.delivery(links.replies).await;
    let payload: &'static [u8] = Box::leak(payload.into_boxed_slice());
    let message = Message::parse(payload).unwrap();
    let id = match message.properties().unwrap().correlation_id {
        Value::String(id) => Some(id.to_owned()),
        _ => None,
    };
    let annotation = |name: &str| message.message_annotations.get(name);
    (id, annotation("status"), annotation("version").and_then(|value| value.as_i64()), body(payload))
}

#[tokio::test(start_paused = true)]
async fn twins() {
    let world = World::new().await;
    world.desire("a", r#"{"before":1}"#);
    let mut client = world.device("a").await;
    let links = twin_links(&mut client).await;
    client.give(0, links.requests, 0, true, &twin_request("GET", "", "g1", None, " ")).await;
    let (id, status, _, text) = reply(&mut client, &links).await;
    assert_eq!((id.as_deref(), status), (Some("g1"), Some(Value::Int(200))));
    let twin: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(twin["desired"]["before"], 1);
    let reported = "/properties/reported";
    client.give(0, links.requests, 0, true, &twin_request("PATCH", reported, "p1", None, r#"{"a":1}"#)).await;
    let (id, status, version, _) = reply(&mut client, &links).await;
    assert_eq!((id.as_deref(), status, version), (Some("p1"), Some(Value::Int(204)), Some(2)));
    // A version that isn't the current one, no JSON, and what is no request.
    for (request, wanted) in [
        (twin_request("PATCH", reported, "x", Some(77), "{}"), 412),
        (twin_request("PATCH", reported, "x", None, "nonsense"), 400),
        (twin_request("PATCH", "/properties/desired", "x", None, "{}"), 400),
        (twin_request("POST", "", "x", None, ""), 400),
    ] {
        client.give(0, links.requests, 0, true, &request).await;
        let (_, status, _, text) = reply(&mut client, &links).await;
        assert_eq!(status, Some(Value::Int(wanted)));
        assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap().is_object());
    }
    // Changes come once they are asked for, without a correlation id.
    let desired = "/notifications/twin/properties/desired";
    client.give(0, links.requests, 0, true, &twin_request("PUT", desired, "u1", None, " ")).await;
    assert_eq!(reply(&mut client, &links).await.1, Some(Value::Int(204)));
    world.desire("a", r#"{"after":2}"#);
    let (id, status, _, text) = reply(&mut client, &links).await;
    assert_eq!((id, status), (None, None));
    let change: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&change["after"], &change["$version"]), (&2.into(), &3.into()));
    client.give(0, links.requests, 0, true, &twin_request("DELETE", desired, "d1", None, " ")).await;
    assert_eq!(reply(&mut client, &links).await.1, Some(Value::Int(204)));
    world.desire("a", r#"{"unheard":3}"#);
    client.give(0, links.requests, 0, true, &twin_request("GET", "", "g2", None, " ")).await;
    assert_eq!(reply(&mut client, &links).await.0.as_deref(), Some("g2"));
}

fn call(world: &World, name: &str, timeout_ms: u64) -> MethodCall {
    let session = world.hub.view(&DeviceKey::device("a")).session.unwrap();
    MethodCall {
        key: DeviceKey::device("a"),
        place: session.place,
        epoch: session.epoch,
        name: name.into(),
        payload: bytes::Bytes::from_static(b"{\"x\":1}"),
        timeout_ms,
    }
}

#[tokio::test(start_paused = true)]
async fn methods() {
    let world = World::new().await;
    let mut client = world.device("a").await;
    let methods = "/devices/a/methods/devicebound";
    let replies = client.sender(methods).await;
    // Nobody listens yet.
    let connections = world.connections.clone();
    let answer = connections.call(call(&world, "early", 1000)).await;
    assert_eq!(answer.outcome, 1);
    let calls = client.receiver(methods, 10).await;
    let pending = tokio::spawn({
        let (connections, call) = (world.connections.clone(), call(&world, "reboot", 10_000));
        async move { connections.call(call).await }
    });
    let (_, _, payload) = client.delivery(calls).await;
    let message = Message::parse(&payload).unwrap();
    let Value::Uuid(id) = message.properties().unwrap().correlation_id else { panic!() };
    assert_eq!(id[6] >> 4, 4);
    assert_eq!(message.application_properties.get("IoThub-methodname"), Some(Value::String("reboot")));
    assert_eq!(body(&payload), "{\"x\":1}");
    let answer = crate::client::message(|w| {
        w.properties(&Properties { correlation_id: Value::Uuid(id), ..Properties::default() })
            .application_properties(|w| {
                w.string("IoThub-status");
                w.int(201);
            })
            .data(b"true");
    });
    assert_eq!(client.deliver(replies, &answer).await, "accepted");
    let answered = pending.await.unwrap();
    assert_eq!((answered.outcome, answered.status, answered.payload.as_ref()), (0, 201, &b"true"[..]));
    // One that nobody waits for any more is no fault, one without an id is.
    assert_eq!(client.deliver(replies, &answer).await, "accepted");
    assert_eq!(client.deliver(replies, &data("x")).await, "com.microsoft:argument-error");
    // A call ends with its link.
    let pending = tokio::spawn({
        let (connections, call) = (world.connections.clone(), call(&world, "late", 60_000));
        async move { connections.call(call).await }
    });
    client.delivery(calls).await;
    client.detach(calls).await;
    assert_eq!(pending.await.unwrap().outcome, 3);
}

/// Modules have nodes of their own.
#[tokio::test(start_paused = true)]
async fn modules() {
    let world = World::new().await;
    world.put(DeviceKey::module("a", "m"), fleetline_devices::Condition::absent(), false);
    let token = world.signed("hub.example/devices/a/modules/m", crate::world::DEVICE_KEY, 3600, None);
    let mut client = world.client_of(&[token]).await;
    let events = client.sender("/devices/a/modules/m/messages/events").await;
    assert_eq!(client.deliver(events, &data("x")).await, "accepted");
    let record = &world.hub.records()[0];
    let module = record.system().find(|(id, _)| *id == SystemProperty::ConnectionModuleId.number());
    assert_eq!(module.unwrap().1.as_ref(), b"m");
    let refused = client.try_attach(0, Role::Sender, EVENTS, Wish::default()).await;
    assert_eq!(refused.unwrap_err(), "amqp:unauthorized-access");
}
