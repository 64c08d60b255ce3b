//! The service API: the registry, twins, methods, commands, feedback, queries.
//!
//! Each call needs a right of the token's policy, an action, and, where it is about one device, that
//! the policy covers it. Policies that are limited to devices can't ask for what is about all.

mod authorities;
mod bulk;
mod commands;
mod feedback;
mod gather;
pub(super) mod hub;
mod identities;
mod keys;
mod methods;
mod query;
mod statistics;
mod twins;
mod view;

use fleetline_devices::{Ask, Condition, DeviceKey, DeviceView, Request};
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::model::{IfMatch, parse_if_match};
use http::header;

use super::call::Call;
use super::caller;
use super::errors::HttpError;
use super::reply::Answer;
use super::router::ServiceCall;
use crate::devices::hub::answered;
use crate::devices::settings::Right;

pub(super) async fn answer(call: &mut Call, asked: ServiceCall) -> Answer {
    authorize(call, &asked)?;
    match asked {
        ServiceCall::ListDevices => identities::list(call).await,
        ServiceCall::ListModules(key) => identities::list_modules(call, &key).await,
        ServiceCall::GetIdentity(key) => identities::get(call, &key).await,
        ServiceCall::PutIdentity(key) => identities::put(call, key).await,
        ServiceCall::DeleteIdentity(key) => identities::delete(call, key).await,
        ServiceCall::Bulk => bulk::run(call).await,
        ServiceCall::RegenerateKeys => keys::regenerate(call).await,
        ServiceCall::Query => query::run(call).await,
        ServiceCall::PurgeCommands(key) => commands::purge(call, key).await,
        ServiceCall::SendCommand(key) => commands::send(call, key).await,
        ServiceCall::RegistryStatistics => statistics::registry(call).await,
        ServiceCall::ServiceStatistics => statistics::service(call).await,
        ServiceCall::GetTwin(key) => twins::get(call, &key).await,
        ServiceCall::ChangeTwin(key, replace) => twins::change(call, key, replace).await,
        ServiceCall::Method(key) => methods::invoke(call, key).await,
        ServiceCall::ReceiveFeedback => feedback::receive(call).await,
        ServiceCall::SettleFeedback(token, settle) => feedback::settle(call, &token, settle).await,
        ServiceCall::Unsupported(what) => Err(HttpError::unsupported(what)),
    }
}

/// What a call needs: a right, an action, and a device when it is about one.
fn needs(asked: &ServiceCall) -> (Right, &'static str, Option<&DeviceKey>) {
    use Right::{RegistryRead, RegistryWrite, ServiceConnect};
    match asked {
        ServiceCall::ListDevices => (RegistryRead, "devices/read", None),
        ServiceCall::ListModules(key) | ServiceCall::GetIdentity(key) => {
            (RegistryRead, "devices/read", Some(key))
        }
        ServiceCall::PutIdentity(key) => (RegistryWrite, "devices/write", Some(key)),
        ServiceCall::DeleteIdentity(key) => (RegistryWrite, "devices/delete", Some(key)),
        ServiceCall::Bulk | ServiceCall::RegenerateKeys => (RegistryWrite, "devices/write", None),
        ServiceCall::Query => (ServiceConnect, "twins/read", None),
        ServiceCall::PurgeCommands(key) => {
            (ServiceConnect, "cloudToDeviceMessages/queue/purge/action", Some(key))
        }
        ServiceCall::SendCommand(key) => (ServiceConnect, "cloudToDeviceMessages/send/action", Some(key)),
        ServiceCall::RegistryStatistics => (RegistryRead, "statistics/read", None),
        ServiceCall::ServiceStatistics => (ServiceConnect, "statistics/read", None),
        ServiceCall::GetTwin(key) => (ServiceConnect, "twins/read", Some(key)),
        ServiceCall::ChangeTwin(key, _) => (ServiceConnect, "twins/write", Some(key)),
        ServiceCall::Method(key) => (ServiceConnect, "directMethods/invoke/action", Some(key)),
        ServiceCall::ReceiveFeedback | ServiceCall::SettleFeedback(..) => {
            (ServiceConnect, "cloudToDeviceMessages/feedback/action", None)
        }
        ServiceCall::Unsupported(_) => (ServiceConnect, "unsupported", None),
    }
}

fn authorize(call: &Call, asked: &ServiceCall) -> Result<(), HttpError> {
    let (right, action, key) = needs(asked);
    let device = key.map(|key| key.device.as_str());
    match asked {
        // "Bulk registry needs write and delete."
        ServiceCall::Bulk => caller::service(call, &[right], "devices/delete", device)?,
        // It says the same to everybody who is known.
        ServiceCall::Unsupported(_) => {
            let rights = [Right::ServiceConnect, Right::RegistryRead, Right::RegistryWrite];
            return caller::service(call, &rights, action, device);
        }
        _ => {}
    }
    caller::service(call, &[right], action, device)
}

/// An identity with all that belongs to it, from its leader.
async fn view(call: &Call, key: &DeviceKey) -> Result<DeviceView, HttpError> {
    let ask = Ask { key: key.clone(), epoch: 0, after: 0, limit: 1 };
    let partition = call.gateway().partition_of(&key.device);
    let answer = answered(call.hub().ask(partition, Request::Get(ask)).await?)?;
    answer.views.into_iter().next().ok_or_else(|| missing(key))
}

fn missing(key: &DeviceKey) -> HttpError {
    match key.is_module() {
        true => HttpError::new(ErrorCode::ModuleNotFound, format!("module {} is not registered", key.text())),
        false => {
            HttpError::new(ErrorCode::DeviceNotFound, format!("device {} is not registered", key.text()))
        }
    }
}

/// What the request's `If-Match` asks for, as `parse` reads its tags; `None` without one. A tag that
/// can't be one of ours fits nothing.
fn condition(call: &Call, parse: impl Fn(&str) -> Option<u64>) -> Result<Option<Condition>, HttpError> {
    let Some(value) = call.headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    match parse_if_match(value.to_str().unwrap_or_default()) {
        IfMatch::Any => Ok(Some(Condition::any())),
        IfMatch::Tag(tag) => match parse(&tag) {
            Some(number) => Ok(Some(Condition::tag(number))),
            None => Err(HttpError::new(
                ErrorCode::PreconditionFailed,
                "the etag of If-Match is not the current one",
            )),
        },
    }
}

/// A new key: 32 random bytes in Base64.
fn new_key(call: &Call) -> String {
    use base64::Engine as _;
    let mut bytes = [0; 32];
    call.hub().random(&mut bytes);
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
