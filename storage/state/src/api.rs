//! The state store as its users see it.

use std::fmt::Debug;

use bytes::Bytes;
use fleetline_types::GroupId;

use crate::{KeyKind, StateError};

/// Where a row stands: (group, kind, key), ordered that way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// Whose row.
    pub group: GroupId,
    /// What it is.
    pub kind: KeyKind,
    /// Which one; compared as bytes.
    pub key: Bytes,
}

/// A row as scans give it: its key within (group, kind), and its value.
pub type Row = (Bytes, Bytes);

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateOp {
    /// Sets a row.
    Put(RowKey, Bytes),
    /// Removes a row.
    Delete(RowKey),
    /// Removes all rows of (group, kind) with `from <= key < to`.
    DeleteRange {
        /// Whose rows.
        group: GroupId,
        /// Which kind.
        kind: KeyKind,
        /// First key removed.
        from: Bytes,
        /// First key kept.
        to: Bytes,
    },
    /// Removes all rows of a group.
    DeleteGroup(GroupId),
}

/// Changes that are applied together, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateBatch {
    /// The changes.
    pub ops: Vec<StateOp>,
}

impl StateBatch {
    /// Adds: set `(group, kind, key)` to `value`.
    pub fn put(&mut self, group: GroupId, kind: KeyKind, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push(StateOp::Put(RowKey { group, kind, key: key.into() }, value.into()));
    }

    /// Adds: remove `(group, kind, key)`.
    pub fn delete(&mut self, group: GroupId, kind: KeyKind, key: impl Into<Bytes>) {
        self.ops.push(StateOp::Delete(RowKey { group, kind, key: key.into() }));
    }

    /// Adds: remove all rows of `(group, kind)` with `from <= key < to`.
    pub fn delete_range(
        &mut self,
        group: GroupId,
        kind: KeyKind,
        from: impl Into<Bytes>,
        to: impl Into<Bytes>,
    ) {
        self.ops.push(StateOp::DeleteRange { group, kind, from: from.into(), to: to.into() });
    }

    /// Adds: remove all rows of `group`.
    pub fn delete_group(&mut self, group: GroupId) {
        self.ops.push(StateOp::DeleteGroup(group));
    }

    /// Bytes of all keys and values, for figures and for bounding batches.
    pub fn bytes(&self) -> u64 {
        let of = |op: &StateOp| match op {
            StateOp::Put(row, value) => row.key.len() + value.len(),
            StateOp::Delete(row) => row.key.len(),
            StateOp::DeleteRange { from, to, .. } => from.len() + to.len(),
            StateOp::DeleteGroup(_) => 0,
        };
        self.ops.iter().map(|op| of(op) as u64).sum()
    }
}

/// Figures of the store, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateStats {
    /// Bytes on disk (or in memory, for the model).
    pub bytes: u64,
    /// Bytes written since the last flush.
    pub unflushed_bytes: u64,
}

/// A consistent view of one group's rows.
pub trait StateSnapshot: Send {
    /// The next rows in order of (kind, key), at least one and up to about `max_bytes`; empty at
    /// the end.
    fn next_rows(&mut self, max_bytes: usize) -> Result<Vec<(KeyKind, Bytes, Bytes)>, StateError>;
}

/// Keyed state of all groups of one node.
pub trait StateStore: Send + Sync + Debug + 'static {
    /// Reads one row.
    fn get(&self, group: GroupId, kind: KeyKind, key: &[u8]) -> Result<Option<Bytes>, StateError>;

    /// Rows of (group, kind) with `from <= key`, in order, at most `limit`.
    fn scan(&self, group: GroupId, kind: KeyKind, from: &[u8], limit: usize) -> Result<Vec<Row>, StateError>;

    /// The last row of (group, kind) with key at or below `key`.
    fn last_at_or_below(&self, group: GroupId, kind: KeyKind, key: &[u8]) -> Result<Option<Row>, StateError>;

    /// Applies a batch; visible when this returns, durable after a flush.
    fn write(&self, batch: StateBatch) -> Result<(), StateError>;

    /// Makes everything written before the call durable, as one.
    fn flush(&self) -> Result<(), StateError>;

    /// A view of all rows of `group` as they are now.
    fn snapshot(&self, group: GroupId) -> Result<Box<dyn StateSnapshot>, StateError>;

    /// Figures of the moment.
    fn stats(&self) -> StateStats;
}
