//! One partition's way: the open batch, the batches on their way, and what to do when one fails.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_batch::{BatchBuilder, Compression, Producer, PushError, RecordRef, restamp};
use fleetline_devices::{Ask, ConnectionPlace, DeviceKey, GatewaySync, Request};
use fleetline_types::{PartitionId, ProducerId};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use metrics::Counter;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::refill::{Run, refill};
use super::{IngestOptions, Pushed};
use crate::devices::connections::{Connections, Link};
use crate::devices::hub::{DeviceHub, answered};
use crate::hub::{Appended, HubError};

/// Fences that are asked for at a time.
const FENCES_PAGE: u32 = 4096;
/// The shortest and the longest wait between attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(1000));

/// The open batch.
struct Open {
    builder: BatchBuilder,
    runs: Vec<Run>,
}

/// A batch on its way, or to be sent again.
struct Sent {
    batch: Bytes,
    runs: Vec<Run>,
    sequence: u64,
    count: u32,
    /// It was sent and may be stored.
    unknown: bool,
}

/// How an append ended, and the partition's fence then.
type Outcome = Result<(Appended, u32), HubError>;

/// One partition's way.
pub(super) struct Pipeline {
    partition: PartitionId,
    hub: Arc<dyn DeviceHub>,
    connections: Arc<Connections>,
    options: IngestOptions,
    open: Mutex<Open>,
    filled: Notify,
    room: Notify,
}

impl Pipeline {
    pub(super) fn new(
        partition: PartitionId,
        hub: Arc<dyn DeviceHub>,
        connections: Arc<Connections>,
        options: IngestOptions,
    ) -> Arc<Pipeline> {
        let open = Open { builder: BatchBuilder::new(options.batch_bytes), runs: Vec::new() };
        Arc::new(Pipeline {
            partition,
            hub,
            connections,
            options,
            open: Mutex::new(open),
            filled: Notify::new(),
            room: Notify::new(),
        })
    }

    /// Resolves when the open batch is taken after this call.
    pub(super) fn room(&self) -> Notified<'_> {
        self.room.notified()
    }

    pub(super) fn push(&self, link: &Arc<Link>, number: u64, record: &RecordRef<'_>) -> Pushed {
        let mut open = self.open.lock();
        // Under the lock: once a fence is applied, no record of a session that it ended gets in.
        if link.is_over() {
            return Pushed::Over;
        }
        match open.builder.push(record) {
            Ok(()) => {}
            Err(PushError::Full) => return Pushed::Full,
            Err(error) => return Pushed::Refused(error),
        }
        match open.runs.last_mut() {
            Some(run) if Arc::ptr_eq(&run.link, link) => {
                run.count += 1;
                run.up_to = number;
            }
            _ => open.runs.push(Run { link: link.clone(), count: 1, up_to: number }),
        }
        let first = open.builder.count() == 1;
        drop(open);
        if first {
            self.filled.notify_one();
        }
        Pushed::Taken
    }

    /// Whether there is a batch that waits to be taken.
    pub(super) fn has_waiting(&self) -> bool {
        self.open.lock().builder.count() > 0
    }

    fn take(&self, producer: Producer) -> Option<Sent> {
        let mut open = self.open.lock();
        let count = open.builder.count();
        let batch = open.builder.finish(producer, Compression::None)?;
        let runs = std::mem::take(&mut open.runs);
        drop(open);
        self.room.notify_waiters();
        Some(Sent { batch, runs, sequence: producer.first_sequence, count, unknown: false })
    }

    /// Sends batches until the node stops.
    pub(super) async fn run(self: Arc<Self>) {
        let mut sender = Sender::new(&self);
        sender.sync().await;
        loop {
            sender.send_all().await;
        }
    }
}

/// The task's own state.
struct Sender<'a> {
    pipeline: &'a Pipeline,
    producer: Producer,
    /// The last fence that is applied here.
    fence: u32,
    sent: VecDeque<Sent>,
    open: FuturesOrdered<BoxFuture<'a, Outcome>>,
    /// Records that are stored.
    records: Counter,
    /// Batches that failed.
    retries: Counter,
}

