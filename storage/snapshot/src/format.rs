//! The bytes of a snapshot. All numbers are little-endian.
//!
//! ```text
//!   snapshot: "FLSNAP" | version u16 | meta frame | rows frame* | entries frame* | trailer frame
//!   frame:    kind u8 | len u32 | crc32c u32 | payload of len bytes      crc over kind, len, payload
//!   meta:     group u32 | last term u64 | last index u64 | first_retained u64
//!             | id len u32, id | membership len u32, membership
//!   rows:     ( kind u8 | key len u32 | value len u32 | key | value )*    ascending by (kind, key)
//!   entries:  ( term u64 | index u64 | kind u8 | head len u32 | body len u32 | head | body )*
//!   trailer:  rows u64 | entries u64 | sha-256 of all bytes before the trailer frame
//! ```
//!
//! The state part on the sender's disk has the same form without entries frames, and a trailer of
//! its own; the bytes before that trailer are the first bytes of the stream.
//!
//! Why two checksums: the crc finds damage as soon as a frame is there, which tells a resumed
//! transfer how far its bytes are good; the hash covers the order and number of frames too.

use bytes::Bytes;
use fleetline_codec::{BytesReader, DecodeError, Reader, Writer, checksum, checksum_append};
use fleetline_log::{LogEntry, Payload};
use fleetline_state::KeyKind;
use fleetline_types::{GroupId, LogId, LogIndex, Term};

/// A frame is closed when its payload has reached this many bytes.
pub const CHUNK_BYTES: usize = 256 << 10;
/// The longest key and value of a row together.
pub const ROW_BYTES_MAX: usize = 32 << 20;
/// The longest payload (head and body) of a log entry.
pub const ENTRY_BYTES_MAX: usize = 32 << 20;
/// The longest payload of a frame: a full chunk, one more item, and its fields.
pub const FRAME_BYTES_MAX: usize = CHUNK_BYTES + (32 << 20) + 64;
/// The longest snapshot id.
pub const ID_BYTES_MAX: usize = 128;
/// The longest encoded membership.
pub const MEMBERSHIP_BYTES_MAX: usize = 1 << 20;

pub(crate) const MAGIC: [u8; 6] = *b"FLSNAP";
pub(crate) const VERSION: u16 = 1;
pub(crate) const PRELUDE_BYTES: usize = 8;
pub(crate) const FRAME_HEAD_BYTES: usize = 9;
const ROW_HEAD_BYTES: usize = 9;
const ENTRY_HEAD_BYTES: usize = 25;

/// What a snapshot is of. Both sides must agree on all of it before bytes flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Whose snapshot.
    pub group: GroupId,
    /// Its name, unique among the snapshots of the group; 1 to [`ID_BYTES_MAX`] bytes.
    pub id: String,
    /// The last entry that the rows reflect.
    pub last: LogId,
    /// The first entry that comes with it; at most `last.index + 1`, which means none.
    pub first_retained: LogIndex,
    /// The membership as of `last`, opaque here.
    pub membership: Bytes,
}

