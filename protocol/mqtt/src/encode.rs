//! Packets to bytes: what a broker sends and what a client sends.
//!
//! Every function appends one packet to `out`. On an error `out` is as it was. PUBLISH and the
//! acknowledgements know their length beforehand and are written straight through; rarer packets are
//! written behind room for the longest length, which then closes up (`frame`).
//!
//! Not checked: topics, filters and codes. The caller has them valid (from a decoded packet or from
//! [`crate::validate_topic_name`]), and a wrong one costs the connection, not the process.

mod client;
mod writer;

use crate::properties::id;
use crate::{
    Auth, ConnAck, EncodeError, PacketId, PacketType, Publish, PublishProperties, QoS, Version, reason,
};
use writer::{frame, properties, put_string, put_varint, varint_len};

pub use client::{connect, pingreq, subscribe, unsubscribe};

/// What [`publish`] takes: a decoded PUBLISH has the same form.
pub type PublishOut<'a> = Publish<'a>;

/// The largest remaining length.
const REMAINING_MAX: usize = 268_435_455;

/// PUBLISH. On 3.1.1 the properties are left out; with QoS 0, so are packet id and duplicate flag.
pub fn publish(out: &mut Vec<u8>, version: Version, publish: &PublishOut<'_>) -> Result<(), EncodeError> {
    let start = out.len();
    let done = write_publish(out, version, publish);
    if done.is_err() {
        out.truncate(start);
    }
    done
}

fn write_publish(out: &mut Vec<u8>, version: Version, publish: &Publish<'_>) -> Result<(), EncodeError> {
    let id_bytes = if publish.qos == QoS::AtMostOnce { 0 } else { 2 };
    let property_bytes = match version {
        Version::V311 => None,
        Version::V5 => Some(publish.properties.wire_len()),
    };
    let property_block = property_bytes.map_or(0, |bytes| varint_len(bytes) + bytes);
    let remaining = 2 + publish.topic.len() + id_bytes + property_block + publish.payload.len();
    if remaining > REMAINING_MAX {
        return Err(EncodeError::TooLarge { what: "PUBLISH", bytes: remaining });
    }
    out.reserve(remaining + 5);
    out.push(publish.first_byte());
    put_varint(out, remaining);
    let body = out.len();
    put_string(out, "topic", publish.topic)?;
    if publish.qos != QoS::AtMostOnce {
        let packet_id = publish.packet_id.ok_or(EncodeError::PacketIdMissing)?;
        out.extend_from_slice(&packet_id.get().to_be_bytes());
    }
    if let Some(bytes) = property_bytes {
        put_varint(out, bytes);
        if bytes > 0 {
            publish.properties.write(out)?;
        }
    }
    out.extend_from_slice(publish.payload);
    debug_assert_eq!(out.len() - body, remaining);
    Ok(())
}

impl PublishProperties<'_> {
    /// Bytes of the property block without its length.
    fn wire_len(&self) -> usize {
        let text = |value: Option<&str>| value.map_or(0, |text| 3 + text.len());
        let users: usize =
            self.user_properties.iter().map(|(name, value)| 5 + name.len() + value.len()).sum();
        let ids: usize = self.subscription_ids.iter().map(|id| 1 + varint_len(id as usize)).sum();
        self.payload_format.map_or(0, |_| 2)
            + self.message_expiry.map_or(0, |_| 5)
            + self.topic_alias.map_or(0, |_| 3)
            + text(self.response_topic)
            + self.correlation_data.map_or(0, |data| 3 + data.len())
            + text(self.content_type)
            + users
            + ids
    }

    /// The property block without its length, in [`PublishProperties::wire_len`] bytes.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if let Some(format) = self.payload_format {
            out.extend_from_slice(&[id::PAYLOAD_FORMAT, format]);
        }
        properties::u32(out, id::MESSAGE_EXPIRY, self.message_expiry);
        properties::u16(out, id::TOPIC_ALIAS, self.topic_alias);
        properties::string(out, id::RESPONSE_TOPIC, "response topic", self.response_topic)?;
        properties::binary(out, id::CORRELATION_DATA, "correlation data", self.correlation_data)?;
        properties::string(out, id::CONTENT_TYPE, "content type", self.content_type)?;
        for id in self.subscription_ids {
            properties::subscription_id(out, id)?;
        }
        properties::user(out, &self.user_properties)
    }
}

/// PUBACK. On 3.1.1 the reason is left out.
pub fn puback(out: &mut Vec<u8>, version: Version, id: PacketId, reason: u8) {
    ack(out, PacketType::PubAck, version, id, reason);
}

/// PUBREC. On 3.1.1 the reason is left out.
pub fn pubrec(out: &mut Vec<u8>, version: Version, id: PacketId, reason: u8) {
    ack(out, PacketType::PubRec, version, id, reason);
}

/// PUBREL. On 3.1.1 the reason is left out.
pub fn pubrel(out: &mut Vec<u8>, version: Version, id: PacketId, reason: u8) {
    ack(out, PacketType::PubRel, version, id, reason);
}

/// PUBCOMP. On 3.1.1 the reason is left out.
pub fn pubcomp(out: &mut Vec<u8>, version: Version, id: PacketId, reason: u8) {
    ack(out, PacketType::PubComp, version, id, reason);
}

fn ack(out: &mut Vec<u8>, packet: PacketType, version: Version, id: PacketId, reason: u8) {
    let [high, low] = id.get().to_be_bytes();
    if version == Version::V311 || reason == reason::SUCCESS {
        out.extend_from_slice(&[packet.first_byte(), 2, high, low]);
    } else {
        out.extend_from_slice(&[packet.first_byte(), 3, high, low, reason]);
    }
}

