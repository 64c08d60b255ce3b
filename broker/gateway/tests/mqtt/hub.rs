//! A hub whose leader is this process: devices apply their commands for real, in one log a partition
//! with the records. What becomes of appends and answers can be scripted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_batch::{BatchHeader, BatchReader};
use fleetline_devices::{
    ConnectionPlace, DeviceAnswer, DeviceCommand, DeviceError, DeviceKey, DeviceQuery, DeviceView, Effect,
    EventRow, Op, Request, Verified, Wake, check_proof,
};
use fleetline_gateway::devices::connections::Connections;
use fleetline_gateway::devices::hub::{DeviceHub, GatewayAnswer, GatewayCall, Leaders, WakeCall};
use fleetline_gateway::devices::settings::HubSettings;
use fleetline_gateway::hub::{Appended, HubError};
use fleetline_iothub::errors::ErrorCode;
use fleetline_state::memory::MemState;
use fleetline_state::{StateBatch, StateStore};
use fleetline_twins::Section;
use fleetline_types::{LogId, NodeId, Offset, PartitionId, TimestampMs, partition_of_key};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::producers::Producers;
use crate::reads;

/// What becomes of one append.
pub enum Script {
    /// Nothing is stored.
    Fail(HubError),
    /// It is stored, and nobody hears of it.
    Lose,
    /// It is on its way until the other end fires.
    Hold(oneshot::Receiver<()>),
    /// It is on its way until the other end fires, and then lost; nobody knows.
    Vanish(oneshot::Receiver<()>),
    /// Its sender gives up; it may come later, see [`Hub::deliver_stray`].
    Stray,
    /// This, once the other end fires.
    Then(oneshot::Receiver<()>, Box<Script>),
    /// It is stored, its answer is on its way until the other end fires.
    Late(oneshot::Receiver<()>),
}

/// One partition.
struct Partition {
    devices: fleetline_devices::DeviceState,
    producers: Producers,
    store: Arc<MemState>,
    index: u64,
    /// Stored records as "device body".
    records: Vec<String>,
}

pub struct Hub {
    partitions: Vec<Mutex<Partition>>,
    settings: Mutex<Arc<HubSettings>>,
    started: Instant,
    drawn: AtomicU64,
    /// What becomes of the next appends, in order of their calls; then they are stored.
    pub scripts: Mutex<VecDeque<Script>>,
    /// Appends wait while it is true.
    pub held: watch::Sender<bool>,
    /// Devices and records of every append that was asked for: count and fence.
    pub appends: Mutex<Vec<(u32, u32)>>,
    /// Appends whose senders have given up.
    strays: Mutex<Vec<(PartitionId, Bytes)>>,
    /// What every question to a leader fails with.
    pub failing: Mutex<Option<HubError>>,
    /// Gateways aren't told of anything.
    pub silent: AtomicBool,
    pub connections: OnceLock<Arc<Connections>>,
    leaders: watch::Sender<Leaders>,
}

impl Hub {
    pub fn new(partitions: u32, settings: HubSettings) -> Arc<Hub> {
        let partition = |number| {
            let store = Arc::new(MemState::new());
            let id = PartitionId(number);
            let devices = fleetline_devices::DeviceState::load(store.clone(), id).unwrap();
            Mutex::new(Partition {
                devices,
                producers: Producers::default(),
                store,
                index: 0,
                records: Vec::new(),
            })
        };
        Arc::new(Hub {
            partitions: (0..partitions).map(partition).collect(),
            settings: Mutex::new(Arc::new(settings)),
            started: Instant::now(),
            drawn: AtomicU64::new(1),
            scripts: Mutex::default(),
            held: watch::channel(false).0,
            appends: Mutex::default(),
            strays: Mutex::default(),
            failing: Mutex::default(),
            silent: AtomicBool::new(false),
            connections: OnceLock::new(),
            leaders: watch::channel(Leaders::default()).0,
        })
    }

    /// Adds a step to the script of appends; what it gives ends a wait.
    pub fn hold(&self, script: impl FnOnce(oneshot::Receiver<()>) -> Script) -> oneshot::Sender<()> {
        let (sender, receiver) = oneshot::channel();
        self.scripts.lock().push_back(script(receiver));
        sender
    }

    pub fn script(&self, script: Script) {
        self.scripts.lock().push_back(script);
    }

    /// All stored records, partition by partition, as "device body".
    pub fn records(&self) -> Vec<String> {
        self.partitions.iter().flat_map(|partition| partition.lock().records.clone()).collect()
    }

