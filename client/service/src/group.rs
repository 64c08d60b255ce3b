//! Consumer groups: members share the partitions of the hub, each read by one member at a time, and
//! go on from checkpoints.
//!
//! [`GroupConsumer`] is the application's side. Behind it, one task (`member`) talks to the group's
//! coordinator, and one task per owned partition claims it and reads. They meet in [`Ownership`]
//! (who owns what, in which phase; bounded by the number of partitions) and one bounded channel of
//! batches.
//!
//! ```text
//!              claimed             revoked by the          application calls
//!   claiming ───────────► owned ──── coordinator ──► revoking ─── next() again ──► released
//!       │                   │                                                        (told to the
//!       └───── fenced, expired, left ──────► lost                                    coordinator)
//! ```
//!
//! At least once: after a crash or a loss, records behind the last checkpoint are read again, maybe
//! by another member. A checkpoint from an owner that has been replaced is refused (fenced), so it
//! can't move the group back.

mod member;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleetline_native::model::ReadFrom;
use fleetline_native::{HubError, Reply, Request};
use fleetline_types::{MemberId, Offset, PartitionId};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;

use crate::cluster::{Cluster, Repeat, Target, wrong_reply};
use crate::consumer::{ConsumerOptions, ReceivedBatch};
use crate::error::ClientError;

/// How a member of a group behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOptions {
    /// How long the member may be silent before its partitions go to others. Default 10 s. Less
    /// finds dead members sooner, more forgives pauses.
    pub session_timeout: Duration,
    /// Where to begin in a partition that has no checkpoint of the group. Default: earliest.
    pub start: ReadFrom,
    /// Batches that may wait for [`GroupConsumer::next`], over all partitions. Default 8. Beyond
    /// it, and the credit of each partition's consumer, nothing is read.
    pub batches_waiting: usize,
    /// How long the application may keep a partition after [`GroupEvent::Revoking`]; then it is
    /// released without it. Default 30 s.
    pub revoke_timeout: Duration,
    /// How each partition is read.
    pub consumer: ConsumerOptions,
}

impl Default for GroupOptions {
    fn default() -> GroupOptions {
        GroupOptions {
            session_timeout: Duration::from_secs(10),
            start: ReadFrom::Earliest,
            batches_waiting: 8,
            revoke_timeout: Duration::from_secs(30),
            consumer: ConsumerOptions { credit_bytes: 1024 * 1024, ..ConsumerOptions::default() },
        }
    }
}

/// What happens to a member.
#[derive(Debug)]
pub enum GroupEvent {
    /// The member owns the partition from now on; reading begins at `next` (`None`: no checkpoint
    /// yet, so where the options say).
    Assigned {
        /// The partition.
        partition: PartitionId,
        /// The checkpoint.
        next: Option<Offset>,
    },
    /// Records of an owned partition, in order.
    Batch(ReceivedBatch),
    /// Retention removed records before the group read them; reading goes on at `start`.
    Gap {
        /// The partition.
        partition: PartitionId,
        /// The first record that is gone.
        asked: Offset,
        /// Where reading goes on.
        start: Offset,
    },
    /// The partition is wanted elsewhere. Finish what was given of it and store a checkpoint, then
    /// call [`GroupConsumer::next`]: that releases it. No more batches of it will come.
    Revoking(PartitionId),
    /// The partition is no longer owned: the session expired, or another member was given it.
    /// Checkpoints for it are refused from now on.
    Lost(PartitionId),
}

/// Why a group can't go on, or a checkpoint was not stored.
#[derive(Debug, Error)]
pub enum GroupError {
    /// The member does not own the partition.
    #[error("{0} is not owned by this member")]
    NotOwned(PartitionId),
    /// Another member was given the partition; the checkpoint was not stored.
    #[error("{0} was given to another member")]
    Fenced(PartitionId),
    /// Talking to the cluster failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The member's task has ended.
    #[error("the member has left the group")]
    Left,
}

/// A member of a consumer group.
pub struct GroupConsumer {
    cluster: Arc<Cluster>,
    group: String,
    ownership: Arc<Ownership>,
    batches: mpsc::Receiver<Item>,
    member: JoinHandle<()>,
}

/// What a partition's task hands on.
pub(crate) struct Item {
    partition: PartitionId,
    /// Of the slot whose task read it.
    ownership: u64,
    what: What,
}

pub(crate) enum What {
    Batch(ReceivedBatch),
    Gap { asked: Offset, start: Offset },
}

/// Who owns what, shared by the application's side, the member's task and the partitions' tasks.
pub(crate) struct Ownership {
    state: Mutex<State>,
    /// Wakes the application's side: something is to be announced.
    announce: Notify,
    /// Wakes the member's task: something is released.
    poke: Notify,
}

#[derive(Default)]
pub(crate) struct State {
    member: MemberId,
    generation: u64,
    slots: BTreeMap<PartitionId, Slot>,
    /// Number of the last slot.
    last_ownership: u64,
    /// Losses that the application has not been told of.
    lost: BTreeSet<PartitionId>,
}

