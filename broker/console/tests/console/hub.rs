//! A hub of some partitions in memory: device commands are applied by `fleetline_devices`, batches are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_devices::{
    ConnectionPlace, DeviceAnswer, DeviceCommand, DeviceError, DeviceKey, DeviceQuery, DeviceRow,
    DeviceState, DeviceView, Op, Request, endpoints,
};
use fleetline_gateway::devices::hub::{DeviceHub, GatewayAnswer, GatewayCall, Leaders};
use fleetline_gateway::devices::settings::HubSettings;
use fleetline_gateway::hub::{
    Appended, CheckpointInfo, ClusterChange, GroupAssignment, GroupDescription, Hub, HubError, JoinReply,
    JoinRequest, Metadata, NodeInfo, PartitionInfo, ReadFrom, ReadReply, StoredBatch,
};
use fleetline_state::memory::MemState;
use fleetline_state::{StateBatch, StateStore};
use fleetline_types::{LogId, MemberId, NodeId, Offset, PartitionId, Term, TimestampMs, partition_of_key};
use parking_lot::Mutex;
use tokio::sync::watch;

struct Partition {
    state: DeviceState,
    store: Arc<MemState>,
    index: u64,
    batches: Vec<StoredBatch>,
    end: u64,
    bytes: u64,
}

/// The hub. This node is node 1; it leads even partitions, node 2 the odd ones.
pub struct TestHub {
    partitions: Vec<Mutex<Partition>>,
    settings: Mutex<Arc<HubSettings>>,
    now_ms: AtomicU64,
    /// Calls of `Hub::read`, and bytes that they gave.
    pub reads: AtomicU64,
    pub bytes_read: AtomicU64,
    /// Identities that were listed.
    pub listed: AtomicU64,
    leaders: watch::Sender<Leaders>,
}

impl TestHub {
    pub fn new(partitions: u32, settings: HubSettings) -> Arc<TestHub> {
        let partition = |number| {
            let store = Arc::new(MemState::new());
            let state = DeviceState::load(store.clone(), PartitionId(number)).unwrap();
            Mutex::new(Partition { state, store, index: 0, batches: Vec::new(), end: 0, bytes: 0 })
        };
        Arc::new(TestHub {
            partitions: (0..partitions).map(partition).collect(),
            settings: Mutex::new(Arc::new(settings)),
            now_ms: AtomicU64::new(1_795_500_938_000),
            reads: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            listed: AtomicU64::new(0),
            leaders: watch::channel(Leaders::default()).0,
        })
    }

