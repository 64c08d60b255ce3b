//! openraft's log storage on the node's log.
//!
//! Called by openraft only. Votes wait until they are durable; appends return when they are
//! readable and report durability through their callback; truncations and purges go through the
//! same writer, so their order against queued appends is kept.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use async_trait::async_trait;
use fleetline_log::{Done, LogEntry, LogError, NodeLog};
use fleetline_types::{GroupId, LogId, LogIndex};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, entry::RaftEntry};
use tokio::sync::oneshot;

use crate::convert::{
    entry_from_log, entry_to_log, log_id_from_raft, log_id_to_raft, vote_from_record, vote_to_record,
};
use crate::durable::DurableMark;
use crate::types::{Entry, LogIdOf, TypeConfig, Vote};

/// Gets entries from peers whose bytes are damaged here. Implemented by `raft/driver`.
#[async_trait]
pub trait EntryFetcher: Send + Sync + Debug + 'static {
    /// Fetches the entry at `index` from a peer that has it.
    ///
    /// # Errors
    /// When no peer could give it; the text says why.
    async fn fetch(&self, group: GroupId, index: LogIndex) -> Result<LogEntry, String>;
}

/// Bytes of payload that one read for replication returns at the most is a setting; a read that
/// must return everything is cut into pieces of this size.
const READ_PIECE_BYTES: u64 = 8 << 20;

/// One group's part of the node's log.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    pub(crate) group: GroupId,
    pub(crate) log: Arc<dyn NodeLog>,
    pub(crate) durable: Arc<DurableMark>,
    pub(crate) fetcher: Arc<dyn EntryFetcher>,
    pub(crate) append_bytes_max: u64,
}

pub(crate) fn io_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

/// A completion for the log, and what resolves with it.
pub(crate) fn completion() -> (Done, oneshot::Receiver<Result<(), LogError>>) {
    let (sender, receiver) = oneshot::channel();
    let done: Done = Box::new(move |result| {
        // The waiter may have been cancelled; then nobody needs to know.
        drop(sender.send(result));
    });
    (done, receiver)
}

/// Waits for a completion.
pub(crate) async fn completed(receiver: oneshot::Receiver<Result<(), LogError>>) -> Result<(), LogError> {
    receiver.await.unwrap_or_else(|_| Err(LogError::Poisoned { reason: "log writer has gone".to_owned() }))
}

impl LogStore {
    fn indices(range: impl RangeBounds<u64>) -> Range<LogIndex> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        LogIndex(start)..LogIndex(end.max(start))
    }

    /// Reads a piece of `range`, repairing a damaged entry that stands first in it.
    async fn read_piece(&self, range: Range<LogIndex>, max_bytes: u64) -> Result<Vec<LogEntry>, io::Error> {
        loop {
            match self.log.read(self.group, range.clone(), max_bytes) {
                Err(LogError::EntryUnavailable { index, .. }) => self.repair(index).await?,
                read => return read.map_err(io_error),
            }
        }
    }

    /// Reads the entry, repairing it when it is damaged.
    pub(crate) async fn ensure_whole(&self, index: LogIndex) -> Result<(), io::Error> {
        self.read_piece(index..index.next(), 1).await.map(drop)
    }

    async fn repair(&self, index: LogIndex) -> Result<(), io::Error> {
        tracing::warn!(group = %self.group, %index, "entry is damaged on this disk, fetching it from a peer");
        let entry = self.fetcher.fetch(self.group, index).await.map_err(io_error)?;
        let (done, receiver) = completion();
        self.log.repair(self.group, entry, done).map_err(io_error)?;
        completed(receiver).await.map_err(io_error)
    }

    /// The part of `range` that the log contains: openraft may ask beyond both ends.
    fn clip(&self, range: Range<LogIndex>) -> Range<LogIndex> {
        let state = self.log.state(self.group);
        let first = state.purged.map_or(LogIndex(0), |purged| purged.index.next());
        let end = state.last.map_or(LogIndex(0), |last| last.index.next());
        let start = range.start.max(first);
        start..range.end.min(end).max(start)
    }

    fn decode(entries: Vec<LogEntry>) -> Result<Vec<Entry>, io::Error> {
        entries.into_iter().map(|entry| entry_from_log(entry).map_err(io_error)).collect()
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let mut range = self.clip(Self::indices(range));
        let mut entries = Vec::new();
        while range.start < range.end {
            let piece = self.read_piece(range.clone(), READ_PIECE_BYTES).await?;
            let Some(last) = piece.last() else {
                break;
            };
            range.start = last.id.index.next();
            entries.extend(Self::decode(piece)?);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let piece = self.read_piece(LogIndex(start)..LogIndex(end), self.append_bytes_max).await?;
        if piece.is_empty() && start < end {
            return Err(io_error(format!("log of group {} has no entry {start}", self.group)));
        }
        Self::decode(piece)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let vote = self.log.state(self.group).vote;
        vote.map(|record| vote_from_record(&record).map_err(io_error)).transpose()
    }

    async fn get_key_log_ids(
        &mut self,
        range: std::ops::RangeInclusive<LogIdOf>,
    ) -> Result<Vec<LogIdOf>, io::Error> {
        let (first, last) = (log_id_from_raft(range.start()), log_id_from_raft(range.end()));
        let starts = self.log.term_starts(self.group);
        Ok(term_ends(first, last, &starts).into_iter().map(log_id_to_raft).collect())
    }
}

