//! Who has members of what: soft state of the node that leads a partition, for the keys of that partition.
//!
//! Each other node tells the leader which keys it has members of (`interest.rs`): everything once per
//! term, then what changes, numbered. A node that hasn't told everything in this term, or hasn't refreshed
//! for too long, or speaks with a new incarnation, counts as interested in every key: so a new leader
//! needs no hand-over, and nobody is missed while it learns.
//!
//! The leader's own members are in its registry. Nothing here survives a restart or a change of leader.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use fleetline_types::{NodeId, PartitionId, Term};
use parking_lot::Mutex;

use crate::wire::InterestUpdate;

/// What one node has told.
#[derive(Debug, Default)]
struct Told {
    incarnation: u64,
    next_number: u64,
    is_complete: bool,
    expires_ms: u64,
    keys: HashSet<Box<str>>,
}

#[derive(Debug, Default)]
struct Shard {
    term: Term,
    nodes: BTreeMap<NodeId, Told>,
}

impl Shard {
    /// What was told to an earlier term is void.
    fn enter(&mut self, term: Term) {
        if self.term != term {
            self.term = term;
            self.nodes.clear();
        }
    }
}

/// What an update was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    Done,
    /// It doesn't follow on what is known.
    Again,
}

/// The directories that this node may keep: one per partition, used while it leads it.
pub(crate) struct Directory {
    shards: Vec<Mutex<Shard>>,
    expiry_ms: u64,
}

impl Directory {
    pub(crate) fn new(partitions: u32, expiry: Duration) -> Directory {
        let shards = (0..partitions.max(1)).map(|_| Mutex::default()).collect();
        Directory { shards, expiry_ms: u64::try_from(expiry.as_millis()).unwrap_or(u64::MAX) }
    }

    fn shard(&self, partition: PartitionId) -> &Mutex<Shard> {
        &self.shards[partition.0 as usize % self.shards.len()]
    }

    /// Notes what a node has told to the leader of `term`, which this one is.
    pub(crate) fn note(&self, from: NodeId, term: Term, update: &InterestUpdate, now_ms: u64) -> Noted {
        let mut shard = self.shard(PartitionId(update.partition)).lock();
        shard.enter(term);
        let told = shard.nodes.entry(from).or_default();
        if update.number == 0 {
            *told = Told { incarnation: update.incarnation, ..Told::default() };
        } else if told.incarnation != update.incarnation || told.next_number != update.number {
            return Noted::Again;
        }
        told.next_number = update.number + 1;
        told.is_complete |= update.is_complete;
        told.expires_ms = now_ms.saturating_add(self.expiry_ms);
        for key in &update.removed {
            told.keys.remove(key.as_str());
        }
        told.keys.extend(update.added.iter().map(|key| key.as_str().into()));
        Noted::Done
    }

    /// A node doesn't tell this one any more.
    pub(crate) fn forget(&self, from: NodeId, partition: PartitionId) {
        self.shard(partition).lock().nodes.remove(&from);
    }

    /// Whether a node may have members of a key, as the leader of `term` knows.
    pub(crate) fn may_have(
        &self,
        node: NodeId,
        partition: PartitionId,
        term: Term,
        key: &str,
        now_ms: u64,
    ) -> bool {
        let mut shard = self.shard(partition).lock();
        shard.enter(term);
        match shard.nodes.get(&node) {
            Some(told) if told.is_complete && told.expires_ms > now_ms => told.keys.contains(key),
            _ => true,
        }
    }

    /// Drops what nodes have told that are gone: when they are back, they may have more.
    pub(crate) fn keep_only(&self, alive: &[NodeId]) {
        for shard in &self.shards {
            shard.lock().nodes.retain(|node, _| alive.contains(node));
        }
    }

    /// Keys of all nodes.
    pub(crate) fn keys(&self) -> usize {
        let keys =
            |shard: &Mutex<Shard>| shard.lock().nodes.values().map(|told| told.keys.len()).sum::<usize>();
        self.shards.iter().map(keys).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: PartitionId = PartitionId(3);
    const N: NodeId = NodeId(2);

    fn update(number: u64, added: &[&str], removed: &[&str]) -> InterestUpdate {
        let own = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        let (added, removed) = (own(added), own(removed));
        InterestUpdate { partition: P.0, term: 5, incarnation: 9, number, is_complete: true, added, removed }
    }

    #[test]
    fn who_has_not_told_may_have_everything() {
        let directory = Directory::new(4, Duration::from_millis(100));
        let may_have = |key, now| directory.may_have(N, P, Term(5), key, now);
        assert!(may_have("h/a", 0));
        let begin = InterestUpdate { is_complete: false, ..update(0, &["h/b"], &[]) };
        assert_eq!(directory.note(N, Term(5), &begin, 0), Noted::Done);
        assert!(may_have("h/a", 0), "not all is told");
        assert_eq!(directory.note(N, Term(5), &update(1, &["h/c"], &[]), 0), Noted::Done);
        assert!(!may_have("h/a", 0) && may_have("h/b", 0) && may_have("h/c", 0));
        assert_eq!(directory.note(N, Term(5), &update(2, &["h/a"], &["h/b"]), 50), Noted::Done);
        assert!(may_have("h/a", 149) && !may_have("h/b", 149));
        assert!(may_have("h/b", 150), "expired");
        assert_eq!(directory.keys(), 2);
    }

    #[test]
    fn holes_and_strangers_tell_again() {
        let directory = Directory::new(4, Duration::from_secs(1));
        assert_eq!(directory.note(N, Term(5), &update(1, &[], &[]), 0), Noted::Again);
        assert_eq!(directory.note(N, Term(5), &update(0, &[], &[]), 0), Noted::Done);
        assert_eq!(directory.note(N, Term(5), &update(2, &[], &[]), 0), Noted::Again);
        let other = InterestUpdate { incarnation: 10, ..update(1, &[], &[]) };
        assert_eq!(directory.note(N, Term(5), &other, 0), Noted::Again);
        assert_eq!(directory.note(N, Term(5), &update(1, &[], &[]), 0), Noted::Done);
    }

    #[test]
    fn terms_and_absences_forget() {
        let directory = Directory::new(4, Duration::from_secs(1));
        directory.note(N, Term(5), &update(0, &[], &[]), 0);
        assert!(!directory.may_have(N, P, Term(5), "h/a", 0));
        assert!(directory.may_have(N, P, Term(6), "h/a", 0));
        assert!(directory.may_have(N, P, Term(5), "h/a", 0), "what was told before is void");
        directory.note(N, Term(5), &update(0, &[], &[]), 0);
        directory.keep_only(&[NodeId(1)]);
        assert!(directory.may_have(N, P, Term(5), "h/a", 0));
        directory.note(N, Term(5), &update(0, &[], &[]), 0);
        directory.forget(N, P);
        assert!(directory.may_have(N, P, Term(5), "h/a", 0));
    }
}
