//! A cluster in memory: partitions whose commands are applied by the real state machine, nodes that can
//! die, and commits whose outcome can be made unknown.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fleetline_batch::{BatchBuilder, BatchReader, Compression, Producer, RecordRef, RecordView};
use fleetline_devices::{
    AuthRow, CommandRow, Condition, DeviceCommand, DeviceKey, DeviceQuery, DeviceReply, DeviceSpec,
    DeviceView, EventRow, OUTBOX_PRODUCER, Op, PutDevice, endpoints,
};
use fleetline_gateway::devices::settings::{HubSettings, default_policies};
use fleetline_gateway::hub::{Appended, HubError, StoredBatch};
use fleetline_gateway::tiers::{RawSetting, TierService};
use fleetline_partition::PartitionMachine;
use fleetline_raft_group::{Command, Machine};
use fleetline_state::memory::MemState;
use fleetline_state::{StateBatch, StateStore};
use fleetline_streams::{StreamCommand, StreamError, StreamLimits, StreamQuery, StreamReply};
use fleetline_twins::Section;
use fleetline_types::{LogId, MemberId, PartitionId, ProducerId, TimestampMs, partition_of_key};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;

use super::node::Node;

pub const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
pub const HOST: &str = "hub.example";

/// What happens to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not done, and that is known.
    Refused,
    /// It is done, and nobody hears of it.
    Applied,
    /// It is not done, and nobody knows.
    Lost,
}

pub struct Partition {
    machine: PartitionMachine,
    pub store: Arc<MemState>,
    index: u64,
    pub batches: Vec<StoredBatch>,
}

#[derive(Default)]
pub struct Shared {
    pub alive: BTreeSet<u64>,
    pub settings: BTreeMap<String, (u64, Bytes)>,
    pub faults: VecDeque<Fault>,
    /// Commits that were applied: partition, first, next, changes.
    pub commits: Vec<(u32, u64, u64, usize)>,
    /// Commits that the log has refused.
    pub refused: u64,
}

pub struct World {
    pub partitions: Vec<Mutex<Partition>>,
    pub shared: Mutex<Shared>,
    pub services: Mutex<HashMap<u64, Weak<dyn TierService>>>,
    pub changed: watch::Sender<u64>,
    clock_ms: AtomicU64,
    pub drawn: AtomicU64,
    pub hub: Arc<HubSettings>,
}

impl World {
    pub fn new(nodes: u64, partitions: u32) -> Arc<World> {
        let make = |number: u32| {
            let store = Arc::new(MemState::new());
            let number = PartitionId(number);
            let (mut machine, _) =
                PartitionMachine::new(number, partitions, StreamLimits::default(), store.clone());
            machine.load(store.as_ref()).unwrap();
            Mutex::new(Partition { machine, store, index: 0, batches: Vec::new() })
        };
        let hub = HubSettings {
            host_name: HOST.into(),
            host_names: vec![HOST.into()],
            policies: default_policies(|| KEY.to_owned()),
            ..HubSettings::default()
        };
        let shared = Shared { alive: (1..=nodes).collect(), ..Shared::default() };
        Arc::new(World {
            partitions: (0..partitions).map(make).collect(),
            shared: Mutex::new(shared),
            services: Mutex::default(),
            changed: watch::channel(0).0,
            clock_ms: AtomicU64::new(0),
            drawn: AtomicU64::new(1),
            hub: Arc::new(hub),
        })
    }

    pub fn node(self: &Arc<World>, number: u64) -> Arc<Node> {
        Arc::new(Node { world: self.clone(), number })
    }

