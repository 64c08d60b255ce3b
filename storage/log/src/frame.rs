//! The frame: the one unit of the log on disk.
//!
//! ```text
//!   0        4        8        12       16   17    18       20       28       36       44       48
//!   +--------+--------+--------+--------+----+-----+--------+--------+--------+--------+--------+----
//!   | magic  | crc32c | length | group  |kind|entry| head   | index  | term   | seq    | place  | payload
//!   |        |        |of payl.|        |    |kind | length |        |        |        |in round| head,body
//!   +--------+--------+--------+--------+----+-----+--------+--------+--------+--------+--------+----
//! ```
//! Little endian. The crc covers bytes 8 to the end of the payload and begins with the segment's
//! number and the frame's position, so bytes that are written to a wrong place, belong to another
//! segment, or were put into a payload by somebody who wants to be taken for a frame, don't match.
//!
//! `seq` counts the frames of the whole log, one by one, and is never used twice. `seq - place`
//! is the first frame of the write that the frame was part of: all before that one had been synced
//! when it was written. So a bad frame is an honest torn tail exactly when no good frame behind it
//! claims that the bad one had been synced.
//!
//! Not here: what the kinds do to a group (`index.rs`), where frames stand (`segment.rs`).

use bytes::{Buf, BufMut, Bytes};
use fleetline_types::{GroupId, LogId};

/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = 48;
/// First bytes of every frame: "FLG1".
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"FLG1");
/// The longest payload of a frame.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// What a frame says. Numbers once used are never used for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// First frame of a segment; payload: [`SegmentHead`].
    SegmentHeader = 1,
    /// All that was known of a group when the segment began; payload: see `index.rs`.
    GroupState = 2,
    /// An entry at the end of its group's log.
    Entry = 3,
    /// An entry copied out of an old segment; changes nothing but the place of its bytes.
    Relocated = 4,
    /// The bytes of an entry that was damaged.
    Repair = 5,
    /// An entry below the purge point that came with a snapshot.
    InstallEntry = 6,
    /// Payload: the vote.
    Vote = 7,
    /// `index`: the first entry removed.
    Truncate = 8,
    /// `index`, `term`: the last entry purged.
    Purge = 9,
    /// `index`: the first entry whose bytes are kept.
    Retain = 10,
    /// `index`, `term`: the last entry of the snapshot; payload: first retained index, u64.
    InstallBegin = 11,
    /// The group's entries are gone from this node.
    RemoveGroup = 12,
    /// The group's amnesia is healed.
    ClearAmnesia = 13,
    /// `index`: number of a segment that is about to be deleted.
    SegmentDrop = 14,
    /// Groups that the log doesn't know may vote again.
    TrustUnknown = 15,
}

impl FrameKind {
    pub(crate) fn from_u8(kind: u8) -> Option<FrameKind> {
        use FrameKind::*;
        let all = [
            SegmentHeader,
            GroupState,
            Entry,
            Relocated,
            Repair,
            InstallEntry,
            Vote,
            Truncate,
            Purge,
            Retain,
            InstallBegin,
            RemoveGroup,
            ClearAmnesia,
            SegmentDrop,
            TrustUnknown,
        ];
        all.into_iter().find(|known| *known as u8 == kind)
    }

    /// Whether the payload is the content of an entry.
    pub(crate) fn is_entry(self) -> bool {
        use FrameKind::*;
        matches!(self, Entry | Relocated | Repair | InstallEntry)
    }
}

/// The header of a frame, without magic and crc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    pub(crate) entry_kind: u8,
    pub(crate) head_len: u16,
    pub(crate) len: u32,
    pub(crate) group: GroupId,
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) seq: u64,
    pub(crate) place: u32,
}

/// Where a frame stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    pub(crate) pos: u32,
}

impl Place {
    fn seed(self) -> u32 {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.segment.to_le_bytes());
        bytes[4..].copy_from_slice(&self.pos.to_le_bytes());
        crc32c::crc32c(&bytes)
    }
}

impl Frame {
    /// The id of the entry that the frame holds or speaks of.
    pub(crate) fn id(&self) -> LogId {
        LogId::new(self.term, self.index)
    }

    /// Bytes of header and payload.
    pub(crate) fn bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.len)
    }

    /// First frame of the round in which this one was written; all before were synced.
    pub(crate) fn round_start(&self) -> u64 {
        self.seq.saturating_sub(u64::from(self.place))
    }

    /// Appends the header for a payload given in two parts.
    pub(crate) fn encode(&self, place: Place, head: &[u8], body: &[u8], out: &mut Vec<u8>) {
        let mut header = [0; HEADER_BYTES];
        let mut rest = &mut header[8..];
        rest.put_u32_le(self.len);
        rest.put_u32_le(self.group.0);
        rest.put_u8(self.kind as u8);
        rest.put_u8(self.entry_kind);
        rest.put_u16_le(self.head_len);
        rest.put_u64_le(self.index);
        rest.put_u64_le(self.term);
        rest.put_u64_le(self.seq);
        rest.put_u32_le(self.place);
        let crc = crc32c::crc32c_append(place.seed(), &header[8..]);
        let crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, head), body);
        header[..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..8].copy_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&header);
    }

    /// The frame at the beginning of `bytes`, all of it checked; `None` when there is no good one.
    pub(crate) fn decode(place: Place, bytes: &[u8]) -> Option<Frame> {
        let mut header = bytes.get(..HEADER_BYTES)?;
        if header.get_u32_le() != MAGIC {
            return None;
        }
        let crc = header.get_u32_le();
        let len = header.get_u32_le();
        let group = GroupId(header.get_u32_le());
        let kind = header.get_u8();
        let entry_kind = header.get_u8();
        let head_len = header.get_u16_le();
        let (index, term, seq) = (header.get_u64_le(), header.get_u64_le(), header.get_u64_le());
        let round_place = header.get_u32_le();
        let end = HEADER_BYTES.checked_add(len as usize)?;
        let covered = bytes.get(8..end)?;
        let kind = FrameKind::from_u8(kind)?;
        if u32::from(head_len) > len || crc32c::crc32c_append(place.seed(), covered) != crc {
            return None;
        }
        Some(Frame { kind, entry_kind, head_len, len, group, index, term, seq, place: round_place })
    }
}

