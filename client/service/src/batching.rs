//! The only place of the client that knows the batch format (`fleetline-batch`): filling, stamping,
//! checking and taking apart batches.

use std::time::SystemTime;

use bytes::Bytes;
use fleetline_batch::limits::{PROPERTIES_MAX, PROPERTY_BYTES_MAX};
use fleetline_batch::{BatchBuilder, BatchHeader, BatchReader, RecordRef, RecordView};
use fleetline_types::{ProducerId, TimestampMs};

use crate::record::Record;

pub use fleetline_batch::Compression;

pub(crate) use fleetline_batch::limits::BATCH_BYTES_MAX;

/// Room of a record beyond its bytes: lengths, and its share of the batch's header.
const ROOM_PER_RECORD: usize = 64;

/// By what a partition recognises a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub producer: ProducerId,
    pub epoch: u32,
    pub sequence: u64,
}

impl From<Stamp> for fleetline_batch::Producer {
    fn from(stamp: Stamp) -> fleetline_batch::Producer {
        fleetline_batch::Producer { id: stamp.producer, epoch: stamp.epoch, first_sequence: stamp.sequence }
    }
}

/// Why a record was not taken.
pub(crate) enum PushError {
    /// It does not fit behind the others.
    Full,
    /// It fits no batch.
    Invalid(String),
}

/// A batch that fills.
pub(crate) struct Filler {
    builder: BatchBuilder,
}

impl Filler {
    /// For batches of up to `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Filler {
        Filler { builder: BatchBuilder::new(bytes_max) }
    }

    pub(crate) fn push(&mut self, record: &Record<'_>) -> Result<(), PushError> {
        check(record)?;
        let record = RecordRef {
            device: record.device.as_bytes(),
            time: record.time.unwrap_or_else(now),
            endpoints: 0,
            system: &[],
            properties: record.properties,
            body: record.body,
        };
        self.builder.push(&record).map_err(|error| match error {
            fleetline_batch::PushError::Full => PushError::Full,
            error => PushError::Invalid(error.to_string()),
        })
    }

    /// Ends the batch; the filler is empty then. `None` when there was no record.
    pub(crate) fn finish(&mut self, stamp: Stamp, compression: Compression) -> Option<Bytes> {
        self.builder.finish(stamp.into(), compression)
    }
}

/// What readers would refuse may not be sent.
fn check(record: &Record<'_>) -> Result<(), PushError> {
    let count = record.properties.len();
    if count > PROPERTIES_MAX {
        return Err(PushError::Invalid(format!(
            "record has {count} properties, the limit is {PROPERTIES_MAX}"
        )));
    }
    for (name, value) in record.properties {
        let bytes = name.len().max(value.len());
        if bytes > PROPERTY_BYTES_MAX {
            let text = format!("property of {bytes} bytes is over the limit of {PROPERTY_BYTES_MAX}");
            return Err(PushError::Invalid(text));
        }
    }
    Ok(())
}

fn now() -> TimestampMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    TimestampMs(since.map_or(0, |since| since.as_millis() as u64))
}

/// Room that a record takes in a producer's buffer, in bytes: at least what it takes in its batch.
pub(crate) fn room_of(record: &Record<'_>) -> usize {
    let properties: usize = record.properties.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    ROOM_PER_RECORD + record.device.len() + record.body.len() + properties
}

/// The same batch under this stamp.
pub(crate) fn restamp(batch: &Bytes, stamp: Stamp) -> Result<Bytes, String> {
    fleetline_batch::restamp(batch, stamp.into()).map_err(|error| error.to_string())
}

/// How many records a batch holds, after checking it whole.
pub(crate) fn count_of(batch: &Bytes) -> Result<u32, String> {
    BatchHeader::verify(batch).map(|header| header.count).map_err(|error| error.to_string())
}

/// A batch whose header and checksum are sound.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    batch: Bytes,
    count: u32,
}

impl Opened {
    pub(crate) fn verify(batch: Bytes) -> Result<Opened, String> {
        let count = count_of(&batch)?;
        Ok(Opened { batch, count })
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn records(&self) -> RawRecords {
        match BatchReader::new(self.batch.clone()) {
            Ok(reader) => RawRecords::Reading(reader),
            Err(error) => RawRecords::Broken(Some(error.to_string())),
        }
    }
}

/// The records of a batch; after an error there are no more.
pub(crate) enum RawRecords {
    Reading(BatchReader),
    Broken(Option<String>),
}

impl Iterator for RawRecords {
    type Item = Result<RecordView, String>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            RawRecords::Reading(reader) => Some(reader.next()?.map_err(|error| error.to_string())),
            RawRecords::Broken(error) => error.take().map(Err),
        }
    }
}
