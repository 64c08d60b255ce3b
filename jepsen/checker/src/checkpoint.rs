//! Checkpoints: per (partition, consumer group) one linearizable register that only grows.
//!
//! State: `(epoch, next)`. A claim raises the epoch; a checkpoint is accepted only from the newest
//! epoch, and sets `next` to the larger of old and new; a read (and the answer of a claim) tells
//! both. The states are their own witness of the order, so no search is needed: an operation that
//! completed before another was invoked must not have seen or made a later state.
//!
//! ```text
//!   claim 1        checkpoint 1,40      claim 2        checkpoint 2,55
//!   (1, none) ───────► (1, 40) ────────► (2, 40) ─────────► (2, 55)
//! ```
//!
//! Checked, per register:
//! 1. What was read had been stored by a checkpoint of the same or a lower epoch that can have taken
//!    effect before the read ended (unknown ones count).
//! 2. Whatever was confirmed before an operation began is not above what that operation saw or made.
//! 3. A lower epoch's confirmed checkpoint lies below every later epoch's reading, also when the two
//!    overlap in time; so does what the first claim of an epoch answered.
//! 4. Every epoch that was seen or used had been claimed.
//!
//! Not here: who owns an epoch (`ownership.rs`); resets on purpose, which the product doesn't have.

use std::collections::BTreeMap;

use crate::history::{History, Kind, Record};
use crate::sort::{ConfirmedMax, sorted_by};
use crate::verdict::{Found, Verdict, Violation, ViolationKind};

/// What a history of checkpoints must show to mean anything.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointRules {
    /// Fewer accepted checkpoints than this are vacuous. Default 1.
    pub stored_min: u64,
    /// Fewer readings (claims' answers included) than this are vacuous. Default 1.
    pub read_min: u64,
}

impl Default for CheckpointRules {
    fn default() -> CheckpointRules {
        CheckpointRules { stored_min: 1, read_min: 1 }
    }
}

/// Checks every checkpoint in `history` (P8).
pub fn check_checkpoints(history: &History, rules: &CheckpointRules) -> Verdict {
    if let Some(record) = history.impossible_times() {
        return Verdict::Unknown(format!(
            "an operation of process {} completes before it is invoked at {} ns",
            record.process, record.invoke
        ));
    }
    if let Some(invalid) = Verdict::of(checkpoint_violations(history)) {
        return invalid;
    }
    let count = |kinds: &[Kind]| {
        history.records().iter().filter(|r| kinds.contains(&r.kind) && r.is_ok()).count() as u64
    };
    let (stored, read) = (count(&[Kind::Checkpoint]), count(&[Kind::CheckpointRead, Kind::Claim]));
    if stored < rules.stored_min {
        return Verdict::Vacuous(format!(
            "{stored} checkpoints were stored, at least {} are needed",
            rules.stored_min
        ));
    }
    if read < rules.read_min {
        return Verdict::Vacuous(format!(
            "{read} checkpoints were read, at least {} are needed",
            rules.read_min
        ));
    }
    Verdict::Valid
}

/// All violations that were found, at most 16 of each kind.
pub fn checkpoint_violations(history: &History) -> Vec<Violation> {
    let wanted = |r: &Record| matches!(r.kind, Kind::Claim | Kind::Checkpoint | Kind::CheckpointRead);
    let ops = sorted_by(history, wanted, |r| (r.partition, r.key));
    let records = history.records();
    let register = |i: u32| (records[i as usize].partition, records[i as usize].key);
    let mut found = Found::default();
    for one in ops.chunk_by(|&a, &b| register(a) == register(b)) {
        Register::new(records, one).check(&mut found);
    }
    found.into_vec()
}

