//! Where batches lie: one row per apply round, for all batches of the round (a round of very
//! many takes some more).
//!
//! ```text
//! key   = first offset of the first batch, u64 big-endian
//! value = version u8 = 1 | count varint × { log index, count of records, bytes, time } (varints; the
//!         log index and the time of all but the first as a difference to the one before)
//! ```

use bytes::Bytes;
use fleetline_codec::{DecodeError, Reader, Writer};
use fleetline_types::{LogIndex, Offset, TimestampMs};

/// Batches in a row that is read, at the most; rows are written with fewer (`RUN_BATCHES_MAX`).
const RUN_MAX: usize = 1 << 16;

/// Where one batch of the stream lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlace {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Records in it.
    pub count: u32,
    /// The log entry that holds it.
    pub entry: LogIndex,
    /// Its size in bytes.
    pub bytes: u32,
    /// When it was enqueued.
    pub time: TimestampMs,
}

impl BatchPlace {
    /// One behind its last record.
    pub fn end(&self) -> Offset {
        self.base_offset.plus(u64::from(self.count))
    }
}

/// The batches of one row, in offset order, without a hole between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run(pub Vec<BatchPlace>);

impl Run {
    /// The row's key, for a run that isn't empty.
    pub(crate) fn key(first: Offset) -> Bytes {
        Bytes::copy_from_slice(&first.0.to_be_bytes())
    }

    /// The row of these batches.
    pub(crate) fn encode(places: &[BatchPlace]) -> Bytes {
        let mut out = Vec::with_capacity(8 + places.len() * 10);
        let mut w = Writer::new(&mut out);
        w.u8(1).varint(places.len() as u64);
        let (mut entry, mut time) = (0, 0);
        for place in places {
            w.varint(place.entry.0 - entry).varint(u64::from(place.count));
            w.varint(u64::from(place.bytes)).varint(place.time.0 - time);
            (entry, time) = (place.entry.0, place.time.0);
        }
        out.into()
    }

    pub(crate) fn decode(key: &[u8], value: &[u8]) -> Result<Run, DecodeError> {
        let mut r = Reader::new(key);
        let mut next = Offset(r.u64_be("index key")?);
        r.finish("index key")?;
        let mut r = Reader::new(value);
        if r.u8("index version")? != 1 {
            return Err(DecodeError::Invalid { what: "index row", reason: "of a later version" });
        }
        let (mut entry, mut time) = (0u64, 0u64);
        let mut run = Run(Vec::new());
        let overflow = || DecodeError::Invalid { what: "index row", reason: "beyond the last number" };
        for _ in 0..r.count("index row", RUN_MAX, 4)? {
            entry = entry.checked_add(r.varint("entry")?).ok_or_else(overflow)?;
            let count = r.varint_u32("count")?;
            let bytes = r.varint_u32("bytes")?;
            time = time.checked_add(r.varint("time")?).ok_or_else(overflow)?;
            let place = BatchPlace {
                base_offset: next,
                count,
                entry: LogIndex(entry),
                bytes,
                time: TimestampMs(time),
            };
            next = Offset(next.0.checked_add(u64::from(count)).ok_or_else(overflow)?);
            run.0.push(place);
        }
        r.finish("index row")?;
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run comes back as it went, with its offsets rebuilt from the key.
    #[test]
    fn round_trip() {
        let place = |base: u64, count, entry, time| BatchPlace {
            base_offset: Offset(base),
            count,
            entry: LogIndex(entry),
            bytes: 1000 + count,
            time: TimestampMs(time),
        };
        let run = Run(vec![place(100, 10, 7, 5_000), place(110, 1, 8, 5_000), place(111, 500, 20, 9_000)]);
        assert_eq!(Run::decode(&Run::key(Offset(100)), &Run::encode(&run.0)).unwrap(), run);
        assert!(Run::decode(b"short", &Run::encode(&run.0)).is_err());
        assert!(Run::decode(&Run::key(Offset(u64::MAX)), &Run::encode(&run.0)).is_err());
    }
}
