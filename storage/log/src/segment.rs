//! Segments: their files, and the sidecars that spare a restart from scanning them.
//!
//! ```text
//!   0000000007.seg   frames, the first ones restate every group (the checkpoint)
//!   0000000007.idx   what the frames of a sealed segment say, without the bytes of entries
//!   sidecar: magic u32 | crc u32 | segment u32 | bytes u64 | first seq u64 | last seq u64 | records
//!   record:  kind u8 | group | index | term | payload length (varints) | payload unless an entry
//! ```
//! A sidecar is only a shortcut: when it is missing, doesn't match its checksum or speaks of other
//! frames than its segment does, the segment is scanned.
//!
//! Not here: when segments begin (`writer.rs`), when they go (`retention.rs`).

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Buf, BufMut, Bytes};
use fleetline_env::{Disk, DiskFile, OpenMode};
use fleetline_types::GroupId;
use parking_lot::RwLock;

use crate::frame::{Frame, FrameKind, SegmentSpan};

/// A segment that exists.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) bytes: AtomicU64,
    /// Its entries are being copied out of it.
    pub(crate) relocating: AtomicBool,
    /// Its deletion is on the way.
    pub(crate) dropping: AtomicBool,
}

impl Segment {
    pub(crate) fn new(id: u32, file: Arc<dyn DiskFile>, bytes: u64) -> Arc<Segment> {
        Arc::new(Segment {
            id,
            file,
            bytes: AtomicU64::new(bytes),
            relocating: AtomicBool::new(false),
            dropping: AtomicBool::new(false),
        })
    }

    /// Reads exactly `len` bytes.
    pub(crate) fn read(&self, pos: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut buf = vec![0; len];
        match self.file.read_at(pos, &mut buf)? {
            found if found == len => Ok(buf),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// All segments by number.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    map: RwLock<BTreeMap<u32, Arc<Segment>>>,
}

impl Segments {
    pub(crate) fn find(&self, id: u32) -> Option<Arc<Segment>> {
        self.map.read().get(&id).cloned()
    }

    pub(crate) fn add(&self, segment: Arc<Segment>) {
        self.map.write().insert(segment.id, segment);
    }

    pub(crate) fn remove(&self, id: u32) {
        self.map.write().remove(&id);
    }

    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.map.read().values().cloned().collect()
    }

    /// Number and bytes.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let map = self.map.read();
        (map.len() as u64, map.values().map(|segment| segment.bytes.load(Ordering::Relaxed)).sum())
    }
}

pub(crate) fn segment_path(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("{id:010}.seg"))
}

pub(crate) fn sidecar_path(dir: &Path, id: u32) -> PathBuf {
    dir.join(format!("{id:010}.idx"))
}

