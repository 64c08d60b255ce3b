//! Records as the application sees them: borrowed when sent, slices of their batch when received.

use bytes::Bytes;
use fleetline_types::{Offset, TimestampMs};

use crate::batching::{Opened, RawRecords};

/// A record to send. Borrowed: it is copied once, into the batch that it joins.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    pub(crate) device: &'a str,
    pub(crate) body: &'a [u8],
    pub(crate) time: Option<TimestampMs>,
    pub(crate) properties: &'a [(&'a [u8], &'a [u8])],
}

impl<'a> Record<'a> {
    /// A record of a device. The device id decides the partition.
    pub fn new(device: &'a str, body: &'a (impl AsRef<[u8]> + ?Sized)) -> Record<'a> {
        Record { device, body: body.as_ref(), time: None, properties: &[] }
    }

    /// With the time of its creation; without it, the time at which it is accepted.
    pub fn at(mut self, time: TimestampMs) -> Record<'a> {
        self.time = Some(time);
        self
    }

    /// With application properties: names and values.
    pub fn with_properties(mut self, properties: &'a [(&'a [u8], &'a [u8])]) -> Record<'a> {
        self.properties = properties;
        self
    }
}

/// A record as it was read. Its bytes are slices of the batch that it came in: keeping one record
/// keeps its batch in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRecord {
    /// Its place in the partition.
    pub offset: Offset,
    /// The device's id, as bytes.
    pub device: Bytes,
    /// When the sender says it was made.
    pub time: TimestampMs,
    /// When the partition's leader took it.
    pub enqueued: TimestampMs,
    /// System properties: stable numbers (`fleetline_iothub::bag::SystemProperty`) and values.
    pub system: Vec<(u8, Bytes)>,
    /// Application properties: names and values.
    pub properties: Vec<(Bytes, Bytes)>,
    /// Its content.
    pub body: Bytes,
}

/// The records of a batch, in order.
pub struct Records {
    raw: RawRecords,
    next: Offset,
    skip: u32,
    enqueued: TimestampMs,
}

impl Records {
    pub(crate) fn new(batch: &Opened, first: Offset, skip: u32, enqueued: TimestampMs) -> Records {
        Records { raw: batch.records(), next: first, skip, enqueued }
    }
}

impl Iterator for Records {
    type Item = Result<ReceivedRecord, String>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.skip > 0 {
            self.skip -= 1;
            if let Err(error) = self.raw.next()? {
                return Some(Err(error));
            }
        }
        let raw = match self.raw.next()? {
            Ok(raw) => raw,
            Err(error) => return Some(Err(error)),
        };
        let offset = self.next;
        self.next = offset.plus(1);
        Some(Ok(ReceivedRecord {
            offset,
            system: raw.system().collect(),
            properties: raw.properties().collect(),
            device: raw.device,
            time: raw.time,
            enqueued: self.enqueued,
            body: raw.body,
        }))
    }
}
