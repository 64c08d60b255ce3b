//! Pages of other origins (Fetch standard, CORS protocol).
//!
//! Clients in browsers send credentials, so the origin is repeated rather than `*`, and `Vary` keeps caches from
//! mixing origins up. What opens the service is a token, never a cookie, so letting every origin in is safe;
//! the setting can name origins all the same.

use fleetline_gateway::http::Body;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use http::{Response, StatusCode};

use super::reply;
use crate::settings::Settings;

/// What clients send when a page doesn't say.
const HEADERS: &str = "authorization, content-type, x-requested-with, x-signalr-user-agent";
/// Bytes of a list of headers that is repeated.
const HEADERS_MAX: usize = 1_024;

/// The origin of a request, if it may call.
pub(super) fn origin(headers: &HeaderMap, settings: &Settings) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let text = origin.to_str().ok()?;
    settings.allows_origin(text).then(|| origin.clone())
}

/// Answers whether a page may ask. The origin is added like to any other answer.
pub(super) fn preflight(headers: &HeaderMap) -> Response<Body> {
    let mut response = reply::empty(StatusCode::NO_CONTENT);
    let asked = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
    let asked = asked.filter(|asked| asked.len() <= HEADERS_MAX).unwrap_or(HEADERS);
    reply::put(&mut response, ACCESS_CONTROL_ALLOW_HEADERS, asked);
    reply::put(&mut response, ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE, HEAD, OPTIONS");
    reply::put(&mut response, ACCESS_CONTROL_MAX_AGE, "3600");
    response
}

/// Lets a page of this origin read the answer.
pub(super) fn allow(response: &mut Response<Body>, origin: HeaderValue) {
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    reply::put(response, ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    reply::put(response, ACCESS_CONTROL_EXPOSE_HEADERS, fleetline_signalr::rest::ERROR_CODE_HEADER);
    response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
}
