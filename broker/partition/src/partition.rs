//! The handle of a partition's replica on this node.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use fleetline_batch::BatchHeader;
use fleetline_env::Clock;
use fleetline_log::{LogError, NodeLog};
use fleetline_native::HubError;
use fleetline_native::model::{Appended, PartitionInfo};
use fleetline_raft_group::{Blocking, Command, Group, ProposeError};
use fleetline_state::{StateError, StateStore};
use fleetline_streams::{Head, StreamCommand, StreamError, StreamQuery, StreamReply};
use fleetline_types::{GroupId, PartitionId};
use parking_lot::Mutex;

use crate::liveness::Liveness;
use crate::machine::Published;

/// What a partition's replica is made of.
pub struct PartitionParts {
    /// Which partition.
    pub partition: PartitionId,
    /// How many the hub has.
    pub partitions: u32,
    /// Its group.
    pub group: Group,
    /// The node's log.
    pub log: Arc<dyn NodeLog>,
    /// The node's state store.
    pub store: Arc<dyn StateStore>,
    /// The node's clock.
    pub clock: Arc<dyn Clock>,
    /// What its machine publishes.
    pub published: Published,
    /// How calls run that wait for the disk.
    pub blocking: Blocking,
}

/// A partition's replica on this node.
pub struct Partition {
    pub(crate) parts: PartitionParts,
    pub(crate) liveness: Mutex<Liveness>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partition({})", self.parts.partition)
    }
}

impl Partition {
    /// A handle of these parts.
    pub fn new(parts: PartitionParts) -> Arc<Partition> {
        Arc::new(Partition { parts, liveness: Mutex::default() })
    }

    /// Which partition this is.
    pub fn id(&self) -> PartitionId {
        self.parts.partition
    }

    /// Its group.
    pub fn group(&self) -> &Group {
        &self.parts.group
    }

    /// The ends of the stream that readers may see here.
    pub fn head(&self) -> Head {
        *self.parts.published.head.borrow()
    }

    pub(crate) fn query(&self) -> StreamQuery<'_> {
        StreamQuery::new(self.parts.store.as_ref(), self.parts.partition)
    }

    /// Appends one batch, and answers when a quorum has it on disk and it is applied here.
    ///
    /// # Errors
    /// `Invalid` for bytes that aren't an undamaged batch, `DiskFull` and `Busy` from the log,
    /// `NotLeader`, `Fenced`, `OutOfSequence`; `Unknown` once it was proposed.
    pub async fn append(&self, batch: Bytes) -> Result<Appended, HubError> {
        BatchHeader::verify(&batch).map_err(|error| HubError::Invalid(error.to_string()))?;
        self.parts.log.admit(batch.len() as u64).map_err(log_error)?;
        let head = StreamCommand::Append { time: self.parts.clock.wall() }.encode();
        match self.propose(Command { head, body: batch }).await? {
            StreamReply::Appended { base_offset, enqueued, duplicate } => {
                Ok(Appended { base_offset, enqueued, duplicate })
            }
            reply => Err(unexpected(&reply)),
        }
    }

    /// Proposes a command that has no batch, once it is known to be one that the log can hold.
    pub(crate) async fn command(&self, command: &StreamCommand) -> Result<StreamReply, HubError> {
        command.check().map_err(stream_error)?;
        self.propose(Command { head: command.encode(), body: Bytes::new() }).await
    }

    pub(crate) async fn propose_entry(&self, command: Command) -> Result<Bytes, HubError> {
        let reply = self.parts.group.propose(command).await;
        reply.map(|reply| reply.0).map_err(|error| self.propose_error(error))
    }

    async fn propose(&self, command: Command) -> Result<StreamReply, HubError> {
        let reply = self.propose_entry(command).await?;
        match StreamReply::decode(&reply).map_err(|error| HubError::Internal(error.to_string()))? {
            StreamReply::Refused(error) => Err(stream_error(error)),
            reply => Ok(reply),
        }
    }

    /// Waits until everything committed before the call is applied here. Leader only.
    pub(crate) async fn barrier(&self) -> Result<(), HubError> {
        self.parts.group.read_barrier().await.map_err(|error| self.propose_error(error))
    }

    /// What this node knows of the partition.
    pub fn info(&self) -> PartitionInfo {
        let status = self.parts.group.status();
        let head = self.head();
        let group = GroupId::of_partition(self.parts.partition);
        let behind = |matched: Option<fleetline_types::LogIndex>| {
            let last = status.last.map_or(0, |index| index.0 + 1);
            last.saturating_sub(matched.map_or(0, |index| index.0 + 1))
        };
        let voters = status.replicas.iter().filter(|lag| status.voters.contains(&lag.node));
        PartitionInfo {
            partition: self.parts.partition,
            leader: status.leader,
            term: status.term,
            start: head.start,
            high_watermark: head.next,
            last_enqueued: head.last_enqueued,
            bytes: head.bytes,
            replication_lag: voters.map(|lag| behind(lag.matched)).max().unwrap_or(0),
            apply_lag: behind(status.applied),
            damaged: self.parts.log.damaged(group, 10_000).len() as u64,
            voters: status.voters.into_iter().collect(),
            learners: status.learners.into_iter().collect(),
        }
    }

    pub(crate) fn propose_error(&self, error: ProposeError) -> HubError {
        let what = format!("partition {}", self.parts.partition.0);
        match error {
            ProposeError::NotLeader { leader: Some(leader), .. } => {
                HubError::NotLeader { what, leader: Some(leader) }
            }
            ProposeError::NotLeader { leader: None, .. } => HubError::Unavailable(what),
            ProposeError::Unknown { reason, .. } => HubError::Unknown(reason),
            ProposeError::Stopped { reason, .. } => HubError::Unavailable(format!("{what} ({reason})")),
            ProposeError::Refused { reason, .. } => HubError::Invalid(reason),
        }
    }
}

pub(crate) fn log_error(error: LogError) -> HubError {
    match error {
        LogError::DiskFull { .. } => HubError::DiskFull(error.to_string()),
        error if error.is_retryable() => HubError::Busy { reason: error.to_string(), retry_after_ms: 20 },
        error => HubError::Internal(error.to_string()),
    }
}

pub(crate) fn state_error(error: StateError) -> HubError {
    HubError::Internal(error.to_string())
}

pub(crate) fn unexpected(reply: &StreamReply) -> HubError {
    HubError::Internal(format!("state machine answered {reply:?}"))
}

pub(crate) fn stream_error(error: StreamError) -> HubError {
    match error {
        StreamError::Fenced { what, current, given } => HubError::Fenced { what, current, given },
        StreamError::OutOfSequence { expected, given } => HubError::OutOfSequence { expected, given },
        StreamError::NotFound(what) => HubError::NotFound(what),
        StreamError::Invalid(what) => HubError::Invalid(what),
        StreamError::Limit(reason) => HubError::Busy { reason, retry_after_ms: 1000 },
    }
}
