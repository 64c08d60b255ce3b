//! The pipeline of one partition: takes batches from its queue, keeps a few in flight on one append
//! stream to the partition's leader, and sees each to its outcome.
//!
//! ```text
//!                 ┌──────────── lost, not leader, busy: same bytes, same order, new stream ─┐
//!                 ▼                                                                         │
//!   queue ─► stamped (producer, epoch, sequence) ─► in flight (≤ 4) ─► answers in order ────┘
//!                                                                        │
//!                          definite refusal of one batch, or time over ──┴─► new epoch
//! ```
//!
//! Once: a batch gets its sequence number when it is taken, and is sent again with the same bytes
//! until it is answered; the partition recognises what it has. Order: batches are stamped, sent and
//! sent again in one order, and the partition refuses a gap. So after the first error on a stream
//! the stream is given up, and everything from the failed batch on goes over a new one.
//!
//! When a batch fails for good, the sequence has a hole that the partition would refuse for ever.
//! Then everything in flight gets its honest outcome, and the pipeline goes on under a new epoch,
//! from sequence 0: what was sent under the old one can't be stored any more after that.
//!
//! Honest: *failed* only when no attempt is left whose answer is missing, else *unknown*.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_native::frame::{Frame, FrameKind, frame_bytes};
use fleetline_native::model::Appended;
use fleetline_native::{HubError, ProtocolError, error_map, proto};
use fleetline_types::ProducerId;
use quinn::SendStream;
use tokio::time::Instant;

use super::outcome::Outcome;
use super::queue::{Batch, Content, Queue};
use super::{ProducerOptions, batching};
use crate::cluster::{Cluster, Route, Target};
use crate::error::SendError;
use crate::frames::{FrameReader, StreamEnd};
use crate::link::CallError;

/// Frames and bodies per batch in the outbox.
const PIECES: usize = 2;

/// The pipeline of one partition; see the module's header.
pub(crate) struct Pipeline {
    cluster: Arc<Cluster>,
    queue: Arc<Queue>,
    options: Arc<ProducerOptions>,
    stamp: batching::Stamp,
    /// Stamped and not answered, oldest first. Invariant: consecutive sequences of `stamp.epoch`.
    sent: VecDeque<Sent>,
    /// Number of the next append frame, over all streams.
    next_frame: u64,
    route: Route,
}

/// A batch in flight.
struct Sent {
    bytes: Bytes,
    room: usize,
    outcome: Arc<Outcome>,
    deadline: Instant,
    /// Number of its frame on the present stream.
    frame: u64,
    /// All of it was given to the present stream, and no answer came yet.
    open_here: bool,
    /// An earlier attempt ended without an answer.
    maybe: bool,
}

/// How a stream ended.
enum End {
    /// Nothing is left to do.
    Done,
    /// The stream or its node is lost, or refused for now: go on, after a pause.
    Retry(CallError),
    /// A batch was refused for good, and all others have their outcome.
    NewEpoch { at_least: u32 },
    /// The oldest batch's time is over.
    Expired,
}

