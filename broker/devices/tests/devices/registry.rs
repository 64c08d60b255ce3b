//! Identities: P10 (compare-and-set by etag) and what comes and goes with them.

use bytes::Bytes;
use fleetline_devices::*;
use fleetline_iothub::errors::ErrorCode;
use serde_json::json;

use crate::kit::*;

fn d() -> DeviceKey {
    DeviceKey::device("d")
}

fn m() -> DeviceKey {
    DeviceKey::module("d", "m")
}

fn spec(edge: bool) -> DeviceSpec {
    DeviceSpec { edge, ..DeviceSpec::default() }
}

/// Every condition of a put against an identity that is there, and one that isn't.
#[test]
fn conditions_of_put() {
    use ErrorCode as E;
    let table = [
        (Condition::absent(), Ok(1), Err((E::DeviceAlreadyExists, E::ModuleAlreadyExistsOnDevice))),
        (Condition::any(), Err((E::DeviceNotFound, E::ModuleNotFound)), Ok(3)),
        (Condition::tag(2), Err((E::DeviceNotFound, E::ModuleNotFound)), Ok(3)),
        (
            Condition::tag(1),
            Err((E::DeviceNotFound, E::ModuleNotFound)),
            Err((E::PreconditionFailed, E::PreconditionFailed)),
        ),
        (
            Condition::tag(3),
            Err((E::DeviceNotFound, E::ModuleNotFound)),
            Err((E::PreconditionFailed, E::PreconditionFailed)),
        ),
        (Condition::upsert(), Ok(1), Ok(3)),
        (
            Condition { kind: 9, tag: 2 },
            Err((E::DeviceNotFound, E::ModuleNotFound)),
            Err((E::ArgumentInvalid, E::ArgumentInvalid)),
        ),
    ];
    for (condition, when_absent, when_there) in table {
        for key in [d(), m()] {
            for (there, expected) in [(false, when_absent), (true, when_there)] {
                let mut hub = if key.is_module() { Hub::with(&["d"]) } else { Hub::new() };
                if there {
                    hub.ok(put(key.clone(), Condition::absent()));
                    hub.ok(put(key.clone(), Condition::any()));
                }
                match expected {
                    Ok(etag) => {
                        let reply = hub.ok(put(key.clone(), condition.clone()));
                        assert_eq!((reply.device.unwrap().etag, reply.created), (etag, !there));
                    }
                    Err((device, module)) => {
                        hub.refused(
                            put(key.clone(), condition.clone()),
                            if key.is_module() { module } else { device },
                        );
                    }
                }
            }
        }
    }
}

/// Delete is a compare-and-set too, and takes everything of the identity with it; its modules, and not a
/// device whose id begins alike.
#[test]
fn delete_takes_all() {
    let mut hub = Hub::with(&["d", "dd"]);
    hub.refused(delete(DeviceKey::device("x"), Condition::any()), ErrorCode::DeviceNotFound);
    hub.refused(delete(d(), Condition::tag(2)), ErrorCode::PreconditionFailed);
    hub.refused(delete(m(), Condition::any()), ErrorCode::ModuleNotFound);
    hub.ok(put(m(), Condition::absent()));
    for key in [d(), m(), DeviceKey::device("dd")] {
        hub.open(&key, place(1, 1));
        hub.ok(send(&key, command("kept")));
        hub.ok(send(&key, command("ended")));
        hub.ok(lock(&key, hub.auth(&key), "t"));
        hub.ok(settle(&key, hub.auth(&key), "t", Settle::Complete));
        let upload = UploadRow { correlation_id: "u".into(), expires_ms: u64::MAX, ..UploadRow::default() };
        let auth_version = hub.auth(&key);
        hub.ok(Op::BeginUpload(BeginUpload { key: key.clone(), auth_version, upload }));
    }
    assert_eq!(hub.state.head().feedback, 3);
    hub.events();
    hub.ok(delete(d(), Condition::tag(1)));
    assert_eq!(
        hub.event_names(),
        ["deviceDisconnected d", "deviceDisconnected d/m", "deleteDeviceIdentity d"]
    );
    let left = hub.store.rows();
    let of_d = left.iter().filter(|(row, _)| row.key.as_ref() == b"d" || row.key.starts_with(b"d\0"));
    let kinds: Vec<_> = of_d.map(|(row, _)| row.kind).collect();
    // The fence stays: what the device began before is on its way still.
    assert_eq!(kinds, [fleetline_state::KeyKind::Fence]);
    assert_eq!((hub.state.head().feedback, hub.state.head().devices, hub.state.head().connected), (1, 1, 1));
    assert_eq!(hub.query().command_count(&DeviceKey::device("dd")).unwrap(), 1);
    // A later identity of that name has none of it, and another generation.
    hub.ok(put(d(), Condition::absent()));
    assert_eq!(hub.query().session(&d()).unwrap(), None);
    assert_eq!(hub.query().command_count(&d()).unwrap(), 0);
    assert_eq!(hub.query().modules("d").unwrap(), []);
}

