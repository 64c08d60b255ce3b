//! What the hub keeps → messages for clients. Heads are written here; bodies go as they are stored.

use fleetline_amqp::Writer;
use fleetline_amqp::message::{MessageWriter, Properties};
use fleetline_amqp::value::Value;
use fleetline_batch::RecordView;
use fleetline_devices::{AckMode, CommandRow};
use fleetline_iothub::bag::SystemProperty;
use fleetline_iothub::time::parse_time;

/// A stored record, where it is, and when its leader took it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) record: &'a RecordView,
    pub(crate) offset: u64,
    pub(crate) enqueued_ms: u64,
}

/// How far a partition goes, for receivers that want to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metric {
    /// One behind the last record.
    pub(crate) end: u64,
    pub(crate) last_enqueued_ms: u64,
    pub(crate) read_ms: u64,
}

/// System properties of a record by number; texts that aren't UTF-8 count for nothing.
struct System(Vec<(SystemProperty, String)>);

impl System {
    fn of(record: &RecordView) -> System {
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        let known = |(id, value): (u8, bytes::Bytes)| Some((SystemProperty::from_number(id)?, text(&value)?));
        System(record.system().filter_map(known).collect())
    }

    fn get(&self, property: SystemProperty) -> Option<&str> {
        self.0.iter().find(|(found, _)| *found == property).map(|(_, value)| value.as_str())
    }
}

fn symbol_and_text(w: &mut Writer<'_>, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        w.symbol(name);
        w.string(text);
    }
}

/// The head of an event for an Event Hubs consumer; the record's body follows it.
pub(crate) fn event_head(out: &mut Vec<u8>, stored: Stored<'_>, metric: Option<Metric>) {
    let system = System::of(stored.record);
    let device = std::str::from_utf8(&stored.record.device).unwrap_or_default();
    let module = system.get(SystemProperty::ConnectionModuleId);
    let auth = system.get(SystemProperty::ConnectionAuthMethod);
    // Who sends to the stream by itself has a key, and is no device.
    let is_device = auth.is_some()
        || system.get(SystemProperty::ConnectionDeviceId).is_some()
        || system.get(SystemProperty::MessageSource).is_some();
    let mut writer = MessageWriter::new(out);
    if let Some(metric) = metric {
        writer.delivery_annotations(|w| metrics(w, metric));
    }
    writer.message_annotations(|w| {
        w.symbol("x-opt-sequence-number");
        w.long(stored.offset as i64);
        w.symbol("x-opt-offset");
        w.string(&stored.offset.to_string());
        w.symbol("x-opt-enqueued-time");
        w.timestamp(stored.enqueued_ms as i64);
        symbol_and_text(w, "x-opt-partition-key", Some(device).filter(|key| !key.is_empty()));
        if !is_device {
            return;
        }
        w.symbol("iothub-enqueuedtime");
        w.timestamp(stored.enqueued_ms as i64);
        let sender = system.get(SystemProperty::ConnectionDeviceId).unwrap_or(device);
        symbol_and_text(w, "iothub-connection-device-id", Some(sender));
        symbol_and_text(w, "iothub-connection-module-id", module);
        if let Some(auth) = auth {
            symbol_and_text(w, "iothub-connection-auth-method", Some(&auth_method(auth, module.is_some())));
        }
        let generation = system.get(SystemProperty::ConnectionGenerationId);
        symbol_and_text(w, "iothub-connection-auth-generation-id", generation);
        let source = system.get(SystemProperty::MessageSource).unwrap_or("Telemetry");
        symbol_and_text(w, "iothub-message-source", Some(source));
        symbol_and_text(w, "dt-dataschema", system.get(SystemProperty::ModelId));
        symbol_and_text(w, "dt-subject", system.get(SystemProperty::Component));
        symbol_and_text(w, "iothub-interface-id", system.get(SystemProperty::InterfaceId));
    });
    let to = match module {
        _ if !is_device || device.is_empty() => None,
        Some(module) => Some(format!("/devices/{device}/modules/{module}/messages/events")),
        None => Some(format!("/devices/{device}/messages/events")),
    };
    let time = |property| system.get(property).and_then(parse_time).map(|ms| ms as i64);
    let id = |property| system.get(property).map_or(Value::Null, Value::String);
    writer.properties(&Properties {
        message_id: id(SystemProperty::MessageId),
        user_id: system.get(SystemProperty::UserId).map(str::as_bytes),
        to: to.as_deref(),
        correlation_id: id(SystemProperty::CorrelationId),
        content_type: system.get(SystemProperty::ContentType),
        content_encoding: system.get(SystemProperty::ContentEncoding),
        absolute_expiry_time: time(SystemProperty::Expiry),
        ..Properties::default()
    });
    let named = [
        (SystemProperty::CreationTime, "iothub-creation-time-utc"),
        (SystemProperty::Schema, "iothub-message-schema"),
    ];
    writer.application_properties(|w| {
        for (name, value) in stored.record.properties() {
            w.string(&String::from_utf8_lossy(&name));
            w.string(&String::from_utf8_lossy(&value));
        }
        for (property, name) in named {
            if let Some(value) = system.get(property) {
                w.string(name);
                w.string(value);
            }
        }
    });
    writer.data_head(stored.record.body.len());
}

