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
    /// Identity → its row: status, keys (`broker/devices`).
    Device = 11,
    /// Identity → twin (`broker/devices`).
    Twin = 12,
    /// Identity → session: connection, subscriptions, will (`broker/devices`).
    Session = 13,
    /// Identity → the last fence that named it (`broker/devices`).
    Fence = 14,
    /// Fence number → identity (`broker/devices`).
    FenceLog = 15,
    /// One row per partition: counters of devices, fence, outbox (`broker/devices`).
    DeviceHead = 16,
    /// Identity, sequence number → command that waits for the device (`broker/devices`).
    Command = 17,
    /// Identity → its command queue's counters (`broker/devices`).
    CommandQueue = 18,
    /// Sequence number → feedback record that waits for a service (`broker/devices`).
    Feedback = 19,
    /// Sequence number → event that waits to become a record of the stream (`broker/devices`).
    Outbox = 20,
    /// Identity, correlation id → file upload that was begun (`broker/devices`).
    Upload = 21,
    /// Name → document of a tier (`broker/devices`).
    Document = 22,
}

impl KeyKind {
    /// All kinds, for tests and tools.
    pub const ALL: [KeyKind; 22] = [
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
        KeyKind::Device,
        KeyKind::Twin,
        KeyKind::Session,
        KeyKind::Fence,
        KeyKind::FenceLog,
        KeyKind::DeviceHead,
        KeyKind::Command,
        KeyKind::CommandQueue,
        KeyKind::Feedback,
        KeyKind::Outbox,
        KeyKind::Upload,
        KeyKind::Document,
    ];

    /// The kind of this number.
    pub fn from_byte(byte: u8) -> Option<KeyKind> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}
