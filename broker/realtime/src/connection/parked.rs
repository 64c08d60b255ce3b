//! A connection over HTTP requests: server-sent events, or long polls, with POSTs the other way.
//!
//! Its task waits for what the mailbox brings. A stream of events is written as long as its reader keeps up; a
//! long poll is answered once. A node that doesn't own the connection asks by long polls too, also for a
//! stream of events, which it then writes itself.
//!
//! Between two polls messages stay in the outbox, which is bounded: a client that polls too slowly is dropped
//! like any other slow one.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use fleetline_signalr::long_polling::{OnDeadline, OnGet, PollOptions, PollQueue, Polls};
use fleetline_signalr::sse;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Sleep, sleep_until};

use super::Core;
use crate::mailbox::{Get, PollAnswer};

/// Broadcasts that are taken at a time.
const TAKEN_MAX: usize = 64;

/// Where messages go.
enum Reader {
    /// Nobody asks.
    None,
    /// A long poll hangs.
    Poll(fleetline_signalr::long_polling::Poll, oneshot::Sender<PollAnswer>),
    /// A stream of events, and what tells that its reader is gone.
    Events(mpsc::Sender<Bytes>, BoxFuture<'static, ()>),
}

/// The task of a connection over server-sent events or long polling.
pub(crate) struct ParkedTask {
    core: Core,
    polls: Polls,
    queue: PollQueue,
    reader: Reader,
    /// The reader's place for the next event, while it has none.
    room: Option<BoxFuture<'static, Option<mpsc::OwnedPermit<Bytes>>>>,
    timer: Pin<Box<Sleep>>,
    /// Nobody polls any more.
    is_gone: bool,
    /// When an ended connection no longer waits for its client to take the last messages.
    over_at_ms: Option<u64>,
    grace_ms: u64,
}

impl ParkedTask {
    pub(crate) fn new(core: Core, options: PollOptions) -> ParkedTask {
        let now = core.tier.clock_ms();
        let timer = Box::pin(sleep_until(core.tier.instant(now)));
        ParkedTask {
            polls: Polls::new(options, now),
            queue: PollQueue::new(core.tier.options().limits.queue_bytes_max),
            reader: Reader::None,
            room: None,
            timer,
            is_gone: false,
            over_at_ms: None,
            grace_ms: options.grace_ms,
            core,
        }
    }

    /// Runs the connection to its end.
    pub(crate) async fn run(mut self: Box<Self>) {
        poll_fn(|cx| self.poll(cx)).await;
        Box::pin(self.end()).await;
    }

