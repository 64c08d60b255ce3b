//! The records of one partition that have not been given to its pipeline: one batch that fills,
//! and full ones behind it.
//!
//! Producers push from any task; the pipeline takes. The queue is bounded by room in bytes, which a
//! record takes before it is pushed and its batch gives back when its outcome is known, so that it
//! covers batches in flight, too.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use fleetline_types::{Offset, PartitionId};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::outcome::{BatchReceipt, Outcome, SendReceipt};
use super::{ProducerOptions, batching};
use crate::error::SendError;
use crate::record::Record;

/// Builders kept for reuse, so that a steady producer allocates none.
const SPARES: usize = 2;

/// The queue of one partition.
pub(crate) struct Queue {
    pub partition: PartitionId,
    /// Free room in bytes.
    pub room: Semaphore,
    /// Tells the pipeline that there is something to take, or that the producer is gone.
    pub wake: Notify,
    /// How many batches have an outcome.
    completed: watch::Sender<u64>,
    batch_bytes: usize,
    options: Arc<ProducerOptions>,
    state: Mutex<State>,
}

struct State {
    open: Option<Batch>,
    full: VecDeque<Batch>,
    /// How many batches were ever opened; each gets an outcome.
    opened: u64,
    /// The pipeline runs.
    started: bool,
    /// The producer is gone: what is here is sent, nothing more comes.
    closed: bool,
    spares: Vec<batching::Filler>,
}

/// Records on their way to a pipeline.
pub(crate) struct Batch {
    pub content: Content,
    pub count: u32,
    /// Room that it gives back when its outcome is known, in bytes.
    pub room: usize,
    pub outcome: Arc<Outcome>,
    /// When it must have an outcome.
    pub deadline: Instant,
}

/// The records of a batch.
pub(crate) enum Content {
    /// Still in their builder.
    Filling(batching::Filler),
    /// Built by the caller.
    Built(Bytes),
}

impl Queue {
    pub(crate) fn new(
        partition: PartitionId,
        room: usize,
        batch_bytes: usize,
        options: Arc<ProducerOptions>,
    ) -> Queue {
        let state = State {
            open: None,
            full: VecDeque::new(),
            opened: 0,
            started: false,
            closed: false,
            spares: Vec::new(),
        };
        Queue {
            partition,
            room: Semaphore::new(room),
            wake: Notify::new(),
            completed: watch::channel(0).0,
            batch_bytes,
            options,
            state: Mutex::new(state),
        }
    }

    /// Adds a record for which `room` bytes were taken. On failure the room is given back.
    pub(crate) fn push(&self, record: &Record<'_>, room: usize) -> Result<SendReceipt, SendError> {
        let mut state = self.state.lock();
        let result = self.push_locked(&mut state, record, room);
        drop(state);
        if result.is_err() {
            self.room.add_permits(room);
        }
        result
    }

    fn push_locked(
        &self,
        state: &mut State,
        record: &Record<'_>,
        room: usize,
    ) -> Result<SendReceipt, SendError> {
        for _ in 0..2 {
            let open = match &mut state.open {
                Some(open) => open,
                None => {
                    let filler =
                        state.spares.pop().unwrap_or_else(|| batching::Filler::new(self.batch_bytes));
                    state.open = Some(self.batch(Content::Filling(filler), 0, 0));
                    state.open.as_mut().expect("just set")
                }
            };
            let Content::Filling(filler) = &mut open.content else {
                unreachable!("only batches that fill are open");
            };
            match filler.push(record) {
                Ok(()) => {
                    let index = open.count;
                    open.count += 1;
                    open.room += room;
                    let outcome = open.outcome.clone();
                    if index == 0 {
                        state.opened += 1;
                        self.wake.notify_one();
                    }
                    return Ok(SendReceipt { outcome, partition: self.partition, index, slot: None });
                }
                Err(batching::PushError::Full) if open.count > 0 => {
                    let full = state.open.take().expect("it was open");
                    state.full.push_back(full);
                }
                Err(batching::PushError::Full) => break,
                Err(batching::PushError::Invalid(reason)) => {
                    if open.count == 0 {
                        self.recycle_open(state);
                    }
                    return Err(SendError::Failed(reason));
                }
            }
        }
        self.recycle_open(state);
        let max = self.batch_bytes;
        Err(SendError::Failed(format!("the record does not fit a batch of {max} bytes")))
    }

    fn recycle_open(&self, state: &mut State) {
        if let Some(Batch { content: Content::Filling(filler), count: 0, .. }) = state.open.take() {
            recycle(state, filler);
        }
    }

    /// Adds a batch that the caller has built, behind everything that was pushed before.
    pub(crate) fn push_built(&self, bytes: Bytes, count: u32, room: usize) -> BatchReceipt {
        let mut state = self.state.lock();
        if let Some(open) = state.open.take() {
            state.full.push_back(open);
        }
        let batch = self.batch(Content::Built(bytes), count, room);
        let outcome = batch.outcome.clone();
        state.opened += 1;
        state.full.push_back(batch);
        drop(state);
        self.wake.notify_one();
        BatchReceipt { outcome, partition: self.partition, index: 0, count, slot: None }
    }

    fn batch(&self, content: Content, count: u32, room: usize) -> Batch {
        let deadline = Instant::now() + self.options.delivery_timeout;
        Batch { content, count, room, outcome: Arc::default(), deadline }
    }

    /// Takes the oldest batch: a full one, else the one that fills.
    pub(crate) fn take(&self) -> Option<Batch> {
        let mut state = self.state.lock();
        match state.full.pop_front() {
            Some(batch) => Some(batch),
            None => state.open.take(),
        }
    }

    /// When the oldest batch must have an outcome.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.full.front().or(state.open.as_ref()).map(|batch| batch.deadline)
    }

    /// Takes the oldest batch if its time is over.
    pub(crate) fn take_expired(&self, now: Instant) -> Option<Batch> {
        if self.deadline()? <= now { self.take() } else { None }
    }

    /// Gives a batch its outcome, its room back to producers, and its builder back for reuse.
    pub(crate) fn complete(&self, outcome: &Outcome, room: usize, result: Result<Offset, SendError>) {
        outcome.set(result);
        self.room.add_permits(room);
        self.completed.send_modify(|completed| *completed += 1);
    }

    /// Keeps a builder for the next batch.
    pub(crate) fn keep(&self, filler: batching::Filler) {
        recycle(&mut self.state.lock(), filler);
    }

    /// Waits until every batch that was opened before has an outcome.
    pub(crate) async fn flush(&self) {
        let opened = self.state.lock().opened;
        let mut completed = self.completed.subscribe();
        let _ = completed.wait_for(|completed| *completed >= opened).await;
    }

    /// True once, for the first who asks: that one starts the pipeline.
    pub(crate) fn start(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().started, true)
    }

    /// The producer is gone.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }

    /// Nothing is here, and nothing will come.
    pub(crate) fn is_done(&self) -> bool {
        let state = self.state.lock();
        state.closed && state.open.is_none() && state.full.is_empty()
    }
}

fn recycle(state: &mut State, filler: batching::Filler) {
    if state.spares.len() < SPARES {
        state.spares.push(filler);
    }
}
