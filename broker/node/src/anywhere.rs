//! The stream from any node: a [`Hub`] that asks whoever has the answer, and the tiers' [`Cluster`].
//!
//! Clients of the native protocol look for leaders themselves and get `NotLeader` from [`NodeHub`].
//! SDKs that know one address can't; nor do the tiers of a node. For them a request goes to the leader
//! over the peers' links, in the native protocol's own form, and is done there by that node's
//! [`NodeHub`]. Reads are done here when this node has a replica, else by a node that has one.
//!
//! Invariants: what was asked of a leader and has no answer is *unknown*, and is asked again only if
//! doing it twice is doing it once; nothing waits longer than [`ANSWER`] and what the caller said.
//!
//! Not here: appends (`devices` forwards them), who may ask.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::hub::{
    Appended, CheckpointInfo, ClusterChange, GroupAssignment, GroupDescription, Hub, HubError, JoinReply,
    JoinRequest, Metadata, PartitionInfo, ReadFrom, ReadReply, StoredBatch,
};
use fleetline_gateway::quic::call::dispatch;
use fleetline_gateway::tiers::{Cluster, RawSetting, Tier, TierService};
use fleetline_native::{Reply, Request, error_map, proto};
use fleetline_raft_driver::CallError;
use fleetline_raft_transport::Lane;
use fleetline_types::{GroupId, MemberId, NodeId, Offset, PartitionId, TimestampMs, partition_of_key};
use prost::Message;
use tokio::sync::watch;

use crate::devices::{NodeDevices, operation, seek};
use crate::hub::NodeHub;

/// How long a node may take to answer, beside what the caller lets it wait.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of one read between nodes: a frame between nodes has 16 MiB at the most.
const READ_BYTES_MAX: u64 = 4 << 20;
/// How long one read may wait at another node; the caller's own wait goes on here.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A read between nodes.
#[derive(Clone, PartialEq, Eq, Message)]
struct ReadCall {
    #[prost(uint64, tag = "1")]
    from: u64,
    #[prost(uint64, tag = "2")]
    max_bytes: u64,
    #[prost(uint64, tag = "3")]
    wait_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct BatchRow {
    #[prost(uint64, tag = "1")]
    base_offset: u64,
    #[prost(uint64, tag = "2")]
    enqueued_ms: u64,
    #[prost(bytes = "bytes", tag = "3")]
    batch: Bytes,
}

/// Its answer.
#[derive(Clone, PartialEq, Message)]
struct ReadAnswer {
    #[prost(message, optional, tag = "1")]
    error: Option<proto::Error>,
    #[prost(message, repeated, tag = "2")]
    batches: Vec<BatchRow>,
    #[prost(uint64, tag = "3")]
    next: u64,
    #[prost(uint64, tag = "4")]
    high_watermark: u64,
    #[prost(uint64, tag = "5")]
    start: u64,
}

/// The answer to a call.
#[derive(Clone, PartialEq, Message)]
struct CallAnswer {
    #[prost(message, optional, tag = "1")]
    error: Option<proto::Error>,
    #[prost(message, optional, tag = "2")]
    answer: Option<proto::Answer>,
}

/// The stream and the cluster, for tiers and fronts of this node.
pub(crate) struct Anywhere {
    hub: Arc<NodeHub>,
    devices: Arc<NodeDevices>,
    changes: watch::Sender<u64>,
    tiers: [OnceLock<Arc<dyn TierService>>; Tier::ALL.len()],
    this: std::sync::Weak<Anywhere>,
}

impl Anywhere {
    pub(crate) fn new(hub: Arc<NodeHub>, devices: Arc<NodeDevices>) -> Arc<Anywhere> {
        Arc::new_cyclic(|this| Anywhere {
            hub,
            devices,
            changes: watch::channel(0).0,
            tiers: Default::default(),
            this: this.clone(),
        })
    }

    /// Tells tiers of changed settings, for ever.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut views = self.hub.control.watch();
        let mut seen = views.borrow_and_update().hub.clone();
        while views.changed().await.is_ok() {
            let now = views.borrow_and_update().hub.clone();
            if now != seen {
                seen = now;
                self.changes.send_modify(|count| *count += 1);
            }
        }
    }

