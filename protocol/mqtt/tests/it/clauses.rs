//! Every clause that decoding has to enforce, with the smallest packet that breaks it. Those of
//! CONNECT are in `clauses_connect.rs`.

use fleetline_mqtt::{
    DecodeError, EncodeError, Limits, PacketId, PacketType, Publish, QoS, Sender, SubscribeOptions,
    TopicError, Version, decode, encode, frame_len, reason,
};

use crate::kit::{connect, packet, read, text};

const V311: Version = Version::V311;
const V5: Version = Version::V5;

/// A packet that must be refused: what it breaks, its bytes, the error and the reason code.
pub struct Case {
    clause: &'static str,
    version: Version,
    sender: Sender,
    bytes: Vec<u8>,
    error: DecodeError,
    reason: u8,
}

pub fn from_client(
    clause: &'static str,
    version: Version,
    bytes: Vec<u8>,
    error: DecodeError,
    reason: u8,
) -> Case {
    Case { clause, version, sender: Sender::Client, bytes, error, reason }
}

fn from_server(
    clause: &'static str,
    version: Version,
    bytes: Vec<u8>,
    error: DecodeError,
    reason: u8,
) -> Case {
    Case { clause, version, sender: Sender::Server, bytes, error, reason }
}

pub fn check(cases: &[Case]) {
    for case in cases {
        let found = read(&case.bytes, case.version, case.sender);
        assert_eq!(found, Err(case.error.clone()), "{} {:?}", case.clause, case.version);
        assert_eq!(case.error.reason(), case.reason, "{}", case.clause);
    }
}

fn both(clause: &'static str, bytes: Vec<u8>, error: DecodeError, reason: u8) -> [Case; 2] {
    [V311, V5].map(|version| from_client(clause, version, bytes.clone(), error.clone(), reason))
}

#[test]
fn fixed_header() {
    let malformed = reason::MALFORMED_PACKET;
    let flags = |packet, flags| DecodeError::BadFlags { packet, flags };
    let mut cases = vec![from_client(
        "2.2.1 AUTH in 3.1.1",
        V311,
        vec![0xf0, 0],
        DecodeError::ReservedType { value: 15 },
        malformed,
    )];
    for (clause, bytes, error) in [
        ("2.2.1 type 0", vec![0x00, 0], DecodeError::ReservedType { value: 0 }),
        ("MQTT-2.2.2-1", vec![0x11, 0], flags(PacketType::Connect, 1)),
        ("MQTT-2.2.2-2", vec![0x42, 2, 0, 1], flags(PacketType::PubAck, 2)),
        ("MQTT-3.6.1-1", vec![0x60, 2, 0, 1], flags(PacketType::PubRel, 0)),
        ("MQTT-3.8.1-1", packet(0x80, &[&[0, 1], &text("a"), &[0]]), flags(PacketType::Subscribe, 0)),
        ("MQTT-3.10.1-1", packet(0xa3, &[&[0, 1], &text("a")]), flags(PacketType::Unsubscribe, 3)),
        ("MQTT-3.14.1-1", vec![0xe1, 0], flags(PacketType::Disconnect, 1)),
        ("MQTT5-3.15.1-1", vec![0xf2, 0], flags(PacketType::Auth, 2)),
        (
            "MQTT-3.3.1-4",
            packet(0x36, &[&text("a"), &[0, 1, 0]]),
            DecodeError::BadQoS { what: "the qos of a publish", value: 3 },
        ),
        ("MQTT-3.3.1-2", packet(0x38, &[&text("a"), &[0]]), DecodeError::DupAtMostOnce),
        ("2.2.3", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01], DecodeError::RemainingLength),
    ] {
        cases.extend(both(clause, bytes, error, malformed));
    }
    check(&cases);
}

