//! The clock door.

use std::fmt::Debug;
use std::time::Duration;

use fleetline_types::TimestampMs;

/// A point on the monotonic clock, as the time since some fixed start of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub Duration);

impl Monotonic {
    /// How much later this point is than `earlier`; zero when it is not later.
    pub fn since(self, earlier: Monotonic) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Reads the time. Safety may not depend on it; only liveness may.
pub trait Clock: Send + Sync + Debug + 'static {
    /// The monotonic clock: never goes back, says nothing about the calendar.
    fn monotonic(&self) -> Monotonic;

    /// The wall clock. It may jump by years in either direction.
    fn wall(&self) -> TimestampMs;
}
