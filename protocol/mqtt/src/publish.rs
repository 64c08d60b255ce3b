//! PUBLISH: a message, from either side. The packet that all speed is about.

use crate::packet::Context;
use crate::properties::{Property, PropertyReader};
use crate::reader::Reader;
use crate::{DecodeError, Limits, PacketId, PacketType, QoS, Sender, SubscriptionIds, UserProperties, topic};

const DUP: u8 = 0b1000;
const RETAIN: u8 = 0b0001;

/// A message with what its delivery needs. Also what [`crate::encode::publish`] takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent again; never with QoS 0.
    pub dup: bool,
    /// How it is acknowledged.
    pub qos: QoS,
    /// To be kept for later subscribers, or kept from before.
    pub retain: bool,
    /// A valid topic name. Empty only if `properties.topic_alias` stands for it.
    pub topic: &'a str,
    /// There exactly if the QoS is 1 or 2.
    pub packet_id: Option<PacketId>,
    /// The message's bytes; may be empty.
    pub payload: &'a [u8],
    /// All absent on 3.1.1.
    pub properties: PublishProperties<'a>,
}

/// The properties that a message has, in PUBLISH or as a will. To forward a message to others, take
/// them over but for `topic_alias` and `subscription_ids`, which belong to one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// 1: the payload is text in UTF-8. 0 (or absent): bytes. Not checked against the payload.
    pub payload_format: Option<u8>,
    /// Seconds that the message lives.
    pub message_expiry: Option<u32>,
    /// Stands for a topic, 1 and up. Never in a will.
    pub topic_alias: Option<u16>,
    /// Where an answer should go; a valid topic name.
    pub response_topic: Option<&'a str>,
    /// By which the asker knows the answer.
    pub correlation_data: Option<&'a [u8]>,
    /// What the payload is, in the application's words.
    pub content_type: Option<&'a str>,
    /// The application's own; they are forwarded in order ([MQTT5-3.3.2-18]).
    pub user_properties: UserProperties<'a>,
    /// From servers: the identifiers of the subscriptions that matched. Never in a will.
    pub subscription_ids: SubscriptionIds<'a>,
}

/// The flags of the first byte, before the body is there.
pub(crate) fn check_flags(flags: u8) -> Result<(), DecodeError> {
    let qos = QoS::from_bits("the qos of a publish", flags >> 1)?; // [MQTT-3.3.1-4], [MQTT5-3.3.1-4]
    if qos == QoS::AtMostOnce && flags & DUP != 0 {
        return Err(DecodeError::DupAtMostOnce); // [MQTT-3.3.1-2], [MQTT5-3.3.1-2]
    }
    Ok(())
}

impl<'a> Publish<'a> {
    pub(crate) fn decode(
        context: Context<'_>,
        flags: u8,
        body: &mut Reader<'a>,
    ) -> Result<Publish<'a>, DecodeError> {
        let qos = QoS::from_bits("the qos of a publish", flags >> 1)?;
        // [MQTT-3.3.2-1], [MQTT5-3.3.2-1]: the topic comes first.
        let topic = read_topic(context, body)?;
        // [MQTT-2.3.1-5], [MQTT5-2.2.1-2]: with QoS 0 there is no packet id.
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => Some(context.packet_id(body)?),
        };
        let properties = if context.is_v5() {
            PublishProperties::decode(body, context.limits)?
        } else {
            PublishProperties::default()
        };
        if topic.is_empty() && properties.topic_alias.is_none() {
            return Err(DecodeError::TopicMissing); // section 3.3.2.1 of MQTT 5
        }
        Ok(Publish {
            dup: flags & DUP != 0,
            qos,
            retain: flags & RETAIN != 0,
            topic,
            packet_id,
            payload: body.rest(),
            properties,
        })
    }

    /// The first byte of the packet.
    pub(crate) fn first_byte(&self) -> u8 {
        let dup = self.dup && self.qos != QoS::AtMostOnce; // [MQTT-3.3.1-2], [MQTT5-3.3.1-2]
        (PacketType::Publish as u8) << 4
            | if dup { DUP } else { 0 }
            | self.qos.bits() << 1
            | if self.retain { RETAIN } else { 0 }
    }
}

/// The topic: on MQTT 5 it may be empty, if an alias stands for it.
fn read_topic<'a>(context: Context<'_>, body: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    if context.is_v5() && body.rest().starts_with(&[0, 0]) {
        return body.text("topic");
    }
    topic::read_name(body, "topic", context.limits)
}

impl<'a> PublishProperties<'a> {
    fn decode(body: &mut Reader<'a>, limits: &Limits) -> Result<PublishProperties<'a>, DecodeError> {
        let mut found = PublishProperties::default();
        let mut reader = PropertyReader::new(body, limits.user_properties_max)?;
        let block = reader.rest();
        if block.is_empty() {
            return Ok(found);
        }
        let mut subscription_count = 0;
        while let Some(property) = reader.next()? {
            match property {
                Property::TopicAlias(alias) => found.topic_alias = Some(alias),
                // [MQTT5-3.3.4-6]: a client doesn't send one.
                Property::SubscriptionId(_) if limits.sender == Sender::Server => subscription_count += 1,
                other => found.take(other, "PUBLISH", limits)?,
            }
        }
        found.user_properties = UserProperties::of_block(block, reader.user_count());
        found.subscription_ids = SubscriptionIds::of_block(block, subscription_count);
        Ok(found)
    }

    /// Takes a property that PUBLISH and wills have in common. User properties are left to the
    /// caller, who has the whole block.
    pub(crate) fn take(
        &mut self,
        property: Property<'a>,
        packet: &'static str,
        limits: &Limits,
    ) -> Result<(), DecodeError> {
        match property {
            Property::PayloadFormat(format) => self.payload_format = Some(format),
            Property::MessageExpiry(seconds) => self.message_expiry = Some(seconds),
            Property::ResponseTopic(topic) => {
                topic::check_name("response topic", topic, limits)?; // [MQTT5-3.3.2-14]
                self.response_topic = Some(topic);
            }
            Property::CorrelationData(data) => self.correlation_data = Some(data),
            Property::ContentType(text) => self.content_type = Some(text),
            Property::User(..) => {}
            other => return Err(other.refused(packet)),
        }
        Ok(())
    }
}
