//! Milliseconds since the tier's start, for sessions and timers; they never go back.

use std::time::Duration;

use tokio::time::Instant;

/// How far a timer is set at most: sleeping longer than a day makes no difference.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// A clock that starts near zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Milliseconds since the start.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment of a time of this clock, as far as timers look.
    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        let far = Instant::now() + FAR;
        self.start.checked_add(Duration::from_millis(at_ms)).map_or(far, |at| at.min(far))
    }
}
