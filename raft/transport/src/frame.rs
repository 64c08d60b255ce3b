//! Frames on a peer connection, and the hello that opens it.
//!
//! Written and read by `tcp::connection` and `tcp::handshake` only. All numbers are little-endian.
//!
//! ```text
//!  0        4      5       6         10            18          22
//!  +--------+------+-------+---------+-------------+-----------+------ ... +------ ... +
//!  | len    | kind | flags | group   | request id  | head len  |   head    |   body    |
//!  | u32    | u8   | u8    | u32     | u64         | u32       |           |           |
//!  +--------+------+-------+---------+-------------+-----------+------ ... +------ ... +
//!           |<------------------------- len bytes ----------------------------------->|
//!
//!  flags   bit 0  ANSWER     answers the request of this id (otherwise: a request)
//!          bit 7  TRANSPORT  the transport's own: kind is one of hello, refused, keep-alive
//!          other bits are zero; a frame that sets one is refused
//!
//!  hello   oldest u32 | newest u32 | node u64 | lane u8 | cluster (u16 len) | incarnation (u16 len)
//!  refused reason u8 | text (u16 len)
//! ```
//!
//! Invariants:
//! 1. Lengths are checked against the limit before a byte of room is taken for them.
//! 2. A decoded head or body is a slice of the buffer it was read into.
//!
//! Not here: checksums (TLS has them), what a message means (`fleetline-peer`).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fleetline_types::{GroupId, NodeId};
use thiserror::Error;

use crate::{Lane, PeerMessage};

/// Bytes in front of the head.
pub(crate) const HEADER_BYTES: usize = 22;
/// The most that a frame of the handshake may have, header included.
pub(crate) const HELLO_BYTES_MAX: usize = 1024;

const ANSWER: u8 = 1;
const TRANSPORT: u8 = 1 << 7;
const KIND_HELLO: u8 = 1;
const KIND_REFUSED: u8 = 2;
const KIND_KEEP_ALIVE: u8 = 3;

/// One frame as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Request { id: u64, message: PeerMessage },
    Answer { id: u64, message: PeerMessage },
    Hello(Hello),
    Refused { reason: RefusedReason, text: String },
    KeepAlive,
}

/// What each side says of itself before anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The oldest and the newest message version that the sender speaks. In the answer both are
    /// the version that was chosen.
    pub versions: (u32, u32),
    pub node: NodeId,
    pub lane: Lane,
    pub cluster: String,
    pub disk_incarnation: String,
}

/// Why a connection was refused. Numbers are part of the wire format and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RefusedReason {
    /// TLS failed: no certificate, one of another authority, one that expired, another ALPN.
    Tls = 1,
    /// The certificate doesn't name a node of this cluster.
    Certificate = 2,
    /// The hello names another cluster.
    Cluster = 3,
    /// The hello names another node than the certificate, or than the one that was called.
    Node = 4,
    /// No common message version.
    Version = 5,
    /// The node is known with another disk.
    DiskIncarnation = 6,
    /// Bytes that are no hello.
    Malformed = 7,
    /// No complete hello in time.
    Slow = 8,
    /// Too many connections that have not said who they are.
    TooMany = 9,
}

impl RefusedReason {
    /// All reasons.
    pub const ALL: [RefusedReason; 9] = [
        RefusedReason::Tls,
        RefusedReason::Certificate,
        RefusedReason::Cluster,
        RefusedReason::Node,
        RefusedReason::Version,
        RefusedReason::DiskIncarnation,
        RefusedReason::Malformed,
        RefusedReason::Slow,
        RefusedReason::TooMany,
    ];

    /// The value of the metric's `reason` label.
    pub fn label(self) -> &'static str {
        match self {
            RefusedReason::Tls => "tls",
            RefusedReason::Certificate => "certificate",
            RefusedReason::Cluster => "cluster",
            RefusedReason::Node => "node",
            RefusedReason::Version => "version",
            RefusedReason::DiskIncarnation => "disk_incarnation",
            RefusedReason::Malformed => "malformed",
            RefusedReason::Slow => "slow",
            RefusedReason::TooMany => "too_many",
        }
    }

    fn from_byte(byte: u8) -> Option<RefusedReason> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == byte)
    }
}

