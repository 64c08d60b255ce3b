//! The writer: one round takes what waits, writes it once, syncs once, and completes all of it.
//!
//! There is no timer: what queues up during a sync is the next batch. [`Writer::round`] is all the
//! logic; a thread calls it in a loop, or `pump` does on the caller's thread.
//!
//! Invariants:
//! 1. A round is written only when everything before it is synced. Recovery tells a torn tail from
//!    damage by that (`frame.rs`).
//! 2. A segment's checkpoint restates what the frames written so far say, not what callers have
//!    asked for since; so the writer keeps a logical state of its own.
//! 3. After the first failure every request, queued or new, completes with `Poisoned`.
//!
//! Not here: what a request does to a group when it is asked for (`seg_log.rs`).

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fleetline_env::OpenMode;
use fleetline_types::GroupId;

use crate::cell::Cell;
use crate::frame::{Frame, FrameKind, HEADER_BYTES, Place, SegmentHead, SegmentSpan};
use crate::index::{GroupMeta, Loc};
use crate::segment::{Segment, SidecarBuilder, segment_path};
use crate::shared::{Core, Request, Work, note};
use crate::{LogEntry, LogError};

/// Payloads up to this length are copied behind their header: cheaper than a slice of their own.
const COPY_BYTES_MAX: usize = 512;

/// The writer of one log.
#[derive(Debug)]
pub(crate) struct Writer {
    core: Arc<Core>,
    active: Active,
    /// Logical state of every group as of the last written frame.
    metas: BTreeMap<GroupId, GroupMeta>,
    /// Sealed segments that aren't deleted.
    live: BTreeMap<u32, SegmentSpan>,
    next_seq: u64,
    amnesia_unknown: bool,
    /// Headers and small payloads of a round.
    scratch: Vec<u8>,
    /// Cached entries in the order in which they became durable: group and last index.
    evictable: VecDeque<(Arc<Cell>, u64)>,
}

#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    pos: u64,
    /// Bytes of the checkpoint at its beginning.
    head_bytes: u64,
    sidecar: SidecarBuilder,
}

/// What the writer starts from.
pub(crate) struct Start {
    pub(crate) metas: BTreeMap<GroupId, GroupMeta>,
    pub(crate) live: BTreeMap<u32, SegmentSpan>,
    pub(crate) next_seq: u64,
    pub(crate) segment: u32,
    pub(crate) amnesia_all: bool,
    pub(crate) amnesia_unknown: bool,
}

/// A frame being laid out: its header and small payloads stand in the scratch buffer.
struct Part<'a> {
    scratch_end: usize,
    slices: [&'a [u8]; 2],
}

impl Writer {
    /// Begins a new segment, restating everything. Durable when this returns.
    pub(crate) fn start(core: Arc<Core>, start: Start) -> io::Result<Writer> {
        let Start { metas, live, mut next_seq, segment, amnesia_all, amnesia_unknown } = start;
        let head = SegmentHead {
            groups: metas.len() as u32,
            amnesia_all,
            amnesia_unknown,
            live: live.values().copied().collect(),
        };
        let active = Active::create(&core, segment, &mut next_seq, &head, &metas)?;
        let evictable = VecDeque::new();
        let writer =
            Writer { core, active, metas, live, next_seq, amnesia_unknown, scratch: Vec::new(), evictable };
        writer.core.mark.set(writer.next_seq - 1, writer.core.clock.monotonic());
        Ok(writer)
    }

    /// Does one round; waits for work first when `wait`. Returns how many requests it completed,
    /// zero when there were none (or, when waiting, when the queue is closed and empty).
    pub(crate) fn round(&mut self, wait: bool) -> usize {
        let requests = self.core.queue.take(self.core.options.round_bytes_max, wait);
        let count = requests.len();
        if count == 0 {
            return 0;
        }
        let result = self.core.poisoned().and_then(|()| {
            let written = self.write(&requests);
            written.map_err(|error| self.core.poison("write or sync of the log", &error))
        });
        match result {
            Ok(locs) => {
                self.publish(&requests, &locs);
                requests.into_iter().for_each(|request| request.complete(Ok(())));
                self.evict();
            }
            Err(error) => requests.into_iter().for_each(|request| request.complete(Err(error.clone()))),
        }
        let (_, bytes) = self.core.queue.waiting();
        self.core.meters.queue_bytes.set(bytes as f64);
        count
    }