/// The operations of one checkpoint.
struct Register<'a> {
    records: &'a [Record],
    ops: &'a [u32],
    /// Largest epoch that had been confirmed by a moment.
    epochs: ConfirmedMax<u64>,
    /// Largest `next` that had been confirmed by a moment, by a writing or a reading.
    nexts: ConfirmedMax<Option<u64>>,
    /// The largest `next` confirmed under this epoch or a lower one, over all time, and by what.
    upto_epoch: BTreeMap<u64, (Option<u64>, u32)>,
    /// The smallest `next` read under this epoch or a higher one, over all time.
    from_epoch: BTreeMap<u64, Option<u64>>,
    /// The claims that can have begun each epoch.
    claims: BTreeMap<u64, Claims>,
    /// For each stored `next`: the writings that can have made it, as (epoch, earliest moment under
    /// this or a lower epoch).
    sources: BTreeMap<u64, Vec<(u64, u64)>>,
}

/// The claims of one epoch that can have taken effect, ordered by what they answered.
#[derive(Default)]
struct Claims {
    /// (answer, `None` when unknown; earliest moment of any up to here, in ns; that claim).
    by_answer: Vec<(Option<Option<u64>>, u64, u32)>,
}

impl Claims {
    /// The earliest of the claims whose answer is unknown or below `bound`: (moment, claim).
    fn below(&self, bound: Option<u64>) -> Option<(u64, u32)> {
        self.earliest(self.by_answer.partition_point(|c| c.0 < Some(bound)))
    }

    /// The earliest of the claims whose answer is unknown or at most `bound`.
    fn upto(&self, bound: Option<u64>) -> Option<(u64, u32)> {
        self.earliest(self.by_answer.partition_point(|c| c.0 <= Some(bound)))
    }

    /// The earliest of all.
    fn any(&self) -> Option<(u64, u32)> {
        self.earliest(self.by_answer.len())
    }

    fn earliest(&self, upto: usize) -> Option<(u64, u32)> {
        upto.checked_sub(1).map(|at| (self.by_answer[at].1, self.by_answer[at].2))
    }
}