/// [MQTT-3.1.0-1], [MQTT-3.1.0-2]: CONNECT comes first, and once. And each side sends its own.
#[test]
fn order_and_direction() {
    let client = Limits::default();
    let server = Limits::from_server();
    let hello = connect(4, 2, &[&text("d")]);
    let ping = [0xc0, 0];
    let cases: [(&[u8], Option<Version>, &Limits, DecodeError); 7] = [
        (&ping, None, &client, DecodeError::NotConnected { packet: PacketType::PingReq }),
        (&[0x20, 2, 0, 0], None, &server, DecodeError::NotConnected { packet: PacketType::ConnAck }),
        (&hello, Some(V311), &client, DecodeError::SecondConnect),
        (&hello, None, &server, DecodeError::WrongSender { packet: PacketType::Connect }),
        (&ping, Some(V5), &server, DecodeError::WrongSender { packet: PacketType::PingReq }),
        (&[0xd0, 0], Some(V5), &client, DecodeError::WrongSender { packet: PacketType::PingResp }),
        (&[0xe0, 0], Some(V311), &server, DecodeError::WrongSender { packet: PacketType::Disconnect }),
    ];
    for (bytes, version, limits, error) in cases {
        assert_eq!(error.reason(), reason::PROTOCOL_ERROR);
        assert_eq!(decode(bytes, version, limits), Err(error));
    }
    let cut = decode(&[0xc0, 0, 0xc0], Some(V5), &client);
    assert_eq!(cut, Err(DecodeError::FrameLength { frame: 2, given: 3 }));
}

#[test]
fn publish() {
    let malformed = reason::MALFORMED_PACKET;
    let topic = |fault| DecodeError::BadTopic { what: "topic", fault };
    let zero = DecodeError::PacketIdZero { packet: PacketType::Publish };
    let mut cases = Vec::new();
    for (clause, bytes, error, reason) in [
        ("MQTT-3.3.2-1", packet(0x30, &[&[0]]), DecodeError::Truncated { what: "topic" }, malformed),
        (
            "MQTT-3.3.2-1",
            packet(0x30, &[&text([0xff]), &[0]]),
            DecodeError::BadUtf8 { what: "topic" },
            malformed,
        ),
        (
            "MQTT-4.7.3-2",
            packet(0x30, &[&text("a\0+"), &[0]]),
            DecodeError::NulCharacter { what: "topic" },
            malformed,
        ),
        ("MQTT-3.3.2-2", packet(0x30, &[&text("a/+"), &[0]]), topic(TopicError::Wildcard), 0x90),
        ("MQTT-2.3.1-1", packet(0x32, &[&text("a"), &[0, 0, 0]]), zero.clone(), 0x82),
        ("MQTT5-2.2.1-3", packet(0x34, &[&text("a"), &[0, 0, 0]]), zero, 0x82),
        ("2.3.1", packet(0x32, &[&text("a"), &[1]]), DecodeError::Truncated { what: "packet id" }, malformed),
    ] {
        cases.extend(both(clause, bytes, error, reason));
    }
    let empty = packet(0x30, &[&text("")]);
    cases.push(from_client("MQTT-4.7.3-1", V311, empty, topic(TopicError::Empty), 0x90));
    let with = |properties: &[u8]| packet(0x30, &[&text("a"), &[properties.len() as u8], properties]);
    let wildcard = DecodeError::BadTopic { what: "response topic", fault: TopicError::Wildcard };
    let not_allowed = |property| DecodeError::PropertyNotAllowed { property, packet: "PUBLISH" };
    let format = DecodeError::PropertyValue { property: "payload format indicator", value: 2 };
    for (clause, bytes, error, reason) in [
        ("3.3.2.1", packet(0x30, &[&text(""), &[0]]), DecodeError::TopicMissing, 0x82),
        ("MQTT5-3.3.2-8", with(&[0x23, 0, 0]), DecodeError::TopicAliasZero, 0x94),
        ("MQTT5-3.3.2-14", with(&[0x08, 0, 1, b'+']), wildcard, 0x90),
        ("MQTT5-3.3.4-6", with(&[0x0b, 1]), not_allowed("subscription identifier"), malformed),
        ("2.2.2.2", with(&[0x1f, 0, 0]), not_allowed("reason string"), malformed),
        ("2.2.2.2", with(&[0x7f, 0]), DecodeError::UnknownProperty { id: 0x7f }, malformed),
        (
            "3.3.2.3.4",
            with(&[0x23, 0, 1, 0x23, 0, 1]),
            DecodeError::DuplicateProperty { property: "topic alias" },
            0x82,
        ),
        ("3.3.2.3.2", with(&[0x01, 2]), format, 0x82),
        (
            "2.2.2.1",
            packet(0x30, &[&text("a"), &[4, 0x01]]),
            DecodeError::Truncated { what: "properties" },
            malformed,
        ),
        (
            "MQTT5-2.2.2-1",
            packet(0x30, &[&text("a")]),
            DecodeError::Truncated { what: "properties" },
            malformed,
        ),
    ] {
        cases.push(from_client(clause, V5, bytes, error, reason));
    }
    check(&cases);
}

