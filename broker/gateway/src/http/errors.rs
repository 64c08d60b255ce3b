//! Refusals, in the form that the public SDKs take apart.

use fleetline_devices::ErrorReply;
use fleetline_iothub::errors::{ERROR_CODE_HEADER, ErrorCode, http_body};
use http::{Response, StatusCode};

use super::reply::{self, Body};
use crate::devices::hub::AskError;
use crate::hub::HubError;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpError {
    /// What is told; its first three digits are the status.
    pub(super) code: ErrorCode,
    /// For people.
    pub(super) text: String,
    /// When to try again, in seconds.
    pub(super) retry_after: Option<u64>,
}

impl HttpError {
    pub(super) fn new(code: ErrorCode, text: impl Into<String>) -> HttpError {
        HttpError { code, text: text.into(), retry_after: None }
    }

    /// A wrong argument.
    pub(super) fn invalid(text: impl Into<String>) -> HttpError {
        HttpError::new(ErrorCode::ArgumentInvalid, text)
    }

    /// A body that isn't what it should be.
    pub(super) fn malformed(what: &str, error: &serde_json::Error) -> HttpError {
        HttpError::new(ErrorCode::IotHubFormatError, format!("{what} can't be read: {error}"))
    }

    /// Something on our side.
    pub(super) fn internal(text: impl Into<String>) -> HttpError {
        HttpError::new(ErrorCode::ServerError, text)
    }

    /// The public hub has it, this one doesn't.
    pub(super) fn unsupported(what: &str) -> HttpError {
        HttpError::new(ErrorCode::FeatureNotSupported, format!("{what} are not supported by this hub"))
    }

    /// The caller isn't known. It hears no reason.
    pub(super) fn unauthorized() -> HttpError {
        HttpError::new(ErrorCode::IotHubUnauthorized, "caller is not authorised")
    }

    pub(super) fn busy(code: ErrorCode, text: impl Into<String>, seconds: u64) -> HttpError {
        HttpError { code, text: text.into(), retry_after: Some(seconds) }
    }

    pub(super) fn into_response(self, tracking: &str) -> Response<Body> {
        let body = http_body(self.code, &self.text, tracking);
        let status =
            StatusCode::from_u16(self.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = reply::text(status, reply::JSON, body);
        reply::put(&mut response, ERROR_CODE_HEADER, self.code.name());
        if let Some(seconds) = self.retry_after {
            reply::put(&mut response, "retry-after", &seconds.to_string());
        }
        response
    }
}

impl From<ErrorReply> for HttpError {
    fn from(error: ErrorReply) -> HttpError {
        let code = ErrorCode::from_number(error.code).unwrap_or(ErrorCode::ServerError);
        let retry_after = (code.http_status() == 503).then_some(1);
        HttpError { code, text: error.text, retry_after }
    }
}

impl From<HubError> for HttpError {
    fn from(error: HubError) -> HttpError {
        let text = error.to_string();
        match error {
            HubError::NotLeader { .. } | HubError::Unavailable(_) => {
                HttpError::busy(ErrorCode::ServiceUnavailable, text, 1)
            }
            HubError::Busy { retry_after_ms, .. } => {
                HttpError::busy(ErrorCode::ServiceUnavailable, text, retry_after_ms.div_ceil(1000).max(1))
            }
            HubError::DiskFull(_) => HttpError::busy(ErrorCode::ServiceUnavailable, text, 10),
            HubError::NotFound(_) => HttpError::new(ErrorCode::GenericNotFound, text),
            HubError::Invalid(_) => HttpError::invalid(text),
            HubError::Forbidden(_) => HttpError::new(ErrorCode::GenericForbidden, text),
            // `Unknown` says "outcome unknown" itself.
            _ => HttpError::internal(text),
        }
    }
}

impl From<AskError> for HttpError {
    fn from(error: AskError) -> HttpError {
        match error {
            AskError::Refused(reply) => reply.into(),
            AskError::Hub(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each failure of the hub has a status that SDKs treat rightly: 503 is tried again, an unknown
    /// outcome is called so.
    #[test]
    fn hub_errors() {
        let rows = [
            (HubError::NotLeader { what: "p".into(), leader: None }, 503, Some(1)),
            (HubError::Unavailable("p".into()), 503, Some(1)),
            (HubError::Busy { reason: "r".into(), retry_after_ms: 2500 }, 503, Some(3)),
            (HubError::DiskFull("d".into()), 503, Some(10)),
            (HubError::Unknown("lost".into()), 500, None),
            (HubError::Invalid("i".into()), 400, None),
            (HubError::Internal("i".into()), 500, None),
        ];
        for (error, status, retry_after) in rows {
            let unknown = matches!(error, HubError::Unknown(_));
            let error = HttpError::from(error);
            assert_eq!((error.code.http_status(), error.retry_after), (status, retry_after), "{error:?}");
            assert_eq!(error.text.contains("outcome unknown"), unknown);
        }
        let refused = AskError::Refused(ErrorReply { code: 404_001, text: "no".into() });
        assert_eq!(HttpError::from(refused).code, ErrorCode::DeviceNotFound);
    }
}
