//! The cluster in memory as one node sees it: the seams that the engine is written against.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_batch::BatchReader;
use fleetline_devices::{CommitReply, ConnectionPlace, DeviceAnswer, DeviceQuery, NamedDocument, Request};
use fleetline_gateway::devices::hub::{DeviceHub, GatewayAnswer, GatewayCall, Leaders};
use fleetline_gateway::devices::settings::HubSettings;
use fleetline_gateway::hub::{
    Appended, CheckpointInfo, ClusterChange, GroupAssignment, GroupDescription, Hub, HubError, JoinReply,
    JoinRequest, Metadata, PartitionInfo, ReadFrom, ReadReply,
};
use fleetline_gateway::tiers::{Cluster, RawSetting, Tier, TierService};
use fleetline_streams::{Assignment, StreamCommand, StreamQuery, StreamReply};
use fleetline_types::{MemberId, NodeId, Offset, PartitionId, partition_of_key};
use prost::Message;
use std::sync::atomic::Ordering;
use tokio::sync::watch;

use super::world::{Fault, World, hub_error};

fn assigned(reply: Assignment) -> GroupAssignment {
    GroupAssignment {
        member: reply.member,
        generation: reply.generation,
        owned: reply.owned,
        revoking: reply.revoking,
        session_timeout: Duration::from_millis(reply.session_timeout_ms),
    }
}

/// The cluster as one node sees it.
pub struct Node {
    pub world: Arc<World>,
    pub number: u64,
}

impl Node {
    /// A dead node is answered nothing.
    fn alive(&self) -> Result<(), HubError> {
        match self.world.shared.lock().alive.contains(&self.number) {
            true => Ok(()),
            false => Err(HubError::Unavailable("this node is dead".into())),
        }
    }

    fn coordinator(&self, group: &str) -> PartitionId {
        partition_of_key(group.as_bytes(), self.world.partitions.len() as u32)
    }
}

#[async_trait]
impl Cluster for Node {
    fn node(&self) -> NodeId {
        NodeId(self.number)
    }

    fn alive(&self) -> Vec<NodeId> {
        self.world.shared.lock().alive.iter().copied().map(NodeId).collect()
    }

    fn hub(&self) -> Arc<dyn Hub> {
        self.world.node(self.number)
    }

    fn devices(&self) -> Arc<dyn DeviceHub> {
        self.world.node(self.number)
    }

    fn setting(&self, name: &str) -> RawSetting {
        self.world.setting(name)
    }

    fn settings_with(&self, prefix: &str) -> Vec<RawSetting> {
        let names: Vec<String> = self.world.shared.lock().settings.keys().cloned().collect();
        names.iter().filter(|name| name.starts_with(prefix)).map(|name| self.world.setting(name)).collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.world.changed.subscribe()
    }

    fn serve_tier(&self, _tier: Tier, service: Arc<dyn TierService>) {
        self.world.services.lock().insert(self.number, Arc::downgrade(&service));
    }

    async fn call_tier(
        &self,
        node: NodeId,
        _tier: Tier,
        body: Bytes,
        _limit: Duration,
    ) -> Result<Bytes, HubError> {
        self.alive()?;
        let is_alive = self.world.shared.lock().alive.contains(&node.0);
        let service = self.world.services.lock().get(&node.0).cloned().and_then(|service| service.upgrade());
        let service = service.filter(|_| is_alive).ok_or(HubError::Unavailable("gone".into()))?;
        service.on_call(NodeId(self.number), body).await.map_err(HubError::Unavailable)
    }
}

#[async_trait]
impl Hub for Node {
    async fn append(&self, partition: PartitionId, batch: Bytes) -> Result<Appended, HubError> {
        self.alive()?;
        let mut at = self.world.partitions[partition.0 as usize].lock();
        let appended = World::append_locked(&mut at, self.world.now_ms(), batch);
        drop(at);
        self.world.bump();
        appended
    }

