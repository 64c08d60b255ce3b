//! What a batch promises: records come back as they went, damage is seen, hostile bytes harm nobody.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use fleetline_batch::limits::{
    DEVICE_ID_BYTES_MAX, EXPANSION_MAX, PROPERTIES_MAX, PROPERTY_BYTES_MAX, RECORDS_MAX,
};
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
            let lying = sealed(lying);
            assert!(BatchHeader::verify(&lying).is_ok());
            // It may happen to be another sound batch, but then of as many records.
            if let Ok(records) = read(&lying) {
                assert_eq!(records.len(), 20);
            }
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

fn golden_batch() -> Bytes {
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
    builder.finish(producer(), Compression::None).unwrap()
}

/// The format is on disks and in foreign hands: these bytes may not change.
#[test]
fn golden() {
    let hex: String = golden_batch().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("golden-v1.hex").trim());
}

/// What the builder takes, a reader reads: a record over a reader's bounds is refused before it spoils
/// the batch of everybody else in it.
#[test]
fn builders_make_no_unreadable_batch() {
    let mut builder = BatchBuilder::default();
    let many: Vec<(&[u8], &[u8])> = vec![(b"k", b"v"); 300];
    let system: Vec<(u8, &[u8])> = vec![(1, b"v"); 300];
    let long = vec![7u8; 70_000];
    let good = RecordRef { device: b"d", body: b"x", ..RecordRef::default() };
    builder.push(&good).unwrap();
    for bad in [
        RecordRef { properties: &many, ..good },
        RecordRef { system: &system, ..good },
        RecordRef { properties: &[(b"k", &long)], ..good },
        RecordRef { properties: &[(&long, b"v")], ..good },
        RecordRef { system: &[(1, &long)], ..good },
        RecordRef { device: &long[..600], ..good },
    ] {
        let before = builder.len();
        assert!(matches!(builder.push(&bad), Err(PushError::OverLimit { .. })));
        assert_eq!(builder.len(), before);
    }
    let batch = builder.finish(producer(), Compression::None).unwrap();
    assert_eq!(BatchReader::new(batch).unwrap().filter(Result::is_ok).count(), 1);
}

/// At the bounds exactly, records are taken and read back.
#[test]
fn records_at_the_bounds() {
    let long = vec![7u8; PROPERTY_BYTES_MAX];
    let many: Vec<(&[u8], &[u8])> = vec![(b"", b""); PROPERTIES_MAX];
    let system: Vec<(u8, &[u8])> = vec![(0, b""); PROPERTIES_MAX];
    let device = vec![b'd'; DEVICE_ID_BYTES_MAX];
    let mut builder = BatchBuilder::new(usize::MAX);
    let record = RecordRef { device: &device, system: &system, properties: &many, ..RecordRef::default() };
    builder.push(&record).unwrap();
    builder.push(&RecordRef { properties: &[(&long, &long)], system: &[(9, &long)], ..record }).unwrap();
    let batch = builder.finish(producer(), Compression::None).unwrap();
    let records = read(&batch).unwrap();
    assert_eq!((records[0].system.len(), records[0].properties.len()), (PROPERTIES_MAX, PROPERTIES_MAX));
    assert_eq!(records[1].properties, [(long.clone(), long.clone())]);
    assert_eq!(records[1].system, [(9, long)]);
}

/// Whether a record fits any batch doesn't depend on what is in the batch it is offered to: `Full` means
/// that an empty one takes it.
#[test]
fn full_means_that_an_empty_batch_takes_it() {
    for body in 3500..4100 {
        let body = vec![1u8; body];
        let record =
            RecordRef { device: b"large", time: TimestampMs(5), body: &body, ..RecordRef::default() };
        let mut empty = BatchBuilder::new(4096);
        let alone = empty.push(&record);
        assert!(empty.len() <= 4096);
        let mut used = BatchBuilder::new(4096);
        let small = RecordRef { device: b"small", time: TimestampMs(1 << 40), ..RecordRef::default() };
        used.push(&small).unwrap();
        match used.push(&record) {
            Ok(()) | Err(PushError::Full) => assert_eq!(alone, Ok(())),
            error => assert_eq!(error, alone),
        }
    }
}

/// Puts the right crc on a batch that was tampered with: what a hostile producer can do.
fn sealed(mut batch: Vec<u8>) -> Bytes {
    let crc = fleetline_codec::checksum(&batch[..4]);
    let crc = fleetline_codec::checksum_append(crc, &batch[8..]).to_le_bytes();
    batch[4..8].copy_from_slice(&crc);
    batch.into()
}

