//! Before a session is open: what a peer may cost, and who is let in.

use std::time::Duration;

use fleetline_gateway::devices::ingest::IngestOptions;
use fleetline_gateway::hub::HubError;
use fleetline_gateway::mqtt::MqttLimits;
use fleetline_mqtt::{Connect, QoS, Version, Will, encode};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::client::{Client, publish, settle};
use crate::counts::Counts;
use crate::world::{DEVICE_KEY, POLICY_KEY, World};

fn connect_bytes() -> Vec<u8> {
    let mut out = Vec::new();
    encode::connect(&mut out, &Connect::new(Version::V311, "a")).unwrap();
    out
}

/// Sends what is no CONNECT; gives what came back until the front closed.
async fn refused(world: &World, bytes: &[u8]) -> Vec<u8> {
    let mut client = world.open();
    client.send(bytes).await;
    let mut answer = Vec::new();
    client.io.read_to_end(&mut answer).await.unwrap();
    answer
}

/// [MQTT-3.1.0-1]: what isn't CONNECT closes the connection at once, whatever its length claims, and is
/// counted. Nothing is answered. Reserved types, wrong flags and a length of five bytes too.
#[tokio::test(start_paused = true)]
async fn first_packets_that_are_no_connect() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let world = World::new().await;
    let started = Instant::now();
    let telemetry = publish(Version::V311, "devices/a/messages/events/", b"early", 1);
    let rows: [(&str, &[u8]); 12] = [
        ("a whole publish", &telemetry),
        ("pingreq", &[0xc0, 0]),
        ("the head of a huge publish", &[0x30, 0xff, 0xff, 0xff, 0x7f]),
        ("the head of a huge connect", &[0x10, 0xff, 0xff, 0xff, 0x7f]),
        ("a connect of 8 KiB and a byte", &[0x10, 0xfe, 0x3f]),
        ("a length of five bytes", &[0x10, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("type 0", &[0x00, 0]),
        ("type 15", &[0xf0, 0]),
        ("connect with flags", &[0x11, 12]),
        ("connack", &[0x20, 2, 0, 0]),
        ("text", b"GET / HTTP/1.1\r\n\r\n"),
        ("a connect that ends early", &[0x10, 4, 0, 4, b'M', b'Q']),
    ];
    for (place, (what, bytes)) in rows.into_iter().enumerate() {
        assert_eq!(refused(&world, bytes).await, [0; 0], "{what}");
        assert_eq!(counts.refused("malformed_connect"), place as u64 + 1, "{what}");
    }
    // No time had to pass, nothing is left.
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!((world.context.connections(), world.hub.records().len()), (0, 0));
}

/// [MQTT-3.1.2-2]: an unknown level of the protocol is answered with return code 1.
#[tokio::test(start_paused = true)]
async fn unknown_levels() {
    let world = World::new().await;
    for level in [0, 3, 6, 255] {
        let mut bytes = connect_bytes();
        bytes[8] = level;
        assert_eq!(refused(&world, &bytes).await, [0x20, 2, 0, 1], "{level}");
    }
}

/// A CONNECT as large as one may be is read; one byte a minute isn't waited for.
#[tokio::test(start_paused = true)]
async fn connects_take_ten_seconds_at_the_most() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let world = World::new().await;
    let started = Instant::now();
    let bytes = connect_bytes();
    let mut slow = world.open();
    let mut mute = world.open();
    slow.send(&bytes[..1]).await;
    assert_eq!((slow.next().await, mute.next().await), ("end".to_owned(), "end".to_owned()));
    assert_eq!(started.elapsed().as_secs(), 10);
    assert_eq!(counts.refused("connect_timeout"), 2);
    // Bytes that keep coming don't make it longer.
    let started = Instant::now();
    let mut dripping = world.open();
    for byte in &bytes[..5] {
        dripping.send(&[*byte]).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(dripping.next().await, "end");
    assert!(started.elapsed() <= Duration::from_secs(11));
    assert_eq!((counts.refused("connect_timeout"), world.context.connections()), (3, 0));
}

/// Beyond the bound of connections a peer is closed unread; room that becomes free is given again.
#[tokio::test(start_paused = true)]
async fn connections_are_bounded() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let limits = MqttLimits { connections_max: 1, ..MqttLimits::default() };
    let world = World::with(limits, IngestOptions::default()).await;
    let first = world.connect("a").await;
    assert_eq!(world.open().next().await, "end");
    assert_eq!(counts.refused("connections_max"), 1);
    drop(first);
    settle().await;
    world.connect("a").await;
}

