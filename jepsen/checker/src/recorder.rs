//! Records a history: what the simulator and the runs against real processes share.
//!
//! A [`Recorder`] hands out process numbers and times, and collects records as operations complete. It
//! has no clock of its own (the simulator's is virtual): callers say how much of the run has passed. The
//! times that it makes of that are unique and only grow, so that operations which can't overlap never
//! look as if they did. For that, all clients of a run stamp through one recorder.
//!
//! Not here: what is recorded when; see the rules in `history.rs`.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Duration;

use crate::history::{History, Record};
use crate::json_lines::HistoryError;

/// Collects the operations of one run.
#[derive(Debug, Default)]
pub struct Recorder {
    records: Vec<Record>,
    processes: u32,
    last: u64,
}

impl Recorder {
    /// A process number that nobody has.
    pub fn process(&mut self) -> u32 {
        self.processes += 1;
        self.processes
    }

    /// The time, for [`Record::invoke`] and [`Record::complete`]: `elapsed` since the run began, or the
    /// next nanosecond when somebody has that time already.
    pub fn stamp(&mut self, elapsed: Duration) -> u64 {
        let now = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.last = now.max(self.last.saturating_add(1));
        self.last
    }

    /// Adds an operation that has completed, or whose outcome nobody will learn.
    pub fn add(&mut self, record: Record) {
        self.records.push(record);
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The history so far.
    pub fn history(&self) -> History {
        History::from_records(self.records.clone())
    }
}

impl History {
    /// Writes the file form to `path`, for [`History::read_json_lines`] and `examples/check.rs`.
    ///
    /// # Errors
    /// `Io` when the file can't be written.
    pub fn save(&self, path: &Path) -> Result<(), HistoryError> {
        self.write_json_lines(BufWriter::new(File::create(path)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Kind;

    /// Times and process numbers are unique and grow, even when the clock stands still or goes back.
    #[test]
    fn stamps_are_unique() {
        let mut recorder = Recorder::default();
        let stamps: Vec<u64> =
            [7, 7, 3, 20].map(|ns| recorder.stamp(Duration::from_nanos(ns))).into_iter().collect();
        assert_eq!(stamps, [7, 8, 9, 20]);
        assert_ne!(recorder.process(), recorder.process());
    }

    /// Operations that complete in another order than they began are in order of invocation.
    #[test]
    fn a_history_is_ordered_by_invocation() {
        let mut recorder = Recorder::default();
        for (invoke, complete) in [(5, 6), (1, 9)] {
            recorder.add(Record { invoke, complete, ..Record::new(Kind::Send, 1, 0) });
        }
        let history = recorder.history();
        assert_eq!(history.records().iter().map(|r| r.invoke).collect::<Vec<_>>(), [1, 5]);
    }
}
