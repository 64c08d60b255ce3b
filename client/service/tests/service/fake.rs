//! A broker in memory: partitions with deduplication and long-poll, consumer groups, and faults that
//! a test scripts. All nodes of a test share one [`Store`]; a node that doesn't lead a partition
//! says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_batch::{BatchBuilder, BatchHeader, Compression, RecordRef};
use fleetline_client::{HubError, MemberId, NodeId, Offset, PartitionId, TimestampMs};
use fleetline_gateway::hub::{
    Appended, CheckpointInfo, ClusterChange, GroupAssignment, GroupDescription, Hub, JoinReply, JoinRequest,
    Metadata, NodeInfo, PartitionInfo, ReadFrom, ReadReply, StoredBatch,
};
use fleetline_types::ProducerId;
use parking_lot::Mutex;
use tokio::sync::watch;

/// What goes wrong with one append.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answered with this error; nothing is stored.
    Refuse(HubError),
    /// Stored, and then answered as if nobody knew.
    StoreThenUnknown,
    /// Not stored, and answered as if nobody knew.
    LoseThenUnknown,
    /// Stored, but the answer waits until [`Store::release`].
    StoreThenHang,
    /// From this append on, all wait until [`Store::release`], and are then stored in the order in
    /// which they came.
    HangThenStore,
}

/// The header of a batch, as the fake needs it.
pub struct Header {
    pub producer: u64,
    pub epoch: u64,
    pub sequence: u64,
    pub count: u64,
}

pub fn header_of(batch: &Bytes) -> Result<Header, HubError> {
    let header = BatchHeader::verify(batch).map_err(|error| HubError::Invalid(error.to_string()))?;
    let fleetline_batch::Producer { id, epoch, first_sequence } = header.producer;
    let (epoch, count) = (epoch.into(), header.count.into());
    Ok(Header { producer: id.0, epoch, sequence: first_sequence, count })
}

/// The broker's state.
pub struct Store {
    state: Mutex<State>,
    /// Counts changes, for long-polls and hung appends.
    changed: watch::Sender<u64>,
}

struct State {
    partitions: Vec<Partition>,
    nodes: BTreeMap<NodeId, NodeInfo>,
    faults: VecDeque<Fault>,
    /// Hung appends wait.
    hanging: bool,
    /// Appends join the queue of those that hang.
    gated: bool,
    /// Hung appends that are not stored, in the order of their coming.
    queue: VecDeque<u64>,
    appends: u64,
    bytes_read: u64,
    groups: BTreeMap<String, Group>,
    members: u64,
    changes: Vec<ClusterChange>,
}

#[derive(Default)]
struct Partition {
    leader: Option<NodeId>,
    batches: Vec<(StoredBatch, u64)>,
    start: u64,
    end: u64,
    producers: BTreeMap<u64, Producer>,
    checkpoints: BTreeMap<String, CheckpointInfo>,
}

#[derive(Default)]
struct Producer {
    epoch: u64,
    next: u64,
    stored: BTreeMap<u64, Appended>,
}

#[derive(Default)]
struct Group {
    generation: u64,
    members: BTreeMap<MemberId, Member>,
}

#[derive(Default)]
struct Member {
    name: String,
    owned: BTreeMap<PartitionId, u64>,
    revoking: BTreeSet<PartitionId>,
}

impl Store {
    pub fn new(partitions: u32) -> Arc<Store> {
        let partition = || Partition { leader: Some(NodeId(1)), ..Partition::default() };
        let state = State {
            partitions: (0..partitions).map(|_| partition()).collect(),
            nodes: BTreeMap::new(),
            faults: VecDeque::new(),
            hanging: true,
            gated: false,
            queue: VecDeque::new(),
            appends: 0,
            bytes_read: 0,
            groups: BTreeMap::new(),
            members: 0,
            changes: Vec::new(),
        };
        Arc::new(Store { state: Mutex::new(state), changed: watch::channel(0).0 })
    }

    pub fn set_node(&self, node: NodeId, address: SocketAddr) {
        let info = NodeInfo {
            node,
            client_address: format!("127.0.0.1:{}", address.port()),
            peer_address: String::new(),
            zone: String::new(),
            draining: false,
            alive: true,
        };
        self.state.lock().nodes.insert(node, info);
    }

    pub fn set_alive(&self, node: NodeId, alive: bool) {
        self.state.lock().nodes.get_mut(&node).unwrap().alive = alive;
    }

