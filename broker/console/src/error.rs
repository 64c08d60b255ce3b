//! Refusals of the console, and the one table that maps them to HTTP.

use fleetline_devices::ErrorReply;
use fleetline_gateway::devices::hub::AskError;
use fleetline_gateway::hub::HubError;
use fleetline_iothub::errors::ErrorCode;
use http::StatusCode;
use thiserror::Error;

/// A token can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignInError {
    /// The policy's key is no Base64, or empty.
    #[error("key of the policy is not base64")]
    Key,
}

/// Why a query has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ConsoleError {
    /// The caller isn't known. It hears no reason.
    #[error("sign in: the token is missing, wrong or over")]
    Unauthorized,
    /// Too many have failed from there.
    #[error("too many failed sign-ins, wait {0} s")]
    Throttled(u64),
    /// The policy has no right to it.
    #[error("policy {policy} may not {what}")]
    Forbidden { policy: String, what: &'static str },
    /// Nothing is there.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The node runs without this tier.
    #[error("this node has no {0}")]
    Absent(&'static str),
    /// Something about the request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The path takes another method.
    #[error("method is not taken here")]
    Method,
    /// The body is too large.
    #[error("body is larger than {0} bytes")]
    TooLarge(usize),
    /// The body didn't come.
    #[error("body did not come in time")]
    Slow,
    /// A bound is reached.
    #[error("busy: {0}; try again")]
    Busy(&'static str),
    /// A leader refused.
    #[error("{}", .0.text)]
    Refused(ErrorReply),
    /// A leader couldn't be asked, or its answer is unknown.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Something stored can't be read.
    #[error("stored {what} can't be read: {text}")]
    Stored { what: &'static str, text: String },
}

impl From<AskError> for ConsoleError {
    fn from(error: AskError) -> ConsoleError {
        match error {
            AskError::Refused(reply) => ConsoleError::Refused(reply),
            AskError::Hub(error) => ConsoleError::Hub(error),
        }
    }
}

impl ConsoleError {
    /// Wraps the error of something stored.
    pub(crate) fn stored(what: &'static str, error: impl std::fmt::Display) -> ConsoleError {
        ConsoleError::Stored { what, text: error.to_string() }
    }

    /// The status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            ConsoleError::Unauthorized => StatusCode::UNAUTHORIZED,
            ConsoleError::Throttled(_) => StatusCode::TOO_MANY_REQUESTS,
            ConsoleError::Forbidden { .. } => StatusCode::FORBIDDEN,
            ConsoleError::NotFound(_) | ConsoleError::Absent(_) => StatusCode::NOT_FOUND,
            ConsoleError::Invalid(_) => StatusCode::BAD_REQUEST,
            ConsoleError::Method => StatusCode::METHOD_NOT_ALLOWED,
            ConsoleError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ConsoleError::Slow => StatusCode::REQUEST_TIMEOUT,
            ConsoleError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            ConsoleError::Refused(reply) => {
                let code = ErrorCode::from_number(reply.code).unwrap_or(ErrorCode::ServerError);
                StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
            ConsoleError::Hub(error) => hub_status(error),
            ConsoleError::Stored { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// When to try again, in seconds.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self {
            ConsoleError::Throttled(seconds) => Some(*seconds),
            error if error.status() == StatusCode::SERVICE_UNAVAILABLE => Some(1),
            _ => None,
        }
    }
}

fn hub_status(error: &HubError) -> StatusCode {
    match error {
        HubError::NotFound(_) => StatusCode::NOT_FOUND,
        HubError::Invalid(_) => StatusCode::BAD_REQUEST,
        HubError::Forbidden(_) => StatusCode::FORBIDDEN,
        HubError::NotLeader { .. } | HubError::Unavailable(_) | HubError::Busy { .. } => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        HubError::Unknown(_) => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each refusal has its status; only what passes by itself says when to try again.
    #[test]
    fn refusals_on_the_wire() {
        let refused =
            |code: ErrorCode| ConsoleError::Refused(ErrorReply { code: code.number(), text: "t".into() });
        let rows = [
            (ConsoleError::Unauthorized, 401, None),
            (ConsoleError::Throttled(7), 429, Some(7)),
            (ConsoleError::Forbidden { policy: "p".into(), what: "look" }, 403, None),
            (ConsoleError::NotFound("x".into()), 404, None),
            (ConsoleError::Absent("functions"), 404, None),
            (ConsoleError::Invalid("x".into()), 400, None),
            (ConsoleError::Method, 405, None),
            (ConsoleError::TooLarge(1), 413, None),
            (ConsoleError::Slow, 408, None),
            (ConsoleError::Busy("x"), 503, Some(1)),
            (refused(ErrorCode::DeviceNotFound), 404, None),
            (refused(ErrorCode::PreconditionFailed), 412, None),
            (ConsoleError::Refused(ErrorReply { code: 1, text: "t".into() }), 500, None),
            (HubError::NotLeader { what: "p".into(), leader: None }.into(), 503, Some(1)),
            (HubError::Unknown("x".into()).into(), 504, None),
            (HubError::NotFound("x".into()).into(), 404, None),
            (HubError::Internal("x".into()).into(), 500, None),
            (ConsoleError::stored("twin", "x"), 500, None),
        ];
        for (error, status, retry) in rows {
            assert_eq!((error.status().as_u16(), error.retry_after()), (status, retry), "{error:?}");
        }
    }
}
