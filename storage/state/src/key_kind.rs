//! The registry of key kinds: one byte that says what a row is. A number once given is never
//! reused; a retired kind stays listed with the version that retired it.

/// What a row is. Order on disk is (group, kind, key).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum KeyKind {
    /// One row per group: last applied log id and membership (`raft/group`).
    Applied = 1,
    /// Stream index: first offset → run of (log index, count, time) (`broker/streams`).
    StreamIndex = 2,
    /// One row per partition: next offset, last enqueued time, bytes (`broker/streams`).
    StreamHead = 3,
    /// Producer id → epoch, last sequences and their offsets (`broker/streams`).
    Producer = 4,
    /// Consumer group → members, generation, assignment (`broker/streams`).
    ConsumerGroup = 5,
    /// (Consumer group) → owner epoch and checkpoint of this partition (`broker/streams`).
    Checkpoint = 6,
    /// Control group: node id → member (`broker/cluster`).
    Node = 7,
    /// Control group: partition → placement (`broker/cluster`).
    Placement = 8,
    /// Control group: name → setting, counters, authority (`broker/cluster`).
    Setting = 9,
    /// Control group: join token id → token (`broker/cluster`).
    JoinToken = 10,
}

impl KeyKind {
    /// All kinds, for tests and tools.
    pub const ALL: [KeyKind; 10] = [
        KeyKind::Applied,
        KeyKind::StreamIndex,
        KeyKind::StreamHead,
        KeyKind::Producer,
        KeyKind::ConsumerGroup,
        KeyKind::Checkpoint,
        KeyKind::Node,
        KeyKind::Placement,
        KeyKind::Setting,
        KeyKind::JoinToken,
    ];

    /// The kind of this number.
    pub fn from_byte(byte: u8) -> Option<KeyKind> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}
