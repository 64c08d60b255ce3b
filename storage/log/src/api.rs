//! The log as its users see it. Implementations: `seg_log` (files) and `memory` (the model that
//! tests and other crates use as oracle). One contract suite runs on both.

use std::fmt::Debug;
use std::ops::Range;

use bytes::Bytes;
use fleetline_types::{GroupId, LogId, LogIndex, Term};

use crate::LogError;

/// The content of an entry: two slices that lie behind each other on disk. Two, so that a small
/// head (made by the proposer) can go before a large body (the batch as it came from the socket)
/// without a copy of either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// What the entry is; at most 65,535 bytes.
    pub head: Bytes,
    /// The batch, or nothing.
    pub body: Bytes,
}

impl Payload {
    /// Bytes of both parts.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether both parts are empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One entry of one group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Who proposed it, and where it stands.
    pub id: LogId,
    /// What kind of entry it is; a number that only `raft/group` gives a meaning.
    pub kind: u8,
    /// Its content.
    pub payload: Payload,
}

/// A stored vote: opaque to the log except that the newest one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoteRecord(pub Bytes);

/// What the log knows of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLogState {
    /// The newest vote, durable or on its way.
    pub vote: Option<VoteRecord>,
    /// The last logically purged entry.
    pub purged: Option<LogId>,
    /// The last entry, durable or on its way; equal to `purged` when nothing lies behind that.
    pub last: Option<LogId>,
    /// The first entry whose bytes are kept here (it may be below `purged`).
    pub first_retained: LogIndex,
    /// The last entry that is durable here.
    pub durable: Option<LogIndex>,
    /// Set when this disk has demonstrably lost frames that it once acknowledged for this group (a
    /// tail shorter than the durable mark, a vote that can't be read), or was made to forget them by
    /// [`NodeLog::remove_group`]. Such a replica may not vote.
    pub amnesia: bool,
    /// The group was removed from this node, and nothing but votes was stored since. What else this node
    /// keeps of it may go.
    pub removed: bool,
}

/// Called once, when the request is durable or has failed. Runs on the writer's thread: it must
/// not block.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Replaces the beginning of a group's log by the log part of a snapshot.
#[derive(Clone, Debug)]
pub struct InstallPrefix {
    /// The last entry that the snapshot covers: the new logical purge point.
    pub snapshot_last: LogId,
    /// The first index whose bytes come with the snapshot. Equal to `snapshot_last.index + 1` when
    /// none come.
    pub first_retained: LogIndex,
}

/// Figures of the log, for metrics and status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Bytes in all segments.
    pub bytes: u64,
    /// Number of segments.
    pub segments: u64,
    /// Write-and-sync rounds since the start.
    pub syncs: u64,
    /// Frames written since the start.
    pub frames: u64,
    /// Requests waiting for the writer.
    pub queued: u64,
    /// Bytes waiting for the writer.
    pub queued_bytes: u64,
    /// Entries known as damaged.
    pub damaged: u64,
    /// Free bytes of the file system at the last look.
    pub free_bytes: u64,
}

