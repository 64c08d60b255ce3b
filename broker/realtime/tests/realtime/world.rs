//! A cluster in memory: nodes with the tier, calls between them, leaders, settings, documents and streams.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_devices::{
    Condition, ConnectionPlace, DeviceAnswer, DeviceReply, DocumentRow, ErrorReply, NamedDocument, Op,
    PutDocument, Request,
};
use fleetline_gateway::devices::hub::{DeviceHub, GatewayAnswer, GatewayCall, Leaders};
use fleetline_gateway::devices::settings::HubSettings;
use fleetline_gateway::hub::{
    Appended, CheckpointInfo, ClusterChange, GroupAssignment, GroupDescription, Hub, HubError, JoinReply,
    JoinRequest, Metadata, PartitionInfo, ReadFrom, ReadReply, StoredBatch,
};
use fleetline_gateway::tiers::{Cluster, RawSetting, Tier, TierService};
use fleetline_realtime::{Realtime, RealtimeOptions};
use fleetline_types::{MemberId, NodeId, Offset, PartitionId, Term, TimestampMs};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub const PARTITIONS: u32 = 8;
pub const ENDPOINT: &str = "https://hub.test";
/// Where wall clocks begin.
const START_MS: u64 = 1_800_000_000_000;

/// What all nodes share.
pub struct World {
    services: Mutex<HashMap<NodeId, Arc<dyn TierService>>>,
    alive: Mutex<BTreeSet<NodeId>>,
    /// Pairs that can't call each other.
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    leaders: watch::Sender<Leaders>,
    settings: Mutex<BTreeMap<String, RawSetting>>,
    changes: watch::Sender<u64>,
    documents: Mutex<BTreeMap<(PartitionId, String), DocumentRow>>,
    streams: Vec<Mutex<Vec<StoredBatch>>>,
    appended: watch::Sender<u64>,
    /// Who has begun to read which stream.
    reading: watch::Sender<BTreeSet<(NodeId, PartitionId)>>,
    now_ms: AtomicU64,
    drawn: AtomicU64,
    /// How many calls went from one node to another.
    pub calls: AtomicU64,
    /// What requests to partitions fail with.
    pub failing: Mutex<Option<HubError>>,
}

impl World {
    /// A world whose partitions are led by node 1.
    pub fn new() -> Arc<World> {
        let led = vec![(Some(NodeId(1)), Term(1)); PARTITIONS as usize];
        Arc::new(World {
            services: Mutex::default(),
            alive: Mutex::default(),
            cut: Mutex::default(),
            leaders: watch::channel(Arc::new(led)).0,
            settings: Mutex::default(),
            changes: watch::channel(0).0,
            documents: Mutex::default(),
            streams: (0..PARTITIONS).map(|_| Mutex::default()).collect(),
            appended: watch::channel(0).0,
            reading: watch::channel(BTreeSet::new()).0,
            now_ms: AtomicU64::new(START_MS),
            drawn: AtomicU64::new(1),
            calls: AtomicU64::new(0),
            failing: Mutex::new(None),
        })
    }

    /// Starts a node and its tier.
    pub async fn start(self: &Arc<World>, node: u64, options: RealtimeOptions) -> Node {
        let id = NodeId(node);
        self.alive.lock().insert(id);
        let cluster = Arc::new(Member { world: self.clone(), node: id, incarnation: self.draw() });
        let tier = Realtime::new(cluster, options);
        let running = tokio::spawn(tier.clone().run());
        while tier.connection_string().is_none() {
            tokio::task::yield_now().await;
        }
        Node { tier, running }
    }

    /// Starts nodes 1 to `count`; leaders go round.
    pub async fn cluster(count: u64) -> (Arc<World>, Vec<Node>) {
        let world = World::new();
        let mut nodes = Vec::new();
        for node in 1..=count {
            nodes.push(world.start(node, RealtimeOptions::new(ENDPOINT)).await);
        }
        for partition in 0..PARTITIONS {
            world.lead(PartitionId(partition), Some(1 + u64::from(partition) % count));
        }
        (world, nodes)
    }

