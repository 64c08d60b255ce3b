//! Commands to devices: purging, and sending over REST.
//!
//! The public hub takes commands over AMQP only; the request here is our own, with the headers that
//! devices use for what they send.

use fleetline_devices::{
    AckMode, CommandRow, DeviceKey, Op, Property, PurgeCommands, SendCommand, SystemPropertyRow,
};
use fleetline_iothub::bag::SystemProperty;
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::limits::C2D_MESSAGE_BYTES_MAX;
use fleetline_iothub::model::PurgeMessageQueueResult;
use fleetline_iothub::time::parse_time;
use http::StatusCode;

use super::super::call::Call;
use super::super::errors::HttpError;
use super::super::message::{Message, check_size};
use super::super::reply::{self, Answer};

/// DELETE `/devices/{id}/commands`.
pub(super) async fn purge(call: &Call, key: DeviceKey) -> Answer {
    let partition = call.gateway().partition_of(&key.device);
    let op = Op::PurgeCommands(PurgeCommands { key: key.clone() });
    let reply = call.hub().change(partition, op).await?;
    let module_id = key.is_module().then_some(key.module);
    reply::json(&PurgeMessageQueueResult {
        total_messages_purged: reply.number,
        device_id: key.device,
        module_id,
    })
}

/// POST `/devices/{id}/messages/devicebound`.
pub(super) async fn send(call: &mut Call, key: DeviceKey) -> Answer {
    let body = call.read_body(C2D_MESSAGE_BYTES_MAX).await?;
    let message = Message::from_headers(&call.headers, body)?;
    check_size(std::slice::from_ref(&message), C2D_MESSAGE_BYTES_MAX)?;
    let command = command(message, call.guid())?;
    let message_id = command.message_id.clone();
    let partition = call.gateway().partition_of(&key.device);
    call.hub().change(partition, Op::SendCommand(SendCommand { key, command })).await?;
    let mut response = reply::empty(StatusCode::CREATED);
    reply::put(&mut response, "iothub-messageid", &message_id);
    Ok(response)
}

/// What the hub itself looks at stands in fields, the rest in lists.
fn command(message: Message, new_id: String) -> Result<CommandRow, HttpError> {
    let value = |property| message.value(property).unwrap_or_default();
    let ack = match value(SystemProperty::Ack).to_ascii_lowercase().as_str() {
        "" | "none" => AckMode::None,
        "positive" => AckMode::Positive,
        "negative" => AckMode::Negative,
        "full" => AckMode::Full,
        _ => return Err(HttpError::invalid("iothub-ack is none of none, positive, negative, full")),
    };
    let expires_ms = match value(SystemProperty::Expiry) {
        "" => 0,
        text => parse_time(text).ok_or_else(|| {
            HttpError::new(ErrorCode::InvalidMessageExpiryTime, "iothub-expiry is not a time in ISO 8601")
        })?,
    };
    let message_id = match value(SystemProperty::MessageId) {
        "" => new_id,
        id => id.to_owned(),
    };
    let in_fields =
        [SystemProperty::Ack, SystemProperty::Expiry, SystemProperty::MessageId, SystemProperty::To];
    let system = message.system.iter().filter(|(property, _)| !in_fields.contains(property));
    let row = |(property, value): &(SystemProperty, String)| SystemPropertyRow {
        id: property.number().into(),
        value: value.clone(),
    };
    let system = system.map(row).collect();
    let properties = message.properties.into_iter().map(|(name, value)| Property { name, value }).collect();
    Ok(CommandRow {
        system,
        properties,
        body: message.body,
        expires_ms,
        ack: ack as i32,
        message_id,
        ..CommandRow::default()
    })
}
