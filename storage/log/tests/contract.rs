//! The contract of the log, run on the model, on files in memory and on real files.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{Acks, append_all, collect, entry, entry_sized, nobody, options};
use fleetline_env::memory::{ManualClock, MemDisk};
use fleetline_env::real::{RealClock, RealDisk};
use fleetline_log::memory::MemLog;
use fleetline_log::{
    GroupLogState, InstallPrefix, LogError, LogOptions, NodeLog, SegLog, VoteRecord, WriterMode,
};
use fleetline_types::{GroupId, LogId, LogIndex, TimestampMs};

/// One implementation under test.
struct Subject {
    log: Arc<dyn NodeLog>,
    /// Makes everything durable that was asked for so far.
    settle: Box<dyn Fn()>,
    /// Opens the log again, as after an orderly end.
    reopen: Option<Box<dyn Fn() -> Arc<dyn NodeLog>>>,
    /// Nothing is durable before `settle`.
    manual: bool,
}

fn mem_log() -> Subject {
    let log = Arc::new(MemLog::manual());
    let pumped = log.clone();
    Subject { log, settle: Box::new(move || assert!(pumped.pump() < usize::MAX)), reopen: None, manual: true }
}

fn mem_log_at_once() -> Subject {
    Subject { log: Arc::new(MemLog::new()), settle: Box::new(|| ()), reopen: None, manual: false }
}

fn seg_log_in_memory() -> Subject {
    let disk = MemDisk::new();
    let open = move || {
        let clock = Arc::new(ManualClock::new(TimestampMs(0)));
        SegLog::open(Arc::new(disk.clone()), clock, options("/log", 4096)).unwrap().0
    };
    let log = open();
    let pumped = Arc::downgrade(&log);
    let settle = move || {
        while let Some(log) = pumped.upgrade().filter(|log| log.has_pending()) {
            log.pump();
        }
    };
    Subject {
        log,
        settle: Box::new(settle),
        reopen: Some(Box::new(move || open() as Arc<dyn NodeLog>)),
        manual: true,
    }
}

fn seg_log_on_files() -> Subject {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let open = move || {
        let options = LogOptions {
            writer: WriterMode::Thread,
            segment_bytes: 16 << 10,
            reserve_bytes: 0,
            ..LogOptions::new(dir.path())
        };
        SegLog::open(Arc::new(RealDisk), Arc::new(RealClock::new()), options).unwrap().0
    };
    let log = open();
    let settled = Arc::downgrade(&log);
    let settle = move || {
        // A request of our own: it completes after all before it.
        let Some(log) = settled.upgrade() else { return };
        let (sender, receiver) = std::sync::mpsc::channel();
        log.truncate_after(GroupId(999), None, Box::new(move |result| sender.send(result).unwrap())).unwrap();
        receiver.recv().unwrap().unwrap();
    };
    Subject {
        log,
        settle: Box::new(settle),
        reopen: Some(Box::new(move || open() as Arc<dyn NodeLog>)),
        manual: false,
    }
}

/// Runs `check` on every implementation.
fn on_every_log(check: impl Fn(Subject)) {
    for make in [mem_log, mem_log_at_once, seg_log_in_memory, seg_log_on_files] {
        check(make());
    }
}

const G: GroupId = GroupId(1);

fn read_ids(log: &dyn NodeLog, from: u64, to: u64) -> Vec<LogId> {
    let read = log.read(G, LogIndex(from)..LogIndex(to), u64::MAX).unwrap();
    read.iter().map(|entry| entry.id).collect()
}

/// An unknown group is all empty, and reading it gives nothing.
#[test]
fn unknown_groups_are_empty() {
    on_every_log(|subject| {
        let log = &subject.log;
        assert_eq!(log.state(G), Default::default());
        assert!(log.groups().is_empty());
        assert_eq!(log.read(G, LogIndex(0)..LogIndex(9), 99), Ok(Vec::new()));
        assert_eq!(log.log_id(G, LogIndex(0)), None);
        assert_eq!(log.retain_from(G, LogIndex(5)), Ok(()));
        assert!(log.groups().is_empty());
        assert!(log.damaged(G, 9).is_empty() && log.term_starts(G).is_empty());
    });
}

