//! Twins, as services read and change them.

use bytes::Bytes;
use fleetline_devices::{Condition, DeviceKey, DeviceView, Op, PatchTwin};
use fleetline_iothub::model::{from_object, parse_twin_etag, twin_etag};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::call::Call;
use super::super::errors::HttpError;
use super::super::reply::{self, Answer};
use super::{condition, view};

/// What a change may have; the rest of a twin that a client sends back is passed over.
#[derive(Deserialize)]
struct Change {
    #[serde(default)]
    tags: Option<Box<RawValue>>,
    #[serde(default)]
    properties: Option<Properties>,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(default)]
    desired: Option<Box<RawValue>>,
}

/// GET.
pub(super) async fn get(call: &Call, key: &DeviceKey) -> Answer {
    answer(&super::view(call, key).await?)
}

fn answer(found: &DeviceView) -> Answer {
    let mut response = reply::json(&view::twin(found)?)?;
    reply::put_etag(&mut response, &twin_etag(found.twin.version));
    Ok(response)
}

/// The text of a part; null is as if it weren't there.
fn text(part: Option<Box<RawValue>>) -> Bytes {
    let part = part.filter(|part| part.get() != "null");
    part.map(|part| Bytes::copy_from_slice(part.get().as_bytes())).unwrap_or_default()
}

/// PATCH merges, PUT replaces, in both cases only the parts that are given.
pub(super) async fn change(call: &mut Call, key: DeviceKey, replace: bool) -> Answer {
    let condition = condition(call, parse_twin_etag)?.unwrap_or_else(Condition::any);
    let body = call.service_body().await?;
    let change: Change = from_object(&body).map_err(|error| HttpError::malformed("twin", &error))?;
    let desired = change.properties.and_then(|properties| properties.desired);
    let (tags, desired) = (text(change.tags), text(desired));
    let patch = PatchTwin { key: key.clone(), tags, desired, replace, condition };
    let partition = call.gateway().partition_of(&key.device);
    let reply = call.hub().change(partition, Op::PatchTwin(patch)).await?;
    let twin = reply.twin.ok_or_else(|| HttpError::internal("the leader gave no twin"))?;
    // The identity is read behind the change; the twin is the one that this change made.
    let found = super::view(call, &key).await.map_err(|error| HttpError {
        text: format!("the change is stored, and the twin can't be read: {}", error.text),
        ..error
    })?;
    answer(&DeviceView { twin, ..found })
}
