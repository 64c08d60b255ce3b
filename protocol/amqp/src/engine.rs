//! One AMQP connection, from the first byte to the last, without I/O.
//!
//! The caller's loop: give [`Engine::next`] what the socket has brought, handle the event it gives, and
//! again, until it gives none; then write [`Engine::output`]. [`Engine::next`] handles at most one frame
//! before it gives an event, so whoever stops calling it, because something is full, stops the peer. Time
//! comes with [`Engine::next`] and [`Engine::tick`]; [`Engine::deadline`] says when to call the latter.
//!
//! ```text
//!  header ─► (SASL: header, init, verdict) ─► header ─► open ─► close ─► over
//!                                                        │
//!    session:                              begin ─► mapped ─► end
//!    link:            attach ─► asked ─accept─► attached ─► detach
//! ```
//!
//! The engine answers by itself whatever has one possible answer (open, begin, end, detach, close,
//! windows, credit that is used up); an attach and a SASL init wait for the caller's word. Numbers of
//! channels and handles are the peer's own in both directions: it begins every session and link, so
//! they are free on our side exactly when they are on its.

mod commands;
mod input;
mod link;
mod session;
mod transfer;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

use crate::condition;
use crate::error::Error;
use crate::frame::{FrameType, MIN_MAX_FRAME_SIZE, PROTOCOL_BYTES, Protocol, begin_frame, finish_frame};
use crate::limits::Limits;
use crate::performative::{Attach, Open, Performative, Role, write_error};
use crate::sasl::{self, SaslCode, SaslInit};
use crate::state::{Outcome, PeerOutcome};
use crate::write::Writer;
use session::Session;

/// What a connection is like on our side.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Our container's name.
    pub container_id: String,
    /// SASL mechanisms in the order in which they are offered.
    pub mechanisms: Vec<&'static str>,
    /// Bounds.
    pub limits: Limits,
}

/// A link. It is never another one's, also when its channel and handle are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    /// Its session's channel.
    pub channel: u16,
    handle: u32,
    serial: u64,
}

/// A delivery of ours that waits for its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SentId {
    channel: u16,
    id: u64,
}

/// What settling a delivery of the peer takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its link.
    pub link: LinkId,
    /// The peer has settled it: it hears no outcome.
    pub settled: bool,
    id: u32,
}

/// A delivery of the peer, whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Received<'a> {
    /// For [`Engine::settle`], which every delivery needs, settled or not: credit comes back with it.
    pub receipt: Receipt,
    /// See [`crate::message`].
    pub format: u32,
    /// What it carries.
    pub payload: Cow<'a, [u8]>,
}

/// What an `open` said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenInfo {
    /// The peer's name.
    pub container_id: String,
    /// The host that it wants to reach.
    pub hostname: Option<String>,
}

/// What the caller has to know, or to decide.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<'a> {
    /// Decide with [`Engine::sasl_outcome`]; nothing is read before.
    Sasl(SaslInit<'a>),
    /// The connection is open, and was answered.
    Opened(OpenInfo),
    /// Decide with [`Engine::accept`] or [`Engine::refuse`], now or later.
    Attach(LinkId, Box<Attach<'a>>),
    /// A delivery, to be settled.
    Received(Received<'a>),
    /// The peer has given its word on a delivery of ours. When it hasn't settled it, that waits for
    /// [`Engine::settle_sent`].
    Outcome {
        /// The delivery's link.
        link: LinkId,
        /// The delivery.
        id: SentId,
        /// The word.
        outcome: PeerOutcome,
        /// Nothing more is due.
        settled: bool,
    },
    /// A link's credit has changed; see [`Engine::can_send`] and [`Engine::drains`].
    Credit(LinkId),
    /// A session that took no more does so again.
    Window(u16),
    /// A link is gone, and was answered: by the peer, or by the engine for the error that it has told the
    /// peer.
    Detached {
        /// The link.
        link: LinkId,
        /// What was wrong, if something was.
        error: Option<Error>,
    },
    /// A session is gone; its links were told of before.
    Ended(u16),
    /// The connection is over: write what there is, then close the socket.
    Closed {
        /// What was wrong, if something was.
        error: Option<Error>,
        /// The peer has closed it.
        by_peer: bool,
    },
}

/// Why nothing can be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The link is gone, or isn't one that we send on.
    Gone,
    /// The link has no credit; [`Event::Credit`] comes.
    Credit,
    /// The session takes no more; [`Event::Window`] comes.
    Window,
    /// Too many deliveries wait for their outcome; [`Event::Outcome`] comes.
    Unsettled,
}

/// How a link is accepted. Fields that don't fit the link's direction count for nothing.
#[derive(Clone, Copy, Debug)]
pub struct Accept<'a> {
    /// When the peer sends: deliveries that it may have open at once.
    pub window: u32,
    /// When the peer sends: bytes of a message.
    pub message_bytes_max: u64,
    /// When we send: everything is settled when it is sent.
    pub settled: bool,
    /// When we send: the receiver may give its word first and settle after us, if it wants to.
    pub second: bool,
    /// Extensions that are offered.
    pub capabilities: &'a [&'a str],
}

