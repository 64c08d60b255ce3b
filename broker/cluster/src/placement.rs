//! Where replicas should lie: a pure function of the nodes and of where they lie now.
//!
//! Run by the control leader, which proposes what comes out as `SetPlacement` commands.
//!
//! Rules, in this order: replicas of a partition lie on different nodes, in different zones as far as
//! there are; nodes that drain or are lost hold none; every node holds equally many within one; every
//! node is the preferred leader of equally many within one; as little as possible moves. A partition
//! has the largest odd number of replicas that the target and the usable nodes allow: two replicas
//! would need both for every write and add nothing to one.

use std::collections::{BTreeMap, BTreeSet};

use fleetline_types::{NodeId, PartitionId};

use crate::state::ControlState;

/// A placement that should be proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementChange {
    /// Which partition.
    pub partition: PartitionId,
    /// The nodes; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// The epoch that it was computed from.
    pub expected_epoch: u64,
}

/// How many replicas a partition gets on so many usable nodes.
pub fn replica_count(target: u32, usable: usize) -> usize {
    let most = (target as usize).min(usable);
    match most % 2 {
        0 => most.saturating_sub(1),
        _ => most,
    }
}

/// Up to `limit` changes that bring the placement closer to the rules; none when it obeys them.
/// `lost` are nodes that have been away for so long that their replicas should be made anew.
pub fn plan(state: &ControlState, lost: &BTreeSet<NodeId>, limit: usize) -> Vec<PlacementChange> {
    let usable: BTreeSet<NodeId> = state
        .nodes
        .iter()
        .filter(|(id, member)| !member.draining && !lost.contains(id))
        .map(|(id, _)| *id)
        .collect();
    let count = replica_count(state.settings.replicas, usable.len());
    if count == 0 {
        return Vec::new();
    }
    let mut layout = Layout::new(state, usable, count);
    layout.fill();
    layout.balance_replicas();
    layout.balance_leaders();
    let all = (0..state.settings.partitions).map(PartitionId);
    let changes = all.filter_map(|partition| {
        let current = state.placements.get(&partition);
        let replicas = layout.partitions.get(&partition)?.clone();
        let differs = current.is_none_or(|current| current.replicas != replicas);
        let expected_epoch = current.map_or(0, |current| current.epoch);
        differs.then_some(PlacementChange { partition, replicas, expected_epoch })
    });
    changes.take(limit).collect()
}

/// The nodes that should vote in the control group: up to three, five from seven nodes on, in
/// different zones as far as there are; those that vote already stay.
pub fn control_voters(
    state: &ControlState,
    current: &BTreeSet<NodeId>,
    lost: &BTreeSet<NodeId>,
) -> BTreeSet<NodeId> {
    let usable: Vec<NodeId> = state
        .nodes
        .iter()
        .filter(|(id, member)| !member.draining && !lost.contains(id))
        .map(|(id, _)| *id)
        .collect();
    let count = replica_count(if usable.len() >= 7 { 5 } else { 3 }, usable.len());
    let mut chosen: BTreeSet<NodeId> = BTreeSet::new();
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    while chosen.len() < count {
        let next = usable.iter().filter(|id| !chosen.contains(id)).min_by_key(|id| {
            let zone = zone_of(state, **id);
            (zones.get(zone).copied().unwrap_or(0), !current.contains(id), **id)
        });
        let Some(next) = next else {
            break;
        };
        *zones.entry(zone_of(state, *next)).or_default() += 1;
        chosen.insert(*next);
    }
    // While enough of the current voters can serve, a mere preference of zones moves nobody.
    let keeps: BTreeSet<NodeId> = current.iter().copied().filter(|id| usable.contains(id)).collect();
    let spread =
        |set: &BTreeSet<NodeId>| set.iter().map(|id| zone_of(state, *id)).collect::<BTreeSet<_>>().len();
    match keeps.len() == count && spread(&keeps) >= spread(&chosen) {
        true => keeps,
        false => chosen,
    }
}

