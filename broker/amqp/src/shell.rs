//! A connection's loop: bytes in, bytes out, wakes, requests, time.
//!
//! It is one future that is polled when its socket, a device, a request or its timer has something. It
//! does everything that can be done, writes, and sleeps.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fleetline_amqp::{Error, condition};
use fleetline_gateway::http::PeerInfo;
use futures::StreamExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::AmqpContext;
use crate::front::Front;

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Reads in a row before others get their turn.
const READS_MAX: usize = 8;
/// Ends of requests in a row before the socket gets its turn.
const DONES_MAX: usize = 64;

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A connection.
pub(crate) struct Shell<IO> {
    context: Arc<AmqpContext>,
    io: IO,
    front: Front,
    /// The beginning of a frame, or frames that have to wait.
    input: Vec<u8>,
    written: usize,
    /// Something was written that the stream may still hold.
    unflushed: bool,
    started: Instant,
    login_until: Instant,
    /// The node has said that it stops.
    stopping: BoxFuture<'static, ()>,
    stopped: bool,
    /// Until when the peer's `close` is waited for.
    goodbye: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl<IO> Shell<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    pub(crate) fn new(context: Arc<AmqpContext>, io: IO, peer: PeerInfo) -> Shell<IO> {
        let now = Instant::now();
        let login_until = now + context.limits.login_timeout;
        let mut stop = context.stop.subscribe();
        let stopping = Box::pin(async move {
            // The sender lives as long as the context.
            drop(stop.wait_for(|stop| *stop).await);
        });
        Shell {
            front: Front::new(context.clone(), peer, 0),
            context,
            io,
            input: Vec::new(),
            written: 0,
            unflushed: false,
            started: now,
            login_until,
            stopping,
            stopped: false,
            goodbye: None,
            timer: Box::pin(tokio::time::sleep_until(login_until)),
        }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Does all that can be done now; ready when the connection ends, with the reason.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<&'static str> {
        match self.poll_all(cx) {
            Ok(()) => Poll::Pending,
            Err(why) => Poll::Ready(why),
        }
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Result<(), &'static str> {
        self.front.ready.register(cx.waker());
        if !self.stopped && self.stopping.as_mut().poll(cx).is_ready() {
            self.stopped = true;
            self.front.close(Error::new(condition::CONNECTION_FORCED, "the node stops"));
            self.goodbye = Some(Instant::now() + Front::GOODBYE);
        }
        loop {
            self.poll_timer(cx)?;
            let looked = self.front.look();
            let worked = self.poll_requests(cx);
            let resumed = self.front.poll_parked(cx);
            let taken = self.take_in();
            let read = self.poll_read(cx)?;
            let sent = self.front.pump();
            let stopped = self.front.is_stopped();
            self.poll_write(cx)?;
            if let Some(why) = self.front.ended {
                return Err(why);
            }
            let freed = stopped && !self.front.is_stopped();
            if !(looked || worked || resumed || taken || read || sent || freed) {
                return Ok(());
            }
        }
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        for _ in 0..DONES_MAX {
            let duty = self.front.duties.poll_next_unpin(cx);
            let job = match duty {
                Poll::Ready(Some(_)) => duty,
                _ => self.front.jobs.poll_next_unpin(cx),
            };
            let Poll::Ready(Some(done)) = job else { return any };
            self.front.on_done(done);
            any = true;
        }
        any
    }

    /// Handles frames that are here, and events that requests have caused.
    fn take_in(&mut self) -> bool {
        let bytes = std::mem::take(&mut self.input);
        let left = self.handle(&bytes);
        let any = left < bytes.len();
        self.input = bytes;
        let gone = self.input.len() - left;
        self.input.drain(..gone);
        any
    }

