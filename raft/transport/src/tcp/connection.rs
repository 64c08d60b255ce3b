//! One live connection: a write queue with a task that drains it, and a task that reads.
//!
//! Made by `link` (this node asks, the peer answers) and by `accept` (the other way round) once
//! the handshake is done. Requests wait for room in the queue. Answers can't wait: while half a
//! queue of them is unwritten no further requests are read, and a peer that has more than a whole
//! queue unread is disconnected.
//!
//! ```text
//!  send ── room (bytes) ──► queue ──► write task ──► TLS ──► peer
//!                                                              │
//!  open requests ◄── answers ── read task ◄── TLS ◄────────────┘
//! ```
//!
//! Invariants:
//! 1. What is in the queue costs at most `queue_bytes_max` plus one frame.
//! 2. Requests that were read and not answered cost at most `INBOUND_BYTES_MAX` plus one frame;
//!    beyond that the connection is not read.
//! 3. Once closed, every open request has failed and no new one is taken.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fleetline_types::NodeId;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep};
use tracing::{debug, error, warn};

use crate::frame::{Frame, FrameError, HEADER_BYTES, put_keep_alive, put_message, take_frame};
use crate::metric_definitions::LaneMetrics;
use crate::open_requests::{NotAdded, OpenRequests};
use crate::{Lane, PeerHandler, PeerMessage, Replier, ReplyFuture, TransportError};

/// After so long without a frame a keep-alive is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A connection that brings nothing for so long, not even keep-alives, is dead.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// The write task takes about so much from the queue before it flushes.
const WRITE_BYTES: usize = 256 * 1024;
/// Bodies up to this size are copied behind their head; larger ones are handed to TLS in place.
const COPY_BYTES_MAX: usize = 4096;
/// The least room offered to a read.
const READ_BYTES: usize = 64 * 1024;
/// Requests of one connection that wait for this node's answer.
const INBOUND_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a frame costs in the queue besides its payload: header, list entry, table entry.
const FRAME_COST: usize = 128;
/// The most slices handed to one write.
const SLICES_MAX: usize = 64;

/// Which side asks on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// This node made it, asks, and reads answers.
    Requester,
    /// The peer made it; this node answers.
    Answerer,
}

/// Bounds that all connections of a transport share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub frame_bytes_max: usize,
    pub queue_bytes_max: usize,
}

pub(crate) struct Connection {
    peer: NodeId,
    lane: Lane,
    side: Side,
    limits: Limits,
    queue: mpsc::UnboundedSender<Outgoing>,
    /// Room for requests, in bytes of cost.
    room: Semaphore,
    /// Cost of what is in the queue.
    queued: AtomicUsize,
    /// The write task took something out of the queue.
    drained: Notify,
    open: Mutex<OpenRequests>,
    closed: watch::Sender<bool>,
    finished: watch::Sender<bool>,
    metrics: LaneMetrics,
}

/// A frame in the queue.
pub(crate) struct Outgoing {
    id: u64,
    message: PeerMessage,
    cost: usize,
}

impl Connection {
    pub(crate) fn new(
        peer: NodeId,
        lane: Lane,
        side: Side,
        limits: Limits,
        metrics: LaneMetrics,
    ) -> (Arc<Connection>, mpsc::UnboundedReceiver<Outgoing>) {
        let (queue, waiting) = mpsc::unbounded_channel();
        let connection = Connection {
            peer,
            lane,
            side,
            limits,
            queue,
            room: Semaphore::new(limits.queue_bytes_max),
            queued: AtomicUsize::new(0),
            drained: Notify::new(),
            open: Mutex::new(OpenRequests::new()),
            closed: watch::Sender::new(false),
            finished: watch::Sender::new(false),
            metrics,
        };
        (Arc::new(connection), waiting)
    }

