//! Messages of clients → what the hub keeps: properties by number and as texts, the body's bytes.

use std::borrow::Cow;

use fleetline_amqp::DecodeError;
use fleetline_amqp::message::{Body, Message, id_text};
use fleetline_amqp::value::Value;
use fleetline_devices::{AckMode, CommandRow, Property, SystemPropertyRow};
use fleetline_iothub::bag::{SystemProperty, format_time, is_stamped_name};
use fleetline_iothub::limits::PROPERTIES_MAX;
use fleetline_iothub::names::check_message_id;
use fleetline_iothub::time::parse_time;

/// Why a message isn't taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    /// Its bytes aren't a message.
    #[error("message can't be read: {0}")]
    Decode(#[from] DecodeError),
    /// Something in it can't be.
    #[error("{0}")]
    Invalid(String),
    /// Larger than it may be.
    #[error("message has {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// What came.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
}

/// A message, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Incoming<'a> {
    /// System properties; none that only the hub may say.
    pub(crate) system: Vec<(SystemProperty, Cow<'a, str>)>,
    /// Application properties as texts.
    pub(crate) properties: Vec<(&'a str, Cow<'a, str>)>,
    /// The payload.
    pub(crate) body: Cow<'a, [u8]>,
    /// Where it is addressed to.
    pub(crate) to: Option<&'a str>,
    /// `x-opt-partition-key`.
    pub(crate) partition_key: Option<&'a str>,
}

/// The text of a value, as other wires carry it. Lists and maps have none.
fn text_of<'a>(value: &Value<'a>) -> Option<Cow<'a, str>> {
    Some(match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) | Value::Symbol(text) => Cow::Borrowed(text),
        Value::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
        Value::Ulong(value) => value.to_string().into(),
        Value::Timestamp(value) => format_time(u64::try_from(*value).ok()?).into(),
        Value::Float(value) => value.to_string().into(),
        Value::Double(value) => value.to_string().into(),
        Value::Char(value) => value.to_string().into(),
        Value::Uuid(_) => id_text(value)?.into(),
        Value::Binary(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).ok()?),
        value => value.as_i64()?.to_string().into(),
    })
}

/// Application properties with a meaning.
fn known_property(name: &str) -> Option<SystemProperty> {
    Some(match name {
        "iothub-ack" => SystemProperty::Ack,
        "iothub-message-schema" => SystemProperty::Schema,
        "iothub-creation-time-utc" => SystemProperty::CreationTime,
        "iothub-operation" => SystemProperty::Operation,
        "iothub-outputname" => SystemProperty::OutputName,
        _ => return None,
    })
}

/// Annotations with a meaning, that a device may say.
fn known_annotation(name: &str) -> Option<SystemProperty> {
    Some(match name {
        "iothub-interface-id" => SystemProperty::InterfaceId,
        "dt-subject" => SystemProperty::Component,
        "Diagnostic-Id" => SystemProperty::DiagnosticId,
        "Correlation-Context" => SystemProperty::DiagnosticContext,
        _ => return None,
    })
}

