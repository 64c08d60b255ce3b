//! Polls, posts and deletes of a client, on the node that owns its connection: called by this node's own front,
//! and by other nodes that the client happened to ask.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_signalr::connection_id::ConnectionId;
use fleetline_signalr::long_polling::PollOptions;
use fleetline_signalr::names::HubName;
use fleetline_signalr::negotiate::Transport;
use fleetline_signalr::session::StatefulReconnect;
use fleetline_signalr::transport::{self, Connection, Refusal, Wish};
use fleetline_types::NodeId;
use tokio::sync::oneshot;

use crate::connection::parked::ParkedTask;
use crate::connection::{Core, Start};
use crate::mailbox::{Get, NotTaken, PollAnswer, Post};
use crate::member::{ClientInfo, Member};
use crate::registry::InsertError;
use crate::tier::Realtime;
use crate::wire::{Ask, ClientRequest, WireClaim};

/// How much longer than a poll hangs the call that brings it may take.
const POLL_SLACK: Duration = Duration::from_secs(10);

/// A client's request, wherever it came in. Its token has been checked there.
#[derive(Clone, Debug)]
pub(crate) struct ClientCall {
    pub(crate) connection: String,
    pub(crate) hub: String,
    pub(crate) client: ClientInfo,
    pub(crate) handshake_timeout_ms: Option<u64>,
    /// When the connection has to end (Unix seconds).
    pub(crate) close_at_secs: Option<u64>,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) enum Verb {
    /// Messages.
    Poll(PollKind),
    /// To take these.
    Post(Bytes),
    /// To end.
    Delete,
}

/// What a poll is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollKind {
    /// Long polling.
    Long,
    /// A stream of events that another node writes: the first poll of it.
    FirstEvents,
    /// The same, a later one.
    NextEvents,
}

/// Status and body of an answer.
pub(crate) type StatusBody = (u16, Bytes);

pub(super) fn refusal(refusal: Refusal) -> StatusBody {
    (refusal.status, Bytes::from_static(refusal.text.as_bytes()))
}

impl Realtime {
    /// What is known of a connection that a token of ours names.
    pub(super) fn known(&self, id: &str) -> Connection {
        match self.registry.connection(id) {
            Some(member) => Connection::On {
                transport: member.transport,
                is_active: true,
                is_resumable: Realtime::is_resumable(&member),
            },
            // It is over, or elsewhere.
            None if self.buried.has(id) || self.publisher.adopted.node_of(id).is_some() => {
                Connection::Unknown
            }
            None => Connection::Negotiated,
        }
    }

    /// Answers a client's request as the owner of its connection.
    pub(crate) async fn answer_client(&self, call: ClientCall, verb: Verb) -> StatusBody {
        let transport = match &verb {
            Verb::Poll(PollKind::FirstEvents | PollKind::NextEvents) => Transport::ServerSentEvents,
            _ => Transport::LongPolling,
        };
        let wish = match &verb {
            Verb::Poll(_) => Wish::Connect(transport),
            Verb::Post(_) => Wish::Send,
            Verb::Delete => Wish::Delete,
        };
        let known = self.known(&call.connection);
        // Events that another node writes are polls here, one after the other.
        let is_next = matches!(verb, Verb::Poll(PollKind::NextEvents))
            && matches!(known, Connection::On { transport: Transport::ServerSentEvents, .. });
        if let (false, Err(refused)) = (is_next, transport::check(wish, known, &Transport::ALL)) {
            return refusal(refused);
        }
        let member = match self.registry.connection(&call.connection) {
            Some(member) if is_of(&member, &call) => member,
            Some(_) => return (403, Bytes::from_static(b"the connection is somebody else's")),
            None => match self.open_parked(&call, transport) {
                Ok(member) => member,
                Err(answer) => return answer,
            },
        };
        match verb {
            Verb::Poll(_) => poll(&member).await,
            Verb::Post(body) => post(&member, body).await,
            Verb::Delete => {
                member.outbox.end(crate::outbox::End::Deleted);
                (transport::DELETED, Bytes::new())
            }
        }
    }

    /// Makes a connection over long polling or server-sent events.
    pub(super) fn open_parked(
        &self,
        call: &ClientCall,
        transport: Transport,
    ) -> Result<Arc<Member>, StatusBody> {
        let (member, start) = self.start(call, transport, StatefulReconnect::Off)?;
        let options = PollOptions::default();
        tokio::spawn(Box::new(ParkedTask::new(Core::new(start), options)).run());
        Ok(member)
    }

