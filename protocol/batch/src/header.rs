//! The header: all that a leader looks at.

use bytes::Bytes;
use fleetline_codec::{DecodeError, Reader, Writer, checksum, checksum_append, checksum_replace_prefix};
use fleetline_types::{ProducerId, TimestampMs};

use crate::BatchError;
use crate::limits::{BATCH_BYTES_MAX, EXPANSION_MAX, RECORDS_MAX};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 64;
const MAGIC: u16 = 0x4c46; // "FL"
const VERSION: u8 = 1;
/// The crc ends here; it covers everything but itself.
const CRC_FROM: usize = 8;
const FLAG_LZ4: u8 = 1;

/// How the part behind the header is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    #[default]
    None,
    /// As one LZ4 block.
    Lz4,
}

/// Who made a batch, so that a repeated one is stored once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Producer {
    /// The producer; 0 for one that doesn't want to be recognised.
    pub id: ProducerId,
    /// Grows each time the producer begins anew; a lower one is fenced.
    pub epoch: u32,
    /// Sequence number of the batch's first record in this epoch.
    pub first_sequence: u64,
}

/// The header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// How the part behind the header is stored.
    pub compression: Compression,
    /// Bytes of the whole batch.
    pub total_len: u32,
    /// Records in it; at least one.
    pub count: u32,
    /// Who made it.
    pub producer: Producer,
    /// The last fence that its gateway had applied (design D6); 0 where fences don't apply.
    pub fence: u32,
    /// Records give their time as a difference to this.
    pub base_time: TimestampMs,
    /// Bytes of the part behind the header once it is uncompressed.
    pub raw_len: u32,
    crc: u32,
}

/// The crc of a batch, which is at least as long as its header.
fn crc_of(batch: &[u8]) -> u32 {
    checksum_append(checksum(&batch[..4]), &batch[CRC_FROM..])
}

