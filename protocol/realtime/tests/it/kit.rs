//! What the modules share: short ways to write messages, and a generator of any.

use bytes::Bytes;
use fleetline_signalr::{
    Arguments, Completion, DecodeError, Decoder, Invocation, Limits, Message, Outcome, Protocol, StreamItem,
    Value,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

pub const BOTH: [Protocol; 2] = [Protocol::Json, Protocol::MessagePack];

pub fn arguments(json: &str) -> Arguments {
    Arguments::json(Bytes::copy_from_slice(json.as_bytes())).unwrap()
}

pub fn value(json: &str) -> Value {
    Value::json(Bytes::copy_from_slice(json.as_bytes())).unwrap()
}

pub fn invocation(id: Option<&str>, target: &str, json: &str) -> Invocation {
    Invocation { invocation_id: id.map(str::to_owned), ..Invocation::new(target, arguments(json)) }
}

pub fn completion(id: &str, outcome: Outcome) -> Message {
    Message::Completion(Completion { invocation_id: id.to_owned(), outcome })
}

/// Bytes from hex digits and spaces.
pub fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// All messages of one payload; fails if a part of a message is left.
pub fn decode_with(protocol: Protocol, limits: Limits, payload: &[u8]) -> Result<Vec<Message>, DecodeError> {
    let mut decoder = Decoder::new(protocol, limits);
    decoder.feed(Bytes::copy_from_slice(payload));
    let mut messages = Vec::new();
    while let Some(message) = decoder.next()? {
        messages.push(message);
    }
    Ok(messages)
}

pub fn decode(protocol: Protocol, payload: &[u8]) -> Result<Vec<Message>, DecodeError> {
    decode_with(protocol, Limits::default(), payload)
}

/// The message as it is once it has been sent in a protocol: its values are in that.
pub fn in_protocol(message: &Message, protocol: Protocol) -> Message {
    decode(protocol, &message.to_bytes(protocol).unwrap()).unwrap().remove(0)
}

/// JSON that both protocols can say, so that a text comes back as it went.
pub fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<i8>().prop_map(Into::into),
        any::<f64>().prop_filter("json has no others", |float| float.is_finite()).prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        "[a-z]{0,70}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 40, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Into::into),
            vec((any::<String>(), inner), 0..20)
                .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof!["[0-9]{1,6}", "\\PC{1,20}"]
}

fn any_invocation(id: impl Strategy<Value = Option<String>>) -> impl Strategy<Value = Invocation> {
    (id, "\\PC{1,20}", vec(json_value(), 0..5), vec("[a-z0-9]{1,5}", 0..4)).prop_map(
        |(invocation_id, target, list, stream_ids)| Invocation {
            invocation_id,
            target,
            arguments: arguments(&serde_json::Value::from(list).to_string()),
            stream_ids,
        },
    )
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<String>().prop_map(Outcome::Error),
        Just(Outcome::Void),
        json_value().prop_map(|result| Outcome::Result(value(&result.to_string()))),
    ]
}

/// Any message whose values are JSON.
pub fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        any_invocation(option::of(id())).prop_map(Message::Invocation),
        any_invocation(id().prop_map(Some)).prop_map(Message::StreamInvocation),
        (id(), json_value()).prop_map(|(invocation_id, item)| {
            Message::StreamItem(StreamItem { invocation_id, item: value(&item.to_string()) })
        }),
        (id(), any_outcome()).prop_map(|(id, outcome)| completion(&id, outcome)),
        id().prop_map(|invocation_id| Message::CancelInvocation { invocation_id }),
        Just(Message::Ping),
        (option::of(any::<String>()), any::<bool>())
            .prop_map(|(error, allow_reconnect)| Message::Close { error, allow_reconnect }),
        any::<u64>().prop_map(|sequence_id| Message::Ack { sequence_id }),
        any::<u64>().prop_map(|sequence_id| Message::Sequence { sequence_id }),
    ]
}

/// Limits that a generated message keeps.
pub fn wide() -> Limits {
    Limits { message_bytes_max: 1 << 20, ..Limits::default() }
}
