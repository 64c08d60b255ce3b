//! One real packet per type and version, byte by byte, decoded to what it says and encoded back.

use fleetline_mqtt::{
    Ack, Auth, ConnAck, Connect, ConnectProperties, Packet, PacketId, Publish, PublishProperties, QoS,
    RetainHandling, Sender, SubAck, SubscribeOptions, UnsubAck, Version, Will, encode, reason,
};

use crate::kit::{packet, read, text};

const V311: Version = Version::V311;
const V5: Version = Version::V5;

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

/// The CONNECT of an Azure IoT device SDK: client id, user name with the api version, a SAS token.
#[test]
fn connect_of_a_device_sdk() {
    let username = "hub.example.net/d1/?api-version=2021-04-12";
    let token = b"SharedAccessSignature sr=hub.example.net&sig=x&se=1";
    let bytes = packet(
        0x10,
        &[
            &[0, 4, b'M', b'Q', b'T', b'T', 4, 0b1100_0000, 0, 240],
            &text("d1"),
            &text(username),
            &text(token),
        ],
    );
    let expected = Connect {
        clean_start: false,
        keep_alive: 240,
        username: Some(username),
        password: Some(token),
        // MQTT 5 section 3.1.2.11.2: a session that isn't clean lasts for ever.
        properties: ConnectProperties { session_expiry: u32::MAX, ..ConnectProperties::default() },
        ..Connect::new(V311, "d1")
    };
    assert_eq!(read(&bytes, V311, Sender::Client), Ok(Packet::Connect(expected)));
    let mut out = Vec::new();
    encode::connect(&mut out, &expected).unwrap();
    assert_eq!(out, bytes);
    assert!(!format!("{expected:?}").contains("SharedAccess"), "secrets stay out of debug output");
}

#[test]
fn connect_of_mqtt_5_with_everything() {
    #[rustfmt::skip]
    let properties = [
        &[0x11, 0, 0, 0x0e, 0x10, 0x21, 0, 10, 0x27, 0, 1, 0, 0, 0x22, 0, 5, 0x17, 0, 0x19, 1][..],
        &[0x15], &text("m"), &[0x16], &text("data"),
        &[0x26], &text("k"), &text("v"),
    ].concat();
    #[rustfmt::skip]
    let will_properties = [
        &[0x18, 0, 0, 0, 30, 0x01, 1, 0x02, 0, 0, 0, 60][..],
        &[0x08], &text("answer"), &[0x09], &text([1, 2]), &[0x03], &text("text/plain"),
        &[0x26], &text("w"), &text(""),
    ].concat();
    let bytes = packet(
        0x10,
        &[
            &[0, 4, b'M', b'Q', b'T', b'T', 5, 0b1111_0110, 0, 60],
            &[properties.len() as u8],
            &properties,
            &text("dev"),
            &[will_properties.len() as u8],
            &will_properties,
            &text("will/topic"),
            &text("gone"),
            &text("user"),
            &text([0, 255]),
        ],
    );
    let expected = Connect {
        version: V5,
        client_id: "dev",
        clean_start: true,
        keep_alive: 60,
        username: Some("user"),
        password: Some(&[0, 255]),
        will: Some(Will {
            topic: "will/topic",
            payload: b"gone",
            qos: QoS::ExactlyOnce,
            retain: true,
            delay: 30,
            properties: PublishProperties {
                payload_format: Some(1),
                message_expiry: Some(60),
                response_topic: Some("answer"),
                correlation_data: Some(&[1, 2]),
                content_type: Some("text/plain"),
                user_properties: [("w", "")][..].into(),
                ..PublishProperties::default()
            },
        }),
        properties: ConnectProperties {
            session_expiry: 3600,
            receive_maximum: 10,
            maximum_packet_size: Some(65_536),
            topic_alias_maximum: 5,
            request_problem_information: false,
            request_response_information: true,
            authentication_method: Some("m"),
            authentication_data: Some(b"data"),
            user_properties: [("k", "v")][..].into(),
        },
    };
    // The will's QoS in the flags is 10.
    assert_eq!(read(&bytes, V5, Sender::Client), Ok(Packet::Connect(expected)));
    let mut out = Vec::new();
    encode::connect(&mut out, &expected).unwrap();
    assert_eq!(out, bytes);
}

