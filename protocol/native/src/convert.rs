//! Requests and replies as values, and their way to and from the prost heads.
//!
//! The only place that builds or takes apart the messages of calls: the client turns a [`Request`]
//! into a head and a head into a [`Reply`], the server the other way round. What comes from the
//! wire is checked here (names and lists have bounds), so that the broker sees only sound values.

use std::time::Duration;

use fleetline_types::{MemberId, NodeId, Offset, PartitionId, Term, TimestampMs};

use crate::error::ProtocolError;
use crate::limits::NAME_BYTES_MAX;
use crate::model::{
    Appended, CheckpointInfo, ClusterChange, GroupAssignment, GroupDescription, JoinReply, JoinRequest,
    Metadata, NodeInfo, PartitionInfo, ReadFrom,
};
use crate::proto;
use crate::proto::answer::Reply as WireReply;
use crate::proto::call::Request as WireRequest;
use crate::proto::change::Change as WireChange;
use crate::proto::read_from::Place;

/// One call: a request of the broker that is answered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The cluster as the asked node knows it.
    Metadata,
    /// Turns a starting place into an offset.
    Resolve {
        /// Where.
        partition: PartitionId,
        /// The place.
        from: ReadFrom,
    },
    /// What the asked node knows of a partition that it holds.
    PartitionInfo(PartitionId),
    /// All partitions that the asked node holds.
    LocalPartitions,
    /// Joins a consumer group.
    GroupJoin {
        /// The group.
        group: String,
        /// The member that joins again; `None` for a new one.
        member: Option<MemberId>,
        /// What the client calls itself.
        client_name: String,
        /// How long the member may be silent.
        session_timeout: Duration,
    },
    /// Tells that a member lives.
    GroupHeartbeat {
        /// The group.
        group: String,
        /// The member.
        member: MemberId,
        /// The generation that the member knows.
        generation: u64,
        /// Partitions released since the last heartbeat.
        released: Vec<PartitionId>,
    },
    /// Leaves a consumer group.
    GroupLeave {
        /// The group.
        group: String,
        /// The member.
        member: MemberId,
    },
    /// Describes a consumer group.
    GroupDescribe {
        /// The group.
        group: String,
    },
    /// Names of the groups with a checkpoint in a partition.
    GroupList(PartitionId),
    /// Takes a partition for a group's member.
    Claim {
        /// Which partition.
        partition: PartitionId,
        /// The group.
        group: String,
        /// The member.
        member: MemberId,
        /// The epoch of its ownership.
        epoch: u64,
    },
    /// Stores a checkpoint.
    Checkpoint {
        /// Which partition.
        partition: PartitionId,
        /// The group.
        group: String,
        /// The epoch of the ownership.
        epoch: u64,
        /// The first record not yet processed.
        next: Offset,
    },
    /// Reads a checkpoint.
    CheckpointRead {
        /// Which partition.
        partition: PartitionId,
        /// The group.
        group: String,
    },
    /// Asks for a change of the cluster.
    Change(ClusterChange),
    /// Makes a join token.
    CreateJoinToken {
        /// Until it expires.
        valid_for: Duration,
    },
    /// Admits a new node.
    Join(JoinRequest),
}

/// The answer to a [`Request`] that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Request::Metadata`].
    Metadata(Metadata),
    /// To [`Request::Resolve`].
    Offset(Offset),
    /// To [`Request::PartitionInfo`].
    PartitionInfo(PartitionInfo),
    /// To [`Request::LocalPartitions`].
    Partitions(Vec<PartitionInfo>),
    /// To [`Request::GroupJoin`] and [`Request::GroupHeartbeat`].
    Assignment(GroupAssignment),
    /// To [`Request::GroupDescribe`].
    Group(GroupDescription),
    /// To [`Request::GroupList`].
    GroupNames(Vec<String>),
    /// To [`Request::Claim`] and [`Request::CheckpointRead`].
    Checkpoint(CheckpointInfo),
    /// To [`Request::CreateJoinToken`].
    Token(String),
    /// To [`Request::Join`].
    Joined(JoinReply),
    /// To requests that have nothing to tell.
    Done,
}

