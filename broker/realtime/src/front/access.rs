//! Who is calling: tokens signed with the access keys, of clients and of backends.

use fleetline_gateway::http::Body;
use fleetline_signalr::audience::Audience;
use fleetline_signalr::names::HubName;
use fleetline_signalr::token::{Claims, verify};
use http::header::{AUTHORIZATION, HOST, HeaderMap, WWW_AUTHENTICATE};
use http::{Response, StatusCode, Uri};

use super::reply;
use crate::settings::Settings;
use crate::tier::Realtime;

/// A client whose token is good.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) hub: HubName,
    pub(super) claims: Claims,
    /// Its query without secrets.
    pub(super) query: String,
    /// What it names as `id`.
    pub(super) id: Option<String>,
}

/// The value of a parameter, decoded. The first counts.
pub(super) fn parameter(query: &str, wanted: &str) -> Option<String> {
    fleetline_signalr::query::pairs(query)
        .find(|(name, _)| name == wanted)
        .map(|(_, value)| value.into_owned())
}

/// Checks a client's request.
pub(super) fn client(
    tier: &Realtime,
    settings: &Settings,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Caller, Box<Response<Body>>> {
    let query = uri.query().unwrap_or_default();
    let hub = parameter(query, "hub").unwrap_or_default();
    let hub = HubName::parse(&hub)
        .map_err(|error| Box::new(reply::text(StatusCode::BAD_REQUEST, error.to_string())))?;
    let token = bearer(headers).map(str::to_owned).or_else(|| parameter(query, "access_token"));
    let endpoints = endpoints(tier, settings, headers);
    let audience = Audience::Client { endpoints: &endpoints, hub: hub.as_str() };
    let claims = check(tier, settings, token.as_deref(), audience)?;
    let is_secret = |part: &&str| !part.starts_with("access_token=") && !part.starts_with("id=");
    let kept: Vec<&str> = query.split('&').filter(is_secret).collect();
    Ok(Caller { hub, claims, query: kept.join("&"), id: parameter(query, "id") })
}

/// Checks a backend's request.
pub(super) fn backend(
    tier: &Realtime,
    settings: &Settings,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(), Box<Response<Body>>> {
    let endpoints = endpoints(tier, settings, headers);
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let audience = Audience::Rest { endpoints: &endpoints, path, query };
    check(tier, settings, bearer(headers), audience).map(drop)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Names of this service: the configured ones, and the one that the caller has used. A token names one of
/// them; what keeps strangers out is its signature.
fn endpoints(tier: &Realtime, settings: &Settings, headers: &HeaderMap) -> Vec<String> {
    let mut endpoints = vec![tier.options().endpoint.clone()];
    endpoints.extend(settings.endpoints.iter().cloned());
    if let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) {
        endpoints.extend([format!("https://{host}"), format!("http://{host}")]);
    }
    endpoints
}

fn check(
    tier: &Realtime,
    settings: &Settings,
    token: Option<&str>,
    audience: Audience<'_>,
) -> Result<Claims, Box<Response<Body>>> {
    let Some(keys) = &settings.keys else {
        let text = "the hub has no realtime keys yet";
        return Err(Box::new(reply::text(StatusCode::SERVICE_UNAVAILABLE, text)));
    };
    let now_secs = tier.devices.now_ms() / 1_000;
    let checked = match token {
        Some(token) => verify(token, keys, audience, now_secs).map_err(|error| error.to_string()),
        None => Err("a token is required".to_owned()),
    };
    checked.map_err(|error| {
        tracing::debug!(error, "a realtime request is refused");
        let mut response = reply::text(StatusCode::UNAUTHORIZED, error);
        reply::put(&mut response, WWW_AUTHENTICATE, "Bearer");
        Box::new(response)
    })
}
