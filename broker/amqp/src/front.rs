//! One connection's meaning: which node a link is attached to, and what becomes of what comes over it.
//!
//! No I/O: `shell` brings the engine's events and the ends of requests, and polls the requests that are
//! begun here. Requests are of two kinds: `jobs`, which nobody misses when the connection ends, and
//! `duties`, which are brought to their end first (sessions that open or close, outcomes of commands).

mod attach;
mod device_links;
mod links;
mod send;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fleetline_amqp::message::Message;
use fleetline_amqp::sasl::{self, SaslCode, SaslInit};
use fleetline_amqp::{Engine, EngineOptions, Error, Event, LinkId, Outcome, Receipt, SentId, condition};
use fleetline_devices::{DeviceKey, SessionOpened};
use fleetline_gateway::http::PeerInfo;
use fleetline_types::Offset;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use crate::AmqpContext;
use crate::cbs::{self, PutToken, Refusal};
use crate::device::Device;
use crate::events::EventSender;
use crate::files::{Files, Scanned};
use crate::management;
use crate::owners::Held;
use crate::ready::{Ready, Who};
use crate::service::{Commands, Feedback, Lot};
use crate::stream::{ReadDone, Reader};
use crate::tokens::{Auth, Tokens};
use crate::work::WorkDone;

/// Answers that wait for a link of `$cbs` or `$management`.
const REPLIES_MAX: usize = 64;

/// What a link is attached to.
#[derive(Debug)]
enum Node {
    CbsRequests,
    ManagementRequests,
    Replies(Replies),
    Device(u64),
    /// Commands of services.
    Commands(Box<Commands>),
    Feedback(Box<Feedback>),
    Files(Box<Files>),
    /// A receiver of events whose start is being found.
    Opening(Held),
    Reader(Box<Reader>),
    Events(Box<EventSender>),
}

/// A link for answers.
#[derive(Debug, Default)]
struct Replies {
    is_cbs: bool,
    target: Option<String>,
    queue: VecDeque<Vec<u8>>,
}

/// What a link of a service rests on, and what for.
#[derive(Clone, Debug)]
struct Grant {
    auth: Auth,
    path: String,
    action: &'static str,
}

/// The end of a request.
pub(crate) enum Done {
    /// A SASL password was verified.
    Sasl(String, Result<(), Refusal>),
    /// A token was verified.
    Token { link: LinkId, receipt: Receipt, put: PutToken, outcome: Result<(), Refusal> },
    /// `$management` has an answer.
    Managed { link: LinkId, receipt: Receipt, reply_to: Option<String>, message: Vec<u8> },
    /// A device's session is open, or not.
    Opened { device: u64, result: Result<(SessionOpened, String), Error> },
    /// A device's work is done.
    Worked { device: u64, done: WorkDone },
    /// A command of a service has an outcome.
    Sent { link: LinkId, receipt: Receipt, outcome: Outcome },
    /// Feedback was fetched.
    Lot { link: LinkId, lot: Option<Lot> },
    /// File notifications were looked for.
    Scanned { link: LinkId, scanned: Scanned },
    /// Feedback was settled.
    FeedbackSettled { sent: SentId, outcome: Outcome },
    /// A receiver of events knows where to begin, or can't.
    Start { link: LinkId, metrics: bool, result: Result<Offset, Error> },
    /// Batches were read.
    Read { link: LinkId, result: Result<ReadDone, Error> },
    /// Another node's receivers were looked at.
    Watched { link: LinkId, stolen: Option<Error> },
    /// An append has an outcome.
    Appended { link: LinkId, receipts: Vec<Receipt>, outcome: Outcome },
    /// A duty that leaves nothing to do, or a job that was given up.
    Nothing,
}

pub(crate) type Request = BoxFuture<'static, Done>;

/// A delivery of telemetry that waits for room in its partition.
struct Parked {
    device: u64,
    receipt: Receipt,
    format: u32,
    payload: Vec<u8>,
    /// Messages of it that were given to the ingest.
    given: usize,
    room: BoxFuture<'static, ()>,
}

/// One connection.
pub(crate) struct Front {
    context: Arc<AmqpContext>,
    peer: PeerInfo,
    pub(crate) engine: Engine,
    pub(crate) ready: Arc<Ready>,
    pub(crate) jobs: FuturesUnordered<Request>,
    pub(crate) duties: FuturesUnordered<Request>,
    tokens: Tokens,
    /// Somebody has shown who it is.
    known: bool,
    /// Tokens that are being verified.
    verifying: usize,
    nodes: HashMap<LinkId, Node>,
    grants: HashMap<LinkId, Grant>,
    devices: BTreeMap<u64, Device>,
    by_key: HashMap<DeviceKey, u64>,
    last_device: u64,
    /// Links that may have something to send, in turn.
    sending: VecDeque<LinkId>,
    queued: HashSet<LinkId>,
    /// Links whose session takes no more now.
    blocked: Vec<LinkId>,
    parked: Option<Parked>,
    host: String,
    readers: usize,
    services: usize,
    /// Why the connection ends.
    pub(crate) ended: Option<&'static str>,
}

