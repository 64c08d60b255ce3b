//! The snapshots of one group: making, keeping, sending and installing them.
//!
//! A snapshot is the group's rows as of an applied entry (a file), and the retained part of its
//! log up to there (read while it is sent). Made when retention moves the logical purge point, and
//! when a replica needs one. See `storage/snapshot` for the bytes.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use fleetline_codec::{DecodeError, Reader};
use fleetline_log::NodeLog;
use fleetline_snapshot::{SnapshotDir, SnapshotError, SnapshotSource, Staging};
use fleetline_state::{StateBatch, StateSnapshot, StateStore};
use fleetline_types::{GroupId, LogId};
use openraft::storage::RaftSnapshotBuilder;
use parking_lot::Mutex;

use crate::blocking::Blocking;
use crate::convert::{log_id_to_raft, membership_from_bytes, membership_to_bytes};
use crate::error::GroupError;
use crate::log_store::io_error;
use crate::state_machine::{read_applied, read_id, write_id};
use crate::types::{NetworkSnapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// A snapshot as openraft passes it around: never its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotHandle {
    /// The one whose state part this node keeps.
    Kept,
    /// One that has arrived whole and waits to be installed.
    Received,
}

/// The snapshots of one group on this node.
#[derive(Debug)]
pub struct SnapshotStore {
    group: GroupId,
    dir: SnapshotDir,
    log: Arc<dyn NodeLog>,
    store: Arc<dyn StateStore>,
    blocking: Blocking,
}

fn failed(error: SnapshotError) -> GroupError {
    GroupError::Snapshot(error.to_string())
}

impl SnapshotStore {
    /// The snapshots of `group` in `dir`.
    pub fn new(
        group: GroupId,
        dir: SnapshotDir,
        log: Arc<dyn NodeLog>,
        store: Arc<dyn StateStore>,
        blocking: Blocking,
    ) -> SnapshotStore {
        SnapshotStore { group, dir, log, store, blocking }
    }

    /// How calls run that wait for the disk.
    pub fn blocking(&self) -> Blocking {
        self.blocking
    }

    /// The bytes of the kept snapshot, to send.
    ///
    /// # Errors
    /// When there is none, or retention has removed a part of its log range.
    pub async fn source(&self) -> Result<SnapshotSource, SnapshotError> {
        let (dir, group, log) = (self.dir.clone(), self.group, self.log.clone());
        self.blocking.run(move || dir.source(group, log)).await
    }

    /// Begins or resumes to receive a snapshot.
    ///
    /// # Errors
    /// When the disk fails, or `meta` is of another group.
    pub fn begin(&self, meta: &fleetline_snapshot::SnapshotMeta) -> Result<Staging, SnapshotError> {
        if meta.group != self.group {
            return Err(SnapshotError::Unexpected {
                path: String::new(),
                expected: format!("a snapshot of group {}", self.group),
                found: format!("one of group {}", meta.group),
            });
        }
        self.dir.begin(meta)
    }

    /// Installs a snapshot that was complete when the node last stopped. One that the state is beyond
    /// is forgotten: its installation can't have begun (that removes the applied row first, and nothing
    /// is applied before it ends), and it would take the state back.
    pub(crate) async fn redo_install(&self) -> Result<(), GroupError> {
        let Some(meta) = self.dir.pending(self.group).map_err(failed)? else {
            return Ok(());
        };
        let (applied, _) = read_applied(self.store.as_ref(), self.group)?;
        match applied.is_some_and(|applied| applied.index > meta.last.index) {
            true => self.discard_pending(),
            false => self.install().await,
        }
    }