/// Logs in with these; gives the return code.
async fn code(world: &World, version: Version, id: &str, username: &str, password: &str) -> String {
    let mut client = world.open();
    let mut connect = Connect::new(version, id);
    (connect.username, connect.password) = (Some(username), Some(password.as_bytes()));
    client.connect(&connect).await;
    let answer = client.next().await;
    if !answer.starts_with("connack 0x00") {
        assert_eq!(client.next().await, "end");
    }
    answer.split(' ').nth(1).unwrap().to_owned()
}

/// Tokens: expired, of another device, of a common prefix, escaped twice, of another key, without the
/// right. All get the same answer, and none opens a session.
#[tokio::test(start_paused = true)]
async fn tokens() {
    let world = World::new().await;
    world.add("ab");
    let own = "hub.example/devices/a";
    let good = world.token(own, 60);
    let (before_sig, after_sig) = good.split_once("&sig=").unwrap();
    let (sig, after_sig) = after_sig.split_once('&').unwrap();
    let beyond = format!("{before_sig}&sig={sig}&se=99999999999999999999");
    let renewed = format!("{before_sig}&sig={sig}&se=4000000000");
    let other_case = format!("{before_sig}&sig={}&{after_sig}", sig.to_ascii_lowercase());
    let rows = [
        ("expired", world.token(own, -1)),
        ("another device's", world.token("hub.example/devices/b", 60)),
        ("a longer path", world.token("hub.example/devices/a/messages", 60)),
        ("a longer name", world.token("hub.example/devices/ab", 60)),
        ("a module's", world.token("hub.example/devices/a/modules/m", 60)),
        ("escaped twice", world.token("hub.example%2Fdevices%2Fa", 60)),
        ("another hub's", world.token("other.example/devices/a", 60)),
        ("another key's", world.signed(own, POLICY_KEY, 60, None)),
        ("a policy without the right", world.signed("hub.example", POLICY_KEY, 60, Some("service"))),
        ("an unknown policy", world.signed("hub.example", POLICY_KEY, 60, Some("nobody"))),
        ("a policy with a device's key", world.signed("hub.example", DEVICE_KEY, 60, Some("device"))),
        ("beyond any number", beyond),
        ("a later end under an old signature", renewed),
        ("a signature in another case", other_case),
        ("no token", "secret".to_owned()),
        ("nothing", String::new()),
        ("only its name", "SharedAccessSignature".to_owned()),
    ];
    let username = "hub.example/a/?api-version=2021-04-12";
    for (what, token) in rows {
        for (version, expected) in [(Version::V311, "0x05"), (Version::V5, "0x87")] {
            assert_eq!(code(&world, version, "a", username, &token).await, expected, "{what}");
        }
    }
    assert!(world.hub.view("a").session.is_none() && world.connections.is_empty());
    for token in [good, world.signed("hub.example", POLICY_KEY, 60, Some("device"))] {
        assert_eq!(code(&world, Version::V311, "a", username, &token).await, "0x00");
    }
}

