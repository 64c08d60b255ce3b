//! Order: what readers were given one after the other, and what stands before what in the log.

use super::slots::Slots;
use crate::history::{Kind, Record};
use crate::verdict::{Found, ViolationKind};

/// Each reader goes up one by one, except where it moves on purpose.
pub(super) fn readers(records: &[Record], ops: &[u32], slots: &Slots, found: &mut Found) {
    let mut reads: Vec<u32> = ops
        .iter()
        .copied()
        .filter(|&i| {
            let r = &records[i as usize];
            r.is_ok() && r.offset.is_some() && matches!(r.kind, Kind::Read | Kind::Seek)
        })
        .collect();
    reads.sort_by_key(|&i| records[i as usize].process);
    for reader in reads.chunk_by(|&a, &b| records[a as usize].process == records[b as usize].process) {
        one_reader(records, reader, slots, found);
    }
}

fn one_reader(records: &[Record], ops: &[u32], slots: &Slots, found: &mut Found) {
    let mut before: Option<Record> = None;
    for &op in ops {
        let record = records[op as usize];
        let (Some(offset), Some(last)) = (record.offset, before.replace(record)) else { continue };
        let Some(last_offset) = last.offset else { continue };
        if record.kind == Kind::Seek {
            continue;
        }
        let expected = if last.kind == Kind::Seek { last_offset } else { last_offset.saturating_add(1) };
        if offset < expected {
            let message = format!("a reader that was to be given offset {expected} was given {offset}");
            found.add(ViolationKind::WentBack, vec![last, record], message);
        } else if offset > expected {
            jump(records, (last, record), expected, slots, found);
        }
    }
}

/// A reader was not given `expected`: is it lost, or did others get it, or is there nothing at all?
fn jump(records: &[Record], around: (Record, Record), expected: u64, slots: &Slots, found: &mut Found) {
    let (last, next) = around;
    let ack = slots.at(expected).and_then(|slot| slot.ack).map(|i| records[i as usize]);
    match (slots.at(expected).and_then(|slot| slot.read), ack) {
        (Some(other), _) => {
            let message = format!("a reader was not given offset {expected}, which another one was given");
            found.add(ViolationKind::Skipped, vec![last, next, records[other as usize]], message);
        }
        (None, Some(ack)) => {
            let message = format!("offset {expected} was acknowledged, and a reader went past it without it");
            found.add(ViolationKind::Lost, vec![ack, last, next], message);
        }
        (None, None) => {
            let message = format!("a reader went past offset {expected}, which nobody ever saw");
            found.add(ViolationKind::Gap, vec![last, next], message);
        }
    }
}

/// What stands before what in the log: order within each session, and real time over all of them.
pub(super) fn log(records: &[Record], slots: &Slots, found: &mut Found) {
    sessions(records, slots, found);
    let mut latest: Option<(u64, u32)> = None;
    for slot in slots.all() {
        let (known, witness) = slot.known_at(records);
        if let Some((invoke, earlier)) = latest
            && known < invoke
        {
            let message = format!(
                "offset {} was already known when a record was sent that stands before it",
                slot.offset
            );
            found.add(
                ViolationKind::RealTime,
                vec![records[witness as usize], records[earlier as usize]],
                message,
            );
        }
        if let Some(send) = slot.send {
            latest = latest.max(Some((records[send as usize].invoke, send)));
        }
    }
}

/// A session is what one process sends for one device; its order of sending is the history's order.
fn sessions(records: &[Record], slots: &Slots, found: &mut Found) {
    let session = |send: u32| (records[send as usize].process, records[send as usize].key);
    let mut stored: Vec<(u32, u64)> =
        slots.all().iter().filter_map(|s| s.send.map(|i| (i, s.offset))).collect();
    stored.sort_by_key(|&(send, _)| session(send)); // stable: in offset order within a session
    for pair in stored.windows(2) {
        let ((first, low), (second, high)) = (pair[0], pair[1]);
        if session(first) == session(second) && first > second {
            let message = format!("offset {low} was sent after offset {high} by the same session");
            found.add(
                ViolationKind::Reordered,
                vec![records[first as usize], records[second as usize]],
                message,
            );
        }
    }
}

/// No record is missing below an acknowledged one of its session that was sent while it was still in
/// flight. (A client that sends on after it was told "unknown" knows what it does.)
pub(super) fn holes(records: &[Record], ops: &[u32], absent: &[u32], found: &mut Found) {
    let session = |i: u32| (records[i as usize].process, records[i as usize].key);
    let mut sends: Vec<u32> =
        ops.iter().copied().filter(|&i| records[i as usize].kind == Kind::Send).collect();
    sends.sort_by_key(|&i| session(i));
    for one in sends.chunk_by(|&a, &b| session(a) == session(b)) {
        let mut acknowledged = None; // the next acknowledged send behind the one looked at
        for &send in one.iter().rev() {
            let record = records[send as usize];
            if record.is_ok() {
                acknowledged = Some(record);
            } else if record.may_have_happened()
                && absent.binary_search(&send).is_ok()
                && let Some(later) = acknowledged.filter(|a| a.invoke < record.complete)
            {
                let message =
                    "a record is missing below an acknowledged one that was sent behind it".to_owned();
                found.add(ViolationKind::Hole, vec![record, later], message);
            }
        }
    }
}
