//! Every bound of a partition's state, and why it is what it is.

/// Bounds of one partition's state. They are part of what apply computes, so all replicas of a
/// cluster must have the same; they aren't configurable per node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Producers that are remembered; beyond it the one that was silent longest is forgotten.
    pub producers_max: usize,
    /// How long a silent producer is remembered, in milliseconds.
    pub producer_idle_ms: u64,
    /// Consumer groups that a partition coordinates, and checkpoints that it keeps.
    pub groups_max: usize,
    /// Members of one consumer group.
    pub members_max: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        StreamLimits {
            producers_max: 10_000,
            producer_idle_ms: 7 * 24 * 60 * 60 * 1000,
            groups_max: 1_000,
            members_max: 1_000,
        }
    }
}

/// Batches of a producer whose offsets are remembered: more than a producer has on its way.
pub const PRODUCER_WINDOW: usize = 16;
/// Partitions or members that one command names: a hub has no more partitions, a group fewer members.
pub const IDS_MAX: usize = 4096;
/// Batches in one index row: a read decodes a whole row, and a round may be of any length (the replay
/// after a restart is one).
pub const RUN_BATCHES_MAX: usize = 256;
/// Bytes of a consumer group's or client's name.
pub const NAME_BYTES_MAX: usize = 256;
