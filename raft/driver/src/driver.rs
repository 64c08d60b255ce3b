//! The groups of a node and what they share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_log::NodeLog;
use fleetline_peer::MessageKind;
use fleetline_peer::pb::{self, forward_response::Outcome};
use fleetline_raft_group::{
    Command, Confirmed, Group, GroupConfig, GroupError, GroupOptions, Machine, ProposeError, Reply,
    SnapshotStore,
};
use fleetline_raft_transport::{Lane, PeerHandler, PeerMessage, PeerTransport};
use fleetline_state::StateStore;
use fleetline_types::{GroupId, NodeId};
use parking_lot::RwLock;
use prost::Message;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::amnesia;
use crate::confirm;
use crate::fetch::{self, PeerFetcher};
use crate::heartbeats::Heartbeats;
use crate::inbound::{self, Inbound, InboxItem};
use crate::messages;
use crate::network::NetworkFactory;
use crate::snapshot_transfer::Receiving;
use crate::succession;

/// What a driver is made of.
pub struct DriverOptions {
    /// This node.
    pub node: NodeId,
    /// Timings and bounds of all groups.
    pub config: GroupConfig,
    /// The node's log.
    pub log: Arc<dyn NodeLog>,
    /// The node's state store.
    pub store: Arc<dyn StateStore>,
}

/// One group of this node.
pub(crate) struct GroupEntry {
    pub(crate) group: Group,
    pub(crate) inbox: mpsc::Sender<InboxItem>,
    pub(crate) receiving: Receiving,
}

/// Why a forwarded command has no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ForwardError {
    /// Nothing was proposed: no leader could be found in time.
    #[error("no leader of group {group} could be found: {reason}")]
    NoLeader {
        /// Which group.
        group: GroupId,
        /// The last reason.
        reason: String,
    },
    /// It was proposed and may or may not be committed.
    #[error("outcome of a command forwarded to group {group} is unknown: {reason}")]
    Unknown {
        /// Which group.
        group: GroupId,
        /// What happened.
        reason: String,
    },
}

/// How long groups may take to stop: they wait for what they gave to the log, and a disk that is stuck must
/// not keep the process.
const STOP: Duration = Duration::from_secs(10);

/// Runs the groups of a node.
pub struct Driver {
    options: DriverOptions,
    transport: Arc<dyn PeerTransport>,
    heartbeats: Arc<Heartbeats>,
    fetcher: Arc<PeerFetcher>,
    groups: RwLock<BTreeMap<GroupId, Arc<GroupEntry>>>,
    pub(crate) service: std::sync::OnceLock<Arc<dyn crate::calls::PeerService>>,
    pub(crate) calls: Arc<tokio::sync::Semaphore>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Driver(node {})", self.options.node)
    }
}

impl Driver {
    /// A driver without groups. `connect` gets the handler for what peers send and makes the
    /// transport of it.
    ///
    /// # Errors
    /// Those of `connect`.
    pub async fn start<E>(
        options: DriverOptions,
        connect: impl AsyncFnOnce(Arc<dyn PeerHandler>) -> Result<Arc<dyn PeerTransport>, E>,
    ) -> Result<Arc<Driver>, E> {
        // The handler needs the driver and the driver the transport: the handler learns of it last.
        let handler = Arc::new(LateHandler::default());
        let transport = connect(handler.clone()).await?;
        let linger = (options.config.heartbeat / 20).min(Duration::from_millis(15));
        let heartbeats = Heartbeats::new(transport.clone(), linger);
        let driver = Arc::new_cyclic(|weak| Driver {
            options,
            transport,
            heartbeats,
            fetcher: Arc::new(PeerFetcher { driver: weak.clone() }),
            groups: RwLock::new(BTreeMap::new()),
            service: std::sync::OnceLock::new(),
            calls: crate::calls::permits(),
        });
        handler.set(Inbound { driver: Arc::downgrade(&driver) });
        Ok(driver)
    }

    /// Starts a group's replica on this node, from what is stored.
    ///
    /// # Errors
    /// When what is stored can't be read.
    pub async fn start_group(
        self: &Arc<Self>,
        group: GroupId,
        machine: Box<dyn Machine>,
        snapshots: Arc<SnapshotStore>,
    ) -> Result<Group, GroupError> {
        let options = GroupOptions {
            group,
            node: self.options.node,
            config: self.options.config.clone(),
            log: self.options.log.clone(),
            store: self.options.store.clone(),
            snapshots: snapshots.clone(),
            machine,
            fetcher: self.fetcher.clone(),
        };
        let network = NetworkFactory {
            group,
            node: self.options.node,
            transport: self.transport.clone(),
            heartbeats: self.heartbeats.clone(),
            append_window: self.options.config.append_window,
            snapshots,
        };
        let started = Group::start(options, network).await?;
        let inbox = inbound::start_inbox(started.clone());
        let entry = GroupEntry { group: started.clone(), inbox, receiving: Receiving::default() };
        self.groups.write().insert(group, Arc::new(entry));
        amnesia::watch(self, started.clone());
        Ok(started)
    }