    /// Makes `leader` the leader of all partitions.
    pub fn set_leader(&self, leader: Option<NodeId>) {
        self.state.lock().partitions.iter_mut().for_each(|p| p.leader = leader);
        self.bump();
    }

    /// The next appends meet these faults, one each.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().faults.extend(faults);
    }

    /// Lets hung appends go on, now and in future.
    pub fn release(&self) {
        self.state.lock().hanging = false;
        self.bump();
    }

    /// Forgets all producers, as a partition does with those it hasn't heard of for long.
    pub fn forget_producers(&self) {
        self.state.lock().partitions.iter_mut().for_each(|p| p.producers.clear());
    }

    /// Removes everything before `start` from a partition.
    pub fn trim(&self, partition: PartitionId, start: u64) {
        let mut state = self.state.lock();
        let partition = &mut state.partitions[partition.0 as usize];
        partition.start = start;
        partition.batches.retain(|(batch, count)| batch.base_offset.0 + count > start);
    }

    /// Appends that were asked for so far, with those that failed.
    pub fn appends(&self) -> u64 {
        self.state.lock().appends
    }

    /// Bytes of batches given to readers so far.
    pub fn bytes_read(&self) -> u64 {
        self.state.lock().bytes_read
    }

    /// Changes that were asked for so far.
    pub fn changes(&self) -> Vec<ClusterChange> {
        self.state.lock().changes.clone()
    }

    /// Waits until `condition` holds for the number of appends asked for.
    pub async fn wait_appends(&self, condition: impl Fn(u64) -> bool) {
        self.wait(|state| condition(state.appends).then_some(())).await
    }

    /// A claim from outside, with an epoch beyond all that were given.
    pub fn usurp(&self, partition: PartitionId, group: &str) {
        let mut state = self.state.lock();
        let checkpoints = &mut state.partitions[partition.0 as usize].checkpoints;
        checkpoints.entry(group.to_owned()).or_default().epoch = 1_000_000;
    }

    /// Forgets all members of a group, as if their sessions had expired.
    pub fn expire_members(&self, group: &str) {
        let mut state = self.state.lock();
        let group = state.groups.get_mut(group).unwrap();
        group.members.clear();
        group.generation += 1;
    }

    fn bump(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    async fn wait<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(found) = look(&mut self.state.lock()) {
                return found;
            }
            changed.changed().await.unwrap();
        }
    }
}

impl State {
    fn partition(&mut self, partition: PartitionId) -> Result<&mut Partition, HubError> {
        self.partitions
            .get_mut(partition.0 as usize)
            .ok_or_else(|| HubError::NotFound(format!("partition {partition}")))
    }

    fn led_by(&mut self, partition: PartitionId, node: NodeId) -> Result<&mut Partition, HubError> {
        let found = self.partition(partition)?;
        if found.leader != Some(node) {
            return Err(HubError::NotLeader { what: partition.to_string(), leader: found.leader });
        }
        Ok(found)
    }

    fn coordinated_by(&mut self, group: &str, node: NodeId) -> Result<&mut Group, HubError> {
        let count = self.partitions.len() as u32;
        self.led_by(fleetline_client::partition_of_key(group.as_bytes(), count), node)?;
        Ok(self.groups.entry(group.to_owned()).or_default())
    }
}

impl Partition {
    fn append(&mut self, batch: Bytes) -> Result<Appended, HubError> {
        let header = header_of(&batch)?;
        let producer = self.producers.entry(header.producer).or_default();
        if header.epoch < producer.epoch {
            let (what, current, given) = ("producer".into(), producer.epoch, header.epoch);
            return Err(HubError::Fenced { what, current, given });
        }
        if header.epoch > producer.epoch {
            *producer = Producer { epoch: header.epoch, ..Producer::default() };
        }
        if let Some(stored) = producer.stored.get(&header.sequence) {
            return Ok(Appended { duplicate: true, ..*stored });
        }
        if header.sequence != producer.next {
            let (expected, given) = (producer.next, header.sequence);
            return Err(HubError::OutOfSequence { expected, given });
        }
        let base_offset = Offset(self.end);
        let enqueued = TimestampMs(1_000 + self.end);
        let appended = Appended { base_offset, enqueued, duplicate: false };
        producer.next += header.count;
        producer.stored.insert(header.sequence, appended);
        self.end += header.count;
        self.batches.push((StoredBatch { base_offset, enqueued, batch }, header.count));
        Ok(appended)
    }

