//! Checksums and batches: what a producer, the leader and a reader do with each record.

use std::hint::black_box;

use bytes::Bytes;
use fleetline_batch::{BatchBuilder, BatchHeader, BatchReader, Compression, Producer, restamp};
use fleetline_codec::checksum;
use fleetline_types::ProducerId;

use crate::{Outcome, Report, batch, bytes_like_data, same, timed};

/// Records of 100 bytes in a batch of about 16 and 64 KiB.
const RECORDS: [u32; 2] = [140, 560];

pub(crate) fn run(report: &mut Report<'_>) -> Outcome<()> {
    for len in [100, 16 << 10] {
        checksums(report, len)?;
    }
    for records in RECORDS {
        for compression in [Compression::None, Compression::Lz4] {
            batches(report, records, compression)?;
        }
    }
    Ok(())
}

fn checksums(report: &mut Report<'_>, len: usize) -> Outcome<()> {
    let data = bytes_like_data(len);
    let expected = checksum(&data);
    let calls = report.effort.fewer(len as u64 / 100);
    report.bench(format!("crc32c of {len} B"), "call", || {
        let (took, wrong) =
            timed(|| Ok((0..calls).filter(|_| checksum(black_box(&data)) != expected).count()))?;
        same("wrong checksums", 0, wrong)?;
        Ok((took, calls))
    })
}

fn batches(report: &mut Report<'_>, records: u32, compression: Compression) -> Outcome<()> {
    let calls = report.effort.fewer(u64::from(records));
    let of = calls * u64::from(records);
    let what = format!("{records} records of 100 B, {compression:?}");
    let body = bytes_like_data(100);
    let mut builder = BatchBuilder::new(1 << 20);
    let sample = batch(&mut builder, &body, records, 0, compression)?;

    report.bench(format!("batch encode, {what}"), "record", || {
        let (took, bytes) = timed(|| {
            let mut bytes = 0;
            for _ in 0..calls {
                bytes += black_box(batch(&mut builder, &body, records, 0, compression)?).len() as u64;
            }
            Ok(bytes)
        })?;
        same("bytes", calls * sample.len() as u64, bytes)?;
        Ok((took, of))
    })?;
    report.bench(format!("batch verify, {what}"), "record", || {
        let (took, count) = timed(|| {
            let mut count = 0;
            for _ in 0..calls {
                count += u64::from(BatchHeader::verify(black_box(&sample))?.count);
            }
            Ok(count)
        })?;
        same("records", of, count)?;
        Ok((took, of))
    })?;
    report.bench(format!("batch restamp, {what}"), "record", || {
        let (took, last) = timed(|| {
            let mut last = Bytes::new();
            for n in 0..calls {
                let producer = Producer { id: ProducerId(8), epoch: 1, first_sequence: n };
                last = black_box(restamp(&sample, producer)?);
            }
            Ok(last)
        })?;
        same("sequence", calls - 1, BatchHeader::verify(&last)?.producer.first_sequence)?;
        Ok((took, of))
    })?;
    report.bench(format!("batch read, {what}"), "record", || {
        let (took, bytes) = timed(|| {
            let mut bytes = 0;
            for _ in 0..calls {
                for record in BatchReader::new(black_box(&sample).clone())? {
                    bytes += record?.body.len() as u64;
                }
            }
            Ok(bytes)
        })?;
        same("bytes", of * 100, bytes)?;
        Ok((took, of))
    })
}
