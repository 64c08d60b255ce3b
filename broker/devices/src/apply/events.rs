//! Events of the hub itself. They wait in the outbox, in order, until the leader has appended them
//! to the stream as records; the append and the outbox's end move in one entry, so each event becomes
//! a record exactly once.

use fleetline_iothub::bag::{SystemProperty, format_time};
use fleetline_state::{KeyKind, StateBatch};
use serde_json::{Value, json};

use crate::effect::Effect;
use crate::endpoints;
use crate::error::DeviceError;
use crate::rows::{DeviceKey, EventRow, Property, SystemPropertyRow};
use crate::state::DeviceState;

/// What an event is about.
pub(crate) struct EventKind {
    pub(crate) source: &'static str,
    pub(crate) operation: &'static str,
    pub(crate) schema: &'static str,
}

impl EventKind {
    pub(crate) const fn lifecycle(operation: &'static str) -> EventKind {
        EventKind { source: "deviceLifecycleEvents", operation, schema: "deviceLifecycleNotification" }
    }

    pub(crate) const fn connection(operation: &'static str) -> EventKind {
        EventKind {
            source: "deviceConnectionStateEvents",
            operation,
            schema: "deviceConnectionStateNotification",
        }
    }

    pub(crate) const fn twin(operation: &'static str) -> EventKind {
        EventKind { source: "twinChangeEvents", operation, schema: "twinChangeNotification" }
    }
}

pub(crate) fn system(id: SystemProperty, value: impl Into<String>) -> SystemPropertyRow {
    SystemPropertyRow { id: id as u32, value: value.into() }
}

impl DeviceState {
    /// Puts an event into the outbox.
    pub(crate) fn emit(&mut self, event: &EventRow, out: &mut StateBatch) {
        let sequence = self.head.outbox_next;
        self.change_head(|head| head.outbox_next += 1);
        self.put(out, KeyKind::Outbox, sequence.to_be_bytes().to_vec(), event);
        if self.effects.last() != Some(&Effect::Outbox) {
            self.effects.push(Effect::Outbox);
        }
    }

    /// Puts an event of the hub into the outbox.
    pub(crate) fn emit_about(
        &mut self,
        key: &DeviceKey,
        kind: &EventKind,
        body: &Value,
        out: &mut StateBatch,
    ) {
        let mut properties = vec![("opType", kind.operation), ("deviceId", key.device.as_str())];
        if key.is_module() {
            properties.push(("moduleId", key.module.as_str()));
        }
        let time = format_time(self.now);
        properties.push(("operationTimestamp", &time));
        properties.push(("iothub-message-schema", kind.schema));
        let property =
            |(name, value): &(&str, &str)| Property { name: (*name).into(), value: (*value).into() };
        let mut system_properties = vec![
            system(SystemProperty::ConnectionDeviceId, &key.device),
            system(SystemProperty::MessageSource, kind.source),
            system(SystemProperty::ContentType, "application/json"),
            system(SystemProperty::ContentEncoding, "utf-8"),
        ];
        if key.is_module() {
            system_properties.push(system(SystemProperty::ConnectionModuleId, &key.module));
        }
        let event = EventRow {
            device: key.device.clone(),
            time_ms: self.now,
            system: system_properties,
            properties: properties.iter().map(property).collect(),
            body: body.to_string().into_bytes().into(),
            endpoints: endpoints::EVENTS,
        };
        self.emit(&event, out);
    }

    /// Says that a connection came or went. The sequence number orders such events of a device, two
    /// of one takeover too: it is the event's own.
    pub(crate) fn emit_connection(&mut self, key: &DeviceKey, operation: &'static str, out: &mut StateBatch) {
        let body = json!({ "sequenceNumber": format!("{:064X}", self.head.outbox_next) });
        self.emit_about(key, &EventKind::connection(operation), &body, out);
    }

    /// An append of the outbox's events was stored: they leave the outbox.
    ///
    /// # Errors
    /// When the append doesn't begin where the outbox does.
    pub fn outbox_appended(
        &mut self,
        first: u64,
        count: u64,
        out: &mut StateBatch,
    ) -> Result<(), DeviceError> {
        self.outbox_fits(first, count)?;
        for sequence in first..first + count {
            self.delete(out, KeyKind::Outbox, sequence.to_be_bytes().to_vec());
        }
        self.change_head(|head| head.outbox_done = first + count);
        Ok(())
    }

    /// Whether an append of these events is the one that comes next.
    ///
    /// # Errors
    /// When it isn't.
    pub fn outbox_fits(&self, first: u64, count: u64) -> Result<(), DeviceError> {
        let (current, next) = (self.head.outbox_done, self.head.outbox_next);
        if first != current {
            return Err(DeviceError::Precondition { what: "start of the outbox", current, expected: first });
        }
        match first.checked_add(count).is_some_and(|end| end <= next) {
            true => Ok(()),
            false => {
                Err(DeviceError::invalid(format!("{count} events of an outbox from {current} to {next}")))
            }
        }
    }
}