/// Appended entries are readable at once, durable only when completed, and completed in order.
#[test]
fn append_and_read() {
    on_every_log(|subject| {
        let log = &subject.log;
        let acks = Acks::default();
        let entries: Vec<_> = (0..10).map(|index| entry(1 + index / 4, index)).collect();
        for (number, chunk) in entries.chunks(3).enumerate() {
            log.append(G, chunk.to_vec(), acks.done(number)).unwrap();
        }
        assert_eq!(log.read(G, LogIndex(0)..LogIndex(100), u64::MAX).unwrap(), entries);
        assert_eq!(log.state(G).last, Some(LogId::new(3, 9)));
        if subject.manual {
            assert_eq!(log.state(G).durable, None);
            assert!(acks.taken().is_empty());
        }
        (subject.settle)();
        assert_eq!(acks.taken(), [(0, Ok(())), (1, Ok(())), (2, Ok(())), (3, Ok(()))]);
        assert_eq!(log.state(G).durable, Some(LogIndex(9)));
        assert_eq!(log.log_id(G, LogIndex(4)), Some(LogId::new(2, 4)));
        assert_eq!(log.log_id(G, LogIndex(10)), None);
        let starts = [LogId::new(1, 0), LogId::new(2, 4), LogId::new(3, 8)];
        assert_eq!(log.term_starts(G), starts);
        assert_eq!(log.groups(), if log.groups().len() == 1 { vec![G] } else { vec![G, GroupId(999)] });
    });
}

/// A read stops at its limit of bytes, never before the first entry, and at the end of the log.
#[test]
fn reads_keep_to_their_limit() {
    on_every_log(|subject| {
        let log = &subject.log;
        let entries: Vec<_> = (0..6).map(|index| entry_sized(1, index, 100)).collect();
        append_all(&**log, G, &entries);
        (subject.settle)();
        let count = |from, to, bytes| log.read(G, LogIndex(from)..LogIndex(to), bytes).unwrap().len();
        assert_eq!(count(0, 6, 0), 1);
        assert_eq!(count(0, 6, 199), 1);
        assert_eq!(count(0, 6, 200), 2);
        assert_eq!(count(4, 99, u64::MAX), 2);
        assert_eq!(count(6, 99, u64::MAX), 0);
        assert_eq!(count(3, 3, u64::MAX), 0);
    });
}

/// A hole, or an entry twice, is refused and changes nothing.
#[test]
fn holes_are_refused() {
    on_every_log(|subject| {
        let log = &subject.log;
        append_all(&**log, G, &[entry(1, 0), entry(1, 1)]);
        for bad in [vec![entry(1, 3)], vec![entry(1, 1)], vec![entry(1, 2), entry(1, 4)]] {
            assert!(matches!(log.append(G, bad, nobody()), Err(LogError::Misuse(_))));
        }
        assert!(matches!(log.append(GroupId(7), vec![entry(1, 1)], nobody()), Err(LogError::Misuse(_))));
        (subject.settle)();
        assert_eq!(log.state(G).last, Some(LogId::new(1, 1)));
    });
}

/// Truncation removes the end; entries in its place are the new ones, also when read later.
#[test]
fn truncation() {
    on_every_log(|subject| {
        let log = &subject.log;
        append_all(&**log, G, &(0..6).map(|index| entry(1, index)).collect::<Vec<_>>());
        (subject.settle)();
        log.truncate_after(G, Some(LogIndex(2)), nobody()).unwrap();
        assert_eq!(log.state(G).durable, Some(LogIndex(2)));
        append_all(&**log, G, &[entry(4, 3), entry(4, 4)]);
        assert_eq!(read_ids(&**log, 2, 9), [LogId::new(1, 2), LogId::new(4, 3), LogId::new(4, 4)]);
        (subject.settle)();
        assert_eq!(log.state(G).durable, Some(LogIndex(4)));
        log.purge(G, LogId::new(1, 1), nobody()).unwrap();
        assert!(matches!(log.truncate_after(G, Some(LogIndex(0)), nobody()), Err(LogError::Misuse(_))));
        log.truncate_after(G, Some(LogIndex(99)), nobody()).unwrap();
        assert_eq!(log.state(G).last, Some(LogId::new(4, 4)));
        log.truncate_after(G, None, nobody()).unwrap();
        assert_eq!(log.state(G).last, Some(LogId::new(1, 1)));
        assert_eq!(read_ids(&**log, 0, 9), [LogId::new(1, 0), LogId::new(1, 1)]);
    });
}

