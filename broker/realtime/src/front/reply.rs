//! Answers.

use std::io;

use bytes::Bytes;
use fleetline_gateway::http::Body;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};

/// A status and nothing more.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    with_body(status, Empty::new().map_err(|never| match never {}).boxed_unsync())
}

pub(super) fn with_body(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A body of this media type.
pub(super) fn full(status: StatusCode, media_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never| -> io::Error { match never {} }).boxed_unsync();
    let mut response = with_body(status, body);
    put(&mut response, CONTENT_TYPE, media_type);
    response
}

pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    full(status, "application/json", body)
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    full(status, "text/plain", body)
}

/// A status by its number; numbers that aren't one are 500.
pub(super) fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// More waits than is allowed.
pub(super) fn busy() -> Response<Body> {
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, "too much waits, try again soon");
    put(&mut response, http::header::RETRY_AFTER, "1");
    response
}

/// Sets a header; a value that can't be one is left out.
pub(super) fn put(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