/// The zone of a node; a node without one is a zone of its own only together with all such.
fn zone_of(state: &ControlState, node: NodeId) -> &str {
    state.nodes.get(&node).map_or("", |member| member.zone.as_str())
}

struct Layout<'a> {
    state: &'a ControlState,
    usable: BTreeSet<NodeId>,
    count: usize,
    partitions: BTreeMap<PartitionId, Vec<NodeId>>,
}

impl<'a> Layout<'a> {
    fn new(state: &'a ControlState, usable: BTreeSet<NodeId>, count: usize) -> Layout<'a> {
        let all = (0..state.settings.partitions).map(PartitionId);
        let partitions = all
            .map(|partition| {
                let current = state.placements.get(&partition);
                let replicas = current.map(|current| current.replicas.clone()).unwrap_or_default();
                (partition, replicas.into_iter().filter(|node| usable.contains(node)).collect())
            })
            .collect();
        Layout { state, usable, count, partitions }
    }

    fn loads(&self) -> BTreeMap<NodeId, usize> {
        let mut loads: BTreeMap<NodeId, usize> = self.usable.iter().map(|id| (*id, 0)).collect();
        for node in self.partitions.values().flatten() {
            *loads.entry(*node).or_default() += 1;
        }
        loads
    }

    /// How many of `replicas` share the zone of `node`, itself left out.
    fn zone_mates(&self, replicas: &[NodeId], node: NodeId) -> usize {
        let zone = zone_of(self.state, node);
        replicas.iter().filter(|other| **other != node && zone_of(self.state, **other) == zone).count()
    }

    /// Gives each partition its number of replicas.
    fn fill(&mut self) {
        let mut loads = self.loads();
        let ids: Vec<PartitionId> = self.partitions.keys().copied().collect();
        for id in ids {
            let mut replicas = self.partitions.remove(&id).unwrap_or_default();
            while replicas.len() > self.count {
                let crowded = |node: &NodeId| (self.zone_mates(&replicas, *node), loads.get(node).copied());
                let Some(goes) = replicas.iter().skip(1).max_by_key(|node| crowded(node)).copied() else {
                    break;
                };
                replicas.retain(|node| *node != goes);
                loads.entry(goes).and_modify(|load| *load -= 1);
            }
            while replicas.len() < self.count {
                let free = self.usable.iter().filter(|node| !replicas.contains(node));
                let best = free.min_by_key(|node| {
                    (self.zone_mates(&replicas, **node), loads.get(node).copied(), **node)
                });
                let Some(comes) = best.copied() else {
                    break;
                };
                replicas.push(comes);
                *loads.entry(comes).or_default() += 1;
            }
            self.partitions.insert(id, replicas);
        }
    }

    /// Moves replicas from the fullest to the emptiest node while they differ by more than one and
    /// zones don't get worse.
    fn balance_replicas(&mut self) {
        while let Some((partition, from, to)) = self.next_move() {
            if let Some(replicas) = self.partitions.get_mut(&partition)
                && let Some(place) = replicas.iter_mut().find(|node| **node == from)
            {
                *place = to;
            }
        }
    }

    fn next_move(&self) -> Option<(PartitionId, NodeId, NodeId)> {
        let loads = self.loads();
        let mut by_load: Vec<(usize, NodeId)> = loads.into_iter().map(|(node, load)| (load, node)).collect();
        by_load.sort_unstable();
        for (least, to) in &by_load {
            for (most, from) in by_load.iter().rev() {
                if *most <= least + 1 {
                    break;
                }
                let movable = self.partitions.iter().find(|(_, replicas)| {
                    replicas.contains(from)
                        && !replicas.contains(to)
                        && self.zone_mates(&moved(replicas, *from, *to), *to)
                            <= self.zone_mates(replicas, *from)
                });
                if let Some((partition, _)) = movable {
                    return Some((*partition, *from, *to));
                }
            }
        }
        None
    }

    /// Swaps preferred leaders until no swap makes their numbers more equal.
    fn balance_leaders(&mut self) {
        let mut leads: BTreeMap<NodeId, usize> = self.usable.iter().map(|id| (*id, 0)).collect();
        for leader in self.partitions.values().filter_map(|replicas| replicas.first()) {
            *leads.entry(*leader).or_default() += 1;
        }
        let lead = |leads: &BTreeMap<NodeId, usize>, node: NodeId| leads.get(&node).copied().unwrap_or(0);
        loop {
            let mut swapped = false;
            for replicas in self.partitions.values_mut() {
                let Some(leader) = replicas.first().copied() else {
                    continue;
                };
                let least = replicas.iter().copied().min_by_key(|node| (lead(&leads, *node), *node));
                if let Some(heir) = least.filter(|heir| lead(&leads, *heir) + 1 < lead(&leads, leader)) {
                    let at = replicas.iter().position(|node| *node == heir).unwrap_or(0);
                    replicas.swap(0, at);
                    leads.entry(leader).and_modify(|count| *count -= 1);
                    leads.entry(heir).and_modify(|count| *count += 1);
                    swapped = true;
                }
            }
            if !swapped {
                return;
            }
        }
    }
}

fn moved(replicas: &[NodeId], from: NodeId, to: NodeId) -> Vec<NodeId> {
    replicas.iter().map(|node| if *node == from { to } else { *node }).collect()
}

#[cfg(test)]
mod tests {
    use fleetline_state::StateBatch;
    use proptest::prelude::*;

