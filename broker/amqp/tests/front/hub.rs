//! A hub whose leader is this process: devices apply their commands for real, batches are kept as they
//! come, and read as they were kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_batch::{BatchHeader, BatchReader, RecordView};
use fleetline_devices::{
    Ask, Connect, ConnectionPlace, DeviceAnswer, DeviceCommand, DeviceError, DeviceKey, DeviceQuery,
    DeviceState, DeviceView, Effect, ErrorReply, NamedDocument, Op, OpenSession, Proof, Request, Verified,
    check_proof,
};
use fleetline_gateway::devices::connections::Connections;
use fleetline_gateway::devices::hub::{DeviceHub, GatewayAnswer, GatewayCall, Leaders, WakeCall};
use fleetline_gateway::devices::settings::HubSettings;
use fleetline_gateway::hub::{
    Appended, CheckpointInfo, ClusterChange, GroupAssignment, GroupDescription, Hub, HubError, JoinReply,
    JoinRequest, Metadata, PartitionInfo, ReadFrom, ReadReply, StoredBatch,
};
use fleetline_iothub::errors::ErrorCode;
use fleetline_state::memory::MemState;
use fleetline_state::{StateBatch, StateStore};
use fleetline_twins::Section;
use fleetline_types::{LogId, MemberId, NodeId, Offset, PartitionId, Term, TimestampMs, partition_of_key};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

struct Partition {
    devices: DeviceState,
    store: Arc<MemState>,
    index: u64,
    batches: Vec<StoredBatch>,
    end: u64,
    start: u64,
}

pub struct TestHub {
    partitions: Vec<Mutex<Partition>>,
    settings: Mutex<Arc<HubSettings>>,
    started: Instant,
    drawn: AtomicU64,
    /// Appends wait while it is true.
    pub held: watch::Sender<bool>,
    /// Counts appended batches, for readers that wait.
    stored: watch::Sender<u64>,
    /// What questions to leaders fail with.
    pub failing: Mutex<Option<HubError>>,
    /// What reads fail with.
    pub unreadable: Mutex<Option<HubError>>,
    pub connections: OnceLock<Arc<Connections>>,
    leaders: watch::Sender<Leaders>,
}

impl TestHub {
    pub fn new(partitions: u32, settings: HubSettings) -> Arc<TestHub> {
        let partition = |number| {
            let store = Arc::new(MemState::new());
            let devices = DeviceState::load(store.clone(), PartitionId(number)).unwrap();
            Mutex::new(Partition { devices, store, index: 0, batches: Vec::new(), end: 0, start: 0 })
        };
        Arc::new(TestHub {
            partitions: (0..partitions).map(partition).collect(),
            settings: Mutex::new(Arc::new(settings)),
            started: Instant::now(),
            drawn: AtomicU64::new(1),
            held: watch::channel(false).0,
            stored: watch::channel(0).0,
            failing: Mutex::default(),
            unreadable: Mutex::default(),
            connections: OnceLock::new(),
            leaders: watch::channel(Leaders::default()).0,
        })
    }

    /// Changes the settings.
    pub fn set(&self, change: impl FnOnce(&mut HubSettings)) {
        let mut settings = self.settings.lock();
        let mut changed = (**settings).clone();
        change(&mut changed);
        *settings = Arc::new(changed);
    }

    /// All stored records, partition by partition.
    pub fn records(&self) -> Vec<RecordView> {
        let of = |partition: &Mutex<Partition>| {
            let batches = partition.lock().batches.clone();
            let records = |batch: StoredBatch| BatchReader::new(batch.batch).unwrap().map(Result::unwrap);
            batches.into_iter().flat_map(records).collect::<Vec<_>>()
        };
        self.partitions.iter().flat_map(of).collect()
    }

    /// Bodies of all records, as texts.
    pub fn bodies(&self) -> Vec<String> {
        self.records().iter().map(|record| String::from_utf8_lossy(&record.body).into_owned()).collect()
    }

    /// Retention takes what lies before an offset.
    pub fn trim(&self, partition: u32, start: u64) {
        self.partitions[partition as usize].lock().start = start;
    }

    pub fn partition_of(&self, key: &DeviceKey) -> PartitionId {
        partition_of_key(key.device.as_bytes(), self.partitions.len() as u32)
    }

