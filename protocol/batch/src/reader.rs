//! Reading records out of a batch, without copying.

use bytes::Bytes;
use fleetline_codec::{BytesReader, DecodeError, Reader};
use fleetline_types::TimestampMs;

use crate::BatchError;
use crate::header::{BatchHeader, Compression, HEADER_BYTES};
use crate::limits::{DEVICE_ID_BYTES_MAX, PROPERTIES_MAX, PROPERTY_BYTES_MAX};

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
    system: Bytes,
    properties: Bytes,
}

impl RecordView {
    /// The system properties, in the order of the producer.
    pub fn system(&self) -> SystemProperties {
        SystemProperties { rest: self.system.clone() }
    }

    /// The application properties, in the order of the producer.
    pub fn properties(&self) -> Properties {
        Properties { rest: self.properties.clone() }
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
    reader: BytesReader,
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
        let mut reader = BytesReader::new(raw);
        let devices = reader.with(|r| r.count("devices", header.count as usize, 1))?;
        let devices = (0..devices)
            .map(|_| prefixed(&mut reader, "device id", DEVICE_ID_BYTES_MAX))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(BatchReader { header, devices, reader, left: header.count })
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
        let len = self.reader.with(|r| r.varint_u32("record length"))? as usize;
        let mut record = BytesReader::new(self.reader.bytes("record", len)?);
        let index = record.with(|r| r.varint("record device"))?;
        let device = usize::try_from(index).ok().and_then(|index| self.devices.get(index));
        let devices = self.devices.len();
        let device = device.cloned().ok_or(BatchError::Device { index, devices })?;
        let delta = record.with(|r| r.varint_signed("record time"))?;
        let time = TimestampMs(self.header.base_time.0.wrapping_add_signed(delta));
        let endpoints = record.with(|r| r.varint("record endpoints"))?;
        let system = span(&mut record, |r| {
            for _ in 0..r.count("system properties", PROPERTIES_MAX, 2)? {
                r.u8("system property")?;
                skip_prefixed(r)?;
            }
            Ok(())
        })?;
        let properties = span(&mut record, |r| {
            for _ in 0..r.count("properties", PROPERTIES_MAX, 2)? {
                skip_prefixed(r)?;
                skip_prefixed(r)?;
            }
            Ok(())
        })?;
        let body = prefixed(&mut record, "record body", crate::limits::BATCH_BYTES_MAX)?;
        record.finish("record")?;
        Ok(RecordView { device, time, endpoints, body, system, properties })
    }
}

fn prefixed(reader: &mut BytesReader, what: &'static str, limit: usize) -> Result<Bytes, DecodeError> {
    let len = reader.with(|r| r.varint_up_to(what, limit as u64))?;
    reader.bytes(what, len as usize)
}

fn skip_prefixed(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    let len = reader.varint_up_to("property", PROPERTY_BYTES_MAX as u64)?;
    reader.bytes("property", len as usize).map(drop)
}

/// Checks a counted list and gives its items as one slice, without the count in front.
fn span(
    reader: &mut BytesReader,
    check: impl Fn(&mut Reader<'_>) -> Result<(), DecodeError>,
) -> Result<Bytes, DecodeError> {
    let mut ahead = reader.clone();
    ahead.with(check)?;
    let whole = reader.bytes("properties", ahead.position() - reader.position())?;
    let mut count = Reader::new(&whole);
    count.varint("count")?;
    let start = count.position();
    Ok(whole.slice(start..))
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
        if self.left == 0 && record.is_ok() && !self.reader.is_empty() {
            let count = self.reader.remaining();
            record = Err(DecodeError::Trailing { what: "batch", count }.into());
        }
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}
