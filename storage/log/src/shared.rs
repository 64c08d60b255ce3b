//! What the parts of a running log share: callers, writer, mark and keeper.
//!
//! Locks, in the order in which they may be taken: the map of groups, a group, the queue or the
//! map of segments. None is held across disk I/O or while a completion runs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use fleetline_env::{Clock, Disk};
use fleetline_types::GroupId;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use parking_lot::{Condvar, Mutex, RwLock};

use crate::cell::{Cell, CellState};
use crate::frame::{Frame, FrameKind};
use crate::high_water::HighWater;
use crate::queue::ByteQueue;
use crate::segment::Segments;
use crate::{Done, LogEntry, LogError, LogOptions};

/// How long a look at the free space counts.
const FREE_LOOK_MAX_AGE: Duration = Duration::from_millis(100);
/// Bytes written after which the free space is looked at again.
const FREE_LOOK_BYTES: u64 = 16 << 20;

/// What a request asks the writer to write.
#[derive(Debug)]
pub(crate) enum Work {
    Entries(FrameKind, Vec<LogEntry>),
    /// A frame whose lengths, sequence number and place the writer fills in.
    Note(Frame, Bytes),
}

/// One request in the queue.
pub(crate) struct Request {
    /// `None` for what concerns the whole log.
    pub(crate) cell: Option<Arc<Cell>>,
    pub(crate) work: Work,
    /// The group's epoch when the request was made.
    pub(crate) epoch: u64,
    pub(crate) done: Option<Done>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("cell", &self.cell.as_ref().map(|cell| cell.id)).finish()
    }
}

impl Request {
    pub(crate) fn complete(mut self, result: Result<(), LogError>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

impl Drop for Request {
    /// Nobody waits for ever: what goes without having been completed (a completion before it
    /// panicked) has failed.
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(LogError::Poisoned { reason: "the writer of the log has gone".to_owned() }));
        }
    }
}

/// A note about `group`.
pub(crate) fn note(kind: FrameKind, group: GroupId, index: u64, term: u64) -> Frame {
    Frame { kind, entry_kind: 0, head_len: 0, len: 0, group, index, term, seq: 0, place: 0 }
}

/// Called when work arrives for a writer that somebody else drives.
pub(crate) type Waker = Box<dyn Fn() + Send + Sync>;

/// What waits for the keeper.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    /// Sidecars of sealed segments, to be written.
    pub(crate) sealed: Vec<(u32, Vec<u8>)>,
    /// Segments whose deletion is durable in the log.
    pub(crate) dropped: Vec<u32>,
    /// Segments that were found missing; they are struck off once nothing is damaged any more.
    pub(crate) lost: Vec<u32>,
    /// Something changed that may let a segment go.
    pub(crate) look: bool,
    pub(crate) stop: bool,
}

/// The shared part of a log.
pub(crate) struct Core {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: LogOptions,
    pub(crate) groups: RwLock<BTreeMap<GroupId, Arc<Cell>>>,
    pub(crate) segments: Segments,
    /// The segment being written.
    pub(crate) active: AtomicU32,
    pub(crate) queue: ByteQueue<Request>,
    pub(crate) mark: HighWater,
    pub(crate) cache_bytes: AtomicU64,
    pub(crate) amnesia_unknown: AtomicBool,
    pub(crate) chores: Mutex<Chores>,
    pub(crate) chores_changed: Condvar,
    pub(crate) waker: RwLock<Option<Waker>>,
    pub(crate) syncs: AtomicU64,
    pub(crate) frames: AtomicU64,
    pub(crate) meters: Meters,
    poison: OnceLock<String>,
    free: FreeSpace,
}

#[derive(Debug, Default)]
struct FreeSpace {
    bytes: AtomicU64,
    /// Milliseconds of the monotonic clock at the last look, plus one; zero is never.
    looked: AtomicU64,
    written_since: AtomicU64,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegLog")
            .field("dir", &self.options.dir)
            .field("active", &self.active)
            .field("poison", &self.poison.get())
            .finish()
    }
}