    pub fn apply_to(&self, key: &DeviceKey, op: Op) -> fleetline_devices::DeviceReply {
        let reply = self.apply(self.partition_of(key), DeviceCommand::new(op)).reply.unwrap();
        assert_eq!(reply.error, None);
        reply
    }

    pub fn view(&self, key: &DeviceKey) -> DeviceView {
        let partition = self.partition_of(key);
        let store = self.partitions[partition.0 as usize].lock().store.clone();
        view(&DeviceQuery::new(store.as_ref(), partition), key).unwrap()
    }

    /// Applies a command, as a leader does after it is committed, and tells gateways.
    pub fn apply(&self, number: PartitionId, mut command: DeviceCommand) -> DeviceAnswer {
        command.now_ms = DeviceHub::now_ms(self);
        let (reply, effects) = {
            let mut partition = self.partitions[number.0 as usize].lock();
            partition.index += 1;
            let (head, body) = command.encode_entry();
            let command = DeviceCommand::decode_entry(&head, &body).unwrap();
            let id = LogId::new(1, partition.index);
            let mut batch = StateBatch::default();
            let reply = partition.devices.apply(id, &command, &mut batch).unwrap();
            partition.devices.end_of_round(&mut batch);
            partition.store.write(batch).unwrap();
            (reply, partition.devices.published())
        };
        for effect in effects {
            if let Effect::Wake { place, epoch, wake, .. } = effect {
                let wake = WakeCall::number(wake);
                self.connections.get().unwrap().wake(&WakeCall { place, epoch, wake });
            }
        }
        let error = reply.error.clone().filter(|_| matches!(command.op, Some(Op::OpenSession(_))));
        DeviceAnswer { error, reply: Some(reply), ..DeviceAnswer::default() }
    }

    fn check(
        &self,
        number: PartitionId,
        key: &DeviceKey,
        proof: &Proof,
    ) -> Result<Verified, Box<DeviceAnswer>> {
        let partition = self.partitions[number.0 as usize].lock();
        let query = DeviceQuery::new(partition.store.as_ref(), number);
        let Some(row) = query.device(key).unwrap() else { return Err(refused(ErrorCode::DeviceNotFound)) };
        if check_proof(&row, proof).is_err() {
            return Err(refused(ErrorCode::IotHubUnauthorized));
        }
        if row.spec.disabled {
            return Err(refused(ErrorCode::DeviceDisabled));
        }
        Ok(Verified {
            auth_version: query.auth_version(&row).unwrap(),
            generation: row.generation.clone(),
            kind: row.spec.auth.kind,
            method: proof.method().to_owned(),
            ..Verified::default()
        })
    }

    fn connect(&self, number: PartitionId, connect: Connect) -> DeviceAnswer {
        let checked = match self.check(number, &connect.open.key, &connect.proof) {
            Ok(checked) => checked,
            Err(answer) => return *answer,
        };
        let open = OpenSession { auth_version: checked.auth_version, ..connect.open };
        let answer = self.apply(number, DeviceCommand::new(Op::OpenSession(open)));
        DeviceAnswer { verified: Some(checked), ..answer }
    }

    fn question(&self, number: PartitionId, request: Request) -> Result<DeviceAnswer, DeviceError> {
        let store = self.partitions[number.0 as usize].lock().store.clone();
        let query = DeviceQuery::new(store.as_ref(), number);
        let mut answer = DeviceAnswer::default();
        match request {
            Request::Get(ask) => {
                live(&query, &ask)?;
                answer.views = view(&query, &ask.key).into_iter().collect();
            }
            Request::Commands(ask) => {
                live(&query, &ask)?;
                let (limit, now) = (ask.limit as usize, DeviceHub::now_ms(self));
                answer.commands = query.commands(&ask.key, ask.after, now, limit).unwrap();
            }
            Request::Desired(ask) => {
                live(&query, &ask)?;
                let twin = query.twin(&ask.key).unwrap().unwrap();
                let version = Section::decode(&twin.desired).unwrap().version;
                answer.changes = twin.recent.into_iter().filter(|row| row.version > ask.after).collect();
                if version.saturating_sub(ask.after) != answer.changes.len() as u64 {
                    answer.changes.clear();
                    answer.views = view(&query, &ask.key).into_iter().collect();
                }
            }
            Request::Fences(ask) => {
                let fences = query.fences(ask.after as u32, ask.limit as usize).unwrap();
                answer.fences_forgotten = fences.is_none();
                answer.fences = fences.unwrap_or_default();
                answer.head = Some(query.head().unwrap());
            }
            Request::Documents(ask) => {
                let row = query.document(&ask.name).unwrap();
                answer.documents = row.map(|row| NamedDocument { name: ask.name, row }).into_iter().collect();
            }
            Request::Head(_) | Request::Sync(_) => answer.head = Some(query.head().unwrap()),
            other => panic!("no front of amqp asks {other:?}"),
        }
        Ok(answer)
    }

