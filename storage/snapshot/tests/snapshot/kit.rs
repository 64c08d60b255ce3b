//! A sender, a receiver, and stores that stop after so many calls.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fleetline_env::Disk;
use fleetline_env::memory::MemDisk;
use fleetline_log::{
    Done, GroupLogState, InstallPrefix, LogEntry, LogError, LogStats, NodeLog, Payload, VoteRecord,
};
use fleetline_snapshot::{
    SnapshotDir, SnapshotError, SnapshotMeta, SnapshotOptions, SnapshotSource, Staging,
};
use fleetline_state::memory::MemState;
use fleetline_state::{KeyKind, Row, RowKey, StateBatch, StateError, StateSnapshot, StateStats, StateStore};
use fleetline_types::{GroupId, LogId, LogIndex};
use parking_lot::Mutex;

pub const G: GroupId = GroupId(7);
pub const OTHER: GroupId = GroupId(8);

/// Counts calls; the ones behind the limit fail.
#[derive(Debug)]
pub struct Fuse {
    left: AtomicU64,
}

impl Fuse {
    pub fn new(calls: u64) -> Arc<Fuse> {
        Arc::new(Fuse { left: AtomicU64::new(calls) })
    }

    fn burn(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupLog {
    pub purged: Option<LogId>,
    pub first_retained: LogIndex,
    pub entries: BTreeMap<LogIndex, LogEntry>,
}

/// A log in memory that knows what snapshots need. Every change is durable at once; power cuts
/// between calls come from its fuse.
#[derive(Clone, Debug)]
pub struct TestLog {
    pub groups: Arc<Mutex<BTreeMap<GroupId, GroupLog>>>,
    pub fuse: Arc<Fuse>,
    /// Entries that one read gives at the most: results may not depend on it.
    pub read_max: usize,
    /// Completions are dropped instead of called.
    pub drops_requests: bool,
}

impl TestLog {
    pub fn new() -> TestLog {
        TestLog { groups: Arc::default(), fuse: Fuse::new(u64::MAX), read_max: 1000, drops_requests: false }
    }

    /// Deletes the bytes below `first`.
    pub fn retain(&self, first: u64) {
        let mut groups = self.groups.lock();
        let group = groups.entry(G).or_default();
        group.first_retained = LogIndex(first);
        group.entries = group.entries.split_off(&LogIndex(first));
    }

    fn change(&self, group: GroupId, done: Done, change: impl FnOnce(&mut GroupLog)) -> Result<(), LogError> {
        if self.fuse.burn() {
            return Err(LogError::Io("no power".into()));
        }
        change(self.groups.lock().entry(group).or_default());
        if self.drops_requests {
            drop(done);
        } else {
            done(Ok(()));
        }
        Ok(())
    }
}

fn unused<T>() -> Result<T, LogError> {
    Err(LogError::Misuse("snapshots don't need this".into()))
}

impl NodeLog for TestLog {
    fn groups(&self) -> Vec<GroupId> {
        self.groups.lock().keys().copied().collect()
    }

    fn state(&self, group: GroupId) -> GroupLogState {
        let groups = self.groups.lock();
        let Some(group) = groups.get(&group) else { return GroupLogState::default() };
        let last = group.entries.values().next_back().map(|entry| entry.id).or(group.purged);
        GroupLogState {
            purged: group.purged,
            last,
            first_retained: group.first_retained,
            ..Default::default()
        }
    }

    fn append(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) -> Result<(), LogError> {
        self.change(group, done, |log| log.entries.extend(entries.into_iter().map(|e| (e.id.index, e))))
    }

    fn read(
        &self,
        group: GroupId,
        range: Range<LogIndex>,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, LogError> {
        let groups = self.groups.lock();
        let log = groups.get(&group).ok_or_else(|| LogError::Misuse("unknown group".into()))?;
        if range.start < log.first_retained {
            return Err(LogError::Gone { group, index: range.start, first: log.first_retained });
        }
        let mut bytes = 0;
        let fits = |entry: &&LogEntry| {
            let first = bytes == 0;
            bytes += 1 + entry.payload.len() as u64;
            first || bytes <= max_bytes
        };
        Ok(log.entries.range(range).map(|(_, e)| e).take_while(fits).take(self.read_max).cloned().collect())
    }

    fn install_begin(&self, group: GroupId, prefix: InstallPrefix, done: Done) -> Result<(), LogError> {
        self.change(group, done, |log| {
            let last = prefix.snapshot_last;
            let known = log.entries.get(&last.index).is_some_and(|entry| entry.id == last);
            log.entries = if known { log.entries.split_off(&last.index.next()) } else { BTreeMap::new() };
            log.purged = Some(last);
            log.first_retained = prefix.first_retained;
        })
    }

    fn install_entries(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) -> Result<(), LogError> {
        self.change(group, done, |log| log.entries.extend(entries.into_iter().map(|e| (e.id.index, e))))
    }

    fn log_id(&self, group: GroupId, index: LogIndex) -> Option<LogId> {
        self.groups.lock().get(&group)?.entries.get(&index).map(|entry| entry.id)
    }

    fn admit(&self, _: u64) -> Result<(), LogError> {
        unused()
    }

    fn save_vote(&self, _: GroupId, _: VoteRecord, _: Done) -> Result<(), LogError> {
        unused()
    }

    fn truncate_after(&self, _: GroupId, _: Option<LogIndex>, _: Done) -> Result<(), LogError> {
        unused()
    }

    fn purge(&self, _: GroupId, _: LogId, _: Done) -> Result<(), LogError> {
        unused()
    }

    fn retain_from(&self, _: GroupId, _: LogIndex) -> Result<(), LogError> {
        unused()
    }

    fn term_starts(&self, _: GroupId) -> Vec<LogId> {
        Vec::new()
    }

    fn damaged(&self, _: GroupId, _: usize) -> Vec<LogId> {
        Vec::new()
    }

    fn repair(&self, _: GroupId, _: LogEntry, _: Done) -> Result<(), LogError> {
        unused()
    }

    fn remove_group(&self, _: GroupId, _: Done) -> Result<(), LogError> {
        unused()
    }

    fn clear_amnesia(&self, _: GroupId, _: Done) -> Result<(), LogError> {
        unused()
    }

    fn stats(&self) -> LogStats {
        LogStats::default()
    }
}

/// The state model with a fuse.
#[derive(Clone, Debug)]
pub struct FusedState {
    pub model: MemState,
    pub fuse: Arc<Fuse>,
}

impl FusedState {
    fn check(&self) -> Result<(), StateError> {
        if self.fuse.burn() { Err(StateError::Store("no power".into())) } else { Ok(()) }
    }
}

impl StateStore for FusedState {
    fn get(&self, group: GroupId, kind: KeyKind, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.model.get(group, kind, key)
    }

    fn scan(&self, group: GroupId, kind: KeyKind, from: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        self.model.scan(group, kind, from, limit)
    }

    fn last_at_or_below(&self, group: GroupId, kind: KeyKind, key: &[u8]) -> Result<Option<Row>, StateError> {
        self.model.last_at_or_below(group, kind, key)
    }

    fn write(&self, batch: StateBatch) -> Result<(), StateError> {
        self.check()?;
        self.model.write(batch)
    }

    fn flush(&self) -> Result<(), StateError> {
        self.check()?;
        self.model.flush()
    }

    fn snapshot(&self, group: GroupId) -> Result<Box<dyn StateSnapshot>, StateError> {
        self.model.snapshot(group)
    }

    fn stats(&self) -> StateStats {
        self.model.stats()
    }
}

/// One node: disk, state, log.
#[derive(Debug)]
pub struct Node {
    pub disk: MemDisk,
    pub state: FusedState,
    pub log: TestLog,
}

impl Node {
    pub fn new() -> Node {
        let state = FusedState { model: MemState::new(), fuse: Fuse::new(u64::MAX) };
        Node { disk: MemDisk::new(), state, log: TestLog::new() }
    }

    pub fn dir(&self) -> SnapshotDir {
        self.try_dir().unwrap()
    }

    pub fn try_dir(&self) -> Result<SnapshotDir, SnapshotError> {
        SnapshotDir::open(Arc::new(self.disk.clone()), options())
    }

    pub fn install(&self) -> Result<SnapshotMeta, SnapshotError> {
        self.try_dir()?.install(G, &self.log, &self.state)
    }

    /// The node that starts after a power cut now. The log is durable after each call.
    pub fn restart(&self, seed: u64) -> Node {
        let model = self.state.model.crash(seed);
        let log = TestLog { groups: Arc::new(Mutex::new(self.log.groups.lock().clone())), ..TestLog::new() };
        Node { disk: self.disk.crash(seed), state: FusedState { model, fuse: Fuse::new(u64::MAX) }, log }
    }

    /// All that a snapshot replaces or must leave alone.
    pub fn contents(&self) -> (Vec<(RowKey, Bytes)>, BTreeMap<GroupId, GroupLog>) {
        (self.state.model.rows(), self.log.groups.lock().clone())
    }
}

pub fn options() -> SnapshotOptions {
    SnapshotOptions { reserve_bytes: 1000, ..SnapshotOptions::new("/snapshots") }
}

/// How large the pieces of a test are.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub rows: u32,
    pub row_bytes: usize,
    pub first: u64,
    pub last: u64,
    pub entry_bytes: usize,
}

pub const SMALL: Sizes = Sizes { rows: 3, row_bytes: 5, first: 10, last: 12, entry_bytes: 6 };
/// Several frames of rows and of entries.
pub const LARGE: Sizes = Sizes { rows: 60, row_bytes: 20_000, first: 10, last: 60, entry_bytes: 20_000 };

/// Bytes that lz4 wouldn't shrink to nothing and that differ by `salt`.
pub fn filler(len: usize, salt: u64) -> Bytes {
    (0..len as u64).map(|at| (at.wrapping_mul(salt.wrapping_mul(2_654_435_761) | 1) >> 7) as u8).collect()
}

pub fn entry(index: u64, bytes: usize) -> LogEntry {
    let payload = Payload { head: filler(bytes / 3, index), body: filler(bytes - bytes / 3, index + 1) };
    LogEntry { id: LogId::new(index / 8 + 1, index), kind: (index % 4) as u8, payload }
}

/// A node with `sizes` of rows and entries of `G`, and its snapshot made.
pub fn sender(sizes: Sizes) -> (Node, SnapshotMeta) {
    let node = Node::new();
    let mut batch = StateBatch::default();
    batch.put(G, KeyKind::Applied, Bytes::new(), format!("applied {}", sizes.last));
    for n in 0..sizes.rows {
        let kind = KeyKind::ALL[1 + n as usize % 3];
        batch.put(G, kind, n.to_be_bytes().to_vec(), filler(sizes.row_bytes, u64::from(n)));
    }
    batch.put(OTHER, KeyKind::Applied, Bytes::new(), "never sent");
    node.state.write(batch).unwrap();
    let entries = (sizes.first..sizes.last + 20).map(|index| entry(index, sizes.entry_bytes)).collect();
    node.log.append(G, entries, Box::new(|_| ())).unwrap();
    node.log.retain(sizes.first);
    let meta = SnapshotMeta {
        group: G,
        id: format!("s-{}", sizes.last),
        last: entry(sizes.last, 0).id,
        first_retained: LogIndex(sizes.first),
        membership: Bytes::from_static(b"n1 n2 n3"),
    };
    let mut view = node.state.snapshot(G).unwrap();
    node.dir().write_state(&meta, &mut *view).unwrap();
    (node, meta)
}

/// A node that has an older, differing replica of `G`, and another group.
pub fn receiver() -> Node {
    let node = Node::new();
    let mut batch = StateBatch::default();
    for group in [G, OTHER] {
        batch.put(group, KeyKind::Applied, Bytes::new(), "applied 4");
        batch.put(group, KeyKind::JoinToken, Bytes::from_static(b"stale"), "row");
        batch.put(group, KeyKind::StreamIndex, 1u32.to_be_bytes().to_vec(), "old");
    }
    node.state.write(batch).unwrap();
    node.state.flush().unwrap();
    for group in [G, OTHER] {
        node.log.append(group, (0..5).map(|index| entry(index, 3)).collect(), Box::new(|_| ())).unwrap();
    }
    node
}

/// What `receiver` must hold once the snapshot of `sender` is installed.
pub fn expected(
    sender: &Node,
    receiver: &Node,
    meta: &SnapshotMeta,
) -> (Vec<(RowKey, Bytes)>, BTreeMap<GroupId, GroupLog>) {
    let (mut rows, mut logs) = receiver.contents();
    rows.retain(|(row, _)| row.group != G);
    rows.extend(sender.contents().0.into_iter().filter(|(row, _)| row.group == G));
    rows.sort();
    let mut entries = sender.log.groups.lock()[&G].entries.clone();
    entries.split_off(&meta.last.index.next());
    let first_retained = meta.first_retained;
    logs.insert(G, GroupLog { purged: Some(meta.last), first_retained, entries });
    (rows, logs)
}

pub fn source(sender: &Node) -> SnapshotSource {
    sender.dir().source(G, Arc::new(sender.log.clone())).unwrap()
}

/// The whole stream, asked in pieces of `max_bytes`.
pub fn stream(source: &mut SnapshotSource, max_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let piece = source.stream_chunk(bytes.len() as u64, max_bytes).unwrap();
        bytes.extend_from_slice(&piece.bytes);
        if piece.last {
            return bytes;
        }
        assert!(!piece.bytes.is_empty());
    }
}

/// Sends what is missing.
pub fn send(
    source: &mut SnapshotSource,
    staging: &mut Staging,
    max_bytes: usize,
) -> Result<(), SnapshotError> {
    loop {
        let piece = source.stream_chunk(staging.offset(), max_bytes)?;
        staging.write(staging.offset(), &piece.bytes)?;
        if piece.last {
            return Ok(());
        }
    }
}

/// Names of the files that are left.
pub fn files(node: &Node) -> Vec<String> {
    node.disk.list(&options().dir).unwrap()
}
