//! Reading one partition: pushed by a node while credit lasts, over leader and replica changes,
//! from exactly the next record.
//!
//! All state is in [`Consumer`] itself and no task is spawned, so every future may be dropped at any
//! point without losing or repeating a record. A broken stream is opened again at the next offset;
//! any replica may serve it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_native::frame::{Frame, FrameKind, frame_bytes};
use fleetline_native::model::ReadFrom;
use fleetline_native::{HubError, ProtocolError, error_map, proto};
use fleetline_types::{Offset, PartitionId, TimestampMs};
use quinn::SendStream;
use thiserror::Error;
use tokio::time::Instant;

use crate::batching::Opened;
use crate::cluster::{Cluster, Route, Target};
use crate::frames::{FrameReader, StreamEnd};
use crate::link::CallError;
use crate::record::{ReceivedRecord, Records};

/// A stream that waited this long at the end of the partition counts as served without a batch.
const STABLE: Duration = Duration::from_secs(5);

/// How a consumer reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// Bytes of batches that may be on their way or waiting here. Default 4 MiB. The memory taken is
    /// at most this and one read of the node (1 MiB) more. Less saves memory, more hides latency.
    pub credit_bytes: u64,
    /// After this long without any node that serves the partition, [`Consumer::next_batch`] says so.
    /// It may be called again. Default 30 s.
    pub unreachable_timeout: Duration,
}

impl Default for ConsumerOptions {
    fn default() -> ConsumerOptions {
        ConsumerOptions { credit_bytes: 4 * 1024 * 1024, unreachable_timeout: Duration::from_secs(30) }
    }
}

/// Why there is no next batch.
#[derive(Debug, Error)]
pub enum ConsumeError {
    /// Retention has removed the next record. Nothing is skipped silently: [`Consumer::seek`] to
    /// `start` to go on behind the gap.
    #[error("offset {asked} of {partition} is gone, the stream now starts at {start}")]
    OffsetGone {
        /// The partition.
        partition: PartitionId,
        /// The next record.
        asked: Offset,
        /// The oldest record that is left.
        start: Offset,
    },
    /// No node serves the partition now; call again.
    #[error("{partition} can't be read now: {reason}")]
    Unavailable {
        /// The partition.
        partition: PartitionId,
        /// The last obstacle.
        reason: String,
    },
    /// A node refused for good.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A batch that came is damaged or does not fit behind the last one; the position has not
    /// moved, and the next call reads it again.
    #[error("{partition} at offset {offset}: {reason}")]
    Damaged {
        /// The partition.
        partition: PartitionId,
        /// The next record.
        offset: Offset,
        /// What is wrong.
        reason: String,
    },
}

/// Reads one partition.
pub struct Consumer {
    cluster: Arc<Cluster>,
    partition: PartitionId,
    options: ConsumerOptions,
    /// Where to open the next stream.
    from: ReadFrom,
    stream: Option<Open>,
    route: Route,
    /// After a failure: not before this.
    pause_until: Option<Instant>,
    /// Since when no node has served the partition.
    trouble: Option<Instant>,
}

/// An open stream.
struct Open {
    send: SendStream,
    reader: FrameReader,
    /// Frames that QUIC has not taken.
    outbox: VecDeque<Bytes>,
    /// Bytes handed out for which no new credit was given yet.
    consumed: u64,
    /// When the node began to serve it.
    served_since: Option<Instant>,
}

/// A batch as it was read, from the first record that was not read before.
#[derive(Clone, Debug)]
pub struct ReceivedBatch {
    partition: PartitionId,
    first: Offset,
    next: Offset,
    enqueued: TimestampMs,
    high_watermark: Offset,
    /// Records in front of `first` that were read before.
    skip: u32,
    batch: Opened,
}

impl ReceivedBatch {
    /// The partition.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// Offset of the first record in [`ReceivedBatch::records`].
    pub fn first_offset(&self) -> Offset {
        self.first
    }

