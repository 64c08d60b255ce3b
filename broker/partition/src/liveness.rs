//! When the members of consumer groups were last heard of.
//!
//! Only on the coordinator's leader, only in memory: replicated state knows who is a member, this
//! knows who still breathes. A new leader gives every member a whole session from the moment it
//! first looks, so a failover expires nobody too early.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetline_env::Monotonic;
use fleetline_types::{MemberId, Term};

/// A member of a consumer group and how long it may be silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberSession {
    pub(crate) group: String,
    pub(crate) member: MemberId,
    pub(crate) timeout: Duration,
}

/// Last signs of life, for one term of leadership.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    term: Term,
    heard: BTreeMap<(String, MemberId), Monotonic>,
}

impl Liveness {
    /// A member was heard of.
    pub(crate) fn heard(&mut self, group: &str, member: MemberId, now: Monotonic) {
        self.heard.insert((group.to_owned(), member), now);
    }

    /// The members that have been silent for too long, given all that the state knows.
    pub(crate) fn expired(
        &mut self,
        term: Term,
        members: Vec<MemberSession>,
        now: Monotonic,
    ) -> BTreeMap<String, Vec<MemberId>> {
        if self.term != term {
            self.term = term;
            self.heard.clear();
        }
        let mut known = BTreeMap::new();
        let mut expired: BTreeMap<String, Vec<MemberId>> = BTreeMap::new();
        for MemberSession { group, member, timeout } in members {
            let key = (group, member);
            let heard = self.heard.get(&key).copied().unwrap_or(now);
            if now.since(heard) > timeout {
                expired.entry(key.0.clone()).or_default().push(member);
            }
            known.insert(key, heard);
        }
        // Members that the state has forgotten are forgotten here too: bounded by the state.
        self.heard = known;
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(Duration::from_secs(seconds))
    }

    fn member(id: u64) -> MemberSession {
        MemberSession { group: "g".into(), member: MemberId(id), timeout: Duration::from_secs(10) }
    }

    /// Silence beyond the session expires a member; a sign of life or a new term gives it a whole
    /// session again.
    #[test]
    fn sessions() {
        let mut liveness = Liveness::default();
        let both = || vec![member(1), member(2)];
        assert!(liveness.expired(Term(1), both(), at(0)).is_empty());
        liveness.heard("g", MemberId(2), at(8));
        let expired = liveness.expired(Term(1), both(), at(11));
        assert_eq!(expired, BTreeMap::from([("g".to_owned(), vec![MemberId(1)])]));
        assert!(liveness.expired(Term(2), both(), at(30)).is_empty());
        assert_eq!(liveness.expired(Term(2), both(), at(41))["g"].len(), 2);
    }

    /// Members that the state no longer knows leave nothing behind.
    #[test]
    fn bounded_by_the_state() {
        let mut liveness = Liveness::default();
        for id in 0..100 {
            liveness.heard("g", MemberId(id), at(1));
        }
        liveness.expired(Term(0), vec![member(1)], at(2));
        assert_eq!(liveness.heard.len(), 1);
    }
}