#[test]
fn acknowledgements() {
    use PacketType::{PubAck, PubComp, PubRec, PubRel};
    let mut cases = Vec::new();
    for (first, packet) in [(0x40, PubAck), (0x50, PubRec), (0x62, PubRel), (0x70, PubComp)] {
        let zero = DecodeError::PacketIdZero { packet };
        cases.extend(both("2.3.1", vec![first, 2, 0, 0], zero, 0x82));
        let cut = DecodeError::Truncated { what: "packet id" };
        cases.extend(both("2.3.1", vec![first, 1, 0], cut, 0x81));
        let trailing = DecodeError::Trailing { packet, count: 1 };
        cases.push(from_client("3.4", V311, vec![first, 3, 0, 1, 0], trailing, 0x81));
        // [MQTT5-3.4.2-1], [MQTT5-3.5.2-1], [MQTT5-3.6.2-1], [MQTT5-3.7.2-1]
        let code = DecodeError::BadReason { packet, value: 0x84 };
        cases.push(from_client("MQTT5-3.x.2-1", V5, vec![first, 3, 0, 1, 0x84], code, 0x82));
        let property = DecodeError::PropertyNotAllowed { property: "topic alias", packet: packet.name() };
        let bytes = vec![first, 7, 0, 1, 0, 3, 0x23, 0, 1];
        cases.push(from_client("2.2.2.2", V5, bytes, property, 0x81));
        let twice = DecodeError::DuplicateProperty { property: "reason string" };
        let bytes = vec![first, 10, 0, 1, 0, 6, 0x1f, 0, 0, 0x1f, 0, 0];
        cases.push(from_client("3.4.2.2.2", V5, bytes, twice, 0x82));
        let trailing = DecodeError::Trailing { packet, count: 2 };
        cases.push(from_client("3.4", V5, vec![first, 6, 0, 1, 0, 0, 1, 1], trailing, 0x81));
    }
    check(&cases);
}

