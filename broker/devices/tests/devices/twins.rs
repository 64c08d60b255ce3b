//! Twins: P9 (versions, compare-and-set) and what subscribers are handed.

use bytes::Bytes;
use fleetline_devices::*;
use fleetline_iothub::errors::ErrorCode;
use fleetline_twins::Section;
use serde_json::{Value, json};

use crate::kit::*;

fn d() -> DeviceKey {
    DeviceKey::device("d")
}

fn patch(tags: &str, desired: &str, replace: bool) -> Op {
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let condition = Condition::any();
    Op::PatchTwin(PatchTwin { key: d(), tags: text(tags), desired: text(desired), replace, condition })
}

fn twin(hub: &Hub) -> TwinRow {
    hub.query().twin(&d()).unwrap().unwrap()
}

fn document(section: &[u8]) -> (u64, Value) {
    let section = Section::decode(section).unwrap();
    (section.version, Value::Object(section.document))
}

/// Each accepted change of tags or desired adds one to the version; each of desired adds one to its own.
/// Null deletes, a replacement replaces what is given and nothing else.
#[test]
fn versions() {
    let mut hub = Hub::with(&["d"]);
    let table = [
        (r#"{"t":1}"#, "", false, json!({"t": 1}), (1, json!({}))),
        ("", r#"{"a":{"b":1,"c":2}}"#, false, json!({"t": 1}), (2, json!({"a": {"b": 1, "c": 2}}))),
        (r#"{"u":2}"#, r#"{"a":{"b":null}}"#, false, json!({"t": 1, "u": 2}), (3, json!({"a": {"c": 2}}))),
        ("", r#"{"a":{"c":2}}"#, false, json!({"t": 1, "u": 2}), (4, json!({"a": {"c": 2}}))),
        (r#"{"v":3}"#, "", true, json!({"v": 3}), (4, json!({"a": {"c": 2}}))),
        ("", r#"{"n":1}"#, true, json!({"v": 3}), (5, json!({"n": 1}))),
    ];
    for (version, (tags, desired, replace, tags_after, desired_after)) in (2..).zip(table) {
        let row = hub.ok(patch(tags, desired, replace)).twin.unwrap();
        assert_eq!(row, twin(&hub));
        assert_eq!(
            (row.version, json(&row.tags), document(&row.desired)),
            (version, tags_after, desired_after)
        );
    }
}

/// If-Match is a compare-and-set on the twin's version; a refusal says which it is.
#[test]
fn if_match() {
    let mut hub = Hub::with(&["d"]);
    hub.refused(desired(&DeviceKey::device("x"), "{}", Condition::any()), ErrorCode::DeviceNotFound);
    for wrong in [0, 2] {
        let text = hub.refused(desired(&d(), "{}", Condition::tag(wrong)), ErrorCode::PreconditionFailed);
        assert_eq!(text, format!("etag of the twin is 1, the request expects {wrong}"));
    }
    hub.ok(desired(&d(), "{}", Condition::tag(1)));
    hub.refused(desired(&d(), "{}", Condition::tag(1)), ErrorCode::PreconditionFailed);
    hub.refused(desired(&d(), "{}", Condition::absent()), ErrorCode::ArgumentInvalid);
    // The identity's etag is another one.
    hub.ok(put(d(), Condition::any()));
    hub.ok(desired(&d(), "{}", Condition::tag(2)));
    assert_eq!(twin(&hub).version, 3);
}

/// What documents may not be, each refused with nothing changed.
#[test]
fn refusals() {
    let mut hub = Hub::with(&["d"]);
    let epoch = hub.open(&d(), place(1, 1)).session.epoch;
    let deep = format!("{}1{}", r#"{"a":"#.repeat(12), "}".repeat(12));
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(4097));
    for wrong in [
        "1",
        "[]",
        "{",
        r#"{"a":1e400}"#,
        r#"{"a b":1}"#,
        r#"{"$a":1}"#,
        r#"{"a":4503599627370496}"#,
        &deep,
        &large,
    ] {
        for op in [
            patch(wrong, "", false),
            patch("", wrong, false),
            patch("", wrong, true),
            reported(&d(), epoch, wrong, 0),
        ] {
            let reply = hub.apply(op.clone());
            assert!(reply.error.is_some(), "{op:?}");
        }
    }
    // One wrong half refuses the other.
    let reply = hub.apply(patch(r#"{"t":1}"#, "[]", false));
    assert!(reply.error.is_some() && json(&twin(&hub).tags) == json!({}));
    let part = |n: usize| format!(r#"{{"k{n}":"{}"}}"#, "x".repeat(4000));
    for n in 0..8 {
        hub.ok(patch("", &part(n), false));
    }
    let reply = hub.apply(patch("", &part(8), false));
    assert!(reply.error.unwrap().text.contains("32768"));
    assert_eq!(twin(&hub).version, 9);
}

/// A device's change counts on reported's own version, with a condition when it gives one.
#[test]
fn reported_properties() {
    let mut hub = Hub::with(&["d"]);
    let epoch = hub.open(&d(), place(1, 1)).session.epoch;
    assert_eq!(hub.ok(reported(&d(), epoch, r#"{"t":20}"#, 0)).number, 2);
    assert_eq!(hub.ok(reported(&d(), epoch, r#"{"t":21}"#, 2)).number, 3);
    hub.refused(reported(&d(), epoch, r#"{"t":22}"#, 2), ErrorCode::PreconditionFailed);
    assert_eq!(document(&twin(&hub).reported), (3, json!({"t": 21})));
    assert_eq!(twin(&hub).version, 1, "counts changes of tags and desired");
    hub.ok(close(&d(), epoch, true));
    hub.refused(reported(&d(), epoch, "{}", 0), ErrorCode::DeviceConnectionClosedRemotely);
}

/// The last eight desired changes are kept, each with the version that it led to, without what only the hub
/// sets; large ones make room earlier. A subscriber at version v goes on with v+1, v+2 without a hole, or is
/// told nothing at all.
#[test]
fn recent_changes() {
    let mut hub = Hub::with(&["d"]);
    hub.ok(patch("", r#"{"a":0,"$version":77,"$metadata":{"$lastUpdated":"x"}}"#, false));
    assert_eq!(twin(&hub).recent[0].patch, r#"{"a":0}"#);
    for n in 0..20 {
        hub.ok(patch(&format!(r#"{{"t":{n}}}"#), "", false));
        hub.ok(patch("", &format!(r#"{{"a":{n}}}"#), n % 3 == 0));
        let row = twin(&hub);
        let (current, _) = document(&row.desired);
        let versions: Vec<u64> = row.recent.iter().map(|change| change.version).collect();
        let kept = (n + 2).min(8) as u64;
        assert_eq!(versions, (current + 1 - kept..=current).collect::<Vec<_>>());
        assert_eq!(json(&row.recent.last().unwrap().patch), json!({ "a": n }));
    }
    for n in 0..3 {
        let large: String = (0..7).map(|k| format!(r#""k{k}":"{n}{}","#, "x".repeat(1900))).collect();
        hub.ok(patch("", &format!("{{{}\"z\":1}}", large), true));
    }
    assert_eq!(twin(&hub).recent.len(), 2, "of 13 KiB each");
}

/// Who is connected is woken for desired, not for tags or reported, and not when gone.
#[test]
fn wakes() {
    let mut hub = Hub::with(&["d"]);
    let woken = |hub: &Hub| {
        hub.effects.iter().any(|effect| matches!(effect, Effect::Wake { wake: Wake::Desired, .. }))
    };
    hub.ok(patch("", r#"{"a":1}"#, false));
    assert!(!woken(&hub));
    let epoch = hub.open(&d(), place(4, 5)).session.epoch;
    hub.ok(patch("", r#"{"a":1}"#, false));
    let wake = Effect::Wake { place: place(4, 5), key: d(), epoch, wake: Wake::Desired };
    assert!(hub.effects.contains(&wake));
    hub.ok(patch(r#"{"t":1}"#, "", false));
    assert!(!woken(&hub));
    hub.ok(reported(&d(), epoch, "{}", 0));
    assert!(!woken(&hub));
    hub.ok(close(&d(), epoch, true));
    hub.ok(patch("", r#"{"a":1}"#, false));
    assert!(!woken(&hub));
}

/// Events of twins: changed parts only, with `$metadata` of what changed and `$version`; whole after a
/// replacement.
#[test]
fn events() {
    let mut hub = Hub::with(&["d"]);
    hub.ok(patch(r#"{"keep":1}"#, r#"{"keep":{"x":1,"y":2}}"#, false));
    let epoch = hub.open(&d(), place(1, 1)).session.epoch;
    hub.events();
    hub.ok(patch(r#"{"t":1}"#, r#"{"keep":{"x":null,"y":3}}"#, false));
    hub.ok(reported(&d(), epoch, r#"{"r":1}"#, 0));
    hub.ok(patch("", r#"{"n":1}"#, true));
    let events = hub.events();
    let names: Vec<_> = events.iter().map(event_name).collect();
    assert_eq!(names, ["updateTwin d", "updateTwin d", "replaceTwin d"]);
    let (updated, time) = ("$lastUpdated", "2023-11-14T22:13:20.0000000Z");
    let stamp = |more: Value| {
        let mut stamp = json!({ updated: time, "$lastUpdatedVersion": 3 });
        stamp.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        stamp
    };
    let metadata = stamp(json!({ "keep": stamp(json!({ "y": stamp(json!({})) })) }));
    let desired = json!({ "keep": { "x": null, "y": 3 }, "$version": 3, "$metadata": metadata });
    assert_eq!(
        json(&events[0].body),
        json!({ "version": 3, "tags": { "t": 1 }, "properties": { "desired": desired } })
    );
    let body = json(&events[1].body);
    assert_eq!(body["properties"]["reported"]["$version"], 2);
    assert_eq!(body["properties"]["reported"]["$metadata"]["r"][updated], time);
    let body = json(&events[2].body);
    assert_eq!((&body["deviceId"], &body["version"]), (&json!("d"), &json!(4)));
    assert_eq!(body["tags"], json!({"keep": 1, "t": 1}));
    assert_eq!(
        (&body["properties"]["desired"]["n"], &body["properties"]["reported"]["r"]),
        (&json!(1), &json!(1))
    );
}
