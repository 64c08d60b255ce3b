//! Direct methods: the leader says where the device is connected, its gateway calls it.
//!
//! A device is online for methods if it is connected and subscribes to them. While it isn't, it is
//! waited for as long as the caller asks. "Node gives HTTP a total timeout equal to the sum with no
//! slack", so a time-out is answered a little before the caller's own.

use std::time::Duration;

use bytes::Bytes;
use fleetline_devices::{DeviceKey, SessionRow};
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::limits::{
    METHOD_PAYLOAD_BYTES_MAX, METHOD_RESPONSE_SECS_MAX, METHOD_RESPONSE_SECS_MIN,
};
use fleetline_iothub::model::{CloudToDeviceMethod, CloudToDeviceMethodResult, from_object};
use fleetline_iothub::names::check_method_name;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use super::super::call::Call;
use super::super::errors::HttpError;
use super::super::reply::{self, Answer};
use crate::devices::hub::{GatewayAnswer, GatewayCall, MethodAnswer, MethodCall};
use crate::hub::HubError;

/// The filter that makes a device callable.
const FILTER: &str = "$iothub/methods/POST/#";

/// How much earlier than the caller's own time-out is answered.
const SLACK: Duration = Duration::from_millis(300);

/// How often it is looked whether a device has come, at first and at last.
const LOOK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1000));

/// POST `/twins/{id}/methods`.
pub(super) async fn invoke(call: &mut Call, key: DeviceKey) -> Answer {
    let body = call.service_body().await?;
    let asked: CloudToDeviceMethod =
        from_object(&body).map_err(|error| HttpError::malformed("method", &error))?;
    let times = Times::of(&asked)?;
    check_method_name(&asked.method_name).map_err(|error| HttpError::invalid(error.to_string()))?;
    let payload = Bytes::copy_from_slice(asked.payload_text().as_bytes());
    if payload.len() > METHOD_PAYLOAD_BYTES_MAX {
        let text = format!("payload is larger than {METHOD_PAYLOAD_BYTES_MAX} bytes");
        return Err(HttpError::new(ErrorCode::MessageTooLarge, text));
    }
    let connect_until = Instant::now() + times.connect;
    let mut pause = LOOK.0;
    loop {
        let session = super::view(call, &key).await?.session.filter(is_callable);
        if let Some(session) = session {
            let method = MethodCall {
                key: key.clone(),
                place: session.place,
                epoch: session.epoch,
                name: asked.method_name.clone(),
                payload: payload.clone(),
                timeout_ms: u64::try_from(times.response.as_millis()).unwrap_or(u64::MAX),
            };
            let answer = call_device(call, method).await?;
            // It has left, or has come again elsewhere: it was not called.
            if answer.outcome != MethodAnswer::NOT_ONLINE {
                return result(answer);
            }
        }
        let left = connect_until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(not_online(&key));
        }
        sleep(pause.min(left)).await;
        pause = (pause * 2).min(LOOK.1);
    }
}

/// How long to wait for what.
struct Times {
    connect: Duration,
    response: Duration,
}

impl Times {
    fn of(asked: &CloudToDeviceMethod) -> Result<Times, HttpError> {
        let (response, connect) = (asked.response_timeout_in_seconds, asked.connect_timeout_in_seconds);
        let range = METHOD_RESPONSE_SECS_MIN..=METHOD_RESPONSE_SECS_MAX;
        if !range.contains(&response) || connect > METHOD_RESPONSE_SECS_MAX {
            let text = format!(
                "responseTimeoutInSeconds must be from {METHOD_RESPONSE_SECS_MIN} to {METHOD_RESPONSE_SECS_MAX}, \
                 connectTimeoutInSeconds at most {METHOD_RESPONSE_SECS_MAX}"
            );
            return Err(HttpError::invalid(text));
        }
        let secs = |secs: u32| Duration::from_secs(secs.into());
        Ok(Times {
            connect: secs(connect).saturating_sub(SLACK),
            response: secs(response).saturating_sub(SLACK),
        })
    }
}

fn is_callable(session: &SessionRow) -> bool {
    session.connected && session.subscriptions.iter().any(|subscription| subscription.filter == FILTER)
}

fn not_online(key: &DeviceKey) -> HttpError {
    let text = format!("device {} is not connected, or does not listen for methods", key.text());
    HttpError::new(ErrorCode::DeviceNotOnline, text)
}

async fn call_device(call: &Call, method: MethodCall) -> Result<MethodAnswer, HttpError> {
    let node = method.place.node.into();
    let request = GatewayCall { wakes: Vec::new(), method: Some(method) };
    match call.hub().call_gateway(node, request).await {
        Ok(GatewayAnswer { method: Some(answer) }) => Ok(answer),
        Ok(GatewayAnswer { method: None }) => {
            Err(HttpError::internal("the gateway did not say what became of the call"))
        }
        // Nothing was done: as if the device were gone. It is waited for while there is time.
        Err(HubError::Unavailable(_) | HubError::NotLeader { .. } | HubError::NotFound(_)) => {
            Ok(MethodAnswer::without(MethodAnswer::NOT_ONLINE))
        }
        Err(error @ HubError::Unknown(_)) => {
            Err(HttpError::new(ErrorCode::GatewayTimeout, error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

fn result(answer: MethodAnswer) -> Answer {
    let refused = |code, text: &str| Err(HttpError::new(code, text));
    match answer.outcome {
        MethodAnswer::DONE => done(&answer),
        MethodAnswer::TIMED_OUT => refused(
            ErrorCode::GatewayTimeout,
            "the device did not answer in time, the method may have been called",
        ),
        MethodAnswer::BROKEN => refused(
            ErrorCode::GenericBadGateway,
            "the device's connection broke, the method may have been called",
        ),
        MethodAnswer::BUSY => refused(
            ErrorCode::DeviceMaximumInflightMethodExceeded,
            "too many methods of the device are open, this one was not called",
        ),
        other => Err(HttpError::internal(format!("a call has ended with {other}"))),
    }
}

fn done(answer: &MethodAnswer) -> Answer {
    let bad = || {
        let text = "the device's answer is not JSON, or too large";
        HttpError::new(ErrorCode::GenericBadGateway, text)
    };
    if answer.payload.len() > METHOD_PAYLOAD_BYTES_MAX {
        return Err(bad());
    }
    let payload = match answer.payload.iter().all(u8::is_ascii_whitespace) {
        true => None,
        false => {
            let payload: Box<RawValue> = serde_json::from_slice(&answer.payload).map_err(|_| bad())?;
            Some(payload)
        }
    };
    reply::json(&CloudToDeviceMethodResult { status: answer.status, payload })
}
