//! Which step brings the membership of one group closer to its placement: a pure function.
//!
//! Run by the leader of each group, again and again; each step is done by `raft/group` and seen in
//! the next observation. Learner first; promoted when caught up; all voters change in one joint step,
//! so there is never less than the old majority; a leader that leaves hands over first.
//!
//! A joint membership outlives the leader that made it. Whoever leads then finishes it before anything
//! else: learners can't be added meanwhile, so it must not wait for a node that may never come back.

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

    /// Whether a majority of `voters` answers and has caught up.
    fn can_decide(&self, voters: &BTreeSet<NodeId>) -> bool {
        voters.iter().filter(|node| self.caught_up(**node)).count() > voters.len() / 2
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
        return finish_joint(&voters, observed);
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
    if !new_are_ready || !observed.can_decide(voters) {
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

/// A leader died between the two halves of a change. All in both halves vote now; the first of these that
/// can decide becomes the membership: what is desired, everybody, those of the desired ones who vote.
fn finish_joint(desired: &BTreeSet<NodeId>, observed: &Observed) -> ReconcileStep {
    let present: BTreeSet<NodeId> = desired.intersection(&observed.voters).copied().collect();
    let whole = (present == *desired && desired.contains(&observed.leader)).then_some(desired);
    let mut choices = whole.into_iter().chain([&observed.voters, &present]);
    match choices.find(|voters| observed.can_decide(voters)) {
        Some(voters) => ReconcileStep::ChangeVoters(voters.clone()),
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

    /// Half a change is finished, also when one of its nodes never comes back: by the desired voters, or
    /// by all of both halves, or by those that are left; without a majority it waits.
    #[test]
    fn half_a_change() {
        use ReconcileStep::*;
        // Voters of both halves, who is dead, desired, the step.
        type Row = (&'static [u64], &'static [u64], &'static [u64], ReconcileStep);
        let table: [Row; 6] = [
            (&[1, 2, 3], &[], &[1, 2, 3], ChangeVoters(ids(&[1, 2, 3]))),
            (&[1, 2, 3], &[3], &[1, 2, 3], ChangeVoters(ids(&[1, 2, 3]))),
            (&[1, 2, 3], &[3], &[1, 2, 4], ChangeVoters(ids(&[1, 2, 3]))),
            (&[1, 2, 3, 4], &[3], &[2, 3, 4], ChangeVoters(ids(&[1, 2, 3, 4]))),
            (&[1, 2, 3, 4], &[3, 4], &[1, 2, 5], ChangeVoters(ids(&[1, 2]))),
            (&[1, 2, 3], &[2, 3], &[1, 2, 3], Wait),
        ];
        for (voters, dead, desired, expected) in table {
            let mut half = observed(1, voters, &[], &[(2, 0), (3, 0), (4, 0), (5, 0)]);
            half.joint = true;
            half.alive.retain(|node| !ids(dead).contains(node));
            assert_eq!(step(desired, &half), expected, "{half:?}");
        }
    }

    /// What shouldn't be there goes; who is away is waited for.
    #[test]
    fn odds_and_ends() {
        use ReconcileStep::*;
        let extra = observed(1, &[1], &[9], &[(9, 0)]);
        assert_eq!(step(&[1], &extra), RemoveLearners(ids(&[9])));
        let mut away = observed(1, &[1], &[2, 3], &[(2, 0), (3, 0)]);
        away.alive.remove(&NodeId(3));
        assert_eq!(step(&[1, 2, 3], &away), Wait);
    }

    /// A group as raft keeps it: the two halves of a change, and who is filled how far.
    struct FakeRaft {
        now: Observed,
        halves: (BTreeSet<NodeId>, BTreeSet<NodeId>),
    }

    impl FakeRaft {
        fn decides(&self, half: &BTreeSet<NodeId>) -> bool {
            half.iter().filter(|node| self.now.caught_up(**node)).count() > half.len() / 2
        }

        fn lives(&self) -> bool {
            self.decides(&self.halves.0) && self.decides(&self.halves.1)
        }

        /// Does a step; a change of voters stops half way when its leader dies.
        fn act(&mut self, step: ReconcileStep, dies: bool) {
            match step {
                ReconcileStep::AddLearner(node) => {
                    assert!(!self.now.joint, "raft adds no learner to half a change");
                    self.now.learners.insert(node);
                    self.now.behind.insert(node, 500);
                }
                ReconcileStep::ChangeVoters(voters) => {
                    let known: BTreeSet<_> = self.now.voters.union(&self.now.learners).copied().collect();
                    assert!(voters.is_subset(&known), "raft refuses voters that aren't replicas");
                    let whole = voters == self.halves.0 || voters == self.halves.1;
                    let before = if self.now.joint && whole { voters.clone() } else { self.halves.1.clone() };
                    self.halves = (before, voters);
                    self.now.learners.retain(|node| !self.halves.1.contains(node));
                    assert!(self.lives(), "the change can't be committed: {:?}", self.halves);
                    if !dies {
                        self.halves.0 = self.halves.1.clone();
                    }
                }
                ReconcileStep::RemoveLearners(nodes) => {
                    self.now.learners.retain(|node| !nodes.contains(node))
                }
                ReconcileStep::TransferLeader(node) => {
                    assert!(self.now.voters.contains(&node) && self.now.caught_up(node));
                    self.now.leader = node;
                }
                ReconcileStep::Wait | ReconcileStep::Done => {
                    self.now.behind.values_mut().for_each(|behind| *behind /= 2);
                }
            }
            self.now.voters = self.halves.0.union(&self.halves.1).copied().collect();
            self.now.joint = self.halves.0 != self.halves.1;
        }

        /// A living voter with everything leads on.
        fn elect(&mut self) {
            let heir = self
                .now
                .voters
                .iter()
                .find(|node| self.now.alive.contains(node) && self.now.behind.get(node) == Some(&0));
            self.now.leader = heir.copied().unwrap_or(self.now.leader);
        }
    }

    proptest! {
        /// With a node away for a while and leaders that die in the middle of changes, the group can decide
        /// at every moment at which it could before, and arrives once that node is back.
        #[test]
        fn survives_deaths_on_the_way(
            from in prop::collection::btree_set(1u64..6, 3),
            to in prop::collection::btree_set(1u64..6, 3),
            away in 1u64..6,
            deaths in prop::collection::vec(prop::bool::weighted(0.3), 60),
        ) {
            let desired: Vec<u64> = to.iter().copied().collect();
            let start: Vec<u64> = from.iter().copied().collect();
            let lags: Vec<(u64, u64)> = (1..6).map(|node| (node, 0)).collect();
            let mut now = observed(start[0], &start, &[], &lags);
            now.alive.remove(&NodeId(away));
            let mut raft = FakeRaft { halves: (now.voters.clone(), now.voters.clone()), now };
            raft.elect();
            for (turn, dies) in deaths.iter().enumerate() {
                if turn == 30 {
                    raft.now.alive.insert(NodeId(away));
                }
                prop_assert!(raft.lives(), "{:?}", raft.now);
                let next = step(&desired, &raft.now);
                let changes = matches!(next, ReconcileStep::ChangeVoters(_));
                raft.act(next, *dies && turn < 30);
                if changes && *dies {
                    raft.elect();
                }
            }
            prop_assert_eq!(&raft.now.voters, &ids(&desired));
            prop_assert_eq!(raft.now.leader, NodeId(desired[0]));
            prop_assert!(!raft.now.joint && raft.now.learners.is_empty());
        }

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
