//! One group at run time: its index, the newest entries in memory, and what is durable.
//!
//! A cell has one lock, held for memory operations only, so appends of one group wait neither for
//! another group nor for a read from disk.
//!
//! Invariants:
//! 1. The cache is the end of the log: without a hole up to the last entry.
//! 2. An entry leaves the cache by eviction only after it is durable.
//!
//! Not here: the queue, files, the order between groups.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fleetline_types::{GroupId, LogId, LogIndex};
use parking_lot::Mutex;

use crate::frame::{Frame, FrameKind};
use crate::index::{GroupIndex, Loc};
use crate::{GroupLogState, LogEntry};

/// Memory that an entry costs besides its payload.
const ENTRY_OVERHEAD_BYTES: u64 = 128;

/// A group and its lock.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) id: GroupId,
    pub(crate) state: Mutex<CellState>,
}

#[derive(Debug, Default)]
pub(crate) struct CellState {
    pub(crate) index: GroupIndex,
    cache: VecDeque<LogEntry>,
    /// Repaired and installed entries that aren't written yet.
    overlay: BTreeMap<u64, LogEntry>,
    /// Raised by everything that removes entries; older completions then count no more.
    pub(crate) epoch: u64,
    /// One behind the last durable entry.
    pub(crate) durable_next: u64,
}

impl Cell {
    pub(crate) fn new(id: GroupId, state: CellState) -> Cell {
        Cell { id, state: Mutex::new(state) }
    }
}

fn cost(entry: &LogEntry) -> u64 {
    entry.payload.len() as u64 + ENTRY_OVERHEAD_BYTES
}

impl CellState {
    /// A group as recovery found it.
    pub(crate) fn recovered(index: GroupIndex) -> CellState {
        CellState { durable_next: index.meta.next, index, ..CellState::default() }
    }

    pub(crate) fn state(&self) -> GroupLogState {
        let meta = &self.index.meta;
        GroupLogState {
            vote: meta.vote.clone(),
            purged: meta.purged,
            last: meta.last(),
            first_retained: LogIndex(meta.first),
            durable: self.durable_next.checked_sub(1).map(LogIndex),
            amnesia: meta.amnesia,
            removed: meta.removed,
        }
    }

    pub(crate) fn append(&mut self, entries: &[LogEntry], cache_bytes: &AtomicU64) {
        let mut bytes = 0;
        for entry in entries {
            self.index.append(entry.id, Loc::PENDING);
            bytes += cost(entry);
            self.cache.push_back(entry.clone());
        }
        cache_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Applies a change of the logical state, as a caller asked for it.
    pub(crate) fn apply(&mut self, frame: &Frame, payload: &Bytes, cache_bytes: &AtomicU64) {
        let before = self.index.meta.last();
        self.index.apply_note(frame, payload);
        let removes = match frame.kind {
            FrameKind::Truncate => {
                self.durable_next = self.durable_next.min(frame.index);
                true
            }
            FrameKind::InstallBegin => {
                self.durable_next = self.durable_next.min(frame.index + 1);
                true
            }
            FrameKind::Purge => self.index.meta.last() != before,
            FrameKind::RemoveGroup => true,
            _ => false,
        };
        if removes {
            self.epoch += 1;
        }
        self.trim(cache_bytes);
    }

    /// Lets cache and overlay follow the index.
    fn trim(&mut self, cache_bytes: &AtomicU64) {
        let meta = &self.index.meta;
        let keep = |entry: &LogEntry| {
            entry.id.index.0 >= meta.first && meta.id_at(entry.id.index.0) == Some(entry.id)
        };
        let mut bytes = 0;
        while let Some(entry) = self.cache.pop_front_if(|entry| !keep(entry)) {
            bytes += cost(&entry);
        }
        while let Some(entry) = self.cache.pop_back_if(|entry| !keep(entry)) {
            bytes += cost(&entry);
        }
        let next = self.cache.back().map_or(meta.next, |entry| entry.id.index.0 + 1);
        if next != meta.next {
            bytes += self.cache.drain(..).map(|entry| cost(&entry)).sum::<u64>();
        }
        cache_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.overlay.retain(|_, entry| keep(entry));
        if self.index.meta.next == self.index.meta.first && self.index.meta.purged.is_none() {
            self.durable_next = 0;
        }
    }

    /// Takes in an entry that isn't at the end. Its term is known by now.
    pub(crate) fn overlay(&mut self, entry: &LogEntry) {
        self.index.set_loc(entry.id, Loc::PENDING);
        self.overlay.insert(entry.id.index.0, entry.clone());
    }

    /// The entry if it is in memory.
    pub(crate) fn cached(&self, index: u64) -> Option<&LogEntry> {
        if let Some(front) = self.cache.front()
            && let Some(at) = index.checked_sub(front.id.index.0)
            && let Some(entry) = self.cache.get(at as usize)
        {
            return Some(entry);
        }
        self.overlay.get(&index)
    }

    /// An entry was written and synced at `loc`.
    pub(crate) fn written(&mut self, kind: FrameKind, id: LogId, loc: Loc) {
        if kind == FrameKind::Relocated
            && !self.index.loc(id.index.0).is_some_and(|current| current.on_disk())
        {
            return; // newer bytes are on their way, or it was found damaged and will be repaired
        }
        self.index.set_loc(id, loc);
        if matches!(kind, FrameKind::Repair | FrameKind::InstallEntry)
            && self.overlay.get(&id.index.0).is_some_and(|entry| entry.id == id)
        {
            self.overlay.remove(&id.index.0);
        }
    }

    /// What was asked in `epoch` is durable; the log is then durable up to `next`.
    pub(crate) fn durable(&mut self, epoch: u64, next: u64) {
        if self.epoch == epoch {
            self.durable_next = self.durable_next.max(next.min(self.index.meta.next));
        }
    }

    /// Forgets cached entries up to `upto` that can be read from disk.
    pub(crate) fn evict(&mut self, upto: u64, cache_bytes: &AtomicU64) {
        let index = &self.index;
        let evictable = |entry: &mut LogEntry| {
            entry.id.index.0 <= upto && index.loc(entry.id.index.0) != Some(Loc::PENDING)
        };
        let mut bytes = 0;
        while let Some(entry) = self.cache.pop_front_if(evictable) {
            bytes += cost(&entry);
        }
        cache_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
