//! The log on files.
//!
//! A request changes its group in memory (readable at once), is queued in that order, and is
//! durable when the writer's round with it is synced. See the head of the crate for the contract,
//! `frame.rs` for the bytes, `recovery.rs` for what a start does.
//!
//! Who runs: in [`WriterMode::Thread`] three threads (writer, mark, keeper); in
//! [`WriterMode::Manual`] whoever calls [`SegLog::pump`], one step at a time, so that a simulation
//! decides when anything happens.
//!
//! Async callers: a full queue blocks the sender. Ask [`NodeLog::admit`] before proposing.

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use bytes::Bytes;
use fleetline_env::{Clock, Disk, FileLock};
use fleetline_types::{GroupId, LogId, LogIndex};
use parking_lot::Mutex;

use crate::cell::CellState;
use crate::frame::{Frame, FrameKind, PAYLOAD_BYTES_MAX};
use crate::high_water::HighWater;
use crate::shared::{Core, Request, Work, note};
use crate::writer::{self, Writer, entries_bytes};
use crate::{
    Done, GroupLogState, InstallPrefix, LogEntry, LogError, LogOptions, LogStats, NodeLog, RecoveryReport,
    VoteRecord, WriterMode, reader, recovery, repair, retention,
};

/// Name of the lock file in the log's folder.
const LOCK_NAME: &str = "LOCK";
const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// The log of one node, in a folder of its own.
#[derive(Debug)]
pub struct SegLog {
    core: Arc<Core>,
    /// In manual mode; a thread owns it otherwise.
    writer: Option<Mutex<Writer>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: Box<dyn FileLock>,
}

