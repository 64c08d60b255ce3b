//! Consumer groups: which member reads which partition.
//!
//! Lives in the group's coordinator partition. Members talk to it through `broker/partition`; time
//! reaches it only as `GroupRemove` commands.
//!
//! ```text
//!   partition:  free ──granted──► owned ──somebody else shall have it──► revoking ──released──► owned by that one
//!                 ▲                  └────────── owner left or expired ─────────────┘
//! ```
//!
//! Invariants:
//! 1. A partition has at most one owner; it goes to another only when the owner has released it, left
//!    or expired.
//! 2. Each grant carries the generation in which it was made as its epoch, and generations only grow:
//!    a later grant of a partition has a higher epoch than every earlier one. A new group's first
//!    generation is the log index that made it, and an entry adds at most one: so this also holds for
//!    a group that was forgotten and made again, whose epochs the partitions remember.
//! 3. Members are ordered by when they joined, so every replica computes the same assignment.
//! 4. Targets are balanced within one, and move as few partitions as that allows.
//!
//! Not here: fetching, checkpoints (each partition keeps its own, see `apply`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fleetline_codec::{DecodeError, Reader, Writer};
use fleetline_types::{LogIndex, MemberId, PartitionId};

use crate::error::StreamError;
use crate::limits::{NAME_BYTES_MAX, StreamLimits};

/// A member of a consumer group. Its id is the log index of its first join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// A name for people.
    pub client_name: String,
    /// How long it may be silent, in milliseconds.
    pub session_timeout_ms: u64,
}

/// Who owns a partition, and by which epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grant {
    member: MemberId,
    epoch: u64,
}

/// What a member has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The member.
    pub member: MemberId,
    /// The group's generation.
    pub generation: u64,
    /// Partitions that it owns and keeps, with the epoch to claim each by.
    pub owned: Vec<(PartitionId, u64)>,
    /// Partitions that it owns and shall release.
    pub revoking: Vec<PartitionId>,
    /// How long it may be silent, in milliseconds.
    pub session_timeout_ms: u64,
}

/// One consumer group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerGroup {
    generation: u64,
    members: BTreeMap<MemberId, Member>,
    owners: BTreeMap<PartitionId, Grant>,
    targets: BTreeMap<PartitionId, MemberId>,
}

impl ConsumerGroup {
    /// A group without members, made by the entry at `at`.
    pub(crate) fn new(at: LogIndex) -> ConsumerGroup {
        ConsumerGroup { generation: at.0, ..ConsumerGroup::default() }
    }

    /// The generation: one more with every change.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Members in the order in which they joined.
    pub fn members(&self) -> impl Iterator<Item = (MemberId, &Member)> {
        self.members.iter().map(|(id, member)| (*id, member))
    }

    /// Partitions that a member owns, those that it shall release included.
    pub fn owned_by(&self, member: MemberId) -> impl Iterator<Item = PartitionId> {
        self.owners.iter().filter(move |(_, grant)| grant.member == member).map(|(partition, _)| *partition)
    }

    /// A member joins, or joins again; an unknown id is a new member.
    pub(crate) fn join(
        &mut self,
        at: LogIndex,
        member: Option<MemberId>,
        info: Member,
        partitions: u32,
        limits: &StreamLimits,
    ) -> Result<MemberId, StreamError> {
        if let Some(id) = member.filter(|id| self.members.contains_key(id)) {
            self.members.insert(id, info);
            return Ok(id);
        }
        if self.members.len() >= limits.members_max {
            return Err(StreamError::Limit(format!(
                "a consumer group has at most {} members",
                limits.members_max
            )));
        }
        let id = MemberId(at.0);
        self.members.insert(id, info);
        self.rebalance(partitions);
        Ok(id)
    }

    /// A member gives up what it was asked for; what it keeps is left alone.
    pub(crate) fn release(
        &mut self,
        member: MemberId,
        released: &[PartitionId],
        partitions: u32,
    ) -> Result<(), StreamError> {
        if !self.members.contains_key(&member) {
            return Err(StreamError::NotFound(format!("member {}", member.0)));
        }
        let mut changed = false;
        for partition in released {
            let owns = self.owners.get(partition).is_some_and(|grant| grant.member == member);
            if owns && self.targets.get(partition) != Some(&member) {
                self.owners.remove(partition);
                changed = true;
            }
        }
        if changed {
            self.rebalance(partitions);
        }
        Ok(())
    }

