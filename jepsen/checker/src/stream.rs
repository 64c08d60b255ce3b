//! The log of each partition: what was acknowledged against everything that was read.
//!
//! Per partition, in four passes over sorted lists (`slots.rs` makes them, `order.rs` looks at order):
//!
//! 1. Every acknowledged send and every read claims an offset for a record. Claims of one offset
//!    must agree (P3); together they are the *slots*, the log as far as anybody saw it.
//! 2. Slots are joined with sends by (device, value): no slot without a send (P2), none whose only
//!    sends failed (P2), no more slots than sends (P5).
//! 3. Readers go up one by one (P7). Up to the end that the `final` operation names, each slot that
//!    was acknowledged was read (P1), and no offset is empty (P3). Nothing that was known before lies
//!    behind that end: it was read once and is lost since (P1).
//! 4. In offset order: each session's records stand in the order of sending (P4), and nothing that
//!    had ended before something else began stands behind it (P3, a running maximum of invocation times).
//!
//! A send with an unknown outcome may be absent, or stored once at any later time. A value that a
//! client sent several times may be stored as often; which send became which slot is then open, so
//! such values are left out of pass 4 unless an acknowledgement names their offset.

mod order;
mod slots;

use crate::history::{History, Kind, Record};
use crate::sort::sorted_by;
use crate::verdict::{Found, Verdict, Violation, ViolationKind};
use slots::{Slots, join_sends};

/// What a history of a stream must show to mean anything.
#[derive(Clone, Copy, Debug)]
pub struct StreamRules {
    /// Fewer acknowledged sends than this are vacuous. Default 1.
    pub acknowledged_min: u64,
    /// Fewer reads than this are vacuous. Default 1.
    pub reads_min: u64,
}

impl Default for StreamRules {
    fn default() -> StreamRules {
        StreamRules { acknowledged_min: 1, reads_min: 1 }
    }
}

/// Checks the log of every partition in `history` (P1 to P5, P7).
pub fn check_stream(history: &History, rules: &StreamRules) -> Verdict {
    if let Some(record) = history.impossible_times() {
        return Verdict::Unknown(format!(
            "an operation of process {} completes at {} ns, before it is invoked at {} ns",
            record.process, record.complete, record.invoke
        ));
    }
    let (found, open) = check(history);
    if let Some(invalid) = Verdict::of(found) {
        return invalid;
    }
    if let Some(why) = open {
        return Verdict::Unknown(why);
    }
    let count = |kind| history.records().iter().filter(|r| r.kind == kind && r.is_ok()).count() as u64;
    let (sends, reads) = (count(Kind::Send), count(Kind::Read));
    if sends < rules.acknowledged_min {
        return Verdict::Vacuous(format!(
            "{sends} sends were acknowledged, at least {} are needed",
            rules.acknowledged_min
        ));
    }
    if reads < rules.reads_min {
        return Verdict::Vacuous(format!(
            "{reads} records were read, at least {} are needed",
            rules.reads_min
        ));
    }
    Verdict::Valid
}

/// All violations that were found, at most 16 of each kind.
pub fn stream_violations(history: &History) -> Vec<Violation> {
    check(history).0
}

/// Violations, and the first reason for which something could not be looked at.
fn check(history: &History) -> (Vec<Violation>, Option<String>) {
    let is_stream = |r: &Record| matches!(r.kind, Kind::Send | Kind::Read | Kind::Seek | Kind::Final);
    let by_partition = sorted_by(history, is_stream, |r| r.partition);
    let records = history.records();
    let mut found = Found::default();
    let mut open = None;
    for partition in
        by_partition.chunk_by(|&a, &b| records[a as usize].partition == records[b as usize].partition)
    {
        let why = check_partition(records, partition, &mut found);
        open = open.or(why);
    }
    (found.into_vec(), open)
}

/// Checks one partition; `ops` are its operations in the order of the history.
fn check_partition(records: &[Record], ops: &[u32], found: &mut Found) -> Option<String> {
    let mut slots = Slots::new(records, ops, found);
    let absent = join_sends(records, ops, &mut slots, found);
    let end = match ops.iter().map(|&i| &records[i as usize]).rfind(|r| r.kind == Kind::Final && r.is_ok()) {
        Some(end) => end,
        None => {
            order::readers(records, ops, &slots, found);
            order::log(records, &slots, found);
            let partition = records[ops[0] as usize].partition;
            return Some(format!("partition {partition} was not read to its end after the last fault"));
        }
    };
    completeness(records, &slots, &absent, end, found);
    order::readers(records, ops, &slots, found);
    order::log(records, &slots, found);
    order::holes(records, ops, &absent, found);
    None
}

/// Everything acknowledged was read, and no offset below the end is empty.
fn completeness(records: &[Record], slots: &Slots, absent: &[u32], end: &Record, found: &mut Found) {
    for slot in slots.all() {
        if let (None, Some(ack)) = (slot.read, slot.ack)
            && slot.offset >= end.value
        {
            let ack = records[ack as usize];
            let message = format!("offset {} was acknowledged and is in nobody's reading", slot.offset);
            found.add(ViolationKind::Lost, vec![ack], message);
        }
    }
    for &send in absent {
        let send = records[send as usize];
        // One with an offset has a slot of its own, which was looked at above.
        if send.is_ok() && send.offset.is_none() {
            let message =
                "the record was acknowledged (without an offset) and is in nobody's reading".to_owned();
            found.add(ViolationKind::Lost, vec![send], message);
        }
    }
    let Some(end_offset) = end.offset else { return };
    for slot in slots.all().iter().filter(|slot| slot.offset >= end_offset) {
        let (known, witness) = slot.known_at(records);
        if known < end.invoke {
            let message = format!("offset {} was known, and the log ends at {end_offset}", slot.offset);
            found.add(ViolationKind::Lost, vec![records[witness as usize], *end], message);
        }
    }
    let mut expected = end.value;
    for slot in slots.all().iter().filter(|s| s.offset >= end.value && s.offset < end_offset) {
        if slot.offset > expected {
            let message = format!("offsets {expected} to {} hold no record", slot.offset - 1);
            found.add(ViolationKind::Gap, vec![*end], message);
        }
        expected = slot.offset + 1;
    }
    if expected < end_offset {
        let message = format!("offsets {expected} to {} hold no record", end_offset - 1);
        found.add(ViolationKind::Gap, vec![*end], message);
    }
}
