//! What clients do, told to the user's code: functions of this node first, then upstreams.
//!
//! A hub's events run a bounded number at a time; one that doesn't get its turn in time fails like an upstream
//! that doesn't answer. Events of one connection come one after the other, in order: its task waits for each.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_signalr::names::HubName;
use fleetline_signalr::token::Claim;
use fleetline_signalr::upstream::{self, Caller, UpstreamEvent};
use fleetline_signalr::{Invocation, Outcome, Protocol, Value};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;

use crate::member::Member;
use crate::settings::Settings;
use crate::stats::Stats;
use crate::upstream::Upstream;

/// Hubs whose turns are kept; with more, idle ones are forgotten.
const HUBS_MAX: usize = 1_024;

/// What a client did.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientEvent {
    /// The hub, in small letters.
    pub hub: String,
    /// The connection.
    pub connection_id: String,
    /// Its user.
    pub user_id: Option<String>,
    /// Claims of its token: type and value.
    pub claims: Vec<(String, String)>,
    /// The query that it connected with, without `?` and token.
    pub query: String,
    /// What.
    pub kind: ClientEventKind,
}

/// What a client did.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEventKind {
    /// It came.
    Connected,
    /// It went, perhaps with an error.
    Disconnected {
        /// Why, unless it was the client's wish.
        error: Option<String>,
    },
    /// It called a method.
    Message {
        /// The method.
        target: String,
        /// A JSON array.
        arguments: Bytes,
        /// It waits for an answer.
        wants_answer: bool,
        /// The answer may be a stream.
        is_stream: bool,
    },
}

impl ClientEventKind {
    /// `connections` or `messages`.
    pub fn category(&self) -> &'static str {
        match self {
            ClientEventKind::Message { .. } => "messages",
            _ => "connections",
        }
    }

    /// `connected`, `disconnected`, or the method.
    pub fn name(&self) -> &str {
        match self {
            ClientEventKind::Connected => "connected",
            ClientEventKind::Disconnected { .. } => "disconnected",
            ClientEventKind::Message { target, .. } => target,
        }
    }
}

/// What a client is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventAnswer {
    /// Items of the stream, if the call wants one: JSON texts.
    pub items: Vec<Bytes>,
    /// A JSON text; none when the call has no result.
    pub result: Option<Bytes>,
    /// Why it failed; goes before the result.
    pub error: Option<String>,
}

/// Functions of this node that take clients' events.
#[async_trait]
pub trait ClientEvents: Send + Sync + 'static {
    /// Whether one wants this event. Asked for each event, so it should be quick.
    fn wants(&self, hub: &str, category: &str, event: &str) -> bool;

    /// Handles an event that is wanted. The answer counts only for a call that waits for one.
    async fn on_event(&self, event: ClientEvent) -> EventAnswer;
}

/// An answer, with what a stream has before it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) items: Vec<Value>,
    pub(crate) outcome: Outcome,
}

impl Reply {
    fn failed(text: &str) -> Reply {
        Reply { items: Vec::new(), outcome: Outcome::Error(text.to_owned()) }
    }
}

impl From<EventAnswer> for Reply {
    fn from(answer: EventAnswer) -> Reply {
        let items: Result<Vec<_>, _> = answer.items.into_iter().map(Value::json).collect();
        let outcome = match (answer.error, answer.result) {
            (Some(error), _) => Outcome::Error(error),
            (None, None) => Outcome::Void,
            (None, Some(result)) => {
                Value::json(result).map_or_else(|error| Outcome::Error(error.to_string()), Outcome::Result)
            }
        };
        match items {
            Ok(items) => Reply { items, outcome },
            Err(error) => Reply::failed(&error.to_string()),
        }
    }
}

/// Who is told.
enum Taker {
    Functions(Arc<dyn ClientEvents>),
    Upstream(String),
}

/// Tells the user's code.
pub(crate) struct Events {
    functions: RwLock<Option<Arc<dyn ClientEvents>>>,
    upstream: Upstream,
    stats: Arc<Stats>,
    turns: Mutex<HashMap<HubName, Arc<Semaphore>>>,
    per_hub: usize,
    wait: std::time::Duration,
}

/// What one event carries.
pub(crate) struct Told {
    pub(crate) member: Arc<Member>,
    pub(crate) protocol: Protocol,
    pub(crate) event: UpstreamEvent,
    pub(crate) is_stream: bool,
}

impl Events {
    pub(crate) fn new(
        upstream: Upstream,
        stats: Arc<Stats>,
        per_hub: usize,
        wait: std::time::Duration,
    ) -> Events {
        let (functions, turns) = (RwLock::default(), Mutex::default());
        Events { functions, upstream, stats, turns, per_hub: per_hub.max(1), wait }
    }

