//! Senders to the stream.

use fleetline_amqp::message::{FORMAT_BATCH, MessageWriter};
use fleetline_amqp::performative::Role;
use fleetline_types::partition_of_key;

use crate::client::{Client, Wish, data, message};
use crate::world::World;

fn keyed(key: &str, body: &str) -> Vec<u8> {
    message(|w| {
        w.message_annotations(|w| {
            w.symbol("x-opt-partition-key");
            w.string(key);
        })
        .data(body.as_bytes());
    })
}

fn batch(key: Option<&str>, messages: &[Vec<u8>]) -> Vec<u8> {
    message(|w: &mut MessageWriter<'_>| {
        if let Some(key) = key {
            w.message_annotations(|w| {
                w.symbol("x-opt-partition-key");
                w.string(key);
            });
        }
        for message in messages {
            w.data(message);
        }
    })
}

/// Which partition holds a body.
async fn partition_with(world: &World, wanted: &str) -> usize {
    let mut client: Client = world.service().await;
    for partition in 0..2 {
        let address = format!("telemetry/ConsumerGroups/g/Partitions/{partition}");
        let handle = client.attach(Role::Receiver, &address).await;
        client.flow(0, handle, 0, 100, true).await;
        loop {
            let found = client
                .find(|seen| match &seen.performative {
                    fleetline_amqp::performative::Performative::Transfer(transfer)
                        if transfer.handle == handle =>
                    {
                        Some(Some(crate::client::body(&seen.payload)))
                    }
                    fleetline_amqp::performative::Performative::Flow(flow) if flow.handle == Some(handle) => {
                        Some(None)
                    }
                    _ => None,
                })
                .await;
            match found {
                Some(body) if body == wanted => return partition,
                Some(_) => {}
                None => break,
            }
        }
    }
    panic!("{wanted} is nowhere")
}

/// By key, by partition, by turn; single messages and batches; accepted when stored.
#[tokio::test(start_paused = true)]
async fn sending() {
    let world = World::new().await;
    let mut client = world.service().await;
    let sender = client.sender("amqps://hub.example/telemetry").await;
    let first = client.sender("telemetry/Partitions/1").await;
    for key in ["k1", "k2", "k3", "k4"] {
        assert_eq!(client.deliver(sender, &keyed(key, key)).await, "accepted");
        assert_eq!(partition_with(&world, key).await, partition_of_key(key.as_bytes(), 2).0 as usize);
    }
    assert_eq!(client.deliver(first, &data("there")).await, "accepted");
    assert_eq!(partition_with(&world, "there").await, 1);
    let id =
        client.give(0, sender, FORMAT_BATCH, false, &batch(Some("k1"), &[data("x"), keyed("k1", "y")])).await;
    assert_eq!(client.outcome(id).await, "accepted");
    let bodies = world.hub.bodies();
    let at = bodies.iter().position(|body| body == "x").unwrap();
    assert_eq!(bodies[at + 1], "y");
    assert_eq!(world.hub.records()[at].device.as_ref(), b"k1");
    // All that waits behind an append goes together, in order.
    world.hub.held.send_replace(true);
    let mut ids = Vec::new();
    for at in 0..20 {
        ids.push(client.give(0, first, 0, false, &data(&format!("n{at}"))).await);
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    world.hub.held.send_replace(false);
    for id in ids {
        assert_eq!(client.outcome(id).await, "accepted");
    }
    let found: Vec<String> = world.hub.bodies().into_iter().filter(|body| body.starts_with('n')).collect();
    assert_eq!(found, (0..20).map(|at| format!("n{at}")).collect::<Vec<_>>());
}

/// What isn't taken; the link lives on.
#[tokio::test(start_paused = true)]
async fn refused() {
    let world = World::new().await;
    let mut client = world.service().await;
    let sender = client.sender("telemetry").await;
    let first = client.sender("telemetry/Partitions/1").await;
    let mixed = batch(None, &[keyed("a", ""), keyed("b", "")]);
    for (handle, format, payload, condition) in [
        (first, 0, keyed("k", ""), "amqp:not-allowed"),
        (sender, FORMAT_BATCH, mixed, "com.microsoft:argument-error"),
        (sender, FORMAT_BATCH, Vec::new(), "amqp:decode-error"),
        (sender, 0, keyed(&"k".repeat(200), ""), "com.microsoft:argument-out-of-range"),
        (sender, 0, vec![0x40], "amqp:decode-error"),
    ] {
        let id = client.give(0, handle, format, false, &payload).await;
        assert_eq!(client.outcome(id).await, condition);
    }
    assert_eq!(client.deliver(sender, &data("fine")).await, "accepted");
    for address in ["other", "telemetry/Partitions/7"] {
        let refused = client.try_attach(0, Role::Sender, address, Wish::default()).await;
        assert_eq!(refused.unwrap_err(), "amqp:not-found");
    }
}