/// A delivery to send.
#[derive(Clone, Copy, Debug)]
pub struct Send<'a> {
    /// The delivery's name, of 32 bytes at the most.
    pub tag: &'a [u8],
    /// See [`crate::message`].
    pub format: u32,
    /// No outcome is wanted.
    pub settled: bool,
    /// The payload, in pieces.
    pub parts: &'a [&'a [u8]],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The first header is due.
    Header,
    /// `sasl-init` is due.
    SaslInit,
    /// The caller's word on it is due.
    SaslVerdict,
    /// The header behind SASL is due.
    HeaderAfterSasl,
    /// `open` is due.
    Opening,
    /// Open.
    Open,
    /// Our `close` is sent; the peer's is due.
    Closing,
    /// Nothing more.
    Over,
}

/// What went wrong, by what it ends.
#[derive(Clone, Debug)]
enum Fault {
    Connection(Error),
    Session(u16, Error),
    Link(LinkId, Error),
}

impl<E: Into<Error>> From<E> for Fault {
    fn from(error: E) -> Fault {
        Fault::Connection(error.into())
    }
}

/// Deliveries in a row that were accepted and of which the peer isn't told yet.
#[derive(Clone, Copy, Debug)]
struct AcceptedRange {
    channel: u16,
    first: u32,
    last: u32,
}

/// One connection.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
    phase: Phase,
    /// The peer has shown who it is.
    known: bool,
    peer_frame_max: u32,
    peer_channel_max: u16,
    sessions: BTreeMap<u16, Session>,
    /// Links in all sessions.
    links: usize,
    partial_bytes: usize,
    /// Deliveries of ours without an outcome, in all sessions.
    unsettled: usize,
    last_serial: u64,
    /// Told before the next frame is read. Bounded by the links and deliveries that exist.
    events: VecDeque<Event<'static>>,
    out: Vec<u8>,
    accepted: Option<AcceptedRange>,
    /// A performative didn't fit a frame of the peer.
    too_small: bool,
    now: u64,
    heard: u64,
    wrote: u64,
    /// Milliseconds of silence that the peer tolerates.
    peer_idle: Option<u64>,
}

impl Engine {
    /// A connection that has just been made, at `now`.
    pub fn new(options: EngineOptions, now: u64) -> Engine {
        Engine {
            options,
            phase: Phase::Header,
            known: false,
            peer_frame_max: MIN_MAX_FRAME_SIZE,
            peer_channel_max: u16::MAX,
            sessions: BTreeMap::new(),
            links: 0,
            partial_bytes: 0,
            unsettled: 0,
            last_serial: 0,
            events: VecDeque::new(),
            out: Vec::new(),
            accepted: None,
            too_small: false,
            now,
            heard: now,
            wrote: now,
            peer_idle: None,
        }
    }

