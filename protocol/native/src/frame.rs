//! Frames: how heads and bodies lie on a QUIC stream, and the decoder that takes them apart.
//!
//! ```text
//!  0          4      5             9                  9 + head_len        4 + len
//!  ├──────────┼──────┼─────────────┼──────────────────┼───────────────────┤
//!  │ len  u32 │ kind │ head_len u32│ head (prost)     │ body (raw bytes)  │     little endian
//!  └──────────┴──────┴─────────────┴──────────────────┴───────────────────┘
//!             └────────────────────── len bytes ──────────────────────────┘
//! ```
//!
//! Called by the stream loops of `broker/gateway` and by `client/service`, with whatever portions
//! the network gave. Invariants:
//! 1. The frames that come out do not depend on how the bytes were cut into portions.
//! 2. Lengths are checked before memory is taken, and memory beyond
//!    [`crate::limits::FRAME_FIRST_ALLOCATION`] is taken only as bytes arrive.
//! 3. A frame lies in one buffer of its own: its body is handed on as a slice, and keeping it
//!    keeps nothing else alive.
//! 4. After an error the decoder stays in error: a stream is never resynchronised by guessing.
//!
//! Not here: what a kind means, and in which order kinds may come (the stream loops).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::error::FrameError;
use crate::limits;

/// Bytes of a frame in front of its head.
pub const PREFIX_BYTES: usize = 9;