    fn draw(&self) -> u64 {
        self.drawn.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a node the leader of a partition, in a new term.
    pub fn lead(&self, partition: PartitionId, node: Option<u64>) {
        self.leaders.send_modify(|leaders| {
            let mut new = (**leaders).clone();
            let (leader, term) = &mut new[partition.0 as usize];
            (*leader, *term) = (node.map(NodeId), Term(term.0 + 1));
            *leaders = Arc::new(new);
        });
    }

    /// The node is gone: nobody can call it, and it can call nobody.
    pub fn lose(&self, node: u64) {
        self.alive.lock().remove(&NodeId(node));
        self.services.lock().remove(&NodeId(node));
    }

    /// Cuts or mends the link between two nodes.
    pub fn link(&self, a: u64, b: u64, is_up: bool) {
        let pair = (NodeId(a.min(b)), NodeId(a.max(b)));
        match is_up {
            true => self.cut.lock().remove(&pair),
            false => self.cut.lock().insert(pair),
        };
    }

    fn is_cut(&self, a: NodeId, b: NodeId) -> bool {
        self.cut.lock().contains(&(a.min(b), a.max(b)))
    }

    /// Puts a setting as an operator does.
    pub fn set(&self, name: &str, value: impl Into<Bytes>) {
        let mut settings = self.settings.lock();
        let version = settings.values().map(|setting| setting.version).max().unwrap_or(0) + 1;
        let value = value.into();
        settings.insert(name.to_owned(), RawSetting { name: name.to_owned(), version, value });
        drop(settings);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Moves the wall clock.
    pub fn pass(&self, time: Duration) {
        self.now_ms.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }

    pub fn now_secs(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed) / 1_000
    }

    /// Waits until a node reads a partition's stream.
    pub async fn reads(&self, node: u64, partition: u32) {
        let place = (NodeId(node), PartitionId(partition));
        let mut reading = self.reading.subscribe();
        reading.wait_for(|reading| reading.contains(&place)).await.expect("the world is there");
    }

    /// Appends one record to a partition's stream.
    pub fn append(&self, partition: u32, record: &RecordRef<'_>) {
        let mut builder = BatchBuilder::default();
        builder.push(record).expect("record");
        let producer = Producer { id: fleetline_types::ProducerId(1), epoch: 0, first_sequence: 0 };
        let batch = builder.finish(producer, Compression::None).expect("batch");
        let mut stream = self.streams[partition as usize].lock();
        let base_offset = Offset(stream.len() as u64);
        stream.push(StoredBatch { base_offset, enqueued: TimestampMs(START_MS), batch });
        drop(stream);
        self.appended.send_modify(|count| *count += 1);
    }
}

/// A node of the world.
pub struct Node {
    pub tier: Arc<Realtime>,
    running: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// The cluster as one node sees it.
struct Member {
    world: Arc<World>,
    node: NodeId,
    incarnation: u64,
}

#[async_trait]
impl Cluster for Member {
    fn node(&self) -> NodeId {
        self.node
    }

    fn alive(&self) -> Vec<NodeId> {
        let sees = |node: &NodeId| !self.world.is_cut(self.node, *node);
        self.world.alive.lock().iter().copied().filter(sees).collect()
    }

    fn hub(&self) -> Arc<dyn Hub> {
        Arc::new(Door { world: self.world.clone(), node: self.node, incarnation: self.incarnation })
    }

    fn devices(&self) -> Arc<dyn DeviceHub> {
        Arc::new(Door { world: self.world.clone(), node: self.node, incarnation: self.incarnation })
    }

    fn setting(&self, name: &str) -> RawSetting {
        let none = RawSetting { name: name.to_owned(), version: 0, value: Bytes::new() };
        self.world.settings.lock().get(name).cloned().unwrap_or(none)
    }

