//! Reason codes of MQTT 5 (section 2.4) and return codes of MQTT 3.1.1's CONNACK (section 3.2.2.3).
//!
//! Also which codes each packet may carry: decoding refuses others.

use crate::{DecodeError, PacketType, Sender};

/// Success; also normal disconnection and granted QoS 0.
pub const SUCCESS: u8 = 0x00;
/// SUBACK: granted QoS 1.
pub const GRANTED_QOS_1: u8 = 0x01;
/// SUBACK: granted QoS 2.
pub const GRANTED_QOS_2: u8 = 0x02;
/// DISCONNECT: the client leaves, but its will is to be published.
pub const DISCONNECT_WITH_WILL: u8 = 0x04;
/// PUBACK, PUBREC: accepted, but nobody has subscribed.
pub const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
/// UNSUBACK: there was no such subscription.
pub const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
/// AUTH: the exchange goes on.
pub const CONTINUE_AUTHENTICATION: u8 = 0x18;
/// AUTH: the client begins another exchange.
pub const RE_AUTHENTICATE: u8 = 0x19;
/// The sender doesn't say why. Also the failure code of a 3.1.1 SUBACK.
pub const UNSPECIFIED_ERROR: u8 = 0x80;
/// A packet can't be parsed.
pub const MALFORMED_PACKET: u8 = 0x81;
/// A packet breaks a rule or came at the wrong time.
pub const PROTOCOL_ERROR: u8 = 0x82;
/// Valid, but not processed by this implementation.
pub const IMPLEMENTATION_SPECIFIC_ERROR: u8 = 0x83;
/// CONNACK: another protocol or version.
pub const UNSUPPORTED_PROTOCOL_VERSION: u8 = 0x84;
/// CONNACK: the client id isn't allowed.
pub const CLIENT_IDENTIFIER_NOT_VALID: u8 = 0x85;
/// CONNACK: user name or password is wrong.
pub const BAD_USER_NAME_OR_PASSWORD: u8 = 0x86;
/// The client may not do this.
pub const NOT_AUTHORIZED: u8 = 0x87;
/// CONNACK: the server is not available.
pub const SERVER_UNAVAILABLE: u8 = 0x88;
/// The server is busy, try again later.
pub const SERVER_BUSY: u8 = 0x89;
/// CONNACK: the client was shut out by an operator.
pub const BANNED: u8 = 0x8a;
/// DISCONNECT: the server stops.
pub const SERVER_SHUTTING_DOWN: u8 = 0x8b;
/// CONNACK, DISCONNECT: the authentication method isn't supported or isn't that of before.
pub const BAD_AUTHENTICATION_METHOD: u8 = 0x8c;
/// DISCONNECT: nothing came for one and a half times the keep alive.
pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8d;
/// DISCONNECT: another connection uses the same client id.
pub const SESSION_TAKEN_OVER: u8 = 0x8e;
/// The topic filter is well formed, but not accepted.
pub const TOPIC_FILTER_INVALID: u8 = 0x8f;
/// The topic name is well formed, but not accepted.
pub const TOPIC_NAME_INVALID: u8 = 0x90;
/// The packet id is in use.
pub const PACKET_IDENTIFIER_IN_USE: u8 = 0x91;
/// PUBREL, PUBCOMP: the packet id isn't known.
pub const PACKET_IDENTIFIER_NOT_FOUND: u8 = 0x92;
/// DISCONNECT: more messages in flight than the receive maximum.
pub const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
/// DISCONNECT: a topic alias of zero, above the maximum, or without a topic.
pub const TOPIC_ALIAS_INVALID: u8 = 0x94;
/// The packet is above the maximum packet size.
pub const PACKET_TOO_LARGE: u8 = 0x95;
/// DISCONNECT: messages come too fast.
pub const MESSAGE_RATE_TOO_HIGH: u8 = 0x96;
/// A limit set by the implementation or an operator is exceeded.
pub const QUOTA_EXCEEDED: u8 = 0x97;
/// DISCONNECT: an operator closed the connection.
pub const ADMINISTRATIVE_ACTION: u8 = 0x98;
/// The payload isn't of the format that the message states.
pub const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
/// Retained messages aren't supported.
pub const RETAIN_NOT_SUPPORTED: u8 = 0x9a;
/// The QoS isn't supported.
pub const QOS_NOT_SUPPORTED: u8 = 0x9b;
/// Use another server, for now.
pub const USE_ANOTHER_SERVER: u8 = 0x9c;
/// Use another server, from now on.
pub const SERVER_MOVED: u8 = 0x9d;
/// Shared subscriptions aren't supported.
pub const SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: u8 = 0x9e;
/// Connections are opened too fast.
pub const CONNECTION_RATE_EXCEEDED: u8 = 0x9f;
/// DISCONNECT: the longest time for a connection is over.
pub const MAXIMUM_CONNECT_TIME: u8 = 0xa0;
/// Subscription identifiers aren't supported.
pub const SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: u8 = 0xa1;
/// Wildcards in filters aren't supported.
pub const WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: u8 = 0xa2;

/// 3.1.1 CONNACK: accepted.
pub const V311_ACCEPTED: u8 = 0;
/// 3.1.1 CONNACK: unacceptable protocol version.
pub const V311_UNACCEPTABLE_PROTOCOL_VERSION: u8 = 1;
/// 3.1.1 CONNACK: identifier rejected.
pub const V311_IDENTIFIER_REJECTED: u8 = 2;
/// 3.1.1 CONNACK: server unavailable.
pub const V311_SERVER_UNAVAILABLE: u8 = 3;
/// 3.1.1 CONNACK: bad user name or password.
pub const V311_BAD_USER_NAME_OR_PASSWORD: u8 = 4;
/// 3.1.1 CONNACK: not authorized.
pub const V311_NOT_AUTHORIZED: u8 = 5;