/// A segment as the head of a later one remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentSpan {
    pub(crate) id: u32,
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
}

/// The payload of a segment's first frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    /// How many `GroupState` frames follow; together they are the checkpoint.
    pub(crate) groups: u32,
    /// This start found that frames were lost: every group has amnesia.
    pub(crate) amnesia_all: bool,
    /// Groups that the log doesn't know may have been lost too.
    pub(crate) amnesia_unknown: bool,
    /// All older segments that are not deleted, oldest first.
    pub(crate) live: Vec<SegmentSpan>,
}

/// Version of the format, in every segment's head. 1: first version.
const FORMAT_VERSION: u16 = 1;

impl SegmentHead {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(16 + 20 * self.live.len());
        out.put_u16_le(FORMAT_VERSION);
        out.put_u8(u8::from(self.amnesia_all) | u8::from(self.amnesia_unknown) << 1);
        out.put_u32_le(self.groups);
        out.put_u32_le(self.live.len() as u32);
        for span in &self.live {
            out.put_u32_le(span.id);
            out.put_u64_le(span.first_seq);
            out.put_u64_le(span.last_seq);
        }
        out.into()
    }

    /// `None` when the bytes aren't those of a head of a known version.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<SegmentHead> {
        if bytes.try_get_u16_le().ok()? != FORMAT_VERSION {
            return None;
        }
        let flags = bytes.try_get_u8().ok()?;
        let groups = bytes.try_get_u32_le().ok()?;
        let count = bytes.try_get_u32_le().ok()? as usize;
        if bytes.len() != count.checked_mul(20)? {
            return None;
        }
        let live = (0..count)
            .map(|_| SegmentSpan {
                id: bytes.get_u32_le(),
                first_seq: bytes.get_u64_le(),
                last_seq: bytes.get_u64_le(),
            })
            .collect();
        Some(SegmentHead { groups, amnesia_all: flags & 1 != 0, amnesia_unknown: flags & 2 != 0, live })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Frame, Vec<u8>) {
        let frame = Frame {
            kind: FrameKind::Entry,
            entry_kind: 7,
            head_len: 3,
            len: 8,
            group: GroupId(5),
            index: 9,
            term: 2,
            seq: 77,
            place: 4,
        };
        let mut bytes = Vec::new();
        frame.encode(Place { segment: 1, pos: 96 }, b"abc", b"defgh", &mut bytes);
        bytes.extend_from_slice(b"abcdefgh");
        (frame, bytes)
    }

    /// What is encoded is decoded; any flipped bit, cut or other place is refused.
    #[test]
    fn frames_are_checked_bit_by_bit() {
        let (frame, bytes) = sample();
        let place = Place { segment: 1, pos: 96 };
        assert_eq!(Frame::decode(place, &bytes), Some(frame));
        assert_eq!(frame.round_start(), 73);
        assert_eq!(Frame::decode(Place { segment: 1, pos: 97 }, &bytes), None);
        assert_eq!(Frame::decode(Place { segment: 2, pos: 96 }, &bytes), None);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Frame::decode(place, &bad), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Frame::decode(place, &bytes[..len]), None);
        }
    }

    /// A stored sample of format version 1: these bytes must stay readable for ever.
    #[test]
    fn version_1_is_pinned() {
        let (_, bytes) = sample();
        let crc = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        assert_eq!(&bytes[..4], b"FLG1");
        assert_eq!(&bytes[8..20], &[8, 0, 0, 0, 5, 0, 0, 0, 3, 7, 3, 0]);
        let mut covered = bytes[8..].to_vec();
        let seed = crc32c::crc32c(&[1, 0, 0, 0, 96, 0, 0, 0]);
        assert_eq!(crc, crc32c::crc32c_append(seed, &covered));
        covered[0] = 9;
        assert_ne!(crc, crc32c::crc32c_append(seed, &covered));
    }

    /// Heads of segments survive encoding; cut ones are refused.
    #[test]
    fn segment_heads() {
        let head = SegmentHead {
            groups: 3,
            amnesia_all: true,
            amnesia_unknown: true,
            live: vec![SegmentSpan { id: 4, first_seq: 1, last_seq: 9 }],
        };
        let bytes = head.encode();
        assert_eq!(SegmentHead::decode(&bytes), Some(head));
        for len in 0..bytes.len() {
            assert_eq!(SegmentHead::decode(&bytes[..len]), None);
        }
    }
}
