//! Topics of others, and names that only look like one's own.

use fleetline_mqtt::{QoS, SubscribeOptions, Version, encode};

use crate::client::{events, id};
use crate::world::World;

/// What isn't the device's own topic closes the connection, whatever it looks like; nothing is stored
/// for anybody.
#[tokio::test(start_paused = true)]
async fn publishing_as_somebody_else() {
    let world = World::new().await;
    for device in ["A", "ab", "a-b"] {
        world.add(device);
    }
    let long = format!("devices/a/messages/events/{}", "x".repeat(16 << 10));
    let levels = "/".repeat(10_000);
    let topics = [
        "devices/b/messages/events/",
        "devices/A/messages/events/",
        "devices/ab/messages/events/",
        "devices/a%2Fb/messages/events/",
        "devices/a%2fmessages/events/",
        "devices/%61/messages/events/",
        "devices/a//messages/events/",
        "devices//a/messages/events/",
        "/devices/a/messages/events/",
        "Devices/a/messages/events/",
        "devices/a/../b/messages/events/",
        "devices/a/messages/eventsx/",
        "devices/a/messages/devicebound/",
        "devices/a/modules/m/messages/events/",
        "devices/a\u{301}/messages/events/",
        "devices/\u{ff41}/messages/events/",
        "$iothub/twin/PATCH/properties/desired/?$version=1",
        "$iothub/twin/res/200/?$rid=1",
        "$iothub/methods/POST/reboot/?$rid=1",
        "$iothub/twin/GET/",
        "$iothub/twin/GET/?$rid=",
        "$SYS/broker/uptime",
        "free",
        "devices/a/messages/events/a=%zz",
        "devices/a/messages/events/a=%ff",
        &long,
        &levels,
    ];
    for topic in topics {
        for (version, expected) in [(Version::V311, None), (Version::V5, Some("disconnect 0x90"))] {
            let mut client = world.connected("a", version, |_| {}).await;
            client.publish(topic, b"x", 1).await;
            let said = client.until_end().await;
            let expected = match topic.len() > 16 << 10 {
                true => expected.map(|_| "disconnect 0x97"),
                false => expected,
            };
            assert_eq!(said, Vec::from_iter(expected), "{topic:.60}");
        }
    }
    assert_eq!(world.hub.records(), [""; 0]);
}

/// [MQTT-3.9.3-2], [MQTT5-3.9.3-2]: filters of others, of all, shared ones and `$` ones are refused one
/// by one; the connection goes on, and nothing of them reaches the session.
#[tokio::test(start_paused = true)]
async fn subscribing_to_others() {
    let world = World::new().await;
    let filters = [
        "devices/b/messages/devicebound/#",
        "devices/A/messages/devicebound/#",
        "devices/+/messages/devicebound/#",
        "devices/%61/messages/devicebound/#",
        "devices/a/messages/devicebound/+",
        "devices/a/#",
        "devices/#",
        "#",
        "+/a/messages/devicebound/#",
        "$share/g/devices/a/messages/devicebound/#",
        "$share/g/devices/b/messages/devicebound/#",
        "$SYS/#",
        "$iothub/#",
        "$iothub/twin/+/#",
        "devices/a/modules/m/#",
    ];
    let own = "devices/a/messages/devicebound/#";
    for (version, refused) in [(Version::V311, "80"), (Version::V5, "87")] {
        let mut client = world.connected("a", version, |_| {}).await;
        let mut all: Vec<(&str, QoS)> = filters.iter().map(|filter| (*filter, QoS::AtLeastOnce)).collect();
        all.push((own, QoS::ExactlyOnce));
        let codes = format!("{}01", format!("{refused}, ").repeat(filters.len()));
        assert_eq!(client.subscribe(9, &all).await, format!("suback 9 [{codes}]"));
        world.command("b", b"not for a");
        assert_eq!(client.ping().await, "pingresp");
        let session = world.hub.view("a").session.unwrap();
        let known: Vec<&str> = session.subscriptions.iter().map(|row| row.filter.as_str()).collect();
        assert_eq!(known, [own]);
    }
}

/// A filter that is none is malformed: the connection ends. [MQTT-4.7.1-2], [MQTT-4.7.3-1]
#[tokio::test(start_paused = true)]
async fn filters_that_are_none() {
    let world = World::new().await;
    for filter in ["a#", "#/a", "a/+b", "", "$share/g", "$share//a", "$share/+/a"] {
        let mut client = world.connected("a", Version::V5, |_| {}).await;
        let filters = [(filter, SubscribeOptions::with_qos(QoS::AtMostOnce))];
        let mut out = Vec::new();
        encode::subscribe(&mut out, Version::V5, id(1), None, &filters).unwrap();
        client.send(&out).await;
        assert_eq!(client.until_end().await, ["disconnect 0x8f"], "{filter}");
    }
}

/// [MQTT-3.10.4-5], [MQTT5-3.11.3-2]: what isn't subscribed can be unsubscribed, as much as a packet
/// holds; it changes nothing.
#[tokio::test(start_paused = true)]
async fn unsubscribing_from_others() {
    let world = World::new().await;
    let own = "devices/a/messages/devicebound/#";
    let mut client = world.connected("a", Version::V5, |_| {}).await;
    assert_eq!(client.subscribe(1, &[(own, QoS::AtLeastOnce)]).await, "suback 1 [01]");
    let long = "x".repeat(2000);
    let mut filters = vec![long.as_str(); 40];
    filters.push("devices/b/messages/devicebound/#");
    let codes = vec!["11"; filters.len()].join(", ");
    assert_eq!(client.unsubscribe(2, &filters).await, format!("unsuback 2 [{codes}]"));
    assert_eq!(world.hub.view("a").session.unwrap().subscriptions.len(), 1);
    assert_eq!(client.unsubscribe(3, &[own, "x", own]).await, "unsuback 3 [00, 11, 00]");
    assert_eq!(world.hub.view("a").session.unwrap().subscriptions.len(), 0);
    world.command("a", b"unheard");
    assert_eq!(client.ping().await, "pingresp");
}

/// A subscription of a device that was disabled doesn't outlive its right: the connection ends, what it
/// sends isn't stored, it isn't let in again.
#[tokio::test(start_paused = true)]
async fn rights_that_are_taken_away() {
    let world = World::new().await;
    let mut client = world.connected("a", Version::V5, |_| {}).await;
    let mut quiet = world.connected("b", Version::V5, |_| {}).await;
    client.subscribe(1, &[("$iothub/twin/PATCH/properties/desired/#", QoS::AtLeastOnce)]).await;
    // Nobody tells the gateway: the log refuses the batch, and the gateway learns of it so.
    world.hub.silent.store(true, std::sync::atomic::Ordering::SeqCst);
    world.disable("a");
    world.desire("a", "{\"secret\":1}");
    client.publish(&events("a"), b"too late", 5).await;
    quiet.publish(&events("b"), b"goes on", 6).await;
    assert_eq!(quiet.next().await, "puback 6");
    assert_eq!(client.until_end().await, ["disconnect 0x8e"]);
    assert_eq!(world.hub.records(), ["b goes on"]);
    assert_eq!(world.login("a", Version::V5, |_| {}).await.1, "connack 0x87 present=false");
}
