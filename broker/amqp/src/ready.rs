//! Who within a connection has something to look at.
//!
//! A connection may hold thousands of devices, each with a link that leaders and the ingest wake. Each
//! has a waker of its own that notes whose it is before it wakes the connection's task, so that a wake
//! costs the look at one device and not at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use fleetline_amqp::LinkId;
use futures::task::AtomicWaker;
use parking_lot::Mutex;

/// Who.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    /// A device, by its number in the connection.
    Device(u64),
    /// A receiver of events.
    Reader(LinkId),
}

/// Those that were woken since the last look.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    queue: Mutex<Vec<Arc<Flag>>>,
    task: AtomicWaker,
}

/// Wakes the connection for one of them.
#[derive(Debug)]
pub(crate) struct Flag {
    who: Who,
    /// It is in the queue.
    queued: AtomicBool,
    ready: Weak<Ready>,
}

impl Ready {
    /// The one that wakes for `who`.
    pub(crate) fn flag(self: &Arc<Self>, who: Who) -> Arc<Flag> {
        Arc::new(Flag { who, queued: AtomicBool::new(false), ready: Arc::downgrade(self) })
    }

    /// Whose wakes are noted from here on wake this task.
    pub(crate) fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    /// Those that were woken; they may be woken again from here on.
    pub(crate) fn take(&self) -> Vec<Who> {
        let taken = std::mem::take(&mut *self.queue.lock());
        let unqueue = |flag: Arc<Flag>| {
            flag.queued.store(false, Ordering::Release);
            flag.who
        };
        taken.into_iter().map(unqueue).collect()
    }
}

impl Flag {
    /// A waker of it.
    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(self.clone())
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(ready) = self.ready.upgrade() {
            ready.queue.lock().push(self);
            ready.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each is noted once until it was taken.
    #[test]
    fn noted_once() {
        let ready = Arc::new(Ready::default());
        let (one, two) = (ready.flag(Who::Device(1)), ready.flag(Who::Device(2)));
        for _ in 0..3 {
            one.waker().wake();
            two.waker().wake_by_ref();
        }
        assert_eq!(ready.take(), [Who::Device(1), Who::Device(2)]);
        assert!(ready.take().is_empty());
        two.waker().wake();
        assert_eq!(ready.take(), [Who::Device(2)]);
        let waker = one.waker();
        drop(ready);
        waker.wake();
    }
}
