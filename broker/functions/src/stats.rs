//! What a node counts of each function, and how it is shown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Upper bounds of durations in milliseconds grow by about a fifth from one to the next: quantiles are right
/// within that. The last one is about 40 minutes.
const BUCKETS: usize = 80;

fn bucket_bound(bucket: usize) -> f64 {
    0.5 * 1.21f64.powi(bucket as i32)
}

fn bucket_of(ms: f64) -> usize {
    (0..BUCKETS - 1).find(|bucket| ms <= bucket_bound(*bucket)).unwrap_or(BUCKETS - 1)
}

/// Counters of one function on one node.
#[derive(Debug)]
pub(crate) struct FunctionStats {
    app: String,
    function: String,
    invocations: AtomicU64,
    failures: AtomicU64,
    poison: AtomicU64,
    refused_effects: AtomicU64,
    buckets: Vec<AtomicU64>,
    last_error: Mutex<Option<(u64, String)>>,
    /// Records behind the checkpoint, of partitions that this node processes.
    lag: Mutex<BTreeMap<u32, u64>>,
    /// When something was processed last, in milliseconds since 1970.
    last_work: AtomicU64,
    is_member: AtomicU64,
    desired: AtomicU64,
}

impl FunctionStats {
    pub(crate) fn new(app: &str, function: &str) -> FunctionStats {
        FunctionStats {
            app: app.to_owned(),
            function: function.to_owned(),
            invocations: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            poison: AtomicU64::new(0),
            refused_effects: AtomicU64::new(0),
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            last_error: Mutex::default(),
            lag: Mutex::default(),
            last_work: AtomicU64::new(0),
            is_member: AtomicU64::new(0),
            desired: AtomicU64::new(0),
        }
    }

    fn count(&self, name: &'static str, by: u64) {
        metrics::counter!(name, "app" => self.app.clone(), "function" => self.function.clone()).increment(by);
    }

    pub(crate) fn invoked(&self, took: Duration, now_ms: u64) {
        self.invocations.fetch_add(1, Ordering::Relaxed);
        self.last_work.store(now_ms, Ordering::Relaxed);
        let ms = took.as_secs_f64() * 1e3;
        self.buckets[bucket_of(ms)].fetch_add(1, Ordering::Relaxed);
        self.count("fleetline_function_invocations_total", 1);
        let (app, function) = (self.app.clone(), self.function.clone());
        metrics::histogram!("fleetline_function_duration_seconds", "app" => app, "function" => function)
            .record(took.as_secs_f64());
    }

    pub(crate) fn failed(&self, now_ms: u64, error: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.count("fleetline_function_failures_total", 1);
        self.note_error(now_ms, error);
    }

    pub(crate) fn note_error(&self, now_ms: u64, error: &str) {
        // Bounded, as it is shown in lists.
        *self.last_error.lock() = Some((now_ms, error.chars().take(500).collect()));
    }

    pub(crate) fn poisoned(&self, records: u64) {
        self.poison.fetch_add(records, Ordering::Relaxed);
        self.count("fleetline_function_poison_total", records);
    }

    pub(crate) fn effects_refused(&self, count: u64) {
        self.refused_effects.fetch_add(count, Ordering::Relaxed);
        self.count("fleetline_function_effects_refused_total", count);
    }

    pub(crate) fn set_lag(&self, partition: u32, lag: u64) {
        self.lag.lock().insert(partition, lag);
        self.show_lag();
    }

    pub(crate) fn forget_lag(&self, partition: u32) {
        self.lag.lock().remove(&partition);
        self.show_lag();
    }

    fn show_lag(&self) {
        let (app, function) = (self.app.clone(), self.function.clone());
        metrics::gauge!("fleetline_function_lag", "app" => app, "function" => function)
            .set(self.lag() as f64);
    }

    /// Records that wait in the partitions of this node.
    pub(crate) fn lag(&self) -> u64 {
        self.lag.lock().values().sum()
    }

    /// Partitions that this node processes.
    pub(crate) fn partitions(&self) -> usize {
        self.lag.lock().len()
    }

    pub(crate) fn last_work_ms(&self) -> u64 {
        self.last_work.load(Ordering::Relaxed)
    }