impl<'a> Incoming<'a> {
    /// Takes a message apart.
    pub(crate) fn of(message: &Message<'a>) -> Result<Incoming<'a>, MessageError> {
        let own = message.properties()?;
        let mut incoming = Incoming {
            system: Vec::new(),
            properties: Vec::new(),
            body: body_of(message)?,
            to: own.to,
            partition_key: message
                .message_annotations
                .get("x-opt-partition-key")
                .and_then(|key| key.as_text()),
        };
        let ids = [
            (SystemProperty::MessageId, own.message_id),
            (SystemProperty::CorrelationId, own.correlation_id),
        ];
        for (property, id) in ids {
            let text = match id {
                Value::String(text) => Some(Cow::Borrowed(text)),
                other => id_text(&other).map(Cow::Owned),
            };
            incoming.put(property, text)?;
        }
        let user = own.user_id.map(String::from_utf8_lossy);
        incoming.put(SystemProperty::UserId, user)?;
        incoming.put(SystemProperty::ContentType, own.content_type.map(Cow::Borrowed))?;
        incoming.put(SystemProperty::ContentEncoding, own.content_encoding.map(Cow::Borrowed))?;
        for (property, time) in [
            (SystemProperty::Expiry, own.absolute_expiry_time),
            (SystemProperty::CreationTime, own.creation_time),
        ] {
            let time = time.and_then(|time| u64::try_from(time).ok());
            incoming.put(property, time.map(|time| format_time(time).into()))?;
        }
        for (name, value) in message.message_annotations.iter() {
            if let Some(property) = name.as_text().and_then(known_annotation) {
                incoming.put(property, text_of(&value))?;
            }
        }
        incoming.put_properties(message)?;
        Ok(incoming)
    }

    fn put_properties(&mut self, message: &Message<'a>) -> Result<(), MessageError> {
        for (name, value) in message.application_properties.iter() {
            let name = name.as_text().filter(|name| !name.is_empty());
            let name =
                name.ok_or_else(|| MessageError::Invalid("an application property has no name".to_owned()))?;
            let text = text_of(&value)
                .ok_or_else(|| MessageError::Invalid(format!("property {name} is not a text or a number")))?;
            match known_property(name) {
                Some(property) => self.put(property, Some(text))?,
                // What only the hub may say counts for nothing.
                None if is_stamped_name(name) => {}
                None if self.properties.iter().any(|(known, _)| *known == name) => {}
                None => self.properties.push((name, text)),
            }
        }
        match self.system.len() + self.properties.len() > PROPERTIES_MAX {
            true => Err(MessageError::Invalid(format!("a message has at most {PROPERTIES_MAX} properties"))),
            false => Ok(()),
        }
    }

    /// The first of each counts.
    fn put(&mut self, property: SystemProperty, value: Option<Cow<'a, str>>) -> Result<(), MessageError> {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(()) };
        if property == SystemProperty::MessageId {
            check_message_id(&value).map_err(|error| MessageError::Invalid(error.to_string()))?;
        }
        if self.value(property).is_none() {
            self.system.push((property, value));
        }
        Ok(())
    }

    /// A system property's value.
    pub(crate) fn value(&self, property: SystemProperty) -> Option<&str> {
        self.system.iter().find(|(found, _)| *found == property).map(|(_, value)| value.as_ref())
    }

    /// Bytes as the limit counts them: "body + values of system properties + names and values of user
    /// properties".
    pub(crate) fn size(&self) -> usize {
        let system: usize = self.system.iter().map(|(_, value)| value.len()).sum();
        let properties: usize = self.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.body.len() + system + properties
    }

    /// The command that a service sends; `new_id` names one without a name.
    pub(crate) fn into_command(self, new_id: String) -> Result<CommandRow, MessageError> {
        let value = |property| self.value(property).unwrap_or_default();
        let ack = match value(SystemProperty::Ack).to_ascii_lowercase().as_str() {
            "" | "none" => AckMode::None,
            "positive" => AckMode::Positive,
            "negative" => AckMode::Negative,
            "full" => AckMode::Full,
            _ => {
                let text = "iothub-ack is none of none, positive, negative, full";
                return Err(MessageError::Invalid(text.to_owned()));
            }
        };
        let expires_ms = match value(SystemProperty::Expiry) {
            "" => 0,
            text => parse_time(text)
                .ok_or_else(|| MessageError::Invalid("absolute-expiry-time is out of range".to_owned()))?,
        };
        let message_id = match value(SystemProperty::MessageId) {
            "" => new_id,
            id => id.to_owned(),
        };
        let in_fields = [SystemProperty::Ack, SystemProperty::Expiry, SystemProperty::MessageId];
        let rest = self.system.iter().filter(|(property, _)| !in_fields.contains(property));
        let system = rest.map(|(property, value)| SystemPropertyRow {
            id: property.number().into(),
            value: value.clone().into_owned(),
        });
        Ok(CommandRow {
            system: system.collect(),
            expires_ms,
            ack: ack as i32,
            message_id,
            properties: self
                .properties
                .into_iter()
                .map(|(name, value)| Property { name: name.to_owned(), value: value.into_owned() })
                .collect(),
            body: self.body.into_owned().into(),
            ..CommandRow::default()
        })
    }
}

/// The payload: data as it is; a value that is a text or bytes, too, as some clients send.
fn body_of<'a>(message: &Message<'a>) -> Result<Cow<'a, [u8]>, MessageError> {
    match &message.body {
        Body::None => Ok(Cow::Borrowed(&[])),
        Body::Data(data) => Ok(data.joined()),
        Body::Value(Value::Binary(bytes)) => Ok(Cow::Borrowed(bytes)),
        Body::Value(Value::String(text)) => Ok(Cow::Borrowed(text.as_bytes())),
        Body::Value(Value::Null) => Ok(Cow::Borrowed(&[])),
        Body::Value(_) | Body::Sequence => {
            Err(MessageError::Invalid("the body is neither data nor a text".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetline_amqp::message::{MessageWriter, Properties};

    use super::*;

    fn written(write: impl FnOnce(&mut MessageWriter<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut MessageWriter::new(&mut out));
        out
    }

    /// Ids of uuid type become texts, numbers become texts, what only the hub may say is dropped.
    #[test]
    fn everything() {
        let properties = Properties {
            message_id: Value::Uuid([0xab; 16]),
            correlation_id: Value::Ulong(7),
            user_id: Some(b"me"),
            to: Some("/devices/d/messages/events"),
            content_type: Some("application/json"),
            absolute_expiry_time: Some(1000),
            ..Properties::default()
        };
        let bytes = written(|w| {
            w.message_annotations(|w| {
                w.symbol("dt-subject");
                w.string("thermostat");
                w.symbol("iothub-connection-device-id");
                w.string("other");
                w.symbol("x-opt-partition-key");
                w.string("key");
            })
            .properties(&properties)
            .application_properties(|w| {
                for name in ["n", "iothub-message-schema", "iothub-connection-device-id"] {
                    w.string(name);
                    w.int(-5);
                }
                w.string("b");
                w.bool(true);
            })
            .data(b"one")
            .data(b"two");
        });
        let message = Message::parse(&bytes).unwrap();
        let incoming = Incoming::of(&message).unwrap();
        assert_eq!(incoming.value(SystemProperty::MessageId), Some("abababab-abab-abab-abab-abababababab"));
        assert_eq!(incoming.value(SystemProperty::CorrelationId), Some("7"));
        assert_eq!(incoming.value(SystemProperty::UserId), Some("me"));
        assert_eq!(incoming.value(SystemProperty::Schema), Some("-5"));
        assert_eq!(incoming.value(SystemProperty::Component), Some("thermostat"));
        assert_eq!(incoming.value(SystemProperty::ConnectionDeviceId), None);
        assert_eq!(incoming.properties, [("n", "-5".into()), ("b", "true".into())]);
        assert_eq!((incoming.body.as_ref(), incoming.partition_key), (&b"onetwo"[..], Some("key")));
        let command = incoming.into_command("new".into()).unwrap();
        assert_eq!((command.expires_ms, command.message_id.len()), (1000, 36));
    }

    /// What isn't a message of ours.
    #[test]
    fn refused() {
        let property = |name: &'static str, list: bool| {
            written(|w| {
                w.application_properties(|w| {
                    w.string(name);
                    if list { w.list(|_| {}) } else { w.string("x") }
                })
                .data(b"");
            })
        };
        let many = written(|w| {
            w.application_properties(|w| {
                for at in 0..=PROPERTIES_MAX {
                    w.string(&at.to_string());
                    w.string("x");
                }
            });
        });
        let id = written(|w| {
            w.properties(&Properties { message_id: Value::String("a b"), ..Properties::default() });
        });
        let value = written(|w| {
            w.value(|w| w.map(|_| {}));
        });
        for bytes in [property("", false), property("a", true), many, id, value] {
            let message = Message::parse(&bytes).unwrap();
            assert!(matches!(Incoming::of(&message), Err(MessageError::Invalid(_))));
        }
    }
}
