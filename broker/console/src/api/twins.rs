//! Changes of desired properties.

use bytes::Bytes;
use fleetline_devices::{Condition, DeviceRow, DeviceView, Op, PatchTwin};
use fleetline_types::partition_of_key;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::devices;
use crate::access::{Caller, Deed};
use crate::console::Console;
use crate::error::ConsoleError;
use crate::routes::Call;

/// What the page sends.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    /// A merge patch: null takes a member away.
    desired: Box<RawValue>,
    /// The twin's version that the operator saw; a later one refuses.
    version: Option<u64>,
}

/// `PATCH devices/{id}/twin?module=`: merges into the desired properties, and answers with the twin.
pub(crate) async fn change(
    console: &Console,
    caller: &Caller,
    call: &Call,
    device: &str,
) -> Result<Value, ConsoleError> {
    caller.check(Deed::ChangeTwin(device))?;
    let key = devices::key(call, device)?;
    let change: Change = serde_json::from_slice(&call.body)
        .map_err(|error| ConsoleError::Invalid(format!("change can't be read: {error}")))?;
    if !change.desired.get().trim_start().starts_with('{') {
        return Err(ConsoleError::Invalid("desired is not an object".to_owned()));
    }
    let patch = PatchTwin {
        key,
        tags: Bytes::new(),
        desired: Bytes::copy_from_slice(change.desired.get().as_bytes()),
        replace: false,
        condition: change.version.map_or_else(Condition::any, Condition::tag),
    };
    let partition = partition_of_key(device.as_bytes(), console.devices.partitions());
    let reply = console.devices.change(partition, Op::PatchTwin(patch)).await?;
    let twin = reply.twin.ok_or_else(|| ConsoleError::stored("twin", "the leader gave none"))?;
    tracing::info!(policy = caller.name, device, "desired properties were changed in the console");
    devices::twin(&DeviceView { twin, device: DeviceRow::default(), session: None, commands: 0 })
}
