//! Rounds to the followers that answer linearizable reads, shared by reads that wait at the same time.
//!
//! One round runs at a time. A read that is asked for while none runs begins one; those that are asked
//! for meanwhile wait together for the next one. So a read is answered only by a round that began after
//! it was asked for, and however many readers there are, each waits for two rounds at the most.
//!
//! A round runs in a task of its own: readers that give up don't stop it for the others.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The rounds of one group. `T` is what a round gives.
#[derive(Debug)]
pub(crate) struct ReadRounds<T> {
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    running: bool,
    /// Reads for the next round.
    waiting: Vec<oneshot::Sender<T>>,
}

impl<T: Clone + Send + 'static> ReadRounds<T> {
    pub(crate) fn new() -> Arc<ReadRounds<T>> {
        Arc::new(ReadRounds { state: Mutex::new(State { running: false, waiting: Vec::new() }) })
    }

    /// The result of a round that begins after this call; `round` makes one. `None` when it ended without
    /// one, as when the runtime stops.
    pub(crate) async fn next<F>(self: &Arc<Self>, round: impl Fn() -> F + Send + 'static) -> Option<T>
    where
        F: Future<Output = T> + Send,
    {
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut state = self.state.lock();
            state.waiting.push(sender);
            !std::mem::replace(&mut state.running, true)
        };
        if first {
            let mut running = Running { rounds: self.clone(), ended: false };
            tokio::spawn(async move {
                while let Some(waiting) = running.begin() {
                    let result = round().await;
                    for reader in waiting {
                        // It may have given up.
                        drop(reader.send(result.clone()));
                    }
                }
            });
        }
        receiver.await.ok()
    }
}

/// Held while rounds run. When they end otherwise than for want of readers, as by a panic, nobody is left
/// waiting.
struct Running<T> {
    rounds: Arc<ReadRounds<T>>,
    ended: bool,
}

impl<T> Running<T> {
    /// The readers of the round that begins now; `None` when nobody waits, and then none runs any more.
    fn begin(&mut self) -> Option<Vec<oneshot::Sender<T>>> {
        let mut state = self.rounds.state.lock();
        state.running = !state.waiting.is_empty();
        self.ended = !state.running;
        state.running.then(|| std::mem::take(&mut state.waiting))
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        if !self.ended {
            let mut state = self.rounds.state.lock();
            state.running = false;
            state.waiting.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures::FutureExt;
    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Rounds that end when they are let, numbered as they begin.
    #[derive(Clone)]
    struct Rounds {
        begun: Arc<AtomicU64>,
        let_end: Arc<Semaphore>,
        shared: Arc<ReadRounds<u64>>,
    }

    impl Rounds {
        fn new() -> Rounds {
            let (begun, let_end) = (Arc::default(), Arc::new(Semaphore::new(0)));
            Rounds { begun, let_end, shared: ReadRounds::new() }
        }

        async fn read(&self) -> Option<u64> {
            let this = self.clone();
            let round = move || {
                let (number, let_end) = (this.begun.fetch_add(1, Ordering::SeqCst) + 1, this.let_end.clone());
                async move {
                    let_end.acquire().await.unwrap().forget();
                    number
                }
            };
            self.shared.next(round).await
        }

        /// Lets everything run that can.
        async fn settle(&self) -> u64 {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            self.begun.load(Ordering::SeqCst)
        }
    }

    /// Reads during a round share the next one, never the one that runs, also when those that asked
    /// first have given up.
    #[tokio::test]
    async fn reads_share_the_next_round() {
        let rounds = Rounds::new();
        let mut first = Box::pin(rounds.read());
        assert!(first.as_mut().now_or_never().is_none());
        assert_eq!(rounds.settle().await, 1);
        let mut given_up = Box::pin(rounds.read());
        assert!(given_up.as_mut().now_or_never().is_none());
        drop(given_up);
        let mut later = Box::pin(join_all((0..20).map(|_| rounds.read())));
        assert!(later.as_mut().now_or_never().is_none());
        assert_eq!(rounds.settle().await, 1);
        rounds.let_end.add_permits(1);
        assert_eq!(first.await, Some(1));
        assert_eq!(rounds.settle().await, 2);
        let mut last = Box::pin(rounds.read());
        assert!(last.as_mut().now_or_never().is_none());
        rounds.let_end.add_permits(2);
        assert_eq!(later.await, vec![Some(2); 20]);
        assert_eq!(last.await, Some(3));
        rounds.let_end.add_permits(1);
        assert_eq!(rounds.read().await, Some(4));
    }

    /// A round that panics leaves nobody waiting, and the next read begins anew.
    #[tokio::test]
    async fn a_panic_ends_the_wait() {
        let shared: Arc<ReadRounds<u64>> = ReadRounds::new();
        let broken = || async { panic!("a round that panics, as this test wants it") };
        assert_eq!(shared.next(broken).await, None);
        assert_eq!(shared.next(|| async { 7 }).await, Some(7));
    }
}
