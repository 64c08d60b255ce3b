//! Answers and refusals.

use std::io;

use bytes::Bytes;
use fleetline_gateway::http::Body;
use fleetline_gateway::hub::HubError;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use serde_json::{Value as Json, json};

use crate::error::FunctionsError;

/// A refusal: its status and its text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
    /// Seconds after which it may be tried again.
    pub(crate) retry_after: Option<u32>,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Refusal {
        Refusal { status, text: text.into(), retry_after: None }
    }

    pub(crate) fn bad(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, text)
    }

    pub(crate) fn unauthorized() -> Refusal {
        Refusal::new(StatusCode::UNAUTHORIZED, "the caller is not known, or may not do this")
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, text)
    }

    pub(crate) fn method(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text)
    }

    pub(crate) fn too_large(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }

    pub(crate) fn timed_out(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::REQUEST_TIMEOUT, text)
    }

    pub(crate) fn busy(text: impl Into<String>) -> Refusal {
        Refusal { retry_after: Some(1), ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, text) }
    }

    pub(crate) fn unavailable(text: impl Into<String>) -> Refusal {
        Refusal { retry_after: Some(1), ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text) }
    }

    pub(crate) fn failed(text: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = json_reply(self.status, &json!({ "error": self.text }));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<FunctionsError> for Refusal {
    fn from(error: FunctionsError) -> Refusal {
        let text = error.to_string();
        match error {
            FunctionsError::NotFound(_) => Refusal::not_found(text),
            FunctionsError::Invalid(_) | FunctionsError::Worker(_) => Refusal::bad(text),
            FunctionsError::TooLarge(_) => Refusal::too_large(text),
            FunctionsError::Conflict(_) => Refusal::new(StatusCode::CONFLICT, text),
            FunctionsError::Hub(HubError::Invalid(_)) => Refusal::bad(text),
            FunctionsError::Hub(HubError::Unknown(_) | HubError::Internal(_)) => Refusal::failed(text),
            FunctionsError::Hub(_) => Refusal::unavailable(text),
            FunctionsError::Damaged { .. } | FunctionsError::Disk(_) => Refusal::failed(text),
        }
    }
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| -> io::Error { match never {} }).boxed_unsync()
}

pub(crate) fn json_reply(status: StatusCode, value: &Json) -> Response<Body> {
    let mut response = Response::new(full(value.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}
