//! Packets that only a client sends.

use super::writer::{frame, properties, put_binary, put_string};
use crate::properties::id;
use crate::{Connect, ConnectProperties, EncodeError, PacketId, PacketType, SubscribeOptions, Version, Will};

/// CONNECT, of the version that it holds. On 3.1.1 the properties are left out.
pub fn connect(out: &mut Vec<u8>, connect: &Connect<'_>) -> Result<(), EncodeError> {
    let v5 = connect.version == Version::V5;
    if !v5 && connect.password.is_some() && connect.username.is_none() {
        return Err(EncodeError::PasswordAlone); // [MQTT-3.1.2-22]
    }
    frame(out, PacketType::Connect, |out| {
        put_string(out, "protocol name", "MQTT")?;
        out.extend_from_slice(&[connect.version.level(), connect.flags()]);
        out.extend_from_slice(&connect.keep_alive.to_be_bytes());
        if v5 {
            properties::block(out, |out| connect_properties(out, &connect.properties))?;
        }
        put_string(out, "client id", connect.client_id)?;
        if let Some(will) = &connect.will {
            if v5 {
                properties::block(out, |out| will_properties(out, will))?;
            }
            put_string(out, "will topic", will.topic)?;
            put_binary(out, "will payload", will.payload)?;
        }
        if let Some(username) = connect.username {
            put_string(out, "user name", username)?;
        }
        if let Some(password) = connect.password {
            put_binary(out, "password", password)?;
        }
        Ok(())
    })
}

/// What differs from the standard's defaults.
fn connect_properties(out: &mut Vec<u8>, found: &ConnectProperties<'_>) -> Result<(), EncodeError> {
    let default = ConnectProperties::default();
    let changed = |value, default| if value == default { None } else { Some(value) };
    let expiry = found.session_expiry;
    properties::u32(out, id::SESSION_EXPIRY, (expiry != default.session_expiry).then_some(expiry));
    properties::u16(out, id::RECEIVE_MAXIMUM, changed(found.receive_maximum, default.receive_maximum));
    properties::u32(out, id::MAXIMUM_PACKET_SIZE, found.maximum_packet_size);
    let alias = found.topic_alias_maximum;
    properties::u16(out, id::TOPIC_ALIAS_MAXIMUM, changed(alias, default.topic_alias_maximum));
    let no_problems = (!found.request_problem_information).then_some(false);
    properties::flag(out, id::REQUEST_PROBLEM_INFORMATION, no_problems);
    let responses = found.request_response_information.then_some(true);
    properties::flag(out, id::REQUEST_RESPONSE_INFORMATION, responses);
    properties::authentication(out, found.authentication_method, found.authentication_data)?;
    properties::user(out, &found.user_properties)
}

/// A will has no topic alias and no subscription identifiers: those are left out.
fn will_properties(out: &mut Vec<u8>, will: &Will<'_>) -> Result<(), EncodeError> {
    properties::u32(out, id::WILL_DELAY, (will.delay > 0).then_some(will.delay));
    let mut own = will.properties;
    own.topic_alias = None;
    own.subscription_ids = Default::default();
    own.write(out)
}

/// SUBSCRIBE. On 3.1.1 the subscription identifier and all options but the QoS are left out.
pub fn subscribe(
    out: &mut Vec<u8>,
    version: Version,
    id: PacketId,
    subscription_id: Option<u32>,
    filters: &[(&str, SubscribeOptions)],
) -> Result<(), EncodeError> {
    if filters.is_empty() {
        return Err(EncodeError::NoFilters); // [MQTT-3.8.3-3], [MQTT5-3.8.3-2]
    }
    frame(out, PacketType::Subscribe, |out| {
        out.extend_from_slice(&id.get().to_be_bytes());
        if version == Version::V5 {
            properties::block(out, |out| {
                subscription_id.map_or(Ok(()), |id| properties::subscription_id(out, id))
            })?;
        }
        for (filter, options) in filters {
            put_string(out, "topic filter", filter)?;
            out.push(match version {
                Version::V311 => options.qos.bits(),
                Version::V5 => options.byte(),
            });
        }
        Ok(())
    })
}

/// UNSUBSCRIBE.
pub fn unsubscribe(
    out: &mut Vec<u8>,
    version: Version,
    id: PacketId,
    filters: &[&str],
) -> Result<(), EncodeError> {
    if filters.is_empty() {
        return Err(EncodeError::NoFilters); // [MQTT-3.10.3-2], [MQTT5-3.10.3-2]
    }
    frame(out, PacketType::Unsubscribe, |out| {
        out.extend_from_slice(&id.get().to_be_bytes());
        if version == Version::V5 {
            out.push(0); // no properties
        }
        filters.iter().try_for_each(|filter| put_string(out, "topic filter", filter))
    })
}

/// PINGREQ.
pub fn pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingReq.first_byte(), 0]);
}
