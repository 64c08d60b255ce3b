//! Who is connected to this node: connections by id, members by key.
//!
//! A set of members is a list of slots that never move: fan-out walks it piece by piece, holding its lock
//! for [`PIECE`] members at a time, and nobody who stays is skipped or met twice while others come and go. Sets
//! are found through maps that are cut by partition, as the directory is, so that what this node has of a
//! partition can be listed.
//!
//! Invariants: a member has a slot in a set exactly if its [`Places`](crate::member::Places) say so. Locks are
//! taken in the order places, map, set, outbox; none is held across an await.
//!
//! Not here: telling the directory (`interest.rs`); callers get told which keys are new or gone.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fleetline_types::PartitionId;
use parking_lot::Mutex;
use thiserror::Error;

use crate::key::Key;
use crate::member::{Member, Place};

/// Members that are visited under one lock: some ten microseconds.
pub(crate) const PIECE: usize = 256;

/// Maps of connections: more than processors, so that they seldom meet.
pub(crate) const CONNECTION_SHARDS: usize = 64;

/// Why a member could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum JoinError {
    /// The connection is over.
    #[error("it is over")]
    Gone,
    /// It is in as many groups as it may be.
    #[error("it is in too many groups")]
    TooMany,
}

/// How a member came to be in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// By itself: its hub, its user, a group that it was put into.
    Own,
    /// Its user is in the group until then (wall time in milliseconds).
    User { until: u64 },
}

/// The members of one key.
#[derive(Debug, Default)]
pub(crate) struct Members {
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    entries: Vec<Option<Arc<Member>>>,
    /// Slots that are empty; numbers behind the end of `entries` mean nothing.
    free: Vec<u32>,
    live: usize,
}

impl Slots {
    fn insert(&mut self, member: Arc<Member>) -> u32 {
        self.live += 1;
        while let Some(slot) = self.free.pop() {
            if let Some(entry) = self.entries.get_mut(slot as usize) {
                *entry = Some(member);
                return slot;
            }
        }
        if self.entries.is_empty() {
            // Most sets are those of a user with one connection.
            self.entries.reserve_exact(1);
        }
        self.entries.push(Some(member));
        (self.entries.len() - 1) as u32
    }

    fn remove(&mut self, slot: u32) {
        if self.entries.get_mut(slot as usize).and_then(Option::take).is_none() {
            return;
        }
        self.live -= 1;
        self.free.push(slot);
        while let Some(None) = self.entries.last() {
            self.entries.pop();
        }
        if self.free.len() > 2 * self.entries.len() + 16 {
            let end = self.entries.len();
            self.free.retain(|slot| (*slot as usize) < end);
            self.free.shrink_to_fit();
            self.entries.shrink_to_fit();
        }
    }
}

impl Members {
    /// How many there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.slots.lock().live
    }

    /// Visits members from slot `from` on, [`PIECE`] slots at most; answers where to go on.
    pub(crate) fn visit(&self, from: usize, mut visit: impl FnMut(&Arc<Member>)) -> Option<usize> {
        let slots = self.slots.lock();
        let to = slots.entries.len().min(from + PIECE);
        slots.entries.get(from..to).unwrap_or_default().iter().flatten().for_each(&mut visit);
        (to < slots.entries.len()).then_some(to)
    }

    /// All of them now.
    pub(crate) fn all(&self) -> Vec<Arc<Member>> {
        self.slots.lock().entries.iter().flatten().cloned().collect()
    }
}

type Sets = HashMap<Key, Arc<Members>>;

/// Connections and sets of a node.
pub(crate) struct Registry {
    /// By partition.
    sets: Vec<Mutex<Sets>>,
    connections: Vec<Mutex<HashMap<String, Arc<Member>>>>,
    hasher: RandomState,
    count: AtomicUsize,
    groups_max: usize,
}

