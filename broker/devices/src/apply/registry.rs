//! Identities: made, changed, removed, each a compare-and-set by etag (P10). What takes a right away
//! fences (P11).

use bytes::Bytes;
use fleetline_iothub::names::{check_device_id, check_module_id};
use fleetline_state::{KeyKind, StateBatch, StateError};
use fleetline_twins::Section;

use super::events::EventKind;
use super::twins::twin_body;
use super::{Applied, check_tag};
use crate::command::{Condition, DeleteDevice, DeviceReply, PutDevice};
use crate::error::DeviceError;
use crate::limits::{MODULES_MAX, QUEUE_MAX};
use crate::rows::{
    AuthKind, AuthRow, CommandRow, DeviceKey, DeviceRow, DeviceSpec, FeedbackRow, TwinRow, UploadRow,
};
use crate::state::{DeviceState, Fail, missing};

/// Modules that every edge device has from the start.
const EDGE_MODULES: [&str; 2] = ["$edgeAgent", "$edgeHub"];

impl DeviceState {
    pub(super) fn put_device(&mut self, put: &PutDevice, out: &mut StateBatch) -> Applied {
        let key = &put.key;
        check_ids(key)?;
        let old = self.device(key)?;
        match (&old, put.condition.kind) {
            (None, _) if is_hub_module(key) => return Err(DeviceError::HubModule(key.text()).into()),
            (None, Condition::ABSENT | Condition::UPSERT) => {}
            (None, _) => return Err(missing(key).into()),
            (Some(_), Condition::ABSENT) => {
                return Err(match key.is_module() {
                    true => DeviceError::ModuleExists(key.text()),
                    false => DeviceError::Exists(key.text()),
                }
                .into());
            }
            (Some(row), _) => check_tag("etag of the identity", &put.condition, row.etag)?,
        }
        let mut spec = put.spec.clone();
        fill_keys(&mut spec.auth, old.as_ref().map(|row| &row.spec.auth), put)?;
        let row = match old {
            Some(old) => self.change_device(old, spec, out)?,
            None => self.make_device(put, spec, out)?,
        };
        let created = row.etag == 1;
        Ok(DeviceReply { device: Some(row), created, ..DeviceReply::default() })
    }

    fn change_device(
        &mut self,
        old: DeviceRow,
        spec: DeviceSpec,
        out: &mut StateBatch,
    ) -> Result<DeviceRow, Fail> {
        let key = old.key.clone();
        let status = spec.disabled != old.spec.disabled;
        let proof = spec.auth != old.spec.auth;
        let row = DeviceRow {
            etag: old.etag + 1,
            status_changed_ms: if status { self.now } else { old.status_changed_ms },
            auth_version: if status || proof { self.at } else { old.auth_version },
            spec,
            ..old.clone()
        };
        if !key.is_module() && status {
            let disabled = row.spec.disabled;
            self.change_head(|head| match disabled {
                true => head.disabled += 1,
                false => head.disabled = head.disabled.saturating_sub(1),
            });
        }
        self.put(out, KeyKind::Device, key.row_key(), &row);
        if (status && row.spec.disabled) || proof {
            self.fence(&key, true, out)?;
        }
        if row.spec.edge && !old.spec.edge && !key.is_module() {
            self.make_edge_modules(&key.device, out)?;
        }
        Ok(row)
    }

    fn make_device(
        &mut self,
        put: &PutDevice,
        spec: DeviceSpec,
        out: &mut StateBatch,
    ) -> Result<DeviceRow, Fail> {
        let key = put.key.clone();
        if key.is_module() {
            self.existing(&DeviceKey::device(&key.device))?;
            if self.modules_of(&key.device)?.len() >= MODULES_MAX {
                return Err(DeviceError::Limit(format!("a device has at most {MODULES_MAX} modules")).into());
            }
        }
        let twin = self.new_twin(&put.tags, &put.desired)?;
        let body = twin_body(&key, &twin)?;
        let row = DeviceRow {
            key: key.clone(),
            generation: self.generation(),
            etag: 1,
            status_changed_ms: 0,
            auth_version: self.at,
            created_ms: self.now,
            spec,
        };
        self.put(out, KeyKind::Device, key.row_key(), &row);
        self.put(out, KeyKind::Twin, key.row_key(), &twin);
        if !key.is_module() {
            let disabled = u64::from(row.spec.disabled);
            self.change_head(|head| {
                head.devices += 1;
                head.disabled += disabled;
            });
        }
        self.emit_about(&key, &EventKind::lifecycle("createDeviceIdentity"), &body, out);
        if row.spec.edge && !key.is_module() {
            self.make_edge_modules(&key.device, out)?;
        }
        Ok(row)
    }

    /// The hub's own modules of an edge device, where they don't exist.
    fn make_edge_modules(&mut self, device: &str, out: &mut StateBatch) -> Result<(), Fail> {
        for module in EDGE_MODULES {
            let key = DeviceKey::module(device, module);
            if self.device(&key)?.is_none() {
                self.make_edge_module(key, out)?;
            }
        }
        Ok(())
    }

    fn make_edge_module(&mut self, key: DeviceKey, out: &mut StateBatch) -> Result<(), Fail> {
        let auth = AuthRow { kind: AuthKind::None as i32, ..AuthRow::default() };
        let row = DeviceRow {
            key: key.clone(),
            generation: self.generation(),
            etag: 1,
            status_changed_ms: 0,
            auth_version: self.at,
            created_ms: self.now,
            spec: DeviceSpec { auth, managed_by: "iotEdge".to_owned(), ..DeviceSpec::default() },
        };
        let twin = self.new_twin(&Bytes::new(), &Bytes::new())?;
        self.put(out, KeyKind::Device, key.row_key(), &row);
        self.put(out, KeyKind::Twin, key.row_key(), &twin);
        Ok(())
    }

