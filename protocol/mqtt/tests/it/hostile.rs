//! What bytes of an attacker may do: be refused. They never make decoding panic, loop or read over
//! the end; the walk over what was decoded is part of that.

use fleetline_mqtt::{DecodeError, Limits, Packet, Sender, Version, decode, frame_len};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::generate::{Wire, wire};
use crate::kit::limits_for;

/// Frames and decodes whatever is there, in every way, and walks all lists of what comes out.
fn survive(bytes: &[u8]) {
    for sender in [Sender::Client, Sender::Server] {
        let limits = limits_for(sender);
        for version in [None, Some(Version::V311), Some(Version::V5)] {
            // Also bytes that aren't one whole frame: a caller's mistake isn't a crash.
            if let Ok(packet) = decode(bytes, version, &limits) {
                walk(&packet, bytes);
            }
            if let Ok(Some(len)) = frame_len(bytes, &limits)
                && len <= bytes.len()
                && let Ok(packet) = decode(&bytes[..len], version, &limits)
            {
                walk(&packet, &bytes[..len]);
            }
        }
    }
}

/// Walks the lists of a packet: as many items as were counted, and each inside the packet's bytes.
fn walk(packet: &Packet<'_>, bytes: &[u8]) {
    let inside = |part: &str| {
        part.is_empty() || bytes.as_ptr_range().contains(&part.as_ptr()) && part.len() < bytes.len()
    };
    match packet {
        Packet::Connect(connect) => {
            let will = connect.will.map(|will| will.properties.user_properties).unwrap_or_default();
            let own = connect.properties.user_properties;
            assert!(own.iter().chain(will).all(|(name, value)| inside(name) && inside(value)));
            assert!(inside(connect.client_id));
        }
        Packet::ConnAck(connack) => {
            assert!(connack.user_properties.iter().all(|(name, value)| inside(name) && inside(value)));
        }
        Packet::Publish(publish) => {
            let properties = &publish.properties;
            assert!(properties.user_properties.iter().all(|(name, value)| inside(name) && inside(value)));
            assert!(properties.subscription_ids.iter().all(|id| id > 0));
            assert_eq!(properties.user_properties.is_empty(), properties.user_properties.iter().count() == 0);
            assert_eq!(publish.packet_id.is_some(), publish.qos.bits() > 0);
            assert!(inside(publish.topic));
        }
        Packet::Subscribe(subscribe) => {
            let count = subscribe.filters.len();
            assert!(count > 0);
            assert_eq!(subscribe.filters.clone().filter(|(filter, _)| inside(filter)).count(), count);
        }
        Packet::Unsubscribe(unsubscribe) => {
            let count = unsubscribe.filters.len();
            assert!(count > 0);
            assert_eq!(unsubscribe.filters.clone().filter(|filter| inside(filter)).count(), count);
        }
        Packet::Auth(auth) => {
            assert!(auth.user_properties.iter().all(|(name, value)| inside(name) && inside(value)));
        }
        _ => {}
    }
}

fn decode_as(packet: &Wire, bytes: &[u8]) -> Result<(), DecodeError> {
    let version =
        if bytes.first().is_some_and(|first| first >> 4 == 1) { None } else { Some(packet.version) };
    decode(bytes, version, &limits_for(packet.sender)).map(|_| ())
}

proptest! {
    /// A beginning of a packet needs more bytes, and isn't decoded if it is given as a whole.
    #[test]
    fn prefixes(packet in wire()) {
        let limits = limits_for(packet.sender);
        for end in 0..packet.bytes.len() {
            let prefix = &packet.bytes[..end];
            match frame_len(prefix, &limits) {
                Ok(None) => prop_assert!(end < 5),
                Ok(Some(len)) => prop_assert_eq!(len, packet.bytes.len()),
                Err(error) => prop_assert!(false, "{}", error),
            }
            prop_assert!(decode_as(&packet, prefix).is_err());
        }
    }

    /// Every byte in turn takes other values: nothing panics, and what decodes can be walked.
    #[test]
    fn mutations_of_one_byte(packet in wire()) {
        let mut bytes = packet.bytes.clone();
        for at in 0..bytes.len() {
            let before = bytes[at];
            let values = [0, 1, 0x23, 0x26, 0x7f, 0x80, 0xff, before ^ 1, before ^ 0x80];
            for value in values.into_iter().chain([before.wrapping_add(1), before.wrapping_sub(1)]) {
                bytes[at] = value;
                survive(&bytes);
            }
            bytes[at] = before;
        }
    }

    /// Bytes cut out or put in.
    #[test]
    fn mutations_of_length(packet in wire(), at in any::<Index>(), count in 0..9_usize, new in vec(any::<u8>(), 0..9)) {
        let mut bytes = packet.bytes;
        let start = at.index(bytes.len());
        let end = bytes.len().min(start + count);
        bytes.splice(start..end, new);
        survive(&bytes);
    }

    #[test]
    fn random_bytes(bytes in vec(any::<u8>(), 0..200)) {
        survive(&bytes);
    }

    /// Random bodies behind a header that announces them rightly.
    #[test]
    fn random_bodies(first in any::<u8>(), body in vec(prop_oneof![0..48_u8, any::<u8>()], 0..120)) {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend(body);
        survive(&bytes);
    }
}

/// All 65,536 packets with two bytes of body behind each valid first byte.
#[test]
fn all_tiny_packets() {
    for first in (0..=255_u8).filter(|first| frame_len(&[*first], &Limits::default()).is_ok()) {
        for body in 0..=u16::MAX {
            let [high, low] = body.to_be_bytes();
            survive(&[first, 2, high, low]);
        }
    }
}