#[test]
fn subscribe() {
    let first = 0x82;
    let filter = |fault| DecodeError::BadTopic { what: "topic filter", fault };
    let options = |options| DecodeError::SubscribeOptions { options };
    let qos = DecodeError::BadQoS { what: "the qos of a subscription", value: 3 };
    let empty = DecodeError::EmptyPayload { packet: PacketType::Subscribe };
    let zero = DecodeError::PacketIdZero { packet: PacketType::Subscribe };
    let mut cases = Vec::new();
    for (version, properties) in [(V311, &[][..]), (V5, &[0][..])] {
        let one = |topic: &[u8], options: u8| packet(first, &[&[0, 1], properties, &text(topic), &[options]]);
        for (clause, bytes, error, reason) in [
            ("MQTT-3.8.3-3, MQTT5-3.8.3-2", packet(first, &[&[0, 1], properties]), empty.clone(), 0x82),
            (
                "MQTT-2.3.1-1, MQTT5-2.2.1-3",
                packet(first, &[&[0, 0], properties, &text("a"), &[0]]),
                zero.clone(),
                0x82,
            ),
            ("MQTT-3.8.3-1", one(&[0xff], 0), DecodeError::BadUtf8 { what: "topic filter" }, 0x81),
            ("MQTT-4.7.3-2", one(b"\0", 0), DecodeError::NulCharacter { what: "topic filter" }, 0x81),
            ("MQTT-4.7.3-1", one(b"", 0), filter(TopicError::Empty), 0x8f),
            ("MQTT-4.7.1-2", one(b"a/#/b", 0), filter(TopicError::WildcardPlace), 0x8f),
            ("MQTT-4.7.1-3", one(b"a+", 0), filter(TopicError::WildcardPlace), 0x8f),
            ("MQTT3-8.3-4", one(b"a", 3), qos.clone(), 0x81),
            ("MQTT3-8.3-4, MQTT5-3.8.3-5", one(b"a", 0x41), options(0x41), 0x81),
            ("MQTT3-8.3-4, MQTT5-3.8.3-5", one(b"a", 0x80), options(0x80), 0x81),
            (
                "3.8.3",
                packet(first, &[&[0, 1], properties, &text("a")]),
                DecodeError::Truncated { what: "subscribe options" },
                0x81,
            ),
            (
                "3.8.3 second filter",
                packet(first, &[&[0, 1], properties, &text("a"), &[0], &[0]]),
                DecodeError::Truncated { what: "topic filter" },
                0x81,
            ),
        ] {
            cases.push(from_client(clause, version, bytes, error, reason));
        }
    }
    // The options of MQTT 5 are reserved bits in 3.1.1.
    for bits in [0b100, 0b1000, 0b1_0000] {
        let bytes = packet(first, &[&[0, 1], &text("a"), &[bits]]);
        cases.push(from_client("MQTT3-8.3-4", V311, bytes, options(bits), 0x81));
    }
    let with = |properties: &[u8], topic: &str, options: u8| {
        packet(first, &[&[0, 1], &[properties.len() as u8], properties, &text(topic), &[options]])
    };
    let id_zero = DecodeError::PropertyValue { property: "subscription identifier", value: 0 };
    let id_twice = DecodeError::DuplicateProperty { property: "subscription identifier" };
    let alias = DecodeError::PropertyNotAllowed { property: "topic alias", packet: "SUBSCRIBE" };
    let long = DecodeError::BadVarInt { what: "subscription identifier" };
    for (clause, bytes, error, reason) in [
        ("3.8.2.1.2", with(&[0x0b, 0], "a", 0), id_zero, 0x82),
        ("3.8.2.1.2", with(&[0x0b, 1, 0x0b, 1], "a", 0), id_twice, 0x82),
        ("1.5.5", with(&[0x0b, 0xff, 0xff, 0xff, 0xff, 1], "a", 0), long, 0x81),
        ("2.2.2.2", with(&[0x23, 0, 1], "a", 0), alias, 0x81),
        ("3.8.3.1", with(&[], "a", 0b11_0000), DecodeError::RetainHandling, 0x82),
        ("MQTT5-3.8.3-4", with(&[], "$share/g/a", 0b100), DecodeError::NoLocalOnShared, 0x82),
        ("MQTT5-4.8.2-1", with(&[], "$share//a", 0), filter(TopicError::ShareName), 0x8f),
        ("MQTT5-4.8.2-2", with(&[], "$share/g", 0), filter(TopicError::ShareName), 0x8f),
    ] {
        cases.push(from_client(clause, V5, bytes, error, reason));
    }
    check(&cases);
    // 3.1.1 has no shared subscriptions: their names are names like others.
    let plain = packet(first, &[&[0, 1], &text("$share//a"), &[0]]);
    assert!(read(&plain, V311, Sender::Client).is_ok());
}

#[test]
fn unsubscribe() {
    let first = 0xa2;
    let empty = DecodeError::EmptyPayload { packet: PacketType::Unsubscribe };
    let zero = DecodeError::PacketIdZero { packet: PacketType::Unsubscribe };
    let filter = |fault| DecodeError::BadTopic { what: "topic filter", fault };
    let mut cases = Vec::new();
    for (version, properties) in [(V311, &[][..]), (V5, &[0][..])] {
        let one = |topic: &[u8]| packet(first, &[&[0, 1], properties, &text(topic)]);
        for (clause, bytes, error, reason) in [
            ("MQTT-3.10.3-2", packet(first, &[&[0, 1], properties]), empty.clone(), 0x82),
            ("MQTT-2.3.1-1", packet(first, &[&[0, 0], properties, &text("a")]), zero.clone(), 0x82),
            ("MQTT-3.10.3-1", one(&[0xff]), DecodeError::BadUtf8 { what: "topic filter" }, 0x81),
            ("MQTT-4.7.3-1", one(b""), filter(TopicError::Empty), 0x8f),
            ("MQTT-4.7.1-2", one(b"a#"), filter(TopicError::WildcardPlace), 0x8f),
        ] {
            cases.push(from_client(clause, version, bytes, error, reason));
        }
    }
    let bytes = packet(first, &[&[0, 1, 2, 0x0b, 1], &text("a")]);
    let id = DecodeError::PropertyNotAllowed { property: "subscription identifier", packet: "UNSUBSCRIBE" };
    cases.push(from_client("2.2.2.2", V5, bytes, id, 0x81));
    check(&cases);
}

