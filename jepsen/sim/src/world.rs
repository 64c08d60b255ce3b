//! The run: options from the seed, producers, faults, and the two phases.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fleetline_batch::{BatchBuilder, BatchReader, Compression, Producer, RecordRef};
use fleetline_partition::Partition;
use fleetline_raft_transport::memory::{LinkFaults, MemNetwork, MemOptions};
use fleetline_types::{NodeId, Offset, ProducerId};
use tokio::time::{Instant, sleep, timeout};

use crate::account::{Account, Stored};
use crate::devices::Clients;
use crate::node::{SimClock, SimNode};
use crate::rng::Rng;

/// How far wall clocks of nodes are apart.
const CLOCK_WRONG_MS: u64 = 3000;

/// What a seed chose.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// Nodes: 3 or 5.
    pub nodes: u64,
    /// Producers.
    pub producers: u64,
    /// Virtual milliseconds between faults, on average; 0 for a calm run.
    pub fault_every_ms: u64,
    /// Which faults: killed, power cut, isolated, all at once.
    pub faults: [bool; 4],
    /// The longest delay of a message, in virtual milliseconds.
    pub delay_ms: u64,
    /// Virtual seconds of the safety phase.
    pub seconds: u64,
    /// Devices of the device workload; 0 for none.
    pub devices: u64,
}

impl Options {
    /// The options of a seed: a swarm, so that each run has other faults at other rates.
    pub fn from_seed(seed: u64, seconds: u64) -> Options {
        let mut rng = Rng::new(seed, 1);
        Options {
            seed,
            nodes: if rng.below(4) == 0 { 5 } else { 3 },
            producers: 1 + rng.below(4),
            fault_every_ms: if rng.below(4) == 0 { 0 } else { 800 + rng.below(5000) },
            faults: [rng.below(2) == 0, rng.below(2) == 0, rng.below(2) == 0, rng.below(4) == 0],
            delay_ms: 1 + rng.below(30),
            seconds,
            devices: rng.below(4),
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Changes of devices acknowledged.
    pub device_changes: u64,
    /// Records of devices acknowledged.
    pub device_records: u64,
    /// Faults that were done.
    pub faults: u64,
    /// Hash of everything that happened, with its virtual time.
    pub trace: u64,
}

/// What happened, as a hash that grows.
pub(crate) struct Trace {
    hasher: DefaultHasher,
    pub(crate) begun: Instant,
}

impl Trace {
    pub(crate) fn note(&mut self, what: impl Hash) {
        self.begun.elapsed().as_nanos().hash(&mut self.hasher);
        what.hash(&mut self.hasher);
    }
}

type Shared<T> = Rc<RefCell<T>>;

struct World {
    options: Options,
    network: MemNetwork,
    nodes: Shared<Vec<SimNode>>,
    account: Shared<Account>,
    trace: Shared<Trace>,
    stop: Rc<std::cell::Cell<bool>>,
    clients: Clients,
}

/// Runs a seed.
///
/// # Errors
/// The promise that was broken, or what did not converge.
pub fn run(options: &Options) -> Result<Report, String> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    // tokio's own draws (the order in which `watch` wakes its waiters) can be seeded only with this flag.
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&options.seed.to_le_bytes()));
    let runtime = builder.build().map_err(|error| error.to_string())?;
    fleetline_raft_group::seed_this_thread(Some(options.seed));
    let local = tokio::task::LocalSet::new();
    let report = local.block_on(&runtime, World::run(options.clone()));
    fleetline_raft_group::seed_this_thread(None);
    report
}