/// A purge deletes nothing; retention does, but never beyond the purge point, and never goes back.
#[test]
fn purge_and_retention() {
    on_every_log(|subject| {
        let log = &subject.log;
        append_all(&**log, G, &(0..8).map(|index| entry(1, index)).collect::<Vec<_>>());
        log.retain_from(G, LogIndex(3)).unwrap();
        assert_eq!(log.state(G).first_retained, LogIndex(0));
        log.purge(G, LogId::new(1, 4), nobody()).unwrap();
        assert_eq!(read_ids(&**log, 0, 2), [LogId::new(1, 0), LogId::new(1, 1)]);
        log.retain_from(G, LogIndex(3)).unwrap();
        log.retain_from(G, LogIndex(1)).unwrap();
        let gone = LogError::Gone { group: G, index: LogIndex(2), first: LogIndex(3) };
        assert_eq!(log.read(G, LogIndex(2)..LogIndex(9), 1), Err(gone));
        assert_eq!(log.log_id(G, LogIndex(2)), None);
        assert_eq!(log.log_id(G, LogIndex(3)), Some(LogId::new(1, 3)));
        log.retain_from(G, LogIndex(99)).unwrap();
        let state = log.state(G);
        assert_eq!((state.first_retained, state.purged), (LogIndex(5), Some(LogId::new(1, 4))));
        assert_eq!(read_ids(&**log, 5, 99).len(), 3);
        log.purge(G, LogId::new(1, 2), nobody()).unwrap();
        assert_eq!(log.state(G).purged, Some(LogId::new(1, 4)));
        log.purge(G, LogId::new(2, 20), nobody()).unwrap();
        let state = log.state(G);
        assert_eq!((state.last, state.first_retained), (Some(LogId::new(2, 20)), LogIndex(21)));
        append_all(&**log, G, &[entry(2, 21)]);
        (subject.settle)();
        assert_eq!(log.state(G).durable, Some(LogIndex(21)));
    });
}

/// The newest vote counts, and groups don't touch each other.
#[test]
fn votes_and_groups_are_separate() {
    on_every_log(|subject| {
        let log = &subject.log;
        let vote = |text: &'static str| VoteRecord(Bytes::from_static(text.as_bytes()));
        log.save_vote(G, vote("a"), nobody()).unwrap();
        log.save_vote(GroupId(2), vote("b"), nobody()).unwrap();
        log.save_vote(G, vote("c"), nobody()).unwrap();
        append_all(&**log, GroupId(2), &[entry(1, 0)]);
        log.remove_group(GroupId(2), nobody()).unwrap();
        (subject.settle)();
        assert_eq!(log.state(G).vote, Some(vote("c")));
        let removed =
            GroupLogState { vote: Some(vote("b")), amnesia: true, removed: true, ..GroupLogState::default() };
        assert_eq!((log.state(GroupId(2)), log.groups()), (removed, vec![G]));
        append_all(&**log, GroupId(2), &[entry(5, 0)]);
        (subject.settle)();
        let state = log.state(GroupId(2));
        assert_eq!((state.durable, state.amnesia, state.removed), (Some(LogIndex(0)), true, false));
        assert_eq!(log.groups(), [G, GroupId(2)]);
        assert_eq!(log.read(GroupId(2), LogIndex(0)..LogIndex(1), 1).unwrap(), [entry(5, 0)]);
    });
}