/// Client id and user name must speak of the same identity, of this hub, and of a version.
#[tokio::test(start_paused = true)]
async fn logins() {
    let world = World::new().await;
    world.add("A");
    let token = world.token("hub.example/devices/a", 60);
    let query = "?api-version=2021-04-12";
    let rows = [
        ("a", "hub.example/b/", "0x02", "0x85"),
        ("A", "hub.example/a/", "0x02", "0x85"),
        ("a", "hub.example/a%2F/", "0x02", "0x85"),
        ("a%2Fb", "hub.example/a%2Fb/", "0x05", "0x87"),
        ("a/m", "hub.example/a/", "0x02", "0x85"),
        ("a/m/n", "hub.example/a/m/n/", "0x02", "0x85"),
        ("+", "hub.example/+/", "0x05", "0x87"),
        ("a b", "hub.example/a b/", "0x02", "0x85"),
        ("ä", "hub.example/ä/", "0x02", "0x85"),
        ("a", "other.example/a/", "0x05", "0x87"),
        ("A", "hub.example/A/", "0x05", "0x87"),
    ];
    for (id, username, v311, v5) in rows {
        let username = format!("{username}{query}");
        assert_eq!(code(&world, Version::V311, id, &username, &token).await, v311, "{id} {username}");
        assert_eq!(code(&world, Version::V5, id, &username, &token).await, v5, "{id} {username}");
    }
    for username in ["", "hub.example", "/a/?api-version=1", "hub.example/a/", "hub.example/a/?version=1"] {
        assert_eq!(code(&world, Version::V311, "a", username, &token).await, "0x04", "{username}");
        assert_eq!(code(&world, Version::V5, "a", username, &token).await, "0x86", "{username}");
    }
    assert!(world.hub.view("a").session.is_none());
}

/// What can't be taken for its length is refused for good: trying again doesn't make it shorter.
#[tokio::test(start_paused = true)]
async fn what_is_too_long_for_the_leader() {
    let world = World::new().await;
    let token = world.token("hub.example/devices/a", 60);
    for (len, v311, v5) in [(1024, "0x00", "0x00"), (1025, "0x04", "0x86")] {
        let username = format!("hub.example/a/?api-version=2021-04-12&model-id={}", "m".repeat(len));
        assert_eq!(code(&world, Version::V311, "a", &username, &token).await, v311, "{len}");
        assert_eq!(code(&world, Version::V5, "a", &username, &token).await, v5, "{len}");
    }
}

/// 4 and 5 make SDKs give up for good: a hub that can't answer now says 3, whoever asks.
#[tokio::test(start_paused = true)]
async fn no_leader_is_no_refusal() {
    let world = World::new().await;
    for error in [
        HubError::Unavailable("partition 0".into()),
        HubError::Unknown("no answer".into()),
        HubError::DiskFull("/data".into()),
        HubError::Internal("broken".into()),
    ] {
        *world.hub.failing.lock() = Some(error);
        assert_eq!(world.login("a", Version::V311, |_| {}).await.1, "connack 0x03 present=false");
        assert_eq!(world.login("a", Version::V5, |_| {}).await.1, "connack 0x88 present=false");
    }
    *world.hub.failing.lock() = None;
    assert!(world.connections.is_empty());
    world.disable("b");
    assert_eq!(world.login("b", Version::V311, |_| {}).await.1, "connack 0x05 present=false");
    assert_eq!(world.login("unknown", Version::V311, |_| {}).await.1, "connack 0x05 present=false");
    world.connect("a").await;
}

/// [MQTT5-3.2.2-12], [MQTT5-3.2.2-13]: a will that needs what the server doesn't have is refused with
/// CONNECT, and so is one that isn't the device's own telemetry.
#[tokio::test(start_paused = true)]
async fn wills_are_judged_at_once() {
    let world = World::new().await;
    let own = "devices/a/messages/events/";
    let foreign =
        ["devices/b/messages/events/", "devices/A/messages/events/", "devices/a%2F/messages/events/"];
    for topic in
        foreign.into_iter().chain(["$iothub/twin/GET/?$rid=1", "free", "devices/a/messages/events/%zz"])
    {
        let will = Will { topic, ..Will::default() };
        let (_, answer) = world.login("a", Version::V311, |connect| connect.will = Some(will)).await;
        assert_eq!(answer, "connack 0x05 present=false", "{topic}");
        let (_, answer) = world.login("a", Version::V5, |connect| connect.will = Some(will)).await;
        assert_eq!(answer, "connack 0x90 present=false", "{topic}");
    }
    let qos2 = Will { topic: own, qos: QoS::ExactlyOnce, ..Will::default() };
    let retained = Will { topic: own, retain: true, ..Will::default() };
    for (will, expected) in [(qos2, "0x9b"), (retained, "0x9a")] {
        let (_, answer) = world.login("a", Version::V5, |connect| connect.will = Some(will)).await;
        assert_eq!(answer, format!("connack {expected} present=false"));
    }
    assert!(world.hub.view("a").session.is_none());
}

