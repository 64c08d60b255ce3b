//! Who doesn't take, isn't given; who isn't answered, isn't read. Memory stays bounded both ways.

use std::time::Duration;

use fleetline_gateway::devices::ingest::IngestOptions;
use fleetline_gateway::mqtt::MqttLimits;
use fleetline_mqtt::{QoS, Version, encode};

use crate::client::{events, publish, settle};
use crate::world::World;

const COMMANDS: &str = "devices/a/messages/devicebound/#";

/// Records of 1 KiB each, numbered from 1 on.
fn records(device: &str, count: u16) -> Vec<u8> {
    let body = |number| format!("{number} {}", "x".repeat(1000));
    let record = |number| publish(Version::V311, &events(device), body(number).as_bytes(), number);
    (1..=count).flat_map(record).collect()
}

/// A hub whose appends never end stops the reading of sockets: what a device can send is what the
/// batches, one read, and its stream hold. When the hub goes on, everything is stored, in order.
#[tokio::test(start_paused = true)]
async fn appends_that_hang() {
    let ingest = IngestOptions { batch_bytes: 32 << 10, window: 2 };
    let world = World::with(MqttLimits::default(), ingest).await;
    let (mut a, mut b) = (world.connect("a").await, world.connect("b").await);
    world.hub.held.send_replace(true);
    let all = records("a", 2000);
    let sent = a.send_some(&all).await;
    // Three batches of 32 KiB, 64 KiB that were read, 256 KiB in the stream.
    assert!(sent <= (3 * 32 + 64 + 256 + 4) << 10, "{sent}");
    assert!(sent >= 256 << 10, "{sent}");
    assert_eq!(world.hub.appends.lock().len(), 2);
    // Another device of the partition waits too: it isn't heard while it is stopped.
    let others = records("b", 100);
    let sent_by_b = b.send_some(&others).await;
    assert_eq!((a.now().await, b.now().await), (None, None));
    assert_eq!(world.hub.appends.lock().len(), 2);

    world.hub.held.send_replace(false);
    let (mut read, mut write) = tokio::io::split(a.io);
    let rest = all[sent..].to_vec();
    let sending = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        write.write_all(&rest).await.unwrap();
        write
    });
    let mut answers = vec![0; 2000 * 4];
    tokio::io::AsyncReadExt::read_exact(&mut read, &mut answers).await.unwrap();
    let expected: Vec<u8> =
        (1..=2000_u16).flat_map(|id| [0x40, 2, (id >> 8) as u8, (id & 0xff) as u8]).collect();
    assert_eq!(answers, expected);
    sending.await.unwrap();
    b.send(&others[sent_by_b..]).await;
    assert_eq!(b.take(100).await.last().unwrap(), "puback 100");
    let stored = world.hub.records();
    let of_a: Vec<u16> = stored
        .iter()
        .filter_map(|line| line.strip_prefix("a "))
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(of_a, Vec::from_iter(1..=2000));
    assert_eq!(stored.len(), 2100);
}

/// A device that was stopped for longer than its keep-alive isn't closed for silence: it wasn't heard.
#[tokio::test(start_paused = true)]
async fn stopped_is_not_silent() {
    let ingest = IngestOptions { batch_bytes: 32 << 10, window: 1 };
    let world = World::with(MqttLimits::default(), ingest).await;
    let mut a = world.connected("a", Version::V311, |connect| connect.keep_alive = 10).await;
    world.hub.held.send_replace(true);
    let all = records("a", 100);
    a.send(&all).await;
    settle().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.hub.held.send_replace(false);
    assert_eq!(a.take(100).await.last().unwrap(), "puback 100");
    // From here on it is.
    assert_eq!(a.until_end().await, [""; 0]);
}

/// PUBLISHes that wait for their acknowledgement are bounded by the receive maximum that CONNACK told.
#[tokio::test(start_paused = true)]
async fn publishes_in_flight() {
    let limits = MqttLimits { in_flight_max: 100, ..MqttLimits::default() };
    let world = World::with(limits, IngestOptions::default()).await;
    let mut a = world.connect("a").await;
    world.hub.held.send_replace(true);
    let all: Vec<u8> =
        (1..=1000).flat_map(|number| publish(Version::V311, &events("a"), b"x", number)).collect();
    a.send(&all).await;
    settle().await;
    let taken: u32 = world.hub.appends.lock().iter().map(|(count, _)| count).sum();
    assert!(taken <= 100, "{taken}");
    assert_eq!(a.now().await, None);
    world.hub.held.send_replace(false);
    assert_eq!(a.take(1000).await.last().unwrap(), "puback 1000");
    assert_eq!(world.hub.records().len(), 1000);
}

