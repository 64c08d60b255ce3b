//! Who is calling: tokens and certificates of requests.

use std::net::IpAddr;

use fleetline_devices::{DeviceAnswer, DeviceKey, Request, Verified, Verify};
use fleetline_iothub::errors::ErrorCode;
use http::header;

use super::call::Call;
use super::errors::HttpError;
use crate::devices::hub::answered;
use crate::devices::login::{LoginError, device_login, service_login};
use crate::devices::settings::{HubSettings, Right};

/// The request's token: `None` without the header. Another scheme is a token that can't be read.
fn token(call: &Call) -> Option<&str> {
    call.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or("unreadable"))
}

fn count(reason: &'static str) {
    metrics::counter!("fleetline_http_login_refused_total", "reason" => reason).increment(1);
}

fn refused(error: &LoginError) -> HttpError {
    count(error.reason());
    tracing::debug!(%error, "http login refused");
    match error {
        LoginError::Forbidden => {
            HttpError::new(ErrorCode::IotHubUnauthorizedAccess, "caller may not do this")
        }
        _ => HttpError::unauthorized(),
    }
}

/// Whether address rules let the peer in. "Rejected clients get 401 rather than 403."
pub(super) fn check_address(call: &Call) -> Result<(), HttpError> {
    check_admitted(&call.settings, call.peer.address.ip())
}

/// Whether address rules let this address in.
pub(super) fn check_admitted(settings: &HubSettings, address: IpAddr) -> Result<(), HttpError> {
    match settings.admits(address) {
        true => Ok(()),
        false => {
            count("address");
            Err(HttpError::unauthorized())
        }
    }
}

/// Checks that the request is from `key`, at the leader that has its keys.
pub(super) async fn device(call: &Call, key: &DeviceKey) -> Result<Verified, HttpError> {
    let presented = device_login(
        &call.settings,
        call.now_secs(),
        key,
        token(call),
        call.peer.certificate.as_deref(),
        |shown| (call.peer.chained)(shown),
    )
    .map_err(|error| refused(&error))?;
    let request = Request::Verify(Verify { key: key.clone(), proof: presented.proof });
    let partition = call.gateway().partition_of(&key.device);
    let answer: DeviceAnswer = answered(call.hub().ask(partition, request).await?).map_err(|error| {
        let error = HttpError::from(error);
        match error.code {
            // The leader says why; the caller hears no reason.
            ErrorCode::IotHubUnauthorized => {
                count("proof");
                HttpError::unauthorized()
            }
            _ => error,
        }
    })?;
    answer.verified.ok_or_else(|| HttpError::internal("the leader did not say whether the proof is good"))
}

/// Checks that the request is from a service that has one of `rights` and may do `action`; with
/// `device`, to that device.
pub(super) fn service(
    call: &Call,
    rights: &[Right],
    action: &str,
    device: Option<&str>,
) -> Result<(), HttpError> {
    service_login(&call.settings, call.now_secs(), token(call), rights, action, device)
        .map(drop)
        .map_err(|error| refused(&error))
}
