//! The Event Hubs-compatible endpoint: management, starts, annotations, credit, epochs.

use std::time::Duration;

use bytes::Bytes;
use fleetline_amqp::message::{Body, Message, MessageWriter, Properties};
use fleetline_amqp::performative::{Performative, Role};
use fleetline_amqp::value::{Array, Value};
use fleetline_amqp_front::AmqpLimits;
use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_devices::endpoints;
use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::devices::ingest::IngestOptions;
use fleetline_gateway::hub::HubError;
use fleetline_iothub::bag::SystemProperty;
use fleetline_types::{PartitionId, TimestampMs};

use crate::client::{Client, Wish, body, data, message, written};
use crate::world::World;

fn address(partition: u32) -> String {
    format!("amqps://hub.example/telemetry/ConsumerGroups/$Default/Partitions/{partition}")
}

/// Appends records to partition 0.
async fn append(world: &World, records: &[RecordRef<'_>]) {
    let mut builder = BatchBuilder::new(1 << 20);
    records.iter().for_each(|record| builder.push(record).unwrap());
    let batch: Bytes = builder.finish(Producer::default(), Compression::Lz4).unwrap();
    DeviceHub::append(world.hub.as_ref(), PartitionId(0), batch).await.unwrap();
}

async fn append_texts(world: &World, texts: &[&str]) {
    let records: Vec<RecordRef<'_>> = texts
        .iter()
        .map(|text| RecordRef {
            device: b"a",
            time: TimestampMs(5),
            endpoints: endpoints::TELEMETRY,
            body: text.as_bytes(),
            ..RecordRef::default()
        })
        .collect();
    append(world, &records).await;
}

fn filter(text: &str, by_number: bool) -> Vec<u8> {
    written(|w| {
        w.map(|w| {
            w.symbol("apache.org:selector-filter:string");
            match by_number {
                true => w.described(0x0000_468C_0000_0004, |w| w.string(text)),
                false => {
                    let mut described = vec![0x00];
                    described.extend(written(|w| w.symbol("apache.org:selector-filter:string")));
                    described.extend(written(|w| w.string(text)));
                    w.raw(&described);
                }
            }
        });
    })
}

/// A receiver of partition 0 that begins there, with credit.
async fn reader(client: &mut Client, start: &str, credit: u32) -> u32 {
    let filter = filter(start, true);
    let wish = Wish { filter: &filter, second: true, ..Wish::default() };
    let handle = client.try_attach(0, Role::Receiver, &address(0), wish).await.unwrap();
    client.credit(0, handle, 0, credit).await;
    handle
}

async fn bodies(client: &mut Client, handle: u32, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    for _ in 0..count {
        found.push(body(&client.delivery(handle).await.2));
    }
    found
}

async fn consumer(world: &World) -> Client {
    world.client_of(&[world.signed_by_text("sb://hub.example/telemetry", "service")]).await
}

/// Every way to say where to begin, in both forms of the filter.
#[tokio::test(start_paused = true)]
async fn starts() {
    let world = World::new().await;
    append_texts(&world, &["0", "1", "2"]).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    append_texts(&world, &["3", "4"]).await;
    let mut client = consumer(&world).await;
    let between = world.hub.now_ms() - 5000;
    let rows = [
        ("amqp.annotation.x-opt-offset > '-1'".to_owned(), 0),
        ("amqp.annotation.x-opt-offset > '1'".to_owned(), 2),
        ("amqp.annotation.x-opt-sequence-number >= '1'".to_owned(), 1),
        (format!("amqp.annotation.x-opt-enqueued-time > '{between}'"), 3),
        (format!("amqp.annotation.x-opt-enqueuedtimeutc > {between}"), 3),
    ];
    for (at, (start, first)) in rows.into_iter().enumerate() {
        let filter = filter(&start, at % 2 == 0);
        let wish = Wish { filter: &filter, ..Wish::default() };
        let handle = client.try_attach(0, Role::Receiver, &address(0), wish).await.unwrap();
        client.credit(0, handle, 0, 100).await;
        let wanted: Vec<String> = (first..5).map(|at| at.to_string()).collect();
        assert_eq!(bodies(&mut client, handle, wanted.len()).await, wanted, "{start}");
        client.detach(handle).await;
    }
    let latest = reader(&mut client, "amqp.annotation.x-opt-offset > '@latest'", 100).await;
    append_texts(&world, &["5"]).await;
    assert_eq!(bodies(&mut client, latest, 1).await, ["5"]);
    // No filter: from the beginning. What retention took: from what is left.
    let all = client.receiver(&address(0), 1).await;
    assert_eq!(bodies(&mut client, all, 1).await, ["0"]);
    world.hub.trim(0, 3);
    let trimmed = reader(&mut client, "amqp.annotation.x-opt-offset > '0'", 1).await;
    assert_eq!(bodies(&mut client, trimmed, 1).await, ["3"]);
    for (start, condition) in [
        ("x > 5", "com.microsoft:argument-error"),
        ("amqp.annotation.x-opt-offset > 'x'", "com.microsoft:argument-error"),
    ] {
        let filter = filter(start, true);
        let wish = Wish { filter: &filter, ..Wish::default() };
        assert_eq!(client.try_attach(0, Role::Receiver, &address(0), wish).await.unwrap_err(), condition);
    }
}

/// Annotations by name and exact type, of a device's message through the whole front.
#[tokio::test(start_paused = true)]
async fn annotations() {
    let world = World::new().await;
    let mut device = world.device("a").await;
    let events = device.sender("/devices/a/messages/events").await;
    let sent = message(|w| {
        w.properties(&Properties {
            message_id: Value::String("m"),
            correlation_id: Value::String("c"),
            content_type: Some("application/json"),
            content_encoding: Some("utf-8"),
            user_id: Some(b"me"),
            ..Properties::default()
        })
        .application_properties(|w| {
            w.string("level");
            w.string("7");
        })
        .data(b"{\"t\":1}");
    });
    assert_eq!(device.deliver(events, &sent).await, "accepted");
    let mut client = consumer(&world).await;
    let partition = world.hub.partition_of(&fleetline_devices::DeviceKey::device("a")).0;
    let handle = client.receiver(&address(partition), 10).await;
    let (_, _, payload) = client.delivery(handle).await;
    let event = Message::parse(&payload).unwrap();
    let annotation = |name: &str| event.message_annotations.get(name);
    assert_eq!(annotation("x-opt-sequence-number"), Some(Value::Long(0)));
    assert_eq!(annotation("x-opt-offset"), Some(Value::String("0")));
    assert!(matches!(annotation("x-opt-enqueued-time"), Some(Value::Timestamp(_))));
    assert_eq!(annotation("x-opt-partition-key"), Some(Value::String("a")));
    assert_eq!(annotation("iothub-connection-device-id"), Some(Value::String("a")));
    assert_eq!(annotation("iothub-connection-module-id"), None);
    let auth = r#"{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#;
    assert_eq!(annotation("iothub-connection-auth-method"), Some(Value::String(auth)));
    assert!(matches!(annotation("iothub-connection-auth-generation-id"), Some(Value::String(_))));
    assert!(matches!(annotation("iothub-enqueuedtime"), Some(Value::Timestamp(_))));
    assert_eq!(annotation("iothub-message-source"), Some(Value::String("Telemetry")));
    let properties = event.properties().unwrap();
    assert_eq!((properties.message_id, properties.correlation_id), (Value::String("m"), Value::String("c")));
    assert_eq!(
        (properties.content_type, properties.content_encoding),
        (Some("application/json"), Some("utf-8"))
    );
    assert_eq!(properties.user_id, Some(&b"me"[..]));
    assert_eq!(properties.to, Some("/devices/a/messages/events"));
    assert_eq!(event.application_properties.get("level"), Some(Value::String("7")));
    assert_eq!(body(&payload), "{\"t\":1}");
}

/// Nothing beyond the credit, everything within it, large bodies whole; drained when there is no more.
#[tokio::test(start_paused = true)]
async fn credit() {
    let world = World::new().await;
    let texts: Vec<String> = (0..100).map(|at| format!("{at} {}", "x".repeat(at * 50))).collect();
    append_texts(&world, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let large = "y".repeat(200_000);
    append_texts(&world, &[&large]).await;
    let mut client = consumer(&world).await;
    let handle = reader(&mut client, "amqp.annotation.x-opt-offset > '-1'", 10).await;
    assert_eq!(bodies(&mut client, handle, 10).await, texts[..10]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    client.flow(0, handle, 10, 1000, true).await;
    assert_eq!(bodies(&mut client, handle, 90).await, texts[10..]);
    assert_eq!(bodies(&mut client, handle, 1).await, [large]);
    let flow = client
        .find(|seen| match seen.performative {
            Performative::Flow(flow) if flow.handle == Some(handle) => Some(flow),
            _ => None,
        })
        .await;
    assert_eq!((flow.link_credit, flow.delivery_count), (Some(0), Some(1010)));
}

/// The hub's own events are for those who ask for them; sequence numbers stay those of the stream.
#[tokio::test(start_paused = true)]
async fn hub_events() {
    for shows in [false, true] {
        let world = World::with(AmqpLimits::default(), IngestOptions::default(), |identity| {
            identity.shows_hub_events = shows;
        })
        .await;
        let source = [(SystemProperty::MessageSource.number(), &b"twinChangeEvents"[..])];
        let event = RecordRef {
            device: b"a",
            endpoints: endpoints::EVENTS,
            system: &source,
            body: b"event",
            ..RecordRef::default()
        };
        let message = RecordRef { endpoints: endpoints::TELEMETRY, system: &[], body: b"message", ..event };
        append(&world, &[event, message]).await;
        let mut client = consumer(&world).await;
        let handle = client.receiver(&address(0), 10).await;
        if shows {
            let (_, _, payload) = client.delivery(handle).await;
            let read = Message::parse(&payload).unwrap();
            let found = read.message_annotations.get("iothub-message-source");
            assert_eq!(found, Some(Value::String("twinChangeEvents")));
        }
        let (_, _, payload) = client.delivery(handle).await;
        let read = Message::parse(&payload).unwrap();
        assert_eq!(read.message_annotations.get("x-opt-sequence-number"), Some(Value::Long(1)));
        assert_eq!(body(&payload), "message");
    }
}

/// Receivers that want it hear how far the partition goes.
#[tokio::test(start_paused = true)]
async fn runtime_metrics() {
    let world = World::new().await;
    append_texts(&world, &["0", "1", "2"]).await;
    let mut client = consumer(&world).await;
    let wish = Wish {
        capabilities: &["com.microsoft:georeplication", "com.microsoft:enable-receiver-runtime-metric"],
        ..Wish::default()
    };
    let handle = client.try_attach(0, Role::Receiver, &address(0), wish).await.unwrap();
    client.credit(0, handle, 0, 10).await;
    let (_, _, payload) = client.delivery(handle).await;
    let event = Message::parse(&payload).unwrap();
    let annotation = |name: &str| event.delivery_annotations.get(name);
    assert_eq!(annotation("last_enqueued_sequence_number"), Some(Value::Long(2)));
    assert_eq!(annotation("last_enqueued_offset"), Some(Value::String("2")));
    assert!(matches!(annotation("last_enqueued_time_utc"), Some(Value::Timestamp(at)) if at > 0));
    assert!(matches!(annotation("runtime_info_retrieval_time_utc"), Some(Value::Timestamp(at)) if at > 0));
}

fn epoch(epoch: i64) -> Vec<u8> {
    written(|w| {
        w.map(|w| {
            w.symbol("com.microsoft:receiver-name");
            w.string("r");
            w.symbol("com.microsoft:epoch");
            w.long(epoch);
        });
    })
}

async fn with_epoch(client: &mut Client, number: i64) -> Result<u32, String> {
    let properties = epoch(number);
    let wish = Wish { properties: &properties, ..Wish::default() };
    client.try_attach(0, Role::Receiver, &address(0), wish).await
}

/// Epochs on one node: the highest has it, the latest of equals, five without.
#[tokio::test(start_paused = true)]
async fn epochs() {
    let world = World::new().await;
    let mut client = consumer(&world).await;
    let mut plain = Vec::new();
    for _ in 0..5 {
        plain.push(client.attach(Role::Receiver, &address(0)).await);
    }
    let sixth = client.try_attach(0, Role::Receiver, &address(0), Wish::default()).await;
    assert_eq!(sixth.unwrap_err(), "amqp:resource-limit-exceeded");
    let mut other = consumer(&world).await;
    let first = with_epoch(&mut other, 0).await.unwrap();
    for handle in plain {
        assert_eq!(client.detached(handle).await, "amqp:link:stolen");
    }
    let without = client.try_attach(0, Role::Receiver, &address(0), Wish::default()).await;
    assert_eq!(without.unwrap_err(), "amqp:link:stolen");
    let equal = with_epoch(&mut client, 0).await.unwrap();
    assert_eq!(other.detached(first).await, "amqp:link:stolen");
    let higher = with_epoch(&mut other, 5).await.unwrap();
    assert_eq!(client.detached(equal).await, "amqp:link:stolen");
    assert_eq!(with_epoch(&mut client, 4).await.unwrap_err(), "amqp:link:stolen");
    assert_eq!(with_epoch(&mut client, -1).await.unwrap_err(), "com.microsoft:argument-out-of-range");
    // It leaves: its epoch holds nobody off any more.
    other.detach(higher).await;
    let free = loop {
        match client.try_attach(0, Role::Receiver, &address(0), Wish::default()).await {
            Ok(handle) => break handle,
            Err(condition) => assert_eq!(condition, "amqp:link:stolen"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    client.credit(0, free, 0, 1).await;
    append_texts(&world, &["x"]).await;
    assert_eq!(bodies(&mut client, free, 1).await, ["x"]);
}

/// The same between nodes, and after a node that is gone.
#[tokio::test(start_paused = true)]
async fn epochs_between_nodes() {
    let world = World::new().await;
    let far = World::over(world.hub.clone(), AmqpLimits::default(), IngestOptions::default(), |_| {});
    let (mut near_client, mut far_client) = (consumer(&world).await, consumer(&far).await);
    let near = with_epoch(&mut near_client, 3).await.unwrap();
    assert_eq!(with_epoch(&mut far_client, 2).await.unwrap_err(), "amqp:link:stolen");
    let plain = far_client.try_attach(0, Role::Receiver, &address(0), Wish::default()).await;
    assert_eq!(plain.unwrap_err(), "amqp:link:stolen");
    // It lives for hours, and is still there.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(100)).await;
        near_client.alive().await;
        far_client.alive().await;
    }
    assert_eq!(with_epoch(&mut far_client, 2).await.unwrap_err(), "amqp:link:stolen");
    with_epoch(&mut far_client, 3).await.unwrap();
    assert_eq!(near_client.detached(near).await, "amqp:link:stolen");
    // The far node dies without a word.
    far_client.served.abort();
    assert_eq!(with_epoch(&mut near_client, 0).await.unwrap_err(), "amqp:link:stolen");
    tokio::time::sleep(Duration::from_secs(61)).await;
    with_epoch(&mut near_client, 0).await.unwrap();
}

/// A partition that has no answer for long detaches its receivers so that they come again; one that has
/// none for a moment doesn't.
#[tokio::test(start_paused = true)]
async fn unavailable() {
    let world = World::new().await;
    append_texts(&world, &["0"]).await;
    let mut client = consumer(&world).await;
    let handle = reader(&mut client, "amqp.annotation.x-opt-offset > '-1'", 1).await;
    assert_eq!(bodies(&mut client, handle, 1).await, ["0"]);
    *world.hub.unreadable.lock() = Some(HubError::Unavailable("partition 0".into()));
    client.credit(0, handle, 1, 10).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    *world.hub.unreadable.lock() = None;
    append_texts(&world, &["1"]).await;
    assert_eq!(bodies(&mut client, handle, 1).await, ["1"]);
    *world.hub.unreadable.lock() = Some(HubError::Unavailable("partition 0".into()));
    append_texts(&world, &["2"]).await;
    assert_eq!(client.detached(handle).await, "amqp:link:detach-forced");
}

/// Requests of a client of `$management`, in both forms of the SDKs.
async fn ask(
    client: &mut Client,
    links: (u32, u32),
    write: impl FnOnce(&mut MessageWriter<'_>),
) -> &'static [u8] {
    let request = message(write);
    client.give(0, links.0, 0, true, &request).await;
    Box::leak(client.delivery(links.1).await.2.into_boxed_slice())
}

fn read_request<'b, 'w>(w: &'w mut MessageWriter<'b>, rows: &[(&str, &str)]) -> &'w mut MessageWriter<'b> {
    w.properties(&Properties {
        message_id: Value::Uuid([9; 16]),
        reply_to: Some("here"),
        ..Properties::default()
    })
    .application_properties(|w| {
        w.string("operation");
        w.string("READ");
        for (name, value) in rows {
            w.string(name);
            w.string(value);
        }
    })
}

fn status(answer: &[u8]) -> i64 {
    Message::parse(answer).unwrap().application_properties.get("status-code").unwrap().as_i64().unwrap()
}

#[tokio::test(start_paused = true)]
async fn management() {
    let world = World::new().await;
    append_texts(&world, &["0", "1"]).await;
    world.hub.trim(0, 1);
    let mut client = consumer(&world).await;
    let requests = client.sender("$management").await;
    // Another receiver of the same session, which the answer isn't for.
    let other = Wish { reply_to: Some("elsewhere"), ..Wish::default() };
    let elsewhere = client.try_attach(0, Role::Receiver, "$management", other).await.unwrap();
    client.credit(0, elsewhere, 0, 10).await;
    let wish = Wish { reply_to: Some("here"), ..Wish::default() };
    let replies = client.try_attach(0, Role::Receiver, "telemetry/$management", wish).await.unwrap();
    client.credit(0, replies, 0, 100).await;
    let links = (requests, replies);
    let hub = [("type", "com.microsoft:eventhub"), ("name", "Telemetry")];
    let answer = ask(&mut client, links, |w| {
        read_request(w, &hub);
    })
    .await;
    assert_eq!(status(answer), 200);
    let answer = Message::parse(answer).unwrap();
    assert_eq!(answer.properties().unwrap().correlation_id, Value::Uuid([9; 16]));
    let Body::Value(Value::Map(map)) = answer.body else { panic!() };
    assert_eq!(map.get("name"), Some(Value::String("Telemetry")));
    assert_eq!(map.get("created_at"), Some(Value::Timestamp(1_700_000_000_000)));
    assert_eq!(map.get("partition_count"), Some(Value::Int(2)));
    let Some(Value::Array(ids)) = map.get("partition_ids") else { panic!() };
    let ids: Array<'_> = ids;
    assert_eq!(ids.iter().collect::<Vec<_>>(), [Value::String("0"), Value::String("1")]);
    for (partition, begin, last, empty) in [("0", 1, 1, false), ("1", 0, -1, true)] {
        let rows = [("type", "com.microsoft:partition"), ("name", "telemetry"), ("partition", partition)];
        let answer = ask(&mut client, links, |w| {
            read_request(w, &rows).data(b"[]");
        })
        .await;
        assert_eq!(status(answer), 200);
        let Body::Value(Value::Map(map)) = Message::parse(answer).unwrap().body else { panic!() };
        assert_eq!(map.get("partition"), Some(Value::String(partition)));
        assert_eq!(map.get("begin_sequence_number"), Some(Value::Long(begin)));
        assert_eq!(map.get("last_enqueued_sequence_number"), Some(Value::Long(last)));
        assert_eq!(map.get("last_enqueued_offset"), Some(Value::String(&last.to_string())));
        assert_eq!(map.get("is_partition_empty"), Some(Value::Bool(empty)));
        assert!(matches!(map.get("last_enqueued_time_utc"), Some(Value::Timestamp(_))));
    }
    for (rows, code) in [
        (vec![("type", "com.microsoft:eventhub"), ("name", "other")], 404),
        (vec![("type", "com.microsoft:partition"), ("name", "telemetry"), ("partition", "9")], 404),
        (vec![("type", "com.microsoft:other"), ("name", "telemetry")], 400),
    ] {
        let answer = ask(&mut client, links, |w| {
            read_request(w, &rows);
        })
        .await;
        assert_eq!(status(answer), code);
    }
    client.give(0, requests, 0, true, &data("nonsense")).await;
    let (_, _, answer) = client.delivery(replies).await;
    assert_eq!(status(&answer), 501);
}

/// Hubs, groups and partitions that don't exist.
#[tokio::test(start_paused = true)]
async fn unknown_nodes() {
    let world = World::new().await;
    let mut client = world.service().await;
    for address in
        ["other/ConsumerGroups/g/Partitions/0", "telemetry/ConsumerGroups/g/Partitions/2", "telemetry"]
    {
        let refused = client.try_attach(0, Role::Receiver, address, Wish::default()).await;
        assert_eq!(refused.unwrap_err(), "amqp:not-found", "{address}");
    }
    // The hub's host name and the old name of the endpoint are its names, too.
    for address in ["HUB/consumergroups/g/partitions/0", "messages/events/ConsumerGroups/g/Partitions/1"] {
        client.attach(Role::Receiver, address).await;
    }
}
