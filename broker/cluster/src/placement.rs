//! Where replicas should lie: a pure function of the nodes and of where they lie now.
//!
//! Run by the control leader, which proposes what comes out as `SetPlacement` commands.
//!
//! Rules, in this order: replicas of a partition lie on different nodes, in different zones as far as
//! there are; nodes that drain or are lost hold none; every node holds equally many within one; every
//! node is the preferred leader of equally many within one; as little as possible moves. A partition
//! has the largest odd number of replicas that the target and the nodes that don't drain allow: two
//! replicas would need both for every write and add nothing to one.
//!
//! Invariants:
//! 1. A loss never lowers the number of replicas. A lost or draining node's replica is handed to
//!    another node, or, where there is none, stays where it is: with one of three nodes lost a
//!    partition keeps two copies and the place of a third, instead of a group of one.
//! 2. At most `limit` partitions are in motion (placed, and not yet reported as such), repairs of lost
//!    replicas left out. Partitions that can't move, having lost their majority, count: a cluster that
//!    ill is repaired, not balanced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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

/// Up to `limit` changes that bring the placement closer to the rules; none when it obeys them, or when
/// enough is in motion. `lost` are nodes that have been away for so long that their replicas should be
/// made anew.
pub fn plan(state: &ControlState, lost: &BTreeSet<NodeId>, limit: usize) -> Vec<PlacementChange> {
    let usable = usable(state, lost);
    let count = replica_count(state.settings.replicas, staying(state));
    if count == 0 || usable.is_empty() {
        return Vec::new();
    }
    let mut layout = Layout::new(state, lost, usable, count);
    layout.fill();
    layout.balance_replicas();
    layout.balance_leaders();
    let all = (0..state.settings.partitions).map(PartitionId);
    let changes = all.filter_map(|partition| {
        let current = state.placements.get(&partition);
        let replicas = layout.partitions.get(&partition)?.clone();
        let differs = current.is_none_or(|current| current.is_made() && current.replicas != replicas);
        let expected_epoch = current.map_or(0, |current| current.epoch);
        differs.then_some(PlacementChange { partition, replicas, expected_epoch })
    });
    let moving = state.placements.values().filter(|placement| placement.in_motion()).count();
    let mut free = limit.saturating_sub(moving);
    let allowed = changes.filter(|change| {
        let current = state.placements.get(&change.partition);
        let counts = current.is_some_and(|current| {
            let repairs = current.replicas.iter().any(|node| lost.contains(node));
            !repairs && !current.in_motion() && !current.same_nodes(&change.replicas)
        });
        let allowed = !counts || free > 0;
        free -= usize::from(counts && allowed);
        allowed
    });
    allowed.take(limit).collect()
}

/// Nodes that may get replicas.
fn usable(state: &ControlState, lost: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let takes = state.nodes.iter().filter(|(id, member)| !member.draining && !lost.contains(id));
    takes.map(|(id, _)| *id).collect()
}

/// How many nodes don't drain. Lost ones count: they may come back.
fn staying(state: &ControlState) -> usize {
    state.nodes.values().filter(|member| !member.draining).count()
}

/// The nodes that should vote in the control group: up to three, five from seven nodes on, in
/// different zones as far as there are. Those that vote already stay, lost ones too while nobody can
/// take their place: a loss never leaves a smaller group.
pub fn control_voters(
    state: &ControlState,
    current: &BTreeSet<NodeId>,
    lost: &BTreeSet<NodeId>,
) -> BTreeSet<NodeId> {
    let usable = usable(state, lost);
    let staying = staying(state);
    let count = replica_count(if staying >= 7 { 5 } else { 3 }, staying);
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
    let away = current.iter().filter(|id| !usable.contains(id) && state.nodes.contains_key(id));
    chosen.extend(away.take(count - chosen.len()).copied().collect::<Vec<_>>());
    if chosen.len().is_multiple_of(2) {
        // An even group is no gain: whoever was to come new waits for one more.
        if let Some(newest) = chosen.iter().rev().find(|id| !current.contains(id)).copied() {
            chosen.remove(&newest);
        }
    }
    // While enough of the current voters can serve, a mere preference of zones moves nobody.
    let keeps: BTreeSet<NodeId> = current.intersection(&usable).copied().collect();
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
    lost: &'a BTreeSet<NodeId>,
    usable: BTreeSet<NodeId>,
    count: usize,
    partitions: BTreeMap<PartitionId, Vec<NodeId>>,
}