    /// Queues a request, once there is room.
    ///
    /// # Errors
    /// `Broken` when the connection ends first; `Unreachable` when the peer leaves too many
    /// requests unanswered.
    pub(crate) async fn request(&self, message: PeerMessage) -> Result<ReplyFuture, TransportError> {
        let cost = FRAME_COST + message.len();
        let permits = cost.min(self.limits.queue_bytes_max) as u32;
        let broken = || TransportError::Broken(self.peer);
        self.room.acquire_many(permits).await.map_err(|_| broken())?.forget();
        let (sender, future) = ReplyFuture::channel();
        let added = self.open.lock().add(sender);
        let id = match added {
            Ok(id) => id,
            Err(NotAdded::Broken) => return Err(broken()),
            Err(NotAdded::TooMany) => {
                self.room.add_permits(permits as usize);
                let reason = "too many requests wait for its answers".to_owned();
                return Err(TransportError::Unreachable { node: self.peer, reason });
            }
        };
        if !self.enqueue(Outgoing { id, message, cost }) {
            return Err(broken());
        }
        Ok(future)
    }

    /// Queues an answer. A peer that doesn't read its answers loses the connection.
    fn answer(&self, id: u64, message: PeerMessage) {
        let len = message.len();
        if len > self.limits.frame_bytes_max {
            error!(peer = %self.peer, lane = ?self.lane, len, "answer is over the frame limit and was dropped");
            return;
        }
        if self.queued.load(Ordering::Relaxed) > self.limits.queue_bytes_max {
            if !self.is_closed() {
                warn!(peer = %self.peer, lane = ?self.lane, "peer doesn't read its answers; disconnecting");
                self.metrics.answers_overflow.increment(1);
                self.close();
            }
            return;
        }
        self.enqueue(Outgoing { id, message, cost: FRAME_COST + len });
    }

    fn enqueue(&self, outgoing: Outgoing) -> bool {
        let cost = outgoing.cost;
        self.queued.fetch_add(cost, Ordering::Relaxed);
        self.metrics.queue_bytes.increment(cost as f64);
        let taken = self.queue.send(outgoing).is_ok();
        if !taken {
            self.release(cost);
        }
        taken
    }

    fn release(&self, cost: usize) {
        self.queued.fetch_sub(cost, Ordering::Relaxed);
        self.metrics.queue_bytes.decrement(cost as f64);
    }