impl<'a> Register<'a> {
    fn new(records: &'a [Record], ops: &'a [u32]) -> Register<'a> {
        let confirmed = || ops.iter().map(|&i| (i, &records[i as usize])).filter(|(_, r)| r.is_ok());
        let readings = confirmed().map(|(_, r)| r).filter(|r| r.kind != Kind::Checkpoint);
        let mut register = Register {
            records,
            ops,
            epochs: ConfirmedMax::new(confirmed().map(|(i, r)| (r.complete, r.epoch, i)).collect()),
            nexts: ConfirmedMax::new(confirmed().map(|(i, r)| (r.complete, r.offset, i)).collect()),
            upto_epoch: largest_upto(confirmed()),
            from_epoch: smallest_from(readings),
            claims: BTreeMap::new(),
            sources: BTreeMap::new(),
        };
        register.explain();
        register
    }

    /// Finds what can have made each state. A claim that answered `next` rests on a writing of `next`,
    /// and that on a claim which answered less: so from small to large.
    fn explain(&mut self) {
        let records = self.records;
        let changes = |&i: &u32| {
            let r = &records[i as usize];
            let answer = match r.kind {
                Kind::Checkpoint => r.offset.map(Some),
                _ => r.is_ok().then_some(r.offset),
            };
            let wanted = r.kind == Kind::Claim || r.kind == Kind::Checkpoint && r.offset.is_some();
            (wanted && r.may_have_happened()).then_some((answer, i))
        };
        let mut steps: Vec<(Option<Option<u64>>, u32)> = self.ops.iter().filter_map(changes).collect();
        steps.sort_unstable();
        for same in steps.chunk_by(|a, b| a.0 == b.0) {
            let of_kind = |kind| same.iter().map(|s| s.1).filter(move |&i| records[i as usize].kind == kind);
            if let Some(Some(next)) = same[0].0 {
                let mut sources: Vec<(u64, u64)> =
                    of_kind(Kind::Checkpoint).filter_map(|op| self.source(op, next)).collect();
                sources.sort_unstable();
                let mut earliest = u64::MAX;
                for (_, moment) in &mut sources {
                    earliest = earliest.min(*moment);
                    *moment = earliest;
                }
                self.sources.insert(next, sources);
            }
            for op in of_kind(Kind::Claim) {
                self.add_claim(op, same[0].0);
            }
        }
    }

    /// The epoch of a writing and the earliest moment at which it can have set `next`; `None` when it
    /// never can: it began after something higher had been confirmed, or a higher epoch doesn't show it.
    fn source(&self, op: u32, next: u64) -> Option<(u64, u64)> {
        let r = &self.records[op as usize];
        // It stands behind a claim of its epoch that didn't find as much already.
        let (claimed, _) = self.claims.get(&r.epoch)?.below(Some(next))?;
        let moment = r.invoke.max(claimed);
        let too_late = r.is_ok() && moment > r.complete
            || self.epochs.before(moment).is_some_and(|(epoch, _)| epoch > r.epoch)
            || self.nexts.before(moment).is_some_and(|(confirmed, _)| confirmed > Some(next));
        let higher = r.epoch.checked_add(1).and_then(|epoch| self.from_epoch.range(epoch..).next());
        let unseen = higher.is_some_and(|(_, read)| *read < Some(next));
        (!too_late && !unseen).then_some((r.epoch, moment))
    }

    /// Notes a claim that can have taken effect: it didn't begin after a higher epoch had been confirmed.
    fn add_claim(&mut self, op: u32, answer: Option<Option<u64>>) {
        let r = &self.records[op as usize];
        if self.epochs.before(r.invoke).is_some_and(|(epoch, _)| epoch > r.epoch) {
            return;
        }
        let source = answer.flatten().and_then(|next| self.source_moment(next, r.epoch));
        let moment = r.invoke.max(source.unwrap_or(0));
        let of_epoch = &mut self.claims.entry(r.epoch).or_default().by_answer;
        let (earliest, by) = of_epoch.last().map_or((moment, op), |last| (last.1, last.2).min((moment, op)));
        of_epoch.push((answer, earliest, by));
    }

    /// The earliest moment at which `next` can have been set under `epoch` or a lower one.
    fn source_moment(&self, next: u64, epoch: u64) -> Option<u64> {
        let of_next = self.sources.get(&next)?;
        let upto = of_next.partition_point(|source| source.0 <= epoch);
        upto.checked_sub(1).map(|at| of_next[at].1)
    }

    fn check(&self, found: &mut Found) {
        for &op in self.ops {
            let record = self.records[op as usize];
            if !record.is_ok() {
                continue;
            }
            // The first thing wrong with an operation explains the rest of it.
            let sound = self.epoch_holds(record, found) && self.epoch_has_claim(record, found);
            if sound && record.kind != Kind::Checkpoint && self.reading_is_fresh(record, found) {
                self.reading_has_source(record, found);
            }
        }
    }

    /// No higher epoch had been confirmed before the operation began.
    fn epoch_holds(&self, record: Record, found: &mut Found) -> bool {
        if let Some((epoch, by)) = self.epochs.before(record.invoke)
            && epoch > record.epoch
        {
            let kind = match record.kind {
                Kind::CheckpointRead => ViolationKind::StaleCheckpoint,
                _ => ViolationKind::LowerEpochAccepted,
            };
            let message = format!("epoch {} after epoch {epoch} had been confirmed", record.epoch);
            found.add(kind, vec![self.records[by as usize], record], message);
            return false;
        }
        true
    }

    /// The epoch that an operation saw or used had been claimed (0 is the state before any claim),
    /// and a reading is not below what every claim of its epoch answered.
    fn epoch_has_claim(&self, record: Record, found: &mut Found) -> bool {
        let in_time = |claim: Option<(u64, u32)>| claim.filter(|&(invoke, _)| invoke <= record.complete);
        let claims = self.claims.get(&record.epoch);
        let Some((_, claim)) = in_time(claims.and_then(Claims::any)) else {
            if record.epoch == 0 && record.kind == Kind::CheckpointRead {
                return true;
            }
            let kind = match record.kind {
                Kind::CheckpointRead => ViolationKind::PhantomCheckpoint,
                _ => ViolationKind::NotOwner,
            };
            let message = format!("nobody can have claimed epoch {} by then", record.epoch);
            found.add(kind, vec![record], message);
            return false;
        };
        if record.kind == Kind::CheckpointRead
            && in_time(claims.and_then(|claims| claims.upto(record.offset))).is_none()
        {
            let message = format!("{:?} was read although its epoch began with more", record.offset);
            found.add(ViolationKind::StaleCheckpoint, vec![self.records[claim as usize], record], message);
            return false;
        }
        true
    }

    /// The reading is not below what had been confirmed before it, nor below what a lower epoch
    /// confirmed at any time.
    fn reading_is_fresh(&self, record: Record, found: &mut Found) -> bool {
        let before = self.nexts.before(record.invoke);
        let lower = self.upto_epoch.range(..record.epoch).next_back().map(|(_, largest)| *largest);
        for (next, by) in before.into_iter().chain(lower) {
            if next > record.offset {
                let message = format!("{:?} was read although {next:?} had been confirmed", record.offset);
                found.add(ViolationKind::StaleCheckpoint, vec![self.records[by as usize], record], message);
                return false;
            }
        }
        true
    }

    fn reading_has_source(&self, record: Record, found: &mut Found) {
        let Some(next) = record.offset else { return };
        if self.source_moment(next, record.epoch).is_some_and(|moment| moment <= record.complete) {
            return;
        }
        let written =
            |r: &&Record| r.kind == Kind::Checkpoint && r.offset == Some(next) && r.may_have_happened();
        let writing = self.ops.iter().map(|&i| &self.records[i as usize]).find(written);
        let message = match writing {
            None => format!("checkpoint {next} was read, which nobody stored"),
            Some(_) => format!("checkpoint {next} was read, which can't have been stored by then"),
        };
        let ops = writing.copied().into_iter().chain([record]).collect();
        found.add(ViolationKind::PhantomCheckpoint, ops, message);
    }
}