    /// Handles what the socket has brought, up to the next event. What isn't a whole frame stays in
    /// `input`; the caller keeps it, and gives it again with what comes behind it.
    pub fn next<'a>(&mut self, now: u64, input: &mut &'a [u8]) -> Option<Event<'a>> {
        self.now = now;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            match self.step(input) {
                Ok(input::Step::Event(event)) => return Some(event),
                Ok(input::Step::Again) => {}
                Ok(input::Step::Wait) => return None,
                Err(Fault::Connection(error)) => self.fail(error),
                Err(Fault::Session(channel, error)) => self.end_session(channel, error),
                Err(Fault::Link(link, error)) => self.end_link(link, error),
            }
            if self.too_small {
                self.too_small = false;
                self.fail(Error::new(condition::FRAME_SIZE_TOO_SMALL, "an answer doesn't fit a frame"));
            }
        }
    }

    /// When [`Engine::tick`] has something to do.
    pub fn deadline(&self) -> Option<u64> {
        if matches!(self.phase, Phase::Over) {
            return None;
        }
        let silence = self.heard + 2 * u64::from(self.options.limits.idle_time_out_ms);
        Some(self.peer_idle.map_or(silence, |idle| silence.min(self.wrote + idle / 2)))
    }

    /// Looks at the time: says that it is there to a peer that wants to hear so, and gives up on one that
    /// is silent. What comes of it is told by [`Engine::next`].
    pub fn tick(&mut self, now: u64) {
        self.now = now;
        if matches!(self.phase, Phase::Over) {
            return;
        }
        if now >= self.heard + 2 * u64::from(self.options.limits.idle_time_out_ms) {
            return self
                .fail(Error::new(condition::RESOURCE_LIMIT_EXCEEDED, "nothing was heard for too long"));
        }
        // 2.4.5: "a peer should send an empty frame before the other's time-out".
        if self.peer_idle.is_some_and(|idle| now >= self.wrote + idle / 2) {
            let start = self.begin(0);
            finish_frame(&mut self.out, start);
        }
    }

    /// The caller doesn't read now because something of its own is full: the peer's silence is no fault.
    pub fn not_listening(&mut self, now: u64) {
        self.heard = self.heard.max(now);
    }

    /// What goes to the socket; the caller takes it off the front.
    pub fn output(&mut self) -> &mut Vec<u8> {
        self.flush_accepted();
        &mut self.out
    }

    /// Bytes that wait to be written.
    pub fn output_len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing more comes of it.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether an `open` has come and no end yet.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Deliveries of ours without an outcome.
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Links that exist, with those that only wait for the peer's detach.
    pub fn links(&self) -> usize {
        self.links
    }

    /// The peer has shown who it is: the narrow bounds are over.
    pub fn authenticated(&mut self) {
        self.known = true;
    }

    /// The word on [`Event::Sasl`]. Anything but [`SaslCode::Ok`] is the end.
    pub fn sasl_outcome(&mut self, code: SaslCode) {
        if self.phase != Phase::SaslVerdict {
            return;
        }
        sasl::write_outcome(&mut self.out, code);
        if code == SaslCode::Ok {
            self.phase = Phase::HeaderAfterSasl;
        } else {
            self.over(Some(Error::new(condition::UNAUTHORIZED_ACCESS, "refused by SASL")), false);
        }
    }

    /// Closes the connection, with or without an error. Comes to its end with the peer's `close`.
    pub fn close(&mut self, error: Option<Error>) {
        match self.phase {
            Phase::Open => {
                self.forget_all();
                self.write_end(0, 0x18, error.as_ref());
                self.phase = Phase::Closing;
            }
            Phase::Closing | Phase::Over => {}
            _ => self.over(error, false),
        }
    }

    /// Something is so wrong that nothing more is read.
    fn fail(&mut self, error: Error) {
        match self.phase {
            Phase::Over => return,
            Phase::Open => self.write_end(0, 0x18, Some(&error)),
            Phase::Opening => {
                // 2.4.1: "open" precedes "close" also when there is only an error to tell.
                self.write_open();
                self.write_end(0, 0x18, Some(&error));
            }
            _ => {}
        }
        self.forget_all();
        self.over(Some(error), false);
    }

    fn over(&mut self, error: Option<Error>, by_peer: bool) {
        self.phase = Phase::Over;
        self.events.push_back(Event::Closed { error, by_peer });
    }

    fn forget_all(&mut self) {
        self.flush_accepted();
        self.sessions.clear();
        self.links = 0;
        self.partial_bytes = 0;
        self.unsettled = 0;
    }

    fn serial(&mut self) -> u64 {
        self.last_serial += 1;
        self.last_serial
    }

    /// Begins a frame; what was accepted before goes first.
    fn begin(&mut self, channel: u16) -> usize {
        self.flush_accepted();
        self.wrote = self.now;
        begin_frame(&mut self.out, FrameType::Amqp, channel)
    }

    fn finish(&mut self, start: usize) {
        finish_frame(&mut self.out, start);
        if self.out.len() - start > self.peer_frame_max as usize {
            self.out.truncate(start);
            self.too_small = true;
        }
    }

    fn write(&mut self, channel: u16, performative: &Performative<'_>) {
        let start = self.begin(channel);
        performative.write(&mut self.out);
        self.finish(start);
    }

    /// Writes `end` or `close`.
    fn write_end(&mut self, channel: u16, code: u64, error: Option<&Error>) {
        let start = self.begin(channel);
        Writer::new(&mut self.out).whole_list(code, 1, |w| write_error(error, w));
        self.finish(start);
    }

    fn write_open(&mut self) {
        let container_id = std::mem::take(&mut self.options.container_id);
        let open = Open {
            container_id: &container_id,
            max_frame_size: Some(self.options.limits.frame_bytes_max),
            channel_max: Some(self.options.limits.channel_max),
            idle_time_out: Some(self.options.limits.idle_time_out_ms),
            ..Open::default()
        };
        self.write(0, &Performative::Open(open));
        self.options.container_id = container_id;
    }

    /// Tells the peer which of its deliveries were accepted, in one frame.
    fn flush_accepted(&mut self) {
        let Some(range) = self.accepted.take() else { return };
        let last = (range.last != range.first).then_some(range.last);
        self.write_disposition(range.channel, Role::Receiver, range.first, last, &Outcome::Accepted);
    }

    fn write_disposition(
        &mut self,
        channel: u16,
        role: Role,
        first: u32,
        last: Option<u32>,
        outcome: &Outcome,
    ) {
        let start = self.begin(channel);
        Writer::new(&mut self.out).whole_list(0x15, 6, |w| {
            w.bool(role == Role::Receiver);
            w.uint(first);
            w.opt_uint(last);
            w.bool(true);
            outcome.write(w);
        });
        self.finish(start);
    }

    /// Answers a header that can't be taken: 2.2: "it MUST send back the header that it supports and
    /// close the socket".
    fn refuse_header(&mut self, header: [u8; PROTOCOL_BYTES]) {
        let protocol = if self.options.mechanisms.is_empty() { Protocol::Amqp } else { Protocol::Sasl };
        self.out.extend_from_slice(&protocol.header());
        let text = format!("header {header:02x?} isn't spoken here");
        self.over(Some(Error::new(condition::NOT_IMPLEMENTED, text)), false);
    }
}