    pub(super) fn delete_device(&mut self, delete: &DeleteDevice, out: &mut StateBatch) -> Applied {
        let key = &delete.key;
        let row = self.existing(key)?;
        if is_hub_module(key) {
            return Err(DeviceError::HubModule(key.text()).into());
        }
        check_tag("etag of the identity", &delete.condition, row.etag)?;
        let body = twin_body(key, &self.twin(key)?.ok_or_else(|| missing(key))?)?;
        // Before the rows go: it ends the sessions that it finds.
        self.fence(key, true, out)?;
        let modules = if key.is_module() { Vec::new() } else { self.modules_of(&key.device)? };
        for module in &modules {
            self.delete_rows(module, out)?;
        }
        self.delete_rows(key, out)?;
        if !key.is_module() {
            self.change_head(|head| {
                head.devices = head.devices.saturating_sub(1);
                head.disabled = head.disabled.saturating_sub(u64::from(row.spec.disabled));
            });
        }
        self.emit_about(key, &EventKind::lifecycle("deleteDeviceIdentity"), &body, out);
        Ok(DeviceReply::default())
    }

    fn delete_rows(&mut self, key: &DeviceKey, out: &mut StateBatch) -> Result<(), StateError> {
        for kind in [KeyKind::Device, KeyKind::Twin, KeyKind::Session, KeyKind::CommandQueue] {
            self.delete(out, kind, key.row_key());
        }
        for (row_key, _) in
            self.scan::<CommandRow>(KeyKind::Command, &key.numbered_prefix(), QUEUE_MAX as usize)?
        {
            self.delete(out, KeyKind::Command, row_key);
        }
        for (row_key, _) in self.scan::<UploadRow>(KeyKind::Upload, &key.numbered_prefix(), usize::MAX)? {
            self.delete(out, KeyKind::Upload, row_key);
        }
        if self.head.feedback > 0 {
            for (row_key, row) in self.scan::<FeedbackRow>(KeyKind::Feedback, b"", usize::MAX)? {
                if row.key == *key {
                    self.delete(out, KeyKind::Feedback, row_key);
                    self.change_head(|head| head.feedback = head.feedback.saturating_sub(1));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn modules_of(&self, device: &str) -> Result<Vec<DeviceKey>, StateError> {
        let prefix = [device.as_bytes(), &[0]].concat();
        let rows = self.scan::<DeviceRow>(KeyKind::Device, &prefix, usize::MAX)?;
        Ok(rows.into_iter().map(|(_, row)| row.key).collect())
    }

    fn new_twin(&self, tags: &Bytes, desired: &Bytes) -> Result<TwinRow, DeviceError> {
        let tags = super::twins::tags_after(b"{}", tags, true)?;
        let mut section = Section::new(self.now);
        if !desired.is_empty() {
            super::twins::change_desired(&mut section, desired, true, self.now)?;
        }
        Ok(TwinRow {
            tags,
            desired: section.encode().into(),
            reported: Section::new(self.now).encode().into(),
            version: 1,
            recent: Vec::new(),
            model_id: String::new(),
        })
    }

    /// The time for people; the entry's number, of which there is one.
    fn generation(&self) -> String {
        format!("{}{:05}", self.now, self.at)
    }
}

/// Whether it is one of the hub's own modules, which come and go with their device.
fn is_hub_module(key: &DeviceKey) -> bool {
    EDGE_MODULES.contains(&key.module.as_str())
}

fn check_ids(key: &DeviceKey) -> Result<(), DeviceError> {
    check_device_id(&key.device).map_err(|error| DeviceError::invalid(error.to_string()))?;
    match key.is_module() && !is_hub_module(key) {
        true => check_module_id(&key.module).map_err(|error| DeviceError::invalid(error.to_string())),
        false => Ok(()),
    }
}

/// Empty keys of a shared-key identity keep what is there; a new identity gets drawn ones.
fn fill_keys(auth: &mut AuthRow, old: Option<&AuthRow>, put: &PutDevice) -> Result<(), DeviceError> {
    if AuthKind::try_from(auth.kind).is_err() {
        return Err(DeviceError::invalid(format!("authentication of kind {}", auth.kind)));
    }
    if auth.kind != AuthKind::Sas as i32 {
        (auth.primary_key, auth.secondary_key) = (String::new(), String::new());
        return Ok(());
    }
    let old = old.filter(|old| old.kind == AuthKind::Sas as i32);
    let keep = |given: &mut String, kept: Option<&String>, drawn: &String| {
        if given.is_empty() {
            given.clone_from(kept.filter(|kept| !kept.is_empty()).unwrap_or(drawn));
        }
    };
    keep(&mut auth.primary_key, old.map(|old| &old.primary_key), &put.new_primary_key);
    keep(&mut auth.secondary_key, old.map(|old| &old.secondary_key), &put.new_secondary_key);
    (auth.primary_thumbprint, auth.secondary_thumbprint) = (String::new(), String::new());
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// The size of an identity's row, as `docs/architecture.md` states it.
    #[test]
    fn a_row_is_small() {
        let key = DeviceKey::device("sensor-000001");
        let auth =
            AuthRow { primary_key: "k".repeat(44), secondary_key: "k".repeat(44), ..AuthRow::default() };
        let spec = DeviceSpec { auth, ..DeviceSpec::default() };
        let row =
            DeviceRow { key, spec, generation: "17000000000000001".into(), etag: 1, ..DeviceRow::default() };
        assert!(row.encoded_len() < 200, "{}", row.encoded_len());
    }
}