#[test]
fn connack() {
    let accepted = ConnAck { session_present: true, ..ConnAck::new(V311, 0) };
    let full = ConnAck {
        session_expiry: Some(60),
        receive_maximum: Some(16),
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size: Some(262_144),
        assigned_client_id: Some("auto"),
        topic_alias_maximum: Some(10),
        reason_string: Some("ok"),
        wildcard_available: Some(false),
        subscription_ids_available: Some(true),
        shared_available: Some(false),
        server_keep_alive: Some(30),
        response_information: Some("r/"),
        server_reference: Some("s"),
        authentication_method: Some("m"),
        authentication_data: Some(&[7]),
        user_properties: [("a", "b"), ("a", "c")][..].into(),
        ..ConnAck::new(V5, 0)
    };
    #[rustfmt::skip]
    let properties = [
        &[0x11, 0, 0, 0, 60, 0x21, 0, 16, 0x24, 1, 0x25, 0, 0x27, 0, 4, 0, 0][..],
        &[0x12], &text("auto"), &[0x22, 0, 10], &[0x1f], &text("ok"),
        &[0x28, 0, 0x29, 1, 0x2a, 0, 0x13, 0, 30],
        &[0x1a], &text("r/"), &[0x1c], &text("s"), &[0x15], &text("m"), &[0x16], &text([7]),
        &[0x26], &text("a"), &text("b"), &[0x26], &text("a"), &text("c"),
    ].concat();
    let cases = [
        (V311, accepted, vec![0x20, 2, 1, 0]),
        (V311, ConnAck::new(V311, reason::V311_NOT_AUTHORIZED), vec![0x20, 2, 0, 5]),
        (V5, ConnAck::new(V5, reason::NOT_AUTHORIZED), vec![0x20, 3, 0, 0x87, 0]),
        (V5, full, packet(0x20, &[&[0, 0, properties.len() as u8], &properties])),
    ];
    for (version, expected, bytes) in cases {
        assert_eq!(read(&bytes, version, Sender::Server), Ok(Packet::ConnAck(expected)));
        let mut out = Vec::new();
        encode::connack(&mut out, &expected).unwrap();
        assert_eq!(out, bytes);
    }
}

/// [MQTT-3.2.2-4], [MQTT5-3.2.2-6]: a refusal never says that there is a session.
#[test]
fn connack_of_a_refusal_has_no_session() {
    let refused = ConnAck { session_present: true, ..ConnAck::new(V5, reason::BANNED) };
    let mut out = Vec::new();
    encode::connack(&mut out, &refused).unwrap();
    assert_eq!(out, [0x20, 3, 0, 0x8a, 0]);
}

#[test]
fn publish() {
    let telemetry = Publish {
        qos: QoS::AtLeastOnce,
        topic: "devices/d1/messages/events/",
        packet_id: Some(id(10)),
        payload: b"{}",
        ..Publish::default()
    };
    let retained = Publish { retain: true, topic: "a/b", ..Publish::default() };
    let full = Publish {
        dup: true,
        qos: QoS::ExactlyOnce,
        topic: "t",
        packet_id: Some(id(0x1234)),
        payload: &[0, 1],
        properties: PublishProperties {
            payload_format: Some(0),
            message_expiry: Some(1),
            topic_alias: Some(2),
            response_topic: Some("r"),
            correlation_data: Some(&[]),
            content_type: Some("c"),
            user_properties: [("k", "v"), ("k", "w")][..].into(),
            subscription_ids: [1, 300][..].into(),
        },
        ..Publish::default()
    };
    let aliased = Publish {
        properties: PublishProperties { topic_alias: Some(1), ..PublishProperties::default() },
        ..Publish::default()
    };
    #[rustfmt::skip]
    let properties = [
        &[0x01, 0, 0x02, 0, 0, 0, 1, 0x23, 0, 2][..],
        &[0x08], &text("r"), &[0x09], &text([]), &[0x03], &text("c"),
        &[0x0b, 1, 0x0b, 0xac, 0x02],
        &[0x26], &text("k"), &text("v"), &[0x26], &text("k"), &text("w"),
    ].concat();
    let cases = [
        (V311, Sender::Client, telemetry, packet(0x32, &[&text(telemetry.topic), &[0, 10], b"{}"])),
        (V5, Sender::Client, telemetry, packet(0x32, &[&text(telemetry.topic), &[0, 10], &[0], b"{}"])),
        (V311, Sender::Client, retained, packet(0x31, &[&text("a/b")])),
        (V5, Sender::Client, retained, packet(0x31, &[&text("a/b"), &[0]])),
        (V5, Sender::Client, aliased, packet(0x30, &[&text(""), &[3, 0x23, 0, 1]])),
        (
            V5,
            Sender::Server,
            full,
            packet(0x3c, &[&text("t"), &[0x12, 0x34], &[properties.len() as u8], &properties, &[0, 1]]),
        ),
    ];
    for (version, sender, expected, bytes) in cases {
        assert_eq!(read(&bytes, version, sender), Ok(Packet::Publish(expected)));
        let mut out = vec![9];
        encode::publish(&mut out, version, &expected).unwrap();
        assert_eq!(out[1..], bytes);
    }
    let decoded = full.properties.user_properties;
    assert_eq!(decoded.find("k"), Some("v"));
    assert_eq!(decoded.find("x"), None);
}

