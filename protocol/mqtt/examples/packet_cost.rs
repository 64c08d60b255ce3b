//! What a packet costs: `cargo run --release -p fleetline-mqtt --example packet_cost`.
//!
//! Prints nanoseconds of CPU for framing and decoding, and for encoding, of a PUBLISH of 256 bytes with
//! QoS 1 in three forms, and of its PUBACK. Each figure is the best of several rounds, so that a busy
//! machine shows less.

use std::hint::black_box;
use std::time::Instant;

use fleetline_mqtt::{
    Limits, Packet, PacketId, Publish, PublishProperties, QoS, Sender, Version, decode, encode, frame_len,
};

const ROUNDS: usize = 9;
const PACKETS_PER_ROUND: u32 = 500_000;

fn main() {
    let user = [("iothub-creation-time-utc", "2024-01-01T00:00:00Z"), ("level", "info")];
    let publish = Publish {
        qos: QoS::AtLeastOnce,
        topic: "devices/device-000042/messages/events/%24.ct=application%2Fjson",
        packet_id: PacketId::new(42),
        payload: &[b'x'; 256],
        ..Publish::default()
    };
    let rich = Publish {
        properties: PublishProperties {
            content_type: Some("application/json"),
            message_expiry: Some(60),
            user_properties: user[..].into(),
            ..PublishProperties::default()
        },
        ..publish
    };
    println!("packet                    bytes  decode  encode  (ns a packet)");
    for (name, version, publish) in [
        ("publish 3.1.1", Version::V311, publish),
        ("publish 5", Version::V5, publish),
        ("publish 5, 4 properties", Version::V5, rich),
    ] {
        report(name, version, |out| {
            let _ = black_box(encode::publish(out, version, black_box(&publish)));
        });
    }
    if let Some(id) = PacketId::new(42) {
        report("puback 3.1.1", Version::V311, |out| encode::puback(out, Version::V311, black_box(id), 0));
    }
}

fn report(name: &str, version: Version, encode: impl Fn(&mut Vec<u8>)) {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    let limits = Limits { sender: Sender::Client, ..Limits::default() };
    let decode = best(|| read(black_box(&bytes), version, &limits));
    let mut out = Vec::with_capacity(bytes.len() * 2);
    let encode = best(|| {
        out.clear();
        encode(&mut out);
        out.len()
    });
    println!("{name:<24}  {:5}  {decode:6.1}  {encode:6.1}", bytes.len());
}

/// Does what the gateway does with a packet; the result keeps it from being optimised away.
fn read(bytes: &[u8], version: Version, limits: &Limits) -> usize {
    match frame_len(bytes, limits) {
        Ok(Some(len)) => match decode(&bytes[..len], Some(version), limits) {
            Ok(Packet::Publish(publish)) => publish.topic.len() + publish.payload.len(),
            Ok(Packet::PubAck(ack)) => usize::from(ack.packet_id.get()),
            _ => 0,
        },
        _ => 0,
    }
}

/// Nanoseconds a call, in the best round.
fn best(mut call: impl FnMut() -> usize) -> f64 {
    let round = |_| {
        let start = Instant::now();
        for _ in 0..PACKETS_PER_ROUND {
            black_box(call());
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(PACKETS_PER_ROUND)
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}
