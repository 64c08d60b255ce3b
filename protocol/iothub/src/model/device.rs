//! Device and module identities as the registry shows them.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::values::{AuthenticationType, ConnectionState, DeviceStatus, Timestamp, non_empty, null_default};

/// A device. What the server alone may set is marked *server*; a request's value there is to be ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    /// Its id; empty when a request has none (the path has it).
    #[serde(deserialize_with = "null_default")]
    pub device_id: String,
    /// *Server*: tells a device from an earlier one of the same id.
    pub generation_id: Option<String>,
    /// *Server*: see [`format_etag`](super::format_etag). Bulk requests compare it.
    pub etag: Option<String>,
    /// *Server*.
    #[serde(deserialize_with = "null_default")]
    pub connection_state: ConnectionState,
    /// Whether it may connect.
    #[serde(deserialize_with = "null_default")]
    pub status: DeviceStatus,
    /// Why, in the operator's words; at most 128 characters.
    pub status_reason: Option<String>,
    /// *Server*.
    pub connection_state_updated_time: Timestamp,
    /// *Server*.
    pub status_updated_time: Timestamp,
    /// *Server*.
    pub last_activity_time: Timestamp,
    /// *Server*: messages that wait for it.
    #[serde(deserialize_with = "null_default")]
    pub cloud_to_device_message_count: u64,
    /// How it proves itself.
    #[serde(deserialize_with = "null_default")]
    pub authentication: Authentication,
    /// What it can do.
    #[serde(deserialize_with = "null_default")]
    pub capabilities: Capabilities,
    /// The Edge scope that it is in.
    pub device_scope: Option<String>,
    /// Scopes above it.
    #[serde(deserialize_with = "null_default")]
    pub parent_scopes: Vec<String>,
}

/// A module of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Module {
    /// Its id.
    #[serde(deserialize_with = "null_default")]
    pub module_id: String,
    /// Who looks after it, such as `IotEdge`.
    pub managed_by: Option<String>,
    /// The device that it is on.
    #[serde(deserialize_with = "null_default")]
    pub device_id: String,
    /// *Server*.
    pub generation_id: Option<String>,
    /// *Server*.
    pub etag: Option<String>,
    /// *Server*.
    #[serde(deserialize_with = "null_default")]
    pub connection_state: ConnectionState,
    /// *Server*.
    pub connection_state_updated_time: Timestamp,
    /// *Server*.
    pub last_activity_time: Timestamp,
    /// *Server*.
    #[serde(deserialize_with = "null_default")]
    pub cloud_to_device_message_count: u64,
    /// How it proves itself.
    #[serde(deserialize_with = "null_default")]
    pub authentication: Authentication,
}

/// How an identity proves itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Authentication {
    /// Keys for `sas`.
    #[serde(deserialize_with = "null_default")]
    pub symmetric_key: SymmetricKey,
    /// Thumbprints for `selfSigned`.
    #[serde(deserialize_with = "null_default")]
    pub x509_thumbprint: X509Thumbprint,
    /// `type`, if the request has one; [`Authentication::resolved_type`] is what it means.
    #[serde(rename = "type")]
    pub kind: Option<AuthenticationType>,
}

impl Authentication {
    /// The type, or what a request without one means: `selfSigned` with a thumbprint, else `sas`.
    pub fn resolved_type(&self) -> AuthenticationType {
        self.kind.unwrap_or(if self.x509_thumbprint == X509Thumbprint::default() {
            AuthenticationType::Sas
        } else {
            AuthenticationType::SelfSigned
        })
    }
}

impl Serialize for Authentication {
    /// By hand, as `type` is never null.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Authentication", 3)?;
        fields.serialize_field("symmetricKey", &self.symmetric_key)?;
        fields.serialize_field("x509Thumbprint", &self.x509_thumbprint)?;
        fields.serialize_field("type", &self.resolved_type())?;
        fields.end()
    }
}

/// Two keys, so that one can be changed while the other is in use. Base64; `None` for missing or empty.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SymmetricKey {
    /// Tried first.
    #[serde(deserialize_with = "non_empty")]
    pub primary_key: Option<String>,
    /// Tried second.
    #[serde(deserialize_with = "non_empty")]
    pub secondary_key: Option<String>,
}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |key: &Option<String>| if key.is_some() { ".." } else { "none" };
        f.debug_struct("SymmetricKey")
            .field("primary_key", &shown(&self.primary_key))
            .field("secondary_key", &shown(&self.secondary_key))
            .finish()
    }
}

/// Two thumbprints: SHA-1 (40 hex digits) or SHA-256 (64) of a certificate. `None` for missing or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct X509Thumbprint {
    /// One.
    #[serde(deserialize_with = "non_empty")]
    pub primary_thumbprint: Option<String>,
    /// The other.
    #[serde(deserialize_with = "non_empty")]
    pub secondary_thumbprint: Option<String>,
}