/// [MQTT5-4.12.0-1]: a method of AUTH that isn't known is refused; a client that waits for a challenge
/// must not find itself let in.
#[tokio::test(start_paused = true)]
async fn authentication_methods() {
    let world = World::new().await;
    let (mut client, answer) = world
        .login("a", Version::V5, |connect| connect.properties.authentication_method = Some("SCRAM-SHA-1"))
        .await;
    assert_eq!(answer, "connack 0x8c present=false");
    assert_eq!(client.next().await, "end");
}

/// CONNACK of MQTT 5 says what the front doesn't have, and how long silence may be.
#[tokio::test(start_paused = true)]
async fn connack_properties() {
    use fleetline_mqtt::{Limits, Packet, decode};
    let world = World::new().await;
    for (keep_alive, expected) in
        [(0, Some(1178)), (60, None), (1178, None), (1179, Some(1178)), (65535, Some(1178))]
    {
        let mut client = world.open();
        let token = world.token("hub.example/devices/a", 3600);
        let mut connect = Connect::new(Version::V5, "a");
        connect.username = Some("hub.example/a/?api-version=2021-04-12");
        (connect.password, connect.keep_alive) = (Some(token.as_bytes()), keep_alive);
        client.connect(&connect).await;
        let mut bytes = vec![0; 2];
        client.io.read_exact(&mut bytes).await.unwrap();
        bytes.resize(2 + usize::from(bytes[1]), 0);
        client.io.read_exact(&mut bytes[2..]).await.unwrap();
        let packet = decode(&bytes, Some(Version::V5), &Limits::from_server()).unwrap();
        let Packet::ConnAck(connack) = packet else { panic!("{packet:?}") };
        assert_eq!((connack.code, connack.session_present), (0, false));
        assert_eq!(connack.maximum_qos, Some(QoS::AtLeastOnce));
        assert_eq!(connack.receive_maximum, Some(4096));
        assert_eq!(connack.maximum_packet_size, Some(320 << 10));
        assert_eq!(connack.topic_alias_maximum.unwrap_or(0), 0);
        let available =
            (connack.retain_available, connack.shared_available, connack.subscription_ids_available);
        assert_eq!(available, (Some(false), Some(false), Some(false)));
        assert_eq!(connack.server_keep_alive, expected, "{keep_alive}");
    }
}

/// A client may send on before CONNACK; nothing of it is lost, nothing is answered before CONNACK.
#[tokio::test(start_paused = true)]
async fn packets_behind_connect() {
    let world = World::new().await;
    let token = world.token("hub.example/devices/a", 3600);
    let mut connect = Connect::new(Version::V311, "a");
    connect.username = Some("hub.example/a/?api-version=2021-04-12");
    connect.password = Some(token.as_bytes());
    let mut bytes = Vec::new();
    encode::connect(&mut bytes, &connect).unwrap();
    for number in 1..=3 {
        let body = format!("early {number}");
        bytes.extend(publish(Version::V311, "devices/a/messages/events/", body.as_bytes(), number));
    }
    for split in [bytes.len(), 40, bytes.len() - 1] {
        let mut client: Client = world.open();
        client.send(&bytes[..split]).await;
        settle().await;
        client.send(&bytes[split..]).await;
        let expected = ["connack 0x00 present=false", "puback 1", "puback 2", "puback 3"];
        assert_eq!(client.take(4).await, expected, "{split}");
    }
    assert_eq!(world.hub.records().len(), 9);
}
