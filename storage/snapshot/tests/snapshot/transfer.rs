//! Whole transfers: equal bytes at every offset, resuming, and honest refusals.

use std::path::Path;
use std::sync::Arc;

use fleetline_snapshot::{Part, SnapshotDir, SnapshotError, SnapshotMeta, SnapshotReader};
use fleetline_state::StateStore;
use fleetline_types::LogIndex;
use proptest::prelude::*;

use crate::kit::*;

fn transfer(sender: &Node, receiver: &Node, meta: &SnapshotMeta, max_bytes: usize) {
    let mut staging = receiver.dir().begin(meta).unwrap();
    send(&mut source(sender), &mut staging, max_bytes).unwrap();
    assert_eq!(&staging.finish().unwrap(), meta);
}

/// Rows and log of the sender replace those of the receiver; other groups and files stay alone.
#[test]
fn replaces_rows_and_log() {
    for (sizes, max_bytes) in [(SMALL, 7), (LARGE, 100_000), (LARGE, usize::MAX)] {
        let ((sender, meta), receiver) = (sender(sizes), receiver());
        let expected = expected(&sender, &receiver, &meta);
        transfer(&sender, &receiver, &meta, max_bytes);
        assert_eq!(receiver.dir().pending_installs().unwrap(), [G]);
        assert_eq!(receiver.install().unwrap(), meta);
        assert_eq!(receiver.contents(), expected);
        assert_eq!(receiver.restart(1).contents(), expected, "all of it is durable");
        assert_eq!(files(&receiver.restart(1)), [""; 0]);
        assert_eq!(receiver.dir().pending_installs().unwrap(), []);
        let missing = receiver.install().unwrap_err();
        assert!(matches!(missing, SnapshotError::Missing { .. }), "{missing}");
    }
}

/// A snapshot that nobody wants any more is forgotten for good, and leaves rows and log as they were.
#[test]
fn a_pending_snapshot_can_be_discarded() {
    let ((sender, meta), receiver) = (sender(SMALL), receiver());
    let before = receiver.contents();
    receiver.dir().discard_pending(G).unwrap();
    transfer(&sender, &receiver, &meta, usize::MAX);
    assert_eq!(receiver.dir().pending(G).unwrap(), Some(meta));
    receiver.dir().discard_pending(G).unwrap();
    let restarted = receiver.restart(3);
    assert_eq!(restarted.dir().pending(G).unwrap(), None);
    assert_eq!((restarted.dir().pending_installs().unwrap(), restarted.contents()), (vec![], before));
}

/// What does the work may move between threads.
#[test]
fn moves_between_threads() {
    fn check<T: Send>() {}
    check::<fleetline_snapshot::SnapshotSource>();
    check::<fleetline_snapshot::Staging>();
    check::<SnapshotReader>();
    fn check_shared<T: Send + Sync + Clone>() {}
    check_shared::<SnapshotDir>();
}

/// A snapshot without rows, and one without entries, are complete snapshots.
#[test]
fn empty_parts() {
    for sizes in [Sizes { rows: 0, ..SMALL }, Sizes { first: SMALL.last + 1, ..SMALL }] {
        let ((sender, meta), receiver) = (sender(sizes), receiver());
        let expected = expected(&sender, &receiver, &meta);
        transfer(&sender, &receiver, &meta, 11);
        receiver.install().unwrap();
        assert_eq!(receiver.contents(), expected);
    }
}

/// Entries behind the snapshot stay when the log holds its last entry, as the log promises.
#[test]
fn keeps_the_log_behind_a_known_last_entry() {
    let ((sender, meta), receiver) = (sender(SMALL), receiver());
    let ahead: Vec<_> = (5..=SMALL.last + 3).map(|index| entry(index, 6)).collect();
    fleetline_log::NodeLog::append(&receiver.log, G, ahead, Box::new(|_| ())).unwrap();
    transfer(&sender, &receiver, &meta, 64);
    receiver.install().unwrap();
    let log = receiver.log.groups.lock()[&G].clone();
    let kept: Vec<u64> = log.entries.keys().map(|index| index.0).collect();
    assert_eq!(kept, (SMALL.first..=SMALL.last + 3).collect::<Vec<_>>());
}

