//! Input bindings: what a function gets beside its trigger.
//!
//! | binding | value |
//! |---|---|
//! | `twin` | the twin of `deviceId` (an expression; by default the trigger's device), as the service API has it |
//! | `signalRConnectionInfo` | `{"url","accessToken"}` for `hubName` and `userId` |

use std::time::Duration;

use fleetline_devices::{Ask, DeviceKey, DeviceView, Request};
use fleetline_gateway::devices::hub::answered;
use fleetline_iothub::model::twin_etag;
use fleetline_twins::Section;
use fleetline_types::partition_of_key;
use fleetline_worker::{Binding, Value};
use serde_json::{Value as Json, json};

use crate::core::Core;
use crate::expression::Scope;
use crate::spec::FunctionSpec;
use crate::store::ask_again;

/// How long a client may take until it connects with what it got.
const CONNECTION_TTL: Duration = Duration::from_secs(60 * 60);

/// Why a function's inputs can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InputError {
    /// The app has it wrong, or the trigger doesn't say enough: it fails each time.
    #[error("input {name}: {reason}")]
    Wrong { name: String, reason: String },
    /// The hub doesn't answer now.
    #[error("input {name}: {reason}")]
    Passing { name: String, reason: String },
}

/// Values of all inputs, by name.
pub(crate) async fn read(
    core: &Core,
    spec: &FunctionSpec,
    scope: &Scope,
) -> Result<Vec<(String, Value)>, InputError> {
    let mut values = Vec::new();
    for binding in spec.inputs() {
        let value = if binding.is("twin") {
            twin(core, binding, scope).await?
        } else if binding.is("signalRConnectionInfo") {
            connection_info(core, binding, scope)?
        } else {
            return Err(wrong(binding, format!("inputs of type {} are not supported", binding.kind)));
        };
        values.push((binding.name.clone(), value));
    }
    Ok(values)
}

fn wrong(binding: &Binding, reason: impl Into<String>) -> InputError {
    InputError::Wrong { name: binding.name.clone(), reason: reason.into() }
}

fn expanded(binding: &Binding, scope: &Scope, key: &str) -> Result<Option<String>, InputError> {
    let text = binding.text(key).filter(|text| !text.is_empty());
    text.map(|text| scope.expand(text).map_err(|error| wrong(binding, error.to_string()))).transpose()
}

async fn twin(core: &Core, binding: &Binding, scope: &Scope) -> Result<Value, InputError> {
    let device = match expanded(binding, scope, "deviceId")? {
        Some(device) => device,
        None => scope.expand("{deviceId}").map_err(|error| wrong(binding, error.to_string()))?,
    };
    let module = expanded(binding, scope, "moduleId")?.unwrap_or_default();
    let partition = partition_of_key(device.as_bytes(), core.devices.partitions());
    let key = DeviceKey { device, module };
    let ask = Ask { key, epoch: 0, after: 0, limit: 1 };
    let passing = |reason: String| InputError::Passing { name: binding.name.clone(), reason };
    let answer = ask_again(|| core.devices.ask(partition, Request::Get(ask.clone())))
        .await
        .map_err(|error| passing(error.to_string()))?;
    let answer = answered(answer).map_err(|error| wrong(binding, error.to_string()))?;
    match answer.views.first() {
        Some(view) => twin_json(view).map(|json| Value::json(&json)).map_err(|reason| wrong(binding, reason)),
        // A function that asks for a twin that isn't there sees that there is none.
        None => Ok(Value::Json("null".into())),
    }
}

fn twin_json(view: &DeviceView) -> Result<Json, String> {
    let section = |bytes: &[u8]| Section::decode(bytes).map_err(|error| error.to_string());
    let (desired, reported) = (section(&view.twin.desired)?, section(&view.twin.reported)?);
    let tags: Json = match view.twin.tags.is_empty() {
        true => json!({}),
        false => serde_json::from_slice(&view.twin.tags).map_err(|error| error.to_string())?,
    };
    let mut twin = json!({
        "deviceId": view.device.key.device,
        "etag": twin_etag(view.twin.version),
        "version": view.twin.version,
        "status": if view.device.spec.disabled { "disabled" } else { "enabled" },
        "connectionState":
            if view.session.as_ref().is_some_and(|session| session.connected) { "Connected" } else { "Disconnected" },
        "tags": tags,
        "properties": { "desired": desired.service_json(), "reported": reported.service_json() },
    });
    if view.device.key.is_module() {
        twin["moduleId"] = view.device.key.module.clone().into();
    }
    Ok(twin)
}

fn connection_info(core: &Core, binding: &Binding, scope: &Scope) -> Result<Value, InputError> {
    let hub =
        expanded(binding, scope, "hubName")?.ok_or_else(|| wrong(binding, "the binding has no hubName"))?;
    // `{headers.x-ms-client-principal-id}` of somebody who isn't logged in is nobody.
    let user = expanded(binding, scope, "userId").unwrap_or_default();
    let user = user.as_deref().filter(|user| !user.is_empty());
    let info = core
        .realtime
        .negotiate(&hub, user, &[], CONNECTION_TTL)
        .map_err(|error| wrong(binding, error.to_string()))?;
    Ok(Value::json(&json!({ "url": info.url, "accessToken": info.access_token })))
}