    async fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        max_bytes: u64,
        wait: Duration,
    ) -> Result<ReadReply, HubError> {
        let look = || {
            self.alive()?;
            let at = self.world.partitions[partition.0 as usize].lock();
            let head = StreamQuery::new(at.store.as_ref(), partition).head().unwrap();
            let (mut batches, mut next, mut bytes) = (Vec::new(), from, 0);
            for stored in &at.batches {
                let count = BatchReader::new(stored.batch.clone()).unwrap().header().count;
                let end = stored.base_offset.plus(count.into());
                if end > from && (batches.is_empty() || bytes < max_bytes) {
                    bytes += stored.batch.len() as u64;
                    batches.push(stored.clone());
                    next = end;
                }
            }
            Ok(ReadReply { batches, next, high_watermark: head.next, start: head.start })
        };
        let mut changed = self.world.changed.subscribe();
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let reply: ReadReply = look()?;
            if !reply.batches.is_empty() {
                return Ok(reply);
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(deadline) => return Ok(reply),
            }
        }
    }

    async fn resolve(&self, partition: PartitionId, from: ReadFrom) -> Result<Offset, HubError> {
        self.alive()?;
        Ok(match from {
            ReadFrom::Earliest => Offset(0),
            ReadFrom::Latest => Offset(self.world.end(partition.0)),
            ReadFrom::Offset(offset) => offset,
            ReadFrom::Time(_) => Offset(0),
        })
    }

    async fn partition_info(&self, _: PartitionId) -> Result<PartitionInfo, HubError> {
        Err(HubError::Unavailable("not asked by functions".into()))
    }

    async fn group_join(
        &self,
        group: &str,
        member: Option<MemberId>,
        client_name: &str,
        session_timeout: Duration,
    ) -> Result<GroupAssignment, HubError> {
        self.alive()?;
        let command = StreamCommand::GroupJoin {
            group: group.to_owned(),
            member,
            client_name: client_name.to_owned(),
            session_timeout_ms: session_timeout.as_millis() as u64,
        };
        match self.world.stream(self.coordinator(group), &command, Bytes::new())? {
            StreamReply::Assigned(assignment) => Ok(assigned(assignment)),
            other => panic!("{other:?}"),
        }
    }

    async fn group_heartbeat(
        &self,
        group: &str,
        member: MemberId,
        _generation: u64,
        released: &[PartitionId],
    ) -> Result<GroupAssignment, HubError> {
        self.alive()?;
        let at = self.coordinator(group);
        let command =
            StreamCommand::GroupRelease { group: group.to_owned(), member, released: released.to_vec() };
        match self.world.stream(at, &command, Bytes::new())? {
            StreamReply::Assigned(assignment) => Ok(assigned(assignment)),
            other => panic!("{other:?}"),
        }
    }

    async fn group_leave(&self, group: &str, member: MemberId) -> Result<(), HubError> {
        self.alive()?;
        let command = StreamCommand::GroupRemove { group: group.to_owned(), members: vec![member] };
        self.world.stream(self.coordinator(group), &command, Bytes::new()).map(drop)
    }

    async fn group_describe(&self, group: &str) -> Result<GroupDescription, HubError> {
        Ok(GroupDescription { group: group.to_owned(), ..GroupDescription::default() })
    }

    async fn group_list(&self, _: PartitionId) -> Result<Vec<String>, HubError> {
        Ok(Vec::new())
    }

    async fn claim(
        &self,
        partition: PartitionId,
        group: &str,
        member: MemberId,
        epoch: u64,
    ) -> Result<CheckpointInfo, HubError> {
        self.alive()?;
        let command = StreamCommand::Claim { group: group.to_owned(), member, epoch };
        match self.world.stream(partition, &command, Bytes::new())? {
            StreamReply::Claimed(found) => Ok(CheckpointInfo {
                epoch: found.epoch,
                member: found.member,
                next: found.next,
                high_watermark: found.end,
            }),
            other => panic!("{other:?}"),
        }
    }

    async fn checkpoint(
        &self,
        partition: PartitionId,
        group: &str,
        epoch: u64,
        next: Offset,
    ) -> Result<(), HubError> {
        self.alive()?;
        let command = StreamCommand::Checkpoint { group: group.to_owned(), epoch, next };
        self.world.stream(partition, &command, Bytes::new()).map(drop)
    }

    async fn checkpoint_read(&self, partition: PartitionId, group: &str) -> Result<CheckpointInfo, HubError> {
        self.alive()?;
        let at = self.world.partitions[partition.0 as usize].lock();
        let query = StreamQuery::new(at.store.as_ref(), partition);
        let found = query.checkpoint(group).unwrap_or_default();
        let high_watermark = query.head().unwrap().next;
        Ok(CheckpointInfo { epoch: found.epoch, member: found.member, next: found.next, high_watermark })
    }

    fn metadata(&self) -> Metadata {
        unimplemented_metadata()
    }

    async fn local_partitions(&self) -> Vec<PartitionInfo> {
        Vec::new()
    }

    async fn change(&self, _: ClusterChange) -> Result<(), HubError> {
        Ok(())
    }

    async fn create_join_token(&self, _: Duration) -> Result<String, HubError> {
        Ok(String::new())
    }

    async fn join(&self, _: JoinRequest) -> Result<JoinReply, HubError> {
        Err(HubError::Unavailable("nobody joins here".into()))
    }
}