/// Two identities of one name never share a generation, when the clock stands still as well.
#[test]
fn generations_differ() {
    let mut hub = Hub::with(&["d"]);
    let first = hub.device(&d()).generation;
    hub.ok(delete(d(), Condition::any()));
    // The old form took the entry's number modulo 625.
    hub.index = 625;
    hub.ok(put(d(), Condition::absent()));
    assert_ne!(hub.device(&d()).generation, first);
}

/// "Creating an Edge device also creates `$edgeAgent` and `$edgeHub`"; they can't be made or removed alone,
/// and go with the device. A device that becomes one gets them then.
#[test]
fn edge_devices() {
    let agent = DeviceKey::module("d", "$edgeAgent");
    let names = |hub: &Hub| -> Vec<_> {
        hub.query().modules("d").unwrap().into_iter().map(|row| row.key.module).collect()
    };
    let mut hub = Hub::with(&["plain"]);
    hub.refused(
        put(DeviceKey::module("plain", "$edgeHub"), Condition::upsert()),
        ErrorCode::SystemModuleModifyUnauthorizedAccess,
    );
    hub.ok(put_spec(d(), spec(true), Condition::absent()));
    assert_eq!(names(&hub), ["$edgeAgent", "$edgeHub"]);
    assert_eq!(hub.query().twin(&agent).unwrap().unwrap().version, 1);
    assert_eq!(hub.device(&agent).spec.auth.kind, AuthKind::None as i32);
    hub.refused(delete(agent.clone(), Condition::any()), ErrorCode::SystemModuleModifyUnauthorizedAccess);
    // The device's own software gives them keys.
    let keys = DeviceSpec { auth: auth("a2V5", "a2V5Mg=="), ..DeviceSpec::default() };
    hub.ok(put_spec(agent, keys, Condition::any()));
    hub.ok(delete(d(), Condition::any()));
    assert_eq!(names(&hub), [""; 0]);

    hub.ok(put(d(), Condition::absent()));
    assert_eq!(names(&hub), [""; 0]);
    hub.ok(put_spec(d(), spec(true), Condition::any()));
    assert_eq!(names(&hub), ["$edgeAgent", "$edgeHub"]);
}

/// A device has fifty modules; the fifty-first is refused, one that is there is changed still, and room
/// comes back.
#[test]
fn modules_are_bounded() {
    let mut hub = Hub::new();
    let module = |n: usize| DeviceKey::module("d", format!("m{n}"));
    hub.refused(put(module(0), Condition::absent()), ErrorCode::DeviceNotFound);
    hub.ok(put(d(), Condition::absent()));
    for n in 0..fleetline_devices::limits::MODULES_MAX {
        hub.ok(put(module(n), Condition::absent()));
    }
    hub.refused(put(module(99), Condition::upsert()), ErrorCode::IotHubQuotaExceeded);
    hub.ok(put(module(7), Condition::upsert()));
    hub.ok(delete(module(7), Condition::any()));
    hub.ok(put(module(99), Condition::upsert()));
    assert_eq!(hub.query().modules("d").unwrap().len(), 50);
}

