//! Reads a snapshot file from front to back and checks everything on the way.
//!
//! Used three times: to verify a file before anything is done with it, to read it, and to find how
//! far the bytes of an interrupted transfer are good.
//!
//! Invariant: a chunk is given out only after its frame's checksum, its form and its place in the
//! whole (order of rows, no hole between entries) were checked; `End` only after the hash was.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fleetline_codec::DecodeError;
use fleetline_env::DiskFile;
use fleetline_log::LogEntry;
use fleetline_state::KeyKind;
use fleetline_types::{LogId, LogIndex};
use ring::digest::{Context, SHA256};

use crate::SnapshotError;
use crate::format::{
    FRAME_HEAD_BYTES, FrameHead, FrameKind, PRELUDE_BYTES, SnapshotMeta, SnapshotRow, Trailer, check_prelude,
    decode_entries, decode_rows,
};

/// Which part of a snapshot a file must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The rows alone, as the sender keeps them.
    State,
    /// Rows and all entries of the range that the header names.
    Whole,
}

/// The next piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Rows, ascending by (kind, key) over the whole snapshot.
    Rows(Vec<(KeyKind, Bytes, Bytes)>),
    /// Entries without a hole, from `first_retained` on.
    Entries(Vec<LogEntry>),
    /// Everything was there, and the hash is right.
    End,
}

/// Reads one snapshot file. After an error it must not be asked again.
pub struct SnapshotReader {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    part: Part,
    len: u64,
    /// Where the next frame begins: everything before was checked.
    at: u64,
    meta: SnapshotMeta,
    /// Hash of everything before `at`.
    hash: Context,
    rows: u64,
    last_row: Option<(KeyKind, Bytes)>,
    last_entry: Option<LogId>,
    entries: u64,
    ended: bool,
}