    /// Offset behind the last record: the checkpoint of who has processed it all.
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        (self.next.0 - self.first.0) as usize
    }

    /// Whether it holds no record; a consumer never gives such a one.
    pub fn is_empty(&self) -> bool {
        self.first == self.next
    }

    /// When the partition's leader took it.
    pub fn enqueued(&self) -> TimestampMs {
        self.enqueued
    }

    /// One behind the last committed record when it was read; for the lag.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The records in order, without copying bodies. An item is an error when the batch's content is
    /// malformed in spite of its checksum: its producer built it wrong.
    pub fn records(&self) -> Records {
        Records::new(&self.batch, self.first, self.skip, self.enqueued)
    }
}

impl Consumer {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        partition: PartitionId,
        from: ReadFrom,
        options: ConsumerOptions,
    ) -> Consumer {
        let route = Route::new(&cluster, Target::Leader(partition));
        Consumer { cluster, partition, options, from, stream: None, route, pause_until: None, trouble: None }
    }

    /// The partition.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The next record to be read; `None` until a node has said where the starting place is.
    pub fn position(&self) -> Option<Offset> {
        match self.from {
            ReadFrom::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// Goes on from another place.
    pub fn seek(&mut self, from: ReadFrom) {
        self.from = from;
        self.stream = None;
    }

    /// Waits for the next batch, for as long as it takes.
    ///
    /// Cancel-safe: when dropped, nothing is lost; the next call goes on.
    ///
    /// # Errors
    /// [`ConsumeError`]; the position never moves with an error.
    pub async fn next_batch(&mut self) -> Result<ReceivedBatch, ConsumeError> {
        loop {
            if let Some(until) = self.pause_until {
                tokio::time::sleep_until(until).await;
                self.pause_until = None;
            }
            let error = match self.receive().await {
                Ok(Some(frame)) => return self.on_batch(frame),
                Ok(None) => continue,
                Err(error) => error,
            };
            let served_since = self.stream.take().and_then(|stream| stream.served_since);
            if served_since.is_some_and(|since| since.elapsed() >= STABLE) {
                self.on_served();
            }
            self.on_error(error).await?;
        }
    }

    /// Waits for the next batch and decodes its records.
    ///
    /// Cancel-safe, like [`Consumer::next_batch`].
    ///
    /// # Errors
    /// [`ConsumeError`]; the position never moves with an error.
    pub async fn next(&mut self) -> Result<Vec<ReceivedRecord>, ConsumeError> {
        let batch = self.next_batch().await?;
        let records: Result<Vec<_>, _> = batch.records().collect();
        records.map_err(|reason| {
            self.seek(ReadFrom::Offset(batch.first));
            ConsumeError::Damaged { partition: self.partition, offset: batch.first, reason }
        })
    }

    /// The next frame of a batch; `None` for a frame that only moves the state on.
    async fn receive(&mut self) -> Result<Option<Frame>, CallError> {
        if self.stream.is_none() {
            self.stream = Some(self.open().await?);
        }
        let stream = self.stream.as_mut().expect("just opened");
        let frame = stream.next().await.map_err(CallError::Lost)?;
        let broken = |error: ProtocolError| CallError::Lost(StreamEnd::Protocol(error));
        match frame.kind {
            FrameKind::Batch => Ok(Some(frame)),
            FrameKind::ReadOpened => {
                let opened: proto::ReadOpened = frame.decode_head().map_err(|e| broken(e.into()))?;
                self.from = ReadFrom::Offset(Offset(opened.offset));
                stream.served_since = Some(Instant::now());
                Ok(None)
            }
            FrameKind::Error => {
                let wire = frame.decode_head().map_err(|e| broken(e.into()))?;
                Err(CallError::Hub(error_map::from_wire(wire)))
            }
            found => Err(broken(ProtocolError::UnexpectedFrame { expected: "a batch", found })),
        }
    }

    async fn open(&mut self) -> Result<Open, CallError> {
        let connection = self.route.connection(&self.cluster).await?;
        let (send, reader) = connection.open().await.map_err(CallError::Lost)?;
        let open = proto::ReadOpen {
            partition: self.partition.0,
            from: Some(self.from.into()),
            credit_bytes: self.options.credit_bytes.max(1),
        };
        let outbox = VecDeque::from([frame_bytes(FrameKind::ReadOpen, &open, 0)]);
        Ok(Open { send, reader, outbox, consumed: 0, served_since: None })
    }

    /// Checks a batch, moves the position behind it and gives new credit.
    fn on_batch(&mut self, frame: Frame) -> Result<ReceivedBatch, ConsumeError> {
        match self.check(&frame) {
            Ok(batch) => {
                self.from = ReadFrom::Offset(batch.next);
                self.on_served();
                let stream = self.stream.as_mut().expect("the batch came from it");
                stream.consumed += frame.body.len() as u64;
                if stream.consumed >= self.options.credit_bytes / 2 {
                    let credit = proto::Credit { bytes: std::mem::take(&mut stream.consumed) };
                    stream.outbox.push_back(frame_bytes(FrameKind::Credit, &credit, 0));
                }
                Ok(batch)
            }
            Err(reason) => {
                self.stream = None;
                self.route.skip();
                let offset = self.position().unwrap_or_default();
                Err(ConsumeError::Damaged { partition: self.partition, offset, reason })
            }
        }
    }

    fn check(&self, frame: &Frame) -> Result<ReceivedBatch, String> {
        let head: proto::Batch = frame.decode_head().map_err(|e| e.to_string())?;
        let position = self.position().ok_or("a batch came before the starting place")?;
        let batch = Opened::verify(frame.body.clone())?;
        let base = head.base_offset;
        let end = base.checked_add(u64::from(batch.count())).ok_or("offset overflows")?;
        if position.0 < base || position.0 >= end {
            return Err(format!("a batch of offsets {base} to {end} came instead"));
        }
        Ok(ReceivedBatch {
            partition: self.partition,
            first: position,
            next: Offset(end),
            enqueued: TimestampMs(head.enqueued_ms),
            high_watermark: Offset(head.high_watermark),
            skip: (position.0 - base) as u32,
            batch,
        })
    }

    /// A node serves the partition: what went wrong before is over.
    fn on_served(&mut self) {
        self.trouble = None;
        self.route.on_success();
    }

    /// Decides whether an error is the caller's to know. If not, plans the next attempt.
    async fn on_error(&mut self, error: CallError) -> Result<(), ConsumeError> {
        let partition = self.partition;
        if let CallError::Hub(hub) = &error {
            match hub {
                HubError::OffsetGone { asked, start } => {
                    return Err(ConsumeError::OffsetGone { partition, asked: *asked, start: *start });
                }
                // A replica that lags or has just gone: another one may serve it.
                HubError::OffsetBeyondEnd { .. } | HubError::NotFound(_) => self.route.skip(),
                hub if !hub.is_retryable() => return Err(hub.clone().into()),
                _ => {}
            }
        }
        let since = *self.trouble.get_or_insert_with(Instant::now);
        let pause = self.route.on_error(&self.cluster, &error).await;
        self.pause_until = Some(Instant::now() + pause);
        if since.elapsed() < self.options.unreachable_timeout {
            return Ok(());
        }
        self.trouble = None;
        Err(match error {
            CallError::Hub(hub) if !hub.is_retryable() => hub.into(),
            error => ConsumeError::Unavailable { partition, reason: error.to_string() },
        })
    }
}

impl Open {
    /// The next frame, while what is in the outbox is sent. Cancel-safe.
    async fn next(&mut self) -> Result<Frame, StreamEnd> {
        loop {
            tokio::select! {
                frame = self.reader.next() => return frame,
                written = self.send.write_chunks(self.outbox.make_contiguous()), if !self.outbox.is_empty() => {
                    match written {
                        Ok(written) => {
                            self.outbox.drain(..written.chunks);
                        }
                        // The node has ended the stream; the frame that says why comes next.
                        Err(quinn::WriteError::Stopped(_)) => self.outbox.clear(),
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.send.finish();
    }
}