impl Front {
    pub(crate) fn new(context: Arc<AmqpContext>, peer: PeerInfo, now: u64) -> Front {
        let options = EngineOptions {
            container_id: format!("fleetline-{}", context.gateway.hub.place().node),
            // "Offer MSSBCBS, ANONYMOUS, PLAIN, EXTERNAL": clients pick by their own order.
            mechanisms: vec!["MSSBCBS", "ANONYMOUS", "PLAIN", "EXTERNAL"],
            limits: context.limits.engine.clone(),
        };
        Front {
            engine: Engine::new(options, now),
            tokens: Tokens::new(context.limits.tokens_max),
            ready: Arc::default(),
            jobs: FuturesUnordered::new(),
            duties: FuturesUnordered::new(),
            known: false,
            verifying: 0,
            nodes: HashMap::new(),
            grants: HashMap::new(),
            devices: BTreeMap::new(),
            by_key: HashMap::new(),
            last_device: 0,
            sending: VecDeque::new(),
            queued: HashSet::new(),
            blocked: Vec::new(),
            parked: None,
            host: String::new(),
            readers: 0,
            services: 0,
            ended: None,
            context,
            peer,
        }
    }

    fn now_secs(&self) -> u64 {
        self.context.gateway.hub.now_ms() / 1000
    }

    fn guid(&self) -> String {
        let mut bytes = [0; 16];
        self.context.gateway.hub.random(&mut bytes);
        fleetline_amqp::message::uuid_text(&bytes)
    }

    /// Whether the login's time counts: nobody is known, and nothing is being verified.
    pub(crate) fn is_unknown(&self) -> bool {
        !self.known && self.verifying == 0
    }

    /// Whether a delivery waits for room in its partition.
    pub(crate) fn is_parked(&self) -> bool {
        self.parked.is_some()
    }

    /// Whether nothing may be read now.
    pub(crate) fn is_stopped(&self) -> bool {
        self.parked.is_some() || self.engine.output_len() >= self.context.limits.output_bytes_max
    }

    fn become_known(&mut self) {
        self.known = true;
        self.engine.authenticated();
    }

    /// Decides what an event means.
    pub(crate) fn on_event(&mut self, event: Event<'_>) {
        match event {
            Event::Sasl(init) => self.on_sasl(&init),
            Event::Opened(info) => {
                self.host = info.hostname.unwrap_or_default();
                tracing::trace!(container = info.container_id, host = self.host, "amqp connection is open");
            }
            Event::Attach(link, attach) => self.on_attach(link, &attach),
            Event::Received(received) => {
                self.on_received(received.receipt, received.format, &received.payload);
            }
            Event::Outcome { link, id, outcome, settled } => {
                self.on_outcome(link, id, &outcome, settled);
                self.unblock();
            }
            Event::Credit(link) => self.on_credit(link),
            Event::Window(_) => self.unblock(),
            Event::Detached { link, .. } => self.on_detached(link),
            Event::Ended(_) => {}
            Event::Closed { error, by_peer } => {
                if let Some(error) = &error {
                    tracing::debug!(%error, by_peer, "amqp connection ends");
                }
                self.ended = Some(match (by_peer, error) {
                    (true, _) => "closed_by_peer",
                    (false, Some(_)) => "error",
                    (false, None) => "closed",
                });
            }
        }
    }

    /// Closes the connection.
    pub(crate) fn close(&mut self, error: Error) {
        self.engine.close(Some(error));
    }

    fn on_sasl(&mut self, init: &SaslInit<'_>) {
        match init.mechanism {
            // "MSSBCBS and ANONYMOUS carry no secret": links other than `$cbs` wait for a token.
            "ANONYMOUS" | "MSSBCBS" => self.engine.sasl_outcome(SaslCode::Ok),
            "EXTERNAL" if self.peer.certificate.is_some() => self.engine.sasl_outcome(SaslCode::Ok),
            "PLAIN" => {
                // The user's name says nothing that the token doesn't.
                let password = init.initial_response.and_then(sasl::plain).map(|(_, password)| password);
                match password {
                    Some(token) => self.verify_sasl(token.to_owned()),
                    None => self.engine.sasl_outcome(SaslCode::Auth),
                }
            }
            _ => self.engine.sasl_outcome(SaslCode::Auth),
        }
    }