/// Bytes that are no frame. The connection they came from is closed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum FrameError {
    #[error("frame of {len} bytes is over the limit of {limit}; raise frame_bytes_max on all nodes")]
    TooLarge { len: usize, limit: usize },
    #[error("frame of {len} bytes is shorter than its header")]
    TooShort { len: usize },
    #[error("head of {head_len} bytes doesn't fit the {room} bytes of its frame")]
    HeadTooLong { head_len: usize, room: usize },
    #[error("frame has unknown flags {0:#04x}")]
    UnknownFlags(u8),
    #[error("transport frame of unknown kind {0}")]
    UnknownKind(u8),
    #[error("hello or refusal ends early or has bytes behind its end")]
    BadHello,
    #[error("hello names unknown lane {0}")]
    UnknownLane(u8),
    #[error("frame of the wrong sort: {0}")]
    Unexpected(&'static str),
}

/// Appends the header and the head of `message` to `out`; the body parts follow on the wire.
/// The caller has checked the size against the frame limit.
pub(crate) fn put_message(out: &mut BytesMut, id: u64, answer: bool, message: &PeerMessage) {
    out.reserve(HEADER_BYTES + message.head.len());
    let flags = if answer { ANSWER } else { 0 };
    put_header(out, message.kind, flags, message.group, id, message.head.len(), message.len());
    out.put_slice(&message.head);
}

/// Appends a keep-alive frame.
pub(crate) fn put_keep_alive(out: &mut BytesMut) {
    put_header(out, KIND_KEEP_ALIVE, TRANSPORT, GroupId(0), 0, 0, 0);
}

/// A hello as one frame. Names longer than 255 bytes are cut: they can't match anyway.
pub(crate) fn hello_frame(hello: &Hello) -> Bytes {
    let mut head = BytesMut::with_capacity(256);
    head.put_u32_le(hello.versions.0);
    head.put_u32_le(hello.versions.1);
    head.put_u64_le(hello.node.0);
    head.put_u8(lane_byte(hello.lane));
    put_text(&mut head, &hello.cluster);
    put_text(&mut head, &hello.disk_incarnation);
    transport_frame(KIND_HELLO, &head)
}

/// A refusal as one frame.
pub(crate) fn refused_frame(reason: RefusedReason, text: &str) -> Bytes {
    let mut head = BytesMut::with_capacity(256);
    head.put_u8(reason as u8);
    put_text(&mut head, text);
    transport_frame(KIND_REFUSED, &head)
}

/// Takes the next frame off the front of `buf`; `None` when it is not complete yet, in which case
/// `buf` has been given room for the rest of it.
///
/// # Errors
/// When the bytes are no frame, or one of more than `limit` bytes.
pub(crate) fn take_frame(buf: &mut BytesMut, limit: usize) -> Result<Option<Frame>, FrameError> {
    let Some(len_bytes) = buf.first_chunk::<4>() else {
        return Ok(None);
    };
    let len = u32::from_le_bytes(*len_bytes) as usize;
    let total = len.saturating_add(4);
    if total > limit.saturating_add(HEADER_BYTES) {
        return Err(FrameError::TooLarge { len: total, limit });
    }
    if total < HEADER_BYTES {
        return Err(FrameError::TooShort { len });
    }
    if buf.len() < total {
        buf.reserve(total - buf.len());
        return Ok(None);
    }
    let mut frame = buf.split_to(total).freeze();
    frame.advance(4);
    let kind = frame.get_u8();
    let flags = frame.get_u8();
    let group = GroupId(frame.get_u32_le());
    let id = frame.get_u64_le();
    let head_len = frame.get_u32_le() as usize;
    if head_len > frame.len() {
        return Err(FrameError::HeadTooLong { head_len, room: frame.len() });
    }
    let head = frame.split_to(head_len);
    match flags {
        TRANSPORT => transport_of(kind, head, frame.is_empty()).map(Some),
        0 | ANSWER => {
            let body = if frame.is_empty() { Vec::new() } else { vec![frame] };
            let message = PeerMessage { group, kind, head, body };
            let frame =
                if flags == 0 { Frame::Request { id, message } } else { Frame::Answer { id, message } };
            Ok(Some(frame))
        }
        other => Err(FrameError::UnknownFlags(other)),
    }
}

