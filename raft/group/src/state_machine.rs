//! openraft's state machine on a [`Machine`] and the state store.
//!
//! Called by openraft's apply task only. One round (the entries of one `apply` call, up to
//! [`ROUND_BYTES_MAX`] of them) is one batch of rows: the machine's changes and the group's applied row. Replies go out after the batch is in
//! the store, so that whoever got a reply can read what it did.
//!
//! The applied row, value:
//!
//! ```text
//! version u8 = 1 | applied: u8 present, term u64, index u64 | membership set at: u8, term, index | membership
//! ```

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use fleetline_codec::{DecodeError, Reader, Writer};
use fleetline_state::{KeyKind, StateBatch, StateStore};
use fleetline_types::{GroupId, LogId, LogIndex, Term};
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::watch;

use crate::convert::{
    expect_version, log_id_from_raft, log_id_to_raft, membership_from_bytes, membership_to_bytes,
};
use crate::durable::DurableMark;
use crate::error::GroupError;
use crate::log_store::{entry_index, io_error};
use crate::machine::Machine;
use crate::snapshots::{SnapshotHandle, SnapshotMaker, SnapshotStore};
use crate::types::{Entry, LogIdOf, Reply, SnapshotMeta, StoredMembership, TypeConfig};

/// A round ends with the entry that brings it to so many bytes: rows grow with entries, and nobody has
/// a reply before the round's rows are written. (openraft bounds their number, to 4,096.)
const ROUND_BYTES_MAX: usize = 4 << 20;

type Round = Vec<EntryResponder<TypeConfig>>;

/// A group's state machine, as openraft sees it.
pub struct StateMachine {
    group: GroupId,
    machine: Box<dyn Machine>,
    store: Arc<dyn StateStore>,
    durable: Arc<DurableMark>,
    snapshots: Arc<SnapshotStore>,
    applied: Option<LogId>,
    membership: StoredMembership,
    published: watch::Sender<Option<LogId>>,
}

impl StateMachine {
    /// Loads the state of a group.
    pub(crate) fn open(
        group: GroupId,
        mut machine: Box<dyn Machine>,
        store: Arc<dyn StateStore>,
        durable: Arc<DurableMark>,
        snapshots: Arc<SnapshotStore>,
        published: watch::Sender<Option<LogId>>,
    ) -> Result<StateMachine, GroupError> {
        machine.load(store.as_ref())?;
        let (applied, membership) = read_applied(store.as_ref(), group)?;
        if let Some(id) = applied {
            machine.published(id);
        }
        published.send_replace(applied);
        Ok(StateMachine { group, machine, store, durable, snapshots, applied, membership, published })
    }

