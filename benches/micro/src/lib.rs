//! Micro benches of the hot paths that a record takes on one node, without network or processes.
//!
//! Called by the binary `fleetline-micro`, which prints nanoseconds per operation, and by the tests of
//! this crate, which run every bench with tiny inputs: a bench that no longer fits its crate, or whose
//! result is wrong, fails a test instead of rotting.
//!
//! Invariants:
//! 1. Only the work named is timed; inputs are made before, results are checked after.
//! 2. A result is checked every round: a path that returns early because it failed is no fast path.
//! 3. The figure is the best of several rounds, so that a busy machine shows less.
//!
//! Not here: latency, concurrency and whole clusters (`benches/load`). Figures compare with others of
//! the same machine and profile only.
#![deny(missing_docs)]

mod codec;
mod log;
mod streams;

use std::time::{Duration, Instant};

use bytes::Bytes;
use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_types::{ProducerId, TimestampMs};

/// A result, or why a bench is no measurement.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Operations in a round, about; at least 1. Benches of large operations do fewer.
    pub operations: u64,
    /// Rounds, of which the best counts; at least 1.
    pub rounds: u32,
}

impl Effort {
    /// What a person waits for: some seconds in a release build.
    pub const FULL: Effort = Effort { operations: 50_000, rounds: 7 };
    /// What a test waits for.
    pub const TINY: Effort = Effort { operations: 40, rounds: 2 };

    /// Operations in a round when each is `times` as large as a small one.
    fn fewer(self, times: u64) -> u64 {
        (self.operations / times).max(1)
    }
}

/// One line of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// What one operation is.
    pub operation: &'static str,
    /// Operations in a round.
    pub operations: u64,
    /// Nanoseconds per operation in the best round.
    pub ns: f64,
}

/// Runs all benches whose name contains `only`, in a fixed order, and gives each figure to `each`.
///
/// # Errors
/// When a path that is measured fails or gives a wrong result.
pub fn run(effort: Effort, only: &str, each: &mut dyn FnMut(Figure)) -> Outcome<()> {
    let mut report = Report { effort, only, each };
    codec::run(&mut report)?;
    log::run(&mut report)?;
    streams::run(&mut report)
}

/// Collects figures for the modules.
struct Report<'a> {
    effort: Effort,
    only: &'a str,
    each: &'a mut dyn FnMut(Figure),
}

impl Report<'_> {
    /// Measures what `round` does: it gives the time and the operations of one round.
    fn bench(
        &mut self,
        name: String,
        operation: &'static str,
        mut round: impl FnMut() -> Outcome<(Duration, u64)>,
    ) -> Outcome<()> {
        if !name.contains(self.only) {
            return Ok(());
        }
        let mut best: Option<Figure> = None;
        for _ in 0..self.effort.rounds.max(1) {
            let (took, operations) = round().map_err(|error| format!("{name}: {error}"))?;
            if operations == 0 {
                return Err(format!("{name}: a round did nothing").into());
            }
            let ns = took.as_nanos() as f64 / operations as f64;
            if best.as_ref().is_none_or(|best| ns < best.ns) {
                best = Some(Figure { name: name.clone(), operation, operations, ns });
            }
        }
        if let Some(figure) = best {
            (self.each)(figure);
        }
        Ok(())
    }
}

/// Times `work`.
fn timed<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<(Duration, T)> {
    let begun = Instant::now();
    let result = work()?;
    Ok((begun.elapsed(), result))
}

/// Fails unless both are the same; for the check behind each round.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, found: T) -> Outcome<()> {
    match expected == found {
        true => Ok(()),
        false => Err(format!("{what} is {found:?}, it must be {expected:?}").into()),
    }
}

/// Bytes that don't compress to nothing.
fn bytes_like_data(len: usize) -> Bytes {
    (0..len).map(|at| (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

/// A batch of `count` records of 100 bytes, of ten devices in turn.
fn batch(
    builder: &mut BatchBuilder,
    body: &Bytes,
    count: u32,
    first_sequence: u64,
    compression: Compression,
) -> Outcome<Bytes> {
    const DEVICES: [&[u8]; 10] = [
        b"device-00",
        b"device-01",
        b"device-02",
        b"device-03",
        b"device-04",
        b"device-05",
        b"device-06",
        b"device-07",
        b"device-08",
        b"device-09",
    ];
    for n in 0..count as usize {
        builder.push(&RecordRef {
            device: DEVICES[n % DEVICES.len()],
            time: TimestampMs(1_700_000_000_000 + n as u64),
            body,
            ..RecordRef::default()
        })?;
    }
    let producer = Producer { id: ProducerId(7), epoch: 1, first_sequence };
    builder.finish(producer, compression).ok_or_else(|| "a batch without records".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every bench runs with tiny inputs, checks its own results, and gives a sane figure once.
    #[test]
    fn all_benches_run() {
        let mut figures = Vec::new();
        run(Effort::TINY, "", &mut |figure| figures.push(figure)).unwrap();
        let names: std::collections::BTreeSet<&str> = figures.iter().map(|figure| &*figure.name).collect();
        assert_eq!(names.len(), figures.len(), "a name twice");
        for part in
            ["crc", "batch encode", "batch verify", "batch read", "append memory", "append disk", "apply"]
        {
            assert!(names.iter().any(|name| name.contains(part)), "no bench of {part} in {names:?}");
        }
        for figure in &figures {
            assert!(figure.ns.is_finite() && figure.ns > 0.0, "{figure:?}");
        }
    }

    /// `only` chooses by name, and what isn't chosen isn't run.
    #[test]
    fn only_what_was_asked_for_runs() {
        let mut names = Vec::new();
        run(Effort::TINY, "crc", &mut |figure| names.push(figure.name)).unwrap();
        assert!(!names.is_empty() && names.iter().all(|name| name.contains("crc")), "{names:?}");
    }

    /// The best round counts; a failing or empty round is an error that names its bench.
    #[test]
    fn best_round_counts_and_failures_show() {
        let mut figures = Vec::new();
        let effort = Effort { operations: 1, rounds: 3 };
        let mut each = |figure| figures.push(figure);
        let mut report = Report { effort, only: "", each: &mut each };
        let mut times = [30, 10, 20].into_iter();
        report
            .bench("a".to_owned(), "call", || Ok((Duration::from_nanos(times.next().unwrap()), 5)))
            .unwrap();
        let error = report.bench("b".to_owned(), "call", || Ok((Duration::ZERO, 0))).unwrap_err();
        assert_eq!(error.to_string(), "b: a round did nothing");
        let error = report.bench("c".to_owned(), "call", || Err("wrong".into())).unwrap_err();
        assert_eq!(error.to_string(), "c: wrong");
        assert_eq!(figures, [Figure { name: "a".to_owned(), operation: "call", operations: 5, ns: 2.0 }]);
        assert!(same("sum", 1, 2).is_err() && same("sum", 2, 2).is_ok());
    }
}
