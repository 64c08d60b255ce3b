//! What outlives a connection: subscriptions, and the will.

use std::time::Duration;

use fleetline_mqtt::{QoS, Version, Will, reason};

use crate::client::settle;
use crate::world::World;

const COMMANDS: &str = "devices/a/messages/devicebound/#";
const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";

fn will() -> Will<'static> {
    Will { topic: "devices/a/messages/events/k=v", payload: b"gone", ..Will::default() }
}

/// [MQTT-3.1.2-8]: the will is sent when the connection ends without DISCONNECT, whatever ends it; once.
#[tokio::test(start_paused = true)]
async fn wills_of_broken_connections() {
    for how in ["socket", "violation", "silence", "takeover", "disconnect with will"] {
        let world = World::new().await;
        let mut client = world
            .connected("a", Version::V5, |connect| {
                (connect.will, connect.keep_alive) = (Some(will()), 10);
            })
            .await;
        assert_eq!(world.hub.wills(), [""; 0]);
        match how {
            "socket" => drop(client),
            "violation" => client.send(&[0xd0, 0]).await,
            "silence" => tokio::time::sleep(Duration::from_secs(16)).await,
            "takeover" => drop(world.connect("a").await),
            // [MQTT5-3.14.4-3]
            _ => client.disconnect(reason::DISCONNECT_WITH_WILL).await,
        }
        settle().await;
        assert_eq!(world.hub.wills(), ["gone"], "{how}");
        world.connect("a").await.disconnect(0).await;
        settle().await;
        assert_eq!(world.hub.wills(), ["gone"], "{how}");
    }
}

/// [MQTT-3.14.4-3]: DISCONNECT discards it. Who is disabled sends none either.
#[tokio::test(start_paused = true)]
async fn wills_that_are_not_sent() {
    for version in [Version::V311, Version::V5] {
        let world = World::new().await;
        let mut client = world.connected("a", version, |connect| connect.will = Some(will())).await;
        client.disconnect(0).await;
        assert_eq!(client.until_end().await, [""; 0]);
        settle().await;
        let client = world.connected("a", version, |connect| connect.will = Some(will())).await;
        world.disable("a");
        settle().await;
        drop(client);
        settle().await;
        assert_eq!(world.hub.wills(), [""; 0]);
        assert!(!world.hub.view("a").session.unwrap().connected);
    }
}

/// The will comes behind the last record of its connection.
#[tokio::test(start_paused = true)]
async fn wills_wait_for_records() {
    let world = World::new().await;
    let mut client = world.connected("a", Version::V311, |connect| connect.will = Some(will())).await;
    world.hub.held.send_replace(true);
    client.telemetry("a", "last", 1).await;
    drop(client);
    settle().await;
    assert_eq!((world.hub.records().len(), world.hub.wills().len()), (0, 0));
    world.hub.held.send_replace(false);
    settle().await;
    assert_eq!((world.hub.records().len(), world.hub.wills().len()), (1, 1));
}

/// [MQTT-3.2.2-1..3], [MQTT-3.1.2-4..6]: a session that is kept is there again with its subscriptions;
/// who asks for a fresh one, or had a clean one, begins with nothing.
#[tokio::test(start_paused = true)]
async fn session_present() {
    let world = World::new().await;
    let kept = "connack 0x00 present=true";
    let fresh = "connack 0x00 present=false";
    let (mut client, answer) = world.login("a", Version::V311, |_| {}).await;
    assert_eq!(answer, fresh);
    client.subscribe(1, &[(COMMANDS, QoS::AtLeastOnce), (DESIRED, QoS::AtMostOnce)]).await;
    client.disconnect(0).await;
    settle().await;
    world.command("a", b"while away");
    // Without a SUBSCRIBE.
    let (mut client, answer) = world.login("a", Version::V311, |_| {}).await;
    assert_eq!(answer, kept);
    assert!(client.next().await.ends_with(" while away"));
    world.desire("a", "{\"x\":1}");
    assert!(client.next().await.ends_with(" {\"$version\":2,\"x\":1}"));
    // Also after a takeover, and in the other version.
    let (_client, answer) = world.login("a", Version::V5, |_| {}).await;
    assert_eq!(answer, kept);
    assert_eq!(world.hub.view("a").session.unwrap().subscriptions.len(), 2);
    // A fresh one that is kept.
    let (_client, answer) = world.login("a", Version::V5, |connect| connect.clean_start = true).await;
    assert_eq!(answer, fresh);
    assert_eq!(world.hub.view("a").session.unwrap().subscriptions.len(), 0);
    let (mut client, answer) = world.login("a", Version::V5, |_| {}).await;
    assert_eq!(answer, kept);
    client.subscribe(1, &[(COMMANDS, QoS::AtLeastOnce)]).await;
    // One that goes on with it and isn't kept: it ends with its connection.
    let (mut client, answer) =
        world.login("a", Version::V5, |connect| connect.properties.session_expiry = 0).await;
    assert_eq!(answer, kept);
    assert!(client.next().await.ends_with(" while away"));
    client.disconnect(0).await;
    settle().await;
    assert_eq!(world.login("a", Version::V5, |_| {}).await.1, fresh);
    let (client, answer) = world.login("a", Version::V311, |connect| connect.clean_start = true).await;
    assert_eq!(answer, fresh);
    drop(client);
    settle().await;
    let (_client, answer) = world.login("a", Version::V311, |_| {}).await;
    assert_eq!(answer, fresh);
}

/// Whom the node stops is told so (0x8B), and its session is closed with its will.
#[tokio::test(start_paused = true)]
async fn shutdown() {
    use fleetline_gateway::devices::connections::Link;
    let world = World::new().await;
    let mut client = world.connected("a", Version::V5, |connect| connect.will = Some(will())).await;
    let mut old = world.connect("b").await;
    world.connections.set_all(Link::SHUTDOWN);
    assert_eq!(
        (client.until_end().await, old.until_end().await),
        (vec!["disconnect 0x8b".to_owned()], vec![])
    );
    settle().await;
    assert!(!world.hub.view("a").session.unwrap().connected && world.connections.is_empty());
}
