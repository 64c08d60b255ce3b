//! Following one partition from tick to tick.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use fleetline_batch::{BatchReader, RecordView};
use fleetline_gateway::hub::{Hub, HubError, PartitionInfo, StoredBatch};
use fleetline_types::{Offset, PartitionId};
use serde_json::{Value, json};

use super::position::Position;
use crate::api::record::is_telemetry;
use crate::limits::{
    FEED_LAG_MAX, FEED_TAIL_RECORDS, POSITION_BODY_MAX, POSITIONS_MAX, SAMPLE_MAX, SAMPLE_TEXT_MAX,
};

/// Where the feed stands in a partition.
#[derive(Debug)]
pub(super) struct Follow {
    partition: PartitionId,
    /// The next record to look at.
    next: u64,
    /// The end that the last tick saw, for rates.
    end: u64,
}

/// What a tick has found, over all partitions.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Records that came.
    pub(super) records_in: u64,
    /// Records that were looked at, and the bytes of their batches.
    pub(super) records_read: u64,
    pub(super) bytes_read: u64,
    /// The last position of each device.
    pub(super) positions: BTreeMap<String, Position>,
    /// The last records, oldest first.
    pub(super) sample: VecDeque<Value>,
}

impl Follow {
    /// Begins a little before the end.
    pub(super) fn begin(info: &PartitionInfo) -> Follow {
        let end = info.high_watermark.0;
        let next = end.saturating_sub(FEED_TAIL_RECORDS).max(info.start.0);
        Follow { partition: info.partition, next, end }
    }

    /// Records that have come since the last tick.
    pub(super) fn count(&mut self, info: &PartitionInfo) -> u64 {
        // A replica that lost its leadership may tell an older end.
        let end = info.high_watermark.0.max(self.end);
        let count = end - self.end;
        self.end = end;
        if end.saturating_sub(self.next) > FEED_LAG_MAX {
            self.next = end.saturating_sub(FEED_TAIL_RECORDS);
        }
        count
    }

    /// Looks at what is new, up to about `bytes`.
    pub(super) async fn read(&mut self, hub: &dyn Hub, bytes: u64, news: &mut News) {
        if self.next >= self.end {
            return;
        }
        let reply = match hub.read(self.partition, Offset(self.next), bytes, Duration::ZERO).await {
            Ok(reply) => reply,
            Err(HubError::OffsetGone { start, .. }) => {
                self.next = start.0;
                return;
            }
            Err(error) => {
                tracing::debug!(partition = self.partition.0, %error, "live feed can't read");
                return;
            }
        };
        for stored in &reply.batches {
            self.look_at(stored, news);
            // A batch is up to a megabyte: others shall have their turn.
            tokio::task::yield_now().await;
        }
        self.next = reply.next.0.max(self.next);
    }

    fn look_at(&self, stored: &StoredBatch, news: &mut News) {
        let Ok(reader) = BatchReader::new(stored.batch.clone()) else {
            tracing::debug!(partition = self.partition.0, "live feed can't read a batch");
            return;
        };
        let count = u64::from(reader.header().count);
        news.records_read += count;
        news.bytes_read += stored.batch.len() as u64;
        // Only what will be shown is parsed: a device's last record, and the last few of all.
        let sampled_from = stored.base_offset.0 + count.saturating_sub(SAMPLE_MAX as u64);
        let mut last: HashMap<bytes::Bytes, RecordView> = HashMap::new();
        for (offset, record) in (stored.base_offset.0..).zip(reader) {
            let Ok(record) = record else { return };
            if offset < self.next {
                continue;
            }
            if offset >= sampled_from {
                news.sample.push_back(sample(self.partition, offset, &record));
                if news.sample.len() > SAMPLE_MAX {
                    news.sample.pop_front();
                }
            }
            if is_telemetry(&record) && record.body.len() <= POSITION_BODY_MAX {
                last.insert(record.device.clone(), record);
            }
        }
        for (device, record) in last {
            news.place(&device, &record);
        }
    }
}

impl News {
    fn place(&mut self, device: &[u8], record: &RecordView) {
        let Ok(device) = std::str::from_utf8(device) else { return };
        if self.positions.len() >= POSITIONS_MAX && !self.positions.contains_key(device) {
            return;
        }
        if let Some(position) = Position::of(&record.body, record.time.0) {
            self.positions.insert(device.to_owned(), position);
        }
    }
}

/// A record in short.
fn sample(partition: PartitionId, offset: u64, record: &RecordView) -> Value {
    // Enough bytes for the text's characters, and no more are looked at.
    let head = &record.body[..record.body.len().min(SAMPLE_TEXT_MAX * 4)];
    let text: String = match std::str::from_utf8(head) {
        Ok(text) => text.chars().take(SAMPLE_TEXT_MAX).collect(),
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(&head[..error.valid_up_to()]).chars().take(SAMPLE_TEXT_MAX).collect()
        }
        Err(_) => format!("{} bytes", record.body.len()),
    };
    json!({
        "device": String::from_utf8_lossy(&record.device),
        "partition": partition.0,
        "offset": offset,
        "at": record.time.0,
        "bytes": record.body.len(),
        "text": text,
        "event": !is_telemetry(record),
    })
}