    fn verify_sasl(&mut self, token: String) {
        self.verifying += 1;
        let hub = self.context.gateway.hub.clone();
        self.jobs.push(Box::pin(async move {
            let outcome = cbs::verify(hub, token.clone()).await;
            Done::Sasl(token, outcome)
        }));
    }

    /// Decides what the end of a request means.
    pub(crate) fn on_done(&mut self, done: Done) {
        match done {
            Done::Sasl(token, outcome) => {
                self.verifying -= 1;
                let code = match outcome {
                    Ok(()) if self.tokens.put(&token) => {
                        self.become_known();
                        SaslCode::Ok
                    }
                    Ok(()) | Err(Refusal::Unauthorized(_) | Refusal::Bad(_)) => SaslCode::Auth,
                    Err(Refusal::Later | Refusal::TooMany) => SaslCode::SysTemp,
                };
                self.engine.sasl_outcome(code);
            }
            Done::Token { link, receipt, put, outcome } => self.on_token(link, receipt, &put, outcome),
            Done::Managed { link, receipt, reply_to, message } => {
                self.reply(link, false, reply_to.as_deref(), message);
                self.engine.settle(receipt, &Outcome::Accepted);
            }
            Done::Opened { device, result } => self.on_opened(device, result),
            Done::Worked { device, done } => self.on_worked(device, done),
            Done::Sent { link, receipt, outcome } => {
                self.engine.settle(receipt, &outcome);
                if let Some(Node::Commands(commands)) = self.nodes.get_mut(&link) {
                    commands.sending = false;
                }
                self.send_commands(link);
            }
            Done::Lot { link, lot } => self.on_lot(link, lot),
            Done::Scanned { link, scanned } => self.on_scanned(link, scanned),
            Done::FeedbackSettled { sent, outcome } => self.engine.settle_sent(sent, &outcome),
            Done::Start { link, metrics, result } => self.on_start(link, metrics, result),
            Done::Read { link, result } => self.on_read(link, result),
            Done::Watched { link, stolen } => self.on_watched(link, stolen),
            Done::Appended { link, receipts, outcome } => {
                receipts.into_iter().for_each(|receipt| self.engine.settle(receipt, &outcome));
                if let Some(Node::Events(sender)) = self.nodes.get_mut(&link) {
                    sender.sending = false;
                }
                self.append_events(link);
            }
            Done::Nothing => {}
        }
    }

    fn on_received(&mut self, receipt: Receipt, format: u32, payload: &[u8]) {
        match self.nodes.get(&receipt.link) {
            Some(Node::CbsRequests) => self.on_put_token(receipt, payload),
            Some(Node::ManagementRequests) => self.on_management(receipt, payload),
            Some(Node::Device(device)) => self.on_device_message(*device, receipt, format, payload),
            Some(Node::Commands(_)) => self.on_service_command(receipt, payload),
            Some(Node::Events(_)) => self.on_sent_event(receipt, format, payload),
            // It is on the wrong way, or its link is just being ended.
            _ => self.engine.settle(receipt, &Outcome::Released),
        }
    }

    // ---- $cbs and $management

    fn on_put_token(&mut self, receipt: Receipt, payload: &[u8]) {
        let message = match Message::parse(payload) {
            Ok(message) => message,
            Err(error) => return self.engine.settle(receipt, &Outcome::Rejected(error.into())),
        };
        let put = PutToken::of(&message);
        if let Err(refusal) = cbs::check(&put) {
            return self.on_token_checked(receipt.link, receipt, &put, Err(refusal));
        }
        self.verifying += 1;
        let (hub, token) = (self.context.gateway.hub.clone(), put.token.clone());
        self.jobs.push(Box::pin(async move {
            let outcome = cbs::verify(hub, token).await;
            Done::Token { link: receipt.link, receipt, put, outcome }
        }));
    }

    fn on_token(&mut self, link: LinkId, receipt: Receipt, put: &PutToken, outcome: Result<(), Refusal>) {
        self.verifying -= 1;
        let outcome = outcome.and_then(|()| match self.tokens.put(&put.token) {
            true => Ok(()),
            false => Err(Refusal::TooMany),
        });
        if outcome.is_ok() {
            self.become_known();
        }
        self.on_token_checked(link, receipt, put, outcome);
    }

