//! The broker requests that every front translates to, and their outcomes.
//!
//! A request names a partition (or a consumer group, whose coordinator is the partition that
//! [`fleetline_types::partition_of_key`] picks for its name). A node that doesn't lead that
//! partition answers [`HubError::NotLeader`] with a hint; reads of committed records are answered
//! by every replica.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_types::{MemberId, NodeId, Offset, PartitionId, Term, TimestampMs};
use thiserror::Error;

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

/// Why a request was not done (or may not have been).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HubError {
    /// Another node leads; ask there.
    #[error("node does not lead {what}, the leader is {leader:?}")]
    NotLeader {
        /// Which partition or group.
        what: String,
        /// The leader, when known.
        leader: Option<NodeId>,
    },
    /// There is no leader or no quorum now; nothing was done.
    #[error("{0} has no quorum now, nothing was done; try again")]
    Unavailable(String),
    /// A bound was reached; nothing was done.
    #[error("busy: {reason}; try again in {retry_after_ms} ms")]
    Busy {
        /// Which bound.
        reason: String,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The node's disk is at its reserve; nothing was done.
    #[error("disk full on the leader, nothing was stored: {0}")]
    DiskFull(String),
    /// The request was proposed and no answer came: it may have happened once, later, or never.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// No such partition, group, member or node.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The offset was removed by retention.
    #[error("offset {asked} is gone, the stream now starts at {start}")]
    OffsetGone {
        /// What was asked for.
        asked: Offset,
        /// Where the stream begins now.
        start: Offset,
    },
    /// The offset lies behind the end.
    #[error("offset {asked} is behind the end of the stream, which is {end}")]
    OffsetBeyondEnd {
        /// What was asked for.
        asked: Offset,
        /// One behind the last committed record.
        end: Offset,
    },
    /// A newer epoch exists: this producer, member or owner is no longer valid.
    #[error("fenced: {what} has epoch {current}, the request carries {given}")]
    Fenced {
        /// Who.
        what: String,
        /// The epoch that is valid.
        current: u64,
        /// The epoch that came.
        given: u64,
    },
    /// A producer left out a sequence number, or repeats one too old to be known.
    #[error("sequence {given} of the producer is out of order, {expected} was expected")]
    OutOfSequence {
        /// What was expected.
        expected: u64,
        /// What came.
        given: u64,
    },
    /// The bytes or values of the request are wrong.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The caller may not do this.
    #[error("not permitted: {0}")]
    Forbidden(String),
    /// A bug or a broken disk on the node.
    #[error("internal error: {0}")]
    Internal(String),
}

impl HubError {
    /// Whether the request definitely did not happen.
    pub fn is_definite(&self) -> bool {
        !matches!(self, HubError::Unknown(_) | HubError::Internal(_))
    }

    /// Whether the same request may succeed on this or another node.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            HubError::NotLeader { .. }
                | HubError::Unavailable(_)
                | HubError::Busy { .. }
                | HubError::DiskFull(_)
                | HubError::Unknown(_)
        )
    }
}

/// The broker, as fronts see it.
#[async_trait]
pub trait Hub: Send + Sync + 'static {
    /// Appends one batch, and answers when a quorum has it on disk and it is applied.
    async fn append(&self, partition: PartitionId, batch: Bytes) -> Result<Appended, HubError>;

    /// Reads committed batches from `from` on, at least one when there is one, up to about
    /// `max_bytes`. When there is none, waits up to `wait` for one.
    async fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        max_bytes: u64,
        wait: Duration,
    ) -> Result<ReadReply, HubError>;

    /// Turns a starting place into an offset.
    async fn resolve(&self, partition: PartitionId, from: ReadFrom) -> Result<Offset, HubError>;

    /// What this node knows of a partition that it holds a replica of.
    async fn partition_info(&self, partition: PartitionId) -> Result<PartitionInfo, HubError>;

    /// Joins a consumer group, or joins again as `member`.
    async fn group_join(
        &self,
        group: &str,
        member: Option<MemberId>,
        client_name: &str,
        session_timeout: Duration,
    ) -> Result<GroupAssignment, HubError>;

    /// Tells that the member lives and which partitions it has released since.
    async fn group_heartbeat(
        &self,
        group: &str,
        member: MemberId,
        generation: u64,
        released: &[PartitionId],
    ) -> Result<GroupAssignment, HubError>;

    /// Leaves a consumer group.
    async fn group_leave(&self, group: &str, member: MemberId) -> Result<(), HubError>;

    /// Describes one consumer group.
    async fn group_describe(&self, group: &str) -> Result<GroupDescription, HubError>;

    /// Names of the consumer groups that have a checkpoint in `partition`.
    async fn group_list(&self, partition: PartitionId) -> Result<Vec<String>, HubError>;

    /// Takes a partition for a consumer group: lower epochs are fenced once this returns. Answers
    /// with the checkpoint to go on from.
    async fn claim(
        &self,
        partition: PartitionId,
        group: &str,
        member: MemberId,
        epoch: u64,
    ) -> Result<CheckpointInfo, HubError>;

    /// Stores a checkpoint: `next` is the first record not yet processed. Refused from an epoch
    /// that isn't the newest; never moves back.
    async fn checkpoint(
        &self,
        partition: PartitionId,
        group: &str,
        epoch: u64,
        next: Offset,
    ) -> Result<(), HubError>;

    /// Reads a checkpoint (linearizable).
    async fn checkpoint_read(&self, partition: PartitionId, group: &str) -> Result<CheckpointInfo, HubError>;

    /// The cluster as this node knows it.
    fn metadata(&self) -> Metadata;

    /// All partitions that this node holds a replica of.
    async fn local_partitions(&self) -> Vec<PartitionInfo>;

    /// Asks for a change of the cluster. Answers when the change is committed; the work it causes
    /// goes on behind it and shows in the status.
    async fn change(&self, change: ClusterChange) -> Result<(), HubError>;

    /// Makes a token by which one or more nodes may join until it expires.
    async fn create_join_token(&self, valid_for: Duration) -> Result<String, HubError>;

    /// Admits a new node.
    async fn join(&self, request: JoinRequest) -> Result<JoinReply, HubError>;
}
