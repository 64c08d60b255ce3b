//! A client that says what it is told to, right or wrong, and reads answers as lines of text.

use std::time::Duration;

use fleetline_mqtt::{
    Connect, Limits, Packet, PacketId, Publish, PublishProperties, QoS, SubscribeOptions, Version, decode,
    encode, frame_len,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// Virtual time after which nothing comes any more: longer than any bound of the front.
const NEVER: Duration = Duration::from_secs(100_000);

/// Lets everything happen that can happen now. Virtual time moves only when all tasks wait.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

pub struct Client {
    pub io: DuplexStream,
    pub version: Version,
    read: Vec<u8>,
}

pub fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

/// A PUBLISH with QoS 1, or 0 for packet id 0.
pub fn publish(version: Version, topic: &str, payload: &[u8], packet_id: u16) -> Vec<u8> {
    publish_with(version, topic, payload, packet_id, |_| {})
}

pub fn publish_with(
    version: Version,
    topic: &str,
    payload: &[u8],
    packet_id: u16,
    change: impl FnOnce(&mut Publish<'_>),
) -> Vec<u8> {
    let mut packet = Publish {
        dup: false,
        qos: if packet_id == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce },
        retain: false,
        topic,
        packet_id: PacketId::new(packet_id),
        payload,
        properties: PublishProperties::default(),
    };
    change(&mut packet);
    let mut out = Vec::new();
    encode::publish(&mut out, version, &packet).unwrap();
    out
}

impl Client {
    pub fn new(io: DuplexStream, version: Version) -> Client {
        Client { io, version, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    /// As much of `bytes` as is taken now.
    pub async fn send_some(&mut self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while sent < bytes.len() {
            tokio::select! {
                biased;
                written = self.io.write(&bytes[sent..]) => match written {
                    Ok(written) => sent += written,
                    Err(_) => break,
                },
                () = settle() => break,
            }
        }
        sent
    }

    pub async fn connect(&mut self, connect: &Connect<'_>) {
        let mut out = Vec::new();
        encode::connect(&mut out, connect).unwrap();
        self.version = connect.version;
        self.send(&out).await;
    }

    pub async fn publish(&mut self, topic: &str, payload: &[u8], packet_id: u16) {
        let packet = publish(self.version, topic, payload, packet_id);
        self.send(&packet).await;
    }

    /// Telemetry of this device.
    pub async fn telemetry(&mut self, device: &str, payload: &str, packet_id: u16) {
        self.publish(&events(device), payload.as_bytes(), packet_id).await;
    }

    /// Subscribes and gives the answer.
    pub async fn subscribe(&mut self, packet_id: u16, filters: &[(&str, QoS)]) -> String {
        let filters: Vec<_> =
            filters.iter().map(|(filter, qos)| (*filter, SubscribeOptions::with_qos(*qos))).collect();
        let mut out = Vec::new();
        encode::subscribe(&mut out, self.version, id(packet_id), None, &filters).unwrap();
        self.send(&out).await;
        self.next().await
    }

    pub async fn unsubscribe(&mut self, packet_id: u16, filters: &[&str]) -> String {
        let mut out = Vec::new();
        encode::unsubscribe(&mut out, self.version, id(packet_id), filters).unwrap();
        self.send(&out).await;
        self.next().await
    }

    pub async fn puback(&mut self, packet_id: u16) {
        let mut out = Vec::new();
        encode::puback(&mut out, self.version, id(packet_id), 0);
        self.send(&out).await;
    }

    pub async fn ping(&mut self) -> String {
        let mut out = Vec::new();
        encode::pingreq(&mut out);
        self.send(&out).await;
        self.next().await
    }

    pub async fn disconnect(&mut self, reason: u8) {
        let mut out = Vec::new();
        encode::disconnect(&mut out, self.version, reason);
        self.send(&out).await;
    }

    /// The next packet as a line; "end" when the front has closed.
    pub async fn next(&mut self) -> String {
        let limits = Limits { packet_bytes_max: 1 << 20, ..Limits::from_server() };
        loop {
            if let Some(len) = frame_len(&self.read, &limits).unwrap().filter(|len| self.read.len() >= *len) {
                let packet: Vec<u8> = self.read.drain(..len).collect();
                return line(&decode(&packet, Some(self.version), &limits).unwrap());
            }
            let read = tokio::time::timeout(NEVER, self.io.read_buf(&mut self.read)).await;
            match read.expect("nothing comes and nothing ends") {
                Ok(0) | Err(_) if self.read.is_empty() => return "end".to_owned(),
                Ok(0) | Err(_) => panic!("the front ends inside of a packet"),
                Ok(_) => {}
            }
        }
    }

    /// The next lines.
    pub async fn take(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            lines.push(self.next().await);
        }
        lines
    }

    /// The next packet if it is there now.
    pub async fn now(&mut self) -> Option<String> {
        tokio::select! {
            biased;
            line = self.next() => Some(line),
            () = settle() => None,
        }
    }

    /// All that comes until the front closes.
    pub async fn until_end(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.next().await {
                line if line == "end" => return lines,
                line => lines.push(line),
            }
        }
    }
}

/// The topic of a device's telemetry.
pub fn events(device: &str) -> String {
    format!("devices/{device}/messages/events/")
}

fn line(packet: &Packet<'_>) -> String {
    match packet {
        Packet::ConnAck(ack) => format!("connack {:#04x} present={}", ack.code, ack.session_present),
        Packet::PubAck(ack) => format!("puback {}", ack.packet_id.get()),
        Packet::SubAck(ack) => format!("suback {} {:02x?}", ack.packet_id.get(), ack.codes),
        Packet::UnsubAck(ack) => format!("unsuback {} {:02x?}", ack.packet_id.get(), ack.codes),
        Packet::PingResp => "pingresp".to_owned(),
        Packet::Disconnect { reason, .. } => format!("disconnect {reason:#04x}"),
        Packet::Publish(publish) => {
            let id = publish.packet_id.map_or(0, PacketId::get);
            format!("publish {id} {} {}", publish.topic, String::from_utf8_lossy(publish.payload))
        }
        other => format!("{other:?}"),
    }
}