fn transport_of(kind: u8, head: Bytes, no_body: bool) -> Result<Frame, FrameError> {
    match kind {
        _ if !no_body => Err(FrameError::BadHello),
        KIND_HELLO => parse_hello(head).map(Frame::Hello),
        KIND_REFUSED => parse_refused(head),
        KIND_KEEP_ALIVE if head.is_empty() => Ok(Frame::KeepAlive),
        KIND_KEEP_ALIVE => Err(FrameError::BadHello),
        other => Err(FrameError::UnknownKind(other)),
    }
}

fn parse_hello(mut head: Bytes) -> Result<Hello, FrameError> {
    let mut numbers = head;
    let short = |_| FrameError::BadHello;
    let versions = (numbers.try_get_u32_le().map_err(short)?, numbers.try_get_u32_le().map_err(short)?);
    let node = NodeId(numbers.try_get_u64_le().map_err(short)?);
    let lane = numbers.try_get_u8().map_err(short)?;
    let lane = lane_of(lane).ok_or(FrameError::UnknownLane(lane))?;
    head = numbers;
    let cluster = take_text(&mut head)?;
    let disk_incarnation = take_text(&mut head)?;
    if !head.is_empty() {
        return Err(FrameError::BadHello);
    }
    Ok(Hello { versions, node, lane, cluster, disk_incarnation })
}

fn parse_refused(mut head: Bytes) -> Result<Frame, FrameError> {
    let reason = head.try_get_u8().map_err(|_| FrameError::BadHello)?;
    let reason = RefusedReason::from_byte(reason).unwrap_or(RefusedReason::Malformed);
    let text = take_text(&mut head)?;
    if head.is_empty() { Ok(Frame::Refused { reason, text }) } else { Err(FrameError::BadHello) }
}

fn transport_frame(kind: u8, head: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES + head.len());
    put_header(&mut out, kind, TRANSPORT, GroupId(0), 0, head.len(), head.len());
    out.put_slice(head);
    out.freeze()
}

fn put_header(
    out: &mut BytesMut,
    kind: u8,
    flags: u8,
    group: GroupId,
    id: u64,
    head_len: usize,
    message_len: usize,
) {
    out.put_u32_le((HEADER_BYTES - 4 + message_len) as u32);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32_le(group.0);
    out.put_u64_le(id);
    out.put_u32_le(head_len as u32);
}

fn put_text(out: &mut BytesMut, text: &str) {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.put_u16_le(end as u16);
    out.put_slice(&text.as_bytes()[..end]);
}

fn take_text(head: &mut Bytes) -> Result<String, FrameError> {
    let len = head.try_get_u16_le().map_err(|_| FrameError::BadHello)? as usize;
    if len > head.len() {
        return Err(FrameError::BadHello);
    }
    let text = head.split_to(len);
    std::str::from_utf8(&text).map(str::to_owned).map_err(|_| FrameError::BadHello)
}

fn lane_byte(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Bulk => 1,
        Lane::Append(number) => 2 + (number & 1),
    }
}