    async fn end(mut self: Box<Self>) {
        self.core.tier.leave(&self.core.member);
        self.core.tier.bury(&self.core.member);
        if let Reader::Poll(_, answer) = std::mem::replace(&mut self.reader, Reader::None) {
            let _ = answer.send(PollAnswer::Ended);
        }
        while let Some(Get::Poll(answer)) = self.core.member.mailbox.take_get() {
            let _ = answer.send(PollAnswer::Ended);
        }
        Box::new(self.core).finish().await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut moved = self.take_gets();
            moved |= self.core.step(cx);
            moved |= self.take_posts(cx);
            moved |= self.look_at_reader(cx);
            moved |= self.give(cx);
            if self.is_over() {
                return Poll::Ready(());
            }
            if !moved && self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Whether the client has got everything, or can't any more.
    fn is_over(&mut self) -> bool {
        if self.is_gone {
            self.core.on_broken();
        }
        if self.core.ended().is_none() {
            return false;
        }
        let now = self.core.tier.clock_ms();
        let over_at = *self.over_at_ms.get_or_insert(now.saturating_add(self.grace_ms));
        self.is_gone || over_at <= now || (self.queue.is_empty() && !self.core.has_out())
    }

    fn take_posts(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while !self.core.is_busy()
            && let Some(post) = self.core.member.mailbox.take_post()
        {
            any = true;
            let is_open = self.core.ended().is_none();
            if is_open {
                self.core.receive(post.body);
                self.core.step(cx);
            }
            let _ = post.done.send(is_open);
        }
        any
    }

    fn take_gets(&mut self) -> bool {
        let mut any = false;
        while let Some(get) = self.core.member.mailbox.take_get() {
            any = true;
            match get {
                Get::Events(events) => {
                    let watched = events.clone();
                    self.reader = Reader::Events(events, Box::pin(async move { watched.closed().await }));
                }
                Get::Poll(answer) => self.on_poll(answer),
            }
        }
        any
    }

    fn on_poll(&mut self, answer: oneshot::Sender<PollAnswer>) {
        match self.polls.on_get(self.core.tier.clock_ms()) {
            OnGet::AnswerEmpty => {
                let _ = answer.send(PollAnswer::Data(Bytes::new()));
            }
            OnGet::Ended => {
                let _ = answer.send(PollAnswer::Ended);
            }
            OnGet::Hang { poll, .. } => {
                // "A new GET while one hangs: the old one completes 204 and the new one takes over."
                let before = std::mem::replace(&mut self.reader, Reader::Poll(poll, answer));
                if let Reader::Poll(_, before) = before {
                    let _ = before.send(PollAnswer::Ended);
                }
            }
        }
    }

    /// Notices a reader that is gone.
    fn look_at_reader(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.core.tier.clock_ms();
        match &mut self.reader {
            Reader::Poll(poll, answer) => {
                let is_closed = answer.poll_closed(cx).is_ready();
                if is_closed {
                    self.polls.on_answered(now, *poll);
                    self.reader = Reader::None;
                }
                is_closed
            }
            Reader::Events(_, closed) => {
                let is_closed = closed.as_mut().poll(cx).is_ready();
                if is_closed {
                    self.reader = Reader::None;
                    self.room = None;
                    self.is_gone = true;
                    self.core.on_socket_lost();
                }
                is_closed
            }
            Reader::None => false,
        }
    }

    /// Gives what there is to who reads.
    fn give(&mut self, cx: &mut Context<'_>) -> bool {
        match &self.reader {
            Reader::None => {
                self.gather_own();
                false
            }
            Reader::Poll(..) => self.give_to_poll(cx),
            Reader::Events(..) => self.give_events(cx),
        }
    }

    /// What the session itself says is kept outside of it; there is little of it between two polls.
    fn gather_own(&mut self) {
        while let Some(bytes) = self.core.take_out() {
            if self.queue.push(bytes).is_err() {
                self.core.member.outbox.end(crate::outbox::End::Slow);
                return;
            }
        }
    }

    fn gather(&mut self, cx: &mut Context<'_>) {
        self.gather_own();
        if self.core.takes_broadcasts() && self.queue.is_empty() {
            let (queue, protocol) = (&mut self.queue, self.core.protocol());
            let mut lost = false;
            self.core.member.outbox.take(TAKEN_MAX, cx.waker(), |message| {
                lost |= queue.push(message.payload(protocol)).is_err();
            });
            if lost {
                self.core.member.outbox.end(crate::outbox::End::Slow);
            }
        }
    }

    fn give_to_poll(&mut self, cx: &mut Context<'_>) -> bool {
        self.gather(cx);
        let answer = match self.queue.take() {
            Some(body) => PollAnswer::Data(body),
            None if self.core.ended().is_some() => PollAnswer::Ended,
            None => return false,
        };
        let Reader::Poll(poll, sender) = std::mem::replace(&mut self.reader, Reader::None) else {
            return false;
        };
        self.polls.on_answered(self.core.tier.clock_ms(), poll);
        self.core.on_written();
        let _ = sender.send(answer);
        true
    }

    fn give_events(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        loop {
            self.gather(cx);
            if self.queue.is_empty() {
                return any;
            }
            let Reader::Events(events, _) = &self.reader else { return any };
            let room = self.room.get_or_insert_with(|| {
                let events = events.clone();
                Box::pin(async move { events.reserve_owned().await.ok() })
            });
            let Poll::Ready(permit) = room.as_mut().poll(cx) else { return any };
            self.room = None;
            // Without a reader it is noticed by `look_at_reader`.
            let Some(permit) = permit else { return true };
            if let Some(body) = self.queue.take() {
                permit.send(sse::event(&body));
                self.core.on_written();
            }
            any = true;
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.core.tier.clock_ms();
        // A stream of events lives as long as its reader; polls have times of their own.
        if !matches!(self.reader, Reader::Events(..)) && self.on_poll_deadline(now) {
            return Poll::Ready(());
        }
        let polls = match &self.reader {
            Reader::Events(..) => None,
            Reader::None | Reader::Poll(..) => self.polls.deadline_ms(),
        };
        let core = self.core.deadline_ms().filter(|_| self.over_at_ms.is_none());
        let at = [polls, core, self.over_at_ms].into_iter().flatten().min().unwrap_or(u64::MAX);
        self.timer.as_mut().reset(self.core.tier.instant(at.max(now + 1)));
        self.timer.as_mut().poll(cx)
    }

    fn on_poll_deadline(&mut self, now: u64) -> bool {
        match self.polls.on_deadline(now) {
            OnDeadline::Nothing => false,
            OnDeadline::AnswerEmpty(_) => {
                if let Reader::Poll(_, answer) = std::mem::replace(&mut self.reader, Reader::None) {
                    let _ = answer.send(PollAnswer::Data(Bytes::new()));
                }
                true
            }
            OnDeadline::Gone => {
                self.is_gone = true;
                self.core.on_socket_lost();
                true
            }
        }
    }
}