    /// Bodies of wills that were sent.
    pub fn wills(&self) -> Vec<String> {
        let is_will = |event: &EventRow| event.properties.iter().any(|property| property.value == "Will");
        let of = |(number, partition): (usize, &Mutex<Partition>)| {
            let partition = partition.lock();
            DeviceQuery::new(partition.store.as_ref(), PartitionId(number as u32)).outbox(100_000).unwrap().1
        };
        let events = self.partitions.iter().enumerate().flat_map(of).filter(is_will);
        events.map(|event| String::from_utf8(event.body.to_vec()).unwrap()).collect()
    }

    /// Brings an append whose sender has given up, if there are so many; nobody hears what becomes of it.
    pub fn deliver_stray(&self, place: usize) -> bool {
        let stray = {
            let mut strays = self.strays.lock();
            (place < strays.len()).then(|| strays.remove(place))
        };
        match stray {
            Some((partition, batch)) => {
                drop(self.store(partition, &batch));
                true
            }
            None => false,
        }
    }

    /// Forgets all producers, as a partition does with those that were silent for long.
    pub fn forget_producers(&self) {
        self.partitions.iter().for_each(|partition| partition.lock().producers.forget_all());
    }

    pub fn partition_of(&self, key: &DeviceKey) -> PartitionId {
        partition_of_key(key.device.as_bytes(), self.partitions.len() as u32)
    }

    /// Applies a command for a device; a refusal is a failed test.
    pub fn apply_to(&self, key: &DeviceKey, op: Op) -> fleetline_devices::DeviceReply {
        let reply = self.apply(self.partition_of(key), DeviceCommand::new(op)).reply.unwrap();
        assert_eq!(reply.error, None);
        reply
    }

    /// What the leader knows of a device.
    pub fn view(&self, device: &str) -> DeviceView {
        let key = DeviceKey::device(device);
        let partition = self.partition_of(&key);
        let store = self.partitions[partition.0 as usize].lock().store.clone();
        reads::view(&DeviceQuery::new(store.as_ref(), partition), &key).unwrap()
    }

    /// Applies a command, as a leader does after it is committed, and tells gateways.
    fn apply(&self, number: PartitionId, mut command: DeviceCommand) -> DeviceAnswer {
        command.now_ms = self.now_ms();
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
        effects.into_iter().for_each(|effect| self.tell(effect));
        let error = reply.error.clone().filter(|_| matches!(command.op, Some(Op::OpenSession(_))));
        DeviceAnswer { error, reply: Some(reply), ..DeviceAnswer::default() }
    }

    fn tell(&self, effect: Effect) {
        if let Effect::Wake { place, epoch, wake, .. } = effect
            && !self.silent.load(Ordering::SeqCst)
        {
            let wake = WakeCall::number(wake);
            self.connections.get().unwrap().wake(&WakeCall { place, epoch, wake });
        }
    }

    /// Has a gateway look at a session once more than needed.
    pub fn wake_again(&self, device: &str, wake: Wake) {
        let session = self.view(device).session.unwrap();
        let (place, epoch) = (session.place, session.epoch);
        self.tell(Effect::Wake { place, epoch, key: DeviceKey::device(device), wake });
    }

    /// Stores a batch, as `broker/partition` does.
    fn store(&self, number: PartitionId, batch: &Bytes) -> Result<(Appended, u32), HubError> {
        let mut guard = self.partitions[number.0 as usize].lock();
        let partition = &mut *guard;
        let header = BatchHeader::verify(batch).unwrap();
        partition.index += 1;
        let current = partition.devices.head().fence;
        if !partition.devices.batch_passes(header.fence, batch).unwrap() {
            let what = "a device".to_owned();
            return Err(HubError::Fenced { what, current: current.into(), given: header.fence.into() });
        }
        let before = partition.producers.judge(&header)?;
        let base = before.unwrap_or(partition.records.len() as u64);
        if before.is_none() {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let records = BatchReader::new(batch.clone()).unwrap().map(Result::unwrap);
            let lines = records.map(|record| format!("{} {}", text(&record.device), text(&record.body)));
            partition.records.extend(lines);
            partition.producers.stored(&header, base);
        }
        let enqueued = TimestampMs(self.now_ms());
        let appended = Appended { base_offset: Offset(base), enqueued, duplicate: before.is_some() };
        Ok((appended, current))
    }

