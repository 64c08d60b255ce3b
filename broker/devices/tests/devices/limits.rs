//! Bounds that a command alone can break: refused before it is proposed, and when it is applied.

use fleetline_devices::limits::{BULK_MAX, MESSAGE_MAX, TEXT_BYTES_MAX};
use fleetline_devices::*;
use fleetline_iothub::errors::ErrorCode;

use crate::kit::*;

fn refused(hub: &mut Hub, op: Op) {
    assert!(DeviceCommand::new(op.clone()).check().is_err(), "{op:?}");
    let code = hub.apply(op).error.unwrap().code;
    let code = ErrorCode::from_number(code).unwrap();
    assert!(matches!(code, ErrorCode::MessageTooLarge | ErrorCode::ArgumentInvalid), "{code:?}");
}

/// Every text of an identity is bounded.
#[test]
fn texts() {
    let mut hub = Hub::new();
    let d = DeviceKey::device("d");
    let long = || "x".repeat(TEXT_BYTES_MAX + 1);
    let changes: Vec<fn(&mut DeviceSpec, String)> = vec![
        |spec, text| spec.auth.primary_key = text,
        |spec, text| spec.auth.secondary_key = text,
        |spec, text| spec.auth.primary_thumbprint = text,
        |spec, text| spec.auth.secondary_thumbprint = text,
        |spec, text| spec.device_scope = text,
        |spec, text| spec.managed_by = text,
        |spec, text| spec.parent_scopes = vec![text],
        |spec, text| spec.status_reason = text,
        |spec, _| spec.parent_scopes = vec![String::new(); 17],
    ];
    for change in changes {
        let mut spec = DeviceSpec::default();
        change(&mut spec, long());
        refused(&mut hub, put_spec(d.clone(), spec, Condition::absent()));
    }
    let spec = DeviceSpec { status_reason: "ä".repeat(128), ..DeviceSpec::default() };
    hub.ok(put_spec(d, spec, Condition::absent()));
}

/// Wills, models, lists and nested or empty changes.
#[test]
fn others() {
    let mut hub = Hub::with(&["d"]);
    let key = DeviceKey::device("d");
    let opening = OpenSession { key: key.clone(), auth_version: hub.auth(&key), ..OpenSession::default() };
    let will = Some(WillRow { bag: String::new(), body: vec![0; MESSAGE_MAX].into() });
    refused(&mut hub, Op::OpenSession(OpenSession { will, ..opening.clone() }));
    let model_id = "x".repeat(TEXT_BYTES_MAX + 1);
    refused(&mut hub, Op::OpenSession(OpenSession { model_id, ..opening }));
    refused(&mut hub, Op::ExpireCommands(ExpireCommands { keys: vec![key.clone(); BULK_MAX + 1] }));
    assert!(DeviceCommand::new(Op::Bulk(Bulk { ops: vec![BulkItem { op: None }] })).check().is_err());
    assert!(DeviceCommand { now_ms: 1, op: None }.check().is_err());
}

/// A lock for ever, and a clock at its end: no sum runs over.
#[test]
fn ends_of_time() {
    let mut hub = Hub::with(&["d"]);
    let key = DeviceKey::device("d");
    hub.now = u64::MAX - 5;
    hub.ok(send(&key, command("a")));
    let lock =
        LockCommand { key: key.clone(), auth_version: hub.auth(&key), token: "t".into(), lock_ms: u64::MAX };
    hub.ok(Op::LockCommand(lock));
    hub.ok(settle(&key, hub.auth(&key), "t", Settle::Reject));
    let locked = hub.ok(Op::LockFeedback(LockFeedback { token: "f".into(), lock_ms: u64::MAX })).feedback;
    assert_eq!(locked.len(), 1);
    hub.now = 3;
    hub.ok(Op::LockFeedback(LockFeedback { token: "g".into(), lock_ms: 1 }));
}