    fn on_token_checked(
        &mut self,
        link: LinkId,
        receipt: Receipt,
        put: &PutToken,
        outcome: Result<(), Refusal>,
    ) {
        // "Also settle the request with accepted."
        self.engine.settle(receipt, &Outcome::Accepted);
        self.reply(link, true, put.reply_to.as_deref(), cbs::answer(&put.id, outcome));
    }

    fn on_management(&mut self, receipt: Receipt, payload: &[u8]) {
        let message = match Message::parse(payload) {
            Ok(message) => message,
            Err(error) => return self.engine.settle(receipt, &Outcome::Rejected(error.into())),
        };
        let ask = management::Ask::of(&message);
        let (context, reply_to) = (self.context.clone(), ask.reply_to.clone());
        self.jobs.push(Box::pin(async move {
            let message = management::answer(context, ask).await;
            Done::Managed { link: receipt.link, receipt, reply_to, message }
        }));
    }

    /// Gives an answer to the link for it: in the request's session the one whose target is `reply_to`,
    /// else any there, else any at all ("Answer on the `$cbs` sending link whichever reply-to was given").
    fn reply(&mut self, request: LinkId, is_cbs: bool, reply_to: Option<&str>, message: Vec<u8>) {
        let rank = |(link, node): (&LinkId, &Node)| match node {
            Node::Replies(replies) if replies.is_cbs == is_cbs => {
                let is_near = link.channel == request.channel;
                let is_meant = reply_to.is_some() && replies.target.as_deref() == reply_to;
                Some((is_near, is_meant, *link))
            }
            _ => None,
        };
        let Some((_, _, link)) = self.nodes.iter().filter_map(rank).max() else { return };
        let Some(Node::Replies(replies)) = self.nodes.get_mut(&link) else { return };
        if replies.queue.len() >= REPLIES_MAX {
            let error = Error::new(condition::RESOURCE_LIMIT_EXCEEDED, "answers aren't fetched");
            return self.end_link(link, &error);
        }
        replies.queue.push_back(message);
        self.want_send(link);
    }

    // ---- time

    /// When the next token is over, in seconds since 1970.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.tokens.next_expiry()
    }

    /// Ends what rests on tokens that are over, unless another one covers it.
    pub(crate) fn expire(&mut self) {
        let now_secs = self.now_secs();
        let over = self.tokens.expire(now_secs);
        if over.is_empty() {
            return;
        }
        let is_over = |auth: Auth| matches!(auth, Auth::Token(id) if over.contains(&id));
        let settings = self.context.gateway.hub.settings();
        let lapsed = Error::new(condition::UNAUTHORIZED_ACCESS, "ExpiredToken: the token has expired");
        let devices: Vec<u64> =
            self.devices.values().filter(|device| is_over(device.auth)).map(|device| device.id).collect();
        for id in devices {
            let Some(device) = self.devices.get_mut(&id) else { continue };
            match self.tokens.device(&settings, now_secs, &device.key) {
                Ok((_, auth)) => device.auth = auth,
                Err(_) => self.end_device(id, &lapsed),
            }
        }
        let grants: Vec<LinkId> =
            self.grants.iter().filter(|(_, grant)| is_over(grant.auth)).map(|(link, _)| *link).collect();
        for link in grants {
            let Some(grant) = self.grants.get_mut(&link) else { continue };
            match self.tokens.service(&settings, now_secs, &grant.path, grant.action) {
                Ok((_, auth)) => grant.auth = auth,
                Err(_) => self.end_link(link, &lapsed),
            }
        }
    }

    /// Looks at those that were woken.
    pub(crate) fn look(&mut self) -> bool {
        let woken = self.ready.take();
        let any = !woken.is_empty();
        for who in woken {
            match who {
                Who::Device(id) => self.look_at_device(id),
                Who::Reader(link) => self.look_at_reader(link),
            }
        }
        any
    }

    /// The connection ends: whatever must be brought to its end becomes a duty.
    pub(crate) fn finish(&mut self) {
        self.nodes.clear();
        self.grants.clear();
        self.parked = None;
        let devices: Vec<u64> = self.devices.keys().copied().collect();
        // Those that are opening are closed when they are open.
        for id in devices {
            if let Some(device) = self.devices.get_mut(&id) {
                let links: Vec<LinkId> = device.links.iter().map(|link| link.id).collect();
                links.into_iter().for_each(|link| device.detached(link));
                device.waiting.clear();
            }
            self.close_device_if_idle(id);
        }
    }

    /// Whether nothing must be brought to its end any more.
    pub(crate) fn is_finished(&self) -> bool {
        self.duties.is_empty() && self.devices.is_empty()
    }

    /// How long the peer's `close` may take.
    pub(crate) const GOODBYE: Duration = Duration::from_secs(2);
}