impl<'a> Sender<'a> {
    fn new(pipeline: &'a Pipeline) -> Sender<'a> {
        let mut id = [0; 8];
        pipeline.hub.random(&mut id);
        // Neither 0 (nobody) nor the outbox's.
        let id = ProducerId((u64::from_le_bytes(id) >> 1).max(1));
        Sender {
            pipeline,
            producer: Producer { id, epoch: 1, first_sequence: 0 },
            fence: 1,
            sent: VecDeque::new(),
            open: FuturesOrdered::new(),
            records: metrics::counter!("fleetline_ingest_records_total"),
            retries: metrics::counter!("fleetline_ingest_retries_total"),
        }
    }

    /// Tells the leader that this gateway is there, and learns the last fence. Connections that were
    /// made meanwhile are held against all fences since the first.
    async fn sync(&mut self) {
        let place = ConnectionPlace { connection: 0, ..self.pipeline.hub.place() };
        let mut wait = BACKOFF.0;
        loop {
            let request = Request::Sync(GatewaySync { place: place.clone() });
            match self.pipeline.hub.ask(self.pipeline.partition, request).await.map(answered) {
                Ok(Ok(answer)) => {
                    let fence = answer.head.unwrap_or_default().fence.max(1);
                    if self.pipeline.connections.is_empty() {
                        self.apply_fence(fence);
                    } else {
                        self.catch_up().await;
                    }
                    return;
                }
                other => {
                    tracing::debug!(partition = %self.pipeline.partition, ?other, "gateway is not known yet")
                }
            }
            pause(&mut wait).await;
        }
    }

    /// Sends what there is, as many batches at a time as may be, and returns when there is nothing.
    async fn send_all(&mut self) {
        let filled = self.pipeline.filled.notified();
        tokio::pin!(filled);
        filled.as_mut().enable();
        loop {
            while self.open.len() < self.pipeline.options.window {
                let Some(sent) = self.pipeline.take(self.producer) else { break };
                self.producer.first_sequence += u64::from(sent.count);
                self.start(&sent);
                self.sent.push_back(sent);
            }
            if self.open.is_empty() {
                filled.await;
                return;
            }
            tokio::select! {
                biased;
                Some(outcome) = self.open.next() => self.ended(outcome).await,
                () = filled.as_mut(), if self.open.len() < self.pipeline.options.window => return,
            }
        }
    }

    fn start(&mut self, sent: &Sent) {
        let (hub, partition, batch) = (&self.pipeline.hub, self.pipeline.partition, sent.batch.clone());
        self.open.push_back(Box::pin(async move { hub.append(partition, batch).await }));
    }

    /// The oldest batch's append has ended.
    async fn ended(&mut self, outcome: Outcome) {
        match outcome {
            Ok((_, fence)) => {
                self.stored();
                if fence > self.fence {
                    self.catch_up().await;
                }
            }
            Err(error) => self.recover(error).await,
        }
    }

    /// The oldest batch is stored: acknowledges its records.
    fn stored(&mut self) {
        let Some(sent) = self.sent.pop_front() else { return };
        self.records.increment(u64::from(sent.count));
        for run in &sent.runs {
            run.link.ack(run.up_to);
        }
    }

    /// A batch failed. Waits for those behind it, then sends everything that isn't stored, one by one
    /// and in order, until all of it is.
    async fn recover(&mut self, error: HubError) {
        self.retries.increment(1);
        tracing::debug!(partition = %self.pipeline.partition, %error, "batch failed, sending again");
        self.note(&error);
        let mut failed = VecDeque::from_iter(self.sent.pop_front());
        while let Some(outcome) = self.open.next().await {
            // Also one that is stored is sent again: records are acknowledged in order, and the answer then
            // says that it is a repetition.
            if let Some(mut sent) = self.sent.pop_front() {
                sent.unknown |= !outcome.is_err_and(|error| is_definite(&error));
                failed.push_back(sent);
            }
        }
        if let Some(first) = failed.front_mut() {
            first.unknown |= !is_definite(&error);
        }
        if matches!(error, HubError::Fenced { .. }) {
            self.catch_up().await;
        }
        let mut wait = BACKOFF.0;
        while let Some(sent) = failed.pop_front() {
            self.again(sent, &mut failed, &mut wait).await;
        }
        // What follows goes on behind the last one that is stored.
    }

    /// Sends one batch until it is stored, or holds nothing any more. `later` get other numbers when it
    /// shrinks and they can't be stored.
    async fn again(&mut self, mut sent: Sent, later: &mut VecDeque<Sent>, wait: &mut Duration) {
        loop {
            let outcome = self.pipeline.hub.append(self.pipeline.partition, sent.batch.clone()).await;
            match outcome {
                Ok((_, fence)) => {
                    self.sent.push_front(sent);
                    self.stored();
                    if fence > self.fence {
                        self.catch_up().await;
                    }
                    *wait = BACKOFF.0;
                    return;
                }
                Err(HubError::Fenced { .. }) => {
                    self.catch_up().await;
                    match self.reform(sent, later) {
                        Some(reformed) => sent = reformed,
                        None => return,
                    }
                }
                Err(HubError::OutOfSequence { expected: 0, .. }) => {
                    // The partition has forgotten this producer: it begins anew.
                    self.producer.epoch += 1;
                    self.renumber(Some(&mut sent), later, 0);
                }
                Err(HubError::OutOfSequence { expected, given }) if expected < given => {
                    // What was before it has shrunk, so it isn't stored.
                    self.move_to(Some(&mut sent), later, expected);
                }
                Err(HubError::OutOfSequence { expected, .. }) => {
                    // It was stored at an earlier attempt, in the form that it had then.
                    self.sent.push_front(sent);
                    self.stored();
                    // If that was its full form, later ones may be stored too: their numbers stay.
                    if later.front().map_or(self.producer.first_sequence, |next| next.sequence) > expected {
                        self.move_to(None, later, expected);
                    }
                    return;
                }
                Err(error) => {
                    self.note(&error);
                    sent.unknown |= !is_definite(&error);
                    pause(wait).await;
                }
            }
        }
    }

    /// The batch without what is over; `None` when nothing is left. If it is known not to be stored,
    /// those behind it move up; else their numbers stay until it is known, because they may be stored too.
    fn reform(&mut self, sent: Sent, later: &mut VecDeque<Sent>) -> Option<Sent> {
        let mut builder = BatchBuilder::new(self.pipeline.options.batch_bytes);
        builder.set_fence(self.fence);
        let runs = refill(&sent.batch, &sent.runs, &mut builder);
        let count = builder.count();
        let producer = Producer { first_sequence: sent.sequence, ..self.producer };
        let (sequence, unknown) = (sent.sequence, sent.unknown);
        let mut reformed =
            builder.finish(producer, Compression::None).map(|batch| Sent { batch, runs, count, ..sent });
        if !unknown {
            self.move_to(reformed.as_mut(), later, sequence);
        }
        reformed
    }

    /// Gives batches that aren't stored new numbers, from `sequence` on. One that may still arrive under
    /// its old number must not fit there any more, nor may a new one be taken for it: then the producer
    /// begins anew.
    fn move_to(&mut self, first: Option<&mut Sent>, later: &mut VecDeque<Sent>, sequence: u64) {
        let in_doubt = |sent: &Sent| sent.unknown;
        let anew = first.as_deref().is_some_and(in_doubt) || later.iter().any(in_doubt);
        self.producer.epoch += u32::from(anew);
        self.renumber(first, later, if anew { 0 } else { sequence });
    }

    /// Numbers batches from `sequence` on.
    fn renumber(&mut self, first: Option<&mut Sent>, later: &mut VecDeque<Sent>, sequence: u64) {
        let mut next = sequence;
        for sent in first.into_iter().chain(later.iter_mut()) {
            sent.sequence = next;
            next += u64::from(sent.count);
            match restamp(&sent.batch, Producer { first_sequence: sent.sequence, ..self.producer }) {
                Ok(batch) => sent.batch = batch,
                Err(error) => tracing::error!(%error, "own batch can't be numbered anew"),
            }
        }
        self.producer.first_sequence = next;
    }

    /// Learns the fences since the last one, ends the sessions that they hit, and takes their records
    /// out of the open batch; then batches may carry the new number.
    async fn catch_up(&mut self) {
        let mut wait = BACKOFF.0;
        loop {
            let ask =
                Ask { key: DeviceKey::default(), epoch: 0, after: u64::from(self.fence), limit: FENCES_PAGE };
            match self.pipeline.hub.ask(self.pipeline.partition, Request::Fences(ask)).await.map(answered) {
                Ok(Ok(answer)) => {
                    let last = answer.head.unwrap_or_default().fence.max(1);
                    if answer.fences_forgotten {
                        self.end_all();
                        return self.apply_fence(last);
                    }
                    answer.fences.iter().for_each(|fence| self.pipeline.connections.fence(fence));
                    let known = answer.fences.last().map_or(self.fence, |fence| fence.number);
                    self.apply_fence(known);
                    if answer.fences.len() < FENCES_PAGE as usize {
                        return;
                    }
                }
                other => {
                    tracing::debug!(partition = %self.pipeline.partition, ?other, "fences can't be read yet");
                    pause(&mut wait).await;
                }
            }
        }
    }

    /// Too far behind to know whom fences hit: all sessions of the partition are over.
    fn end_all(&self) {
        let partitions = self.pipeline.hub.partitions();
        let here = |key: &DeviceKey| {
            fleetline_types::partition_of_key(key.device.as_bytes(), partitions) == self.pipeline.partition
        };
        for link in self.pipeline.connections.matching(here) {
            link.end_up_to(link.epoch());
        }
    }

    fn apply_fence(&mut self, number: u32) {
        let mut open = self.pipeline.open.lock();
        if open.runs.iter().any(|run| run.link.is_over()) {
            let batch = open.builder.finish(Producer::default(), Compression::None);
            let runs = std::mem::take(&mut open.runs);
            if let Some(batch) = batch {
                open.runs = refill(&batch, &runs, &mut open.builder);
            }
        }
        open.builder.set_fence(number);
        self.fence = number;
    }

    fn note(&self, error: &HubError) {
        if let HubError::DiskFull(_) = error {
            tracing::warn!(partition = %self.pipeline.partition, %error, "telemetry waits for disk space");
        }
    }
}

/// Whether nothing can have been stored.
fn is_definite(error: &HubError) -> bool {
    !matches!(error, HubError::Unknown(_) | HubError::Internal(_))
}

async fn pause(wait: &mut Duration) {
    tokio::time::sleep(*wait).await;
    *wait = (*wait * 2).min(BACKOFF.1);
}