impl SegLog {
    /// Opens the log in `options.dir`, recovering what an earlier process left.
    ///
    /// # Errors
    /// `Misuse` for options out of range or a folder that another process has open; `Io`. Damage is
    /// no error: it is in the report, and the entries concerned read as unavailable.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
    ) -> Result<(Arc<SegLog>, RecoveryReport), LogError> {
        if options.segment_bytes == 0 || options.segment_bytes > SEGMENT_BYTES_MAX {
            return Err(LogError::Misuse(format!(
                "segment_bytes is {}, it must be from 1 to {SEGMENT_BYTES_MAX}",
                options.segment_bytes
            )));
        }
        disk.create_dir_all(&options.dir).map_err(io_error)?;
        let lock = disk.lock(&options.dir.join(LOCK_NAME)).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => LogError::Misuse(format!(
                "log folder {} is in use by another process; stop it first or choose another folder",
                options.dir.display()
            )),
            _ => io_error(error),
        })?;
        let (mark, found) = HighWater::open(&*disk, &options.dir, options.mark).map_err(io_error)?;
        let mode = options.writer;
        let core = Arc::new(Core::new(disk, clock, options, mark, mode == WriterMode::Thread));
        let (start, report) = recovery::recover(&core, found)?;
        let writer = Writer::start(core.clone(), start).map_err(io_error)?;
        core.measure_segments();
        core.chore(|chores| chores.look = true);
        let (writer, threads) = match mode {
            WriterMode::Manual => (Some(Mutex::new(writer)), Vec::new()),
            WriterMode::Thread => (None, spawn(&core, writer)?),
        };
        let log = SegLog { core, writer, threads: Mutex::new(threads), _lock: lock };
        Ok((Arc::new(log), report))
    }

    /// In manual mode: writes the pending mark, does one round, and keeps house. Returns how many
    /// requests the round completed. Does nothing in thread mode.
    pub fn pump(&self) -> usize {
        let Some(writer) = &self.writer else {
            return 0;
        };
        if self.core.poisoned().is_ok()
            && let Err(error) = self.core.mark.write_pending()
        {
            self.core.poison("write of the durable mark", &error);
        }
        let count = writer.lock().round(false);
        retention::keep_house(&self.core);
        count
    }

    /// Whether requests wait for the writer.
    pub fn has_pending(&self) -> bool {
        self.core.queue.waiting().0 > 0
    }

    /// Sets what is called (on the caller's thread, with no lock held) when work arrives.
    pub fn set_waker(&self, waker: Box<dyn Fn() + Send + Sync>) {
        *self.core.waker.write() = Some(waker);
    }

    fn submit_whole(&self, work: Work, done: Done) {
        let bytes = work.bytes();
        self.core.queue.reserve(bytes);
        let request = Request { cell: None, work, epoch: 0, done: Some(done) };
        if let Err(request) = self.core.push(request, bytes) {
            request.complete(Err(closed()));
        }
        self.core.wake();
    }

    /// Reserves room, changes the group under its lock, and queues the request in that order.
    /// `change` gives the work, or `None` when there is nothing to write.
    fn submit(
        &self,
        group: GroupId,
        bytes: u64,
        done: Option<Done>,
        change: impl FnOnce(&mut CellState) -> Result<Option<Work>, LogError>,
    ) -> Result<(), LogError> {
        self.core.poisoned()?;
        self.core.queue.reserve(bytes);
        let cell = self.core.find_or_make(group);
        let refused = {
            let mut state = cell.state.lock();
            let work = match change(&mut state) {
                Ok(Some(work)) => work,
                Ok(None) => {
                    drop(state);
                    self.core.queue.cancel(bytes);
                    if let Some(done) = done {
                        done(Ok(()));
                    }
                    return Ok(());
                }
                Err(error) => {
                    drop(state);
                    self.core.queue.cancel(bytes);
                    return Err(error);
                }
            };
            let request = Request { cell: Some(cell.clone()), work, epoch: state.epoch, done };
            self.core.push(request, bytes).err()
        };
        if let Some(request) = refused {
            request.complete(Err(closed()));
        }
        self.core.wake();
        Ok(())
    }

    fn submit_note(
        &self,
        frame: Frame,
        payload: Bytes,
        done: Option<Done>,
        check: impl FnOnce(&CellState, &mut Frame) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let cache_bytes = &self.core.cache_bytes;
        let bytes = Work::Note(frame, payload.clone()).bytes();
        self.submit(frame.group, bytes, done, |state| {
            let mut frame = frame;
            check(state, &mut frame)?;
            state.apply(&frame, &payload, cache_bytes);
            Ok(Some(Work::Note(frame, payload)))
        })
    }

    /// Whether anything was stored for this group, if only that it was removed.
    fn knows(&self, group: GroupId) -> bool {
        self.with_cell(group, |state| state.index.meta.removed || state.index.meta.holds_anything())
            .unwrap_or(false)
    }

    fn with_cell<T>(&self, group: GroupId, ask: impl FnOnce(&CellState) -> T) -> Option<T> {
        self.core.find(group).map(|cell| ask(&cell.state.lock()))
    }
}