pub(crate) struct Slot {
    epoch: u64,
    /// Its own number: a partition that was lost and granted again may have the same epoch, but what
    /// its former task has read must not come behind the new `Assigned`.
    ownership: u64,
    phase: Phase,
    /// Its task; stopped when the slot leaves `Claiming` and `Owned`.
    task: AbortHandle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Claiming,
    Owned { next: Option<Offset>, announced: bool },
    Revoking { announced: bool, since: Instant },
    Released,
}

impl GroupConsumer {
    pub(crate) async fn join(
        cluster: Arc<Cluster>,
        group: String,
        options: GroupOptions,
    ) -> Result<GroupConsumer, GroupError> {
        let ownership =
            Arc::new(Ownership { state: Mutex::default(), announce: Notify::new(), poke: Notify::new() });
        let (sender, batches) = mpsc::channel(options.batches_waiting.max(1));
        let mut member =
            member::Member::new(cluster.clone(), group.clone(), options, ownership.clone(), sender);
        member.join().await?;
        let member = tokio::spawn(member.run());
        Ok(GroupConsumer { cluster, group, ownership, batches, member })
    }

    /// The group's name.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// This member's id; a new one when the member had expired and joined again.
    pub fn member(&self) -> MemberId {
        self.ownership.state.lock().member
    }

    /// Partitions that this member owns now, in order.
    pub fn owned(&self) -> Vec<PartitionId> {
        let state = self.ownership.state.lock();
        let owned = |slot: &Slot| matches!(slot.phase, Phase::Owned { .. } | Phase::Revoking { .. });
        state.slots.iter().filter(|(_, slot)| owned(slot)).map(|(p, _)| *p).collect()
    }

    /// Waits for what happens next, and releases what was announced as [`GroupEvent::Revoking`]
    /// before.
    ///
    /// Cancel-safe: when dropped, no event is lost.
    ///
    /// # Errors
    /// [`GroupError::Left`] when the member's task has ended.
    pub async fn next(&mut self) -> Result<GroupEvent, GroupError> {
        self.ownership.release_announced();
        loop {
            if let Some(event) = self.ownership.next_announcement() {
                return Ok(event);
            }
            tokio::select! {
                biased;
                () = self.ownership.announce.notified() => {}
                item = self.batches.recv() => match item {
                    Some(item) if self.ownership.is_current(&item) => return Ok(item.into_event()),
                    Some(_) => {}
                    None => return Err(GroupError::Left),
                },
            }
        }
    }

