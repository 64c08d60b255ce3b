//! The queue in front of the writer, bounded by bytes.
//!
//! A sender reserves room first (and waits for it, holding no lock), then changes the group's state
//! and pushes under the group's lock, which never waits. So the order of changes is the order in
//! the queue, and the writer can take group locks while senders wait for room.
//!
//! Everything hand-synchronised is here, generic over the primitives, and checked by a model:
//! `RUSTFLAGS="--cfg loom" cargo test -p fleetline-log --lib queue --target-dir target/loom`
//!
//! Not here: what a request is; fairness between senders.

use std::collections::VecDeque;

use sync::{Condvar, Mutex};

#[cfg(not(loom))]
mod sync {
    /// `parking_lot` with the calls that the queue needs.
    pub(super) use parking_lot::MutexGuard;

    #[derive(Debug, Default)]
    pub(super) struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Mutex(parking_lot::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock()
        }
    }

    #[derive(Debug, Default)]
    pub(super) struct Condvar(parking_lot::Condvar);

    impl Condvar {
        pub(super) fn new() -> Self {
            Condvar(parking_lot::Condvar::new())
        }

        pub(super) fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(&mut guard);
            guard
        }

        pub(super) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(super) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

#[cfg(loom)]
mod sync {
    pub(super) use loom::sync::MutexGuard;

    #[derive(Debug)]
    pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no thread panics while it holds the queue")
        }
    }

    #[derive(Debug)]
    pub(super) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(super) fn new() -> Self {
            Condvar(loom::sync::Condvar::new())
        }

        pub(super) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.0.wait(guard).expect("no thread panics while it holds the queue")
        }

        pub(super) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(super) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

/// A queue of requests with a bound on their bytes.
#[derive(Debug)]
pub(crate) struct ByteQueue<T> {
    state: Mutex<State<T>>,
    /// Signalled when something was pushed, or the queue closed.
    work: Condvar,
    /// Signalled when bytes became free, or the queue closed.
    room: Condvar,
    bytes_max: u64,
    /// Whether a sender waits for room; a single-threaded user can't.
    blocking: bool,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<(T, u64)>,
    /// Reserved and queued bytes.
    bytes: u64,
    closed: bool,
}

impl<T> ByteQueue<T> {
    pub(crate) fn new(bytes_max: u64, blocking: bool) -> Self {
        let state = State { items: VecDeque::new(), bytes: 0, closed: false };
        let (work, room) = (Condvar::new(), Condvar::new());
        ByteQueue { state: Mutex::new(state), work, room, bytes_max, blocking }
    }

    /// Waits until `bytes` fit, or the queue is empty (so that a request larger than the bound
    /// still goes through), or it is closed.
    pub(crate) fn reserve(&self, bytes: u64) {
        let mut state = self.state.lock();
        while self.blocking && !state.closed && state.bytes > 0 && state.bytes + bytes > self.bytes_max {
            state = self.room.wait(state);
        }
        state.bytes += bytes;
    }

    /// Gives a reservation back.
    pub(crate) fn cancel(&self, bytes: u64) {
        self.state.lock().bytes -= bytes;
        self.room.notify_all();
    }

    /// Queues an item for which `bytes` were reserved; gives it back when the queue is closed.
    pub(crate) fn push(&self, item: T, bytes: u64) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            state.bytes -= bytes;
            return Err(item);
        }
        state.items.push_back((item, bytes));
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Takes the first item and what waits behind it, up to `round_bytes`. Waits for the first
    /// one when `wait`; empty means closed and drained, or nothing there.
    pub(crate) fn take(&self, round_bytes: u64, wait: bool) -> Vec<T> {
        let mut state = self.state.lock();
        while wait && state.items.is_empty() && !state.closed {
            state = self.work.wait(state);
        }
        let (mut round, mut taken) = (Vec::new(), 0);
        while let Some((_, bytes)) = state.items.front() {
            if !round.is_empty() && taken + bytes > round_bytes {
                break;
            }
            taken += bytes;
            round.extend(state.items.pop_front().map(|(item, _)| item));
        }
        state.bytes -= taken;
        drop(state);
        if taken > 0 {
            self.room.notify_all();
        }
        round
    }

    /// Lets nothing more in; what is queued is still taken.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Requests and bytes that wait.
    pub(crate) fn waiting(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.items.len() as u64, state.bytes)
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A round takes at least one item and otherwise keeps to its bound; bytes are given back.
    #[test]
    fn rounds_keep_to_their_bound() {
        let queue = ByteQueue::new(100, false);
        for (item, bytes) in [(1, 60), (2, 30), (3, 30), (4, 500)] {
            queue.reserve(bytes);
            queue.push(item, bytes).unwrap();
        }
        assert_eq!(queue.waiting(), (4, 620));
        assert_eq!(queue.take(100, false), vec![1, 2]);
        assert_eq!(queue.take(100, false), vec![3]);
        assert_eq!(queue.take(100, false), vec![4]);
        assert_eq!(queue.waiting(), (0, 0));
        queue.reserve(7);
        queue.cancel(7);
        queue.close();
        queue.reserve(9);
        assert_eq!(queue.push(5, 9), Err(5));
        assert_eq!(queue.waiting(), (0, 0));
        assert!(queue.take(100, true).is_empty());
    }
}

#[cfg(all(test, loom))]
mod model {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// In every interleaving of two senders and the writer: nobody waits for ever, nothing is lost,
    /// and each sender's items arrive in its order.
    #[test]
    fn senders_and_writer() {
        loom::model(|| {
            let queue = Arc::new(ByteQueue::new(10, true));
            let senders: Vec<_> = [1u32, 2]
                .into_iter()
                .map(|sender| {
                    let queue = queue.clone();
                    thread::spawn(move || {
                        queue.reserve(8);
                        queue.push(sender, 8).expect("the queue is open");
                    })
                })
                .collect();
            let mut found = Vec::new();
            while found.len() < 2 {
                found.extend(queue.take(100, true));
            }
            for sender in senders {
                sender.join().expect("a sender that doesn't panic");
            }
            found.sort_unstable();
            assert_eq!(found, [1, 2]);
            assert_eq!(queue.waiting(), (0, 0));
        });
    }

    /// Closing wakes a sender that waits for room and a writer that waits for work.
    #[test]
    fn closing_wakes_everybody() {
        loom::model(|| {
            let queue = Arc::new(ByteQueue::new(10, true));
            queue.reserve(8);
            let sender = {
                let queue = queue.clone();
                thread::spawn(move || {
                    queue.reserve(8);
                    queue.push(1, 8).is_ok()
                })
            };
            let writer = {
                let queue = queue.clone();
                thread::spawn(move || queue.take(100, true).len())
            };
            queue.close();
            assert!(!sender.join().expect("no panic"));
            assert_eq!(writer.join().expect("no panic"), 0);
        });
    }
}
