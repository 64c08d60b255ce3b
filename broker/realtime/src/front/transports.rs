//! `/client/`: a client takes messages, over a WebSocket, a stream of events or long polls; or brings some.
//!
//! Polls, posts and deletes reach the node that the connection's id names, wherever they come in. A WebSocket can't
//! be handed on: the node that it comes to adopts the connection and tells the one that its id names. A
//! client that wants to resume has to come to the node that it was at; elsewhere it is told that its
//! connection isn't there, and connects anew.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fleetline_gateway::http::Body;
use fleetline_signalr::connection_id::ConnectionToken;
use fleetline_signalr::long_polling::NO_CACHE_HEADERS;
use fleetline_signalr::negotiate::Transport;
use fleetline_signalr::session::StatefulReconnect;
use fleetline_signalr::sse;
use fleetline_signalr::transport::{self, Connection, Wish};
use fleetline_types::NodeId;
use futures::{Stream, StreamExt, stream};
use http::header::{
    ACCEPT, CACHE_CONTROL, CONNECTION, HeaderMap, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::sync::mpsc;

use super::access::Caller;
use super::requests::{ClientCall, PollKind, StatusBody, Verb, is_of, refusal};
use super::{access, negotiate, reply};
use crate::connection::socket::{Socket, SocketTask};
use crate::connection::{Core, Start};
use crate::mailbox::Get;
use crate::member::ClientInfo;
use crate::settings::Settings;
use crate::tier::Realtime;
use crate::wire::{Adopt, Ask};

/// Events on their way to one reader; more wait in the outbox, which is bounded by bytes.
const EVENTS_AHEAD: usize = 4;
/// How long a client may take to switch over.
const UPGRADE_WAIT: Duration = Duration::from_secs(15);
/// How long the body of a POST may take.
const BODY_WAIT: Duration = Duration::from_secs(60);

pub(super) async fn answer(
    tier: &Arc<Realtime>,
    settings: &Settings,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let caller = match access::client(tier, settings, request.uri(), request.headers()) {
        Ok(caller) => caller,
        Err(refusal) => return *refusal,
    };
    let key = handshake_key(request.headers());
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let Some(wish) = Wish::of(request.method().as_str(), key.is_some(), accept) else {
        return respond(refusal(transport::BAD_VERB));
    };
    let (id, has_id) = match find_id(tier, settings, &caller, wish) {
        Ok(found) => found,
        Err(refused) => return respond(refusal(refused)),
    };
    let call = client_call(id.as_str(), caller.hub.as_str(), &caller);
    if let Wish::Connect(asked) = wish {
        let allowed = negotiate::allowed(settings, caller.hub.as_str(), &caller.claims);
        if !allowed.contains(&asked) {
            return respond((404, Bytes::new()));
        }
    }
    match (wish, key) {
        (Wish::Connect(Transport::WebSockets), Some(key)) => {
            let upgrade = hyper::upgrade::on(&mut request);
            let reconnect = if has_id { StatefulReconnect::Negotiated } else { StatefulReconnect::Off };
            websocket(tier, id.node(), &call, upgrade, &key, reconnect).await
        }
        (Wish::Connect(Transport::ServerSentEvents), _) => events(tier, id.node(), call).await,
        (Wish::Connect(_), _) => {
            let answer = ask(tier, id.node(), &call, Verb::Poll(PollKind::Long)).await;
            let mut response = respond(answer);
            for (name, value) in NO_CACHE_HEADERS {
                if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                    reply::put(&mut response, name, value);
                }
            }
            response
        }
        (Wish::Send, _) => match read(request.into_body(), tier.options().limits.post_bytes_max).await {
            Ok(body) => respond(ask(tier, id.node(), &call, Verb::Post(body)).await),
            Err(answer) => respond(answer),
        },
        (Wish::Delete, _) => respond(ask(tier, id.node(), &call, Verb::Delete).await),
    }
}

type Id = fleetline_signalr::connection_id::ConnectionId;

