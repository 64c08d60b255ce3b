//! A session: windows, numbers of transfers, deliveries of ours without an outcome (2.5).

use std::collections::BTreeMap;

use super::link::Link;
use crate::performative::{Begin, Flow};

/// What we say we may send; what we really send follows the peer's window.
pub(super) const OUTGOING_WINDOW: u32 = 0x7fff_ffff;

/// A delivery of ours without an outcome.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) handle: u32,
    pub(super) serial: u64,
    /// The caller has heard its outcome.
    pub(super) told: bool,
}

/// The rest of a delivery whose session has taken only a part.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) handle: u32,
    pub(super) rest: Vec<u8>,
    pub(super) at: usize,
}

#[derive(Debug)]
pub(super) struct Session {
    /// Our `end` is sent.
    pub(super) ending: bool,
    pub(super) peer_handle_max: u32,
    /// Number of the peer's next transfer.
    pub(super) next_incoming_id: u32,
    /// Transfers that the peer may send before it hears of more.
    pub(super) incoming_left: u32,
    /// Number of our next transfer.
    pub(super) next_outgoing_id: u32,
    /// Transfers that the peer takes.
    pub(super) remote_window: u32,
    /// The peer's last delivery.
    pub(super) last_delivery: Option<u32>,
    /// Our next delivery. Its number on the wire is the lower half.
    pub(super) next_delivery: u64,
    pub(super) links: BTreeMap<u32, Link>,
    pub(super) sent: BTreeMap<u64, Sent>,
    pub(super) pending: Option<Pending>,
}

impl Session {
    pub(super) fn new(begin: &Begin<'_>, incoming_window: u32) -> Session {
        Session {
            ending: false,
            peer_handle_max: begin.handle_max.unwrap_or(u32::MAX),
            next_incoming_id: begin.next_outgoing_id,
            incoming_left: incoming_window,
            next_outgoing_id: 0,
            remote_window: begin.incoming_window,
            last_delivery: None,
            next_delivery: 0,
            links: BTreeMap::new(),
            sent: BTreeMap::new(),
            pending: None,
        }
    }

    /// 2.5.6: remote-incoming-window = next-incoming-id(flow) + incoming-window(flow) − next-outgoing-id;
    /// before the peer has seen our `begin` it counts from our first transfer, which is 0.
    pub(super) fn on_flow(&mut self, flow: &Flow) {
        let seen = flow.next_incoming_id.unwrap_or(0);
        let on_the_way = self.next_outgoing_id.wrapping_sub(seen);
        // A peer that has seen more than was sent is taken at its window.
        let on_the_way = if (on_the_way as i32) < 0 { 0 } else { on_the_way };
        self.remote_window = flow.incoming_window.saturating_sub(on_the_way);
    }

    /// Our deliveries between two numbers of the wire, which may have begun anew at zero. The work is
    /// bounded by what waits for an outcome, whatever range the peer names.
    pub(super) fn sent_between(&mut self, first: u32, last: u32) -> impl Iterator<Item = (u64, &mut Sent)> {
        let distance = first.wrapping_sub(self.next_delivery as u32) as i32;
        let start = self.next_delivery as i64 + i64::from(distance);
        let end = start + i64::from(last.wrapping_sub(first));
        // Numbers from before the first delivery were never given.
        let range = start.max(0) as u64..end.saturating_add(1).max(0) as u64;
        let range = if range.start < range.end { range } else { 0..0 };
        self.sent.range_mut(range).map(|(id, sent)| (*id, sent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(next_delivery: u64, sent: &[u64]) -> Session {
        let mut session = Session::new(&Begin::default(), 8);
        session.next_delivery = next_delivery;
        session.sent = sent.iter().map(|id| (*id, Sent { handle: 0, serial: 0, told: false })).collect();
        session
    }

    /// Numbers begin anew at 2³²; ranges over that, foreign ones and the largest possible one.
    #[test]
    fn ranges() {
        const WRAP: u64 = 1 << 32;
        let sent = [WRAP - 2, WRAP - 1, WRAP, WRAP + 1];
        let found = |first: u32, last: u32| {
            session(WRAP + 2, &sent).sent_between(first, last).map(|(id, _)| id).collect::<Vec<u64>>()
        };
        assert_eq!(found(u32::MAX - 1, 1), sent);
        assert_eq!(found(u32::MAX, 0), [WRAP - 1, WRAP]);
        assert_eq!(found(0, 0), [WRAP]);
        assert_eq!(found(5, 9), [0u64; 0]);
        assert_eq!(found(100, 100 + (i32::MAX as u32)), [0u64; 0]);
        let mut young = session(3, &[0, 1, 2]);
        assert_eq!(young.sent_between(0, i32::MAX as u32).count(), 3);
        assert_eq!(young.sent_between(3, 7).count(), 0);
        assert_eq!(young.sent_between(5, 9).count(), 0);
        assert_eq!(young.sent_between(u32::MAX, 0).count(), 1);
        assert_eq!(young.sent_between(1, 1).count(), 1);
    }

    /// What is on its way counts against the window; one that lies about what it has seen gains nothing.
    #[test]
    fn windows() {
        let mut session = session(0, &[]);
        session.next_outgoing_id = 10;
        let window = |session: &mut Session, seen, window| {
            session.on_flow(&Flow { next_incoming_id: seen, incoming_window: window, ..Flow::default() });
            session.remote_window
        };
        assert_eq!(window(&mut session, Some(10), 5), 5);
        assert_eq!(window(&mut session, Some(7), 5), 2);
        assert_eq!(window(&mut session, Some(0), 5), 0);
        assert_eq!(window(&mut session, None, 12), 2);
        assert_eq!(window(&mut session, Some(99), 5), 5);
        session.next_outgoing_id = 3;
        assert_eq!(window(&mut session, Some(u32::MAX), 6), 2);
    }
}
