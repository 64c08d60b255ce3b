//! The periodic duties of a node. Each is a loop of its own that does one thing, notes what went
//! wrong, and tries again; none of them holds anything that others wait for.
//!
//! | loop | on | what |
//! |---|---|---|
//! | follow | every node | control state → peers' addresses, hosted partitions; deletes those that left |
//! | place | control leader | who is away for too long; placement changes; voters of the control group |
//! | reconcile | each group's leader | membership → placement, one step at a time |
//! | expire | each coordinator's leader | silent members of consumer groups |
//! | retain | every node | trim streams, purge and release their logs |
//! | flush | every node | state to disk |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleetline_cluster::placement::{control_voters, plan};
use fleetline_cluster::reconcile::{Observed, ReconcileStep, next_step};
use fleetline_cluster::{ControlCommand, ControlState, Placement};
use fleetline_partition::RetentionPolicy;
use fleetline_raft_driver::Driver;
use fleetline_raft_group::{Blocking, Group, GroupStatus};
use fleetline_types::{GroupId, LogIndex, NodeId, PartitionId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::control::Control;
use crate::hosting::Hosting;

/// Placement changes on their way at the most: each moves data.
const MOVES_MAX: usize = 4;
/// How long a peer may take to show that it lives.
const PROBE: Duration = Duration::from_millis(1500);

/// What the duties work on.
#[derive(Clone)]
pub(crate) struct Duties {
    pub(crate) driver: Arc<Driver>,
    pub(crate) control: Control,
    pub(crate) hosting: Arc<Hosting>,
    pub(crate) dead_after: Duration,
    pub(crate) flush_every: Duration,
    /// Per group the last entry whose effects are flushed.
    pub(crate) flushed: Arc<Mutex<BTreeMap<GroupId, LogIndex>>>,
    /// Set when the node can't go on; it stops then.
    pub(crate) failed: watch::Sender<Option<String>>,
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl Duties {
    /// Starts all loops; they end when the returned set is dropped.
    pub(crate) fn start(self) -> tokio::task::JoinSet<()> {
        let mut loops = tokio::task::JoinSet::new();
        loops.spawn(self.clone().follow());
        loops.spawn(self.clone().place());
        loops.spawn(self.clone().reconcile());
        loops.spawn(self.clone().expire());
        loops.spawn(self.clone().retain());
        loops.spawn(self.clone().flush());
        loops.spawn(self.watch_groups());
        loops
    }

    async fn follow(self) {
        let mut changes = self.control.watch();
        let mut known = BTreeSet::new();
        let mut ticks = ticks(Duration::from_secs(5));
        loop {
            let state = changes.borrow_and_update().clone();
            if let Err(error) = self.hosting.follow(&state, &mut known).await {
                self.fail(format!("a partition can't be started: {error}"));
                return;
            }
            tokio::select! {
                changed = changes.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.hosting.end_doubt(&self.control).await {
                self.fail(format!("the log can't be told what was here: {error}"));
                return;
            }
            match self.hosting.retire(&state).await {
                // A new life of the group must not be taken for as durable as the old one was.
                Ok(gone) => self.flushed.lock().retain(|group, _| !gone.contains(group)),
                Err(error) => {
                    self.fail(format!("a partition that left can't be deleted: {error}"));
                    return;
                }
            }
        }
    }

    fn fail(&self, reason: String) {
        tracing::error!(reason, "node can't go on");
        self.failed.send_replace(Some(reason));
    }

    /// A group that stops takes the process with it: a restart recovers from what is on disk.
    async fn watch_groups(self) {
        let mut ticks = ticks(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            for group in self.driver.groups() {
                // One that is no longer there was stopped on purpose.
                let stopped = group.why_stopped().filter(|_| self.driver.group(group.id()).is_some());
                if let Some(reason) = stopped {
                    self.fail(format!("group {} has stopped: {reason}", group.id()));
                    return;
                }
            }
        }
    }

    async fn place(self) {
        let mut ticks = ticks(Duration::from_secs(1));
        let mut seen: BTreeMap<NodeId, Instant> = BTreeMap::new();
        loop {
            ticks.tick().await;
            if !self.control.is_leader() {
                seen.clear();
                continue;
            }
            let state = self.control.view();
            let lost = self.lost_nodes(&state, &mut seen).await;
            self.propose_placement(&state, &lost).await;
            self.reconcile_control(&state, &lost).await;
        }
    }

    /// Nodes that have been away for longer than they may.
    async fn lost_nodes(
        &self,
        state: &ControlState,
        seen: &mut BTreeMap<NodeId, Instant>,
    ) -> BTreeSet<NodeId> {
        let now = Instant::now();
        seen.retain(|node, _| state.nodes.contains_key(node));
        let others: Vec<NodeId> =
            state.nodes.keys().copied().filter(|node| *node != self.driver.node()).collect();
        let alive = self.alive(others.iter().copied()).await;
        for node in &others {
            let last = seen.entry(*node).or_insert(now);
            if alive.contains(node) {
                *last = now;
            }
        }
        let away = |node: &&NodeId| seen.get(*node).is_some_and(|last| now - *last > self.dead_after);
        others.iter().filter(away).copied().collect()
    }

    /// Which of these nodes answer; this one does.
    async fn alive(&self, nodes: impl Iterator<Item = NodeId>) -> BTreeSet<NodeId> {
        let probes = nodes.map(|node| async move {
            let here = node == self.driver.node() || self.driver.transport().is_up(node);
            (node, here || self.driver.probe(node, PROBE).await)
        });
        let answers = futures::future::join_all(probes).await;
        answers.into_iter().filter(|(_, alive)| *alive).map(|(node, _)| node).collect()
    }

    async fn propose_placement(&self, state: &ControlState, lost: &BTreeSet<NodeId>) {
        for change in plan(state, lost, MOVES_MAX) {
            tracing::info!(partition = %change.partition, replicas = ?change.replicas, "placement changes");
            let command = ControlCommand::SetPlacement {
                partition: change.partition,
                replicas: change.replicas,
                expected_epoch: change.expected_epoch,
            };
            if let Err(error) = self.control.propose(&command).await {
                tracing::info!(%error, "placement was not changed, it is planned anew");
                return;
            }
        }
    }

    async fn reconcile_control(&self, state: &ControlState, lost: &BTreeSet<NodeId>) {
        let Some(group) = self.driver.group(GroupId::CONTROL) else {
            return;
        };
        let status = group.status();
        if state.nodes.is_empty() || !status.is_leader {
            return;
        }
        let voters = control_voters(state, &status.voters, lost);
        let learners: BTreeSet<NodeId> = state
            .nodes
            .keys()
            .copied()
            .filter(|node| !voters.contains(node) && !lost.contains(node))
            .collect();
        // No preference among leaders of the control group: whoever leads and may stay, leads.
        let mut desired: Vec<NodeId> = voters.into_iter().collect();
        desired.sort_by_key(|node| *node != self.driver.node());
        self.do_step(&group, &status, &desired, &learners).await;
    }

    async fn reconcile(self) {
        let mut ticks = ticks(Duration::from_millis(500));
        loop {
            ticks.tick().await;
            let state = self.control.view();
            let led: Vec<_> = self.hosting.all().into_iter().filter(|p| p.group().is_leader()).collect();
            let steps = led.iter().map(|partition| async {
                if let Some(placement) = state.placements.get(&partition.id()) {
                    let status = partition.group().status();
                    self.do_step(partition.group(), &status, &placement.replicas, &BTreeSet::new()).await;
                    self.report_reached(partition.id(), partition.group(), placement).await;
                }
            });
            futures::future::join_all(steps).await;
        }
    }

    async fn do_step(
        &self,
        group: &Group,
        status: &GroupStatus,
        desired: &[NodeId],
        learners: &BTreeSet<NodeId>,
    ) {
        let settled = !status.joint
            && status.voters.iter().eq(desired.iter().collect::<BTreeSet<_>>())
            && status.learners == *learners
            && desired.first() == Some(&self.driver.node());
        if settled {
            return;
        }
        let concerned: BTreeSet<NodeId> =
            status.voters.iter().chain(&status.learners).chain(desired).chain(learners).copied().collect();
        let last = status.last.map_or(0, |index| index.0 + 1);
        let behind = status
            .replicas
            .iter()
            .map(|lag| (lag.node, last.saturating_sub(lag.matched.map_or(0, |index| index.0 + 1))));
        let observed = Observed {
            leader: self.driver.node(),
            voters: status.voters.clone(),
            joint: status.joint,
            learners: status.learners.clone(),
            behind: behind.collect(),
            alive: self.alive(concerned.into_iter()).await,
        };
        let step = next_step(desired, learners, &observed);
        let done = match &step {
            ReconcileStep::Done | ReconcileStep::Wait => return,
            ReconcileStep::AddLearner(node) => group.add_learner(*node).await,
            ReconcileStep::ChangeVoters(voters) => group.change_voters(voters).await,
            ReconcileStep::RemoveLearners(nodes) => group.remove_learners(nodes).await,
            ReconcileStep::TransferLeader(node) => group.transfer_leader(*node).await,
        };
        match done {
            Ok(()) => tracing::info!(group = %group.id(), ?step, "membership step done"),
            Err(error) => {
                tracing::info!(group = %group.id(), ?step, %error, "membership step not done, tried again")
            }
        }
    }

    /// Tells the control group once a partition consists of the nodes that it was placed on: only then do
    /// those that left count as empty.
    async fn report_reached(&self, partition: PartitionId, group: &Group, placement: &Placement) {
        let consists = |status: &GroupStatus| {
            let voters: Vec<NodeId> = status.voters.iter().copied().collect();
            !status.joint && status.learners.is_empty() && placement.same_nodes(&voters)
        };
        // The barrier shows that this node leads and that the membership it knew before is committed.
        if !placement.in_motion() || !consists(&group.status()) || group.read_barrier().await.is_err() {
            return;
        }
        let command = ControlCommand::PlacementReached { partition, epoch: placement.epoch };
        if let Err(error) = self.control.propose(&command).await {
            tracing::debug!(%partition, %error, "reached placement was not noted, it is told again");
        }
    }

    async fn expire(self) {
        let mut ticks = ticks(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            for partition in self.hosting.all() {
                partition.expire_members().await;
            }
        }
    }

    async fn retain(self) {
        let mut ticks = ticks(Duration::from_secs(10));
        loop {
            ticks.tick().await;
            let settings = &self.control.view().settings;
            let policy = RetentionPolicy {
                time: Duration::from_millis(settings.retention_ms),
                bytes: settings.retention_bytes,
            };
            for partition in self.hosting.all() {
                let flushed = self.flushed.lock().get(&partition.group().id()).copied();
                if let Err(error) = partition.trim(policy).await {
                    tracing::warn!(partition = %partition.id(), %error, "stream was not trimmed");
                }
                if let Err(error) = partition.release(flushed).await {
                    tracing::warn!(partition = %partition.id(), %error, "log was not released");
                }
            }
        }
    }

    async fn flush(self) {
        let mut ticks = ticks(self.flush_every);
        loop {
            ticks.tick().await;
            if let Err(error) = self.flush_once().await {
                self.fail(format!("state can't be flushed: {error}"));
                return;
            }
        }
    }

    /// Flushes the state, and notes for each group how far the log is covered by it.
    pub(crate) async fn flush_once(&self) -> Result<(), fleetline_state::StateError> {
        let applied: BTreeMap<GroupId, LogIndex> = self
            .driver
            .groups()
            .into_iter()
            .filter_map(|group| Some((group.id(), group.applied().borrow().as_ref()?.index)))
            .collect();
        if *self.flushed.lock() == applied {
            return Ok(());
        }
        let store = self.driver.store().clone();
        Blocking::Pool.run(move || store.flush()).await?;
        *self.flushed.lock() = applied;
        Ok(())
    }
}