/// One node's log over all its groups.
pub trait NodeLog: Send + Sync + Debug + 'static {
    /// All groups that have anything in the log that they can go on from; not those that were removed.
    fn groups(&self) -> Vec<GroupId>;

    /// What the log knows of `group`; all empty for one it has never seen.
    fn state(&self, group: GroupId) -> GroupLogState;

    /// Appends entries, readable when this returns. `entries` are in order and without a hole
    /// behind the group's last entry.
    ///
    /// # Errors
    /// `Misuse` for a hole, `Poisoned`. Not `DiskFull`: by the time consensus appends it is too
    /// late to refuse; see [`NodeLog::admit`].
    fn append(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) -> Result<(), LogError>;

    /// Whether new user data may be proposed or accepted now: the reserve is untouched, the log
    /// isn't poisoned, and the queue is within its bound. Cheap: called per proposal.
    ///
    /// # Errors
    /// `DiskFull` and `Busy`, both to be tried again later; `Poisoned`.
    fn admit(&self, bytes: u64) -> Result<(), LogError>;

    /// Stores a vote.
    fn save_vote(&self, group: GroupId, vote: VoteRecord, done: Done) -> Result<(), LogError>;

    /// Removes all entries after `keep` (all entries behind the purge point when `None`).
    fn truncate_after(&self, group: GroupId, keep: Option<LogIndex>, done: Done) -> Result<(), LogError>;

    /// Moves the logical purge point. Deletes nothing.
    fn purge(&self, group: GroupId, upto: LogId, done: Done) -> Result<(), LogError>;

    /// Allows the bytes of entries below `first` to be deleted. Never moves back; a value beyond
    /// `purged + 1` is cut to that.
    fn retain_from(&self, group: GroupId, first: LogIndex) -> Result<(), LogError>;

    /// Reads entries of `range`, in order and without a hole, stopping early (but never before the
    /// first) when `max_bytes` of payload are reached. Ends at the last entry of the log. Reads
    /// below the logical purge point work as long as the bytes are retained.
    ///
    /// # Errors
    /// `Gone` when the range begins before what is retained, `EntryUnavailable` when the *first*
    /// entry asked for is damaged (a later damaged one ends the result).
    fn read(&self, group: GroupId, range: Range<LogIndex>, max_bytes: u64)
    -> Result<Vec<LogEntry>, LogError>;

    /// The id of the entry at `index`, without reading its bytes. `None` when not in the log.
    fn log_id(&self, group: GroupId, index: LogIndex) -> Option<LogId>;

    /// For each term in the retained log, the first entry of it, in order.
    fn term_starts(&self, group: GroupId) -> Vec<LogId>;

    /// The damaged entries of `group`, oldest first, at most `limit`. Where the term was lost with the
    /// bytes ([`NodeLog::log_id`] is `None`), it is that of the closest entry before.
    fn damaged(&self, group: GroupId, limit: usize) -> Vec<LogId>;

    /// Gives back the bytes of a damaged entry. The id must be the one that was lost (when its term
    /// is still known); `done` as for an append.
    fn repair(&self, group: GroupId, entry: LogEntry, done: Done) -> Result<(), LogError>;

    /// Begins to replace everything up to and including `prefix.snapshot_last` by the entries that
    /// follow through [`NodeLog::install_entries`]. The group's vote is kept, and so are entries
    /// behind the snapshot when the log holds `snapshot_last` itself with equal term; otherwise
    /// everything goes. Idempotent: a crash in the middle is repaired by doing it again. Until
    /// they come, the entries below the snapshot read as unavailable.
    fn install_begin(&self, group: GroupId, prefix: InstallPrefix, done: Done) -> Result<(), LogError>;

    /// The next retained entries of the snapshot, in order from `prefix.first_retained` on.
    fn install_entries(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) -> Result<(), LogError>;

    /// Forgets the entries of a group whose removal from this node the control group has committed; their
    /// bytes go with their segments. The vote stays. Entries that this disk had acknowledged are gone, so
    /// a replica that is put here again has amnesia until it is refilled: a former member that knows
    /// nothing of the change must not be elected by it.
    fn remove_group(&self, group: GroupId, done: Done) -> Result<(), LogError>;

    /// Clears the amnesia mark once peers have refilled this replica.
    fn clear_amnesia(&self, group: GroupId, done: Done) -> Result<(), LogError>;

    /// Whether groups that the log doesn't know may have been here all the same, because the log has lost
    /// its tail. Each of them has amnesia then, new ones too.
    fn doubts_unknown(&self) -> bool {
        false
    }

    /// Ends that doubt: what the log doesn't know was never here, except `doubtful`, which keep their
    /// amnesia. For whoever has learned from the control group, *after* this start, which groups had been
    /// placed on any node by then: those may have been here, later ones can't.
    ///
    /// # Errors
    /// `Poisoned`.
    fn trust_unknown_groups(&self, doubtful: &[GroupId], done: Done) -> Result<(), LogError> {
        let _nothing_is_doubted = doubtful;
        done(Ok(()));
        Ok(())
    }

    /// Figures of the moment.
    fn stats(&self) -> LogStats;

    /// Term of the last entry that is at or below `index`, when known.
    fn term_at(&self, group: GroupId, index: LogIndex) -> Option<Term> {
        self.log_id(group, index).map(|id| id.term)
    }
}
