//! A log that calls entries durable as soon as they are queued for its writer.

use std::ops::Range;
use std::sync::Arc;

use fleetline_log::{Done, GroupLogState, InstallPrefix, LogEntry, LogError, LogStats, NodeLog, VoteRecord};
use fleetline_types::{GroupId, LogId, LogIndex};

/// The real log, with appends answered too early. Everything else is as it was.
#[derive(Debug)]
pub(crate) struct HastyLog(pub(crate) Arc<dyn NodeLog>);

impl NodeLog for HastyLog {
    fn append(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) -> Result<(), LogError> {
        self.0.append(group, entries, Box::new(|_durable| {}))?;
        done(Ok(()));
        Ok(())
    }

    fn groups(&self) -> Vec<GroupId> {
        self.0.groups()
    }

    fn state(&self, group: GroupId) -> GroupLogState {
        self.0.state(group)
    }

    fn admit(&self, bytes: u64) -> Result<(), LogError> {
        self.0.admit(bytes)
    }

    fn save_vote(&self, group: GroupId, vote: VoteRecord, done: Done) -> Result<(), LogError> {
        self.0.save_vote(group, vote, done)
    }

    fn truncate_after(&self, group: GroupId, keep: Option<LogIndex>, done: Done) -> Result<(), LogError> {
        self.0.truncate_after(group, keep, done)
    }

    fn purge(&self, group: GroupId, upto: LogId, done: Done) -> Result<(), LogError> {
        self.0.purge(group, upto, done)
    }

    fn retain_from(&self, group: GroupId, first: LogIndex) -> Result<(), LogError> {
        self.0.retain_from(group, first)
    }

    fn read(
        &self,
        group: GroupId,
        range: Range<LogIndex>,
        max_bytes: u64,
    ) -> Result<Vec<LogEntry>, LogError> {
        self.0.read(group, range, max_bytes)
    }

    fn log_id(&self, group: GroupId, index: LogIndex) -> Option<LogId> {
        self.0.log_id(group, index)
    }

    fn term_starts(&self, group: GroupId) -> Vec<LogId> {
        self.0.term_starts(group)
    }

    fn damaged(&self, group: GroupId, limit: usize) -> Vec<LogId> {
        self.0.damaged(group, limit)
    }

    fn repair(&self, group: GroupId, entry: LogEntry, done: Done) -> Result<(), LogError> {
        self.0.repair(group, entry, done)
    }

    fn install_begin(&self, group: GroupId, prefix: InstallPrefix, done: Done) -> Result<(), LogError> {
        self.0.install_begin(group, prefix, done)
    }

    fn install_entries(&self, group: GroupId, entries: Vec<LogEntry>, done: Done) -> Result<(), LogError> {
        self.0.install_entries(group, entries, done)
    }

    fn remove_group(&self, group: GroupId, done: Done) -> Result<(), LogError> {
        self.0.remove_group(group, done)
    }

    fn clear_amnesia(&self, group: GroupId, done: Done) -> Result<(), LogError> {
        self.0.clear_amnesia(group, done)
    }

    fn doubts_unknown(&self) -> bool {
        self.0.doubts_unknown()
    }

    fn trust_unknown_groups(&self, doubtful: &[GroupId], done: Done) -> Result<(), LogError> {
        self.0.trust_unknown_groups(doubtful, done)
    }

    fn stats(&self) -> LogStats {
        self.0.stats()
    }
}
