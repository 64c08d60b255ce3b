//! Damage: rot, lost and replaced files. What is known to be lost reads as unavailable and can be
//! repaired; what may have been a vote gives amnesia; nothing is skipped, and no wrong byte is read.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use common::{collect, entry_sized, nobody, options};
use fleetline_env::memory::{ManualClock, MemDisk};
use fleetline_env::{Disk, OpenMode};
use fleetline_log::{LogEntry, LogError, NodeLog, RecoveryReport, SegLog, VoteRecord};
use fleetline_types::{GroupId, LogId, LogIndex, TimestampMs};

const GROUPS: [GroupId; 2] = [GroupId(1), GroupId(2)];

fn open(disk: &MemDisk) -> (Arc<SegLog>, RecoveryReport) {
    let clock = Arc::new(ManualClock::new(TimestampMs(0)));
    SegLog::open(Arc::new(disk.clone()), clock, options("/log", 4096)).unwrap()
}

fn settle(log: &SegLog) {
    while log.has_pending() {
        log.pump();
    }
    log.pump(); // the mark of the last round
}

fn want(index: u64) -> LogEntry {
    entry_sized(1 + index / 25, index, 150)
}

/// A disk with a log of two groups, 60 entries each, over several segments.
fn filled() -> MemDisk {
    let disk = MemDisk::new();
    let (log, _) = open(&disk);
    for index in 0..60 {
        for group in GROUPS {
            log.append(group, vec![want(index)], nobody()).unwrap();
            if index % 20 == 0 {
                log.save_vote(group, VoteRecord(Bytes::from(vec![index as u8; 8])), nobody()).unwrap();
            }
        }
        log.pump();
    }
    settle(&log);
    disk
}

fn segment(id: u32) -> PathBuf {
    Path::new("/log").join(format!("{id:010}.seg"))
}

fn sidecar(id: u32) -> PathBuf {
    segment(id).with_extension("idx")
}

fn last_segment(disk: &MemDisk) -> u32 {
    let names = disk.list(Path::new("/log")).unwrap();
    let ids = names.iter().filter_map(|name| name.strip_suffix(".seg")?.parse().ok());
    ids.max().unwrap()
}

/// Everything that reads must be right; what doesn't must be reported as damaged. Votes stand.
/// Returns the unavailable entries per group.
fn check_honest(log: &SegLog) -> Vec<Vec<u64>> {
    let picture = collect(log);
    let missing = GROUPS.map(|group| {
        let (state, entries) = &picture[&group];
        let mut missing = Vec::new();
        for (index, found) in entries.iter().enumerate() {
            match found {
                Ok(entry) => assert_eq!(*entry, want(index as u64)),
                Err(_) => missing.push(index as u64),
            }
        }
        let damaged = log.damaged(group, usize::MAX);
        assert_eq!(damaged.iter().map(|id| id.index.0).collect::<Vec<_>>(), missing);
        assert!(state.amnesia || entries.len() == 60, "a shorter log without amnesia: {state:?}");
        missing
    });
    missing.to_vec()
}

/// Repairs everything that is missing, and checks that a restart finds it whole.
fn check_repair(disk: &MemDisk, log: Arc<SegLog>) {
    for group in GROUPS {
        for id in log.damaged(group, usize::MAX) {
            let mut wrong = want(id.index.0);
            wrong.id = LogId::new(9, id.index.0);
            assert!(matches!(log.repair(group, wrong, nobody()), Err(LogError::Misuse(_))));
            log.repair(group, want(id.index.0), nobody()).unwrap();
            let read = log.read(group, id.index..id.index.next(), 1).unwrap();
            assert_eq!(read, [want(id.index.0)]);
        }
        log.clear_amnesia(group, nobody()).unwrap();
    }
    let (lost, new) = (GroupId(76), GroupId(77));
    let doubted = log.doubts_unknown();
    log.trust_unknown_groups(&[GROUPS[0], lost], nobody()).unwrap();
    settle(&log);
    drop(log);
    let (log, report) = open(disk);
    let still: &[GroupId] = if doubted { &[lost] } else { &[] };
    assert_eq!((report.damaged_entries, &report.amnesia_groups[..]), (0, still));
    assert!(!report.amnesia_unknown && check_honest(&log).iter().all(Vec::is_empty));
    assert!(!log.state(new).amnesia && !log.doubts_unknown());
    assert_eq!(log.state(lost).amnesia, doubted);
}

/// A flipped bit anywhere in a sealed segment that has a sidecar costs exactly one entry, found
/// when it is read; neither amnesia nor another entry.
#[test]
fn flipped_bits_in_a_sealed_segment() {
    let len = filled().contents(&segment(2)).unwrap().len() as u64;
    let mut hits = 0;
    for offset in (0..len).step_by(97) {
        let disk = filled();
        disk.corrupt(&segment(2), offset, 1 << (offset % 8)).unwrap();
        let (log, report) = open(&disk);
        assert!(report.amnesia_groups.is_empty() && report.damaged_ranges.is_empty(), "{report:?}");
        let missing = check_honest(&log);
        let count: usize = missing.iter().map(Vec::len).sum();
        assert!(count <= 1, "offset {offset}: {missing:?}");
        assert_eq!(log.stats().damaged, count as u64);
        hits += count;
        check_repair(&disk, log);
    }
    assert!(hits > 20);
}

