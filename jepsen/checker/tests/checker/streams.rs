//! Small histories of a stream against a search through all orders.
//!
//! The search knows only the promise: a log to which each acknowledged send appends once, between its
//! invocation and its completion; unknown ones may do so at any later time; a read finds a record
//! that is there at some moment between its own times.

use fleetline_checker::{History, Kind, Outcome, Record, StreamRules, Verdict, ViolationKind, check_stream};

use crate::random::Draw;

/// The checker says "valid" exactly when the search finds an order, over thousands of small histories
/// of which a good part is wrong.
#[test]
fn small_histories_agree_with_a_search() {
    let (mut valid, mut invalid) = (0, 0);
    for seed in 0..200_000 {
        let history = History::from_records(small(&mut Draw::new(seed)));
        let verdict = check_stream(&history, &StreamRules { acknowledged_min: 0, reads_min: 0 });
        let expected = search(history.records());
        assert_eq!(verdict.is_valid(), expected, "seed {seed}: {verdict}\n{:#?}", history.records());
        if expected { valid += 1 } else { invalid += 1 }
    }
    assert!(valid > 1_000 && invalid > 1_000, "{valid} valid and {invalid} invalid histories say little");
}

/// Two to four sends and a few reads, mostly true: offsets in a random order, sometimes one changed.
fn small(draw: &mut Draw) -> Vec<Record> {
    let count = 2 + draw.below(3);
    let mut log: Vec<u64> = Vec::new();
    let mut records = Vec::new();
    for value in 1..=count {
        let (invoke, length) = (draw.below(8), draw.below(8));
        let outcome = draw.pick(&[Outcome::Ok, Outcome::Ok, Outcome::Ok, Outcome::Unknown, Outcome::Failed]);
        let stored = outcome == Outcome::Ok || outcome == Outcome::Unknown && draw.one_in(2);
        if stored {
            log.insert(draw.below(log.len() as u64 + 1) as usize, value);
        }
        records.push(Record {
            value,
            invoke,
            complete: invoke + length,
            outcome,
            // One process a send, except that the first two may share one.
            ..Record::new(Kind::Send, if value == 2 && draw.one_in(2) { 1 } else { value as u32 }, 0)
        });
    }
    for record in records.iter_mut().filter(|r| r.outcome == Outcome::Ok) {
        record.offset = log.iter().position(|v| *v == record.value).map(|at| at as u64);
    }
    if draw.one_in(6) && log.len() > 1 {
        let (from, to) = (draw.below(log.len() as u64) as usize, draw.below(log.len() as u64) as usize);
        log[to] = log[from];
    }
    // A reader in the middle of it all, and one behind it.
    let invoke = draw.below(12);
    let early = Record { invoke, complete: invoke + draw.below(6), ..Record::new(Kind::Read, 20, 0) };
    let late = Record { invoke: 20, complete: 21, ..Record::new(Kind::Read, 21, 0) };
    let seen = draw.below(log.len() as u64 + 1) as usize;
    for (reader, upto) in [(early, seen), (late, log.len())] {
        let read = |(at, value): (usize, &u64)| Record { value: *value, offset: Some(at as u64), ..reader };
        records.extend(log[..upto].iter().enumerate().map(read));
    }
    if draw.one_in(8)
        && let Some(at) = records.iter().rposition(|r| r.kind == Kind::Read)
    {
        records.remove(at);
    }
    records.push(Record { kind: Kind::Final, offset: Some(log.len() as u64), ..late });
    records
}

fn search(records: &[Record]) -> bool {
    let end = records.iter().find(|r| r.kind == Kind::Final).and_then(|r| r.offset).unwrap();
    let every_offset_read =
        (0..end).all(|o| records.iter().any(|r| r.kind == Kind::Read && r.offset == Some(o)));
    let nothing_behind_the_end =
        records.iter().all(|r| r.kind != Kind::Send || r.offset.is_none_or(|o| o < end));
    if !every_offset_read || !nothing_behind_the_end {
        return false;
    }
    let ops: Vec<&Record> =
        records.iter().filter(|r| r.kind != Kind::Final && r.outcome != Outcome::Failed).collect();
    step(&ops, &mut vec![false; ops.len()], &mut Vec::new())
}

/// Tries every operation that may come next.
fn step(ops: &[&Record], done: &mut Vec<bool>, log: &mut Vec<u64>) -> bool {
    let ends = |r: &Record| if r.outcome == Outcome::Unknown { u64::MAX } else { r.complete };
    if (0..ops.len()).all(|i| done[i] || ops[i].outcome == Outcome::Unknown) {
        return holes_allowed(ops, done);
    }
    // Nothing may come that begins after the end of something that is still to come.
    let limit = (0..ops.len()).filter(|&i| !done[i]).map(|i| ends(ops[i])).min().unwrap();
    for i in 0..ops.len() {
        if done[i] || ops[i].invoke > limit || !in_session_order(ops, done, i) {
            continue;
        }
        let op = ops[i];
        if op.kind == Kind::Read {
            if log.get(op.offset.unwrap() as usize) == Some(&op.value) {
                done[i] = true;
                if step(ops, done, log) {
                    return true;
                }
                done[i] = false;
            }
        } else if op.offset.is_none_or(|o| o == log.len() as u64) {
            done[i] = true;
            log.push(op.value);
            if step(ops, done, log) {
                return true;
            }
            log.pop();
            done[i] = false;
        }
    }
    false
}

/// A send may not come when a later one of its session has.
fn in_session_order(ops: &[&Record], done: &[bool], i: usize) -> bool {
    let later = |j: usize| j > i && ops[j].kind == Kind::Send && ops[j].process == ops[i].process;
    ops[i].kind != Kind::Send || !(0..ops.len()).any(|j| later(j) && done[j])
}

/// No unknown send is absent below an acknowledged one that was sent while it was in flight.
fn holes_allowed(ops: &[&Record], done: &[bool]) -> bool {
    let hole = |i: usize, j: usize| {
        !done[i]
            && ops[i].kind == Kind::Send
            && ops[j].kind == Kind::Send
            && ops[j].outcome == Outcome::Ok
            && ops[i].process == ops[j].process
            && i < j
            && ops[j].invoke < ops[i].complete
    };
    !(0..ops.len()).any(|i| (0..ops.len()).any(|j| hole(i, j)))
}

/// What one reader was given and the last reader doesn't find behind the end is lost, whether it was
/// acknowledged or not: having been read once is no excuse.
#[test]
fn an_end_that_went_back_is_a_loss() {
    for outcome in [Outcome::Ok, Outcome::Unknown] {
        let at = |kind, process, offset, time| {
            let (value, offset) = (offset + 1, Some(offset));
            Record { value, offset, invoke: time, complete: time, ..Record::new(kind, process, 0) }
        };
        let acknowledged = outcome == Outcome::Ok;
        let second = Record { outcome, ..at(Kind::Send, 1, 1, 2) };
        let second = Record { offset: second.offset.filter(|_| acknowledged), ..second };
        let reads = [at(Kind::Read, 2, 0, 3), at(Kind::Read, 2, 1, 4), at(Kind::Read, 3, 0, 5)];
        let end = Record { value: 0, ..at(Kind::Final, 3, 1, 6) };
        let mut records = vec![at(Kind::Send, 1, 0, 1), second];
        records.extend(reads);
        records.push(end);
        match check_stream(&History::from_records(records), &StreamRules::default()) {
            Verdict::Invalid(found) => assert_eq!(found.kind, ViolationKind::Lost, "{found}"),
            other => panic!("{outcome:?}: {other}"),
        }
    }
}