    fn store(&self, number: PartitionId, batch: Bytes) -> Result<(Appended, u32), HubError> {
        let mut partition = self.partitions[number.0 as usize].lock();
        let header = BatchHeader::verify(&batch).unwrap();
        let fence = partition.devices.head().fence;
        if !partition.devices.batch_passes(header.fence, &batch).unwrap() {
            let what = "a device".to_owned();
            return Err(HubError::Fenced { what, current: fence.into(), given: header.fence.into() });
        }
        let (base, enqueued) = (Offset(partition.end), TimestampMs(DeviceHub::now_ms(self)));
        partition.end += u64::from(header.count);
        partition.batches.push(StoredBatch { base_offset: base, enqueued, batch });
        drop(partition);
        self.stored.send_modify(|count| *count += 1);
        Ok((Appended { base_offset: base, enqueued, duplicate: false }, fence))
    }
}

/// An identity with all that belongs to it.
fn view(query: &DeviceQuery<'_>, key: &DeviceKey) -> Option<DeviceView> {
    let device = query.device(key).unwrap()?;
    Some(DeviceView {
        device,
        twin: query.twin(key).unwrap().unwrap(),
        session: query.session(key).unwrap(),
        commands: query.command_count(key).unwrap(),
    })
}

/// Refuses a question of a session that is over.
fn live(query: &DeviceQuery<'_>, ask: &Ask) -> Result<(), DeviceError> {
    let session = query.session(&ask.key).unwrap();
    match session.is_some_and(|session| session.connected && session.epoch == ask.epoch) {
        true => Ok(()),
        false => Err(DeviceError::Fenced { device: ask.key.text(), given: ask.epoch }),
    }
}

fn refused(code: ErrorCode) -> Box<DeviceAnswer> {
    let error = ErrorReply { code: code.number(), text: "refused by the leader".to_owned() };
    Box::new(DeviceAnswer { error: Some(error), ..DeviceAnswer::default() })
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
        panic!("no front of amqp changes {name}");
    }

    /// Goes with virtual time.
    fn now_ms(&self) -> u64 {
        1_795_500_938_000 + self.started.elapsed().as_millis() as u64
    }

    /// Different each time, and the same in each run.
    fn random(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let drawn = self.drawn.fetch_add(1, Ordering::SeqCst);
            *byte = (drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        }
    }

    async fn append(&self, partition: PartitionId, batch: Bytes) -> Result<(Appended, u32), HubError> {
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        self.store(partition, batch)
    }

    async fn ask(&self, partition: PartitionId, request: Request) -> Result<DeviceAnswer, HubError> {
        if let Some(error) = self.failing.lock().clone() {
            return Err(error);
        }
        Ok(match request {
            Request::Change(command) => self.apply(partition, command),
            Request::Connect(connect) => self.connect(partition, connect),
            Request::Verify(verify) => match self.check(partition, &verify.key, &verify.proof) {
                Ok(verified) => DeviceAnswer { verified: Some(verified), ..DeviceAnswer::default() },
                Err(answer) => *answer,
            },
            request => self.question(partition, request).unwrap_or_else(|error| DeviceAnswer {
                error: error.reply().error,
                ..DeviceAnswer::default()
            }),
        })
    }

    async fn call_gateway(&self, node: NodeId, _: GatewayCall) -> Result<GatewayAnswer, HubError> {
        panic!("no front of amqp calls the gateway of {node}");
    }

    fn leaders(&self) -> watch::Receiver<Leaders> {
        self.leaders.subscribe()
    }
}

fn never<T>(what: &str) -> Result<T, HubError> {
    panic!("no front of amqp asks to {what}")
}

