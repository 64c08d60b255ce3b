//! Packets that may not come once the session is open.

use fleetline_mqtt::{Auth, Connect, PublishProperties, QoS, UserProperties, Version, encode};

use crate::client::{Client, events, id, publish, publish_with};
use crate::counts::Counts;
use crate::world::World;

/// What the front says to these bytes, until it closes. What follows them isn't looked at.
async fn answer(world: &World, version: Version, bytes: &[u8]) -> Vec<String> {
    let mut client = world.connected("a", version, |_| {}).await;
    let mut all = bytes.to_vec();
    all.extend(publish(version, &events("a"), b"behind", 77));
    client.send(&all).await;
    client.until_end().await
}

/// What both versions forbid. MQTT 5 is told why, 3.1.1 is closed.
#[tokio::test(start_paused = true)]
async fn forbidden_in_both_versions() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let world = World::new().await;
    let rows: [(&str, &[u8], &str); 22] = [
        // [MQTT-2.2.3]: a remaining length has four bytes.
        ("a length of five bytes", &[0x30, 0xff, 0xff, 0xff, 0xff, 0x01], "0x81"),
        ("a publish of 256 MiB", &[0x30, 0xff, 0xff, 0xff, 0x7f], "0x95"),
        ("type 0", &[0x00, 0], "0x81"),
        // [MQTT-2.2.2-2]: wrong flags.
        ("subscribe without its flag", &[0x80, 6, 0, 1, 0, 1, b'a', 0], "0x81"),
        ("pingreq with flags", &[0xc8, 0], "0x81"),
        // [MQTT-3.3.1-4]: both bits of QoS.
        ("qos 3", &[0x36, 6, 0, 1, b'a', 0, 1, 0], "0x81"),
        ("dup with qos 0", &[0x38, 4, 0, 1, b'a', 0], "0x81"),
        // [MQTT-2.3.1-1]: packet ids aren't 0.
        ("packet id 0", &[0x32, 5, 0, 1, b'a', 0, 0], "0x82"),
        // [MQTT-4.8.0-1]: only a server sends these.
        ("connack", &[0x20, 2, 0, 0], "0x82"),
        ("suback", &[0x90, 3, 0, 1, 0], "0x82"),
        ("unsuback", &[0xb0, 2, 0, 1], "0x82"),
        ("pingresp", &[0xd0, 0], "0x82"),
        // QoS 2 is never granted.
        ("pubrec", &[0x50, 2, 0, 1], "0x82"),
        ("pubrel", &[0x62, 2, 0, 1], "0x82"),
        ("pubcomp", &[0x70, 2, 0, 1], "0x82"),
        // [MQTT-1.5.3-1], [MQTT-1.5.3-2]: strings are UTF-8 without U+0000.
        ("invalid utf-8", &[0x30, 4, 0, 2, 0xc3, 0x28], "0x81"),
        ("overlong utf-8", &[0x30, 4, 0, 2, 0xc0, 0xaf], "0x81"),
        ("a surrogate", &[0x30, 5, 0, 3, 0xed, 0xa0, 0x80], "0x81"),
        ("nul in a topic", &[0x30, 5, 0, 3, b'a', 0, b'b'], "0x81"),
        // [MQTT-3.3.2-2]: a name has no wildcards.
        ("a wildcard in a name", &[0x30, 5, 0, 3, b'a', b'/', b'#'], "0x90"),
        ("a topic longer than its packet", &[0x30, 3, 0xff, 0xff, b'a'], "0x81"),
        ("a subscribe without filters", &[0x82, 2, 0, 1], "0x82"),
    ];
    for (what, bytes, reason) in rows {
        let before =
            counts.refused("malformed") + counts.refused("server_packet") + counts.refused("qos2_packet");
        assert_eq!(answer(&world, Version::V311, bytes).await, [""; 0], "{what}");
        let after =
            counts.refused("malformed") + counts.refused("server_packet") + counts.refused("qos2_packet");
        assert_eq!(after, before + 1, "{what}");
        // The same bytes are other packets there, where properties are due.
        if !matches!(what, "packet id 0" | "a subscribe without filters" | "connack" | "suback" | "unsuback")
        {
            let said = answer(&world, Version::V5, bytes).await;
            assert_eq!(said, [format!("disconnect {reason}")], "{what}");
        }
    }
    assert_eq!(world.hub.records(), [""; 0]);
}

/// [MQTT-3.1.0-2]: a second CONNECT is a violation, a good one too.
#[tokio::test(start_paused = true)]
async fn second_connects() {
    let world = World::new().await;
    for (version, expected) in [(Version::V311, vec![]), (Version::V5, vec!["disconnect 0x82"])] {
        let mut bytes = Vec::new();
        encode::connect(&mut bytes, &Connect::new(version, "a")).unwrap();
        assert_eq!(answer(&world, version, &bytes).await, expected);
    }
}

