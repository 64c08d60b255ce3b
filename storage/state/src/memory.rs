//! The model of the state store in memory; it can lose power.
//!
//! Used by the simulator, by the tests of other crates, and as the oracle for `rocks`. It keeps the
//! rows as they were at the last flush and every batch since, so that a power cut can leave any
//! state that the contract allows. The batches are freed by `flush`: a test that never flushes
//! keeps them all.
//!
//! Not here: durability of any kind. Nothing is written to a disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fleetline_types::GroupId;
use parking_lot::Mutex;

use crate::{KeyKind, Row, RowKey, StateBatch, StateError, StateOp, StateSnapshot, StateStats, StateStore};

/// A state store in memory. Clones are handles of one store.
#[derive(Clone, Debug, Default)]
pub struct MemState {
    inner: Arc<Mutex<Inner>>,
}

type Rows = BTreeMap<RowKey, Bytes>;

#[derive(Debug, Default)]
struct Inner {
    /// As readers see them: `flushed` and all of `later`.
    rows: Rows,
    /// As of the last flush.
    flushed: Rows,
    /// Batches since the last flush, in order.
    later: Vec<StateBatch>,
    /// Why every write and flush fails from now on.
    failure: Option<String>,
}

impl MemState {
    /// An empty store.
    pub fn new() -> MemState {
        MemState::default()
    }

    /// The store as the next start finds it after a power cut now: what it held after the last
    /// flush or after any batch since. Equal seeds give equal stores.
    pub fn crash(&self, seed: u64) -> MemState {
        let inner = self.inner.lock();
        // Multiplying spreads small seeds over all positions.
        let spread = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        inner.after((spread % (inner.later.len() as u64 + 1)) as usize)
    }

    /// As [`MemState::crash`], with nothing but what was flushed.
    pub fn crash_all_lost(&self) -> MemState {
        self.inner.lock().after(0)
    }

    /// As [`MemState::crash`], with everything (as after a kill just behind an automatic flush).
    pub fn crash_all_kept(&self) -> MemState {
        let inner = self.inner.lock();
        inner.after(inner.later.len())
    }

    /// Every write and flush fails from now on, as when the disk underneath is gone.
    pub fn fail_from_now(&self, reason: &str) {
        self.inner.lock().failure = Some(reason.to_owned());
    }

