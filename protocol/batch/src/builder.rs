//! Filling a batch.
//!
//! Called by whoever produces: the client crate, gateways. A record is written once, into a buffer
//! that grows to the size of a batch and is kept; `finish` copies it behind the header and the device
//! table. Nothing is allocated per record or per device.
//!
//! Invariants: what `push` takes, every reader takes, and a record that is refused leaves no trace;
//! `len` is exactly the length of the batch if it were finished now without compression.
//!
//! Not here: when to finish, and numbering (producer, epoch, sequence are given to `finish`).

use bytes::Bytes;
use fleetline_codec::{Writer, varint_len, zigzag};
use fleetline_types::TimestampMs;

use crate::PushError;
use crate::device_table::{DeviceTable, Found};
use crate::header::{BatchHeader, Compression, HEADER_BYTES, Producer};
use crate::limits::{
    BATCH_BYTES_DEFAULT, BATCH_BYTES_MAX, DEVICE_ID_BYTES_MAX, EXPANSION_MAX, PROPERTIES_MAX,
    PROPERTY_BYTES_MAX, RECORDS_MAX,
};

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
    fence: u32,
    records: Vec<u8>,
    count: u32,
    /// The time of the first record; others store the difference.
    base_time: TimestampMs,
    devices: DeviceTable,
    /// The device of the last record: a run of one device looks nothing up.
    last_device: u32,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        BatchBuilder::new(BATCH_BYTES_DEFAULT)
    }
}

impl BatchBuilder {
    /// A builder for batches of up to `bytes_max` uncompressed bytes, header included (cut to what
    /// anybody accepts).
    pub fn new(bytes_max: usize) -> BatchBuilder {
        BatchBuilder {
            bytes_max: bytes_max.min(BATCH_BYTES_MAX),
            records_max: RECORDS_MAX,
            fence: 0,
            records: Vec::new(),
            count: 0,
            base_time: TimestampMs(0),
            devices: DeviceTable::new(),
            last_device: 0,
        }
    }

    /// The same with at most `records_max` records a batch.
    pub fn with_records_max(self, records_max: u32) -> BatchBuilder {
        BatchBuilder { records_max: records_max.clamp(1, RECORDS_MAX), ..self }
    }

    /// The number of the last fence that the batch's maker has applied (design D6); kept for the
    /// batches that follow. 0, where it begins, is for makers that fences don't concern.
    pub fn set_fence(&mut self, fence: u32) {
        self.fence = fence;
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
        let devices = varint_len(u64::from(self.devices.count())) + self.devices.stored().len();
        HEADER_BYTES + devices + self.records.len()
    }

    /// Adds a record.
    ///
    /// # Errors
    /// When it doesn't fit, or no reader would take it. The batch is as before.
    pub fn push(&mut self, record: &RecordRef<'_>) -> Result<(), PushError> {
        check(record)?;
        let fields = fields_len(record);
        self.check_alone(record, fields)?;
        let base_time = if self.count == 0 { record.time } else { self.base_time };
        let delta = zigzag(record.time.0.wrapping_sub(base_time.0) as i64);
        let found = match self.devices.is(self.last_device, record.device) {
            true => Found::Known(self.last_device),
            false => self.devices.find(record.device),
        };
        let (device, table_grows) = match found {
            Found::Known(index) => (index, 0),
            Found::Unknown(_) => (self.devices.count(), prefixed_len(record.device)),
        };
        let content = varint_len(u64::from(device)) + varint_len(delta) + fields;
        // The device count in front of the table may take one byte more.
        let grows = varint_len(content as u64) + content + table_grows + 1;
        if self.count == self.records_max || self.len() + grows > self.bytes_max {
            return Err(PushError::Full);
        }
        self.base_time = base_time;
        self.last_device = match found {
            Found::Known(index) => index,
            Found::Unknown(slot) => self.devices.add(slot, record.device),
        };
        write_record(&mut self.records, record, device, delta, content);
        self.count += 1;
        Ok(())
    }

