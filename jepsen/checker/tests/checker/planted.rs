//! One planted violation of each kind in an otherwise true history is found, under its name.

use fleetline_checker::{
    History, Kind, Outcome, Record, StreamRules, Verdict, ViolationKind, check_all, check_stream,
};

use crate::random::{Draw, valid};

/// Histories of a true order pass, whatever the seed, with several partitions in one history.
#[test]
fn true_histories_are_valid() {
    for seed in 0..400 {
        let mut records = valid(seed, 0, 200);
        records.extend(valid(seed + 1000, 3, 50));
        let verdict = check_stream(&History::from_records(records), &StreamRules::default());
        assert_eq!(verdict, Verdict::Valid, "seed {seed}");
    }
}

/// Plants a violation; `None` when this history offers no place for it.
type Plant = fn(&mut Vec<Record>, &mut Draw) -> Option<()>;

const PLANTS: [(ViolationKind, Plant); 10] = [
    (ViolationKind::Lost, lose),
    (ViolationKind::Phantom, invent),
    (ViolationKind::FailedSendStored, fail_what_is_stored),
    (ViolationKind::Duplicated, duplicate),
    (ViolationKind::Reordered, reorder),
    (ViolationKind::Disagreement, disagree),
    (ViolationKind::Gap, leave_gap),
    (ViolationKind::Skipped, skip),
    (ViolationKind::WentBack, go_back),
    (ViolationKind::RealTime, defy_time),
];

/// Every plant is found under its name in at least 50 different histories.
#[test]
fn planted_violations_are_found_by_name() {
    for (kind, plant) in PLANTS {
        let mut planted = 0;
        for seed in 0..120 {
            let mut records = valid(seed, 0, 200);
            if plant(&mut records, &mut Draw::new(seed + 77)).is_none() {
                continue;
            }
            planted += 1;
            match check_stream(&History::from_records(records), &StreamRules::default()) {
                Verdict::Invalid(v) => assert_eq!(v.kind, kind, "seed {seed}: {v}"),
                other => panic!("seed {seed}: {kind:?} was planted, the verdict is {other}"),
            }
        }
        assert!(planted >= 50, "{kind:?} could be planted only {planted} times");
    }
}

/// A random record that `wanted` likes.
fn any(records: &[Record], draw: &mut Draw, wanted: impl Fn(&Record) -> bool) -> Option<Record> {
    let picked: Vec<Record> = records.iter().copied().filter(|r| wanted(r)).collect();
    (!picked.is_empty()).then(|| draw.pick(&picked))
}

fn acknowledged(r: &Record) -> bool {
    r.kind == Kind::Send && r.is_ok()
}

fn last_reader(records: &[Record]) -> Record {
    *records.iter().rfind(|r| r.kind == Kind::Final).expect("every history is read to its end")
}

fn lose(records: &mut Vec<Record>, draw: &mut Draw) -> Option<()> {
    let lost = any(records, draw, acknowledged)?;
    records.retain(|r| r.kind != Kind::Read || r.offset != lost.offset);
    Some(())
}

/// Gives the reader that reads to the end one more record.
fn append(records: &mut Vec<Record>, key: u64, value: u64) {
    let end = last_reader(records);
    let at = records.iter().rposition(|r| r.kind == Kind::Final).unwrap();
    records[at].offset = end.offset.map(|o| o + 1);
    records.insert(at, Record { key, value, kind: Kind::Read, ..end });
}

fn invent(records: &mut Vec<Record>, _: &mut Draw) -> Option<()> {
    append(records, 0, u64::MAX);
    Some(())
}

fn fail_what_is_stored(records: &mut Vec<Record>, draw: &mut Draw) -> Option<()> {
    let failed = any(records, draw, acknowledged)?;
    let send = records.iter_mut().find(|r| **r == failed)?;
    *send = Record { outcome: Outcome::Failed, offset: None, ..failed };
    Some(())
}

fn duplicate(records: &mut Vec<Record>, draw: &mut Draw) -> Option<()> {
    let twice = any(records, draw, acknowledged)?;
    append(records, twice.key, twice.value);
    Some(())
}