/// A snapshot of a foreign history replaces the log; its retained entries come one by one, and
/// what has not come yet is unavailable, not skipped.
#[test]
fn installing_a_snapshot() {
    on_every_log(|subject| {
        let log = &subject.log;
        let vote = VoteRecord(Bytes::from_static(b"v"));
        log.save_vote(G, vote.clone(), nobody()).unwrap();
        append_all(&**log, G, &[entry(1, 0), entry(1, 1)]);
        let prefix = InstallPrefix { snapshot_last: LogId::new(3, 9), first_retained: LogIndex(6) };
        for _ in 0..2 {
            log.install_begin(G, prefix.clone(), nobody()).unwrap();
            let state = log.state(G);
            assert_eq!((state.first_retained, state.last), (LogIndex(6), Some(LogId::new(3, 9))));
            assert_eq!((&state.purged, state.vote.as_ref()), (&Some(LogId::new(3, 9)), Some(&vote)));
            log.install_entries(G, vec![entry(2, 6), entry(2, 7)], nobody()).unwrap();
            assert_eq!(read_ids(&**log, 6, 99), [LogId::new(2, 6), LogId::new(2, 7)]);
            let missing = LogError::EntryUnavailable { group: G, index: LogIndex(8) };
            assert_eq!(log.read(G, LogIndex(8)..LogIndex(10), 1), Err(missing));
            (subject.settle)();
        }
        for bad in [entry(2, 5), entry(2, 10), entry(2, 9), entry(3, 6)] {
            assert!(matches!(log.install_entries(G, vec![bad], nobody()), Err(LogError::Misuse(_))));
        }
        log.install_entries(G, vec![entry(3, 8), entry(3, 9)], nobody()).unwrap();
        append_all(&**log, G, &[entry(3, 10)]);
        (subject.settle)();
        assert_eq!(read_ids(&**log, 6, 99).len(), 5);
        assert_eq!(log.term_starts(G), [LogId::new(2, 6), LogId::new(3, 8)]);
        assert!(log.damaged(G, 9).is_empty());
        let older = InstallPrefix { snapshot_last: LogId::new(3, 8), first_retained: LogIndex(9) };
        assert!(matches!(log.install_begin(G, older, nobody()), Err(LogError::Misuse(_))));
    });
}

/// A snapshot that ends within the log, in the same term, keeps what lies behind it.
#[test]
fn installing_a_snapshot_of_the_same_history() {
    on_every_log(|subject| {
        let log = &subject.log;
        append_all(&**log, G, &(0..6).map(|index| entry(1, index)).collect::<Vec<_>>());
        let prefix = InstallPrefix { snapshot_last: LogId::new(1, 3), first_retained: LogIndex(2) };
        log.install_begin(G, prefix, nobody()).unwrap();
        (subject.settle)();
        let state = log.state(G);
        assert_eq!((state.last, state.first_retained), (Some(LogId::new(1, 5)), LogIndex(2)));
        assert_eq!(read_ids(&**log, 2, 99).len(), 4);
        let prefix = InstallPrefix { snapshot_last: LogId::new(2, 4), first_retained: LogIndex(5) };
        log.install_begin(G, prefix, nobody()).unwrap();
        assert_eq!(log.state(G).last, Some(LogId::new(2, 4)));
        assert_eq!(read_ids(&**log, 5, 99), []);
        (subject.settle)();
    });
}

/// What was stored before an orderly end is there afterwards, to the bit.
#[test]
fn reopening() {
    on_every_log(|subject| {
        let Some(reopen) = subject.reopen else { return };
        let log = subject.log;
        let entries: Vec<_> = (0..60).map(|index| entry_sized(1 + index / 20, index, 300)).collect();
        for group in [1, 2, 3].map(GroupId) {
            for chunk in entries.chunks(7) {
                append_all(&*log, group, chunk);
                (subject.settle)();
            }
            log.save_vote(group, VoteRecord(Bytes::from(vec![group.0 as u8; 20])), nobody()).unwrap();
        }
        log.purge(G, LogId::new(2, 30), nobody()).unwrap();
        log.retain_from(G, LogIndex(10)).unwrap();
        log.truncate_after(GroupId(2), Some(LogIndex(33)), nobody()).unwrap();
        append_all(&*log, GroupId(2), &[entry(9, 34)]);
        log.remove_group(GroupId(3), nobody()).unwrap();
        (subject.settle)();
        let before = collect(&*log);
        let removed = log.state(GroupId(3));
        assert!(removed.removed && removed.vote.is_some());
        drop(log);
        for _ in 0..3 {
            let log = reopen();
            assert_eq!((collect(&*log), log.state(GroupId(3))), (before.clone(), removed.clone()));
        }
    });
}
