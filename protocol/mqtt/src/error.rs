//! What can be wrong with a packet, and the reason code that tells the peer.

use thiserror::Error;

use crate::{PacketType, TopicError, reason};

/// A packet is malformed, breaks a rule of the protocol, or goes over a limit. The connection has to
/// be closed ([`DecodeError::reason`] says with which code); decoding can't go on behind it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The packet ends inside a field.
    #[error("{what} is cut short")]
    Truncated {
        /// The field.
        what: &'static str,
    },
    /// Bytes follow behind the last field.
    #[error("{packet} is followed by {count} bytes that do not belong to it")]
    Trailing {
        /// The packet.
        packet: PacketType,
        /// How many bytes.
        count: usize,
    },
    /// The remaining length goes on after its fourth byte.
    #[error("the remaining length is longer than four bytes")]
    RemainingLength,
    /// A variable byte integer inside the packet is longer than four bytes or than it has to be.
    #[error("{what} is not a variable byte integer in its shortest form")]
    BadVarInt {
        /// The field.
        what: &'static str,
    },
    /// The header announces a packet above [`crate::Limits::packet_bytes_max`].
    #[error("the packet has {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes of the packet with its header.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The slice isn't the one packet that its header announces: the caller has cut it wrongly.
    #[error("the header announces a packet of {frame} bytes, {given} were given")]
    FrameLength {
        /// Bytes of the packet, as announced.
        frame: usize,
        /// Bytes of the slice.
        given: usize,
    },
    /// A packet type that the version reserves.
    #[error("packet type {value} is reserved")]
    ReservedType {
        /// The type's number.
        value: u8,
    },
    /// The low four bits of the first byte aren't those that the packet type demands.
    #[error("{packet} has flags {flags:#06b}")]
    BadFlags {
        /// The packet.
        packet: PacketType,
        /// The four bits.
        flags: u8,
    },
    /// A PUBLISH with QoS 0 says that it is sent again.
    #[error("a publish with qos 0 is marked as a duplicate")]
    DupAtMostOnce,
    /// QoS 3.
    #[error("{what} is {value}")]
    BadQoS {
        /// The field.
        what: &'static str,
        /// What came.
        value: u8,
    },
    /// The packet id is zero.
    #[error("{packet} has packet id 0")]
    PacketIdZero {
        /// The packet.
        packet: PacketType,
    },
    /// A string isn't UTF-8 (surrogates are not).
    #[error("{what} is not utf-8")]
    BadUtf8 {
        /// The field.
        what: &'static str,
    },
    /// A string holds U+0000.
    #[error("{what} holds the character u+0000")]
    NulCharacter {
        /// The field.
        what: &'static str,
    },
    /// CONNECT of another protocol.
    #[error("the protocol name is not MQTT")]
    ProtocolName,
    /// CONNECT of another version of MQTT (3 for MQTT 3.1).
    #[error("protocol level {level} is not spoken here, only 4 and 5 are")]
    UnsupportedVersion {
        /// What came.
        level: u8,
    },
    /// The flags of CONNECT contradict each other, or the reserved one is set.
    #[error("the connect flags are wrong: {fault}")]
    ConnectFlags {
        /// What is wrong.
        fault: &'static str,
    },
    /// MQTT 3.1.1: no client id, but a session that is to be kept.
    #[error("the client id is empty, but the session is to be kept")]
    ClientIdMissing,
    /// The first packet isn't CONNECT.
    #[error("{packet} came before CONNECT")]
    NotConnected {
        /// The packet.
        packet: PacketType,
    },
    /// CONNECT on a connection that has had one.
    #[error("a second CONNECT came")]
    SecondConnect,
    /// Only the other side may send this packet.
    #[error("{packet} came from the wrong side")]
    WrongSender {
        /// The packet.
        packet: PacketType,
    },
    /// A topic name or filter breaks the rules for topics.
    #[error("{what} is invalid: {fault}")]
    BadTopic {
        /// The field.
        what: &'static str,
        /// Which rule.
        fault: TopicError,
    },
    /// MQTT 5: a PUBLISH with neither topic nor topic alias.
    #[error("a publish has neither topic nor topic alias")]
    TopicMissing,
    /// A SUBSCRIBE or UNSUBSCRIBE without filters, or its acknowledgement without codes.
    #[error("{packet} has an empty payload")]
    EmptyPayload {
        /// The packet.
        packet: PacketType,
    },
    /// Reserved bits of the options of a subscription are set.
    #[error("the subscribe options are {options:#010b}, reserved bits are set")]
    SubscribeOptions {
        /// The byte.
        options: u8,
    },
    /// Retain handling 3.
    #[error("the retain handling is 3")]
    RetainHandling,
    /// A shared subscription asks for no-local.
    #[error("a shared subscription asks for no-local")]
    NoLocalOnShared,
    /// A property identifier that the standard doesn't define.
    #[error("property {id:#04x} is unknown")]
    UnknownProperty {
        /// The identifier.
        id: u32,
    },
    /// A property in a packet that must not carry it.
    #[error("{property} is not allowed in {packet}")]
    PropertyNotAllowed {
        /// The property.
        property: &'static str,
        /// The packet (a will is named on its own).
        packet: &'static str,
    },
    /// A property that may come once came twice.
    #[error("{property} came twice")]
    DuplicateProperty {
        /// The property.
        property: &'static str,
    },
    /// A property has a value that it can't have.
    #[error("{property} is {value}")]
    PropertyValue {
        /// The property.
        property: &'static str,
        /// What came.
        value: u32,
    },
    /// Topic alias 0.
    #[error("the topic alias is 0")]
    TopicAliasZero,
    /// Authentication data without a method, or AUTH without a method.
    #[error("{packet} has no authentication method")]
    AuthMethodMissing {
        /// The packet.
        packet: PacketType,
    },
    /// A reason or return code that the packet can't carry.
    #[error("{packet} has code {value:#04x}")]
    BadReason {
        /// The packet.
        packet: PacketType,
        /// What came.
        value: u8,
    },
    /// The acknowledge flags of CONNACK are wrong.
    #[error("the connack flags are {flags:#010b}")]
    ConnAckFlags {
        /// The byte.
        flags: u8,
    },
    /// More of something than [`crate::Limits`] allows.
    #[error("{what}: over the limit of {limit}")]
    OverLimit {
        /// What is counted, or the topic whose bytes are.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
}