impl World {
    async fn run(options: Options) -> Result<Report, String> {
        let delays =
            LinkFaults { delay_max: Duration::from_millis(options.delay_ms), ..LinkFaults::default() };
        let network =
            MemNetwork::new(MemOptions { seed: options.seed, faults: delays, ..MemOptions::default() });
        let trace = Rc::new(RefCell::new(Trace { hasher: DefaultHasher::new(), begun: Instant::now() }));
        let clients = Clients {
            nodes: Rc::new(RefCell::new((1..=options.nodes).map(NodeId).map(SimNode::new).collect())),
            stop: Rc::default(),
            history: Rc::default(),
            trace: trace.clone(),
            seed: options.seed,
            devices: options.devices,
        };
        let (nodes, stop) = (clients.nodes.clone(), clients.stop.clone());
        let world = World { network, nodes, account: Shared::default(), trace, stop, clients, options };
        for place in 0..world.options.nodes as usize {
            world.start(place).await?;
        }
        let voters: BTreeSet<NodeId> = (1..=world.options.nodes).map(NodeId).collect();
        let first = world.partition(0).ok_or("first node doesn't run")?;
        first.group().initialize(&voters).await.map_err(|error| error.to_string())?;
        let mut running: Vec<_> =
            (0..world.options.producers).map(|n| tokio::task::spawn_local(world.producer(n))).collect();
        running.extend(world.clients.start().await);
        let faults = world.safety().await?;
        world.stop.set(true);
        for task in running {
            task.await.map_err(|error| error.to_string())?;
        }
        world.liveness().await?;
        let acknowledged = world.account.borrow().acknowledged_count();
        let trace = world.trace.borrow().hasher.finish();
        let history = world.clients.history.borrow();
        let (device_changes, device_records) = (history.changes, history.stored.len() as u64);
        Ok(Report { acknowledged, device_changes, device_records, faults, trace })
    }

    // The nodes are only touched by this task while it runs; producers hold partitions, not nodes.
    #[allow(clippy::await_holding_refcell_ref)]
    async fn start(&self, place: usize) -> Result<(), String> {
        let rng = Rng::new(self.options.seed, 100 + place as u64);
        let wrong_ms = Rng::new(self.options.seed, 200 + place as u64).below(CLOCK_WRONG_MS) as i64;
        let clock = SimClock { begun: self.trace.borrow().begun, wrong_ms };
        let mut node = std::mem::replace(&mut self.nodes.borrow_mut()[place], SimNode::new(NodeId(0)));
        let started = node.start(&self.network, self.options.nodes, clock, rng).await;
        self.nodes.borrow_mut()[place] = node;
        self.trace.borrow_mut().note(("start", place));
        started
    }

    async fn die(&self, place: usize, power: bool, seed: u64) {
        let mut node = std::mem::replace(&mut self.nodes.borrow_mut()[place], SimNode::new(NodeId(0)));
        node.die(&self.network, power, seed).await;
        self.nodes.borrow_mut()[place] = node;
        self.trace.borrow_mut().note(("die", place, power));
    }

    fn partition(&self, place: usize) -> Option<Arc<Partition>> {
        self.nodes.borrow()[place].running.as_ref().map(|running| running.partition.clone())
    }

    /// Sends batches of one device, in order, each again and again until it has an answer.
    fn producer(&self, number: u64) -> impl Future<Output = ()> + use<> {
        let mut rng = Rng::new(self.options.seed, 1000 + number);
        let (nodes, account, trace) = (self.nodes.clone(), self.account.clone(), self.trace.clone());
        let (stop, count) = (self.stop.clone(), self.options.nodes);
        let device = format!("device-{number}");
        async move {
            let (mut sequence, mut builder) = (0u64, BatchBuilder::default());
            while !stop.get() {
                let bodies: Vec<String> =
                    (0..=rng.below(4)).map(|n| format!("{device}/{:08}", sequence + n)).collect();
                for body in &bodies {
                    account.borrow_mut().sent(body);
                    let record = RecordRef {
                        device: device.as_bytes(),
                        body: body.as_bytes(),
                        ..RecordRef::default()
                    };
                    if builder.push(&record).is_err() {
                        return;
                    }
                }
                let producer = Producer { id: ProducerId(number + 1), epoch: 1, first_sequence: sequence };
                let Some(batch) = builder.finish(producer, Compression::None) else {
                    return;
                };
                let mut place = rng.below(count) as usize;
                loop {
                    let partition =
                        nodes.borrow()[place].running.as_ref().map(|running| running.partition.clone());
                    let answer = match partition {
                        Some(partition) => {
                            timeout(Duration::from_secs(5), partition.append(batch.clone())).await
                        }
                        None => Ok(Err(fleetline_native::HubError::Unavailable("node is down".to_owned()))),
                    };
                    if let Ok(Ok(appended)) = answer {
                        for (body, offset) in bodies.iter().zip(appended.base_offset.0..) {
                            account.borrow_mut().acknowledged(body, offset);
                        }
                        trace.borrow_mut().note(("ack", number, appended.base_offset.0));
                        break;
                    }
                    if stop.get() {
                        return;
                    }
                    // Somebody else may lead by now, or it was stored and the answer is lost: same bytes again.
                    place = (place + 1) % count as usize;
                    sleep(Duration::from_millis(20 + rng.below(80))).await;
                }
                sequence += bodies.len() as u64;
                sleep(Duration::from_millis(1 + rng.below(40))).await;
            }
        }
    }