/// The connection that a request names, and whether it names one. A WebSocket that names none makes one.
fn find_id(
    tier: &Realtime,
    settings: &Settings,
    caller: &Caller,
    wish: Wish,
) -> Result<(Id, bool), transport::Refusal> {
    match (&caller.id, &settings.connection_key) {
        (Some(id), Some(key)) => {
            let token = ConnectionToken::parse(key, id).map_err(|_| transport::UNKNOWN_ID)?;
            Ok((token.id().clone(), true))
        }
        (None, _) if wish == Wish::Connect(Transport::WebSockets) => Ok((tier.mint(), false)),
        (None, _) => Err(transport::NO_ID),
        (Some(_), None) => Err(transport::UNKNOWN_ID),
    }
}

fn client_call(id: &str, hub: &str, caller: &Caller) -> ClientCall {
    ClientCall {
        connection: id.to_owned(),
        hub: hub.to_owned(),
        client: ClientInfo {
            user: caller.claims.user_id.clone(),
            claims: caller.claims.items.clone(),
            query: caller.query.clone(),
        },
        handshake_timeout_ms: caller.claims.handshake_timeout_ms,
        close_at_secs: caller.claims.close_at_secs,
    }
}

/// Asks the node that owns the connection, which may be this one.
async fn ask(tier: &Realtime, node: NodeId, call: &ClientCall, verb: Verb) -> StatusBody {
    let is_here = node == tier.peers.me || tier.registry.connection(&call.connection).is_some();
    if is_here { tier.answer_client(call.clone(), verb).await } else { tier.forward(node, call, verb).await }
}

fn respond((status, body): StatusBody) -> Response<Body> {
    let media_type =
        if status == 200 && !body.is_empty() { "application/octet-stream" } else { "text/plain" };
    match status {
        204 => reply::empty(StatusCode::NO_CONTENT),
        status => reply::full(reply::status(status), media_type, body),
    }
}

async fn read(body: Incoming, limit: usize) -> Result<Bytes, StatusBody> {
    match tokio::time::timeout(BODY_WAIT, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err((413, Bytes::new())),
        // "body read failed: 400"
        Ok(Err(_)) | Err(_) => Err((400, Bytes::new())),
    }
}

/// The key of a handshake (RFC 6455 §4.2.1); `None` when the request isn't one that we speak.
fn handshake_key(headers: &HeaderMap) -> Option<String> {
    let has_word = |name: HeaderName, word: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
    };
    let is_upgrade = has_word(UPGRADE, "websocket") && has_word(CONNECTION, "upgrade");
    let version = headers.get(SEC_WEBSOCKET_VERSION).map(|version| version.as_bytes());
    let key = headers.get(SEC_WEBSOCKET_KEY)?.to_str().ok()?;
    (is_upgrade && version == Some(b"13") && key.len() == 24).then(|| key.to_owned())
}