/// Per epoch, the largest `next` confirmed under it or a lower one.
fn largest_upto<'r>(confirmed: impl Iterator<Item = (u32, &'r Record)>) -> BTreeMap<u64, (Option<u64>, u32)> {
    let mut largest = BTreeMap::new();
    for (i, r) in confirmed {
        let of_epoch = largest.entry(r.epoch).or_insert((r.offset, i));
        if r.offset > of_epoch.0 {
            *of_epoch = (r.offset, i);
        }
    }
    let mut so_far: Option<(Option<u64>, u32)> = None;
    for of_epoch in largest.values_mut() {
        if let Some(lower) = so_far.filter(|lower| lower.0 > of_epoch.0) {
            *of_epoch = lower;
        }
        so_far = Some(*of_epoch);
    }
    largest
}

/// Per epoch, the smallest `next` that a reading of it or of a higher one found.
fn smallest_from<'r>(readings: impl Iterator<Item = &'r Record>) -> BTreeMap<u64, Option<u64>> {
    let mut smallest: BTreeMap<u64, Option<u64>> = BTreeMap::new();
    for r in readings {
        let of_epoch = smallest.entry(r.epoch).or_insert(r.offset);
        *of_epoch = r.offset.min(*of_epoch);
    }
    let mut so_far: Option<Option<u64>> = None;
    for of_epoch in smallest.values_mut().rev() {
        *of_epoch = so_far.map_or(*of_epoch, |higher| higher.min(*of_epoch));
        so_far = Some(*of_epoch);
    }
    smallest
}
