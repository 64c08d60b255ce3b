//! The device API: what a device or module asks about itself.
//!
//! Each request proves itself at the leader before its body is read. A change that the leader finds to
//! rest on an older version of the credentials is tried again with a fresh check.

mod batch;
mod commands;
mod events;
mod uploads;

use fleetline_devices::{DeviceKey, DeviceReply, Op, Verified};
use fleetline_iothub::errors::ErrorCode;

use super::call::Call;
use super::caller;
use super::errors::HttpError;
use super::reply::Answer;
use super::router::DeviceCall;
use crate::devices::hub::AskError;

/// How often a change is tried whose proof became outdated on its way.
const ATTEMPTS: usize = 3;

pub(super) async fn answer(call: &mut Call, key: &DeviceKey, asked: DeviceCall) -> Answer {
    match asked {
        DeviceCall::SendEvents => events::send(call, key).await,
        DeviceCall::ReceiveCommand => commands::receive(call, key).await,
        DeviceCall::SettleCommand(token, settle) => commands::settle(call, key, &token, settle).await,
        DeviceCall::BeginUpload => uploads::begin(call, key).await,
        DeviceCall::FinishUpload(id) => uploads::finish(call, key, id).await,
    }
}

/// Proposes what `op` makes of the version of the credentials, with a fresh check when these have
/// changed meanwhile.
async fn change(
    call: &Call,
    key: &DeviceKey,
    mut verified: Verified,
    op: impl Fn(u64) -> Op,
) -> Result<DeviceReply, HttpError> {
    let partition = call.gateway().partition_of(&key.device);
    for _ in 1..ATTEMPTS {
        match call.hub().change(partition, op(verified.auth_version)).await {
            Err(AskError::Refused(error)) if error.code == ErrorCode::ServerBusy.number() => {
                verified = caller::device(call, key).await?;
            }
            outcome => return Ok(outcome?),
        }
    }
    Ok(call.hub().change(partition, op(verified.auth_version)).await?)
}
