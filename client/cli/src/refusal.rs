//! What the hub refuses, and what its reader can do.
//!
//! A refusal's body reads `{"Message":"ErrorCode:DeviceNotFound;text","ExceptionMessage":"…"}`, and the
//! header `iothub-errorcode` repeats the code. A body of another form is shown as it is.

use std::fmt;

use fleetline_iothub::errors::{ERROR_CODE_HEADER, ErrorCode};
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

/// Characters of a body that nobody understands.
const SHOWN_MAX: usize = 300;
/// How a hub begins its text when it doesn't know itself.
const UNKNOWN: &str = "outcome unknown";

/// An answer with a status that isn't 2xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    /// Name of the code; empty when there was none.
    code: String,
    text: String,
    /// Whether the body had a form that is known here.
    is_known: bool,
    retry_after_s: Option<u64>,
}

impl Refusal {
    pub(crate) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let json: Option<Value> = serde_json::from_slice(body).ok();
        // The management of functions says it plainly: `{"error":"text"}`.
        let text_of = |name: &str| json.as_ref().and_then(|json| json[name].as_str());
        let message = text_of("Message").or(text_of("error"));
        let parts = message.and_then(|message| message.strip_prefix("ErrorCode:")?.split_once(';'));
        let (code, text) = match (parts, message) {
            (Some((code, text)), _) => (code, text.to_owned()),
            (None, Some(message)) => ("", message.to_owned()),
            (None, None) => ("", String::from_utf8_lossy(body).chars().take(SHOWN_MAX).collect()),
        };
        let code = if code.is_empty() { header(ERROR_CODE_HEADER).unwrap_or_default() } else { code };
        let retry_after_s = header(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok());
        let is_known = message.is_some();
        Refusal { status, code: code.to_owned(), text: text.trim().to_owned(), is_known, retry_after_s }
    }

    /// Whether what was asked for may have happened all the same.
    pub(crate) fn is_unknown(&self) -> bool {
        self.status == StatusCode::GATEWAY_TIMEOUT || self.text.starts_with(UNKNOWN)
    }

    fn hint(&self) -> Option<String> {
        let fixed = match ErrorCode::from_name(&self.code) {
            Some(ErrorCode::DeviceNotFound) => {
                "`fleetline device list` shows all devices, `fleetline device create ID` makes one"
            }
            Some(ErrorCode::DeviceAlreadyExists) => {
                "`fleetline device show ID` shows it, `fleetline connection-string --device ID` how to connect"
            }
            Some(ErrorCode::ModuleNotFound) => "`fleetline device modules ID list` shows a device's modules",
            Some(ErrorCode::ModuleAlreadyExistsOnDevice) => {
                "`fleetline connection-string --device ID --module M` shows how to connect as it"
            }
            Some(ErrorCode::DeviceNotOnline) => {
                "wait for it with --connect-timeout S, or leave it a message with `fleetline device send`"
            }
            Some(ErrorCode::GatewayTimeout) => {
                "the device did not answer in time, and may have done it: give it longer with --timeout S"
            }
            Some(ErrorCode::PreconditionFailed) => {
                "somebody has changed it since: look at it again, and use its new etag"
            }
            Some(ErrorCode::DeviceMaximumQueueDepthExceeded) => {
                "too many messages wait for the device: it has to take some first"
            }
            Some(ErrorCode::DeviceDisabled) => "`fleetline device update ID --enable` lets it in again",
            _ => return self.hint_of_status(),
        };
        Some(fixed.to_owned())
    }

    fn hint_of_status(&self) -> Option<String> {
        match self.status.as_u16() {
            401 | 403 if self.retry_after_s.is_none() => Some(
                "is the connection string this hub's, is the clock right, and may the policy do this? see --policy \
                 and --connection-string"
                    .to_owned(),
            ),
            404 if self.is_known && self.text.contains("app ") => Some(
                "`fleetline functions list` shows all apps, `fleetline functions status APP` what is in one"
                    .to_owned(),
            ),
            404 | 405 if self.code.is_empty() && !self.is_known => {
                Some("is this a hub of Fleetline? see --https".to_owned())
            }
            429 | 503 => Some(match self.retry_after_s {
                Some(seconds) => format!("try again in {seconds} s"),
                None => "try again in a moment".to_owned(),
            }),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `CliError::Unknown` says these words itself.
        let text = self.text.strip_prefix(UNKNOWN).unwrap_or(&self.text).trim_start_matches([':', ' ']);
        let text = if text.is_empty() { "the hub refused" } else { text };
        match self.code.is_empty() {
            true => write!(f, "{text} (status {})", self.status.as_u16())?,
            false => write!(f, "{text} ({})", self.code)?,
        }
        match self.hint() {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetline_iothub::errors::http_body;

    use super::*;

    fn read(status: u16, body: &str) -> Refusal {
        Refusal::read(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    /// Bodies as the hub writes them become a text, a code and what to do.
    #[test]
    fn hubs_own_bodies() {
        for (code, part) in [
            (ErrorCode::DeviceNotFound, "fleetline device list"),
            (ErrorCode::DeviceAlreadyExists, "fleetline device show"),
            (ErrorCode::DeviceNotOnline, "--connect-timeout"),
            (ErrorCode::GatewayTimeout, "--timeout"),
            (ErrorCode::PreconditionFailed, "etag"),
            (ErrorCode::IotHubUnauthorized, "--policy"),
            (ErrorCode::IotHubUnauthorizedAccess, "--policy"),
            (ErrorCode::ModuleNotFound, "modules ID list"),
            (ErrorCode::ThrottlingException, "try again"),
        ] {
            let refusal = read(code.http_status(), &http_body(code, "what; why", "t"));
            let shown = refusal.to_string();
            assert!(shown.starts_with(&format!("what, why ({})\nhint: ", code.name())), "{shown}");
            assert!(shown.contains(part), "{shown}");
            assert_eq!(refusal.is_unknown(), code == ErrorCode::GatewayTimeout);
        }
    }

    /// Other bodies are shown as they are, short; the header's code counts when the body has none.
    #[test]
    fn bodies_of_others() {
        assert_eq!(read(400, "{\"Message\":\"no\"}").to_string(), "no (status 400)");
        assert_eq!(read(400, "{\"error\":\"no worker\"}").to_string(), "no worker (status 400)");
        let gone = read(404, "{\"error\":\"app a does not exist\"}").to_string();
        assert!(
            gone.starts_with("app a does not exist (status 404)\nhint: `fleetline functions list`"),
            "{gone}"
        );
        assert!(read(404, "not found").to_string().contains("is this a hub of Fleetline?"));
        assert_eq!(read(500, "").to_string(), "the hub refused (status 500)");
        assert!(read(404, &"<html>".repeat(1000)).to_string().len() < 500);
        let mut headers = HeaderMap::new();
        headers.insert(ERROR_CODE_HEADER, "DeviceNotFound".parse().unwrap());
        headers.insert(RETRY_AFTER, "7".parse().unwrap());
        let found = Refusal::read(StatusCode::NOT_FOUND, &headers, b"gone");
        assert!(found.to_string().starts_with("gone (DeviceNotFound)\nhint: "), "{found}");
        headers.remove(ERROR_CODE_HEADER);
        let busy = Refusal::read(StatusCode::SERVICE_UNAVAILABLE, &headers, b"busy").to_string();
        assert!(busy.ends_with("try again in 7 s"), "{busy}");
    }

    /// The hub's own "unknown" is neither lost nor said twice.
    #[test]
    fn the_hub_may_not_know() {
        let body = http_body(ErrorCode::ServerError, "outcome unknown: the leader is gone", "t");
        let refusal = read(500, &body);
        assert!(refusal.is_unknown());
        assert_eq!(refusal.to_string(), "the leader is gone (ServerError)");
    }
}