impl DecodeError {
    /// The MQTT 5 reason code for CONNACK or DISCONNECT. For a 3.1.1 CONNACK see
    /// [`reason::connack_v311`].
    pub fn reason(&self) -> u8 {
        match self {
            DecodeError::Truncated { .. }
            | DecodeError::Trailing { .. }
            | DecodeError::RemainingLength
            | DecodeError::BadVarInt { .. }
            | DecodeError::FrameLength { .. }
            | DecodeError::ReservedType { .. }
            | DecodeError::BadFlags { .. }
            | DecodeError::DupAtMostOnce
            | DecodeError::BadQoS { .. }
            | DecodeError::BadUtf8 { .. }
            | DecodeError::NulCharacter { .. }
            | DecodeError::ConnectFlags { .. }
            | DecodeError::SubscribeOptions { .. }
            | DecodeError::UnknownProperty { .. }
            | DecodeError::PropertyNotAllowed { .. }
            | DecodeError::ConnAckFlags { .. } => reason::MALFORMED_PACKET,
            DecodeError::PacketIdZero { .. }
            | DecodeError::NotConnected { .. }
            | DecodeError::SecondConnect
            | DecodeError::WrongSender { .. }
            | DecodeError::TopicMissing
            | DecodeError::EmptyPayload { .. }
            | DecodeError::RetainHandling
            | DecodeError::NoLocalOnShared
            | DecodeError::DuplicateProperty { .. }
            | DecodeError::PropertyValue { .. }
            | DecodeError::AuthMethodMissing { .. }
            | DecodeError::BadReason { .. } => reason::PROTOCOL_ERROR,
            DecodeError::ProtocolName | DecodeError::UnsupportedVersion { .. } => {
                reason::UNSUPPORTED_PROTOCOL_VERSION
            }
            DecodeError::ClientIdMissing => reason::CLIENT_IDENTIFIER_NOT_VALID,
            DecodeError::BadTopic { fault, .. } if fault.is_filter_fault() => reason::TOPIC_FILTER_INVALID,
            DecodeError::BadTopic { what, .. } if *what == FILTER => reason::TOPIC_FILTER_INVALID,
            DecodeError::BadTopic { .. } => reason::TOPIC_NAME_INVALID,
            DecodeError::TopicAliasZero => reason::TOPIC_ALIAS_INVALID,
            DecodeError::TooLarge { .. } => reason::PACKET_TOO_LARGE,
            DecodeError::OverLimit { .. } => reason::QUOTA_EXCEEDED,
        }
    }
}

/// How errors name the filters of SUBSCRIBE and UNSUBSCRIBE.
pub(crate) const FILTER: &str = "topic filter";

/// A packet can't be put into bytes: the caller has asked for something that the format can't hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A string or binary field has more than 65,535 bytes.
    #[error("{what} has {bytes} bytes, at most 65535 fit")]
    FieldTooLong {
        /// The field.
        what: &'static str,
        /// Its bytes.
        bytes: usize,
    },
    /// The packet or its properties would have more than 268,435,455 bytes.
    #[error("{what} has {bytes} bytes, at most 268435455 fit")]
    TooLarge {
        /// The packet or its property block.
        what: &'static str,
        /// Bytes behind the length field.
        bytes: usize,
    },
    /// A PUBLISH with QoS 1 or 2 has no packet id.
    #[error("a publish with qos 1 or 2 has no packet id")]
    PacketIdMissing,
    /// A SUBSCRIBE or UNSUBSCRIBE without filters.
    #[error("no topic filters are given")]
    NoFilters,
    /// MQTT 3.1.1 can't carry a password without a user name.
    #[error("a password is given without a user name")]
    PasswordAlone,
    /// A subscription identifier is zero or above 268,435,455.
    #[error("the subscription identifier is {id}, allowed are 1 to 268435455")]
    SubscriptionId {
        /// The identifier.
        id: u32,
    },
}
