//! How far a group's log is durable on this node, as a value that `apply` waits for.
//!
//! openraft applies what a quorum has committed, even if this node's own write is still in the
//! writer's queue. If state got ahead of the log, a crash would leave a state that the log doesn't
//! cover. So appends raise this mark when their sync is done, and apply waits for it.
//!
//! A truncation lowers the mark, and completions of appends from before it, which may still be on
//! their way, must not raise it again: each carries the epoch in which it was queued.

use fleetline_types::LogIndex;
use parking_lot::Mutex;
use tokio::sync::watch;

#[derive(Debug)]
struct Inner {
    epoch: u64,
    /// One behind the last durable index.
    next: u64,
    failed: Option<String>,
}

/// The durable mark of one group.
#[derive(Debug)]
pub struct DurableMark {
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

impl DurableMark {
    /// A mark for a log whose last durable entry is `last`.
    pub fn new(last: Option<LogIndex>) -> DurableMark {
        let next = last.map_or(0, |index| index.0 + 1);
        DurableMark {
            inner: Mutex::new(Inner { epoch: 0, next, failed: None }),
            changed: watch::Sender::new(()),
        }
    }

    /// The epoch that an append queued now belongs to.
    pub fn epoch(&self) -> u64 {
        self.inner.lock().epoch
    }

    /// An append of that epoch, ending with `last`, is durable.
    pub fn raise(&self, epoch: u64, last: LogIndex) {
        {
            let mut inner = self.inner.lock();
            if inner.epoch != epoch || inner.next > last.0 {
                return;
            }
            inner.next = last.0 + 1;
        }
        self.changed.send_replace(());
    }

    /// Entries behind `keep` are being removed; what was queued before counts no more.
    pub fn truncate(&self, keep: Option<LogIndex>) {
        let mut inner = self.inner.lock();
        inner.epoch += 1;
        inner.next = inner.next.min(keep.map_or(0, |index| index.0 + 1));
    }

    /// A snapshot up to `last` was installed: the log is durable at least so far.
    pub fn installed(&self, last: LogIndex) {
        let epoch = self.epoch();
        self.raise(epoch, last);
    }

    /// The log failed; nobody may wait any longer.
    pub fn fail(&self, reason: String) {
        self.inner.lock().failed.get_or_insert(reason);
        self.changed.send_replace(());
    }

    /// Waits until `index` is durable.
    ///
    /// # Errors
    /// When the log has failed.
    pub async fn wait(&self, index: LogIndex) -> Result<(), String> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            {
                let inner = self.inner.lock();
                if let Some(reason) = &inner.failed {
                    return Err(reason.clone());
                }
                if inner.next > index.0 {
                    return Ok(());
                }
            }
            if changed.changed().await.is_err() {
                return Err("group was dropped".to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_durable(mark: &DurableMark, index: u64) -> bool {
        mark.inner.lock().next > index
    }

    /// A completion that was queued before a truncation doesn't make later entries look durable.
    #[test]
    fn old_completions_count_no_more() {
        let mark = DurableMark::new(Some(LogIndex(3)));
        let before = mark.epoch();
        mark.truncate(Some(LogIndex(1)));
        mark.raise(before, LogIndex(9));
        assert!(is_durable(&mark, 1) && !is_durable(&mark, 2));
        mark.raise(mark.epoch(), LogIndex(2));
        assert!(is_durable(&mark, 2) && !is_durable(&mark, 3));
    }

    /// Waiters wake for the index they wait for, and for a failure.
    #[tokio::test]
    async fn waiting() {
        let mark = std::sync::Arc::new(DurableMark::new(None));
        let waiter = tokio::spawn({
            let mark = mark.clone();
            async move { mark.wait(LogIndex(5)).await }
        });
        mark.raise(0, LogIndex(2));
        mark.raise(0, LogIndex(5));
        assert_eq!(waiter.await.unwrap(), Ok(()));
        let waiter = tokio::spawn({
            let mark = mark.clone();
            async move { mark.wait(LogIndex(6)).await }
        });
        mark.fail("disk".to_owned());
        assert_eq!(waiter.await.unwrap(), Err("disk".to_owned()));
    }
}
