//! What a batch promises: records come back as they went, damage is seen, hostile bytes harm nobody.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use fleetline_batch::{
    BatchBuilder, BatchError, BatchHeader, BatchReader, Compression, HEADER_BYTES, Producer, PushError,
    RecordRef, restamp,
};
use fleetline_types::{ProducerId, TimestampMs};
use proptest::prelude::*;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Clone, Debug, PartialEq)]
struct Owned {
    device: Vec<u8>,
    time: u64,
    endpoints: u64,
    system: Vec<(u8, Vec<u8>)>,
    properties: Pairs,
    body: Vec<u8>,
}

fn push(builder: &mut BatchBuilder, record: &Owned) -> Result<(), PushError> {
    let system: Vec<(u8, &[u8])> = record.system.iter().map(|(id, value)| (*id, value.as_slice())).collect();
    let properties: Vec<(&[u8], &[u8])> =
        record.properties.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
    builder.push(&RecordRef {
        device: &record.device,
        time: TimestampMs(record.time),
        endpoints: record.endpoints,
        system: &system,
        properties: &properties,
        body: &record.body,
    })
}

fn read(batch: &Bytes) -> Result<Vec<Owned>, BatchError> {
    BatchReader::new(batch.clone())?
        .map(|record| {
            let record = record?;
            Ok(Owned {
                device: record.device.to_vec(),
                time: record.time.0,
                endpoints: record.endpoints,
                system: record.system().map(|(id, value)| (id, value.to_vec())).collect(),
                properties: record.properties().map(|(n, v)| (n.to_vec(), v.to_vec())).collect(),
                body: record.body.to_vec(),
            })
        })
        .collect()
}

fn small_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

fn record() -> impl Strategy<Value = Owned> {
    (
        prop_oneof![Just(b"device-1".to_vec()), Just(b"device-2".to_vec()), small_bytes()],
        any::<u64>(),
        any::<u64>(),
        prop::collection::vec((any::<u8>(), small_bytes()), 0..4),
        prop::collection::vec((small_bytes(), small_bytes()), 0..4),
        prop::collection::vec(any::<u8>(), 0..300),
    )
        .prop_map(|(device, time, endpoints, system, properties, body)| Owned {
            device,
            time,
            endpoints,
            system,
            properties,
            body,
        })
}

fn producer() -> Producer {
    Producer { id: ProducerId(7), epoch: 3, first_sequence: 100 }
}

fn sample(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::default();
    for i in 0..20u64 {
        let record = Owned {
            device: format!("device-{}", i % 3).into_bytes(),
            time: 1_700_000_000_000 + i,
            endpoints: 1,
            system: vec![(1, b"json".to_vec())],
            properties: vec![(b"room".to_vec(), b"kitchen".to_vec())],
            body: b"{\"temperature\": 21.5}".to_vec(),
        };
        push(&mut builder, &record).unwrap();
    }
    builder.finish(producer(), compression).unwrap()
}

proptest! {
    /// Any records come back as they went, in order, compressed or not, and the size was foretold.
    #[test]
    fn round_trip(records in prop::collection::vec(record(), 1..30), packed in any::<bool>()) {
        let mut builder = BatchBuilder::default();
        for record in &records {
            push(&mut builder, record).unwrap();
        }
        let foretold = builder.len();
        let compression = if packed { Compression::Lz4 } else { Compression::None };
        let batch = builder.finish(producer(), compression).unwrap();
        prop_assert!(builder.is_empty());
        let header = BatchHeader::verify(&batch).unwrap();
        prop_assert_eq!(header.count as usize, records.len());
        prop_assert_eq!(header.raw_len as usize, foretold - HEADER_BYTES);
        prop_assert!(batch.len() <= foretold);
        prop_assert_eq!(read(&batch).unwrap(), records);
    }

    /// Any bytes, alone or behind a sound header, are read or refused, never more.
    #[test]
    fn hostile_bytes(noise in prop::collection::vec(any::<u8>(), 0..600), at in 0usize..600) {
        drop(read(&Bytes::from(noise.clone())));
        let mut batch = sample(Compression::None).to_vec();
        let at = at.min(batch.len());
        let end = (at + noise.len()).min(batch.len());
        batch[at..end].copy_from_slice(&noise[..end - at]);
        drop(read(&Bytes::from(batch)));
    }
}

/// Every flipped bit is seen by the leader's check, compressed or not.
#[test]
fn flips_are_seen() {
    for compression in [Compression::None, Compression::Lz4] {
        let batch = sample(compression);
        for bit in 0..batch.len() * 8 {
            let mut damaged = batch.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(BatchHeader::verify(&damaged).is_err(), "bit {bit} of {compression:?}");
        }
        for len in 0..batch.len() {
            assert!(BatchHeader::verify(&batch[..len]).is_err());
        }
    }
}

/// A batch that is sealed over lying records (a right crc) is refused by the reader, not believed.
#[test]
fn lying_records() {
    let batch = sample(Compression::None);
    for at in HEADER_BYTES..batch.len() {
        for value in [0u8, 1, 0x7f, 0x80, 0xff] {
            let mut lying = batch.to_vec();
            lying[at] = value;
            let crc = fleetline_codec::checksum(&lying[..4]);
            let crc = fleetline_codec::checksum_append(crc, &lying[8..]).to_le_bytes();
            lying[4..8].copy_from_slice(&crc);
            let lying = Bytes::from(lying);
            assert!(BatchHeader::verify(&lying).is_ok());
            drop(read(&lying));
        }
    }
}

/// A restamped batch has the new producer and the same records; damage stays visible through it.
#[test]
fn restamping() {
    let batch = sample(Compression::Lz4);
    let other = Producer { id: ProducerId(9), epoch: 4, first_sequence: 0 };
    let stamped = restamp(&batch, other).unwrap();
    assert_eq!(BatchHeader::verify(&stamped).unwrap().producer, other);
    assert_eq!(read(&stamped).unwrap(), read(&batch).unwrap());
    let mut damaged = batch.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(BatchHeader::verify(&restamp(&damaged.into(), other).unwrap()).is_err());
}

/// A full batch says so and stays as it was; a record that fits no batch says that.
#[test]
fn bounds() {
    let mut builder = BatchBuilder::new(1024);
    let body = [7u8; 200];
    let record = RecordRef { device: b"d", body: &body, ..RecordRef::default() };
    let mut count = 0;
    while builder.push(&record).is_ok() {
        count += 1;
    }
    assert_eq!(builder.push(&record), Err(PushError::Full));
    assert_eq!((builder.count(), count), (4, 4));
    assert!(builder.len() <= 1024);
    let huge = RecordRef { body: &[0; 2000], ..record };
    assert!(matches!(builder.push(&huge), Err(PushError::TooLarge { .. })));
    assert!(builder.finish(producer(), Compression::None).is_some());
    assert!(builder.finish(producer(), Compression::None).is_none());
}

/// The format is on disks and in foreign hands: these bytes may not change.
#[test]
fn golden() {
    let mut builder = BatchBuilder::default();
    let record = RecordRef {
        device: b"dev",
        time: TimestampMs(1000),
        endpoints: 1,
        system: &[(1, b"x")],
        properties: &[(b"a", b"b")],
        body: b"hi",
    };
    builder.push(&record).unwrap();
    let batch = builder.finish(producer(), Compression::None).unwrap();
    let hex: String = batch.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("golden-v1.hex").trim());
}