    fn read(&self, from: Offset, max_bytes: u64) -> Result<Option<ReadReply>, HubError> {
        if from.0 < self.start {
            return Err(HubError::OffsetGone { asked: from, start: Offset(self.start) });
        }
        if from.0 > self.end {
            return Err(HubError::OffsetBeyondEnd { asked: from, end: Offset(self.end) });
        }
        let (mut batches, mut bytes, mut next) = (Vec::new(), 0, from);
        for (batch, count) in &self.batches {
            let end = batch.base_offset.plus(*count);
            if end.0 <= from.0 || (!batches.is_empty() && bytes >= max_bytes) {
                continue;
            }
            bytes += batch.batch.len() as u64;
            next = end;
            batches.push(batch.clone());
        }
        let (high_watermark, start) = (Offset(self.end), Offset(self.start));
        Ok((!batches.is_empty()).then_some(ReadReply { batches, next, high_watermark, start }))
    }
}

impl Group {
    /// Gives each partition to a member in turn. What has to move is revoked first.
    fn balance(&mut self, partitions: u32) {
        let members: Vec<MemberId> = self.members.keys().copied().collect();
        if members.is_empty() {
            return;
        }
        for p in (0..partitions).map(PartitionId) {
            let target = members[p.0 as usize % members.len()];
            let owner = self.members.iter().find(|(_, m)| m.owned.contains_key(&p)).map(|(id, _)| *id);
            match owner {
                Some(owner) if owner != target => {
                    self.members.get_mut(&owner).unwrap().revoking.insert(p);
                }
                Some(_) => {}
                None => {
                    self.generation += 1;
                    let generation = self.generation;
                    self.members.get_mut(&target).unwrap().owned.insert(p, generation);
                }
            }
        }
    }

    fn assignment(&self, member: MemberId) -> GroupAssignment {
        let found = &self.members[&member];
        let owned = found.owned.iter().filter(|(p, _)| !found.revoking.contains(p));
        GroupAssignment {
            member,
            generation: self.generation,
            owned: owned.map(|(p, epoch)| (*p, *epoch)).collect(),
            revoking: found.revoking.iter().copied().collect(),
            session_timeout: Duration::from_millis(300),
        }
    }
}

/// How an append goes on.
enum Next {
    Answer(Result<Appended, HubError>),
    AnswerLater(Result<Appended, HubError>),
    Queue(u64),
}

/// A place in the queue of hung appends; given up when the append is stored or dropped.
struct Queued<'a> {
    store: &'a Store,
    ticket: u64,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.store.state.lock().queue.retain(|ticket| *ticket != self.ticket);
        self.store.bump();
    }
}

impl Store {
    /// What the partition does at once, in the order in which appends are first polled.
    fn begin_append(&self, node: NodeId, partition: PartitionId, batch: &Bytes) -> Next {
        let mut state = self.state.lock();
        state.appends += 1;
        let ticket = state.appends;
        if let Err(error) = state.led_by(partition, node) {
            return Next::Answer(Err(error));
        }
        let fault = state.faults.pop_front();
        if matches!(fault, Some(Fault::HangThenStore)) {
            state.gated = true;
        }
        if state.gated && (state.hanging || !state.queue.is_empty()) {
            state.queue.push_back(ticket);
            return Next::Queue(ticket);
        }
        let found = match state.partition(partition) {
            Ok(found) => found,
            Err(error) => return Next::Answer(Err(error)),
        };
        let unknown = || HubError::Unknown("scripted".into());
        match fault {
            Some(Fault::Refuse(error)) => Next::Answer(Err(error)),
            Some(Fault::StoreThenUnknown) => Next::Answer(found.append(batch.clone()).and(Err(unknown()))),
            Some(Fault::LoseThenUnknown) => Next::Answer(Err(unknown())),
            Some(Fault::StoreThenHang) => Next::AnswerLater(found.append(batch.clone())),
            None | Some(Fault::HangThenStore) => Next::Answer(found.append(batch.clone())),
        }
    }
}

/// One node over the shared store.
pub struct FakeNode {
    pub node: NodeId,
    pub store: Arc<Store>,
}