/// [MQTT-3.14.4-1]: what follows DISCONNECT isn't looked at.
#[tokio::test(start_paused = true)]
async fn packets_after_disconnect() {
    let world = World::new().await;
    for version in [Version::V311, Version::V5] {
        let mut bytes = publish(version, &events("a"), b"before", 0);
        encode::disconnect(&mut bytes, version, 0);
        assert_eq!(answer(&world, version, &bytes).await, [""; 0]);
    }
    assert_eq!(world.hub.records(), ["a before", "a before"]);
}

/// What is only in MQTT 5: AUTH, aliases, properties; QoS 2 and RETAIN against what CONNACK said.
#[tokio::test(start_paused = true)]
async fn forbidden_in_version_5() {
    let world = World::new().await;
    let topic = events("a");
    let alias = |alias, topic: &str| {
        publish_with(Version::V5, topic, b"x", 1, |packet| packet.properties.topic_alias = Some(alias))
    };
    let mut auth = Vec::new();
    let method = Auth { authentication_method: Some("x"), reason: 0x18, ..Auth::default() };
    encode::auth(&mut auth, &method).unwrap();
    let qos2 = publish_with(Version::V5, &topic, b"x", 1, |packet| packet.qos = QoS::ExactlyOnce);
    let retained = publish_with(Version::V5, &topic, b"x", 1, |packet| packet.retain = true);
    let many: Vec<(&str, &str)> = vec![("k", "v"); 129];
    let users = publish_with(Version::V5, &topic, b"x", 1, |packet| {
        let many: &'static [(&str, &str)] = many.clone().leak();
        packet.properties =
            PublishProperties { user_properties: UserProperties::from(many), ..packet.properties };
    });
    let rows: [(&str, &[u8], &str); 13] = [
        // [MQTT5-3.15]: nobody has begun to authenticate.
        ("auth", &auth, "0x82"),
        ("an empty auth", &[0xf0, 0], "0x82"),
        // [MQTT5-3.3.2-8], [MQTT5-3.3.2-9]: aliases are above the maximum, which is 0.
        ("alias 1", &alias(1, &topic), "0x94"),
        ("alias 65535", &alias(65535, &topic), "0x94"),
        ("an alias that was never set", &alias(1, ""), "0x94"),
        ("alias 0", &[0x30, 7, 0, 0, 3, 0x23, 0, 0, b'x'], "0x94"),
        // [MQTT5-3.2.2-11], [MQTT5-3.2.2-14]: above the maximum QoS; retained.
        ("qos 2", &qos2, "0x9b"),
        ("retain", &retained, "0x9a"),
        ("129 user properties", &users, "0x97"),
        // [MQTT5-2.2.2-2]: unknown, twice, beyond the packet.
        ("an unknown property", &[0x30, 6, 0, 1, b'a', 2, 0x7f, 0], "0x81"),
        ("a property twice", &[0x30, 8, 0, 1, b'a', 4, 1, 0, 1, 0], "0x82"),
        ("properties beyond the packet", &[0x30, 5, 0, 1, b'a', 0x7f, 1], "0x81"),
        // [MQTT5-3.3.4-6]: a client has no subscription ids to tell.
        ("a subscription id", &[0x30, 6, 0, 1, b'a', 2, 0x0b, 1], "0x81"),
    ];
    for (what, bytes, reason) in rows {
        assert_eq!(answer(&world, Version::V5, bytes).await, [format!("disconnect {reason}")], "{what}");
    }
    assert_eq!(answer(&world, Version::V311, &[0xf0, 0]).await, [""; 0]);
    let qos2 = publish_with(Version::V311, &topic, b"x", 1, |packet| packet.qos = QoS::ExactlyOnce);
    assert_eq!(answer(&world, Version::V311, &qos2).await, [""; 0]);
    assert_eq!(world.hub.records(), [""; 0]);
}

/// QoS 2 with one id, sent again and again and never released, leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn qos_2_without_end() {
    let world = World::new().await;
    for dup in [false, true, true] {
        let packet = publish_with(Version::V5, &events("a"), b"x", 9, |packet| {
            (packet.qos, packet.dup) = (QoS::ExactlyOnce, dup);
        });
        assert_eq!(answer(&world, Version::V5, &packet).await, ["disconnect 0x9b"]);
    }
    assert_eq!((world.hub.records().len(), world.connections.len()), (0, 0));
}

/// A packet that comes a byte at a time is one packet; two that come at once are two.
#[tokio::test(start_paused = true)]
async fn bytes_and_packets() {
    let world = World::new().await;
    let mut client: Client = world.connect("a").await;
    let first = publish(Version::V311, &events("a"), b"1", 1);
    for byte in &first {
        client.send(&[*byte]).await;
        tokio::task::yield_now().await;
    }
    let mut both = publish(Version::V311, &events("a"), b"2", 2);
    both.extend(publish(Version::V311, &events("a"), b"3", 3));
    encode::pingreq(&mut both);
    client.send(&both).await;
    let mut lines = client.take(4).await;
    lines.sort();
    assert_eq!(lines, ["pingresp", "puback 1", "puback 2", "puback 3"]);
    assert_eq!(world.hub.records(), ["a 1", "a 2", "a 3"]);
    // An acknowledgement of what was never sent is nothing.
    client.puback(id(500).get()).await;
    assert_eq!(client.ping().await, "pingresp");
}