impl Core {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
        mark: HighWater,
        blocking: bool,
    ) -> Core {
        let meters = Meters::new();
        meters.queue_bytes_max.set(options.queue_bytes_max as f64);
        Core {
            queue: ByteQueue::new(options.queue_bytes_max, blocking),
            disk,
            clock,
            options,
            groups: RwLock::default(),
            segments: Segments::default(),
            active: AtomicU32::new(0),
            mark,
            cache_bytes: AtomicU64::new(0),
            amnesia_unknown: AtomicBool::new(false),
            chores: Mutex::default(),
            chores_changed: Condvar::new(),
            waker: RwLock::default(),
            syncs: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            meters,
            poison: OnceLock::new(),
            free: FreeSpace::default(),
        }
    }

    pub(crate) fn dir(&self) -> &PathBuf {
        &self.options.dir
    }

    pub(crate) fn find(&self, group: GroupId) -> Option<Arc<Cell>> {
        self.groups.read().get(&group).cloned()
    }

    pub(crate) fn find_or_make(&self, group: GroupId) -> Arc<Cell> {
        if let Some(cell) = self.find(group) {
            return cell;
        }
        let mut groups = self.groups.write();
        let fresh = || {
            let mut state = CellState::default();
            state.index.meta.amnesia = self.amnesia_unknown.load(Ordering::Acquire);
            Arc::new(Cell::new(group, state))
        };
        groups.entry(group).or_insert_with(fresh).clone()
    }

    pub(crate) fn cells(&self) -> Vec<Arc<Cell>> {
        self.groups.read().values().cloned().collect()
    }

    pub(crate) fn poisoned(&self) -> Result<(), LogError> {
        match self.poison.get() {
            Some(reason) => Err(LogError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// The first failure counts; nothing succeeds any more.
    pub(crate) fn poison(&self, what: &str, error: &dyn fmt::Display) -> LogError {
        let reason = self.poison.get_or_init(|| {
            tracing::error!(dir = %self.options.dir.display(), %error, "log is poisoned: {what} failed");
            self.meters.poisoned.set(1.0);
            format!("{what} failed: {error}")
        });
        LogError::Poisoned { reason: reason.clone() }
    }

    /// Queues a request for which `bytes` were reserved. May be called under a group's lock.
    pub(crate) fn push(&self, request: Request, bytes: u64) -> Result<(), Request> {
        self.queue.push(request, bytes)
    }

    /// Tells whoever drives the writer that there is work.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.read() {
            waker();
        }
    }

    /// Queues something that no caller waits for. A closed queue forgets it: it only ever says
    /// what may be found out again.
    pub(crate) fn push_own(&self, cell: Option<Arc<Cell>>, work: Work, bytes: u64, done: Option<Done>) {
        self.queue.reserve(bytes);
        drop(self.push(Request { cell, work, epoch: 0, done }, bytes));
        self.wake();
    }

    pub(crate) fn chore(&self, add: impl FnOnce(&mut Chores)) {
        add(&mut self.chores.lock());
        self.chores_changed.notify_one();
    }

    /// Free bytes, looked up when the last look is too old.
    pub(crate) fn free_bytes(&self) -> Result<u64, LogError> {
        let now = self.clock.monotonic().0.as_millis() as u64 + 1;
        let looked = self.free.looked.load(Ordering::Relaxed);
        let fresh = looked != 0
            && now.saturating_sub(looked) < FREE_LOOK_MAX_AGE.as_millis() as u64
            && self.free.written_since.load(Ordering::Relaxed) < FREE_LOOK_BYTES;
        if fresh {
            return Ok(self.free.bytes.load(Ordering::Relaxed));
        }
        let bytes = self.disk.free_bytes(self.dir()).map_err(|error| LogError::Io(error.to_string()))?;
        self.free.bytes.store(bytes, Ordering::Relaxed);
        self.free.written_since.store(0, Ordering::Relaxed);
        self.free.looked.store(now, Ordering::Relaxed);
        self.meters.free_bytes.set(bytes as f64);
        Ok(bytes)
    }

    /// Free bytes at the last look.
    pub(crate) fn free_bytes_seen(&self) -> u64 {
        self.free.bytes.load(Ordering::Relaxed)
    }

    /// Bytes written since the last look at the free space; they count against it.
    pub(crate) fn written_since_look(&self) -> u64 {
        self.free.written_since.load(Ordering::Relaxed)
    }

    pub(crate) fn count_written(&self, bytes: u64) {
        self.free.written_since.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn damaged(&self) -> u64 {
        self.cells().iter().map(|cell| cell.state.lock().index.missing()).sum()
    }

    pub(crate) fn measure_segments(&self) {
        let (count, bytes) = self.segments.totals();
        self.meters.segments.set(count as f64);
        self.meters.bytes.set(bytes as f64);
    }
}

/// Handles of the log's metrics, fetched once.
pub(crate) struct Meters {
    pub(crate) bytes: Gauge,
    pub(crate) segments: Gauge,
    pub(crate) syncs: Counter,
    pub(crate) frames_per_round: Histogram,
    pub(crate) queue_bytes: Gauge,
    pub(crate) queue_bytes_max: Gauge,
    pub(crate) free_bytes: Gauge,
    pub(crate) damaged: Counter,
    pub(crate) poisoned: Gauge,
}

impl Meters {
    fn new() -> Meters {
        Meters {
            bytes: gauge!("fleetline_log_bytes"),
            segments: gauge!("fleetline_log_segments"),
            syncs: counter!("fleetline_log_syncs_total"),
            frames_per_round: histogram!("fleetline_log_frames_per_round"),
            queue_bytes: gauge!("fleetline_log_queue_bytes"),
            queue_bytes_max: gauge!("fleetline_log_queue_bytes_max"),
            free_bytes: gauge!("fleetline_log_free_bytes"),
            damaged: counter!("fleetline_log_damaged_entries_total"),
            poisoned: gauge!("fleetline_log_poisoned"),
        }
    }
}
