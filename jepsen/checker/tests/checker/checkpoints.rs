//! Checkpoints and owners: small histories against a search through all orders, and each violation by
//! its name.

use fleetline_checker::{
    CheckpointRules, History, Kind, Outcome, OwnershipRules, Record, Verdict, ViolationKind,
    check_checkpoints, check_ownership, checkpoint_violations,
};

use crate::random::Draw;

/// No violation is found exactly when the search finds an order, over many small histories.
#[test]
fn small_histories_agree_with_a_search() {
    let (mut valid, mut invalid) = (0, 0);
    for seed in 0..200_000 {
        let history = History::from_records(small(&mut Draw::new(seed)));
        let found = checkpoint_violations(&history);
        let expected = step(history.records(), &mut vec![false; history.len()], (0, None));
        assert_eq!(found.is_empty(), expected, "seed {seed}: {found:#?}\n{:#?}", history.records());
        if expected { valid += 1 } else { invalid += 1 }
    }
    assert!(valid > 1_000 && invalid > 1_000, "{valid} valid and {invalid} invalid histories say little");
}

/// Up to six operations by owners of two epochs and readers: made in a true order with answers from
/// the model, their times widened around it, sometimes with one answer changed.
fn small(draw: &mut Draw) -> Vec<Record> {
    let mut state: (u64, Option<u64>) = (0, None);
    let mut records = Vec::new();
    for at in 0..2 + draw.below(5) {
        let moment = 10 + at * 4;
        let kind = draw.pick(&[Kind::Claim, Kind::Checkpoint, Kind::Checkpoint, Kind::CheckpointRead]);
        let mut op = Record {
            invoke: moment - draw.below(9),
            complete: moment + draw.below(9),
            epoch: draw.pick(&[state.0.max(1), state.0 + 1]),
            ..Record::new(kind, at as u32, 0)
        };
        op.outcome = if draw.one_in(4) { Outcome::Unknown } else { Outcome::Ok };
        if kind == Kind::Checkpoint {
            op.offset = Some(1 + draw.below(3));
            op.epoch = state.0;
        }
        let happens = op.outcome == Outcome::Ok || draw.one_in(2);
        match apply(&op, state, false) {
            Some(next) if happens => state = next,
            Some(_) => {}
            None => op.outcome = Outcome::Failed,
        }
        if kind != Kind::Checkpoint && op.outcome == Outcome::Ok {
            (op.epoch, op.offset) = state;
        }
        records.push(op);
    }
    if draw.one_in(2) {
        let at = draw.below(records.len() as u64) as usize;
        let op = &mut records[at];
        match draw.below(3) {
            0 => op.epoch = 1 + draw.below(2),
            1 if op.offset.is_some() => op.offset = Some(1 + draw.below(3)),
            _ => (op.invoke, op.complete) = (op.invoke + 9, op.complete + 9),
        }
    }
    records
}

/// The state behind an operation that takes effect; `None` when it can't. With `answers` the answer
/// that the record holds must be the model's.
fn apply(op: &Record, state: (u64, Option<u64>), answers: bool) -> Option<(u64, Option<u64>)> {
    let answered = |state: (u64, Option<u64>)| !answers || !op.is_ok() || (op.epoch, op.offset) == state;
    match op.kind {
        Kind::Claim if op.epoch >= state.0 => Some((op.epoch, state.1)).filter(|s| answered(*s)),
        Kind::Checkpoint if op.epoch == state.0 && op.epoch > 0 => Some((state.0, state.1.max(op.offset))),
        Kind::CheckpointRead => Some(state).filter(|s| answered(*s)),
        _ => None,
    }
}

fn step(ops: &[Record], done: &mut Vec<bool>, state: (u64, Option<u64>)) -> bool {
    let skippable = |r: &Record| r.outcome != Outcome::Ok;
    if (0..ops.len()).all(|i| done[i] || skippable(&ops[i])) {
        return true;
    }
    let limit =
        (0..ops.len()).filter(|&i| !done[i] && !skippable(&ops[i])).map(|i| ops[i].complete).min().unwrap();
    for i in 0..ops.len() {
        if done[i] || ops[i].outcome == Outcome::Failed || ops[i].invoke > limit {
            continue;
        }
        if let Some(next) = apply(&ops[i], state, true) {
            done[i] = true;
            if step(ops, done, next) {
                return true;
            }
            done[i] = false;
        }
    }
    false
}

fn op(kind: Kind, process: u32, times: (u64, u64), epoch: u64, offset: Option<u64>) -> Record {
    Record { key: 5, invoke: times.0, complete: times.1, epoch, offset, ..Record::new(kind, process, 2) }
}