/// The 3.1.1 CONNACK return code for an MQTT 5 reason code. `None`: 3.1.1 has no code for it and the
/// connection is closed without CONNACK ([MQTT-3.1.4-1], [MQTT-3.2.2-6]).
pub fn connack_v311(code: u8) -> Option<u8> {
    match code {
        SUCCESS => Some(V311_ACCEPTED),
        UNSUPPORTED_PROTOCOL_VERSION => Some(V311_UNACCEPTABLE_PROTOCOL_VERSION),
        CLIENT_IDENTIFIER_NOT_VALID => Some(V311_IDENTIFIER_REJECTED),
        UNSPECIFIED_ERROR
        | IMPLEMENTATION_SPECIFIC_ERROR
        | SERVER_UNAVAILABLE
        | SERVER_BUSY
        | QUOTA_EXCEEDED
        | USE_ANOTHER_SERVER
        | SERVER_MOVED
        | CONNECTION_RATE_EXCEEDED => Some(V311_SERVER_UNAVAILABLE),
        BAD_USER_NAME_OR_PASSWORD | BAD_AUTHENTICATION_METHOD => Some(V311_BAD_USER_NAME_OR_PASSWORD),
        NOT_AUTHORIZED | BANNED => Some(V311_NOT_AUTHORIZED),
        _ => None,
    }
}

/// Whether a code says that something failed (MQTT 5 section 2.4).
pub fn is_failure(code: u8) -> bool {
    code >= 0x80
}

/// Refuses a code that the MQTT 5 packet can't carry, or not from this side.
pub(crate) fn check(packet: PacketType, sender: Sender, code: u8) -> Result<(), DecodeError> {
    let allowed = match packet {
        // [MQTT5-3.2.2-8], table 3-1
        PacketType::ConnAck => {
            matches!(code, 0x00 | 0x80..=0x8a | 0x8c | 0x90 | 0x95 | 0x97 | 0x99..=0x9d | 0x9f)
        }
        // [MQTT5-3.4.2-1], [MQTT5-3.5.2-1]
        PacketType::PubAck | PacketType::PubRec => {
            matches!(code, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
        }
        // [MQTT5-3.6.2-1], [MQTT5-3.7.2-1]
        PacketType::PubRel | PacketType::PubComp => matches!(code, 0x00 | 0x92),
        // [MQTT5-3.9.3-2]
        PacketType::SubAck => {
            matches!(code, 0x00..=0x02 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91 | 0x97 | 0x9e | 0xa1 | 0xa2)
        }
        // [MQTT5-3.11.3-2]
        PacketType::UnsubAck => matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91),
        PacketType::Disconnect => disconnect(sender, code),
        // [MQTT5-3.15.2-1]: only a client begins again, only a server says that it was a success.
        PacketType::Auth => match sender {
            Sender::Client => matches!(code, CONTINUE_AUTHENTICATION | RE_AUTHENTICATE),
            Sender::Server => matches!(code, SUCCESS | CONTINUE_AUTHENTICATION),
        },
        PacketType::Connect
        | PacketType::Publish
        | PacketType::Subscribe
        | PacketType::Unsubscribe
        | PacketType::PingReq
        | PacketType::PingResp => true,
    };
    if allowed { Ok(()) } else { Err(DecodeError::BadReason { packet, value: code }) }
}

/// [MQTT5-3.14.2-1], the column "sent by" of table 3-10.
fn disconnect(sender: Sender, code: u8) -> bool {
    match sender {
        Sender::Client => {
            matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
        }
        Sender::Server => {
            matches!(code, 0x00 | 0x80..=0x83 | 0x87 | 0x89 | 0x8b..=0x90 | 0x93..=0xa2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_3_1_1() {
        let cases = [
            (SUCCESS, Some(0)),
            (UNSUPPORTED_PROTOCOL_VERSION, Some(1)),
            (CLIENT_IDENTIFIER_NOT_VALID, Some(2)),
            (SERVER_BUSY, Some(3)),
            (QUOTA_EXCEEDED, Some(3)),
            (BAD_USER_NAME_OR_PASSWORD, Some(4)),
            (NOT_AUTHORIZED, Some(5)),
            (BANNED, Some(5)),
            (MALFORMED_PACKET, None),
            (PROTOCOL_ERROR, None),
            (PACKET_TOO_LARGE, None),
        ];
        for (code, expected) in cases {
            assert_eq!(connack_v311(code), expected, "{code:#04x}");
        }
    }

    #[test]
    fn codes_that_one_side_may_not_send() {
        use PacketType::{Auth, Disconnect, PubAck};
        let cases = [
            (Disconnect, Sender::Client, DISCONNECT_WITH_WILL, true),
            (Disconnect, Sender::Server, DISCONNECT_WITH_WILL, false),
            (Disconnect, Sender::Client, SERVER_SHUTTING_DOWN, false),
            (Disconnect, Sender::Server, SERVER_SHUTTING_DOWN, true),
            (Disconnect, Sender::Server, UNSUPPORTED_PROTOCOL_VERSION, false),
            (Auth, Sender::Client, RE_AUTHENTICATE, true),
            (Auth, Sender::Server, RE_AUTHENTICATE, false),
            (Auth, Sender::Client, SUCCESS, false),
            (PubAck, Sender::Client, PACKET_IDENTIFIER_NOT_FOUND, false),
        ];
        for (packet, sender, code, expected) in cases {
            assert_eq!(check(packet, sender, code).is_ok(), expected, "{packet} {code:#04x} of {sender:?}");
        }
    }
}
