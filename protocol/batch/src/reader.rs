//! Reading records out of a batch, without copying.
//!
//! Called by whoever consumes: the client crate, route evaluation, functions. A record is checked as a
//! whole when it is reached; what is handed out are slices that keep the batch alive.
//!
//! Invariants: nothing is read of a batch that doesn't verify; a reader takes memory only for the
//! device table and, of a compressed batch, for the uncompressed bytes, and both are bounded by a
//! header that was checked before ([`crate::limits`]).
//!
//! Not here: which record to begin with (offsets are the stream's), what properties mean.

use std::ops::Range;

use bytes::Bytes;
use fleetline_codec::{DecodeError, Reader};
use fleetline_types::TimestampMs;

use crate::BatchError;
use crate::header::{BatchHeader, Compression, HEADER_BYTES};
use crate::limits::{BATCH_BYTES_MAX, DEVICE_ID_BYTES_MAX, PROPERTIES_MAX, PROPERTY_BYTES_MAX};

/// One record of a batch; all parts are slices of it.
#[derive(Clone, Debug)]
pub struct RecordView {
    /// The device (or any other key) that it is of.
    pub device: Bytes,
    /// When it was made, as its producer said.
    pub time: TimestampMs,
    /// Which endpoints its routes chose, one bit each.
    pub endpoints: u64,
    /// The payload.
    pub body: Bytes,
    /// Both property lists as stored; empty when there are none.
    lists: Bytes,
    /// Where the items of the system properties lie in `lists`; the application's follow to the end.
    system: Range<u32>,
    properties_from: u32,
}

impl RecordView {
    /// The system properties, in the order of the producer.
    pub fn system(&self) -> SystemProperties {
        SystemProperties { rest: self.lists.slice(self.system.start as usize..self.system.end as usize) }
    }

    /// The application properties, in the order of the producer.
    pub fn properties(&self) -> Properties {
        Properties { rest: self.lists.slice(self.properties_from as usize..) }
    }
}

/// Takes a length-prefixed slice off the front of bytes that were checked when the record was read.
fn take(rest: &mut Bytes) -> Bytes {
    let mut reader = Reader::new(rest);
    let len = reader.varint("property").unwrap_or_default() as usize;
    let start = reader.position().min(rest.len());
    let mut value = rest.split_off(start);
    *rest = value.split_off(len.min(value.len()));
    value
}

/// Iterates over system properties: number and value.
#[derive(Clone, Debug)]
pub struct SystemProperties {
    rest: Bytes,
}

impl Iterator for SystemProperties {
    type Item = (u8, Bytes);

    fn next(&mut self) -> Option<(u8, Bytes)> {
        let id = *self.rest.first()?;
        self.rest = self.rest.slice(1..);
        Some((id, take(&mut self.rest)))
    }
}

/// Iterates over application properties: name and value.
#[derive(Clone, Debug)]
pub struct Properties {
    rest: Bytes,
}

impl Iterator for Properties {
    type Item = (Bytes, Bytes);

    fn next(&mut self) -> Option<(Bytes, Bytes)> {
        if self.rest.is_empty() {
            return None;
        }
        Some((take(&mut self.rest), take(&mut self.rest)))
    }
}

/// The records of a batch, in order. After an error there are no more.
#[derive(Debug)]
pub struct BatchReader {
    header: BatchHeader,
    devices: Vec<Bytes>,
    /// Device table and records, uncompressed.
    raw: Bytes,
    /// Where the next record begins in `raw`.
    at: usize,
    left: u32,
}

impl BatchReader {
    /// Verifies a batch, uncompresses it when it must be, and reads its device table.
    ///
    /// # Errors
    /// When it isn't an undamaged batch.
    pub fn new(batch: Bytes) -> Result<BatchReader, BatchError> {
        let header = BatchHeader::verify(&batch)?;
        let stored = batch.slice(HEADER_BYTES..);
        let raw = match header.compression {
            Compression::None => stored,
            Compression::Lz4 => unpack(&stored, header.raw_len as usize)?,
        };
        let mut reader = Reader::new(&raw);
        let count = reader.count("devices", header.count as usize, 1)?;
        let mut devices = Vec::with_capacity(count);
        for _ in 0..count {
            let len = reader.prefixed("device id", DEVICE_ID_BYTES_MAX)?.len();
            devices.push(raw.slice(reader.position() - len..reader.position()));
        }
        let at = reader.position();
        Ok(BatchReader { header, devices, raw, at, left: header.count })
    }