    /// Members leave or have expired; what they owned is free. Gives whether anything changed.
    pub(crate) fn remove(&mut self, members: &[MemberId], partitions: u32) -> bool {
        let gone: BTreeSet<MemberId> =
            members.iter().copied().filter(|id| self.members.remove(id).is_some()).collect();
        if gone.is_empty() {
            return false;
        }
        self.owners.retain(|_, grant| !gone.contains(&grant.member));
        self.rebalance(partitions);
        true
    }

    /// What a member has.
    pub fn assignment(&self, member: MemberId) -> Result<Assignment, StreamError> {
        let info =
            self.members.get(&member).ok_or_else(|| StreamError::NotFound(format!("member {}", member.0)))?;
        let mut assignment = Assignment {
            member,
            generation: self.generation,
            session_timeout_ms: info.session_timeout_ms,
            ..Assignment::default()
        };
        for (partition, grant) in self.owners.iter().filter(|(_, grant)| grant.member == member) {
            match self.targets.get(partition) == Some(&member) {
                true => assignment.owned.push((*partition, grant.epoch)),
                false => assignment.revoking.push(*partition),
            }
        }
        Ok(assignment)
    }

    /// Computes targets and grants what is free, in a new generation.
    fn rebalance(&mut self, partitions: u32) {
        self.generation += 1;
        self.targets = self.plan(partitions);
        for (partition, member) in &self.targets {
            let grant = Grant { member: *member, epoch: self.generation };
            self.owners.entry(*partition).or_insert(grant);
        }
    }

    /// Who shall have which partition: everybody an equal share within one, keeping what they have.
    fn plan(&self, partitions: u32) -> BTreeMap<PartitionId, MemberId> {
        let members: Vec<MemberId> = self.members.keys().copied().collect();
        if members.is_empty() {
            return BTreeMap::new();
        }
        let all = (0..partitions).map(PartitionId);
        let mut kept: BTreeMap<MemberId, Vec<PartitionId>> =
            members.iter().map(|id| (*id, Vec::new())).collect();
        let mut free = Vec::new();
        for partition in all {
            match self.owners.get(&partition).and_then(|grant| kept.get_mut(&grant.member)) {
                Some(list) => list.push(partition),
                None => free.push(partition),
            }
        }
        // The larger shares go to those that have most already, so that the least is moved.
        let mut by_load = members.clone();
        by_load.sort_by_key(|id| std::cmp::Reverse(kept.get(id).map_or(0, Vec::len)));
        let share = partitions as usize / members.len();
        let larger = partitions as usize % members.len();
        let mut targets = BTreeMap::new();
        let mut wanting = Vec::new();
        for (rank, id) in by_load.into_iter().enumerate() {
            let quota = share + usize::from(rank < larger);
            let list = kept.remove(&id).unwrap_or_default();
            let stays = list.len().min(quota);
            targets.extend(list[..stays].iter().map(|partition| (*partition, id)));
            free.extend_from_slice(&list[stays..]);
            wanting.push((id, quota - stays));
        }
        free.sort_unstable();
        let mut free = free.into_iter();
        wanting.sort_unstable();
        for (id, count) in wanting {
            targets.extend(free.by_ref().take(count).map(|partition| (partition, id)));
        }
        targets
    }