impl Request {
    /// A short stable name, for metric labels and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Metadata => "metadata",
            Request::Resolve { .. } => "resolve",
            Request::PartitionInfo(_) => "partition_info",
            Request::LocalPartitions => "local_partitions",
            Request::GroupJoin { .. } => "group_join",
            Request::GroupHeartbeat { .. } => "group_heartbeat",
            Request::GroupLeave { .. } => "group_leave",
            Request::GroupDescribe { .. } => "group_describe",
            Request::GroupList(_) => "group_list",
            Request::Claim { .. } => "claim",
            Request::Checkpoint { .. } => "checkpoint",
            Request::CheckpointRead { .. } => "checkpoint_read",
            Request::Change(_) => "change",
            Request::CreateJoinToken { .. } => "create_join_token",
            Request::Join(_) => "join",
        }
    }

    /// The request as a head.
    pub fn into_wire(self) -> proto::Call {
        let request = match self {
            Request::Metadata => WireRequest::Metadata(proto::call::Metadata {}),
            Request::Resolve { partition, from } => {
                WireRequest::Resolve(proto::Resolve { partition: partition.0, from: Some(from.into()) })
            }
            Request::PartitionInfo(p) => WireRequest::PartitionInfo(proto::PartitionRef { partition: p.0 }),
            Request::LocalPartitions => WireRequest::LocalPartitions(proto::call::LocalPartitions {}),
            Request::GroupJoin { group, member, client_name, session_timeout } => {
                WireRequest::GroupJoin(proto::GroupJoin {
                    group,
                    member: member.map(|m| m.0),
                    client_name,
                    session_timeout_ms: millis(session_timeout),
                })
            }
            Request::GroupHeartbeat { group, member, generation, released } => {
                let released = released.into_iter().map(|p| p.0).collect();
                WireRequest::GroupHeartbeat(proto::GroupHeartbeat {
                    group,
                    member: member.0,
                    generation,
                    released,
                })
            }
            Request::GroupLeave { group, member } => {
                WireRequest::GroupLeave(proto::GroupLeave { group, member: member.0 })
            }
            Request::GroupDescribe { group } => WireRequest::GroupDescribe(proto::GroupRef { group }),
            Request::GroupList(p) => WireRequest::GroupList(proto::PartitionRef { partition: p.0 }),
            Request::Claim { partition, group, member, epoch } => {
                WireRequest::Claim(proto::Claim { partition: partition.0, group, member: member.0, epoch })
            }
            Request::Checkpoint { partition, group, epoch, next } => {
                WireRequest::Checkpoint(proto::Checkpoint {
                    partition: partition.0,
                    group,
                    epoch,
                    next: next.0,
                })
            }
            Request::CheckpointRead { partition, group } => {
                WireRequest::CheckpointRead(proto::CheckpointRef { partition: partition.0, group })
            }
            Request::Change(change) => WireRequest::Change(change.into()),
            Request::CreateJoinToken { valid_for } => {
                WireRequest::CreateJoinToken(proto::CreateJoinToken { valid_for_ms: millis(valid_for) })
            }
            Request::Join(join) => WireRequest::Join(join.into()),
        };
        proto::Call { request: Some(request) }
    }

    /// The request that a head stands for.
    ///
    /// # Errors
    /// [`ProtocolError`] when it is none that this version knows, or a value is out of bounds.
    pub fn from_wire(call: proto::Call) -> Result<Request, ProtocolError> {
        Ok(match call.request.ok_or(ProtocolError::Missing { what: "request" })? {
            WireRequest::Metadata(_) => Request::Metadata,
            WireRequest::Resolve(w) => {
                Request::Resolve { partition: PartitionId(w.partition), from: read_from(w.from)? }
            }
            WireRequest::PartitionInfo(w) => Request::PartitionInfo(PartitionId(w.partition)),
            WireRequest::LocalPartitions(_) => Request::LocalPartitions,
            WireRequest::GroupJoin(w) => Request::GroupJoin {
                group: name(w.group, "group name")?,
                member: w.member.map(MemberId),
                client_name: name(w.client_name, "client name")?,
                session_timeout: Duration::from_millis(w.session_timeout_ms),
            },
            WireRequest::GroupHeartbeat(w) => Request::GroupHeartbeat {
                group: name(w.group, "group name")?,
                member: MemberId(w.member),
                generation: w.generation,
                released: w.released.into_iter().map(PartitionId).collect(),
            },
            WireRequest::GroupLeave(w) => {
                Request::GroupLeave { group: name(w.group, "group name")?, member: MemberId(w.member) }
            }
            WireRequest::GroupDescribe(w) => Request::GroupDescribe { group: name(w.group, "group name")? },
            WireRequest::GroupList(w) => Request::GroupList(PartitionId(w.partition)),
            WireRequest::Claim(w) => Request::Claim {
                partition: PartitionId(w.partition),
                group: name(w.group, "group name")?,
                member: MemberId(w.member),
                epoch: w.epoch,
            },
            WireRequest::Checkpoint(w) => Request::Checkpoint {
                partition: PartitionId(w.partition),
                group: name(w.group, "group name")?,
                epoch: w.epoch,
                next: Offset(w.next),
            },
            WireRequest::CheckpointRead(w) => Request::CheckpointRead {
                partition: PartitionId(w.partition),
                group: name(w.group, "group name")?,
            },
            WireRequest::Change(w) => Request::Change(change(w)?),
            WireRequest::CreateJoinToken(w) => {
                Request::CreateJoinToken { valid_for: Duration::from_millis(w.valid_for_ms) }
            }
            WireRequest::Join(w) => Request::Join(join(w)?),
        })
    }
}

