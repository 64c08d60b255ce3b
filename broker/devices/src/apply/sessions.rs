//! Sessions: at most one live connection an identity (P12), and what outlives it.

use fleetline_iothub::bag::{Bag, SystemProperty, parse_into};
use fleetline_state::{KeyKind, StateBatch, StateError};

use super::Applied;
use super::events::system;
use crate::command::{CloseSession, DeviceReply, OpenSession, SessionOpened, Subscribe};
use crate::endpoints;
use crate::error::DeviceError;
use crate::limits::SUBSCRIPTIONS_MAX;
use crate::rows::{ConnectionPlace, DeviceKey, EventRow, Property, SessionRow, SystemPropertyRow, WillRow};
use crate::state::{DeviceState, missing};

impl DeviceState {
    pub(super) fn open_session(&mut self, open: &OpenSession, out: &mut StateBatch) -> Applied {
        let key = &open.key;
        self.entitled(key, open.auth_version)?;
        let mut twin = self.twin(key)?.ok_or_else(|| missing(key))?;
        let desired = fleetline_twins::Section::decode(&twin.desired)
            .map_err(|error| DeviceError::invalid(error.to_string()))?;
        if let Some(last) = self.session(key)? {
            self.take_over(key, &last, &open.place, out)?;
        }
        let old = self.session(key)?.filter(|session| !session.clean && !open.fresh);
        let session = SessionRow {
            epoch: self.at,
            connected: true,
            place: open.place.clone(),
            clean: open.clean,
            subscriptions: old.as_ref().map(|old| old.subscriptions.clone()).unwrap_or_default(),
            changed_ms: self.now,
            active_ms: self.now,
            will: open.will.clone(),
        };
        self.put(out, KeyKind::Session, key.row_key(), &session);
        self.count_connected(key, true);
        if !open.model_id.is_empty() && open.model_id != twin.model_id {
            twin.model_id.clone_from(&open.model_id);
            self.put(out, KeyKind::Twin, key.row_key(), &twin);
        }
        self.emit_connection(key, "deviceConnected", out);
        let opened = SessionOpened { session, present: old.is_some(), desired_version: desired.version };
        Ok(DeviceReply { opened: Some(opened), ..DeviceReply::default() })
    }

    /// Ends the last connection for good. One that is closed already may have left records in its
    /// gateway; another gateway's connection must not be followed by them (P12).
    fn take_over(
        &mut self,
        key: &DeviceKey,
        last: &SessionRow,
        place: &ConnectionPlace,
        out: &mut StateBatch,
    ) -> Result<(), StateError> {
        // [MQTT-3.1.2-8]: the will is published when the connection is closed, unless by DISCONNECT.
        if let (Some(will), true) = (&last.will, last.connected) {
            let event = self.will_event(key, will);
            self.emit(&event, out);
        }
        let elsewhere = (last.place.node, last.place.incarnation) != (place.node, place.incarnation);
        match last.connected || elsewhere {
            true => self.fence(key, false, out),
            false => Ok(()),
        }
    }

    pub(super) fn close_session(&mut self, close: &CloseSession, out: &mut StateBatch) -> Applied {
        let key = &close.key;
        let session = self.live_session(key, close.epoch)?;
        if let (Some(will), false) = (&session.will, close.graceful) {
            let event = self.will_event(key, will);
            self.emit(&event, out);
        }
        let subscriptions = if session.clean { Vec::new() } else { session.subscriptions.clone() };
        let closed = SessionRow {
            connected: false,
            changed_ms: self.now,
            active_ms: self.now,
            will: None,
            subscriptions,
            ..session
        };
        self.put(out, KeyKind::Session, key.row_key(), &closed);
        self.count_connected(key, false);
        self.emit_connection(key, "deviceDisconnected", out);
        Ok(DeviceReply::default())
    }

    /// A will is telemetry with a property that says so.
    fn will_event(&self, key: &DeviceKey, will: &WillRow) -> EventRow {
        let mut bag = Bag::default();
        // The gateway has parsed it before it let it in.
        let parsed = parse_into(&will.bag, &mut bag).is_ok();
        let row = |(id, value): &(SystemProperty, _)| SystemPropertyRow {
            id: *id as u32,
            value: String::from(AsRef::<str>::as_ref(value)),
        };
        let mut system_properties: Vec<_> = bag.system.iter().filter(|_| parsed).map(row).collect();
        system_properties.push(system(SystemProperty::ConnectionDeviceId, &key.device));
        if key.is_module() {
            system_properties.push(system(SystemProperty::ConnectionModuleId, &key.module));
        }
        system_properties.push(system(SystemProperty::MessageSource, "Telemetry"));
        let application = bag.application.iter().filter(|_| parsed);
        let mut properties: Vec<Property> = application
            .map(|(name, value)| Property { name: name.to_string(), value: value.to_string() })
            .collect();
        properties.push(Property { name: "iothub-MessageType".to_owned(), value: "Will".to_owned() });
        EventRow {
            device: key.device.clone(),
            time_ms: self.now,
            system: system_properties,
            properties,
            body: will.body.clone(),
            endpoints: endpoints::TELEMETRY,
        }
    }

    pub(super) fn subscribe(&mut self, subscribe: &Subscribe, out: &mut StateBatch) -> Applied {
        let key = &subscribe.key;
        let mut session = self.live_session(key, subscribe.epoch)?;
        session.subscriptions.retain(|known| {
            !subscribe.remove.contains(&known.filter)
                && subscribe.add.iter().all(|added| added.filter != known.filter)
        });
        for (place, added) in subscribe.add.iter().enumerate() {
            // Of several with one filter the last counts.
            if subscribe.add[place + 1..].iter().all(|later| later.filter != added.filter) {
                session.subscriptions.push(added.clone());
            }
        }
        if session.subscriptions.len() > SUBSCRIPTIONS_MAX {
            let text = format!("a session has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(DeviceError::Limit(text).into());
        }
        self.put(out, KeyKind::Session, key.row_key(), &session);
        Ok(DeviceReply::default())
    }
}