fn unimplemented_metadata() -> Metadata {
    Metadata {
        cluster: String::new(),
        node: NodeId(1),
        partitions: 0,
        nodes: Vec::new(),
        leaders: Vec::new(),
        control_leader: None,
    }
}

#[async_trait]
impl DeviceHub for Node {
    fn partitions(&self) -> u32 {
        self.world.partitions.len() as u32
    }

    fn place(&self) -> ConnectionPlace {
        ConnectionPlace { node: self.number, incarnation: 1, connection: 0 }
    }

    fn settings(&self) -> Arc<HubSettings> {
        self.world.hub.clone()
    }

    async fn put_setting(&self, name: &str, value: Bytes, expected_version: u64) -> Result<(), HubError> {
        self.alive()?;
        let mut shared = self.world.shared.lock();
        let setting = shared.settings.entry(name.to_owned()).or_default();
        if setting.0 != expected_version {
            return Err(HubError::Invalid("stale".into()));
        }
        *setting = (expected_version + 1, value);
        drop(shared);
        self.world.bump();
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        self.world.now_ms()
    }

    fn random(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let drawn = self.world.drawn.fetch_add(1, Ordering::SeqCst);
            *byte = (drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        }
    }

    async fn append(&self, partition: PartitionId, batch: Bytes) -> Result<(Appended, u32), HubError> {
        Hub::append(self, partition, batch).await.map(|appended| (appended, 0))
    }

    async fn ask(&self, partition: PartitionId, request: Request) -> Result<DeviceAnswer, HubError> {
        self.alive()?;
        let mut answer = DeviceAnswer::default();
        match request {
            Request::Change(command) => {
                let Some(op) = command.op else { panic!("an empty command") };
                answer.reply = Some(self.world.change(partition, op));
            }
            Request::Commit(commit) => return self.commit(partition, commit),
            Request::Get(ask) => answer.views = self.world.view(&ask.key.device).into_iter().collect(),
            Request::Documents(ask) => {
                let at = self.world.partitions[partition.0 as usize].lock();
                let query = DeviceQuery::new(at.store.as_ref(), partition);
                let found = match ask.all {
                    true => query.documents(&ask.name, &ask.from, ask.limit as usize).unwrap(),
                    false => {
                        query.document(&ask.name).unwrap().map(|row| (ask.name, row)).into_iter().collect()
                    }
                };
                answer.documents = found.into_iter().map(|(name, row)| NamedDocument { name, row }).collect();
            }
            other => panic!("functions don't ask {other:?}"),
        }
        Ok(answer)
    }

    async fn call_gateway(&self, _: NodeId, _: GatewayCall) -> Result<GatewayAnswer, HubError> {
        Ok(GatewayAnswer::default())
    }

    fn leaders(&self) -> watch::Receiver<Leaders> {
        watch::channel(Leaders::default()).1
    }
}

impl Node {
    fn commit(
        &self,
        partition: PartitionId,
        commit: fleetline_devices::Commit,
    ) -> Result<DeviceAnswer, HubError> {
        let commit = fleetline_devices::Commit { now_ms: self.world.now_ms(), ..commit };
        commit.check().map_err(|error| HubError::Invalid(error.to_string()))?;
        // Those that only move a checkpoint are not what tests are about.
        let fault = match commit.changes.ops.is_empty() {
            true => None,
            false => self.world.shared.lock().faults.pop_front(),
        };
        match fault {
            Some(Fault::Refused) => return Err(HubError::Unavailable("made to fail".into())),
            Some(Fault::Lost) => return Err(HubError::Unknown("made to be lost".into())),
            _ => {}
        }
        let (head, body) = commit.encode_entry();
        let reply = CommitReply::decode(self.world.apply(partition, head, body)).unwrap();
        if let StreamReply::Refused(error) = StreamReply::decode(&reply.stream).unwrap() {
            self.world.shared.lock().refused += 1;
            self.world.bump();
            return Err(hub_error(error));
        }
        let done = (partition.0, commit.first, commit.next, commit.changes.ops.len());
        self.world.shared.lock().commits.push(done);
        if fault == Some(Fault::Applied) {
            return Err(HubError::Unknown("made to be unknown".into()));
        }
        Ok(DeviceAnswer { committed: Some(reply.changes.unwrap_or_default()), ..DeviceAnswer::default() })
    }
}