/// The same without a sidecar: the scan finds it, later segments tell what should be there, and
/// they restate the votes.
#[test]
fn flipped_bits_without_a_sidecar() {
    let len = filled().contents(&segment(2)).unwrap().len() as u64;
    for offset in (0..len).step_by(61) {
        let disk = filled();
        disk.remove(&sidecar(2)).unwrap();
        disk.corrupt(&segment(2), offset, 0x10).unwrap();
        let (log, report) = open(&disk);
        assert!(report.amnesia_groups.is_empty(), "{report:?}");
        assert_eq!(report.damaged_ranges.len(), 1, "offset {offset}");
        let missing = check_honest(&log);
        assert_eq!(missing.iter().map(Vec::len).sum::<usize>() as u64, report.damaged_entries);
        assert!(report.damaged_entries <= 1);
        check_repair(&disk, log);
    }
}

/// A bit in the live segment, behind its checkpoint: a vote may have stood there, so all groups
/// have amnesia, known or not; but what can be read is kept.
#[test]
fn flipped_bits_in_the_live_segment() {
    let id = last_segment(&filled());
    let len = filled().contents(&segment(id)).unwrap().len() as u64;
    let mut amnesia = 0;
    for offset in (0..len).step_by(41) {
        let disk = filled();
        disk.corrupt(&segment(id), offset, 0x04).unwrap();
        let (log, report) = open(&disk);
        check_honest(&log);
        assert!(!report.damaged_ranges.is_empty(), "offset {offset}: {report:?}");
        assert_eq!(report.amnesia_groups, GROUPS, "offset {offset}: {report:?}");
        assert!(log.state(GroupId(77)).amnesia && report.amnesia_unknown);
        amnesia += 1;
        drop(log);
        // It is remembered.
        let (log, report) = open(&disk);
        assert_eq!(report.amnesia_groups, GROUPS);
        check_honest(&log);
    }
    assert!(amnesia > 10);
}

/// The tail of the log, once acknowledged, is cut off or rots: only the mark can tell.
#[test]
fn lost_tails_are_told_by_the_mark() {
    let id = last_segment(&filled());
    let len = filled().contents(&segment(id)).unwrap().len() as u64;
    for cut in (0..len).step_by(29) {
        for zero in [false, true] {
            let disk = filled();
            if zero {
                disk.zero(&segment(id), cut..len).unwrap();
            } else {
                disk.truncate(&segment(id), cut).unwrap();
            }
            let (log, report) = open(&disk);
            assert!(report.recovered_seq < report.mark.unwrap());
            assert_eq!(report.amnesia_groups, GROUPS, "cut {cut}");
            check_honest(&log);
            // New frames never take the numbers of lost ones.
            drop(log);
            let (log, report) = open(&disk);
            assert!(report.recovered_seq > report.mark.unwrap() - 10);
            assert_eq!(report.amnesia_groups, GROUPS);
            check_honest(&log);
        }
    }
    // Without the mark's file the loss can't be seen: that is what it is for.
    let disk = filled();
    disk.remove(Path::new("/log/high_water")).unwrap();
    let end = disk.contents(&segment(id)).unwrap().len() as u64;
    disk.truncate(&segment(id), end - 1).unwrap();
    assert!(open(&disk).1.amnesia_groups.is_empty());
}

/// Blocks of zeroes, and a segment that is shorter than it was.
#[test]
fn zeroed_blocks_and_short_segments() {
    for with_sidecar in [true, false] {
        for from in [0, 512, 2048] {
            let disk = filled();
            disk.zero(&segment(3), from..from + 512).unwrap();
            if !with_sidecar {
                disk.remove(&sidecar(3)).unwrap();
            }
            let (log, report) = open(&disk);
            assert!(report.amnesia_groups.is_empty());
            let missing: usize = check_honest(&log).iter().map(Vec::len).sum();
            assert!((1..=5).contains(&missing), "{missing} from {from}");
            check_repair(&disk, log);

            let disk = filled();
            disk.truncate(&segment(3), from).unwrap();
            if !with_sidecar {
                disk.remove(&sidecar(3)).unwrap();
            }
            let (log, report) = open(&disk);
            assert!(report.amnesia_groups.is_empty() && report.damaged_entries > 0, "{report:?}");
            assert_eq!(report.damaged_ranges.len(), 1);
            check_honest(&log);
            check_repair(&disk, log);
        }
    }
}

