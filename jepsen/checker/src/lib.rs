//! History checkers: did the cluster keep its promises?
//!
//! A *history* is what clients saw from outside: every operation with the time it was invoked, the
//! time it completed, and what it answered. The simulator and the runs against real processes
//! record one with a [`Recorder`]; nothing else here knows how it came about. Three checkers read it:
//!
//! - [`check_stream`]: the log of each partition (promises P1 to P5 and P7).
//! - [`check_checkpoints`]: a checkpoint is a linearizable register that only grows (P8).
//! - [`check_ownership`]: one valid owner of a partition in a consumer group at a time (P8).
//!
//! Invariants:
//! 1. A checker never answers [`Verdict::Valid`] for a history in which it could not look at what it
//!    promises to check: that is [`Verdict::Unknown`] or [`Verdict::Vacuous`], and counts as failure.
//! 2. Every check sorts and scans: O(n log n) time, and at most about 200 bytes of memory an operation.
//! 3. The same history gives the same verdict, byte for byte: ties are broken by the order of recording.
//!
//! All clients of one history must share one monotonic clock; real-time checks rest on that.
//!
//! Not here: clients, faults, and objects without versions (those need a search).
#![deny(missing_docs)]

mod checkpoint;
mod history;
mod json_lines;
mod ownership;
mod recorder;
mod sort;
mod stream;
mod verdict;

pub use checkpoint::{CheckpointRules, check_checkpoints, checkpoint_violations};
pub use history::{History, Kind, Outcome, Record, hash_bytes};
pub use json_lines::HistoryError;
pub use ownership::{OwnershipRules, check_ownership, ownership_violations};
pub use recorder::Recorder;
pub use stream::{StreamRules, check_stream, stream_violations};
pub use verdict::{Verdict, Violation, ViolationKind};

/// What the three checkers say of one history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The log of each partition; `None` when the history has no send and no read.
    pub stream: Option<Verdict>,
    /// Checkpoints; `None` when the history has no operation on one.
    pub checkpoints: Option<Verdict>,
    /// Owners; `None` when the history has no claim.
    pub ownership: Option<Verdict>,
}

impl Report {
    /// Whether something was checked and all of it is valid.
    pub fn passed(&self) -> bool {
        let mut verdicts =
            [&self.stream, &self.checkpoints, &self.ownership].into_iter().flatten().peekable();
        verdicts.peek().is_some() && verdicts.all(Verdict::is_valid)
    }
}

/// A line per checker.
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdicts =
            [("stream", &self.stream), ("checkpoints", &self.checkpoints), ("ownership", &self.ownership)];
        for (name, verdict) in verdicts {
            match verdict {
                Some(verdict) => writeln!(f, "{name}: {verdict}")?,
                None => writeln!(f, "{name}: no operations")?,
            }
        }
        Ok(())
    }
}

/// Runs every checker that the history has operations for, with the default rules.
pub fn check_all(history: &History) -> Report {
    let has = |kinds: &[Kind]| history.records().iter().any(|r| kinds.contains(&r.kind));
    Report {
        stream: has(&[Kind::Send, Kind::Read]).then(|| check_stream(history, &StreamRules::default())),
        checkpoints: has(&[Kind::Checkpoint, Kind::CheckpointRead])
            .then(|| check_checkpoints(history, &CheckpointRules::default())),
        ownership: has(&[Kind::Claim]).then(|| check_ownership(history, &OwnershipRules::default())),
    }
}
