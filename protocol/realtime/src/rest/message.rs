//! Bodies of REST: the message that is sent, and what an answer says besides its status.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::RestError;
use crate::encoded::Encoded;
use crate::limits::REST_BODY_BYTES_MAX;

/// The message in the body of a request that sends.
#[derive(Clone, Debug)]
pub struct RestMessage {
    /// The method that clients are called at.
    pub target: String,
    /// The call, ready for all clients.
    pub invocation: Encoded,
}

/// The SDKs write small letters, older ones of .NET capitals.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(alias = "Target")]
    target: String,
    #[serde(borrow, default, alias = "Arguments")]
    arguments: Option<&'a RawValue>,
}

impl RestMessage {
    /// Reads a body. Missing arguments are none; `rawBytes` and `rawOnly` are not looked at.
    pub fn parse(body: &Bytes) -> Result<RestMessage, RestError> {
        let (bytes, limit) = (body.len(), REST_BODY_BYTES_MAX);
        if bytes > limit {
            return Err(RestError::BodyTooLong { bytes, limit });
        }
        let bad = |detail: String| RestError::BadMessage { detail };
        // .NET writes a byte order mark when it is asked for UTF-8.
        let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        if text.trim_ascii_start().first() != Some(&b'{') {
            return Err(bad("expected an object".to_owned()));
        }
        let read: Body<'_> = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
        if read.target.is_empty() {
            return Err(bad("the target is empty".to_owned()));
        }
        let arguments = match read.arguments {
            Some(arguments) => body.slice_ref(arguments.get().as_bytes()),
            None => Bytes::from_static(b"[]"),
        };
        let invocation = Encoded::invocation(&read.target, arguments)?;
        Ok(RestMessage { target: read.target, invocation })
    }
}

/// What a REST answer may say besides its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The connection isn't there: nothing was sent to it.
    ConnectionNotExisted,
    /// No connection of the user is there.
    UserNotExisted,
    /// Nobody is in the group.
    GroupNotExisted,
    /// The user wasn't in the group.
    UserNotInGroup,
    /// The connection that was to be changed isn't there.
    ConnectionNotFound,
}

/// The body that carries a [`Notice`]; its code is in the header `x-ms-error-code` too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceResponse {
    /// `{level}.{scope}.{error_kind}`.
    pub code: String,
    /// `Info`, `Warning` or `Error`.
    pub level: &'static str,
    /// What it is about.
    pub scope: &'static str,
    /// What is the matter with it.
    pub error_kind: &'static str,
    /// For people.
    pub message: String,
    /// Whether the request was done all the same.
    pub is_success: bool,
}

/// The header that repeats a response's code.
pub const ERROR_CODE_HEADER: &str = "x-ms-error-code";

impl ServiceResponse {
    /// The response for a notice about `name`.
    pub fn new(notice: Notice, name: &str) -> ServiceResponse {
        let (level, scope, error_kind, text) = match notice {
            Notice::ConnectionNotExisted => ("Warning", "Connection", "NotExisted", "does not exist"),
            Notice::UserNotExisted => ("Warning", "User", "NotExisted", "has no connection"),
            Notice::GroupNotExisted => ("Warning", "Group", "NotExisted", "has no connection"),
            Notice::UserNotInGroup => ("Info", "User", "NotInGroup", "is not in the group"),
            Notice::ConnectionNotFound => ("Error", "Connection", "NotExisted", "does not exist"),
        };
        ServiceResponse {
            code: format!("{level}.{scope}.{error_kind}"),
            level,
            scope,
            error_kind,
            message: format!("{scope} '{name}' {text}."),
            is_success: level != "Error",
        }
    }

    /// The response as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        crate::convert::write_json(&mut out, self);
        out
    }
}