impl Reply {
    /// The reply as a head.
    pub fn into_wire(self) -> proto::Answer {
        let reply = match self {
            Reply::Metadata(v) => WireReply::Metadata(v.into()),
            Reply::Offset(v) => WireReply::Offset(v.0),
            Reply::PartitionInfo(v) => WireReply::PartitionInfo(v.into()),
            Reply::Partitions(v) => WireReply::Partitions(proto::PartitionInfos {
                partitions: v.into_iter().map(Into::into).collect(),
            }),
            Reply::Assignment(v) => WireReply::Assignment(v.into()),
            Reply::Group(v) => WireReply::Group(v.into()),
            Reply::GroupNames(names) => WireReply::GroupNames(proto::GroupNames { names }),
            Reply::Checkpoint(v) => WireReply::Checkpoint(v.into()),
            Reply::Token(token) => WireReply::Token(token),
            Reply::Joined(v) => WireReply::Joined(v.into()),
            Reply::Done => WireReply::Done(proto::answer::Done {}),
        };
        proto::Answer { reply: Some(reply) }
    }

    /// The reply that a head stands for.
    ///
    /// # Errors
    /// [`ProtocolError::Missing`] when it is none that this version knows.
    pub fn from_wire(answer: proto::Answer) -> Result<Reply, ProtocolError> {
        Ok(match answer.reply.ok_or(ProtocolError::Missing { what: "reply" })? {
            WireReply::Metadata(w) => Reply::Metadata(w.into()),
            WireReply::Offset(w) => Reply::Offset(Offset(w)),
            WireReply::PartitionInfo(w) => Reply::PartitionInfo(w.into()),
            WireReply::Partitions(w) => Reply::Partitions(w.partitions.into_iter().map(Into::into).collect()),
            WireReply::Assignment(w) => Reply::Assignment(w.into()),
            WireReply::Group(w) => Reply::Group(w.into()),
            WireReply::GroupNames(w) => Reply::GroupNames(w.names),
            WireReply::Checkpoint(w) => Reply::Checkpoint(w.into()),
            WireReply::Token(token) => Reply::Token(token),
            WireReply::Joined(w) => Reply::Joined(w.into()),
            WireReply::Done(_) => Reply::Done,
        })
    }
}

/// The place that a wire form stands for.
///
/// # Errors
/// [`ProtocolError::Missing`] when it is none that this version knows.
pub(crate) fn read_from(wire: Option<proto::ReadFrom>) -> Result<ReadFrom, ProtocolError> {
    match wire.and_then(|w| w.place) {
        Some(Place::Earliest(_)) => Ok(ReadFrom::Earliest),
        Some(Place::Latest(_)) => Ok(ReadFrom::Latest),
        Some(Place::Offset(offset)) => Ok(ReadFrom::Offset(Offset(offset))),
        Some(Place::TimeMs(ms)) => Ok(ReadFrom::Time(TimestampMs(ms))),
        None => Err(ProtocolError::Missing { what: "place to read from" }),
    }
}

