//! Commands: delivered at least once, until they are acknowledged.

use fleetline_devices::Wake;
use fleetline_gateway::hub::HubError;
use fleetline_mqtt::{QoS, Version};

use crate::client::{Client, settle};
use crate::world::World;

const COMMANDS: &str = "devices/a/messages/devicebound/#";

/// Packet id and body of the commands that are there now.
async fn arrived(client: &mut Client) -> Vec<(u16, String)> {
    let mut lines = Vec::new();
    while let Some(line) = client.now().await {
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("publish"), "{line}");
        lines.push((words.next().unwrap().parse().unwrap(), words.next_back().unwrap().to_owned()));
    }
    lines
}

fn bodies(arrived: &[(u16, String)]) -> Vec<&str> {
    arrived.iter().map(|(_, body)| body.as_str()).collect()
}

/// PUBACK completes a command; what isn't acknowledged comes again on the next connection
/// ([MQTT-4.4.0-1]), in order, and what is, never.
#[tokio::test(start_paused = true)]
async fn redelivery() {
    let world = World::new().await;
    for body in ["1", "2", "3", "4"] {
        world.command("a", body.as_bytes());
    }
    let mut client = world.connect("a").await;
    client.subscribe(1, &[(COMMANDS, QoS::AtLeastOnce)]).await;
    let first = arrived(&mut client).await;
    assert_eq!(bodies(&first), ["1", "2", "3", "4"]);
    client.puback(first[1].0).await;
    settle().await;
    assert_eq!(world.hub.view("a").commands, 3);
    // A second acknowledgement, and one of nothing, are nothing.
    client.puback(first[1].0).await;
    client.puback(999).await;
    assert_eq!(client.ping().await, "pingresp");
    drop(client);
    settle().await;
    world.command("a", b"5");
    let mut client = world.connect("a").await;
    let again = arrived(&mut client).await;
    assert_eq!(bodies(&again), ["1", "3", "4", "5"]);
    for (id, _) in &again {
        client.puback(*id).await;
    }
    settle().await;
    assert_eq!(world.hub.view("a").commands, 0);
    client.disconnect(0).await;
    settle().await;
    assert_eq!(arrived(&mut world.connect("a").await).await, []);
}

/// Not more are on their way than the client takes; each acknowledgement makes room for one.
/// [MQTT5-3.3.4-9]
#[tokio::test(start_paused = true)]
async fn receive_maximum() {
    let world = World::new().await;
    let receive = |connect: &mut fleetline_mqtt::Connect<'_>| connect.properties.receive_maximum = 2;
    let mut client = world.connected("a", Version::V5, receive).await;
    client.subscribe(1, &[(COMMANDS, QoS::AtLeastOnce)]).await;
    for number in 1..=6 {
        world.command("a", number.to_string().as_bytes());
    }
    let mut open = arrived(&mut client).await;
    assert_eq!(bodies(&open), ["1", "2"]);
    for expected in [vec!["3"], vec!["4"], vec!["5"], vec!["6"], vec![], vec![]] {
        client.puback(open.remove(0).0).await;
        let more = arrived(&mut client).await;
        assert_eq!(bodies(&more), expected);
        open.extend(more);
    }
    assert_eq!(world.hub.view("a").commands, 0);
}

/// Wakes that come twice, or for nothing, deliver nothing twice; a wake that is lost is made good by
/// the next.
#[tokio::test(start_paused = true)]
async fn wakes() {
    let world = World::new().await;
    let mut client = world.connect("a").await;
    client.subscribe(1, &[(COMMANDS, QoS::AtLeastOnce)]).await;
    world.command("a", b"1");
    for _ in 0..5 {
        world.hub.wake_again("a", Wake::Commands);
        tokio::task::yield_now().await;
    }
    assert_eq!(bodies(&arrived(&mut client).await), ["1"]);
    world.hub.silent.store(true, std::sync::atomic::Ordering::SeqCst);
    world.command("a", b"2");
    assert_eq!(arrived(&mut client).await, []);
    world.hub.silent.store(false, std::sync::atomic::Ordering::SeqCst);
    world.command("a", b"3");
    assert_eq!(bodies(&arrived(&mut client).await), ["2", "3"]);
}

/// While the leader can't be asked nothing is lost: neither commands nor acknowledgements.
#[tokio::test(start_paused = true)]
async fn no_leader() {
    let world = World::new().await;
    let mut client = world.connect("a").await;
    client.subscribe(1, &[(COMMANDS, QoS::AtLeastOnce)]).await;
    world.command("a", b"1");
    let open = arrived(&mut client).await;
    *world.hub.failing.lock() = Some(HubError::Unavailable("partition 0".into()));
    client.puback(open[0].0).await;
    world.command("a", b"2");
    assert_eq!(arrived(&mut client).await, []);
    *world.hub.failing.lock() = None;
    let line = client.next().await;
    assert!(line.ends_with(" 2"), "{line}");
    assert_eq!(world.hub.view("a").commands, 1);
}

/// [MQTT5-3.1.2-24], [MQTT5-3.1.2-25]: a command that is larger than the client takes isn't sent, and is
/// done with as if it were; the next ones come.
#[tokio::test(start_paused = true)]
async fn packets_too_large_for_the_client() {
    let world = World::new().await;
    let small =
        |connect: &mut fleetline_mqtt::Connect<'_>| connect.properties.maximum_packet_size = Some(1000);
    let mut client = world.connected("a", Version::V5, small).await;
    client.subscribe(1, &[(COMMANDS, QoS::AtLeastOnce)]).await;
    world.command("a", "x".repeat(1000).as_bytes());
    world.command("a", b"fits");
    assert_eq!(bodies(&arrived(&mut client).await), ["fits"]);
    assert_eq!(world.hub.view("a").commands, 1);
}