impl Registry {
    pub(crate) fn new(partitions: u32, groups_max: usize) -> Registry {
        Registry {
            sets: (0..partitions.max(1)).map(|_| Mutex::default()).collect(),
            connections: (0..CONNECTION_SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
            groups_max,
        }
    }

    pub(crate) fn partitions(&self) -> u32 {
        self.sets.len() as u32
    }

    fn shard(&self, id: &str) -> &Mutex<HashMap<String, Arc<Member>>> {
        &self.connections[self.hasher.hash_one(id) as usize % CONNECTION_SHARDS]
    }

    fn map(&self, key: &Key) -> &Mutex<Sets> {
        &self.sets[key.partition(self.partitions()).0 as usize]
    }

    /// Connections of the node.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Makes a connection known by its id, if there is room and no other has it.
    pub(crate) fn insert(&self, member: Arc<Member>, connections_max: usize) -> Result<(), InsertError> {
        let mut shard = self.shard(member.id.as_str()).lock();
        if shard.contains_key(member.id.as_str()) {
            return Err(InsertError::Taken);
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= connections_max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(InsertError::Full);
        }
        shard.insert(member.id.as_str().to_owned(), member);
        Ok(())
    }

    /// A connection of this id.
    pub(crate) fn connection(&self, id: &str) -> Option<Arc<Member>> {
        self.shard(id).lock().get(id).cloned()
    }

    /// A connection of this id in this hub.
    pub(crate) fn connection_of(&self, hub: &str, id: &str) -> Option<Arc<Member>> {
        self.connection(id).filter(|member| member.hub.as_str() == hub)
    }

    /// The connections of one of [`CONNECTION_SHARDS`] parts.
    pub(crate) fn part(&self, part: usize) -> Vec<Arc<Member>> {
        self.connections[part % CONNECTION_SHARDS].lock().values().cloned().collect()
    }

    /// Hubs that have a connection here, at most `limit`.
    pub(crate) fn hubs(&self, limit: usize) -> Vec<String> {
        let mut hubs = Vec::new();
        for map in &self.sets {
            let map = map.lock();
            let names = map.keys().filter(|key| key.name().is_empty()).map(|key| key.hub_name().to_owned());
            hubs.extend(names.take(limit.saturating_sub(hubs.len())));
        }
        hubs.sort();
        hubs
    }

    /// Takes a connection out of everything; answers the keys that have no member here any more. `None` when it
    /// has been taken out before.
    pub(crate) fn remove(&self, member: &Member) -> Option<Vec<Key>> {
        let mut shard = self.shard(member.id.as_str()).lock();
        let is_same = shard.get(member.id.as_str()).is_some_and(|known| std::ptr::eq(&**known, member));
        if is_same {
            shard.remove(member.id.as_str());
            if shard.capacity() > 64 && shard.capacity() > 4 * shard.len() {
                shard.shrink_to_fit();
            }
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        drop(shard);
        let mut places = member.places.lock();
        if std::mem::replace(&mut places.is_gone, true) {
            return None;
        }
        let sets = std::mem::take(&mut places.sets);
        Some(sets.into_iter().filter(|place| self.leave_set(place)).map(|place| place.key).collect())
    }

    /// Adds a member to a set; answers whether it is the first one here.
    pub(crate) fn join(&self, member: &Arc<Member>, key: Key, cause: Cause) -> Result<bool, JoinError> {
        let mut places = member.places.lock();
        if places.is_gone {
            return Err(JoinError::Gone);
        }
        if let Some(place) = places.sets.iter_mut().find(|place| place.key == key) {
            place.add(cause);
            return Ok(false);
        }
        if places.sets.len() >= self.groups_max + 2 {
            return Err(JoinError::TooMany);
        }
        let mut map = self.map(&key).lock();
        let is_new = !map.contains_key(&key);
        let set = map.entry(key.clone()).or_default();
        let slot = set.slots.lock().insert(member.clone());
        drop(map);
        let mut place = Place { key, slot, is_own: false, by_user_until: None };
        place.add(cause);
        if places.sets.len() == places.sets.capacity() && places.sets.len() < 2 {
            // Most connections are in their hub and their user's set only.
            places.sets.reserve_exact(1);
        }
        places.sets.push(place);
        Ok(is_new)
    }

    /// Takes a cause away; answers the key if the member left with it and was the last one here.
    pub(crate) fn leave(&self, member: &Member, key: &Key, which: Leave) -> Option<Key> {
        let mut places = member.places.lock();
        let at = places.sets.iter().position(|place| place.key == *key)?;
        match which {
            Leave::All => {}
            Leave::User => places.sets[at].by_user_until = None,
            Leave::UserUntil(now) => {
                places.sets[at].by_user_until.take_if(|until| *until <= now);
            }
        }
        let place = &places.sets[at];
        if which != Leave::All && (place.is_own || place.by_user_until.is_some()) {
            return None;
        }
        let place = places.sets.swap_remove(at);
        self.leave_set(&place).then_some(place.key)
    }

    /// Groups that a member is in.
    pub(crate) fn groups_of(&self, member: &Member) -> Vec<Key> {
        let places = member.places.lock();
        places.sets.iter().map(|place| &place.key).filter(|key| key.is_group()).cloned().collect()
    }

    fn leave_set(&self, place: &Place) -> bool {
        let mut map = self.map(&place.key).lock();
        let Some(set) = map.get(&place.key) else { return false };
        let mut slots = set.slots.lock();
        slots.remove(place.slot);
        let is_empty = slots.live == 0;
        drop(slots);
        if is_empty {
            map.remove(&place.key);
            if map.capacity() > 64 && map.capacity() > 4 * map.len() {
                map.shrink_to_fit();
            }
        }
        is_empty
    }

    /// The members of a key.
    pub(crate) fn members(&self, key: &Key) -> Option<Arc<Members>> {
        self.map(key).lock().get(key).cloned()
    }

    /// Whether a key has a member here.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.map(key).lock().contains_key(key)
    }

    /// All keys of a partition that have members here.
    pub(crate) fn keys(&self, partition: PartitionId) -> Vec<Key> {
        let map = self.sets.get(partition.0 as usize);
        map.map(|map| map.lock().keys().cloned().collect()).unwrap_or_default()
    }
}

/// Why a connection isn't made known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InsertError {
    /// Another connection has its id.
    Taken,
    /// The node has as many connections as it may have.
    Full,
}

