//! Changing keys of many identities (api-version 2024-03-31).

use fleetline_devices::{AuthKind, Condition, DeviceKey, DeviceRow, Op, PutDevice};
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::model::from_object;
use serde::{Deserialize, Serialize};

use super::super::call::Call;
use super::super::errors::HttpError;
use super::super::reply::{self, Answer};
use super::new_key;

/// Identities of a request.
const ITEMS_MAX: usize = 100;

/// Which key is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum PolicyKey {
    #[serde(alias = "Primary", alias = "primaryKey")]
    Primary,
    #[serde(alias = "Secondary", alias = "secondaryKey")]
    Secondary,
    #[serde(alias = "Both")]
    Both,
    /// The two change places.
    #[serde(alias = "Swap")]
    Swap,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    policy_key: PolicyKey,
    devices: Vec<Wanted>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    id: String,
    #[serde(default)]
    module_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rotated {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<String>,
    primary_key: String,
    secondary_key: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failed {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<String>,
    error_code: u32,
    error_status: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    policy_key: PolicyKey,
    rotated_keys: Vec<Rotated>,
    errors: Vec<Failed>,
}

/// POST `/devices/keys/regenerate`.
pub(super) async fn regenerate(call: &mut Call) -> Answer {
    let body = call.service_body().await?;
    let body: Body = from_object(&body).map_err(|error| HttpError::malformed("request", &error))?;
    if body.devices.len() > ITEMS_MAX {
        let text = format!("{} identities, at most {ITEMS_MAX} are allowed", body.devices.len());
        return Err(HttpError::new(ErrorCode::TooManyDevices, text));
    }
    let mut outcome = Outcome { policy_key: body.policy_key, rotated_keys: Vec::new(), errors: Vec::new() };
    for wanted in body.devices {
        let module_id = wanted.module_id.filter(|id| !id.is_empty());
        let key = DeviceKey { device: wanted.id.clone(), module: module_id.clone().unwrap_or_default() };
        match rotate(call, &key, body.policy_key).await {
            Ok(row) => outcome.rotated_keys.push(Rotated {
                id: wanted.id,
                module_id,
                primary_key: row.spec.auth.primary_key,
                secondary_key: row.spec.auth.secondary_key,
            }),
            Err(error) => outcome.errors.push(Failed {
                id: wanted.id,
                module_id,
                error_code: error.code.number(),
                error_status: error.text,
            }),
        }
    }
    reply::json(&outcome)
}

/// A compare-and-set by etag: somebody else's change in between is not overwritten.
async fn rotate(call: &Call, key: &DeviceKey, which: PolicyKey) -> Result<DeviceRow, HttpError> {
    super::bulk::check_ids(key)?;
    let found = super::view(call, key).await?.device;
    let mut spec = found.spec;
    if spec.auth.kind != AuthKind::Sas as i32 {
        return Err(HttpError::new(
            ErrorCode::InvalidOperation,
            "the identity does not prove itself by a key",
        ));
    }
    let auth = &mut spec.auth;
    match which {
        PolicyKey::Primary => auth.primary_key = new_key(call),
        PolicyKey::Secondary => auth.secondary_key = new_key(call),
        PolicyKey::Both => (auth.primary_key, auth.secondary_key) = (new_key(call), new_key(call)),
        PolicyKey::Swap => std::mem::swap(&mut auth.primary_key, &mut auth.secondary_key),
    }
    let condition = Condition::tag(found.etag);
    let put = PutDevice { key: key.clone(), spec, condition, ..PutDevice::default() };
    let reply = call.hub().change(call.gateway().partition_of(&key.device), Op::PutDevice(put)).await?;
    reply.device.ok_or_else(|| HttpError::internal("the leader gave no identity"))
}
