//! The async runtime that openraft runs on: tokio, with the entropy door in our hands.
//!
//! openraft draws its election time-outs from the runtime's generator. In a node that is the
//! operating system's; in a simulation (one thread, virtual time) [`seed_this_thread`] makes it a
//! seeded one, so that a run can be replayed.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use openraft::OptionalSend;
use openraft::async_runtime::AsyncRuntime;
use openraft::impls::TokioRuntime;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng, TryRng};

thread_local! {
    static SEEDED: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
}

/// Makes every draw of openraft on this thread come from `seed` from now on; `None` goes back to
/// the operating system's entropy. For simulations, which run on one thread.
pub fn seed_this_thread(seed: Option<u64>) {
    SEEDED.with(|cell| *cell.borrow_mut() = seed.map(SmallRng::seed_from_u64));
}

/// The generator that openraft draws from: the thread's seeded one, or the operating system's.
#[derive(Debug, Default)]
pub struct DoorRng;

impl TryRng for DoorRng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.try_next_u64()? as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(SEEDED.with(|cell| match cell.borrow_mut().as_mut() {
            Some(rng) => rng.next_u64(),
            None => rand::rng().next_u64(), // tidy: the entropy door itself
        }))
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
        for chunk in dst.chunks_mut(8) {
            let bytes = self.try_next_u64()?.to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }
}

/// tokio, with [`DoorRng`] for randomness.
#[derive(Debug)]
pub struct FleetRuntime(TokioRuntime);

impl AsyncRuntime for FleetRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = DoorRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        DoorRng
    }

    fn new(threads: usize) -> Self {
        FleetRuntime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same seed gives the same draws; without a seed two draws differ.
    #[test]
    fn seeded_draws_repeat() {
        let draw = || {
            let mut rng = FleetRuntime::thread_rng();
            (rng.next_u64(), rng.next_u32())
        };
        seed_this_thread(Some(7));
        let first = draw();
        seed_this_thread(Some(7));
        assert_eq!(first, draw());
        seed_this_thread(None);
        assert_ne!(draw(), draw());
    }
}
