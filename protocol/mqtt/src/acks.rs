//! PUBACK, PUBREC, PUBREL and PUBCOMP: four packets of one form.

use crate::packet::Context;
use crate::properties::PropertyReader;
use crate::reader::Reader;
use crate::{DecodeError, PacketId, reason};

/// An acknowledgement of a PUBLISH. Its reason string and user properties are checked, not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The id of the PUBLISH.
    pub packet_id: PacketId,
    /// The reason code; 0 on 3.1.1.
    pub reason: u8,
}

impl Ack {
    pub(crate) fn decode(context: Context<'_>, body: &mut Reader<'_>) -> Result<Ack, DecodeError> {
        let packet_id = context.packet_id(body)?;
        // MQTT 5, sections 3.4.2.1 and 3.4.2.2.1: a success may leave out the code, and any may leave
        // out the properties.
        if !context.is_v5() || body.is_empty() {
            return Ok(Ack { packet_id, reason: reason::SUCCESS });
        }
        let reason = body.u8("reason code")?;
        reason::check(context.packet, context.limits.sender, reason)?;
        if !body.is_empty() {
            PropertyReader::new(body, context.limits.user_properties_max)?
                .finish_reasons(context.packet.name())?;
        }
        Ok(Ack { packet_id, reason })
    }
}
