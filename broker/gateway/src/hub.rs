//! The broker requests that every front translates to, and their outcomes.
//!
//! A request names a partition (or a consumer group, whose coordinator is the partition that
//! [`fleetline_types::partition_of_key`] picks for its name). A node that doesn't lead that
//! partition answers [`HubError::NotLeader`] with a hint; reads of committed records are answered
//! by every replica.
//!
//! The values and outcomes live in `protocol/native`, so that the client crate sees the same types
//! without seeing the broker; they are part of this interface and exported here.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_types::{MemberId, Offset, PartitionId};

pub use fleetline_native::HubError;
pub use fleetline_native::model::{
    Appended, CheckpointInfo, ClusterChange, GroupAssignment, GroupDescription, JoinReply, JoinRequest,
    Metadata, NodeInfo, PartitionInfo, ReadFrom, ReadReply, StoredBatch,
};

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