#[async_trait]
impl Hub for TestHub {
    async fn append(&self, _: PartitionId, _: Bytes) -> Result<Appended, HubError> {
        never("append on this way")
    }

    async fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        max_bytes: u64,
        wait: Duration,
    ) -> Result<ReadReply, HubError> {
        let mut stored = self.stored.subscribe();
        let until = Instant::now() + wait;
        loop {
            if let Some(error) = self.unreadable.lock().clone() {
                return Err(error);
            }
            stored.borrow_and_update();
            let found = {
                let partition = self.partitions[partition.0 as usize].lock();
                let (start, end) = (Offset(partition.start), Offset(partition.end));
                if from < start {
                    return Err(HubError::OffsetGone { asked: from, start });
                }
                if from > end {
                    return Err(HubError::OffsetBeyondEnd { asked: from, end });
                }
                let mut reply = ReadReply { batches: Vec::new(), next: from, high_watermark: end, start };
                let mut bytes = 0;
                for batch in &partition.batches {
                    let next =
                        batch.base_offset.0 + u64::from(BatchHeader::parse(&batch.batch).unwrap().count);
                    if next <= from.0 || bytes >= max_bytes {
                        continue;
                    }
                    bytes += batch.batch.len() as u64;
                    reply.next = Offset(next);
                    reply.batches.push(batch.clone());
                }
                reply
            };
            if !found.batches.is_empty() {
                return Ok(found);
            }
            if tokio::time::timeout_at(until, stored.changed()).await.is_err() {
                return Ok(found);
            }
        }
    }

    async fn resolve(&self, partition: PartitionId, from: ReadFrom) -> Result<Offset, HubError> {
        let partition = self.partitions[partition.0 as usize].lock();
        Ok(match from {
            ReadFrom::Earliest => Offset(partition.start),
            ReadFrom::Latest => Offset(partition.end),
            ReadFrom::Offset(offset) => offset,
            ReadFrom::Time(time) => partition
                .batches
                .iter()
                .find(|batch| batch.enqueued >= time)
                .map_or(Offset(partition.end), |batch| batch.base_offset),
        })
    }

    async fn partition_info(&self, number: PartitionId) -> Result<PartitionInfo, HubError> {
        let partition = self.partitions[number.0 as usize].lock();
        Ok(PartitionInfo {
            partition: number,
            leader: None,
            term: Term(1),
            voters: Vec::new(),
            learners: Vec::new(),
            start: Offset(partition.start),
            high_watermark: Offset(partition.end),
            last_enqueued: partition.batches.last().map_or(TimestampMs(0), |batch| batch.enqueued),
            bytes: 0,
            replication_lag: 0,
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
        never("join a group")
    }

    async fn group_heartbeat(
        &self,
        _: &str,
        _: MemberId,
        _: u64,
        _: &[PartitionId],
    ) -> Result<GroupAssignment, HubError> {
        never("live in a group")
    }

    async fn group_leave(&self, _: &str, _: MemberId) -> Result<(), HubError> {
        never("leave a group")
    }

    async fn group_describe(&self, _: &str) -> Result<GroupDescription, HubError> {
        never("describe a group")
    }

    async fn group_list(&self, _: PartitionId) -> Result<Vec<String>, HubError> {
        never("list groups")
    }

    async fn claim(&self, _: PartitionId, _: &str, _: MemberId, _: u64) -> Result<CheckpointInfo, HubError> {
        never("claim")
    }

    async fn checkpoint(&self, _: PartitionId, _: &str, _: u64, _: Offset) -> Result<(), HubError> {
        never("checkpoint")
    }

    async fn checkpoint_read(&self, _: PartitionId, _: &str) -> Result<CheckpointInfo, HubError> {
        never("read a checkpoint")
    }

    fn metadata(&self) -> Metadata {
        panic!("no front of amqp asks for nodes")
    }

    async fn local_partitions(&self) -> Vec<PartitionInfo> {
        Vec::new()
    }

    async fn change(&self, _: ClusterChange) -> Result<(), HubError> {
        never("change the cluster")
    }

    async fn create_join_token(&self, _: Duration) -> Result<String, HubError> {
        never("make tokens")
    }

    async fn join(&self, _: JoinRequest) -> Result<JoinReply, HubError> {
        never("join")
    }
}