impl SnapshotMeta {
    /// The form that the header has, also for messages that announce a snapshot.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(36 + self.id.len() + self.membership.len());
        let mut w = Writer::new(&mut out);
        w.u32(self.group.0).u64(self.last.term.0).u64(self.last.index.0).u64(self.first_retained.0);
        w.u32(self.id.len() as u32).bytes(self.id.as_bytes());
        w.u32(self.membership.len() as u32).bytes(&self.membership);
        out
    }

    /// Reads what [`SnapshotMeta::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes have another form or a value is out of bounds.
    pub fn decode(bytes: Bytes) -> Result<SnapshotMeta, DecodeError> {
        let mut r = BytesReader::new(bytes);
        let group = GroupId(r.with(|r| r.u32("snapshot group"))?);
        let last = r.with(|r| Ok(LogId::new(r.u64("snapshot term")?, r.u64("snapshot index")?)))?;
        let first_retained = LogIndex(r.with(|r| r.u64("snapshot first index"))?);
        let id_len = r.with(|r| length(r, "snapshot id", ID_BYTES_MAX))?;
        let id = r.bytes("snapshot id", id_len)?;
        let id = std::str::from_utf8(&id)
            .map_err(|_| DecodeError::Invalid { what: "snapshot id", reason: "not UTF-8" })?
            .to_owned();
        let membership_len = r.with(|r| length(r, "snapshot membership", MEMBERSHIP_BYTES_MAX))?;
        let membership = r.bytes("snapshot membership", membership_len)?;
        r.finish("snapshot header")?;
        let meta = SnapshotMeta { group, id, last, first_retained, membership };
        meta.check()?;
        Ok(meta)
    }

    /// How many entries come with the snapshot.
    pub fn entry_count(&self) -> u64 {
        (self.last.index.0 + 1).saturating_sub(self.first_retained.0)
    }

    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        let over = |what, value: usize, limit: usize| {
            Err(DecodeError::OverLimit { what, value: value as u64, limit: limit as u64 })
        };
        let invalid = |what, reason| Err(DecodeError::Invalid { what, reason });
        if self.id.is_empty() {
            return invalid("snapshot id", "it is empty");
        }
        if self.id.len() > ID_BYTES_MAX {
            return over("snapshot id", self.id.len(), ID_BYTES_MAX);
        }
        if self.membership.len() > MEMBERSHIP_BYTES_MAX {
            return over("snapshot membership", self.membership.len(), MEMBERSHIP_BYTES_MAX);
        }
        if self.last.index.0 == u64::MAX {
            return invalid("snapshot index", "no entry can follow it");
        }
        if self.first_retained.0 > self.last.index.0 + 1 {
            return invalid("snapshot first index", "it lies behind the last entry");
        }
        Ok(())
    }
}

/// What a frame holds. The numbers are on disks: never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    Meta = 1,
    Rows = 2,
    Entries = 3,
    Trailer = 4,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Result<FrameKind, DecodeError> {
        let all = [FrameKind::Meta, FrameKind::Rows, FrameKind::Entries, FrameKind::Trailer];
        let unknown = DecodeError::Invalid { what: "snapshot frame", reason: "no such kind" };
        all.into_iter().find(|kind| *kind as u8 == byte).ok_or(unknown)
    }
}

/// The head of a frame, with its length bounded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHead {
    pub(crate) kind: FrameKind,
    pub(crate) len: usize,
    crc: u32,
    crc_of_head: u32,
}

impl FrameHead {
    pub(crate) fn decode(bytes: &[u8; FRAME_HEAD_BYTES]) -> Result<FrameHead, DecodeError> {
        let mut r = Reader::new(bytes);
        let kind = FrameKind::from_byte(r.u8("snapshot frame")?)?;
        let len = length(&mut r, "snapshot frame length", FRAME_BYTES_MAX)?;
        let crc = r.u32("snapshot frame checksum")?;
        Ok(FrameHead { kind, len, crc, crc_of_head: checksum(&bytes[..5]) })
    }

    pub(crate) fn check(&self, payload: &[u8]) -> Result<(), DecodeError> {
        let expected = checksum_append(self.crc_of_head, payload);
        if expected == self.crc {
            return Ok(());
        }
        Err(DecodeError::BadChecksum { what: "snapshot frame", expected, found: self.crc })
    }
}

/// The head that goes before `payload`.
pub(crate) fn frame_head(kind: FrameKind, payload: &[u8]) -> [u8; FRAME_HEAD_BYTES] {
    let mut head = [0; FRAME_HEAD_BYTES];
    head[0] = kind as u8;
    head[1..5].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    let crc = checksum_append(checksum(&head[..5]), payload);
    head[5..].copy_from_slice(&crc.to_le_bytes());
    head
}

pub(crate) fn prelude() -> [u8; PRELUDE_BYTES] {
    let mut bytes = [0; PRELUDE_BYTES];
    bytes[..6].copy_from_slice(&MAGIC);
    bytes[6..].copy_from_slice(&VERSION.to_le_bytes());
    bytes
}