    pub fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        since.as_millis() as u64 + self.clock_ms.load(Ordering::SeqCst)
    }

    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        self.clock_ms.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
        self.bump();
    }

    pub fn bump(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Waits for something to be so. Looked at whenever something changes, and now and then.
    pub async fn until(&self, mut is_so: impl FnMut() -> bool) {
        let mut changed = self.changed.subscribe();
        while !is_so() {
            let wait = changed.changed();
            drop(tokio::time::timeout(Duration::from_millis(10), wait).await);
        }
    }

    /// A node is gone: it is answered nothing any more, and its members of groups expire.
    pub fn kill(&self, node: u64) {
        self.shared.lock().alive.remove(&node);
        self.expire(node);
        self.bump();
    }

    /// Members of a node expire, although it lives.
    pub fn expire(&self, node: u64) {
        let name = format!("functions@{node}");
        for (partition, at) in (0..).map(PartitionId).zip(&self.partitions) {
            let groups = {
                let at = at.lock();
                StreamQuery::new(at.store.as_ref(), partition).consumer_groups().unwrap()
            };
            for (group, state) in groups {
                let of_node = |(id, member): (MemberId, &fleetline_streams::Member)| {
                    (member.client_name == name).then_some(id)
                };
                let members: Vec<MemberId> = state.members().filter_map(of_node).collect();
                if !members.is_empty() {
                    self.stream(partition, &StreamCommand::GroupRemove { group, members }, Bytes::new())
                        .unwrap();
                }
            }
        }
    }

    /// Nodes with members in a group.
    pub fn members(&self, group: &str) -> BTreeSet<String> {
        let partition = partition_of_key(group.as_bytes(), self.partitions.len() as u32);
        let at = self.partitions[partition.0 as usize].lock();
        let found = StreamQuery::new(at.store.as_ref(), partition).consumer_group(group).unwrap();
        let Some(found) = found else { return BTreeSet::new() };
        found.members().map(|(_, member)| member.client_name.clone()).collect()
    }

    pub fn fault(&self, fault: Fault) {
        self.shared.lock().faults.push_back(fault);
    }

    /// Commits that the log has refused.
    pub fn refused(&self) -> u64 {
        self.shared.lock().refused
    }

    /// A stranger takes a group over, and a partition with it; gives the stranger's id.
    pub fn take_over(&self, group: &str, partition: u32) -> MemberId {
        let at = partition_of_key(group.as_bytes(), self.partitions.len() as u32);
        (1..=3).for_each(|node| self.expire(node));
        let join = StreamCommand::GroupJoin {
            group: group.to_owned(),
            member: None,
            client_name: "stranger".into(),
            session_timeout_ms: 60_000,
        };
        let StreamReply::Assigned(given) = self.stream(at, &join, Bytes::new()).unwrap() else { panic!() };
        let (_, epoch) = given.owned.iter().find(|(found, _)| found.0 == partition).unwrap();
        let claim = StreamCommand::Claim { group: group.to_owned(), member: given.member, epoch: *epoch };
        self.stream(PartitionId(partition), &claim, Bytes::new()).unwrap();
        given.member
    }

    /// A member leaves a group.
    pub fn leave(&self, group: &str, member: MemberId) {
        let at = partition_of_key(group.as_bytes(), self.partitions.len() as u32);
        let leave = StreamCommand::GroupRemove { group: group.to_owned(), members: vec![member] };
        self.stream(at, &leave, Bytes::new()).unwrap();
    }

    pub fn commits(&self) -> Vec<(u32, u64, u64, usize)> {
        self.shared.lock().commits.clone()
    }

    /// A device whose id lies in a partition.
    pub fn device_in(&self, partition: u32, number: usize) -> String {
        let count = self.partitions.len() as u32;
        let ids = (0..).map(|n| format!("dev-{n}"));
        ids.filter(|id| partition_of_key(id.as_bytes(), count).0 == partition).nth(number).unwrap()
    }

    pub fn create_device(&self, id: &str) {
        let put = PutDevice {
            key: DeviceKey::device(id),
            spec: DeviceSpec { auth: AuthRow::default(), ..DeviceSpec::default() },
            condition: Condition::absent(),
            new_primary_key: KEY.into(),
            new_secondary_key: KEY.into(),
            ..PutDevice::default()
        };
        let reply = self.change(self.partition_of(id), Op::PutDevice(put));
        assert_eq!(reply.error, None);
    }

    pub fn partition_of(&self, id: &str) -> PartitionId {
        partition_of_key(id.as_bytes(), self.partitions.len() as u32)
    }

    pub fn apply(&self, partition: PartitionId, head: Bytes, body: Bytes) -> Bytes {
        let mut at = self.partitions[partition.0 as usize].lock();
        let reply = Self::apply_locked(&mut at, head, body);
        self.drain_outbox(partition, &mut at);
        drop(at);
        self.bump();
        reply
    }

    fn apply_locked(at: &mut Partition, head: Bytes, body: Bytes) -> Bytes {
        at.index += 1;
        let id = LogId::new(1, at.index);
        let mut batch = StateBatch::default();
        let reply = at.machine.apply(id, &Command { head, body }, &mut batch).unwrap();
        at.machine.end_of_round(&mut batch).unwrap();
        at.store.write(batch).unwrap();
        at.machine.published(id);
        reply.0
    }

    pub fn append_locked(at: &mut Partition, now: u64, batch: Bytes) -> Result<Appended, HubError> {
        let command = StreamCommand::Append { time: TimestampMs(now) };
        let reply = Self::apply_locked(at, command.encode(), batch.clone());
        match StreamReply::decode(&reply).unwrap() {
            StreamReply::Appended { base_offset, enqueued, duplicate } => {
                if !duplicate {
                    at.batches.push(StoredBatch { base_offset, enqueued, batch });
                }
                Ok(Appended { base_offset, enqueued, duplicate })
            }
            StreamReply::Refused(error) => Err(hub_error(error)),
            other => panic!("{other:?}"),
        }
    }

    /// As the leader does: events of the outbox become records.
    fn drain_outbox(&self, partition: PartitionId, at: &mut Partition) {
        loop {
            let (first, events) = DeviceQuery::new(at.store.as_ref(), partition).outbox(1000).unwrap();
            if events.is_empty() {
                return;
            }
            let mut builder = BatchBuilder::new(4 << 20);
            for event in &events {
                push(&mut builder, event);
            }
            let producer = Producer { id: ProducerId(OUTBOX_PRODUCER), epoch: 1, first_sequence: first };
            let batch = builder.finish(producer, Compression::None).unwrap();
            Self::append_locked(at, self.now_ms(), batch).unwrap();
        }
    }

    pub fn stream(
        &self,
        partition: PartitionId,
        command: &StreamCommand,
        body: Bytes,
    ) -> Result<StreamReply, HubError> {
        let reply = self.apply(partition, command.encode(), body);
        match StreamReply::decode(&reply).unwrap() {
            StreamReply::Refused(error) => Err(hub_error(error)),
            reply => Ok(reply),
        }
    }

    pub fn change(&self, partition: PartitionId, op: Op) -> DeviceReply {
        let command = DeviceCommand { now_ms: self.now_ms(), ..DeviceCommand::new(op) };
        if let Err(error) = command.check() {
            return error.reply();
        }
        let (head, body) = command.encode_entry();
        DeviceReply::decode(self.apply(partition, head, body)).unwrap()
    }

    /// Devices send messages, one batch per message.
    pub fn send(&self, device: &str, body: &str) {
        let event = EventRow {
            device: device.to_owned(),
            time_ms: self.now_ms(),
            body: body.to_owned().into(),
            endpoints: endpoints::TELEMETRY,
            ..EventRow::default()
        };
        self.send_event(&event);
    }

    pub fn send_event(&self, event: &EventRow) {
        let partition = self.partition_of(&event.device);
        let mut builder = BatchBuilder::new(1 << 20);
        push(&mut builder, event);
        let batch = builder.finish(Producer::default(), Compression::None).unwrap();
        let mut at = self.partitions[partition.0 as usize].lock();
        Self::append_locked(&mut at, self.now_ms(), batch).unwrap();
        drop(at);
        self.bump();
    }

    /// All records of a partition.
    pub fn records(&self, partition: u32) -> Vec<RecordView> {
        let at = self.partitions[partition as usize].lock();
        let of = |stored: &StoredBatch| BatchReader::new(stored.batch.clone()).unwrap().map(Result::unwrap);
        at.batches.iter().flat_map(of).collect()
    }

    /// Records with a message source, of all partitions: body and application properties.
    pub fn records_from(&self, source: &str) -> Vec<(String, BTreeMap<String, String>)> {
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        let id = fleetline_iothub::bag::SystemProperty::MessageSource.number();
        let all = (0..self.partitions.len() as u32).flat_map(|partition| self.records(partition));
        all.filter(|record| record.system().any(|(found, value)| found == id && value == source.as_bytes()))
            .map(|record| {
                let properties = record.properties().map(|(name, value)| (text(name), text(value))).collect();
                (text(record.body.clone()), properties)
            })
            .collect()
    }

    pub fn checkpoint(&self, partition: u32, group: &str) -> Option<u64> {
        let at = self.partitions[partition as usize].lock();
        let query = StreamQuery::new(at.store.as_ref(), PartitionId(partition));
        query.checkpoint(group).ok()?.next.map(|next| next.0)
    }

    pub fn end(&self, partition: u32) -> u64 {
        let at = self.partitions[partition as usize].lock();
        StreamQuery::new(at.store.as_ref(), PartitionId(partition)).head().unwrap().next.0
    }

    pub fn view(&self, device: &str) -> Option<DeviceView> {
        let partition = self.partition_of(device);
        let at = self.partitions[partition.0 as usize].lock();
        let query = DeviceQuery::new(at.store.as_ref(), partition);
        let key = DeviceKey::device(device);
        let row = query.device(&key).unwrap()?;
        let twin = query.twin(&key).unwrap().unwrap();
        let commands = query.command_count(&key).unwrap();
        Some(DeviceView { device: row, twin, session: query.session(&key).unwrap(), commands })
    }

    /// Version, tags and desired properties of a twin.
    pub fn twin(&self, device: &str) -> (u64, serde_json::Value, serde_json::Value) {
        let twin = self.view(device).unwrap().twin;
        let tags = serde_json::from_slice(&twin.tags).unwrap_or_default();
        (twin.version, tags, Section::decode(&twin.desired).unwrap().device_json().into())
    }

    pub fn commands(&self, device: &str) -> Vec<CommandRow> {
        let partition = self.partition_of(device);
        let at = self.partitions[partition.0 as usize].lock();
        let query = DeviceQuery::new(at.store.as_ref(), partition);
        query.commands(&DeviceKey::device(device), 0, 0, 100).unwrap()
    }

    /// Names and sizes of documents whose names begin so.
    pub fn documents(&self, prefix: &str) -> Vec<(String, usize)> {
        let mut all = Vec::new();
        for (partition, at) in (0..).map(PartitionId).zip(&self.partitions) {
            let at = at.lock();
            let found =
                DeviceQuery::new(at.store.as_ref(), partition).documents(prefix, "", 100_000).unwrap();
            all.extend(found.into_iter().map(|(name, row)| (name, row.value.len())));
        }
        all
    }

    /// A document's value.
    pub fn document(&self, name: &str, partition: u32) -> Vec<u8> {
        let at = self.partitions[partition as usize].lock();
        let found = DeviceQuery::new(at.store.as_ref(), PartitionId(partition)).document(name).unwrap();
        found.unwrap().value.to_vec()
    }

    pub fn setting(&self, name: &str) -> RawSetting {
        let found = self.shared.lock().settings.get(name).cloned().unwrap_or_default();
        RawSetting { name: name.to_owned(), version: found.0, value: found.1 }
    }
}

fn push(builder: &mut BatchBuilder, event: &EventRow) {
    let system: Vec<(u8, &[u8])> =
        event.system.iter().map(|row| (row.id as u8, row.value.as_bytes())).collect();
    let properties: Vec<(&[u8], &[u8])> =
        event.properties.iter().map(|row| (row.name.as_bytes(), row.value.as_bytes())).collect();
    builder
        .push(&RecordRef {
            device: event.device.as_bytes(),
            time: TimestampMs(event.time_ms),
            endpoints: event.endpoints,
            system: &system,
            properties: &properties,
            body: &event.body,
        })
        .unwrap();
}

pub fn hub_error(error: StreamError) -> HubError {
    match error {
        StreamError::Fenced { what, current, given } => HubError::Fenced { what, current, given },
        StreamError::OutOfSequence { expected, given } => HubError::OutOfSequence { expected, given },
        StreamError::NotFound(what) => HubError::NotFound(what),
        StreamError::Invalid(what) => HubError::Invalid(what),
        StreamError::Limit(reason) => HubError::Busy { reason, retry_after_ms: 1 },
    }
}
