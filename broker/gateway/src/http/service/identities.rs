//! Identities: devices and modules. Each change is a compare-and-set by etag.

use fleetline_devices::{
    Condition, DeleteDevice, DeviceKey, DeviceRow, DeviceSpec, DeviceView, List, Op, PutDevice, Request,
};
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::model::{Device, Module, from_object, parse_etag};
use http::{Response, StatusCode};
use serde::Serialize;

use super::super::call::Call;
use super::super::errors::HttpError;
use super::super::reply::{self, Answer, Body};
use super::gather::Walk;
use super::{condition, new_key, view};
use crate::devices::hub::answered;

/// Devices in a list: "`top` 1..1000, other values = 1000; no paging".
const LIST_MAX: usize = 1000;

/// Modules that belong to the hub.
const SYSTEM_MODULES: [&str; 2] = ["$edgeAgent", "$edgeHub"];

/// GET `/devices`.
pub(super) async fn list(call: &Call) -> Answer {
    let top = call.query.get("top").and_then(|top| top.parse().ok());
    let top = top.filter(|top| (1..=LIST_MAX).contains(top)).unwrap_or(LIST_MAX);
    let mut walk = Walk::from_start();
    let mut devices: Vec<Device> = Vec::new();
    while devices.len() < top
        && let Some(views) = walk.next(call).await?
    {
        let rows = views.iter().filter(|view| !view.device.key.is_module());
        devices.extend(rows.map(device_of));
    }
    devices.truncate(top);
    reply::json(&devices)
}

fn device_of(found: &DeviceView) -> Device {
    view::device(&found.device, found.session.as_ref(), found.commands)
}

fn module_of(found: &DeviceView) -> Module {
    view::module(&found.device, found.session.as_ref(), found.commands)
}

/// GET `/devices/{id}/modules`.
pub(super) async fn list_modules(call: &Call, key: &DeviceKey) -> Answer {
    super::view(call, key).await?;
    let partition = call.gateway().partition_of(&key.device);
    let mut modules: Vec<Module> = Vec::new();
    let mut from = bytes::Bytes::new();
    loop {
        let list = List { from, limit: 100, device: key.device.clone() };
        let answer = answered(call.hub().ask(partition, Request::List(list)).await?)?;
        modules.extend(answer.views.iter().filter(|view| view.device.key.is_module()).map(module_of));
        from = answer.next;
        if from.is_empty() {
            return reply::json(&modules);
        }
    }
}

/// GET of one.
pub(super) async fn get(call: &Call, key: &DeviceKey) -> Answer {
    let found = super::view(call, key).await?;
    one(&found)
}

/// A device or module as an answer, with its etag.
fn one(found: &DeviceView) -> Answer {
    match found.device.key.is_module() {
        true => with_etag(&module_of(found), found.device.etag),
        false => with_etag(&device_of(found), found.device.etag),
    }
}

fn with_etag(value: &impl Serialize, etag: u64) -> Answer {
    let mut response: Response<Body> = reply::json(value)?;
    reply::put_etag(&mut response, &fleetline_iothub::model::format_etag(etag));
    Ok(response)
}

/// PUT: without `If-Match` it is made, with one it is changed.
pub(super) async fn put(call: &mut Call, key: DeviceKey) -> Answer {
    check_changeable(&key)?;
    let condition = condition(call, parse_etag)?.unwrap_or_else(Condition::absent);
    let body = call.service_body().await?;
    let spec = match key.is_module() {
        true => module_spec(&key, &body)?,
        false => device_spec(&key, &body)?,
    };
    let put = PutDevice {
        key: key.clone(),
        spec,
        condition,
        new_primary_key: new_key(call),
        new_secondary_key: new_key(call),
        ..PutDevice::default()
    };
    let partition = call.gateway().partition_of(&key.device);
    let reply = call.hub().change(partition, Op::PutDevice(put)).await?;
    let row: DeviceRow = reply.device.ok_or_else(|| HttpError::internal("the leader gave no identity"))?;
    // A new one has no session and no commands; an older one may.
    let view = match reply.created {
        true => DeviceView { device: row, ..DeviceView::default() },
        false => match super::view(call, &key).await {
            Ok(view) => DeviceView { device: row, ..view },
            // The change is done; that it was removed since, or can't be read now, doesn't undo it.
            Err(_) => DeviceView { device: row, ..DeviceView::default() },
        },
    };
    one(&view)
}

fn check_changeable(key: &DeviceKey) -> Result<(), HttpError> {
    match SYSTEM_MODULES.contains(&key.module.as_str()) {
        true => {
            let text = format!("module {} belongs to the hub", key.module);
            Err(HttpError::new(ErrorCode::SystemModuleModifyUnauthorizedAccess, text))
        }
        false => Ok(()),
    }
}

fn check_id(what: &str, given: &str, path: &str) -> Result<(), HttpError> {
    match given.is_empty() || given == path {
        true => Ok(()),
        false => Err(HttpError::invalid(format!("{what} of the body is not that of the path"))),
    }
}

fn device_spec(key: &DeviceKey, body: &[u8]) -> Result<DeviceSpec, HttpError> {
    let device: Device = from_object(body).map_err(|error| HttpError::malformed("device", &error))?;
    check_id("deviceId", &device.device_id, &key.device)?;
    Ok(DeviceSpec {
        disabled: device.status == fleetline_iothub::model::DeviceStatus::Disabled,
        status_reason: device.status_reason.unwrap_or_default(),
        auth: view::auth_row(&device.authentication)?,
        edge: device.capabilities.iot_edge,
        device_scope: device.device_scope.unwrap_or_default(),
        parent_scopes: device.parent_scopes,
        managed_by: String::new(),
    })
}

fn module_spec(key: &DeviceKey, body: &[u8]) -> Result<DeviceSpec, HttpError> {
    let module: Module = from_object(body).map_err(|error| HttpError::malformed("module", &error))?;
    check_id("deviceId", &module.device_id, &key.device)?;
    check_id("moduleId", &module.module_id, &key.module)?;
    Ok(DeviceSpec {
        auth: view::auth_row(&module.authentication)?,
        managed_by: module.managed_by.unwrap_or_default(),
        ..DeviceSpec::default()
    })
}

/// DELETE. "Every SDK sends If-Match"; without one it is as `*`.
pub(super) async fn delete(call: &Call, key: DeviceKey) -> Answer {
    check_changeable(&key)?;
    let condition = condition(call, parse_etag)?.unwrap_or_else(Condition::any);
    let partition = call.gateway().partition_of(&key.device);
    call.hub().change(partition, Op::DeleteDevice(DeleteDevice { key, condition })).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}