    /// Stores how far the group has read a partition: `next` is the first record not yet processed.
    ///
    /// When dropped before it is done, the checkpoint may be stored or not.
    ///
    /// # Errors
    /// [`GroupError::NotOwned`] and [`GroupError::Fenced`] when the partition belongs to another
    /// member; then [`GroupEvent::Lost`] follows. [`GroupError::Client`] when it can't be stored now.
    pub async fn checkpoint(&self, partition: PartitionId, next: Offset) -> Result<(), GroupError> {
        let epoch = self.ownership.epoch(partition).ok_or(GroupError::NotOwned(partition))?;
        let request = Request::Checkpoint { partition, group: self.group.clone(), epoch, next };
        match self.cluster.call(Target::Leader(partition), Repeat::Safe, request).await {
            Ok(Reply::Done) => Ok(()),
            Ok(_) => Err(ClientError::from(wrong_reply()).into()),
            Err(ClientError::Hub(HubError::Fenced { .. })) => {
                self.ownership.lose(partition, epoch);
                Err(GroupError::Fenced(partition))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Leaves the group, so that its partitions go to others at once. Store checkpoints before.
    ///
    /// When dropped before it is done, the member expires instead.
    ///
    /// # Errors
    /// [`GroupError::Client`] when the coordinator can't be told; the member then expires.
    pub async fn leave(self) -> Result<(), GroupError> {
        self.member.abort();
        self.ownership.lose_all();
        let member = self.member();
        let target = Target::Leader(self.cluster.coordinator(&self.group));
        let request = Request::GroupLeave { group: self.group.clone(), member };
        match self.cluster.call(target, Repeat::Safe, request).await {
            // Gone already, which is as good.
            Ok(_) | Err(ClientError::Hub(HubError::NotFound(_))) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Stops all tasks. The group is not told (nothing can wait here): the member expires.
impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.member.abort();
        self.ownership.lose_all();
    }
}

impl Item {
    fn into_event(self) -> GroupEvent {
        let partition = self.partition;
        match self.what {
            What::Batch(batch) => GroupEvent::Batch(batch),
            What::Gap { asked, start } => GroupEvent::Gap { partition, asked, start },
        }
    }
}

impl Ownership {
    /// The application has come back after `Revoking`: it is done with the partition.
    fn release_announced(&self) {
        let mut state = self.state.lock();
        let mut released = false;
        for slot in state.slots.values_mut() {
            if matches!(slot.phase, Phase::Revoking { announced: true, .. }) {
                slot.phase = Phase::Released;
                released = true;
            }
        }
        if released {
            self.poke.notify_one();
        }
    }

    /// The next thing that the application has not been told. Losses first: they make what follows
    /// for the same partition a new ownership.
    fn next_announcement(&self) -> Option<GroupEvent> {
        let mut state = self.state.lock();
        if let Some(partition) = state.lost.pop_first() {
            return Some(GroupEvent::Lost(partition));
        }
        for (partition, slot) in &mut state.slots {
            match &mut slot.phase {
                Phase::Revoking { announced, .. } if !*announced => {
                    *announced = true;
                    return Some(GroupEvent::Revoking(*partition));
                }
                Phase::Owned { next, announced } if !*announced => {
                    *announced = true;
                    return Some(GroupEvent::Assigned { partition: *partition, next: *next });
                }
                _ => {}
            }
        }
        None
    }

    /// Whether an item comes from the ownership that holds now.
    fn is_current(&self, item: &Item) -> bool {
        let state = self.state.lock();
        state
            .slots
            .get(&item.partition)
            .is_some_and(|slot| slot.ownership == item.ownership && matches!(slot.phase, Phase::Owned { .. }))
    }

    /// The epoch of an owned partition.
    fn epoch(&self, partition: PartitionId) -> Option<u64> {
        let state = self.state.lock();
        let slot = state.slots.get(&partition)?;
        matches!(slot.phase, Phase::Owned { .. } | Phase::Revoking { .. }).then_some(slot.epoch)
    }

    /// An ownership has ended without the application's doing.
    fn lose(&self, partition: PartitionId, epoch: u64) {
        let mut state = self.state.lock();
        if state.slots.get(&partition).is_some_and(|slot| slot.epoch == epoch) {
            state.lose(partition);
            drop(state);
            self.announce.notify_one();
        }
    }

    fn lose_all(&self) {
        let mut state = self.state.lock();
        let all: Vec<_> = state.slots.keys().copied().collect();
        all.into_iter().for_each(|partition| state.lose(partition));
        drop(state);
        self.announce.notify_one();
    }
}

impl State {
    /// Stops a partition's task and notes the loss, if the application knew the partition as its own.
    fn lose(&mut self, partition: PartitionId) {
        let Some(slot) = self.slots.remove(&partition) else { return };
        slot.task.abort();
        let known = match slot.phase {
            Phase::Owned { announced, .. } => announced,
            Phase::Revoking { .. } => true,
            Phase::Claiming | Phase::Released => false,
        };
        if known {
            self.lost.insert(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ownership(phases: &[(u32, Phase)]) -> Ownership {
        let mut state = State::default();
        for (partition, phase) in phases {
            let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
            state.slots.insert(PartitionId(*partition), Slot { epoch: 1, ownership: 1, phase: *phase, task });
        }
        Ownership { state: Mutex::new(state), announce: Notify::new(), poke: Notify::new() }
    }

    fn announcements(ownership: &Ownership) -> Vec<String> {
        std::iter::from_fn(|| ownership.next_announcement()).map(|e| format!("{e:?}")).collect()
    }

    const OWNED: Phase = Phase::Owned { next: None, announced: false };

    /// Each change is announced once; a partition is released only after its revocation was.
    #[tokio::test]
    async fn changes_are_announced_once() {
        let revoking = Phase::Revoking { announced: false, since: Instant::now() };
        let ownership = ownership(&[(0, OWNED), (1, revoking), (2, Phase::Claiming)]);
        ownership.release_announced();
        assert_eq!(ownership.epoch(PartitionId(1)), Some(1), "not announced, so not released");
        let first = announcements(&ownership);
        assert_eq!(first.len(), 2, "{first:?}");
        assert!(first[0].starts_with("Assigned") && first[1].starts_with("Revoking"), "{first:?}");
        assert_eq!(announcements(&ownership).len(), 0);
        ownership.release_announced();
        assert_eq!(ownership.epoch(PartitionId(1)), None, "released");
    }

    /// A loss is told only for partitions that the application knew, and never for a newer epoch.
    #[tokio::test]
    async fn losses_are_told_to_who_knew() {
        let ownership = ownership(&[(0, OWNED), (1, OWNED), (2, Phase::Claiming)]);
        let _ = ownership.next_announcement();
        ownership.lose(PartitionId(0), 7);
        assert_eq!(ownership.epoch(PartitionId(0)), Some(1), "the loss was of another epoch");
        ownership.lose_all();
        assert_eq!(announcements(&ownership), ["Lost(PartitionId(0))"]);
    }

    /// What a former ownership has read doesn't come behind the new one's announcement, although the
    /// epoch is the same: a member that was away for a moment gets the same grant again.
    #[tokio::test]
    async fn former_ownerships_are_over() {
        let owned = Phase::Owned { next: Some(Offset(5)), announced: true };
        let ownership = ownership(&[(0, owned)]);
        let gap = |number| Item {
            partition: PartitionId(0),
            ownership: number,
            what: What::Gap { asked: Offset(0), start: Offset(1) },
        };
        assert!(ownership.is_current(&gap(1)));
        if let Some(slot) = ownership.state.lock().slots.get_mut(&PartitionId(0)) {
            slot.ownership = 2;
        }
        assert!(!ownership.is_current(&gap(1)));
        assert!(ownership.is_current(&gap(2)));
    }
}
