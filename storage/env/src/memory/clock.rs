//! A clock that moves only when told.

use std::sync::Arc;
use std::time::Duration;

use fleetline_types::TimestampMs;
use parking_lot::Mutex;

use crate::{Clock, Monotonic};

/// A clock for tests and the simulator. Clones are handles of one clock.
#[derive(Clone, Debug)]
pub struct ManualClock {
    now: Arc<Mutex<Now>>,
}

#[derive(Debug)]
struct Now {
    monotonic: Duration,
    /// Since the Unix epoch; kept finer than milliseconds so that small steps add up.
    wall: Duration,
}

impl ManualClock {
    /// A clock with monotonic time zero and this wall time.
    pub fn new(wall: TimestampMs) -> ManualClock {
        let now = Now { monotonic: Duration::ZERO, wall: Duration::from_millis(wall.0) };
        ManualClock { now: Arc::new(Mutex::new(now)) }
    }

    /// Lets time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock();
        now.monotonic = now.monotonic.saturating_add(by);
        now.wall = now.wall.saturating_add(by);
    }

    /// Lets time pass on the monotonic clock alone, as when the wall clock is being slewed.
    pub fn advance_monotonic(&self, by: Duration) {
        let mut now = self.now.lock();
        now.monotonic = now.monotonic.saturating_add(by);
    }

    /// Moves the monotonic clock to `to`; stays where it is when that would go back.
    pub fn set_monotonic(&self, to: Monotonic) {
        let mut now = self.now.lock();
        now.monotonic = now.monotonic.max(to.0);
    }

    /// Makes the wall clock jump, forward or back.
    pub fn set_wall(&self, to: TimestampMs) {
        self.now.lock().wall = Duration::from_millis(to.0);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.now.lock().monotonic)
    }

    fn wall(&self) -> TimestampMs {
        TimestampMs(u64::try_from(self.now.lock().wall.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wall clock jumps both ways, the monotonic one never goes back, small steps add up.
    #[test]
    fn moves_only_when_told() {
        let clock = ManualClock::new(TimestampMs(1_000));
        let other = clock.clone();
        for _ in 0..4 {
            other.advance(Duration::from_micros(250));
        }
        assert_eq!(clock.wall(), TimestampMs(1_001));
        assert_eq!(clock.monotonic(), Monotonic(Duration::from_millis(1)));
        clock.set_wall(TimestampMs(5));
        clock.set_monotonic(Monotonic(Duration::ZERO));
        assert_eq!(clock.wall(), TimestampMs(5));
        assert_eq!(clock.monotonic(), Monotonic(Duration::from_millis(1)));
        clock.advance_monotonic(Duration::from_millis(9));
        clock.set_monotonic(Monotonic(Duration::from_millis(12)));
        assert_eq!(clock.wall(), TimestampMs(5));
        assert_eq!(clock.monotonic().since(Monotonic(Duration::from_millis(2))), Duration::from_millis(10));
    }
}
