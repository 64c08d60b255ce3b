//! A packet of either version, and the way from its bytes to it.

use std::fmt;

use crate::acks::Ack;
use crate::connack::ConnAck;
use crate::connect::Connect;
use crate::disconnect::{self, Auth};
use crate::frame;
use crate::publish::Publish;
use crate::reader::Reader;
use crate::subscribe::{SubAck, Subscribe};
use crate::unsubscribe::{UnsubAck, Unsubscribe};
use crate::{DecodeError, Limits, PacketId, Sender, Version};

/// A decoded packet. It borrows from the bytes that it was decoded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// A client opens a session.
    Connect(Connect<'a>),
    /// The server's answer to CONNECT.
    ConnAck(ConnAck<'a>),
    /// A message.
    Publish(Publish<'a>),
    /// Answer to a PUBLISH with QoS 1.
    PubAck(Ack),
    /// First answer to a PUBLISH with QoS 2.
    PubRec(Ack),
    /// Answer to PUBREC.
    PubRel(Ack),
    /// Answer to PUBREL.
    PubComp(Ack),
    /// A client subscribes.
    Subscribe(Subscribe<'a>),
    /// The server's answer to SUBSCRIBE.
    SubAck(SubAck<'a>),
    /// A client ends subscriptions.
    Unsubscribe(Unsubscribe<'a>),
    /// The server's answer to UNSUBSCRIBE.
    UnsubAck(UnsubAck<'a>),
    /// A client is alive.
    PingReq,
    /// The server is, too.
    PingResp,
    /// The last packet of a connection.
    Disconnect {
        /// The reason code; 0 on 3.1.1.
        reason: u8,
        /// Seconds that the session outlives the connection, in place of what CONNECT said. Only
        /// clients send it. Whether it may be raised from zero is the session's matter.
        session_expiry: Option<u32>,
    },
    /// MQTT 5: a step of an authentication that takes several.
    Auth(Auth<'a>),
}

/// The type of a packet, in the high four bits of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketType {
    /// 1
    Connect = 1,
    /// 2
    ConnAck = 2,
    /// 3
    Publish = 3,
    /// 4
    PubAck = 4,
    /// 5
    PubRec = 5,
    /// 6
    PubRel = 6,
    /// 7
    PubComp = 7,
    /// 8
    Subscribe = 8,
    /// 9
    SubAck = 9,
    /// 10
    Unsubscribe = 10,
    /// 11
    UnsubAck = 11,
    /// 12
    PingReq = 12,
    /// 13
    PingResp = 13,
    /// 14
    Disconnect = 14,
    /// 15, MQTT 5 only
    Auth = 15,
}

impl PacketType {
    /// The type with this number; 0 is none.
    pub(crate) fn from_number(number: u8) -> Option<PacketType> {
        Some(match number {
            1 => PacketType::Connect,
            2 => PacketType::ConnAck,
            3 => PacketType::Publish,
            4 => PacketType::PubAck,
            5 => PacketType::PubRec,
            6 => PacketType::PubRel,
            7 => PacketType::PubComp,
            8 => PacketType::Subscribe,
            9 => PacketType::SubAck,
            10 => PacketType::Unsubscribe,
            11 => PacketType::UnsubAck,
            12 => PacketType::PingReq,
            13 => PacketType::PingResp,
            14 => PacketType::Disconnect,
            15 => PacketType::Auth,
            _ => return None,
        })
    }

    /// Its name in the standard.
    pub fn name(self) -> &'static str {
        match self {
            PacketType::Connect => "CONNECT",
            PacketType::ConnAck => "CONNACK",
            PacketType::Publish => "PUBLISH",
            PacketType::PubAck => "PUBACK",
            PacketType::PubRec => "PUBREC",
            PacketType::PubRel => "PUBREL",
            PacketType::PubComp => "PUBCOMP",
            PacketType::Subscribe => "SUBSCRIBE",
            PacketType::SubAck => "SUBACK",
            PacketType::Unsubscribe => "UNSUBSCRIBE",
            PacketType::UnsubAck => "UNSUBACK",
            PacketType::PingReq => "PINGREQ",
            PacketType::PingResp => "PINGRESP",
            PacketType::Disconnect => "DISCONNECT",
            PacketType::Auth => "AUTH",
        }
    }

    /// The first byte of such a packet; PUBLISH has its own way.
    pub(crate) fn first_byte(self) -> u8 {
        let flags = match self {
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }

    /// Whether this side may send it (tables 2.1 of 3.1.1 and 2-1 of 5).
    fn is_sent_by(self, sender: Sender, version: Version) -> bool {
        match self {
            PacketType::Connect | PacketType::Subscribe | PacketType::Unsubscribe | PacketType::PingReq => {
                sender == Sender::Client
            }
            PacketType::ConnAck | PacketType::SubAck | PacketType::UnsubAck | PacketType::PingResp => {
                sender == Sender::Server
            }
            PacketType::Disconnect => sender == Sender::Client || version == Version::V5,
            PacketType::Publish
            | PacketType::PubAck
            | PacketType::PubRec
            | PacketType::PubRel
            | PacketType::PubComp
            | PacketType::Auth => true,
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What decoding a packet's body needs to know beside the body.
#[derive(Clone, Copy)]
pub(crate) struct Context<'l> {
    pub version: Version,
    pub packet: PacketType,
    pub limits: &'l Limits,
}

impl Context<'_> {
    pub(crate) fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    /// The packet id, which every packet that has one needs ([MQTT-2.3.1-1], [MQTT5-2.2.1-3],
    /// [MQTT5-2.2.1-4]).
    pub(crate) fn packet_id(&self, body: &mut Reader<'_>) -> Result<PacketId, DecodeError> {
        PacketId::new(body.u16("packet id")?).ok_or(DecodeError::PacketIdZero { packet: self.packet })
    }

    /// Refuses bytes behind the last field.
    pub(crate) fn end(&self, body: &Reader<'_>) -> Result<(), DecodeError> {
        match body.rest().len() {
            0 => Ok(()),
            count => Err(DecodeError::Trailing { packet: self.packet, count }),
        }
    }
}

/// Decodes one whole packet, exactly the [`crate::frame_len`] bytes of it.
///
/// `version` is `None` before CONNECT: then only CONNECT is accepted, and its level decides. After
/// that it is the version that CONNECT had. [`Limits::sender`] says whose packets these are.
pub fn decode<'a>(
    packet: &'a [u8],
    version: Option<Version>,
    limits: &Limits,
) -> Result<Packet<'a>, DecodeError> {
    let header = frame::header(packet, limits)?.ok_or(DecodeError::Truncated { what: "fixed header" })?;
    if header.packet_len != packet.len() {
        return Err(DecodeError::FrameLength { frame: header.packet_len, given: packet.len() });
    }
    let mut body = Reader::new(&packet[header.header_len..]);
    let version = match (header.packet, version) {
        (PacketType::Connect, None) if limits.sender == Sender::Client => {
            return Connect::decode(body, limits).map(Packet::Connect);
        }
        // [MQTT-3.1.0-2], [MQTT5-3.1.0-2]: there is one CONNECT.
        (PacketType::Connect, Some(_)) if limits.sender == Sender::Client => {
            return Err(DecodeError::SecondConnect);
        }
        (PacketType::Connect, _) => return Err(DecodeError::WrongSender { packet: header.packet }),
        // [MQTT-3.1.0-1], [MQTT5-3.1.0-1]: it comes first.
        (packet, None) => return Err(DecodeError::NotConnected { packet }),
        (PacketType::Auth, Some(Version::V311)) => return Err(DecodeError::ReservedType { value: 15 }),
        (_, Some(version)) => version,
    };
    if !header.packet.is_sent_by(limits.sender, version) {
        return Err(DecodeError::WrongSender { packet: header.packet });
    }
    let context = Context { version, packet: header.packet, limits };
    decode_body(context, header.flags, &mut body)
}

fn decode_body<'a>(
    context: Context<'_>,
    flags: u8,
    body: &mut Reader<'a>,
) -> Result<Packet<'a>, DecodeError> {
    let packet = match context.packet {
        PacketType::Publish => return Publish::decode(context, flags, body).map(Packet::Publish),
        PacketType::PubAck => Packet::PubAck(Ack::decode(context, body)?),
        PacketType::PubRec => Packet::PubRec(Ack::decode(context, body)?),
        PacketType::PubRel => Packet::PubRel(Ack::decode(context, body)?),
        PacketType::PubComp => Packet::PubComp(Ack::decode(context, body)?),
        PacketType::Subscribe => return Subscribe::decode(context, body).map(Packet::Subscribe),
        PacketType::SubAck => return SubAck::decode(context, body).map(Packet::SubAck),
        PacketType::Unsubscribe => return Unsubscribe::decode(context, body).map(Packet::Unsubscribe),
        PacketType::UnsubAck => return UnsubAck::decode(context, body).map(Packet::UnsubAck),
        PacketType::ConnAck => Packet::ConnAck(ConnAck::decode(context, body)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => disconnect::decode(context, body)?,
        PacketType::Auth => Packet::Auth(Auth::decode(context, body)?),
        PacketType::Connect => return Err(DecodeError::SecondConnect),
    };
    context.end(body)?;
    Ok(packet)
}
