//! Space and failures: full disks, failed writes, two openers, segments that go, threads.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{Acks, append_all, collect, entry_sized, nobody, options};
use fleetline_env::Disk;
use fleetline_env::memory::{FaultKind, FaultRule, ManualClock, MemDisk};
use fleetline_env::real::{RealClock, RealDisk};
use fleetline_log::{
    LogError, LogOptions, MarkPolicy, NodeLog, RecoveryReport, SegLog, VoteRecord, WriterMode,
};
use fleetline_types::{GroupId, LogId, LogIndex, TimestampMs};

const G: GroupId = GroupId(1);

fn clock() -> ManualClock {
    ManualClock::new(TimestampMs(0))
}

fn open(disk: &MemDisk, options: LogOptions) -> (Arc<SegLog>, RecoveryReport) {
    SegLog::open(Arc::new(disk.clone()), Arc::new(clock()), options).unwrap()
}

fn settle(log: &SegLog) {
    while log.has_pending() {
        log.pump();
    }
    log.pump();
}

fn segments(disk: &MemDisk) -> usize {
    disk.list(Path::new("/log")).unwrap().iter().filter(|name| name.ends_with(".seg")).count()
}

/// A second opener of the folder is refused with a reason; after the first is gone it may.
#[test]
fn two_openers() {
    let disk = MemDisk::new();
    let (first, _) = open(&disk, options("/log", 4096));
    let second = SegLog::open(Arc::new(disk.clone()), Arc::new(clock()), options("/log", 4096));
    let Err(LogError::Misuse(text)) = second else { panic!("{second:?}") };
    assert!(text.contains("in use by another process"), "{text}");
    drop(first);
    open(&disk, options("/log", 4096));
    let mut bad = options("/other", 4096);
    bad.segment_bytes = 2 << 30;
    let refused = SegLog::open(Arc::new(disk), Arc::new(clock()), bad);
    assert!(matches!(refused, Err(LogError::Misuse(_))));
}