impl<'a> Layout<'a> {
    fn new(
        state: &'a ControlState,
        lost: &'a BTreeSet<NodeId>,
        usable: BTreeSet<NodeId>,
        count: usize,
    ) -> Layout<'a> {
        let all = (0..state.settings.partitions).map(PartitionId);
        let replicas = |partition| state.placements.get(&partition).map(|p| p.replicas.clone());
        let partitions = all.map(|partition| (partition, replicas(partition).unwrap_or_default())).collect();
        Layout { state, lost, usable, count, partitions }
    }

    /// Replicas of each usable node.
    fn loads(&self) -> BTreeMap<NodeId, usize> {
        let mut loads: BTreeMap<NodeId, usize> = self.usable.iter().map(|id| (*id, 0)).collect();
        for node in self.partitions.values().flatten() {
            loads.entry(*node).and_modify(|load| *load += 1);
        }
        loads
    }

    /// How many of `replicas` share the zone of `node`, itself left out.
    fn zone_mates(&self, replicas: &[NodeId], node: NodeId) -> usize {
        let zone = zone_of(self.state, node);
        replicas.iter().filter(|other| **other != node && zone_of(self.state, **other) == zone).count()
    }

    /// Gives each partition its number of replicas, on usable nodes as far as there are.
    fn fill(&mut self) {
        let mut loads = self.loads();
        let ids: Vec<PartitionId> = self.partitions.keys().copied().collect();
        for id in ids {
            let mut replicas = self.partitions.remove(&id).unwrap_or_default();
            self.shrink(&mut replicas, &mut loads);
            self.substitute(&mut replicas, &mut loads);
            self.grow(&mut replicas, &mut loads);
            self.partitions.insert(id, replicas);
        }
    }

    /// Drops what is too much: lost ones first, then draining ones, then those that share a zone.
    fn shrink(&self, replicas: &mut Vec<NodeId>, loads: &mut BTreeMap<NodeId, usize>) {
        while replicas.len() > self.count {
            let keeps = replicas.iter().position(|node| self.usable.contains(node));
            let surplus = replicas.iter().enumerate().filter(|(at, _)| Some(*at) != keeps);
            let goes = surplus.map(|(_, node)| *node).max_by_key(|node| {
                let unusable = !self.usable.contains(node);
                (
                    self.lost.contains(node),
                    unusable,
                    self.zone_mates(replicas, *node),
                    loads.get(node).copied(),
                )
            });
            let Some(goes) = goes else {
                return;
            };
            replicas.retain(|node| *node != goes);
            loads.entry(goes).and_modify(|load| *load -= 1);
        }
    }

    /// Hands replicas of lost and draining nodes to usable ones, lost ones first.
    fn substitute(&self, replicas: &mut [NodeId], loads: &mut BTreeMap<NodeId, usize>) {
        for lost in [true, false] {
            for at in 0..replicas.len() {
                if self.usable.contains(&replicas[at]) || self.lost.contains(&replicas[at]) != lost {
                    continue;
                }
                let others: Vec<NodeId> =
                    replicas.iter().copied().filter(|node| *node != replicas[at]).collect();
                if let Some(comes) = self.emptiest(&others, loads) {
                    replicas[at] = comes;
                    loads.entry(comes).and_modify(|load| *load += 1);
                }
            }
        }
    }

    /// Adds replicas up to the number, in pairs so that it stays odd.
    fn grow(&self, replicas: &mut Vec<NodeId>, loads: &mut BTreeMap<NodeId, usize>) {
        let before = replicas.len();
        while replicas.len() < self.count
            && let Some(comes) = self.emptiest(replicas, loads)
        {
            replicas.push(comes);
            loads.entry(comes).and_modify(|load| *load += 1);
        }
        if replicas.len() > before
            && replicas.len().is_multiple_of(2)
            && let Some(odd) = replicas.pop()
        {
            loads.entry(odd).and_modify(|load| *load -= 1);
        }
    }

    /// The best usable node for one more replica beside `replicas`.
    fn emptiest(&self, replicas: &[NodeId], loads: &BTreeMap<NodeId, usize>) -> Option<NodeId> {
        let free = self.usable.iter().filter(|node| !replicas.contains(node));
        free.min_by_key(|node| (self.zone_mates(replicas, **node), loads.get(node).copied(), **node)).copied()
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

    /// Makes the numbers of partitions that nodes lead as equal as replicas allow: no node leads two more
    /// than another that could take one from it, directly or over others.
    fn balance_leaders(&mut self) {
        self.replace_unusable_leaders();
        while let Some(chain) = self.leader_chain() {
            for (partition, heir) in chain {
                self.make_leader(partition, heir);
            }
        }
    }

    fn led(&self) -> BTreeMap<NodeId, usize> {
        let mut led: BTreeMap<NodeId, usize> = self.usable.iter().map(|id| (*id, 0)).collect();
        for leader in self.partitions.values().filter_map(|replicas| replicas.first()) {
            led.entry(*leader).and_modify(|count| *count += 1);
        }
        led
    }

    fn make_leader(&mut self, partition: PartitionId, heir: NodeId) {
        if let Some(replicas) = self.partitions.get_mut(&partition)
            && let Some(at) = replicas.iter().position(|node| *node == heir)
        {
            replicas.swap(0, at);
        }
    }

    /// A preferred leader that is lost or drains gives way to the replica that leads least.
    fn replace_unusable_leaders(&mut self) {
        let ids: Vec<PartitionId> = self.partitions.keys().copied().collect();
        for partition in ids {
            let Some(replicas) = self.partitions.get(&partition) else { continue };
            if replicas.first().is_none_or(|leader| self.usable.contains(leader)) {
                continue;
            }
            let led = self.led();
            let may_lead = replicas.iter().filter_map(|node| Some((*led.get(node)?, *node)));
            if let Some((_, heir)) = may_lead.min() {
                self.make_leader(partition, heir);
            }
        }
    }

    /// The shortest chain of hand-overs from a node that leads most to one that leads at least two less:
    /// each gives one partition to the next.
    fn leader_chain(&self) -> Option<Vec<(PartitionId, NodeId)>> {
        let led = self.led();
        let most = *led.values().max()?;
        // By whom, and with which partition, a node was reached.
        let mut reached: BTreeMap<NodeId, Option<(NodeId, PartitionId)>> = BTreeMap::new();
        let mut queue: VecDeque<NodeId> =
            led.iter().filter(|(_, n)| **n == most).map(|(id, _)| *id).collect();
        reached.extend(queue.iter().map(|node| (*node, None)));
        while let Some(node) = queue.pop_front() {
            if led.get(&node).is_some_and(|n| n + 2 <= most) {
                let mut chain = Vec::new();
                let mut at = node;
                while let Some(Some((from, partition))) = reached.get(&at) {
                    chain.push((*partition, at));
                    at = *from;
                }
                return Some(chain);
            }
            let leads = self.partitions.iter().filter(|(_, replicas)| replicas.first() == Some(&node));
            for (partition, replicas) in leads {
                for heir in replicas.iter().filter(|heir| led.contains_key(heir)) {
                    if !reached.contains_key(heir) {
                        reached.insert(*heir, Some((node, *partition)));
                        queue.push_back(*heir);
                    }
                }
            }
        }
        None
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
    use crate::command::tests::{add, bootstrap};
    use crate::{ControlCommand, ControlReply};

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

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn drain(state: &mut ControlState, node: u64) {
        let command = ControlCommand::SetDraining { node: NodeId(node), draining: true };
        state.apply(&command, &mut StateBatch::default());
    }

    /// Applies the changes; gives the partitions.
    fn place(state: &mut ControlState, changes: Vec<PlacementChange>) -> Vec<PartitionId> {
        let apply = |PlacementChange { partition, replicas, expected_epoch }: PlacementChange| {
            let command = ControlCommand::SetPlacement { partition, replicas, expected_epoch };
            assert_eq!(state.apply(&command, &mut StateBatch::default()), ControlReply::Done);
            partition
        };
        changes.into_iter().map(apply).collect()
    }

    fn reach_all(state: &mut ControlState) {
        let epochs: Vec<_> = state.placements.iter().map(|(id, p)| (*id, p.epoch)).collect();
        for (partition, epoch) in epochs {
            let command = ControlCommand::PlacementReached { partition, epoch };
            state.apply(&command, &mut StateBatch::default());
        }
    }

    /// Plans, applies and reaches until nothing changes; gives how many changes it took.
    fn settle(state: &mut ControlState, lost: &BTreeSet<NodeId>) -> usize {
        let mut moves = 0;
        loop {
            let changes = plan(state, lost, 4);
            if changes.is_empty() {
                return moves;
            }
            assert!(changes.len() <= 4);
            for change in &changes {
                keeps_majority(state, lost, change);
            }
            moves += place(state, changes).len();
            reach_all(state);
            assert!(moves < 10_000, "placement does not settle");
        }
    }

    /// A group that can decide is never asked to become one that can't.
    fn keeps_majority(state: &ControlState, lost: &BTreeSet<NodeId>, change: &PlacementChange) {
        let decides =
            |nodes: &[NodeId]| nodes.iter().filter(|node| !lost.contains(node)).count() > nodes.len() / 2;
        let before = state.placements.get(&change.partition).map(|p| p.replicas.as_slice());
        assert!(!before.is_none_or(decides) || decides(&change.replicas), "{before:?} to {change:?}");
    }

    fn check(state: &ControlState, lost: &BTreeSet<NodeId>) {
        let usable = usable(state, lost);
        let count = replica_count(state.settings.replicas, staying(state));
        for placement in state.placements.values() {
            assert_eq!(placement.replicas.len(), count);
            let distinct: BTreeSet<NodeId> = placement.replicas.iter().copied().collect();
            assert_eq!(distinct.len(), count);
            // Lost and draining nodes keep replicas only where nobody could take them.
            assert!(distinct.is_subset(&usable) || usable.is_subset(&distinct), "{placement:?}");
            assert!(usable.contains(&placement.replicas[0]));
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
        drain(&mut state, 2);
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

    /// With one of three nodes lost every partition keeps its two copies and the place of the third; when
    /// a fourth node comes, it gets them.
    #[test]
    fn a_loss_never_lowers_the_number_of_replicas() {
        let mut state = cluster(8, 3, &["", "", ""]);
        settle(&mut state, &BTreeSet::new());
        let lost = nodes(&[3]);
        settle(&mut state, &lost);
        check(&state, &lost);
        assert!(state.placements.values().all(|p| p.same_nodes(&[NodeId(1), NodeId(2), NodeId(3)])));
        state.apply(&add("n3"), &mut StateBatch::default());
        settle(&mut state, &lost);
        assert!(state.placements.values().all(|p| p.same_nodes(&[NodeId(1), NodeId(2), NodeId(4)])));
    }

    /// Not more than the limit is in motion, whatever waits; what is lost is repaired all the same, and a
    /// partition that isn't made yet is left alone.
    #[test]
    fn motion_is_bounded() {
        let mut state = cluster(16, 3, &["", "", "", "", ""]);
        place(
            &mut state,
            (0..16)
                .map(|n| PlacementChange {
                    partition: PartitionId(n),
                    replicas: [1, 2, 3].map(NodeId).to_vec(),
                    expected_epoch: 0,
                })
                .collect(),
        );
        assert!(plan(&state, &BTreeSet::new(), 4).is_empty());
        reach_all(&mut state);
        drain(&mut state, 1);
        loop {
            let changes = plan(&state, &BTreeSet::new(), 4);
            if place(&mut state, changes).is_empty() {
                break;
            }
        }
        assert_eq!(state.placements.values().filter(|p| p.in_motion()).count(), 4);
        assert_eq!(plan(&state, &nodes(&[2]), 4).len(), 4);
        reach_all(&mut state);
        assert!(!plan(&state, &BTreeSet::new(), 4).is_empty());
    }

    /// Voters of the control group stay while they can, and lost ones are replaced, or keep their place
    /// where nobody can.
    #[test]
    fn voters() {
        let state = cluster(1, 3, &["", "", "", ""]);
        let current = nodes(&[2, 3, 4]);
        let table: [(&[u64], &[u64]); 4] =
            [(&[], &[2, 3, 4]), (&[3], &[1, 2, 4]), (&[1, 3], &[2, 3, 4]), (&[2, 3], &[1, 2, 4])];
        for (lost, expected) in table {
            let found = control_voters(&state, &current, &nodes(lost));
            assert_eq!(found, nodes(expected), "{lost:?}");
        }
        let three = cluster(1, 3, &["", "", ""]);
        assert_eq!(control_voters(&three, &nodes(&[1, 2, 3]), &nodes(&[2])), nodes(&[1, 2, 3]));
        assert_eq!(control_voters(&three, &nodes(&[1]), &nodes(&[3])), nodes(&[1]));
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
            for (n, _) in drained.iter().take(nodes).enumerate().skip(1).filter(|(_, drained)| **drained) {
                drain(&mut state, n as u64 + 1);
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