#[test]
fn disconnect_auth_and_pings() {
    use PacketType::{Auth, Disconnect, PingReq};
    let trailing = |packet, count| DecodeError::Trailing { packet, count };
    let code = |packet, value| DecodeError::BadReason { packet, value };
    let no_method = DecodeError::AuthMethodMissing { packet: Auth };
    let expiry =
        DecodeError::PropertyNotAllowed { property: "session expiry interval", packet: "DISCONNECT" };
    let method = DecodeError::PropertyNotAllowed { property: "authentication method", packet: "DISCONNECT" };
    let mut cases = vec![
        from_client("3.14", V311, vec![0xe0, 1, 0], trailing(Disconnect, 1), 0x81),
        from_client("MQTT5-3.14.2-1", V5, vec![0xe0, 1, 0x8b], code(Disconnect, 0x8b), 0x82),
        from_client("2.2.2.2", V5, vec![0xe0, 6, 0, 4, 0x15, 0, 1, b'm'], method, 0x81),
        from_client("3.14", V5, vec![0xe0, 3, 0, 0, 0], trailing(Disconnect, 1), 0x81),
        from_server("MQTT5-3.14.2-2", V5, vec![0xe0, 7, 0, 5, 0x11, 0, 0, 0, 1], expiry, 0x81),
        from_client("MQTT5-3.15.2-1", V5, vec![0xf0, 2, 0x01, 0], code(Auth, 1), 0x82),
        from_client("table 3-11", V5, vec![0xf0, 0], code(Auth, 0), 0x82),
        from_client("3.15.2.2.2", V5, vec![0xf0, 2, 0x18, 0], no_method.clone(), 0x82),
        from_client("3.15.2.2.3", V5, vec![0xf0, 6, 0x18, 4, 0x16, 0, 1, 0], no_method, 0x82),
        from_client("3.15.2", V5, vec![0xf0, 1, 0x18], DecodeError::Truncated { what: "properties" }, 0x81),
    ];
    cases.extend(both("3.12", vec![0xc0, 1, 0], trailing(PingReq, 1), 0x81));
    check(&cases);
}

/// What a client refuses of a server.
#[test]
fn answers_of_a_server() {
    use PacketType::{ConnAck, SubAck, UnsubAck};
    let flags = |flags| DecodeError::ConnAckFlags { flags };
    let code = |packet, value| DecodeError::BadReason { packet, value };
    check(&[
        from_server("MQTT5-3.2.2-1", V5, vec![0x20, 3, 2, 0, 0], flags(2), 0x81),
        from_server("MQTT-3.2.2-4", V311, vec![0x20, 2, 1, 5], flags(1), 0x81),
        from_server("MQTT5-3.2.2-6", V5, vec![0x20, 3, 1, 0x87, 0], flags(1), 0x81),
        from_server("table 3.1", V311, vec![0x20, 2, 0, 6], code(ConnAck, 6), 0x82),
        from_server("MQTT5-3.2.2-8", V5, vec![0x20, 3, 0, 1, 0], code(ConnAck, 1), 0x82),
        from_server("MQTT-3.9.3-2", V311, vec![0x90, 3, 0, 1, 3], code(SubAck, 3), 0x82),
        from_server("MQTT5-3.9.3-2", V5, vec![0x90, 4, 0, 1, 0, 3], code(SubAck, 3), 0x82),
        from_server("3.9.3", V311, vec![0x90, 2, 0, 1], DecodeError::EmptyPayload { packet: SubAck }, 0x82),
        from_server("MQTT5-3.11.3-2", V5, vec![0xb0, 4, 0, 1, 0, 1], code(UnsubAck, 1), 0x82),
        from_server(
            "3.11",
            V311,
            vec![0xb0, 3, 0, 1, 0],
            DecodeError::Trailing { packet: UnsubAck, count: 1 },
            0x81,
        ),
    ]);
}