/// Ids are checked: an empty one, one with a zero byte (it would look like a module), one too long.
#[test]
fn ids_are_checked() {
    let mut hub = Hub::with(&["d"]);
    let long = "x".repeat(129);
    for id in ["", "a\0b", "a/b", &long] {
        hub.refused(put(DeviceKey::device(id), Condition::absent()), ErrorCode::ArgumentInvalid);
    }
    for id in ["a\0b", "a b", "$x/", &long] {
        hub.refused(put(DeviceKey::module("d", id), Condition::absent()), ErrorCode::ArgumentInvalid);
    }
    hub.ok(put(DeviceKey::device("x".repeat(128)), Condition::absent()));
}

/// Empty keys keep what is there; without any, the drawn ones are taken. Other kinds hold no keys.
#[test]
fn keys_are_kept_or_drawn() {
    let mut hub = Hub::with(&["d"]);
    let keys = |hub: &Hub| {
        let auth = hub.device(&d()).spec.auth;
        (auth.primary_key, auth.secondary_key)
    };
    let with = |auth: AuthRow| put_spec(d(), DeviceSpec { auth, ..DeviceSpec::default() }, Condition::any());
    assert_eq!(keys(&hub), ("ZHJhd24=".to_owned(), "ZHJhd24y".to_owned()));
    hub.ok(with(auth("YQ==", "")));
    assert_eq!(keys(&hub), ("YQ==".to_owned(), "ZHJhd24y".to_owned()));
    let before = hub.device(&d()).auth_version;
    hub.ok(with(auth("", "")));
    assert_eq!(keys(&hub), ("YQ==".to_owned(), "ZHJhd24y".to_owned()));
    assert_eq!(hub.device(&d()).auth_version, before, "nothing changed of what it proves itself with");
    let thumbprint = AuthRow {
        kind: AuthKind::SelfSigned as i32,
        primary_thumbprint: "AB".into(),
        ..auth("YQ==", "YQ==")
    };
    hub.ok(with(thumbprint));
    assert_eq!(keys(&hub), (String::new(), String::new()));
    assert_eq!(hub.device(&d()).spec.auth.primary_thumbprint, "AB");
    hub.ok(with(AuthRow { primary_thumbprint: "AB".into(), ..auth("", "") }));
    assert_eq!(keys(&hub), ("ZHJhd24=".to_owned(), "ZHJhd24y".to_owned()));
    assert_eq!(hub.device(&d()).spec.auth.primary_thumbprint, "");
    hub.refused(with(AuthRow { kind: 77, ..AuthRow::default() }), ErrorCode::ArgumentInvalid);
}