    /// Checks that an empty batch would take the record, whatever is in this one.
    fn check_alone(&self, record: &RecordRef<'_>, fields: usize) -> Result<(), PushError> {
        let content = 2 + fields;
        let bytes = varint_len(content as u64) + content + prefixed_len(record.device);
        // Behind the header: the device count, and the byte that `push` keeps free for it to grow.
        let limit = self.bytes_max.saturating_sub(HEADER_BYTES + 2);
        match bytes > limit {
            true => Err(PushError::TooLarge { bytes, limit }),
            false => Ok(()),
        }
    }

    /// Ends the batch; `None` when it has no records. The builder is empty then.
    pub fn finish(&mut self, producer: Producer, compression: Compression) -> Option<Bytes> {
        if self.count == 0 {
            return None;
        }
        let raw_len = self.len() - HEADER_BYTES;
        let mut batch = Vec::with_capacity(HEADER_BYTES + raw_len);
        batch.resize(HEADER_BYTES, 0);
        let devices = u64::from(self.devices.count());
        Writer::new(&mut batch).varint(devices).bytes(self.devices.stored()).bytes(&self.records);
        let mut stored_as = Compression::None;
        if compression == Compression::Lz4 {
            let packed = lz4_flex::block::compress(&batch[HEADER_BYTES..]);
            // Not worth it below a tenth, and readers refuse what expands beyond the limit.
            if packed.len() + raw_len / 10 < raw_len && packed.len() * EXPANSION_MAX >= raw_len {
                // A new buffer: the batch is kept for long, and shall not hold the larger one.
                batch = Vec::with_capacity(HEADER_BYTES + packed.len());
                batch.resize(HEADER_BYTES, 0);
                batch.extend_from_slice(&packed);
                stored_as = Compression::Lz4;
            }
        }
        let mut header =
            BatchHeader::new(stored_as, batch.len(), self.count, producer, self.base_time, raw_len);
        header.fence = self.fence;
        header.seal(&mut batch);
        self.clear();
        Some(batch.into())
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.records.clear();
        self.devices.clear();
        self.count = 0;
    }
}

/// What the reader would refuse may not get in: it would spoil the batch of everybody else in it.
fn check(record: &RecordRef<'_>) -> Result<(), PushError> {
    let most = |what, found: usize, limit: usize| match found > limit {
        true => Err(PushError::OverLimit { what, found, limit }),
        false => Ok(()),
    };
    most("bytes of the device id", record.device.len(), DEVICE_ID_BYTES_MAX)?;
    most("system properties", record.system.len(), PROPERTIES_MAX)?;
    for (_, value) in record.system {
        most("bytes of a system property", value.len(), PROPERTY_BYTES_MAX)?;
    }
    most("properties", record.properties.len(), PROPERTIES_MAX)?;
    for (name, value) in record.properties {
        most("bytes of a property", name.len().max(value.len()), PROPERTY_BYTES_MAX)?;
    }
    Ok(())
}

fn prefixed_len(bytes: &[u8]) -> usize {
    varint_len(bytes.len() as u64) + bytes.len()
}

/// Bytes of a record's fields behind its time, which don't depend on the batch it is in.
fn fields_len(record: &RecordRef<'_>) -> usize {
    let system: usize = record.system.iter().map(|(_, value)| 1 + prefixed_len(value)).sum();
    let properties: usize =
        record.properties.iter().map(|(name, value)| prefixed_len(name) + prefixed_len(value)).sum();
    varint_len(record.endpoints)
        + varint_len(record.system.len() as u64)
        + system
        + varint_len(record.properties.len() as u64)
        + properties
        + prefixed_len(record.body)
}

fn write_record(out: &mut Vec<u8>, record: &RecordRef<'_>, device: u32, delta: u64, content: usize) {
    let mut writer = Writer::new(out);
    writer.varint(content as u64).varint(u64::from(device)).varint(delta).varint(record.endpoints);
    writer.varint(record.system.len() as u64);
    for (id, value) in record.system {
        writer.u8(*id).prefixed(value);
    }
    writer.varint(record.properties.len() as u64);
    for (name, value) in record.properties {
        writer.prefixed(name).prefixed(value);
    }
    writer.prefixed(record.body);
}
