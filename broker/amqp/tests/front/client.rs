//! A client, frame by frame.

use fleetline_amqp::frame::{FrameType, Protocol, begin_frame, finish_frame, read_frame};
use fleetline_amqp::message::{Message, MessageWriter, Properties};
use fleetline_amqp::performative::{
    Attach, Begin, Detach, Disposition, Flow, Open, Performative, ReceiverSettle, Role, SenderSettle,
    Transfer,
};
use fleetline_amqp::terminus::{Source, Target};
use fleetline_amqp::value::{Map, Value};
use fleetline_amqp::{DeliveryState, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

/// Something that the server has sent.
pub struct Seen {
    pub channel: u16,
    pub performative: Performative<'static>,
    pub payload: Vec<u8>,
}

/// What a link shall be like.
#[derive(Clone, Copy, Default)]
pub struct Wish<'a> {
    /// Filter of the source, as a written value.
    pub filter: &'a [u8],
    /// Properties, as a written map.
    pub properties: &'a [u8],
    pub capabilities: &'a [&'a str],
    pub second: bool,
    pub settled: bool,
    pub reply_to: Option<&'a str>,
}

pub struct Client {
    io: DuplexStream,
    pub served: JoinHandle<()>,
    input: Vec<u8>,
    next_handle: u32,
    next_delivery: u32,
    kept: Vec<Seen>,
    /// All bytes that were sent.
    pub sent: Vec<u8>,
}

fn leak(bytes: Vec<u8>) -> &'static [u8] {
    Box::leak(bytes.into_boxed_slice())
}

pub fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut Writer::new(&mut out));
    out
}

pub fn message(write: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut MessageWriter::new(&mut out));
    out
}

/// A message of data and nothing else.
pub fn data(body: &str) -> Vec<u8> {
    message(|w| {
        w.data(body.as_bytes());
    })
}

pub fn body(payload: &[u8]) -> String {
    String::from_utf8(Message::parse(payload).unwrap().data().into_owned()).unwrap()
}

impl Client {
    pub fn new(io: DuplexStream, served: JoinHandle<()>) -> Client {
        Client {
            io,
            served,
            input: Vec::new(),
            next_handle: 0,
            next_delivery: 0,
            kept: Vec::new(),
            sent: Vec::new(),
        }
    }

    pub async fn bytes(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        self.io.write_all(bytes).await.unwrap();
    }

    /// A frame that only says that the client is there.
    pub async fn alive(&mut self) {
        self.bytes(&[0, 0, 0, 8, 2, 0, 0, 0]).await;
    }

