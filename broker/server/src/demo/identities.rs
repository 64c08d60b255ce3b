//! The aircraft as devices of the hub: made once, by bulk requests, with the keys that the hub drew.
//!
//! Everything goes over the service API with a policy's token, as any back end does it. Those that exist are
//! left as they are, whoever made them.

use std::collections::BTreeMap;

use fleetline_cli::{Call, CliError, Rest};
use fleetline_iothub::sas::SasKey;
use http::Method;
use serde_json::{Value, json};

/// Devices in a bulk request: the hub's maximum.
const BULK: usize = 100;
/// Devices in a list: the hub's maximum.
const LIST_MAX: &str = "1000";
/// What the hub says of a device that is there.
const EXISTS: &str = "DeviceAlreadyExists";

/// Makes the devices that aren't there, and gives the key of each. `done` hears how many are known so far.
///
/// # Errors
/// What the hub refused.
pub(super) async fn ensure(
    rest: &mut Rest,
    devices: &[&str],
    mut done: impl FnMut(usize),
) -> Result<BTreeMap<String, SasKey>, CliError> {
    let mut keys = listed(rest).await?;
    keys.retain(|device, _| devices.binary_search(&device.as_str()).is_ok());
    done(keys.len());
    let missing: Vec<&str> = devices.iter().copied().filter(|device| !keys.contains_key(*device)).collect();
    for part in missing.chunks(BULK) {
        make(rest, part).await?;
        done(devices.len() - missing.len() + part.len());
    }
    if missing.is_empty() {
        return Ok(keys);
    }
    keys.extend(listed(rest).await?);
    keys.retain(|device, _| devices.binary_search(&device.as_str()).is_ok());
    // A list ends at its maximum, also when there are more.
    for device in devices {
        if !keys.contains_key(*device) {
            let found = rest.call(Call::new(Method::GET, &["devices", device])).await?.json()?;
            keys.extend(key_of(&found));
        }
        done(keys.len());
    }
    Ok(keys)
}

/// Keys of the devices that the registry lists.
async fn listed(rest: &mut Rest) -> Result<BTreeMap<String, SasKey>, CliError> {
    let call = Call::new(Method::GET, &["devices"]).query("top", LIST_MAX);
    let found = rest.call(call).await?.json()?;
    Ok(found.as_array().into_iter().flatten().filter_map(key_of).collect())
}

/// The id and the key of a device that has one.
fn key_of(identity: &Value) -> Option<(String, SasKey)> {
    let key = identity["authentication"]["symmetricKey"]["primaryKey"].as_str()?;
    Some((identity["deviceId"].as_str()?.to_owned(), SasKey::from_base64(key).ok()?))
}

async fn make(rest: &mut Rest, devices: &[&str]) -> Result<(), CliError> {
    let call = Call::new(Method::POST, &["devices"]).json(&bulk(devices));
    let (status, reply) = rest.answer(&call).await?;
    // A part that failed is told beside one that was done.
    match refusal(&reply.json()?) {
        None => Ok(()),
        Some(reason) => Err(CliError::Failed(format!(
            "the hub did not make devices (status {}): {reason}",
            status.as_u16()
        ))),
    }
}

/// A bulk request that makes these devices.
fn bulk(devices: &[&str]) -> Value {
    let item = |device: &&str| json!({"id": device, "importMode": "create", "status": "enabled", "tags": {"kind": "aircraft"}});
    devices.iter().map(item).collect()
}

/// Why a bulk request was not done; that a device exists already is no reason.
fn refusal(answer: &Value) -> Option<String> {
    let Some(errors) = answer["errors"].as_array() else { return Some(answer.to_string()) };
    let error = errors.iter().find(|error| error["errorCode"] != EXISTS)?;
    let text = |name: &str| error[name].as_str();
    let reason = text("errorStatus").or(text("errorCode")).unwrap_or("no reason given");
    Some(format!("{}: {reason}", text("deviceId").unwrap_or("-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bulk request makes, and never changes.
    #[test]
    fn bulk_requests() {
        let items = bulk(&["a", "b"]);
        assert_eq!((items[0]["id"].as_str(), items[1]["id"].as_str()), (Some("a"), Some("b")));
        assert!(items.as_array().unwrap().iter().all(|item| item["importMode"] == "create"));
    }

    /// Devices that are there are as good as made; anything else is told, with the device.
    #[test]
    fn refusals() {
        assert_eq!(refusal(&json!({"isSuccessful": true, "errors": []})), None);
        let there = json!({"deviceId": "a", "errorCode": EXISTS});
        let full = json!({"deviceId": "b", "errorCode": "QuotaExceeded", "errorStatus": "no room"});
        assert_eq!(refusal(&json!({"errors": [there]})), None);
        assert_eq!(refusal(&json!({"errors": [there, full]})).as_deref(), Some("b: no room"));
        let other = json!({"Message": "ErrorCode:IotHubUnauthorized;no"});
        assert!(refusal(&other).unwrap().contains("IotHubUnauthorized"));
    }

    /// Only a device with a key of its own can be played.
    #[test]
    fn keys() {
        let with = |authentication: Value| json!({"deviceId": "d", "authentication": authentication});
        let key = key_of(&with(json!({"symmetricKey": {"primaryKey": "a2V5"}})));
        assert_eq!(key.unwrap().0, "d");
        for other in [json!({}), json!({"symmetricKey": {"primaryKey": null}}), json!({"type": "selfSigned"})]
        {
            assert!(key_of(&with(other)).is_none());
        }
    }
}
