//! `POST /client/negotiate`: an id and a token for a new connection, and how it may be opened.
//!
//! Nothing is stored: the token proves that this hub has given the id, and the client shows its access token
//! again when it connects, at whichever node.

use fleetline_gateway::http::Body;
use fleetline_signalr::connection_id::ConnectionToken;
use fleetline_signalr::negotiate::{self, NegotiateRequest, Transport};
use fleetline_signalr::token::Claims;
use http::{Method, Request, Response, StatusCode};

use super::{access, reply};
use crate::settings::Settings;
use crate::tier::Realtime;

pub(super) fn answer<B>(tier: &Realtime, settings: &Settings, request: &Request<B>) -> Response<Body> {
    if request.method() != Method::POST {
        return reply::empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let caller = match access::client(tier, settings, request.uri(), request.headers()) {
        Ok(caller) => caller,
        Err(refusal) => return *refusal,
    };
    let Some(key) = &settings.connection_key else { return reply::empty(StatusCode::SERVICE_UNAVAILABLE) };
    let id = tier.mint();
    let token = ConnectionToken::mint(key, &id);
    let transports = allowed(settings, caller.hub.as_str(), &caller.claims);
    let asked = NegotiateRequest::parse(request.uri().query().unwrap_or_default());
    reply::json(StatusCode::OK, negotiate::answer(asked, &id, &token, &transports))
}

/// Transports that the hub and the client's token allow, the best first.
pub(super) fn allowed(settings: &Settings, hub: &str, claims: &Claims) -> Vec<Transport> {
    let mut transports = settings.transports(hub);
    if let Some(allowed) = &claims.transports {
        transports.retain(|transport| allowed.contains(transport));
    }
    transports
}
