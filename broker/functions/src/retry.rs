//! How often and when a failed invocation is tried again (functions.md §7).

use std::time::Duration;

use fleetline_worker::{RetryPolicy, RetryStrategy};

/// Waits are cut here, whatever a policy says: one of a week would be a stopped partition.
const WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// The wait before try `count` (1 is the first repetition); `None` when there is none.
///
/// Exponential waits double from the least to the most; `jitter` in 0..1 shortens them by up to a fifth, so
/// that partitions that failed together don't come back together.
pub(crate) fn wait(policy: Option<RetryPolicy>, count: u32, jitter: f64) -> Option<Duration> {
    let policy = policy?;
    if policy.max.is_some_and(|max| count > max) {
        return None;
    }
    Some(match policy.strategy {
        RetryStrategy::Fixed { delay } => delay.min(WAIT_MAX),
        RetryStrategy::Exponential { min, max } => {
            let factor = 2u32.saturating_pow(count.saturating_sub(1).min(31));
            let wait = min.saturating_mul(factor).min(max.max(min)).min(WAIT_MAX);
            wait.mul_f64(1.0 - 0.2 * jitter.clamp(0.0, 1.0))
        }
    })
}

/// The highest number of repetitions as workers get it: -1 for ever.
pub(crate) fn max_on_wire(policy: RetryPolicy) -> i32 {
    policy.max.map_or(-1, |max| i32::try_from(max).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits() {
        let seconds = Duration::from_secs;
        let fixed = RetryPolicy { max: Some(2), strategy: RetryStrategy::Fixed { delay: seconds(3) } };
        let all: Vec<_> = (1..5).map(|count| wait(Some(fixed), count, 0.5)).collect();
        assert_eq!(all, [Some(seconds(3)), Some(seconds(3)), None, None]);
        let strategy = RetryStrategy::Exponential { min: seconds(1), max: seconds(5) };
        let growing = RetryPolicy { max: None, strategy };
        let all: Vec<_> = (1..5).map(|count| wait(Some(growing), count, 0.0).unwrap().as_secs()).collect();
        assert_eq!(all, [1, 2, 4, 5]);
        assert_eq!(wait(Some(growing), 1_000, 1.0), Some(seconds(4)));
        assert_eq!(wait(None, 1, 0.0), None);
        assert_eq!((max_on_wire(growing), max_on_wire(fixed)), (-1, 2));
    }
}