impl Pipeline {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        queue: Arc<Queue>,
        options: Arc<ProducerOptions>,
        producer: ProducerId,
    ) -> Pipeline {
        let route = Route::new(&cluster, Target::Leader(queue.partition));
        let stamp = batching::Stamp { producer, epoch: 0, sequence: 0 };
        Pipeline { cluster, queue, options, stamp, sent: VecDeque::new(), next_frame: 0, route }
    }

    /// Runs until the producer is gone and everything has its outcome.
    pub(crate) async fn run(mut self) {
        // The last obstacle, for the reason of batches whose time is over.
        let mut obstacle = String::new();
        loop {
            self.expire(&obstacle);
            let Some(deadline) = self.deadline() else {
                if self.queue.is_done() {
                    return;
                }
                self.queue.wake.notified().await;
                continue;
            };
            let end = match tokio::time::timeout_at(deadline, self.connect()).await {
                Ok(Ok((send, reader))) => self.pump(send, reader).await,
                Ok(Err(error)) => End::Retry(error),
                Err(_) => End::Expired,
            };
            for sent in &mut self.sent {
                sent.maybe |= std::mem::take(&mut sent.open_here);
            }
            match end {
                End::Done => return,
                End::Expired => {}
                End::NewEpoch { at_least } => self.new_epoch(at_least),
                End::Retry(error) => {
                    obstacle = error.to_string();
                    tracing::debug!(partition = %self.queue.partition, obstacle, "append stream ended");
                    let pause = self.route.on_error(&self.cluster, &error);
                    let pause = tokio::time::timeout_at(deadline, pause).await.unwrap_or(Duration::ZERO);
                    tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
                }
            }
        }
    }

    /// When the oldest batch must have an outcome; `None` when there is none.
    fn deadline(&self) -> Option<Instant> {
        self.sent.front().map(|sent| sent.deadline).or_else(|| self.queue.deadline())
    }

    /// Ends what is over its time. When that hits a batch in flight, it ends all of them: those
    /// behind it could be stored only after it.
    fn expire(&mut self, obstacle: &str) {
        let now = Instant::now();
        if self.sent.front().is_some_and(|sent| sent.deadline <= now) {
            let reason = format!("no answer within the delivery timeout; last obstacle: {obstacle}");
            self.fail_all(&reason);
            self.new_epoch(0);
        }
        while self.sent.is_empty()
            && let Some(batch) = self.queue.take_expired(now)
        {
            let reason = format!("not sent within the delivery timeout; last obstacle: {obstacle}");
            self.queue.complete(&batch.outcome, batch.room, Err(SendError::Failed(reason)));
        }
    }

    fn fail_all(&mut self, reason: &str) {
        for sent in std::mem::take(&mut self.sent) {
            let error = sent.error(reason);
            self.queue.complete(&sent.outcome, sent.room, Err(error));
        }
    }

    fn new_epoch(&mut self, at_least: u32) {
        debug_assert!(self.sent.is_empty());
        self.stamp.epoch = (self.stamp.epoch + 1).max(at_least);
        self.stamp.sequence = 0;
    }

    async fn connect(&mut self) -> Result<(SendStream, FrameReader), CallError> {
        let connection = self.route.connection(&self.cluster).await?;
        connection.open().await.map_err(CallError::Lost)
    }

    /// Sends and receives on one stream until it ends.
    async fn pump(&mut self, mut send: SendStream, mut reader: FrameReader) -> End {
        let open = proto::AppendOpen { partition: self.queue.partition.0 };
        let mut outbox = VecDeque::from([frame_bytes(FrameKind::AppendOpen, &open, 0)]);
        for at in 0..self.sent.len() {
            self.enqueue(at, &mut outbox);
        }
        // Set when a batch was refused for good: nothing new is sent, the others are awaited.
        let mut refused = None;
        loop {
            if refused.is_none() {
                self.fill(&mut outbox);
            }
            if self.sent.is_empty() {
                if let Some(at_least) = refused {
                    return End::NewEpoch { at_least };
                }
                if self.queue.is_done() && outbox.is_empty() {
                    let _ = send.finish();
                    return End::Done;
                }
            }
            let has_slot = refused.is_none() && self.sent.len() < self.options.batches_in_flight;
            let oldest = self.sent.front().map(|sent| sent.deadline);
            let deadline = oldest.unwrap_or_else(Instant::now);
            tokio::select! {
                frame = reader.next() => match frame {
                    Ok(frame) => match self.on_frame(frame, &mut refused) {
                        Ok(()) => {}
                        Err(end) => return end,
                    },
                    Err(end) => return self.on_stream_end(end, refused),
                },
                written = send.write_chunks(outbox.make_contiguous()), if !outbox.is_empty() => match written {
                    Ok(written) => {
                        outbox.drain(..written.chunks);
                        self.mark_written(outbox.len());
                    }
                    // The answer that explains it may be waiting: stop writing, read on.
                    Err(quinn::WriteError::Stopped(_)) => outbox.clear(),
                    Err(error) => return self.on_stream_end(error.into(), refused),
                },
                () = self.queue.wake.notified(), if has_slot => {}
                () = tokio::time::sleep_until(deadline), if oldest.is_some() => {
                    return End::Expired;
                }
            }
        }
    }

    /// Takes batches while there is a slot.
    fn fill(&mut self, outbox: &mut VecDeque<Bytes>) {
        while self.sent.len() < self.options.batches_in_flight
            && let Some(batch) = self.queue.take()
        {
            let Batch { content, count, room, outcome, deadline } = batch;
            let stamped = match content {
                Content::Filling(mut filler) => {
                    let bytes = filler.finish(self.stamp, self.options.compression);
                    self.queue.keep(filler);
                    bytes.ok_or_else(|| "the batch has no record".to_owned())
                }
                Content::Built(bytes) => batching::restamp(&bytes, self.stamp),
            };
            match stamped {
                Ok(bytes) => {
                    self.stamp.sequence += u64::from(count);
                    let (frame, open_here, maybe) = (0, false, false);
                    self.sent.push_back(Sent { bytes, room, outcome, deadline, frame, open_here, maybe });
                    self.enqueue(self.sent.len() - 1, outbox);
                }
                Err(reason) => self.queue.complete(&outcome, room, Err(SendError::Failed(reason))),
            }
        }
    }

    /// Puts the frame of a batch in flight into the outbox.
    fn enqueue(&mut self, at: usize, outbox: &mut VecDeque<Bytes>) {
        let sent = &mut self.sent[at];
        sent.frame = self.next_frame;
        self.next_frame += 1;
        let head = proto::Append { sequence: sent.frame };
        outbox.push_back(frame_bytes(FrameKind::Append, &head, sent.bytes.len()));
        outbox.push_back(sent.bytes.clone());
    }

    /// Notes which batches QUIC has taken whole, given the pieces that it has not.
    fn mark_written(&mut self, pieces_left: usize) {
        let whole = self.sent.len().saturating_sub(pieces_left.div_ceil(PIECES));
        for sent in self.sent.iter_mut().take(whole) {
            sent.open_here = true;
        }
    }

    /// Takes an answer. `Err` ends the stream.
    fn on_frame(&mut self, frame: Frame, refused: &mut Option<u32>) -> Result<(), End> {
        let broken = |error: ProtocolError| End::Retry(CallError::Lost(StreamEnd::Protocol(error)));
        match frame.kind {
            FrameKind::Appended => {
                let answer: proto::Appended = frame.decode_head().map_err(|e| broken(e.into()))?;
                self.check_frame(Some(answer.sequence)).map_err(broken)?;
                let sent = self.sent.pop_front().expect("checked");
                let appended = Appended::from(answer);
                self.queue.complete(&sent.outcome, sent.room, Ok(appended.base_offset));
                self.route.on_success();
                Ok(())
            }
            FrameKind::Error => {
                let wire: proto::Error = frame.decode_head().map_err(|e| broken(e.into()))?;
                let sequence = wire.sequence;
                self.check_frame(sequence).map_err(broken)?;
                self.on_error(error_map::from_wire(wire), refused)
            }
            found => Err(broken(ProtocolError::UnexpectedFrame { expected: "appended", found })),
        }
    }

    /// Answers come in order: this one must be for the oldest batch. (Without a number it is for
    /// the stream, and so for the oldest batch as well.)
    fn check_frame(&self, sequence: Option<u64>) -> Result<(), ProtocolError> {
        let oldest = self.sent.front().map(|sent| sent.frame);
        match (oldest, sequence) {
            (Some(_), None) => Ok(()),
            (Some(oldest), Some(sequence)) if oldest == sequence => Ok(()),
            _ => Err(ProtocolError::Missing { what: "the batch that the node answers" }),
        }
    }

    /// The oldest batch was not stored, or may not have been.
    fn on_error(&mut self, error: HubError, refused: &mut Option<u32>) -> Result<(), End> {
        let front = self.sent.front_mut().expect("checked by check_frame");
        front.open_here = false;
        front.maybe |= !error.is_definite();
        if error.is_retryable() && refused.is_none() {
            return Err(End::Retry(CallError::Hub(error)));
        }
        let epoch = match &error {
            HubError::Fenced { current, .. } => u32::try_from(*current).unwrap_or(u32::MAX - 1) + 1,
            _ => 0,
        };
        *refused = Some(refused.unwrap_or(0).max(epoch));
        let sent = self.sent.pop_front().expect("checked by check_frame");
        let error = sent.error(&error.to_string());
        self.queue.complete(&sent.outcome, sent.room, Err(error));
        Ok(())
    }

    /// The stream is gone. Behind a batch that was refused for good nothing can be sent again under
    /// this epoch, so the rest gets its outcome now.
    fn on_stream_end(&mut self, end: StreamEnd, refused: Option<u32>) -> End {
        match refused {
            None => End::Retry(CallError::Lost(end)),
            Some(at_least) => {
                self.fail_all(&format!("an earlier batch was refused, then: {end}"));
                End::NewEpoch { at_least }
            }
        }
    }
}

impl Sent {
    /// The honest error of a batch that gets no answer any more.
    fn error(&self, reason: &str) -> SendError {
        if self.maybe || self.open_here {
            SendError::Unknown(reason.to_owned())
        } else {
            SendError::Failed(reason.to_owned())
        }
    }
}

/// A batch whose pipeline is gone has no outcome to wait for.
impl Drop for Pipeline {
    fn drop(&mut self) {
        self.fail_all("the client's runtime shut down");
        while let Some(batch) = self.queue.take() {
            let reason = "the client's runtime shut down".to_owned();
            self.queue.complete(&batch.outcome, batch.room, Err(SendError::Failed(reason)));
        }
    }
}