    /// Makes a connection known by its id; its task is the caller's affair.
    pub(super) fn start(
        &self,
        call: &ClientCall,
        transport: Transport,
        reconnect: StatefulReconnect,
    ) -> Result<(Arc<Member>, Start), StatusBody> {
        let bad = |_| refusal(transport::UNKNOWN_ID);
        let id = ConnectionId::parse(&call.connection).map_err(bad)?;
        let hub = HubName::parse(&call.hub).map_err(|error| (400, error.to_string().into()))?;
        let Some(tier) = self.this() else { return Err((503, Bytes::new())) };
        let limits = &self.options().limits;
        let member = Arc::new(Member::new(id, hub, call.client.clone(), transport, limits));
        match self.registry.insert(member.clone(), limits.connections_max) {
            Ok(()) => {}
            Err(InsertError::Taken) => return Err((409, Bytes::new())),
            Err(InsertError::Full) => return Err((503, Bytes::from_static(b"too many connections"))),
        }
        let mut options = self.options().session;
        if let Some(wait) = call.handshake_timeout_ms {
            options.handshake_timeout_ms = wait;
        }
        let wall_ms = self.devices.now_ms();
        let left = |secs: u64| secs.saturating_mul(1_000).saturating_sub(wall_ms);
        let close_at_ms = call.close_at_secs.map(|secs| self.clock_ms().saturating_add(left(secs)));
        Ok((member.clone(), Start { tier, member, options, transport, reconnect, close_at_ms }))
    }

    /// Has the node that owns a connection answer a client's request.
    pub(super) async fn forward(&self, node: NodeId, call: &ClientCall, verb: Verb) -> StatusBody {
        let claim = |claim: &fleetline_signalr::token::Claim| WireClaim {
            kind: claim.kind.clone(),
            value: claim.value.clone(),
        };
        let mut request = ClientRequest {
            connection: call.connection.clone(),
            hub: call.hub.clone(),
            user: call.client.user.clone().unwrap_or_default(),
            has_user: call.client.user.is_some(),
            claims: call.client.claims.iter().map(claim).collect(),
            query: call.client.query.clone(),
            handshake_ms: call.handshake_timeout_ms.unwrap_or_default(),
            close_at_secs: call.close_at_secs.unwrap_or_default(),
            ..ClientRequest::default()
        };
        let mut limit = self.options().limits.join_wait.saturating_add(self.peers.call_wait);
        match verb {
            Verb::Poll(kind) => {
                request.kind = ClientRequest::POLL;
                request.is_events = kind != PollKind::Long;
                request.is_first = kind == PollKind::FirstEvents;
                limit = Duration::from_millis(PollOptions::default().timeout_ms).saturating_add(POLL_SLACK);
            }
            Verb::Post(body) => {
                request.kind = ClientRequest::POST;
                request.body = body;
            }
            Verb::Delete => request.kind = ClientRequest::DELETE,
        }
        match self.peers.call_within(node, Ask::Client(request), limit).await {
            Ok(answer) => match answer.reply {
                Some(reply) => (u16::try_from(reply.status).unwrap_or(500), reply.body),
                None => (503, Bytes::new()),
            },
            // Its node is gone, and the connection with it.
            Err(error) => {
                tracing::debug!(%node, %error, "a client's request was not forwarded");
                refusal(transport::UNKNOWN_ID)
            }
        }
    }
}

/// Whether the caller is who opened the connection.
pub(super) fn is_of(member: &Member, call: &ClientCall) -> bool {
    member.hub.as_str() == call.hub && member.client.user == call.client.user
}

async fn poll(member: &Arc<Member>) -> StatusBody {
    let (answer, answered) = oneshot::channel();
    if let Err(error) = member.mailbox.get(Get::Poll(answer)) {
        return not_taken(error);
    }
    member.outbox.nudge();
    // When the caller goes away this is dropped, and the connection notices that nobody polls.
    match answered.await {
        Ok(PollAnswer::Data(body)) => (200, body),
        Ok(PollAnswer::Ended) | Err(_) => (204, Bytes::new()),
    }
}

async fn post(member: &Arc<Member>, body: Bytes) -> StatusBody {
    let (done, taken) = oneshot::channel();
    if let Err(error) = member.mailbox.post(Post { body, done }) {
        return not_taken(error);
    }
    member.outbox.nudge();
    match taken.await {
        Ok(true) => (200, Bytes::new()),
        Ok(false) | Err(_) => refusal(transport::UNKNOWN_ID),
    }
}

fn not_taken(error: NotTaken) -> StatusBody {
    match error {
        NotTaken::Closed => refusal(transport::UNKNOWN_ID),
        NotTaken::TooMany => (429, Bytes::from_static(b"too many requests of this connection wait")),
    }
}
