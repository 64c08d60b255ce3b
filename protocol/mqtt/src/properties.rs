//! The properties of MQTT 5 (section 2.2.2) as they stand in a packet.
//!
//! [`PropertyReader`] walks a block of them; each packet's file decides which it takes and refuses
//! the others with [`Property::refused`]. Values and repetitions are checked here, once for all
//! packets. Encoding writes the same identifiers.

use crate::reader::Reader;
use crate::{DecodeError, QoS};

/// One property with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property<'a> {
    PayloadFormat(u8),
    MessageExpiry(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionId(u32),
    SessionExpiry(u32),
    AssignedClientId(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelay(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQoS(QoS),
    RetainAvailable(bool),
    User(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardAvailable(bool),
    SubscriptionIdsAvailable(bool),
    SharedAvailable(bool),
}

/// Identifiers of table 2-4.
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_ID: u8 = 0x0b;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1a;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1c;
    pub(crate) const REASON_STRING: u8 = 0x1f;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const WILDCARD_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_AVAILABLE: u8 = 0x2a;
}

impl<'a> Property<'a> {
    /// The next property of a block that isn't empty.
    pub(crate) fn read(block: &mut Reader<'a>) -> Result<Property<'a>, DecodeError> {
        let number = block.varint("property identifier")?;
        // No identifier needs two bytes.
        let id = u8::try_from(number).map_err(|_| DecodeError::UnknownProperty { id: number })?;
        let name = name(id).ok_or(DecodeError::UnknownProperty { id: number })?;
        Ok(match id {
            id::PAYLOAD_FORMAT => Property::PayloadFormat(u8::from(flag(block, name)?)),
            id::MESSAGE_EXPIRY => Property::MessageExpiry(block.u32(name)?),
            id::CONTENT_TYPE => Property::ContentType(block.string(name)?),
            id::RESPONSE_TOPIC => Property::ResponseTopic(block.string(name)?),
            id::CORRELATION_DATA => Property::CorrelationData(block.binary(name)?),
            id::SUBSCRIPTION_ID => Property::SubscriptionId(not_zero(name, block.varint(name)?)?),
            id::SESSION_EXPIRY => Property::SessionExpiry(block.u32(name)?),
            id::ASSIGNED_CLIENT_ID => Property::AssignedClientId(block.string(name)?),
            id::SERVER_KEEP_ALIVE => Property::ServerKeepAlive(block.u16(name)?),
            id::AUTHENTICATION_METHOD => Property::AuthenticationMethod(block.string(name)?),
            id::AUTHENTICATION_DATA => Property::AuthenticationData(block.binary(name)?),
            id::REQUEST_PROBLEM_INFORMATION => Property::RequestProblemInformation(flag(block, name)?),
            id::WILL_DELAY => Property::WillDelay(block.u32(name)?),
            id::REQUEST_RESPONSE_INFORMATION => Property::RequestResponseInformation(flag(block, name)?),
            id::RESPONSE_INFORMATION => Property::ResponseInformation(block.string(name)?),
            id::SERVER_REFERENCE => Property::ServerReference(block.string(name)?),
            id::REASON_STRING => Property::ReasonString(block.string(name)?),
            id::RECEIVE_MAXIMUM => Property::ReceiveMaximum(not_zero(name, block.u16(name)?)?),
            id::TOPIC_ALIAS_MAXIMUM => Property::TopicAliasMaximum(block.u16(name)?),
            id::TOPIC_ALIAS => match block.u16(name)? {
                0 => return Err(DecodeError::TopicAliasZero), // [MQTT5-3.3.2-8]
                alias => Property::TopicAlias(alias),
            },
            id::MAXIMUM_QOS => Property::MaximumQoS(match flag(block, name)? {
                false => QoS::AtMostOnce,
                true => QoS::AtLeastOnce,
            }),
            id::RETAIN_AVAILABLE => Property::RetainAvailable(flag(block, name)?),
            id::USER => {
                let (key, value) = block.pair(name)?;
                Property::User(key, value)
            }
            id::MAXIMUM_PACKET_SIZE => Property::MaximumPacketSize(not_zero(name, block.u32(name)?)?),
            id::WILDCARD_AVAILABLE => Property::WildcardAvailable(flag(block, name)?),
            id::SUBSCRIPTION_IDS_AVAILABLE => Property::SubscriptionIdsAvailable(flag(block, name)?),
            id::SHARED_AVAILABLE => Property::SharedAvailable(flag(block, name)?),
            _ => return Err(DecodeError::UnknownProperty { id: number }),
        })
    }

    fn id(&self) -> u8 {
        match self {
            Property::PayloadFormat(_) => id::PAYLOAD_FORMAT,
            Property::MessageExpiry(_) => id::MESSAGE_EXPIRY,
            Property::ContentType(_) => id::CONTENT_TYPE,
            Property::ResponseTopic(_) => id::RESPONSE_TOPIC,
            Property::CorrelationData(_) => id::CORRELATION_DATA,
            Property::SubscriptionId(_) => id::SUBSCRIPTION_ID,
            Property::SessionExpiry(_) => id::SESSION_EXPIRY,
            Property::AssignedClientId(_) => id::ASSIGNED_CLIENT_ID,
            Property::ServerKeepAlive(_) => id::SERVER_KEEP_ALIVE,
            Property::AuthenticationMethod(_) => id::AUTHENTICATION_METHOD,
            Property::AuthenticationData(_) => id::AUTHENTICATION_DATA,
            Property::RequestProblemInformation(_) => id::REQUEST_PROBLEM_INFORMATION,
            Property::WillDelay(_) => id::WILL_DELAY,
            Property::RequestResponseInformation(_) => id::REQUEST_RESPONSE_INFORMATION,
            Property::ResponseInformation(_) => id::RESPONSE_INFORMATION,
            Property::ServerReference(_) => id::SERVER_REFERENCE,
            Property::ReasonString(_) => id::REASON_STRING,
            Property::ReceiveMaximum(_) => id::RECEIVE_MAXIMUM,
            Property::TopicAliasMaximum(_) => id::TOPIC_ALIAS_MAXIMUM,
            Property::TopicAlias(_) => id::TOPIC_ALIAS,
            Property::MaximumQoS(_) => id::MAXIMUM_QOS,
            Property::RetainAvailable(_) => id::RETAIN_AVAILABLE,
            Property::User(..) => id::USER,
            Property::MaximumPacketSize(_) => id::MAXIMUM_PACKET_SIZE,
            Property::WildcardAvailable(_) => id::WILDCARD_AVAILABLE,
            Property::SubscriptionIdsAvailable(_) => id::SUBSCRIPTION_IDS_AVAILABLE,
            Property::SharedAvailable(_) => id::SHARED_AVAILABLE,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        name(self.id()).unwrap_or_default()
    }

    /// The error for a property that the packet (or will) may not carry.
    pub(crate) fn refused(&self, packet: &'static str) -> DecodeError {
        DecodeError::PropertyNotAllowed { property: self.name(), packet }
    }
}

fn name(id: u8) -> Option<&'static str> {
    Some(match id {
        id::PAYLOAD_FORMAT => "payload format indicator",
        id::MESSAGE_EXPIRY => "message expiry interval",
        id::CONTENT_TYPE => "content type",
        id::RESPONSE_TOPIC => "response topic",
        id::CORRELATION_DATA => "correlation data",
        id::SUBSCRIPTION_ID => "subscription identifier",
        id::SESSION_EXPIRY => "session expiry interval",
        id::ASSIGNED_CLIENT_ID => "assigned client identifier",
        id::SERVER_KEEP_ALIVE => "server keep alive",
        id::AUTHENTICATION_METHOD => "authentication method",
        id::AUTHENTICATION_DATA => "authentication data",
        id::REQUEST_PROBLEM_INFORMATION => "request problem information",
        id::WILL_DELAY => "will delay interval",
        id::REQUEST_RESPONSE_INFORMATION => "request response information",
        id::RESPONSE_INFORMATION => "response information",
        id::SERVER_REFERENCE => "server reference",
        id::REASON_STRING => "reason string",
        id::RECEIVE_MAXIMUM => "receive maximum",
        id::TOPIC_ALIAS_MAXIMUM => "topic alias maximum",
        id::TOPIC_ALIAS => "topic alias",
        id::MAXIMUM_QOS => "maximum qos",
        id::RETAIN_AVAILABLE => "retain available",
        id::USER => "user property",
        id::MAXIMUM_PACKET_SIZE => "maximum packet size",
        id::WILDCARD_AVAILABLE => "wildcard subscription available",
        id::SUBSCRIPTION_IDS_AVAILABLE => "subscription identifiers available",
        id::SHARED_AVAILABLE => "shared subscription available",
        _ => return None,
    })
}

/// A byte that the standard gives a meaning for 0 and 1 only.
fn flag(block: &mut Reader<'_>, property: &'static str) -> Result<bool, DecodeError> {
    match block.u8(property)? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(DecodeError::PropertyValue { property, value: u32::from(value) }),
    }
}

/// A number for which the standard calls 0 a protocol error.
fn not_zero<T: Default + PartialEq>(property: &'static str, value: T) -> Result<T, DecodeError> {
    if value == T::default() {
        return Err(DecodeError::PropertyValue { property, value: 0 });
    }
    Ok(value)
}

/// Walks a property block and refuses what comes twice.
#[derive(Debug)]
pub(crate) struct PropertyReader<'a> {
    block: Reader<'a>,
    /// Bit `id` is set once the property came; identifiers are below 64.
    seen: u64,
    user_count: usize,
    user_count_max: usize,
}

impl<'a> PropertyReader<'a> {
    /// A reader of the block behind `body`'s next field, its length.
    pub(crate) fn new(
        body: &mut Reader<'a>,
        user_count_max: usize,
    ) -> Result<PropertyReader<'a>, DecodeError> {
        let block = body.block("properties")?;
        Ok(PropertyReader { block, seen: 0, user_count: 0, user_count_max })
    }

    /// The bytes of the properties that weren't read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.block.rest()
    }

    /// How many user properties were read.
    pub(crate) fn user_count(&self) -> usize {
        self.user_count
    }

    /// The next property.
    ///
    /// Sections 3.x.2 of MQTT 5: it is a protocol error to include any twice, except user
    /// properties and, in PUBLISH, subscription identifiers (SUBSCRIBE sees to its own).
    pub(crate) fn next(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        if self.block.is_empty() {
            return Ok(None);
        }
        let property = Property::read(&mut self.block)?;
        match property {
            Property::User(..) => {
                self.user_count += 1;
                if self.user_count > self.user_count_max {
                    return Err(DecodeError::OverLimit {
                        what: "user properties",
                        limit: self.user_count_max,
                    });
                }
            }
            Property::SubscriptionId(_) => {}
            _ => {
                let bit = 1 << property.id();
                if self.seen & bit != 0 {
                    return Err(DecodeError::DuplicateProperty { property: property.name() });
                }
                self.seen |= bit;
            }
        }
        Ok(Some(property))
    }

    /// Reads the rest of a block that may hold only a reason string and user properties.
    pub(crate) fn finish_reasons(mut self, packet: &'static str) -> Result<(), DecodeError> {
        while let Some(property) = self.next()? {
            match property {
                Property::ReasonString(_) | Property::User(..) => {}
                other => return Err(other.refused(packet)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(block: &[u8]) -> Result<usize, DecodeError> {
        let mut reader =
            PropertyReader { block: Reader::new(block), seen: 0, user_count: 0, user_count_max: 2 };
        let mut count = 0;
        while reader.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// Every identifier with a value of its type reads as the variant that knows its own number.
    #[test]
    fn identifiers_and_their_types() {
        let mut known = Vec::new();
        for number in 0..=0x7f_u8 {
            let values: [&[u8]; 5] = [&[0, 0, 0, 0], &[0, 0], &[1], &[0, 1], &[0, 0, 0, 1]];
            let read = values.iter().find_map(|value| {
                let bytes = [&[number], *value].concat();
                let mut block = Reader::new(&bytes);
                let property = Property::read(&mut block).ok()?;
                block.is_empty().then(|| property.id())
            });
            assert_eq!(name(number).is_some(), read.is_some(), "{number:#04x}");
            if let Some(id) = read {
                assert_eq!(id, number);
                known.push(number);
            }
        }
        assert_eq!(known.len(), 27);
    }

    #[test]
    fn values_and_repetitions() {
        let zero = |property| Err(DecodeError::PropertyValue { property, value: 0 });
        let twice = |property| Err(DecodeError::DuplicateProperty { property });
        let cases: [(&[u8], Result<usize, DecodeError>); 15] = [
            (&[], Ok(0)),
            (&[0x26, 0, 1, b'k', 0, 0, 0x26, 0, 1, b'k', 0, 0], Ok(2)),
            (
                &[0x26, 0, 0, 0, 0, 0x26, 0, 0, 0, 0, 0x26, 0, 0, 0, 0],
                Err(DecodeError::OverLimit { what: "user properties", limit: 2 }),
            ),
            (&[0x0b, 1, 0x0b, 2], Ok(2)),
            (&[0x0b, 0], zero("subscription identifier")),
            (&[0x21, 0, 0], zero("receive maximum")),
            (&[0x27, 0, 0, 0, 0], zero("maximum packet size")),
            (&[0x23, 0, 0], Err(DecodeError::TopicAliasZero)),
            (&[0x01, 2], Err(DecodeError::PropertyValue { property: "payload format indicator", value: 2 })),
            (&[0x24, 2], Err(DecodeError::PropertyValue { property: "maximum qos", value: 2 })),
            (&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1], twice("session expiry interval")),
            (&[0x2a, 1, 0x2a, 1], twice("shared subscription available")),
            (&[0x04, 0], Err(DecodeError::UnknownProperty { id: 4 })),
            (&[0x81, 0x02], Err(DecodeError::UnknownProperty { id: 257 })),
            (&[0x02, 0, 0, 0], Err(DecodeError::Truncated { what: "message expiry interval" })),
        ];
        for (block, expected) in cases {
            assert_eq!(walk(block), expected, "{block:?}");
        }
    }
}
