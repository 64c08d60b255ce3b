//! `$cbs`: tokens that are put on the connection.
//!
//! What a token is follows from its text, never from `type` or `name`: clients say many things there. A
//! device's own token is verified by its leader before it is taken, so that a wrong one is told at once
//! ("refuse bad credentials at put-token (401), not at attach").

use std::sync::Arc;

use fleetline_amqp::Writer;
use fleetline_amqp::message::{Body, Message};
use fleetline_amqp::value::Value;
use fleetline_devices::{DeviceKey, Request, Verify};
use fleetline_gateway::devices::hub::{AskError, DeviceHub, answered};
use fleetline_gateway::devices::login::{LoginError, device_login};
use fleetline_iothub::errors::ErrorCode;
use fleetline_types::partition_of_key;

use crate::management::answer_head;
use crate::tokens::{Judged, judge};

/// A request, without what it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PutToken {
    /// The message id as it was written.
    pub(crate) id: Vec<u8>,
    pub(crate) reply_to: Option<String>,
    operation: String,
    /// The token; empty when the body holds none.
    pub(crate) token: String,
}

impl PutToken {
    pub(crate) fn of(message: &Message<'_>) -> PutToken {
        let operation = message.application_properties.get("operation");
        let token = match &message.body {
            Body::Value(Value::String(text)) => (*text).to_owned(),
            Body::Value(Value::Binary(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Body::Data(data) => String::from_utf8_lossy(&data.joined()).into_owned(),
            _ => String::new(),
        };
        let properties = message.properties().unwrap_or_default();
        let mut id = Vec::new();
        Writer::new(&mut id).value(&properties.message_id);
        PutToken {
            id,
            reply_to: properties.reply_to.map(str::to_owned),
            operation: operation.and_then(|value| value.as_text()).unwrap_or_default().to_owned(),
            token,
        }
    }
}

/// Why a token isn't taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request isn't one.
    Bad(&'static str),
    /// The token is refused.
    Unauthorized(&'static str),
    /// Nobody can say now.
    Later,
    /// There are too many.
    TooMany,
}

impl Refusal {
    fn status(self) -> (i32, &'static str) {
        match self {
            Refusal::Bad(text) => (400, text),
            Refusal::Unauthorized(text) => (401, text),
            Refusal::Later => (500, "the token can't be checked now, try again"),
            Refusal::TooMany => (403, "too many tokens on this connection"),
        }
    }
}

/// Checks the request's own form.
pub(crate) fn check(put: &PutToken) -> Result<(), Refusal> {
    match put.operation.as_str() {
        "put-token" if !put.token.is_empty() => Ok(()),
        "put-token" => Err(Refusal::Bad("the body holds no token")),
        _ => Err(Refusal::Bad("operation is not put-token")),
    }
}

/// Verifies a token.
pub(crate) async fn verify(hub: Arc<dyn DeviceHub>, token: String) -> Result<(), Refusal> {
    let refused = |error: &LoginError| {
        metrics::counter!("fleetline_amqp_login_refused_total", "reason" => error.reason()).increment(1);
        match error {
            LoginError::Expired => Refusal::Unauthorized("the token has expired"),
            LoginError::Malformed(_) => Refusal::Unauthorized("the token is not a shared access signature"),
            _ => Refusal::Unauthorized("the token is refused"),
        }
    };
    let settings = hub.settings();
    let now_secs = hub.now_ms() / 1000;
    let key: DeviceKey = match judge(&settings, now_secs, &token) {
        Ok(Judged::Policy) => return Ok(()),
        Ok(Judged::Device(key)) => key,
        Err(error) => return Err(refused(&error)),
    };
    let presented = device_login(&settings, now_secs, &key, Some(&token), None, |_| false)
        .map_err(|error| refused(&error))?;
    let partition = partition_of_key(key.device.as_bytes(), hub.partitions());
    let verify = Verify { key: key.clone(), proof: presented.proof };
    let asked = hub.ask(partition, Request::Verify(verify)).await.map_err(AskError::Hub).and_then(answered);
    match asked {
        Ok(answer) if answer.verified.is_some() => Ok(()),
        Ok(_) => Err(Refusal::Later),
        Err(AskError::Refused(error)) => match ErrorCode::from_number(error.code) {
            Some(ErrorCode::ServerBusy) | None => Err(Refusal::Later),
            // The leader says why; the caller hears no reason.
            Some(_) => Err(refused(&LoginError::Policy)),
        },
        Err(AskError::Hub(error)) => {
            tracing::debug!(device = key.text(), %error, "token can't be checked now");
            Err(Refusal::Later)
        }
    }
}

/// The answer. "200 = success. Node needs exactly 200."
pub(crate) fn answer(id: &[u8], outcome: Result<(), Refusal>) -> Vec<u8> {
    let (status, text) = outcome.map_or_else(Refusal::status, |()| (200, "OK"));
    let mut out = Vec::new();
    answer_head(&mut out, id, status, text, None).value(|w| w.null());
    out
}