/// CONNACK, of the version that it holds. Session present is sent only with a success. On 3.1.1 the
/// properties are left out, and the code is sent as it is: see [`reason::connack_v311`].
pub fn connack(out: &mut Vec<u8>, connack: &ConnAck<'_>) -> Result<(), EncodeError> {
    frame(out, PacketType::ConnAck, |out| {
        out.extend_from_slice(&[connack.flags(), connack.code]);
        match connack.version {
            Version::V311 => Ok(()),
            Version::V5 => properties::block(out, |out| connack_properties(out, connack)),
        }
    })
}

fn connack_properties(out: &mut Vec<u8>, connack: &ConnAck<'_>) -> Result<(), EncodeError> {
    properties::u32(out, id::SESSION_EXPIRY, connack.session_expiry);
    properties::u16(out, id::RECEIVE_MAXIMUM, connack.receive_maximum);
    // QoS 2 is what absence means; the property itself may only be 0 or 1.
    let maximum_qos = connack.maximum_qos.filter(|qos| *qos != QoS::ExactlyOnce);
    properties::flag(out, id::MAXIMUM_QOS, maximum_qos.map(|qos| qos == QoS::AtLeastOnce));
    properties::flag(out, id::RETAIN_AVAILABLE, connack.retain_available);
    properties::u32(out, id::MAXIMUM_PACKET_SIZE, connack.maximum_packet_size);
    let name = connack.assigned_client_id;
    properties::string(out, id::ASSIGNED_CLIENT_ID, "assigned client identifier", name)?;
    properties::u16(out, id::TOPIC_ALIAS_MAXIMUM, connack.topic_alias_maximum);
    properties::string(out, id::REASON_STRING, "reason string", connack.reason_string)?;
    properties::flag(out, id::WILDCARD_AVAILABLE, connack.wildcard_available);
    properties::flag(out, id::SUBSCRIPTION_IDS_AVAILABLE, connack.subscription_ids_available);
    properties::flag(out, id::SHARED_AVAILABLE, connack.shared_available);
    properties::u16(out, id::SERVER_KEEP_ALIVE, connack.server_keep_alive);
    let information = connack.response_information;
    properties::string(out, id::RESPONSE_INFORMATION, "response information", information)?;
    properties::string(out, id::SERVER_REFERENCE, "server reference", connack.server_reference)?;
    properties::authentication(out, connack.authentication_method, connack.authentication_data)?;
    properties::user(out, &connack.user_properties)
}

/// SUBACK with a code for each filter, in order. 3.1.1 knows one failure: all codes from 0x80 become
/// 0x80 ([MQTT-3.9.3-2]).
pub fn suback(out: &mut Vec<u8>, version: Version, id: PacketId, codes: &[u8]) -> Result<(), EncodeError> {
    frame(out, PacketType::SubAck, |out| {
        out.extend_from_slice(&id.get().to_be_bytes());
        match version {
            Version::V311 => out.extend(codes.iter().map(|code| (*code).min(reason::UNSPECIFIED_ERROR))),
            Version::V5 => {
                out.push(0); // no properties
                out.extend_from_slice(codes);
            }
        }
        Ok(())
    })
}

/// UNSUBACK. On MQTT 5 with a code for each filter, in order; 3.1.1 has none.
pub fn unsuback(out: &mut Vec<u8>, version: Version, id: PacketId, codes: &[u8]) -> Result<(), EncodeError> {
    frame(out, PacketType::UnsubAck, |out| {
        out.extend_from_slice(&id.get().to_be_bytes());
        if version == Version::V5 {
            out.push(0); // no properties
            out.extend_from_slice(codes);
        }
        Ok(())
    })
}

/// PINGRESP.
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingResp.first_byte(), 0]);
}

/// DISCONNECT. On 3.1.1 the reason is left out, and only a client may send it.
pub fn disconnect(out: &mut Vec<u8>, version: Version, reason: u8) {
    if version == Version::V311 || reason == reason::SUCCESS {
        out.extend_from_slice(&[PacketType::Disconnect.first_byte(), 0]);
    } else {
        out.extend_from_slice(&[PacketType::Disconnect.first_byte(), 1, reason]);
    }
}

/// What [`disconnect_v5`] takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DisconnectOut<'a> {
    /// The reason code.
    pub reason: u8,
    /// Seconds; only clients send it.
    pub session_expiry: Option<u32>,
    /// Words for a person.
    pub reason_string: Option<&'a str>,
    /// Another server to go to; only servers send it.
    pub server_reference: Option<&'a str>,
}

/// DISCONNECT of MQTT 5, with properties.
pub fn disconnect_v5(out: &mut Vec<u8>, disconnect: &DisconnectOut<'_>) -> Result<(), EncodeError> {
    frame(out, PacketType::Disconnect, |out| {
        out.push(disconnect.reason);
        properties::block(out, |out| {
            properties::u32(out, id::SESSION_EXPIRY, disconnect.session_expiry);
            properties::string(out, id::REASON_STRING, "reason string", disconnect.reason_string)?;
            properties::string(out, id::SERVER_REFERENCE, "server reference", disconnect.server_reference)
        })
    })
}

/// AUTH of MQTT 5.
pub fn auth(out: &mut Vec<u8>, auth: &Auth<'_>) -> Result<(), EncodeError> {
    if *auth == Auth::default() {
        // Section 3.15.2.1: a success without properties is an empty packet.
        out.extend_from_slice(&[PacketType::Auth.first_byte(), 0]);
        return Ok(());
    }
    frame(out, PacketType::Auth, |out| {
        out.push(auth.reason);
        properties::block(out, |out| {
            properties::authentication(out, auth.authentication_method, auth.authentication_data)?;
            properties::string(out, id::REASON_STRING, "reason string", auth.reason_string)?;
            properties::user(out, &auth.user_properties)
        })
    })
}