/// Every header field that can't be true is refused by the leader's check, each by its own error, though the
/// crc is right.
#[test]
fn header_refusals() {
    let plain = sample(Compression::None);
    let packed = sample(Compression::Lz4);
    let put = |batch: &Bytes, at: usize, bytes: &[u8]| {
        let mut batch = batch.to_vec();
        batch[at..at + bytes.len()].copy_from_slice(bytes);
        format!("{:?}", BatchHeader::verify(&sealed(batch)).unwrap_err())
    };
    let large = 5_000_000u32.to_le_bytes();
    let stored = packed.len() - HEADER_BYTES;
    let bomb = (stored as u32 * EXPANSION_MAX as u32 + 1).to_le_bytes();
    let cases = [
        (put(&plain, 0, b"XX"), "BadMagic"),
        (put(&plain, 2, &[2]), "UnknownVersion"),
        (put(&plain, 3, &[2]), "UnknownKind"),
        (put(&plain, 8, &large), "batch length"),
        (put(&plain, 8, &63u32.to_le_bytes()), "shorter than its header"),
        (put(&plain, 8, &(plain.len() as u32 + 1).to_le_bytes()), "batch raw length"),
        (put(&packed, 8, &(packed.len() as u32 + 1).to_le_bytes()), "Length"),
        (put(&plain, 12, &0u32.to_le_bytes()), "no records"),
        (put(&plain, 12, &(RECORDS_MAX + 1).to_le_bytes()), "batch count"),
        (put(&plain, 12, &1000u32.to_le_bytes()), "batch count for its length"),
        (put(&plain, 32, &u64::MAX.to_le_bytes()), "batch sequence"),
        (put(&packed, 48, &large), "batch raw length"),
        (put(&packed, 48, &bomb), "batch expansion"),
        (put(&plain, 52, &[1]), "batch reserved"),
        (put(&plain, 63, &[1]), "batch reserved"),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "{found} instead of {expected}");
    }
}

/// A compressed batch whose bytes come out longer or shorter than the header says is refused.
#[test]
fn lying_about_the_raw_length() {
    let packed = sample(Compression::Lz4);
    let raw_len = BatchHeader::parse(&packed).unwrap().raw_len;
    for lie in [raw_len - 1, raw_len + 1, raw_len * 2] {
        let mut batch = packed.to_vec();
        batch[48..52].copy_from_slice(&lie.to_le_bytes());
        let batch = sealed(batch);
        assert!(BatchHeader::verify(&batch).is_ok());
        assert!(matches!(read(&batch), Err(BatchError::Compression(_))), "{lie} instead of {raw_len}");
    }
}

/// A count that is one too low or too high for the records behind it is refused by the reader.
#[test]
fn lying_about_the_count() {
    for lie in [19u32, 21] {
        let mut batch = sample(Compression::None).to_vec();
        batch[12..16].copy_from_slice(&lie.to_le_bytes());
        assert!(matches!(read(&sealed(batch)), Err(BatchError::Decode(_))), "{lie} instead of 20");
    }
}

/// Every other value of every byte is seen by the leader's check.
#[test]
fn changed_bytes_are_seen() {
    let batch = golden_batch();
    fleetline_codec::kit::assert_flips_detected(&batch, 0..batch.len(), BatchHeader::verify);
}

/// What is handed out lies in the batch's memory.
#[test]
fn reading_does_not_copy() {
    let batch = sample(Compression::None);
    let inside = |bytes: &Bytes| batch.as_ptr_range().contains(&bytes.as_ptr());
    for record in BatchReader::new(batch.clone()).unwrap() {
        let record = record.unwrap();
        assert!(inside(&record.device) && inside(&record.body));
        assert!(record.system().all(|(_, value)| inside(&value)));
        assert!(record.properties().all(|(name, value)| inside(&name) && inside(&value)));
    }
}

/// A compressed batch from an earlier release: the compressor may change, what it wrote must be read.
#[test]
fn golden_compressed() {
    let hex = include_str!("golden-v1-lz4.hex").trim();
    let pairs = hex.as_bytes().chunks(2);
    let bytes: Vec<u8> =
        pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    let batch = Bytes::from(bytes);
    assert_eq!(BatchHeader::verify(&batch).unwrap().compression, Compression::Lz4);
    assert_eq!(read(&batch).unwrap(), read(&sample(Compression::None)).unwrap());
}
