//! Hosting of nodes 1 and 2 in memory, for the tests of this module.

use std::path::Path;
use std::sync::Arc;

use fleetline_env::memory::MemDisk;
use fleetline_env::real::RealClock;
use fleetline_log::memory::MemLog;
use fleetline_raft_driver::{Driver, DriverOptions};
use fleetline_raft_group::GroupConfig;
use fleetline_raft_transport::memory::MemNetwork;
use fleetline_raft_transport::{PeerAddress, PeerTransport};
use fleetline_snapshot::{SnapshotDir, SnapshotOptions};
use fleetline_state::memory::MemState;
use fleetline_types::NodeId;

use super::Hosting;

/// A node of a hub with two partitions, and its log.
pub(super) async fn start(network: &MemNetwork, id: u64) -> (Arc<Hosting>, Arc<MemLog>) {
    let log = Arc::new(MemLog::new());
    let options = DriverOptions {
        node: NodeId(id),
        config: GroupConfig::default(),
        log: log.clone(),
        store: Arc::new(MemState::new()),
    };
    let connect = async |handler| -> Result<Arc<dyn PeerTransport>, std::convert::Infallible> {
        Ok(network.endpoint(NodeId(id), handler) as Arc<dyn PeerTransport>)
    };
    let driver = Driver::start(options, connect).await.unwrap();
    for peer in [1, 2].into_iter().filter(|peer| *peer != id) {
        driver.transport().set_peer(NodeId(peer), PeerAddress { address: format!("n{peer}") });
    }
    let options = SnapshotOptions::new(Path::new("snapshots"));
    let snapshots = SnapshotDir::open(Arc::new(MemDisk::new()), options).unwrap();
    (Hosting::new(driver, snapshots, Arc::new(RealClock::new()), 2), log)
}
