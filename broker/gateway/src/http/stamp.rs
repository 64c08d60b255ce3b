//! What the hub says of a device's message beside what the device says.

use fleetline_devices::{DeviceKey, Verified};
use fleetline_iothub::bag::SystemProperty;

/// The server's own properties of a message from `key`.
pub(super) fn stamps<'a>(key: &'a DeviceKey, verified: &'a Verified) -> Vec<(SystemProperty, &'a str)> {
    let mut stamps = vec![
        (SystemProperty::ConnectionGenerationId, verified.generation.as_str()),
        (SystemProperty::ConnectionAuthMethod, verified.method.as_str()),
    ];
    if key.is_module() {
        stamps.push((SystemProperty::ConnectionModuleId, key.module.as_str()));
    }
    stamps
}