    fn settings_with(&self, prefix: &str) -> Vec<RawSetting> {
        let settings = self.world.settings.lock();
        settings.values().filter(|setting| setting.name.starts_with(prefix)).cloned().collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.world.changes.subscribe()
    }

    fn serve_tier(&self, _: Tier, service: Arc<dyn TierService>) {
        self.world.services.lock().insert(self.node, service);
    }

    async fn call_tier(
        &self,
        node: NodeId,
        _: Tier,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, HubError> {
        let gone = || HubError::Unavailable(format!("node {node}"));
        if self.world.is_cut(self.node, node) || !self.world.alive.lock().contains(&self.node) {
            return Err(gone());
        }
        let service = self.world.services.lock().get(&node).cloned().ok_or_else(gone)?;
        self.world.calls.fetch_add(1, Ordering::Relaxed);
        let from = self.node;
        // As over a network: the other side goes on when the caller doesn't wait any more.
        let asked = tokio::spawn(async move { service.on_call(from, body).await });
        match tokio::time::timeout(limit, asked).await {
            Ok(Ok(Ok(answer))) if self.world.alive.lock().contains(&node) => Ok(answer),
            Ok(Ok(Err(text))) => Err(HubError::Unavailable(text)),
            _ => Err(HubError::Unknown(format!("node {node}"))),
        }
    }
}

/// Partitions and settings.
struct Door {
    world: Arc<World>,
    node: NodeId,
    incarnation: u64,
}

impl Door {
    fn put(&self, partition: PartitionId, put: &PutDocument) -> DeviceReply {
        let mut documents = self.world.documents.lock();
        let version = documents.values().map(|row| row.version).max().unwrap_or(0) + 1;
        let key = (partition, put.name.clone());
        let current = documents.get(&key).map_or(0, |row| row.version);
        let fits = match put.condition.kind {
            Condition::ABSENT => current == 0,
            Condition::TAG => current == put.condition.tag,
            Condition::ANY => current > 0,
            _ => true,
        };
        if !fits {
            let error = ErrorReply { code: 0, text: "the version is another".to_owned() };
            return DeviceReply { error: Some(error), ..DeviceReply::default() };
        }
        match put.delete {
            true => drop(documents.remove(&key)),
            false => {
                let value = put.value.clone();
                documents.insert(key, DocumentRow { version, value, changed_ms: 0 });
            }
        }
        DeviceReply { number: version, ..DeviceReply::default() }
    }
}

#[async_trait]
impl DeviceHub for Door {
    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    fn place(&self) -> ConnectionPlace {
        ConnectionPlace { node: self.node.0, incarnation: self.incarnation, connection: 0 }
    }

    fn settings(&self) -> Arc<HubSettings> {
        Arc::default()
    }

    async fn put_setting(&self, name: &str, value: Bytes, expected: u64) -> Result<(), HubError> {
        let mut settings = self.world.settings.lock();
        let current = settings.get(name).map_or(0, |setting| setting.version);
        if current != expected {
            return Err(HubError::Unavailable("the version is another".to_owned()));
        }
        let version = current + 1;
        settings.insert(name.to_owned(), RawSetting { name: name.to_owned(), version, value });
        drop(settings);
        self.world.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        self.world.now_ms.load(Ordering::Relaxed)
    }

    fn random(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.world.draw().wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }

    async fn append(&self, _: PartitionId, _: Bytes) -> Result<(Appended, u32), HubError> {
        Err(HubError::NotFound("not of this world".to_owned()))
    }

