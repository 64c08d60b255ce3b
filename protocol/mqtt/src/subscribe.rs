//! SUBSCRIBE and SUBACK.

use crate::packet::Context;
use crate::properties::{Property, PropertyReader};
use crate::reader::Reader;
use crate::{DecodeError, PacketId, QoS, reason, topic};

/// A client subscribes to filters. Its user properties are checked, not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// For the SUBACK.
    pub packet_id: PacketId,
    /// MQTT 5: a number, 1 to 268,435,455, that messages of these subscriptions are to carry.
    pub subscription_id: Option<u32>,
    /// What is subscribed to, at least one; all are valid.
    pub filters: FilterIter<'a>,
}

/// Walks the filters of a SUBSCRIBE with their options; clone it to walk them again.
#[derive(Clone, Debug)]
pub struct FilterIter<'a> {
    rest: Reader<'a>,
    count: usize,
}

/// How a client wants the messages of one subscription. On 3.1.1 only the QoS is its choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// The highest QoS to deliver with.
    pub qos: QoS,
    /// Not the client's own messages.
    pub no_local: bool,
    /// Messages keep their retain flag.
    pub retain_as_published: bool,
    /// Which retained messages to send at once.
    pub retain_handling: RetainHandling,
}

/// When a subscription gets the messages retained before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetainHandling {
    /// Always.
    #[default]
    Send = 0,
    /// If the subscription is new.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(context: Context<'_>, body: &mut Reader<'a>) -> Result<Subscribe<'a>, DecodeError> {
        let packet_id = context.packet_id(body)?;
        let subscription_id = if context.is_v5() { read_subscription_id(context, body)? } else { None };
        let rest = *body;
        let count = check_filters(context, body)?;
        Ok(Subscribe { packet_id, subscription_id, filters: FilterIter { rest, count } })
    }
}

fn read_subscription_id(context: Context<'_>, body: &mut Reader<'_>) -> Result<Option<u32>, DecodeError> {
    let mut found = None;
    let mut reader = PropertyReader::new(body, context.limits.user_properties_max)?;
    while let Some(property) = reader.next()? {
        match property {
            Property::SubscriptionId(_) if found.is_some() => {
                return Err(DecodeError::DuplicateProperty { property: property.name() });
            }
            Property::SubscriptionId(id) => found = Some(id),
            Property::User(..) => {}
            other => return Err(other.refused("SUBSCRIBE")),
        }
    }
    Ok(found)
}

/// Checks all filters and counts them.
fn check_filters(context: Context<'_>, body: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let mut count = 0;
    while !body.is_empty() {
        count += 1;
        if count > context.limits.filters_max {
            return Err(DecodeError::OverLimit { what: "topic filters", limit: context.limits.filters_max });
        }
        let (_, shared) = topic::read_filter(body, context)?;
        let byte = body.u8("subscribe options")?;
        let options = SubscribeOptions::read(byte, if context.is_v5() { 0b1100_0000 } else { 0b1111_1100 })?;
        if shared && options.no_local {
            return Err(DecodeError::NoLocalOnShared); // [MQTT5-3.8.3-4]
        }
    }
    if count == 0 {
        // [MQTT-3.8.3-3], [MQTT5-3.8.3-2]
        return Err(DecodeError::EmptyPayload { packet: context.packet });
    }
    Ok(count)
}

impl SubscribeOptions {
    /// Options with this QoS, else as 3.1.1 has them.
    pub fn with_qos(qos: QoS) -> SubscribeOptions {
        SubscribeOptions { qos, ..SubscribeOptions::default() }
    }

    /// [MQTT3-8.3-4], [MQTT5-3.8.3-5]: reserved bits are zero, QoS is 0, 1 or 2.
    fn read(byte: u8, reserved: u8) -> Result<SubscribeOptions, DecodeError> {
        if byte & reserved != 0 {
            return Err(DecodeError::SubscribeOptions { options: byte });
        }
        Ok(SubscribeOptions {
            qos: QoS::from_bits("the qos of a subscription", byte)?,
            no_local: byte & 0b100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling: match byte >> 4 & 0b11 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(DecodeError::RetainHandling), // section 3.8.3.1 of MQTT 5
            },
        })
    }

    /// The byte of MQTT 5; its two lowest bits are that of 3.1.1.
    pub(crate) fn byte(&self) -> u8 {
        self.qos.bits()
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }
}

impl<'a> Iterator for FilterIter<'a> {
    type Item = (&'a str, SubscribeOptions);

    /// All were checked when the packet was decoded, so an error here is the end.
    fn next(&mut self) -> Option<(&'a str, SubscribeOptions)> {
        let filter = self.rest.text("topic filter").ok()?;
        let byte = self.rest.u8("subscribe options").ok()?;
        let options = SubscribeOptions::read(byte, 0).ok()?;
        self.count -= 1;
        Some((filter, options))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for FilterIter<'_> {}

impl PartialEq for FilterIter<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rest.rest() == other.rest.rest()
    }
}

impl Eq for FilterIter<'_> {}

/// The server's answer to SUBSCRIBE. Its properties are checked, not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// The id of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// For each filter in its order: the QoS granted, or 0x80 and up for a failure.
    pub codes: &'a [u8],
}

impl<'a> SubAck<'a> {
    pub(crate) fn decode(context: Context<'_>, body: &mut Reader<'a>) -> Result<SubAck<'a>, DecodeError> {
        let packet_id = context.packet_id(body)?;
        if context.is_v5() {
            PropertyReader::new(body, context.limits.user_properties_max)?
                .finish_reasons(context.packet.name())?;
        }
        let codes = body.rest();
        if codes.is_empty() {
            return Err(DecodeError::EmptyPayload { packet: context.packet });
        }
        for code in codes {
            if context.is_v5() {
                reason::check(context.packet, context.limits.sender, *code)?;
            } else if !matches!(code, 0..=2 | 0x80) {
                // [MQTT-3.9.3-2]
                return Err(DecodeError::BadReason { packet: context.packet, value: *code });
            }
        }
        Ok(SubAck { packet_id, codes })
    }
}
