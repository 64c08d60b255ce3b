//! The JSON that service SDKs and the registry exchange, with its exact names.
//!
//! The HTTP front end reads requests into these structs and writes answers from them; our own client does
//! the reverse. Reading is tolerant: enums in any case, missing fields and nulls mean the default,
//! unknown fields are ignored, unset and malformed timestamps are [`Timestamp::NEVER`]. Writing is exact:
//! an answer has all the fields that Azure's has, in its order.
//!
//! Payloads and twin parts are kept as the text that came, so that no digit and no order of keys is lost.
//!
//! Invariant: `Debug` shows no key.
//!
//! Not here: twins (`broker/twins`), which fields a caller may change, limits of values.

use serde::de::{DeserializeOwned, Error as _};

mod bulk;
mod device;
mod etag;
mod method;
mod values;

pub use self::bulk::{
    BulkRegistryOperationResult, DeviceRegistryOperationError, DeviceRegistryOperationWarning,
    ExportImportDevice, ExportImportProperties, PurgeMessageQueueResult, RegistryStatistics,
    ServiceStatistics,
};
pub use self::device::{Authentication, Capabilities, Device, Module, SymmetricKey, X509Thumbprint};
pub use self::etag::{IfMatch, format_etag, parse_etag, parse_if_match, parse_twin_etag, twin_etag};
pub use self::method::{CloudToDeviceMethod, CloudToDeviceMethodResult};
pub use self::values::{AuthenticationType, ConnectionState, DeviceStatus, ImportMode, Timestamp};

/// Reads a body that must be a JSON object. Derived readers take an array too, as fields in their order;
/// a request that has one is wrong.
pub fn from_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => serde_json::from_slice(body),
        _ => Err(serde_json::Error::custom("body is not a json object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_objects() {
        let device: Device = from_object(b" \n{\"deviceId\":\"d\"}").unwrap();
        assert_eq!(device.device_id, "d");
        for body in ["", " ", "[]", "[\"d\"]", "null", "\"d\"", "{", "{}x", "\u{feff}{}"] {
            assert!(from_object::<Device>(body.as_bytes()).is_err(), "{body}");
        }
        assert!(from_object::<Device>(b"{\"deviceId\":\"\xff\"}").is_err());
    }
}