    /// Applies one round; nothing of it is visible before it is whole.
    fn apply_round(&mut self, round: &[EntryResponder<TypeConfig>]) -> Result<Vec<Reply>, GroupError> {
        let mut batch = StateBatch::default();
        let mut replies = Vec::with_capacity(round.len());
        for (entry, _) in round {
            let id = log_id_from_raft(&entry.log_id);
            assert!(self.applied.is_none_or(|before| before.index < id.index), "apply went back to {id}");
            replies.push(match &entry.payload {
                EntryPayload::Blank => Reply::default(),
                EntryPayload::Normal(command) => self.machine.apply(id, command, &mut batch)?,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    Reply::default()
                }
            });
            self.applied = Some(id);
        }
        self.machine.end_of_round(&mut batch)?;
        batch.put(self.group, KeyKind::Applied, Bytes::new(), encode_applied(self.applied, &self.membership));
        self.store.write(batch)?;
        Ok(replies)
    }

    /// Applies a round that is durable in this node's log, and answers it.
    async fn apply_and_answer(&mut self, round: Round) -> Result<(), io::Error> {
        let Some(last) = round.last().map(|(entry, _)| entry_index(entry)) else {
            return Ok(());
        };
        self.durable.wait(last).await.map_err(io_error)?;
        let replies = self.apply_round(&round).map_err(|error| {
            tracing::error!(group = %self.group, %error, "replica stops");
            io_error(error)
        })?;
        self.publish();
        for ((_, responder), reply) in round.into_iter().zip(replies) {
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    fn publish(&mut self) {
        if let Some(id) = self.applied {
            self.machine.published(id);
            self.published.send_replace(Some(id));
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotHandle;
    type SnapshotBuilder = SnapshotMaker;

    async fn applied_state(&mut self) -> Result<(Option<LogIdOf>, StoredMembership), io::Error> {
        Ok((self.applied.map(log_id_to_raft), self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let (mut round, mut bytes) = (Round::with_capacity(entries.size_hint().0), 0);
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            bytes += command_bytes(&entry);
            round.push((entry, responder));
            if bytes >= ROUND_BYTES_MAX {
                self.apply_and_answer(std::mem::take(&mut round)).await?;
                bytes = 0;
            }
        }
        self.apply_and_answer(round).await
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Self::SnapshotBuilder> {
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.snapshots.maker(self.applied, self.membership.clone())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotHandle,
    ) -> Result<(), io::Error> {
        if snapshot == SnapshotHandle::Received {
            self.snapshots.install().await.map_err(io_error)?;
            self.machine.load(self.store.as_ref()).map_err(io_error)?;
        }
        let (applied, membership) = read_applied(self.store.as_ref(), self.group).map_err(io_error)?;
        self.applied = applied;
        self.membership = membership;
        let covers = meta.last_log_id.as_ref().map(log_id_from_raft);
        if applied < covers {
            let text =
                format!("snapshot of group {} covers {covers:?}, its state only {applied:?}", self.group);
            return Err(io_error(text));
        }
        if let Some(id) = covers {
            self.durable.installed(id.index);
        }
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<crate::NetworkSnapshot>, io::Error> {
        let current = self.snapshots.current().map_err(io_error)?;
        let has_state = self.applied.is_some() && self.snapshots.is_needed();
        match current {
            None if has_state => {
                let mut maker = self.snapshots.maker(self.applied, self.membership.clone());
                maker.make().await.map(Some).map_err(io_error)
            }
            current => Ok(current),
        }
    }
}

fn command_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(command) => command.head.len() + command.body.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

pub(crate) fn write_id(out: &mut Vec<u8>, id: Option<LogId>) {
    let present = id.is_some();
    let id = id.unwrap_or_default();
    Writer::new(out).flag(present).u64(id.term.0).u64(id.index.0);
}

pub(crate) fn read_id(reader: &mut Reader<'_>) -> Result<Option<LogId>, DecodeError> {
    let present = reader.flag("log id present")?;
    let id = LogId { term: Term(reader.u64("term")?), index: LogIndex(reader.u64("index")?) };
    Ok(present.then_some(id))
}

pub(crate) fn encode_applied(applied: Option<LogId>, membership: &StoredMembership) -> Bytes {
    let mut out = vec![1];
    write_id(&mut out, applied);
    write_id(&mut out, membership.log_id().as_ref().map(log_id_from_raft));
    out.extend_from_slice(&membership_to_bytes(membership.membership()));
    out.into()
}

fn decode_applied(row: &[u8]) -> Result<(Option<LogId>, StoredMembership), DecodeError> {
    let mut reader = Reader::new(row);
    expect_version(&mut reader, "applied row")?;
    let applied = read_id(&mut reader)?;
    let set_at = read_id(&mut reader)?;
    let membership = membership_from_bytes(reader.rest())?;
    Ok((applied, StoredMembership::new(set_at.map(log_id_to_raft), membership)))
}

/// Reads a group's applied row; nothing for a group without one.
pub(crate) fn read_applied(
    store: &dyn StateStore,
    group: GroupId,
) -> Result<(Option<LogId>, StoredMembership), GroupError> {
    let Some(row) = store.get(group, KeyKind::Applied, b"")? else {
        return Ok((None, StoredMembership::default()));
    };
    decode_applied(&row).map_err(|error| {
        let (kind, reason) = (KeyKind::Applied as u8, error.to_string());
        GroupError::State(fleetline_state::StateError::Malformed { kind, reason })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fleetline_log::memory::MemLog;

    use super::*;
    use crate::kit::{TestMachine, state_machine};
    use crate::types::{Command, Membership};

    /// A round ends when it is large, not only when openraft has no more; none is empty, all is applied.
    #[tokio::test]
    async fn rounds_are_bounded_by_bytes() {
        let machine = TestMachine::default();
        let mut state = state_machine(Arc::new(MemLog::new()), machine.clone());
        let body = Bytes::from(vec![7; ROUND_BYTES_MAX / 4]);
        let command = |bytes: Bytes| EntryPayload::Normal(Command { head: Bytes::new(), body: bytes });
        let large = (1..=9).map(|index| (index, command(body.clone())));
        let small = (10..=12).map(|index| (index, command(Bytes::from_static(b"x"))));
        let entries = large.chain(small).map(|(index, payload)| {
            Ok((Entry { log_id: log_id_to_raft(LogId::new(1, index)), payload }, None))
        });
        state.apply(futures::stream::iter(entries)).await.unwrap();
        let ends: Vec<u64> = machine.rounds.lock().iter().map(|id| id.index.0).collect();
        assert_eq!(ends, [4, 8, 12]);
    }

    /// The applied row comes back as it was written, with and without ids.
    #[test]
    fn applied_row_round_trip() {
        let membership = Membership::new_with_defaults(vec![BTreeSet::from([1, 2, 3])], BTreeSet::from([4]));
        for id in [None, Some(LogId::new(4, 99))] {
            let stored = StoredMembership::new(id.map(log_id_to_raft), membership.clone());
            let row = encode_applied(id, &stored);
            assert_eq!(decode_applied(&row).unwrap(), (id, stored));
        }
    }
}
