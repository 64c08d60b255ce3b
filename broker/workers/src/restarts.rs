//! When a process that ended by itself is started again, and when its app is given up (§5).
//!
//! Pure: time comes in as an argument. One history serves all processes of an app.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::options::Restarts;

/// The failures of an app's processes that still count.
#[derive(Debug)]
pub(crate) struct History {
    policy: Restarts,
    /// Failures after which the app is given up.
    most: usize,
    failures: VecDeque<Instant>,
}

impl History {
    pub(crate) fn new(policy: Restarts, processes: usize) -> Self {
        // §5: "host gives up once failures within 30 min reach 3 × maximum process count".
        let most = (policy.failures as usize).saturating_mul(processes).max(1);
        Self { policy, most, failures: VecDeque::new() }
    }

    /// Takes a failure and says how long to wait before the next start; `None` when the app is given up.
    pub(crate) fn failed(&mut self, now: Instant) -> Option<Duration> {
        while self.failures.front().is_some_and(|then| now.duration_since(*then) >= self.policy.window) {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        if self.failures.len() >= self.most {
            return None;
        }
        let doublings = u32::try_from(self.failures.len() - 1).unwrap_or(u32::MAX).min(16);
        Some(self.policy.first_wait.saturating_mul(1 << doublings).min(self.policy.longest_wait))
    }

    /// Wait before a start that follows no failure: the process asked for it.
    pub(crate) fn asked(&self) -> Duration {
        self.policy.first_wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn history(failures: u32, processes: usize) -> History {
        let policy =
            Restarts { failures, window: seconds(100), first_wait: seconds(1), longest_wait: seconds(5) };
        History::new(policy, processes)
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let (mut history, now) = (history(9, 1), Instant::now());
        let waits: Vec<_> = (0..6).filter_map(|_| history.failed(now)).map(|wait| wait.as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5, 5]);
    }

    #[test]
    fn gives_up_at_the_limit_for_all_processes() {
        let (mut history, now) = (history(3, 2), Instant::now());
        let given_up = (1..).find(|_| history.failed(now).is_none());
        assert_eq!(given_up, Some(6));
    }

    #[test]
    fn old_failures_are_forgotten() {
        let (mut history, now) = (history(3, 1), Instant::now());
        for round in 0..10 {
            assert_eq!(history.failed(now + seconds(100 * round)), Some(seconds(1)), "{round}");
        }
    }
}
