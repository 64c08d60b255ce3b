//! What a peer sends, frame by frame.

use super::link::{Link, LinkState, Wanted};
use super::session::Session;
use super::{Engine, Event, Fault, LinkId, OpenInfo, Phase, SentId};
use crate::condition;
use crate::error::Error;
use crate::frame::{Frame, FrameType, MIN_MAX_FRAME_SIZE, PROTOCOL_BYTES, Protocol, frame_len, read_frame};
use crate::performative::{Attach, Begin, Detach, Disposition, Flow, Open, PeerError, Performative, Role};
use crate::sasl::{self, Sasl};
use crate::state::PeerOutcome;

/// How far one call got.
pub(super) enum Step<'a> {
    Event(Event<'a>),
    /// Look at queued events, then go on.
    Again,
    /// More bytes, or the caller's word, are due.
    Wait,
}

type Stepped<'a> = Result<Step<'a>, Fault>;

impl Engine {
    pub(super) fn step<'a>(&mut self, input: &mut &'a [u8]) -> Stepped<'a> {
        match self.phase {
            Phase::Header | Phase::HeaderAfterSasl => {
                let Some((header, rest)) = input.split_first_chunk::<PROTOCOL_BYTES>() else {
                    return Ok(Step::Wait);
                };
                *input = rest;
                self.heard = self.now;
                self.on_header(*header);
                Ok(Step::Again)
            }
            Phase::SaslVerdict | Phase::Over => Ok(Step::Wait),
            Phase::SaslInit | Phase::Opening | Phase::Open | Phase::Closing => {
                let Some(len) = frame_len(input, self.frame_max())? else { return Ok(Step::Wait) };
                let Some((bytes, rest)) = input.split_at_checked(len) else { return Ok(Step::Wait) };
                *input = rest;
                self.heard = self.now;
                let frame = read_frame(bytes)?;
                match self.phase {
                    Phase::SaslInit => self.on_sasl(&frame),
                    _ => self.on_frame(&frame),
                }
            }
        }
    }

    fn frame_max(&self) -> u32 {
        let limits = &self.options.limits;
        match self.known {
            true => limits.frame_bytes_max,
            false => limits.frame_bytes_max.min(limits.unknown_frame_bytes_max),
        }
    }

    fn on_header(&mut self, header: [u8; PROTOCOL_BYTES]) {
        match (Protocol::of(&header), self.phase) {
            (Some(Protocol::Sasl), Phase::Header) if !self.options.mechanisms.is_empty() => {
                self.out.extend_from_slice(&header);
                sasl::write_mechanisms(&mut self.out, &self.options.mechanisms);
                self.phase = Phase::SaslInit;
            }
            (Some(Protocol::Amqp), _) => {
                self.out.extend_from_slice(&header);
                self.phase = Phase::Opening;
            }
            _ => self.refuse_header(header),
        }
        self.wrote = self.now;
    }

    fn on_sasl<'a>(&mut self, frame: &Frame<'a>) -> Stepped<'a> {
        if frame.kind != FrameType::Sasl {
            return Err(Error::new(condition::FRAMING_ERROR, "a SASL frame is due").into());
        }
        match Sasl::read(frame.body)? {
            Sasl::Init(init) => {
                self.phase = Phase::SaslVerdict;
                Ok(Step::Event(Event::Sasl(init)))
            }
            _ => Err(Error::new(condition::ILLEGAL_STATE, "sasl-init is due").into()),
        }
    }

    fn on_frame<'a>(&mut self, frame: &Frame<'a>) -> Stepped<'a> {
        if frame.kind != FrameType::Amqp {
            return Err(Error::new(condition::FRAMING_ERROR, "SASL is over").into());
        }
        if frame.channel > self.options.limits.channel_max {
            let text = format!("channel {} is above the maximum", frame.channel);
            return Err(Error::new(condition::FRAMING_ERROR, text).into());
        }
        let mut body = frame.body;
        if body.is_empty() {
            return Ok(Step::Again);
        }
        let performative = Performative::read(&mut body)?;
        if self.phase == Phase::Closing {
            if let Performative::Close(_) = performative {
                self.over(None, false);
            }
            return Ok(Step::Again);
        }
        match (performative, self.phase) {
            (Performative::Transfer(transfer), Phase::Open) => {
                self.on_transfer(frame.channel, &transfer, body)
            }
            _ if !body.is_empty() => {
                Err(Error::new(condition::FRAMING_ERROR, "payload behind what carries none").into())
            }
            (Performative::Open(open), Phase::Opening) => self.on_open(&open),
            (Performative::Close(close), Phase::Opening) => {
                self.write_open();
                self.on_close(close.error)
            }
            (_, Phase::Opening) => Err(Error::new(condition::ILLEGAL_STATE, "open is due").into()),
            (Performative::Open(_), _) => Err(Error::new(condition::ILLEGAL_STATE, "open came twice").into()),
            (Performative::Close(close), _) => self.on_close(close.error),
            (Performative::Begin(begin), _) => self.on_begin(frame.channel, &begin),
            (Performative::End(end), _) => self.on_end(frame.channel, end.error),
            (Performative::Attach(attach), _) => self.on_attach(frame.channel, attach),
            (Performative::Detach(detach), _) => self.on_detach(frame.channel, &detach),
            (Performative::Flow(flow), _) => self.on_flow(frame.channel, &flow),
            (Performative::Disposition(disposition), _) => self.on_disposition(frame.channel, &disposition),
            (Performative::Transfer(_), _) => {
                Err(Error::new(condition::ILLEGAL_STATE, "transfer isn't due").into())
            }
        }
    }

    fn on_open<'a>(&mut self, open: &Open<'_>) -> Stepped<'a> {
        let limits = &self.options.limits;
        let frame_max = open.max_frame_size.unwrap_or(u32::MAX);
        if frame_max < MIN_MAX_FRAME_SIZE {
            let text = format!("max-frame-size {frame_max} is below {MIN_MAX_FRAME_SIZE}");
            return Err(Error::new(condition::INVALID_FIELD, text).into());
        }
        let idle_min = limits.peer_idle_time_out_min_ms;
        // "A value of zero is the same as if it was not set" (2.7.1).
        let idle = open.idle_time_out.filter(|idle| *idle > 0);
        self.peer_frame_max = frame_max.min(limits.sent_frame_bytes_max);
        self.peer_channel_max = open.channel_max.unwrap_or(u16::MAX);
        self.peer_idle = idle.map(u64::from);
        if idle.is_some_and(|idle| idle < idle_min) {
            // 2.4.5: "if a peer can not support a proposed idle timeout, it SHOULD close".
            let text = format!("idle-time-out below {idle_min} isn't supported");
            return Err(Error::new(condition::NOT_IMPLEMENTED, text).into());
        }
        self.write_open();
        self.phase = Phase::Open;
        Ok(Step::Event(Event::Opened(OpenInfo {
            container_id: open.container_id.to_owned(),
            hostname: open.hostname.map(str::to_owned),
        })))
    }

    fn on_close<'a>(&mut self, error: Option<PeerError<'_>>) -> Stepped<'a> {
        self.forget_all();
        self.write_end(0, 0x18, None);
        self.over(error.map(|error| owned(&error)), true);
        Ok(Step::Again)
    }

    fn on_begin<'a>(&mut self, channel: u16, begin: &Begin<'_>) -> Stepped<'a> {
        if begin.remote_channel.is_some() {
            // It answers a begin that nobody has sent.
            return Err(Error::new(condition::NOT_ALLOWED, "begin for a session that wasn't begun").into());
        }
        if self.sessions.contains_key(&channel) {
            let text = format!("channel {channel} has a session");
            return Err(Error::new(condition::FRAMING_ERROR, text).into());
        }
        if channel > self.peer_channel_max {
            return Err(Error::new(condition::NOT_ALLOWED, "channel above the peer's own maximum").into());
        }
        let limits = &self.options.limits;
        if !self.known && self.sessions.len() >= limits.unknown_sessions_max {
            return Err(too_many("sessions before anybody is authenticated").into());
        }
        let session = Session::new(begin, limits.incoming_window);
        let answer = Begin {
            remote_channel: Some(channel),
            next_outgoing_id: session.next_outgoing_id,
            incoming_window: limits.incoming_window,
            outgoing_window: super::session::OUTGOING_WINDOW,
            handle_max: Some(limits.handle_max),
            ..Begin::default()
        };
        self.sessions.insert(channel, session);
        self.write(channel, &Performative::Begin(answer));
        Ok(Step::Again)
    }

    /// The session of a channel; none while our `end` waits for the peer's, as frames that were on their
    /// way then count for nothing (2.5.5).
    pub(super) fn session(&mut self, channel: u16) -> Result<Option<&mut Session>, Fault> {
        match self.sessions.get_mut(&channel) {
            Some(session) => Ok(Some(session).filter(|session| !session.ending)),
            None => {
                let text = format!("channel {channel} has no session");
                Err(Error::new(condition::FRAMING_ERROR, text).into())
            }
        }
    }

    fn on_end<'a>(&mut self, channel: u16, error: Option<PeerError<'_>>) -> Stepped<'a> {
        let is_mapped = self.session(channel)?.is_some();
        if is_mapped {
            let error = error.map(|error| owned(&error));
            self.forget_links(channel, error.as_ref());
            self.write_end(channel, 0x17, None);
            self.events.push_back(Event::Ended(channel));
        }
        self.sessions.remove(&channel);
        Ok(Step::Again)
    }

    fn on_attach<'a>(&mut self, channel: u16, attach: Box<Attach<'a>>) -> Stepped<'a> {
        let limits = self.options.limits.clone();
        let (links, known) = (self.links, self.known);
        let serial = self.serial();
        let Some(session) = self.session(channel)? else { return Ok(Step::Again) };
        if attach.handle > limits.handle_max || attach.handle > session.peer_handle_max {
            // 2.7.2: "MUST NOT attempt to use a handle value outside the range"; the answer is ours to pick.
            let text = format!("handle {} is above the maximum", attach.handle);
            return Err(Error::new(condition::FRAMING_ERROR, text).into());
        }
        if session.links.contains_key(&attach.handle) {
            let text = format!("handle {} has a link", attach.handle);
            return Err(Fault::Session(channel, Error::new(condition::HANDLE_IN_USE, text)));
        }
        let terminus_bytes = attach.source_raw.len() + attach.target_raw.len();
        if attach.name.len() > limits.link_name_bytes_max || terminus_bytes > limits.terminus_bytes_max {
            return Err(Fault::Session(channel, too_many("bytes in the name, source and target of a link")));
        }
        if links >= limits.links_max {
            return Err(Fault::Session(channel, too_many("links")));
        }
        if !known && links >= limits.unknown_links_max {
            return Err(too_many("links before anybody is authenticated").into());
        }
        session.links.insert(attach.handle, Link::new(serial, &attach));
        self.links += 1;
        let link = LinkId { channel, handle: attach.handle, serial };
        Ok(Step::Event(Event::Attach(link, attach)))
    }

    fn on_detach<'a>(&mut self, channel: u16, detach: &Detach<'_>) -> Stepped<'a> {
        let Some(session) = self.session(channel)? else { return Ok(Step::Again) };
        let Some(link) = session.links.get(&detach.handle) else {
            return Err(Fault::Session(channel, unattached(detach.handle)));
        };
        let id = LinkId { channel, handle: detach.handle, serial: link.serial };
        match &link.state {
            LinkState::Detaching => {}
            state => {
                if let LinkState::Asked(wanted) = state {
                    // 2.6.4: a detach answers a detach, behind an attach of ours.
                    let wanted: Wanted = (**wanted).clone();
                    self.write_refusal(id, &wanted);
                }
                self.write_detach(id, detach.closed, None);
                let error = detach.error.map(|error| owned(&error));
                self.events.push_back(Event::Detached { link: id, error });
            }
        }
        self.forget_link(id);
        Ok(Step::Again)
    }

    fn on_flow<'a>(&mut self, channel: u16, flow: &Flow) -> Stepped<'a> {
        let Some(session) = self.session(channel)? else { return Ok(Step::Again) };
        let was_shut = session.remote_window == 0;
        session.on_flow(flow);
        if was_shut && session.remote_window > 0 {
            self.go_on(channel);
            self.events.push_back(Event::Window(channel));
        }
        match flow.handle {
            Some(handle) => self.on_link_flow(channel, handle, flow)?,
            None if flow.echo => self.write_flow(channel, None),
            None => {}
        }
        Ok(Step::Again)
    }

    fn on_link_flow(&mut self, channel: u16, handle: u32, flow: &Flow) -> Result<(), Fault> {
        let Some(session) = self.session(channel)? else { return Ok(()) };
        let Some(link) = session.links.get_mut(&handle) else {
            return Err(Fault::Session(channel, unattached(handle)));
        };
        let id = LinkId { channel, handle, serial: link.serial };
        match (&link.state, link.peer) {
            (LinkState::Detaching, _) => return Ok(()),
            (_, Role::Receiver) => {
                link.on_receiver_flow(flow);
                if matches!(link.state, LinkState::Attached) {
                    self.events.push_back(Event::Credit(id));
                }
            }
            (_, Role::Sender) => {
                link.on_sender_flow(flow);
                self.top_up(id);
            }
        }
        if flow.echo {
            self.write_flow(channel, Some(handle));
        }
        Ok(())
    }

    fn on_disposition<'a>(&mut self, channel: u16, disposition: &Disposition<'_>) -> Stepped<'a> {
        let first = disposition.first;
        let last = disposition.last.unwrap_or(first);
        if (last.wrapping_sub(first) as i32) < 0 {
            let error = Error::new(condition::INVALID_FIELD, "last delivery lies before the first");
            return Err(Fault::Session(channel, error));
        }
        if disposition.role == Role::Sender {
            // The peer settles what it has sent: nothing is kept of it here.
            self.session(channel)?;
            return Ok(Step::Again);
        }
        let outcome = PeerOutcome::of(disposition.state.as_ref());
        let Some(session) = self.session(channel)? else { return Ok(Step::Again) };
        let mut settled = Vec::new();
        let mut told = Vec::new();
        for (id, sent) in session.sent_between(first, last) {
            let fresh = !sent.told;
            sent.told |= outcome.is_some();
            if disposition.settled {
                settled.push((id, sent.handle));
            }
            // An outcome counts once; settling one that was told of before is only the end of it.
            match &outcome {
                Some(outcome) if fresh => told.push((id, sent.handle, sent.serial, outcome.clone())),
                None if disposition.settled && fresh => {
                    told.push((id, sent.handle, sent.serial, PeerOutcome::None));
                }
                _ => {}
            }
        }
        for (id, handle) in &settled {
            session.sent.remove(id);
            if let Some(link) = session.links.get_mut(handle) {
                link.unsettled = link.unsettled.saturating_sub(1);
            }
        }
        self.unsettled -= settled.len();
        let is_settled = disposition.settled;
        self.events.extend(told.into_iter().map(|(id, handle, serial, outcome)| Event::Outcome {
            link: LinkId { channel, handle, serial },
            id: SentId { channel, id },
            outcome,
            settled: is_settled,
        }));
        Ok(Step::Again)
    }
}

fn too_many(what: &str) -> Error {
    Error::new(condition::RESOURCE_LIMIT_EXCEEDED, format!("too many {what}"))
}

pub(super) fn unattached(handle: u32) -> Error {
    Error::new(condition::UNATTACHED_HANDLE, format!("handle {handle} has no link"))
}

/// A peer's error without what only programs of its own read. Cut, as it goes to logs.
fn owned(error: &PeerError<'_>) -> Error {
    let cut = |text: &str| text.chars().take(256).collect::<String>();
    Error { condition: cut(error.condition).into(), description: cut(error.description), info: Vec::new() }
}
