//! The numbers that tell messages apart on the wire.

/// What a peer message is. A number once given is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageKind {
    /// Entries for one group.
    Append = 1,
    /// Empty appends of many groups.
    Heartbeats = 2,
    /// A candidate asks for a vote.
    Vote = 3,
    /// A candidate asks whether it would get a vote.
    PreVote = 4,
    /// Leadership is handed over.
    Transfer = 5,
    /// A snapshot is announced.
    SnapshotBegin = 6,
    /// The next bytes of a snapshot.
    SnapshotChunk = 7,
    /// A snapshot is complete.
    SnapshotFinish = 8,
    /// Damaged entries are asked for.
    FetchEntries = 9,
    /// A command for the leader of a group.
    Forward = 10,
    /// A call of one node's broker to another's.
    Call = 11,
}

impl MessageKind {
    /// All kinds, for tests and tools.
    pub const ALL: [MessageKind; 11] = [
        MessageKind::Append,
        MessageKind::Heartbeats,
        MessageKind::Vote,
        MessageKind::PreVote,
        MessageKind::Transfer,
        MessageKind::SnapshotBegin,
        MessageKind::SnapshotChunk,
        MessageKind::SnapshotFinish,
        MessageKind::FetchEntries,
        MessageKind::Forward,
        MessageKind::Call,
    ];

    /// The kind of this number.
    pub fn from_byte(byte: u8) -> Option<MessageKind> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}
