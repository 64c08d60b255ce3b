//! How a log is opened, and what opening it found.

use std::path::PathBuf;

use fleetline_types::GroupId;

use crate::MarkPolicy;

/// Settings of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The folder; made when missing. One log, one folder.
    pub dir: PathBuf,
    /// A segment is sealed when the next round would make it longer; 64 MiB. Smaller ones free
    /// space sooner and make more files; at most 1 GiB.
    pub segment_bytes: u64,
    /// Most bytes of one write-and-sync round (one request may be larger); 4 MiB. Larger rounds
    /// sync less often, smaller ones complete sooner.
    pub round_bytes_max: u64,
    /// Most bytes that wait for the writer; 64 MiB. Senders block beyond it.
    pub queue_bytes_max: u64,
    /// Most bytes of durable entries kept in memory, over all groups; 64 MiB. Entries that are not
    /// yet durable stay in memory regardless; the queue bounds those.
    pub cache_bytes: u64,
    /// New data is refused when less than this is free; 256 MiB.
    pub reserve_bytes: u64,
    /// When the durable mark is written; after every sync. Measured (`examples/mark_cost.rs`, 2 cores,
    /// 16 groups, unoptimised build, against no mark): 10 % fewer 100 B entries/s, 1 % fewer of 16 KiB.
    pub mark: MarkPolicy,
    /// Who runs the rounds.
    pub writer: WriterMode,
}

impl LogOptions {
    /// The defaults, for a log in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> LogOptions {
        LogOptions {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            round_bytes_max: 4 << 20,
            queue_bytes_max: 64 << 20,
            cache_bytes: 64 << 20,
            reserve_bytes: 256 << 20,
            mark: MarkPolicy::EverySync,
            writer: WriterMode::Thread,
        }
    }
}

/// Who runs the rounds of the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterMode {
    /// A thread of its own; two more write marks and keep house.
    Thread,
    /// Whoever calls [`crate::SegLog::pump`]; no threads. Senders then never block, so only
    /// [`crate::NodeLog::admit`] holds the bound of the queue.
    Manual,
}

/// What opening a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments read.
    pub segments: u64,
    /// Of these, how many were scanned because they had no usable sidecar.
    pub scanned: u64,
    /// Frames found.
    pub frames: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Bytes of an unfinished last write that were cut off.
    pub torn_bytes: u64,
    /// What was found damaged.
    pub damaged_ranges: Vec<DamagedRange>,
    /// Entries that are unavailable here until repaired.
    pub damaged_entries: u64,
    /// Groups with amnesia after this start.
    pub amnesia_groups: Vec<GroupId>,
    /// Groups that the log has never seen (any more) have amnesia too, until
    /// [`crate::NodeLog::trust_unknown_groups`].
    pub amnesia_unknown: bool,
    /// The durable mark; `None` when there is none that can be read.
    pub mark: Option<u64>,
    /// Sequence number of the last good frame.
    pub recovered_seq: u64,
}

/// A stretch of a segment that is not what was written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// Number of the segment.
    pub segment: u32,
    /// First byte.
    pub from: u64,
    /// One behind the last byte, as far as the file goes; equal to `from` where bytes are missing.
    pub to: u64,
}