#[test]
fn limits() {
    let limits = Limits {
        packet_bytes_max: 40,
        topic_bytes_max: 4,
        user_properties_max: 1,
        filters_max: 2,
        ..Limits::default()
    };
    let over = |what, limit| (DecodeError::OverLimit { what, limit }, reason::QUOTA_EXCEEDED);
    let user = [0x26, 0, 1, b'k', 0, 0];
    let two = user.repeat(2);
    let filters = |count: usize| [&text("a")[..], &[0]].concat().repeat(count);
    let cases = [
        (packet(0x30, &[&text("12345"), &[0]]), over("topic", 4)),
        (packet(0x30, &[&text("a"), &[8, 0x08], &text("12345")]), over("response topic", 4)),
        (packet(0x30, &[&text("a"), &[12], &two]), over("user properties", 1)),
        (packet(0x82, &[&[0, 1, 0], &filters(3)]), over("topic filters", 2)),
        (packet(0x82, &[&[0, 1, 0], &text("12345"), &[0]]), over("topic filter", 4)),
        (packet(0xa2, &[&[0, 1, 0], &text("a").repeat(3)]), over("topic filters", 2)),
    ];
    for (bytes, (error, reason)) in cases {
        assert_eq!(error.reason(), reason);
        assert_eq!(decode(&bytes, Some(V5), &limits), Err(error));
    }
    for bytes in [
        packet(0x30, &[&text("1234"), &[6], &user]),
        packet(0x82, &[&[0, 1, 0], &filters(2)]),
        packet(0x30, &[&text("1234"), &[0], &[0; 31]]),
    ] {
        assert!(decode(&bytes, Some(V5), &limits).is_ok(), "{bytes:?}");
    }
    // The length alone is enough to refuse a packet.
    let error = DecodeError::TooLarge { bytes: 41, limit: 40 };
    assert_eq!(error.reason(), reason::PACKET_TOO_LARGE);
    assert_eq!(frame_len(&[0x30, 39], &limits), Err(error));
}

/// What can't be encoded leaves the buffer as it was.
#[test]
fn encoding_refuses_what_does_not_fit() {
    let long = "x".repeat(65_536);
    let id = PacketId::new(1).unwrap();
    let no_id = Publish { qos: QoS::AtLeastOnce, topic: "a", ..Publish::default() };
    let long_topic = Publish { topic: &long, ..Publish::default() };
    let filter = [("a", SubscribeOptions::default())];
    let too_long = |what| Err(EncodeError::FieldTooLong { what, bytes: 65_536 });
    type Encode<'e> = &'e dyn Fn(&mut Vec<u8>) -> Result<(), EncodeError>;
    let mut alone = fleetline_mqtt::Connect::new(V311, "d");
    alone.password = Some(b"p");
    let mut reasons = fleetline_mqtt::ConnAck::new(V5, 0);
    reasons.reason_string = Some(&long);
    let cases: [(Encode<'_>, Result<(), EncodeError>); 9] = [
        (&|out| encode::publish(out, V311, &no_id), Err(EncodeError::PacketIdMissing)),
        (&|out| encode::publish(out, V5, &long_topic), too_long("topic")),
        (&|out| encode::connack(out, &reasons), too_long("reason string")),
        (&|out| encode::connect(out, &alone), Err(EncodeError::PasswordAlone)),
        (&|out| encode::subscribe(out, V5, id, None, &[]), Err(EncodeError::NoFilters)),
        (&|out| encode::unsubscribe(out, V5, id, &[]), Err(EncodeError::NoFilters)),
        (&|out| encode::unsubscribe(out, V5, id, &[&long]), too_long("topic filter")),
        (&|out| encode::subscribe(out, V5, id, Some(0), &filter), Err(EncodeError::SubscriptionId { id: 0 })),
        (
            &|out| encode::subscribe(out, V5, id, Some(268_435_456), &filter),
            Err(EncodeError::SubscriptionId { id: 268_435_456 }),
        ),
    ];
    for (encode, expected) in cases {
        let mut out = vec![1, 2, 3];
        assert_eq!(encode(&mut out), expected);
        assert_eq!(out, [1, 2, 3]);
    }
}