/// Lets the records at two offsets change places, for everybody.
fn swap(records: &mut [Record], a: &Record, b: &Record) {
    for r in records.iter_mut().filter(|r| matches!(r.kind, Kind::Send | Kind::Read) && r.is_ok()) {
        if r.kind == Kind::Send {
            r.offset = if r.offset == a.offset {
                b.offset
            } else if r.offset == b.offset {
                a.offset
            } else {
                r.offset
            };
        } else if r.offset == a.offset {
            (r.key, r.value) = (b.key, b.value);
        } else if r.offset == b.offset {
            (r.key, r.value) = (a.key, a.value);
        }
    }
}

fn reorder(records: &mut Vec<Record>, draw: &mut Draw) -> Option<()> {
    let first = any(records, draw, acknowledged)?;
    let second = any(records, draw, |r| {
        acknowledged(r) && (r.process, r.key) == (first.process, first.key) && r.offset > first.offset
    })?;
    swap(records, &first, &second);
    Some(())
}

fn disagree(records: &mut Vec<Record>, draw: &mut Draw) -> Option<()> {
    let one = any(records, draw, |r| r.kind == Kind::Read)?;
    let other = any(records, draw, |r| r.kind == Kind::Read && r.value != one.value)?;
    let others_see =
        records.iter().filter(|r| r.is_ok() && r.offset == one.offset && r.value == one.value).count();
    let read = records.iter_mut().find(|r| **r == one)?;
    (read.key, read.value) = (other.key, other.value);
    (others_see >= 2).then_some(())
}

fn leave_gap(records: &mut Vec<Record>, draw: &mut Draw) -> Option<()> {
    let from = any(records, draw, acknowledged)?.offset;
    for r in records.iter_mut() {
        if r.offset >= from && r.kind != Kind::Seek || r.kind == Kind::Seek && r.offset > from {
            r.offset = r.offset.map(|o| o + 1);
        }
    }
    Some(())
}

fn skip(records: &mut Vec<Record>, draw: &mut Draw) -> Option<()> {
    let last = last_reader(records).process;
    let inner = |at: usize| {
        let (before, this, after) = (&records[at - 1], &records[at], &records[at + 1]);
        let reads = |r: &Record| r.kind == Kind::Read && r.process == this.process;
        this.process != last && reads(this) && reads(before) && reads(after)
    };
    let places: Vec<usize> = (1..records.len() - 1).filter(|&at| inner(at)).collect();
    if places.is_empty() {
        return None;
    }
    records.remove(draw.pick(&places));
    Some(())
}

fn go_back(records: &mut Vec<Record>, draw: &mut Draw) -> Option<()> {
    let again = any(records, draw, |r| r.kind == Kind::Read)?;
    let at = records.iter().position(|r| *r == again)?;
    records.insert(at, again);
    Some(())
}

fn defy_time(records: &mut Vec<Record>, draw: &mut Draw) -> Option<()> {
    let sends: Vec<Record> = records.iter().copied().filter(acknowledged).collect();
    let mut pairs = Vec::new();
    for early in &sends {
        let behind = |late: &&Record| {
            early.offset.map(|o| o + 1) == late.offset
                && (early.process, early.key) != (late.process, late.key)
                && early.complete < late.invoke
        };
        pairs.extend(sends.iter().find(behind).map(|late| (*early, *late)));
    }
    if pairs.is_empty() {
        return None;
    }
    let (early, late) = draw.pick(&pairs);
    swap(records, &early, &late);
    Some(())
}

fn send(process: u32, value: u64, times: (u64, u64), outcome: Outcome, offset: Option<u64>) -> Record {
    let (invoke, complete) = times;
    Record { value, invoke, complete, outcome, offset, ..Record::new(Kind::Send, process, 0) }
}

fn end(offset: u64) -> Record {
    Record { invoke: 99, complete: 99, offset: Some(offset), ..Record::new(Kind::Final, 9, 0) }
}

fn read(value: u64, offset: u64) -> Record {
    Record { value, invoke: 50, complete: 60, offset: Some(offset), ..Record::new(Kind::Read, 9, 0) }
}

fn verdict(records: Vec<Record>) -> Verdict {
    check_stream(&History::from_records(records), &StreamRules::default())
}

