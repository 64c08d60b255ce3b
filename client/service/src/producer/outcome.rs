//! What became of a batch, shared by the pipeline and everybody who holds a receipt of one of its
//! records: one allocation a batch, none a record.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fleetline_types::{Offset, PartitionId};
use parking_lot::Mutex;

use crate::error::SendError;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition.
    pub partition: PartitionId,
    /// The record's offset in it.
    pub offset: Offset,
}

/// Where some consecutive records of one batch lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Positions {
    /// The partition.
    pub partition: PartitionId,
    /// Offset of the first record.
    pub first: Offset,
    /// How many records.
    pub count: u32,
}

/// The result of one batch, set once.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Offset of the batch's first record.
    result: Option<Result<Offset, SendError>>,
    wakers: Vec<Waker>,
}

impl Outcome {
    /// Sets the result and wakes all who wait. The first result stays.
    pub(crate) fn set(&self, result: Result<Offset, SendError>) {
        let wakers = {
            let mut state = self.state.lock();
            if state.result.is_some() {
                return;
            }
            state.result = Some(result);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// `slot` is where the caller's waker lies, from poll to poll.
    fn poll(&self, cx: &Context<'_>, slot: &mut Option<usize>) -> Poll<Result<Offset, SendError>> {
        let mut state = self.state.lock();
        if let Some(result) = &state.result {
            return Poll::Ready(result.clone());
        }
        match *slot {
            Some(index) => state.wakers[index].clone_from(cx.waker()),
            None => {
                *slot = Some(state.wakers.len());
                state.wakers.push(cx.waker().clone());
            }
        }
        Poll::Pending
    }
}

/// The promise of a record's position. Await it; or drop it when nobody wants to know (the record
/// is sent all the same).
#[derive(Debug)]
#[must_use = "only the receipt tells whether the record was stored"]
pub struct SendReceipt {
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) partition: PartitionId,
    /// Place of the record in its batch.
    pub(crate) index: u32,
    pub(crate) slot: Option<usize>,
}

impl SendReceipt {
    /// The partition that the record goes to.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }
}

impl Future for SendReceipt {
    type Output = Result<Position, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (partition, index) = (this.partition, u64::from(this.index));
        this.outcome
            .poll(cx, &mut this.slot)
            .map(|result| result.map(|base| Position { partition, offset: base.plus(index) }))
    }
}

/// The promise of the positions of consecutive records that share a batch.
#[derive(Debug)]
#[must_use = "only the receipt tells whether the records were stored"]
pub struct BatchReceipt {
    pub(crate) outcome: Arc<Outcome>,
    pub(crate) partition: PartitionId,
    /// Place of the first record in its batch.
    pub(crate) index: u32,
    pub(crate) count: u32,
    pub(crate) slot: Option<usize>,
}

impl BatchReceipt {
    /// The partition that the records go to.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// How many records it stands for.
    pub fn count(&self) -> u32 {
        self.count
    }
}

impl Future for BatchReceipt {
    type Output = Result<Positions, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (partition, index, count) = (this.partition, u64::from(this.index), this.count);
        this.outcome
            .poll(cx, &mut this.slot)
            .map(|result| result.map(|base| Positions { partition, first: base.plus(index), count }))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::join_all;

    use super::*;

    fn receipt(outcome: &Arc<Outcome>, index: u32) -> SendReceipt {
        SendReceipt { outcome: outcome.clone(), partition: PartitionId(1), index, slot: None }
    }

    /// All receipts of a batch resolve from one result, each to its own offset; later results
    /// change nothing.
    #[tokio::test]
    async fn receipts_share_one_result() {
        let outcome = Arc::new(Outcome::default());
        let receipts = join_all((0..10).map(|i| receipt(&outcome, i)));
        let setter = outcome.clone();
        let (found, ()) = tokio::join!(receipts, async move {
            tokio::task::yield_now().await;
            setter.set(Ok(Offset(100)));
            setter.set(Err(SendError::Failed("late".into())));
        });
        for (i, result) in found.into_iter().enumerate() {
            assert_eq!(result.map(|p| p.offset), Ok(Offset(100 + i as u64)));
        }
    }

    /// Polling again and again keeps one waker, not one a poll.
    #[tokio::test]
    async fn a_receipt_keeps_one_waker() {
        let outcome = Arc::new(Outcome::default());
        let mut waiting = receipt(&outcome, 0);
        for _ in 0..100 {
            assert!((&mut waiting).now_or_never().is_none());
        }
        assert_eq!(outcome.state.lock().wakers.len(), 1);
    }
}