    async fn call(
        &self,
        node: NodeId,
        group: GroupId,
        operation: u32,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, HubError> {
        let answer = self.hub.driver.call(node, Lane::Bulk, group, operation, body, limit).await;
        answer.map_err(|error| match error {
            CallError::NotSent { .. } => HubError::Unavailable(error.to_string()),
            CallError::Unknown { .. } => HubError::Unknown(error.to_string()),
        })
    }

    /// Has the leader of a partition do what is asked.
    async fn at_leader(
        &self,
        partition: PartitionId,
        once: bool,
        request: Request,
    ) -> Result<Reply, HubError> {
        if partition.0 >= self.hub.partitions {
            return Err(HubError::NotFound(format!("partition {}", partition.0)));
        }
        let this = self.hub.driver.node();
        let (request, what) = (&request, format!("partition {}", partition.0));
        seek(
            &what,
            once,
            || self.devices.leader_of(partition),
            |node| async move {
                if node == this {
                    return dispatch(&*self.hub, request.clone()).await;
                }
                let body = request.clone().into_wire().encode_to_vec().into();
                let group = GroupId::of_partition(partition);
                let bytes = self.call(node, group, operation::CALL, body, ANSWER).await?;
                let answer =
                    CallAnswer::decode(bytes).map_err(|error| HubError::Unknown(error.to_string()))?;
                match (answer.error, answer.answer) {
                    (Some(error), _) => Err(error_map::from_wire(error)),
                    (None, answer) => Reply::from_wire(answer.unwrap_or_default())
                        .map_err(|error| HubError::Unknown(error.to_string())),
                }
            },
        )
        .await
    }

    async fn at_coordinator(&self, group: &str, once: bool, request: Request) -> Result<Reply, HubError> {
        self.at_leader(partition_of_key(group.as_bytes(), self.hub.partitions), once, request).await
    }

    /// Answers another node's request.
    pub(crate) async fn on_call(&self, body: Bytes) -> Result<Bytes, String> {
        let call = proto::Call::decode(body).map_err(|error| error.to_string())?;
        let request = Request::from_wire(call).map_err(|error| error.to_string())?;
        let answer = match dispatch(&*self.hub, request).await {
            Ok(reply) => CallAnswer { error: None, answer: Some(reply.into_wire()) },
            Err(error) => CallAnswer { error: Some(error_map::to_wire(&error)), answer: None },
        };
        Ok(answer.encode_to_vec().into())
    }

    /// Answers another node's read.
    pub(crate) async fn on_read(&self, partition: PartitionId, body: Bytes) -> Result<Bytes, String> {
        let call = ReadCall::decode(body).map_err(|error| error.to_string())?;
        let wait = Duration::from_millis(call.wait_ms).min(WAIT_MAX);
        let bytes = call.max_bytes.min(READ_BYTES_MAX);
        let answer = match self.hub.read(partition, Offset(call.from), bytes, wait).await {
            Ok(reply) => ReadAnswer {
                error: None,
                batches: reply.batches.into_iter().map(batch_row).collect(),
                next: reply.next.0,
                high_watermark: reply.high_watermark.0,
                start: reply.start.0,
            },
            Err(error) => ReadAnswer { error: Some(error_map::to_wire(&error)), ..ReadAnswer::default() },
        };
        Ok(answer.encode_to_vec().into())
    }

    /// Answers another node's tier.
    pub(crate) async fn on_tier(&self, from: NodeId, body: Bytes) -> Result<Bytes, String> {
        let (number, body) = body.split_first_chunk::<4>().ok_or("a tier's call without its number")?;
        let number = u32::from_le_bytes(*number);
        let tier = Tier::from_number(number).ok_or_else(|| format!("tier {number} is of a later release"))?;
        let service = self.tiers[tier as usize - 1].get().ok_or("the tier isn't there yet")?;
        service.on_call(from, Bytes::copy_from_slice(body)).await
    }

    /// Whom to ask for a read, best first: whoever leads, then the others with a replica.
    fn holders(&self, partition: PartitionId) -> Vec<NodeId> {
        let placed = self.hub.control.view().placements.get(&partition).cloned().unwrap_or_default();
        let mut nodes: Vec<NodeId> = self.devices.leader_of(partition).into_iter().collect();
        nodes.extend(placed.replicas.iter().chain(&placed.leaving));
        let this = self.hub.driver.node();
        let up = |node: &NodeId| *node != this && self.hub.driver.transport().is_up(*node);
        nodes.retain(up);
        let mut seen = std::collections::BTreeSet::new();
        nodes.retain(|node| seen.insert(*node));
        nodes
    }

    async fn read_at(
        &self,
        node: NodeId,
        partition: PartitionId,
        from: Offset,
        max_bytes: u64,
        wait: Duration,
    ) -> Result<ReadReply, HubError> {
        let wait = wait.min(WAIT_MAX);
        let call = ReadCall {
            from: from.0,
            max_bytes: max_bytes.min(READ_BYTES_MAX),
            wait_ms: wait.as_millis() as u64,
        };
        let group = GroupId::of_partition(partition);
        let body = call.encode_to_vec().into();
        let bytes = self.call(node, group, operation::READ, body, ANSWER + wait).await?;
        let answer = ReadAnswer::decode(bytes).map_err(|error| HubError::Unavailable(error.to_string()))?;
        match answer.error {
            Some(error) => Err(error_map::from_wire(error)),
            None => Ok(ReadReply {
                batches: answer.batches.into_iter().map(stored_batch).collect(),
                next: Offset(answer.next),
                high_watermark: Offset(answer.high_watermark),
                start: Offset(answer.start),
            }),
        }
    }
}

fn batch_row(stored: StoredBatch) -> BatchRow {
    BatchRow { base_offset: stored.base_offset.0, enqueued_ms: stored.enqueued.0, batch: stored.batch }
}

fn stored_batch(row: BatchRow) -> StoredBatch {
    StoredBatch {
        base_offset: Offset(row.base_offset),
        enqueued: TimestampMs(row.enqueued_ms),
        batch: row.batch,
    }
}

fn odd(reply: &Reply) -> HubError {
    HubError::Internal(format!("another node answered with {reply:?}"))
}

/// Takes the answer of the kind that the request has.
macro_rules! expect {
    ($reply:expr, $kind:ident) => {
        match $reply {
            Reply::$kind(value) => Ok(value),
            other => Err(odd(&other)),
        }
    };
}

#[async_trait]
impl Hub for Anywhere {
    async fn append(&self, partition: PartitionId, batch: Bytes) -> Result<Appended, HubError> {
        self.devices.append(partition, batch).await.map(|(appended, _)| appended)
    }

