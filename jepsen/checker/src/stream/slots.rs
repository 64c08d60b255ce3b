//! Slots: the log of one partition as acknowledgements and reads claim it, joined with the sends.
//!
//! Invariant: `all()` is in offset order, one slot an offset.

use crate::history::{Kind, Record};
use crate::verdict::{Found, ViolationKind};

/// One offset that somebody saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub offset: u64,
    pub key: u64,
    pub value: u64,
    /// The first acknowledged send that names this offset.
    pub ack: Option<u32>,
    /// The read of it that completed first.
    pub read: Option<u32>,
    /// The send that became this slot, when only one can have.
    pub send: Option<u32>,
}

impl Slot {
    /// The moment from which it was surely committed: its acknowledgement or its first read.
    pub(super) fn known_at(&self, records: &[Record]) -> (u64, u32) {
        let at = |op: Option<u32>| op.map(|i| (records[i as usize].complete, i));
        match (at(self.ack), at(self.read)) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b).expect("a slot exists because an acknowledgement or a read named it"),
        }
    }

    /// An operation that shows it; a read where there is one.
    pub(super) fn witness(&self) -> u32 {
        self.read.or(self.ack).expect("a slot exists because an acknowledgement or a read named it")
    }
}

/// All slots of one partition.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
}

impl Slots {
    /// Gathers the slots of a partition, and reports offsets whose claims disagree (the first claim
    /// then stands).
    pub(super) fn new(records: &[Record], ops: &[u32], found: &mut Found) -> Slots {
        let mut claims: Vec<(u64, u32)> = ops
            .iter()
            .filter(|&&i| {
                let r = &records[i as usize];
                r.is_ok() && matches!(r.kind, Kind::Send | Kind::Read)
            })
            .filter_map(|&i| records[i as usize].offset.map(|offset| (offset, i)))
            .collect();
        claims.sort_unstable();
        let slots = claims.chunk_by(|a, b| a.0 == b.0).map(|run| gather(records, run, found)).collect();
        Slots { slots }
    }

    pub(super) fn all(&self) -> &[Slot] {
        &self.slots
    }

    /// The slot at `offset`.
    pub(super) fn at(&self, offset: u64) -> Option<&Slot> {
        self.slots.binary_search_by_key(&offset, |s| s.offset).ok().map(|at| &self.slots[at])
    }
}

fn gather(records: &[Record], run: &[(u64, u32)], found: &mut Found) -> Slot {
    let first = records[run[0].1 as usize];
    let mut slot =
        Slot { offset: run[0].0, key: first.key, value: first.value, ack: None, read: None, send: None };
    for &(offset, op) in run {
        let record = records[op as usize];
        if (record.key, record.value) != (slot.key, slot.value) {
            let message = format!("offset {offset} was seen with two different records");
            found.add(ViolationKind::Disagreement, vec![first, record], message);
            // It was read, only wrongly: that it is lost as well would explain nothing.
            slot.read = slot.read.or((record.kind == Kind::Read).then_some(op));
        } else if record.kind == Kind::Send {
            slot.ack = slot.ack.or(Some(op));
        } else if slot.read.is_none_or(|before| record.complete < records[before as usize].complete) {
            slot.read = Some(op);
        }
    }
    slot
}

/// Finds for each slot the send that became it. Reports slots that no send explains. Answers with the
/// sends that may have happened and have no slot.
pub(super) fn join_sends(records: &[Record], ops: &[u32], slots: &mut Slots, found: &mut Found) -> Vec<u32> {
    let identity = |i: u32| (records[i as usize].key, records[i as usize].value);
    let mut sends: Vec<u32> =
        ops.iter().copied().filter(|&i| records[i as usize].kind == Kind::Send).collect();
    sends.sort_by_key(|&i| identity(i));
    let mut by_value: Vec<u32> = (0..slots.slots.len() as u32).collect();
    by_value.sort_unstable_by_key(|&s| {
        let slot = &slots.slots[s as usize];
        (slot.key, slot.value, slot.offset)
    });

    let mut absent = Vec::new();
    let mut sends_left = sends.chunk_by(|&a, &b| identity(a) == identity(b)).peekable();
    let same = |&a: &u32, &b: &u32, slots: &Slots| {
        let (a, b) = (&slots.slots[a as usize], &slots.slots[b as usize]);
        (a.key, a.value) == (b.key, b.value)
    };
    let runs: Vec<&[u32]> = by_value.chunk_by(|a, b| same(a, b, slots)).collect();
    for run in runs {
        let wanted = (slots.slots[run[0] as usize].key, slots.slots[run[0] as usize].value);
        while let Some(unstored) = sends_left.next_if(|group| identity(group[0]) < wanted) {
            absent.extend(unstored.iter().filter(|&&i| records[i as usize].may_have_happened()));
        }
        let group = sends_left.next_if(|group| identity(group[0]) == wanted).unwrap_or(&[]);
        explain(records, run, group, slots, &mut absent, found);
    }
    for unstored in sends_left {
        absent.extend(unstored.iter().filter(|&&i| records[i as usize].may_have_happened()));
    }
    absent.sort_unstable();
    absent
}

/// Explains the slots of one value by its sends.
fn explain(
    records: &[Record],
    run: &[u32],
    group: &[u32],
    slots: &mut Slots,
    absent: &mut Vec<u32>,
    found: &mut Found,
) {
    let first = slots.slots[run[0] as usize];
    let shown = records[first.witness() as usize];
    let possible: Vec<u32> =
        group.iter().copied().filter(|&i| records[i as usize].may_have_happened()).collect();
    let Some(&earliest) = possible.first() else {
        match group.first() {
            None => found.add(
                ViolationKind::Phantom,
                vec![shown],
                format!("nobody sent what offset {} holds", first.offset),
            ),
            Some(&failed) => found.add(
                ViolationKind::FailedSendStored,
                vec![records[failed as usize], shown],
                format!("sending what offset {} holds had failed definitely", first.offset),
            ),
        }
        return;
    };
    for &at in run {
        let slot = &slots.slots[at as usize];
        let early =
            slot.read.map(|i| records[i as usize]).filter(|r| r.complete < records[earliest as usize].invoke);
        if let Some(read) = early {
            let message = format!("offset {} was read before its record was sent", slot.offset);
            found.add(ViolationKind::RealTime, vec![read, records[earliest as usize]], message);
        }
    }
    if run.len() > possible.len() {
        let second = slots.slots[run[possible.len()] as usize];
        let message = format!(
            "a record that was sent {} times stands at {} offsets, {} and {} among them",
            possible.len(),
            run.len(),
            first.offset,
            second.offset
        );
        found.add(ViolationKind::Duplicated, vec![shown, records[second.witness() as usize]], message);
        return;
    }
    match possible.as_slice() {
        [only] => slots.slots[run[0] as usize].send = Some(*only),
        several => {
            for &at in run {
                let slot = &mut slots.slots[at as usize];
                slot.send = slot.ack;
            }
            // Which of the others are absent is open, so none is called absent; but acknowledged ones
            // without an offset need slots of their own.
            let unnamed = several
                .iter()
                .filter(|&&i| records[i as usize].is_ok() && records[i as usize].offset.is_none());
            let spare = run.iter().filter(|&&at| slots.slots[at as usize].ack.is_none()).count();
            absent.extend(unnamed.skip(spare));
        }
    }
}
