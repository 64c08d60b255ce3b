//! Filling a batch.

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetline_codec::{Writer, varint_len, zigzag};
use fleetline_types::TimestampMs;

use crate::PushError;
use crate::header::{BatchHeader, Compression, HEADER_BYTES, Producer};
use crate::limits::{BATCH_BYTES_DEFAULT, BATCH_BYTES_MAX, DEVICE_ID_BYTES_MAX, EXPANSION_MAX, RECORDS_MAX};

/// A record as it is put into a batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordRef<'a> {
    /// The device (or any other key) that it is of.
    pub device: &'a [u8],
    /// When it was made.
    pub time: TimestampMs,
    /// Which endpoints its routes chose, one bit each.
    pub endpoints: u64,
    /// System properties by number.
    pub system: &'a [(u8, &'a [u8])],
    /// Application properties by name.
    pub properties: &'a [(&'a [u8], &'a [u8])],
    /// The payload.
    pub body: &'a [u8],
}

/// Collects records into one buffer. Reusable: `finish` leaves it empty.
#[derive(Debug)]
pub struct BatchBuilder {
    bytes_max: usize,
    records_max: u32,
    records: Vec<u8>,
    count: u32,
    base_time: TimestampMs,
    table: Vec<u8>,
    devices: BTreeMap<Box<[u8]>, u64>,
    /// The device of the last record: a run of one device looks nothing up.
    last_device: u64,
    last_device_id: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        BatchBuilder::new(BATCH_BYTES_DEFAULT)
    }
}

fn prefixed_len(bytes: &[u8]) -> usize {
    varint_len(bytes.len() as u64) + bytes.len()
}

impl BatchBuilder {
    /// A builder for batches of up to `bytes_max` uncompressed bytes, header included (cut to what
    /// anybody accepts).
    pub fn new(bytes_max: usize) -> BatchBuilder {
        BatchBuilder {
            bytes_max: bytes_max.min(BATCH_BYTES_MAX),
            records_max: RECORDS_MAX,
            records: Vec::new(),
            count: 0,
            base_time: TimestampMs(0),
            table: Vec::new(),
            devices: BTreeMap::new(),
            last_device: 0,
            last_device_id: Vec::new(),
        }
    }

    /// The same with at most `records_max` records a batch.
    pub fn with_records_max(self, records_max: u32) -> BatchBuilder {
        BatchBuilder { records_max: records_max.clamp(1, RECORDS_MAX), ..self }
    }

    /// Records so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that the batch has when it is finished now, uncompressed.
    pub fn len(&self) -> usize {
        HEADER_BYTES + varint_len(self.devices.len() as u64) + self.table.len() + self.records.len()
    }

    /// Adds a record.
    ///
    /// # Errors
    /// When it doesn't fit (the batch is as before).
    pub fn push(&mut self, record: &RecordRef<'_>) -> Result<(), PushError> {
        let first = self.count == 0;
        let base_time = if first { record.time } else { self.base_time };
        let delta = zigzag(record.time.0.wrapping_sub(base_time.0) as i64);
        let known = self.known_device(record.device);
        let device = known.unwrap_or(self.devices.len() as u64);
        let table_grows = if known.is_none() { prefixed_len(record.device) } else { 0 };
        let content = content_len(record, device, delta);
        let grows = varint_len(content as u64) + content + table_grows;
        // The device count in front of the table may take one byte more.
        let limit = self.bytes_max.saturating_sub(HEADER_BYTES + 4);
        if grows > limit || record.device.len() > DEVICE_ID_BYTES_MAX {
            return Err(PushError::TooLarge { bytes: grows, limit });
        }
        if self.count == self.records_max || self.len() + grows + 1 > self.bytes_max {
            return Err(PushError::Full);
        }
        self.base_time = base_time;
        if known.is_none() {
            self.devices.insert(record.device.into(), device);
            Writer::new(&mut self.table).varint(record.device.len() as u64).bytes(record.device);
        }
        self.last_device = device;
        self.last_device_id.clear();
        self.last_device_id.extend_from_slice(record.device);
        write_record(&mut self.records, record, device, delta, content);
        self.count += 1;
        Ok(())
    }

    fn known_device(&self, device: &[u8]) -> Option<u64> {
        if self.count > 0 && self.last_device_id == device {
            return Some(self.last_device);
        }
        self.devices.get(device).copied()
    }

    /// Ends the batch; `None` when it has no records. The builder is empty then.
    pub fn finish(&mut self, producer: Producer, compression: Compression) -> Option<Bytes> {
        if self.count == 0 {
            return None;
        }
        let raw_len = self.len() - HEADER_BYTES;
        let mut batch = Vec::with_capacity(HEADER_BYTES + raw_len);
        batch.resize(HEADER_BYTES, 0);
        Writer::new(&mut batch).varint(self.devices.len() as u64).bytes(&self.table).bytes(&self.records);
        let mut stored_as = Compression::None;
        if compression == Compression::Lz4 {
            let packed = lz4_flex::block::compress(&batch[HEADER_BYTES..]);
            // Not worth it below a tenth, and readers refuse what expands beyond the limit.
            if packed.len() + raw_len / 10 < raw_len && packed.len() * EXPANSION_MAX >= raw_len {
                batch.truncate(HEADER_BYTES);
                batch.extend_from_slice(&packed);
                stored_as = Compression::Lz4;
            }
        }
        BatchHeader::new(stored_as, batch.len(), self.count, producer, self.base_time, raw_len)
            .seal(&mut batch);
        self.clear();
        Some(batch.into())
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.records.clear();
        self.table.clear();
        self.devices.clear();
        self.last_device_id.clear();
        self.count = 0;
    }
}

fn content_len(record: &RecordRef<'_>, device: u64, delta: u64) -> usize {
    let system: usize = record.system.iter().map(|(_, value)| 1 + prefixed_len(value)).sum();
    let properties: usize =
        record.properties.iter().map(|(name, value)| prefixed_len(name) + prefixed_len(value)).sum();
    varint_len(device)
        + varint_len(delta)
        + varint_len(record.endpoints)
        + varint_len(record.system.len() as u64)
        + system
        + varint_len(record.properties.len() as u64)
        + properties
        + prefixed_len(record.body)
}

fn write_record(out: &mut Vec<u8>, record: &RecordRef<'_>, device: u64, delta: u64, content: usize) {
    let mut writer = Writer::new(out);
    writer.varint(content as u64).varint(device).varint(delta).varint(record.endpoints);
    writer.varint(record.system.len() as u64);
    for (id, value) in record.system {
        writer.u8(*id).varint(value.len() as u64).bytes(value);
    }
    writer.varint(record.properties.len() as u64);
    for (name, value) in record.properties {
        writer.varint(name.len() as u64).bytes(name).varint(value.len() as u64).bytes(value);
    }
    writer.varint(record.body.len() as u64).bytes(record.body);
}