    async fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        max_bytes: u64,
        wait: Duration,
    ) -> Result<ReadReply, HubError> {
        let mut last = match self.hub.read(partition, from, max_bytes, wait).await {
            // A replica here that is behind doesn't know how far the stream goes.
            Err(error @ (HubError::NotLeader { .. } | HubError::OffsetBeyondEnd { .. })) => error,
            answer => return answer,
        };
        for node in self.holders(partition) {
            match self.read_at(node, partition, from, max_bytes, wait).await {
                Err(
                    error @ (HubError::NotLeader { .. } | HubError::Unavailable(_) | HubError::Unknown(_)),
                ) => {
                    last = error;
                }
                answer => return answer,
            }
        }
        Err(match last {
            HubError::NotLeader { what, .. } | HubError::Unknown(what) => HubError::Unavailable(what),
            error => error,
        })
    }

    async fn resolve(&self, partition: PartitionId, from: ReadFrom) -> Result<Offset, HubError> {
        let request = Request::Resolve { partition, from };
        expect!(self.at_leader(partition, false, request).await?, Offset)
    }

    async fn partition_info(&self, partition: PartitionId) -> Result<PartitionInfo, HubError> {
        expect!(self.at_leader(partition, false, Request::PartitionInfo(partition)).await?, PartitionInfo)
    }

    async fn group_join(
        &self,
        group: &str,
        member: Option<MemberId>,
        client_name: &str,
        session_timeout: Duration,
    ) -> Result<GroupAssignment, HubError> {
        let (group_name, client_name) = (group.to_owned(), client_name.to_owned());
        let request = Request::GroupJoin { group: group_name, member, client_name, session_timeout };
        expect!(self.at_coordinator(group, true, request).await?, Assignment)
    }

    async fn group_heartbeat(
        &self,
        group: &str,
        member: MemberId,
        generation: u64,
        released: &[PartitionId],
    ) -> Result<GroupAssignment, HubError> {
        let (group_name, released) = (group.to_owned(), released.to_vec());
        let request = Request::GroupHeartbeat { group: group_name, member, generation, released };
        expect!(self.at_coordinator(group, false, request).await?, Assignment)
    }