/// The stream doesn't depend on how it is asked for, how the log gives entries, or who reads it.
#[test]
fn bytes_are_the_same_however_asked() {
    let (sender, meta) = sender(LARGE);
    let whole = stream(&mut source(&sender), usize::MAX);
    assert_eq!(stream(&mut source(&sender), 33_333), whole);
    let slow = Node { log: TestLog { read_max: 1, ..sender.log.clone() }, ..sender };
    let mut again = source(&slow);
    assert_eq!(stream(&mut again, 1_000_000), whole);
    assert_eq!(again.meta(), &meta);
    // Back and forth, and exactly at the end.
    for offset in [0, 1, whole.len() - 1, 7, whole.len() / 2, whole.len() / 2 + 1, whole.len() - 60, 40] {
        let piece = again.stream_chunk(offset as u64, 500).unwrap();
        assert!(!piece.bytes.is_empty());
        assert_eq!(piece.bytes, whole[offset..offset + piece.bytes.len()], "at {offset}");
        assert_eq!(piece.last, offset + piece.bytes.len() == whole.len());
    }
    let end = again.stream_chunk(whole.len() as u64, 500).unwrap();
    assert!(end.last && end.bytes.is_empty());
    let behind = again.stream_chunk(whole.len() as u64 + 1, 500).unwrap_err();
    let expected = whole.len() as u64;
    assert_eq!(behind, SnapshotError::WrongOffset { expected, found: expected + 1 });
}

/// Going back over many marks gives the same bytes; a log of 12 MB makes at least two.
#[test]
fn goes_back_to_marks() {
    let (sender, _) = sender(Sizes { last: 130, entry_bytes: 100_000, ..SMALL });
    let mut source = source(&sender);
    let whole = stream(&mut source, usize::MAX);
    assert!(whole.len() > 12_000_000);
    for offset in (0..whole.len()).step_by(1_300_001).collect::<Vec<_>>().into_iter().rev() {
        let piece = source.stream_chunk(offset as u64, 50_000).unwrap();
        assert!(piece.bytes == whole[offset..offset + piece.bytes.len()], "at {offset}");
    }
}

/// A transfer goes on where its good bytes end: after a lost connection, and after a power cut that
/// tore what had been written.
#[test]
fn resumes_after_interruptions() {
    let ((sender, meta), mut receiver) = (sender(LARGE), receiver());
    let expected = expected(&sender, &receiver, &meta);
    let whole = stream(&mut source(&sender), usize::MAX);
    let mut sent = 0;
    let mut resumed = 0;
    for seed in 0.. {
        let mut staging = receiver.dir().begin(&meta).unwrap();
        resumed += u64::from(staging.offset() > 0);
        assert_eq!(
            receiver.disk.contents(Path::new("/snapshots/g7.staging")).unwrap(),
            whole[..staging.offset() as usize]
        );
        let mut source = source(&sender);
        // Every life of the receiver takes more than the last.
        let mut done = false;
        for _ in 0..=seed {
            let piece = source.stream_chunk(staging.offset(), 150_000).unwrap();
            staging.write(staging.offset(), &piece.bytes).unwrap();
            sent += piece.bytes.len();
            done = piece.last;
            if done {
                break;
            }
        }
        if done {
            staging.finish().unwrap();
            break;
        }
        if seed % 2 == 0 {
            // The name is durable; the bytes may be torn.
            fleetline_env::Disk::sync_dir(&receiver.disk, Path::new("/snapshots")).unwrap();
            receiver = receiver.restart(seed);
        }
    }
    assert!(resumed >= 3, "resumed {resumed} times");
    assert!(sent > whole.len());
    receiver.install().unwrap();
    assert_eq!(receiver.contents(), expected);
}