/// What is taken away of a membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// All of it.
    All,
    /// That its user is in the group.
    User,
    /// The same, if it has expired by then.
    UserUntil(u64),
}

impl Place {
    fn add(&mut self, cause: Cause) {
        match cause {
            Cause::Own => self.is_own = true,
            Cause::User { until } => self.by_user_until = Some(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testkit::member;

    fn registry() -> Registry {
        Registry::new(4, 3)
    }

    fn ids(members: &Members) -> BTreeSet<String> {
        members.all().iter().map(|member| member.id.to_string()).collect()
    }

    #[test]
    fn the_first_and_the_last_are_told() {
        let registry = registry();
        let (a, b) = (member("chat", 1), member("chat", 2));
        for member in [&a, &b] {
            registry.insert(member.clone(), 10).expect("room");
        }
        let key = Key::group("chat", "g");
        assert_eq!(registry.join(&a, key.clone(), Cause::Own), Ok(true));
        assert_eq!(registry.join(&b, key.clone(), Cause::Own), Ok(false));
        assert_eq!(registry.join(&b, key.clone(), Cause::Own), Ok(false));
        assert_eq!(registry.members(&key).expect("set").count(), 2);
        assert_eq!(registry.leave(&a, &key, Leave::All), None);
        assert!(registry.has(&key));
        assert_eq!(registry.remove(&b), Some(vec![key.clone()]));
        assert_eq!(registry.remove(&b), None);
        assert!(!registry.has(&key));
        assert_eq!(registry.join(&b, key, Cause::Own), Err(JoinError::Gone));
        assert_eq!(registry.count(), 1);
    }

    /// A connection that was put into a group itself stays when its user leaves, and the other way round.
    #[test]
    fn causes_are_kept_apart() {
        let registry = registry();
        let a = member("chat", 1);
        let key = Key::group("chat", "g");
        registry.join(&a, key.clone(), Cause::Own).expect("join");
        registry.join(&a, key.clone(), Cause::User { until: 50 }).expect("join");
        assert_eq!(registry.leave(&a, &key, Leave::User), None);
        assert!(a.is_in(&key));
        assert_eq!(registry.leave(&a, &key, Leave::All), Some(key.clone()));
        registry.join(&a, key.clone(), Cause::User { until: 50 }).expect("join");
        assert_eq!(registry.leave(&a, &key, Leave::UserUntil(49)), None);
        assert_eq!(registry.leave(&a, &key, Leave::UserUntil(50)), Some(key));
    }

    #[test]
    fn room_and_groups_are_bounded() {
        let registry = registry();
        let (a, b) = (member("chat", 1), member("chat", 2));
        assert_eq!(registry.insert(a.clone(), 1), Ok(()));
        assert_eq!(registry.insert(a.clone(), 1), Err(InsertError::Taken));
        assert_eq!(registry.insert(b, 1), Err(InsertError::Full));
        assert_eq!(registry.count(), 1);
        let join = |name: usize| registry.join(&a, Key::group("chat", &name.to_string()), Cause::Own);
        assert!((0..5).all(|name| join(name).is_ok()));
        assert_eq!(join(5), Err(JoinError::TooMany));
    }

    /// Members that come and go during a walk don't hide those that stay.
    #[test]
    fn a_walk_meets_everybody_who_stays_once() {
        let registry = registry();
        let key = Key::hub("chat");
        let members: Vec<_> = (0..2_000).map(|number| member("chat", number)).collect();
        for member in &members {
            registry.join(member, key.clone(), Cause::Own).expect("join");
        }
        let set = registry.members(&key).expect("set");
        let (mut met, mut from, mut round) = (Vec::new(), Some(0), 0);
        while let Some(at) = from {
            from = set.visit(at, |member| met.push(member.id.to_string()));
            // Odd ones leave, others come into their slots.
            for number in (round * 200..(round + 1) * 200).filter(|number| number % 2 == 1) {
                registry.leave(&members[number], &key, Leave::All);
            }
            let _ = registry.join(&member("chat", 10_000 + round), key.clone(), Cause::Own);
            round += 1;
        }
        let unique: BTreeSet<_> = met.iter().cloned().collect();
        assert_eq!(unique.len(), met.len());
        let stayed = members.iter().step_by(2).map(|member| member.id.to_string());
        assert!(stayed.into_iter().all(|id| unique.contains(&id)));
        assert!(ids(&set).len() >= 1_000);
    }

    #[test]
    fn keys_are_listed_by_partition() {
        let registry = registry();
        let a = member("chat", 1);
        let keys = [Key::hub("chat"), Key::user("chat", "u"), Key::group("chat", "g")];
        for key in &keys {
            registry.join(&a, key.clone(), Cause::Own).expect("join");
        }
        let mut listed: Vec<_> = (0..4).flat_map(|partition| registry.keys(PartitionId(partition))).collect();
        listed.sort();
        let mut expected = keys.to_vec();
        expected.sort();
        assert_eq!(listed, expected);
        assert_eq!(registry.groups_of(&a), [Key::group("chat", "g")]);
    }
}
