//! Reads of committed records, on any replica.

use std::time::Duration;

use fleetline_log::LogError;
use fleetline_native::HubError;
use fleetline_native::model::{ReadFrom, ReadReply, StoredBatch};
use fleetline_streams::BatchPlace;
use fleetline_types::{GroupId, LogIndex, Offset};

use crate::partition::{Partition, log_error, state_error};

/// How often a reader looks again at an entry whose bytes are being repaired.
const REPAIR_PAUSE: Duration = Duration::from_millis(200);

impl Partition {
    /// Reads batches from the one that holds `from` on, at least one when there is one, up to about
    /// `max_bytes`; when there is none, waits up to `wait` for one.
    ///
    /// # Errors
    /// `OffsetGone` with the new start; `OffsetBeyondEnd`.
    pub async fn read(&self, from: Offset, max_bytes: u64, wait: Duration) -> Result<ReadReply, HubError> {
        let mut changed = self.parts.published.head.clone();
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let head = *changed.borrow_and_update();
            if from < head.start {
                return Err(HubError::OffsetGone { asked: from, start: head.start });
            }
            if from > head.next {
                return Err(HubError::OffsetBeyondEnd { asked: from, end: head.next });
            }
            let batches = match from < head.next {
                true => self.read_batches(from, head.next, max_bytes).await?,
                false => Vec::new(),
            };
            let next = batches.last().map_or(from, |(place, _)| place.end());
            let late = tokio::time::Instant::now() >= deadline;
            if !batches.is_empty() || late {
                let batches = batches.into_iter().map(|(_, batch)| batch).collect();
                return Ok(ReadReply { batches, next, high_watermark: head.next, start: head.start });
            }
            if from < head.next {
                // There is a batch, but its bytes are being repaired from a peer.
                tokio::time::sleep(REPAIR_PAUSE).await;
                continue;
            }
            if let Ok(Err(_)) = tokio::time::timeout_at(deadline, changed.changed()).await {
                return Err(HubError::Unavailable(format!("partition {}", self.id().0)));
            }
        }
    }

    /// Batches that lie in `from..end`. Empty only while the first one's bytes are damaged here.
    async fn read_batches(
        &self,
        from: Offset,
        end: Offset,
        max_bytes: u64,
    ) -> Result<Vec<(BatchPlace, StoredBatch)>, HubError> {
        let mut places = self.query().locate_up_to(from, max_bytes).map_err(state_error)?;
        places.retain(|place| place.end() <= end);
        let mut bytes = 0;
        let wanted = places.iter().take_while(|place| {
            let fits = bytes == 0 || bytes + u64::from(place.bytes) <= max_bytes;
            bytes += u64::from(place.bytes);
            fits
        });
        let count = wanted.count();
        places.truncate(count);
        let (Some(first), Some(last)) = (places.first(), places.last()) else {
            let text = format!("index of partition {} has no record {from}", self.id().0);
            return Err(HubError::Internal(text));
        };
        let (first, last) = (first.entry, last.entry);
        let entries = match self.read_entries(first, last, bytes).await {
            Ok(entries) => entries,
            Err(LogError::EntryUnavailable { index, .. }) => {
                self.repair(index);
                return Ok(Vec::new());
            }
            Err(LogError::Gone { .. }) => {
                return Err(HubError::OffsetGone { asked: from, start: self.head().start });
            }
            Err(error) => return Err(log_error(error)),
        };
        // Entries between two batches (duplicates, other commands) aren't in the index.
        let mut entries = entries.into_iter().peekable();
        let mut batches = Vec::with_capacity(places.len());
        for place in places {
            while entries.peek().is_some_and(|entry| entry.id.index < place.entry) {
                entries.next();
            }
            let Some(entry) = entries.next_if(|entry| entry.id.index == place.entry) else {
                break;
            };
            let stored = StoredBatch {
                base_offset: place.base_offset,
                enqueued: place.time,
                batch: entry.payload.body,
            };
            batches.push((place, stored));
        }
        Ok(batches)
    }

    async fn read_entries(
        &self,
        first: LogIndex,
        last: LogIndex,
        bytes: u64,
    ) -> Result<Vec<fleetline_log::LogEntry>, LogError> {
        let (log, group) = (self.parts.log.clone(), GroupId::of_partition(self.parts.partition));
        let read = move || log.read(group, first..last.next(), bytes.max(1));
        // The newest entries are in the log's cache: reading them there needs no other thread.
        let status_last = self.parts.log.state(group).last.map_or(0, |id| id.index.0);
        match status_last.saturating_sub(first.0) < CACHED_ENTRIES {
            true => read(),
            false => self.parts.blocking.run(read).await,
        }
    }

    /// Has a damaged entry repaired, as replication would.
    fn repair(&self, index: LogIndex) {
        tracing::warn!(partition = %self.id(), %index, "a reader met a damaged entry");
        let group = self.parts.group.clone();
        tokio::spawn(async move {
            if let Err(error) = group.repair(index).await {
                tracing::error!(%error, "damaged entry could not be repaired");
            }
        });
    }

    /// Turns a starting place into an offset.
    ///
    /// # Errors
    /// `OffsetGone`, `OffsetBeyondEnd`.
    pub fn resolve(&self, from: ReadFrom) -> Result<Offset, HubError> {
        let head = self.head();
        match from {
            ReadFrom::Earliest => Ok(head.start),
            ReadFrom::Latest => Ok(head.next),
            ReadFrom::Time(time) => self.query().locate_time(time).map_err(state_error),
            ReadFrom::Offset(asked) if asked < head.start => {
                Err(HubError::OffsetGone { asked, start: head.start })
            }
            ReadFrom::Offset(asked) if asked > head.next => {
                Err(HubError::OffsetBeyondEnd { asked, end: head.next })
            }
            ReadFrom::Offset(asked) => Ok(asked),
        }
    }
}

/// Entries behind the end that are taken to be in the log's cache.
const CACHED_ENTRIES: u64 = 64;
