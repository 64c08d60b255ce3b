//! A consistent view of one group while writes go on.
//!
//! A RocksDB snapshot borrows the database, so one that outlives the call that made it can't be
//! kept in a struct without `unsafe`. Instead each view has a thread of its own that holds the
//! database, the snapshot and its iterators on its stack, and answers one request at a time. A
//! view is a rare and long thing (a replica is being filled), so a thread is cheap enough; their
//! number is bounded by [`VIEWS_MAX`], because each pins old row versions against compaction.
//!
//! Invariant: when `open` returns, the snapshot has been taken. An open view keeps the database open,
//! also when its `RocksState` is gone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use fleetline_types::GroupId;
use rocksdb::{DB, DBRawIterator, ReadOptions, Snapshot};

use super::{INDEX, STATE, end_key, family, first_key, split_key, store};
use crate::{KeyKind, StateError, StateSnapshot};

/// Views that may be open at a time.
pub(super) const VIEWS_MAX: usize = 16;

type Rows = Vec<(KeyKind, Bytes, Bytes)>;
type Answer = Result<Rows, StateError>;

/// The near end of a view's thread.
pub(super) struct RocksView {
    /// `None` only while being dropped.
    requests: Option<SyncSender<usize>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
    _slot: Slot,
}

impl fmt::Debug for RocksView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RocksView")
    }
}

impl RocksView {
    pub(super) fn open(
        db: &Arc<DB>,
        views: &Arc<AtomicUsize>,
        group: GroupId,
    ) -> Result<RocksView, StateError> {
        let slot = Slot::take(views)?;
        let (requests, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let db = Arc::clone(db);
        let thread = thread::Builder::new()
            .name("state-view".to_owned())
            .spawn(move || serve(&db, group, &asked, &answer))
            .map_err(|error| StateError::Store(format!("no thread for a view: {error}")))?;
        let view = RocksView { requests: Some(requests), answers, thread: Some(thread), _slot: slot };
        // The first answer is empty and says that the snapshot has been taken.
        view.answers.recv().map_err(|_| ended())??;
        Ok(view)
    }
}

impl StateSnapshot for RocksView {
    fn next_rows(&mut self, max_bytes: usize) -> Answer {
        let requests = self.requests.as_ref().ok_or_else(ended)?;
        requests.send(max_bytes).map_err(|_| ended())?;
        self.answers.recv().map_err(|_| ended())?
    }
}

impl Drop for RocksView {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // The thread only serves; if it panicked, the caller has seen the view end.
            let _ = thread.join();
        }
    }
}

/// One of the [`VIEWS_MAX`] permissions.
struct Slot {
    views: Arc<AtomicUsize>,
}

impl Slot {
    fn take(views: &Arc<AtomicUsize>) -> Result<Slot, StateError> {
        let open = views.fetch_add(1, Ordering::AcqRel);
        let slot = Slot { views: Arc::clone(views) };
        if open >= VIEWS_MAX {
            return Err(StateError::Store(format!(
                "{open} views are open already; try again when one is done"
            )));
        }
        Ok(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.views.fetch_sub(1, Ordering::AcqRel);
    }
}

fn ended() -> StateError {
    StateError::Store("the thread of a view ended early".to_owned())
}

fn serve(db: &DB, group: GroupId, asked: &Receiver<usize>, answer: &SyncSender<Answer>) {
    let snapshot = db.snapshot();
    let mut rows = Merged::new(db, &snapshot, group);
    if answer.send(rows.check().map(|()| Rows::new())).is_err() {
        return;
    }
    while let Ok(max_bytes) = asked.recv() {
        if answer.send(rows.next_rows(max_bytes)).is_err() {
            return;
        }
    }
}

/// The rows of both families in the order of (kind, key).
struct Merged<'a> {
    families: [DBRawIterator<'a>; 2],
}

impl<'a> Merged<'a> {
    fn new(db: &'a DB, snapshot: &'a Snapshot<'a>, group: GroupId) -> Merged<'a> {
        let families = [STATE, INDEX].map(|name| {
            let mut bounds = ReadOptions::default();
            bounds.set_iterate_lower_bound(first_key(group));
            bounds.set_iterate_upper_bound(end_key(group));
            // A pass over everything must not push the hot blocks out of the cache.
            bounds.fill_cache(false);
            let mut rows = snapshot.raw_iterator_cf_opt(family(db, name), bounds);
            rows.seek_to_first();
            rows
        });
        Merged { families }
    }

    fn check(&self) -> Result<(), StateError> {
        self.families.iter().try_for_each(|rows| rows.status().map_err(store))
    }

    fn next_rows(&mut self, max_bytes: usize) -> Answer {
        let mut found = Rows::new();
        let mut bytes = 0;
        while bytes < max_bytes || found.is_empty() {
            let Some(next) = self.smaller() else { break };
            let Some((stored, value)) = next.item() else { break };
            let (kind, key) = split_key(stored)?;
            let kind = KeyKind::from_byte(kind).ok_or_else(|| StateError::Malformed {
                kind,
                reason: "this program doesn't know the kind".into(),
            })?;
            bytes += key.len() + value.len();
            found.push((kind, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            next.next();
        }
        self.check()?;
        Ok(found)
    }

    /// The iterator that stands on the smaller key; the group is equal in both.
    fn smaller(&mut self) -> Option<&mut DBRawIterator<'a>> {
        let [state, index] = &mut self.families;
        match (state.key(), index.key()) {
            (None, None) => None,
            (Some(_), None) => Some(state),
            (None, Some(_)) => Some(index),
            (Some(one), Some(other)) => Some(if one <= other { state } else { index }),
        }
    }
}