    pub(crate) fn set_functions(&self, functions: Arc<dyn ClientEvents>) {
        *self.functions.write() = Some(functions);
    }

    fn taker(&self, settings: &Settings, hub: &HubName, event: &UpstreamEvent) -> Option<Taker> {
        let (category, name) = (event.category(), event.name());
        let functions = self.functions.read().clone();
        if let Some(functions) = functions.filter(|one| one.wants(hub.as_str(), category.name(), name)) {
            return Some(Taker::Functions(functions));
        }
        let upstream = settings.upstreams.find(hub, category, name)?;
        upstream.url(hub, category, name).ok().map(Taker::Upstream)
    }

    /// Whether anybody wants it.
    pub(crate) fn wants(&self, settings: &Settings, hub: &HubName, event: &UpstreamEvent) -> bool {
        self.taker(settings, hub, event).is_some()
    }

    fn turn(&self, hub: &HubName) -> Arc<Semaphore> {
        let mut turns = self.turns.lock();
        if let Some(turn) = turns.get(hub) {
            return turn.clone();
        }
        if turns.len() >= HUBS_MAX {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        turns.entry(hub.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.per_hub))).clone()
    }

    /// Tells an event and answers what its caller is told.
    pub(crate) async fn tell(&self, settings: &Settings, told: Told) -> Reply {
        let Some(taker) = self.taker(settings, &told.member.hub, &told.event) else {
            let name = told.event.name();
            return Reply::failed(&format!("nobody handles {name} of this hub"));
        };
        let turn = self.turn(&told.member.hub);
        let work = async {
            let _turn = turn.acquire().await;
            match taker {
                Taker::Functions(functions) => self.ask_functions(&*functions, &told).await,
                Taker::Upstream(url) => self.ask_upstream(settings, &url, &told).await,
            }
        };
        match tokio::time::timeout(self.wait, work).await {
            Ok(reply) => reply,
            Err(_) => {
                self.stats.on_upstream_failed();
                Reply::failed("Invocation failed, nobody answered in time")
            }
        }
    }

    async fn ask_functions(&self, functions: &dyn ClientEvents, told: &Told) -> Reply {
        match client_event(told) {
            Ok(event) => functions.on_event(event).await.into(),
            Err(error) => Reply::failed(&error.to_string()),
        }
    }

    async fn ask_upstream(&self, settings: &Settings, url: &str, told: &Told) -> Reply {
        if told.is_stream {
            return Reply::failed("an upstream can't answer with a stream");
        }
        let Some(keys) = &settings.keys else { return Reply::failed("Invocation failed") };
        let body = match told.event.body(told.protocol) {
            Ok(body) => body,
            Err(error) => return Reply::failed(&error.to_string()),
        };
        let caller = Caller {
            hub: &told.member.hub,
            connection_id: told.member.id.as_str(),
            user_id: told.member.client.user.as_deref(),
            claims: &told.member.client.claims,
            query: &told.member.client.query,
        };
        let headers = upstream::headers(&caller, &told.event, keys);
        let id = match &told.event {
            UpstreamEvent::Message(Invocation { invocation_id: Some(id), .. }) => id.as_str(),
            _ => "",
        };
        let outcome = match self.upstream.post(url, headers, body).await {
            Ok((status, reply)) => {
                if !(200..300).contains(&status) {
                    self.stats.on_upstream_failed();
                    tracing::debug!(url, status, "upstream refused an event");
                }
                upstream::outcome(told.protocol, id, status, reply)
            }
            Err(error) => {
                self.stats.on_upstream_failed();
                tracing::debug!(url, %error, "upstream was not reached");
                // "unreachable: treated as 500"
                upstream::outcome(told.protocol, id, 500, Bytes::new())
            }
        };
        Reply { items: Vec::new(), outcome }
    }
}

fn pair(claim: &Claim) -> (String, String) {
    (claim.kind.clone(), claim.value.clone())
}

fn client_event(told: &Told) -> Result<ClientEvent, fleetline_signalr::ValueError> {
    let kind = match &told.event {
        UpstreamEvent::Connected => ClientEventKind::Connected,
        UpstreamEvent::Disconnected { error } => ClientEventKind::Disconnected { error: error.clone() },
        UpstreamEvent::Message(call) => ClientEventKind::Message {
            target: call.target.clone(),
            arguments: call.arguments.array().to_json()?,
            wants_answer: call.invocation_id.is_some(),
            is_stream: told.is_stream,
        },
    };
    Ok(ClientEvent {
        hub: told.member.hub.as_str().to_owned(),
        connection_id: told.member.id.to_string(),
        user_id: told.member.client.user.clone(),
        claims: told.member.client.claims.iter().map(pair).collect(),
        query: told.member.client.query.clone(),
        kind,
    })
}