/// A hand-over between two owners, with a checkpoint of each: everything about it is right.
fn hand_over() -> Vec<Record> {
    vec![
        op(Kind::Claim, 1, (0, 10), 1, None),
        op(Kind::Use, 1, (11, 12), 1, Some(39)),
        op(Kind::Checkpoint, 1, (13, 20), 1, Some(40)),
        op(Kind::CheckpointRead, 3, (21, 22), 1, Some(40)),
        op(Kind::Claim, 2, (30, 40), 2, Some(40)),
        op(Kind::Use, 1, (35, 45), 1, Some(40)),
        op(Kind::Use, 2, (41, 42), 2, Some(40)),
        op(Kind::Checkpoint, 2, (50, 60), 2, Some(55)),
        op(Kind::CheckpointRead, 3, (70, 80), 2, Some(55)),
    ]
}

fn checkpoints(records: Vec<Record>) -> Verdict {
    check_checkpoints(&History::from_records(records), &CheckpointRules::default())
}

fn owners(records: Vec<Record>) -> Verdict {
    check_ownership(&History::from_records(records), &OwnershipRules::default())
}

fn assert_kind(verdict: Verdict, kind: ViolationKind) {
    match verdict {
        Verdict::Invalid(v) => assert_eq!(v.kind, kind, "{v}"),
        other => panic!("{kind:?} was planted, the verdict is {other}"),
    }
}

/// Each violation of a checkpoint, planted in the hand-over, is found under its name.
#[test]
fn planted_in_checkpoints() {
    assert_eq!(checkpoints(hand_over()), Verdict::Valid);
    let with = |extra: Record| checkpoints(hand_over().into_iter().chain([extra]).collect());
    assert_kind(with(op(Kind::CheckpointRead, 4, (61, 65), 2, Some(40))), ViolationKind::StaleCheckpoint);
    assert_kind(with(op(Kind::CheckpointRead, 4, (45, 46), 1, Some(40))), ViolationKind::StaleCheckpoint);
    assert_kind(with(op(Kind::CheckpointRead, 4, (81, 82), 2, Some(56))), ViolationKind::PhantomCheckpoint);
    assert_kind(with(op(Kind::CheckpointRead, 4, (1, 5), 1, Some(40))), ViolationKind::PhantomCheckpoint);
    assert_kind(with(op(Kind::CheckpointRead, 4, (81, 82), 3, Some(55))), ViolationKind::PhantomCheckpoint);
    assert_kind(with(op(Kind::Checkpoint, 1, (61, 65), 1, Some(60))), ViolationKind::LowerEpochAccepted);
    assert_kind(with(op(Kind::Claim, 4, (61, 65), 1, Some(55))), ViolationKind::LowerEpochAccepted);
    assert_kind(with(op(Kind::Checkpoint, 4, (81, 85), 9, Some(60))), ViolationKind::NotOwner);
    // The new owner began before a checkpoint of the old one that was accepted nevertheless.
    let mut late = hand_over();
    late[4].offset = None;
    assert_kind(checkpoints(late), ViolationKind::StaleCheckpoint);
    // What nobody knows to have happened explains a reading, what was refused doesn't.
    let unknown = Record { outcome: Outcome::Unknown, ..op(Kind::Checkpoint, 2, (61, 62), 2, Some(70)) };
    let seen = op(Kind::CheckpointRead, 3, (90, 91), 2, Some(70));
    let explained = |by: Record| checkpoints(hand_over().into_iter().chain([by, seen]).collect());
    assert_eq!(explained(unknown), Verdict::Valid);
    assert_kind(explained(Record { outcome: Outcome::Failed, ..unknown }), ViolationKind::PhantomCheckpoint);
}

/// Each violation of an ownership, planted in the hand-over, is found under its name.
#[test]
fn planted_in_ownership() {
    assert_eq!(owners(hand_over()), Verdict::Valid);
    let with = |extra: Record| owners(hand_over().into_iter().chain([extra]).collect());
    assert_kind(with(op(Kind::Use, 1, (41, 45), 1, Some(40))), ViolationKind::LowerEpochAccepted);
    assert_kind(with(op(Kind::Claim, 1, (41, 45), 1, Some(40))), ViolationKind::LowerEpochAccepted);
    assert_kind(with(op(Kind::Claim, 4, (38, 45), 2, Some(40))), ViolationKind::TwoOwners);
    assert_kind(with(op(Kind::Use, 4, (61, 62), 2, Some(41))), ViolationKind::NotOwner);
    // Other partitions and other consumer groups have owners of their own.
    let other = |r: Record| Record { key: 6, ..r };
    let both: Vec<Record> = hand_over().into_iter().chain(hand_over().into_iter().rev().map(other)).collect();
    assert_eq!(owners(both), Verdict::Valid);
}

/// Too little is vacuous.
#[test]
fn vacuous() {
    assert!(matches!(checkpoints(Vec::new()), Verdict::Vacuous(_)));
    assert!(matches!(checkpoints(hand_over()[..2].to_vec()), Verdict::Vacuous(_)));
    assert!(matches!(owners(Vec::new()), Verdict::Vacuous(_)));
}
