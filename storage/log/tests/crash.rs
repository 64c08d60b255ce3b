//! Power cuts: random operations against the model, and every crash point of a recorded run.
//!
//! What must hold after any cut: the log is what some prefix of the requested frames makes, that
//! prefix contains everything acknowledged, and nothing is reported as damaged or forgotten.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use common::{Acks, Picture, collect, entry_sized, nobody, options};
use fleetline_env::memory::{ManualClock, MemDisk, SeededEntropy};
use fleetline_env::{Disk, Entropy};
use fleetline_log::memory::MemLog;
use fleetline_log::{InstallPrefix, LogEntry, LogOptions, NodeLog, RecoveryReport, SegLog, VoteRecord};
use fleetline_types::{GroupId, LogId, LogIndex, TimestampMs};
use proptest::prelude::*;

/// One frame's worth of change: what a crash can keep or lose as a whole.
#[derive(Clone, Debug)]
enum Op {
    Append(LogEntry),
    Vote(u8),
    Truncate(Option<LogIndex>),
    Purge(LogId),
    Retain(LogIndex),
    InstallBegin(InstallPrefix),
    Install(LogEntry),
    Remove,
}

type Step = (GroupId, Op);

/// Asks `log` for one step.
fn ask(log: &dyn NodeLog, step: &Step, done: fleetline_log::Done) {
    let group = step.0;
    match &step.1 {
        Op::Append(entry) => log.append(group, vec![entry.clone()], done),
        Op::Vote(vote) => log.save_vote(group, VoteRecord(Bytes::from(vec![*vote; 9])), done),
        Op::Truncate(keep) => log.truncate_after(group, *keep, done),
        Op::Purge(upto) => log.purge(group, *upto, done),
        Op::Retain(first) => {
            let result = log.retain_from(group, *first);
            done(Ok(()));
            result
        }
        Op::InstallBegin(prefix) => log.install_begin(group, prefix.clone(), done),
        Op::Install(entry) => log.install_entries(group, vec![entry.clone()], done),
        Op::Remove => log.remove_group(group, done),
    }
    .unwrap_or_else(|error| panic!("{step:?}: {error}"));
}

/// Draws steps that are valid for the log as the model has it.
struct Source {
    model: MemLog,
    dice: SeededEntropy,
    term: u64,
    votes: u8,
}

impl Source {
    fn new(seed: u64) -> Source {
        Source { model: MemLog::new(), dice: SeededEntropy::new(seed), term: 1, votes: 0 }
    }

    fn below(&self, n: u64) -> u64 {
        self.dice.next_u64() % n
    }

    /// The next steps: one, or a few that belong together.
    fn draw(&mut self) -> Vec<Step> {
        let group = GroupId(1 + self.below(3) as u32);
        let state = self.model.state(group);
        let next = state.last.map_or(0, |last| last.index.0 + 1);
        let floor = state.purged.map_or(0, |purged| purged.index.0 + 1);
        let ops = match self.below(40) {
            0..=23 => {
                let count = 1 + self.below(4);
                let term = self.term;
                let size = |dice: u64| if dice == 0 { 900 } else { 10 + dice as usize * 30 };
                let entries = (next..next + count).map(|index| entry_sized(term, index, size(self.below(8))));
                entries.map(Op::Append).collect()
            }
            24..=27 => {
                self.votes = self.votes.wrapping_add(1);
                vec![Op::Vote(self.votes)]
            }
            28..=29 => {
                self.term += 1;
                let keep = floor + self.below(next - floor + 1);
                vec![Op::Truncate(keep.checked_sub(1).map(LogIndex))]
            }
            30..=33 if next > 0 => match self.model.log_id(group, LogIndex(self.below(next))) {
                Some(id) => vec![Op::Purge(id)],
                None => vec![],
            },
            34..=36 => vec![Op::Retain(LogIndex(self.below(floor + 1)))],
            37 => {
                self.term += 1;
                let last = LogId::new(self.term, next + self.below(3));
                let first = last.index.0 + 1 - self.below(3).min(last.index.0);
                let prefix = InstallPrefix { snapshot_last: last, first_retained: LogIndex(first) };
                let entries = (first..=last.index.0).map(|index| entry_sized(self.term, index, 40));
                std::iter::once(Op::InstallBegin(prefix)).chain(entries.map(Op::Install)).collect()
            }
            38 if self.below(4) == 0 => vec![Op::Remove],
            _ => vec![],
        };
        let steps: Vec<Step> = ops.into_iter().map(|op| (group, op)).collect();
        steps.iter().for_each(|step| ask(&self.model, step, nobody()));
        steps
    }
}

fn open(disk: &MemDisk, options: LogOptions) -> (Arc<SegLog>, RecoveryReport) {
    let clock = Arc::new(ManualClock::new(TimestampMs(0)));
    SegLog::open(Arc::new(disk.clone()), clock, options).unwrap()
}

/// `first_retained` and what lies below may lag behind after a crash (nobody is promised that a
/// retention happened), so it isn't compared; durable is everything after a start.
fn comparable(picture: Picture) -> Picture {
    let mut picture = picture;
    for (state, entries) in picture.values_mut() {
        state.durable = state.last.map(|last| last.index);
        let floor = state.purged.map_or(0, |purged| purged.index.0 + 1);
        let drop = (floor.saturating_sub(state.first_retained.0) as usize).min(entries.len());
        entries.drain(..drop);
        state.first_retained = LogIndex(0);
    }
    picture
}

