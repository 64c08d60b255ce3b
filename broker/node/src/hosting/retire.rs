//! Deleting replicas that have left this node.
//!
//! Called by the loop that follows the control state, so nothing is started and deleted at once.
//! A replica goes only when all of this holds:
//!
//! 1. The control state, as applied here, has a later placement of the partition than its first; that
//!    placement is reached, and this node is not in it. What the control state doesn't know stays.
//! 2. The replica is stopped: nothing that it would acknowledge from here on can count.
//! 3. The group's leader, confirmed by a majority *after* that, says that this node is no member.
//!
//! If the control state here is behind and the partition has come back meanwhile, (3) keeps the replica
//! or, when the leader has not taken this node in again yet, has it filled anew: the same as for a node
//! that never had it. The removal is one record of the log; rows and snapshots follow, and whatever a
//! crash leaves of them goes at the next start.

use std::collections::BTreeSet;
use std::time::Duration;

use fleetline_cluster::{ControlState, Placement};
use fleetline_types::{GroupId, NodeId, PartitionId};

use super::Hosting;
use crate::error::NodeError;

/// How long a group's leader may take to say who its members are.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the replicas of a partition lie, when the control state says that none is left on `node`.
fn elsewhere(state: &ControlState, partition: PartitionId, node: NodeId) -> Option<BTreeSet<NodeId>> {
    let left = |placement: &&Placement| {
        placement.epoch > 1 && placement.is_made() && !placement.in_motion() && !placement.holds(node)
    };
    state.placements.get(&partition).filter(left).map(|found| found.replicas.iter().copied().collect())
}

impl Hosting {
    /// Deletes the replicas that have left this node; gives their groups. Those whose group can't be
    /// asked stay for now.
    pub(crate) async fn retire(&self, state: &ControlState) -> Result<BTreeSet<GroupId>, NodeError> {
        let hosted: Vec<PartitionId> = self.hosted.read().keys().copied().collect();
        let left = hosted.into_iter().filter_map(|partition| {
            elsewhere(state, partition, self.driver.node()).map(|members| (partition, members))
        });
        // Asked before it is stopped as well, so that one whose group is away isn't stopped in vain.
        let asked = left.map(|(partition, members)| async move {
            let out = self.is_out(partition, &members).await;
            out.then_some((partition, members))
        });
        let mut gone = BTreeSet::new();
        for (partition, members) in futures::future::join_all(asked).await.into_iter().flatten() {
            if self.retire_one(partition, &members).await? {
                gone.insert(GroupId::of_partition(partition));
            }
        }
        Ok(gone)
    }

    async fn retire_one(
        &self,
        partition: PartitionId,
        members: &BTreeSet<NodeId>,
    ) -> Result<bool, NodeError> {
        let Some(hosted) = self.hosted.write().remove(&partition) else {
            return Ok(false);
        };
        self.driver.stop_group(GroupId::of_partition(partition)).await;
        if !self.is_out(partition, members).await {
            self.host(partition).await?;
            return Ok(false);
        }
        hosted.group().remove().await?;
        tracing::info!(%partition, "replica has left this node and is deleted");
        Ok(true)
    }

    /// Whether the group itself says that this node is no member.
    async fn is_out(&self, partition: PartitionId, members: &BTreeSet<NodeId>) -> bool {
        let group = GroupId::of_partition(partition);
        match self.driver.confirm(group, members, PATIENCE).await {
            Ok(said) => !said.has_member(self.driver.node()),
            Err(reason) => {
                tracing::debug!(%partition, reason, "a replica that seems to have left stays for now");
                false
            }
        }
    }

    /// Deletes what a crash left of removed replicas.
    pub(super) async fn finish_removals(&self) -> Result<(), NodeError> {
        for partition in (0..self.partitions).map(PartitionId) {
            let group = GroupId::of_partition(partition);
            if self.driver.log().state(group).removed {
                self.snapshots(group).forget().await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fleetline_raft_transport::memory::{MemNetwork, MemOptions};

    use super::super::test_kit::start;
    use super::*;

    const P: PartitionId = PartitionId(0);

    fn ids(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn placed(replicas: &[u64], epoch: u64, reached: u64) -> ControlState {
        let replicas = replicas.iter().copied().map(NodeId).collect();
        let placement = Placement { replicas, leaving: Vec::new(), epoch, reached };
        ControlState { placements: [(P, placement)].into(), ..ControlState::default() }
    }

    async fn follow(hosting: &Hosting, state: &ControlState) {
        hosting.follow(state, &mut BTreeSet::new()).await.unwrap();
    }

    /// What the control state doesn't know, what is on its way, and what the group itself still counts as
    /// a member stays and runs; what both say has left goes, with everything but the vote, and stays gone.
    #[tokio::test]
    async fn only_what_has_left_goes() {
        let network = MemNetwork::new(MemOptions::default());
        let (one, two) = (start(&network, 1).await.0, start(&network, 2).await.0);
        follow(&one, &placed(&[1], 1, 0)).await;
        follow(&two, &placed(&[1, 2], 2, 1)).await;
        let leader = one.partition(P).unwrap().group().clone();
        let mut applied = leader.applied();
        applied.wait_for(|applied| leader.is_leader() && applied.is_some()).await.unwrap();
        leader.add_learner(NodeId(2)).await.unwrap();
        leader.change_voters(&ids(&[1, 2])).await.unwrap();

        let (group, log) = (GroupId::of_partition(P), two.driver.log().clone());
        let unknown = ControlState::default();
        for stays in [unknown, placed(&[1], 3, 2), placed(&[1, 2], 3, 3), placed(&[1], 3, 3)] {
            assert!(two.retire(&stays).await.unwrap().is_empty(), "{stays:?}");
            assert!(two.partition(P).is_some() && log.state(group).last.is_some());
        }

        leader.change_voters(&ids(&[1])).await.unwrap();
        let left = placed(&[1], 3, 3);
        assert_eq!(two.retire(&left).await.unwrap(), BTreeSet::from([group]));
        assert!(one.retire(&left).await.unwrap().is_empty() && one.partition(P).is_some());
        let state = log.state(group);
        assert!(state.removed && state.vote.is_some() && state.last.is_none());
        assert!(two.partition(P).is_none() && two.driver.group(group).is_none());
        let rows = two.driver.store().get(group, fleetline_state::KeyKind::Applied, b"").unwrap();
        assert!(rows.is_none());

        follow(&two, &left).await;
        two.start_stored().await.unwrap();
        assert!(two.partition(P).is_none());
    }
}
