//! The JSON of a batch of messages:
//! `[{"body": "...", "base64Encoded": true, "properties": {"iothub-app-a": "b"}}, …]`.
//!
//! Node builds it by hand, without escaping what stands in values, so anything may come.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::super::errors::HttpError;
use super::super::message::Message;

/// The media type of a batch.
pub(super) const MEDIA_TYPE: &str = "application/vnd.microsoft.iothub.json";

/// Messages of a batch; as the public hub has it.
const MESSAGES_MAX: usize = 500;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    #[serde(default)]
    body: Option<String>,
    /// "Defaults to true when missing (Node, .NET omit it; C sends false for text)."
    #[serde(default)]
    base64_encoded: Option<bool>,
    #[serde(default)]
    properties: Option<BTreeMap<String, Value>>,
}

/// Reads a batch.
pub(super) fn parse(body: &[u8]) -> Result<Vec<Message>, HttpError> {
    let items: Vec<Item> =
        serde_json::from_slice(body).map_err(|error| HttpError::malformed("batch", &error))?;
    if items.is_empty() || items.len() > MESSAGES_MAX {
        let text = format!("a batch has {} messages, from 1 to {MESSAGES_MAX} are allowed", items.len());
        return Err(HttpError::invalid(text));
    }
    items.into_iter().map(message).collect()
}

fn message(item: Item) -> Result<Message, HttpError> {
    let text = item.body.unwrap_or_default();
    let body = match item.base64_encoded.unwrap_or(true) {
        true => STANDARD
            .decode(text.trim())
            .map_err(|error| HttpError::invalid(format!("body of a message is not Base64: {error}")))?,
        false => text.into_bytes(),
    };
    let mut message = Message { body: body.into(), ..Message::default() };
    for (name, value) in item.properties.unwrap_or_default() {
        match value {
            Value::String(value) => message.put(&name, &value)?,
            Value::Number(_) | Value::Bool(_) => message.put(&name, &value.to_string())?,
            Value::Null => message.put(&name, "")?,
            Value::Array(_) | Value::Object(_) => {
                return Err(HttpError::invalid(format!("property {name} is not a text")));
            }
        }
    }
    message.checked()
}

#[cfg(test)]
mod tests {
    use fleetline_iothub::bag::SystemProperty;

    use super::*;

    /// The forms of Node (no flag, no properties), C (plain text) and .NET (system headers among the
    /// properties).
    #[test]
    fn forms_of_the_sdks() {
        let batch = br#"[{"body":"aGk="},
            {"body":"hi","base64Encoded":false,"properties":{"iothub-app-Room":"4"}},
            {"body":"","properties":{"iothub-messageid":"m","iothub-contenttype":"text/plain","n":7}}]"#;
        let messages = parse(batch).unwrap();
        assert_eq!((messages[0].body.as_ref(), messages[1].body.as_ref()), (&b"hi"[..], &b"hi"[..]));
        // In JSON, unlike in headers, names keep their case.
        assert_eq!(messages[1].properties, [("Room".to_owned(), "4".to_owned())]);
        assert_eq!(messages[2].value(SystemProperty::MessageId), Some("m"));
        assert_eq!(messages[2].properties, [("n".to_owned(), "7".to_owned())]);
    }

    #[test]
    fn malformed_batches_are_refused() {
        let many = format!("[{}]", vec!["{}"; MESSAGES_MAX + 1].join(","));
        let deep = format!("[{{\"properties\":{{\"a\":{}", "[".repeat(100_000));
        let rows = [
            "",
            "[]",
            "{}",
            "[1]",
            "[{\"body\":7}]",
            "[{\"body\":\"no base64!\"}]",
            &many,
            &deep,
            "[{\"body\":\"\",\"properties\":{\"iothub-app-a\":\"x\"y\"}}]",
            "[{\"properties\":{\"iothub-app-a\":[]}}]",
            "[{\"properties\":{\"iothub-app-\":\"x\"}}]",
        ];
        for batch in rows {
            assert!(parse(batch.as_bytes()).is_err(), "{}", batch.get(..40).unwrap_or(batch));
        }
        assert!(parse(b"[{\"body\":\"\xff\"}]").is_err());
    }
}