    pub async fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.input.len() < count {
            assert_ne!(self.io.read_buf(&mut self.input).await.unwrap(), 0, "closed");
        }
        self.input.drain(..count).collect()
    }

    pub async fn send(&mut self, channel: u16, performative: &Performative<'_>, payload: &[u8]) {
        let mut out = Vec::new();
        let start = begin_frame(&mut out, FrameType::Amqp, channel);
        performative.write(&mut out);
        out.extend_from_slice(payload);
        finish_frame(&mut out, start);
        self.bytes(&out).await;
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Seen> {
        if !self.kept.is_empty() {
            return Some(self.kept.remove(0));
        }
        self.receive().await
    }

    async fn receive(&mut self) -> Option<Seen> {
        loop {
            if let Some(size) = self.input.first_chunk::<4>() {
                let len = u32::from_be_bytes(*size) as usize;
                if self.input.len() >= len {
                    let bytes = leak(self.input.drain(..len).collect());
                    let frame = read_frame(bytes).unwrap();
                    if frame.body.is_empty() {
                        continue;
                    }
                    let mut rest = frame.body;
                    let performative = Performative::read(&mut rest).unwrap();
                    return Some(Seen { channel: frame.channel, performative, payload: rest.to_vec() });
                }
            }
            if self.io.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The next frame that is wanted; others are kept for later.
    pub async fn find<T>(&mut self, mut wanted: impl FnMut(&Seen) -> Option<T>) -> T {
        let kept = self.kept.iter().position(|seen| wanted(seen).is_some());
        if let Some(at) = kept {
            let seen = self.kept.remove(at);
            return wanted(&seen).unwrap();
        }
        loop {
            let Some(seen) = self.receive().await else {
                let last = self.kept.last().map(|seen| &seen.performative);
                panic!("the connection ended, last came {last:?}");
            };
            if let Some(found) = wanted(&seen) {
                return found;
            }
            self.kept.push(seen);
        }
    }

    pub async fn open(&mut self) {
        self.bytes(&Protocol::Amqp.header()).await;
        assert_eq!(self.read_exactly(8).await, Protocol::Amqp.header());
        let open = Open { container_id: "test", hostname: Some("hub.example"), ..Open::default() };
        self.send(0, &Performative::Open(open), &[]).await;
        self.find(|seen| matches!(seen.performative, Performative::Open(_)).then_some(())).await;
    }

    pub async fn begin(&mut self, channel: u16) {
        let begin = Begin { incoming_window: 5000, outgoing_window: 5000, ..Begin::default() };
        self.send(channel, &Performative::Begin(begin), &[]).await;
        self.find(|seen| matches!(seen.performative, Performative::Begin(_)).then_some(())).await;
    }

    /// Attaches; the handle, or the condition of the refusal.
    pub async fn try_attach(
        &mut self,
        channel: u16,
        role: Role,
        address: &str,
        wish: Wish<'_>,
    ) -> Result<u32, String> {
        let handle = self.next_handle;
        self.next_handle += 1;
        let filter = Value::read_all(wish.filter).ok().and_then(|value| value.as_map());
        let (mut source, mut target) = (Vec::new(), Vec::new());
        let (from, to) = match role {
            Role::Receiver => (Some(address), wish.reply_to),
            Role::Sender => (None, Some(address)),
        };
        Source { address: from, filter, ..Source::default() }.write(&mut source);
        Target { address: to, ..Target::default() }.write(&mut target);
        let name = format!("link-{handle}");
        let mut attach = Attach::new(&name, handle, role);
        (attach.source_raw, attach.target_raw) = (&source, &target);
        attach.rcv_settle_mode = if wish.second { ReceiverSettle::Second } else { ReceiverSettle::First };
        attach.snd_settle_mode = if wish.settled { SenderSettle::Settled } else { SenderSettle::Mixed };
        let capabilities = written(|w| w.symbols(wish.capabilities));
        let mut raw = Vec::new();
        let properties: Option<Map<'_>> =
            Value::read_all(wish.properties).ok().and_then(|value| value.as_map());
        attach.properties = properties;
        let wanted = Value::read_all(&capabilities).unwrap();
        if let Value::Array(array) = wanted
            && !wish.capabilities.is_empty()
        {
            attach.desired_capabilities = fleetline_amqp::value::Symbols::Many(array);
        }
        Performative::Attach(Box::new(attach.clone())).write(&mut raw);
        self.send(channel, &Performative::Attach(Box::new(attach)), &[]).await;
        let is_refused = self
            .find(|seen| match &seen.performative {
                Performative::Attach(answer) if answer.handle == handle => Some(match role {
                    Role::Receiver => answer.source.is_none(),
                    Role::Sender => answer.target.is_none(),
                }),
                _ => None,
            })
            .await;
        if is_refused { Err(self.detached(handle).await) } else { Ok(handle) }
    }

    pub async fn attach(&mut self, role: Role, address: &str) -> u32 {
        self.try_attach(0, role, address, Wish::default()).await.unwrap()
    }

    /// A link that this side sends on.
    pub async fn sender(&mut self, address: &str) -> u32 {
        self.attach(Role::Sender, address).await
    }

    /// A link that this side receives on, with credit.
    pub async fn receiver(&mut self, address: &str, credit: u32) -> u32 {
        let handle = self.attach(Role::Receiver, address).await;
        self.credit(0, handle, 0, credit).await;
        handle
    }

    pub async fn credit(&mut self, channel: u16, handle: u32, count: u32, credit: u32) {
        self.flow(channel, handle, count, credit, false).await;
    }

    pub async fn flow(&mut self, channel: u16, handle: u32, count: u32, credit: u32, drain: bool) {
        let flow = Flow {
            next_incoming_id: None,
            incoming_window: 1_000_000,
            next_outgoing_id: 0,
            outgoing_window: 5000,
            handle: Some(handle),
            delivery_count: Some(count),
            link_credit: Some(credit),
            drain,
            ..Flow::default()
        };
        self.send(channel, &Performative::Flow(flow), &[]).await;
    }

    /// The condition with which a link is detached by the server; answered.
    pub async fn detached(&mut self, handle: u32) -> String {
        let (channel, condition) = self
            .find(|seen| match &seen.performative {
                Performative::Detach(detach) if detach.handle == handle => {
                    let condition = detach.error.map(|error| error.condition).unwrap_or("-");
                    Some((seen.channel, condition.to_owned()))
                }
                _ => None,
            })
            .await;
        let detach = Detach { handle, closed: true, error: None };
        self.send(channel, &Performative::Detach(detach), &[]).await;
        condition
    }

    pub async fn detach(&mut self, handle: u32) {
        self.send(0, &Performative::Detach(Detach { handle, closed: true, error: None }), &[]).await;
        self.find(|seen| match &seen.performative {
            Performative::Detach(detach) if detach.handle == handle => Some(()),
            _ => None,
        })
        .await;
    }

    /// Sends a message without waiting; its delivery's number.
    pub async fn give(
        &mut self,
        channel: u16,
        handle: u32,
        format: u32,
        settled: bool,
        payload: &[u8],
    ) -> u32 {
        let id = self.next_delivery;
        self.next_delivery += 1;
        let mut rest = payload;
        let mut first = true;
        while first || !rest.is_empty() {
            let (part, left) = rest.split_at(rest.len().min(60_000));
            rest = left;
            let transfer = Transfer {
                handle,
                delivery_id: first.then_some(id),
                delivery_tag: first.then_some(&b"t"[..]),
                message_format: first.then_some(format),
                settled: Some(settled),
                more: !rest.is_empty(),
                aborted: false,
            };
            first = false;
            self.send(channel, &Performative::Transfer(transfer), part).await;
        }
        id
    }

    /// The outcome of a delivery of this client: `accepted`, or a condition.
    pub async fn outcome(&mut self, id: u32) -> String {
        let outcome = |seen: &Seen| match &seen.performative {
            Performative::Disposition(Disposition { role: Role::Receiver, first, last, state, .. })
                if (*first..=last.unwrap_or(*first)).contains(&id) =>
            {
                let outcome = match state {
                    Some(DeliveryState::Accepted) => "accepted".to_owned(),
                    Some(DeliveryState::Rejected(error)) => error.unwrap().condition.to_owned(),
                    other => format!("{other:?}"),
                };
                Some((outcome, *first, last.unwrap_or(*first)))
            }
            _ => None,
        };
        for seen in &self.kept {
            if let Some((found, _, _)) = outcome(seen) {
                return found;
            }
        }
        loop {
            let Some(seen) = self.receive().await else {
                let last = self.kept.last().map(|seen| &seen.performative);
                panic!("the connection ended, last came {last:?}");
            };
            let found = outcome(&seen);
            // A range answers for others, too.
            self.kept.push(seen);
            if let Some((found, _, _)) = found {
                return found;
            }
        }
    }

    /// Sends a message and waits for its outcome.
    pub async fn deliver(&mut self, handle: u32, payload: &[u8]) -> String {
        let id = self.give(0, handle, 0, false, payload).await;
        self.outcome(id).await
    }

    /// The next delivery on a link: its number, tag and payload.
    pub async fn delivery(&mut self, handle: u32) -> (u32, Vec<u8>, Vec<u8>) {
        let mut begun = None;
        let mut whole = Vec::new();
        loop {
            let (id, tag, more, part) = self
                .find(|seen| match &seen.performative {
                    Performative::Transfer(transfer) if transfer.handle == handle => Some((
                        transfer.delivery_id,
                        transfer.delivery_tag.map(<[u8]>::to_vec),
                        transfer.more,
                        seen.payload.clone(),
                    )),
                    _ => None,
                })
                .await;
            begun = begun.or(id.zip(tag));
            whole.extend(part);
            if !more {
                let (id, tag) = begun.unwrap();
                return (id, tag, whole);
            }
        }
    }

    /// Gives a word on a delivery of the server.
    pub async fn dispose(&mut self, id: u32, settled: bool, state: DeliveryState<'_>) {
        let disposition =
            Disposition { role: Role::Receiver, first: id, last: None, settled, state: Some(state) };
        self.send(0, &Performative::Disposition(disposition), &[]).await;
    }

    /// The server's last word on a delivery of its own.
    pub async fn settled_by_server(&mut self, id: u32) -> String {
        self.find(|seen| match &seen.performative {
            Performative::Disposition(Disposition {
                role: Role::Sender,
                first,
                settled: true,
                state,
                ..
            }) if *first == id => Some(match state {
                Some(DeliveryState::Accepted) => "accepted".to_owned(),
                Some(DeliveryState::Rejected(error)) => error.unwrap().condition.to_owned(),
                other => format!("{other:?}"),
            }),
            _ => None,
        })
        .await
    }

    /// Both links of `$cbs`: handles 0 and 1.
    pub async fn cbs(&mut self) {
        let sender = self.sender("$cbs").await;
        let receiver = self.receiver("$cbs", 1000).await;
        assert_eq!((sender, receiver), (0, 1));
    }

    /// Puts a token; the status.
    pub async fn put_token(&mut self, token: &str) -> i64 {
        let id = self.next_delivery;
        let request = message(|w| {
            w.properties(&Properties {
                message_id: Value::Ulong(id.into()),
                reply_to: Some("cbs"),
                ..Properties::default()
            })
            .application_properties(|w| {
                w.string("operation");
                w.string("put-token");
                w.string("type");
                w.string("servicebus.windows.net:sastoken");
                w.string("name");
                w.string("anything");
            })
            .value(|w| w.string(token));
        });
        self.give(0, 0, 0, false, &request).await;
        let (_, _, answer) = self.delivery(1).await;
        let answer = Message::parse(&answer).unwrap();
        assert_eq!(answer.properties().unwrap().correlation_id, Value::Ulong(id.into()));
        answer.application_properties.get("status-code").unwrap().as_i64().unwrap()
    }

    /// Waits for the end of the connection; the condition of its `close`.
    pub async fn closed(&mut self) -> String {
        let mut condition = "end of stream".to_owned();
        while let Some(seen) = self.next().await {
            if let Performative::Close(close) = seen.performative {
                condition = close.error.map(|error| error.condition).unwrap_or("-").to_owned();
            }
        }
        condition
    }
}
