//! Twins: desired properties and tags by services, reported ones by the device (P9).

use bytes::Bytes;
use fleetline_iothub::model::twin_etag;
use fleetline_state::{KeyKind, StateBatch};
use fleetline_twins::{DocumentLimits, Section, TwinError, merge_tags, parse_patch, replace_tags};
use serde_json::{Map, Value, json};

use super::events::EventKind;
use super::{Applied, check_tag};
use crate::command::{DeviceReply, PatchReported, PatchTwin};
use crate::effect::{Effect, Wake};
use crate::error::DeviceError;
use crate::limits::{DESIRED_CHANGES_BYTES, DESIRED_CHANGES_KEPT};
use crate::rows::{DesiredChange, DeviceKey, TwinRow};
use crate::state::{DeviceState, missing};

impl DeviceState {
    pub(super) fn patch_twin(&mut self, patch: &PatchTwin, out: &mut StateBatch) -> Applied {
        let key = &patch.key;
        self.existing(key)?;
        let mut twin = self.twin(key)?.ok_or_else(|| missing(key))?;
        check_tag("etag of the twin", &patch.condition, twin.version)?;
        if !patch.tags.is_empty() {
            twin.tags = tags_after(&twin.tags, &patch.tags, patch.replace)?;
        }
        let mut changes = Map::new();
        if !patch.desired.is_empty() {
            let mut section = section(&twin.desired)?;
            change_desired(&mut section, &patch.desired, patch.replace, self.now)?;
            twin.desired = section.encode().into();
            let change = own_members(&patch.desired)?;
            changes.insert("properties".to_owned(), json!({ "desired": with_metadata(&change, &section) }));
            remember(&mut twin, section.version, change);
        }
        if !patch.tags.is_empty() {
            changes.insert("tags".to_owned(), Value::Object(object(&patch.tags)?));
        }
        twin.version += 1;
        changes.insert("version".to_owned(), twin.version.into());
        let (operation, body) = match patch.replace {
            true => ("replaceTwin", twin_body(key, &twin)?),
            false => ("updateTwin", Value::Object(changes)),
        };
        self.put(out, KeyKind::Twin, key.row_key(), &twin);
        self.emit_about(key, &EventKind::twin(operation), &body, out);
        if let Some(session) =
            self.session(key)?.filter(|session| session.connected && !patch.desired.is_empty())
        {
            let (place, epoch) = (session.place, session.epoch);
            self.effects.push(Effect::Wake { place, key: key.clone(), epoch, wake: Wake::Desired });
        }
        Ok(DeviceReply { twin: Some(twin), ..DeviceReply::default() })
    }

    pub(super) fn patch_reported(&mut self, patch: &PatchReported, out: &mut StateBatch) -> Applied {
        let key = &patch.key;
        self.live_session(key, patch.epoch)?;
        let mut twin = self.twin(key)?.ok_or_else(|| missing(key))?;
        let mut section = section(&twin.reported)?;
        if patch.if_version != 0 && patch.if_version != section.version {
            let (current, expected) = (section.version, patch.if_version);
            return Err(DeviceError::Precondition { what: "reported version", current, expected }.into());
        }
        let limits = DocumentLimits::REPORTED;
        let change = parse_patch(&patch.patch, &limits).map_err(refused)?;
        section.merge(&change, self.now, &limits, false).map_err(refused)?;
        twin.reported = section.encode().into();
        let reported = with_metadata(&own_members(&patch.patch)?, &section);
        let body = json!({ "version": twin.version, "properties": { "reported": reported } });
        self.put(out, KeyKind::Twin, key.row_key(), &twin);
        self.emit_about(key, &EventKind::twin("updateTwin"), &body, out);
        Ok(DeviceReply { number: section.version, ..DeviceReply::default() })
    }
}

/// Keeps a desired change for gateways that miss it, within bounds.
fn remember(twin: &mut TwinRow, version: u64, change: Map<String, Value>) {
    let patch = Value::Object(change).to_string().into_bytes().into();
    twin.recent.push(DesiredChange { version, patch });
    let bytes = |recent: &[DesiredChange]| recent.iter().map(|change| change.patch.len()).sum::<usize>();
    while twin.recent.len() > DESIRED_CHANGES_KEPT
        || (twin.recent.len() > 1 && bytes(&twin.recent) > DESIRED_CHANGES_BYTES)
    {
        twin.recent.remove(0);
    }
}

pub(super) fn tags_after(tags: &[u8], change: &Bytes, replace: bool) -> Result<Bytes, DeviceError> {
    if change.is_empty() {
        return Ok(Bytes::copy_from_slice(tags));
    }
    let limits = DocumentLimits::TAGS;
    let change = parse_patch(change, &limits).map_err(refused)?;
    let mut tags = object(tags)?;
    match replace {
        true => replace_tags(&mut tags, &change, &limits),
        false => merge_tags(&mut tags, &change, &limits),
    }
    .map_err(refused)?;
    Ok(Value::Object(tags).to_string().into_bytes().into())
}

pub(super) fn change_desired(
    section: &mut Section,
    change: &[u8],
    replace: bool,
    now: u64,
) -> Result<(), DeviceError> {
    let limits = DocumentLimits::DESIRED;
    let change = parse_patch(change, &limits).map_err(refused)?;
    match replace {
        true => section.replace(&change, now, &limits, true),
        false => section.merge(&change, now, &limits, true),
    }
    .map_err(refused)
}

/// A change without what only the hub sets: services send back the whole section that they read.
fn own_members(patch: &[u8]) -> Result<Map<String, Value>, DeviceError> {
    let mut patch = object(patch)?;
    patch.retain(|name, _| !name.starts_with('$'));
    Ok(patch)
}

/// A change with the version that it led to, and the metadata of what it touched.
fn with_metadata(change: &Map<String, Value>, section: &Section) -> Value {
    let mut body = change.clone();
    body.insert("$metadata".to_owned(), metadata_of(change, section.metadata.to_json()));
    body.insert("$version".to_owned(), section.version.into());
    Value::Object(body)
}

fn metadata_of(change: &Map<String, Value>, metadata: Value) -> Value {
    let Value::Object(members) = metadata else {
        return metadata;
    };
    let touched = members.into_iter().filter_map(|(name, member)| match change.get(&name) {
        Some(Value::Object(below)) => Some((name, metadata_of(below, member))),
        Some(_) => Some((name, member)),
        None => name.starts_with('$').then_some((name, member)),
    });
    Value::Object(touched.collect())
}

/// A whole twin, as events carry it.
pub(super) fn twin_body(key: &DeviceKey, twin: &TwinRow) -> Result<Value, DeviceError> {
    let mut body = json!({
        "deviceId": key.device,
        "etag": twin_etag(twin.version),
        "version": twin.version,
        "tags": object(&twin.tags)?,
        "properties": {
            "desired": section(&twin.desired)?.service_json(),
            "reported": section(&twin.reported)?.service_json(),
        },
    });
    if let (Some(members), true) = (body.as_object_mut(), key.is_module()) {
        members.insert("moduleId".to_owned(), key.module.clone().into());
    }
    Ok(body)
}

fn object(text: &[u8]) -> Result<Map<String, Value>, DeviceError> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(DeviceError::invalid("a JSON object was expected")),
    }
}

fn section(stored: &[u8]) -> Result<Section, DeviceError> {
    Section::decode(stored).map_err(|error| DeviceError::invalid(error.to_string()))
}

fn refused(error: TwinError) -> DeviceError {
    DeviceError::Twin { code: error.code(), text: error.to_string() }
}
