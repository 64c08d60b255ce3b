//! The requests of one connection that wait for their answers.
//!
//! Used by both transports. Answers may come in any order. A requester that gave up drops its
//! future; such entries are swept when the table has doubled, so the work per request is constant
//! and the table is never larger than twice the requests that somebody waits for.
//!
//! Invariant: after [`OpenRequests::break_off`] nothing is ever added again, so no request can hang
//! on a connection that is gone.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use crate::{PeerMessage, TransportError};

/// The most requests that may wait on one connection. Reached only when a peer takes requests and
/// never answers.
pub(crate) const OPEN_REQUESTS_MAX: usize = 65_536;

const SWEEP_MIN: usize = 1024;

pub(crate) type AnswerSender = oneshot::Sender<Result<PeerMessage, TransportError>>;

/// Why a request was not added.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotAdded {
    /// The connection is gone.
    Broken,
    /// [`OPEN_REQUESTS_MAX`] requests wait.
    TooMany,
}

#[derive(Debug)]
pub(crate) struct OpenRequests {
    waiting: BTreeMap<u64, AnswerSender>,
    next_id: u64,
    sweep_at: usize,
    broken: bool,
}

impl OpenRequests {
    pub(crate) fn new() -> OpenRequests {
        OpenRequests { waiting: BTreeMap::new(), next_id: 0, sweep_at: SWEEP_MIN, broken: false }
    }

    /// Adds a request and gives its id; ids grow by one.
    pub(crate) fn add(&mut self, sender: AnswerSender) -> Result<u64, NotAdded> {
        if self.broken {
            return Err(NotAdded::Broken);
        }
        if self.waiting.len() >= self.sweep_at {
            self.waiting.retain(|_, sender| !sender.is_closed());
            self.sweep_at = (self.waiting.len() * 2).clamp(SWEEP_MIN, OPEN_REQUESTS_MAX);
        }
        if self.waiting.len() >= OPEN_REQUESTS_MAX {
            return Err(NotAdded::TooMany);
        }
        self.next_id += 1;
        self.waiting.insert(self.next_id, sender);
        Ok(self.next_id)
    }

    /// Takes the request that an answer is for; `None` for an id that isn't open.
    pub(crate) fn take(&mut self, id: u64) -> Option<AnswerSender> {
        self.waiting.remove(&id)
    }

    /// Refuses all later requests and gives up the open ones, which the caller fails.
    pub(crate) fn break_off(&mut self) -> Vec<AnswerSender> {
        self.broken = true;
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// Requests that wait now, those whose requester gave up included.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReplyFuture;

    /// Requests whose future was dropped don't pile up; those still waited for stay.
    #[test]
    fn abandoned_requests_are_swept() {
        let mut open = OpenRequests::new();
        let (kept, _future) = ReplyFuture::channel();
        let kept = open.add(kept).unwrap();
        for _ in 0..OPEN_REQUESTS_MAX * 2 {
            open.add(ReplyFuture::channel().0).unwrap();
        }
        assert!(open.len() <= 2 * SWEEP_MIN);
        assert!(open.take(kept).is_some());
        assert!(open.take(kept).is_none());
    }

    /// A peer that never answers meets the bound; a broken connection takes nothing more.
    #[test]
    fn bound_and_break() {
        let mut open = OpenRequests::new();
        let mut futures = Vec::new();
        for _ in 0..OPEN_REQUESTS_MAX {
            let (sender, future) = ReplyFuture::channel();
            open.add(sender).unwrap();
            futures.push(future);
        }
        assert_eq!(open.add(ReplyFuture::channel().0), Err(NotAdded::TooMany));
        assert_eq!(open.break_off().len(), OPEN_REQUESTS_MAX);
        assert_eq!(open.add(ReplyFuture::channel().0), Err(NotAdded::Broken));
    }
}