    use super::*;
    use crate::command::ControlCommand;
    use crate::command::tests::{add, bootstrap};

    fn cluster(partitions: u32, replicas: u32, zones: &[&str]) -> ControlState {
        let mut state = ControlState::default();
        let mut out = StateBatch::default();
        state.apply(&bootstrap(partitions, replicas), &mut out);
        for (n, zone) in zones.iter().enumerate() {
            let ControlCommand::AddNode { disk_id, client_address, peer_address, feature_level, .. } =
                add(&format!("n{n}"))
            else {
                unreachable!()
            };
            let zone = (*zone).to_owned();
            let command =
                ControlCommand::AddNode { disk_id, client_address, peer_address, zone, feature_level };
            state.apply(&command, &mut out);
        }
        state
    }

    /// Plans and applies until nothing changes; gives how many changes it took.
    fn settle(state: &mut ControlState, lost: &BTreeSet<NodeId>) -> usize {
        let mut moves = 0;
        loop {
            let changes = plan(state, lost, 4);
            if changes.is_empty() {
                return moves;
            }
            for PlacementChange { partition, replicas, expected_epoch } in changes {
                let command = ControlCommand::SetPlacement { partition, replicas, expected_epoch };
                state.apply(&command, &mut StateBatch::default());
                moves += 1;
                assert!(moves < 10_000, "placement does not settle");
            }
        }
    }

    fn check(state: &ControlState, lost: &BTreeSet<NodeId>) {
        let usable: Vec<NodeId> = state
            .nodes
            .iter()
            .filter(|(id, m)| !m.draining && !lost.contains(id))
            .map(|(id, _)| *id)
            .collect();
        let count = replica_count(state.settings.replicas, usable.len());
        for placement in state.placements.values() {
            assert_eq!(placement.replicas.len(), count);
            let distinct: BTreeSet<_> = placement.replicas.iter().collect();
            assert_eq!(distinct.len(), count);
            assert!(placement.replicas.iter().all(|node| usable.contains(node)));
        }
        let led = |node: &NodeId| state.placements.values().filter(|p| p.replicas[0] == *node).count();
        let held = |node: &NodeId| state.placements.values().filter(|p| p.replicas.contains(node)).count();
        for number in [&led as &dyn Fn(&NodeId) -> usize, &held] {
            let counts: Vec<usize> = usable.iter().map(number).collect();
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{counts:?}");
        }
    }

