//! The fixed header: where a packet ends, before its body is there.

use crate::{DecodeError, Limits, PacketType};

/// How long the packet is that begins at `bytes`, its header included; `Ok(None)` if more bytes are
/// needed to tell. Type, flags and length are checked, so that a hostile or oversized packet is
/// refused before its body is waited for.
pub fn frame_len(bytes: &[u8], limits: &Limits) -> Result<Option<usize>, DecodeError> {
    Ok(header(bytes, limits)?.map(|header| header.packet_len))
}

/// The fixed header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub packet: PacketType,
    /// The low four bits of the first byte; only PUBLISH has a choice.
    pub flags: u8,
    /// Bytes of the header itself, 2 to 5.
    pub header_len: usize,
    /// Bytes of the whole packet.
    pub packet_len: usize,
}

pub(crate) fn header(bytes: &[u8], limits: &Limits) -> Result<Option<Header>, DecodeError> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let packet =
        PacketType::from_number(first >> 4).ok_or(DecodeError::ReservedType { value: first >> 4 })?;
    let flags = first & 0b1111;
    check_flags(packet, flags)?;
    let Some((remaining, length_bytes)) = remaining_length(rest)? else { return Ok(None) };
    let packet_len = 1 + length_bytes + remaining;
    if packet_len > limits.packet_bytes_max {
        return Err(DecodeError::TooLarge { bytes: packet_len, limit: limits.packet_bytes_max });
    }
    Ok(Some(Header { packet, flags, header_len: 1 + length_bytes, packet_len }))
}

/// [MQTT-2.2.2-1], [MQTT-2.2.2-2], [MQTT5-2.1.3-1]: flags are as listed. In particular
/// [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1] and their twins of MQTT 5, and
/// [MQTT5-3.15.1-1].
fn check_flags(packet: PacketType, flags: u8) -> Result<(), DecodeError> {
    match packet {
        PacketType::Publish => crate::publish::check_flags(flags),
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe if flags == 0b0010 => Ok(()),
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => {
            Err(DecodeError::BadFlags { packet, flags })
        }
        _ if flags == 0 => Ok(()),
        _ => Err(DecodeError::BadFlags { packet, flags }),
    }
}

/// The remaining length and the bytes it takes. Longer forms than needed are accepted, see the
/// crate's header.
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((value, place + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(DecodeError::RemainingLength) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = Result<Option<usize>, DecodeError>;

    #[test]
    fn lengths_before_the_body_is_there() {
        let limits = Limits { packet_bytes_max: 2_097_157, ..Limits::default() };
        let cases: [(&[u8], Found); 12] = [
            (&[], Ok(None)),
            (&[0x30], Ok(None)),
            (&[0x30, 0x80], Ok(None)),
            (&[0x30, 0xff, 0xff, 0xff], Ok(None)),
            (&[0xc0, 0x00], Ok(Some(2))),
            (&[0x30, 0x7f], Ok(Some(129))),
            (&[0x30, 0x80, 0x01], Ok(Some(131))),
            (&[0x30, 0x80, 0x80, 0x80, 0x01], Ok(Some(2_097_157))),
            (&[0x30, 0x81, 0x00], Ok(Some(4))), // not the shortest form of 1
            (
                &[0x30, 0x81, 0x80, 0x80, 0x01],
                Err(DecodeError::TooLarge { bytes: 2_097_158, limit: 2_097_157 }),
            ),
            (&[0x30, 0xff, 0xff, 0xff, 0xff], Err(DecodeError::RemainingLength)),
            (&[0x00], Err(DecodeError::ReservedType { value: 0 })),
        ];
        for (bytes, expected) in cases {
            assert_eq!(frame_len(bytes, &limits), expected, "{bytes:?}");
        }
    }

    /// Every first byte: PUBLISH has ten flags to choose from, each other type one.
    #[test]
    fn first_bytes() {
        let accepted: Vec<u8> =
            (0..=255).filter(|first| frame_len(&[*first], &Limits::default()).is_ok()).collect();
        let expected = [
            0x10, 0x20, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3a, 0x3b, 0x3c, 0x3d, 0x40, 0x50, 0x62, 0x70,
            0x82, 0x90, 0xa2, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
        ];
        assert_eq!(accepted, expected);
    }
}
