//! A member of a consumer group inside of the broker: joins, heartbeats, and starts and ends a run per
//! partition as the coordinator says.
//!
//! The same protocol as that of clients (`client/service`), spoken to the `Hub`. A partition that shall go
//! to another member is released once its run has stopped, or when the grace is over; one that isn't ours
//! any more is dropped at once, and its epoch keeps what is under way from taking effect.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetline_gateway::hub::{GroupAssignment, HubError};
use fleetline_types::{MemberId, PartitionId};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::run::{Ended, Run};
use super::{Stop, StreamFunction};

/// Heartbeats in one session time-out: two may be lost.
const HEARTBEATS_PER_SESSION: u32 = 3;

struct Slot {
    epoch: u64,
    stop: watch::Sender<bool>,
    run: AbortHandle,
    revoked: Option<Instant>,
    ended: Option<Ended>,
}

struct Member {
    function: Arc<StreamFunction>,
    member: Option<MemberId>,
    generation: u64,
    session_timeout: Duration,
    /// When the coordinator last answered.
    heard: Instant,
    slots: HashMap<PartitionId, Slot>,
    runs: JoinSet<(PartitionId, Ended)>,
}

/// Is a member until it has to stop; then it gives its partitions back and leaves.
pub(crate) async fn member(function: Arc<StreamFunction>, mut stop: Stop) {
    let session_timeout = function.core.options.session_timeout;
    let mut member = Member {
        function: function.clone(),
        member: None,
        generation: 0,
        session_timeout,
        heard: Instant::now(),
        slots: HashMap::new(),
        runs: JoinSet::new(),
    };
    function.stats.set_member(true);
    member.work(&mut stop).await;
    member.leave().await;
    function.stats.set_member(false);
}

