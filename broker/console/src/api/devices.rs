//! Devices: a list over all partitions, and one device with its twin. Keys are never in an answer.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use fleetline_devices::{Ask, AuthKind, DeviceKey, DeviceRow, DeviceView, List, Request};
use fleetline_gateway::devices::hub::answered;
use fleetline_iothub::names::check_module_id;
use fleetline_twins::Section;
use fleetline_types::{PartitionId, partition_of_key};
use serde_json::{Map, Value, json};

use crate::access::{Caller, Deed};
use crate::console::Console;
use crate::error::ConsoleError;
use crate::limits::{LIST_ASK, LIST_SCAN_MAX, MODULES_MAX, PAGE_DEFAULT, PAGE_MAX, SEARCH_BYTES_MAX};
use crate::routes::Call;

/// A place in the order of all identities: partition, then key.
struct Place {
    partition: u32,
    from: Bytes,
}

impl Place {
    /// Reads the text that [`Place::text`] wrote; a page that forges one sees nothing else than it may.
    fn parse(text: &str) -> Option<Place> {
        let (partition, from) = text.split_once('.')?;
        Some(Place { partition: partition.parse().ok()?, from: URL_SAFE_NO_PAD.decode(from).ok()?.into() })
    }

    fn text(&self) -> String {
        format!("{}.{}", self.partition, URL_SAFE_NO_PAD.encode(&self.from))
    }

    fn behind(partition: u32, key: &DeviceKey) -> Place {
        let mut from = key.row_key();
        from.push(0);
        Place { partition, from: from.into() }
    }
}

/// `GET devices?q=&from=&limit=`: devices whose id has `q` in it, in any case. `next` is where to go on;
/// a page may be empty and still have one.
pub(crate) async fn list(console: &Console, caller: &Caller, call: &Call) -> Result<Value, ConsoleError> {
    // Who may see no device at all is told so; who may see some gets those.
    if !caller.may_some_identity() {
        caller.check(Deed::Identity(""))?;
    }
    let limit = call.number("limit", PAGE_DEFAULT, PAGE_MAX)?;
    let search = call.parameter("q").unwrap_or_default().to_lowercase();
    if search.len() > SEARCH_BYTES_MAX {
        return Err(ConsoleError::Invalid(format!("search has more than {SEARCH_BYTES_MAX} bytes")));
    }
    let mut place = match call.parameter("from").filter(|text| !text.is_empty()) {
        Some(text) => {
            Place::parse(&text).ok_or_else(|| ConsoleError::Invalid("from is no place".to_owned()))?
        }
        None => Place { partition: 0, from: Bytes::new() },
    };
    let is_wanted = |view: &DeviceView| {
        let id = &view.device.key.device;
        !view.device.key.is_module()
            && caller.may(Deed::Identity(id))
            && (search.is_empty() || id.to_lowercase().contains(&search))
    };
    let (mut devices, mut scanned) = (Vec::new(), 0);
    while place.partition < console.devices.partitions() && devices.len() < limit && scanned < LIST_SCAN_MAX {
        let partition = place.partition;
        // Without a search nearly all that comes is shown.
        let ask = if search.is_empty() { (limit - devices.len()) as u32 } else { LIST_ASK };
        let list = List { from: place.from.clone(), limit: ask, device: String::new() };
        let answer = answered(console.devices.ask(PartitionId(partition), Request::List(list)).await?)?;
        place = match answer.next.is_empty() {
            true => Place { partition: partition + 1, from: Bytes::new() },
            false => Place { partition, from: answer.next },
        };
        scanned += answer.views.len().max(1);
        for view in answer.views.iter().filter(|view| is_wanted(view)) {
            if devices.len() == limit {
                break;
            }
            devices.push(summary(view));
            if devices.len() == limit {
                place = Place::behind(partition, &view.device.key);
            }
        }
    }
    let next = (place.partition < console.devices.partitions()).then(|| place.text());
    Ok(json!({ "devices": devices, "next": next }))
}

/// `GET devices/{id}?module=`: identity, twin if the policy may read it, modules.
pub(crate) async fn get(
    console: &Console,
    caller: &Caller,
    call: &Call,
    device: &str,
) -> Result<Value, ConsoleError> {
    caller.check(Deed::Identity(device))?;
    let key = key(call, device)?;
    let partition = partition_of_key(device.as_bytes(), console.devices.partitions());
    let ask = Ask { key: key.clone(), epoch: 0, after: 0, limit: 1 };
    let answer = answered(console.devices.ask(partition, Request::Get(ask)).await?)?;
    let view = answer.views.first().ok_or_else(|| ConsoleError::NotFound(key.text()))?;
    let modules = modules(console, partition, device).await?;
    let twin = caller.may(Deed::Twin(device)).then(|| twin(view)).transpose()?;
    Ok(json!({
        "identity": identity(view),
        "twin": twin,
        "modules": modules,
        "partition": partition.0,
        "may": {
            "change": caller.may(Deed::ChangeTwin(device)),
            "telemetry": caller.may(Deed::Telemetry(device)),
        },
    }))
}