    async fn group_leave(&self, group: &str, member: MemberId) -> Result<(), HubError> {
        let request = Request::GroupLeave { group: group.to_owned(), member };
        self.at_coordinator(group, false, request).await.map(drop)
    }

    async fn group_describe(&self, group: &str) -> Result<GroupDescription, HubError> {
        let request = Request::GroupDescribe { group: group.to_owned() };
        expect!(self.at_coordinator(group, false, request).await?, Group)
    }

    async fn group_list(&self, partition: PartitionId) -> Result<Vec<String>, HubError> {
        expect!(self.at_leader(partition, false, Request::GroupList(partition)).await?, GroupNames)
    }

    async fn claim(
        &self,
        partition: PartitionId,
        group: &str,
        member: MemberId,
        epoch: u64,
    ) -> Result<CheckpointInfo, HubError> {
        let request = Request::Claim { partition, group: group.to_owned(), member, epoch };
        expect!(self.at_leader(partition, false, request).await?, Checkpoint)
    }

    async fn checkpoint(
        &self,
        partition: PartitionId,
        group: &str,
        epoch: u64,
        next: Offset,
    ) -> Result<(), HubError> {
        let request = Request::Checkpoint { partition, group: group.to_owned(), epoch, next };
        self.at_leader(partition, false, request).await.map(drop)
    }

    async fn checkpoint_read(&self, partition: PartitionId, group: &str) -> Result<CheckpointInfo, HubError> {
        let request = Request::CheckpointRead { partition, group: group.to_owned() };
        expect!(self.at_leader(partition, false, request).await?, Checkpoint)
    }

    fn metadata(&self) -> Metadata {
        self.hub.metadata()
    }

    async fn local_partitions(&self) -> Vec<PartitionInfo> {
        self.hub.local_partitions().await
    }

    async fn change(&self, change: ClusterChange) -> Result<(), HubError> {
        self.hub.change(change).await
    }

    async fn create_join_token(&self, valid_for: Duration) -> Result<String, HubError> {
        self.hub.create_join_token(valid_for).await
    }

    async fn join(&self, request: JoinRequest) -> Result<JoinReply, HubError> {
        self.hub.join(request).await
    }
}

#[async_trait]
impl Cluster for Anywhere {
    fn node(&self) -> NodeId {
        self.hub.driver.node()
    }

    fn alive(&self) -> Vec<NodeId> {
        let (this, state) = (self.node(), self.hub.control.view());
        let up = |node: &NodeId| *node == this || self.hub.driver.transport().is_up(*node);
        state.nodes.keys().copied().filter(up).collect()
    }

    fn hub(&self) -> Arc<dyn Hub> {
        self.this.upgrade().expect("invariant: whoever calls has it")
    }

    fn devices(&self) -> Arc<dyn DeviceHub> {
        self.devices.clone()
    }

    fn setting(&self, name: &str) -> RawSetting {
        let found = self.hub.control.view().hub.get(name).cloned();
        let (version, value) = found.map_or_else(Default::default, |found| (found.version, found.value));
        RawSetting { name: name.to_owned(), version, value }
    }

    fn settings_with(&self, prefix: &str) -> Vec<RawSetting> {
        let state = self.hub.control.view();
        let from = state.hub.range(prefix.to_owned()..);
        let raw = |(name, found): (&String, &fleetline_cluster::HubSetting)| RawSetting {
            name: name.clone(),
            version: found.version,
            value: found.value.clone(),
        };
        from.take_while(|(name, _)| name.starts_with(prefix)).map(raw).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn serve_tier(&self, tier: Tier, service: Arc<dyn TierService>) {
        if self.tiers[tier as usize - 1].set(service).is_err() {
            tracing::error!(?tier, "a tier's service was set twice");
        }
    }

    async fn call_tier(
        &self,
        node: NodeId,
        tier: Tier,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, HubError> {
        if node == self.node() {
            let service = self.tiers[tier as usize - 1].get();
            let service =
                service.ok_or_else(|| HubError::Unavailable("the tier isn't there yet".to_owned()))?;
            return service.on_call(node, body).await.map_err(HubError::Unavailable);
        }
        let body = [&(tier as u32).to_le_bytes()[..], &body].concat().into();
        self.call(node, GroupId::CONTROL, operation::TIER, body, limit).await
    }
}