    /// Writes and syncs all frames of `requests`; gives their places in order.
    fn write(&mut self, requests: &[Request]) -> io::Result<Vec<Loc>> {
        let bytes: u64 = requests.iter().map(|request| request.work.bytes()).sum();
        let limit = self.core.options.segment_bytes;
        if self.active.pos + bytes > limit && self.active.pos > self.active.head_bytes {
            self.rotate()?;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let (mut parts, mut locs) = (Vec::new(), Vec::new());
        let (start, round_first) = (self.active.pos, self.next_seq);
        for request in requests {
            let group = request.cell.as_ref().map_or(GroupId::CONTROL, |cell| cell.id);
            match &request.work {
                Work::Entries(kind, entries) => {
                    for entry in entries {
                        let frame = entry_frame(*kind, group, entry);
                        let payload = [&entry.payload.head[..], &entry.payload.body[..]];
                        locs.push(self.lay_out(frame, payload, round_first, &mut scratch, &mut parts));
                    }
                }
                Work::Note(frame, payload) => {
                    let frame = Frame { len: payload.len() as u32, ..*frame };
                    locs.push(self.lay_out(
                        frame,
                        [&[], &payload[..]],
                        round_first,
                        &mut scratch,
                        &mut parts,
                    ));
                    self.note_written(&frame, payload);
                }
            }
        }
        let slices = gather(&scratch, &parts);
        let file = &self.active.segment.file;
        file.write_at(start, &slices).and_then(|()| file.sync_data())?;
        drop(slices);
        drop(parts);
        self.scratch = scratch;
        self.synced(locs.len() as u64, self.active.pos - start);
        Ok(locs)
    }

    /// Gives a frame its number and place, and lays out its bytes.
    fn lay_out<'a>(
        &mut self,
        mut frame: Frame,
        payload: [&'a [u8]; 2],
        round_first: u64,
        scratch: &mut Vec<u8>,
        parts: &mut Vec<Part<'a>>,
    ) -> Loc {
        frame.seq = self.next_seq;
        frame.place = u32::try_from(self.next_seq - round_first).unwrap_or(u32::MAX);
        self.next_seq += 1;
        let place = Place { segment: self.active.segment.id, pos: self.active.pos as u32 };
        frame.encode(place, payload[0], payload[1], scratch);
        let mut slices = payload;
        if frame.len as usize <= COPY_BYTES_MAX {
            scratch.extend_from_slice(payload[0]);
            scratch.extend_from_slice(payload[1]);
            slices = [&[], &[]];
        }
        parts.push(Part { scratch_end: scratch.len(), slices });
        self.active.sidecar.add(&frame, payload[1]);
        self.active.pos += frame.bytes();
        if frame.kind == FrameKind::Entry {
            self.meta_of(frame.group).append(frame.id());
        } else if frame.kind.is_entry() {
            self.meta_of(frame.group).set_term(frame.index, frame.term);
        }
        Loc { segment: place.segment, pos: place.pos, len: frame.len }
    }

    fn note_written(&mut self, frame: &Frame, payload: &Bytes) {
        match frame.kind {
            FrameKind::SegmentDrop => {
                self.live.remove(&(frame.index as u32));
            }
            FrameKind::TrustUnknown => self.amnesia_unknown = false,
            _ => {
                self.meta_of(frame.group).apply_note(frame, payload);
            }
        }
    }

    fn meta_of(&mut self, group: GroupId) -> &mut GroupMeta {
        let amnesia = self.amnesia_unknown;
        self.metas.entry(group).or_insert_with(|| GroupMeta::new(amnesia))
    }

    fn synced(&self, frames: u64, bytes: u64) {
        let core = &self.core;
        core.mark.set(self.next_seq - 1, core.clock.monotonic());
        self.active.segment.bytes.store(self.active.pos, Ordering::Relaxed);
        core.count_written(bytes);
        core.syncs.fetch_add(1, Ordering::Relaxed);
        core.frames.fetch_add(frames, Ordering::Relaxed);
        core.meters.syncs.increment(1);
        core.meters.frames_per_round.record(frames as f64);
    }

    /// Seals the segment and begins the next one. Everything in the old one is synced.
    fn rotate(&mut self) -> io::Result<()> {
        let old = self.active.segment.id;
        self.live.insert(old, self.active.sidecar.span(old));
        let head = SegmentHead {
            groups: self.metas.len() as u32,
            amnesia_all: false,
            amnesia_unknown: self.amnesia_unknown,
            live: self.live.values().copied().collect(),
        };
        let next = Active::create(&self.core, old + 1, &mut self.next_seq, &head, &self.metas)?;
        let sealed = std::mem::replace(&mut self.active, next);
        let sidecar = sealed.sidecar.finish(old, sealed.pos);
        self.core.chore(|chores| {
            chores.sealed.push((old, sidecar));
            chores.look = true;
        });
        self.core.measure_segments();
        Ok(())
    }

    /// Tells the groups what is on disk now.
    fn publish(&mut self, requests: &[Request], locs: &[Loc]) {
        let mut locs = locs.iter().copied();
        for request in requests {
            match (&request.cell, &request.work) {
                (Some(cell), Work::Entries(kind, entries)) => {
                    let mut state = cell.state.lock();
                    for (entry, loc) in entries.iter().zip(locs.by_ref()) {
                        state.written(*kind, entry.id, loc);
                    }
                    if let (FrameKind::Entry, Some(last)) = (*kind, entries.last()) {
                        state.durable(request.epoch, last.id.index.0 + 1);
                        drop(state);
                        self.evictable.push_back((cell.clone(), last.id.index.0));
                    }
                }
                (Some(cell), Work::Note(frame, _)) => {
                    locs.next();
                    let mut state = cell.state.lock();
                    let next = match frame.kind {
                        FrameKind::Truncate => frame.index,
                        FrameKind::Purge | FrameKind::InstallBegin => state.index.meta.floor(),
                        _ => 0,
                    };
                    state.durable(request.epoch, next);
                }
                (None, work) => {
                    locs.by_ref().take(work.frames()).for_each(drop);
                }
            }
        }
    }

    /// Brings the cache back under its bound, oldest entries first.
    fn evict(&mut self) {
        let (used, max) = (&self.core.cache_bytes, self.core.options.cache_bytes);
        while used.load(Ordering::Relaxed) > max {
            let Some((cell, upto)) = self.evictable.pop_front() else {
                break;
            };
            cell.state.lock().evict(upto, used);
        }
        // Rows of entries that were truncated or retained away cost memory, nothing else.
        if self.evictable.len() > 1 << 20 {
            self.evictable.drain(..1 << 19).for_each(|(cell, upto)| cell.state.lock().evict(upto, used));
        }
    }
}

impl Active {
    fn create(
        core: &Core,
        id: u32,
        next_seq: &mut u64,
        head: &SegmentHead,
        metas: &BTreeMap<GroupId, GroupMeta>,
    ) -> io::Result<Active> {
        let file = core.disk.open(&segment_path(core.dir(), id), OpenMode::CreateNew)?;
        let (mut bytes, mut sidecar, first_seq) = (Vec::new(), SidecarBuilder::default(), *next_seq);
        let header = (note(FrameKind::SegmentHeader, GroupId::CONTROL, u64::from(id), 0), head.encode());
        let states =
            metas.iter().map(|(group, meta)| (note(FrameKind::GroupState, *group, 0, 0), meta.encode()));
        for (frame, payload) in std::iter::once(header).chain(states) {
            let place = Place { segment: id, pos: bytes.len() as u32 };
            let round_place = (*next_seq - first_seq) as u32;
            let frame = Frame { len: payload.len() as u32, seq: *next_seq, place: round_place, ..frame };
            frame.encode(place, &[], &payload, &mut bytes);
            bytes.extend_from_slice(&payload);
            sidecar.add(&frame, &payload);
            *next_seq += 1;
        }
        file.write_at(0, &[IoSlice::new(&bytes)])?;
        file.sync_data()?;
        core.disk.sync_dir(core.dir())?;
        let pos = bytes.len() as u64;
        let segment = Segment::new(id, file, pos);
        core.segments.add(segment.clone());
        core.active.store(id, Ordering::Release);
        Ok(Active { segment, pos, head_bytes: pos, sidecar })
    }
}

impl Work {
    fn frames(&self) -> usize {
        match self {
            Work::Entries(_, entries) => entries.len(),
            Work::Note(..) => 1,
        }
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Work::Entries(_, entries) => entries_bytes(entries),
            Work::Note(_, payload) => (HEADER_BYTES + payload.len()) as u64,
        }
    }
}