/// How many of `steps` make the log that was found; at least `acked`.
fn explain(found: &Picture, steps: &[Step], acked: usize) -> usize {
    let model = MemLog::new();
    steps[..acked].iter().for_each(|step| ask(&model, step, nobody()));
    for count in acked..=steps.len() {
        if comparable(collect(&model)) == *found {
            return count;
        }
        if let Some(step) = steps.get(count) {
            ask(&model, step, nobody());
        }
    }
    let acked_model = MemLog::new();
    steps[..acked].iter().for_each(|step| ask(&acked_model, step, nobody()));
    panic!(
        "no prefix of {} steps from the {acked} acknowledged makes {found:#?}\nacknowledged:\n{:#?}\nthen: {:?}",
        steps.len(),
        comparable(collect(&acked_model)),
        &steps[acked..]
    );
}

/// A log that is driven step by step and knows what was acknowledged.
struct Driven {
    log: Arc<SegLog>,
    acks: Acks,
    /// Everything asked for, in order, since the beginning (a start cuts what was lost).
    steps: Vec<Step>,
    base: usize,
}

impl Driven {
    fn new(log: Arc<SegLog>, steps: Vec<Step>) -> Driven {
        Driven { log, acks: Acks::default(), base: steps.len(), steps }
    }

    fn ask(&mut self, step: Step) {
        ask(&*self.log, &step, self.acks.done(self.steps.len()));
        self.steps.push(step);
    }
}

/// Random operations with crashes and orderly restarts in between; after each, the log is what the
/// model says for some prefix of the requests that holds all acknowledged ones.
fn random_run(seed: u64, rounds: usize) {
    let mut source = Source::new(seed);
    let mut disk = MemDisk::new();
    disk.create_dir_all(Path::new("/")).unwrap();
    let mut driven = Driven::new(open(&disk, options("/log", 4096)).0, Vec::new());
    for round in 0..rounds {
        for _ in 0..1 + source.below(30) {
            source.draw().into_iter().for_each(|step| driven.ask(step));
            if source.below(3) == 0 {
                driven.log.pump();
            }
        }
        let orderly = source.below(3) == 0;
        while orderly && driven.log.has_pending() {
            driven.log.pump();
        }
        // Retentions complete when asked for, before they are durable: they are no promise.
        let acked = durable_prefix(&driven);
        let seed = source.dice.next_u64();
        let Driven { log, mut steps, .. } = driven;
        drop(log);
        disk = disk.crash(seed);
        let (log, report) = open(&disk, options("/log", 4096));
        assert!(report.damaged_ranges.is_empty() && !report.amnesia_unknown, "round {round}: {report:?}");
        let found = comparable(collect(&*log));
        let count = explain(&found, &steps, acked);
        assert!(
            !orderly || count == steps.len() || steps[count..].iter().all(no_effect),
            "{:?}",
            &steps[count..]
        );
        steps.truncate(count);
        source.model = MemLog::new();
        steps.iter().for_each(|step| ask(&source.model, step, nobody()));
        driven = Driven::new(log, steps);
    }
}

fn no_effect(step: &Step) -> bool {
    matches!(step.1, Op::Retain(_))
}

/// Steps up to the last acknowledged one that isn't a retention.
fn durable_prefix(driven: &Driven) -> usize {
    let acked = driven.acks.taken();
    assert!(acked.iter().all(|(_, result)| result.is_ok()));
    let real = acked.iter().filter(|(number, _)| !no_effect(&driven.steps[*number]));
    real.map(|(number, _)| number + 1).max().unwrap_or(driven.base)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// See `random_run`.
    #[test]
    fn random_operations_with_crashes(seed in any::<u64>()) {
        random_run(seed, 8);
    }
}

/// Cuts the power after every single change of a recorded run, several images each.
#[test]
fn every_crash_point() {
    let (mut images, mut points, mut opened_later) = (0, 0, 0);
    for seed in 0..4u64 {
        let disk = MemDisk::new();
        let mut source = Source::new(seed + 1000);
        // What a first life left, so that the start itself is cut as well.
        let first = open(&disk, options("/log", 2048)).0;
        let mut steps = Vec::new();
        for _ in 0..20 {
            for step in source.draw() {
                ask(&*first, &step, nobody());
                steps.push(step);
            }
        }
        while first.has_pending() {
            first.pump();
        }
        drop(first);
        disk.record();
        let mut acked_after = vec![(0, steps.len())];
        let mut driven = Driven::new(open(&disk, options("/log", 2048)).0, steps);
        let mut acked = driven.steps.len();
        for _ in 0..40 {
            source.draw().into_iter().for_each(|step| driven.ask(step));
            driven.log.pump();
            acked = acked.max(durable_prefix(&driven));
            acked_after.push((disk.recorded(), acked));
        }
        drop(driven.log);
        for point in 0..=disk.recorded() {
            points += 1;
            let known = acked_after.iter().rev().find(|(changes, _)| *changes <= point);
            let acked = known.map_or(0, |(_, acked)| *acked);
            for (at, image) in disk.images_after(point, seed, 4).into_iter().enumerate() {
                let context =
                    || format!("seed {seed}, image {at} after change {point} ({})", disk.describe(point));
                let (log, report) = open(&image, options("/log", 2048));
                let clean = report.damaged_ranges.is_empty() && !report.amnesia_unknown;
                assert!(clean, "{}: {report:?}", context());
                let count = explain(&comparable(collect(&*log)), &driven.steps, acked);
                opened_later += usize::from(count > acked);
                images += 1;
                // The start after the crash is a crash point too: an image of an image.
                drop(log);
                let again = image.crash(point as u64);
                let log = open(&again, options("/log", 2048)).0;
                explain(&comparable(collect(&*log)), &driven.steps[..count], count.min(acked));
            }
        }
    }
    println!("{points} crash points, {images} images, {opened_later} with more than was acknowledged");
    assert!(images > 1000 && opened_later > 0);
}