    fn read(&self, number: PartitionId, request: Request) -> Result<DeviceAnswer, DeviceError> {
        let store = self.partitions[number.0 as usize].lock().store.clone();
        let query = DeviceQuery::new(store.as_ref(), number);
        let mut answer = DeviceAnswer::default();
        match request {
            Request::Get(ask) => {
                reads::live(&query, &ask)?;
                answer.views = reads::view(&query, &ask.key).into_iter().collect();
            }
            Request::Commands(ask) => {
                reads::live(&query, &ask)?;
                let limit = ask.limit as usize;
                answer.commands = query.commands(&ask.key, ask.after, self.now_ms(), limit).unwrap();
            }
            Request::Desired(ask) => {
                reads::live(&query, &ask)?;
                let twin = query.twin(&ask.key).unwrap().unwrap();
                let version = Section::decode(&twin.desired).unwrap().version;
                answer.changes = twin.recent.into_iter().filter(|row| row.version > ask.after).collect();
                if version.saturating_sub(ask.after) != answer.changes.len() as u64 {
                    answer.changes.clear();
                    answer.views = reads::view(&query, &ask.key).into_iter().collect();
                }
            }
            Request::Fences(ask) => {
                let fences = query.fences(ask.after as u32, ask.limit as usize).unwrap();
                answer.fences_forgotten = fences.is_none();
                answer.fences = fences.unwrap_or_default();
                answer.head = Some(query.head().unwrap());
            }
            Request::Head(_) | Request::Sync(_) => answer.head = Some(query.head().unwrap()),
            other => panic!("no front of mqtt asks {other:?}"),
        }
        Ok(answer)
    }

    fn connect(&self, number: PartitionId, connect: fleetline_devices::Connect) -> DeviceAnswer {
        let checked = {
            let partition = self.partitions[number.0 as usize].lock();
            let query = DeviceQuery::new(partition.store.as_ref(), number);
            let row = query.device(&connect.open.key).unwrap();
            let Some(row) = row.filter(|row| check_proof(row, &connect.proof).is_ok()) else {
                return reads::refused(ErrorCode::IotHubUnauthorized);
            };
            if row.spec.disabled {
                return reads::refused(ErrorCode::DeviceDisabled);
            }
            Verified {
                auth_version: query.auth_version(&row).unwrap(),
                generation: row.generation.clone(),
                kind: row.spec.auth.kind,
                method: connect.proof.method().to_owned(),
                ..Verified::default()
            }
        };
        let open = fleetline_devices::OpenSession { auth_version: checked.auth_version, ..connect.open };
        let answer = self.apply(number, DeviceCommand::new(Op::OpenSession(open)));
        DeviceAnswer { verified: Some(checked), ..answer }
    }
}

#[async_trait]
impl DeviceHub for Hub {
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
        panic!("no front of mqtt changes {name}");
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
        let header = BatchHeader::parse(&batch).unwrap();
        self.appends.lock().push((header.count, header.fence));
        let mut script = self.scripts.lock().pop_front();
        while let Some(Script::Then(goes_on, then)) = script {
            goes_on.await.unwrap();
            script = Some(*then);
        }
        match script {
            None => {
                let _ = self.held.subscribe().wait_for(|held| !held).await;
                self.store(partition, &batch)
            }
            Some(Script::Fail(error)) => Err(error),
            Some(Script::Lose) => {
                self.store(partition, &batch)?;
                Err(HubError::Unknown("the answer is lost".into()))
            }
            Some(Script::Hold(goes_on)) => {
                goes_on.await.unwrap();
                self.store(partition, &batch)
            }
            Some(Script::Stray) => {
                self.strays.lock().push((partition, batch));
                Err(HubError::Unknown("no answer in time".into()))
            }
            Some(Script::Vanish(goes_on)) => {
                goes_on.await.unwrap();
                Err(HubError::Unknown("never proposed".into()))
            }
            Some(Script::Then(..)) => unreachable!("invariant: taken apart above"),
            Some(Script::Late(goes_on)) => {
                let outcome = self.store(partition, &batch);
                goes_on.await.unwrap();
                outcome
            }
        }
    }

    async fn ask(&self, partition: PartitionId, request: Request) -> Result<DeviceAnswer, HubError> {
        if let Some(error) = self.failing.lock().clone() {
            return Err(error);
        }
        Ok(match request {
            Request::Change(command) => self.apply(partition, command),
            Request::Connect(connect) => self.connect(partition, connect),
            request => self.read(partition, request).unwrap_or_else(|error| DeviceAnswer {
                error: error.reply().error,
                ..DeviceAnswer::default()
            }),
        })
    }

    async fn call_gateway(&self, node: NodeId, _: GatewayCall) -> Result<GatewayAnswer, HubError> {
        panic!("no front of mqtt calls the gateway of {node}");
    }

    fn leaders(&self) -> watch::Receiver<Leaders> {
        self.leaders.subscribe()
    }
}