    /// All rows of all groups, in order.
    pub fn rows(&self) -> Vec<(RowKey, Bytes)> {
        self.inner.lock().rows.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl Inner {
    /// A store that holds what was flushed and the first `batches` since.
    fn after(&self, batches: usize) -> MemState {
        let mut rows = self.flushed.clone();
        for batch in &self.later[..batches] {
            apply(&mut rows, batch);
        }
        let inner = Inner { flushed: rows.clone(), rows, ..Inner::default() };
        MemState { inner: Arc::new(Mutex::new(inner)) }
    }

    fn check(&self) -> Result<(), StateError> {
        match &self.failure {
            Some(reason) => Err(StateError::Store(reason.clone())),
            None => Ok(()),
        }
    }
}

impl StateStore for MemState {
    fn get(&self, group: GroupId, kind: KeyKind, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        Ok(self.inner.lock().rows.get(&row_key(group, kind, key)).cloned())
    }

    fn scan(&self, group: GroupId, kind: KeyKind, from: &[u8], limit: usize) -> Result<Vec<Row>, StateError> {
        let inner = self.inner.lock();
        let rows = inner.rows.range(row_key(group, kind, from)..);
        let own = rows.take_while(|(row, _)| row.group == group && row.kind == kind);
        Ok(own.take(limit).map(|(row, value)| (row.key.clone(), value.clone())).collect())
    }

    fn last_at_or_below(&self, group: GroupId, kind: KeyKind, key: &[u8]) -> Result<Option<Row>, StateError> {
        let inner = self.inner.lock();
        let last = inner.rows.range(..=row_key(group, kind, key)).next_back();
        let own = last.filter(|(row, _)| row.group == group && row.kind == kind);
        Ok(own.map(|(row, value)| (row.key.clone(), value.clone())))
    }

    fn write(&self, batch: StateBatch) -> Result<(), StateError> {
        let mut inner = self.inner.lock();
        inner.check()?;
        apply(&mut inner.rows, &batch);
        inner.later.push(batch);
        Ok(())
    }

    fn flush(&self) -> Result<(), StateError> {
        let mut inner = self.inner.lock();
        inner.check()?;
        let Inner { flushed, later, .. } = &mut *inner;
        for batch in later.drain(..) {
            apply(flushed, &batch);
        }
        Ok(())
    }

    fn snapshot(&self, group: GroupId) -> Result<Box<dyn StateSnapshot>, StateError> {
        let inner = self.inner.lock();
        // Rows are shared slices: the copy is of handles, not of bytes.
        let rows: Vec<_> =
            of_group(&inner.rows, group).map(|(row, value)| (row.clone(), value.clone())).collect();
        Ok(Box::new(MemSnapshot { rows: rows.into_iter() }))
    }

    fn stats(&self) -> StateStats {
        let inner = self.inner.lock();
        let bytes = inner.rows.iter().map(|(row, value)| (row.key.len() + value.len()) as u64).sum();
        StateStats { bytes, unflushed_bytes: inner.later.iter().map(StateBatch::bytes).sum() }
    }
}

#[derive(Debug)]
struct MemSnapshot {
    rows: std::vec::IntoIter<(RowKey, Bytes)>,
}

impl StateSnapshot for MemSnapshot {
    fn next_rows(&mut self, max_bytes: usize) -> Result<Vec<(KeyKind, Bytes, Bytes)>, StateError> {
        let mut found = Vec::new();
        let mut bytes = 0;
        for (row, value) in self.rows.by_ref() {
            bytes += row.key.len() + value.len();
            found.push((row.kind, row.key, value));
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(found)
    }
}

fn apply(rows: &mut Rows, batch: &StateBatch) {
    for op in &batch.ops {
        match op {
            StateOp::Put(row, value) => {
                rows.insert(row.clone(), value.clone());
            }
            StateOp::Delete(row) => {
                rows.remove(row);
            }
            StateOp::DeleteRange { group, kind, from, to } if from < to => {
                let range = row_key(*group, *kind, from)..row_key(*group, *kind, to);
                let gone: Vec<RowKey> = rows.range(range).map(|(row, _)| row.clone()).collect();
                gone.iter().for_each(|row| drop(rows.remove(row)));
            }
            StateOp::DeleteRange { .. } => {}
            StateOp::DeleteGroup(group) => {
                let gone: Vec<RowKey> = of_group(rows, *group).map(|(row, _)| row.clone()).collect();
                gone.iter().for_each(|row| drop(rows.remove(row)));
            }
        }
    }
}

fn of_group(rows: &Rows, group: GroupId) -> impl Iterator<Item = (&RowKey, &Bytes)> {
    let first = row_key(group, KeyKind::ALL[0], b"");
    rows.range(first..).take_while(move |(row, _)| row.group == group)
}

fn row_key(group: GroupId, kind: KeyKind, key: &[u8]) -> RowKey {
    RowKey { group, kind, key: Bytes::copy_from_slice(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(3);

    fn put(store: &MemState, value: u8) {
        let mut batch = StateBatch::default();
        batch.put(GROUP, KeyKind::Applied, vec![], vec![value]);
        batch.put(GROUP, KeyKind::StreamHead, vec![], vec![value]);
        store.write(batch).unwrap();
    }

    /// A power cut leaves the last flush or the state after any later batch, each of them whole.
    #[test]
    fn crash_leaves_some_later_batch() {
        let store = MemState::new();
        put(&store, 0);
        store.flush().unwrap();
        (1..=3).for_each(|value| put(&store, value));
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let after = store.crash(seed);
            let applied = after.get(GROUP, KeyKind::Applied, b"").unwrap().unwrap();
            assert_eq!(after.get(GROUP, KeyKind::StreamHead, b"").unwrap().unwrap(), applied);
            assert_eq!(store.crash(seed).rows(), after.rows());
            seen.insert(applied[0]);
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(store.crash_all_lost().rows()[0].1[..], [0]);
        assert_eq!(store.crash_all_kept().rows()[0].1[..], [3]);
    }

    /// After a failure nothing is written or flushed any more, and what was flushed stays.
    #[test]
    fn failure_stops_writes() {
        let store = MemState::new();
        put(&store, 1);
        store.flush().unwrap();
        store.fail_from_now("disk gone");
        assert_eq!(store.write(StateBatch::default()), Err(StateError::Store("disk gone".into())));
        assert!(store.flush().is_err());
        assert_eq!(store.crash_all_kept().rows().len(), 2);
    }
}
