//! A running group: the handle that everybody else holds.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fleetline_log::NodeLog;
use fleetline_state::StateStore;
use fleetline_types::{GroupId, LogId, LogIndex, NodeId, Term};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::network::{NetSnapshot, RaftNetworkFactory};
use openraft::raft::TransferLeaderRequest;
use openraft::raft::linearizable_read::Linearizer;
use openraft::{ChangeMembers, RaftMetrics, ReadPolicy};
use tokio::sync::watch;

use crate::config::GroupConfig;
use crate::convert::{empty_node, log_id_to_raft};
use crate::durable::DurableMark;
use crate::error::{GroupError, ProposeError};
use crate::log_store::{EntryFetcher, LogStore, completed, completion};
use crate::machine::Machine;
use crate::read_rounds::ReadRounds;
use crate::snapshots::{SnapshotHandle, SnapshotStore};
use crate::state_machine::StateMachine;
use crate::types::{Command, LogIdOf, Membership, Raft, Reply, TypeConfig};

/// Bytes of a command's head at the most: what an entry of the log holds.
const HEAD_BYTES_MAX: usize = u16::MAX as usize;

/// What a group is made of.
pub struct GroupOptions {
    /// Which group.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// Timings and bounds.
    pub config: GroupConfig,
    /// The node's log.
    pub log: Arc<dyn NodeLog>,
    /// The node's state store.
    pub store: Arc<dyn StateStore>,
    /// The group's snapshots.
    pub snapshots: Arc<SnapshotStore>,
    /// Its state machine.
    pub machine: Box<dyn Machine>,
    /// Where damaged entries come from.
    pub fetcher: Arc<dyn EntryFetcher>,
}

/// How far behind a follower or learner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaLag {
    /// Which node.
    pub node: NodeId,
    /// The last entry it is known to have.
    pub matched: Option<LogIndex>,
}

/// A group at a moment, from this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// The term.
    pub term: Term,
    /// Who leads, as far as known.
    pub leader: Option<NodeId>,
    /// This node leads.
    pub is_leader: bool,
    /// Voters of the newest membership (of both configs while one is changing).
    pub voters: BTreeSet<NodeId>,
    /// A change of the voters is half way.
    pub joint: bool,
    /// Learners of the newest membership.
    pub learners: BTreeSet<NodeId>,
    /// The last entry in this node's log.
    pub last: Option<LogIndex>,
    /// The last applied entry.
    pub applied: Option<LogIndex>,
    /// On the leader: what each other replica is known to have.
    pub replicas: Vec<ReplicaLag>,
    /// Consensus has stopped, and why.
    pub stopped: Option<String>,
}

/// What a leader knows of its group, confirmed by a majority after it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The entry that set the members; committed.
    pub membership: LogIdOf,
    /// The members as that entry sets them.
    pub config: Membership,
    /// The leader's last entry.
    pub last: LogId,
}

impl Confirmed {
    /// Whether `node` is a voter or learner.
    pub fn has_member(&self, node: NodeId) -> bool {
        let mut members = self.config.voter_ids().chain(self.config.learner_ids());
        members.any(|member| member == node.0)
    }
}

/// A running group. Cheap to clone.
#[derive(Clone)]
pub struct Group {
    group: GroupId,
    node: NodeId,
    raft: Raft,
    log: Arc<dyn NodeLog>,
    log_store: LogStore,
    snapshots: Arc<SnapshotStore>,
    applied: watch::Receiver<Option<LogId>>,
    read_rounds: Arc<ReadRounds<Result<Linearizer<TypeConfig>, ProposeError>>>,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({} on {})", self.group, self.node)
    }
}

