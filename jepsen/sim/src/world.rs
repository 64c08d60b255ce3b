//! The run: options from the seed, faults, and the two phases.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use fleetline_raft_transport::memory::{LinkFaults, MemNetwork, MemOptions};
use fleetline_types::NodeId;
use tokio::time::{Instant, sleep};

use crate::devices::Clients;
use crate::journal::Journal;
use crate::node::{SimClock, SimNode};
use crate::plant::Plant;
use crate::rng::Rng;
use crate::stream::StreamClients;

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
    /// The longest wait of a node's disk before it writes and syncs, in virtual microseconds.
    pub disk_us: u64,
    /// A bug to be found; none in a seed of its own accord.
    pub plant: Option<Plant>,
    /// Where the stream's history is kept when the checker finds something.
    pub history: Option<PathBuf>,
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
            disk_us: if rng.below(3) == 0 { 60_000 } else { 3000 },
            plant: None,
            history: None,
        }
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Operations in the stream's history.
    pub operations: u64,
    /// Epochs that owners were given.
    pub epochs: u64,
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
    trace: Shared<Trace>,
    stop: Rc<std::cell::Cell<bool>>,
    clients: Clients,
    stream: StreamClients,
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
        let begun = Instant::now();
        let trace = Rc::new(RefCell::new(Trace { hasher: DefaultHasher::new(), begun }));
        let clients = Clients {
            nodes: Rc::new(RefCell::new((1..=options.nodes).map(NodeId).map(SimNode::new).collect())),
            stop: Rc::default(),
            history: Rc::default(),
            trace: trace.clone(),
            seed: options.seed,
            devices: options.devices,
        };
        let (nodes, stop) = (clients.nodes.clone(), clients.stop.clone());
        let stream = StreamClients {
            nodes: nodes.clone(),
            stop: stop.clone(),
            account: Shared::default(),
            journal: Rc::new(RefCell::new(Journal::new(begun))),
            trace: trace.clone(),
            epoch: Rc::default(),
            options: Rc::new(options.clone()),
        };
        let world = World { network, nodes, trace, stop, clients, stream, options };
        for place in 0..world.options.nodes as usize {
            world.start(place).await?;
        }
        let voters: BTreeSet<NodeId> = (1..=world.options.nodes).map(NodeId).collect();
        let first = world.stream.partition(0).ok_or("first node doesn't run")?;
        first.group().initialize(&voters).await.map_err(|error| error.to_string())?;
        let mut running = world.stream.start();
        running.extend(world.clients.start().await);
        let faults = world.safety().await?;
        world.stop.set(true);
        for task in running {
            task.await.map_err(|error| error.to_string())?;
        }
        world.liveness().await?;
        let acknowledged = world.stream.account.borrow().acknowledged_count();
        let (operations, epochs) = (world.stream.journal.borrow().len(), world.stream.epoch.get());
        let trace = world.trace.borrow().hasher.finish();
        let history = world.clients.history.borrow();
        let (device_changes, device_records) = (history.changes, history.stored.len() as u64);
        Ok(Report { acknowledged, operations, epochs, device_changes, device_records, faults, trace })
    }

    // The nodes are only touched by this task while it runs; producers hold partitions, not nodes.
    #[allow(clippy::await_holding_refcell_ref)]
    async fn start(&self, place: usize) -> Result<(), String> {
        let rng = Rng::new(self.options.seed, 100 + place as u64);
        let wrong_ms = Rng::new(self.options.seed, 200 + place as u64).below(CLOCK_WRONG_MS) as i64;
        let clock = SimClock { begun: self.trace.borrow().begun, wrong_ms };
        let mut node = std::mem::replace(&mut self.nodes.borrow_mut()[place], SimNode::new(NodeId(0)));
        let started = node.start(&self.network, &self.options, clock, rng).await;
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
        self.converge().await?;
        let mut held = Vec::new();
        for place in 0..self.options.nodes {
            held.push(self.stream.read_all(place).await?);
            self.trace.borrow_mut().note(("read", place, held.last().map(Vec::len)));
        }
        let end = held.first().map_or(0, Vec::len) as u64;
        self.stream.journal.borrow_mut().judge(end, self.options.history.as_deref())?;
        for (place, records) in held.iter().enumerate() {
            let judged = self.stream.account.borrow().check(records);
            judged.map_err(|error| format!("node {}: {error}", place + 1))?;
            self.clients.check(place, records).map_err(|error| format!("node {}: {error}", place + 1))?;
        }
        Ok(())
    }

    /// Waits until all replicas end at the same place.
    async fn converge(&self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let ends: BTreeSet<_> = (0..self.options.nodes)
                .filter_map(|place| self.stream.partition(place))
                .map(|p| (p.head().next, p.group().status().applied))
                .collect();
            let least = ends.first().map_or(0, |(offset, _)| offset.0);
            if ends.len() == 1 && least >= self.stream.account.borrow().acknowledged_count() {
                return Ok(());
            }
            match Instant::now() > deadline {
                false => sleep(Duration::from_millis(100)).await,
                // They agree and something is missing: the checkers say what.
                true if ends.len() == 1 => return Ok(()),
                true => {
                    let text = "two minutes after the last fault";
                    return Err(format!("liveness: replicas end at {ends:?} {text}"));
                }
            }
        }
    }
}