/// The device, or the module that the query names.
pub(crate) fn key(call: &Call, device: &str) -> Result<DeviceKey, ConsoleError> {
    match call.parameter("module").filter(|module| !module.is_empty()) {
        None => Ok(DeviceKey::device(device)),
        Some(module) => match check_module_id(&module) {
            Ok(()) => Ok(DeviceKey::module(device, module)),
            Err(error) => Err(ConsoleError::Invalid(error.to_string())),
        },
    }
}

async fn modules(
    console: &Console,
    partition: PartitionId,
    device: &str,
) -> Result<Vec<Value>, ConsoleError> {
    let list = List { from: Bytes::new(), limit: MODULES_MAX, device: device.to_owned() };
    let answer = answered(console.devices.ask(partition, Request::List(list)).await?)?;
    let modules = answer.views.iter().filter(|view| view.device.key.is_module());
    Ok(modules.take(MODULES_MAX as usize).map(summary).collect())
}

/// Milliseconds; 0 is none.
fn moment(ms: u64) -> Option<u64> {
    (ms > 0).then_some(ms)
}

fn auth_name(row: &DeviceRow) -> &'static str {
    match AuthKind::try_from(row.spec.auth.kind) {
        Ok(AuthKind::Sas) => "shared key",
        Ok(AuthKind::SelfSigned) => "certificate",
        Ok(AuthKind::CertificateAuthority) => "certificate authority",
        Ok(AuthKind::None) => "none",
        Err(_) => "unknown",
    }
}

/// When it was heard of last. A session that is open may have been heard of later than is stored.
fn last_activity(view: &DeviceView) -> Option<u64> {
    view.session.as_ref().and_then(|session| moment(session.active_ms.max(session.changed_ms)))
}

/// A line of the list.
fn summary(view: &DeviceView) -> Value {
    let row = &view.device;
    let session = view.session.as_ref();
    json!({
        "id": row.key.device,
        "module": row.key.module,
        "enabled": !row.spec.disabled,
        "connected": session.is_some_and(|session| session.connected),
        "connectionChanged": session.and_then(|session| moment(session.changed_ms)),
        "lastActivity": last_activity(view),
        "auth": auth_name(row),
        "model": view.twin.model_id,
        "edge": row.spec.edge,
    })
}

/// All that is shown of an identity.
fn identity(view: &DeviceView) -> Value {
    let row = &view.device;
    let mut json = summary(view);
    if let Value::Object(fields) = &mut json {
        let more = json!({
            "statusReason": row.spec.status_reason,
            "statusChanged": moment(row.status_changed_ms),
            "created": moment(row.created_ms),
            "generation": row.generation,
            "etag": row.etag,
            "scope": row.spec.device_scope,
            "managedBy": row.spec.managed_by,
            "commands": view.commands,
            "node": view.session.as_ref().filter(|session| session.connected).map(|session| session.place.node),
            "subscriptions": view.session.iter().flat_map(|session| &session.subscriptions)
                .map(|subscription| &subscription.filter).collect::<Vec<_>>(),
        });
        if let Value::Object(more) = more {
            fields.extend(more);
        }
    }
    json
}

/// A twin, with metadata.
pub(crate) fn twin(view: &DeviceView) -> Result<Value, ConsoleError> {
    let twin = &view.twin;
    let section =
        |bytes: &[u8], what| Section::decode(bytes).map_err(|error| ConsoleError::stored(what, error));
    let tags: Map<String, Value> = match twin.tags.is_empty() {
        true => Map::new(),
        false => serde_json::from_slice(&twin.tags).map_err(|error| ConsoleError::stored("tags", error))?,
    };
    Ok(json!({
        "version": twin.version,
        "tags": tags,
        "desired": section(&twin.desired, "desired properties")?.service_json(),
        "reported": section(&twin.reported, "reported properties")?.service_json(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places survive the way to the page and back; nonsense is none.
    #[test]
    fn places() {
        let place = Place::behind(7, &DeviceKey::device("plane é"));
        let read = Place::parse(&place.text()).unwrap();
        assert_eq!((read.partition, read.from), (7, place.from));
        for bad in ["", "7", "x.AA", "1.=", "-1.AA", "99999999999."] {
            assert!(Place::parse(bad).is_none(), "{bad}");
        }
    }
}
