//! What can be made to go wrong, and what did.

use std::time::Duration;

/// How a [`crate::memory::MemNetwork`] behaves.
#[derive(Clone, Copy, Debug)]
pub struct MemOptions {
    /// All delays and faults follow from it.
    pub seed: u64,
    /// Of links that are not given their own.
    pub faults: LinkFaults,
    /// As on the real transport. Default 16 MiB.
    pub frame_bytes_max: usize,
    /// As on the real transport; small values reach the bound in a simulation. Default 8 MiB.
    pub lane_queue_bytes_max: usize,
    /// How long a send waits for its first connection over a cut link. Default 3 s.
    pub connect_timeout: Duration,
    /// How long after a break the peers hear of it. Default 2 ms.
    pub down_delay: Duration,
    /// What a cut does. Default: messages wait.
    pub cut_mode: CutMode,
}

/// Faults of one direction of a link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkFaults {
    /// The least time that a message is under way.
    pub delay_min: Duration,
    /// The most.
    pub delay_max: Duration,
    /// Probability that a message vanishes (its connection stays).
    pub drop: f64,
    /// Probability that a request arrives twice.
    pub duplicate: f64,
    /// Whether messages on Control and Bulk may overtake each other. Appends never do.
    pub reorder: bool,
}

impl Default for LinkFaults {
    /// A good network: 0.2 to 1 ms, nothing lost.
    fn default() -> LinkFaults {
        LinkFaults {
            delay_min: Duration::from_micros(200),
            delay_max: Duration::from_millis(1),
            drop: 0.0,
            duplicate: 0.0,
            reorder: false,
        }
    }
}

/// What a cut does to connections and messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutMode {
    /// Messages wait for the cut to heal, however long; nobody hears of it.
    Hang,
    /// As `Hang`, but connections break when the cut lasts so long (as the kernel's time-out does).
    HangThenBreak(Duration),
    /// Connections break at once and can't be made until the cut heals.
    Fail,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounters {
    /// Requests taken from senders.
    pub requests: u64,
    /// Requests handed to handlers, duplicates included.
    pub delivered: u64,
    /// Answers handed to requesters that still waited.
    pub answered: u64,
    /// Messages lost by `drop`.
    pub dropped: u64,
    /// Requests doubled by `duplicate`.
    pub duplicated: u64,
    /// Messages that met a cut and waited.
    pub held: u64,
    /// Messages lost because their connection broke.
    pub discarded: u64,
    /// Connections made.
    pub connected: u64,
    /// Connections broken.
    pub broken: u64,
}