fn metrics(w: &mut Writer<'_>, metric: Metric) {
    let last = i64::try_from(metric.end).unwrap_or(i64::MAX) - 1;
    w.symbol("last_enqueued_sequence_number");
    w.long(last);
    w.symbol("last_enqueued_offset");
    w.string(&last.to_string());
    w.symbol("last_enqueued_time_utc");
    w.timestamp(metric.last_enqueued_ms as i64);
    w.symbol("runtime_info_retrieval_time_utc");
    w.timestamp(metric.read_ms as i64);
}

/// How the sender has proved itself, spelt out as the public hub does.
fn auth_method(stored: &str, is_module: bool) -> String {
    let scope = if is_module { "module" } else { "device" };
    let (scope, kind, issuer) = match stored {
        "s" => (scope, "sas", "iothub"),
        "p" => ("hub", "sas", "iothub"),
        "x" => (scope, "x509Certificate", "external"),
        other => return other.to_owned(),
    };
    format!(r#"{{"scope":"{scope}","type":"{kind}","issuer":"{issuer}","acceptingIpFilterRule":null}}"#)
}

fn text_or_null(text: &str) -> Value<'_> {
    if text.is_empty() { Value::Null } else { Value::String(text) }
}

/// The head of a command for a device; the command's body follows it. Types as .NET reads them.
pub(crate) fn command_head(out: &mut Vec<u8>, to: &str, command: &CommandRow, lock_token: &str) {
    let system = |property: SystemProperty| {
        let mut rows = command.system.iter();
        rows.find(|row| row.id == u32::from(property.number())).map(|row| row.value.as_str())
    };
    let ack = match AckMode::try_from(command.ack).unwrap_or(AckMode::None) {
        AckMode::None => None,
        AckMode::Positive => Some("positive"),
        AckMode::Negative => Some("negative"),
        AckMode::Full => Some("full"),
    };
    MessageWriter::new(out)
        .message_annotations(|w| {
            w.symbol("iothub-enqueuedtime");
            w.timestamp(command.enqueued_ms as i64);
            w.symbol("iothub-deliverycount");
            w.ubyte(u8::try_from(command.deliveries).unwrap_or(u8::MAX));
            w.symbol("x-opt-sequence-number");
            w.ulong(command.sequence);
            w.symbol("x-opt-lock-token");
            w.string(lock_token);
        })
        .properties(&Properties {
            message_id: text_or_null(&command.message_id),
            user_id: system(SystemProperty::UserId).map(str::as_bytes),
            to: Some(to),
            correlation_id: text_or_null(system(SystemProperty::CorrelationId).unwrap_or_default()),
            content_type: system(SystemProperty::ContentType),
            content_encoding: system(SystemProperty::ContentEncoding),
            absolute_expiry_time: Some(command.expires_ms as i64).filter(|time| *time > 0),
            ..Properties::default()
        })
        .application_properties(|w| {
            for row in &command.properties {
                w.string(&row.name);
                w.string(&row.value);
            }
            for (name, value) in [
                ("iothub-ack", ack),
                ("iothub-message-schema", system(SystemProperty::Schema)),
                ("iothub-creation-time-utc", system(SystemProperty::CreationTime)),
            ] {
                if let Some(value) = value {
                    w.string(name);
                    w.string(value);
                }
            }
        })
        .data_head(command.body.len());
}