impl Group {
    /// Starts a group from what is stored. A group that has never had a member waits until it is
    /// initialised or a leader sends it something.
    ///
    /// # Errors
    /// When its log or state can't be read, or a complete snapshot can't be installed.
    pub async fn start<N>(options: GroupOptions, network: N) -> Result<Group, GroupError>
    where
        N: RaftNetworkFactory<TypeConfig>,
        N::Network: NetSnapshot<TypeConfig, SnapshotData = SnapshotHandle>,
    {
        let GroupOptions { group, node, config, log, store, snapshots, machine, fetcher } = options;
        if log.state(group).removed {
            // A removal that a crash cut short, or whose effects on the rows were not durable yet.
            snapshots.forget().await?;
        }
        snapshots.redo_install().await?;
        let durable = Arc::new(DurableMark::new(log.state(group).durable));
        let (published, applied) = watch::channel(None);
        let machine =
            StateMachine::open(group, machine, store, durable.clone(), snapshots.clone(), published)?;
        let log_store =
            LogStore { group, log: log.clone(), durable, fetcher, append_bytes_max: config.append_bytes_max };
        let raft =
            Raft::new(node.0, config.to_openraft(group.to_string())?, network, log_store.clone(), machine)
                .await
                .map_err(|error| GroupError::Raft(error.to_string()))?;
        let read_rounds = ReadRounds::new();
        Ok(Group { group, node, raft, log, log_store, snapshots, applied, read_rounds })
    }

    /// Which group this is.
    pub fn id(&self) -> GroupId {
        self.group
    }

    /// openraft's handle, for the peer requests that `raft/driver` passes on.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The group's snapshots.
    pub fn snapshots(&self) -> &Arc<SnapshotStore> {
        &self.snapshots
    }

    /// Makes a new group of these voters. A group that has anything in its log is left as it is, and so
    /// is one that this disk may have forgotten: made anew, it would elect itself and go on without what
    /// it had acknowledged.
    pub async fn initialize(&self, voters: &BTreeSet<NodeId>) -> Result<(), GroupError> {
        let initialized = self.raft.is_initialized().await.map_err(|e| GroupError::Raft(e.to_string()))?;
        if initialized {
            return Ok(());
        }
        if self.log.state(self.group).amnesia {
            tracing::error!(group = %self.group, "group is not made anew: this disk may have lost its entries");
            return Ok(());
        }
        let voters: BTreeSet<u64> = voters.iter().map(|node| node.0).collect();
        self.raft.initialize(voters).await.map_err(|error| GroupError::Raft(error.to_string()))
    }

