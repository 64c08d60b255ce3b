//! What the registry and twins look like in JSON, from what the leader gives.

use fleetline_devices::{AuthKind, AuthRow, DeviceRow, DeviceSpec, DeviceView, SessionRow};
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::model::{
    Authentication, AuthenticationType, Capabilities, ConnectionState, Device, DeviceStatus, Module,
    SymmetricKey, Timestamp, X509Thumbprint, format_etag, twin_etag,
};
use fleetline_iothub::sas::SasKey;
use fleetline_twins::Section;
use serde_json::{Map, Value, json};

use super::super::errors::HttpError;

/// A moment; 0 is none.
fn moment(ms: u64) -> Timestamp {
    if ms == 0 { Timestamp::NEVER } else { Timestamp::from_ms(ms) }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn connection(session: Option<&SessionRow>) -> (ConnectionState, Timestamp, Timestamp) {
    match session {
        Some(session) => {
            let state =
                if session.connected { ConnectionState::Connected } else { ConnectionState::Disconnected };
            (state, moment(session.changed_ms), moment(session.active_ms))
        }
        None => (ConnectionState::Disconnected, Timestamp::NEVER, Timestamp::NEVER),
    }
}

fn status(spec: &DeviceSpec) -> DeviceStatus {
    if spec.disabled { DeviceStatus::Disabled } else { DeviceStatus::Enabled }
}

/// A device.
pub(super) fn device(row: &DeviceRow, session: Option<&SessionRow>, commands: u32) -> Device {
    let (connection_state, connection_state_updated_time, last_activity_time) = connection(session);
    let spec = &row.spec;
    Device {
        device_id: row.key.device.clone(),
        generation_id: Some(row.generation.clone()),
        etag: Some(format_etag(row.etag)),
        connection_state,
        status: status(spec),
        status_reason: some(&spec.status_reason),
        connection_state_updated_time,
        status_updated_time: moment(row.status_changed_ms),
        last_activity_time,
        cloud_to_device_message_count: commands.into(),
        authentication: authentication(&spec.auth),
        capabilities: Capabilities { iot_edge: spec.edge },
        device_scope: some(&spec.device_scope),
        parent_scopes: spec.parent_scopes.clone(),
    }
}

/// A module.
pub(super) fn module(row: &DeviceRow, session: Option<&SessionRow>, commands: u32) -> Module {
    let (connection_state, connection_state_updated_time, last_activity_time) = connection(session);
    Module {
        module_id: row.key.module.clone(),
        managed_by: some(&row.spec.managed_by),
        device_id: row.key.device.clone(),
        generation_id: Some(row.generation.clone()),
        etag: Some(format_etag(row.etag)),
        connection_state,
        connection_state_updated_time,
        last_activity_time,
        cloud_to_device_message_count: commands.into(),
        authentication: authentication(&row.spec.auth),
    }
}

fn authentication(auth: &AuthRow) -> Authentication {
    Authentication {
        symmetric_key: SymmetricKey {
            primary_key: some(&auth.primary_key),
            secondary_key: some(&auth.secondary_key),
        },
        x509_thumbprint: X509Thumbprint {
            primary_thumbprint: some(&auth.primary_thumbprint),
            secondary_thumbprint: some(&auth.secondary_thumbprint),
        },
        kind: Some(match AuthKind::try_from(auth.kind) {
            Ok(AuthKind::SelfSigned) => AuthenticationType::SelfSigned,
            Ok(AuthKind::CertificateAuthority) => AuthenticationType::CertificateAuthority,
            Ok(AuthKind::None) => AuthenticationType::None,
            Ok(AuthKind::Sas) | Err(_) => AuthenticationType::Sas,
        }),
    }
}

/// How an identity shall prove itself, as it is stored.
pub(super) fn auth_row(given: &Authentication) -> Result<AuthRow, HttpError> {
    let key = |key: &Option<String>| match key {
        Some(key) if SasKey::from_base64(key).is_err() => Err(HttpError::invalid("a key is not Base64")),
        Some(key) => Ok(key.trim().to_owned()),
        None => Ok(String::new()),
    };
    let kind = match given.resolved_type() {
        AuthenticationType::Sas => AuthKind::Sas,
        AuthenticationType::SelfSigned => AuthKind::SelfSigned,
        AuthenticationType::CertificateAuthority => AuthKind::CertificateAuthority,
        AuthenticationType::None => AuthKind::None,
    };
    let (keys, prints) = (&given.symmetric_key, &given.x509_thumbprint);
    let mut row = AuthRow { kind: kind as i32, ..AuthRow::default() };
    match kind {
        AuthKind::Sas => {
            row.primary_key = key(&keys.primary_key)?;
            row.secondary_key = key(&keys.secondary_key)?;
        }
        AuthKind::SelfSigned => {
            row.primary_thumbprint = thumbprint(prints.primary_thumbprint.as_deref())?;
            row.secondary_thumbprint = thumbprint(prints.secondary_thumbprint.as_deref())?;
            if row.primary_thumbprint.is_empty() && row.secondary_thumbprint.is_empty() {
                return Err(HttpError::invalid(
                    "an identity with a certificate of its own needs a thumbprint",
                ));
            }
        }
        AuthKind::CertificateAuthority | AuthKind::None => {}
    }
    Ok(row)
}

/// "SHA-1 (40 hex) or SHA-256 (64 hex); compare case-insensitively, ignore `:` and spaces."
fn thumbprint(text: Option<&str>) -> Result<String, HttpError> {
    let digits = text.unwrap_or_default().chars().filter(|c| *c != ':' && !c.is_whitespace());
    let digits: String = digits.map(|c| c.to_ascii_uppercase()).collect();
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    match is_hex && matches!(digits.len(), 0 | 40 | 64) {
        true => Ok(digits),
        false => Err(HttpError::invalid("a thumbprint is neither SHA-1 nor SHA-256 in hex")),
    }
}

fn broken(what: &str, error: impl std::fmt::Display) -> HttpError {
    HttpError::new(ErrorCode::ServerError, format!("stored {what} can't be read: {error}"))
}

/// A twin with all that a service reads of it.
pub(super) fn twin(view: &DeviceView) -> Result<Value, HttpError> {
    let (row, twin) = (&view.device, &view.twin);
    let (state, _, active) = connection(view.session.as_ref());
    let section = |bytes: &[u8], what| Section::decode(bytes).map_err(|error| broken(what, error));
    let tags: Map<String, Value> = match twin.tags.is_empty() {
        true => Map::new(),
        false => serde_json::from_slice(&twin.tags).map_err(|error| broken("tags", error))?,
    };
    let authentication = authentication(&row.spec.auth);
    let mut json = json!({
        "deviceId": row.key.device,
        "etag": twin_etag(twin.version),
        "deviceEtag": format_etag(row.etag),
        "status": status(&row.spec),
        "statusReason": some(&row.spec.status_reason),
        "statusUpdateTime": moment(row.status_changed_ms),
        "connectionState": state,
        "lastActivityTime": active,
        "cloudToDeviceMessageCount": view.commands,
        "authenticationType": authentication.resolved_type(),
        "x509Thumbprint": authentication.x509_thumbprint,
        "modelId": twin.model_id,
        "version": twin.version,
        "tags": tags,
        "properties": {
            "desired": section(&twin.desired, "desired properties")?.service_json(),
            "reported": section(&twin.reported, "reported properties")?.service_json(),
        },
        "capabilities": { "iotEdge": row.spec.edge },
        "configurations": {},
    });
    if let Value::Object(fields) = &mut json {
        if row.key.is_module() {
            fields.insert("moduleId".to_owned(), row.key.module.clone().into());
        }
        if !row.spec.device_scope.is_empty() {
            fields.insert("deviceScope".to_owned(), row.spec.device_scope.clone().into());
        }
        if !row.spec.parent_scopes.is_empty() {
            fields.insert("parentScopes".to_owned(), row.spec.parent_scopes.clone().into());
        }
    }
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thumbprints come with colons, spaces and in any case; keys must be usable.
    #[test]
    fn proofs_are_checked_before_they_are_stored() {
        let sha1 = "ab:CD ".to_owned() + &"0".repeat(36);
        assert_eq!(thumbprint(Some(&sha1)), Ok("ABCD".to_owned() + &"0".repeat(36)));
        for bad in ["ab", &"g".repeat(40), &"0".repeat(41)] {
            assert!(thumbprint(Some(bad)).is_err(), "{bad}");
        }
        let keys = |primary: &str| Authentication {
            symmetric_key: SymmetricKey { primary_key: some(primary), secondary_key: None },
            ..Authentication::default()
        };
        assert_eq!(auth_row(&keys("a2V5")).map(|row| row.primary_key), Ok("a2V5".into()));
        assert!(auth_row(&keys("no base64")).is_err() && auth_row(&keys("")).is_ok());
        let bare = Authentication { kind: Some(AuthenticationType::SelfSigned), ..Authentication::default() };
        assert!(auth_row(&bare).is_err());
    }
}