    /// Handles frames; gives how many bytes at the end of `bytes` are left.
    fn handle(&mut self, bytes: &[u8]) -> usize {
        let now = self.now();
        let mut input = bytes;
        while !self.front.is_stopped() && self.front.ended.is_none() {
            match self.front.engine.next(now, &mut input) {
                Some(event) => self.front.on_event(event),
                None => break,
            }
        }
        input.len()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, &'static str> {
        let mut any = false;
        for _ in 0..READS_MAX {
            if self.front.is_stopped() || self.front.ended.is_some() {
                return Ok(any);
            }
            let read = READ.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Err(_)) => Poll::Ready(Err("socket")),
                    Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Err("end_of_stream")),
                    Poll::Ready(Ok(())) => {
                        self.received(buffer.filled());
                        Poll::Ready(Ok(()))
                    }
                }
            });
            match read {
                Poll::Pending => return Ok(any),
                Poll::Ready(result) => result?,
            }
            any = true;
        }
        // Others get their turn; what is left in the socket comes then.
        cx.waker().wake_by_ref();
        Ok(false)
    }

    /// Handles what was read; what isn't a whole frame is kept.
    fn received(&mut self, bytes: &[u8]) {
        if self.input.is_empty() {
            let left = self.handle(bytes);
            self.input.extend_from_slice(&bytes[bytes.len() - left..]);
        } else {
            self.input.extend_from_slice(bytes);
            self.take_in();
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), &'static str> {
        let output = self.front.engine.output();
        while self.written < output.len() {
            match Pin::new(&mut self.io).poll_write(cx, &output[self.written..]) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Err("socket"),
                Poll::Ready(Ok(written)) => self.written += written,
            }
            self.unflushed = true;
        }
        if self.written == output.len() {
            if output.capacity() > 4 * READ_BYTES {
                *output = Vec::new();
            } else {
                output.clear();
            }
            self.written = 0;
        } else if self.written > READ_BYTES {
            output.drain(..self.written);
            self.written = 0;
        }
        // A stream with a buffer of its own (TLS) is flushed, and again until it is done: nothing may be
        // written for a long time. A plain socket has nothing to do.
        if self.unflushed {
            match Pin::new(&mut self.io).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(_)) => return Err("socket"),
            }
        }
        Ok(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Result<(), &'static str> {
        loop {
            let now = Instant::now();
            if self.goodbye.is_some_and(|until| until <= now) {
                return Err("stopped");
            }
            if self.front.is_unknown() && self.login_until <= now {
                return Err("login_timeout");
            }
            let engine_now = self.now();
            if self.front.is_parked() {
                // It may speak; it isn't heard, because what it has sent waits for a partition.
                self.front.engine.not_listening(engine_now);
            }
            if self.front.engine.deadline().is_some_and(|deadline| deadline <= engine_now) {
                self.front.engine.tick(engine_now);
            }
            let now_secs = self.context.gateway.hub.now_ms() / 1000;
            if self.front.next_expiry().is_some_and(|expiry| expiry < now_secs) {
                self.front.expire();
            }
            let next = self.next_deadline(now);
            if self.timer.deadline() != next {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
        }
    }

    /// When there is something to do next, whatever happens.
    fn next_deadline(&self, now: Instant) -> Instant {
        let mut next = now + Duration::from_secs(3600);
        if let Some(deadline) = self.front.engine.deadline() {
            next = next.min(self.started + Duration::from_millis(deadline));
        }
        if let Some(expiry) = self.front.next_expiry() {
            let left = (expiry + 1).saturating_mul(1000).saturating_sub(self.context.gateway.hub.now_ms());
            next = next.min(now + Duration::from_millis(left.min(3_600_000)).max(Duration::from_millis(1)));
        }
        if self.front.is_unknown() {
            next = next.min(self.login_until);
        }
        self.goodbye.map_or(next, |goodbye| next.min(goodbye))
    }

    /// Writes the last bytes, then brings to its end what must be.
    pub(crate) async fn end(mut self: Box<Self>) {
        let left = self.front.engine.output().split_off(self.written);
        let last = async {
            self.io.write_all(&left).await?;
            self.io.shutdown().await
        };
        // The peer may be gone, or not read: it has had its chance.
        drop(tokio::time::timeout(Front::GOODBYE, last).await);
        let Shell { mut front, .. } = *self;
        front.jobs.clear();
        front.finish();
        poll_fn(|cx| {
            loop {
                match front.duties.poll_next_unpin(cx) {
                    Poll::Ready(Some(done)) => front.on_done(done),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        debug_assert!(front.is_finished(), "invariant: each device was closed by a duty");
    }
}
