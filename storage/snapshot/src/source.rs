//! The sender's side: the bytes of a snapshot at any offset.
//!
//! Rows come from the state file as they are. Entries are encoded frame by frame as the stream is
//! read, so a snapshot of any size costs one frame of memory. Reading on is cheap; going back
//! begins at the last mark before the offset, and a source that was just opened reads the log from
//! `first_retained` to get to a later offset. Marks are [`MARK_BYTES`] apart at first; whenever there
//! are [`MARKS_MAX`] of them every second one goes and the distance doubles.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use fleetline_env::DiskFile;
use fleetline_log::{LogEntry, LogError, NodeLog};
use fleetline_types::LogIndex;
use ring::digest::Context;

use crate::format::{
    CHUNK_BYTES, ENTRY_BYTES_MAX, FRAME_HEAD_BYTES, FrameKind, Trailer, frame_head, put_entry,
};
use crate::walk::{Chunk, Part, SnapshotReader};
use crate::{SnapshotError, SnapshotMeta};

/// First distance of the places that a source can go back to without reading the log from the start.
const MARK_BYTES: u64 = 4 << 20;
/// Marks kept.
const MARKS_MAX: usize = 256;
/// Bytes asked of the log at a time.
const READ_BYTES: u64 = 1 << 20;

/// Some bytes of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The bytes; never empty unless the stream had ended before.
    pub bytes: Bytes,
    /// Whether the snapshot ends behind them.
    pub last: bool,
}

/// The byte stream of one snapshot.
pub struct SnapshotSource {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    log: Arc<dyn NodeLog>,
    meta: SnapshotMeta,
    rows: u64,
    /// The stream up to here is the beginning of the file.
    state_bytes: u64,
    tail: Tail,
    /// Ascending; the first is where the rows end.
    marks: Vec<Mark>,
    /// Their distance, at the least.
    mark_bytes: u64,
}

/// A place between two frames behind the rows.
#[derive(Clone)]
struct Mark {
    offset: u64,
    /// The first entry behind it.
    next: LogIndex,
    /// Hash of everything before it.
    hash: Context,
}

/// Where the stream of entries and trailer stands.
struct Tail {
    /// Behind `piece`.
    mark: Mark,
    /// The last frame made; ends at `mark.offset`.
    piece: Bytes,
    /// Entries read from the log but not yet encoded.
    ready: VecDeque<LogEntry>,
    ended: bool,
}

impl Tail {
    fn at(mark: Mark) -> Tail {
        Tail { mark, piece: Bytes::new(), ready: VecDeque::new(), ended: false }
    }

    fn piece_start(&self) -> u64 {
        self.mark.offset - self.piece.len() as u64
    }
}

impl std::fmt::Debug for SnapshotSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotSource").field("meta", &self.meta).finish_non_exhaustive()
    }
}

impl SnapshotSource {
    pub(crate) fn open(
        path: &Path,
        file: Arc<dyn DiskFile>,
        log: Arc<dyn NodeLog>,
    ) -> Result<SnapshotSource, SnapshotError> {
        let mut reader = SnapshotReader::begin(path, &file, Part::State)?;
        let mut state_bytes = reader.position();
        while reader.next_chunk()? != Chunk::End {
            state_bytes = reader.position();
        }
        let meta = reader.meta().clone();
        let mark = Mark { offset: state_bytes, next: meta.first_retained, hash: reader.hash().clone() };
        let source = SnapshotSource {
            path: path.to_path_buf(),
            file,
            rows: reader.row_count(),
            state_bytes,
            tail: Tail::at(mark.clone()),
            marks: vec![mark],
            mark_bytes: MARK_BYTES,
            log,
            meta,
        };
        source.check_retained()?;
        Ok(source)
    }

    /// What the snapshot is of.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// Up to `max_bytes` (at least one) of the snapshot from `offset` on. The same offset gives the
    /// same bytes, whatever was asked before. Empty and `last` at the end.
    ///
    /// # Errors
    /// `WrongOffset` behind the end; `Gone` and `Unavailable` when the log can't give what the
    /// header promises; `Log`, `Io`.
    pub fn stream_chunk(&mut self, offset: u64, max_bytes: usize) -> Result<Piece, SnapshotError> {
        let max_bytes = max_bytes.max(1);
        if offset < self.state_bytes {
            return self.read_state(offset, max_bytes);
        }
        if offset < self.tail.piece_start() {
            let place = self.marks.partition_point(|mark| mark.offset <= offset);
            let mark = place.checked_sub(1).map_or(&self.marks[0], |before| &self.marks[before]);
            self.tail = Tail::at(mark.clone());
        }
        while offset >= self.tail.mark.offset && !self.tail.ended {
            self.advance()?;
        }
        if offset > self.tail.mark.offset {
            return Err(SnapshotError::WrongOffset { expected: self.tail.mark.offset, found: offset });
        }
        let from = (offset - self.tail.piece_start()) as usize;
        let to = self.tail.piece.len().min(from.saturating_add(max_bytes));
        let last = self.tail.ended && to == self.tail.piece.len();
        Ok(Piece { bytes: self.tail.piece.slice(from..to), last })
    }