    /// Stops a group's replica on this node; what is stored stays.
    pub async fn stop_group(&self, group: GroupId) {
        let entry = self.groups.write().remove(&group);
        if let Some(entry) = entry {
            entry.group.stop().await;
        }
    }

    /// Stops all groups and closes the transport. Groups that don't stop within ten seconds are left as they
    /// are; what they had acknowledged is on disk.
    pub async fn shutdown(&self) {
        let groups = std::mem::take(&mut *self.groups.write());
        let stopped = futures::future::join_all(groups.values().map(|entry| entry.group.stop()));
        if tokio::time::timeout(STOP, stopped).await.is_err() {
            tracing::error!(
                seconds = STOP.as_secs(),
                "groups did not stop in time: is the log's disk stuck?"
            );
        }
        self.transport.shutdown().await;
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.options.node
    }

    /// The node's log.
    pub fn log(&self) -> &Arc<dyn NodeLog> {
        &self.options.log
    }

    /// The node's state store.
    pub fn store(&self) -> &Arc<dyn StateStore> {
        &self.options.store
    }

    /// The links to peers.
    pub fn transport(&self) -> &Arc<dyn PeerTransport> {
        &self.transport
    }

    /// A group of this node.
    pub fn group(&self, group: GroupId) -> Option<Group> {
        self.entry(group).map(|entry| entry.group.clone())
    }

    /// All groups of this node.
    pub fn groups(&self) -> Vec<Group> {
        self.groups.read().values().map(|entry| entry.group.clone()).collect()
    }

    /// Whether `peer` answers within `limit`.
    pub async fn probe(&self, peer: NodeId, limit: Duration) -> bool {
        self.heartbeats.probe(peer, limit).await
    }

    /// What the leader of `group` says of it, confirmed by a majority after this call; asks `nodes` and
    /// the replica here.
    ///
    /// # Errors
    /// When none of them leads the group and can say so within `patience`.
    pub async fn confirm(
        self: &Arc<Self>,
        group: GroupId,
        nodes: &BTreeSet<NodeId>,
        patience: Duration,
    ) -> Result<Confirmed, String> {
        confirm::ask(self, group, nodes, patience).await
    }

