//! Agreement with another implementation, `mqtt-protocol-core`: valid packets and mutations of their
//! bodies go through both. What one accepts the other accepts, but for the differences listed here.

use std::collections::BTreeMap;

use fleetline_mqtt::{DecodeError, Packet, Sender, Version};
use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::generate::{Wire, wire};
use crate::kit::{packet, read, text};

/// Why we refuse what the other accepts. Each line is a rule of the standard that we enforce when
/// decoding, while the other leaves it to its connection, to its caller, or out.
fn stricter(version: Version, error: &DecodeError) -> Option<&'static str> {
    let v311 = version == Version::V311;
    Some(match error {
        // Topic names and filters: wildcards, emptiness, shared subscriptions.
        DecodeError::BadTopic { .. } => "topics",
        DecodeError::NoLocalOnShared => "no-local on a shared subscription",
        // [MQTT5-3.3.4-6], [MQTT5-3.14.2-2] and the codes of one side need to know who sends.
        DecodeError::PropertyNotAllowed { property: "subscription identifier", packet: "PUBLISH" } => {
            "subscription identifier from a client"
        }
        DecodeError::PropertyNotAllowed { property: "session expiry interval", packet: "DISCONNECT" } => {
            "session expiry from a server"
        }
        DecodeError::BadReason { .. } => "codes of the other side",
        // An alias may stand for a topic, but something must.
        DecodeError::TopicMissing => "neither topic nor alias",
        // Flags of CONNECT that contradict each other.
        DecodeError::ConnectFlags { .. } => "connect flags",
        DecodeError::BadQoS { what: "the qos of the will", .. } => "connect flags",
        DecodeError::ConnAckFlags { .. } => "connack flags",
        DecodeError::ClientIdMissing => "session of a nameless client",
        // [MQTT-2.3.1-1], [MQTT5-2.2.1-3]
        DecodeError::PacketIdZero { .. } => "packet id 0",
        // Section 3.8.2.1.2 of MQTT 5
        DecodeError::DuplicateProperty { property: "subscription identifier" } => {
            "subscription identifier twice"
        }
        // [MQTT-1.5.3-2], [MQTT5-1.5.4-2]
        DecodeError::NulCharacter { .. } => "u+0000",
        // [MQTT3-8.3-4]: the options of MQTT 5 are reserved bits in 3.1.1.
        DecodeError::SubscribeOptions { .. } if v311 => "options of mqtt 5 in 3.1.1",
        // 3.1.1 has no reason codes.
        DecodeError::Trailing { count: 1, .. } if v311 => "a reason code in 3.1.1",
        // [MQTT5-1.5.5-1]
        DecodeError::BadVarInt { .. } => "length not in its shortest form",
        _ => return None,
    })
}