    pub(crate) fn set_member(&self, is_member: bool) {
        self.is_member.store(is_member.into(), Ordering::Relaxed);
    }

    pub(crate) fn set_desired(&self, desired: usize) {
        self.desired.store(desired as u64, Ordering::Relaxed);
    }

    /// The counters now.
    pub(crate) fn snapshot(&self) -> FunctionNumbers {
        let last_error = self.last_error.lock().clone();
        FunctionNumbers {
            invocations: self.invocations.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            poison: self.poison.load(Ordering::Relaxed),
            refused_effects: self.refused_effects.load(Ordering::Relaxed),
            buckets: self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            last_error_ms: last_error.as_ref().map_or(0, |(at, _)| *at),
            last_error: last_error.map(|(_, text)| text),
            lag: self.lag(),
            partitions: self.partitions() as u64,
            desired: self.desired.load(Ordering::Relaxed),
            members: self.is_member.load(Ordering::Relaxed),
        }
    }
}

/// Counters of a function, of one node or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FunctionNumbers {
    /// Calls, retries included.
    pub invocations: u64,
    /// Of these, failed.
    pub failures: u64,
    /// Records that were given up.
    pub poison: u64,
    /// Effects that the hub refused for themselves: a device that isn't there.
    pub refused_effects: u64,
    /// Invocations by duration.
    pub buckets: Vec<u64>,
    /// When it failed last.
    pub last_error_ms: u64,
    /// How it failed last.
    pub last_error: Option<String>,
    /// Records that wait.
    pub lag: u64,
    /// Partitions that are processed.
    pub partitions: u64,
    /// Instances that its lag asks for, as the node that decides sees it.
    pub desired: u64,
    /// Nodes that process its partitions.
    pub members: u64,
}

impl FunctionNumbers {
    /// Adds those of another node.
    pub fn add(&mut self, other: &FunctionNumbers) {
        self.invocations += other.invocations;
        self.failures += other.failures;
        self.poison += other.poison;
        self.refused_effects += other.refused_effects;
        self.lag += other.lag;
        self.partitions += other.partitions;
        self.members += other.members;
        self.desired = self.desired.max(other.desired);
        if other.last_error_ms >= self.last_error_ms && other.last_error.is_some() {
            (self.last_error_ms, self.last_error) = (other.last_error_ms, other.last_error.clone());
        }
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, more)| *sum += more);
    }

    /// The duration that this share of the invocations didn't exceed, in milliseconds.
    pub fn quantile_ms(&self, share: f64) -> Option<f64> {
        let total: u64 = self.buckets.iter().sum();
        let rank = (total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = |count: &u64| {
            seen += count;
            total > 0 && seen >= rank
        };
        self.buckets.iter().position(reached).map(|bucket| (bucket_bound(bucket) * 100.0).round() / 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_over_nodes() {
        let (one, other) = (FunctionStats::new("a", "f"), FunctionStats::new("a", "f"));
        (0..98).for_each(|_| one.invoked(Duration::from_millis(10), 1));
        (0..2).for_each(|_| other.invoked(Duration::from_secs(3), 1));
        other.failed(7, "boom");
        let mut sum = one.snapshot();
        sum.add(&other.snapshot());
        assert_eq!((sum.invocations, sum.failures, sum.last_error.as_deref()), (100, 1, Some("boom")));
        let (half, most) = (sum.quantile_ms(0.5).unwrap(), sum.quantile_ms(0.99).unwrap());
        assert!((10.0..12.2).contains(&half) && (3_000.0..3_700.0).contains(&most), "{half} {most}");
        assert_eq!(FunctionNumbers::default().quantile_ms(0.5), None);
        // Longer than any bucket.
        other.invoked(Duration::from_secs(100_000), 1);
    }

    #[test]
    fn lag_is_that_of_owned_partitions() {
        let stats = FunctionStats::new("a", "f");
        stats.set_lag(0, 5);
        stats.set_lag(1, 7);
        stats.set_lag(0, 1);
        assert_eq!(stats.lag(), 8);
        stats.forget_lag(1);
        assert_eq!((stats.lag(), stats.partitions()), (1, 1));
    }
}