/// A new identity brings tags and desired properties; what is wrong in them makes none. A change of an
/// identity leaves its twin alone.
#[test]
fn first_twin() {
    let mut hub = Hub::new();
    let with = |tags: &str, desired: &str, condition| {
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let (key, spec) = (d(), DeviceSpec::default());
        Op::PutDevice(PutDevice {
            key,
            spec,
            condition,
            tags: text(tags),
            desired: text(desired),
            ..PutDevice::default()
        })
    };
    hub.refused(with("[]", "", Condition::absent()), ErrorCode::IotHubFormatError);
    hub.refused(with("", r#"{"a.b":1}"#, Condition::absent()), ErrorCode::ArgumentInvalid);
    assert_eq!(hub.query().twin(&d()).unwrap(), None);
    hub.ok(with(r#"{"floor":2}"#, r#"{"rate":5}"#, Condition::absent()));
    let twin = hub.query().twin(&d()).unwrap().unwrap();
    assert_eq!((json(&twin.tags), twin.version), (json!({"floor": 2}), 1));
    let desired = fleetline_twins::Section::decode(&twin.desired).unwrap();
    assert_eq!(desired.document["rate"], 5);
    hub.ok(with(r#"{"floor":3}"#, "", Condition::any()));
    assert_eq!(hub.query().twin(&d()).unwrap().unwrap(), twin);
}

/// "Follow the current one": modules have the operations of devices with a module id; the body is the twin.
#[test]
fn lifecycle_events() {
    let mut hub = Hub::with(&["d"]);
    hub.ok(put(m(), Condition::absent()));
    hub.ok(put(m(), Condition::any()));
    hub.ok(delete(m(), Condition::any()));
    let events = hub.events();
    let names: Vec<_> = events.iter().map(event_name).collect();
    assert_eq!(names, ["createDeviceIdentity d", "createDeviceIdentity d/m", "deleteDeviceIdentity d/m"]);
    for event in &events {
        assert_eq!(property(event, "iothub-message-schema"), Some("deviceLifecycleNotification"));
        assert_eq!(property(event, "operationTimestamp"), Some("2023-11-14T22:13:20.0000000Z"));
        assert_eq!((event.time_ms, event.endpoints), (START, endpoints::EVENTS));
        let body = json(&event.body);
        assert_eq!(
            (&body["deviceId"], &body["version"], &body["etag"]),
            (&json!("d"), &json!(1), &json!("AAAAAAAAAAE="))
        );
        assert_eq!(body["properties"]["reported"]["$version"], 1);
    }
    assert_eq!(json(&events[0].body).get("moduleId"), None);
    assert_eq!(json(&events[2].body)["moduleId"], "m");
}

/// A status changes when it changes, not with every put; counted once.
#[test]
fn status() {
    let mut hub = Hub::with(&["d", "e"]);
    hub.now += 5;
    hub.ok(put(d(), Condition::any()));
    assert_eq!(hub.device(&d()).status_changed_ms, 0);
    hub.ok(disable(d(), true));
    hub.now += 5;
    hub.ok(disable(d(), true));
    assert_eq!((hub.device(&d()).status_changed_ms, hub.state.head().disabled), (START + 5, 1));
    hub.ok(disable(d(), false));
    assert_eq!((hub.device(&d()).status_changed_ms, hub.state.head().disabled), (START + 10, 0));
    hub.ok(put_spec(
        DeviceKey::device("f"),
        DeviceSpec { disabled: true, ..spec(false) },
        Condition::absent(),
    ));
    hub.ok(delete(DeviceKey::device("f"), Condition::any()));
    assert_eq!((hub.state.head().devices, hub.state.head().disabled), (2, 0));
}

/// Several changes of one entry are answered one by one; one that fails keeps nobody else back. They have
/// numbers of their own: no two sessions share an epoch.
#[test]
fn bulk() {
    let mut hub = Hub::new();
    let keys = [d(), DeviceKey::device("e")];
    let item = |op| BulkItem { op: Some(op) };
    let ops = vec![
        item(put(d(), Condition::absent())),
        item(put(d(), Condition::absent())),
        item(put(keys[1].clone(), Condition::absent())),
    ];
    let reply = hub.ok(Op::Bulk(Bulk { ops }));
    let accepted: Vec<bool> = reply.replies.iter().map(|reply| reply.error.is_none()).collect();
    assert_eq!(accepted, [true, false, true]);
    let ops = keys.iter().map(|key| item(open(key, hub.auth(key), place(1, 1)))).collect();
    let reply = hub.ok(Op::Bulk(Bulk { ops }));
    let epochs: Vec<u64> =
        reply.replies.iter().map(|reply| reply.opened.as_ref().unwrap().session.epoch).collect();
    assert_eq!(epochs, [2 << 8, (2 << 8) + 1]);
    let nested = Op::Bulk(Bulk { ops: vec![item(Op::Bulk(Bulk::default()))] });
    hub.refused(nested, ErrorCode::ArgumentInvalid);
    let many = vec![item(put(d(), Condition::any())); fleetline_devices::limits::BULK_MAX + 1];
    hub.refused(Op::Bulk(Bulk { ops: many }), ErrorCode::MessageTooLarge);
}

/// Pages of identities: all of them once, in order, modules behind their device.
#[test]
fn pages() {
    let mut hub = Hub::with(&["a", "b", "d"]);
    hub.ok(put(m(), Condition::absent()));
    let (mut found, mut from) = (Vec::new(), Bytes::new());
    loop {
        let page = hub.query().devices(&from, 2).unwrap();
        found.extend(page.rows.into_iter().map(|row| row.key.text()));
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(found, ["a", "b", "d", "d/m"]);
}
