//! Bulk operations on identities, and what the registry counts.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::device::{Authentication, Capabilities};
use super::values::{DeviceStatus, ImportMode, null_default};

/// One line of a bulk request, or of an import or export blob. Absent fields stay absent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExportImportDevice {
    /// The device's id.
    #[serde(deserialize_with = "null_default")]
    pub id: String,
    /// The module's id, if it is a module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_id: Option<String>,
    /// The identity's etag; note the spelling.
    #[serde(rename = "eTag", alias = "etag", skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import_mode: Option<ImportMode>,
    /// Whether it may connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<DeviceStatus>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// How it proves itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// The twin's etag; note the spelling.
    #[serde(rename = "twinETag", alias = "twinEtag", skip_serializing_if = "Option::is_none")]
    pub twin_etag: Option<String>,
    /// Tags of the twin, as JSON text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Box<RawValue>>,
    /// Sections of the twin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub properties: Option<ExportImportProperties>,
    /// What it can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// The Edge scope that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_scope: Option<String>,
    /// Scopes above it.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub parent_scopes: Vec<String>,
}

/// Sections of a twin in [`ExportImportDevice`], each as JSON text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExportImportProperties {
    /// Set by the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired: Option<Box<RawValue>>,
    /// Set by the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<Box<RawValue>>,
}

/// The answer to a bulk request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BulkRegistryOperationResult {
    /// Whether all of it was done.
    #[serde(deserialize_with = "null_default")]
    pub is_successful: bool,
    /// What wasn't.
    #[serde(deserialize_with = "null_default")]
    pub errors: Vec<DeviceRegistryOperationError>,
    /// What was, with a doubt.
    #[serde(deserialize_with = "null_default")]
    pub warnings: Vec<DeviceRegistryOperationWarning>,
}

/// Why one identity of a bulk request was left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceRegistryOperationError {
    /// The device.
    #[serde(deserialize_with = "null_default")]
    pub device_id: String,
    /// The *name* of an [`ErrorCode`](crate::errors::ErrorCode).
    #[serde(deserialize_with = "null_default")]
    pub error_code: String,
    /// In words.
    pub error_status: Option<String>,
    /// The module, if it is one.
    pub module_id: Option<String>,
    /// What was asked for.
    pub operation: Option<String>,
}

/// What is doubtful about one identity of a bulk request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceRegistryOperationWarning {
    /// The device.
    #[serde(deserialize_with = "null_default")]
    pub device_id: String,
    /// A name.
    #[serde(deserialize_with = "null_default")]
    pub warning_code: String,
    /// In words.
    pub warning_status: Option<String>,
}

/// How many devices there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegistryStatistics {
    /// All.
    pub total_device_count: u64,
    /// Those that may connect.
    pub enabled_device_count: u64,
    /// Those that may not.
    pub disabled_device_count: u64,
}

/// How many devices are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatistics {
    /// So many.
    pub connected_device_count: u64,
}

/// The answer to a purge of the messages that wait for a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PurgeMessageQueueResult {
    /// How many were dropped.
    pub total_messages_purged: u64,
    /// The device.
    pub device_id: String,
    /// The module, if it is one.
    pub module_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_line_keeps_its_twin_to_the_letter() {
        let text = "{\"id\":\"d\",\"eTag\":\"MQ==\",\"importMode\":\"updateTwinIfMatchETag\",\
             \"status\":\"disabled\",\"twinETag\":\"AAAAAAAAAAE=\",\"tags\":{\"z\":1.0,\"a\":12345678901234567890},\
             \"properties\":{\"desired\":{\"b\": 1e3},\"reported\":{}},\"capabilities\":{\"iotEdge\":true},\
             \"deviceScope\":\"s\",\"parentScopes\":[\"p\"]}";
        let line: ExportImportDevice = serde_json::from_str(text).unwrap();
        assert_eq!(line.tags.as_ref().unwrap().get(), "{\"z\":1.0,\"a\":12345678901234567890}");
        assert_eq!(serde_json::to_string(&line).unwrap(), text);
    }

    #[test]
    fn an_import_line_is_read_with_tolerance() {
        let line: ExportImportDevice = serde_json::from_str(
            "{\"id\":\"d\",\"importMode\":\"UpdateIfMatchETag\",\"etag\":\"x\",\"status\":\"Enabled\",\
             \"tags\":null,\"properties\":null,\"parentScopes\":null,\"more\":1,\
             \"authentication\":{\"type\":\"SAS\",\"symmetricKey\":{\"primaryKey\":\"cA==\"}}}",
        )
        .unwrap();
        assert_eq!(line.import_mode, Some(ImportMode::UpdateIfMatchETag));
        assert_eq!((line.etag.as_deref(), line.status), (Some("x"), Some(DeviceStatus::Enabled)));
        assert!(line.tags.is_none() && line.properties.is_none());
        let key = line.authentication.unwrap().symmetric_key.primary_key;
        assert_eq!(key.as_deref(), Some("cA=="));
        let bare: ExportImportDevice = serde_json::from_str("{\"id\":\"d\"}").unwrap();
        assert_eq!(serde_json::to_string(&bare).unwrap(), "{\"id\":\"d\"}");
        assert!(serde_json::from_str::<ExportImportDevice>("{\"importMode\":\"x\"}").is_err());
    }

    #[test]
    fn results_have_all_their_fields() {
        let error = DeviceRegistryOperationError {
            device_id: "d".into(),
            error_code: crate::errors::ErrorCode::DeviceAlreadyExists.name().into(),
            error_status: Some("there".into()),
            ..Default::default()
        };
        let result = BulkRegistryOperationResult { errors: vec![error], ..Default::default() };
        let text = "{\"isSuccessful\":false,\"errors\":[{\"deviceId\":\"d\",\
                    \"errorCode\":\"DeviceAlreadyExists\",\"errorStatus\":\"there\",\"moduleId\":null,\
                    \"operation\":null}],\"warnings\":[]}";
        assert_eq!(serde_json::to_string(&result).unwrap(), text);
        assert_eq!(serde_json::from_str::<BulkRegistryOperationResult>(text).unwrap(), result);
        let warning = DeviceRegistryOperationWarning { device_id: "d".into(), ..Default::default() };
        assert_eq!(
            serde_json::to_string(&warning).unwrap(),
            "{\"deviceId\":\"d\",\"warningCode\":\"\",\"warningStatus\":null}"
        );
    }

    #[test]
    fn counts_have_their_names() {
        let registry =
            RegistryStatistics { total_device_count: 3, enabled_device_count: 2, disabled_device_count: 1 };
        assert_eq!(
            serde_json::to_string(&registry).unwrap(),
            "{\"totalDeviceCount\":3,\"enabledDeviceCount\":2,\"disabledDeviceCount\":1}"
        );
        let service = ServiceStatistics { connected_device_count: 5 };
        assert_eq!(serde_json::to_string(&service).unwrap(), "{\"connectedDeviceCount\":5}");
        let purge =
            PurgeMessageQueueResult { total_messages_purged: 4, device_id: "d".into(), module_id: None };
        assert_eq!(
            serde_json::to_string(&purge).unwrap(),
            "{\"totalMessagesPurged\":4,\"deviceId\":\"d\",\"moduleId\":null}"
        );
    }
}