/// The last entry of each term in `first..=last`: what openraft 0.10.0-alpha.37 keeps of a log. (Its
/// trait still documents the first entry of each; its own default implementation gives the last.)
fn term_ends(first: LogId, last: LogId, starts: &[LogId]) -> Vec<LogId> {
    let mut ends = Vec::with_capacity(starts.len());
    let mut term = first.term;
    for start in starts.iter().filter(|start| start.index > first.index && start.index <= last.index) {
        ends.push(LogId { term, index: LogIndex(start.index.0 - 1) });
        term = start.term;
    }
    ends.push(last);
    ends
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.log.state(self.group);
        Ok(LogState {
            last_purged_log_id: state.purged.map(log_id_to_raft),
            last_log_id: state.last.map(log_id_to_raft),
        })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, receiver) = completion();
        self.log.save_vote(self.group, vote_to_record(vote), done).map_err(io_error)?;
        completed(receiver).await.map_err(io_error)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries.into_iter().map(entry_to_log).collect();
        let Some(last) = entries.last().map(|entry| entry.id.index) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let durable = self.durable.clone();
        let epoch = durable.epoch();
        let done: Done = Box::new(move |result| match result {
            Ok(()) => {
                durable.raise(epoch, last);
                callback.io_completed(Ok(()));
            }
            Err(error) => {
                durable.fail(error.to_string());
                callback.io_completed(Err(io_error(error)));
            }
        });
        self.log.append(self.group, entries, done).map_err(io_error)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf>) -> Result<(), io::Error> {
        let keep = last_log_id.map(|id| LogIndex(id.index));
        self.durable.truncate(keep);
        let (done, receiver) = completion();
        self.log.truncate_after(self.group, keep, done).map_err(io_error)?;
        completed(receiver).await.map_err(io_error)
    }

    async fn purge(&mut self, log_id: LogIdOf) -> Result<(), io::Error> {
        let (done, receiver) = completion();
        self.log.purge(self.group, log_id_from_raft(&log_id), done).map_err(io_error)?;
        completed(receiver).await.map_err(io_error)
    }
}

/// The index of an openraft entry.
pub(crate) fn entry_index(entry: &Entry) -> LogIndex {
    LogIndex(entry.log_id().index)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last entry of each term, whatever part of the log is asked for, against counting by hand.
    #[test]
    fn ends_of_terms() {
        let terms = [0, 1, 1, 1, 2, 5, 5, 7];
        let ids: Vec<LogId> = terms.iter().zip(0..).map(|(term, index)| LogId::new(*term, index)).collect();
        let new_term = |at: &usize| *at == 0 || terms[*at] != terms[*at - 1];
        let starts: Vec<LogId> = (0..ids.len()).filter(new_term).map(|at| ids[at]).collect();
        for first in 0..ids.len() {
            for last in first..ids.len() {
                let is_end = |at: &usize| *at == last || terms[*at] != terms[*at + 1];
                let expected: Vec<LogId> = (first..=last).filter(is_end).map(|at| ids[at]).collect();
                assert_eq!(term_ends(ids[first], ids[last], &starts), expected, "{first}..={last}");
            }
        }
    }
}
