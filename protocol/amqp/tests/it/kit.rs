//! A peer that is written down frame by frame.

use fleetline_amqp::frame::{FrameType, Protocol, begin_frame, finish_frame, read_frame};
use fleetline_amqp::performative::{
    Attach, Begin, Close, Detach, Disposition, End, Flow, Open, Performative, Role, Transfer,
};
use fleetline_amqp::terminus::{Source, Target};
use fleetline_amqp::{Accept, Engine, EngineOptions, Event, Limits, LinkId};

/// What a test keeps for ever.
pub fn leak(bytes: Vec<u8>) -> &'static [u8] {
    Box::leak(bytes.into_boxed_slice())
}

pub fn frame(channel: u16, performative: &Performative<'_>, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = begin_frame(&mut out, FrameType::Amqp, channel);
    performative.write(&mut out);
    out.extend_from_slice(payload);
    finish_frame(&mut out, start);
    out
}

pub struct Sent {
    pub channel: u16,
    pub performative: Performative<'static>,
    pub payload: &'static [u8],
}

/// Frames in `bytes`; headers of protocols are left out.
pub fn parse(mut bytes: &'static [u8]) -> Vec<Sent> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        if bytes.starts_with(b"AMQP") {
            bytes = &bytes[8..];
            continue;
        }
        let len = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
        let (first, rest) = bytes.split_at(len);
        bytes = rest;
        let frame = read_frame(first).unwrap();
        if frame.kind == FrameType::Amqp && !frame.body.is_empty() {
            let mut body = frame.body;
            let performative = Performative::read(&mut body).unwrap();
            frames.push(Sent { channel: frame.channel, performative, payload: body });
        }
    }
    frames
}

pub struct World {
    pub engine: Engine,
    pub now: u64,
    rest: Vec<u8>,
}

impl World {
    pub fn with(limits: Limits) -> World {
        let mechanisms = vec!["PLAIN", "ANONYMOUS"];
        let options = EngineOptions { container_id: "server".into(), mechanisms, limits };
        World { engine: Engine::new(options, 0), now: 0, rest: Vec::new() }
    }

    pub fn new() -> World {
        World::with(Limits::default())
    }

    /// Open, and with a session on channel 0.
    pub fn open_with(limits: Limits, open: Open<'_>) -> World {
        let mut world = World::with(limits);
        world.bytes(&Protocol::Amqp.header());
        world.send(0, Performative::Open(open));
        world.engine.authenticated();
        world.send(0, Performative::Begin(begin()));
        world.sent();
        world
    }

    pub fn open() -> World {
        World::open_with(Limits::default(), Open { container_id: "client", ..Open::default() })
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> Vec<Event<'static>> {
        self.rest.extend_from_slice(bytes);
        let all = leak(std::mem::take(&mut self.rest));
        let mut input = all;
        let mut events = Vec::new();
        while let Some(event) = self.engine.next(self.now, &mut input) {
            events.push(event);
        }
        self.rest = input.to_vec();
        events
    }

    pub fn send(&mut self, channel: u16, performative: Performative<'_>) -> Vec<Event<'static>> {
        self.bytes(&frame(channel, &performative, &[]))
    }

    pub fn transfer(&mut self, channel: u16, transfer: Transfer<'_>, payload: &[u8]) -> Vec<Event<'static>> {
        self.bytes(&frame(channel, &Performative::Transfer(transfer), payload))
    }

    /// What the engine has sent since the last call.
    pub fn sent(&mut self) -> Vec<Sent> {
        parse(leak(std::mem::take(self.engine.output())))
    }

    /// The error of the `close`, `end` or `detach` that is the last thing sent.
    pub fn last_error(&mut self) -> String {
        let mut sent = self.sent();
        let error = match sent.pop().expect("nothing was sent").performative {
            Performative::Close(Close { error }) => ("close", error),
            Performative::End(End { error }) => ("end", error),
            Performative::Detach(Detach { error, .. }) => ("detach", error),
            other => panic!("sent {other:?}"),
        };
        format!("{} {}", error.0, error.1.map(|error| error.condition).unwrap_or("-"))
    }

    pub fn attach(&mut self, channel: u16, handle: u32, role: Role) -> LinkId {
        let events = self.send(channel, attach(handle, role));
        match &events[..] {
            [Event::Attach(link, _)] => *link,
            other => panic!("{other:?}"),
        }
    }

    /// A link that the peer sends on.
    pub fn incoming(&mut self, channel: u16, handle: u32, window: u32) -> LinkId {
        let link = self.attach(channel, handle, Role::Sender);
        assert!(self.engine.accept(link, &Accept { window, ..accept() }));
        self.sent();
        link
    }

    /// A link that the peer receives on, with credit.
    pub fn outgoing(&mut self, channel: u16, handle: u32, credit: u32) -> LinkId {
        let link = self.attach(channel, handle, Role::Receiver);
        assert!(self.engine.accept(link, &accept()));
        self.send(channel, credit_flow(handle, 0, credit));
        self.sent();
        link
    }
}

pub fn accept<'a>() -> Accept<'a> {
    Accept { window: 10, message_bytes_max: 1 << 20, settled: false, second: true, capabilities: &[] }
}

pub fn begin<'a>() -> Begin<'a> {
    Begin { next_outgoing_id: 0, incoming_window: 100, outgoing_window: 100, ..Begin::default() }
}

pub fn attach(handle: u32, role: Role) -> Performative<'static> {
    let (mut source, mut target) = (Vec::new(), Vec::new());
    Source { address: Some("from"), ..Source::default() }.write(&mut source);
    Target { address: Some("to"), ..Target::default() }.write(&mut target);
    let mut attach = Attach::new("link", handle, role);
    (attach.source_raw, attach.target_raw) = (leak(source), leak(target));
    Performative::Attach(Box::new(attach))
}

pub fn credit_flow(handle: u32, delivery_count: u32, credit: u32) -> Performative<'static> {
    Performative::Flow(Flow {
        next_incoming_id: Some(0),
        incoming_window: 1000,
        outgoing_window: 1000,
        handle: Some(handle),
        delivery_count: Some(delivery_count),
        link_credit: Some(credit),
        ..Flow::default()
    })
}

pub fn delivery(handle: u32, id: u32) -> Transfer<'static> {
    Transfer { handle, delivery_id: Some(id), delivery_tag: Some(b"tag"), ..Transfer::default() }
}

pub fn disposition<'a>(first: u32, last: u32, settled: bool) -> Disposition<'a> {
    Disposition {
        role: Role::Receiver,
        first,
        last: Some(last),
        settled,
        state: Some(fleetline_amqp::DeliveryState::Accepted),
    }
}