/// A segment is gone: its entries are unavailable, with their terms, and nothing else is harmed.
#[test]
fn missing_segments() {
    for with_sidecar in [true, false] {
        let disk = filled();
        let victim = 3;
        disk.remove(&segment(victim)).unwrap();
        if !with_sidecar {
            disk.remove(&sidecar(victim)).unwrap();
        }
        let (log, report) = open(&disk);
        assert!(report.amnesia_groups.is_empty() && report.damaged_entries > 5, "{report:?}");
        let missing = check_honest(&log);
        for (group, missing) in GROUPS.iter().zip(&missing) {
            for index in missing {
                assert_eq!(log.log_id(*group, LogIndex(*index)), Some(want(*index).id));
            }
        }
        check_repair(&disk, log);
        let (_, report) = open(&disk);
        assert!(report.damaged_ranges.is_empty(), "the loss is settled: {report:?}");
    }
}

/// The newest segment is gone as a whole: the mark tells.
#[test]
fn missing_last_segment() {
    let disk = filled();
    disk.remove(&segment(last_segment(&disk))).unwrap();
    let (log, report) = open(&disk);
    assert_eq!(report.amnesia_groups, GROUPS);
    check_honest(&log);
    let disk = filled();
    for id in 1..=last_segment(&disk) {
        disk.remove(&segment(id)).unwrap();
    }
    let (log, report) = open(&disk);
    assert!(report.amnesia_unknown && log.state(GROUPS[0]).amnesia);
}

/// An older copy of a segment, another segment's bytes under its name, and a sidecar that belongs
/// to another segment: none is believed.
#[test]
fn old_and_swapped_files() {
    let put = |disk: &MemDisk, path: &Path, bytes: &[u8]| {
        let file = disk.open(path, OpenMode::OpenOrCreate).unwrap();
        file.set_len(0).unwrap();
        file.write_at(0, &[IoSlice::new(bytes)]).unwrap();
        file.sync_data().unwrap();
    };
    let whole = filled().contents(&segment(2)).unwrap();
    for with_sidecar in [true, false] {
        let disk = filled();
        put(&disk, &segment(2), &whole[..whole.len() / 2 / 512 * 512]);
        if !with_sidecar {
            disk.remove(&sidecar(2)).unwrap();
        }
        let (log, report) = open(&disk);
        assert!(report.damaged_entries > 0 && report.amnesia_groups.is_empty(), "{report:?}");
        check_honest(&log);
        check_repair(&disk, log);

        let disk = filled();
        put(&disk, &segment(3), &whole);
        if !with_sidecar {
            disk.remove(&sidecar(3)).unwrap();
        }
        let (log, _) = open(&disk);
        assert!(check_honest(&log).iter().any(|missing| !missing.is_empty()));
        check_repair(&disk, log);
    }
    let disk = filled();
    let (two, three) = (disk.contents(&sidecar(2)).unwrap(), disk.contents(&sidecar(3)).unwrap());
    put(&disk, &sidecar(2), &three);
    put(&disk, &sidecar(3), &two);
    let (log, report) = open(&disk);
    assert_eq!((report.scanned, report.damaged_entries), (3, 0));
    assert!(check_honest(&log).iter().all(Vec::is_empty));
}

/// Files that aren't the log's are left alone, and don't disturb it.
#[test]
fn unknown_files_stay() {
    let disk = filled();
    for name in ["notes.txt", "1.seg", "00000000zz.seg"] {
        disk.open(&Path::new("/log").join(name), OpenMode::CreateNew).unwrap();
    }
    let (log, report) = open(&disk);
    assert!(report.damaged_ranges.is_empty() && report.amnesia_groups.is_empty());
    check_honest(&log);
    assert!(disk.exists(Path::new("/log/1.seg")).unwrap());
    assert!(disk.exists(Path::new("/log/00000000zz.seg")).unwrap());
}

/// A truncation may have been lost with the damaged stretch: entries of an older term before it
/// are not trusted, because they may have been replaced.
#[test]
fn a_lost_truncation_brings_nothing_back() {
    let disk = MemDisk::new();
    let (log, _) = open(&disk);
    let group = GROUPS[0];
    log.append(group, (0..6).map(|index| entry_sized(1, index, 30)).collect(), nobody()).unwrap();
    settle(&log);
    let before = disk.contents(&segment(1)).unwrap().len() as u64;
    log.truncate_after(group, Some(LogIndex(2)), nobody()).unwrap();
    log.append(group, (3..6).map(|index| entry_sized(2, index, 30)).collect(), nobody()).unwrap();
    settle(&log);
    let after = disk.contents(&segment(1)).unwrap().len() as u64;
    log.append(group, vec![entry_sized(2, 6, 30)], nobody()).unwrap();
    settle(&log);
    drop(log);
    disk.zero(&segment(1), before..after).unwrap();
    let (log, report) = open(&disk);
    assert_eq!(report.amnesia_groups, [group]);
    for (index, found) in collect(&*log)[&group].1.iter().enumerate() {
        let term = if index < 3 { 1 } else { 2 };
        if let Ok(entry) = found {
            assert_eq!(*entry, entry_sized(term, index as u64, 30), "an entry that was replaced is back");
        }
    }
    assert_eq!(log.state(group).last, Some(LogId::new(2, 6)));
}
