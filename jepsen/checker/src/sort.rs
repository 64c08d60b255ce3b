//! Grouping by sorting: indexes of records, ordered by a key, cut into runs of equal keys.

use crate::history::{History, Record};

/// The records that `wanted` picks, as indexes into the history, stably sorted by `key`.
pub(crate) fn sorted_by<K: Ord>(
    history: &History,
    wanted: impl Fn(&Record) -> bool,
    key: impl Fn(&Record) -> K,
) -> Vec<u32> {
    let records = history.records();
    let mut picked: Vec<u32> = (0..records.len() as u32).filter(|&i| wanted(&records[i as usize])).collect();
    picked.sort_by_key(|&i| key(&records[i as usize]));
    picked
}

/// A running maximum over the completion times of operations: what was the largest value that any
/// operation had confirmed before a given moment?
#[derive(Debug)]
pub(crate) struct ConfirmedMax<V> {
    /// (complete, largest value confirmed up to then, the operation that confirmed it); growing in both.
    steps: Vec<(u64, V, u32)>,
}

impl<V: Ord + Copy> ConfirmedMax<V> {
    /// From (completion time, value, operation) in any order.
    pub(crate) fn new(mut confirmed: Vec<(u64, V, u32)>) -> ConfirmedMax<V> {
        confirmed.sort_unstable();
        let mut steps: Vec<(u64, V, u32)> = Vec::new();
        for (time, value, op) in confirmed {
            if steps.last().is_none_or(|last| value > last.1) {
                steps.push((time, value, op));
            }
        }
        ConfirmedMax { steps }
    }

    /// The largest value that was confirmed strictly before `time`, and by which operation.
    pub(crate) fn before(&self, time: u64) -> Option<(V, u32)> {
        let behind = self.steps.partition_point(|step| step.0 < time);
        behind.checked_sub(1).map(|at| (self.steps[at].1, self.steps[at].2))
    }
}