fn kind_of(records: Vec<Record>) -> ViolationKind {
    match verdict(records) {
        Verdict::Invalid(v) => v.kind,
        other => panic!("expected a violation, got {other}"),
    }
}

/// A record that vanished below an acknowledged one which was sent behind it is a hole; one that was
/// known as unknown before the next was sent is not.
#[test]
fn hole_in_a_session() {
    let pipelined = vec![
        send(1, 7, (1, 30), Outcome::Unknown, None),
        send(1, 8, (2, 20), Outcome::Ok, Some(0)),
        read(8, 0),
        end(1),
    ];
    assert_eq!(kind_of(pipelined.clone()), ViolationKind::Hole);
    let mut told_before = pipelined;
    told_before[0].complete = 2;
    told_before[1].invoke = 3;
    assert_eq!(verdict(told_before), Verdict::Valid);
}

/// A front that acknowledges without an offset is held to its word too.
#[test]
fn acknowledged_without_offset() {
    let sent = |offset| vec![send(1, 7, (1, 3), Outcome::Ok, None), read(7, offset), end(offset + 1)];
    assert_eq!(verdict(sent(0)), Verdict::Valid);
    let two = |found: u64| {
        let mut records = vec![send(1, 7, (1, 3), Outcome::Ok, None), send(2, 7, (1, 3), Outcome::Ok, None)];
        records.extend((0..found).map(|offset| read(7, offset)));
        records.push(end(found));
        records
    };
    assert_eq!(verdict(two(2)), Verdict::Valid);
    assert_eq!(kind_of(two(1)), ViolationKind::Lost);
    assert_eq!(kind_of(two(3)), ViolationKind::Duplicated);
}

/// What lies behind the end of the final reading is lost when it was acknowledged; what retention
/// removed is not.
#[test]
fn ends_of_the_log() {
    let beyond = vec![
        send(1, 7, (1, 3), Outcome::Ok, Some(0)),
        send(1, 8, (4, 6), Outcome::Ok, Some(1)),
        read(7, 0),
        end(1),
    ];
    assert_eq!(kind_of(beyond.clone()), ViolationKind::Lost);
    let mut retained = beyond;
    retained[2] = read(8, 1);
    retained[3] = Record { value: 1, ..end(2) };
    assert_eq!(verdict(retained), Verdict::Valid);
}

/// Too little to see is a verdict of its own, and never "valid".
#[test]
fn unknown_and_vacuous() {
    let ok = send(1, 7, (1, 3), Outcome::Ok, Some(0));
    assert!(matches!(verdict(vec![ok, read(7, 0)]), Verdict::Unknown(_)), "no final reading");
    assert!(
        matches!(verdict(vec![Record { complete: 0, ..ok }, end(1)]), Verdict::Unknown(_)),
        "impossible times"
    );
    assert!(matches!(verdict(Vec::new()), Verdict::Vacuous(_)));
    assert!(matches!(verdict(vec![send(1, 7, (1, 3), Outcome::Unknown, None), end(0)]), Verdict::Vacuous(_)));
    let rules = StreamRules { acknowledged_min: 2, reads_min: 1 };
    let history = History::from_records(vec![ok, read(7, 0), end(1)]);
    assert!(matches!(check_stream(&history, &rules), Verdict::Vacuous(_)));
    assert!(check_all(&history).passed());
    assert!(!check_all(&History::default()).passed(), "nothing checked is nothing passed");
}

/// A violation names its promise and shows its operations, and the file form keeps the verdict.
#[test]
fn explanations_are_readable_and_survive_a_file() {
    let mut records = valid(5, 0, 200);
    lose(&mut records, &mut Draw::new(5)).unwrap();
    let history = History::from_records(records);
    let mut file = Vec::new();
    history.write_json_lines(&mut file).unwrap();
    let again = History::read_json_lines(&file[..]).unwrap();
    let text = check_stream(&again, &StreamRules::default()).to_string();
    assert_eq!(text, check_stream(&history, &StreamRules::default()).to_string());
    assert!(text.starts_with("INVALID: Lost (P1 no loss): offset "), "{text}");
    assert!(text.contains("\n  Send Ok by process "), "{text}");
}
