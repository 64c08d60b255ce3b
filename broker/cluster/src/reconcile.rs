//! Which step brings the membership of one group closer to its placement: a pure function.
//!
//! Run by the leader of each group, again and again; each step is done by `raft/group` and seen in
//! the next observation. Learner first; promoted when caught up; all voters change in one joint step,
//! so there is never less than the old majority; a leader that leaves hands over first.

use std::collections::{BTreeMap, BTreeSet};

use fleetline_types::NodeId;

/// Entries that a replica may be behind and still count as caught up.
const CAUGHT_UP: u64 = 64;

/// A group, as its leader sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// This node, the leader.
    pub leader: NodeId,
    /// Voters (of both configs while they change).
    pub voters: BTreeSet<NodeId>,
    /// A change of voters is half way.
    pub joint: bool,
    /// Learners.
    pub learners: BTreeSet<NodeId>,
    /// Entries that each other replica is behind.
    pub behind: BTreeMap<NodeId, u64>,
    /// Nodes that answer.
    pub alive: BTreeSet<NodeId>,
}

impl Observed {
    fn caught_up(&self, node: NodeId) -> bool {
        let close = self.behind.get(&node).is_some_and(|behind| *behind <= CAUGHT_UP);
        node == self.leader || (close && self.alive.contains(&node))
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReconcileStep {
    /// Nothing: it is as it should be.
    Done,
    /// Nothing yet: a replica is catching up or away.
    Wait,
    /// Add a replica that doesn't vote.
    AddLearner(NodeId),
    /// Make exactly these the voters.
    ChangeVoters(BTreeSet<NodeId>),
    /// Forget these.
    RemoveLearners(BTreeSet<NodeId>),
    /// Hand leadership over.
    TransferLeader(NodeId),
}

/// The next step towards `desired` voters (the first is the preferred leader) and `learners` that
/// should stay as such.
pub fn next_step(desired: &[NodeId], learners: &BTreeSet<NodeId>, observed: &Observed) -> ReconcileStep {
    let voters: BTreeSet<NodeId> = desired.iter().copied().collect();
    if voters.is_empty() {
        return ReconcileStep::Wait;
    }
    if observed.joint {
        // A leader died between the two halves: finish what stands.
        return match voters.iter().all(|node| observed.caught_up(*node)) {
            true => ReconcileStep::ChangeVoters(voters),
            false => ReconcileStep::Wait,
        };
    }
    let all: BTreeSet<NodeId> = observed.voters.union(&observed.learners).copied().collect();
    let missing = voters.union(learners).find(|node| !all.contains(node) && observed.alive.contains(node));
    if let Some(node) = missing {
        return ReconcileStep::AddLearner(*node);
    }
    if voters != observed.voters {
        return change_voters(&voters, observed);
    }
    let extra: BTreeSet<NodeId> = observed.learners.difference(learners).copied().collect();
    if !extra.is_empty() {
        return ReconcileStep::RemoveLearners(extra);
    }
    match desired.first() {
        Some(preferred) if *preferred != observed.leader && observed.caught_up(*preferred) => {
            ReconcileStep::TransferLeader(*preferred)
        }
        _ => ReconcileStep::Done,
    }
}

fn change_voters(voters: &BTreeSet<NodeId>, observed: &Observed) -> ReconcileStep {
    let new_are_ready = voters.difference(&observed.voters).all(|node| observed.caught_up(*node));
    if !new_are_ready {
        return ReconcileStep::Wait;
    }
    if voters.contains(&observed.leader) {
        return ReconcileStep::ChangeVoters(voters.clone());
    }
    // The leader leaves: somebody who stays takes over first; where nobody stays, all vote for a moment.
    let heir = voters.iter().find(|node| observed.voters.contains(node) && observed.caught_up(**node));
    match heir {
        Some(heir) => ReconcileStep::TransferLeader(*heir),
        None if voters.is_disjoint(&observed.voters) => {
            ReconcileStep::ChangeVoters(voters.union(&observed.voters).copied().collect())
        }
        None => ReconcileStep::Wait,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(nodes: &[u64]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn observed(leader: u64, voters: &[u64], learners: &[u64], behind: &[(u64, u64)]) -> Observed {
        Observed {
            leader: NodeId(leader),
            voters: ids(voters),
            joint: false,
            learners: ids(learners),
            behind: behind.iter().map(|(node, lag)| (NodeId(*node), *lag)).collect(),
            alive: ids(&[1, 2, 3, 4, 5]),
        }
    }

    fn step(desired: &[u64], observed: &Observed) -> ReconcileStep {
        let desired: Vec<NodeId> = desired.iter().copied().map(NodeId).collect();
        next_step(&desired, &BTreeSet::new(), observed)
    }

    /// Learners first, one by one; all vote at once when all have caught up; the preferred one leads.
    #[test]
    fn from_one_to_three() {
        use ReconcileStep::*;
        let table = [
            (observed(1, &[1], &[], &[]), AddLearner(NodeId(2))),
            (observed(1, &[1], &[2], &[(2, 900)]), AddLearner(NodeId(3))),
            (observed(1, &[1], &[2, 3], &[(2, 0), (3, 900)]), Wait),
            (observed(1, &[1], &[2, 3], &[(2, 0), (3, 10)]), ChangeVoters(ids(&[1, 2, 3]))),
            (observed(1, &[1, 2, 3], &[], &[(2, 0), (3, 0)]), TransferLeader(NodeId(3))),
            (observed(3, &[1, 2, 3], &[], &[(1, 0), (2, 0)]), Done),
        ];
        for (observed, expected) in table {
            assert_eq!(step(&[3, 1, 2], &observed), expected, "{observed:?}");
        }
    }

    /// A leader that leaves hands over first; a lone one stays in charge until the new one votes.
    #[test]
    fn the_leader_leaves() {
        use ReconcileStep::*;
        let leaving = observed(1, &[1, 2, 3], &[4], &[(2, 0), (3, 999), (4, 0)]);
        assert_eq!(step(&[4, 2, 3], &leaving), TransferLeader(NodeId(2)));
        assert_eq!(step(&[4, 3], &observed(1, &[1, 3], &[4], &[(3, 999), (4, 0)])), Wait);
        let lone = observed(1, &[1], &[2], &[(2, 0)]);
        assert_eq!(step(&[2], &lone), ChangeVoters(ids(&[1, 2])));
        assert_eq!(step(&[2], &observed(1, &[1, 2], &[], &[(2, 0)])), TransferLeader(NodeId(2)));
        assert_eq!(step(&[2], &observed(2, &[1, 2], &[], &[(1, 0)])), ChangeVoters(ids(&[2])));
    }

    /// Half a change is finished; what shouldn't be there goes; who is away is waited for.
    #[test]
    fn odds_and_ends() {
        use ReconcileStep::*;
        let mut half = observed(1, &[1, 2, 3], &[], &[(2, 0), (3, 0)]);
        half.joint = true;
        assert_eq!(step(&[1, 2, 3], &half), ChangeVoters(ids(&[1, 2, 3])));
        let extra = observed(1, &[1], &[9], &[(9, 0)]);
        assert_eq!(step(&[1], &extra), RemoveLearners(ids(&[9])));
        let mut away = observed(1, &[1], &[2, 3], &[(2, 0), (3, 0)]);
        away.alive.remove(&NodeId(3));
        assert_eq!(step(&[1, 2, 3], &away), Wait);
    }

    proptest! {
        /// From any membership to any other: it arrives, and each change keeps a majority of the old voters
        /// or goes through a joint step (which `ChangeVoters` is) with all new ones caught up.
        #[test]
        fn arrives(from in prop::collection::btree_set(1u64..6, 1..4), to in prop::collection::btree_set(1u64..6, 1..4)) {
            let desired: Vec<u64> = to.iter().copied().collect();
            let start: Vec<u64> = from.iter().copied().collect();
            let lags: Vec<(u64, u64)> = (1..6).map(|node| (node, 0)).collect();
            let mut now = observed(start[0], &start, &[], &lags);
            for _ in 0..30 {
                match step(&desired, &now) {
                    ReconcileStep::Done => {
                        prop_assert_eq!(&now.voters, &ids(&desired));
                        prop_assert_eq!(now.leader, NodeId(desired[0]));
                        return Ok(());
                    }
                    ReconcileStep::AddLearner(node) => { now.learners.insert(node); }
                    ReconcileStep::ChangeVoters(voters) => {
                        prop_assert!(voters.contains(&now.leader));
                        now.learners.retain(|node| !voters.contains(node));
                        now.voters = voters;
                    }
                    ReconcileStep::RemoveLearners(nodes) => now.learners.retain(|node| !nodes.contains(node)),
                    ReconcileStep::TransferLeader(node) => {
                        prop_assert!(now.voters.contains(&node));
                        now.leader = node;
                    }
                    ReconcileStep::Wait => prop_assert!(false, "waits for nobody: {:?}", now),
                }
            }
            prop_assert!(false, "does not arrive: {:?}", now);
        }
    }
}
