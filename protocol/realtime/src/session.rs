//! One connection: handshake, messages, keep-alive, and coming back on another socket.
//!
//! ```text
//!   handshake ──good──► open ◄──► lost (resumable only)          any ──► closed
//! ```
//!
//! The shell calls one method with what happened (`receive`, `send`, `on_deadline`, …), then
//! [`Session::poll`] until it answers `None`, then waits until [`Session::deadline_ms`]. Messages are decoded
//! one a poll, so a payload with a thousand of them takes no memory beyond itself; a shell whose
//! consumer is busy stops polling. What a caller sends is queued until the next poll.
//!
//! Invariants:
//! 1. Behind [`Output::Close`] comes nothing, and nothing is taken any more.
//! 2. A peer that breaks the protocol is told so in a Close message (or in the answer to its handshake).
//! 3. What is kept for a peer is bounded: unacknowledged messages by [`Options::replay_bytes_max`], open
//!    invocations by [`Options::open_invocations_max`]. A sender is told ([`Sent::Full`]) and learns
//!    when there is room ([`Event::Drained`]).
//! 4. An invocation is answered at most once.
//!
//! Not here: what an invocation does, sockets and HTTP, long polling's own time-outs (`long_polling.rs`).

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use crate::decoder::Decoder;
use crate::encoded::Encoded;
use crate::handshake::{HANDSHAKE_OK, HandshakeError, HandshakeReader, HandshakeRequest, refusal};
use crate::limits;
use crate::message::{Completion, Invocation, Message, Outcome, Protocol, StreamItem};
use crate::negotiate::Transport;
use crate::replay::{Replay, Verdict};

mod types;

pub use types::{CloseReason, Event, NotResumable, Options, Output, Sent, StatefulReconnect};

/// The state of one connection.
#[derive(Debug)]
pub struct Session {
    options: Options,
    transport: Transport,
    reconnect: StatefulReconnect,
    state: State,
    outputs: VecDeque<Output>,
    last_sent_ms: u64,
    last_received_ms: u64,
}

#[derive(Debug)]
enum State {
    Handshake { reader: HandshakeReader, until_ms: u64 },
    Open(Box<Open>),
    Closed,
}

#[derive(Debug)]
struct Open {
    protocol: Protocol,
    decoder: Decoder,
    socket: Socket,
    /// Only of a resumable connection.
    replay: Option<Replay>,
    /// Invocations of the client that want an answer.
    invocations: BTreeSet<String>,
    /// Somebody was told `Full` and waits for `Drained`.
    has_waiter: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    Here,
    Lost { until_ms: u64 },
}

impl Session {
    /// A connection whose handshake is about to come.
    pub fn new(options: Options, transport: Transport, reconnect: StatefulReconnect, now_ms: u64) -> Session {
        let until_ms = now_ms.saturating_add(options.handshake_timeout_ms);
        Session {
            options,
            transport,
            reconnect,
            state: State::Handshake { reader: HandshakeReader::default(), until_ms },
            outputs: VecDeque::new(),
            last_sent_ms: now_ms,
            last_received_ms: now_ms,
        }
    }

    /// How messages are written, once the handshake has said it.
    pub fn protocol(&self) -> Option<Protocol> {
        match &self.state {
            State::Open(open) => Some(open.protocol),
            State::Handshake { .. } | State::Closed => None,
        }
    }

