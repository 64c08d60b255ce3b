//! Wall-clock time as it is stored: milliseconds since the Unix epoch.

use std::fmt;

/// Milliseconds since the Unix epoch, UTC. Only ever a value that a proposer put into an entry:
/// nothing that replicas compute may read a clock (design D8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimestampMs(pub u64);

impl TimestampMs {
    /// This time less `ms` milliseconds, stopping at the epoch.
    pub fn minus_ms(self, ms: u64) -> TimestampMs {
        TimestampMs(self.0.saturating_sub(ms))
    }

    /// This time plus `ms` milliseconds, stopping at the largest value.
    pub fn plus_ms(self, ms: u64) -> TimestampMs {
        TimestampMs(self.0.saturating_add(ms))
    }
}

impl fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}
