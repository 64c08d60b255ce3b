//! The parts that packets are written from.

use super::REMAINING_MAX;
use crate::{EncodeError, PacketType};

/// Bytes of the longest variable byte integer.
const VARINT_BYTES_MAX: usize = 4;

/// One packet whose length is known when its body is written. On an error `out` is as before.
pub(super) fn frame(
    out: &mut Vec<u8>,
    packet: PacketType,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(packet.first_byte());
    let done = with_length(out, packet.name(), body);
    if done.is_err() {
        out.truncate(start);
    }
    done
}

/// What `body` writes, behind its length.
fn with_length(
    out: &mut Vec<u8>,
    what: &'static str,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    let body_start = start + VARINT_BYTES_MAX;
    out.resize(body_start, 0);
    body(out)?;
    let len = out.len() - body_start;
    if len > REMAINING_MAX {
        return Err(EncodeError::TooLarge { what, bytes: len });
    }
    let length_bytes = varint_len(len);
    out.copy_within(body_start.., start + length_bytes);
    out.truncate(start + length_bytes + len);
    let mut rest = len;
    for (place, byte) in out[start..start + length_bytes].iter_mut().enumerate() {
        let more = if place + 1 < length_bytes { 0x80 } else { 0 };
        *byte = (rest & 0x7f) as u8 | more;
        rest >>= 7;
    }
    Ok(())
}

/// Bytes of a variable byte integer.
pub(super) fn varint_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// A variable byte integer, at most [`REMAINING_MAX`].
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_string(out: &mut Vec<u8>, what: &'static str, text: &str) -> Result<(), EncodeError> {
    put_binary(out, what, text.as_bytes())
}

pub(super) fn put_binary(out: &mut Vec<u8>, what: &'static str, data: &[u8]) -> Result<(), EncodeError> {
    let len = u16::try_from(data.len()).map_err(|_| EncodeError::FieldTooLong { what, bytes: data.len() })?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(data);
    Ok(())
}

/// Properties of MQTT 5; what is absent is left out.
pub(super) mod properties {
    use super::{put_binary, put_string, put_varint, with_length};
    use crate::encode::REMAINING_MAX;
    use crate::properties::id;
    use crate::{EncodeError, UserProperties};

    /// A property block behind its length.
    pub(in crate::encode) fn block(
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        with_length(out, "properties", write)
    }

    pub(in crate::encode) fn flag(out: &mut Vec<u8>, id: u8, value: Option<bool>) {
        if let Some(value) = value {
            out.extend_from_slice(&[id, u8::from(value)]);
        }
    }

    pub(in crate::encode) fn u16(out: &mut Vec<u8>, id: u8, value: Option<u16>) {
        if let Some(value) = value {
            out.push(id);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }

    pub(in crate::encode) fn u32(out: &mut Vec<u8>, id: u8, value: Option<u32>) {
        if let Some(value) = value {
            out.push(id);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }

    pub(in crate::encode) fn string(
        out: &mut Vec<u8>,
        id: u8,
        what: &'static str,
        value: Option<&str>,
    ) -> Result<(), EncodeError> {
        binary(out, id, what, value.map(str::as_bytes))
    }

    pub(in crate::encode) fn binary(
        out: &mut Vec<u8>,
        id: u8,
        what: &'static str,
        value: Option<&[u8]>,
    ) -> Result<(), EncodeError> {
        let Some(value) = value else { return Ok(()) };
        out.push(id);
        put_binary(out, what, value)
    }

    pub(in crate::encode) fn authentication(
        out: &mut Vec<u8>,
        method: Option<&str>,
        data: Option<&[u8]>,
    ) -> Result<(), EncodeError> {
        string(out, id::AUTHENTICATION_METHOD, "authentication method", method)?;
        binary(out, id::AUTHENTICATION_DATA, "authentication data", data)
    }

    /// A subscription identifier, which can't be zero.
    pub(in crate::encode) fn subscription_id(out: &mut Vec<u8>, value: u32) -> Result<(), EncodeError> {
        if value == 0 || value as usize > REMAINING_MAX {
            return Err(EncodeError::SubscriptionId { id: value });
        }
        out.push(id::SUBSCRIPTION_ID);
        put_varint(out, value as usize);
        Ok(())
    }

    pub(in crate::encode) fn user(
        out: &mut Vec<u8>,
        properties: &UserProperties<'_>,
    ) -> Result<(), EncodeError> {
        for (name, value) in properties.iter() {
            out.push(id::USER);
            put_string(out, "user property name", name)?;
            put_string(out, "user property value", value)?;
        }
        Ok(())
    }
}
