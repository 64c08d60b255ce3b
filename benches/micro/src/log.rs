//! Appends to a node's log until they are durable: on a disk in memory (our own cost, with the copy
//! that such a disk makes) and on the real one (what its syncs cost, shared by a window of entries).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use fleetline_env::Disk;
use fleetline_env::memory::MemDisk;
use fleetline_env::real::{RealClock, RealDisk};
use fleetline_log::{LogEntry, LogError, LogOptions, NodeLog, Payload, SegLog, WriterMode};
use fleetline_types::{GroupId, LogId, LogIndex};

use crate::{Outcome, Report, bytes_like_data, same, timed};

/// Entries on their way at a time.
const WINDOW: u64 = 64;
const GROUP: GroupId = GroupId(1);

pub(crate) fn run(report: &mut Report<'_>) -> Outcome<()> {
    for len in [100, 16 << 10] {
        in_memory(report, len)?;
        on_disk(report, len)?;
    }
    Ok(())
}

fn open(disk: Arc<dyn Disk>, options: LogOptions) -> Outcome<Arc<SegLog>> {
    Ok(SegLog::open(disk, Arc::new(RealClock::new()), options)?.0)
}

fn entry(index: u64, body: &Bytes) -> LogEntry {
    let payload = Payload { head: Bytes::from_static(b"\x01\x01"), body: body.clone() };
    LogEntry { id: LogId::new(1, index), kind: 1, payload }
}

/// Completions of appends, in a queue that holds a window.
struct Completions {
    done: SyncSender<Result<(), LogError>>,
    came: Receiver<Result<(), LogError>>,
}

impl Completions {
    fn new() -> Completions {
        let (done, came) = sync_channel(WINDOW as usize);
        Completions { done, came }
    }

    fn append(&self, log: &SegLog, entry: LogEntry) -> Outcome<()> {
        let done = self.done.clone();
        // Never full: no more than a window is on its way.
        Ok(log.append(GROUP, vec![entry], Box::new(move |outcome| drop(done.try_send(outcome))))?)
    }

    fn next(&self) -> Outcome<()> {
        Ok(self.came.recv()??)
    }
}

/// Checks that all entries are durable and the last reads as it was written, and lets go of all.
fn check_and_drop(log: &SegLog, next: u64, body: &Bytes) -> Outcome<()> {
    let last = LogIndex(next - 1);
    same("durable", Some(last), log.state(GROUP).durable)?;
    let read = log.read(GROUP, last..LogIndex(next), u64::MAX)?;
    same("entry", &[entry(last.0, body)][..], &read[..])?;
    log.purge(GROUP, LogId::new(1, last.0), Box::new(drop))?;
    Ok(log.retain_from(GROUP, LogIndex(next))?)
}

fn in_memory(report: &mut Report<'_>, len: usize) -> Outcome<()> {
    let options =
        LogOptions { writer: WriterMode::Manual, segment_bytes: 4 << 20, ..LogOptions::new("/log") };
    let log = open(Arc::new(MemDisk::new()), options)?;
    let (body, completions, mut next) = (bytes_like_data(len), Completions::new(), 0);
    let count = report.effort.fewer(len as u64 / 100);
    report.bench(format!("append memory, {len} B, rounds of {WINDOW}"), "entry", || {
        let end = next + count;
        let (took, ()) = timed(|| {
            while next < end {
                let upto = (next + WINDOW).min(end);
                for index in next..upto {
                    completions.append(&log, entry(index, &body))?;
                }
                while log.has_pending() {
                    log.pump();
                }
                for _ in next..upto {
                    completions.next()?;
                }
                next = upto;
            }
            Ok(())
        })?;
        check_and_drop(&log, next, &body)?;
        while log.has_pending() {
            log.pump();
        }
        Ok((took, count))
    })
}

fn on_disk(report: &mut Report<'_>, len: usize) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let options = LogOptions { segment_bytes: 16 << 20, reserve_bytes: 0, ..LogOptions::new(dir.path()) };
    let log = open(Arc::new(RealDisk), options)?;
    let (body, completions, mut next) = (bytes_like_data(len), Completions::new(), 0);
    let count = report.effort.fewer(10 + len as u64 / 100);
    report.bench(format!("append disk, {len} B, {WINDOW} in flight"), "entry", || {
        let end = next + count;
        let (took, ()) = timed(|| {
            let mut on_their_way = 0;
            while next < end || on_their_way > 0 {
                while next < end && on_their_way < WINDOW {
                    completions.append(&log, entry(next, &body))?;
                    (next, on_their_way) = (next + 1, on_their_way + 1);
                }
                completions.next()?;
                on_their_way -= 1;
            }
            Ok(())
        })?;
        check_and_drop(&log, next, &body)?;
        Ok((took, count))
    })
}
