//! Reading a segment frame by frame, and telling a torn tail from damage.
//!
//! A power cut leaves any part of the last write: some sectors of it, none, or all. So a bad frame
//! is an honest tear when every good frame behind it belongs to the same write as the bad one
//! (`Frame::round_start`). When a good frame behind it was written later, the bad one had been
//! synced, and is damaged.
//!
//! Not here: what to do about either (`recovery.rs`).

use bytes::Bytes;

use crate::frame::{Frame, FrameKind, HEADER_BYTES, MAGIC, Place};
use crate::segment::Found;

/// A stretch of a segment without good frames; `before` good frames stand before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) before: usize,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) frames: Vec<Found>,
    pub(crate) gaps: Vec<Gap>,
}

/// Reads all good frames of a segment.
pub(crate) fn scan(segment: u32, bytes: &Bytes) -> Scan {
    let mut scan = Scan::default();
    let mut pos = 0;
    let mut next_seq = None;
    while pos < bytes.len() {
        let (at, frame) = match good_frame(segment, bytes, pos, next_seq) {
            Some(frame) => (pos, frame),
            None => {
                let found = (pos + 1..bytes.len())
                    .find_map(|at| good_frame(segment, bytes, at, next_seq).map(|frame| (at, frame)));
                let to = found.map_or(bytes.len(), |(at, _)| at) as u64;
                scan.gaps.push(Gap { from: pos as u64, to, before: scan.frames.len() });
                match found {
                    Some(found) => found,
                    None => break,
                }
            }
        };
        if at == pos && next_seq.is_some_and(|next| frame.seq != next) {
            // Good frames on both sides, but some between them are not there.
            scan.gaps.push(Gap { from: pos as u64, to: pos as u64, before: scan.frames.len() });
        }
        next_seq = Some(frame.seq + 1);
        pos = at + frame.bytes() as usize;
        let payload = if frame.kind.is_entry() { Bytes::new() } else { bytes.slice(at + HEADER_BYTES..pos) };
        scan.frames.push(Found { frame, pos: at as u32, payload });
    }
    scan
}

/// The frame at `at` if it is good and can follow what was found before.
fn good_frame(segment: u32, bytes: &Bytes, at: usize, next_seq: Option<u64>) -> Option<Frame> {
    let rest = bytes.get(at..)?;
    if rest.get(..4)? != MAGIC.to_le_bytes() {
        return None;
    }
    let frame = Frame::decode(Place { segment, pos: u32::try_from(at).ok()? }, rest)?;
    next_seq.is_none_or(|next| frame.seq >= next).then_some(frame)
}

impl Scan {
    /// The first gap, if it and everything behind it can be what a power cut left of the last
    /// write.
    pub(crate) fn torn(&self) -> Option<Gap> {
        let gap = *self.gaps.first()?;
        let behind = &self.frames[gap.before..];
        let torn = match gap.before.checked_sub(1).map(|at| self.frames[at].frame.seq + 1) {
            Some(first_bad) => behind.iter().all(|found| found.frame.round_start() <= first_bad),
            // Not even the segment's head: then only other parts of the checkpoint may be there.
            None => behind.iter().all(|found| found.frame.kind == FrameKind::GroupState),
        };
        torn.then_some(gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetline_types::GroupId;

    /// Segment 1 with frames of the given (seq, place), 8 bytes of payload each.
    fn segment(frames: &[(u64, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (seq, place) in frames {
            let kind = FrameKind::Entry;
            let group = GroupId(1);
            let frame = Frame {
                kind,
                entry_kind: 0,
                head_len: 0,
                len: 8,
                group,
                index: *seq,
                term: 1,
                seq: *seq,
                place: *place,
            };
            let pos = bytes.len() as u32;
            frame.encode(Place { segment: 1, pos }, b"", b"12345678", &mut bytes);
            bytes.extend_from_slice(b"12345678");
        }
        bytes
    }

    fn check(frames: &[(u64, u32)], bad: &[usize], torn: Option<usize>, found: usize) {
        let mut bytes = segment(frames);
        for at in bad {
            bytes[at * 56 + 50] ^= 1;
        }
        let scan = scan(1, &bytes.into());
        assert_eq!(scan.frames.len(), found, "{frames:?} {bad:?}");
        assert_eq!(scan.torn().map(|gap| gap.before), torn, "{frames:?} {bad:?}");
    }

    /// A bad frame is a tear as long as only frames of its own write stand behind it.
    #[test]
    fn tears_and_damage() {
        let rounds = [(5, 0), (6, 0), (7, 1), (8, 0), (9, 1), (10, 2)];
        check(&rounds, &[], None, 6);
        check(&rounds, &[5], Some(5), 5);
        check(&rounds, &[3], Some(3), 5);
        check(&rounds, &[3, 5], Some(3), 4);
        check(&rounds, &[2], None, 5); // 8 says that 7 was synced
        check(&rounds, &[1, 2], None, 4);
        check(&rounds, &[0], None, 5);
        check(&rounds, &[0, 1, 2, 3, 4, 5], Some(0), 0);
    }
}