    /// Ends the connection: its tasks stop, its open requests fail.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
        self.room.close();
        let open = self.open.lock().break_off();
        for sender in open {
            // A requester that gave up has dropped its end.
            let _ = sender.send(Err(TransportError::Broken(self.peer)));
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until [`Connection::close`] was called.
    pub(crate) async fn closed(&self) {
        // The sender lives in self, so waiting can't fail.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Waits until nothing of this connection will reach the handler any more.
    pub(crate) async fn finished(&self) {
        let _ = self.finished.subscribe().wait_for(|finished| *finished).await;
    }

    /// Says that the connection ended, or that it never ran.
    pub(crate) fn finish(&self) {
        self.close();
        self.finished.send_replace(true);
    }

    /// Reads and writes until either side ends the connection. `buf` holds what the handshake
    /// read beyond its end.
    pub(crate) async fn run<S>(
        self: Arc<Self>,
        stream: S,
        buf: BytesMut,
        queue: mpsc::UnboundedReceiver<Outgoing>,
        handler: Arc<dyn PeerHandler>,
    ) where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(stream);
        let writer = tokio::spawn(self.clone().write_until_closed(write, queue));
        let ended = tokio::select! {
            ended = self.read_frames(read, buf, &handler) => ended,
            () = self.closed() => Ok(()),
        };
        match ended {
            Ok(()) => debug!(peer = %self.peer, lane = ?self.lane, "peer connection ended"),
            Err(error) => debug!(peer = %self.peer, lane = ?self.lane, %error, "peer connection broke"),
        }
        self.close();
        // A panic in the write task has been reported by the runtime; the connection is over anyway.
        let _ = writer.await;
        self.finish();
    }

    async fn write_until_closed<W>(self: Arc<Self>, write: W, mut queue: mpsc::UnboundedReceiver<Outgoing>)
    where
        W: AsyncWrite + Unpin,
    {
        let ended = tokio::select! {
            ended = self.write_frames(write, &mut queue) => ended,
            () = self.closed() => Ok(()),
        };
        if let Err(error) = ended {
            debug!(peer = %self.peer, lane = ?self.lane, %error, "writing to peer failed");
        }
        self.close();
        queue.close();
        while let Ok(outgoing) = queue.try_recv() {
            self.release(outgoing.cost);
        }
    }

    async fn write_frames<W>(
        &self,
        mut write: W,
        queue: &mut mpsc::UnboundedReceiver<Outgoing>,
    ) -> io::Result<()>
    where
        W: AsyncWrite + Unpin,
    {
        let mut batch = WriteBatch::default();
        let mut last_sent = Instant::now();
        let mut idle = pin!(sleep(KEEP_ALIVE));
        loop {
            tokio::select! {
                biased;
                first = queue.recv() => match first {
                    Some(first) => batch.push(self.answers(), first),
                    None => return Ok(()),
                },
                () = &mut idle => {
                    if last_sent.elapsed() < KEEP_ALIVE {
                        idle.as_mut().reset(last_sent + KEEP_ALIVE);
                        continue;
                    }
                    put_keep_alive(&mut batch.staging);
                    idle.as_mut().reset(Instant::now() + KEEP_ALIVE);
                }
            }
            while batch.bytes < WRITE_BYTES {
                let Ok(next) = queue.try_recv() else { break };
                batch.push(self.answers(), next);
            }
            let written = batch.write_to(&mut write).await;
            let batch_done = batch.finish();
            self.release(batch_done.cost);
            self.drained.notify_one();
            if self.side == Side::Requester {
                self.room.add_permits(batch_done.permits);
            }
            written?;
            self.metrics.sent_bytes.increment(batch_done.bytes as u64);
            self.metrics.sent_frames.increment(batch_done.frames);
            last_sent = Instant::now();
        }
    }

    /// Whether frames written here are answers, and the size of the queue.
    fn answers(&self) -> (bool, usize) {
        (self.side == Side::Answerer, self.limits.queue_bytes_max)
    }

    async fn read_frames<R>(
        self: &Arc<Self>,
        mut read: R,
        mut buf: BytesMut,
        handler: &Arc<dyn PeerHandler>,
    ) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
    {
        let inbound = Arc::new(Semaphore::new(INBOUND_BYTES_MAX));
        let mut last_read = Instant::now();
        let mut silence = pin!(sleep(SILENCE_MAX));
        loop {
            while let Some(frame) = take_frame(&mut buf, self.limits.frame_bytes_max).map_err(bad_frame)? {
                self.on_frame(frame, &inbound, handler).await?;
            }
            if buf.capacity() - buf.len() < READ_BYTES / 4 {
                buf.reserve(READ_BYTES);
            }
            let count = loop {
                tokio::select! {
                    biased;
                    count = read.read_buf(&mut buf) => break count?,
                    () = &mut silence => {
                        if last_read.elapsed() >= SILENCE_MAX {
                            return Err(io::Error::new(io::ErrorKind::TimedOut, "peer is silent"));
                        }
                        silence.as_mut().reset(last_read + SILENCE_MAX);
                    }
                }
            };
            if count == 0 {
                return Ok(());
            }
            last_read = Instant::now();
            self.metrics.received_bytes.increment(count as u64);
        }
    }

    async fn on_frame(
        self: &Arc<Self>,
        frame: Frame,
        inbound: &Arc<Semaphore>,
        handler: &Arc<dyn PeerHandler>,
    ) -> io::Result<()> {
        match (frame, self.side) {
            (Frame::KeepAlive, _) => return Ok(()),
            (Frame::Answer { id, message }, Side::Requester) => {
                let sender = self.open.lock().take(id);
                if let Some(sender) = sender {
                    // A requester that gave up has dropped its end.
                    let _ = sender.send(Ok(message));
                }
            }
            (Frame::Request { id, message }, Side::Answerer) => {
                let cost = (FRAME_COST + message.len()).min(INBOUND_BYTES_MAX) as u32;
                let permit = inbound
                    .clone()
                    .acquire_many_owned(cost)
                    .await
                    .expect("the semaphore lives in the reader and is never closed");
                while self.queued.load(Ordering::Relaxed) > self.limits.queue_bytes_max / 2 {
                    self.drained.notified().await;
                }
                let connection = self.clone();
                let replier = Replier::new(move |answer| {
                    connection.answer(id, answer);
                    drop(permit);
                });
                handler.on_request(self.peer, self.lane, message, replier);
            }
            (Frame::Answer { .. }, Side::Answerer) => {
                return Err(bad_frame(FrameError::Unexpected("an answer from the side that asks")));
            }
            (Frame::Request { .. }, Side::Requester) => {
                return Err(bad_frame(FrameError::Unexpected("a request from the side that answers")));
            }
            (Frame::Hello(_) | Frame::Refused { .. }, _) => {
                return Err(bad_frame(FrameError::Unexpected("a hello after the handshake")));
            }
        }
        self.metrics.received_frames.increment(1);
        Ok(())
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({}, {:?}, {:?})", self.peer, self.lane, self.side)
    }
}

/// The bytes of a frame that break the protocol, as the error that ends the connection.
pub(crate) fn bad_frame(error: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Frames that are written together: small pieces gathered, large bodies in place.
///
/// ```text
///  staging   header head small-body header head | header head | ...
///  parts     [ slice of staging ] [ large body ] [ slice of staging ] [ large body ] ...
/// ```
#[derive(Default)]
struct WriteBatch {
    staging: BytesMut,
    parts: VecDeque<Bytes>,
    bytes: usize,
    cost: usize,
    /// Room that the frames took: one larger than the whole queue took all of it.
    permits: usize,
    frames: u64,
}

/// What a batch held.
struct BatchDone {
    bytes: usize,
    cost: usize,
    /// Room that the frames took: one larger than the whole queue took all of it.
    permits: usize,
    frames: u64,
}

impl WriteBatch {
    fn push(&mut self, (answer, queue_bytes_max): (bool, usize), outgoing: Outgoing) {
        let Outgoing { id, message, cost } = outgoing;
        put_message(&mut self.staging, id, answer, &message);
        self.bytes += HEADER_BYTES + message.len();
        self.cost += cost;
        self.permits += cost.min(queue_bytes_max);
        self.frames += 1;
        for part in message.body {
            if part.len() <= COPY_BYTES_MAX {
                self.staging.extend_from_slice(&part);
            } else {
                self.parts.push_back(self.staging.split().freeze());
                self.parts.push_back(part);
            }
        }
    }

    async fn write_to<W: AsyncWrite + Unpin>(&mut self, write: &mut W) -> io::Result<()> {
        if !self.staging.is_empty() {
            self.parts.push_back(self.staging.split().freeze());
        }
        while !self.parts.is_empty() {
            let count = {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let mut filled = 0;
                for (slice, part) in slices.iter_mut().zip(&self.parts) {
                    *slice = IoSlice::new(part);
                    filled += 1;
                }
                write.write_vectored(&slices[..filled]).await?
            };
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.consume(count);
        }
        write.flush().await
    }

    fn consume(&mut self, mut count: usize) {
        while let Some(front) = self.parts.front_mut() {
            if count < front.len() {
                bytes::Buf::advance(front, count);
                return;
            }
            count -= front.len();
            self.parts.pop_front();
        }
    }

    fn finish(&mut self) -> BatchDone {
        let done =
            BatchDone { bytes: self.bytes, cost: self.cost, permits: self.permits, frames: self.frames };
        (self.bytes, self.cost, self.permits, self.frames) = (0, 0, 0, 0);
        done
    }
}