/// A client that asks and asks and doesn't read: the front stops at its bound, and closes it for its
/// silence, since nothing more is heard of it.
#[tokio::test(start_paused = true)]
async fn readers_that_do_not_read() {
    let limits = MqttLimits { output_bytes_max: 4 << 10, ..MqttLimits::default() };
    let world = World::with(limits, IngestOptions::default()).await;
    let mut a = world.connected("a", Version::V311, |connect| connect.keep_alive = 10).await;
    let pings: Vec<u8> = [0xc0, 0].repeat(10 << 20 >> 1);
    let sent = a.send_some(&pings).await;
    // What its stream holds in both directions, the bound, and a read of 64 KiB.
    assert!(sent <= (2 * 256 + 4 + 2 * 64) << 10, "{sent}");
    tokio::time::sleep(Duration::from_secs(18)).await;
    assert_eq!(world.context.connections(), 0);
}

/// Commands for a subscriber with QoS 0 that doesn't read stay in its queue; when it reads, they come.
#[tokio::test(start_paused = true)]
async fn commands_for_silent_readers() {
    let limits = MqttLimits { output_bytes_max: 64 << 10, deliveries_max: 2, ..MqttLimits::default() };
    let world = World::with(limits, IngestOptions::default()).await;
    let mut a = world.connect("a").await;
    assert_eq!(a.subscribe(1, &[(COMMANDS, QoS::AtMostOnce)]).await, "suback 1 [00]");
    for number in 0..50 {
        world.command("a", format!("{number} {}", "x".repeat(60_000)).as_bytes());
        settle().await;
    }
    // Its stream holds four, the output two or three more, and then it is full.
    let queued = world.hub.view("a").commands;
    assert!(queued >= 50 - 4 - 5, "{queued}");
    for number in 0..50 {
        let line = a.next().await;
        assert!(line.split(' ').nth(3).unwrap() == number.to_string(), "{number}: {line:.200}");
    }
    settle().await;
    assert_eq!(world.hub.view("a").commands, 0);
}

/// Twin answers with QoS 1 that are never acknowledged: neither are there more of them open than the
/// client takes ([MQTT5-3.3.4-9]), nor do packet ids run out.
#[tokio::test(start_paused = true)]
async fn answers_that_are_never_acknowledged() {
    let world = World::new().await;
    let mut a = world.connected("a", Version::V5, |connect| connect.properties.receive_maximum = 3).await;
    let answers = "$iothub/twin/res/#";
    assert_eq!(a.subscribe(1, &[(answers, QoS::AtLeastOnce)]).await, "suback 1 [01]");
    let get = publish(Version::V5, "$iothub/twin/GET/?$rid=7", b"", 0);
    let mut open = 0;
    for number in 0..1000 {
        a.send(&get).await;
        let line = a.next().await;
        let id: u16 = line.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(line.contains("$iothub/twin/res/200/?$rid=7"), "{number}: {line}");
        open += usize::from(id != 0);
        assert!(open <= 3, "{number}");
    }
    // An acknowledgement makes room for one.
    a.puback(2).await;
    a.send(&[get.clone(), get].concat()).await;
    let ids: Vec<String> =
        a.take(2).await.iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(ids, ["4", "0"]);
}

/// All 65,535 packet ids are open at once: each is answered, in order, and the same ids again.
#[tokio::test(start_paused = true)]
async fn all_packet_ids() {
    let limits = MqttLimits { in_flight_max: 65_535, ..MqttLimits::default() };
    let world = World::with(limits, IngestOptions { batch_bytes: 1 << 20, window: 8 }).await;
    let mut a = world.connect("a").await;
    let all: Vec<u8> =
        (1..=65_535).flat_map(|number| publish(Version::V311, &events("a"), b"", number)).collect();
    for round in 1..=2 {
        world.hub.held.send_replace(true);
        a.send(&all).await;
        assert_eq!(a.now().await, None);
        world.hub.held.send_replace(false);
        for number in 1..=65_535 {
            assert_eq!(a.next().await, format!("puback {number}"));
        }
        assert_eq!(world.hub.records().len(), round * 65_535);
    }
}

/// SUBSCRIBEs without end wait for their leader in a bounded queue.
#[tokio::test(start_paused = true)]
async fn requests_without_end() {
    let world = World::new().await;
    let mut a = world.connect("a").await;
    *world.hub.failing.lock() = Some(fleetline_gateway::hub::HubError::Unavailable("partition 0".into()));
    let mut one = Vec::new();
    let filters = [(COMMANDS, fleetline_mqtt::SubscribeOptions::with_qos(QoS::AtLeastOnce))];
    encode::subscribe(&mut one, Version::V311, crate::client::id(7), None, &filters).unwrap();
    let all = one.repeat(50_000);
    let sent = a.send_some(&all).await;
    assert!(sent <= (256 + 64 + 4) << 10, "{sent}");
    *world.hub.failing.lock() = None;
    assert_eq!(a.next().await, "suback 7 [01]");
}
