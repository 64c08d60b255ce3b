//! Hub messages as JSON text.
//!
//! Values stay slices of the frame. Names of properties are case-sensitive, their order is free, unknown
//! ones are skipped. A type that we don't know is no error, whatever else the object holds: clients and
//! servers skip such messages.

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::convert::{is_json_deeper, write_json};
use crate::error::{DecodeError, ValueError};
use crate::limits::{HEADERS_MAX, Limits};
use crate::message::{Completion, Invocation, Message, Outcome, Protocol, StreamItem};
use crate::value::{Arguments, Value};

/// All properties that some message type has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(rename = "type")]
    kind: i64,
    invocation_id: Option<String>,
    target: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    item: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    error: Option<String>,
    stream_ids: Option<Vec<String>>,
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
    allow_reconnect: Option<bool>,
    sequence_id: Option<u64>,
}

/// The one property that tells whether the others matter.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    kind: i64,
}

/// A value that is there, also if it is null.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// Reads one message without its separator; `None` for a type that isn't known.
pub(crate) fn decode(frame: &Bytes, limits: &Limits) -> Result<Option<Message>, DecodeError> {
    let text = std::str::from_utf8(frame).map_err(bad)?;
    // The object of the message is a level of its own, and so are the arguments.
    if is_json_deeper(text, limits.depth_max.saturating_add(2)) {
        return Err(DecodeError::TooDeep { limit: limits.depth_max });
    }
    if !text.trim_start().starts_with('{') {
        return Err(DecodeError::BadJson { detail: "expected an object".to_owned() });
    }
    match serde_json::from_str::<Fields<'_>>(text) {
        Ok(fields) if is_known(fields.kind) => Reader { frame, limits }.message(fields).map(Some),
        Ok(_) => Ok(None),
        Err(error) => match serde_json::from_str::<Kind>(text) {
            Ok(Kind { kind }) if !is_known(kind) => Ok(None),
            _ => Err(bad(error)),
        },
    }
}

fn is_known(kind: i64) -> bool {
    (1..=9).contains(&kind)
}

fn bad(error: impl ToString) -> DecodeError {
    DecodeError::BadJson { detail: error.to_string() }
}

fn missing(message: &'static str, what: &'static str) -> DecodeError {
    DecodeError::Missing { message, what }
}

struct Reader<'a> {
    frame: &'a Bytes,
    limits: &'a Limits,
}

impl Reader<'_> {
    fn message(&self, fields: Fields<'_>) -> Result<Message, DecodeError> {
        check_headers(fields.headers)?;
        Ok(match fields.kind {
            1 => Message::Invocation(self.invocation("invocation", fields)?),
            2 => Message::StreamItem(StreamItem {
                invocation_id: id("stream item", fields.invocation_id)?,
                item: self.value(fields.item.ok_or(missing("stream item", "item"))?),
            }),
            3 => Message::Completion(self.completion(fields)?),
            4 => {
                let invocation = self.invocation("stream invocation", fields)?;
                id("stream invocation", invocation.invocation_id.clone())?;
                Message::StreamInvocation(invocation)
            }
            5 => Message::CancelInvocation { invocation_id: id("cancel invocation", fields.invocation_id)? },
            6 => Message::Ping,
            7 => Message::Close {
                error: fields.error,
                allow_reconnect: fields.allow_reconnect.unwrap_or_default(),
            },
            8 => Message::Ack { sequence_id: fields.sequence_id.ok_or(missing("ack", "sequence id"))? },
            _ => Message::Sequence {
                sequence_id: fields.sequence_id.ok_or(missing("sequence", "sequence id"))?,
            },
        })
    }

    fn value(&self, raw: &RawValue) -> Value {
        Value::trusted(Protocol::Json, self.frame.slice_ref(raw.get().as_bytes()))
    }

    fn invocation(&self, message: &'static str, fields: Fields<'_>) -> Result<Invocation, DecodeError> {
        let target = fields.target.filter(|target| !target.is_empty()).ok_or(missing(message, "target"))?;
        let raw = fields.arguments.ok_or(missing(message, "arguments"))?;
        let count = serde_json::from_str::<Vec<serde::de::IgnoredAny>>(raw.get()).map_err(bad)?.len();
        at_most("arguments", count, self.limits.arguments_max)?;
        let stream_ids = fields.stream_ids.unwrap_or_default();
        at_most("streams", stream_ids.len(), self.limits.stream_ids_max)?;
        Ok(Invocation {
            invocation_id: fields.invocation_id.filter(|id| !id.is_empty()),
            target,
            arguments: Arguments::trusted(self.value(raw), count),
            stream_ids,
        })
    }

    fn completion(&self, fields: Fields<'_>) -> Result<Completion, DecodeError> {
        let invocation_id = id("completion", fields.invocation_id)?;
        let outcome = match (fields.error, fields.result) {
            (Some(_), Some(_)) => return Err(DecodeError::ResultAndError),
            (Some(error), None) => Outcome::Error(error),
            (None, Some(result)) => Outcome::Result(self.value(result)),
            (None, None) => Outcome::Void,
        };
        Ok(Completion { invocation_id, outcome })
    }
}

