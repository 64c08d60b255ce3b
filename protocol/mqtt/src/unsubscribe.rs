//! UNSUBSCRIBE and UNSUBACK.

use crate::packet::Context;
use crate::properties::{Property, PropertyReader};
use crate::reader::Reader;
use crate::{DecodeError, PacketId, reason, topic};

/// A client ends subscriptions. Its user properties are checked, not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// For the UNSUBACK.
    pub packet_id: PacketId,
    /// The filters of those subscriptions, at least one; all are valid.
    pub filters: TopicFilterIter<'a>,
}

/// Walks the filters of an UNSUBSCRIBE; clone it to walk them again.
#[derive(Clone, Debug)]
pub struct TopicFilterIter<'a> {
    rest: Reader<'a>,
    count: usize,
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(
        context: Context<'_>,
        body: &mut Reader<'a>,
    ) -> Result<Unsubscribe<'a>, DecodeError> {
        let packet_id = context.packet_id(body)?;
        if context.is_v5() {
            let mut reader = PropertyReader::new(body, context.limits.user_properties_max)?;
            while let Some(property) = reader.next()? {
                match property {
                    Property::User(..) => {}
                    other => return Err(other.refused("UNSUBSCRIBE")),
                }
            }
        }
        let rest = *body;
        let mut count = 0;
        while !body.is_empty() {
            count += 1;
            if count > context.limits.filters_max {
                let limit = context.limits.filters_max;
                return Err(DecodeError::OverLimit { what: "topic filters", limit });
            }
            topic::read_filter(body, context)?;
        }
        if count == 0 {
            // [MQTT-3.10.3-2], [MQTT5-3.10.3-2]
            return Err(DecodeError::EmptyPayload { packet: context.packet });
        }
        Ok(Unsubscribe { packet_id, filters: TopicFilterIter { rest, count } })
    }
}

impl<'a> Iterator for TopicFilterIter<'a> {
    type Item = &'a str;

    /// All were checked when the packet was decoded, so an error here is the end.
    fn next(&mut self) -> Option<&'a str> {
        let filter = self.rest.text("topic filter").ok()?;
        self.count -= 1;
        Some(filter)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for TopicFilterIter<'_> {}

impl PartialEq for TopicFilterIter<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rest.rest() == other.rest.rest()
    }
}

impl Eq for TopicFilterIter<'_> {}

/// The server's answer to UNSUBSCRIBE. Its properties are checked, not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// The id of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// MQTT 5: a code for each filter in its order. 3.1.1: none.
    pub codes: &'a [u8],
}

impl<'a> UnsubAck<'a> {
    pub(crate) fn decode(context: Context<'_>, body: &mut Reader<'a>) -> Result<UnsubAck<'a>, DecodeError> {
        let packet_id = context.packet_id(body)?;
        if !context.is_v5() {
            context.end(body)?;
            return Ok(UnsubAck { packet_id, codes: &[] });
        }
        PropertyReader::new(body, context.limits.user_properties_max)?
            .finish_reasons(context.packet.name())?;
        let codes = body.rest();
        if codes.is_empty() {
            return Err(DecodeError::EmptyPayload { packet: context.packet });
        }
        for code in codes {
            reason::check(context.packet, context.limits.sender, *code)?;
        }
        Ok(UnsubAck { packet_id, codes })
    }
}