    /// Whether nothing more comes but what is queued.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// The next thing to do; `None` until something happens.
    pub fn poll(&mut self, now_ms: u64) -> Option<Output> {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return Some(output);
            }
            let State::Open(open) = &mut self.state else { return None };
            match open.decoder.next() {
                Ok(Some(message)) => self.on_message(now_ms, message),
                Ok(None) => return None,
                Err(error) => self.fail(error.into()),
            }
        }
    }

    /// Takes a payload of the transport: a frame of a WebSocket or the body of a POST.
    pub fn receive(&mut self, now_ms: u64, payload: Bytes) {
        self.last_received_ms = now_ms;
        match &mut self.state {
            State::Handshake { reader, .. } => match reader.feed(payload) {
                Ok(Some((request, rest))) => self.become_open(now_ms, request, rest),
                Ok(None) => {}
                Err(error) => self.refuse(error),
            },
            State::Open(open) => match open.socket {
                Socket::Here => open.decoder.feed(payload),
                // The socket that brought this is not the one that the client will come back on.
                Socket::Lost { .. } => {}
            },
            State::Closed => {}
        }
    }

    /// Sends a message that many may get.
    pub fn send(&mut self, now_ms: u64, message: &Encoded) -> Sent {
        let State::Open(open) = &mut self.state else { return Sent::NotOpen };
        let bytes = message.bytes(open.protocol);
        if message.is_sequenced() { self.send_sequenced(now_ms, bytes) } else { self.send_now(now_ms, bytes) }
    }

    /// Something was sent on the socket past the session (shared frames): no ping is needed for a while.
    pub fn on_sent(&mut self, now_ms: u64) {
        self.last_sent_ms = now_ms;
    }

    /// Sends an item of a stream that the client has asked for.
    pub fn send_item(&mut self, now_ms: u64, item: StreamItem) -> Sent {
        let State::Open(open) = &mut self.state else { return Sent::NotOpen };
        if !open.invocations.contains(&item.invocation_id) {
            return Sent::Unknown;
        }
        let invocation_id = item.invocation_id.clone();
        match Message::StreamItem(item).to_bytes(open.protocol) {
            Ok(bytes) => self.send_sequenced(now_ms, bytes),
            Err(error) => self.complete(now_ms, &invocation_id, Outcome::Error(error.to_string())),
        }
    }

    /// Answers an invocation of the client. A result that the client's protocol can't say becomes an error.
    pub fn complete(&mut self, now_ms: u64, invocation_id: &str, outcome: Outcome) -> Sent {
        let State::Open(open) = &mut self.state else { return Sent::NotOpen };
        if !open.invocations.contains(invocation_id) {
            return Sent::Unknown;
        }
        let bytes = completion_bytes(open.protocol, invocation_id, outcome);
        let sent = self.send_sequenced(now_ms, bytes);
        if let (Sent::Taken, State::Open(open)) = (sent, &mut self.state) {
            open.invocations.remove(invocation_id);
        }
        sent
    }

    /// Ends the connection with a Close message. A client that uses automatic reconnect comes back by
    /// itself only if `allow_reconnect` is true.
    pub fn close(&mut self, error: Option<String>, allow_reconnect: bool) {
        self.say_close(error, allow_reconnect);
        self.become_closed(CloseReason::ServerClosed);
    }

    /// When [`Session::on_deadline`] has to be called, unless something happens before.
    pub fn deadline_ms(&self) -> Option<u64> {
        match &self.state {
            State::Handshake { until_ms, .. } => Some(*until_ms),
            State::Open(open) => match open.socket {
                Socket::Lost { until_ms } => Some(until_ms),
                Socket::Here => {
                    let ack = open.replay.as_ref().and_then(Replay::ack_at_ms);
                    [ack, self.ping_at_ms(), self.gone_at_ms()].into_iter().flatten().min()
                }
            },
            State::Closed => None,
        }
    }

    /// Does what is due. Harmless when nothing is.
    pub fn on_deadline(&mut self, now_ms: u64) {
        match &mut self.state {
            State::Handshake { until_ms, .. } if *until_ms <= now_ms => self.refuse(HandshakeError::Timeout),
            State::Open(open) => match open.socket {
                Socket::Lost { until_ms } if until_ms <= now_ms => {
                    self.become_closed(CloseReason::SocketLost);
                }
                Socket::Lost { .. } => {}
                Socket::Here => self.on_open_deadline(now_ms),
            },
            State::Handshake { .. } | State::Closed => {}
        }
    }

    /// The socket is gone. A resumable connection waits for another one; any other ends.
    pub fn on_socket_lost(&mut self, now_ms: u64) {
        // What was not written is kept in the replay buffer, or may be lost.
        self.outputs.retain(|output| !matches!(output, Output::Send(_)));
        match &mut self.state {
            State::Open(open) if open.replay.is_some() => {
                if open.socket == Socket::Here {
                    open.socket =
                        Socket::Lost { until_ms: now_ms.saturating_add(self.options.resume_grace_ms) };
                    open.decoder.clear();
                    self.outputs.push_back(Output::Event(Event::Suspended));
                }
            }
            State::Handshake { .. } | State::Open(_) => self.become_closed(CloseReason::SocketLost),
            State::Closed => {}
        }
    }

    /// The client is back on a new socket, perhaps before the loss of the old one was noticed (which the
    /// shell closes). There is no second handshake: Sequence comes first, then what was not acknowledged.
    pub fn on_new_socket(&mut self, now_ms: u64) -> Result<(), NotResumable> {
        let State::Open(open) = &mut self.state else { return Err(NotResumable) };
        let Some(replay) = &mut open.replay else { return Err(NotResumable) };
        self.outputs.retain(|output| !matches!(output, Output::Send(_)));
        self.outputs.push_back(Output::Event(Event::Resumed));
        open.socket = Socket::Here;
        open.decoder.clear();
        let (sequence_id, kept) = replay.resume();
        self.outputs.push_back(Output::Send(plain(&Message::Sequence { sequence_id }, open.protocol)));
        self.outputs.extend(kept.cloned().map(Output::Send));
        self.last_sent_ms = now_ms;
        self.last_received_ms = now_ms;
        Ok(())
    }

    fn become_open(&mut self, now_ms: u64, request: HandshakeRequest, rest: Bytes) {
        let HandshakeRequest { protocol, version } = request;
        let is_resumable = self.reconnect == StatefulReconnect::Negotiated
            && self.transport == Transport::WebSockets
            && version >= limits::STATEFUL_VERSION_MIN;
        let mut decoder = Decoder::new(protocol, self.options.limits);
        decoder.feed(rest);
        self.state = State::Open(Box::new(Open {
            protocol,
            decoder,
            socket: Socket::Here,
            replay: is_resumable.then(|| Replay::new(self.options.replay_bytes_max)),
            invocations: BTreeSet::new(),
            has_waiter: false,
        }));
        self.last_sent_ms = now_ms;
        self.outputs.push_back(Output::Send(Bytes::from_static(HANDSHAKE_OK)));
        self.outputs.push_back(Output::Event(Event::Opened { protocol, is_resumable }));
    }

    fn refuse(&mut self, error: HandshakeError) {
        self.outputs.push_back(Output::Send(refusal(&error)));
        self.become_closed(error.into());
    }

    /// Ends the connection of a peer that broke a rule, and tells it which.
    fn fail(&mut self, reason: CloseReason) {
        self.say_close(Some(reason.to_string()), false);
        self.become_closed(reason);
    }

    fn say_close(&mut self, error: Option<String>, allow_reconnect: bool) {
        let State::Open(open) = &self.state else { return };
        if open.socket == Socket::Here {
            let close = Message::Close { error, allow_reconnect };
            self.outputs.push_back(Output::Send(plain(&close, open.protocol)));
        }
    }

    fn become_closed(&mut self, reason: CloseReason) {
        if !self.is_closed() {
            self.state = State::Closed;
            self.outputs.push_back(Output::Close(reason));
        }
    }

    /// When to ping. Long polls and their time-outs keep themselves alive.
    fn ping_at_ms(&self) -> Option<u64> {
        let is_kept = self.transport != Transport::LongPolling;
        is_kept.then(|| self.last_sent_ms.saturating_add(self.options.keep_alive_ms))
    }

    /// When the client counts as gone.
    fn gone_at_ms(&self) -> Option<u64> {
        let is_kept = self.transport != Transport::LongPolling;
        is_kept.then(|| self.last_received_ms.saturating_add(self.options.client_timeout_ms))
    }

    fn on_open_deadline(&mut self, now_ms: u64) {
        let is_due = |at_ms: Option<u64>| at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        if is_due(self.gone_at_ms()) {
            let reason = CloseReason::ClientTimeout;
            self.say_close(Some(reason.to_string()), true);
            self.become_closed(reason);
            return;
        }
        let State::Open(open) = &mut self.state else { return };
        if let Some(sequence_id) = open.replay.as_mut().and_then(|replay| replay.take_ack(now_ms)) {
            let bytes = plain(&Message::Ack { sequence_id }, open.protocol);
            let _ = self.send_now(now_ms, bytes);
        }
        if is_due(self.ping_at_ms()) {
            let State::Open(open) = &self.state else { return };
            let bytes = plain(&Message::Ping, open.protocol);
            let _ = self.send_now(now_ms, bytes);
        }
    }

    /// Sends what counts: kept, if the connection is resumable.
    fn send_sequenced(&mut self, now_ms: u64, bytes: Bytes) -> Sent {
        let State::Open(open) = &mut self.state else { return Sent::NotOpen };
        if let Some(replay) = &mut open.replay {
            if replay.is_full() {
                open.has_waiter = true;
                return Sent::Full;
            }
            replay.keep(bytes.clone());
        }
        self.send_now(now_ms, bytes)
    }

    /// Sends on the socket, if it is there.
    fn send_now(&mut self, now_ms: u64, bytes: Bytes) -> Sent {
        let State::Open(open) = &self.state else { return Sent::NotOpen };
        if open.socket == Socket::Here {
            self.last_sent_ms = now_ms;
            self.outputs.push_back(Output::Send(bytes));
        }
        Sent::Taken
    }

    fn on_message(&mut self, now_ms: u64, message: Message) {
        let State::Open(open) = &mut self.state else { return };
        if let Some(replay) = &mut open.replay
            && replay.on_message(now_ms, &message) == Verdict::Drop
        {
            return;
        }
        match message {
            Message::Invocation(invocation) => self.on_invocation(now_ms, invocation, Event::Invocation),
            Message::StreamInvocation(invocation) => {
                self.on_invocation(now_ms, invocation, Event::StreamInvocation);
            }
            Message::StreamItem(item) => self.tell(Event::StreamItem(item)),
            Message::Completion(completion) => self.tell(Event::CompletionFromClient(completion)),
            Message::CancelInvocation { invocation_id } => {
                if open.invocations.contains(&invocation_id) {
                    self.tell(Event::CancelInvocation { invocation_id });
                }
            }
            Message::Ping => self.tell(Event::Ping),
            Message::Close { error, .. } => self.become_closed(CloseReason::ClientClosed { error }),
            Message::Ack { sequence_id } => self.on_ack(sequence_id),
            Message::Sequence { sequence_id } => self.on_sequence(sequence_id),
        }
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn on_invocation(&mut self, now_ms: u64, invocation: Invocation, event: fn(Invocation) -> Event) {
        let Some(id) = &invocation.invocation_id else { return self.tell(event(invocation)) };
        let (bytes, limit) = (id.len(), limits::INVOCATION_ID_BYTES_MAX);
        if bytes > limit {
            return self.fail(CloseReason::InvocationId { bytes, limit });
        }
        let State::Open(open) = &mut self.state else { return };
        let refused = if open.invocations.contains(id) {
            "the invocation id is already in use"
        } else if open.invocations.len() >= self.options.open_invocations_max {
            "too many invocations are open"
        } else {
            open.invocations.insert(id.clone());
            return self.tell(event(invocation));
        };
        let bytes = completion_bytes(open.protocol, id, Outcome::Error(refused.to_owned()));
        if self.send_sequenced(now_ms, bytes) == Sent::Full {
            self.fail(CloseReason::Unacknowledged);
        }
    }

    fn on_ack(&mut self, sequence_id: u64) {
        let State::Open(open) = &mut self.state else { return };
        let Some(replay) = &mut open.replay else { return };
        if let Err(error) = replay.on_ack(sequence_id) {
            return self.fail(error.into());
        }
        let is_drained = open.has_waiter && !replay.is_full();
        open.has_waiter &= !is_drained;
        self.tell(Event::Ack { sequence_id });
        if is_drained {
            self.tell(Event::Drained);
        }
    }

    fn on_sequence(&mut self, sequence_id: u64) {
        let State::Open(open) = &mut self.state else { return };
        let Some(replay) = &mut open.replay else { return };
        if let Err(error) = replay.on_sequence(sequence_id) {
            self.fail(error.into());
        }
    }
}

/// A completion; one whose result can't be said in the protocol tells that instead.
fn completion_bytes(protocol: Protocol, invocation_id: &str, outcome: Outcome) -> Bytes {
    let completion =
        |outcome| Message::Completion(Completion { invocation_id: invocation_id.to_owned(), outcome });
    let written = completion(outcome).to_bytes(protocol);
    written.unwrap_or_else(|error| plain(&completion(Outcome::Error(error.to_string())), protocol))
}

/// The bytes of a message without values, which always has a form.
fn plain(message: &Message, protocol: Protocol) -> Bytes {
    let written = message.to_bytes(protocol);
    debug_assert!(written.is_ok(), "a message without values has a form");
    written.unwrap_or_default()
}
