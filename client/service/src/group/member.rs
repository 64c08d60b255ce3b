//! The member's task: joins, heartbeats, and turns assignments into partition tasks.

use std::sync::Arc;
use std::time::Duration;

use fleetline_native::model::{GroupAssignment, ReadFrom};
use fleetline_native::{HubError, Reply, Request};
use fleetline_types::{MemberId, PartitionId};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{GroupOptions, Item, Ownership, Phase, Slot, What};
use crate::cluster::{Cluster, Repeat, Target, wrong_reply};
use crate::consumer::{ConsumeError, Consumer};
use crate::error::ClientError;

/// Heartbeats in one session time-out: two may be lost.
const HEARTBEATS_PER_SESSION: u32 = 3;

/// See the module's header.
pub(super) struct Member {
    cluster: Arc<Cluster>,
    group: String,
    options: GroupOptions,
    ownership: Arc<Ownership>,
    batches: mpsc::Sender<Item>,
    /// The id to join again with.
    member: Option<MemberId>,
    /// What the coordinator grants; the options ask.
    session_timeout: Duration,
    /// When the coordinator last answered.
    alive: Instant,
}

impl Member {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        group: String,
        options: GroupOptions,
        ownership: Arc<Ownership>,
        batches: mpsc::Sender<Item>,
    ) -> Member {
        let session_timeout = options.session_timeout;
        let alive = Instant::now();
        Member { cluster, group, options, ownership, batches, member: None, session_timeout, alive }
    }

    /// Joins (again), and takes up the assignment.
    pub(super) async fn join(&mut self) -> Result<(), ClientError> {
        let request = Request::GroupJoin {
            group: self.group.clone(),
            member: self.member,
            client_name: self.cluster.options.client_name.clone(),
            session_timeout: self.options.session_timeout,
        };
        match self.call(request).await {
            Ok(assignment) => {
                self.on_assignment(assignment);
                Ok(())
            }
            Err(error) => {
                if is_expired(&error) {
                    self.member = None;
                }
                Err(error)
            }
        }
    }

    /// Heartbeats until the application drops its side.
    pub(super) async fn run(mut self) {
        let mut backoff = self.cluster.backoff();
        loop {
            self.pause().await;
            if self.batches.is_closed() {
                return;
            }
            let left = self.session_timeout.saturating_sub(self.alive.elapsed());
            let error = match tokio::time::timeout(left, self.heartbeat()).await {
                Ok(Ok(())) => {
                    backoff.reset();
                    continue;
                }
                Ok(Err(error)) => error,
                Err(_) => ClientError::Unknown { what: "heartbeat", reason: "no answer in time".into() },
            };
            tracing::debug!(group = self.group, %error, "heartbeat failed");
            let expired = is_expired(&error);
            if expired {
                self.member = None;
            }
            // Silent for too long: others may own by now what we still hold.
            if expired || self.alive.elapsed() >= self.session_timeout {
                self.ownership.lose_all();
                while let Err(error) = self.join().await {
                    tracing::warn!(group = self.group, %error, "could not join again");
                    if self.batches.is_closed() {
                        return;
                    }
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    /// Waits until a heartbeat is due or something is to be released.
    async fn pause(&self) {
        let interval = self.session_timeout / HEARTBEATS_PER_SESSION;
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = self.ownership.poke.notified() => {}
        }
    }

    async fn heartbeat(&mut self) -> Result<(), ClientError> {
        let (member, generation, released) = self.released();
        let request = Request::GroupHeartbeat {
            group: self.group.clone(),
            member,
            generation,
            released: released.clone(),
        };
        let assignment = self.call(request).await?;
        {
            let mut state = self.ownership.state.lock();
            for partition in released {
                if state.slots.get(&partition).is_some_and(|slot| slot.phase == Phase::Released) {
                    state.slots.remove(&partition);
                }
            }
        }
        self.on_assignment(assignment);
        Ok(())
    }

    /// What a heartbeat tells: also partitions that the application has kept for too long.
    fn released(&self) -> (MemberId, u64, Vec<PartitionId>) {
        let mut state = self.ownership.state.lock();
        let timeout = self.options.revoke_timeout;
        let mut released = Vec::new();
        for (partition, slot) in &mut state.slots {
            if matches!(slot.phase, Phase::Revoking { since, .. } if since.elapsed() >= timeout) {
                tracing::warn!(%partition, "revoked partition was not given back in time");
                slot.phase = Phase::Released;
            }
            if slot.phase == Phase::Released {
                released.push(*partition);
            }
        }
        (state.member, state.generation, released)
    }

    async fn call(&mut self, request: Request) -> Result<GroupAssignment, ClientError> {
        let target = Target::Leader(self.cluster.coordinator(&self.group));
        match self.cluster.call(target, Repeat::Safe, request).await? {
            Reply::Assignment(assignment) => {
                self.alive = Instant::now();
                Ok(assignment)
            }
            _ => Err(wrong_reply().into()),
        }
    }

    /// Starts what is new, revokes what is wanted elsewhere, loses what is neither owned nor wanted.
    fn on_assignment(&mut self, assignment: GroupAssignment) {
        self.member = Some(assignment.member);
        if !assignment.session_timeout.is_zero() {
            self.session_timeout = assignment.session_timeout;
        }
        let ownership = self.ownership.clone();
        let mut state = ownership.state.lock();
        state.member = assignment.member;
        state.generation = assignment.generation;
        let known: Vec<_> = state.slots.iter().map(|(p, slot)| (*p, slot.epoch)).collect();
        for (partition, epoch) in known {
            let owned = assignment.owned.contains(&(partition, epoch));
            if !owned && !assignment.revoking.contains(&partition) {
                state.lose(partition);
            }
        }
        for partition in assignment.revoking {
            let Some(slot) = state.slots.get_mut(&partition) else {
                // Granted and revoked before it was ever seen here: there is nothing to finish.
                let task = tokio::spawn(async {}).abort_handle();
                state.slots.insert(partition, Slot { epoch: 0, ownership: 0, phase: Phase::Released, task });
                self.ownership.poke.notify_one();
                continue;
            };
            slot.task.abort();
            match slot.phase {
                Phase::Claiming | Phase::Owned { announced: false, .. } => {
                    slot.phase = Phase::Released;
                    self.ownership.poke.notify_one();
                }
                Phase::Owned { .. } => {
                    slot.phase = Phase::Revoking { announced: false, since: Instant::now() };
                }
                Phase::Revoking { .. } | Phase::Released => {}
            }
        }
        for (partition, epoch) in assignment.owned {
            if state.slots.contains_key(&partition) {
                continue;
            }
            state.last_ownership += 1;
            let ownership = state.last_ownership;
            // Its first step waits for the lock that is held here.
            let reader =
                Reader { ownership_number: ownership, ..self.reader(partition, epoch, assignment.member) };
            let task = tokio::spawn(reader.run()).abort_handle();
            state.slots.insert(partition, Slot { epoch, ownership, phase: Phase::Claiming, task });
        }
        drop(state);
        self.ownership.announce.notify_one();
    }

    fn reader(&self, partition: PartitionId, epoch: u64, member: MemberId) -> Reader {
        Reader {
            cluster: self.cluster.clone(),
            group: self.group.clone(),
            options: self.options.clone(),
            ownership: self.ownership.clone(),
            batches: self.batches.clone(),
            partition,
            epoch,
            ownership_number: 0,
            member,
        }
    }
}

/// The coordinator no longer knows the member.
fn is_expired(error: &ClientError) -> bool {
    matches!(error, ClientError::Hub(HubError::NotFound(_) | HubError::Fenced { .. }))
}

/// One partition's task: claims it, then reads it.
struct Reader {
    cluster: Arc<Cluster>,
    group: String,
    options: GroupOptions,
    ownership: Arc<Ownership>,
    batches: mpsc::Sender<Item>,
    partition: PartitionId,
    epoch: u64,
    /// Of its slot.
    ownership_number: u64,
    member: MemberId,
}

impl Reader {
    async fn run(self) {
        let Some(from) = self.claim().await else { return };
        let mut consumer =
            Consumer::new(self.cluster.clone(), self.partition, from, self.options.consumer.clone());
        let mut backoff = self.cluster.backoff();
        loop {
            let what = match consumer.next_batch().await {
                Ok(batch) => {
                    backoff.reset();
                    What::Batch(batch)
                }
                Err(ConsumeError::OffsetGone { asked, start, .. }) => {
                    consumer.seek(ReadFrom::Offset(start));
                    What::Gap { asked, start }
                }
                Err(error) => {
                    tracing::warn!(group = self.group, partition = %self.partition, %error, "reading failed");
                    tokio::time::sleep(backoff.next()).await;
                    continue;
                }
            };
            let item = Item { partition: self.partition, ownership: self.ownership_number, what };
            if self.batches.send(item).await.is_err() {
                return;
            }
        }
    }

    /// Takes the partition, and says where to read from; `None` when somebody else has it.
    async fn claim(&self) -> Option<ReadFrom> {
        let mut backoff = self.cluster.backoff();
        loop {
            let request = Request::Claim {
                partition: self.partition,
                group: self.group.clone(),
                member: self.member,
                epoch: self.epoch,
            };
            match self.cluster.call(Target::Leader(self.partition), Repeat::Safe, request).await {
                Ok(Reply::Checkpoint(checkpoint)) => {
                    let mut state = self.ownership.state.lock();
                    let slot = state.slots.get_mut(&self.partition)?;
                    if slot.ownership != self.ownership_number || slot.phase != Phase::Claiming {
                        return None;
                    }
                    slot.phase = Phase::Owned { next: checkpoint.next, announced: false };
                    drop(state);
                    self.ownership.announce.notify_one();
                    return Some(checkpoint.next.map_or(self.options.start, ReadFrom::Offset));
                }
                Err(ClientError::Hub(HubError::Fenced { .. })) => {
                    // The next assignment tells what holds instead.
                    self.ownership.lose(self.partition, self.epoch);
                    return None;
                }
                Ok(_) => tracing::warn!(partition = %self.partition, "a claim had no checkpoint for answer"),
                Err(error) => {
                    tracing::warn!(group = self.group, partition = %self.partition, %error, "claim failed");
                }
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }
}
