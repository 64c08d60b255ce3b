//! Frames: their header, and where the next one ends (part 2, 2.3).
//!
//! ```text
//!  0        4     5     6          8
//!  ┌────────┬─────┬─────┬──────────┬─────────────────┬───────────────────────────
//!  │ size   │doff │type │ channel  │ extended header │ performative · payload
//!  └────────┴─────┴─────┴──────────┴─────────────────┴───────────────────────────
//!   big-endian · size counts itself · doff in words of four bytes · type 0 AMQP, 1 SASL
//! ```
//!
//! [`frame_len`] believes a size only up to the bound that the caller gives, so a caller buffers no more
//! than that.

use crate::error::FrameError;

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 8;
/// Every peer takes frames of this size (2.8.1).
pub const MIN_MAX_FRAME_SIZE: u32 = 512;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    /// A performative of a connection.
    Amqp,
    /// A performative of the security layer.
    Sasl,
}

/// A whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it holds.
    pub kind: FrameType,
    /// Its channel; without meaning in SASL.
    pub channel: u16,
    /// Behind the headers; empty in a frame that only says that its sender is there.
    pub body: &'a [u8],
}

/// How long the frame is that `input` begins with; `None` until that can be said.
///
/// # Errors
/// [`FrameError::Size`] as soon as the size is there.
pub fn frame_len(input: &[u8], max: u32) -> Result<Option<usize>, FrameError> {
    let Some(size) = input.first_chunk::<4>() else { return Ok(None) };
    let size = u32::from_be_bytes(*size);
    if (size as usize) < HEADER_BYTES || size > max {
        return Err(FrameError::Size(size));
    }
    Ok(Some(size as usize))
}

/// Reads a frame that [`frame_len`] has measured.
///
/// # Errors
/// [`FrameError`].
pub fn read_frame(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let Some(&[_, _, _, _, doff, kind, high, low]) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(FrameError::Size(bytes.len() as u32));
    };
    let start = usize::from(doff) * 4;
    if start < HEADER_BYTES {
        return Err(FrameError::Offset(doff));
    }
    let body = bytes.get(start..).ok_or(FrameError::Offset(doff))?;
    let kind = match kind {
        0 => FrameType::Amqp,
        1 => FrameType::Sasl,
        other => return Err(FrameError::Type(other)),
    };
    Ok(Frame { kind, channel: u16::from_be_bytes([high, low]), body })
}

/// Begins a frame; [`finish_frame`] gives it its size.
pub fn begin_frame(out: &mut Vec<u8>, kind: FrameType, channel: u16) -> usize {
    let start = out.len();
    let [high, low] = channel.to_be_bytes();
    out.extend_from_slice(&[0, 0, 0, 0, 2, u8::from(kind == FrameType::Sasl), high, low]);
    start
}

/// Gives the frame that began at `start` its size.
pub fn finish_frame(out: &mut [u8], start: usize) {
    let size = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// The header of a protocol: what a connection begins with (2.2, 5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// AMQP itself.
    Amqp,
    /// The security layer.
    Sasl,
}

/// Bytes of a protocol's header.
pub const PROTOCOL_BYTES: usize = 8;

impl Protocol {
    /// Its header.
    pub fn header(self) -> [u8; PROTOCOL_BYTES] {
        let id = if self == Protocol::Sasl { 3 } else { 0 };
        [b'A', b'M', b'Q', b'P', id, 1, 0, 0]
    }

    /// The protocol of a header; `None` for one that isn't spoken here.
    pub fn of(header: &[u8; PROTOCOL_BYTES]) -> Option<Protocol> {
        [Protocol::Amqp, Protocol::Sasl].into_iter().find(|known| known.header() == *header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes 0 to 7 and those above the bound are refused before anything is buffered.
    #[test]
    fn sizes() {
        for size in 0..8u32 {
            assert_eq!(frame_len(&size.to_be_bytes(), 512), Err(FrameError::Size(size)));
        }
        assert_eq!(frame_len(&8u32.to_be_bytes(), 512), Ok(Some(8)));
        assert_eq!(frame_len(&512u32.to_be_bytes(), 512), Ok(Some(512)));
        assert_eq!(frame_len(&513u32.to_be_bytes(), 512), Err(FrameError::Size(513)));
        assert_eq!(frame_len(&[0, 0, 2], 512), Ok(None));
    }

    /// An extended header is skipped; an offset beyond either end is refused.
    #[test]
    fn offsets() {
        let frame = |doff: u8| [0, 0, 0, 12, doff, 0, 0, 7, 1, 2, 3, 4];
        assert_eq!(read_frame(&frame(2)).unwrap().body, [1, 2, 3, 4]);
        assert_eq!(read_frame(&frame(3)).unwrap().body, [0; 0]);
        assert_eq!(read_frame(&frame(3)).unwrap().channel, 7);
        for doff in [0, 1, 4, 255] {
            assert_eq!(read_frame(&frame(doff)), Err(FrameError::Offset(doff)));
        }
        assert_eq!(read_frame(&[0, 0, 0, 8, 2, 2, 0, 0]), Err(FrameError::Type(2)));
    }
}