/// RFC 6455 §4.2.2: what proves that the handshake was understood.
fn accept_key(key: &str) -> String {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

async fn websocket(
    tier: &Arc<Realtime>,
    owner: NodeId,
    call: &ClientCall,
    upgrade: OnUpgrade,
    key: &str,
    reconnect: StatefulReconnect,
) -> Response<Body> {
    let known = tier.known(&call.connection);
    if let Err(refused) = transport::check(Wish::Connect(Transport::WebSockets), known, &Transport::ALL) {
        return respond(refusal(refused));
    }
    if let Some(member) = tier.registry.connection(&call.connection) {
        if !is_of(&member, call) {
            return respond((403, Bytes::new()));
        }
        tokio::spawn(async move {
            if let Some(socket) = switched(upgrade).await
                && member.mailbox.socket(socket).is_ok()
            {
                member.outbox.nudge();
            }
        });
        return switching(key);
    }
    if let Err(refused) = adopt(tier, owner, call).await {
        return respond(refused);
    }
    match tier.start(call, Transport::WebSockets, reconnect) {
        Ok((_, start)) => {
            tokio::spawn(run_socket(start, upgrade));
            switching(key)
        }
        Err(answer) => respond(answer),
    }
}

/// Tells the node that an id names that its connection is here. Refused when it is elsewhere.
async fn adopt(tier: &Realtime, owner: NodeId, call: &ClientCall) -> Result<(), StatusBody> {
    if owner == tier.peers.me || !tier.peers.alive().contains(&owner) {
        return Ok(());
    }
    let adopt = Adopt { connection: call.connection.clone(), is_over: false };
    match tier.peers.call(owner, Ask::Adopt(adopt)).await {
        Ok(answer) if answer.found => Err(refusal(transport::UNKNOWN_ID)),
        // Who sends to the connection asks all nodes then.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Runs a new connection once its socket is switched over.
async fn run_socket(start: Start, upgrade: OnUpgrade) {
    // Boxes, so that the task that lives as long as the connection holds little more than a pointer.
    let core = Box::new(Core::new(start));
    match Box::pin(switched(upgrade)).await {
        Some(socket) => Box::new(SocketTask::new(*core, socket)).run().await,
        None => Box::pin(core.finish()).await,
    }
}

async fn switched(upgrade: OnUpgrade) -> Option<Socket> {
    match tokio::time::timeout(UPGRADE_WAIT, upgrade).await {
        Ok(Ok(upgraded)) => Some(Box::new(TokioIo::new(upgraded))),
        Ok(Err(error)) => {
            tracing::debug!(%error, "websocket was not switched over");
            None
        }
        Err(_) => None,
    }
}

fn switching(key: &str) -> Response<Body> {
    let mut response = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
    reply::put(&mut response, CONNECTION, "Upgrade");
    reply::put(&mut response, UPGRADE, "websocket");
    reply::put(&mut response, SEC_WEBSOCKET_ACCEPT, &accept_key(key));
    response
}

/// A stream of events: here from the connection itself, elsewhere from polls of the node that owns it.
async fn events(tier: &Arc<Realtime>, owner: NodeId, call: ClientCall) -> Response<Body> {
    if owner != tier.peers.me {
        let (status, body) = ask(tier, owner, &call, Verb::Poll(PollKind::FirstEvents)).await;
        if status != 200 {
            return respond((status, body));
        }
        return event_stream(polled(tier.clone(), owner, call));
    }
    let known = tier.known(&call.connection);
    if let Err(refused) = transport::check(Wish::Connect(Transport::ServerSentEvents), known, &Transport::ALL)
    {
        return respond(refusal(refused));
    }
    if known != Connection::Negotiated {
        return respond(refusal(transport::UNKNOWN_ID));
    }
    let member = match tier.open_parked(&call, Transport::ServerSentEvents) {
        Ok(member) => member,
        Err(answer) => return respond(answer),
    };
    let (writer, reader) = mpsc::channel(EVENTS_AHEAD);
    if member.mailbox.get(Get::Events(writer)).is_err() {
        return respond(refusal(transport::UNKNOWN_ID));
    }
    member.outbox.nudge();
    event_stream(stream::unfold(reader, |mut reader| async move { Some((reader.recv().await?, reader)) }))
}

fn polled(tier: Arc<Realtime>, owner: NodeId, call: ClientCall) -> impl Stream<Item = Bytes> + Send {
    stream::unfold((tier, call), move |(tier, call)| async move {
        loop {
            match ask(&tier, owner, &call, Verb::Poll(PollKind::NextEvents)).await {
                (200, body) if body.is_empty() => {}
                (200, body) => return Some((sse::event(&body), (tier, call))),
                _ => return None,
            }
        }
    })
}

fn event_stream(events: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let first = stream::iter([Bytes::from_static(sse::PREAMBLE)]);
    let frames = first.chain(events).map(|bytes| Ok::<_, io::Error>(Frame::data(bytes)));
    let mut response = reply::with_body(StatusCode::OK, BodyExt::boxed_unsync(StreamBody::new(frames)));
    reply::put(&mut response, http::header::CONTENT_TYPE, sse::CONTENT_TYPE);
    reply::put(&mut response, CACHE_CONTROL, "no-cache");
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455 §1.3.
    #[test]
    fn handshake_is_that_of_the_standard() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
