//! The history of the stream workload, for `fleetline-checker`.
//!
//! Written by producers, readers and owners (`stream.rs`, `owners.rs`), all in virtual time; judged once,
//! when every replica was read to its end. Its verdict stands beside that of the account (`account.rs`),
//! which looks at what replicas hold; this looks at what clients saw, when, and in which order.
//!
//! Not here: the device workload, whose records only take up places (`devices/check.rs` judges them).

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use fleetline_checker::{Kind, Outcome, Record, Recorder, Report, Verdict, check_all, hash_bytes};
use tokio::time::Instant;

use crate::account::{Stored, is_thing};
use crate::node::PARTITION;

/// Later than everything in a run.
const END: Duration = Duration::from_secs(1 << 30);

/// A history that grows.
#[derive(Debug)]
pub(crate) struct Journal {
    recorder: Recorder,
    begun: Instant,
    /// Records of devices that somebody read: offset, device, body.
    things: BTreeSet<(u64, u64, u64)>,
}

impl Journal {
    pub(crate) fn new(begun: Instant) -> Journal {
        Journal { recorder: Recorder::default(), begun, things: BTreeSet::new() }
    }

    /// A new process number.
    pub(crate) fn process(&mut self) -> u32 {
        self.recorder.process()
    }

    /// How many operations there are.
    pub(crate) fn len(&self) -> u64 {
        self.recorder.len() as u64
    }

    /// The time before something is asked for.
    pub(crate) fn now(&mut self) -> u64 {
        self.recorder.stamp(self.begun.elapsed())
    }

    /// Something that was asked for at `invoke` has ended.
    pub(crate) fn ended(&mut self, invoke: u64, record: Record) {
        let complete = self.now();
        self.recorder.add(Record { invoke, complete, ..record });
    }

    /// A batch of `device` was acknowledged, at an offset where one was given, or its answer is open.
    pub(crate) fn sent(
        &mut self,
        process: u32,
        invoke: u64,
        (device, bodies): (&str, &[String]),
        outcome: Outcome,
        base_offset: Option<u64>,
    ) {
        let complete = self.now();
        let key = hash_bytes(device.as_bytes());
        for (body, place) in bodies.iter().zip(0..) {
            let (value, offset) = (hash_bytes(body.as_bytes()), base_offset.map(|base| base + place));
            let send = Record::new(Kind::Send, process, PARTITION.0);
            self.recorder.add(Record { key, value, offset, outcome, invoke, complete, ..send });
        }
    }

    /// A reader begins at `next`.
    pub(crate) fn seek(&mut self, process: u32, next: u64) {
        let invoke = self.now();
        self.ended(invoke, Record { offset: Some(next), ..Record::new(Kind::Seek, process, PARTITION.0) });
    }

    /// A reader was given records, in this order.
    pub(crate) fn read(&mut self, process: u32, invoke: u64, records: &[Stored]) {
        let complete = self.now();
        for record in records {
            let (key, value) = (hash_bytes(record.device.as_bytes()), hash_bytes(record.body.as_bytes()));
            let read = Record::new(Kind::Read, process, PARTITION.0);
            let offset = Some(record.offset);
            if is_thing(&record.device) {
                self.things.insert((record.offset, key, value));
            }
            self.recorder.add(Record { key, value, offset, invoke, complete, ..read });
        }
    }

    /// Asks the checkers, once somebody has read everything, up to `end`. A history that doesn't pass is
    /// written to `kept`, if that is given.
    pub(crate) fn judge(&mut self, end: u64, kept: Option<&Path>) -> Result<Report, String> {
        self.finish(end);
        let history = self.recorder.history();
        let report = check_all(&history);
        // A run too short for a claim is no failure; that many seeds together did enough is a test's to say.
        let fails = |verdict: &&Verdict| !matches!(verdict, Verdict::Valid | Verdict::Vacuous(_));
        let verdicts = [&report.stream, &report.checkpoints, &report.ownership];
        if !verdicts.into_iter().flatten().any(|verdict| fails(&verdict)) {
            return Ok(report);
        }
        match kept.map(|path| history.save(path)) {
            Some(Err(error)) => Err(format!("checker:\n{report}{error}")),
            Some(Ok(())) | None => Err(format!("checker:\n{report}")),
        }
    }

    /// Ends the history: the stream was read to its end, and records of devices may have been sent at any
    /// time.
    fn finish(&mut self, end: u64) {
        let process = self.process();
        let (outcome, complete) = (Outcome::Unknown, END.as_nanos() as u64);
        for (_, key, value) in std::mem::take(&mut self.things) {
            let send = Record::new(Kind::Send, process, PARTITION.0);
            self.recorder.add(Record { key, value, outcome, complete, ..send });
        }
        let (invoke, offset) = (self.now(), Some(end));
        self.ended(invoke, Record { offset, ..Record::new(Kind::Final, process, PARTITION.0) });
    }
}
