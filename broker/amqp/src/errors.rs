//! Error codes and broker errors → conditions that the SDKs know.

use fleetline_amqp::{Error, Info, condition};
use fleetline_gateway::devices::hub::{AskError, DeviceHub};
use fleetline_gateway::devices::login::LoginError;
use fleetline_gateway::hub::HubError;
use fleetline_iothub::errors::ErrorCode;

/// The condition of a code.
pub(crate) fn condition_of(code: ErrorCode) -> &'static str {
    use ErrorCode::*;
    match code {
        // "amqp:not-found: device missing or disabled"
        DeviceNotFound | ModuleNotFound | DeviceDisabled | GenericNotFound => condition::NOT_FOUND,
        IotHubUnauthorized | IotHubUnauthorizedAccess | GenericUnauthorized | GenericForbidden => {
            condition::UNAUTHORIZED_ACCESS
        }
        DeviceMaximumQueueDepthExceeded
        | DeviceMaximumQueueSizeExceeded
        | IotHubQuotaExceeded
        | IotHubMaxCbsTokenExceeded => condition::RESOURCE_LIMIT_EXCEEDED,
        MessageTooLarge => condition::MESSAGE_SIZE_EXCEEDED,
        DeviceMessageLockLost => condition::MESSAGE_LOCK_LOST,
        PreconditionFailed | EtagDoesNotMatch => condition::MS_PRECONDITION_FAILED,
        DeviceConnectionClosedRemotely | LinkCreationConflict => condition::LINK_CREATION_CONFLICT,
        FeatureNotSupported => condition::NOT_IMPLEMENTED,
        InvalidOperation => condition::NOT_ALLOWED,
        ThrottlingException | DeviceThrottlingLimitExceeded | GenericTooManyRequests => {
            condition::DEVICE_CONTAINER_THROTTLED
        }
        GenericTimeout | GatewayTimeout | RequestTimedOut => condition::TIMEOUT,
        ServerBusy | ServiceUnavailable => condition::SERVER_BUSY,
        code if code.http_status() == 400 || code == InvalidMessageExpiryTime => condition::ARGUMENT_ERROR,
        _ => condition::INTERNAL_ERROR,
    }
}

/// An error of a code.
pub(crate) fn of_code(code: ErrorCode, text: impl Into<String>) -> Error {
    Error::new(condition_of(code), text).with("com.microsoft:error-code", Info::Number(code.number()))
}

/// A leader's refusal, or why it could not be asked.
pub(crate) fn of_ask(error: &AskError) -> Error {
    match error {
        AskError::Refused(refused) => match ErrorCode::from_number(refused.code) {
            Some(code) => of_code(code, refused.text.clone()),
            None => Error::new(condition::INTERNAL_ERROR, refused.text.clone()),
        },
        AskError::Hub(error) => of_hub(error),
    }
}

/// What the broker says of a partition.
pub(crate) fn of_hub(error: &HubError) -> Error {
    let condition = match error {
        HubError::NotLeader { .. }
        | HubError::Unavailable(_)
        | HubError::Busy { .. }
        | HubError::DiskFull(_) => condition::SERVER_BUSY,
        HubError::Unknown(_) => condition::TIMEOUT,
        HubError::NotFound(_) => condition::NOT_FOUND,
        HubError::OffsetGone { .. } | HubError::OffsetBeyondEnd { .. } => condition::ARGUMENT_OUT_OF_RANGE,
        HubError::Fenced { .. } => condition::LINK_STOLEN,
        HubError::OutOfSequence { .. } | HubError::Internal(_) => condition::INTERNAL_ERROR,
        HubError::Invalid(_) => condition::ARGUMENT_ERROR,
        HubError::Forbidden(_) => condition::UNAUTHORIZED_ACCESS,
    };
    Error::new(condition, error.to_string())
}

/// A login that was refused. The caller hears no reason, but for a token's time.
pub(crate) fn of_login(error: &LoginError) -> Error {
    metrics::counter!("fleetline_amqp_login_refused_total", "reason" => error.reason()).increment(1);
    let text = match error {
        LoginError::Expired => "the token has expired",
        LoginError::Missing => "no token and no certificate covers this address",
        _ => "the caller is not authorised",
    };
    Error::new(condition::UNAUTHORIZED_ACCESS, text)
}

/// Adds a number under which an operator finds it in the log.
pub(crate) fn tracked(hub: &dyn DeviceHub, error: Error) -> Error {
    let mut bytes = [0; 16];
    hub.random(&mut bytes);
    let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    tracing::debug!(tracking = id, %error, "refused");
    error.with("com.microsoft:tracking-id", Info::Text(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each code has a condition; those that SDKs look for have their own.
    #[test]
    fn codes() {
        for &code in ErrorCode::ALL {
            let condition = condition_of(code);
            assert!(condition.starts_with("amqp:") || condition.starts_with("com.microsoft:"));
        }
        for (code, condition) in [
            (ErrorCode::DeviceNotFound, "amqp:not-found"),
            (ErrorCode::DeviceMaximumQueueDepthExceeded, "amqp:resource-limit-exceeded"),
            (ErrorCode::DeviceMessageLockLost, "com.microsoft:message-lock-lost"),
            (ErrorCode::ArgumentInvalid, "com.microsoft:argument-error"),
            (ErrorCode::InvalidMessageExpiryTime, "com.microsoft:argument-error"),
            (ErrorCode::ServerError, "amqp:internal-error"),
        ] {
            assert_eq!(condition_of(code), condition);
        }
    }
}
