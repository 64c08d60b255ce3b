//! Failed sign-ins by address: who fails too often waits, before anything is verified.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use parking_lot::Mutex;

use crate::limits::{FAILURES_ADDRESSES_MAX, FAILURES_MAX, FAILURES_WINDOW};

/// Failures of the last while. Time comes in as an argument.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    rows: HashMap<IpAddr, Row>,
    /// Addresses in the order in which their windows began.
    order: VecDeque<(u64, IpAddr)>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    since_ms: u64,
    count: u32,
}

/// What counts as one: an IPv6 network of 64 bits is one customer's.
fn one(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

fn window_ms() -> u64 {
    FAILURES_WINDOW.as_millis() as u64
}

impl Failures {
    /// How many seconds the address has to wait; `None` when it may try.
    pub(crate) fn wait(&self, address: IpAddr, now_ms: u64) -> Option<u64> {
        let row = *self.table.lock().rows.get(&one(address))?;
        let left = (row.since_ms + window_ms()).checked_sub(now_ms)?;
        (row.count >= FAILURES_MAX && left > 0).then(|| left.div_ceil(1000))
    }

    /// Counts a failure.
    pub(crate) fn count(&self, address: IpAddr, now_ms: u64) {
        let address = one(address);
        let mut table = self.table.lock();
        table.forget(now_ms);
        match table.rows.get_mut(&address) {
            Some(row) => row.count = row.count.saturating_add(1),
            None => {
                table.rows.insert(address, Row { since_ms: now_ms, count: 1 });
                table.order.push_back((now_ms, address));
            }
        }
    }
}

impl Table {
    /// Drops what is over, and the oldest when there are too many.
    fn forget(&mut self, now_ms: u64) {
        while let Some((since_ms, address)) = self.order.front().copied() {
            let over = since_ms + window_ms() <= now_ms;
            if !over && self.rows.len() < FAILURES_ADDRESSES_MAX {
                return;
            }
            self.order.pop_front();
            self.rows.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten failures close the door for the rest of the window, for that address only.
    #[test]
    fn the_door_closes_and_opens() {
        let failures = Failures::default();
        let (bad, good) = ("10.1.1.1".parse().unwrap(), "10.1.1.2".parse().unwrap());
        for second in 0..u64::from(FAILURES_MAX) {
            assert_eq!(failures.wait(bad, second * 1000), None, "{second}");
            failures.count(bad, second * 1000);
        }
        assert_eq!(failures.wait(bad, 10_000), Some(50));
        assert_eq!(failures.wait(good, 10_000), None);
        assert_eq!(failures.wait(bad, 60_000), None);
        failures.count(bad, 60_000);
        assert_eq!(failures.wait(bad, 60_001), None, "a new window began");
    }

    /// A network of 64 bits is one address; an IPv4 address in IPv6 form is that address.
    #[test]
    fn addresses_that_are_one() {
        let failures = Failures::default();
        for host in 0..FAILURES_MAX {
            failures.count(format!("fd00::{host:x}").parse().unwrap(), 0);
            failures.count(format!("::ffff:10.0.0.{host}").parse().unwrap(), 0);
        }
        assert!(failures.wait("fd00::ffff".parse().unwrap(), 1).is_some());
        assert_eq!(failures.wait("10.0.0.1".parse().unwrap(), 1), None);
    }

    /// Memory is bounded whatever comes.
    #[test]
    fn the_oldest_are_forgotten() {
        let failures = Failures::default();
        for number in 0..FAILURES_ADDRESSES_MAX as u32 + 100 {
            failures.count(IpAddr::V4(number.into()), 0);
        }
        let table = failures.table.lock();
        assert_eq!(table.rows.len(), FAILURES_ADDRESSES_MAX);
        assert_eq!(table.order.len(), table.rows.len());
    }
}