    /// Proposes a command on whichever node leads the group: here, on the leader known here, or on
    /// one of `candidates`, until `patience` is over.
    pub async fn propose_anywhere(
        &self,
        group: GroupId,
        command: Command,
        candidates: &BTreeSet<NodeId>,
        patience: Duration,
    ) -> Result<Reply, ForwardError> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut hint = None;
        let mut reason = "nobody is known to have a replica".to_owned();
        loop {
            let known = self.group(group).and_then(|group| group.status().leader);
            let first = hint.take().or(known);
            let asked: Vec<NodeId> = first.into_iter().chain(candidates.iter().copied()).collect();
            for node in asked {
                match self.propose_on(node, group, command.clone(), deadline).await {
                    Ok(reply) => return Ok(reply),
                    Err(ProposeError::NotLeader { leader, .. }) => {
                        reason = format!("{node} does not lead it");
                        hint = leader.filter(|leader| *leader != node);
                    }
                    Err(ProposeError::Unknown { reason, .. }) => {
                        return Err(ForwardError::Unknown { group, reason });
                    }
                    Err(error) => reason = error.to_string(),
                }
                if hint.is_some() {
                    break;
                }
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(ForwardError::NoLeader { group, reason });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn propose_on(
        &self,
        node: NodeId,
        group: GroupId,
        command: Command,
        deadline: tokio::time::Instant,
    ) -> Result<Reply, ProposeError> {
        let refused = |reason: String| ProposeError::Refused { group, reason };
        if node == self.options.node {
            let here = self.group(group).ok_or_else(|| refused("it has no replica here".to_owned()))?;
            return match tokio::time::timeout_at(deadline, here.propose(command)).await {
                Ok(answer) => answer,
                Err(_) => Err(ProposeError::Unknown { group, reason: "no answer in time".to_owned() }),
            };
        }
        let head = pb::Forward { head_len: command.head.len() as u32, body_len: command.body.len() as u32 };
        let body = [command.head, command.body].into_iter().filter(|part| !part.is_empty()).collect();
        let kind = MessageKind::Forward as u8;
        let message = PeerMessage { group, kind, head: head.encode_to_vec().into(), body };
        let sent = tokio::time::timeout_at(deadline, self.transport.send(node, Lane::Control, message)).await;
        let reply = match sent {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(_) => return Err(refused(format!("{node} can't be reached in time"))),
        };
        let unknown = |reason: String| ProposeError::Unknown { group, reason };
        let answer = tokio::time::timeout_at(deadline, reply)
            .await
            .map_err(|_| unknown(format!("{node} did not answer in time")))?
            .map_err(|error| unknown(error.to_string()))?;
        let head: pb::ForwardResponse =
            messages::decode(&answer).map_err(|error| unknown(error.to_string()))?;
        match head.outcome() {
            Outcome::Done => Ok(Reply(messages::whole_body(answer.body))),
            Outcome::NotLeader => {
                let leader = (head.leader != 0).then_some(NodeId(head.leader));
                Err(ProposeError::NotLeader { group, leader })
            }
            Outcome::Refused => Err(refused(head.reason)),
            Outcome::Unknown | Outcome::Unspecified => Err(unknown(head.reason)),
        }
    }

    pub(crate) fn entry(&self, group: GroupId) -> Option<Arc<GroupEntry>> {
        self.groups.read().get(&group).cloned()
    }

    /// A group that may vote: not one whose disk has demonstrably forgotten.
    pub(crate) fn voting_entry(&self, group: GroupId) -> Result<Arc<GroupEntry>, String> {
        let entry = self.entry(group).ok_or_else(|| format!("group {group} has no replica on this node"))?;
        if self.options.log.state(group).amnesia {
            return Err(format!("this disk lost entries of group {group} and may not vote until refilled"));
        }
        Ok(entry)
    }

    pub(crate) fn heartbeats(&self) -> &Arc<Heartbeats> {
        &self.heartbeats
    }

    /// The other replicas of a group.
    pub(crate) fn peers_of(&self, group: GroupId) -> Vec<NodeId> {
        let Some(group) = self.group(group) else {
            return Vec::new();
        };
        let status = group.status();
        fetch::others(status.voters, status.learners, self.options.node)
    }

    pub(crate) fn peer_is_up(self: &Arc<Self>, node: NodeId) {
        let driver = self.clone();
        tokio::spawn(async move {
            for group in driver.groups().into_iter().filter(Group::is_leader) {
                // Don't let replication to a peer that is back sleep out its back-off.
                if let Err(error) = group.raft().trigger().reset_backoff([node.0]).await {
                    tracing::debug!(group = %group.id(), %error, "could not reset back-off");
                }
            }
        });
    }

    pub(crate) fn peer_is_down(self: &Arc<Self>, node: NodeId) {
        succession::peer_died(self, node);
    }
}

pub(crate) fn forward_refused(reason: String) -> pb::ForwardResponse {
    let mut head = pb::ForwardResponse { reason, ..pb::ForwardResponse::default() };
    head.set_outcome(Outcome::Refused);
    head
}

/// The answer to a forwarded command: head and body.
pub(crate) fn forward_answer(answer: Result<Reply, ProposeError>) -> (pb::ForwardResponse, Vec<Bytes>) {
    let mut head = pb::ForwardResponse::default();
    match answer {
        Ok(Reply(body)) => {
            head.set_outcome(Outcome::Done);
            return (head, vec![body]);
        }
        Err(ProposeError::NotLeader { leader, .. }) => {
            head.set_outcome(Outcome::NotLeader);
            head.leader = leader.map_or(0, |leader| leader.0);
        }
        Err(ProposeError::Unknown { reason, .. }) => {
            head.set_outcome(Outcome::Unknown);
            head.reason = reason;
        }
        Err(error) => return (forward_refused(error.to_string()), Vec::new()),
    }
    (head, Vec::new())
}

/// A handler that is told late whom to hand on to; what comes before is dropped, and the peer's
/// time-out makes it ask again.
#[derive(Default)]
struct LateHandler {
    inbound: std::sync::OnceLock<Inbound>,
}

impl LateHandler {
    fn set(&self, inbound: Inbound) {
        if self.inbound.set(inbound).is_err() {
            tracing::error!("peer handler was set twice");
        }
    }
}

impl PeerHandler for LateHandler {
    fn on_request(
        &self,
        from: NodeId,
        lane: Lane,
        message: PeerMessage,
        replier: fleetline_raft_transport::Replier,
    ) {
        if let Some(inbound) = self.inbound.get() {
            inbound.on_request(from, lane, message, replier);
        }
    }

    fn on_peer_up(&self, node: NodeId) {
        if let Some(inbound) = self.inbound.get() {
            inbound.on_peer_up(node);
        }
    }

    fn on_peer_down(&self, node: NodeId) {
        if let Some(inbound) = self.inbound.get() {
            inbound.on_peer_down(node);
        }
    }
}