impl proto::ReadOpen {
    /// Where the stream is to begin.
    ///
    /// # Errors
    /// [`ProtocolError::Missing`] when it is no place that this version knows.
    pub fn place(&self) -> Result<ReadFrom, ProtocolError> {
        read_from(self.from)
    }
}

impl From<ReadFrom> for proto::ReadFrom {
    fn from(from: ReadFrom) -> proto::ReadFrom {
        let place = match from {
            ReadFrom::Earliest => Place::Earliest(true),
            ReadFrom::Latest => Place::Latest(true),
            ReadFrom::Offset(offset) => Place::Offset(offset.0),
            ReadFrom::Time(time) => Place::TimeMs(time.0),
        };
        proto::ReadFrom { place: Some(place) }
    }
}

impl proto::Appended {
    /// The answer to the append frame with this sequence number.
    pub fn of(sequence: u64, appended: Appended) -> proto::Appended {
        proto::Appended {
            sequence,
            base_offset: appended.base_offset.0,
            enqueued_ms: appended.enqueued.0,
            duplicate: appended.duplicate,
        }
    }
}

impl From<proto::Appended> for Appended {
    fn from(wire: proto::Appended) -> Appended {
        Appended {
            base_offset: Offset(wire.base_offset),
            enqueued: TimestampMs(wire.enqueued_ms),
            duplicate: wire.duplicate,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn name(name: String, what: &'static str) -> Result<String, ProtocolError> {
    if name.len() > NAME_BYTES_MAX {
        return Err(ProtocolError::OverLimit { what, found: name.len() as u64, max: NAME_BYTES_MAX as u64 });
    }
    Ok(name)
}

fn change(wire: proto::Change) -> Result<ClusterChange, ProtocolError> {
    Ok(match wire.change.ok_or(ProtocolError::Missing { what: "change" })? {
        WireChange::Drain(node) => ClusterChange::Drain(NodeId(node)),
        WireChange::Undrain(node) => ClusterChange::Undrain(NodeId(node)),
        WireChange::Remove(w) => ClusterChange::Remove { node: NodeId(w.node), force: w.force },
        WireChange::Replace(w) => ClusterChange::Replace { old: NodeId(w.old), new: NodeId(w.new) },
        WireChange::TransferLeader(w) => {
            ClusterChange::TransferLeader { partition: PartitionId(w.partition), to: NodeId(w.to) }
        }
        WireChange::Retention(w) => ClusterChange::Retention { time_ms: w.time_ms, bytes: w.bytes },
    })
}

impl From<ClusterChange> for proto::Change {
    fn from(change: ClusterChange) -> proto::Change {
        let change = match change {
            ClusterChange::Drain(node) => WireChange::Drain(node.0),
            ClusterChange::Undrain(node) => WireChange::Undrain(node.0),
            ClusterChange::Remove { node, force } => {
                WireChange::Remove(proto::change::Remove { node: node.0, force })
            }
            ClusterChange::Replace { old, new } => {
                WireChange::Replace(proto::change::Replace { old: old.0, new: new.0 })
            }
            ClusterChange::TransferLeader { partition, to } => {
                WireChange::TransferLeader(proto::change::TransferLeader { partition: partition.0, to: to.0 })
            }
            ClusterChange::Retention { time_ms, bytes } => {
                WireChange::Retention(proto::change::Retention { time_ms, bytes })
            }
        };
        proto::Change { change: Some(change) }
    }
}

fn join(wire: proto::Join) -> Result<JoinRequest, ProtocolError> {
    Ok(JoinRequest {
        secret: name(wire.secret, "join secret")?,
        csr_pem: wire.csr_pem,
        client_address: name(wire.client_address, "client address")?,
        peer_address: name(wire.peer_address, "peer address")?,
        zone: name(wire.zone, "zone")?,
        disk_id: name(wire.disk_id, "disk id")?,
        feature_level: wire.feature_level,
    })
}

impl From<JoinRequest> for proto::Join {
    fn from(join: JoinRequest) -> proto::Join {
        proto::Join {
            secret: join.secret,
            csr_pem: join.csr_pem,
            client_address: join.client_address,
            peer_address: join.peer_address,
            zone: join.zone,
            disk_id: join.disk_id,
            feature_level: join.feature_level,
        }
    }
}

impl From<NodeInfo> for proto::NodeInfo {
    fn from(v: NodeInfo) -> proto::NodeInfo {
        proto::NodeInfo {
            node: v.node.0,
            client_address: v.client_address,
            peer_address: v.peer_address,
            zone: v.zone,
            draining: v.draining,
            alive: v.alive,
        }
    }
}

impl From<proto::NodeInfo> for NodeInfo {
    fn from(w: proto::NodeInfo) -> NodeInfo {
        NodeInfo {
            node: NodeId(w.node),
            client_address: w.client_address,
            peer_address: w.peer_address,
            zone: w.zone,
            draining: w.draining,
            alive: w.alive,
        }
    }
}

impl From<Metadata> for proto::Metadata {
    fn from(v: Metadata) -> proto::Metadata {
        let leaders = v.leaders.into_iter().map(|(partition, leader, replicas)| proto::metadata::Leader {
            partition: partition.0,
            leader: leader.map(|n| n.0),
            replicas: replicas.into_iter().map(|n| n.0).collect(),
        });
        proto::Metadata {
            cluster: v.cluster,
            node: v.node.0,
            partitions: v.partitions,
            nodes: v.nodes.into_iter().map(Into::into).collect(),
            leaders: leaders.collect(),
            control_leader: v.control_leader.map(|n| n.0),
        }
    }
}

impl From<proto::Metadata> for Metadata {
    fn from(w: proto::Metadata) -> Metadata {
        let leaders = w.leaders.into_iter().map(|l| {
            let replicas = l.replicas.into_iter().map(NodeId).collect();
            (PartitionId(l.partition), l.leader.map(NodeId), replicas)
        });
        Metadata {
            cluster: w.cluster,
            node: NodeId(w.node),
            partitions: w.partitions,
            nodes: w.nodes.into_iter().map(Into::into).collect(),
            leaders: leaders.collect(),
            control_leader: w.control_leader.map(NodeId),
        }
    }
}

impl From<PartitionInfo> for proto::PartitionInfo {
    fn from(v: PartitionInfo) -> proto::PartitionInfo {
        proto::PartitionInfo {
            partition: v.partition.0,
            leader: v.leader.map(|n| n.0),
            term: v.term.0,
            voters: v.voters.into_iter().map(|n| n.0).collect(),
            learners: v.learners.into_iter().map(|n| n.0).collect(),
            start: v.start.0,
            high_watermark: v.high_watermark.0,
            last_enqueued_ms: v.last_enqueued.0,
            bytes: v.bytes,
            replication_lag: v.replication_lag,
            apply_lag: v.apply_lag,
            damaged: v.damaged,
        }
    }
}

impl From<proto::PartitionInfo> for PartitionInfo {
    fn from(w: proto::PartitionInfo) -> PartitionInfo {
        PartitionInfo {
            partition: PartitionId(w.partition),
            leader: w.leader.map(NodeId),
            term: Term(w.term),
            voters: w.voters.into_iter().map(NodeId).collect(),
            learners: w.learners.into_iter().map(NodeId).collect(),
            start: Offset(w.start),
            high_watermark: Offset(w.high_watermark),
            last_enqueued: TimestampMs(w.last_enqueued_ms),
            bytes: w.bytes,
            replication_lag: w.replication_lag,
            apply_lag: w.apply_lag,
            damaged: w.damaged,
        }
    }
}

impl From<GroupAssignment> for proto::GroupAssignment {
    fn from(v: GroupAssignment) -> proto::GroupAssignment {
        let owned = v.owned.into_iter();
        proto::GroupAssignment {
            member: v.member.0,
            generation: v.generation,
            owned: owned.map(|(p, epoch)| proto::group_assignment::Owned { partition: p.0, epoch }).collect(),
            revoking: v.revoking.into_iter().map(|p| p.0).collect(),
            session_timeout_ms: millis(v.session_timeout),
        }
    }
}

impl From<proto::GroupAssignment> for GroupAssignment {
    fn from(w: proto::GroupAssignment) -> GroupAssignment {
        GroupAssignment {
            member: MemberId(w.member),
            generation: w.generation,
            owned: w.owned.into_iter().map(|o| (PartitionId(o.partition), o.epoch)).collect(),
            revoking: w.revoking.into_iter().map(PartitionId).collect(),
            session_timeout: Duration::from_millis(w.session_timeout_ms),
        }
    }
}

impl From<GroupDescription> for proto::GroupDescription {
    fn from(v: GroupDescription) -> proto::GroupDescription {
        let members = v.members.into_iter().map(|(member, client_name, partitions)| {
            let partitions = partitions.into_iter().map(|p| p.0).collect();
            proto::group_description::Member { member: member.0, client_name, partitions }
        });
        proto::GroupDescription { group: v.group, generation: v.generation, members: members.collect() }
    }
}

impl From<proto::GroupDescription> for GroupDescription {
    fn from(w: proto::GroupDescription) -> GroupDescription {
        let members = w.members.into_iter().map(|m| {
            let partitions = m.partitions.into_iter().map(PartitionId).collect();
            (MemberId(m.member), m.client_name, partitions)
        });
        GroupDescription { group: w.group, generation: w.generation, members: members.collect() }
    }
}

impl From<CheckpointInfo> for proto::CheckpointInfo {
    fn from(v: CheckpointInfo) -> proto::CheckpointInfo {
        proto::CheckpointInfo {
            epoch: v.epoch,
            member: v.member.0,
            next: v.next.map(|o| o.0),
            high_watermark: v.high_watermark.0,
        }
    }
}

impl From<proto::CheckpointInfo> for CheckpointInfo {
    fn from(w: proto::CheckpointInfo) -> CheckpointInfo {
        CheckpointInfo {
            epoch: w.epoch,
            member: MemberId(w.member),
            next: w.next.map(Offset),
            high_watermark: Offset(w.high_watermark),
        }
    }
}

impl From<JoinReply> for proto::JoinReply {
    fn from(v: JoinReply) -> proto::JoinReply {
        proto::JoinReply {
            node: v.node.0,
            cluster: v.cluster,
            certificate_pem: v.certificate_pem,
            authority_pem: v.authority_pem,
            nodes: v.nodes.into_iter().map(Into::into).collect(),
            partitions: v.partitions,
        }
    }
}

impl From<proto::JoinReply> for JoinReply {
    fn from(w: proto::JoinReply) -> JoinReply {
        JoinReply {
            node: NodeId(w.node),
            cluster: w.cluster,
            certificate_pem: w.certificate_pem,
            authority_pem: w.authority_pem,
            nodes: w.nodes.into_iter().map(Into::into).collect(),
            partitions: w.partitions,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn requests() -> Vec<Request> {
        let (group, partition) = ("readers".to_owned(), PartitionId(3));
        let member = MemberId(9);
        vec![
            Request::Metadata,
            Request::Resolve { partition, from: ReadFrom::Earliest },
            Request::Resolve { partition, from: ReadFrom::Latest },
            Request::Resolve { partition, from: ReadFrom::Offset(Offset(0)) },
            Request::Resolve { partition, from: ReadFrom::Time(TimestampMs(77)) },
            Request::PartitionInfo(partition),
            Request::LocalPartitions,
            Request::GroupJoin {
                group: group.clone(),
                member: None,
                client_name: "c".into(),
                session_timeout: Duration::from_secs(10),
            },
            Request::GroupJoin {
                group: group.clone(),
                member: Some(MemberId(0)),
                client_name: String::new(),
                session_timeout: Duration::ZERO,
            },
            Request::GroupHeartbeat {
                group: group.clone(),
                member,
                generation: 4,
                released: vec![PartitionId(0), PartitionId(7)],
            },
            Request::GroupLeave { group: group.clone(), member },
            Request::GroupDescribe { group: group.clone() },
            Request::GroupList(partition),
            Request::Claim { partition, group: group.clone(), member, epoch: 5 },
            Request::Checkpoint { partition, group: group.clone(), epoch: 5, next: Offset(100) },
            Request::CheckpointRead { partition, group },
            Request::Change(ClusterChange::Drain(NodeId(1))),
            Request::Change(ClusterChange::Undrain(NodeId(1))),
            Request::Change(ClusterChange::Remove { node: NodeId(1), force: true }),
            Request::Change(ClusterChange::Replace { old: NodeId(1), new: NodeId(2) }),
            Request::Change(ClusterChange::TransferLeader { partition, to: NodeId(2) }),
            Request::Change(ClusterChange::Retention { time_ms: 1000, bytes: 1 << 40 }),
            Request::CreateJoinToken { valid_for: Duration::from_secs(60) },
            Request::Join(JoinRequest {
                secret: "s".into(),
                csr_pem: "csr".into(),
                client_address: "a:1".into(),
                peer_address: "a:2".into(),
                zone: "z".into(),
                disk_id: "d".into(),
                feature_level: 3,
            }),
        ]
    }

    fn replies() -> Vec<Reply> {
        let node = NodeInfo {
            node: NodeId(1),
            client_address: "a:1".into(),
            peer_address: "a:2".into(),
            zone: "z".into(),
            draining: true,
            alive: true,
        };
        let info = PartitionInfo {
            partition: PartitionId(3),
            leader: Some(NodeId(1)),
            term: Term(2),
            voters: vec![NodeId(1), NodeId(2)],
            learners: vec![NodeId(3)],
            start: Offset(4),
            high_watermark: Offset(5),
            last_enqueued: TimestampMs(6),
            bytes: 7,
            replication_lag: 8,
            apply_lag: 9,
            damaged: 10,
        };
        let checkpoint = CheckpointInfo {
            epoch: 1,
            member: MemberId(2),
            next: Some(Offset(0)),
            high_watermark: Offset(4),
        };
        vec![
            Reply::Metadata(Metadata {
                cluster: "c".into(),
                node: NodeId(1),
                partitions: 2,
                nodes: vec![node.clone()],
                leaders: vec![
                    (PartitionId(0), Some(NodeId(1)), vec![NodeId(1), NodeId(2)]),
                    (PartitionId(1), None, vec![]),
                ],
                control_leader: Some(NodeId(1)),
            }),
            Reply::Offset(Offset(12)),
            Reply::PartitionInfo(info.clone()),
            Reply::Partitions(vec![info.clone(), PartitionInfo { leader: None, ..info }]),
            Reply::Assignment(GroupAssignment {
                member: MemberId(1),
                generation: 2,
                owned: vec![(PartitionId(0), 2), (PartitionId(5), 1)],
                revoking: vec![PartitionId(7)],
                session_timeout: Duration::from_secs(9),
            }),
            Reply::Group(GroupDescription {
                group: "g".into(),
                generation: 2,
                members: vec![(MemberId(1), "c".into(), vec![PartitionId(0)])],
            }),
            Reply::GroupNames(vec!["a".into(), "b".into()]),
            Reply::Checkpoint(checkpoint),
            Reply::Checkpoint(CheckpointInfo { next: None, ..checkpoint }),
            Reply::Token("t".into()),
            Reply::Joined(JoinReply {
                node: NodeId(4),
                cluster: "c".into(),
                certificate_pem: "p".into(),
                authority_pem: "a".into(),
                nodes: vec![node],
                partitions: 16,
            }),
            Reply::Done,
        ]
    }

    /// Every request and every reply comes back equal through real wire bytes.
    #[test]
    fn calls_round_trip() {
        for request in requests() {
            let bytes = request.clone().into_wire().encode_to_vec();
            let back = Request::from_wire(proto::Call::decode(&bytes[..]).unwrap()).unwrap();
            assert_eq!(back, request);
        }
        for reply in replies() {
            let bytes = reply.clone().into_wire().encode_to_vec();
            let back = Reply::from_wire(proto::Answer::decode(&bytes[..]).unwrap()).unwrap();
            assert_eq!(back, reply);
        }
    }

    /// Names of requests are distinct, as metric labels need.
    #[test]
    fn names_are_distinct() {
        let names: std::collections::BTreeSet<_> = requests().iter().map(Request::name).collect();
        assert_eq!(names.len(), 15);
    }

    /// What is missing, unknown or too long is refused with the name of the field.
    #[test]
    fn bad_calls_are_refused() {
        assert_eq!(
            Request::from_wire(proto::Call { request: None }),
            Err(ProtocolError::Missing { what: "request" })
        );
        let empty = proto::Resolve { partition: 0, from: None };
        assert_eq!(
            Request::from_wire(proto::Call { request: Some(WireRequest::Resolve(empty)) }),
            Err(ProtocolError::Missing { what: "place to read from" })
        );
        let long = Request::GroupDescribe { group: "g".repeat(NAME_BYTES_MAX + 1) }.into_wire();
        assert!(matches!(
            Request::from_wire(long),
            Err(ProtocolError::OverLimit { what: "group name", found: 1025, max: 1024 })
        ));
    }
}
