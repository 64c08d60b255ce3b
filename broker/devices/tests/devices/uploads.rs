//! File uploads: only those that were begun end, once, and ten are open at the most.

use bytes::Bytes;
use fleetline_devices::limits::{TEXT_BYTES_MAX, UPLOADS_MAX};
use fleetline_devices::*;
use fleetline_iothub::errors::ErrorCode;

use crate::kit::*;

fn d() -> DeviceKey {
    DeviceKey::device("d")
}

fn begin(auth_version: u64, id: &str, expires_ms: u64) -> Op {
    let upload = UploadRow { correlation_id: id.into(), blob: "d/f".into(), started_ms: 1, expires_ms };
    Op::BeginUpload(BeginUpload { key: d(), auth_version, upload })
}

fn finish(auth_version: u64, id: &str, body: &'static str) -> Op {
    let event =
        EventRow { device: "d".into(), body: Bytes::from_static(body.as_bytes()), ..EventRow::default() };
    Op::FinishUpload(FinishUpload { key: d(), auth_version, correlation_id: id.into(), event })
}

/// Begun, ended, gone; the event comes with the end when there is one.
#[test]
fn begun_and_ended() {
    let mut hub = Hub::with(&["d"]);
    let auth = hub.auth(&d());
    hub.events();
    hub.refused(finish(auth, "u", "done"), ErrorCode::InvalidFileUploadCorrelationId);
    hub.ok(begin(auth, "u", START + 10));
    hub.ok(begin(auth, "v", START + 10));
    let upload = hub.ok(finish(auth, "u", "done")).upload.unwrap();
    assert_eq!((upload.blob.as_str(), upload.started_ms), ("d/f", START));
    hub.refused(finish(auth, "u", "done"), ErrorCode::InvalidFileUploadCorrelationId);
    assert_eq!(hub.events().len(), 1);
    hub.ok(finish(auth, "v", ""));
    assert_eq!(hub.events(), []);
    hub.refused(begin(auth, "", START + 10), ErrorCode::ArgumentInvalid);
    hub.refused(begin(auth, &"x".repeat(TEXT_BYTES_MAX + 1), START + 10), ErrorCode::ArgumentInvalid);
}

/// Whose proof is old, or who is disabled, neither begins nor ends one.
#[test]
fn not_entitled() {
    let mut hub = Hub::with(&["d"]);
    let auth = hub.auth(&d());
    hub.ok(begin(auth, "u", START + 10));
    hub.refused(begin(auth + 1, "v", START + 10), ErrorCode::ServerBusy);
    hub.refused(finish(auth + 1, "u", ""), ErrorCode::ServerBusy);
    hub.ok(disable(d(), true));
    let auth = hub.auth(&d());
    hub.refused(begin(auth, "v", START + 10), ErrorCode::DeviceDisabled);
    hub.refused(finish(auth, "u", ""), ErrorCode::DeviceDisabled);
}

/// Ten at once; those that are too old make room, and can't be ended whether or not their row is there.
#[test]
fn bounded() {
    let mut hub = Hub::with(&["d"]);
    let auth = hub.auth(&d());
    for n in 0..UPLOADS_MAX {
        hub.ok(begin(auth, &n.to_string(), START + if n < 2 { 10 } else { 20 }));
    }
    hub.refused(begin(auth, "more", START + 99), ErrorCode::IotHubQuotaExceeded);
    hub.now += 10;
    hub.refused(finish(auth, "0", ""), ErrorCode::InvalidFileUploadCorrelationId);
    hub.ok(begin(auth, "more", START + 99));
    hub.refused(finish(auth, "1", ""), ErrorCode::InvalidFileUploadCorrelationId);
    hub.ok(begin(auth, "again", START + 99));
    hub.refused(begin(auth, "last", START + 99), ErrorCode::IotHubQuotaExceeded);
}
