//! Times of two kinds: user memberships that end, and ids of connections that have ended.
//!
//! Memberships may last a year, connections seldom do, so only those that end soon are in order of their end;
//! a walk over all connections, a part a second, finds the others when they are near.
//!
//! A client over long polling or with stateful reconnect asks again with the id of a connection that is over.
//! Ids are minted without being stored, so what is over is remembered for a while, and such a client is told
//! that its connection is gone instead of getting a new one.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::key::Key;
use crate::member::Member;
use crate::registry::CONNECTION_SHARDS;

/// Memberships that end within this time are watched: longer than one walk over all connections.
pub(crate) const SOON_MS: u64 = (CONNECTION_SHARDS as u64 + 10) * 1_000;
/// How long an ended connection's id is remembered: clients try again for less than a minute.
const BURIED_MS: u64 = 120_000;
/// Ids that are remembered at most.
const BURIED_MAX: usize = 65_536;

/// When it ends, which member, which group. The pointer only tells members apart.
type Place = (u64, usize, Key);

/// User memberships that end soon.
#[derive(Default)]
pub(crate) struct Endings(Mutex<BTreeMap<Place, Weak<Member>>>);

impl Endings {
    /// Watches a membership that ends at `until`, if that is soon.
    pub(crate) fn watch(&self, member: &Arc<Member>, key: &Key, until: u64, now: u64) {
        if until <= now.saturating_add(SOON_MS) {
            let place = (until, Arc::as_ptr(member) as usize, key.clone());
            self.0.lock().insert(place, Arc::downgrade(member));
        }
    }

    /// Watches what of a member ends soon.
    pub(crate) fn watch_all(&self, member: &Arc<Member>, now: u64) {
        let soon: Vec<(Key, u64)> = {
            let places = member.places.lock();
            let until = |place: &crate::member::Place| Some((place.key.clone(), place.by_user_until?));
            places.sets.iter().filter_map(until).collect()
        };
        for (key, until) in soon {
            self.watch(member, &key, until, now);
        }
    }

    /// What has ended by `now`.
    pub(crate) fn take(&self, now: u64) -> Vec<(Arc<Member>, Key)> {
        let mut watched = self.0.lock();
        let mut ended = Vec::new();
        while let Some(entry) = watched.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ((_, _, key), member) = entry.remove_entry();
            ended.extend(member.upgrade().map(|member| (member, key)));
        }
        ended
    }
}

#[derive(Default)]
struct Graves {
    order: VecDeque<(u64, Arc<str>)>,
    ids: HashSet<Arc<str>>,
}

/// Ids of connections that have ended.
#[derive(Default)]
pub(crate) struct Buried(Mutex<Graves>);

impl Buried {
    pub(crate) fn add(&self, id: &str, now_ms: u64) {
        let mut graves = self.0.lock();
        let id: Arc<str> = id.into();
        if graves.ids.insert(id.clone()) {
            graves.order.push_back((now_ms.saturating_add(BURIED_MS), id));
        }
        drop(graves);
        self.forget(now_ms);
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.0.lock().ids.contains(id)
    }

    /// Forgets what is old, or too many.
    pub(crate) fn forget(&self, now_ms: u64) {
        let mut graves = self.0.lock();
        while let Some((until, id)) = graves.order.front().cloned() {
            if until > now_ms && graves.order.len() <= BURIED_MAX {
                return;
            }
            graves.order.pop_front();
            graves.ids.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::member;

    #[test]
    fn only_what_ends_soon_is_watched() {
        let endings = Endings::default();
        let (a, key) = (member("chat", 1), Key::group("chat", "g"));
        endings.watch(&a, &key, 50 + SOON_MS + 1, 50);
        endings.watch(&a, &key, 100, 50);
        endings.watch(&a, &key, 100, 60);
        assert_eq!(endings.take(99).len(), 0);
        assert_eq!(endings.take(100).len(), 1);
        assert_eq!(endings.take(u64::MAX).len(), 0);
        endings.watch(&member("chat", 2), &key, 100, 50);
        assert_eq!(endings.take(100).len(), 0, "it is gone");
    }

    #[test]
    fn ids_are_forgotten_in_time() {
        let buried = Buried::default();
        buried.add("a", 0);
        buried.add("a", 10);
        assert!(buried.has("a"));
        buried.forget(BURIED_MS - 1);
        assert!(buried.has("a"));
        buried.forget(BURIED_MS);
        assert!(!buried.has("a"));
        for number in 0..BURIED_MAX + 5 {
            buried.add(&number.to_string(), 0);
        }
        assert!(!buried.has("4") && buried.has("5"));
    }
}
