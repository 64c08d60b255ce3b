//! The async runtime that openraft runs on: tokio, with the entropy door in our hands.
//!
//! openraft draws its election time-outs from the runtime's generator. In a node that is the
//! operating system's; in a simulation (one thread, virtual time) [`seed_this_thread`] makes it a
//! seeded one, so that a run can be replayed.
//!
//! openraft looks at its timers on a tick of each group, some ten times a second. A node with hundreds of groups
//! would be woken thousands of times a second for nothing: after [`align_ticks`] all groups of the process
//! tick together, and less often.

use std::cell::RefCell;
use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use openraft::async_runtime::AsyncRuntime;
use openraft::impls::TokioRuntime;
use openraft::{Instant as _, OptionalSend};
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

type Moment = <TokioRuntime as AsyncRuntime>::Instant;

/// When ticks may come: every so often, from a moment on.
#[derive(Clone, Copy, Debug)]
struct Grid {
    origin: Moment,
    every: Duration,
}

static GRID: OnceLock<Grid> = OnceLock::new();

/// Waits that are shorter are no ticks: openraft gathers completions of the log for a microsecond.
const TICK_MIN: Duration = Duration::from_micros(100);

impl Grid {
    /// The next moment of the grid that isn't before `deadline`.
    fn at(self, now: Moment, deadline: Moment) -> Moment {
        if self.every.is_zero() || deadline.saturating_duration_since(now) < TICK_MIN {
            return deadline;
        }
        let every = self.every.as_nanos();
        let steps = deadline.saturating_duration_since(self.origin).as_nanos().div_ceil(every);
        u64::try_from(steps * every).map_or(deadline, |nanos| self.origin + Duration::from_nanos(nanos))
    }
}

/// Has all groups of this process tick together, `every` so often from now on. Call it before the first group
/// starts; a later call changes nothing. A leader beats and a follower campaigns up to `every` later than its
/// own timer says. Simulations leave it out, and each group ticks by itself.
pub fn align_ticks(every: Duration) {
    GRID.get_or_init(|| Grid { origin: Moment::now(), every });
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
        // Only its ticks sleep until a moment.
        let deadline = GRID.get().map_or(deadline, |grid| grid.at(Moment::now(), deadline));
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

    /// Ticks wait for the grid, which is the same for all; what is due at once isn't kept waiting.
    #[test]
    fn ticks_meet_on_the_grid() {
        let origin = Moment::now();
        let grid = Grid { origin, every: Duration::from_millis(250) };
        let at = |millis: u64| origin + Duration::from_millis(millis);
        for (now, deadline, expected) in
            [(0, 1, 250), (3, 101, 250), (3, 249, 250), (3, 250, 250), (250, 251, 500), (740, 1001, 1250)]
        {
            assert_eq!(grid.at(at(now), at(deadline)), at(expected), "{now} {deadline}");
        }
        let soon = at(3) + Duration::from_micros(1);
        assert_eq!(grid.at(at(3), soon), soon);
        assert_eq!(grid.at(at(9), at(3)), at(3));
        let off = Grid { every: Duration::ZERO, ..grid };
        assert_eq!(off.at(at(0), at(101)), at(101));
    }
}