fn lane_of(byte: u8) -> Option<Lane> {
    Lane::ALL.into_iter().find(|lane| lane_byte(*lane) == byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(id: u64, answer: bool, message: &PeerMessage) -> BytesMut {
        let mut out = BytesMut::new();
        put_message(&mut out, id, answer, message);
        for part in &message.body {
            out.put_slice(part);
        }
        out
    }

    proptest! {
        /// Any message comes back as it was, wherever the bytes are cut on the way.
        #[test]
        fn messages_round_trip(
            id: u64, answer: bool, group: u32, kind: u8,
            head in prop::collection::vec(any::<u8>(), 0..100),
            body in prop::collection::vec(any::<u8>(), 1..300),
            cut in 0usize..400,
        ) {
            let message = PeerMessage {
                group: GroupId(group), kind, head: head.into(), body: vec![Bytes::from(body)],
            };
            let wire = encode(id, answer, &message);
            let cut = cut.min(wire.len() - 1);
            let mut buf = BytesMut::from(&wire[..cut]);
            prop_assert_eq!(take_frame(&mut buf, 1000).unwrap(), None);
            buf.extend_from_slice(&wire[cut..]);
            let expected = if answer { Frame::Answer { id, message } } else { Frame::Request { id, message } };
            prop_assert_eq!(take_frame(&mut buf, 1000).unwrap(), Some(expected));
            prop_assert!(buf.is_empty());
        }

        /// No bytes make the decoder panic or take room beyond the limit.
        #[test]
        fn garbage_is_an_error_or_incomplete(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut buf = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take_frame(&mut buf, 600) {}
            prop_assert!(buf.capacity() <= 8192);
        }

        /// Hellos with any bytes in them come back or are refused.
        #[test]
        fn hello_parser_takes_anything(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse_hello(Bytes::from(bytes.clone()));
            let _ = parse_refused(Bytes::from(bytes));
        }
    }

    /// A hello and a refusal come back as they were; a hello cut anywhere is an error.
    #[test]
    fn hello_round_trips() {
        for lane in Lane::ALL {
            let hello = Hello {
                versions: (1, 7),
                node: NodeId(9),
                lane,
                cluster: "plant".into(),
                disk_incarnation: "d-1".into(),
            };
            let wire = hello_frame(&hello);
            assert!(wire.len() <= HELLO_BYTES_MAX);
            let mut buf = BytesMut::from(&wire[..]);
            assert_eq!(take_frame(&mut buf, HELLO_BYTES_MAX).unwrap(), Some(Frame::Hello(hello)));
            let head = wire.slice(HEADER_BYTES..);
            for cut in 0..head.len() {
                assert!(parse_hello(head.slice(..cut)).is_err(), "cut at {cut}");
            }
        }
        let mut buf = BytesMut::from(&refused_frame(RefusedReason::Cluster, "no")[..]);
        let refused = Frame::Refused { reason: RefusedReason::Cluster, text: "no".into() };
        assert_eq!(take_frame(&mut buf, HELLO_BYTES_MAX).unwrap(), Some(refused));
    }

    /// Lengths that lie are refused from the first bytes, before room is taken.
    #[test]
    fn lying_lengths() {
        let table: [(&[u8], FrameError); 3] = [
            (&[255, 255, 255, 255], FrameError::TooLarge { len: (1 << 32) + 3, limit: 100 }),
            (&[17, 0, 0, 0], FrameError::TooShort { len: 17 }),
            (
                &[18, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
                FrameError::HeadTooLong { head_len: 1, room: 0 },
            ),
        ];
        for (bytes, expected) in table {
            let mut buf = BytesMut::from(bytes);
            assert_eq!(take_frame(&mut buf, 100).unwrap_err(), expected);
        }
        let mut buf = encode(1, false, &PeerMessage::default());
        buf[5] = 0x42;
        assert_eq!(take_frame(&mut buf, 100).unwrap_err(), FrameError::UnknownFlags(0x42));
    }

    /// Reasons keep their numbers and labels are distinct.
    #[test]
    fn reasons_are_distinct() {
        for reason in RefusedReason::ALL {
            assert_eq!(RefusedReason::from_byte(reason as u8), Some(reason));
            assert_eq!(RefusedReason::ALL.iter().filter(|r| r.label() == reason.label()).count(), 1);
        }
    }
}
