//! Answers.

use std::io;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use serde::Serialize;

use super::errors::HttpError;

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An answer, or a refusal.
pub(super) type Answer = Result<Response<Body>, HttpError>;

/// The media type of JSON, as the public hub spells it.
pub(super) const JSON: &str = "application/json; charset=utf-8";

pub(super) fn no_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A status and nothing more.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    with_body(status, no_body())
}

pub(super) fn with_body(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A body of this media type.
pub(super) fn text(status: StatusCode, media_type: &str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = with_body(status, full(body));
    put(&mut response, header::CONTENT_TYPE.as_str(), media_type);
    response
}

/// 200 with JSON.
pub(super) fn json(value: &impl Serialize) -> Answer {
    json_with(StatusCode::OK, value)
}

/// JSON with a status.
pub(super) fn json_with(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| HttpError::internal(error.to_string()))?;
    Ok(text(status, JSON, body))
}

/// Sets a header. What can't stand in one is escaped; a name that can't be one is left out.
pub(super) fn put(response: &mut Response<Body>, name: &str, value: &str) {
    if let (Ok(name), Some(value)) = (HeaderName::from_bytes(name.as_bytes()), header_value(value)) {
        response.headers_mut().insert(name, value);
    }
}

/// Adds the etag in quotes.
pub(super) fn put_etag(response: &mut Response<Body>, etag: &str) {
    put(response, header::ETAG.as_str(), &format!("\"{etag}\""));
}

/// The text as a header's value. Control characters are percent-encoded: they would end the header.
fn header_value(text: &str) -> Option<HeaderValue> {
    let is_bad = |c: char| c.is_ascii_control();
    if !text.contains(is_bad) {
        return HeaderValue::from_bytes(text.as_bytes()).ok();
    }
    let escaped: String =
        text.chars().map(|c| if is_bad(c) { format!("%{:02X}", c as u32) } else { c.to_string() }).collect();
    HeaderValue::from_bytes(escaped.as_bytes()).ok()
}

/// The name of a property as part of a header's name: what can't stand there is percent-encoded.
pub(super) fn header_name_part(name: &str) -> String {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    name.bytes()
        .map(|byte| if token(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No property of a message can add a header or end the head.
    #[test]
    fn values_stay_in_their_header() {
        let mut response = empty(StatusCode::OK);
        put(&mut response, "iothub-app-a", "x\r\nset-cookie: y");
        assert_eq!(response.headers().len(), 1);
        assert_eq!(response.headers()["iothub-app-a"], "x%0D%0Aset-cookie: y");
        put(&mut response, &format!("iothub-app-{}", header_name_part("a b:\r\nü")), "1");
        assert!(response.headers().contains_key("iothub-app-a%20b%3a%0d%0a%c3%bc"));
        put(&mut response, "bad name", "1");
        assert_eq!(response.headers().len(), 2);
    }
}
