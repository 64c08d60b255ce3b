//! What is encoded decodes to itself, in both versions.

use fleetline_mqtt::{
    Ack, Limits, Packet, Publish, Sender, SubscribeOptions, Version, decode, encode, frame_len,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::generate::{ack, filter, filters, hello, message, packet_id, version, wire};
use crate::kit::{limits_for, read};

proptest! {
    #[test]
    fn publish(message in message()) {
        let mut bytes = vec![0xff];
        message.with(|full, carried| {
            encode::publish(&mut bytes, message.version, full).unwrap();
            let found = read(&bytes[1..], message.version, message.sender);
            prop_assert_eq!(found, Ok(Packet::Publish(*carried)));
            // A decoded message can be sent on as it is.
            let Ok(Packet::Publish(decoded)) = read(&bytes[1..], message.version, message.sender) else {
                return Err(TestCaseError::fail("not a publish"));
            };
            let mut again = Vec::new();
            encode::publish(&mut again, message.version, &decoded).unwrap();
            let found = read(&again, message.version, message.sender);
            prop_assert_eq!(found, Ok(Packet::Publish(*carried)));
            prop_assert_eq!(again.len(), bytes.len() - 1);
            Ok(())
        })?;
    }

    #[test]
    fn connect(hello in hello()) {
        let mut bytes = Vec::new();
        hello.with(|full, carried| {
            encode::connect(&mut bytes, full).unwrap();
            let found = read(&bytes, hello.version, Sender::Client);
            // Debug output leaves secrets out, equality doesn't.
            prop_assert_eq!(found, Ok(Packet::Connect(*carried)));
            Ok(())
        })?;
    }

    #[test]
    fn subscribe(
        version in version(),
        id in packet_id(),
        subscription_id in option::of(1..=268_435_455_u32),
        filters in filters(),
    ) {
        let given: Vec<_> = filters.iter().map(|(filter, options)| (filter.as_str(), *options)).collect();
        let carried: Vec<_> = match version {
            Version::V5 => given.clone(),
            Version::V311 => {
                given.iter().map(|(filter, options)| (*filter, SubscribeOptions::with_qos(options.qos))).collect()
            }
        };
        let mut bytes = Vec::new();
        encode::subscribe(&mut bytes, version, id, subscription_id, &given).unwrap();
        match read(&bytes, version, Sender::Client) {
            Ok(Packet::Subscribe(found)) => {
                prop_assert_eq!(found.packet_id, id);
                prop_assert_eq!(found.subscription_id, subscription_id.filter(|_| version == Version::V5));
                prop_assert_eq!(found.filters.len(), carried.len());
                prop_assert_eq!(found.filters.collect::<Vec<_>>(), carried);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn unsubscribe(version in version(), id in packet_id(), filters in vec(filter(), 1..4)) {
        let filters: Vec<_> = filters.iter().map(String::as_str).collect();
        let mut bytes = Vec::new();
        encode::unsubscribe(&mut bytes, version, id, &filters).unwrap();
        match read(&bytes, version, Sender::Client) {
            Ok(Packet::Unsubscribe(found)) => {
                prop_assert_eq!(found.packet_id, id);
                prop_assert_eq!(found.filters.collect::<Vec<_>>(), filters);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn acknowledgement(version in version(), ack in ack()) {
        let mut bytes = Vec::new();
        encode::puback(&mut bytes, version, ack.packet_id, ack.reason);
        let reason = if version == Version::V5 { ack.reason } else { 0 };
        let found = read(&bytes, version, Sender::Client);
        prop_assert_eq!(found, Ok(Packet::PubAck(Ack { reason, ..ack })));
    }

    /// Packets one behind the other, as a socket has them, come out one by one.
    #[test]
    fn a_stream_of_packets(packets in vec(wire(), 1..6)) {
        let stream: Vec<u8> = packets.iter().flat_map(|packet| packet.bytes.clone()).collect();
        let mut rest = &stream[..];
        for packet in &packets {
            let limits = limits_for(packet.sender);
            let len = frame_len(rest, &limits).unwrap().unwrap();
            prop_assert_eq!(&rest[..len], &packet.bytes[..]);
            let version = if rest[0] == 0x10 { None } else { Some(packet.version) };
            prop_assert!(decode(&rest[..len], version, &limits).is_ok());
            rest = &rest[len..];
        }
        prop_assert!(rest.is_empty());
    }
}

/// Payloads around the lengths where the remaining length takes another byte.
#[test]
fn lengths_of_every_size() {
    let limits = Limits { packet_bytes_max: usize::MAX, ..Limits::default() };
    for payload in [0, 1, 124, 125, 16_379, 16_380, 2_097_147, 2_097_148, 3_000_000] {
        let payload = vec![7; payload];
        let publish = Publish { topic: "t", payload: &payload, ..Publish::default() };
        for version in [Version::V311, Version::V5] {
            let mut bytes = Vec::new();
            encode::publish(&mut bytes, version, &publish).unwrap();
            assert_eq!(frame_len(&bytes, &limits), Ok(Some(bytes.len())));
            assert_eq!(decode(&bytes, Some(version), &limits), Ok(Packet::Publish(publish)));
        }
    }
}

/// The same for packets that are written behind room for their length.
#[test]
fn lengths_of_every_size_of_rare_packets() {
    let id = fleetline_mqtt::PacketId::new(1).unwrap();
    for count in [1, 123, 124, 125, 126, 16_380, 16_381, 16_382, 70_000] {
        let codes = vec![1; count];
        for version in [Version::V311, Version::V5] {
            let mut bytes = Vec::new();
            encode::suback(&mut bytes, version, id, &codes).unwrap();
            let Ok(Packet::SubAck(found)) = read(&bytes, version, Sender::Server) else {
                panic!("{count}");
            };
            assert_eq!(found.codes, codes);
        }
    }
}
