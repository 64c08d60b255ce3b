//! Telemetry: one message, or a batch of them, answered with 204 once a quorum has all of it.
//!
//! For the time of the request the sender has a connection of its own among the node's, so that a
//! fence (it was disabled, its key was changed) stops what is still on its way. The connection stays
//! known until its records are stored or dropped, also when the client has hung up.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use fleetline_batch::RecordRef;
use fleetline_devices::{DeviceKey, Verified, endpoints};
use fleetline_iothub::bag::SystemProperty;
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::limits::D2C_MESSAGE_BYTES_MAX;
use fleetline_types::TimestampMs;
use http::StatusCode;
use tokio::time::{Instant, timeout_at};

use super::super::call::Call;
use super::super::errors::HttpError;
use super::super::message::{Message, check_size};
use super::super::reply::{self, Answer};
use super::super::{caller, stamp};
use super::batch;
use crate::devices::connections::{Link, Registered};
use crate::devices::ingest::Pushed;

/// How often messages are sent again after their session ended though the sender still may send.
const ATTEMPTS: usize = 3;

pub(super) async fn send(call: &mut Call, key: &DeviceKey) -> Answer {
    let verified = caller::device(call, key).await?;
    let messages = if call.media_type() == batch::MEDIA_TYPE {
        let limit = call.context.limits.batch_body_max;
        batch::parse(&call.read_body(limit).await?)?
    } else {
        let body: Bytes = call.read_body(D2C_MESSAGE_BYTES_MAX).await?;
        vec![Message::from_headers(&call.headers, body)?]
    };
    check_size(&messages, D2C_MESSAGE_BYTES_MAX)?;
    store(call, key, verified, &messages).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// Stores the messages in order. When the session ends on the way, for instance because the device
/// connects over MQTT just now, the proof is checked anew, and what isn't acknowledged is sent again.
async fn store(
    call: &Call,
    key: &DeviceKey,
    mut verified: Verified,
    messages: &[Message],
) -> Result<(), HttpError> {
    let deadline = Instant::now() + call.context.limits.commit_wait;
    let mut rest = messages;
    for _ in 0..ATTEMPTS {
        let stored = push_and_wait(call, key, &verified, rest, deadline).await?;
        rest = &rest[stored..];
        if rest.is_empty() {
            return Ok(());
        }
        verified = caller::device(call, key).await?;
    }
    let text = "the device's session keeps ending; what was sent may not be stored";
    Err(HttpError::busy(ErrorCode::ServiceUnavailable, text, 1))
}

/// Sends messages through one session. Gives how many are stored for sure; fewer than all when the
/// session is over.
async fn push_and_wait(
    call: &Call,
    key: &DeviceKey,
    verified: &Verified,
    messages: &[Message],
    deadline: Instant,
) -> Result<usize, HttpError> {
    let registered = call.gateway().connections.register(key.clone());
    let link = registered.link.clone();
    link.opened(verified.epoch);
    let mut under_way = UnderWay { registered: Some(registered), pushed: 0 };
    for message in messages {
        let pushed = push(call, key, verified, &link, under_way.pushed + 1, message);
        match timeout_at(deadline, pushed).await {
            Err(_) if under_way.pushed == 0 => {
                let text = "there is no room for the message now, nothing was stored";
                return Err(HttpError::busy(ErrorCode::ServiceUnavailable, text, 10));
            }
            Err(_) => return Err(unknown()),
            Ok(Pushed::Taken) => under_way.pushed += 1,
            Ok(Pushed::Over) => break,
            Ok(Pushed::Refused(error)) => {
                return Err(HttpError::new(ErrorCode::MessageTooLarge, error.to_string()));
            }
            // `push_when_possible` waits for room.
            Ok(Pushed::Full) => return Err(HttpError::internal("the batch was full")),
        }
    }
    match timeout_at(deadline, wait(&link, under_way.pushed)).await {
        Err(_) => Err(unknown()),
        Ok(()) => Ok(link.acked().min(under_way.pushed) as usize),
    }
}

/// Waits until the link's records up to `number` are stored, or its session is over.
async fn wait(link: &Link, number: u64) {
    while link.acked() < number && !link.is_over() {
        let acked = link.acked();
        poll_fn(|cx| link.poll_changed(cx, acked)).await;
        // Nobody else looks at what it was asked to look at.
        link.take();
    }
}

fn unknown() -> HttpError {
    let text = "no quorum has answered in time: the outcome is unknown, the message may be stored later";
    HttpError::busy(ErrorCode::ServiceUnavailable, text, 10)
}

async fn push(
    call: &Call,
    key: &DeviceKey,
    verified: &Verified,
    link: &Arc<Link>,
    number: u64,
    message: &Message,
) -> Pushed {
    let stamps = stamp::stamps(key, verified);
    let own = message.system.iter().map(|(property, value)| (*property, value.as_str()));
    let bytes =
        |(property, value): (SystemProperty, &str)| (property.number(), value.to_owned().into_bytes());
    let system: Vec<(u8, Vec<u8>)> = own.chain(stamps).map(bytes).collect();
    let system: Vec<(u8, &[u8])> = system.iter().map(|(id, value)| (*id, value.as_slice())).collect();
    let pairs = message.properties.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let properties: Vec<(&[u8], &[u8])> = pairs.collect();
    let record = RecordRef {
        device: key.device.as_bytes(),
        time: TimestampMs(call.hub().now_ms()),
        endpoints: endpoints::TELEMETRY,
        system: &system,
        properties: &properties,
        body: &message.body,
    };
    let partition = call.gateway().partition_of(&key.device);
    call.gateway().ingest.push_when_possible(partition, link, number, &record).await
}

/// Keeps a connection known while records of it are on their way: only then do fences reach them.
struct UnderWay {
    registered: Option<Registered>,
    pushed: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some(registered) = self.registered.take() else { return };
        let pushed = self.pushed;
        if registered.link.acked() >= pushed || registered.link.is_over() {
            return;
        }
        // The request has ended before its records: there are never more of these than the open
        // batches and those on their way have room for.
        tokio::spawn(async move { wait(&registered.link, pushed).await });
    }
}
