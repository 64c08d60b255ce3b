//! Records what producers, readers and members of consumer groups do, as a history for
//! `fleetline-checker`, and asks it for a verdict.
//!
//! All clients of a test run in its process and stamp through one [`Journal`], so they share a clock. A
//! history that doesn't pass is kept in `target/tmp`; `cargo run -p fleetline-checker --example check` reads it.
//!
//! Not here: `use` operations. Reads aren't fenced: a member may be handed records that it read before
//! another one claimed the partition (at least once), and only its checkpoints are refused.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use fleetline_checker::{History, Kind, Outcome, Record, Recorder, Report, check_all, hash_bytes};
use fleetline_client::model::CheckpointInfo;
use fleetline_client::{GroupError, PartitionId, ReceivedRecord, SendError};

/// A history that grows.
pub struct Journal {
    recorder: Recorder,
    begun: Instant,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal { recorder: Recorder::default(), begun: Instant::now() }
    }
}

impl Journal {
    /// A new process number.
    pub fn process(&mut self) -> u32 {
        self.recorder.process()
    }

    /// The time before something is asked for.
    pub fn now(&mut self) -> u64 {
        self.recorder.stamp(self.begun.elapsed())
    }

    fn complete(&mut self, invoke: u64, record: Record) {
        let complete = self.now();
        self.recorder.add(Record { invoke, complete, ..record });
    }

    /// A send has ended. It was asked for at `invoke`, for `partition`.
    pub fn sent(
        &mut self,
        process: u32,
        invoke: u64,
        partition: PartitionId,
        (device, body): (&str, &str),
        result: Result<u64, &SendError>,
    ) {
        let outcome = match result {
            Ok(_) => Outcome::Ok,
            Err(SendError::Failed(_)) => Outcome::Failed,
            Err(SendError::Unknown(_)) => Outcome::Unknown,
        };
        let (key, value) = (hash_bytes(device.as_bytes()), hash_bytes(body.as_bytes()));
        let record = Record::new(Kind::Send, process, partition.0);
        self.complete(invoke, Record { key, value, outcome, offset: result.ok(), ..record });
    }

    /// A reader begins at `next`.
    pub fn seek(&mut self, process: u32, partition: PartitionId, next: u64) {
        let invoke = self.now();
        self.complete(invoke, Record { offset: Some(next), ..Record::new(Kind::Seek, process, partition.0) });
    }

    /// A reader was given records, in this order.
    pub fn read<'a>(
        &mut self,
        process: u32,
        partition: PartitionId,
        records: impl IntoIterator<Item = &'a ReceivedRecord>,
    ) {
        let invoke = self.now();
        let complete = self.now();
        for record in records {
            let (key, value) = (hash_bytes(&record.device), hash_bytes(&record.body));
            let offset = Some(record.offset.0);
            let read = Record::new(Kind::Read, process, partition.0);
            self.recorder.add(Record { key, value, offset, invoke, complete, ..read });
        }
    }

    /// A reader has everything, after all faults.
    pub fn read_to_end(&mut self, process: u32, partition: PartitionId, end: u64) {
        let invoke = self.now();
        self.complete(invoke, Record { offset: Some(end), ..Record::new(Kind::Final, process, partition.0) });
    }

    /// Somebody was told a checkpoint: by reading it, or as the answer of a claim.
    pub fn learnt(
        &mut self,
        kind: Kind,
        process: u32,
        invoke: u64,
        partition: PartitionId,
        group: &str,
        found: &CheckpointInfo,
    ) {
        let key = hash_bytes(group.as_bytes());
        let (offset, epoch) = (found.next.map(|next| next.0), found.epoch);
        self.complete(invoke, Record { key, offset, epoch, ..Record::new(kind, process, partition.0) });
    }

    /// A checkpoint was stored, or not. The client asks again by itself until it has an answer, so a
    /// refusal says nothing of what it asked for before: only what was never asked for has failed.
    pub fn checkpointed(
        &mut self,
        process: u32,
        invoke: u64,
        partition: PartitionId,
        (group, epoch, next): (&str, u64, u64),
        result: &Result<(), GroupError>,
    ) {
        let outcome = match result {
            Ok(()) => Outcome::Ok,
            Err(GroupError::NotOwned(_)) => Outcome::Failed,
            Err(_) => Outcome::Unknown,
        };
        let (key, offset) = (hash_bytes(group.as_bytes()), Some(next));
        let record = Record::new(Kind::Checkpoint, process, partition.0);
        self.complete(invoke, Record { key, offset, epoch, outcome, ..record });
    }

    /// Claims of which only others have learnt: their members were replaced or stopped before they could
    /// tell. They have happened at some time; which answer they got is unknown.
    fn add_unseen_claims(&mut self) {
        let place = |r: &Record| (r.partition, r.key, r.epoch);
        let of_kind = |kind, records: &[Record]| -> BTreeSet<(u32, u64, u64)> {
            records.iter().filter(|r| r.kind == kind && r.epoch > 0).map(place).collect()
        };
        let history = self.recorder.history();
        let claimed = of_kind(Kind::Claim, history.records());
        for (partition, key, epoch) in &of_kind(Kind::CheckpointRead, history.records()) - &claimed {
            let claim = Record::new(Kind::Claim, self.process(), partition);
            self.complete(0, Record { key, epoch, outcome: Outcome::Unknown, ..claim });
        }
    }

    /// The checker's verdict. A history that doesn't pass is kept under the test's `name`.
    pub fn judge(&mut self, name: &str) -> Report {
        self.add_unseen_claims();
        let history = self.recorder.history();
        let report = check_all(&history);
        eprintln!("{} operations\n{report}", history.len());
        if !report.passed() {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("history-{name}.jsonl"));
            history.save(&path).unwrap();
            panic!("the history is kept in {}:\n{report}", path.display());
        }
        report
    }
}

/// A history in which an acknowledged record is in nobody's reading doesn't pass, and is kept.
#[test]
fn a_history_that_fails_is_kept() {
    let mut journal = Journal::default();
    let (process, partition) = (journal.process(), PartitionId(0));
    for (body, offset) in [("d/0", 0), ("d/1", 1)] {
        let invoke = journal.now();
        journal.sent(process, invoke, partition, ("d", body), Ok(offset));
    }
    journal.read_to_end(process, partition, 2);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("history-kept.jsonl");
    drop(std::fs::remove_file(&path));
    let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| journal.judge("kept")));
    assert!(judged.is_err());
    let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
    let report = check_all(&History::read_json_lines(file).unwrap());
    assert!(report.stream.unwrap().to_string().contains("Lost"));
}