impl Drop for SegLog {
    /// Writes what is queued, and ends the threads.
    fn drop(&mut self) {
        self.core.queue.close();
        let me = std::thread::current().id();
        for (at, thread) in std::mem::take(&mut *self.threads.lock()).into_iter().enumerate() {
            if at == 1 {
                self.core.mark.stop();
                self.core.chore(|chores| chores.stop = true);
            }
            // A completion may hold the last handle; its thread can't wait for itself.
            if thread.thread().id() != me && thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

/// Writer first: the others end after it.
fn spawn(core: &Arc<Core>, writer: Writer) -> Result<Vec<JoinHandle<()>>, LogError> {
    let (mark, keeper) = (core.clone(), core.clone());
    let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let threads = [
        named("log-writer").spawn(move || writer::run(writer)),
        named("log-mark").spawn(move || writer::run_mark(&mark)),
        named("log-keeper").spawn(move || retention::run(&keeper)),
    ];
    threads.into_iter().map(|thread| thread.map_err(io_error)).collect()
}

pub(crate) fn io_error(error: std::io::Error) -> LogError {
    LogError::Io(error.to_string())
}

fn closed() -> LogError {
    LogError::Poisoned { reason: "the log was closed".to_owned() }
}

/// Checks what a frame can hold.
fn check_sizes(entries: &[LogEntry]) -> Result<u64, LogError> {
    let bytes = entries_bytes(entries);
    let head = entries.iter().map(|entry| entry.payload.head.len()).max().unwrap_or(0);
    if head > usize::from(u16::MAX) || bytes > PAYLOAD_BYTES_MAX as u64 {
        return Err(LogError::Misuse(format!(
            "{bytes} bytes in one request with a head of {head}; at most {PAYLOAD_BYTES_MAX} and {}",
            u16::MAX
        )));
    }
    Ok(bytes)
}

impl NodeLog for SegLog {
    fn groups(&self) -> Vec<GroupId> {
        let cells = self.core.cells();
        cells
            .iter()
            .filter(|cell| cell.state.lock().index.meta.holds_anything())
            .map(|cell| cell.id)
            .collect()
    }

    fn state(&self, group: GroupId) -> GroupLogState {
        let amnesia = self.core.amnesia_unknown.load(Ordering::Acquire);
        let unknown = || GroupLogState { amnesia, ..GroupLogState::default() };
        self.with_cell(group, CellState::state).unwrap_or_else(unknown)
    }

    fn append(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) -> Result<(), LogError> {
        let bytes = check_sizes(&entries)?;
        let cache_bytes = &self.core.cache_bytes;
        self.submit(group, bytes, Some(done), |state| {
            for (next, entry) in (state.index.meta.next..).zip(&entries) {
                if entry.id.index.0 != next {
                    let found = entry.id.index;
                    return Err(LogError::Misuse(format!("append of entry {found} where {next} is next")));
                }
            }
            state.append(&entries, cache_bytes);
            Ok((!entries.is_empty()).then_some(Work::Entries(FrameKind::Entry, entries)))
        })
    }

    fn admit(&self, bytes: u64) -> Result<(), LogError> {
        self.core.poisoned()?;
        let (_, queued) = self.core.queue.waiting();
        let bytes_max = self.core.queue.bytes_max();
        if queued + bytes > bytes_max && queued > 0 {
            return Err(LogError::Busy { queued_bytes: queued, bytes_max });
        }
        let free = self.core.free_bytes()?;
        let free_bytes = free.saturating_sub(queued + bytes + self.core.written_since_look());
        let reserve_bytes = self.core.options.reserve_bytes;
        if free_bytes < reserve_bytes {
            return Err(LogError::DiskFull { free_bytes, reserve_bytes });
        }
        Ok(())
    }

    fn save_vote(&self, group: GroupId, vote: VoteRecord, done: Done) -> Result<(), LogError> {
        self.submit_note(note(FrameKind::Vote, group, 0, 0), vote.0, Some(done), |_, _| Ok(()))
    }

    fn truncate_after(&self, group: GroupId, keep: Option<LogIndex>, done: Done) -> Result<(), LogError> {
        let frame = note(FrameKind::Truncate, group, 0, 0);
        self.submit_note(frame, Bytes::new(), Some(done), |state, frame| {
            frame.index = state.index.meta.check_truncate(keep)?;
            Ok(())
        })
    }

    fn purge(&self, group: GroupId, upto: LogId, done: Done) -> Result<(), LogError> {
        let frame = note(FrameKind::Purge, group, upto.index.0, upto.term.0);
        self.submit_note(frame, Bytes::new(), Some(done), |_, _| Ok(()))
    }

    fn retain_from(&self, group: GroupId, first: LogIndex) -> Result<(), LogError> {
        self.core.poisoned()?;
        let moves =
            self.with_cell(group, |state| first.0.min(state.index.meta.floor()) > state.index.meta.first);
        if moves != Some(true) {
            return Ok(());
        }
        let frame = note(FrameKind::Retain, group, first.0, 0);
        self.submit_note(frame, Bytes::new(), None, |state, frame| {
            frame.index = frame.index.min(state.index.meta.floor());
            Ok(())
        })?;
        self.core.chore(|chores| chores.look = true);
        Ok(())
    }

    fn read(
        &self,
        group: GroupId,
        range: Range<LogIndex>,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, LogError> {
        match self.core.find(group) {
            Some(cell) => reader::read(&self.core, &cell, range, max_bytes),
            None => Ok(Vec::new()),
        }
    }

    fn log_id(&self, group: GroupId, index: LogIndex) -> Option<LogId> {
        self.with_cell(group, |state| state.index.meta.id_at(index.0)).flatten()
    }

    fn term_starts(&self, group: GroupId) -> Vec<LogId> {
        self.with_cell(group, |state| state.index.meta.term_starts()).unwrap_or_default()
    }

    fn damaged(&self, group: GroupId, limit: usize) -> Vec<LogId> {
        self.with_cell(group, |state| state.index.damaged(limit)).unwrap_or_default()
    }

    fn repair(&self, group: GroupId, entry: LogEntry, done: Done) -> Result<(), LogError> {
        let bytes = check_sizes(std::slice::from_ref(&entry))?;
        self.submit(group, bytes, Some(done), |state| repair::repair(state, entry))
    }

    fn install_begin(&self, group: GroupId, prefix: InstallPrefix, done: Done) -> Result<(), LogError> {
        let last = prefix.snapshot_last;
        let frame = note(FrameKind::InstallBegin, group, last.index.0, last.term.0);
        let payload = Bytes::copy_from_slice(&prefix.first_retained.0.to_le_bytes());
        self.submit_note(frame, payload, Some(done), |state, _| state.index.meta.check_install(&prefix))
    }

    fn install_entries(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) -> Result<(), LogError> {
        let bytes = check_sizes(&entries)?;
        self.submit(group, bytes, Some(done), |state| repair::install(state, entries))
    }

    fn remove_group(&self, group: GroupId, done: Done) -> Result<(), LogError> {
        let frame = note(FrameKind::RemoveGroup, group, 0, 0);
        self.submit_note(frame, Bytes::new(), Some(done), |_, _| Ok(()))?;
        self.core.chore(|chores| chores.look = true);
        Ok(())
    }

    fn clear_amnesia(&self, group: GroupId, done: Done) -> Result<(), LogError> {
        self.submit_note(note(FrameKind::ClearAmnesia, group, 0, 0), Bytes::new(), Some(done), |_, _| Ok(()))
    }

    fn doubts_unknown(&self) -> bool {
        self.core.amnesia_unknown.load(Ordering::Acquire)
    }

    fn trust_unknown_groups(&self, doubtful: &[GroupId], done: Done) -> Result<(), LogError> {
        self.core.poisoned()?;
        let doubts = self.doubts_unknown();
        for group in doubtful.iter().filter(|group| doubts && !self.knows(**group)) {
            // Changes nothing but that the group is known from here on, with the amnesia of all unknown.
            let frame = note(FrameKind::Retain, *group, 0, 0);
            self.submit_note(frame, Bytes::new(), None, |_, _| Ok(()))?;
        }
        self.core.amnesia_unknown.store(false, Ordering::Release);
        let frame = note(FrameKind::TrustUnknown, GroupId::CONTROL, 0, 0);
        self.submit_whole(Work::Note(frame, Bytes::new()), done);
        Ok(())
    }

    fn stats(&self) -> LogStats {
        let (segments, bytes) = self.core.segments.totals();
        let (queued, queued_bytes) = self.core.queue.waiting();
        LogStats {
            bytes,
            segments,
            syncs: self.core.syncs.load(Ordering::Relaxed),
            frames: self.core.frames.load(Ordering::Relaxed),
            queued,
            queued_bytes,
            damaged: self.core.damaged(),
            free_bytes: self.core.free_bytes_seen(),
        }
    }
}