    pub fn advance(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    pub fn set(&self, change: impl FnOnce(&mut HubSettings)) {
        let mut settings = self.settings.lock();
        let mut changed = (**settings).clone();
        change(&mut changed);
        *settings = Arc::new(changed);
    }

    pub fn partition_of(&self, device: &str) -> PartitionId {
        partition_of_key(device.as_bytes(), self.partitions.len() as u32)
    }

    /// Applies a command, as a leader does after it is committed.
    fn apply(&self, partition: PartitionId, mut command: DeviceCommand) -> DeviceAnswer {
        let mut partition = self.partitions[partition.0 as usize].lock();
        partition.index += 1;
        command.now_ms = self.now_ms.load(Ordering::SeqCst);
        let (head, body) = command.encode_entry();
        let command = DeviceCommand::decode_entry(&head, &body).unwrap();
        let id = LogId::new(1, partition.index);
        let mut batch = StateBatch::default();
        let reply = partition.state.apply(id, &command, &mut batch).unwrap();
        partition.state.end_of_round(&mut batch);
        partition.store.write(batch).unwrap();
        partition.state.published();
        DeviceAnswer { reply: Some(reply), ..DeviceAnswer::default() }
    }

    pub fn apply_to(&self, device: &str, op: Op) {
        let answer = self.apply(self.partition_of(device), DeviceCommand::new(op));
        assert_eq!(answer.reply.unwrap().error, None);
    }

    /// The version that an identity's proof is checked against.
    pub fn auth_version(&self, device: &str) -> u64 {
        let number = self.partition_of(device);
        let partition = self.partitions[number.0 as usize].lock();
        let query = DeviceQuery::new(partition.store.as_ref(), number);
        query.device(&DeviceKey::device(device)).unwrap().unwrap().auth_version
    }

    /// Stores one batch in one partition: records of these devices with these bodies.
    pub fn store(&self, partition: PartitionId, records: &[(&str, &[u8])]) {
        self.store_for(partition, endpoints::TELEMETRY, records);
    }

    pub fn store_for(&self, partition: PartitionId, endpoints: u64, records: &[(&str, &[u8])]) {
        let now = TimestampMs(self.now_ms.load(Ordering::SeqCst));
        let mut builder = BatchBuilder::new(4 << 20);
        for (device, body) in records {
            let (device, properties) = (device.as_bytes(), [(&b"source"[..], &b"test"[..])]);
            let record =
                RecordRef { device, time: now, endpoints, system: &[], properties: &properties, body };
            builder.push(&record).unwrap();
        }
        let batch = builder.finish(Producer::default(), Compression::None).unwrap();
        let mut partition = self.partitions[partition.0 as usize].lock();
        let base_offset = Offset(partition.end);
        partition.end += records.len() as u64;
        partition.bytes += batch.len() as u64;
        partition.batches.push(StoredBatch { base_offset, enqueued: now, batch });
    }

    /// Stores a record in the device's own partition.
    pub fn send(&self, device: &str, body: &str) {
        self.store(self.partition_of(device), &[(device, body.as_bytes())]);
    }

    fn leader(partition: PartitionId) -> NodeId {
        NodeId(u64::from(partition.0 % 2) + 1)
    }

    fn answer(&self, number: PartitionId, request: Request) -> Result<DeviceAnswer, DeviceError> {
        let partition = self.partitions[number.0 as usize].lock();
        let query = DeviceQuery::new(partition.store.as_ref(), number);
        let mut answer = DeviceAnswer::default();
        match request {
            Request::Get(ask) => {
                let found = query.device(&ask.key).unwrap();
                answer.views = found.map(|row| view(&query, row)).into_iter().collect();
            }
            Request::List(list) if list.device.is_empty() => {
                let page = query.devices(&list.from, list.limit as usize).unwrap();
                self.listed.fetch_add(page.rows.len() as u64, Ordering::SeqCst);
                answer.views = page.rows.into_iter().map(|row| view(&query, row)).collect();
                answer.next = page.next.unwrap_or_default();
            }
            Request::List(list) => {
                let modules = query.modules(&list.device).unwrap();
                answer.views = modules.into_iter().map(|row| view(&query, row)).collect();
            }
            Request::Head(_) => answer.head = Some(query.head().unwrap()),
            other => panic!("the console doesn't ask {other:?}"),
        }
        Ok(answer)
    }
}

fn view(query: &DeviceQuery<'_>, device: DeviceRow) -> DeviceView {
    let key: DeviceKey = device.key.clone();
    DeviceView {
        device,
        twin: query.twin(&key).unwrap().unwrap(),
        session: query.session(&key).unwrap(),
        commands: query.command_count(&key).unwrap(),
    }
}

#[async_trait]
impl DeviceHub for TestHub {
    fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    fn place(&self) -> ConnectionPlace {
        ConnectionPlace { node: 1, incarnation: 1, connection: 0 }
    }

    fn settings(&self) -> Arc<HubSettings> {
        self.settings.lock().clone()
    }

    async fn put_setting(&self, name: &str, _: Bytes, _: u64) -> Result<(), HubError> {
        panic!("the console changes no setting, not {name}");
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn random(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }

    async fn append(&self, _: PartitionId, _: Bytes) -> Result<(Appended, u32), HubError> {
        panic!("the console appends nothing");
    }

    async fn ask(&self, partition: PartitionId, request: Request) -> Result<DeviceAnswer, HubError> {
        match request {
            Request::Change(command) => Ok(self.apply(partition, command)),
            request => Ok(self.answer(partition, request).unwrap_or_else(|error| DeviceAnswer {
                error: error.reply().error,
                ..DeviceAnswer::default()
            })),
        }
    }

    async fn call_gateway(&self, _: NodeId, _: GatewayCall) -> Result<GatewayAnswer, HubError> {
        panic!("the console calls no gateway");
    }

    fn leaders(&self) -> watch::Receiver<Leaders> {
        self.leaders.subscribe()
    }
}

#[async_trait]
impl Hub for TestHub {
    async fn append(&self, _: PartitionId, _: Bytes) -> Result<Appended, HubError> {
        panic!("the console appends nothing");
    }

    async fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        max_bytes: u64,
        wait: Duration,
    ) -> Result<ReadReply, HubError> {
        assert_eq!(wait, Duration::ZERO, "nobody of the console waits for records");
        self.reads.fetch_add(1, Ordering::SeqCst);
        let partition = self.partitions[partition.0 as usize].lock();
        let behind = |stored: &StoredBatch| stored.base_offset <= from;
        let first = partition.batches.partition_point(behind).saturating_sub(1);
        let (mut batches, mut bytes) = (Vec::new(), 0);
        let end = partition.end;
        for stored in partition.batches.iter().skip(first).filter(|_| from.0 < end) {
            if bytes >= max_bytes {
                break;
            }
            bytes += stored.batch.len() as u64;
            batches.push(stored.clone());
        }
        self.bytes_read.fetch_add(bytes, Ordering::SeqCst);
        let next = partition.batches.get(first + batches.len()).map_or(Offset(end), |next| next.base_offset);
        Ok(ReadReply { batches, next, high_watermark: Offset(end), start: Offset(0) })
    }