/// Bytes counted by `len` in front of the head: kind and head length.
const COUNTED_PREFIX: usize = 5;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $number:literal,)*) => {
        /// What a frame is. Numbers are never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum FrameKind {
            $($(#[$doc])* $variant = $number,)*
        }

        impl FrameKind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &'static [FrameKind] = &[$(FrameKind::$variant,)*];

            /// The kind with this number; `None` for one that this version doesn't know.
            pub fn from_code(code: u8) -> Option<FrameKind> {
                match code {
                    $($number => Some(FrameKind::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// Client: the first frame of a connection.
    Hello = 0x01,
    /// Server: versions, cluster, limits.
    HelloAnswer = 0x02,
    /// Client: one request.
    Call = 0x10,
    /// Server: its answer.
    Answer = 0x11,
    /// Client: opens an append stream.
    AppendOpen = 0x20,
    /// Client: one batch (body).
    Append = 0x21,
    /// Server: the batch is durable.
    Appended = 0x22,
    /// Client: opens a read stream.
    ReadOpen = 0x30,
    /// Server: where reading begins.
    ReadOpened = 0x31,
    /// Server: one stored batch (body).
    Batch = 0x32,
    /// Client: more bytes may come.
    Credit = 0x33,
    /// Server: the request, batch or stream failed.
    Error = 0x40,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: FrameKind,
    /// Its prost head, still encoded.
    pub head: Bytes,
    /// Its body, as it came.
    pub body: Bytes,
}

impl Frame {
    /// Decodes the head as `M`.
    ///
    /// # Errors
    /// [`FrameError::BadHead`] when the bytes are not an `M`.
    pub fn decode_head<M: Message + Default>(&self) -> Result<M, FrameError> {
        M::decode(self.head.clone())
            .map_err(|error| FrameError::BadHead { kind: self.kind, reason: error.to_string() })
    }
}

/// Appends prefix and head of a frame to `out`; the caller sends `body_len` bytes of body behind
/// it, so that a body is never copied.
pub fn put_frame(out: &mut BytesMut, kind: FrameKind, head: &impl Message, body_len: usize) {
    let head_len = head.encoded_len();
    debug_assert!(COUNTED_PREFIX + head_len + body_len <= limits::FRAME_BYTES_MAX);
    out.reserve(PREFIX_BYTES + head_len);
    out.put_u32_le((COUNTED_PREFIX + head_len + body_len) as u32);
    out.put_u8(kind as u8);
    out.put_u32_le(head_len as u32);
    head.encode(out).expect("a BytesMut grows as needed");
}

/// Prefix and head of a frame as bytes of their own; see [`put_frame`].
pub fn frame_bytes(kind: FrameKind, head: &impl Message, body_len: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX_BYTES + head.encoded_len());
    put_frame(&mut out, kind, head, body_len);
    out.freeze()
}

/// Takes bytes in any portions and gives frames.
#[derive(Debug)]
pub struct FrameDecoder {
    /// Longest `len` that is taken, in bytes.
    frame_bytes_max: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Collecting the length field.
    Length { have: usize, bytes: [u8; 4] },
    /// Collecting the `len` bytes behind it. Invariant: `buf.len() < len`.
    Rest { len: usize, buf: BytesMut },
    /// An error was given out; it is given again.
    Broken(FrameError),
}

impl State {
    const START: State = State::Length { have: 0, bytes: [0; 4] };
}

impl FrameDecoder {
    /// A decoder that refuses frames longer than `frame_bytes_max` bytes (and in any case longer
    /// than [`limits::FRAME_BYTES_MAX`]).
    pub fn new(frame_bytes_max: usize) -> FrameDecoder {
        FrameDecoder { frame_bytes_max: frame_bytes_max.min(limits::FRAME_BYTES_MAX), state: State::START }
    }

    /// Takes bytes from the front of `input` until one frame is complete or `input` is empty.
    /// Call it again with the same `input` until it gives `None`.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes are not a frame; every later call gives the same error.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Frame>, FrameError> {
        match self.advance(input) {
            Ok(frame) => Ok(frame),
            Err(error) => {
                self.state = State::Broken(error.clone());
                Err(error)
            }
        }
    }

    /// Whether the bytes so far end between two frames (a clean place for a stream to end).
    pub fn is_at_boundary(&self) -> bool {
        matches!(self.state, State::Length { have: 0, .. })
    }

    fn advance(&mut self, input: &mut Bytes) -> Result<Option<Frame>, FrameError> {
        let max = self.frame_bytes_max;
        loop {
            match &mut self.state {
                State::Broken(error) => return Err(error.clone()),
                State::Length { have, bytes } => {
                    let take = (4 - *have).min(input.len());
                    input.copy_to_slice(&mut bytes[*have..*have + take]);
                    *have += take;
                    if *have < 4 {
                        return Ok(None);
                    }
                    let len = check_length(u32::from_le_bytes(*bytes), max)?;
                    let buf = BytesMut::with_capacity(len.min(limits::FRAME_FIRST_ALLOCATION));
                    self.state = State::Rest { len, buf };
                }
                State::Rest { len, buf } => {
                    let take = (*len - buf.len()).min(input.len());
                    grow(buf, take, *len);
                    buf.extend_from_slice(&input[..take]);
                    input.advance(take);
                    if buf.len() < *len {
                        return Ok(None);
                    }
                    let whole = std::mem::take(buf).freeze();
                    self.state = State::START;
                    return split(whole).map(Some);
                }
            }
        }
    }
}

fn check_length(len: u32, max: usize) -> Result<usize, FrameError> {
    let len = len as usize;
    if len < COUNTED_PREFIX {
        return Err(FrameError::TooShort { len });
    }
    if len > max {
        return Err(FrameError::TooLong { len, max });
    }
    Ok(len)
}

/// Makes room for `more` bytes: doubling, but never beyond `len` bytes.
fn grow(buf: &mut BytesMut, more: usize, len: usize) {
    let need = buf.len() + more;
    if need > buf.capacity() {
        let capacity = (buf.capacity() * 2).clamp(need, len.max(need));
        buf.reserve(capacity - buf.len());
    }
}

/// Takes kind, head and body out of the bytes behind the length field.
fn split(mut whole: Bytes) -> Result<Frame, FrameError> {
    let code = whole.get_u8();
    let kind = FrameKind::from_code(code).ok_or(FrameError::UnknownKind { code })?;
    let head_len = whole.get_u32_le() as usize;
    if head_len > limits::HEAD_BYTES_MAX || head_len > whole.len() {
        let max = whole.len().min(limits::HEAD_BYTES_MAX);
        return Err(FrameError::BadHeadLength { kind, head_len, max });
    }
    let head = whole.split_to(head_len);
    Ok(Frame { kind, head, body: whole })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto;

    fn stream_of(bodies: &[Vec<u8>]) -> Bytes {
        let mut out = BytesMut::new();
        for (i, body) in bodies.iter().enumerate() {
            put_frame(&mut out, FrameKind::Append, &proto::Append { sequence: i as u64 }, body.len());
            out.extend_from_slice(body);
        }
        out.freeze()
    }

    /// Decodes `bytes` cut at `cuts` (taken modulo the length).
    fn decode_cut(bytes: &Bytes, cuts: &[usize]) -> (Vec<Frame>, Option<FrameError>) {
        let mut places: Vec<usize> = cuts.iter().map(|c| c % (bytes.len() + 1)).collect();
        places.push(bytes.len());
        places.sort_unstable();
        let mut decoder = FrameDecoder::new(limits::FRAME_BYTES_MAX);
        let (mut frames, mut from) = (Vec::new(), 0);
        for to in places {
            let mut portion = bytes.slice(from..to);
            from = to;
            loop {
                match decoder.decode(&mut portion) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    }

    /// Every kind comes back from its number.
    #[test]
    fn kinds_round_trip() {
        for kind in FrameKind::ALL {
            assert_eq!(FrameKind::from_code(*kind as u8), Some(*kind));
        }
        assert_eq!(FrameKind::from_code(0), None);
    }

    /// Lengths outside the bounds are refused from the length field alone, before any memory.
    #[test]
    fn lengths_are_checked_first() {
        for (len, expected) in [
            (0u32, FrameError::TooShort { len: 0 }),
            (4, FrameError::TooShort { len: 4 }),
            (1001, FrameError::TooLong { len: 1001, max: 1000 }),
            (u32::MAX, FrameError::TooLong { len: u32::MAX as usize, max: 1000 }),
        ] {
            let mut decoder = FrameDecoder::new(1000);
            let found = decoder.decode(&mut Bytes::copy_from_slice(&len.to_le_bytes()));
            assert_eq!(found, Err(expected.clone()));
            assert_eq!(decoder.decode(&mut Bytes::new()), Err(expected), "the error stays");
        }
    }

    /// A head that claims more than the frame holds is refused.
    #[test]
    fn head_may_not_pass_the_frame() {
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(6);
        bytes.put_u8(FrameKind::Call as u8);
        bytes.put_u32_le(2);
        bytes.put_u8(0);
        let found = FrameDecoder::new(1000).decode(&mut bytes.freeze());
        assert_eq!(found, Err(FrameError::BadHeadLength { kind: FrameKind::Call, head_len: 2, max: 1 }));
    }

    /// An announced length takes little memory until bytes come, and none is taken in vain later.
    #[test]
    fn memory_follows_the_bytes() {
        let mut decoder = FrameDecoder::new(limits::FRAME_BYTES_MAX);
        let announced = (limits::FRAME_BYTES_MAX as u32).to_le_bytes();
        assert_eq!(decoder.decode(&mut Bytes::copy_from_slice(&announced)), Ok(None));
        let State::Rest { buf, .. } = &decoder.state else { panic!("length was read") };
        assert!(buf.capacity() <= limits::FRAME_FIRST_ALLOCATION);
        let mut sent = 0;
        while sent < 1_000_000 {
            decoder.decode(&mut Bytes::from(vec![FrameKind::Append as u8; 1000])).unwrap();
            sent += 1000;
            let State::Rest { buf, .. } = &decoder.state else { panic!("frame is not complete") };
            assert!(buf.capacity() <= (2 * sent).max(limits::FRAME_FIRST_ALLOCATION));
        }
    }

    proptest! {
        /// The frames do not depend on how the bytes were cut.
        #[test]
        fn cuts_do_not_matter(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in prop::collection::vec(any::<usize>(), 0..40),
        ) {
            let bytes = stream_of(&bodies);
            let (frames, error) = decode_cut(&bytes, &cuts);
            prop_assert_eq!(error, None);
            prop_assert_eq!(frames.len(), bodies.len());
            for (i, (frame, body)) in frames.iter().zip(&bodies).enumerate() {
                prop_assert_eq!(frame.kind, FrameKind::Append);
                prop_assert_eq!(&frame.body[..], &body[..]);
                prop_assert_eq!(frame.decode_head::<proto::Append>().unwrap().sequence, i as u64);
            }
        }

        /// Any bytes decode to the same frames or the same error however they are cut, and never
        /// panic; neither do heads decoded as any message.
        #[test]
        fn any_bytes_are_safe(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            kind in 0u8..0x42,
            cuts in prop::collection::vec(any::<usize>(), 0..20),
        ) {
            // Plain noise almost never has a valid length, so noise behind a valid one, too.
            let mut framed = BytesMut::new();
            framed.put_u32_le(bytes.len() as u32);
            framed.extend_from_slice(&bytes);
            if framed.len() > 8 {
                framed[4] = kind;
                framed[6..8].fill(0);
            }
            for input in [Bytes::from(bytes.clone()), framed.freeze()] {
                let whole = decode_cut(&input, &[]);
                prop_assert_eq!(&decode_cut(&input, &cuts), &whole);
                for frame in &whole.0 {
                    let _ = frame.decode_head::<proto::Call>();
                    let _ = frame.decode_head::<proto::Answer>();
                    let _ = frame.decode_head::<proto::Error>();
                    let _ = frame.decode_head::<proto::HelloAnswer>();
                }
            }
        }
    }
}
