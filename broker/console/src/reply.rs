//! Answers of the console: status, headers, body; and the headers that all of them have.

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::error::ConsoleError;

/// The media type of JSON.
pub(crate) const JSON: &str = "application/json; charset=utf-8";

/// An answer, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its own headers; what all have comes with [`Reply::into_response`].
    pub headers: Vec<(HeaderName, String)>,
    /// Its body.
    pub body: Bytes,
}

impl Reply {
    /// A status and nothing more.
    pub(crate) fn empty(status: StatusCode) -> Reply {
        Reply { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// 200 with JSON that nobody may keep.
    pub(crate) fn json(value: &Value) -> Reply {
        Reply::json_with(StatusCode::OK, value)
    }

    /// A status with JSON that nobody may keep.
    pub(crate) fn json_with(status: StatusCode, value: &Value) -> Reply {
        let headers =
            vec![(header::CONTENT_TYPE, JSON.to_owned()), (header::CACHE_CONTROL, "no-store".to_owned())];
        Reply { status, headers, body: value.to_string().into() }
    }

    /// A refusal as `{"error": {"status", "text"}}`.
    pub(crate) fn error(error: &ConsoleError) -> Reply {
        let status = error.status();
        let text = error.to_string();
        let mut reply =
            Reply::json_with(status, &json!({ "error": { "status": status.as_u16(), "text": text } }));
        if let Some(seconds) = error.retry_after() {
            reply.headers.push((header::RETRY_AFTER, seconds.to_string()));
        }
        if status == StatusCode::UNAUTHORIZED {
            reply.headers.push((header::WWW_AUTHENTICATE, "Bearer".to_owned()));
        }
        reply
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }

    /// The whole response, with the headers that protect the page. `policy` is the page's CSP.
    pub(crate) fn into_response(self, policy: &str) -> Response<fleetline_gateway::http::Body> {
        let mut response = Response::new(Full::new(self.body).map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        for (name, value) in protection(policy) {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// Headers of every answer.
fn protection(policy: &str) -> [(HeaderName, &str); 7] {
    [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
    ]
}

/// What the page may load and where it may connect: its own origin, and `connect_sources` (origins of a
/// realtime tier elsewhere). No inline script or style, no markup from text (trusted types), no framing.
pub(crate) fn content_policy(connect_sources: &[String]) -> String {
    let is_source =
        |source: &&String| source.bytes().all(|byte| byte.is_ascii_graphic() && !b";,".contains(&byte));
    let more: String = connect_sources.iter().filter(is_source).map(|source| format!(" {source}")).collect();
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'{more}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy allows no inline code and no framing, and an odd source can't end a directive.
    #[test]
    fn page_policy() {
        let policy = content_policy(&["wss://live.example".into(), "x; script-src *".into()]);
        assert!(policy.contains("connect-src 'self' wss://live.example;"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && policy.contains("default-src 'none'"));
    }

    /// Every answer is protected, and says its own headers too.
    #[test]
    fn headers() {
        let response = Reply::error(&ConsoleError::Throttled(9)).into_response("default-src 'none'");
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(response.status(), 429);
        assert_eq!(header("retry-after"), "9");
        assert_eq!(header("cache-control"), "no-store");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(header("content-security-policy"), "default-src 'none'");
        assert_eq!(header("x-frame-options"), "DENY");
    }
}