#[test]
fn acknowledgements() {
    let success = Ack { packet_id: id(7), reason: 0 };
    let failure = Ack { packet_id: id(0x0102), reason: reason::QUOTA_EXCEEDED };
    let unknown = Ack { packet_id: id(3), reason: reason::PACKET_IDENTIFIER_NOT_FOUND };
    type Encode = fn(&mut Vec<u8>, Version, PacketId, u8);
    let cases: [(Version, Packet<'_>, Encode, Ack, &[u8]); 8] = [
        (V311, Packet::PubAck(success), encode::puback, success, &[0x40, 2, 0, 7]),
        (V311, Packet::PubRec(success), encode::pubrec, success, &[0x50, 2, 0, 7]),
        (V311, Packet::PubRel(success), encode::pubrel, success, &[0x62, 2, 0, 7]),
        (V311, Packet::PubComp(success), encode::pubcomp, success, &[0x70, 2, 0, 7]),
        (V5, Packet::PubAck(success), encode::puback, success, &[0x40, 2, 0, 7]),
        (V5, Packet::PubRec(failure), encode::pubrec, failure, &[0x50, 3, 1, 2, 0x97]),
        (V5, Packet::PubRel(unknown), encode::pubrel, unknown, &[0x62, 3, 0, 3, 0x92]),
        (V5, Packet::PubComp(unknown), encode::pubcomp, unknown, &[0x70, 3, 0, 3, 0x92]),
    ];
    for (version, expected, encode, ack, bytes) in cases {
        assert_eq!(read(bytes, version, Sender::Client), Ok(expected));
        let mut out = Vec::new();
        encode(&mut out, version, ack.packet_id, ack.reason);
        assert_eq!(out, bytes);
    }
    // 3.1.1 has no reasons to send.
    let mut out = Vec::new();
    encode::pubcomp(&mut out, V311, id(3), reason::PACKET_IDENTIFIER_NOT_FOUND);
    assert_eq!(out, [0x70, 2, 0, 3]);
}

/// MQTT 5 lets code and properties be left out, but takes them, too.
#[test]
fn acknowledgements_in_their_long_forms() {
    let success = Packet::PubAck(Ack { packet_id: id(7), reason: 0 });
    let properties = [&[0x1f], &text("why")[..], &[0x26], &text("k"), &text("v")].concat();
    let forms = [
        packet(0x40, &[&[0, 7, 0]]),
        packet(0x40, &[&[0, 7, 0, 0]]),
        packet(0x40, &[&[0, 7, 0, properties.len() as u8], &properties]),
    ];
    for bytes in forms {
        assert_eq!(read(&bytes, V5, Sender::Client), Ok(success.clone()));
    }
}

#[test]
fn subscribe_and_suback() {
    let full = SubscribeOptions {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    let filters = [("$iothub/twin/res/#", SubscribeOptions::with_qos(QoS::AtMostOnce)), ("a/+", full)];
    let plain = [filters[0], ("a/+", SubscribeOptions::with_qos(QoS::AtLeastOnce))];
    let v311 = packet(0x82, &[&[0, 5], &text("$iothub/twin/res/#"), &[0], &text("a/+"), &[1]]);
    let v5 =
        packet(0x82, &[&[0, 5, 2, 0x0b, 9], &text("$iothub/twin/res/#"), &[0], &text("a/+"), &[0b10_1101]]);
    for (version, bytes, subscription_id, filters) in [(V311, v311, None, plain), (V5, v5, Some(9), filters)]
    {
        let Ok(Packet::Subscribe(subscribe)) = read(&bytes, version, Sender::Client) else {
            panic!("{bytes:?}");
        };
        assert_eq!((subscribe.packet_id, subscribe.subscription_id), (id(5), subscription_id));
        assert_eq!(subscribe.filters.len(), 2);
        assert!(subscribe.filters.eq(filters));
        let mut out = Vec::new();
        encode::subscribe(&mut out, version, id(5), subscription_id, &filters).unwrap();
        assert_eq!(out, bytes);
    }

    type Case<'a> = (Version, &'a [u8], &'a [u8], &'a [u8]);
    let cases: [Case<'_>; 3] = [
        (V311, &[0, 1, 2, 0x80], &[0, 1, 2, 0x80], &[0x90, 6, 0, 5, 0, 1, 2, 0x80]),
        // [MQTT-3.9.3-2]: 3.1.1 knows one failure.
        (V311, &[reason::TOPIC_FILTER_INVALID], &[0x80], &[0x90, 3, 0, 5, 0x80]),
        (V5, &[1, 0x8f], &[1, 0x8f], &[0x90, 5, 0, 5, 0, 1, 0x8f]),
    ];
    for (version, codes, sent, bytes) in cases {
        let mut out = Vec::new();
        encode::suback(&mut out, version, id(5), codes).unwrap();
        assert_eq!(out, bytes);
        let expected = Packet::SubAck(SubAck { packet_id: id(5), codes: sent });
        assert_eq!(read(bytes, version, Sender::Server), Ok(expected));
    }
}

#[test]
fn unsubscribe_and_unsuback() {
    let filters = ["a/b", "#"];
    let v311 = packet(0xa2, &[&[1, 0], &text("a/b"), &text("#")]);
    let v5 = packet(0xa2, &[&[1, 0, 0], &text("a/b"), &text("#")]);
    for (version, bytes) in [(V311, v311), (V5, v5)] {
        let Ok(Packet::Unsubscribe(unsubscribe)) = read(&bytes, version, Sender::Client) else {
            panic!("{bytes:?}");
        };
        assert_eq!(unsubscribe.packet_id, id(256));
        assert_eq!(unsubscribe.filters.len(), 2);
        assert!(unsubscribe.filters.eq(filters));
        let mut out = Vec::new();
        encode::unsubscribe(&mut out, version, id(256), &filters).unwrap();
        assert_eq!(out, bytes);
    }
    let cases: [(Version, &[u8], &[u8]); 2] =
        [(V311, &[], &[0xb0, 2, 1, 0]), (V5, &[0, 0x11], &[0xb0, 5, 1, 0, 0, 0, 0x11])];
    for (version, codes, bytes) in cases {
        let mut out = Vec::new();
        encode::unsuback(&mut out, version, id(256), codes).unwrap();
        assert_eq!(out, bytes);
        let expected = Packet::UnsubAck(UnsubAck { packet_id: id(256), codes });
        assert_eq!(read(bytes, version, Sender::Server), Ok(expected));
    }
}

#[test]
fn pings() {
    for version in [V311, V5] {
        assert_eq!(read(&[0xc0, 0], version, Sender::Client), Ok(Packet::PingReq));
        assert_eq!(read(&[0xd0, 0], version, Sender::Server), Ok(Packet::PingResp));
    }
    let mut out = Vec::new();
    encode::pingreq(&mut out);
    encode::pingresp(&mut out);
    assert_eq!(out, [0xc0, 0, 0xd0, 0]);
}

#[test]
fn disconnect() {
    let normal = Packet::Disconnect { reason: 0, session_expiry: None };
    let mut out = Vec::new();
    encode::disconnect(&mut out, V311, reason::DISCONNECT_WITH_WILL);
    assert_eq!(out, [0xe0, 0]);
    assert_eq!(read(&out, V311, Sender::Client), Ok(normal.clone()));
    assert_eq!(read(&out, V5, Sender::Client), Ok(normal));

    out.clear();
    encode::disconnect(&mut out, V5, reason::SESSION_TAKEN_OVER);
    assert_eq!(out, [0xe0, 1, 0x8e]);
    let taken_over = Packet::Disconnect { reason: reason::SESSION_TAKEN_OVER, session_expiry: None };
    assert_eq!(read(&out, V5, Sender::Server), Ok(taken_over));

    out.clear();
    let leaving = encode::DisconnectOut {
        reason: reason::DISCONNECT_WITH_WILL,
        session_expiry: Some(0),
        reason_string: Some("bye"),
        server_reference: None,
    };
    encode::disconnect_v5(&mut out, &leaving).unwrap();
    assert_eq!(out, packet(0xe0, &[&[4, 11, 0x11, 0, 0, 0, 0, 0x1f], &text("bye")]));
    let expected = Packet::Disconnect { reason: reason::DISCONNECT_WITH_WILL, session_expiry: Some(0) };
    assert_eq!(read(&out, V5, Sender::Client), Ok(expected));
}

#[test]
fn auth() {
    let step = Auth {
        reason: reason::CONTINUE_AUTHENTICATION,
        authentication_method: Some("m"),
        authentication_data: Some(&[1]),
        reason_string: None,
        user_properties: Default::default(),
    };
    let cases = [
        (step, Sender::Client, packet(0xf0, &[&[0x18, 8, 0x15], &text("m"), &[0x16], &text([1])])),
        (Auth::default(), Sender::Server, vec![0xf0, 0]),
    ];
    for (expected, sender, bytes) in cases {
        assert_eq!(read(&bytes, V5, sender), Ok(Packet::Auth(expected)));
        let mut out = Vec::new();
        encode::auth(&mut out, &expected).unwrap();
        assert_eq!(out, bytes);
    }
}