/// Bytes of another snapshot are dropped, and a wrong offset is refused with the right one.
#[test]
fn begins_anew_for_another_snapshot() {
    let ((sender, meta), receiver) = (sender(SMALL), receiver());
    let bytes = stream(&mut source(&sender), usize::MAX);
    let mut staging = receiver.dir().begin(&meta).unwrap();
    staging.write(0, &bytes[..bytes.len() - 1]).unwrap();
    let wrong = staging.write(0, &bytes).unwrap_err();
    assert_eq!(wrong, SnapshotError::WrongOffset { expected: bytes.len() as u64 - 1, found: 0 });
    drop(staging);
    assert!(receiver.dir().begin(&meta).unwrap().offset() > 0);
    for other in [
        SnapshotMeta { id: "s-other".into(), ..meta.clone() },
        SnapshotMeta { first_retained: LogIndex(11), ..meta.clone() },
    ] {
        let mut staging = receiver.dir().begin(&other).unwrap();
        assert_eq!(staging.offset(), 0);
        staging.write(0, &bytes).unwrap();
        let found = staging.finish().unwrap_err();
        assert!(matches!(found, SnapshotError::Unexpected { .. }), "{found}");
        assert_eq!(receiver.dir().pending_installs().unwrap(), []);
    }
}

/// When retention has taken a part of the range, the source says so at once or when it gets there.
#[test]
fn a_stale_snapshot_is_gone() {
    let (sender, _) = sender(LARGE);
    let mut open = source(&sender);
    let whole = stream(&mut open, usize::MAX);
    sender.log.retain(LARGE.first + 2);
    let gone =
        |index| SnapshotError::Gone { group: G, index: LogIndex(index), first: LogIndex(LARGE.first + 2) };
    let opened = sender.dir().source(G, Arc::new(sender.log.clone()));
    assert_eq!(opened.unwrap_err(), gone(LARGE.first));
    let offset = whole.len() as u64 - 1_000_000;
    assert_eq!(open.stream_chunk(offset, 10).unwrap_err(), gone(LARGE.first));
    // Rows are still there, and so is what lies behind the place it stood at.
    assert_eq!(open.stream_chunk(9, 10).unwrap().bytes, whole[9..19]);
}

/// A missing entry is told apart from one that is gone, and the stream goes on once it is back.
#[test]
fn an_unavailable_entry_stops_the_stream() {
    let (sender, _) = sender(LARGE);
    let whole = stream(&mut source(&sender), usize::MAX);
    let lost = LogIndex(LARGE.first + 20);
    let entry = sender.log.groups.lock().get_mut(&G).unwrap().entries.remove(&lost).unwrap();
    let mut source = source(&sender);
    let mut bytes = Vec::new();
    let error = loop {
        match source.stream_chunk(bytes.len() as u64, 50_000) {
            Ok(piece) => bytes.extend_from_slice(&piece.bytes),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SnapshotError::Unavailable { index, .. } if index == lost), "{error}");
    sender.log.groups.lock().get_mut(&G).unwrap().entries.insert(lost, entry);
    while bytes.len() < whole.len() {
        bytes.extend_from_slice(&source.stream_chunk(bytes.len() as u64, 50_000).unwrap().bytes);
    }
    assert!(bytes == whole);
}

/// Neither side eats into the reserve that belongs to the log.
#[test]
fn leaves_the_reserve_alone() {
    let ((sender, meta), receiver) = (sender(LARGE), receiver());
    receiver.disk.set_capacity(Some(500_000));
    let mut staging = receiver.dir().begin(&meta).unwrap();
    let full = send(&mut source(&sender), &mut staging, 10_000).unwrap_err();
    assert!(full.is_retryable(), "{full}");
    assert!(staging.offset() <= 499_000);
    receiver.disk.set_capacity(None);
    send(&mut source(&sender), &mut staging, 10_000).unwrap();
    staging.finish().unwrap();

    sender.disk.set_capacity(Some(2_000_000));
    let again = SnapshotMeta { id: "s-again".into(), ..meta.clone() };
    let full = sender.dir().write_state(&again, &mut *sender.state.snapshot(G).unwrap()).unwrap_err();
    assert!(matches!(full, SnapshotError::DiskFull { .. }), "{full}");
    assert_eq!(sender.dir().state(G).unwrap().unwrap().meta(), &meta, "the older one is still there");
}