impl std::fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotReader")
            .field("path", &self.path)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl SnapshotReader {
    /// Opens a file and checks it to the end, so that what is read later was found good once.
    ///
    /// # Errors
    /// `Damaged`, `NewerFormat`, `Io`.
    pub fn verified(
        path: &Path,
        file: &Arc<dyn DiskFile>,
        part: Part,
    ) -> Result<SnapshotReader, SnapshotError> {
        let mut pass = SnapshotReader::begin(path, file, part)?;
        while pass.next_chunk()? != Chunk::End {}
        SnapshotReader::begin(path, file, part)
    }

    /// Opens a file and checks its header only.
    pub(crate) fn begin(
        path: &Path,
        file: &Arc<dyn DiskFile>,
        part: Part,
    ) -> Result<SnapshotReader, SnapshotError> {
        let len = file.len().map_err(|error| SnapshotError::io(path, &error))?;
        let mut prelude = [0; PRELUDE_BYTES];
        read_exact(path, &**file, len, 0, &mut prelude)?;
        check_prelude(&prelude).map_err(|error| SnapshotError::decode(path, 0, &error))?;
        let mut hash = Context::new(&SHA256);
        hash.update(&prelude);

        let at = PRELUDE_BYTES as u64;
        let frame = read_frame(path, &**file, len, at)?;
        if frame.head.kind != FrameKind::Meta {
            return Err(SnapshotError::damaged(path, at, "the first frame is no header"));
        }
        let meta = SnapshotMeta::decode(frame.payload.clone())
            .map_err(|error| SnapshotError::decode(path, at, &error))?;
        frame.update(&mut hash);
        Ok(SnapshotReader {
            path: path.to_path_buf(),
            file: Arc::clone(file),
            part,
            len,
            at: at + frame.len(),
            meta,
            hash,
            rows: 0,
            last_row: None,
            last_entry: None,
            entries: 0,
            ended: false,
        })
    }

    /// What the snapshot is of.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// Bytes that were read and found good.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Rows read so far.
    pub fn row_count(&self) -> u64 {
        self.rows
    }

    /// The hash of everything before [`SnapshotReader::position`] (before the trailer at the end).
    pub(crate) fn hash(&self) -> &Context {
        &self.hash
    }

    /// The next chunk; `End` again and again at the end.
    ///
    /// # Errors
    /// `Damaged`, `NewerFormat`, `Io`.
    pub fn next_chunk(&mut self) -> Result<Chunk, SnapshotError> {
        if self.ended {
            return Ok(Chunk::End);
        }
        let frame = read_frame(&self.path, &*self.file, self.len, self.at)?;
        let taken = match frame.head.kind {
            FrameKind::Rows => decode_rows(frame.payload.clone()).and_then(|rows| self.take_rows(rows)),
            FrameKind::Entries => {
                decode_entries(frame.payload.clone()).and_then(|entries| self.take_entries(entries))
            }
            FrameKind::Trailer => {
                Trailer::decode(&frame.payload).and_then(|trailer| self.take_trailer(&trailer, frame.len()))
            }
            FrameKind::Meta => Err(invalid("a second header")),
        };
        let chunk = taken.map_err(|error| SnapshotError::decode(&self.path, self.at, &error))?;
        if chunk != Chunk::End {
            frame.update(&mut self.hash);
        }
        self.at += frame.len();
        Ok(chunk)
    }

    fn take_rows(&mut self, rows: Vec<SnapshotRow>) -> Result<Chunk, DecodeError> {
        if self.last_entry.is_some() {
            return Err(invalid("rows follow behind entries"));
        }
        for (kind, key, _) in &rows {
            let this = (*kind, key.clone());
            if self.last_row.as_ref().is_some_and(|last| *last >= this) {
                return Err(invalid("rows are out of order"));
            }
            self.last_row = Some(this);
        }
        if rows.is_empty() {
            return Err(invalid("an empty frame"));
        }
        self.rows += rows.len() as u64;
        Ok(Chunk::Rows(rows))
    }

    fn take_entries(&mut self, entries: Vec<LogEntry>) -> Result<Chunk, DecodeError> {
        if self.part == Part::State || entries.is_empty() {
            return Err(invalid("entries where none belong"));
        }
        for LogEntry { id, .. } in &entries {
            let (term_min, expected) = match self.last_entry {
                Some(last) => (last.term, last.index.next()),
                None => (id.term, self.meta.first_retained),
            };
            if id.index != expected || id.term < term_min {
                return Err(invalid("entries are out of order"));
            }
            if id.index > self.meta.last.index || id.term > self.meta.last.term {
                return Err(invalid("an entry lies behind the last one"));
            }
            if id.index == self.meta.last.index && *id != self.meta.last {
                return Err(invalid("the last entry has another term than the header says"));
            }
            self.last_entry = Some(*id);
        }
        self.entries += entries.len() as u64;
        Ok(Chunk::Entries(entries))
    }

    fn take_trailer(&mut self, trailer: &Trailer, frame_bytes: u64) -> Result<Chunk, DecodeError> {
        let entries = if self.part == Part::State { 0 } else { self.meta.entry_count() };
        if self.entries != entries || trailer.entries != self.entries {
            return Err(invalid("not all entries are there"));
        }
        if trailer.rows != self.rows {
            return Err(invalid("not all rows are there"));
        }
        if self.hash.clone().finish().as_ref() != trailer.hash {
            return Err(invalid("the hash of the whole is wrong"));
        }
        if self.at + frame_bytes != self.len {
            let count = (self.len - self.at - frame_bytes) as usize;
            return Err(DecodeError::Trailing { what: "snapshot", count });
        }
        self.ended = true;
        Ok(Chunk::End)
    }

    /// The index of the first entry that was not read yet.
    pub fn next_entry(&self) -> LogIndex {
        self.last_entry.map_or(self.meta.first_retained, |last| last.index.next())
    }
}

struct Frame {
    head_bytes: [u8; FRAME_HEAD_BYTES],
    head: FrameHead,
    payload: Bytes,
}

impl Frame {
    fn len(&self) -> u64 {
        (FRAME_HEAD_BYTES + self.payload.len()) as u64
    }

    fn update(&self, hash: &mut Context) {
        hash.update(&self.head_bytes);
        hash.update(&self.payload);
    }
}

/// Reads one frame of a file of `len` bytes. Its length is bounded before memory is taken.
fn read_frame(path: &Path, file: &dyn DiskFile, len: u64, at: u64) -> Result<Frame, SnapshotError> {
    let mut head_bytes = [0; FRAME_HEAD_BYTES];
    read_exact(path, file, len, at, &mut head_bytes)?;
    let head = FrameHead::decode(&head_bytes).map_err(|error| SnapshotError::decode(path, at, &error))?;
    let behind = at + FRAME_HEAD_BYTES as u64;
    if head.len as u64 > len - behind {
        return Err(SnapshotError::damaged(path, at, "the file ends inside a frame"));
    }
    let mut payload = vec![0; head.len];
    read_exact(path, file, len, behind, &mut payload)?;
    head.check(&payload).map_err(|error| SnapshotError::decode(path, at, &error))?;
    Ok(Frame { head_bytes, head, payload: Bytes::from(payload) })
}

