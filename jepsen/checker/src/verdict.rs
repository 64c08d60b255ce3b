//! What a checker answers, and the names of what can be wrong.

use std::fmt;

use crate::history::Record;

/// The answer of a checker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every promise that was looked at holds.
    Valid,
    /// A promise is broken; the smallest explanation that was found.
    Invalid(Box<Violation>),
    /// The history doesn't allow an answer, and why. Counts as failure.
    Unknown(String),
    /// Nothing is wrong, but too little happened to mean anything, and why. Counts as failure.
    Vacuous(String),
}

impl Verdict {
    /// Whether the history passes.
    pub fn is_valid(&self) -> bool {
        matches!(self, Verdict::Valid)
    }

    /// A verdict over `violations`: the smallest one, by number of operations, then by kind, then by
    /// the time at which it could be noticed.
    pub(crate) fn of(violations: Vec<Violation>) -> Option<Verdict> {
        violations
            .into_iter()
            .min_by_key(|v| (v.ops.len(), v.kind, v.ops.iter().map(|r| r.complete).max()))
            .map(|v| Verdict::Invalid(Box::new(v)))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Valid => f.write_str("valid"),
            Verdict::Invalid(v) => write!(f, "INVALID: {v}"),
            Verdict::Unknown(why) => write!(f, "UNKNOWN: {why}"),
            Verdict::Vacuous(why) => write!(f, "VACUOUS: {why}"),
        }
    }
}

/// What can be wrong. The order is the order of preference between explanations of equal size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ViolationKind {
    /// P2: a record was read that nobody sent.
    Phantom,
    /// P2: a record was read although its send had failed definitely.
    FailedSendStored,
    /// P3: one offset was seen with two different records.
    Disagreement,
    /// P1: an acknowledged record is not in the log.
    Lost,
    /// P5: one send is stored at two offsets.
    Duplicated,
    /// P4: two records of one session stand in the wrong order.
    Reordered,
    /// P4: a record is missing below an acknowledged one of the same session.
    Hole,
    /// P7: a reader went back, or was given the same record again.
    WentBack,
    /// P7: a reader was not given a record that others were given.
    Skipped,
    /// P3: an offset holds no record at all, and nobody was told.
    Gap,
    /// P3: an operation that had ended before another one began stands behind it.
    RealTime,
    /// P8: a lower epoch was accepted after a higher one was confirmed.
    LowerEpochAccepted,
    /// P8: a checkpoint that had been confirmed was not seen afterwards.
    StaleCheckpoint,
    /// P8: a checkpoint was read that nobody can have stored by then.
    PhantomCheckpoint,
    /// P8: two owners hold the same epoch.
    TwoOwners,
    /// P8: something was done under an epoch that its doer never claimed.
    NotOwner,
}

impl ViolationKind {
    /// The promise that it breaks.
    pub fn promise(self) -> &'static str {
        match self {
            ViolationKind::Lost => "P1 no loss",
            ViolationKind::Phantom | ViolationKind::FailedSendStored => "P2 no phantom",
            ViolationKind::Disagreement | ViolationKind::Gap | ViolationKind::RealTime => "P3 one log",
            ViolationKind::Reordered | ViolationKind::Hole => "P4 device order",
            ViolationKind::Duplicated => "P5 once from gateway",
            ViolationKind::WentBack | ViolationKind::Skipped => "P7 reading",
            ViolationKind::PhantomCheckpoint
            | ViolationKind::StaleCheckpoint
            | ViolationKind::LowerEpochAccepted
            | ViolationKind::TwoOwners
            | ViolationKind::NotOwner => "P8 checkpoints",
        }
    }
}

/// A broken promise, with the operations that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong.
    pub kind: ViolationKind,
    /// The operations that can't all be true of a correct cluster.
    pub ops: Vec<Record>,
    /// One sentence for a person.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}): {}", self.kind, self.kind.promise(), self.message)?;
        for op in &self.ops {
            write!(
                f,
                "\n  {:?} {:?} by process {} on partition {}: key {} value {:#x} offset {:?} epoch {}, {} ns to {} ns",
                op.kind,
                op.outcome,
                op.process,
                op.partition,
                op.key,
                op.value,
                op.offset,
                op.epoch,
                op.invoke,
                op.complete
            )?;
        }
        Ok(())
    }
}

/// Collects violations up to a bound: a broken run may hold millions, and a few explain it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    violations: Vec<Violation>,
}

impl Found {
    /// At most this many are kept of each kind.
    const PER_KIND_MAX: usize = 16;

    pub(crate) fn add(&mut self, kind: ViolationKind, ops: Vec<Record>, message: String) {
        if self.violations.iter().filter(|v| v.kind == kind).count() < Self::PER_KIND_MAX {
            self.violations.push(Violation { kind, ops, message });
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Violation> {
        self.violations
    }
}