/// Bytes of `entries` on disk.
pub(crate) fn entries_bytes(entries: &[LogEntry]) -> u64 {
    entries.iter().map(|entry| (HEADER_BYTES + entry.payload.len()) as u64).sum()
}

fn entry_frame(kind: FrameKind, group: GroupId, entry: &LogEntry) -> Frame {
    Frame {
        kind,
        entry_kind: entry.kind,
        head_len: entry.payload.head.len() as u16,
        len: entry.payload.len() as u32,
        group,
        index: entry.id.index.0,
        term: entry.id.term.0,
        seq: 0,
        place: 0,
    }
}

/// The slices of a round, in order; what stands behind each other in `scratch` is one slice.
fn gather<'a>(scratch: &'a [u8], parts: &[Part<'a>]) -> Vec<IoSlice<'a>> {
    let mut slices = Vec::new();
    let mut from = 0;
    for part in parts {
        if part.slices.iter().all(|slice| slice.is_empty()) {
            continue;
        }
        slices.push(IoSlice::new(&scratch[from..part.scratch_end]));
        from = part.scratch_end;
        slices.extend(part.slices.iter().filter(|slice| !slice.is_empty()).map(|slice| IoSlice::new(slice)));
    }
    if from < scratch.len() {
        slices.push(IoSlice::new(&scratch[from..]));
    }
    slices
}

/// The loop of the writer's thread: ends when the queue is closed and empty.
pub(crate) fn run(mut writer: Writer) {
    let _failure = FailAll(writer.core.clone());
    while writer.round(true) > 0 {}
}

/// If the thread of the writer panics (a completion did), nobody may wait for it for ever.
struct FailAll(Arc<Core>);

impl Drop for FailAll {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let error = self.0.poison("thread of the writer", &"it panicked");
        self.0.queue.close();
        loop {
            let left = self.0.queue.take(u64::MAX, false);
            if left.is_empty() {
                return;
            }
            left.into_iter().for_each(|request| request.complete(Err(error.clone())));
        }
    }
}

/// The loop of the mark's thread.
pub(crate) fn run_mark(core: &Core) {
    while core.mark.wait() {
        if let Err(error) = core.mark.write_pending() {
            let _: LogError = core.poison("write of the durable mark", &error);
            return;
        }
    }
}
