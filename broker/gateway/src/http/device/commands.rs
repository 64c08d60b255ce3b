//! Commands (cloud-to-device messages) for a device that polls.
//!
//! Polling may be as fast as it likes: "Node polls every 1 s by default and drains until 204".

use fleetline_devices::{AckMode, CommandRow, DeviceKey, LockCommand, Op, Settle, SettleCommand};
use fleetline_iothub::bag::{SystemProperty, format_time};
use fleetline_iothub::limits::C2D_LOCK_MS;
use http::{Response, StatusCode, header};

use super::super::call::Call;
use super::super::caller;
use super::super::message::APPLICATION_PREFIX;
use super::super::reply::{self, Answer, Body};
use super::change;

/// Gives the oldest command under a lock of a minute, or 204.
pub(super) async fn receive(call: &Call, key: &DeviceKey) -> Answer {
    let verified = caller::device(call, key).await?;
    let token = call.guid();
    let lock = |auth_version| {
        let (key, token) = (key.clone(), token.clone());
        Op::LockCommand(LockCommand { key, auth_version, token, lock_ms: C2D_LOCK_MS })
    };
    let reply = change(call, key, verified, lock).await?;
    Ok(match reply.command {
        Some(command) => response(key, &command),
        None => reply::empty(StatusCode::NO_CONTENT),
    })
}

/// Settles a command by its lock. "Use the path": the token of `If-Match` comes bare, quoted, or
/// under another name.
pub(super) async fn settle(call: &Call, key: &DeviceKey, token: &str, settle: Settle) -> Answer {
    let verified = caller::device(call, key).await?;
    let op = |auth_version| {
        let (key, token) = (key.clone(), token.to_owned());
        let settle = settle as i32;
        Op::SettleCommand(SettleCommand { key, token, settle, auth_version, epoch: 0, sequence: 0 })
    };
    change(call, key, verified, op).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn response(key: &DeviceKey, command: &CommandRow) -> Response<Body> {
    let content_type = system(command, SystemProperty::ContentType).unwrap_or("application/octet-stream");
    let mut response = reply::text(StatusCode::OK, content_type, command.body.clone());
    // "With quotes (Node strips first and last character blindly; C refuses unquoted)."
    reply::put_etag(&mut response, &command.lock_token);
    for row in &command.system {
        let property = u8::try_from(row.id).ok().and_then(SystemProperty::from_number);
        if let Some(name) = property.and_then(SystemProperty::http_header) {
            reply::put(&mut response, name, &row.value);
        }
    }
    let mut put = |name: SystemProperty, value: &str| {
        if let Some(name) = name.http_header() {
            reply::put(&mut response, name, value);
        }
    };
    put(SystemProperty::To, &to(key));
    put(SystemProperty::Expiry, &format_time(command.expires_ms));
    put(SystemProperty::EnqueuedTime, &format_time(command.enqueued_ms));
    put(SystemProperty::DeliveryCount, &command.deliveries.to_string());
    put(SystemProperty::SequenceNumber, &command.sequence.to_string());
    put(SystemProperty::Ack, ack_text(command.ack));
    if !command.message_id.is_empty() {
        put(SystemProperty::MessageId, &command.message_id);
    }
    // C reads these two.
    for (name, property) in
        [("ContentType", SystemProperty::ContentType), ("ContentEncoding", SystemProperty::ContentEncoding)]
    {
        if let Some(value) = system(command, property) {
            reply::put(&mut response, name, value);
        }
    }
    for property in &command.properties {
        let name = format!("{APPLICATION_PREFIX}{}", reply::header_name_part(&property.name));
        reply::put(&mut response, &name, &property.value);
    }
    if !response.headers().contains_key(header::CONTENT_TYPE) {
        reply::put(&mut response, header::CONTENT_TYPE.as_str(), "application/octet-stream");
    }
    response
}

fn system(command: &CommandRow, property: SystemProperty) -> Option<&str> {
    let found = command.system.iter().find(|row| row.id == u32::from(property.number()));
    found.map(|row| row.value.as_str())
}

/// The address of a device's commands.
fn to(key: &DeviceKey) -> String {
    match key.is_module() {
        true => format!("/devices/{}/modules/{}/messages/devicebound", key.device, key.module),
        false => format!("/devices/{}/messages/devicebound", key.device),
    }
}

fn ack_text(ack: i32) -> &'static str {
    match AckMode::try_from(ack) {
        Ok(AckMode::Positive) => "positive",
        Ok(AckMode::Negative) => "negative",
        Ok(AckMode::Full) => "full",
        Ok(AckMode::None) | Err(_) => "none",
    }
}
