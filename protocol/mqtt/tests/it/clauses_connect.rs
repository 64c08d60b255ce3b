//! The clauses of CONNECT, each with the smallest packet that breaks it.

use fleetline_mqtt::{DecodeError, PacketType, Sender, TopicError, Version, reason};

use crate::clauses::{check, from_client};
use crate::kit::{connect, packet, read, text};

const V311: Version = Version::V311;
const V5: Version = Version::V5;

#[test]
fn connect_header() {
    let malformed = reason::MALFORMED_PACKET;
    let unsupported = reason::UNSUPPORTED_PROTOCOL_VERSION;
    let flags = |fault| DecodeError::ConnectFlags { fault };
    let hello = |name: &str, level: u8| packet(0x10, &[&text(name), &[level, 2, 0, 60], &text("d")]);
    let mut cases = vec![
        from_client("MQTT-3.1.2-1", V311, hello("mqtt", 4), DecodeError::ProtocolName, unsupported),
        from_client(
            "MQTT-3.1.2-2, 3.1",
            V311,
            hello("MQIsdp", 3),
            DecodeError::UnsupportedVersion { level: 3 },
            unsupported,
        ),
        from_client(
            "MQTT-3.1.2-22",
            V311,
            connect(4, 0b0100_0010, &[&text("d"), &text("p")]),
            flags("a password without a user name"),
            malformed,
        ),
        from_client(
            "MQTT-3.1.3-8",
            V311,
            connect(4, 0, &[&text("")]),
            DecodeError::ClientIdMissing,
            reason::CLIENT_IDENTIFIER_NOT_VALID,
        ),
    ];
    for level in [0, 3, 6, 0x84, 255] {
        let error = DecodeError::UnsupportedVersion { level };
        cases.push(from_client("MQTT-3.1.2-2", V311, hello("MQTT", level), error, unsupported));
    }
    for level in [4, 5] {
        let properties: &[u8] = if level == 5 { &[0] } else { &[] };
        let hello = |flags: u8| connect(level, flags, &[properties, &text("d")]);
        let version = Version::from_level(level).unwrap();
        for (clause, bits, error) in [
            ("MQTT-3.1.2-3", 0b0000_0011, flags("the reserved one is set")),
            ("MQTT-3.1.2-13, MQTT5-3.1.2-11", 0b0000_1010, flags("a will qos without a will")),
            ("MQTT-3.1.2-15, MQTT5-3.1.2-13", 0b0010_0010, flags("a will retain without a will")),
            (
                "MQTT-3.1.2-14, MQTT5-3.1.2-12",
                0b0001_1110,
                DecodeError::BadQoS { what: "the qos of the will", value: 3 },
            ),
            (
                "MQTT-3.1.2-9",
                0b0000_0110,
                DecodeError::Truncated { what: if level == 5 { "properties" } else { "will topic" } },
            ),
            ("MQTT-3.1.2-19", 0b1000_0010, DecodeError::Truncated { what: "user name" }),
        ] {
            cases.push(from_client(clause, version, hello(bits), error, malformed));
        }
        let surplus = connect(level, 2, &[properties, &text("d"), &text("user")]);
        let error = DecodeError::Trailing { packet: PacketType::Connect, count: 6 };
        cases.push(from_client("MQTT-3.1.2-18, MQTT5-3.1.2-16", version, surplus, error, malformed));
        let password = connect(level, 0b1100_0010, &[properties, &text("d"), &text("user")]);
        let error = DecodeError::Truncated { what: "password" };
        cases.push(from_client("MQTT-3.1.2-21, MQTT5-3.1.2-19", version, password, error, malformed));
    }
    check(&cases);
    // MQTT 5 has no rule against a password alone, nor against an empty client id.
    assert!(read(&connect(5, 0b0100_0000, &[&[0], &text(""), &text("p")]), V5, Sender::Client).is_ok());
    assert!(read(&connect(4, 2, &[&text("")]), V311, Sender::Client).is_ok());
}