/// New data is refused before the reserve is touched, queued bytes count, and it recovers by
/// itself when space is there again.
#[test]
fn disk_full_is_refused_before_it_happens() {
    let disk = MemDisk::new();
    disk.set_capacity(Some(100_000));
    let time = clock();
    let options = LogOptions { reserve_bytes: 40_000, ..options("/log", 1 << 20) };
    let (log, _) = SegLog::open(Arc::new(disk.clone()), Arc::new(time.clone()), options).unwrap();
    let mut accepted = 0;
    let refused = loop {
        match log.admit(5_000) {
            Ok(()) => {
                append_all(&*log, G, &[entry_sized(1, accepted, 5_000)]);
                accepted += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LogError::DiskFull { .. }) && refused.is_retryable(), "{refused}");
    assert!((10..12).contains(&accepted), "{accepted}");
    settle(&log);
    assert!(log.admit(5_000).is_err());
    time.advance(Duration::from_millis(100));
    assert!(log.admit(5_000).is_err());
    disk.set_capacity(Some(200_000));
    time.advance(Duration::from_millis(100));
    assert_eq!(log.admit(5_000), Ok(()));
    assert!(log.stats().free_bytes > 100_000);
}

/// The bound of the queue refuses, too, and says so; one request always fits into an empty one.
#[test]
fn a_full_queue_is_refused() {
    let disk = MemDisk::new();
    let options = LogOptions { queue_bytes_max: 3_000, ..options("/log", 1 << 20) };
    let (log, _) = open(&disk, options);
    assert_eq!(log.admit(9_000), Ok(()));
    append_all(&*log, G, &[entry_sized(1, 0, 2_000)]);
    let refused = log.admit(2_000).unwrap_err();
    assert!(matches!(refused, LogError::Busy { bytes_max: 3_000, .. }) && refused.is_retryable());
    settle(&log);
    assert_eq!(log.admit(2_000), Ok(()));
}

/// After a failed write, sync, creation of a segment or mark, nothing is acknowledged any more, also
/// not when the disk works again; a restart finds everything that was acknowledged.
#[test]
fn the_first_failure_poisons() {
    for (kind, path) in [
        (FaultKind::Sync, ".seg"),
        (FaultKind::Write, ".seg"),
        (FaultKind::ShortWrite, ".seg"),
        (FaultKind::SyncDir, "/log"),
        (FaultKind::Sync, "high_water"),
    ] {
        let disk = MemDisk::new();
        let (log, _) = open(&disk, options("/log", 4096));
        let acks = Acks::default();
        disk.inject(FaultRule { count: 1, ..FaultRule::once(kind, path).after(3) });
        let mut asked = 0;
        let mut failed_from = None;
        for index in 0..200u64 {
            let entry = entry_sized(1, index, 100);
            match log.append(G, vec![entry], acks.done(index as usize)) {
                Ok(()) => asked += 1,
                Err(LogError::Poisoned { .. }) => break,
                Err(other) => panic!("{other}"),
            }
            log.pump();
        }
        let acked = acks.taken();
        assert_eq!(acked.len(), asked, "{kind:?}: every request completes");
        for (number, result) in &acked {
            match result {
                Ok(()) => assert_eq!(failed_from, None, "{kind:?}: acknowledged after a failure"),
                Err(LogError::Poisoned { .. }) => failed_from = failed_from.or(Some(*number)),
                Err(other) => panic!("{other}"),
            }
        }
        let good = failed_from.unwrap_or(acked.len());
        assert!(asked < 200, "{kind:?} on {path} never struck");
        assert!(matches!(log.admit(1), Err(LogError::Poisoned { .. })));
        let vote = VoteRecord(Bytes::new());
        assert!(matches!(log.save_vote(G, vote, nobody()), Err(LogError::Poisoned { .. })));
        drop(log);
        disk.clear_faults();
        let (log, report) = open(&disk.crash(7), options("/log", 4096));
        assert!(report.amnesia_groups.is_empty(), "{kind:?}: {report:?}");
        let found = collect(&*log).remove(&G).map_or(0, |(_, entries)| entries.len());
        assert!(found >= good, "{kind:?}: {found} of {good}");
    }
}

/// An entry that can't be read from the disk is unavailable here, and can be repaired.
#[test]
fn unreadable_blocks() {
    let disk = MemDisk::new();
    let (log, _) = open(&disk, options("/log", 1 << 20));
    append_all(&*log, G, &(0..5).map(|index| entry_sized(1, index, 100)).collect::<Vec<_>>());
    settle(&log);
    disk.inject(FaultRule { count: 2, ..FaultRule::once(FaultKind::Read, ".seg") });
    let unavailable = LogError::EntryUnavailable { group: G, index: LogIndex(0) };
    assert_eq!(log.read(G, LogIndex(0)..LogIndex(5), u64::MAX), Err(unavailable));
    assert_eq!(log.damaged(G, 9), [LogId::new(1, 0)]);
    log.repair(G, entry_sized(1, 0, 100), nobody()).unwrap();
    settle(&log);
    assert_eq!(log.read(G, LogIndex(0)..LogIndex(5), u64::MAX).unwrap().len(), 5);
    assert_eq!(log.stats().damaged, 0);
}

/// Segments go when all groups have passed them, and no vote goes with them; a laggard's few entries
/// are copied forward and stay readable, also after a restart.
#[test]
fn retention_and_copy_forward() {
    let disk = MemDisk::new();
    let (log, _) = open(&disk, options("/log", 8192));
    let laggard = GroupId(2);
    log.save_vote(laggard, VoteRecord(Bytes::from_static(b"old")), nobody()).unwrap();
    append_all(&*log, laggard, &(0..3).map(|index| entry_sized(1, index, 50)).collect::<Vec<_>>());
    for index in 0..200u64 {
        append_all(&*log, G, &[entry_sized(1, index, 500)]);
        log.pump();
    }
    settle(&log);
    let before = segments(&disk);
    assert!(before > 10);
    log.purge(G, LogId::new(1, 190), nobody()).unwrap();
    settle(&log);
    assert_eq!(segments(&disk), before, "a purge deletes nothing");
    log.retain_from(G, LogIndex(191)).unwrap();
    for _ in 0..10 {
        settle(&log);
    }
    assert!(segments(&disk) <= 3, "{} segments", segments(&disk));
    assert_eq!(log.stats().segments, segments(&disk) as u64);
    let picture = collect(&*log);
    assert_eq!(picture[&laggard].1.len(), 3);
    assert!(picture.values().all(|(_, entries)| entries.iter().all(Result::is_ok)));
    drop(log);
    for seed in 0..20 {
        let (log, report) = open(&disk.crash(seed), options("/log", 8192));
        assert!(report.damaged_ranges.is_empty(), "{report:?}");
        assert_eq!(collect(&*log), picture);
        assert_eq!(log.state(laggard).vote, Some(VoteRecord(Bytes::from_static(b"old"))));
    }
}

/// Restarts leave no litter: each begins a segment, and takes away those that hold nothing.
#[test]
fn restarts_do_not_pile_up_segments() {
    let disk = MemDisk::new();
    for round in 0..30 {
        let (log, report) = open(&disk, options("/log", 8192));
        assert!(report.damaged_ranges.is_empty(), "{report:?}");
        append_all(&*log, G, &[entry_sized(1, round, 50)]);
        let purged = LogId::new(1, round.saturating_sub(1));
        log.purge(G, purged, nobody()).unwrap();
        log.retain_from(G, purged.index).unwrap();
        settle(&log);
        settle(&log);
    }
    assert!(segments(&disk) <= 4, "{} segments", segments(&disk));
}

/// The cache gives up what is durable when over its bound, and never what is not.
#[test]
fn the_cache_keeps_what_is_not_durable() {
    let disk = MemDisk::new();
    let (log, _) = open(&disk, options("/log", 1 << 20));
    let entries: Vec<_> = (0..50).map(|index| entry_sized(1, index, 100)).collect();
    append_all(&*log, G, &entries);
    disk.inject(FaultRule::for_ever(FaultKind::Read, ".seg"));
    assert_eq!(log.read(G, LogIndex(0)..LogIndex(50), u64::MAX).unwrap(), entries);
    disk.clear_faults();
    settle(&log);
    disk.inject(FaultRule::for_ever(FaultKind::Read, ".seg"));
    assert!(log.read(G, LogIndex(49)..LogIndex(50), u64::MAX).is_err(), "it was evicted");
}

/// With threads: many senders, a small queue that makes them wait, reads meanwhile; every request
/// is completed in the order of its group, and a restart finds all of it.
#[test]
fn threads_with_a_small_queue() {
    let dir = tempfile::tempdir().unwrap();
    let options = || LogOptions {
        segment_bytes: 64 << 10,
        queue_bytes_max: 4 << 10,
        cache_bytes: 8 << 10,
        reserve_bytes: 0,
        mark: MarkPolicy::EverySync,
        writer: WriterMode::Thread,
        ..LogOptions::new(dir.path())
    };
    let (log, _) = SegLog::open(Arc::new(RealDisk), Arc::new(RealClock::new()), options()).unwrap();
    let woken = Arc::new(AtomicUsize::new(0));
    let count = woken.clone();
    log.set_waker(Box::new(move || assert!(count.fetch_add(1, Ordering::Relaxed) < 1000)));
    std::thread::scope(|scope| {
        for group in (1..=4).map(GroupId) {
            let log = &log;
            scope.spawn(move || {
                let acks = Acks::default();
                for index in 0..100u64 {
                    log.append(group, vec![entry_sized(1, index, 300)], acks.done(index as usize)).unwrap();
                    let from = index / 2;
                    let read = log.read(group, LogIndex(from)..LogIndex(index + 1), u64::MAX).unwrap();
                    assert_eq!(read.len() as u64, index + 1 - from);
                }
                let (sender, receiver) = std::sync::mpsc::channel();
                let done = Box::new(move |result| sender.send(result).unwrap());
                log.purge(group, LogId::new(1, 3), done).unwrap();
                receiver.recv().unwrap().unwrap();
                let order: Vec<usize> = acks.taken().into_iter().map(|(number, _)| number).collect();
                assert!(order.into_iter().eq(0..100));
            });
        }
    });
    assert_eq!(woken.load(Ordering::Relaxed), 404);
    assert!(log.stats().syncs > 0 && log.stats().queued == 0);
    let picture = collect(&*log);
    drop(log);
    let (log, report) = SegLog::open(Arc::new(RealDisk), Arc::new(RealClock::new()), options()).unwrap();
    assert!(report.damaged_ranges.is_empty() && report.mark.is_some(), "{report:?}");
    assert_eq!(collect(&*log), picture);
}

/// A completion that panics takes the writer's thread with it; then everything that waits fails
/// instead of waiting for ever.
#[test]
fn a_panicking_completion_fails_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { reserve_bytes: 0, ..LogOptions::new(dir.path()) };
    let (log, _) = SegLog::open(Arc::new(RealDisk), Arc::new(RealClock::new()), options).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let vote = VoteRecord(Bytes::from_static(b"v"));
    log.save_vote(G, vote.clone(), Box::new(|_| panic!("on purpose"))).unwrap();
    loop {
        let sender = sender.clone();
        let done = Box::new(move |result| sender.send(result).unwrap());
        let asked = log.save_vote(G, vote.clone(), done);
        let result = asked.and_then(|()| receiver.recv().unwrap());
        if let Err(error) = result {
            assert!(matches!(error, LogError::Poisoned { .. }), "{error}");
            break;
        }
    }
}