    /// Faults until the time is over; gives how many.
    async fn safety(&self) -> Result<u64, String> {
        let mut rng = Rng::new(self.options.seed, 2);
        let end = Instant::now() + Duration::from_secs(self.options.seconds);
        let kinds: Vec<usize> = (0..4).filter(|kind| self.options.faults[*kind]).collect();
        let mut faults = 0;
        while Instant::now() < end {
            if self.options.fault_every_ms == 0 || kinds.is_empty() {
                sleep(Duration::from_secs(1)).await;
                continue;
            }
            sleep(Duration::from_millis(
                self.options.fault_every_ms / 2 + rng.below(self.options.fault_every_ms),
            ))
            .await;
            faults += 1;
            let place = rng.below(self.options.nodes) as usize;
            let away = Duration::from_millis(rng.below(4000));
            match kinds[rng.below(kinds.len() as u64) as usize] {
                2 => {
                    let node = NodeId(place as u64 + 1);
                    self.network.isolate(node);
                    self.trace.borrow_mut().note(("isolate", place));
                    sleep(away).await;
                    self.network.heal_all();
                }
                3 => {
                    for place in 0..self.options.nodes as usize {
                        self.die(place, true, rng.next()).await;
                    }
                    sleep(away).await;
                    for place in 0..self.options.nodes as usize {
                        self.start(place).await?;
                    }
                }
                kind => {
                    self.die(place, kind == 1, rng.next()).await;
                    sleep(away).await;
                    self.start(place).await?;
                }
            }
        }
        Ok(faults)
    }

    /// Without faults every replica must come to hold the same, and all that was acknowledged.
    async fn liveness(&self) -> Result<(), String> {
        self.network.heal_all();
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let ends: BTreeSet<_> = (0..self.options.nodes as usize)
                .filter_map(|place| self.partition(place))
                .map(|p| (p.head().next, p.group().status().applied))
                .collect();
            let least = ends.first().map_or(0, |(offset, _)| offset.0);
            if ends.len() == 1 && least >= self.account.borrow().acknowledged_count() {
                break;
            }
            if Instant::now() > deadline {
                return Err(format!("liveness: replicas end at {ends:?} two minutes after the last fault"));
            }
            sleep(Duration::from_millis(100)).await;
        }
        for place in 0..self.options.nodes as usize {
            let partition = self.partition(place).ok_or("a node doesn't run")?;
            let records = read_all(&partition).await?;
            self.account.borrow().check(&records).map_err(|error| format!("node {}: {error}", place + 1))?;
            self.clients.check(place, &records).map_err(|error| format!("node {}: {error}", place + 1))?;
            self.trace.borrow_mut().note(("read", place, records.len()));
        }
        Ok(())
    }
}

async fn read_all(partition: &Partition) -> Result<Vec<Stored>, String> {
    let (mut records, mut from) = (Vec::new(), Offset(0));
    while from < partition.head().next {
        let reply =
            partition.read(from, 64 << 10, Duration::from_secs(30)).await.map_err(|e| e.to_string())?;
        for stored in reply.batches {
            let batch = BatchReader::new(stored.batch).map_err(|error| error.to_string())?;
            for (record, offset) in batch.zip(stored.base_offset.0..) {
                let record = record.map_err(|error| error.to_string())?;
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                records.push(Stored { offset, device: text(&record.device), body: text(&record.body) });
            }
        }
        if reply.next == from {
            return Err(format!("reading stops at {from}"));
        }
        from = reply.next;
    }
    Ok(records)
}