fn read_exact(
    path: &Path,
    file: &dyn DiskFile,
    len: u64,
    at: u64,
    buf: &mut [u8],
) -> Result<(), SnapshotError> {
    if at > len || buf.len() as u64 > len - at {
        return Err(SnapshotError::damaged(path, at, "the file ends too early"));
    }
    let found = file.read_at(at, buf).map_err(|error| SnapshotError::io(path, &error))?;
    if found < buf.len() {
        return Err(SnapshotError::damaged(path, at, "the file became shorter"));
    }
    Ok(())
}

fn invalid(reason: &'static str) -> DecodeError {
    DecodeError::Invalid { what: "snapshot", reason }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use fleetline_env::memory::MemDisk;
    use fleetline_env::{Disk, OpenMode};
    use fleetline_log::Payload;
    use fleetline_types::GroupId;

    use super::*;
    use crate::format::{FRAME_BYTES_MAX, frame_head, prelude, put_entry, put_row};

    /// Builds snapshots by hand, with right checksums and whatever order.
    struct Built {
        bytes: Vec<u8>,
        rows: u64,
        entries: u64,
    }

    fn meta() -> SnapshotMeta {
        SnapshotMeta {
            group: GroupId(7),
            id: "s-1".into(),
            last: LogId::new(3, 11),
            first_retained: LogIndex(10),
            membership: Bytes::from_static(b"members"),
        }
    }

    impl Built {
        fn new() -> Built {
            let mut built = Built { bytes: prelude().to_vec(), rows: 0, entries: 0 };
            built.frame(FrameKind::Meta, &meta().encode());
            built
        }

        fn frame(&mut self, kind: FrameKind, payload: &[u8]) -> &mut Built {
            self.bytes.extend_from_slice(&frame_head(kind, payload));
            self.bytes.extend_from_slice(payload);
            self
        }

        fn rows(&mut self, keys: &[&'static str]) -> &mut Built {
            let mut payload = Vec::new();
            for key in keys {
                put_row(
                    &mut payload,
                    &(KeyKind::StreamHead, Bytes::from_static(key.as_bytes()), Bytes::new()),
                );
            }
            self.rows += keys.len() as u64;
            self.frame(FrameKind::Rows, &payload)
        }

        fn entries(&mut self, ids: &[(u64, u64)]) -> &mut Built {
            let mut payload = Vec::new();
            for (term, index) in ids {
                let id = LogId::new(*term, *index);
                put_entry(&mut payload, &LogEntry { id, kind: 1, payload: Payload::default() });
            }
            self.entries += ids.len() as u64;
            self.frame(FrameKind::Entries, &payload)
        }

        fn end(&mut self) -> Result<Vec<Chunk>, SnapshotError> {
            let mut hash = [0; 32];
            hash.copy_from_slice(ring::digest::digest(&SHA256, &self.bytes).as_ref());
            let trailer = Trailer { rows: self.rows, entries: self.entries, hash };
            self.bytes.extend_from_slice(&trailer.frame());
            read(&self.bytes)
        }
    }

    fn read(bytes: &[u8]) -> Result<Vec<Chunk>, SnapshotError> {
        let path = Path::new("/g7.install");
        let file = MemDisk::new().open(path, OpenMode::CreateNew).unwrap();
        file.write_at(0, &[IoSlice::new(bytes)]).unwrap();
        let mut reader = SnapshotReader::verified(path, &file, Part::Whole)?;
        let mut chunks = Vec::new();
        loop {
            match reader.next_chunk()? {
                Chunk::End => return Ok(chunks),
                chunk => chunks.push(chunk),
            }
        }
    }

    fn refused(found: Result<Vec<Chunk>, SnapshotError>, why: &str) {
        let error = found.unwrap_err();
        assert!(matches!(&error, SnapshotError::Damaged { reason, .. } if reason.contains(why)), "{error}");
    }

    /// What is built rightly is read; each rule of the whole, broken behind right checksums, is seen.
    #[test]
    fn every_rule_of_the_whole_is_checked() {
        let chunks = Built::new().rows(&["a", "b"]).rows(&["c"]).entries(&[(2, 10), (3, 11)]).end().unwrap();
        assert_eq!(chunks.len(), 3);

        let both = [(2, 10), (3, 11)];
        refused(Built::new().rows(&["b", "a"]).entries(&both).end(), "rows are out of order");
        refused(Built::new().rows(&["a"]).rows(&["a"]).entries(&both).end(), "rows are out of order");
        refused(Built::new().rows(&[]).entries(&both).end(), "an empty frame");
        refused(Built::new().entries(&both).rows(&["a"]).end(), "rows follow");
        refused(Built::new().entries(&[(3, 11)]).end(), "entries are out of order");
        refused(Built::new().entries(&[(3, 10), (2, 11)]).end(), "entries are out of order");
        refused(Built::new().entries(&[(2, 10), (2, 11)]).end(), "another term");
        refused(Built::new().entries(&[(4, 10)]).end(), "behind the last");
        refused(Built::new().entries(&[(2, 10), (3, 11), (3, 12)]).end(), "behind the last");
        refused(Built::new().entries(&[(2, 10)]).end(), "not all entries");
        refused(Built::new().end(), "not all entries");
        refused(Built::new().frame(FrameKind::Meta, &meta().encode()).end(), "a second header");
        let mut built = Built::new();
        built.rows += 1;
        refused(built.entries(&both).end(), "not all rows");
        let mut built = Built::new();
        built.entries(&both).end().unwrap();
        built.bytes.push(0);
        refused(read(&built.bytes), "followed by 1 bytes");
    }

    /// A sound frame of another snapshot of the same shape is seen by the hash of the whole alone.
    #[test]
    fn frames_of_another_snapshot_are_seen() {
        let whole = |keys: &[&'static str]| {
            let mut built = Built::new();
            built.rows(keys).entries(&[(2, 10), (3, 11)]).end().unwrap();
            built.bytes
        };
        let (one, other) = (whole(&["a", "b"]), whole(&["a", "c"]));
        let trailer = one.len() - 48 - FRAME_HEAD_BYTES;
        let mixed = [&one[..trailer], &other[trailer..]].concat();
        refused(read(&mixed), "the hash of the whole");
    }

    /// Lengths are bounded before memory is taken: by the limit, and by what the file has.
    #[test]
    fn lengths_are_bounded_first() {
        let mut built = Built::new();
        let at = built.bytes.len();
        built.rows(&["a"]);
        for (len, why) in [(u32::MAX, "at most"), (FRAME_BYTES_MAX as u32, "ends inside a frame")] {
            let mut bytes = built.bytes.clone();
            bytes[at + 1..at + 5].copy_from_slice(&len.to_le_bytes());
            refused(read(&bytes), why);
        }
        let mut payload = Vec::new();
        put_row(&mut payload, &(KeyKind::StreamHead, Bytes::new(), Bytes::new()));
        payload[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
        refused(Built::new().frame(FrameKind::Rows, &payload).end(), "row key is 4294967295");
        payload[1..5].copy_from_slice(&5u32.to_le_bytes());
        refused(Built::new().frame(FrameKind::Rows, &payload).end(), "row key is cut short");
    }

    /// A newer version or kind of row says so, so that an operator upgrades and doesn't search for rot.
    #[test]
    fn newer_formats_are_told_from_damage() {
        let mut built = Built::new();
        built.bytes[6] = 2;
        let found = read(&built.bytes).unwrap_err();
        assert!(matches!(found, SnapshotError::NewerFormat { .. }), "{found}");
        let mut payload = Vec::new();
        put_row(&mut payload, &(KeyKind::StreamHead, Bytes::new(), Bytes::new()));
        payload[0] = 200;
        let found = Built::new().frame(FrameKind::Rows, &payload).end().unwrap_err();
        assert!(matches!(found, SnapshotError::NewerFormat { .. }), "{found}");
    }

    /// The bytes of version 1 never change: snapshots are on disks and cross between releases.
    #[test]
    fn version_1_is_pinned() {
        let mut built = Built::new();
        built.rows(&["k"]).entries(&[(2, 10), (3, 11)]).end().unwrap();
        let hash = ring::digest::digest(&SHA256, &built.bytes);
        let hex: String = hash.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((built.bytes.len(), hex.as_str()), (PINNED.0, PINNED.1));
    }

    const PINNED: (usize, &str) = (198, "116b89e262781be4");
}
