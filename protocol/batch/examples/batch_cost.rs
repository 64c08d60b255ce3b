//! What a record costs: `cargo run --release -p fleetline-batch --example batch_cost`.
//!
//! Prints nanoseconds of CPU per record of 100 bytes for filling a batch, for the leader's check, for
//! restamping and for iterating, with batches of 16 and 64 KiB, of few devices and of a device per
//! record. Each figure is the best of several rounds, so that a busy machine shows less.

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use fleetline_batch::{BatchBuilder, BatchHeader, BatchReader, Compression, Producer, RecordRef, restamp};
use fleetline_types::{ProducerId, TimestampMs};

const ROUNDS: usize = 7;
const RECORDS_PER_ROUND: u64 = 200_000;
const BODY: &[u8; 100] =
    br#"{"temperature":21.53,"humidity":48.1,"battery":87,"firmware":"4.2.1","position":[48.1371,11.5754]..}"#;

fn main() {
    let producer = Producer { id: ProducerId(7), epoch: 1, first_sequence: 0 };
    println!(
        "batch     devices     compress  records  bytes    fill  verify  restamp  iterate  (ns a record)"
    );
    for size in [16 << 10, 64 << 10] {
        for devices in [10, 100_000] {
            for compression in [Compression::None, Compression::Lz4] {
                let ids: Vec<String> = (0..devices).map(|id| format!("device-{id:06}")).collect();
                let mut builder = BatchBuilder::new(size);
                let batch = fill(&mut builder, &ids, &mut 0, producer, compression);
                let count = u64::from(BatchHeader::verify(&batch).map_or(0, |header| header.count));
                let mut next = 0;
                let fills = best(count, || fill(&mut builder, &ids, &mut next, producer, compression).len());
                let verify = best(count, || BatchHeader::verify(&batch).is_ok().into());
                let restamp = best(count, || restamp(&batch, producer).map_or(0, |batch| batch.len()));
                let iterate = best(count, || iterate(&batch));
                let (kib, len) = (size >> 10, batch.len());
                println!(
                    "{kib:3} KiB  {devices:8}     {compression:<8?}  {count:7}  {len:5}  {fills:6.1}  {verify:6.2}  {restamp:7.2}  {iterate:7.1}"
                );
            }
        }
    }
}

/// Fills one batch, going on with the device behind the last one.
fn fill(
    builder: &mut BatchBuilder,
    ids: &[String],
    next: &mut usize,
    producer: Producer,
    compression: Compression,
) -> Bytes {
    let base = 1_700_000_000_000;
    loop {
        let record = RecordRef {
            device: ids[*next % ids.len()].as_bytes(),
            time: TimestampMs(base + *next as u64),
            endpoints: 1,
            system: &[(1, b"application/json")],
            properties: &[],
            body: BODY,
        };
        if builder.push(&record).is_err() {
            return builder.finish(producer, compression).expect("invariant: a full batch isn't empty");
        }
        *next += 1;
    }
}

fn iterate(batch: &Bytes) -> usize {
    let reader = BatchReader::new(batch.clone()).expect("invariant: the batch was just built");
    reader.map(|record| record.map_or(0, |record| record.body.len() + record.device.len())).sum()
}

/// Nanoseconds a record of the fastest round, when one call of `work` treats `count` records.
fn best(count: u64, mut work: impl FnMut() -> usize) -> f64 {
    let calls = (RECORDS_PER_ROUND / count.max(1)).max(1);
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..calls {
            black_box(work());
        }
        best = best.min(begin.elapsed().as_nanos() as f64 / (calls * count.max(1)) as f64);
    }
    best
}
