//! One connection's loop: bytes in, bytes out, wakes, work, time.
//!
//! It is one future that is polled when its socket, its link, its work or its timer has something. It
//! does everything that can be done, writes once, and sleeps. Buffers that are empty are given back,
//! so that an idle connection holds little more than its session.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fleetline_mqtt::{Version, encode, reason};
use fleetline_types::{PartitionId, TimestampMs};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::input::{Progress, Sink, handle};
use super::login::Opened;
use super::session::{Close, Done, Session, SessionLimits};
use super::{MqttContext, refused, work};
use crate::devices::connections::{Link, Registered};
use crate::devices::hub::MethodAnswer;
use crate::devices::record::Stamps;

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Reads in a row before others get their turn.
const READS_MAX: usize = 8;

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A connection with an open session.
pub(super) struct Shell<IO> {
    context: Arc<MqttContext>,
    io: IO,
    registered: Registered,
    stamps: Stamps,
    session: Session,
    partition: PartitionId,
    /// The beginning of a packet, or packets that have to wait.
    input: Vec<u8>,
    /// `input` holds a packet that waits for room.
    waits: bool,
    room: Option<BoxFuture<'static, ()>>,
    output: Vec<u8>,
    written: usize,
    /// Something was written that the stream may still hold.
    unflushed: bool,
    work: Option<BoxFuture<'static, Result<Done, Close>>>,
    heard: Instant,
    silence: Duration,
    expires: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl<IO> Shell<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    pub(super) fn new(context: Arc<MqttContext>, io: IO, opened: Opened) -> Shell<IO> {
        let limits = SessionLimits {
            in_flight_max: context.limits.in_flight_max,
            deliveries_max: context.limits.deliveries_max.min(usize::from(opened.receive_maximum.max(1))),
            packet_bytes_max: opened.packet_bytes_max,
        };
        let key = opened.registered.link.key.clone();
        let partition = context.gateway.partition_of(&key.device);
        let now = Instant::now();
        // [MQTT-3.1.2-24]: one and a half times the keep-alive.
        let silence = match opened.keep_alive {
            0 => context.limits.silence_max,
            seconds => (Duration::from_secs(seconds.into()) * 3 / 2).min(context.limits.silence_max),
        };
        let expires = opened.expires.and_then(|seconds| {
            let left = seconds.saturating_mul(1000).saturating_sub(context.gateway.hub.now_ms());
            now.checked_add(Duration::from_millis(left))?.checked_add(context.limits.expiry_grace)
        });
        let first = expires.map_or(now + silence, |expires| expires.min(now + silence));
        Shell {
            session: Session::new(opened.version, key, limits, &opened.session),
            registered: opened.registered,
            stamps: opened.stamps,
            partition,
            waits: !opened.rest.is_empty(),
            input: opened.rest,
            room: None,
            output: Vec::new(),
            written: 0,
            unflushed: false,
            work: None,
            heard: now,
            silence,
            expires,
            timer: Box::pin(tokio::time::sleep_until(first)),
            context,
            io,
        }
    }