pub(crate) fn check_prelude(bytes: &[u8; PRELUDE_BYTES]) -> Result<(), DecodeError> {
    if bytes[..6] != MAGIC {
        return Err(DecodeError::Invalid { what: "snapshot", reason: "it doesn't begin with FLSNAP" });
    }
    let found = u16::from_le_bytes([bytes[6], bytes[7]]);
    if found != VERSION {
        let (found, highest) = (u32::from(found), u32::from(VERSION));
        return Err(DecodeError::UnknownVersion { what: "snapshot", found, highest });
    }
    Ok(())
}

/// What a state row is, in snapshots as in the state store.
pub(crate) type SnapshotRow = (KeyKind, Bytes, Bytes);

pub(crate) fn put_row(out: &mut Vec<u8>, row: &SnapshotRow) {
    let (kind, key, value) = row;
    let mut w = Writer::new(out);
    w.u8(*kind as u8).u32(key.len() as u32).u32(value.len() as u32).bytes(key).bytes(value);
}

pub(crate) fn decode_rows(payload: Bytes) -> Result<Vec<SnapshotRow>, DecodeError> {
    let mut r = BytesReader::new(payload);
    let mut rows = Vec::with_capacity((r.remaining() / (ROW_HEAD_BYTES * 8)).min(4096));
    while !r.is_empty() {
        let (kind, key_len, value_len) = r.with(|r| {
            let byte = r.u8("row kind")?;
            let unknown = DecodeError::UnknownKind { what: "snapshot row", found: u32::from(byte) };
            let kind = KeyKind::from_byte(byte).ok_or(unknown)?;
            Ok((kind, length(r, "row key", ROW_BYTES_MAX)?, length(r, "row value", ROW_BYTES_MAX)?))
        })?;
        rows.push((kind, r.bytes("row key", key_len)?, r.bytes("row value", value_len)?));
    }
    Ok(rows)
}

pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &LogEntry) {
    let Payload { head, body } = &entry.payload;
    let mut w = Writer::new(out);
    w.u64(entry.id.term.0).u64(entry.id.index.0).u8(entry.kind);
    w.u32(head.len() as u32).u32(body.len() as u32).bytes(head).bytes(body);
}

pub(crate) fn decode_entries(payload: Bytes) -> Result<Vec<LogEntry>, DecodeError> {
    let mut r = BytesReader::new(payload);
    let mut entries = Vec::with_capacity((r.remaining() / (ENTRY_HEAD_BYTES * 8)).min(4096));
    while !r.is_empty() {
        let (id, kind, head_len, body_len) = r.with(|r| {
            let id = LogId { term: Term(r.u64("entry term")?), index: LogIndex(r.u64("entry index")?) };
            let kind = r.u8("entry kind")?;
            // The log's own bound of a head.
            let head = length(r, "entry head", usize::from(u16::MAX))?;
            Ok((id, kind, head, length(r, "entry body", ENTRY_BYTES_MAX)?))
        })?;
        let (head, body) = (r.bytes("entry head", head_len)?, r.bytes("entry body", body_len)?);
        entries.push(LogEntry { id, kind, payload: Payload { head, body } });
    }
    Ok(entries)
}

/// The end of a snapshot: how much there was, and the hash of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) rows: u64,
    pub(crate) entries: u64,
    pub(crate) hash: [u8; 32],
}

impl Trailer {
    /// The whole trailer frame.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(48);
        Writer::new(&mut payload).u64(self.rows).u64(self.entries).bytes(&self.hash);
        [frame_head(FrameKind::Trailer, &payload).as_slice(), &payload].concat()
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Trailer, DecodeError> {
        let mut r = Reader::new(payload);
        let (rows, entries) = (r.u64("trailer rows")?, r.u64("trailer entries")?);
        let mut hash = [0; 32];
        hash.copy_from_slice(r.bytes("trailer hash", 32)?);
        r.finish("snapshot trailer")?;
        Ok(Trailer { rows, entries, hash })
    }
}

/// A length of four bytes, bounded.
fn length(r: &mut Reader<'_>, what: &'static str, limit: usize) -> Result<usize, DecodeError> {
    let value = r.u32(what)? as usize;
    if value > limit {
        return Err(DecodeError::OverLimit { what, value: value as u64, limit: limit as u64 });
    }
    Ok(value)
}
