//! File uploads, as the device sees them: it asks where to put a file, puts it there by itself
//! (`objects`), and says how it went.
//!
//! The correlation id holds the file's name, so that the end of an upload needs no second look; that
//! it was begun under this id is what the leader checks.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleetline_devices::{
    BeginUpload, DeviceKey, EventRow, FinishUpload, Op, SystemPropertyRow, UploadRow, endpoints,
};
use fleetline_iothub::bag::{SystemProperty, format_time};
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::model::from_object;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::super::call::Call;
use super::super::caller;
use super::super::errors::HttpError;
use super::super::objects::{ObjectFront, sign};
use super::super::path::encode_path;
use super::super::reply::{self, Answer};
use super::super::router::CONTAINER;
use super::change;

/// How long an upload may take.
const UPLOAD_MS: u64 = 60 * 60 * 1000;

/// Bytes of a file's name with its device's: as Base64 in a correlation id it stays below the bound
/// of the registry.
const BLOB_BYTES_MAX: usize = 700;

/// Bytes of a body of these requests.
const BODY_MAX: usize = 16 << 10;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BeginBody {
    blob_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FinishBody {
    #[serde(default)]
    correlation_id: Option<String>,
    is_success: bool,
}

fn objects(call: &Call) -> Result<&ObjectFront, HttpError> {
    let text = "this hub has no place for uploaded files";
    let missing = || HttpError::new(ErrorCode::DefaultStorageEndpointNotConfigured, text);
    call.context.objects.as_deref().ok_or_else(missing)
}

/// Says where to put a file.
pub(super) async fn begin(call: &mut Call, key: &DeviceKey) -> Answer {
    objects(call)?;
    let verified = caller::device(call, key).await?;
    let body = call.read_body(BODY_MAX).await?;
    let body: BeginBody = from_object(&body).map_err(|error| HttpError::malformed("request", &error))?;
    let blob = blob_name(key, &body.blob_name)?;
    let correlation_id = format!("{}.{}", call.guid(), URL_SAFE_NO_PAD.encode(&blob));
    let expires_ms = call.hub().now_ms() + UPLOAD_MS;
    let token = sign::token(&call.settings, &blob, expires_ms / 1000)?;
    let begin = |auth_version| {
        let (correlation_id, blob) = (correlation_id.clone(), blob.clone());
        let upload = UploadRow { correlation_id, blob, started_ms: 0, expires_ms };
        Op::BeginUpload(BeginUpload { key: key.clone(), auth_version, upload })
    };
    change(call, key, verified, begin).await.map_err(too_many)?;
    reply::json(&json!({
        "correlationId": correlation_id,
        "hostName": call.host(),
        "containerName": CONTAINER,
        "blobName": blob,
        "sasToken": token,
    }))
}

/// The registry has one word for all of its bounds; here it is that of uploads.
fn too_many(error: HttpError) -> HttpError {
    match error.code {
        ErrorCode::IotHubQuotaExceeded => {
            HttpError { code: ErrorCode::DeviceMaximumActiveFileUploadLimitExceeded, ..error }
        }
        _ => error,
    }
}

/// `{device}/{requested}`.
fn blob_name(key: &DeviceKey, requested: &str) -> Result<String, HttpError> {
    let blob = format!("{}/{requested}", key.device);
    let is_bad = |part: &str| part.is_empty() || part == "." || part == "..";
    if requested.split('/').any(is_bad) || requested.contains(|c: char| c.is_control() || c == '\\') {
        return Err(HttpError::invalid("blobName is not the name of a file"));
    }
    match blob.len() > BLOB_BYTES_MAX {
        true => Err(HttpError::invalid(format!(
            "blobName is {} bytes with its device, at most {BLOB_BYTES_MAX} are allowed",
            blob.len()
        ))),
        false => Ok(blob),
    }
}

/// Hears how an upload went; when it went well, an event says so.
pub(super) async fn finish(call: &mut Call, key: &DeviceKey, id: Option<String>) -> Answer {
    let verified = caller::device(call, key).await?;
    let body = call.read_body(BODY_MAX).await?;
    let body: FinishBody = from_object(&body).map_err(|error| HttpError::malformed("request", &error))?;
    // "Node always, and .NET on failure, put the id in the path; accept both."
    let unknown = || HttpError::new(ErrorCode::InvalidFileUploadCorrelationId, "no such upload");
    let id = id.or(body.correlation_id).filter(|id| !id.is_empty()).ok_or_else(unknown)?;
    let blob =
        blob_of(&id).filter(|blob| blob.starts_with(&format!("{}/", key.device))).ok_or_else(unknown)?;
    let event = match body.is_success {
        true => event(call, key, &blob).await?,
        false => EventRow::default(),
    };
    let finish = |auth_version| {
        let (key, correlation_id, event) = (key.clone(), id.clone(), event.clone());
        Op::FinishUpload(FinishUpload { key, auth_version, correlation_id, event })
    };
    change(call, key, verified, finish).await?;
    if let Some(objects) = &call.context.objects {
        objects.forget_blocks(&blob).await;
    }
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// The file's name in a correlation id.
fn blob_of(id: &str) -> Option<String> {
    let (_, name) = id.split_once('.')?;
    String::from_utf8(URL_SAFE_NO_PAD.decode(name).ok()?).ok()
}

/// What is told of a file that has arrived.
async fn event(call: &Call, key: &DeviceKey, blob: &str) -> Result<EventRow, HttpError> {
    let missing = || {
        let text = "the upload is said to be complete, and there is no such file";
        HttpError::new(ErrorCode::InvalidFileUploadCompletionStatus, text)
    };
    let found = objects(call)?.find(blob).await.map_err(|error| HttpError::internal(error.to_string()))?;
    let found = found.ok_or_else(missing)?;
    let now_ms = call.hub().now_ms();
    let body = json!({
        "deviceId": key.device,
        "blobUri": format!("https://{}/{CONTAINER}/{}", call.host(), encode_path(blob)),
        "blobName": blob,
        "lastUpdatedTime": format_time(found.modified_ms),
        "blobSizeInBytes": found.size,
        "enqueuedTimeUtc": format_time(now_ms),
    });
    let system = [
        (SystemProperty::ConnectionDeviceId, key.device.as_str()),
        (SystemProperty::MessageSource, "fileNotifications"),
        (SystemProperty::ContentType, "application/json"),
        (SystemProperty::ContentEncoding, "utf-8"),
    ];
    let row = |(property, value): (SystemProperty, &str)| SystemPropertyRow {
        id: property.number().into(),
        value: value.to_owned(),
    };
    Ok(EventRow {
        device: key.device.clone(),
        time_ms: now_ms,
        system: system.into_iter().map(row).collect(),
        properties: Vec::new(),
        body: body.to_string().into(),
        endpoints: endpoints::EVENTS,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name stays below its device's folder.
    #[test]
    fn names() {
        let key = DeviceKey::device("d");
        assert_eq!(blob_name(&key, "a/b c.txt").as_deref(), Ok("d/a/b c.txt"));
        for bad in ["", "/a", "a/", "a//b", "..", "a/../../e", ".", "a\\b", "a\nb", &"x".repeat(700)] {
            assert!(blob_name(&key, bad).is_err(), "{bad}");
        }
        assert_eq!(blob_of(&format!("guid.{}", URL_SAFE_NO_PAD.encode("d/a"))).as_deref(), Some("d/a"));
        assert_eq!((blob_of("guid"), blob_of("g.!")), (None, None));
    }
}