impl Member {
    async fn work(&mut self, stop: &mut Stop) {
        let (mut backoff, mut restarts) = (self.function.core.backoff(), self.function.core.backoff());
        while !stop.is_set() {
            let answered = match self.member {
                None => self.join().await,
                Some(member) => self.heartbeat(member).await,
            };
            match answered {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    tracing::debug!(group = self.function.group, %error, "a function's consumer group did not answer");
                    self.on_error(&error);
                    if self.member.is_none() || self.slots.is_empty() {
                        if !stop.sleep(backoff.next()).await {
                            return;
                        }
                        continue;
                    }
                }
            }
            let mut deadline = Instant::now() + self.session_timeout / HEARTBEATS_PER_SESSION;
            // A release is told at once, everything else when the heartbeat is due.
            while Instant::now() < deadline && !self.has_released() {
                tokio::select! {
                    () = tokio::time::sleep_until(deadline.into()) => break,
                    () = stop.stopped() => return,
                    Some(ended) = self.runs.join_next_with_id() => {
                        if self.on_end(ended) {
                            // It is begun anew with the next answer: soon, but not at once, again and again.
                            deadline = deadline.min(Instant::now() + restarts.next());
                        }
                    }
                }
            }
        }
    }

    async fn join(&mut self) -> Result<(), HubError> {
        let core = self.function.core.clone();
        let name = format!("functions@{}", core.cluster.node().0);
        let timeout = core.options.session_timeout;
        let assignment = core.hub.group_join(&self.function.group, self.member, &name, timeout).await?;
        self.on_assignment(assignment);
        Ok(())
    }

    async fn heartbeat(&mut self, member: MemberId) -> Result<(), HubError> {
        let now = Instant::now();
        let grace = self.function.core.options.revoke_grace;
        for slot in self.slots.values_mut() {
            let is_over = slot.revoked.is_some_and(|since| now.duration_since(since) >= grace);
            if is_over && slot.ended.is_none() {
                slot.run.abort();
                slot.ended = Some(Ended::Released);
            }
        }
        let released: Vec<PartitionId> = self.released().collect();
        let hub = self.function.core.hub.clone();
        let left = self.session_timeout.saturating_sub(self.heard.elapsed()).max(Duration::from_millis(1));
        let asking = hub.group_heartbeat(&self.function.group, member, self.generation, &released);
        let assignment = match tokio::time::timeout(left, asking).await {
            Ok(answer) => answer?,
            Err(_) => return Err(HubError::Unavailable("the coordinator did not answer in time".to_owned())),
        };
        released.iter().for_each(|partition| drop(self.slots.remove(partition)));
        self.on_assignment(assignment);
        Ok(())
    }

    /// Revoked partitions whose run has ended.
    fn released(&self) -> impl Iterator<Item = PartitionId> + '_ {
        let is_released = |slot: &Slot| slot.revoked.is_some() && slot.ended.is_some();
        self.slots.iter().filter(move |(_, slot)| is_released(slot)).map(|(partition, _)| *partition)
    }

    fn has_released(&self) -> bool {
        self.released().next().is_some()
    }

    fn on_error(&mut self, error: &HubError) {
        let is_expired = matches!(error, HubError::NotFound(_) | HubError::Fenced { .. });
        if is_expired {
            self.member = None;
        }
        // Silent for too long: others may own by now what is still held here.
        if is_expired || self.heard.elapsed() >= self.session_timeout {
            self.slots.drain().for_each(|(_, slot)| slot.run.abort());
            self.member = None;
        }
    }

    fn on_assignment(&mut self, assignment: GroupAssignment) {
        self.heard = Instant::now();
        self.member = Some(assignment.member);
        self.generation = assignment.generation;
        if !assignment.session_timeout.is_zero() {
            self.session_timeout = assignment.session_timeout;
        }
        let GroupAssignment { owned, revoking, .. } = assignment;
        self.slots.retain(|partition, slot| {
            let keeps = owned.contains(&(*partition, slot.epoch)) || revoking.contains(partition);
            if !keeps {
                slot.run.abort();
            }
            keeps
        });
        for partition in revoking {
            let slot = self.slots.entry(partition).or_insert_with(|| {
                // Given and taken before it was ever seen here: there is nothing to finish.
                let (stop, _) = watch::channel(true);
                let run = self.runs.spawn(async move { (partition, Ended::Released) });
                Slot { epoch: 0, stop, run, revoked: None, ended: Some(Ended::Released) }
            });
            slot.revoked.get_or_insert_with(Instant::now);
            slot.stop.send_replace(true);
        }
        for (partition, epoch) in owned {
            if !self.slots.contains_key(&partition) {
                self.start(partition, epoch, assignment.member);
            }
        }
    }

    fn start(&mut self, partition: PartitionId, epoch: u64, member: MemberId) {
        let (sender, stop) = Stop::new();
        let function = self.function.clone();
        let run = async move { (partition, Run::run(function, partition, epoch, member, stop).await) };
        let run = self.runs.spawn(run);
        self.slots.insert(partition, Slot { epoch, stop: sender, run, revoked: None, ended: None });
    }

    /// A run has ended; whether it was one that should go on.
    fn on_end(&mut self, ended: Result<(Id, (PartitionId, Ended)), JoinError>) -> bool {
        match ended {
            Ok((id, (partition, ended))) => {
                let Some(slot) = self.slots.get_mut(&partition).filter(|slot| slot.run.id() == id) else {
                    return false;
                };
                if slot.revoked.is_some() {
                    slot.ended = Some(ended);
                    return false;
                }
                // Claimed anew with the next heartbeat, if it is still this member's.
                self.slots.remove(&partition);
                true
            }
            Err(error) => {
                let id = error.id();
                // Who was aborted has no slot any more, or one that says so.
                self.slots.retain(|_, slot| slot.run.id() != id || slot.ended.is_some());
                if error.is_panic() {
                    tracing::error!(%error, group = self.function.group, "a function's partition failed");
                }
                error.is_panic()
            }
        }
    }

    /// Stops all runs, as softly as the grace allows, and leaves the group.
    async fn leave(&mut self) {
        for slot in self.slots.values() {
            slot.stop.send_replace(true);
        }
        let all = async { while self.runs.join_next().await.is_some() {} };
        drop(tokio::time::timeout(self.function.core.options.revoke_grace, all).await);
        self.runs.shutdown().await;
        if let Some(member) = self.member.take() {
            let hub = self.function.core.hub.clone();
            let leaving = hub.group_leave(&self.function.group, member);
            // Without an answer the coordinator finds out by itself.
            drop(tokio::time::timeout(Duration::from_secs(2), leaving).await);
        }
    }
}
