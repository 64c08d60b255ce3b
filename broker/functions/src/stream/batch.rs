//! Reading a partition, and cutting it into batches of records that the function wants.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fleetline_batch::BatchReader;
use fleetline_gateway::hub::{HubError, ReadReply};
use fleetline_types::{Offset, PartitionId};

use super::{Stop, StreamFunction};
use crate::records::{StreamRecord, wanted};

/// Records of one invocation, and what a checkpoint behind it is.
#[derive(Debug)]
pub(crate) struct RecordBatch {
    pub(crate) records: Vec<StreamRecord>,
    /// The first record behind them, and behind those that were skipped after them.
    pub(crate) next: u64,
}

/// What reading came to.
#[derive(Debug)]
pub(crate) enum Filled {
    Batch(RecordBatch),
    /// Nothing was wanted up to here; it is time for a checkpoint.
    Skipped(u64),
    Stopped,
}

/// Where a run reads.
pub(crate) struct Cursor {
    partition: PartitionId,
    /// What will be read next.
    position: u64,
    /// Wanted records that were read and not given out yet.
    ready: VecDeque<StreamRecord>,
    /// The last checkpoint that skipping has led to.
    skipped_from: u64,
    /// When that was.
    skipped_at: Instant,
    end: u64,
}

impl Cursor {
    pub(crate) fn new(partition: PartitionId, position: u64) -> Cursor {
        let (ready, skipped_at) = (VecDeque::new(), Instant::now());
        Cursor { partition, position, ready, skipped_from: position, skipped_at, end: position }
    }

    /// Records between a place and the end of the stream, as last heard of.
    pub(crate) fn lag(&self, from: u64) -> u64 {
        self.end.saturating_sub(from)
    }

    /// Collects a batch of at most `most` records; waits for the first.
    pub(crate) async fn fill(&mut self, function: &StreamFunction, most: usize, stop: &mut Stop) -> Filled {
        let host = &function.app.host;
        let least = if function.trigger.many { host.event_batch_min.min(most) } else { 1 };
        let mut backoff = function.core.backoff();
        let mut since: Option<Instant> = None;
        loop {
            if stop.is_set() {
                return Filled::Stopped;
            }
            let waited = since.map_or(Duration::ZERO, |since| since.elapsed());
            let is_due = waited >= host.event_wait && !self.ready.is_empty();
            if self.ready.len() >= least || is_due || self.is_full(function) {
                return Filled::Batch(self.cut(most, function.core.options.batch_bytes));
            }
            if self.must_note_skipped(function) {
                (self.skipped_from, self.skipped_at) = (self.position, Instant::now());
                return Filled::Skipped(self.position);
            }
            let read_wait = function.core.options.read_wait;
            let wait = match (self.ready.is_empty(), self.position > self.skipped_from) {
                (true, false) => read_wait,
                (true, true) => function.core.options.skip_interval.min(read_wait),
                (false, _) => host.event_wait.saturating_sub(waited).min(read_wait),
            };
            if !self.ready.is_empty() && since.is_none() {
                since = Some(Instant::now());
            }
            let reading = function.core.hub.read(
                self.partition,
                Offset(self.position),
                function.core.options.read_bytes,
                wait,
            );
            let read = tokio::select! {
                read = reading => read,
                () = stop.stopped() => return Filled::Stopped,
            };
            match read.and_then(|reply| self.take(function, reply)) {
                Ok(()) => backoff.reset(),
                Err(HubError::OffsetGone { start, .. }) => {
                    tracing::warn!(partition = %self.partition, from = self.position, %start, "records are gone before their function saw them");
                    metrics::counter!("fleetline_function_gaps_total").increment(1);
                    self.position = start.0;
                    (self.skipped_from, self.skipped_at) = (start.0, Instant::now());
                }
                Err(error) => {
                    tracing::debug!(partition = %self.partition, %error, "reading for a function failed");
                    if !stop.sleep(backoff.next()).await {
                        return Filled::Stopped;
                    }
                }
            }
            function.stats.set_lag(self.partition.0, self.lag(self.position) + self.ready.len() as u64);
        }
    }

    /// Whether enough was skipped, or long enough ago, for a checkpoint.
    fn must_note_skipped(&self, function: &StreamFunction) -> bool {
        let skipped = self.position - self.skipped_from;
        let options = &function.core.options;
        self.ready.is_empty()
            && skipped > 0
            && (skipped >= options.skip_checkpoint || self.skipped_at.elapsed() >= options.skip_interval)
    }

    fn is_full(&self, function: &StreamFunction) -> bool {
        let bytes: usize = self.ready.iter().map(StreamRecord::size).sum();
        bytes >= function.core.options.batch_bytes
    }

    /// Takes the front of what is ready.
    fn cut(&mut self, most: usize, bytes_max: usize) -> RecordBatch {
        let mut bytes = 0;
        let mut count = 0;
        for record in self.ready.iter().take(most) {
            bytes += record.size();
            if count > 0 && bytes > bytes_max {
                break;
            }
            count += 1;
        }
        let records: Vec<StreamRecord> = self.ready.drain(..count).collect();
        // Between wanted records lie skipped ones: those go with what came before them.
        let next = self.ready.front().map_or(self.position, |record| record.offset);
        (self.skipped_from, self.skipped_at) = (next, Instant::now());
        RecordBatch { records, next }
    }

    fn take(&mut self, function: &StreamFunction, reply: ReadReply) -> Result<(), HubError> {
        let origin = function.origin();
        let mut found = Vec::new();
        for stored in reply.batches {
            let damaged =
                |error: fleetline_batch::BatchError| HubError::Internal(format!("a stored batch: {error}"));
            let reader = BatchReader::new(stored.batch).map_err(damaged)?;
            for (offset, view) in (stored.base_offset.0..).zip(reader) {
                let record =
                    StreamRecord { offset, enqueued_ms: stored.enqueued.0, view: view.map_err(damaged)? };
                if offset >= self.position && wanted(&function.trigger, &origin, &record) {
                    found.push(record);
                }
            }
        }
        self.ready.extend(found);
        self.position = self.position.max(reply.next.0);
        self.end = reply.high_watermark.0.max(self.position);
        Ok(())
    }

    /// Puts a batch back that was too large.
    pub(crate) fn give_back(&mut self, records: Vec<StreamRecord>) {
        records.into_iter().rev().for_each(|record| self.ready.push_front(record));
    }
}