fn id(message: &'static str, id: Option<String>) -> Result<String, DecodeError> {
    id.filter(|id| !id.is_empty()).ok_or(missing(message, "invocation id"))
}

/// Fails if there are more than `limit`.
pub(crate) fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), DecodeError> {
    if count > limit { Err(DecodeError::TooMany { what, limit }) } else { Ok(()) }
}

/// Headers are a map from string to string, and are dropped.
fn check_headers(headers: Option<&RawValue>) -> Result<(), DecodeError> {
    let Some(headers) = headers else { return Ok(()) };
    let map: std::collections::BTreeMap<String, String> = serde_json::from_str(headers.get()).map_err(bad)?;
    at_most("headers", map.len(), HEADERS_MAX)
}

/// Writes a message without its separator.
pub(crate) fn body(message: &Message) -> Result<Vec<u8>, ValueError> {
    let mut object = Object::of_type(message.kind());
    match message {
        Message::Invocation(invocation) | Message::StreamInvocation(invocation) => {
            write_invocation(&mut object, invocation)?;
        }
        Message::StreamItem(StreamItem { invocation_id, item }) => {
            object.put("invocationId", invocation_id);
            object.raw("item", &item.to_json()?);
        }
        Message::Completion(Completion { invocation_id, outcome }) => {
            object.put("invocationId", invocation_id);
            match outcome {
                Outcome::Error(error) => object.put("error", error),
                Outcome::Void => {}
                Outcome::Result(result) => object.raw("result", &result.to_json()?),
            }
        }
        Message::CancelInvocation { invocation_id } => object.put("invocationId", invocation_id),
        Message::Ping => {}
        Message::Close { error, allow_reconnect } => {
            if let Some(error) = error {
                object.put("error", error);
            }
            if *allow_reconnect {
                object.put("allowReconnect", allow_reconnect);
            }
        }
        Message::Ack { sequence_id } | Message::Sequence { sequence_id } => {
            object.put("sequenceId", sequence_id);
        }
    }
    Ok(object.end())
}

fn write_invocation(object: &mut Object, invocation: &Invocation) -> Result<(), ValueError> {
    if let Some(id) = &invocation.invocation_id {
        object.put("invocationId", id);
    }
    object.put("target", &invocation.target);
    object.raw("arguments", &invocation.arguments.array().to_json()?);
    if !invocation.stream_ids.is_empty() {
        let ids = invocation.stream_ids.iter().map(|id| serde_json::Value::from(id.as_str()));
        object.put("streamIds", &serde_json::Value::from_iter(ids));
    }
    Ok(())
}

/// A JSON object that grows.
struct Object(Vec<u8>);

impl Object {
    fn of_type(kind: u8) -> Object {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(b"{\"type\":");
        write_json(&mut out, &kind);
        Object(out)
    }

    /// Appends a property; `name` needs no escape.
    fn put<T: serde::Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.name(name);
        write_json(&mut self.0, value);
    }

    fn raw(&mut self, name: &str, json: &[u8]) {
        self.name(name);
        self.0.extend_from_slice(json);
    }

    fn name(&mut self, name: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}
