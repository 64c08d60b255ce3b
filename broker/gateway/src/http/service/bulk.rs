//! Bulk changes of the registry: each partition gets its part as one command; each item is answered
//! for itself.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fleetline_devices::{
    Bulk, BulkItem, Condition, DeleteDevice, DeviceKey, DeviceReply, DeviceSpec, Op, PatchTwin, PutDevice,
};
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::model::{
    BulkRegistryOperationResult, DeviceRegistryOperationError, DeviceStatus, ExportImportDevice, ImportMode,
    parse_etag, parse_twin_etag,
};
use fleetline_iothub::names::{check_device_id, check_module_id};
use fleetline_types::PartitionId;
use futures::future::join_all;
use http::StatusCode;

use super::super::call::Call;
use super::super::errors::HttpError;
use super::super::reply::{self, Answer};
use super::{new_key, view};
use crate::devices::hub::AskError;

/// Items of a request.
const ITEMS_MAX: usize = 100;

/// One item: what to do with whom, and what came of it.
struct Item {
    key: DeviceKey,
    mode: ImportMode,
    op: Result<Op, HttpError>,
}

/// POST `/devices`.
pub(super) async fn run(call: &mut Call) -> Answer {
    let body = call.service_body().await?;
    let given: Vec<ExportImportDevice> =
        serde_json::from_slice(&body).map_err(|error| HttpError::malformed("list of devices", &error))?;
    if given.len() > ITEMS_MAX {
        let text = format!("{} devices, at most {ITEMS_MAX} are allowed", given.len());
        return Err(HttpError::new(ErrorCode::TooManyDevices, text));
    }
    let items: Vec<Item> = given.into_iter().map(|device| item(call, device)).collect();
    let mut seen = BTreeSet::new();
    if let Some(twice) = items.iter().find(|item| !seen.insert(item.key.clone())) {
        let text = format!("{} is there twice", twice.key.text());
        return Err(HttpError::new(ErrorCode::DeviceDefinedMultipleTimes, text));
    }
    let ops = items.iter().enumerate().filter_map(|(index, item)| Some((index, item.op.clone().ok()?)));
    let mut outcomes = perform(call, &items, ops.collect()).await;
    make_absent(call, &items, &mut outcomes).await;
    let errors: Vec<_> = items
        .iter()
        .enumerate()
        .filter_map(|(index, item)| match (&item.op, outcomes.get(&index)) {
            (Err(error), _) | (Ok(_), Some(Err(error))) => Some(failure(item, error)),
            (Ok(_), Some(Ok(()))) => None,
            (Ok(_), None) => Some(failure(item, &HttpError::internal("nobody has answered"))),
        })
        .collect();
    let is_successful = errors.is_empty();
    let status = if is_successful { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    reply::json_with(status, &BulkRegistryOperationResult { is_successful, errors, warnings: Vec::new() })
}

fn failure(item: &Item, error: &HttpError) -> DeviceRegistryOperationError {
    DeviceRegistryOperationError {
        device_id: item.key.device.clone(),
        error_code: error.code.name().to_owned(),
        error_status: Some(error.text.clone()),
        module_id: item.key.is_module().then(|| item.key.module.clone()),
        operation: Some(item.mode.as_str().to_owned()),
    }
}

fn item(call: &Call, device: ExportImportDevice) -> Item {
    let key = DeviceKey { device: device.id.clone(), module: device.module_id.clone().unwrap_or_default() };
    let mode = device.import_mode.unwrap_or(ImportMode::CreateOrUpdate);
    let op = check_ids(&key).and_then(|()| op(call, &key, mode, device));
    Item { key, mode, op }
}

pub(super) fn check_ids(key: &DeviceKey) -> Result<(), HttpError> {
    let invalid = |error: fleetline_iothub::names::NameError| HttpError::invalid(error.to_string());
    check_device_id(&key.device).map_err(invalid)?;
    match key.is_module() {
        true => check_module_id(&key.module).map_err(invalid),
        false => Ok(()),
    }
}

/// What an import mode means.
fn op(call: &Call, key: &DeviceKey, mode: ImportMode, device: ExportImportDevice) -> Result<Op, HttpError> {
    let tag = |etag: &Option<String>, parse: fn(&str) -> Option<u64>| match etag
        .as_deref()
        .map(|tag| tag.trim_matches('"'))
    {
        None | Some("") => Err(HttpError::invalid("the mode needs an etag")),
        Some("*") => Ok(Condition::any()),
        Some(etag) => parse(etag)
            .map(Condition::tag)
            .ok_or_else(|| HttpError::new(ErrorCode::PreconditionFailed, "the etag is not the current one")),
    };
    let by_etag = || tag(&device.etag, parse_etag);
    let key_of = || key.clone();
    Ok(match mode {
        ImportMode::Create => put(call, key, Condition::absent(), device)?,
        ImportMode::CreateOrUpdate => put(call, key, Condition::upsert(), device)?,
        ImportMode::Update => put(call, key, Condition::any(), device)?,
        ImportMode::UpdateIfMatchETag | ImportMode::CreateOrUpdateIfMatchETag => {
            let condition = by_etag()?;
            put(call, key, condition, device)?
        }
        ImportMode::Delete => Op::DeleteDevice(DeleteDevice { key: key_of(), condition: Condition::any() }),
        ImportMode::DeleteIfMatchETag => {
            Op::DeleteDevice(DeleteDevice { key: key_of(), condition: by_etag()? })
        }
        ImportMode::UpdateTwin => patch(key, Condition::any(), &device),
        ImportMode::UpdateTwinIfMatchETag => patch(key, tag(&device.twin_etag, parse_twin_etag)?, &device),
    })
}

fn put(
    call: &Call,
    key: &DeviceKey,
    condition: Condition,
    device: ExportImportDevice,
) -> Result<Op, HttpError> {
    let (tags, desired) = twin_parts(&device);
    let spec = DeviceSpec {
        disabled: device.status == Some(DeviceStatus::Disabled),
        status_reason: device.status_reason.unwrap_or_default(),
        auth: view::auth_row(&device.authentication.unwrap_or_default())?,
        edge: device.capabilities.unwrap_or_default().iot_edge,
        device_scope: device.device_scope.unwrap_or_default(),
        parent_scopes: device.parent_scopes,
        managed_by: String::new(),
    };
    Ok(Op::PutDevice(PutDevice {
        key: key.clone(),
        spec,
        condition,
        new_primary_key: new_key(call),
        new_secondary_key: new_key(call),
        tags,
        desired,
    }))
}

fn patch(key: &DeviceKey, condition: Condition, device: &ExportImportDevice) -> Op {
    let (tags, desired) = twin_parts(device);
    Op::PatchTwin(PatchTwin { key: key.clone(), tags, desired, replace: false, condition })
}

/// Tags and desired properties as they came; null is as if they weren't there.
fn twin_parts(device: &ExportImportDevice) -> (Bytes, Bytes) {
    let text = |part: Option<&serde_json::value::RawValue>| {
        let part = part.map(|part| part.get()).filter(|text| *text != "null");
        part.map(|text| Bytes::copy_from_slice(text.as_bytes())).unwrap_or_default()
    };
    let desired = device.properties.as_ref().and_then(|properties| properties.desired.as_deref());
    (text(device.tags.as_deref()), text(desired))
}

type Outcomes = BTreeMap<usize, Result<(), HttpError>>;

/// Performs the ops of these items, each partition's as one command, all at once.
async fn perform(call: &Call, items: &[Item], ops: Vec<(usize, Op)>) -> Outcomes {
    let mut parts: BTreeMap<PartitionId, Vec<(usize, Op)>> = BTreeMap::new();
    for (index, op) in ops {
        let partition = call.gateway().partition_of(&items[index].key.device);
        parts.entry(partition).or_default().push((index, op));
    }
    let performed =
        join_all(parts.into_iter().map(|(partition, ops)| perform_part(call, partition, ops))).await;
    performed.into_iter().flatten().collect()
}

async fn perform_part(
    call: &Call,
    partition: PartitionId,
    ops: Vec<(usize, Op)>,
) -> Vec<(usize, Result<(), HttpError>)> {
    let (indexes, ops): (Vec<usize>, Vec<Op>) = ops.into_iter().unzip();
    let bulk = Bulk { ops: ops.into_iter().map(|op| BulkItem { op: Some(op) }).collect() };
    let replies: Result<DeviceReply, AskError> = call.hub().change(partition, Op::Bulk(bulk)).await;
    match replies {
        Ok(reply) => {
            let outcome = |reply: DeviceReply| match reply.error {
                Some(error) => Err(HttpError::from(error)),
                None => Ok(()),
            };
            indexes.into_iter().zip(reply.replies.into_iter().map(outcome)).collect()
        }
        // Nothing of this part is known to be done; the other parts have answers of their own.
        Err(error) => {
            let error = HttpError::from(error);
            indexes.into_iter().map(|index| (index, Err(error.clone()))).collect()
        }
    }
}

/// "Creates it, or overwrites it if the etag matches": what wasn't there to be overwritten is made.
async fn make_absent(call: &Call, items: &[Item], outcomes: &mut Outcomes) {
    let is_missing =
        |error: &HttpError| matches!(error.code, ErrorCode::DeviceNotFound | ErrorCode::ModuleNotFound);
    let again = outcomes.iter().filter_map(|(index, outcome)| {
        let item = &items[*index];
        let wanted =
            item.mode == ImportMode::CreateOrUpdateIfMatchETag && outcome.as_ref().is_err_and(is_missing);
        match (&item.op, wanted) {
            (Ok(Op::PutDevice(put)), true) => {
                Some((*index, Op::PutDevice(PutDevice { condition: Condition::absent(), ..put.clone() })))
            }
            _ => None,
        }
    });
    let again: Vec<(usize, Op)> = again.collect();
    if !again.is_empty() {
        outcomes.extend(perform(call, items, again).await);
    }
}
