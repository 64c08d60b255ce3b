//! Pauses between attempts: doubling, with jitter, so that many clients of a restarted node don't
//! come back in step.

use std::time::Duration;

/// The pauses of one loop of attempts.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { min, max, attempt: 0 }
    }

    /// The next pause: between half and all of `min · 2^attempt`, at most `max`.
    pub(crate) fn next(&mut self) -> Duration {
        let full = self.min.saturating_mul(1 << self.attempt.min(16)).min(self.max);
        self.attempt += 1;
        full.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }

    /// Something worked: the next pause is short again.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses grow to the maximum and never leave their range; a reset starts over.
    #[test]
    fn pauses_stay_in_range() {
        let (min, max) = (Duration::from_millis(20), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max);
        for attempt in 0..100u32 {
            let full = (min * 2u32.pow(attempt.min(10))).min(max);
            let pause = backoff.next();
            assert!(pause >= full / 2 && pause <= full, "attempt {attempt}: {pause:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= min);
    }
}