#[async_trait]
impl Hub for FakeNode {
    async fn append(&self, partition: PartitionId, batch: Bytes) -> Result<Appended, HubError> {
        let next = self.store.begin_append(self.node, partition, &batch);
        self.store.bump();
        match next {
            Next::Answer(result) => result,
            Next::AnswerLater(result) => {
                self.store.wait(|state| (!state.hanging).then_some(())).await;
                result
            }
            Next::Queue(ticket) => {
                let _queued = Queued { store: &self.store, ticket };
                let first = |state: &mut State| !state.hanging && state.queue.front() == Some(&ticket);
                self.store
                    .wait(|state| {
                        first(state).then(|| state.led_by(partition, self.node)?.append(batch.clone()))
                    })
                    .await
            }
        }
    }

    async fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        max_bytes: u64,
        wait: Duration,
    ) -> Result<ReadReply, HubError> {
        let look = |state: &mut State| match state.partition(partition).and_then(|p| p.read(from, max_bytes))
        {
            Ok(Some(reply)) => {
                state.bytes_read += reply.batches.iter().map(|b| b.batch.len() as u64).sum::<u64>();
                Some(Ok(reply))
            }
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        };
        match tokio::time::timeout(wait, self.store.wait(look)).await {
            Ok(result) => result,
            Err(_) => {
                let mut state = self.store.state.lock();
                let found = state.partition(partition)?;
                let (high_watermark, start) = (Offset(found.end), Offset(found.start));
                Ok(ReadReply { batches: Vec::new(), next: from, high_watermark, start })
            }
        }
    }

    async fn resolve(&self, partition: PartitionId, from: ReadFrom) -> Result<Offset, HubError> {
        let mut state = self.store.state.lock();
        let found = state.partition(partition)?;
        Ok(match from {
            ReadFrom::Earliest => Offset(found.start),
            ReadFrom::Latest => Offset(found.end),
            ReadFrom::Offset(offset) => offset,
            ReadFrom::Time(time) => {
                let later = found.batches.iter().find(|(batch, _)| batch.enqueued >= time);
                later.map_or(Offset(found.end), |(batch, _)| batch.base_offset)
            }
        })
    }

    async fn partition_info(&self, partition: PartitionId) -> Result<PartitionInfo, HubError> {
        let mut state = self.store.state.lock();
        let found = state.led_by(partition, self.node)?;
        Ok(PartitionInfo {
            partition,
            leader: found.leader,
            term: Default::default(),
            voters: Vec::new(),
            learners: Vec::new(),
            start: Offset(found.start),
            high_watermark: Offset(found.end),
            last_enqueued: TimestampMs(0),
            bytes: 0,
            replication_lag: 0,
            apply_lag: 0,
            damaged: 0,
        })
    }

    async fn group_join(
        &self,
        group: &str,
        member: Option<MemberId>,
        client_name: &str,
        _session_timeout: Duration,
    ) -> Result<GroupAssignment, HubError> {
        let mut state = self.store.state.lock();
        let partitions = state.partitions.len() as u32;
        state.members += 1;
        let fresh = MemberId(state.members);
        let found = state.coordinated_by(group, self.node)?;
        if let Some(member) = member
            && !found.members.contains_key(&member)
        {
            return Err(HubError::NotFound(format!("member {member}")));
        }
        let member = member.unwrap_or(fresh);
        found.members.entry(member).or_default().name = client_name.to_owned();
        found.balance(partitions);
        Ok(found.assignment(member))
    }

    async fn group_heartbeat(
        &self,
        group: &str,
        member: MemberId,
        _generation: u64,
        released: &[PartitionId],
    ) -> Result<GroupAssignment, HubError> {
        let mut state = self.store.state.lock();
        let partitions = state.partitions.len() as u32;
        let found = state.coordinated_by(group, self.node)?;
        let Some(known) = found.members.get_mut(&member) else {
            return Err(HubError::NotFound(format!("member {member}")));
        };
        for partition in released {
            known.owned.remove(partition);
            known.revoking.remove(partition);
        }
        found.balance(partitions);
        Ok(found.assignment(member))
    }

    async fn group_leave(&self, group: &str, member: MemberId) -> Result<(), HubError> {
        let mut state = self.store.state.lock();
        let partitions = state.partitions.len() as u32;
        let found = state.coordinated_by(group, self.node)?;
        found.members.remove(&member);
        found.members.values_mut().for_each(|m| m.revoking.clear());
        found.balance(partitions);
        Ok(())
    }

    async fn group_describe(&self, group: &str) -> Result<GroupDescription, HubError> {
        let mut state = self.store.state.lock();
        let found = state.coordinated_by(group, self.node)?;
        let members = found.members.iter();
        Ok(GroupDescription {
            group: group.to_owned(),
            generation: found.generation,
            members: members
                .map(|(id, m)| (*id, m.name.clone(), m.owned.keys().copied().collect()))
                .collect(),
        })
    }

    async fn group_list(&self, partition: PartitionId) -> Result<Vec<String>, HubError> {
        let mut state = self.store.state.lock();
        Ok(state.led_by(partition, self.node)?.checkpoints.keys().cloned().collect())
    }

    async fn claim(
        &self,
        partition: PartitionId,
        group: &str,
        member: MemberId,
        epoch: u64,
    ) -> Result<CheckpointInfo, HubError> {
        let mut state = self.store.state.lock();
        let found = state.led_by(partition, self.node)?;
        let high_watermark = Offset(found.end);
        let checkpoint = found.checkpoints.entry(group.to_owned()).or_default();
        if epoch < checkpoint.epoch {
            return Err(HubError::Fenced { what: group.into(), current: checkpoint.epoch, given: epoch });
        }
        *checkpoint = CheckpointInfo { epoch, member, next: checkpoint.next, high_watermark };
        Ok(*checkpoint)
    }

    async fn checkpoint(
        &self,
        partition: PartitionId,
        group: &str,
        epoch: u64,
        next: Offset,
    ) -> Result<(), HubError> {
        let mut state = self.store.state.lock();
        let found = state.led_by(partition, self.node)?;
        let checkpoint = found.checkpoints.entry(group.to_owned()).or_default();
        if epoch < checkpoint.epoch {
            return Err(HubError::Fenced { what: group.into(), current: checkpoint.epoch, given: epoch });
        }
        checkpoint.next = checkpoint.next.max(Some(next));
        Ok(())
    }

    async fn checkpoint_read(&self, partition: PartitionId, group: &str) -> Result<CheckpointInfo, HubError> {
        let mut state = self.store.state.lock();
        let found = state.led_by(partition, self.node)?;
        Ok(found.checkpoints.get(group).copied().unwrap_or_default())
    }

    fn metadata(&self) -> Metadata {
        let state = self.store.state.lock();
        let all: Vec<NodeId> = state.nodes.keys().copied().collect();
        let leaders = state.partitions.iter().enumerate();
        Metadata {
            cluster: "test".into(),
            node: self.node,
            partitions: state.partitions.len() as u32,
            nodes: state.nodes.values().cloned().collect(),
            leaders: leaders.map(|(i, p)| (PartitionId(i as u32), p.leader, all.clone())).collect(),
            control_leader: Some(NodeId(1)),
        }
    }

    async fn local_partitions(&self) -> Vec<PartitionInfo> {
        let count = self.store.state.lock().partitions.len() as u32;
        let mut infos = Vec::new();
        for partition in (0..count).map(PartitionId) {
            infos.extend(self.partition_info(partition).await.ok());
        }
        infos
    }

    async fn change(&self, change: ClusterChange) -> Result<(), HubError> {
        self.store.state.lock().changes.push(change);
        Ok(())
    }

    async fn create_join_token(&self, _valid_for: Duration) -> Result<String, HubError> {
        Ok("token".into())
    }

    async fn join(&self, request: JoinRequest) -> Result<JoinReply, HubError> {
        if request.secret != "token" {
            return Err(HubError::Forbidden("the token is not known".into()));
        }
        Ok(JoinReply {
            node: NodeId(9),
            cluster: "test".into(),
            certificate_pem: request.csr_pem,
            authority_pem: String::new(),
            nodes: Vec::new(),
            partitions: 4,
        })
    }
}

/// A batch as a caller would build it.
pub fn build(records: &[(&str, &str)]) -> Bytes {
    build_with(fleetline_batch::Producer::default(), records)
}

/// A batch of producer 7 in its first epoch.
pub fn build_as(first_sequence: u64, records: &[(&str, &str)]) -> Bytes {
    build_with(fleetline_batch::Producer { id: ProducerId(7), epoch: 0, first_sequence }, records)
}

fn build_with(producer: fleetline_batch::Producer, records: &[(&str, &str)]) -> Bytes {
    let mut builder = BatchBuilder::default();
    for (device, body) in records {
        let (device, body) = (device.as_bytes(), body.as_bytes());
        builder.push(&RecordRef { device, body, ..RecordRef::default() }).unwrap();
    }
    builder.finish(producer, Compression::None).unwrap()
}