    fn read_state(&self, offset: u64, max_bytes: usize) -> Result<Piece, SnapshotError> {
        let left = self.state_bytes - offset;
        // More would be memory at the caller's whim.
        let len = left.min(max_bytes as u64).min(READ_BYTES) as usize;
        let mut bytes = vec![0; len];
        let found =
            self.file.read_at(offset, &mut bytes).map_err(|error| SnapshotError::io(&self.path, &error))?;
        if found < len {
            return Err(SnapshotError::damaged(&self.path, offset, "the file became shorter"));
        }
        Ok(Piece { bytes: Bytes::from(bytes), last: false })
    }

    /// Makes the next frame.
    fn advance(&mut self) -> Result<(), SnapshotError> {
        self.keep_mark();
        let frame = if self.tail.mark.next > self.meta.last.index {
            self.tail.ended = true;
            self.trailer()
        } else {
            self.entries_frame()?
        };
        self.tail.mark.hash.update(&frame);
        self.tail.mark.offset += frame.len() as u64;
        self.tail.piece = Bytes::from(frame);
        Ok(())
    }

    fn keep_mark(&mut self) {
        let newest = self.marks.last().map_or(0, |mark| mark.offset);
        if self.tail.mark.offset < newest + self.mark_bytes {
            return;
        }
        self.marks.push(self.tail.mark.clone());
        if self.marks.len() >= MARKS_MAX {
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
            self.mark_bytes *= 2;
        }
    }

    /// Entries until a chunk is full or the range is at its end: a rule that doesn't look at how the
    /// log gives them.
    fn entries_frame(&mut self) -> Result<Vec<u8>, SnapshotError> {
        let mut frame = vec![0; FRAME_HEAD_BYTES];
        let mut next = self.tail.mark.next;
        while frame.len() < FRAME_HEAD_BYTES + CHUNK_BYTES && next <= self.meta.last.index {
            let entry = self.next_entry(next)?;
            put_entry(&mut frame, &entry);
            next = next.next();
        }
        let head = frame_head(FrameKind::Entries, &frame[FRAME_HEAD_BYTES..]);
        frame[..FRAME_HEAD_BYTES].copy_from_slice(&head);
        self.tail.mark.next = next;
        Ok(frame)
    }

    fn next_entry(&mut self, index: LogIndex) -> Result<LogEntry, SnapshotError> {
        let group = self.meta.group;
        let unavailable = |reason: String| SnapshotError::Unavailable { group, index, reason };
        // What is ready may lie before `index` when an earlier frame failed half-way.
        while self.tail.ready.front().is_some_and(|entry| entry.id.index < index) {
            self.tail.ready.pop_front();
        }
        if self.tail.ready.front().is_none_or(|entry| entry.id.index != index) {
            let range = index..self.meta.last.index.next();
            let entries = self.log.read(group, range, READ_BYTES).map_err(|error| match error {
                LogError::Gone { group, index, first } => SnapshotError::Gone { group, index, first },
                LogError::EntryUnavailable { .. } => unavailable("it is damaged on this disk".to_owned()),
                other => SnapshotError::Log(other),
            })?;
            self.tail.ready = entries.into();
        }
        let entry = self.tail.ready.pop_front().filter(|entry| entry.id.index == index);
        let entry = entry.ok_or_else(|| unavailable("the log doesn't give it".to_owned()))?;
        if entry.payload.len() > ENTRY_BYTES_MAX {
            let (value, limit) = (entry.payload.len() as u64, ENTRY_BYTES_MAX as u64);
            return Err(SnapshotError::OverLimit { what: "log entry", value, limit });
        }
        Ok(entry)
    }

    fn trailer(&self) -> Vec<u8> {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.tail.mark.hash.clone().finish().as_ref());
        Trailer { rows: self.rows, entries: self.meta.entry_count(), hash }.frame()
    }

    /// Fails at once when the range is already gone, not after the rows were sent.
    fn check_retained(&self) -> Result<(), SnapshotError> {
        let first = self.log.state(self.meta.group).first_retained;
        let index = self.meta.first_retained;
        if self.meta.entry_count() > 0 && first > index {
            return Err(SnapshotError::Gone { group: self.meta.group, index, first });
        }
        Ok(())
    }
}