    /// Proposes a command and waits until it is applied here.
    ///
    /// Cancellation-safe in the sense that a dropped call leaves the outcome unknown.
    ///
    /// # Errors
    /// `Refused` for a head that the log can't hold; the others as their documentation says.
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        if command.head.len() > HEAD_BYTES_MAX {
            // The log would refuse the entry, and an append that fails stops the replica.
            let reason = format!("head of {} bytes, at most {HEAD_BYTES_MAX}", command.head.len());
            return Err(ProposeError::Refused { group: self.group, reason });
        }
        let (responder, receiver) = ProgressResponder::complete_only();
        self.raft
            .client_write_ff(command, Some(responder))
            .await
            .map_err(|error| self.stopped(error.to_string()))?;
        match receiver.await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(ClientWriteError::ForwardToLeader(to))) => Err(self.not_leader(to.leader_id)),
            Ok(Err(error)) => Err(self.unknown(error.to_string())),
            Err(_) => Err(self.unknown("group stopped while the proposal was open".to_owned())),
        }
    }

    /// Returns once everything committed before the call is applied here, so that a read of the
    /// state after it is linearizable. Only the leader can say. Calls at the same time share rounds.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        let this = self.clone();
        let round = move || {
            let this = this.clone();
            async move { this.read_index().await }
        };
        let linearizer = self.read_rounds.next(round).await;
        let linearizer =
            linearizer.unwrap_or_else(|| Err(self.stopped("its reads have ended".to_owned())))?;
        linearizer.await_ready(&self.raft).await.map(drop).map_err(|error| self.stopped(error.to_string()))
    }

    /// One round to the followers: how far must be applied for reads that were asked for before it.
    async fn read_index(&self) -> Result<Linearizer<TypeConfig>, ProposeError> {
        self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await.map_err(|error| {
            match error.forward_to_leader() {
                Some(to) => self.not_leader(to.leader_id),
                None => self.stopped(error.to_string()),
            }
        })
    }

    /// Who the members are, committed and not changing, and how far the log goes; confirmed by a
    /// majority. Only the leader can say.
    ///
    /// # Errors
    /// Also while the members change.
    pub async fn confirm(&self) -> Result<Confirmed, ProposeError> {
        let before = self.raft.metrics().borrow_watched().membership_config.clone();
        self.read_barrier().await?;
        let metrics = self.raft.metrics().borrow_watched().clone();
        let settled = metrics.membership_config.log_id() == metrics.committed_membership_config.log_id();
        let unsaid = |reason: &str| ProposeError::Refused { group: self.group, reason: reason.to_owned() };
        if !settled || before.log_id() != metrics.membership_config.log_id() {
            return Err(unsaid("its members are changing"));
        }
        let set_at = *before.log_id();
        let (Some(membership), Some(last)) = (set_at, self.log.state(self.group).last) else {
            return Err(unsaid("it has no members yet"));
        };
        Ok(Confirmed { membership, config: before.membership().clone(), last })
    }

    /// The last applied entry, as a value to wait on.
    pub fn applied(&self) -> watch::Receiver<Option<LogId>> {
        self.applied.clone()
    }

    /// Changes whenever term, leader, membership or progress do.
    pub async fn status_changed(&self) {
        let mut metrics = self.raft.server_metrics();
        if metrics.changed().await.is_err() {
            tracing::debug!(group = %self.group, "group has stopped, its status changes no more");
        }
    }

    /// The group at this moment.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics: RaftMetrics<TypeConfig> = metrics.borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let nodes = |ids: &mut dyn Iterator<Item = u64>| ids.map(NodeId).collect::<BTreeSet<_>>();
        let replicas = metrics.replication.unwrap_or_default().into_iter().map(|(node, matched)| {
            ReplicaLag { node: NodeId(node), matched: matched.map(|id| LogIndex(id.index)) }
        });
        GroupStatus {
            term: Term(metrics.current_term),
            leader: metrics.current_leader.map(NodeId),
            is_leader: metrics.current_leader == Some(self.node.0),
            voters: nodes(&mut membership.voter_ids()),
            joint: membership.get_joint_config().len() > 1,
            learners: nodes(&mut membership.learner_ids()),
            last: metrics.last_log_index.map(LogIndex),
            applied: metrics.last_applied.map(|id| LogIndex(id.index)),
            replicas: replicas.collect(),
            stopped: metrics.running_state.err().map(|error| error.to_string()),
        }
    }

    /// Who leads, and in which term: what [`Group::status`] says of it, without a copy of the rest.
    pub fn leader(&self) -> (Option<NodeId>, Term) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.current_leader.map(NodeId), Term(metrics.current_term))
    }

    /// Why the replica has stopped; `None` as long as it runs.
    pub fn why_stopped(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }

    /// Whether this node leads the group, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.raft.is_leader()
    }

    /// Adds a replica that doesn't vote; returns when the change is committed, not when the replica
    /// is filled.
    pub async fn add_learner(&self, node: NodeId) -> Result<(), ProposeError> {
        let change = self.raft.add_learner(node.0, empty_node(), false).await;
        change.map(drop).map_err(|error| self.change_error(error))
    }

    /// Makes exactly these nodes the voters. New ones must be learners that have caught up; those
    /// that leave are forgotten. Goes through a joint membership, never below the old majority.
    pub async fn change_voters(&self, voters: &BTreeSet<NodeId>) -> Result<(), ProposeError> {
        let voters: BTreeSet<u64> = voters.iter().map(|node| node.0).collect();
        let change = self.raft.change_membership(voters, false).await;
        change.map(drop).map_err(|error| self.change_error(error))
    }

    /// Forgets learners.
    pub async fn remove_learners(&self, nodes: &BTreeSet<NodeId>) -> Result<(), ProposeError> {
        let nodes: BTreeSet<u64> = nodes.iter().map(|node| node.0).collect();
        let change = self.raft.change_membership(ChangeMembers::RemoveNodes(nodes), false).await;
        change.map(drop).map_err(|error| self.change_error(error))
    }

    /// Asks `to` to take over; returns when it is asked. Writes are refused for a moment.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), ProposeError> {
        self.raft.trigger().transfer_leader(to.0).await.map_err(|error| self.stopped(error.to_string()))
    }

    /// The leader's process is known to be dead: campaign at once, with the right to be granted
    /// although the dead leader's lease hasn't run out. Does nothing when the leader has changed.
    ///
    /// This is openraft's own leadership transfer with the dead leader's vote: safety doesn't rest
    /// on leases here (no lease reads), and log completeness is still checked by every voter.
    pub async fn succeed_dead_leader(&self, dead: NodeId) -> Result<(), ProposeError> {
        let vote = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.current_leader != Some(dead.0) || dead == self.node {
                return Ok(());
            }
            metrics.vote
        };
        let last = self.log.state(self.group).last.map(log_id_to_raft);
        let request = TransferLeaderRequest::new(vote, self.node.0, last);
        let taken = self.raft.handle_transfer_leader(request).await;
        if let Err(refused) = taken.map_err(|error| self.stopped(error.to_string()))? {
            tracing::debug!(group = %self.group, %refused, "did not campaign after the leader died");
        }
        Ok(())
    }

    /// Has an entry repaired from a peer whose bytes are damaged here; does nothing when it is whole.
    pub async fn repair(&self, index: LogIndex) -> Result<(), GroupError> {
        self.log_store.ensure_whole(index).await.map_err(|error| GroupError::Raft(error.to_string()))
    }

    /// Makes a snapshot of the applied state and moves the logical purge point up to `upto`.
    pub async fn compact(&self, upto: LogIndex, patience: Duration) -> Result<(), GroupError> {
        let raft_error = |error: &dyn fmt::Display| GroupError::Raft(error.to_string());
        self.raft.trigger().snapshot().await.map_err(|e| raft_error(&e))?;
        let target = Some(upto.0);
        self.raft
            .wait(Some(patience))
            .metrics(|m| m.snapshot.map(|id| id.index) >= target, "snapshot made")
            .await
            .map_err(|e| raft_error(&e))?;
        self.raft.trigger().purge_log(upto.0).await.map_err(|e| raft_error(&e))?;
        self.raft
            .wait(Some(patience))
            .metrics(|m| m.purged.map(|id| id.index) >= target, "log purged")
            .await
            .map(drop)
            .map_err(|e| raft_error(&e))
    }

    /// Stops consensus. Proposals that are open become unknown.
    pub async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(group = %self.group, %error, "group did not stop cleanly");
        }
    }

    /// Stops the replica and deletes its entries, rows and snapshots. Its vote stays, and should it be
    /// started again, it doesn't vote until it is refilled. Only for a replica whose removal from this
    /// node is committed; a crash on the way is repaired by the next start of the group.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn remove(&self) -> Result<(), GroupError> {
        self.stop().await;
        // The state machine may still be in a round; when it has gone, nothing is written any more.
        let mut applied = self.applied.clone();
        while applied.changed().await.is_ok() {}
        let (done, removed) = completion();
        self.log.remove_group(self.group, done)?;
        completed(removed).await?;
        self.snapshots.forget().await
    }

    fn not_leader(&self, leader: Option<u64>) -> ProposeError {
        ProposeError::NotLeader { group: self.group, leader: leader.map(NodeId) }
    }

    fn unknown(&self, reason: String) -> ProposeError {
        ProposeError::Unknown { group: self.group, reason }
    }

    fn stopped(&self, reason: String) -> ProposeError {
        ProposeError::Stopped { group: self.group, reason }
    }

    fn change_error(&self, error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> ProposeError {
        match error {
            RaftError::Fatal(error) => self.stopped(error.to_string()),
            RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => self.not_leader(to.leader_id),
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(to)) => self.unknown(to.to_string()),
            RaftError::APIError(error) => {
                ProposeError::Refused { group: self.group, reason: error.to_string() }
            }
        }
    }
}
