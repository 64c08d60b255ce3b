//! What the hub says of a device's message beside what the device says.

use fleetline_devices::{AuthKind, DeviceKey, Verified};
use fleetline_iothub::bag::SystemProperty;

/// The stored short form of how a sender has proved itself; readers get the public hub's JSON of it.
pub(super) fn auth_method(kind: i32) -> &'static str {
    match AuthKind::try_from(kind) {
        Ok(AuthKind::SelfSigned | AuthKind::CertificateAuthority) => "x509",
        _ => "sas",
    }
}

/// The server's own properties of a message from `key`.
pub(super) fn stamps<'a>(key: &'a DeviceKey, verified: &'a Verified) -> Vec<(SystemProperty, &'a str)> {
    let mut stamps = vec![
        (SystemProperty::ConnectionGenerationId, verified.generation.as_str()),
        (SystemProperty::ConnectionAuthMethod, auth_method(verified.kind)),
    ];
    if key.is_module() {
        stamps.push((SystemProperty::ConnectionModuleId, key.module.as_str()));
    }
    stamps
}
