//! Bytes of packets, put together by hand, so that the encoder isn't tested with itself.

use fleetline_mqtt::{DecodeError, Limits, Packet, Sender, Version, decode, frame_len};

pub fn limits_for(sender: Sender) -> Limits {
    Limits { sender, ..Limits::default() }
}

/// A packet whose body is `parts`, at most 16,383 bytes.
pub fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut bytes = vec![first];
    match u8::try_from(body.len()) {
        Ok(len @ 0..=0x7f) => bytes.push(len),
        _ => bytes.extend([(body.len() & 0x7f) as u8 | 0x80, (body.len() >> 7) as u8]),
    }
    bytes.extend(body);
    bytes
}

/// A string or binary data behind its length.
pub fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = text.as_ref();
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// A whole CONNECT with these flags; `parts` are what follows the keep alive.
pub fn connect(level: u8, flags: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    packet(0x10, &[&[0, 4], b"MQTT", &[level, flags, 0, 60], &body])
}

/// Frames and decodes bytes that are one packet. CONNECT is decoded as the first packet.
pub fn read<'a>(bytes: &'a [u8], version: Version, sender: Sender) -> Result<Packet<'a>, DecodeError> {
    let limits = limits_for(sender);
    let version = if bytes[0] >> 4 == 1 { None } else { Some(version) };
    assert_eq!(frame_len(bytes, &limits)?, Some(bytes.len()), "{bytes:02x?}");
    decode(bytes, version, &limits)
}
