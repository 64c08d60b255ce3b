//! The values of requests and answers: what a stream, a partition, a group and a cluster look like
//! to a client.
//!
//! Plain data without a wire form of its own (`convert` holds that). The broker's `Hub` trait
//! (`broker/gateway`) and the client crate are written in these types.

use std::time::Duration;

use bytes::Bytes;
use fleetline_types::{MemberId, NodeId, Offset, PartitionId, Term, TimestampMs};

/// Where in a partition to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// The oldest record that retention has left.
    Earliest,
    /// Behind the newest committed record.
    Latest,
    /// This record (it may be gone: then the answer is [`HubError::OffsetGone`]).
    Offset(Offset),
    /// The first record enqueued at or after this time.
    Time(TimestampMs),
}

/// A batch was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the batch's first record.
    pub base_offset: Offset,
    /// When the leader took it.
    pub enqueued: TimestampMs,
    /// The batch had been stored before; this is where.
    pub duplicate: bool,
}

/// One stored batch: the producer's bytes, and what the partition added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBatch {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// When the leader took it.
    pub enqueued: TimestampMs,
    /// The batch as the producer made it (`fleetline-batch`). Its first records may lie before the
    /// offset that was asked for; readers skip them.
    pub batch: Bytes,
}

/// Committed batches from a position on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadReply {
    /// In offset order, without a hole. Empty when nothing new came in time.
    pub batches: Vec<StoredBatch>,
    /// Where to read on.
    pub next: Offset,
    /// One behind the last committed record known here.
    pub high_watermark: Offset,
    /// The first record still retained.
    pub start: Offset,
}

/// What a partition looks like from the node that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Which partition.
    pub partition: PartitionId,
    /// The leader that this node knows.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: Term,
    /// Nodes with a voting replica.
    pub voters: Vec<NodeId>,
    /// Nodes with a replica that is being filled.
    pub learners: Vec<NodeId>,
    /// First retained record.
    pub start: Offset,
    /// One behind the last committed record.
    pub high_watermark: Offset,
    /// When the last record was enqueued.
    pub last_enqueued: TimestampMs,
    /// Bytes of retained batches.
    pub bytes: u64,
    /// For the leader: entries that the slowest voter is behind.
    pub replication_lag: u64,
    /// Entries accepted here and not yet applied.
    pub apply_lag: u64,
    /// Entries of this replica known as damaged.
    pub damaged: u64,
}

/// A member's view of its consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupAssignment {
    /// The member.
    pub member: MemberId,
    /// The group's current generation.
    pub generation: u64,
    /// Partitions that the member owns now, each with the epoch to claim it by.
    pub owned: Vec<(PartitionId, u64)>,
    /// Partitions that it should give up: finish, checkpoint, then report as released.
    pub revoking: Vec<PartitionId>,
    /// How often the member must be heard of, at the least.
    pub session_timeout: Duration,
}

/// A consumer group from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// Its generation.
    pub generation: u64,
    /// Members: id, the name that the client gave, owned partitions.
    pub members: Vec<(MemberId, String, Vec<PartitionId>)>,
}

/// What a partition keeps for a consumer group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// Epoch of the last claim.
    pub epoch: u64,
    /// The member that made it.
    pub member: MemberId,
    /// The next record to read; `None` before the first checkpoint.
    pub next: Option<Offset>,
    /// One behind the last committed record, for the lag.
    pub high_watermark: Offset,
}

/// A node as clients and operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its id.
    pub node: NodeId,
    /// `host:port` of its native (QUIC) front.
    pub client_address: String,
    /// `host:port` that other nodes reach it by.
    pub peer_address: String,
    /// Failure zone, or empty.
    pub zone: String,
    /// It takes no new replicas and loses those it has.
    pub draining: bool,
    /// The asked node has a live connection to it (or is it).
    pub alive: bool,
}

/// The cluster as clients need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The cluster's id.
    pub cluster: String,
    /// The asked node.
    pub node: NodeId,
    /// How many partitions the hub has.
    pub partitions: u32,
    /// All nodes.
    pub nodes: Vec<NodeInfo>,
    /// Per partition: the leader as far as known, and the nodes that hold a replica.
    pub leaders: Vec<(PartitionId, Option<NodeId>, Vec<NodeId>)>,
    /// The control group's leader as far as known.
    pub control_leader: Option<NodeId>,
}

/// A change that an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterChange {
    /// Move all replicas and leaders off the node, take no new ones.
    Drain(NodeId),
    /// End a drain that was begun.
    Undrain(NodeId),
    /// Forget a drained (or, with `force`, a lost) node.
    Remove {
        /// Which.
        node: NodeId,
        /// The node is gone for good and can't be drained.
        force: bool,
    },
    /// Give all replicas of a lost node to another one.
    Replace {
        /// The lost node.
        old: NodeId,
        /// The node that takes its place; it has joined already.
        new: NodeId,
    },
    /// Make `to` the leader of `partition`.
    TransferLeader {
        /// Which partition.
        partition: PartitionId,
        /// The new leader; a voter.
        to: NodeId,
    },
    /// Keep each partition's stream for so long and so large; what is beyond either goes.
    Retention {
        /// Milliseconds; at least a second.
        time_ms: u64,
        /// Bytes per partition; at least 1 MiB.
        bytes: u64,
    },
}

/// A new node asks to become a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The secret part of the join token.
    pub secret: String,
    /// Certificate signing request, PEM.
    pub csr_pem: String,
    /// `host:port` of the new node's native front.
    pub client_address: String,
    /// `host:port` that other nodes will reach it by.
    pub peer_address: String,
    /// Failure zone, or empty.
    pub zone: String,
    /// The random id of the new node's data folder, so that a repeated request gives the same id.
    pub disk_id: String,
    /// The highest format level that the new node knows.
    pub feature_level: u32,
}

/// What a new node needs to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinReply {
    /// Its id.
    pub node: NodeId,
    /// The cluster's id.
    pub cluster: String,
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// The authority's certificate, PEM.
    pub authority_pem: String,
    /// The nodes it can reach.
    pub nodes: Vec<NodeInfo>,
    /// How many partitions the hub has.
    pub partitions: u32,
}
