//! One connection: its session, and what it tells and is told, whatever the transport.
//!
//! ```text
//!   socket task (socket.rs)   bytes of a WebSocket ─┐          ┌─► events: functions, upstreams
//!   parked task (parked.rs)   POSTs and GETs ───────┤─► Core ──┤
//!                             outbox of the member ─┘          └─► joins, once the handshake is good
//! ```
//!
//! A connection is one task that owns a [`Core`]. It brings payloads in, calls [`Core::step`] until nothing
//! moves, writes what came out, and sleeps. Between handshake and its answer the connection joins its hub
//! and its user's groups, so that whoever is told that it is open can reach it.
//!
//! Bounded: while an event is being handled, at most [`backlog_max`](crate::RealtimeLimits::backlog_max) more
//! wait, and then nothing more is read ([`Core::is_busy`]).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use fleetline_signalr::negotiate::Transport;
use fleetline_signalr::session::{CloseReason, Event, Options, Output, Sent, Session, StatefulReconnect};
use fleetline_signalr::upstream::UpstreamEvent;
use fleetline_signalr::{Invocation, Message, Protocol, StreamItem};
use futures::future::BoxFuture;

use crate::events::{Reply, Told};
use crate::member::Member;
use crate::outbox::End;
use crate::tier::Realtime;

pub(crate) mod parked;
pub(crate) mod socket;

/// How long an order to end waits for messages before it that the client doesn't take.
const END_WAIT_MS: u64 = 5_000;

/// What a connection's task has to do next for its user's code.
#[derive(Debug)]
enum Task {
    Connected,
    Call { call: Invocation, is_stream: bool },
}

/// What came of the work at hand.
enum Done {
    Joined(Result<(), JoinFailed>),
    Told,
    Answer { id: String, reply: Reply },
}

/// The connection could not join its hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinFailed(pub(crate) String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    Joining,
    Open,
}

/// What a new connection is made of.
pub(crate) struct Start {
    pub(crate) tier: Arc<Realtime>,
    pub(crate) member: Arc<Member>,
    pub(crate) options: Options,
    pub(crate) transport: Transport,
    pub(crate) reconnect: StatefulReconnect,
    /// When it has to end, on the clock of [`Realtime::clock_ms`].
    pub(crate) close_at_ms: Option<u64>,
}

/// A connection without its transport.
pub(crate) struct Core {
    pub(crate) tier: Arc<Realtime>,
    pub(crate) member: Arc<Member>,
    session: Session,
    protocol: Option<Protocol>,
    is_resumable: bool,
    phase: Phase,
    work: Option<BoxFuture<'static, Done>>,
    tasks: VecDeque<Task>,
    /// An answer that waits until a resumable client has acknowledged enough. Rare, so boxed.
    stuck: Option<Box<(String, Reply)>>,
    /// What the session wants written, in order.
    out: VecDeque<Bytes>,
    ended: Option<CloseReason>,
    close_at_ms: Option<u64>,
    last_ping_ms: u64,
    keep_alive_ms: u64,
    /// When an order to end no longer waits for what goes before it.
    end_at_ms: Option<u64>,
}

impl Core {
    pub(crate) fn new(start: Start) -> Core {
        let now = start.tier.clock_ms();
        Core {
            session: Session::new(start.options, start.transport, start.reconnect, now),
            tier: start.tier,
            member: start.member,
            protocol: None,
            is_resumable: false,
            phase: Phase::Handshake,
            work: None,
            tasks: VecDeque::new(),
            stuck: None,
            out: VecDeque::new(),
            ended: None,
            close_at_ms: start.close_at_ms,
            last_ping_ms: now,
            keep_alive_ms: start.options.keep_alive_ms,
            end_at_ms: None,
        }
    }

