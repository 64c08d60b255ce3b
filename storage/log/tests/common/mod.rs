//! What the tests of the log share: entries, options, and a picture of everything a log holds.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use fleetline_log::{
    Done, GroupLogState, LogEntry, LogError, LogOptions, MarkPolicy, NodeLog, Payload, WriterMode,
};
use fleetline_types::{GroupId, LogId, LogIndex};
use parking_lot::Mutex;

/// An entry whose content depends on its id.
pub fn entry(term: u64, index: u64) -> LogEntry {
    entry_sized(term, index, 20 + (term * 7 + index * 13) as usize % 40)
}

/// An entry with this many bytes of payload, different for every id.
pub fn entry_sized(term: u64, index: u64, bytes: usize) -> LogEntry {
    let fill: Vec<u8> = (0..bytes as u64).map(|at| (at * 31 + term * 101 + index * 17) as u8).collect();
    let fill = Bytes::from(fill);
    let head = bytes.min(5);
    let payload = Payload { head: fill.slice(..head), body: fill.slice(head..) };
    LogEntry { id: LogId::new(term, index), kind: (index % 5) as u8, payload }
}

/// A completion that nobody waits for.
pub fn nobody() -> Done {
    Box::new(|_| ())
}

pub fn append_all(log: &dyn NodeLog, group: GroupId, entries: &[LogEntry]) {
    log.append(group, entries.to_vec(), nobody()).unwrap();
}

/// Small segments, driven by hand, without a cache worth the name, so that reads go to the disk.
pub fn options(dir: &str, segment_bytes: u64) -> LogOptions {
    LogOptions {
        segment_bytes,
        round_bytes_max: 2048,
        cache_bytes: 0,
        reserve_bytes: 0,
        mark: MarkPolicy::EverySync,
        writer: WriterMode::Manual,
        ..LogOptions::new(dir)
    }
}

type Acked = Vec<(usize, Result<(), LogError>)>;

/// Collects completions by number.
#[derive(Clone, Default)]
pub struct Acks(Arc<Mutex<Acked>>);

impl Acks {
    pub fn done(&self, number: usize) -> Done {
        let acks = self.0.clone();
        Box::new(move |result| acks.lock().push((number, result)))
    }

    pub fn taken(&self) -> Acked {
        std::mem::take(&mut self.0.lock())
    }

    pub fn count(&self) -> usize {
        self.0.lock().len()
    }
}

/// All that a group holds: its state, and each entry or the fact that it is unavailable.
pub type Picture = BTreeMap<GroupId, (GroupLogState, Vec<Result<LogEntry, LogIndex>>)>;

/// Reads everything.
pub fn collect(log: &dyn NodeLog) -> Picture {
    let groups = log.groups().into_iter();
    groups
        .map(|group| {
            let state = log.state(group);
            let end = state.last.map_or(0, |last| last.index.0 + 1);
            let entries = (state.first_retained.0..end)
                .map(|index| match log.read(group, LogIndex(index)..LogIndex(index + 1), u64::MAX) {
                    Ok(mut read) if read.len() == 1 => {
                        let entry = read.remove(0);
                        assert_eq!(log.log_id(group, LogIndex(index)), Some(entry.id));
                        Ok(entry)
                    }
                    Err(LogError::EntryUnavailable { index, .. }) => Err(index),
                    other => panic!("entry {index} of group {group} reads as {other:?}, state {state:?}"),
                })
                .collect();
            (group, (state, entries))
        })
        .collect()
}