    /// Forgets a received snapshot that consensus did not want. Does nothing when there is none.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn discard_pending(&self) -> Result<(), GroupError> {
        self.dir.discard_pending(self.group).map_err(failed)
    }

    /// Deletes the rows and snapshots of a group that was removed from this node's log. Durable when
    /// this returns; doing it again changes nothing.
    ///
    /// # Errors
    /// When the log doesn't say that it was removed, and when the disk fails.
    pub async fn forget(&self) -> Result<(), GroupError> {
        if !self.log.state(self.group).removed {
            return Err(GroupError::Snapshot(format!("group {} was not removed from this node", self.group)));
        }
        let (dir, group, store) = (self.dir.clone(), self.group, self.store.clone());
        let forget = move || {
            let mut batch = StateBatch::default();
            batch.delete_group(group);
            store.write(batch)?;
            store.flush()?;
            dir.remove_group(group).map_err(failed)
        };
        self.blocking.run(forget).await
    }

    /// Replaces rows and log by the received snapshot.
    pub(crate) async fn install(&self) -> Result<(), GroupError> {
        let (dir, group, log, store) = (self.dir.clone(), self.group, self.log.clone(), self.store.clone());
        let installed = self
            .blocking
            .run(move || dir.install(group, log.as_ref(), store.as_ref()))
            .await
            .map_err(failed)?;
        tracing::info!(%group, last = %installed.last, "snapshot installed");
        Ok(())
    }

    /// The kept snapshot, when it can still be sent whole and the log goes on where it ends.
    pub(crate) fn current(&self) -> Result<Option<NetworkSnapshot>, GroupError> {
        let Some(reader) = self.dir.state(self.group).map_err(failed)? else {
            return Ok(None);
        };
        let meta = reader.meta();
        let log = self.log.state(self.group);
        // A snapshot that was received since may have moved the purge point beyond the one made here.
        let leaves_hole = log.purged.is_some_and(|purged| meta.last.index < purged.index);
        if meta.first_retained < log.first_retained || leaves_hole {
            return Ok(None);
        }
        Ok(Some(NetworkSnapshot { meta: raft_meta(meta)?, snapshot: SnapshotHandle::Kept }))
    }

    /// Whether the log alone can't fill a new replica any more.
    pub(crate) fn is_needed(&self) -> bool {
        self.log.state(self.group).purged.is_some()
    }

    /// A maker for the state as it is now. Call while nothing is applied.
    pub(crate) fn maker(
        self: &Arc<Self>,
        applied: Option<LogId>,
        membership: StoredMembership,
    ) -> SnapshotMaker {
        let view = self.store.snapshot(self.group).map_err(GroupError::from);
        SnapshotMaker { snapshots: self.clone(), applied, membership, view: Mutex::new(Some(view)) }
    }

    /// Keeps a snapshot. The state is flushed first: consensus takes a kept snapshot for applied, so a
    /// start whose state had fallen back behind it could not go on.
    async fn write(
        &self,
        meta: fleetline_snapshot::SnapshotMeta,
        mut view: Box<dyn StateSnapshot>,
    ) -> Result<(), GroupError> {
        let (dir, store) = (self.dir.clone(), self.store.clone());
        let write = move || {
            store.flush()?;
            dir.write_state(&meta, view.as_mut()).map_err(failed)
        };
        self.blocking.run(write).await
    }
}

/// openraft's form of what a snapshot covers.
///
/// # Errors
/// When its membership is of a later version.
pub fn raft_meta(meta: &fleetline_snapshot::SnapshotMeta) -> Result<SnapshotMeta, GroupError> {
    let membership = membership_from_meta(&meta.membership)
        .map_err(|error| GroupError::Snapshot(format!("membership of snapshot {}: {error}", meta.id)))?;
    Ok(SnapshotMeta { last_log_id: Some(log_id_to_raft(meta.last)), last_membership: membership })
}

fn membership_to_meta(membership: &StoredMembership) -> Bytes {
    let mut out = Vec::new();
    write_id(&mut out, membership.log_id().as_ref().map(crate::convert::log_id_from_raft));
    out.extend_from_slice(&membership_to_bytes(membership.membership()));
    out.into()
}

fn membership_from_meta(bytes: &[u8]) -> Result<StoredMembership, DecodeError> {
    let mut reader = Reader::new(bytes);
    let set_at = read_id(&mut reader)?;
    Ok(StoredMembership::new(set_at.map(log_id_to_raft), membership_from_bytes(reader.rest())?))
}

/// Makes a snapshot of the state as it was when the maker was made.
pub struct SnapshotMaker {
    snapshots: Arc<SnapshotStore>,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Behind a mutex only because openraft wants makers to be `Sync`; nobody contends for it.
    view: Mutex<Option<Result<Box<dyn StateSnapshot>, GroupError>>>,
}

impl SnapshotMaker {
    pub(crate) async fn make(&mut self) -> Result<NetworkSnapshot, GroupError> {
        let group = self.snapshots.group;
        let view =
            self.view.get_mut().take().ok_or_else(|| GroupError::Snapshot("made twice".to_owned()))??;
        let last = self
            .applied
            .ok_or_else(|| GroupError::Snapshot(format!("group {group} has applied nothing yet")))?;
        let first_retained = self.snapshots.log.state(group).first_retained;
        let first_retained = first_retained.min(last.index.next());
        let meta = fleetline_snapshot::SnapshotMeta {
            group,
            id: format!("{group}-{}-{}-{first_retained}", last.term, last.index),
            last,
            first_retained,
            membership: membership_to_meta(&self.membership),
        };
        let snapshot = NetworkSnapshot { meta: raft_meta(&meta)?, snapshot: SnapshotHandle::Kept };
        self.snapshots.write(meta, view).await?;
        tracing::debug!(%group, %last, "snapshot made");
        Ok(snapshot)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotMaker {
    type SnapshotData = SnapshotHandle;

    async fn build_snapshot(&mut self) -> Result<NetworkSnapshot, io::Error> {
        self.make().await.map_err(io_error)
    }
}