    async fn ask(&self, partition: PartitionId, request: Request) -> Result<DeviceAnswer, HubError> {
        if let Some(error) = self.world.failing.lock().clone() {
            return Err(error);
        }
        match request {
            Request::Documents(ask) => {
                let found = self.world.documents.lock().get(&(partition, ask.name.clone())).cloned();
                let documents = found.map(|row| NamedDocument { name: ask.name, row }).into_iter().collect();
                Ok(DeviceAnswer { documents, ..DeviceAnswer::default() })
            }
            Request::Change(command) => match command.op {
                Some(Op::PutDocument(put)) => {
                    Ok(DeviceAnswer { reply: Some(self.put(partition, &put)), ..DeviceAnswer::default() })
                }
                _ => Err(HubError::NotFound("not of this world".to_owned())),
            },
            _ => Err(HubError::NotFound("not of this world".to_owned())),
        }
    }

    async fn call_gateway(&self, _: NodeId, _: GatewayCall) -> Result<GatewayAnswer, HubError> {
        Err(HubError::NotFound("not of this world".to_owned()))
    }

    fn leaders(&self) -> watch::Receiver<Leaders> {
        self.world.leaders.subscribe()
    }
}

fn missing<T>() -> Result<T, HubError> {
    Err(HubError::NotFound("not of this world".to_owned()))
}

#[async_trait]
impl Hub for Door {
    async fn append(&self, _: PartitionId, _: Bytes) -> Result<Appended, HubError> {
        missing()
    }

    async fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        _: u64,
        wait: Duration,
    ) -> Result<ReadReply, HubError> {
        let mut appended = self.world.appended.subscribe();
        self.world.reading.send_if_modified(|reading| reading.insert((self.node, partition)));
        let read = || {
            let stream = self.world.streams[partition.0 as usize].lock();
            let batches = stream.get(from.0 as usize..).unwrap_or_default().to_vec();
            let end = Offset(stream.len() as u64);
            ReadReply { batches, next: end, high_watermark: end, start: Offset(0) }
        };
        let come = async {
            while read().batches.is_empty() {
                appended.changed().await.expect("the world is there");
            }
        };
        let _ = tokio::time::timeout(wait, come).await;
        Ok(read())
    }

    async fn resolve(&self, partition: PartitionId, _: ReadFrom) -> Result<Offset, HubError> {
        Ok(Offset(self.world.streams[partition.0 as usize].lock().len() as u64))
    }

    async fn partition_info(&self, _: PartitionId) -> Result<PartitionInfo, HubError> {
        missing()
    }

    async fn group_join(
        &self,
        _: &str,
        _: Option<MemberId>,
        _: &str,
        _: Duration,
    ) -> Result<GroupAssignment, HubError> {
        missing()
    }

    async fn group_heartbeat(
        &self,
        _: &str,
        _: MemberId,
        _: u64,
        _: &[PartitionId],
    ) -> Result<GroupAssignment, HubError> {
        missing()
    }

    async fn group_leave(&self, _: &str, _: MemberId) -> Result<(), HubError> {
        missing()
    }

    async fn group_describe(&self, _: &str) -> Result<GroupDescription, HubError> {
        missing()
    }

    async fn group_list(&self, _: PartitionId) -> Result<Vec<String>, HubError> {
        missing()
    }

    async fn claim(&self, _: PartitionId, _: &str, _: MemberId, _: u64) -> Result<CheckpointInfo, HubError> {
        missing()
    }

    async fn checkpoint(&self, _: PartitionId, _: &str, _: u64, _: Offset) -> Result<(), HubError> {
        missing()
    }

    async fn checkpoint_read(&self, _: PartitionId, _: &str) -> Result<CheckpointInfo, HubError> {
        missing()
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            cluster: String::new(),
            node: self.node,
            partitions: PARTITIONS,
            nodes: Vec::new(),
            leaders: Vec::new(),
            control_leader: None,
        }
    }

    async fn local_partitions(&self) -> Vec<PartitionInfo> {
        Vec::new()
    }

    async fn change(&self, _: ClusterChange) -> Result<(), HubError> {
        missing()
    }

    async fn create_join_token(&self, _: Duration) -> Result<String, HubError> {
        missing()
    }

    async fn join(&self, _: JoinRequest) -> Result<JoinReply, HubError> {
        missing()
    }
}
