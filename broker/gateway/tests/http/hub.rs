//! A hub of some partitions in memory: commands are applied by `fleetline_devices`, batches are kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_batch::{BatchReader, RecordView};
use fleetline_devices::{
    ConnectionPlace, DeviceAnswer, DeviceCommand, DeviceError, DeviceKey, DeviceQuery, DeviceRow,
    DeviceState, DeviceView, EventRow, Request, Verified, check_proof,
};
use fleetline_gateway::devices::hub::{
    DeviceHub, GatewayAnswer, GatewayCall, Leaders, MethodAnswer, MethodCall,
};
use fleetline_gateway::devices::settings::{ACCESS, AUTHORITIES, HubSettings, POLICIES, REALTIME};
use fleetline_gateway::hub::{Appended, HubError};
use fleetline_iothub::errors::ErrorCode;
use fleetline_state::memory::MemState;
use fleetline_state::{StateBatch, StateStore};
use fleetline_types::{LogId, NodeId, Offset, PartitionId, TimestampMs, partition_of_key};
use parking_lot::Mutex;
use tokio::sync::watch;

/// One partition.
struct Partition {
    state: DeviceState,
    store: Arc<MemState>,
    index: u64,
    records: Vec<RecordView>,
}

/// The hub.
pub struct TestHub {
    partitions: Vec<Mutex<Partition>>,
    settings: Mutex<Arc<HubSettings>>,
    now_ms: AtomicU64,
    drawn: AtomicU64,
    /// Answers to method calls, in order.
    pub method_answers: Mutex<VecDeque<Result<MethodAnswer, HubError>>>,
    /// Method calls that came.
    pub method_calls: Mutex<Vec<MethodCall>>,
    /// What every request to a leader fails with.
    pub failing: Mutex<Option<HubError>>,
    /// Appends wait while it is true.
    pub held: watch::Sender<bool>,
    leaders: watch::Sender<Leaders>,
}

