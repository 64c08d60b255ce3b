//! A node of the simulation: its disk survives, everything else is made anew at each start.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleetline_env::memory::MemDisk;
use fleetline_env::{Clock, Monotonic};
use fleetline_log::{LogOptions, NodeLog, SegLog, WriterMode};
use fleetline_partition::{Partition, PartitionMachine, PartitionParts};
use fleetline_raft_driver::{Driver, DriverOptions};
use fleetline_raft_group::{Blocking, GroupConfig, Machine, SnapshotStore};
use fleetline_raft_transport::memory::MemNetwork;
use fleetline_raft_transport::{PeerAddress, PeerTransport};
use fleetline_snapshot::{SnapshotDir, SnapshotOptions};
use fleetline_state::memory::MemState;
use fleetline_streams::StreamLimits;
use fleetline_types::{GroupId, NodeId, PartitionId, TimestampMs};
use tokio::time::{Instant, timeout};

use crate::plant::{HastyLog, Plant, PlantedMachine};
use crate::rng::Rng;
use crate::world::Options;

/// The one partition that is simulated.
pub(crate) const PARTITION: PartitionId = PartitionId(0);

/// What a node has while it runs.
pub(crate) struct Running {
    pub(crate) driver: Arc<Driver>,
    pub(crate) partition: Arc<Partition>,
    pump: tokio::task::JoinHandle<()>,
}

/// A node.
pub(crate) struct SimNode {
    pub(crate) id: NodeId,
    pub(crate) disk: MemDisk,
    pub(crate) state: MemState,
    pub(crate) running: Option<Running>,
}

/// What the wall clock shows when a run begins.
pub(crate) const START_MS: u64 = 1_700_000_000_000;

/// A node's clocks: tokio's virtual time; the wall clock is wrong by some seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimClock {
    pub(crate) begun: Instant,
    pub(crate) wrong_ms: i64,
}

impl Clock for SimClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.begun.elapsed())
    }

    fn wall(&self) -> TimestampMs {
        let elapsed = self.begun.elapsed().as_millis() as u64;
        TimestampMs((START_MS + elapsed).saturating_add_signed(self.wrong_ms))
    }
}

impl SimNode {
    pub(crate) fn new(id: NodeId) -> SimNode {
        SimNode { id, disk: MemDisk::new(), state: MemState::new(), running: None }
    }

    /// Starts from what the disk holds. The writer's rounds come after delays that `rng` draws.
    pub(crate) async fn start(
        &mut self,
        network: &MemNetwork,
        world: &Options,
        clock: SimClock,
        mut rng: Rng,
    ) -> Result<(), String> {
        let clock: Arc<dyn Clock> = Arc::new(clock);
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let mut options = LogOptions::new(Path::new("log"));
        // Small, so that segments roll, caches miss and everything wraps within a short run.
        options.segment_bytes = 8 << 10;
        options.cache_bytes = 16 << 10;
        options.reserve_bytes = 0;
        options.writer = WriterMode::Manual;
        let disk = Arc::new(self.disk.clone());
        let (log, _) = SegLog::open(disk.clone(), clock.clone(), options).map_err(|e| text(&e))?;
        let pump = tokio::spawn({
            let (log, disk_us) = (log.clone(), world.disk_us);
            async move {
                loop {
                    tokio::time::sleep(Duration::from_micros(200 + rng.below(disk_us))).await;
                    log.pump();
                }
            }
        });
        let log: Arc<dyn NodeLog> = match world.plant {
            Some(Plant::AcknowledgeBeforeDurable) => Arc::new(HastyLog(log)),
            _ => log,
        };
        let store = Arc::new(self.state.clone());
        let config = GroupConfig { append_entries_max: 8, append_window: 3, ..GroupConfig::default() };
        let options = DriverOptions { node: self.id, config, log: log.clone(), store: store.clone() };
        let id = self.id;
        let driver = Driver::start(options, async |handler| {
            Ok::<_, std::convert::Infallible>(network.endpoint(id, handler) as Arc<dyn PeerTransport>)
        })
        .await;
        let driver = driver.unwrap_or_else(|never| match never {});
        for peer in (1..=world.nodes).map(NodeId).filter(|peer| *peer != id) {
            driver.transport().set_peer(peer, PeerAddress { address: peer.to_string() });
        }
        let snapshots =
            SnapshotDir::open(disk, SnapshotOptions { reserve_bytes: 0, ..SnapshotOptions::new("snap") });
        let snapshots = snapshots.map_err(|e| text(&e))?;
        let group_id = GroupId::of_partition(PARTITION);
        let snapshots = SnapshotStore::new(group_id, snapshots, log.clone(), store.clone(), Blocking::Inline);
        let (machine, published) =
            PartitionMachine::new(PARTITION, 1, StreamLimits::default(), store.clone());
        let machine: Box<dyn Machine> = match world.plant {
            Some(plant) => Box::new(PlantedMachine::new(machine, plant)),
            None => Box::new(machine),
        };
        let group = driver.start_group(group_id, machine, Arc::new(snapshots)).await;
        let partition = Partition::new(PartitionParts {
            partition: PARTITION,
            partitions: 1,
            group: group.map_err(|e| text(&e))?,
            log,
            store,
            clock,
            published,
            blocking: Blocking::Inline,
        });
        self.running = Some(Running { driver, partition, pump });
        Ok(())
    }

    /// The process is gone at once. Its disk is as the kernel has it (`power` false: nothing is lost that
    /// was written) or as a power cut leaves it, drawn from `seed`. The state store falls back to its last
    /// flush either way, as RocksDB without its log does.
    pub(crate) async fn die(&mut self, network: &MemNetwork, power: bool, seed: u64) {
        let Some(running) = self.running.take() else {
            return;
        };
        network.kill(self.id);
        running.pump.abort();
        // From here on the old process can reach neither network nor disk.
        let image = if power { self.disk.crash(seed) } else { self.disk.crash_all_kept() };
        let state = self.state.crash_all_lost();
        // It may wait for what the log was to write, as a process that is gone would not.
        drop(timeout(Duration::from_secs(1), running.driver.shutdown()).await);
        (self.disk, self.state) = (image, state);
    }
}
