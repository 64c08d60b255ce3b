//! Clients that don't read, and clients that send nonsense.

use std::time::Duration;

use fleetline_amqp::DeliveryState;
use fleetline_amqp::message::FORMAT_BATCH;
use fleetline_amqp::performative::Role;
use tokio::io::AsyncWriteExt;

use crate::client::{data, message};
use crate::world::World;

/// A client that doesn't read for long loses nothing, and doesn't disturb another one.
#[tokio::test(start_paused = true)]
async fn slow_reader() {
    let world = World::new().await;
    let mut producer = world.service().await;
    let sender = producer.sender("telemetry/Partitions/0").await;
    let body = |at: usize| format!("{at} {}", "x".repeat(1000));
    let mut slow = world.service().await;
    let handle = slow.receiver("telemetry/ConsumerGroups/g/Partitions/0", 5000).await;
    for at in 0..3000 {
        let id = producer.give(0, sender, 0, false, &data(&body(at))).await;
        // Within the credit, which comes back in halves of the window.
        if at % 30 == 29 {
            assert_eq!(producer.outcome(id).await, "accepted");
        }
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    let mut quick = world.service().await;
    let other = quick.receiver("telemetry/ConsumerGroups/h/Partitions/0", 5000).await;
    for at in 0..3000 {
        assert_eq!(crate::client::body(&quick.delivery(other).await.2), body(at));
    }
    for at in 0..3000 {
        assert_eq!(crate::client::body(&slow.delivery(handle).await.2), body(at));
    }
}

/// What a client of everything sends.
async fn recorded() -> Vec<u8> {
    let world = World::new().await;
    world.command("a", fleetline_devices::CommandRow::default());
    let service = world.signed("hub.example", crate::world::POLICY_KEY, 3600, Some("service"));
    let mut client = world.client_of(&[world.token("a"), service]).await;
    let events = client.sender("/devices/a/messages/events").await;
    let twin = client.sender("/devices/a/twin").await;
    client.receiver("/devices/a/twin", 10).await;
    let commands = client.receiver("/devices/a/messages/devicebound", 10).await;
    let (id, _, _) = client.delivery(commands).await;
    client.dispose(id, false, DeliveryState::Released).await;
    assert_eq!(client.deliver(events, &data("x")).await, "accepted");
    let batch = message(|w| {
        w.data(&data("y"));
    });
    let id = client.give(0, events, FORMAT_BATCH, false, &batch).await;
    client.outcome(id).await;
    client.deliver(twin, &data("no request")).await;
    let sender = client.sender("/messages/devicebound").await;
    client.deliver(sender, &data("to nobody")).await;
    let reader = client.receiver("telemetry/ConsumerGroups/g/Partitions/0", 10).await;
    let sender = client.sender("telemetry").await;
    client.deliver(sender, &data("z")).await;
    client.attach(Role::Receiver, "/messages/serviceBound/feedback").await;
    client.detach(reader).await;
    client.sent
}

/// The same with some bytes changed: whatever it is, the connection ends without a fault, and leaves
/// nothing behind.
#[tokio::test(start_paused = true)]
async fn changed_bytes() {
    let good = recorded().await;
    let world = World::new().await;
    let mut drawn: u64 = 7;
    let mut draw = |below: usize| {
        drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (drawn >> 33) as usize % below
    };
    for round in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..round % 5 {
            let at = draw(bytes.len());
            bytes[at] = draw(256) as u8;
        }
        bytes.truncate(if round % 3 == 0 { draw(good.len()) } else { good.len() });
        let (mut io, served) = world.pipe(None);
        let (mut from, mut to) = tokio::io::split(&mut io);
        let write = async {
            // It may be closed by then.
            drop(to.write_all(&bytes).await);
            drop(to.shutdown().await);
        };
        let read = async { drop(tokio::io::copy(&mut from, &mut tokio::io::sink()).await) };
        tokio::join!(write, read);
        drop(io);
        served.await.unwrap();
        assert_eq!((world.context.connections(), world.connections.len()), (0, 0), "round {round}");
    }
}