#[test]
fn connect_payload() {
    let malformed = reason::MALFORMED_PACKET;
    let utf8 = |what| DecodeError::BadUtf8 { what };
    let nul = |what| DecodeError::NulCharacter { what };
    let will = 0b0000_0110;
    let user = 0b1000_0010;
    let surrogate = [0xed, 0xbf, 0xbf];
    let mut cases = Vec::new();
    for level in [4, 5] {
        let version = Version::from_level(level).unwrap();
        let properties: &[u8] = if level == 5 { &[0] } else { &[] };
        let hello = |flags: u8, parts: &[&[u8]]| connect(level, flags, &[properties, &parts.concat()]);
        let with_will = |topic: &[u8]| hello(will, &[&text("d"), properties, &text(topic), &text("payload")]);
        let topic = |fault| DecodeError::BadTopic { what: "will topic", fault };
        for (clause, bytes, error, reason) in [
            ("MQTT-3.1.3-4, MQTT-1.5.3-1", hello(2, &[&text(surrogate)]), utf8("client id"), malformed),
            ("MQTT-1.5.3-2, MQTT5-1.5.4-2", hello(2, &[&text("a\0")]), nul("client id"), malformed),
            (
                "MQTT-3.1.3-11, MQTT5-3.1.3-12",
                hello(user, &[&text("d"), &text([0xff])]),
                utf8("user name"),
                malformed,
            ),
            ("MQTT-3.1.3-10, MQTT5-3.1.3-11", with_will(&[0xc3]), utf8("will topic"), malformed),
            ("MQTT-4.7.3-2", with_will(b"a\0"), nul("will topic"), malformed),
            ("MQTT-4.7.1-1", with_will(b"a/#"), topic(TopicError::Wildcard), reason::TOPIC_NAME_INVALID),
            ("MQTT-4.7.3-1", with_will(b""), topic(TopicError::Empty), reason::TOPIC_NAME_INVALID),
        ] {
            cases.push(from_client(clause, version, bytes, error, reason));
        }
    }
    check(&cases);
}

#[test]
fn connect_properties() {
    let hello = |properties: &[u8]| connect(5, 2, &[&[properties.len() as u8], properties, &text("d")]);
    let will = |properties: &[u8]| {
        let parts: [&[u8]; 6] =
            [&[0], &text("d"), &[properties.len() as u8], properties, &text("t"), &text("p")];
        connect(5, 6, &parts)
    };
    let not_allowed =
        |property, packet| (DecodeError::PropertyNotAllowed { property, packet }, reason::MALFORMED_PACKET);
    let zero = |property| (DecodeError::PropertyValue { property, value: 0 }, reason::PROTOCOL_ERROR);
    let twice = |property| (DecodeError::DuplicateProperty { property }, reason::PROTOCOL_ERROR);
    let no_method = (DecodeError::AuthMethodMissing { packet: PacketType::Connect }, reason::PROTOCOL_ERROR);
    let two = (DecodeError::PropertyValue { property: "request problem information", value: 2 }, 0x82);
    let cut = (DecodeError::Truncated { what: "properties" }, reason::MALFORMED_PACKET);
    let varint = (DecodeError::BadVarInt { what: "properties" }, reason::MALFORMED_PACKET);
    let cases = [
        ("3.1.2.11.3", hello(&[0x21, 0, 0]), zero("receive maximum")),
        ("3.1.2.11.4", hello(&[0x27, 0, 0, 0, 0]), zero("maximum packet size")),
        ("3.1.2.11.2", hello(&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 2]), twice("session expiry interval")),
        ("3.1.2.11.7", hello(&[0x17, 2]), two),
        ("3.1.2.11.10", hello(&[0x16, 0, 1, 5]), no_method),
        ("2.2.2.2", hello(&[0x23, 0, 1]), not_allowed("topic alias", "CONNECT")),
        ("2.2.2.2", hello(&[0x18, 0, 0, 0, 1]), not_allowed("will delay interval", "CONNECT")),
        ("2.2.2.2", will(&[0x23, 0, 1]), not_allowed("topic alias", "a will")),
        ("2.2.2.2", will(&[0x0b, 1]), not_allowed("subscription identifier", "a will")),
        ("2.2.2.2", will(&[0x11, 0, 0, 0, 1]), not_allowed("session expiry interval", "a will")),
        ("3.1.3.2.2", will(&[0x18, 0, 0, 0, 1, 0x18, 0, 0, 0, 1]), twice("will delay interval")),
        (
            "MQTT5-3.3.2-14 of a will",
            will(&[0x08, 0, 1, b'#']),
            (DecodeError::BadTopic { what: "response topic", fault: TopicError::Wildcard }, 0x90),
        ),
        ("2.2.2.1 length beyond the packet", connect(5, 2, &[&[99], &text("d")]), cut),
        ("MQTT5-1.5.5-1", connect(5, 2, &[&[0x80, 0x00], &text("d")]), varint),
        (
            "MQTT5-1.5.7-1",
            hello(&[0x26, 0, 1, b'k', 0, 1, 0xff]),
            (DecodeError::BadUtf8 { what: "user property" }, reason::MALFORMED_PACKET),
        ),
    ];
    check(&cases.map(|(clause, bytes, (error, reason))| from_client(clause, V5, bytes, error, reason)));
}
