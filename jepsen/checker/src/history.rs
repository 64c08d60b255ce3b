//! The history: one fixed-size record an operation, in the order of invocation.
//!
//! Recorders (simulator, local cluster, load tools) collect [`Record`]s in any order and make a
//! [`History`] of them. What each field means depends on the kind of operation:
//!
//! | kind             | key            | value              | offset                    | epoch          |
//! |------------------|----------------|--------------------|---------------------------|----------------|
//! | `send`           | device         | hash of the record | where it was stored       | –              |
//! | `read`           | device         | hash of the record | where it was found        | –              |
//! | `seek`           | –              | –                  | next offset to be read    | –              |
//! | `final`          | –              | first retained     | one behind the last       | –              |
//! | `claim`          | consumer group | –                  | checkpoint that came back | claimed        |
//! | `checkpoint`     | consumer group | –                  | next record to read       | of the writer  |
//! | `checkpoint-read`| consumer group | –                  | what was read, or none    | what was read  |
//! | `use`            | consumer group | –                  | record handed to the owner| of the owner   |
//!
//! Rules for recorders:
//! 1. A process is one thread of control that sees its own operations in order. A reader that
//!    moves on purpose (start, retention, reconnect at a checkpoint) records a `seek` first.
//! 2. Values are unique per partition and device unless the client itself sends a record twice.
//! 3. A sender takes a new process number after a send with an unknown outcome. Claims are recorded
//!    by the process that goes on to act under the epoch.
//! 4. `final` is recorded once per partition, after all faults are healed and some reader has read
//!    everything from the first retained offset to the end.
//! 5. One read reply with many records is many `read`s with equal times, in the order of the reply.

use serde::{Deserialize, Serialize};

/// What a client did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Sent one record to a partition.
    Send,
    /// Was given one record by a partition.
    Read,
    /// Moved its read position on purpose.
    Seek,
    /// Has read the whole partition after the last fault.
    Final,
    /// Took a partition for a consumer group with an epoch.
    Claim,
    /// Stored a checkpoint.
    Checkpoint,
    /// Read a checkpoint.
    CheckpointRead,
    /// Did what only the owner of an epoch may do: was handed a record, or handed in a result.
    Use,
}

/// How an operation ended, as its caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was acknowledged: it has happened.
    Ok,
    /// It was refused: it has never happened and never will.
    Failed,
    /// Nobody knows: it may have happened once, later, or never.
    Unknown,
}

/// One operation of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Which client thread; see the rules in the module header.
    pub process: u32,
    /// What it did.
    #[serde(rename = "op")]
    pub kind: Kind,
    /// On which partition.
    pub partition: u32,
    /// Device or consumer group, as a number or hash.
    #[serde(default)]
    pub key: u64,
    /// Hash of what was sent or read ([`hash_bytes`]).
    #[serde(default)]
    pub value: u64,
    /// Nanoseconds on the clock of the run, before the request left.
    pub invoke: u64,
    /// Nanoseconds on the same clock, after the answer came. invariant: `invoke <= complete`.
    pub complete: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// A place in the partition's stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Epoch of an owner.
    #[serde(default)]
    pub epoch: u64,
}

impl Record {
    /// A record of `kind` on `partition` by `process`, acknowledged, with everything else empty: for
    /// recorders to fill in with struct update syntax.
    pub fn new(kind: Kind, process: u32, partition: u32) -> Record {
        Record {
            process,
            kind,
            partition,
            key: 0,
            value: 0,
            invoke: 0,
            complete: 0,
            outcome: Outcome::Ok,
            offset: None,
            epoch: 0,
        }
    }

    /// It was acknowledged.
    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    /// It has happened or may have.
    pub fn may_have_happened(&self) -> bool {
        self.outcome != Outcome::Failed
    }
}

/// All operations of one run, ordered by invocation; operations invoked at the same time keep the
/// order in which they were recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    records: Vec<Record>,
}

impl History {
    /// Orders `records` and makes them a history. Records of one process must be in its order.
    pub fn from_records(mut records: Vec<Record>) -> History {
        records.sort_by_key(|r| r.invoke);
        History { records }
    }

    /// The operations in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The first record whose times are impossible, which makes every real-time check meaningless.
    pub(crate) fn impossible_times(&self) -> Option<&Record> {
        self.records.iter().find(|r| r.complete < r.invoke)
    }
}

/// A stable 64-bit hash of a record's bytes, for [`Record::value`] and [`Record::key`] (FNV-1a with
/// a finishing mix). Two of 10⁶ different values collide with a chance of about 3 in 10⁸.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in bytes {
        hash ^= u64::from(*byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations invoked at the same time keep their order: a read reply is many of those.
    #[test]
    fn order_is_by_invocation_and_then_by_recording() {
        let at = |invoke, value| Record { invoke, value, ..Record::new(Kind::Read, 1, 0) };
        let history = History::from_records(vec![at(5, 1), at(2, 2), at(5, 3), at(2, 4)]);
        let values: Vec<u64> = history.records().iter().map(|r| r.value).collect();
        assert_eq!(values, [2, 4, 1, 3]);
    }

    /// Files of one run are compared with those of another: the hash may not change.
    #[test]
    fn hash_is_pinned() {
        assert_eq!(hash_bytes(b""), 0xfdbdf6ac4fc52e7f);
        assert_eq!(hash_bytes(b"a"), 0x2ef7d1316eb86f71);
        assert_eq!(hash_bytes(b"device-1"), 0xcba19fc807a3e654);
    }

    /// A history of 10⁶ operations has to fit beside everything else on a small machine.
    #[test]
    fn record_is_compact() {
        assert!(std::mem::size_of::<Record>() <= 80, "{}", std::mem::size_of::<Record>());
    }
}