impl TestHub {
    pub fn new(partitions: u32, settings: HubSettings) -> Arc<TestHub> {
        let partition = |number| {
            let store = Arc::new(MemState::new());
            let state = DeviceState::load(store.clone(), PartitionId(number)).unwrap();
            Mutex::new(Partition { state, store, index: 0, records: Vec::new() })
        };
        Arc::new(TestHub {
            partitions: (0..partitions).map(partition).collect(),
            settings: Mutex::new(Arc::new(settings)),
            now_ms: AtomicU64::new(1_795_500_938_000),
            drawn: AtomicU64::new(1),
            method_answers: Mutex::default(),
            method_calls: Mutex::default(),
            failing: Mutex::default(),
            held: watch::channel(false).0,
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

    /// All stored records, partition by partition.
    pub fn records(&self) -> Vec<RecordView> {
        self.partitions.iter().flat_map(|partition| partition.lock().records.clone()).collect()
    }

    /// Events that wait to become records.
    pub fn events(&self) -> Vec<EventRow> {
        let of = |(number, partition): (usize, &Mutex<Partition>)| {
            let partition = partition.lock();
            DeviceQuery::new(partition.store.as_ref(), PartitionId(number as u32)).outbox(1000).unwrap().1
        };
        self.partitions.iter().enumerate().flat_map(of).collect()
    }

    fn partition_of(&self, key: &DeviceKey) -> PartitionId {
        partition_of_key(key.device.as_bytes(), self.partitions.len() as u32)
    }

    /// Applies a command, as a leader does after it is committed.
    pub fn apply(&self, partition: PartitionId, mut command: DeviceCommand) -> DeviceAnswer {
        let mut partition = self.partitions[partition.0 as usize].lock();
        partition.index += 1;
        command.now_ms = self.now_ms();
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

    /// Applies a command for a device.
    pub fn apply_to(&self, key: &DeviceKey, op: fleetline_devices::Op) -> DeviceAnswer {
        self.apply(self.partition_of(key), DeviceCommand::new(op))
    }

    fn read(&self, number: PartitionId, request: Request) -> Result<DeviceAnswer, DeviceError> {
        let partition = self.partitions[number.0 as usize].lock();
        let query = DeviceQuery::new(partition.store.as_ref(), number);
        let mut answer = DeviceAnswer::default();
        match request {
            Request::Verify(verify) => {
                let row = query.device(&verify.key).unwrap().ok_or_else(|| missing(&verify.key))?;
                // As leaders do: the proof is looked at before it is said that the device is disabled.
                if check_proof(&row, &verify.proof).is_err() {
                    answer.error = Some(unauthorized());
                    return Ok(answer);
                }
                if row.spec.disabled {
                    return Err(DeviceError::Disabled(verify.key.text()));
                }
                answer.verified = Some(Verified {
                    method: verify.proof.method().to_owned(),
                    auth_version: query.auth_version(&row).unwrap(),
                    generation: row.generation.clone(),
                    fence: partition.state.head().fence,
                    // Below that of the next entry, and not below that of the last.
                    epoch: ((partition.index + 1) << 8) - 1,
                    kind: row.spec.auth.kind,
                });
            }
            Request::Get(ask) => {
                let found = query.device(&ask.key).unwrap();
                answer.views = found.map(|row| view(&query, row)).into_iter().collect();
            }
            Request::List(list) if list.device.is_empty() => {
                let page = query.devices(&list.from, list.limit as usize).unwrap();
                answer.views = page.rows.into_iter().map(|row| view(&query, row)).collect();
                answer.next = page.next.unwrap_or_default();
            }
            Request::List(list) => {
                answer.views =
                    query.modules(&list.device).unwrap().into_iter().map(|row| view(&query, row)).collect();
            }
            Request::Fences(ask) => {
                let fences = query.fences(ask.after as u32, ask.limit as usize).unwrap();
                answer.fences_forgotten = fences.is_none();
                answer.fences = fences.unwrap_or_default();
                answer.head = Some(query.head().unwrap());
            }
            Request::Head(_) | Request::Sync(_) => answer.head = Some(query.head().unwrap()),
            other => panic!("no front of http asks {other:?}"),
        }
        Ok(answer)
    }
}

fn unauthorized() -> fleetline_devices::ErrorReply {
    let (code, text) = (ErrorCode::IotHubUnauthorized.number(), "proof is refused".to_owned());
    fleetline_devices::ErrorReply { code, text }
}

fn missing(key: &DeviceKey) -> DeviceError {
    match key.is_module() {
        true => DeviceError::ModuleNotFound(key.text()),
        false => DeviceError::NotFound(key.text()),
    }
}

fn view(query: &DeviceQuery<'_>, device: DeviceRow) -> DeviceView {
    let key = device.key.clone();
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

    async fn put_setting(&self, name: &str, value: Bytes, expected_version: u64) -> Result<(), HubError> {
        let mut outcome = Ok(());
        self.set(|settings| {
            let version = match name {
                POLICIES => &mut settings.policies_version,
                ACCESS => &mut settings.access_version,
                REALTIME => &mut settings.realtime_version,
                AUTHORITIES => &mut settings.authorities_version,
                other => panic!("{other}"),
            };
            if *version != expected_version {
                outcome = Err(HubError::Invalid("stale".into()));
                return;
            }
            *version += 1;
            match name {
                POLICIES => settings.policies = serde_json::from_slice(&value).unwrap(),
                ACCESS => settings.access = serde_json::from_slice(&value).unwrap(),
                REALTIME => settings.realtime = serde_json::from_slice(&value).unwrap(),
                _ => settings.authorities = serde_json::from_slice(&value).unwrap(),
            }
        });
        outcome
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
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
        let mut partition = self.partitions[partition.0 as usize].lock();
        let reader = BatchReader::new(batch.clone()).unwrap();
        let carried = reader.header().fence;
        if !partition.state.batch_passes(carried, &batch).unwrap() {
            let current = partition.state.head().fence.into();
            return Err(HubError::Fenced { what: "batch".into(), current, given: carried.into() });
        }
        let base = partition.records.len() as u64;
        partition.records.extend(reader.map(Result::unwrap));
        let enqueued = TimestampMs(self.now_ms());
        let appended = Appended { base_offset: Offset(base), enqueued, duplicate: false };
        Ok((appended, partition.state.head().fence))
    }

    async fn ask(&self, partition: PartitionId, request: Request) -> Result<DeviceAnswer, HubError> {
        if let Some(error) = self.failing.lock().clone() {
            return Err(error);
        }
        match request {
            Request::Change(command) => Ok(self.apply(partition, command)),
            request => Ok(self.read(partition, request).unwrap_or_else(|error| DeviceAnswer {
                error: error.reply().error,
                ..DeviceAnswer::default()
            })),
        }
    }

    async fn call_gateway(&self, node: NodeId, call: GatewayCall) -> Result<GatewayAnswer, HubError> {
        assert_eq!(node, NodeId(1));
        let call = call.method.unwrap();
        self.method_calls.lock().push(call);
        let answer = self.method_answers.lock().pop_front().unwrap()?;
        Ok(GatewayAnswer { method: Some(answer) })
    }

    fn leaders(&self) -> watch::Receiver<Leaders> {
        self.leaders.subscribe()
    }
}