impl BatchHeader {
    /// Reads a header and checks that its numbers are within bounds and fit each other. Looks at
    /// nothing behind it.
    ///
    /// # Errors
    /// Everything that a header can have wrong.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u16("batch magic")?;
        if magic != MAGIC {
            let (expected, found) = (u32::from(MAGIC), u32::from(magic));
            return Err(DecodeError::BadMagic { what: "batch", expected, found }.into());
        }
        let version = reader.u8("batch version")?;
        if version != VERSION {
            let (found, highest) = (u32::from(version), u32::from(VERSION));
            return Err(DecodeError::UnknownVersion { what: "batch", found, highest }.into());
        }
        let compression = match reader.u8("batch flags")? {
            0 => Compression::None,
            FLAG_LZ4 => Compression::Lz4,
            flags => return Err(DecodeError::UnknownKind { what: "batch", found: u32::from(flags) }.into()),
        };
        let crc = reader.u32("batch crc")?;
        let header = BatchHeader {
            compression,
            crc,
            total_len: reader.u32("batch length")?,
            count: reader.u32("batch count")?,
            producer: Producer {
                id: ProducerId(reader.u64("batch producer")?),
                epoch: reader.u32("batch epoch")?,
                first_sequence: 0,
            },
            fence: reader.u32("batch fence")?,
            base_time: TimestampMs(0),
            raw_len: 0,
        };
        let first_sequence = reader.u64("batch sequence")?;
        let base_time = TimestampMs(reader.u64("batch time")?);
        let raw_len = reader.u32("batch raw length")?;
        let reserved = reader.bytes("batch reserved", 12)?;
        if reserved.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Invalid { what: "batch reserved", reason: "not zero" }.into());
        }
        let producer = Producer { first_sequence, ..header.producer };
        let header = BatchHeader { producer, base_time, raw_len, ..header };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let over = |what, value: u64, limit: u64| match value > limit {
            true => Err(DecodeError::OverLimit { what, value, limit }),
            false => Ok(()),
        };
        over("batch length", u64::from(self.total_len), BATCH_BYTES_MAX as u64)?;
        over("batch raw length", u64::from(self.raw_len), BATCH_BYTES_MAX as u64)?;
        over("batch count", u64::from(self.count), u64::from(RECORDS_MAX))?;
        // A record takes at least 7 bytes: its length, device, time, endpoints, counts, body length.
        over("batch count for its length", u64::from(self.count) * 7, u64::from(self.raw_len))?;
        let stored = (self.total_len as usize)
            .checked_sub(HEADER_BYTES)
            .ok_or(DecodeError::Invalid { what: "batch length", reason: "shorter than its header" })?;
        over("batch expansion", u64::from(self.raw_len), stored as u64 * EXPANSION_MAX as u64)?;
        if self.count == 0 {
            return Err(DecodeError::Invalid { what: "batch count", reason: "no records" });
        }
        if self.compression == Compression::None && stored != self.raw_len as usize {
            return Err(DecodeError::Invalid { what: "batch raw length", reason: "not that of its records" });
        }
        if self.producer.first_sequence.checked_add(u64::from(self.count)).is_none() {
            return Err(DecodeError::Invalid { what: "batch sequence", reason: "beyond the last number" });
        }
        Ok(())
    }

    /// Checks header, length and crc, without looking at records: what a leader does with a batch.
    ///
    /// # Errors
    /// When it isn't an undamaged batch.
    pub fn verify(batch: &[u8]) -> Result<BatchHeader, BatchError> {
        let header = BatchHeader::parse(batch)?;
        if header.total_len as usize != batch.len() {
            return Err(BatchError::Length { claimed: header.total_len as usize, found: batch.len() });
        }
        let found = crc_of(batch);
        if found != header.crc {
            let (expected, found) = (found, header.crc);
            return Err(DecodeError::BadChecksum { what: "batch", expected, found }.into());
        }
        Ok(header)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let flags = match self.compression {
            Compression::None => 0,
            Compression::Lz4 => FLAG_LZ4,
        };
        let mut writer = Writer::new(out);
        writer.u16(MAGIC).u8(VERSION).u8(flags).u32(self.crc).u32(self.total_len).u32(self.count);
        writer.u64(self.producer.id.0).u32(self.producer.epoch).u32(self.fence);
        writer.u64(self.producer.first_sequence).u64(self.base_time.0).u32(self.raw_len).bytes(&[0; 12]);
    }

    /// Puts this header, with the right crc, over the first bytes of a batch.
    pub(crate) fn seal(mut self, batch: &mut [u8]) {
        self.crc = 0;
        let mut head = Vec::with_capacity(HEADER_BYTES);
        self.write(&mut head);
        batch[..HEADER_BYTES].copy_from_slice(&head);
        let crc = crc_of(batch);
        batch[4..CRC_FROM].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The same records under another producer, epoch or sequence: only the header is written anew, and
/// the crc of the rest is carried over, so damage in it stays visible.
///
/// # Errors
/// When `batch` doesn't begin with a sound header.
pub fn restamp(batch: &Bytes, producer: Producer) -> Result<Bytes, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let mut out = Vec::with_capacity(batch.len());
    let restamped = BatchHeader { producer, ..header };
    restamped.check()?;
    restamped.write(&mut out);
    let rest = batch.get(HEADER_BYTES..).unwrap_or_default();
    // What the crc covers of a header: all but itself.
    let covered = |head: &[u8]| -> Vec<u8> { [&head[..4], &head[CRC_FROM..HEADER_BYTES]].concat() };
    let crc = checksum_replace_prefix(header.crc, &covered(batch), &covered(&out), rest.len());
    out[4..CRC_FROM].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(rest);
    Ok(out.into())
}

impl BatchHeader {
    pub(crate) fn new(
        compression: Compression,
        total_len: usize,
        count: u32,
        producer: Producer,
        base_time: TimestampMs,
        raw_len: usize,
    ) -> BatchHeader {
        let (total_len, raw_len) = (total_len as u32, raw_len as u32);
        BatchHeader { compression, total_len, count, producer, fence: 0, base_time, raw_len, crc: 0 }
    }
}