    /// One node has everything, two still one replica each, three have three.
    #[test]
    fn grows_with_the_cluster() {
        let none = BTreeSet::new();
        for (nodes, expected) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3)] {
            let mut state = cluster(16, 3, &vec![""; nodes]);
            settle(&mut state, &none);
            check(&state, &none);
            assert_eq!(state.placements[&PartitionId(0)].replicas.len(), expected);
            assert!(plan(&state, &none, 4).is_empty());
        }
    }

    /// With three zones each partition has a replica in each, however nodes are spread over them.
    #[test]
    fn zones() {
        let mut state = cluster(24, 3, &["a", "a", "b", "b", "c", "c"]);
        settle(&mut state, &BTreeSet::new());
        for placement in state.placements.values() {
            let zones: BTreeSet<&str> = placement.replicas.iter().map(|n| zone_of(&state, *n)).collect();
            assert_eq!(zones.len(), 3);
        }
        assert_eq!(control_voters(&state, &BTreeSet::new(), &BTreeSet::new()).len(), 3);
    }

    /// A drained node is emptied, a lost one replaced, and not more moves than they held.
    #[test]
    fn drains_and_losses_move_only_what_they_must() {
        let mut state = cluster(16, 3, &["", "", "", ""]);
        settle(&mut state, &BTreeSet::new());
        let held = state.placements.values().filter(|p| p.replicas.contains(&NodeId(2))).count();
        let drain = ControlCommand::SetDraining { node: NodeId(2), draining: true };
        state.apply(&drain, &mut StateBatch::default());
        let before = state.placements.clone();
        settle(&mut state, &BTreeSet::new());
        let replica_moves = before
            .iter()
            .filter(|(id, p)| {
                let set = |p: &[NodeId]| p.iter().copied().collect::<BTreeSet<_>>();
                set(&p.replicas) != set(&state.placements[id].replicas)
            })
            .count();
        assert_eq!(replica_moves, held);
    }

    /// Voters of the control group stay while they can, and lost ones are replaced.
    #[test]
    fn voters() {
        let state = cluster(1, 3, &["", "", "", ""]);
        let current: BTreeSet<NodeId> = [2, 3, 4].map(NodeId).into();
        assert_eq!(control_voters(&state, &current, &BTreeSet::new()), current);
        let lost: BTreeSet<NodeId> = [NodeId(3)].into();
        assert_eq!(control_voters(&state, &current, &lost), [1, 2, 4].map(NodeId).into());
        assert_eq!(control_voters(&cluster(1, 3, &["", ""]), &current, &BTreeSet::new()).len(), 1);
    }

    proptest! {
        /// Whatever joins, drains and is lost: it settles, obeys the rules, and stays as it is.
        #[test]
        fn settles(
            partitions in 1u32..40,
            nodes in 1usize..8,
            drained in prop::collection::vec(any::<bool>(), 8),
            lost in prop::collection::vec(any::<bool>(), 8),
        ) {
            let mut state = cluster(partitions, 3, &vec![""; nodes]);
            settle(&mut state, &BTreeSet::new());
            check(&state, &BTreeSet::new());
            for (n, drain) in drained.iter().take(nodes).enumerate().skip(1) {
                let command = ControlCommand::SetDraining { node: NodeId(n as u64 + 1), draining: *drain };
                state.apply(&command, &mut StateBatch::default());
            }
            let lost: BTreeSet<NodeId> = lost
                .iter()
                .take(nodes)
                .enumerate()
                .skip(1)
                .filter(|(_, lost)| **lost)
                .map(|(n, _)| NodeId(n as u64 + 1))
                .collect();
            settle(&mut state, &lost);
            check(&state, &lost);
            prop_assert!(plan(&state, &lost, 4).is_empty());
        }
    }
}