/// The number in a name like `0000000007.seg`; `None` for files that aren't ours.
pub(crate) fn parse_name(name: &str, ext: &str) -> Option<u32> {
    let digits = name.strip_suffix(ext)?;
    (digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// A frame as recovery sees it: all but the bytes of entries.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) frame: Frame,
    pub(crate) pos: u32,
    /// Empty for entries.
    pub(crate) payload: Bytes,
}

/// Collects what a sidecar will say, frame by frame.
#[derive(Debug, Default)]
pub(crate) struct SidecarBuilder {
    records: Vec<u8>,
    span: Option<(u64, u64)>,
}

const SIDECAR_MAGIC: u32 = u32::from_le_bytes(*b"FLI1");
const SIDECAR_HEAD_BYTES: usize = 36;

impl SidecarBuilder {
    pub(crate) fn add(&mut self, frame: &Frame, payload: &[u8]) {
        self.records.push(frame.kind as u8);
        for number in [u64::from(frame.group.0), frame.index, frame.term, u64::from(frame.len)] {
            put_varint(&mut self.records, number);
        }
        if !frame.kind.is_entry() {
            self.records.extend_from_slice(payload);
        }
        let first = self.span.map_or(frame.seq, |(first, _)| first);
        self.span = Some((first, frame.seq));
    }

    pub(crate) fn span(&self, id: u32) -> SegmentSpan {
        let (first_seq, last_seq) = self.span.unwrap_or_default();
        SegmentSpan { id, first_seq, last_seq }
    }

    /// The bytes of the sidecar file for a segment of `bytes` bytes.
    pub(crate) fn finish(self, id: u32, bytes: u64) -> Vec<u8> {
        let span = self.span(id);
        let mut out = Vec::with_capacity(SIDECAR_HEAD_BYTES + self.records.len());
        out.put_u32_le(SIDECAR_MAGIC);
        out.put_u32_le(0);
        out.put_u32_le(id);
        out.put_u64_le(bytes);
        out.put_u64_le(span.first_seq);
        out.put_u64_le(span.last_seq);
        out.extend_from_slice(&self.records);
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// A sidecar that matches its checksum.
#[derive(Debug)]
pub(crate) struct Sidecar {
    pub(crate) span: SegmentSpan,
    /// Bytes of the segment when it was sealed.
    pub(crate) bytes: u64,
    pub(crate) frames: Vec<Found>,
}

impl Sidecar {
    /// `None` when the bytes can't be trusted.
    pub(crate) fn decode(id: u32, bytes: &Bytes) -> Option<Sidecar> {
        let mut head = bytes.get(..SIDECAR_HEAD_BYTES)?;
        let (magic, crc, found_id) = (head.get_u32_le(), head.get_u32_le(), head.get_u32_le());
        let (segment_bytes, first_seq, last_seq) = (head.get_u64_le(), head.get_u64_le(), head.get_u64_le());
        if magic != SIDECAR_MAGIC || found_id != id || crc32c::crc32c(&bytes[8..]) != crc {
            return None;
        }
        let mut rest = bytes.slice(SIDECAR_HEAD_BYTES..);
        let (mut frames, mut pos, mut seq) = (Vec::new(), 0u64, first_seq);
        while rest.has_remaining() {
            let (mut frame, payload) = take_record(&mut rest)?;
            frame.seq = seq;
            frames.push(Found { frame, pos: u32::try_from(pos).ok()?, payload });
            pos += frame.bytes();
            seq += 1;
        }
        let span = SegmentSpan { id, first_seq, last_seq };
        (seq == last_seq + 1 && pos == segment_bytes).then_some(Sidecar {
            span,
            bytes: segment_bytes,
            frames,
        })
    }
}

fn take_record(rest: &mut Bytes) -> Option<(Frame, Bytes)> {
    let kind = FrameKind::from_u8(rest.try_get_u8().ok()?)?;
    let group = GroupId(u32::try_from(take_varint(rest)?).ok()?);
    let (index, term) = (take_varint(rest)?, take_varint(rest)?);
    let len = u32::try_from(take_varint(rest)?).ok()?;
    let payload = if kind.is_entry() {
        Bytes::new()
    } else if rest.len() >= len as usize {
        rest.split_to(len as usize)
    } else {
        return None;
    };
    Some((Frame { kind, entry_kind: 0, head_len: 0, len, group, index, term, seq: 0, place: 0 }, payload))
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_varint(bytes: &mut Bytes) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.try_get_u8().ok()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// Writes a small file and makes its bytes durable. Its name is only a shortcut's name.
pub(crate) fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = disk.open(path, OpenMode::OpenOrCreate)?;
    file.set_len(bytes.len() as u64)?;
    file.write_at(0, &[IoSlice::new(bytes)])?;
    file.sync_data()
}

/// The whole of a file.
pub(crate) fn read_file(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX)];
    let found = file.read_at(0, &mut bytes)?;
    bytes.truncate(found);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sidecars give back what was put in, and any flipped byte or other number makes them useless.
    #[test]
    fn sidecars_are_checked() {
        let mut builder = SidecarBuilder::default();
        for seq in 5..9 {
            let kind = if seq == 6 { FrameKind::Vote } else { FrameKind::Entry };
            let (index, group) = (seq * 1000, GroupId(3));
            let frame =
                Frame { kind, entry_kind: 0, head_len: 0, len: 4, group, index, term: 2, seq, place: 0 };
            builder.add(&frame, b"vote");
        }
        let bytes = builder.finish(7, 4 * 52);
        let sidecar = Sidecar::decode(7, &bytes.clone().into()).unwrap();
        assert_eq!(sidecar.span, SegmentSpan { id: 7, first_seq: 5, last_seq: 8 });
        assert_eq!(&sidecar.frames[1].payload[..], b"vote");
        assert_eq!((sidecar.frames[3].frame.index, sidecar.frames[3].pos), (8000, 156));
        assert!(Sidecar::decode(8, &bytes.clone().into()).is_none());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Sidecar::decode(7, &bad.into()).is_none(), "byte {at}");
        }
    }

    /// Only names that this log gives are taken for its files.
    #[test]
    fn names() {
        assert_eq!(parse_name("0000000007.seg", ".seg"), Some(7));
        for name in ["7.seg", "0000000007.idx", "9999999999.seg", "+000000007.seg", "LOCK"] {
            assert_eq!(parse_name(name, ".seg"), None, "{name}");
        }
    }
}