    /// The stored form.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        let mut w = Writer::new(&mut out);
        w.u8(1).varint(self.generation).varint(self.members.len() as u64);
        for (id, member) in &self.members {
            w.varint(id.0).text(&member.client_name).varint(member.session_timeout_ms);
        }
        w.varint(self.owners.len() as u64);
        for (partition, grant) in &self.owners {
            w.varint(u64::from(partition.0)).varint(grant.member.0).varint(grant.epoch);
        }
        w.varint(self.targets.len() as u64);
        for (partition, member) in &self.targets {
            w.varint(u64::from(partition.0)).varint(member.0);
        }
        out.into()
    }

    /// The reverse of [`ConsumerGroup::encode`].
    pub(crate) fn decode(row: &[u8]) -> Result<ConsumerGroup, DecodeError> {
        const ITEMS_MAX: usize = 1 << 20;
        let mut r = Reader::new(row);
        if r.u8("consumer group version")? != 1 {
            return Err(DecodeError::Invalid { what: "consumer group row", reason: "of a later version" });
        }
        let mut group = ConsumerGroup { generation: r.varint("generation")?, ..ConsumerGroup::default() };
        for _ in 0..r.count("members", ITEMS_MAX, 3)? {
            let id = MemberId(r.varint("member")?);
            let client_name = r.text("client name", NAME_BYTES_MAX)?.to_owned();
            let session_timeout_ms = r.varint("session time-out")?;
            group.members.insert(id, Member { client_name, session_timeout_ms });
        }
        for _ in 0..r.count("owners", ITEMS_MAX, 3)? {
            let partition = PartitionId(r.varint_u32("partition")?);
            let grant = Grant { member: MemberId(r.varint("owner")?), epoch: r.varint("epoch")? };
            group.owners.insert(partition, grant);
        }
        for _ in 0..r.count("targets", ITEMS_MAX, 2)? {
            let partition = PartitionId(r.varint_u32("partition")?);
            group.targets.insert(partition, MemberId(r.varint("target")?));
        }
        r.finish("consumer group row")?;
        Ok(group)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member() -> Member {
        Member { client_name: "c".into(), session_timeout_ms: 1000 }
    }

    fn join(group: &mut ConsumerGroup, at: u64, partitions: u32) -> MemberId {
        group.join(LogIndex(at), None, member(), partitions, &StreamLimits::default()).unwrap()
    }

    fn owned(group: &ConsumerGroup, id: MemberId) -> Vec<u32> {
        group.assignment(id).unwrap().owned.iter().map(|(partition, _)| partition.0).collect()
    }

    /// The first member gets all; a second one gets half, but only once the first has let go.
    #[test]
    fn cooperative_hand_over() {
        let mut group = ConsumerGroup::default();
        let first = join(&mut group, 10, 4);
        assert_eq!(owned(&group, first), [0, 1, 2, 3]);
        let second = join(&mut group, 20, 4);
        let asked = group.assignment(first).unwrap();
        assert_eq!((asked.owned.len(), asked.revoking.clone()), (2, vec![PartitionId(2), PartitionId(3)]));
        assert!(owned(&group, second).is_empty());
        let epochs = |group: &ConsumerGroup, id| -> Vec<u64> {
            group.assignment(id).unwrap().owned.iter().map(|(_, epoch)| *epoch).collect()
        };
        group.release(first, &asked.revoking, 4).unwrap();
        assert_eq!(owned(&group, second), [2, 3]);
        assert!(epochs(&group, second).iter().all(|epoch| *epoch > epochs(&group, first)[0]));
        assert!(group.remove(&[first], 4));
        assert_eq!(owned(&group, second), [0, 1, 2, 3]);
        assert!(group.release(first, &[], 4).is_err());
    }

    /// Releasing what is kept, or what another owns, changes nothing.
    #[test]
    fn only_what_was_asked_for() {
        let mut group = ConsumerGroup::default();
        let first = join(&mut group, 1, 3);
        let before = group.clone();
        group.release(first, &[PartitionId(0), PartitionId(9)], 3).unwrap();
        assert_eq!(group, before);
    }

    /// The dumb model of a plan: tries every way to give `partitions` to `members` that is balanced within
    /// one, and gives the fewest partitions that have to change their owner.
    fn fewest_moves(owners: &[Option<usize>], members: usize) -> usize {
        let mut best = usize::MAX;
        for mut code in 0..members.pow(owners.len() as u32) {
            let mut counts = vec![0usize; members];
            let mut moves = 0;
            for owner in owners {
                let to = code % members;
                code /= members;
                counts[to] += 1;
                moves += usize::from(owner.is_some_and(|owner| owner != to));
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            if most - least <= 1 {
                best = best.min(moves);
            }
        }
        best
    }

    proptest! {
        /// A plan gives every partition to a member, balanced within one, and moves no more than the best of
        /// all such plans does; the same state gives the same plan.
        #[test]
        fn plans_move_the_least(
            members in 1usize..5,
            // Owners beyond the members have left: their partitions are free.
            owners in prop::collection::vec(0usize..6, 1..7),
        ) {
            let owners: Vec<Option<usize>> =
                owners.into_iter().map(|owner| (owner < members).then_some(owner)).collect();
            let mut group = ConsumerGroup::default();
            for id in 0..members {
                group.members.insert(MemberId(id as u64), member());
            }
            for (partition, owner) in owners.iter().enumerate() {
                if let Some(owner) = owner {
                    let grant = Grant { member: MemberId(*owner as u64), epoch: 1 };
                    group.owners.insert(PartitionId(partition as u32), grant);
                }
            }
            let plan = group.plan(owners.len() as u32);
            prop_assert_eq!(plan.len(), owners.len());
            let counts: Vec<usize> = (0..members as u64)
                .map(|id| plan.values().filter(|to| **to == MemberId(id)).count())
                .collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            let moves = owners.iter().enumerate().filter(|(partition, owner)| {
                owner.is_some_and(|owner| plan[&PartitionId(*partition as u32)] != MemberId(owner as u64))
            });
            prop_assert_eq!(moves.count(), fewest_moves(&owners, members));
            prop_assert_eq!(group.plan(owners.len() as u32), plan);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join,
        Leave(usize),
        ReleaseAll(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => Just(Step::Join),
            1 => any::<prop::sample::Index>().prop_map(|i| Step::Leave(i.index(64))),
            3 => any::<prop::sample::Index>().prop_map(|i| Step::ReleaseAll(i.index(64))),
        ]
    }

    proptest! {
        /// Whatever comes in whatever order: an owner loses a partition only by its own release or its end, a
        /// new grant has a higher epoch than any before, and once all have released what they were asked
        /// for, every partition is owned, balanced within one.
        #[test]
        fn invariants(partitions in 1u32..20, steps in prop::collection::vec(step(), 1..60)) {
            let mut group = ConsumerGroup::default();
            let mut highest: BTreeMap<PartitionId, Grant> = BTreeMap::new();
            for (at, step) in steps.into_iter().enumerate() {
                let ids: Vec<MemberId> = group.members.keys().copied().collect();
                // Who may lose a partition by this step.
                let mut giving_up = None;
                let before = group.owners.clone();
                match step {
                    Step::Join => { join(&mut group, at as u64 + 1, partitions); }
                    Step::Leave(i) if !ids.is_empty() => {
                        giving_up = Some(ids[i % ids.len()]);
                        group.remove(&[ids[i % ids.len()]], partitions);
                    }
                    Step::ReleaseAll(i) if !ids.is_empty() => {
                        let id = ids[i % ids.len()];
                        giving_up = Some(id);
                        let asked = group.assignment(id).unwrap().revoking;
                        group.release(id, &asked, partitions).unwrap();
                    }
                    _ => {}
                }
                for (partition, grant) in &before {
                    let kept = group.owners.get(partition) == Some(grant);
                    prop_assert!(kept || giving_up == Some(grant.member), "{partition} was taken away");
                }
                for (partition, grant) in &group.owners {
                    if let Some(before) = highest.insert(*partition, *grant) {
                        let same = before.member == grant.member && before.epoch == grant.epoch;
                        prop_assert!(same || grant.epoch > before.epoch);
                    }
                }
                prop_assert_eq!(&ConsumerGroup::decode(&group.encode()).unwrap(), &group);
            }
            let ids: Vec<MemberId> = group.members.keys().copied().collect();
            for _ in 0..2 {
                for id in &ids {
                    let asked = group.assignment(*id).unwrap().revoking;
                    group.release(*id, &asked, partitions).unwrap();
                }
            }
            if !ids.is_empty() {
                let counts: Vec<usize> = ids.iter().map(|id| group.owned_by(*id).count()).collect();
                prop_assert_eq!(counts.iter().sum::<usize>(), partitions as usize);
                let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                prop_assert!(most - least <= 1);
            }
        }
    }
}