    /// Does all that can be done now; ready when the connection ends.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Close> {
        match self.poll_all(cx) {
            Ok(()) => Poll::Pending,
            Err(close) => Poll::Ready(close),
        }
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        let mut acked;
        loop {
            self.look_at_link()?;
            let worked = self.poll_work(cx)?;
            let resumed = self.resume(cx)?;
            let read = self.poll_read(cx)?;
            let stopped = self.is_stopped();
            acked = self.registered.link.acked();
            self.session.flush_acks(acked, &mut self.output);
            self.poll_write(cx)?;
            let freed = stopped && !self.is_stopped();
            if !(worked || resumed || read || freed) {
                break;
            }
        }
        // What has come since it was looked at wakes at once.
        if self.registered.link.poll_changed(cx, acked).is_ready() {
            cx.waker().wake_by_ref();
        }
        self.poll_timer(cx)?;
        self.give_back();
        Ok(())
    }

    fn look_at_link(&mut self) -> Result<(), Close> {
        let link = self.registered.link.clone();
        if link.is_over() {
            return Err(Close::error(reason::SESSION_TAKEN_OVER, "session_over"));
        }
        let bits = link.take();
        if bits & Link::SHUTDOWN != 0 {
            return Err(Close::error(reason::SERVER_SHUTTING_DOWN, "shutdown"));
        }
        if bits & Link::COMMANDS != 0 {
            self.session.want_commands();
        }
        if bits & Link::DESIRED != 0 {
            self.session.want_desired();
        }
        if bits & Link::METHODS != 0 {
            for job in link.take_methods() {
                match self.output_is_full() {
                    // Nothing more for a client that doesn't read.
                    true => drop(job.answer.send(MethodAnswer::without(MethodAnswer::BUSY))),
                    false => self.session.on_method(job, &mut self.output),
                }
            }
        }
        Ok(())
    }

    /// Goes on with the work at hand, and begins the next.
    fn poll_work(&mut self, cx: &mut Context<'_>) -> Result<bool, Close> {
        let mut worked = false;
        loop {
            if self.work.is_none() {
                if self.output_is_full() {
                    // Its answer would wait for a client that doesn't read.
                    return Ok(worked);
                }
                let Some(next) = self.session.next_work() else { return Ok(worked) };
                let (hub, key) = (self.context.gateway.hub.clone(), self.session.key.clone());
                let epoch = self.registered.link.epoch();
                self.work = Some(Box::pin(work::perform(hub, self.partition, key, epoch, next)));
            }
            let Some(running) = self.work.as_mut() else { return Ok(worked) };
            match running.as_mut().poll(cx) {
                Poll::Pending => return Ok(worked),
                Poll::Ready(done) => {
                    self.work = None;
                    worked = true;
                    self.session.on_done(done?, &mut self.output)?;
                }
            }
        }
    }

    fn output_is_full(&self) -> bool {
        self.output.len() - self.written >= self.context.limits.output_bytes_max
    }

    /// Whether the socket isn't read because something must leave first.
    fn is_stopped(&self) -> bool {
        self.output_is_full() || !self.session.has_room()
    }

    /// Brings packets that had to wait again, when they may have room now.
    fn resume(&mut self, cx: &mut Context<'_>) -> Result<bool, Close> {
        if !self.waits || self.output_is_full() {
            return Ok(false);
        }
        if let Some(room) = self.room.as_mut() {
            if room.as_mut().poll(cx).is_pending() {
                return Ok(false);
            }
            self.room = None;
        }
        if !self.session.has_room() {
            return Ok(false);
        }
        let bytes = std::mem::take(&mut self.input);
        self.waits = false;
        self.take_in(&bytes, cx)?;
        Ok(true)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, Close> {
        let mut any = false;
        for _ in 0..READS_MAX {
            if self.waits || self.is_stopped() {
                return Ok(any);
            }
            let read = READ.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Err(_)) => Poll::Ready(Err(Close::error(reason::SUCCESS, "socket"))),
                    Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                        Poll::Ready(Err(Close::error(reason::SUCCESS, "end_of_stream")))
                    }
                    Poll::Ready(Ok(())) => Poll::Ready(self.received(buffer.filled(), cx)),
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

    fn received(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<(), Close> {
        self.heard = Instant::now();
        if self.input.is_empty() {
            return self.take_in(bytes, cx);
        }
        let mut whole = std::mem::take(&mut self.input);
        whole.extend_from_slice(bytes);
        self.take_in(&whole, cx)
    }

    /// Handles packets, and keeps what can't be handled yet.
    fn take_in(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<(), Close> {
        let now = TimestampMs(self.context.gateway.hub.now_ms());
        let mut from = 0;
        loop {
            let sink = Sink {
                ingest: &self.context.gateway.ingest,
                partition: self.partition,
                link: &self.registered.link,
                stamps: &self.stamps,
                limits: &self.context.limits.packets,
                now,
            };
            match handle(&mut self.session, &sink, &bytes[from..], &mut self.output)? {
                Progress::All(at) => {
                    self.input.extend_from_slice(&bytes[from + at..]);
                    return Ok(());
                }
                Progress::Blocked(at, partition_is_full) => {
                    from += at;
                    if partition_is_full && !self.wait_for_room(cx) {
                        continue;
                    }
                    self.input.extend_from_slice(&bytes[from..]);
                    self.waits = true;
                    return Ok(());
                }
            }
        }
    }

    /// Begins to wait for room in the partition; `false` when it is there already.
    fn wait_for_room(&mut self, cx: &mut Context<'_>) -> bool {
        let (ingest, partition) = (self.context.gateway.ingest.clone(), self.partition);
        let mut room: BoxFuture<'static, ()> = Box::pin(async move { ingest.room(partition).await });
        if room.as_mut().poll(cx).is_ready() || !self.context.gateway.ingest.has_waiting(partition) {
            return false;
        }
        self.room = Some(room);
        true
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        let broken = |_: io::Error| Close::error(reason::SUCCESS, "socket");
        while self.written < self.output.len() {
            match Pin::new(&mut self.io).poll_write(cx, &self.output[self.written..]) {
                Poll::Pending => break,
                Poll::Ready(written) => self.written += written.map_err(broken)?,
            }
            self.unflushed = true;
        }
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        }
        // A stream with a buffer of its own (TLS) is flushed, and again until it is done: nothing may be
        // written for a long time. A plain socket has nothing to do.
        if self.unflushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.io).poll_flush(cx)
        {
            flushed.map_err(broken)?;
            self.unflushed = false;
        }
        Ok(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Result<(), Close> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if (self.waits || !self.session.has_room()) && !self.output_is_full() {
                // It may speak; it isn't heard, because what it has sent waits for the partition.
                self.heard = now;
            }
            if self.expires.is_some_and(|expires| expires <= now) {
                return Err(Close::error(reason::MAXIMUM_CONNECT_TIME, "token_expired"));
            }
            let silent_at = self.heard + self.silence;
            if silent_at <= now {
                return Err(Close::error(reason::KEEP_ALIVE_TIMEOUT, "keep_alive"));
            }
            let next = self.expires.map_or(silent_at, |expires| expires.min(silent_at));
            self.timer.as_mut().reset(next);
        }
        Ok(())
    }

    /// An idle connection keeps no buffers.
    fn give_back(&mut self) {
        if self.output.is_empty() && self.session.is_idle() {
            self.output = Vec::new();
            self.session.give_back();
        }
        if self.input.is_empty() && self.input.capacity() > 0 {
            self.input = Vec::new();
        }
    }

    /// Says why, as far as the protocol can, and ends the session.
    pub(super) async fn end(mut self: Box<Self>, close: Close) {
        refused(close.why);
        self.session.drop_methods();
        drop(self.registered.link.take_methods());
        tracing::trace!(device = self.session.key.text(), why = close.why, "connection ends");
        if self.session.version == Version::V5 && close.reason != reason::SUCCESS {
            encode::disconnect(&mut self.output, Version::V5, close.reason);
        }
        let left = self.output.split_off(self.written);
        let last = async {
            self.io.write_all(&left).await?;
            self.io.shutdown().await
        };
        // The peer may be gone, or not read: it has had its chance.
        drop(tokio::time::timeout(Duration::from_secs(2), last).await);
        drop(self.work.take());
        let link = self.registered.link.clone();
        // Fences find a connection by its registration, so it stays known until nothing of it is on its way;
        // and its session ends behind its last record: the next one begins behind that (P12).
        let sent = self.session.sent();
        poll_fn(|cx| {
            loop {
                let acked = link.acked();
                if acked >= sent || link.is_over() {
                    return Poll::Ready(());
                }
                if link.poll_changed(cx, acked).is_pending() {
                    return Poll::Pending;
                }
                link.take();
            }
        })
        .await;
        work::close(&self.context, &link, close.graceful).await;
    }
}
