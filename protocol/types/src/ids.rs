//! Newtypes for everything that is counted or named by a number.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

id! {
    /// A node of the cluster; durable, given once by the control group, never reused.
    NodeId(u64), "n"
}
id! {
    /// A partition of the hub's stream: a shard of devices.
    PartitionId(u32), "p"
}
id! {
    /// A Raft group on a node. Group 0 is the control group; partition `p` is group `p + 1`.
    GroupId(u32), "g"
}
id! {
    /// A Raft term.
    Term(u64), "t"
}
id! {
    /// A place in the Raft log of one group. The first entry has index 0 (openraft's convention).
    LogIndex(u64), ""
}
id! {
    /// A place of a record in a partition's stream, as readers see it. Dense: the first record of
    /// a partition has offset 0, and each accepted record adds one. It is also the sequence number.
    Offset(u64), ""
}
id! {
    /// A producer of batches (a gateway, or a user of the client crate), for deduplication.
    ProducerId(u64), "w"
}
id! {
    /// A member of a consumer group, given by the group's coordinator when it joins.
    MemberId(u64), "m"
}

impl GroupId {
    /// The control group: members, placement, settings.
    pub const CONTROL: GroupId = GroupId(0);

    /// The group that replicates `partition`.
    pub fn of_partition(partition: PartitionId) -> GroupId {
        GroupId(partition.0 + 1)
    }

    /// The partition that this group replicates; `None` for the control group.
    pub fn partition(self) -> Option<PartitionId> {
        self.0.checked_sub(1).map(PartitionId)
    }
}

impl LogIndex {
    /// The index after this one.
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }
}

impl Offset {
    /// The offset `count` records further on.
    pub fn plus(self, count: u64) -> Offset {
        Offset(self.0 + count)
    }
}

/// The identity of a Raft entry: who wrote it, and where. Two entries of one group with equal
/// `LogId` are the same entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Term of the leader that proposed the entry.
    pub term: Term,
    /// Its place in the group's log.
    pub index: LogIndex,
}

impl LogId {
    /// A log id from plain numbers.
    pub fn new(term: u64, index: u64) -> LogId {
        LogId { term: Term(term), index: LogIndex(index) }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}