/// A snapshot that the format can't hold is refused before anything is written.
#[test]
fn refuses_impossible_headers() {
    let (sender, meta) = sender(SMALL);
    for bad in [
        SnapshotMeta { id: String::new(), ..meta.clone() },
        SnapshotMeta { id: "x".repeat(129), ..meta.clone() },
        SnapshotMeta { membership: vec![0; (1 << 20) + 1].into(), ..meta.clone() },
        SnapshotMeta { first_retained: LogIndex(SMALL.last + 2), ..meta.clone() },
    ] {
        sender.dir().write_state(&bad, &mut *sender.state.snapshot(G).unwrap()).unwrap_err();
        sender.dir().begin(&bad).unwrap_err();
        SnapshotMeta::decode(bad.encode().into()).unwrap_err();
    }
    assert_eq!(SnapshotMeta::decode(meta.encode().into()).unwrap(), meta);
}

/// All files of a group go with it, and only those.
#[test]
fn removes_a_group() {
    let ((sender, meta), receiver) = (sender(SMALL), receiver());
    transfer(&sender, &receiver, &meta, 50);
    receiver.dir().begin(&meta).unwrap();
    let other = SnapshotMeta { group: OTHER, ..meta };
    receiver.dir().write_state(&other, &mut *receiver.state.snapshot(OTHER).unwrap()).unwrap();
    assert_eq!(files(&receiver), ["g7.install", "g7.staging", "g8.state"]);
    receiver.dir().remove_group(G).unwrap();
    receiver.dir().remove_group(G).unwrap();
    assert_eq!(files(&receiver.restart(0)), ["g8.state"]);
    assert!(receiver.dir().state(G).unwrap().is_none());
}

/// A log that loses a request doesn't hang the install.
#[test]
fn a_dropped_request_is_an_error() {
    let ((sender, meta), mut receiver) = (sender(LARGE), receiver());
    transfer(&sender, &receiver, &meta, 100_000);
    receiver.log.drops_requests = true;
    let error = receiver.install().unwrap_err();
    assert!(matches!(error, SnapshotError::Log(_)), "{error}");
    assert_eq!(receiver.dir().pending_installs().unwrap(), [G]);
}

/// The state part reads back as the rows that were in the view, even on the real disk.
#[test]
fn works_on_the_real_disk() {
    let temp = tempfile::tempdir().unwrap();
    let (sender, meta) = sender(LARGE);
    let receiver = receiver();
    let expected = expected(&sender, &receiver, &meta);
    let disk = Arc::new(fleetline_env::real::RealDisk);
    let options = fleetline_snapshot::SnapshotOptions {
        reserve_bytes: 0,
        ..fleetline_snapshot::SnapshotOptions::new(temp.path().join("a/b"))
    };
    let dir = SnapshotDir::open(disk.clone(), options.clone()).unwrap();
    let mut staging = dir.begin(&meta).unwrap();
    send(&mut source(&sender), &mut staging, 123_456).unwrap();
    staging.finish().unwrap();
    let dir = SnapshotDir::open(disk, options).unwrap();
    assert_eq!(dir.pending_installs().unwrap(), [G]);
    dir.install(G, &receiver.log, &receiver.state).unwrap();
    assert_eq!(receiver.contents(), expected);
    assert_eq!(std::fs::read_dir(temp.path().join("a/b")).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any snapshot, asked in any pieces, arrives whole.
    #[test]
    fn any_snapshot_arrives(
        rows in 0..40u32, row_bytes in 0..30_000usize, entries in 0..30u64, entry_bytes in 0..30_000usize,
        max_bytes in 1_000..400_000usize,
    ) {
        let sizes = Sizes { rows, row_bytes, first: 5, last: 4 + entries, entry_bytes };
        let ((sender, meta), receiver) = (sender(sizes), receiver());
        let expected = expected(&sender, &receiver, &meta);
        transfer(&sender, &receiver, &meta, max_bytes);
        let path = Path::new("/snapshots/g7.install");
        let file = fleetline_env::Disk::open(&receiver.disk, path, fleetline_env::OpenMode::Read).unwrap();
        let reader = SnapshotReader::verified(path, &file, Part::Whole).unwrap();
        prop_assert_eq!(reader.meta(), &meta);
        receiver.install().unwrap();
        prop_assert_eq!(receiver.contents(), expected);
    }
}
