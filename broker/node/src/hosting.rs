//! Which partitions this node holds a replica of, and starting them.
//!
//! Follows the control state: peers' addresses go to the transport, and a partition that the placement
//! gives this node is started. What the log already holds is started first, without waiting for
//! anybody: a cluster that lost its power must come back by itself. What has left this node is deleted
//! by `retire`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleetline_cluster::ControlState;
use fleetline_env::Clock;
use fleetline_partition::{Partition, PartitionMachine, PartitionParts};
use fleetline_raft_driver::Driver;
use fleetline_raft_group::{Blocking, Machine, SnapshotStore};
use fleetline_raft_transport::PeerAddress;
use fleetline_snapshot::SnapshotDir;
use fleetline_streams::StreamLimits;
use fleetline_types::{GroupId, NodeId, PartitionId};
use parking_lot::RwLock;

use crate::error::NodeError;

mod doubt;
mod retire;
#[cfg(test)]
mod test_kit;

/// Starts and finds the partitions of this node.
pub(crate) struct Hosting {
    driver: Arc<Driver>,
    snapshots: SnapshotDir,
    clock: Arc<dyn Clock>,
    partitions: u32,
    hosted: RwLock<BTreeMap<PartitionId, Arc<Partition>>>,
}

impl Hosting {
    pub(crate) fn new(
        driver: Arc<Driver>,
        snapshots: SnapshotDir,
        clock: Arc<dyn Clock>,
        partitions: u32,
    ) -> Arc<Hosting> {
        Arc::new(Hosting { driver, snapshots, clock, partitions, hosted: RwLock::default() })
    }

    /// The snapshots of a group.
    pub(crate) fn snapshots(&self, group: GroupId) -> Arc<SnapshotStore> {
        let (log, store) = (self.driver.log().clone(), self.driver.store().clone());
        Arc::new(SnapshotStore::new(group, self.snapshots.clone(), log, store, Blocking::Pool))
    }

    /// Starts a group with this machine.
    pub(crate) async fn start_group(
        &self,
        group: GroupId,
        machine: Box<dyn Machine>,
    ) -> Result<fleetline_raft_group::Group, NodeError> {
        Ok(self.driver.start_group(group, machine, self.snapshots(group)).await?)
    }

    /// Starts every partition that the log already holds.
    pub(crate) async fn start_stored(&self) -> Result<(), NodeError> {
        for partition in self.driver.log().groups().into_iter().filter_map(GroupId::partition) {
            self.host(partition).await?;
        }
        self.finish_removals().await
    }

    async fn host(&self, partition: PartitionId) -> Result<Arc<Partition>, NodeError> {
        if let Some(hosted) = self.partition(partition) {
            return Ok(hosted);
        }
        let store = self.driver.store().clone();
        let (machine, published) =
            PartitionMachine::new(partition, self.partitions, StreamLimits::default(), store);
        let group = self.start_group(GroupId::of_partition(partition), Box::new(machine)).await?;
        let hosted = Partition::new(PartitionParts {
            partition,
            partitions: self.partitions,
            group,
            log: self.driver.log().clone(),
            store: self.driver.store().clone(),
            clock: self.clock.clone(),
            published,
            blocking: Blocking::Pool,
        });
        self.hosted.write().insert(partition, hosted.clone());
        Ok(hosted)
    }

    /// A partition that this node holds a replica of.
    pub(crate) fn partition(&self, partition: PartitionId) -> Option<Arc<Partition>> {
        self.hosted.read().get(&partition).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        self.hosted.read().values().cloned().collect()
    }

    /// Brings transport and partitions in line with the control state.
    pub(crate) async fn follow(
        &self,
        state: &ControlState,
        known: &mut BTreeSet<NodeId>,
    ) -> Result<(), NodeError> {
        let this = self.driver.node();
        for (node, member) in state.nodes.iter().filter(|(node, _)| **node != this) {
            let address = PeerAddress { address: member.peer_address.clone() };
            self.driver.transport().set_peer(*node, address);
            known.insert(*node);
        }
        let gone: Vec<NodeId> =
            known.iter().copied().filter(|node| !state.nodes.contains_key(node)).collect();
        for node in gone {
            tracing::info!(%node, "node was removed from the cluster");
            self.driver.transport().remove_peer(node);
            known.remove(&node);
        }
        for (partition, placement) in &state.placements {
            if !placement.replicas.contains(&this) {
                continue;
            }
            // The first placement of a partition makes its group, on the node that it names first.
            let makes = placement.epoch == 1 && placement.replicas.first() == Some(&this);
            if makes && self.is_doubtful(*partition) {
                continue;
            }
            let hosted = self.host(*partition).await?;
            if makes {
                hosted.group().initialize(&BTreeSet::from([this])).await?;
            }
        }
        Ok(())
    }
}