    async fn resolve(&self, _: PartitionId, _: ReadFrom) -> Result<Offset, HubError> {
        panic!("the console resolves nothing");
    }

    async fn partition_info(&self, partition: PartitionId) -> Result<PartitionInfo, HubError> {
        let found = self.partitions[partition.0 as usize].lock();
        Ok(PartitionInfo {
            partition,
            leader: Some(TestHub::leader(partition)),
            term: Term(4),
            voters: vec![NodeId(1), NodeId(2)],
            learners: Vec::new(),
            start: Offset(0),
            high_watermark: Offset(found.end),
            last_enqueued: TimestampMs(self.now_ms.load(Ordering::SeqCst)),
            bytes: found.bytes,
            replication_lag: 3,
            apply_lag: 0,
            damaged: 0,
        })
    }

    async fn group_join(
        &self,
        _: &str,
        _: Option<MemberId>,
        _: &str,
        _: Duration,
    ) -> Result<GroupAssignment, HubError> {
        panic!("the console joins no group");
    }

    async fn group_heartbeat(
        &self,
        _: &str,
        _: MemberId,
        _: u64,
        _: &[PartitionId],
    ) -> Result<GroupAssignment, HubError> {
        panic!("the console joins no group");
    }

    async fn group_leave(&self, _: &str, _: MemberId) -> Result<(), HubError> {
        panic!("the console joins no group");
    }

    async fn group_describe(&self, group: &str) -> Result<GroupDescription, HubError> {
        let members = vec![(MemberId::default(), "reader".to_owned(), vec![PartitionId(0)])];
        Ok(GroupDescription { group: group.to_owned(), generation: 5, members })
    }

    async fn group_list(&self, partition: PartitionId) -> Result<Vec<String>, HubError> {
        match partition.0 {
            0 => Ok(vec!["alarms".into(), "archive".into()]),
            1 => Ok(vec!["alarms".into()]),
            _ => Err(HubError::Unavailable("partition".into())),
        }
    }

    async fn claim(&self, _: PartitionId, _: &str, _: MemberId, _: u64) -> Result<CheckpointInfo, HubError> {
        panic!("the console claims nothing");
    }

    async fn checkpoint(&self, _: PartitionId, _: &str, _: u64, _: Offset) -> Result<(), HubError> {
        panic!("the console stores no checkpoint");
    }

    async fn checkpoint_read(&self, partition: PartitionId, group: &str) -> Result<CheckpointInfo, HubError> {
        let none = CheckpointInfo { high_watermark: Offset(100), ..CheckpointInfo::default() };
        Ok(match (group, partition.0) {
            ("alarms", 0 | 1) => CheckpointInfo { epoch: 2, next: Some(Offset(90)), ..none },
            ("archive", 0) => CheckpointInfo { epoch: 1, ..none },
            _ => none,
        })
    }

    fn metadata(&self) -> Metadata {
        let node = |number: u64, alive| NodeInfo {
            node: NodeId(number),
            client_address: format!("10.0.0.{number}:7443"),
            peer_address: format!("10.0.0.{number}:7444"),
            zone: String::new(),
            draining: false,
            alive,
        };
        let partitions = self.partitions.len() as u32;
        let leaders = (0..partitions).map(PartitionId);
        Metadata {
            cluster: "test".into(),
            node: NodeId(1),
            partitions,
            nodes: vec![node(1, true), node(2, false)],
            leaders: leaders.map(|id| (id, Some(TestHub::leader(id)), vec![NodeId(1), NodeId(2)])).collect(),
            control_leader: Some(NodeId(2)),
        }
    }

    /// All but the last: that one is elsewhere.
    async fn local_partitions(&self) -> Vec<PartitionInfo> {
        let mut infos = Vec::new();
        for number in 0..self.partitions.len() as u32 - 1 {
            infos.push(self.partition_info(PartitionId(number)).await.unwrap());
        }
        infos
    }

    async fn change(&self, _: ClusterChange) -> Result<(), HubError> {
        panic!("the console changes no cluster");
    }

    async fn create_join_token(&self, _: Duration) -> Result<String, HubError> {
        panic!("the console makes no join token");
    }

    async fn join(&self, _: JoinRequest) -> Result<JoinReply, HubError> {
        panic!("nobody joins by the console");
    }
}
