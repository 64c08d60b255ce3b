//! A small seeded generator (splitmix64): jitter of the real transport, faults of the memory one.
//!
//! Deterministic from its seed. Not for keys or tokens.

use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng { state: seed }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; zero when `end` is zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(end)) >> 64) as u64
    }

    /// True with this probability. Draws even when the answer is certain, so that switching a
    /// fault off doesn't shift the choices of the others.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        ((self.next_u64() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// A time within `low..=high`.
    pub(crate) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_nanos().min(u128::from(u64::MAX - 1)) as u64;
        low + Duration::from_nanos(self.below(span + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same seed gives the same choices, within their ranges.
    #[test]
    fn seeded_and_in_range() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        let mut hits = 0;
        for _ in 0..10_000 {
            assert_eq!(a.next_u64(), b.next_u64());
            let time = a.between(Duration::from_millis(2), Duration::from_millis(5));
            assert!((2..=5_000).contains(&(time.as_micros() / 1000)) && time <= Duration::from_millis(5));
            b.between(Duration::from_millis(2), Duration::from_millis(5));
            hits += u32::from(a.chance(0.25));
            b.chance(0.25);
        }
        assert!((2000..3000).contains(&hits), "{hits}");
        assert_eq!(a.below(0), 0);
        assert!(!a.chance(0.0));
        assert!(a.chance(1.0));
    }
}