    /// How its messages are written; JSON until it has said so.
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol.unwrap_or(Protocol::Json)
    }

    /// Whether the outbox may be written to its transport as it is.
    pub(crate) fn takes_broadcasts(&self) -> bool {
        self.phase == Phase::Open && !self.is_resumable && self.ended.is_none()
    }

    /// Whether it can come back on another socket.
    pub(crate) fn is_resumable(&self) -> bool {
        self.is_resumable
    }

    /// Whether nothing should be read for now.
    pub(crate) fn is_busy(&self) -> bool {
        self.phase == Phase::Joining || self.is_backed_up()
    }

    fn is_backed_up(&self) -> bool {
        self.stuck.is_some() || self.tasks.len() >= self.tier.options().limits.backlog_max.max(1)
    }

    /// Why it ended; everything in [`Core::take_out`] goes before.
    pub(crate) fn ended(&self) -> Option<&CloseReason> {
        self.ended.as_ref()
    }

    /// The next thing to write. Nothing leaves between handshake and join.
    pub(crate) fn take_out(&mut self) -> Option<Bytes> {
        match self.phase {
            Phase::Joining => None,
            Phase::Handshake | Phase::Open => self.out.pop_front(),
        }
    }

    /// Whether something is to be written.
    pub(crate) fn has_out(&self) -> bool {
        self.phase != Phase::Joining && !self.out.is_empty()
    }

    /// Brings a payload of the transport.
    pub(crate) fn receive(&mut self, payload: Bytes) {
        self.session.receive(self.tier.clock_ms(), payload);
    }

    /// Broadcasts were written: no ping is needed for a while.
    pub(crate) fn on_written(&mut self) {
        self.last_ping_ms = self.tier.clock_ms();
        self.session.on_sent(self.last_ping_ms);
    }

    /// The socket is gone; ends the connection unless it can be resumed.
    pub(crate) fn on_socket_lost(&mut self) {
        self.out.clear();
        self.session.on_socket_lost(self.tier.clock_ms());
    }

    /// The client is back on a new socket; `false` when it can't be.
    pub(crate) fn on_new_socket(&mut self) -> bool {
        self.out.clear();
        self.session.on_new_socket(self.tier.clock_ms()).is_ok()
    }

    /// The transport can't go on and says why to nobody: the peer broke its rules.
    pub(crate) fn on_broken(&mut self) {
        if self.ended.is_none() {
            self.ended = Some(CloseReason::SocketLost);
        }
    }

    /// When [`Core::step`] has to be called at the latest.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let ping = self.is_backed_up().then(|| self.last_ping_ms.saturating_add(self.keep_alive_ms));
        [self.session.deadline_ms(), self.close_at_ms, self.end_at_ms, ping].into_iter().flatten().min()
    }

    /// Does everything that can be done now. `true` when something moved, so that more may.
    pub(crate) fn step(&mut self, cx: &mut Context<'_>) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let now = self.tier.clock_ms();
        self.keep_alive_behind_work(now);
        self.session.on_deadline(now);
        if self.close_at_ms.is_some_and(|at| at <= now) {
            self.close_at_ms = None;
            self.member.outbox.end(End::Expired);
        }
        let mut moved = self.poll_work(cx, now);
        moved |= self.drain(now);
        if self.is_resumable && self.phase == Phase::Open {
            moved |= self.push_broadcasts(now);
        }
        moved | self.look_for_end(cx, now)
    }

    /// Ends when that was ordered and what goes before is taken, or the client has had time to take it.
    fn look_for_end(&mut self, cx: &mut Context<'_>, now: u64) -> bool {
        let (end, waits) = self.member.outbox.ended(cx.waker());
        let Some(end) = end.filter(|_| self.ended.is_none() && self.phase != Phase::Joining) else {
            return false;
        };
        let at = *self.end_at_ms.get_or_insert(now.saturating_add(END_WAIT_MS));
        if waits && now < at {
            return false;
        }
        self.end_at_ms = None;
        self.close(end);
        // A client that isn't heard for now ends all the same.
        self.stuck = None;
        while self.ended.is_none()
            && let Some(output) = self.session.poll(now)
        {
            self.on_output(output, now);
        }
        true
    }

    /// A session whose events wait isn't polled, so its pings wait too: one is sent in their place.
    fn keep_alive_behind_work(&mut self, now: u64) {
        if !self.is_backed_up() || self.last_ping_ms.saturating_add(self.keep_alive_ms) > now {
            return;
        }
        self.last_ping_ms = now;
        if let Ok(ping) = Message::Ping.to_bytes(self.protocol()) {
            self.out.push_back(ping);
        }
        self.session.on_sent(now);
        // It may speak; it isn't heard, because what it has said waits.
        self.session.receive(now, Bytes::new());
    }

    fn close(&mut self, end: End) {
        let (error, may_return) = match end {
            End::Slow => (Some("the client does not read fast enough".to_owned()), true),
            End::Ordered(reason) => (reason, false),
            End::Shutdown => (Some("the server is shutting down".to_owned()), true),
            End::Deleted => (None, false),
            End::Expired => (Some("the access token has expired".to_owned()), true),
        };
        self.session.close(error, may_return);
    }

    /// Takes what the session has to say, as long as there is room for it.
    fn drain(&mut self, now: u64) -> bool {
        let mut moved = false;
        while self.ended.is_none() && !self.is_busy() {
            let Some(output) = self.session.poll(now) else { break };
            moved = true;
            self.on_output(output, now);
        }
        moved
    }

    fn on_output(&mut self, output: Output, now: u64) {
        match output {
            Output::Send(bytes) => {
                self.last_ping_ms = now;
                self.out.push_back(bytes);
            }
            Output::Event(event) => self.on_event(event),
            Output::Close(reason) => self.ended = Some(reason),
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Opened { protocol: Protocol::MessagePack, .. }
                if self.member.transport == Transport::ServerSentEvents =>
            {
                self.session.close(Some("server-sent events carry text only".to_owned()), false);
            }
            Event::Opened { protocol, is_resumable } => {
                self.protocol = Some(protocol);
                self.is_resumable = is_resumable;
                self.member.is_resumable.store(is_resumable, Ordering::Relaxed);
                self.phase = Phase::Joining;
                let (tier, member) = (self.tier.clone(), self.member.clone());
                self.work = Some(Box::pin(async move { Done::Joined(tier.join_hub(&member).await) }));
            }
            Event::Invocation(call) => self.on_call(call, false),
            Event::StreamInvocation(call) => self.on_call(call, true),
            Event::Drained => {
                if let Some(stuck) = self.stuck.take() {
                    let (id, reply) = *stuck;
                    self.answer(&id, reply);
                }
            }
            // Nobody here reads streams of clients, or asks clients for results; the items of a stream of
            // ours are sent at once.
            Event::StreamItem(_) | Event::CompletionFromClient(_) | Event::CancelInvocation { .. } => {}
            Event::Ping | Event::Ack { .. } | Event::Suspended | Event::Resumed => {}
        }
    }

    fn on_call(&mut self, call: Invocation, is_stream: bool) {
        self.tier.stats.on_received();
        self.tasks.push_back(Task::Call { call, is_stream });
    }

    /// Goes on with the work at hand, and begins the next.
    fn poll_work(&mut self, cx: &mut Context<'_>, now: u64) -> bool {
        let mut moved = false;
        loop {
            if self.work.is_none() && !self.begin_task() {
                return moved;
            }
            let Some(work) = self.work.as_mut() else { return moved };
            match Pin::new(work).poll(cx) {
                Poll::Pending => return moved,
                Poll::Ready(done) => {
                    self.work = None;
                    moved = true;
                    self.on_done(done, now);
                }
            }
        }
    }

    fn begin_task(&mut self) -> bool {
        if self.stuck.is_some() {
            return false;
        }
        while let Some(task) = self.tasks.pop_front() {
            if self.tasks.is_empty() {
                self.tasks = VecDeque::new();
            }
            if let Some(work) = self.work_of(task) {
                self.work = Some(work);
                return true;
            }
        }
        false
    }

    fn work_of(&mut self, task: Task) -> Option<BoxFuture<'static, Done>> {
        let (event, is_stream) = match task {
            Task::Connected => (UpstreamEvent::Connected, false),
            Task::Call { call, is_stream } => (UpstreamEvent::Message(call), is_stream),
        };
        let id = match &event {
            UpstreamEvent::Message(call) => call.invocation_id.clone(),
            _ => None,
        };
        let settings = self.tier.settings();
        if id.is_none() && !self.tier.events.wants(&settings, &self.member.hub, &event) {
            return None;
        }
        let (tier, member, protocol) = (self.tier.clone(), self.member.clone(), self.protocol());
        let told = Told { member, protocol, event, is_stream };
        Some(Box::pin(async move {
            let reply = tier.events.tell(&settings, told).await;
            match id {
                Some(id) => Done::Answer { id, reply },
                None => Done::Told,
            }
        }))
    }

    fn on_done(&mut self, done: Done, now: u64) {
        match done {
            Done::Told => {}
            Done::Answer { id, reply } => self.answer(&id, reply),
            Done::Joined(Ok(())) => {
                self.phase = Phase::Open;
                self.last_ping_ms = now;
                self.tasks.push_front(Task::Connected);
            }
            Done::Joined(Err(JoinFailed(error))) => {
                self.phase = Phase::Open;
                self.session.close(Some(error), true);
            }
        }
    }

    /// Answers a call: the items of its stream, then its end. What a resumable client's buffer has no room
    /// for waits.
    fn answer(&mut self, id: &str, mut reply: Reply) {
        let now = self.tier.clock_ms();
        while !reply.items.is_empty() {
            let item = StreamItem { invocation_id: id.to_owned(), item: reply.items[0].clone() };
            if self.session.send_item(now, item) == Sent::Full {
                self.stuck = Some(Box::new((id.to_owned(), reply)));
                return;
            }
            reply.items.remove(0);
        }
        let outcome = reply.outcome;
        if self.session.complete(now, id, outcome.clone()) == Sent::Full {
            self.stuck = Some(Box::new((id.to_owned(), Reply { items: Vec::new(), outcome })));
        }
    }

    /// Hands broadcasts to the session of a resumable connection, which keeps them until they are
    /// acknowledged.
    fn push_broadcasts(&mut self, now: u64) -> bool {
        let session = &mut self.session;
        let mut moved = false;
        while self.member.outbox.take_if(|message| session.send(now, message.encoded()) == Sent::Taken) {
            moved = true;
        }
        moved && self.drain(now)
    }

    /// An empty connection keeps no buffers.
    pub(crate) fn give_back(&mut self) {
        if self.out.is_empty() && self.out.capacity() > 0 {
            self.out = VecDeque::new();
        }
    }

    /// The connection is over: it leaves everything. What it has said before is still told to its user's
    /// code, and then that it is gone.
    pub(crate) async fn finish(mut self: Box<Self>) {
        self.member.outbox.close();
        self.member.mailbox.close();
        self.tier.leave(&self.member);
        if self.phase != Phase::Open {
            return;
        }
        if let Some(work) = self.work.take() {
            work.await;
        }
        while let Some(task) = self.tasks.pop_front() {
            if let Some(work) = self.work_of(task) {
                work.await;
            }
        }
        let event = UpstreamEvent::Disconnected { error: self.ended.as_ref().and_then(error_of) };
        let settings = self.tier.settings();
        if self.tier.events.wants(&settings, &self.member.hub, &event) {
            let (member, protocol) = (self.member.clone(), self.protocol());
            let _ =
                self.tier.events.tell(&settings, Told { member, protocol, event, is_stream: false }).await;
        }
    }
}

/// What the user's code is told about an end that was nobody's wish.
fn error_of(reason: &CloseReason) -> Option<String> {
    match reason {
        CloseReason::ServerClosed => None,
        CloseReason::ClientClosed { error } => error.clone(),
        // The usual way to go: clients close the socket and say nothing.
        CloseReason::SocketLost => None,
        reason => Some(reason.to_string()),
    }
}
