//! Many devices on one connection, takeovers, ends of sessions, full partitions.

use std::time::Duration;

use fleetline_amqp::performative::Role;
use fleetline_amqp_front::AmqpLimits;
use fleetline_devices::DeviceKey;
use fleetline_gateway::devices::ingest::IngestOptions;

use crate::client::{Wish, data};
use crate::world::World;

fn events(device: &str) -> String {
    format!("/devices/{device}/messages/events")
}

/// Hundreds of devices, each in a session of its own, all sending, each acknowledged.
#[tokio::test(start_paused = true)]
async fn many_devices() {
    const DEVICES: u16 = 300;
    let world = World::new().await;
    let names: Vec<String> = (0..DEVICES).map(|at| format!("d{at}")).collect();
    names.iter().for_each(|name| world.add(name));
    let tokens: Vec<String> = names.iter().map(|name| world.token(name)).collect();
    let mut client = world.client_of(&tokens).await;
    let mut handles = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let channel = at as u16 + 1;
        client.begin(channel).await;
        let attached = client.try_attach(channel, Role::Sender, &events(name), Wish::default()).await;
        handles.push((channel, attached.unwrap()));
    }
    assert_eq!(world.connections.len(), usize::from(DEVICES));
    for (at, (channel, handle)) in handles.iter().enumerate() {
        for _ in 0..3 {
            client.give(*channel, *handle, 0, true, &data(&at.to_string())).await;
        }
    }
    while world.hub.bodies().len() < 3 * usize::from(DEVICES) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // One is disabled: its link ends, and no other.
    world.disable("d7");
    let (_, seventh) = handles[7];
    assert_eq!(client.detached(seventh).await, "com.microsoft:link-creation-conflict");
    assert_eq!(world.connections.len(), usize::from(DEVICES) - 1);
    let (channel, handle) = handles[8];
    client.give(channel, handle, 0, true, &data("still here")).await;
    while !world.hub.bodies().contains(&"still here".to_owned()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(client);
    while !world.connections.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!world.hub.view(&DeviceKey::device("d9")).session.unwrap().connected);
}

/// The later connection of a device displaces the earlier one's links.
#[tokio::test(start_paused = true)]
async fn takeover() {
    let world = World::new().await;
    let mut first = world.client_of(&[world.token("a"), world.token("b")]).await;
    let (a, b) = (first.sender(&events("a")).await, first.sender(&events("b")).await);
    let mut second = world.device("a").await;
    let again = second.sender(&events("a")).await;
    assert_eq!(first.detached(a).await, "com.microsoft:link-creation-conflict");
    assert_eq!(first.deliver(b, &data("1")).await, "accepted");
    assert_eq!(second.deliver(again, &data("2")).await, "accepted");
    // And back.
    let back = first.sender(&events("a")).await;
    assert_eq!(second.detached(again).await, "com.microsoft:link-creation-conflict");
    assert_eq!(first.deliver(back, &data("3")).await, "accepted");
}

/// A device that is gone or disabled isn't let in, and nobody else is hurt.
#[tokio::test(start_paused = true)]
async fn refused_devices() {
    let world = World::new().await;
    let mut client = world.client_of(&[world.token("a"), world.token("b")]).await;
    let b = client.sender(&events("b")).await;
    world.disable("a");
    let refused = client.try_attach(0, Role::Sender, &events("a"), Wish::default()).await;
    assert_eq!(refused.unwrap_err(), "amqp:not-found");
    assert_eq!(client.deliver(b, &data("x")).await, "accepted");
}

/// The session lives as long as one link of it does, and ends behind its last record.
#[tokio::test(start_paused = true)]
async fn sessions() {
    let world = World::new().await;
    let mut client = world.device("a").await;
    let key = DeviceKey::device("a");
    let telemetry = client.sender(&events("a")).await;
    let twin = client.attach(Role::Receiver, "/devices/a/twin").await;
    let epoch = world.hub.view(&key).session.unwrap().epoch;
    client.detach(twin).await;
    assert!(world.hub.view(&key).session.unwrap().connected);
    world.hub.held.send_replace(true);
    client.give(0, telemetry, 0, true, &data("last")).await;
    client.detach(telemetry).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.hub.view(&key).session.unwrap().connected);
    world.hub.held.send_replace(false);
    while world.hub.view(&key).session.unwrap().connected {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.hub.bodies(), ["last"]);
    client.sender(&events("a")).await;
    assert!(world.hub.view(&key).session.unwrap().epoch > epoch);
}

/// A full partition stops the reading, loses nothing, and goes on in order.
#[tokio::test(start_paused = true)]
async fn full_partition() {
    const COUNT: usize = 400;
    let ingest = IngestOptions { batch_bytes: 64 << 10, window: 1 };
    let world = World::with(AmqpLimits::default(), ingest, |_| {}).await;
    let mut client = world.device("a").await;
    let telemetry = client.sender(&events("a")).await;
    world.hub.held.send_replace(true);
    let mut last = 0;
    let padding = "x".repeat(1000);
    for at in 0..200 {
        last = client.give(0, telemetry, 0, false, &data(&format!("{at} {padding}"))).await;
    }
    tokio::time::sleep(Duration::from_secs(1000)).await;
    world.hub.held.send_replace(false);
    assert_eq!(client.outcome(last).await, "accepted");
    for at in 200..COUNT {
        last = client.give(0, telemetry, 0, false, &data(&format!("{at} {padding}"))).await;
    }
    assert_eq!(client.outcome(last).await, "accepted");
    let found: Vec<usize> =
        world.hub.bodies().iter().map(|body| body.split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(found, (0..COUNT).collect::<Vec<_>>());
}

/// A batch that doesn't fit in one go is stored once, in order.
#[tokio::test(start_paused = true)]
async fn batch_in_a_full_partition() {
    let ingest = IngestOptions { batch_bytes: 64 << 10, window: 1 };
    let world = World::with(AmqpLimits::default(), ingest, |_| {}).await;
    let mut client = world.device("a").await;
    let telemetry = client.sender(&events("a")).await;
    let padding = "x".repeat(20_000);
    let bodies: Vec<String> = (0..10).map(|at| format!("{at} {padding}")).collect();
    let batch = crate::client::message(|w| {
        for body in &bodies {
            w.data(&data(body));
        }
    });
    let id = client.give(0, telemetry, fleetline_amqp::message::FORMAT_BATCH, false, &batch).await;
    assert_eq!(client.outcome(id).await, "accepted");
    assert_eq!(world.hub.bodies(), bodies);
}
