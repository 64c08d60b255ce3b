//! DISCONNECT, and MQTT 5's AUTH.

use crate::packet::{Context, Packet};
use crate::properties::{Property, PropertyReader};
use crate::reader::Reader;
use crate::{DecodeError, Sender, UserProperties, reason};

/// Decodes DISCONNECT. Reason string, server reference and user properties are checked, not kept.
pub(crate) fn decode<'a>(context: Context<'_>, body: &mut Reader<'a>) -> Result<Packet<'a>, DecodeError> {
    // MQTT 5, section 3.14.2.1: a normal disconnection may leave out code and properties.
    if !context.is_v5() || body.is_empty() {
        return Ok(Packet::Disconnect { reason: reason::SUCCESS, session_expiry: None });
    }
    let reason = body.u8("reason code")?;
    reason::check(context.packet, context.limits.sender, reason)?;
    let mut session_expiry = None;
    if !body.is_empty() {
        let mut reader = PropertyReader::new(body, context.limits.user_properties_max)?;
        while let Some(property) = reader.next()? {
            match property {
                // [MQTT5-3.14.2-2]: a server doesn't send it.
                Property::SessionExpiry(seconds) if context.limits.sender == Sender::Client => {
                    session_expiry = Some(seconds);
                }
                Property::ReasonString(_) | Property::ServerReference(_) | Property::User(..) => {}
                other => return Err(other.refused(context.packet.name())),
            }
        }
    }
    Ok(Packet::Disconnect { reason, session_expiry })
}

/// A step of an authentication that takes several (MQTT 5 section 4.12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auth<'a> {
    /// [`reason::CONTINUE_AUTHENTICATION`], [`reason::RE_AUTHENTICATE`] or, from servers,
    /// [`reason::SUCCESS`].
    pub reason: u8,
    /// The method, the one of CONNECT. Absent only in a success without properties.
    pub authentication_method: Option<&'a str>,
    /// What the method says next.
    pub authentication_data: Option<&'a [u8]>,
    /// Words for a person.
    pub reason_string: Option<&'a str>,
    /// The application's own.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    pub(crate) fn decode(context: Context<'_>, body: &mut Reader<'a>) -> Result<Auth<'a>, DecodeError> {
        // Section 3.15.2.1: a success may leave out code and properties.
        let empty = body.is_empty();
        let reason = if empty { reason::SUCCESS } else { body.u8("reason code")? };
        reason::check(context.packet, context.limits.sender, reason)?;
        let mut auth = Auth { reason, ..Auth::default() };
        if empty {
            return Ok(auth);
        }
        let mut reader = PropertyReader::new(body, context.limits.user_properties_max)?;
        let block = reader.rest();
        while let Some(property) = reader.next()? {
            match property {
                Property::AuthenticationMethod(method) => auth.authentication_method = Some(method),
                Property::AuthenticationData(data) => auth.authentication_data = Some(data),
                Property::ReasonString(text) => auth.reason_string = Some(text),
                Property::User(..) => {}
                other => return Err(other.refused(context.packet.name())),
            }
        }
        // Section 3.15.2.2.2: it is a protocol error to omit the method.
        if auth.authentication_method.is_none() {
            return Err(DecodeError::AuthMethodMissing { packet: context.packet });
        }
        auth.user_properties = UserProperties::of_block(block, reader.user_count());
        Ok(auth)
    }
}