/// Why we accept what the other refuses.
fn laxer(found: &Packet<'_>) -> Option<&'static str> {
    match found {
        // MQTT 5 section 3.1.2.9 allows a password without a user name.
        Packet::Connect(connect) if connect.password.is_some() && connect.username.is_none() => {
            Some("a password without a user name")
        }
        _ => None,
    }
}

/// Whether the other implementation accepts a packet with this first byte and body.
fn other_accepts(version: Version, first: u8, body: &[u8]) -> bool {
    macro_rules! whole {
        ($packet:path) => {{
            use $packet as Other;
            Other::parse(body).is_ok_and(|(_, consumed)| consumed == body.len())
        }};
    }
    let flags = first & 0b1111;
    match (version, first >> 4) {
        (Version::V311, 1) => whole!(v3_1_1::Connect),
        (Version::V311, 2) => whole!(v3_1_1::Connack),
        (Version::V311, 3) => v3_1_1::Publish::parse(flags, body.into()).is_ok(),
        (Version::V311, 4) => whole!(v3_1_1::Puback),
        (Version::V311, 5) => whole!(v3_1_1::Pubrec),
        (Version::V311, 6) => whole!(v3_1_1::Pubrel),
        (Version::V311, 7) => whole!(v3_1_1::Pubcomp),
        (Version::V311, 8) => whole!(v3_1_1::Subscribe),
        (Version::V311, 9) => whole!(v3_1_1::Suback),
        (Version::V311, 10) => whole!(v3_1_1::Unsubscribe),
        (Version::V311, 11) => whole!(v3_1_1::Unsuback),
        (Version::V311, 12) => whole!(v3_1_1::Pingreq),
        (Version::V311, 13) => whole!(v3_1_1::Pingresp),
        (Version::V311, 14) => whole!(v3_1_1::Disconnect),
        (Version::V5, 1) => whole!(v5_0::Connect),
        (Version::V5, 2) => whole!(v5_0::Connack),
        (Version::V5, 3) => v5_0::Publish::parse(flags, body.into()).is_ok(),
        (Version::V5, 4) => whole!(v5_0::Puback),
        (Version::V5, 5) => whole!(v5_0::Pubrec),
        (Version::V5, 6) => whole!(v5_0::Pubrel),
        (Version::V5, 7) => whole!(v5_0::Pubcomp),
        (Version::V5, 8) => whole!(v5_0::Subscribe),
        (Version::V5, 9) => whole!(v5_0::Suback),
        (Version::V5, 10) => whole!(v5_0::Unsubscribe),
        (Version::V5, 11) => whole!(v5_0::Unsuback),
        (Version::V5, 12) => whole!(v5_0::Pingreq),
        (Version::V5, 13) => whole!(v5_0::Pingresp),
        (Version::V5, 14) => whole!(v5_0::Disconnect),
        (Version::V5, 15) => whole!(v5_0::Auth),
        _ => false,
    }
}

/// A change of a packet's body: this many bytes at this place are replaced.
type Change = (Index, usize, Vec<u8>);

fn change() -> impl Strategy<Value = Change> {
    (any::<Index>(), 0..3_usize, vec(prop_oneof![0..48_u8, any::<u8>()], 0..3))
}

/// What came out of the comparisons.
#[derive(Default)]
struct Outcomes {
    /// How often each outcome came.
    counts: BTreeMap<&'static str, usize>,
    /// Differences that aren't deliberate.
    unlisted: Vec<String>,
}

fn compare(wire: &Wire, first: u8, body: &[u8], outcomes: &mut Outcomes) {
    let bytes = packet(first, &[body]);
    // A CONNECT carries its own version; the other has a decoder for each.
    let version = match body.get(6) {
        Some(level) if first == 0x10 => Version::from_level(*level).unwrap_or(wire.version),
        _ => wire.version,
    };
    let ours = read(&bytes, version, wire.sender);
    let outcome = match (&ours, other_accepts(version, first, body)) {
        (Ok(_), true) => Some("both accept"),
        (Err(_), false) => Some("both refuse"),
        // [MQTT5-2.2.2-1]: the other takes a PUBLISH that ends before its property length.
        (Err(DecodeError::Truncated { what: "properties" }), true)
            if first >> 4 == 3 && read(&packet(first, &[body, &[0]]), version, wire.sender).is_ok() =>
        {
            Some("no property length")
        }
        (Err(error), true) => stricter(version, error),
        (Ok(found), false) => laxer(found),
    };
    match outcome {
        Some(outcome) => *outcomes.counts.entry(outcome).or_default() += 1,
        None => outcomes.unlisted.push(format!("{version:?} {bytes:02x?}: {ours:?}")),
    }
}

#[test]
fn both_decode_the_same() {
    let mut runner = TestRunner::deterministic();
    let mut outcomes = Outcomes::default();
    for _ in 0..20_000 {
        let mut wire = wire().new_tree(&mut runner).unwrap().current();
        // Both sides send these of MQTT 5; what only one may say in them is a difference.
        if wire.version == Version::V5 && matches!(wire.bytes[0] >> 4, 3 | 14) {
            wire.sender = select(&[Sender::Client, Sender::Server]).new_tree(&mut runner).unwrap().current();
        }
        let header_len = if wire.bytes[1] < 0x80 { 2 } else { 3 };
        let (first, body) = (wire.bytes[0], &wire.bytes[header_len..]);
        compare(&wire, first, body, &mut outcomes);
        for (at, count, new) in vec(change(), 8).new_tree(&mut runner).unwrap().current() {
            let mut changed = body.to_vec();
            let start = at.index(body.len() + 1);
            changed.splice(start..body.len().min(start + count), new);
            compare(&wire, first, &changed, &mut outcomes);
        }
    }
    let Outcomes { counts, unlisted } = outcomes;
    assert!(unlisted.is_empty(), "{} differences:\n{}", unlisted.len(), unlisted.join("\n"));
    // The comparison is worth something only if both outcomes are frequent.
    assert!(counts["both accept"] > 40_000, "{counts:?}");
    assert!(counts["both refuse"] > 40_000, "{counts:?}");
}

/// Each difference shows in a packet of its own: one that doesn't would only hide others.
#[test]
fn the_differences() {
    use Sender::{Client, Server};
    use Version::{V5, V311};
    let (a, d) = (&text("a")[..], &text("d")[..]);
    let v311 = [0, 4, b'M', b'Q', b'T', b'T', 4];
    let v5 = [0, 4, b'M', b'Q', b'T', b'T', 5];
    let cases: [(&str, Version, Sender, u8, Vec<u8>); 18] = [
        ("topics", V311, Client, 0x30, text("a/#")),
        (
            "no-local on a shared subscription",
            V5,
            Client,
            0x82,
            [&[0, 1, 0], &text("$share/g/a")[..], &[4]].concat(),
        ),
        ("subscription identifier from a client", V5, Client, 0x30, [a, &[2, 0x0b, 1]].concat()),
        ("session expiry from a server", V5, Server, 0xe0, vec![0, 5, 0x11, 0, 0, 0, 1]),
        ("codes of the other side", V5, Server, 0xe0, vec![4]),
        ("neither topic nor alias", V5, Client, 0x30, vec![0, 0, 0]),
        ("connect flags", V311, Client, 0x10, [&v311[..], &[0b10_0010, 0, 0], d].concat()),
        ("connect flags", V5, Client, 0x10, [&v5[..], &[3, 0, 0, 0], d].concat()),
        ("connack flags", V311, Server, 0x20, vec![2, 0]),
        ("session of a nameless client", V311, Client, 0x10, [&v311[..], &[0, 0, 0, 0, 0]].concat()),
        ("packet id 0", V5, Client, 0x82, [&[0, 0, 0], a, &[0]].concat()),
        ("subscription identifier twice", V5, Client, 0x82, [&[0, 1, 4, 0x0b, 1, 0x0b, 1], a, &[0]].concat()),
        ("u+0000", V311, Client, 0x30, text("a\0")),
        ("options of mqtt 5 in 3.1.1", V311, Client, 0x82, [&[0, 1], a, &[4]].concat()),
        ("a reason code in 3.1.1", V311, Client, 0x40, vec![0, 1, 0]),
        ("length not in its shortest form", V5, Client, 0x30, [a, &[0x80, 0]].concat()),
        ("no property length", V5, Client, 0x30, a.to_vec()),
        (
            "a password without a user name",
            V5,
            Client,
            0x10,
            [&v5[..], &[0b100_0010, 0, 0, 0], d, a].concat(),
        ),
    ];
    for (difference, version, sender, first, body) in cases {
        let mut outcomes = Outcomes::default();
        let wire = Wire { version, sender, bytes: Vec::new() };
        compare(&wire, first, &body, &mut outcomes);
        assert_eq!(outcomes.unlisted, [""; 0]);
        assert_eq!(outcomes.counts.into_iter().collect::<Vec<_>>(), [(difference, 1)]);
    }
}

/// Both read the same out of a PUBLISH and a CONNECT.
#[test]
fn both_read_the_same() {
    let mut runner = TestRunner::deterministic();
    let mut seen = [0; 3];
    for _ in 0..3_000 {
        let wire = wire().new_tree(&mut runner).unwrap().current();
        let header_len = if wire.bytes[1] < 0x80 { 2 } else { 3 };
        let (flags, body) = (wire.bytes[0] & 0b1111, &wire.bytes[header_len..]);
        match read(&wire.bytes, wire.version, wire.sender).unwrap() {
            Packet::Publish(ours) if wire.version == Version::V5 => {
                let (other, _) = v5_0::Publish::parse(flags, body.into()).unwrap();
                assert_eq!(other.topic_name(), ours.topic);
                assert_eq!(other.packet_id(), ours.packet_id.map(|id| id.get()));
                assert_eq!(other.payload().as_slice(), ours.payload);
                assert_eq!((other.dup(), other.retain()), (ours.dup, ours.retain));
                seen[0] += 1;
            }
            Packet::Connect(ours) if wire.version == Version::V311 => {
                let (other, _) = v3_1_1::Connect::parse(body).unwrap();
                assert_eq!(other.client_id(), ours.client_id);
                assert_eq!(other.keep_alive(), ours.keep_alive);
                assert_eq!(other.user_name(), ours.username);
                assert_eq!(other.password(), ours.password);
                assert_eq!(other.will_topic(), ours.will.map(|will| will.topic));
                seen[1] += 1;
            }
            Packet::Subscribe(ours) if wire.version == Version::V5 => {
                let (other, _) = v5_0::Subscribe::parse(body).unwrap();
                let filters: Vec<_> = ours.filters.map(|(filter, _)| filter).collect();
                let others: Vec<_> = other.entries().iter().map(|entry| entry.topic_filter()).collect();
                assert_eq!(filters, others);
                seen[2] += 1;
            }
            _ => {}
        }
    }
    assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
}