    /// The batch's header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The devices that records are of.
    pub fn devices(&self) -> &[Bytes] {
        &self.devices
    }

    fn record(&mut self) -> Result<RecordView, BatchError> {
        let mut reader = Reader::new(&self.raw[self.at..]);
        let len = reader.varint_u32("record length")? as usize;
        let mut record = reader.sub("record", len)?;
        let start = self.at + reader.position() - len;
        let parts = parse_record(&mut record)?;
        record.finish("record")?;
        let devices = self.devices.len();
        let index = parts.device;
        let device = usize::try_from(index).ok().and_then(|index| self.devices.get(index));
        let device = device.cloned().ok_or(BatchError::Device { index, devices })?;
        let base = parts.lists.start;
        let has_none = parts.lists.len() == LISTS_EMPTY;
        self.at = start + len;
        Ok(RecordView {
            device,
            time: TimestampMs(self.header.base_time.0.wrapping_add_signed(parts.time_delta)),
            endpoints: parts.endpoints,
            body: self.raw.slice(start + parts.body.start..start + parts.body.end),
            lists: match has_none {
                true => Bytes::new(),
                false => self.raw.slice(start + parts.lists.start..start + parts.lists.end),
            },
            system: match has_none {
                true => 0..0,
                false => (parts.system.start - base) as u32..(parts.system.end - base) as u32,
            },
            properties_from: if has_none { 0 } else { (parts.properties_from - base) as u32 },
        })
    }
}

/// Bytes of two property lists without items: a count of zero each.
const LISTS_EMPTY: usize = 2;

/// A record that was checked; places are counted from its beginning.
struct Parts {
    device: u64,
    time_delta: i64,
    endpoints: u64,
    /// Both property lists, from the count of the first on.
    lists: Range<usize>,
    /// The items of the system properties.
    system: Range<usize>,
    /// Where the items of the application properties begin; they go to the end of `lists`.
    properties_from: usize,
    body: Range<usize>,
}

fn parse_record(r: &mut Reader<'_>) -> Result<Parts, DecodeError> {
    let device = r.varint("record device")?;
    let time_delta = r.varint_signed("record time")?;
    let endpoints = r.varint("record endpoints")?;
    let lists = r.position();
    let count = r.count("system properties", PROPERTIES_MAX, 2)?;
    let system = r.position();
    for _ in 0..count {
        r.u8("system property")?;
        r.prefixed("system property", PROPERTY_BYTES_MAX)?;
    }
    let system = system..r.position();
    let count = r.count("properties", PROPERTIES_MAX, 2)?;
    let properties_from = r.position();
    for _ in 0..count {
        r.prefixed("property name", PROPERTY_BYTES_MAX)?;
        r.prefixed("property value", PROPERTY_BYTES_MAX)?;
    }
    let lists = lists..r.position();
    let len = r.prefixed("record body", BATCH_BYTES_MAX)?.len();
    let body = r.position() - len..r.position();
    Ok(Parts { device, time_delta, endpoints, lists, system, properties_from, body })
}

fn unpack(stored: &[u8], raw_len: usize) -> Result<Bytes, BatchError> {
    // `raw_len` is bounded by the header's check.
    let raw = lz4_flex::block::decompress(stored, raw_len)
        .map_err(|error| BatchError::Compression(error.to_string()))?;
    match raw.len() == raw_len {
        true => Ok(raw.into()),
        false => Err(BatchError::Compression(format!("{} bytes came out instead of {raw_len}", raw.len()))),
    }
}

impl Iterator for BatchReader {
    type Item = Result<RecordView, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let mut record = self.record();
        if self.left == 0 && record.is_ok() && self.at < self.raw.len() {
            let count = self.raw.len() - self.at;
            record = Err(DecodeError::Trailing { what: "batch", count }.into());
        }
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}
