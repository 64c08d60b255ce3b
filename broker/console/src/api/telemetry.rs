//! The last records of one device.
//!
//! A partition's stream has no index by device, so its tail is searched backwards, a step at a time, within
//! bounds of records and bytes. A batch whose device table doesn't name the device is passed over without a
//! look at its records. A device that has been silent for long shows nothing here, and the answer says how
//! far was looked.

use std::time::Duration;

use fleetline_batch::BatchReader;
use fleetline_gateway::hub::{Hub, HubError, StoredBatch};
use fleetline_types::{Offset, PartitionId, partition_of_key};
use serde_json::{Value, json};

use super::record;
use crate::access::{Caller, Deed};
use crate::console::Console;
use crate::error::ConsoleError;
use crate::limits::{SCAN_BYTES_MAX, SCAN_RECORDS_MAX, SCAN_STEP_RECORDS, TELEMETRY_DEFAULT, TELEMETRY_MAX};
use crate::routes::Call;

/// Bytes that one read asks for.
const READ_BYTES: u64 = 1 << 20;
/// Bytes that one step back aims at.
const STEP_BYTES: u64 = 4 << 20;

/// `GET devices/{id}/telemetry?limit=`: newest first.
pub(crate) async fn get(
    console: &Console,
    caller: &Caller,
    call: &Call,
    device: &str,
) -> Result<Value, ConsoleError> {
    caller.check(Deed::Telemetry(device))?;
    let limit = call.number("limit", TELEMETRY_DEFAULT, TELEMETRY_MAX)?;
    let _permit =
        console.scans.try_acquire().map_err(|_| ConsoleError::Busy("other searches for telemetry"))?;
    let partition = partition_of_key(device.as_bytes(), console.devices.partitions());
    let mut scan = Scan { device: device.as_bytes(), limit, records: Vec::new(), looked_at: 0, bytes: 0 };
    let complete = scan.run(console.hub.as_ref(), partition).await?;
    let Scan { mut records, looked_at, bytes, .. } = scan;
    records.truncate(limit);
    Ok(json!({
        "records": records,
        "partition": partition.0,
        "scanned": { "records": looked_at, "bytes": bytes },
        "complete": complete,
    }))
}

/// Records of a step: some megabytes, as far as the partition's average tells.
fn step_of(bytes: u64, records: u64) -> u64 {
    let average = (bytes / records.max(1)).max(1);
    (STEP_BYTES / average).clamp(1, SCAN_STEP_RECORDS)
}

/// A search on its way.
struct Scan<'a> {
    device: &'a [u8],
    limit: usize,
    /// Found so far, newest first.
    records: Vec<Value>,
    looked_at: u64,
    bytes: u64,
}

impl Scan<'_> {
    /// Steps back from the end. Answers whether nothing older could have been found.
    async fn run(&mut self, hub: &dyn Hub, partition: PartitionId) -> Result<bool, ConsoleError> {
        let info = hub.partition_info(partition).await?;
        let step_records = step_of(info.bytes, info.high_watermark.0.saturating_sub(info.start.0));
        let mut end = info.high_watermark.0;
        while end > info.start.0 {
            let within = self.looked_at < SCAN_RECORDS_MAX && self.bytes < SCAN_BYTES_MAX;
            if self.records.len() >= self.limit || !within {
                return Ok(self.records.len() >= self.limit);
            }
            let from = end.saturating_sub(step_records).max(info.start.0);
            let mut step = match self.step(hub, partition, from, end).await {
                Ok(step) => step,
                // Retention was here first: what is left of the stream has been looked at.
                Err(ConsoleError::Hub(HubError::OffsetGone { .. })) => break,
                Err(error) => return Err(error),
            };
            step.reverse();
            self.records.append(&mut step);
            self.looked_at += end - from;
            end = from;
        }
        Ok(true)
    }

    /// The device's records from `from` up to `end`, oldest first.
    async fn step(
        &mut self,
        hub: &dyn Hub,
        partition: PartitionId,
        from: u64,
        end: u64,
    ) -> Result<Vec<Value>, ConsoleError> {
        let (mut next, mut found) = (from, Vec::new());
        while next < end {
            let reply = hub.read(partition, Offset(next), READ_BYTES, Duration::ZERO).await?;
            for stored in &reply.batches {
                self.bytes += stored.batch.len() as u64;
                self.take(stored, next, end, &mut found)?;
                // A batch is up to a megabyte: others shall have their turn.
                tokio::task::yield_now().await;
            }
            // A reader that doesn't move would go round for ever; and records may be far above the average.
            if reply.next.0 <= next || self.bytes >= 2 * SCAN_BYTES_MAX {
                break;
            }
            next = reply.next.0;
        }
        Ok(found)
    }

    fn take(
        &self,
        stored: &StoredBatch,
        from: u64,
        end: u64,
        found: &mut Vec<Value>,
    ) -> Result<(), ConsoleError> {
        let broken = |error| ConsoleError::stored("batch", error);
        let reader = BatchReader::new(stored.batch.clone()).map_err(broken)?;
        if !reader.devices().iter().any(|device| device == self.device) {
            return Ok(());
        }
        for (offset, record) in (stored.base_offset.0..).zip(reader) {
            let record = record.map_err(broken)?;
            let is_wanted = (from..end).contains(&offset) && record.device == self.device;
            if is_wanted && record::is_telemetry(&record) {
                found.push(record::whole(offset, &record));
            }
        }
        Ok(())
    }
}