/// What a device can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// It is an Edge gateway.
    #[serde(deserialize_with = "null_default")]
    pub iot_edge: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_written_with_all_its_fields() {
        let device = Device {
            device_id: "d".into(),
            generation_id: Some("7".into()),
            etag: Some("MQ==".into()),
            status_updated_time: Timestamp::from_ms(0),
            authentication: Authentication {
                symmetric_key: SymmetricKey {
                    primary_key: Some("cA==".into()),
                    secondary_key: Some("cw==".into()),
                },
                ..Authentication::default()
            },
            ..Device::default()
        };
        let text = "{\"deviceId\":\"d\",\"generationId\":\"7\",\"etag\":\"MQ==\",\
             \"connectionState\":\"Disconnected\",\"status\":\"enabled\",\"statusReason\":null,\
             \"connectionStateUpdatedTime\":\"0001-01-01T00:00:00Z\",\
             \"statusUpdatedTime\":\"1970-01-01T00:00:00.0000000Z\",\
             \"lastActivityTime\":\"0001-01-01T00:00:00Z\",\"cloudToDeviceMessageCount\":0,\
             \"authentication\":{\"symmetricKey\":{\"primaryKey\":\"cA==\",\"secondaryKey\":\"cw==\"},\
             \"x509Thumbprint\":{\"primaryThumbprint\":null,\"secondaryThumbprint\":null},\"type\":\"sas\"},\
             \"capabilities\":{\"iotEdge\":false},\"deviceScope\":null,\"parentScopes\":[]}";
        assert_eq!(serde_json::to_string(&device).unwrap(), text);
        let read: Device = serde_json::from_str(text).unwrap();
        assert_eq!(read.authentication.kind, Some(AuthenticationType::Sas));
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        let shown = format!("{device:?}");
        assert!(!shown.contains("cA==") && !shown.contains("cw=="), "{shown}");
    }

    #[test]
    fn a_module_is_written_with_all_its_fields() {
        let module = Module { module_id: "m".into(), device_id: "d".into(), ..Module::default() };
        assert_eq!(
            serde_json::to_string(&module).unwrap(),
            "{\"moduleId\":\"m\",\"managedBy\":null,\"deviceId\":\"d\",\"generationId\":null,\"etag\":null,\
             \"connectionState\":\"Disconnected\",\
             \"connectionStateUpdatedTime\":\"0001-01-01T00:00:00Z\",\
             \"lastActivityTime\":\"0001-01-01T00:00:00Z\",\"cloudToDeviceMessageCount\":0,\
             \"authentication\":{\"symmetricKey\":{\"primaryKey\":null,\"secondaryKey\":null},\
             \"x509Thumbprint\":{\"primaryThumbprint\":null,\"secondaryThumbprint\":null},\"type\":\"sas\"}}"
        );
    }

    /// As .NET and Python send it: unset moments, nulls, capitals, fields that nobody knows.
    #[test]
    fn requests_are_read_with_tolerance() {
        let device: Device = serde_json::from_str(
            "{\"deviceId\":\"d\",\"status\":\"Disabled\",\"connectionState\":\"connected\",\
             \"statusUpdatedTime\":\"0001-01-01T00:00:00\",\"lastActivityTime\":null,\
             \"cloudToDeviceMessageCount\":null,\"capabilities\":null,\"parentScopes\":null,\
             \"authentication\":{\"symmetricKey\":null,\"x509Thumbprint\":{\"primaryThumbprint\":\"AB\"}},\
             \"attributes\":{\"site\":\"x\"},\"new\":[1]}",
        )
        .unwrap();
        assert_eq!(device.status, DeviceStatus::Disabled);
        assert_eq!(device.status_updated_time, Timestamp::NEVER);
        assert_eq!(device.authentication.kind, None);
        assert_eq!(device.authentication.resolved_type(), AuthenticationType::SelfSigned);
        let empty: Device = serde_json::from_str("{\"authentication\":null,\"deviceId\":null}").unwrap();
        assert_eq!(empty, Device::default());
        let blank = "{\"authentication\":{\"symmetricKey\":{\"primaryKey\":\"\"},\
                     \"x509Thumbprint\":{\"primaryThumbprint\":\"\",\"secondaryThumbprint\":null}}}";
        let blank: Device = serde_json::from_str(blank).unwrap();
        assert_eq!(blank, Device::default());
        assert_eq!(blank.authentication.resolved_type(), AuthenticationType::Sas);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["{\"status\":\"maybe\"}", "{\"deviceId\":7}", "{\"capabilities\":true}", "{"] {
            assert!(serde_json::from_str::<Device>(text).is_err(), "{text}");
        }
    }
}
