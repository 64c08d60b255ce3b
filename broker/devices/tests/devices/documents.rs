//! Documents of tiers, events that tiers emit, and the stored form of commits.

use bytes::Bytes;
use fleetline_devices::limits::{DOCUMENT_BYTES_MAX, DOCUMENT_NAME_MAX, MESSAGE_MAX, PROPERTIES_MAX};
use fleetline_devices::*;
use fleetline_iothub::errors::ErrorCode;

use crate::kit::*;

fn put(name: &str, value: &'static [u8], condition: Condition) -> Op {
    let (name, value) = (name.to_owned(), Bytes::from_static(value));
    Op::PutDocument(PutDocument { name, value, condition, delete: false })
}

fn delete(name: &str, condition: Condition) -> Op {
    Op::PutDocument(PutDocument { name: name.to_owned(), value: Bytes::new(), condition, delete: true })
}

/// Conditions are those of identities; a version never comes back, not even after a deletion.
#[test]
fn conditions() {
    let mut hub = Hub::new();
    hub.refused(put("a/x", b"1", Condition::any()), ErrorCode::PreconditionFailed);
    let first = hub.ok(put("a/x", b"1", Condition::absent())).number;
    hub.refused(put("a/x", b"2", Condition::absent()), ErrorCode::PreconditionFailed);
    let second = hub.ok(put("a/x", b"2", Condition::tag(first))).number;
    assert!(second > first);
    hub.refused(put("a/x", b"3", Condition::tag(first)), ErrorCode::PreconditionFailed);
    hub.refused(delete("a/x", Condition::tag(first)), ErrorCode::PreconditionFailed);
    hub.ok(delete("a/x", Condition::tag(second)));
    hub.refused(delete("a/x", Condition::any()), ErrorCode::PreconditionFailed);
    hub.ok(delete("a/x", Condition::upsert()));
    assert!(hub.ok(put("a/x", b"4", Condition::upsert())).number > second);
    let found = hub.query().document("a/x").unwrap().unwrap();
    assert_eq!((found.value, found.changed_ms), (Bytes::from_static(b"4"), START));
}

/// Names are listed in order, by what they begin with.
#[test]
fn listed() {
    let mut hub = Hub::new();
    for name in ["b/1", "a/2", "a/1", "a/3", "ab"] {
        hub.ok(put(name, b"v", Condition::absent()));
    }
    let names = |prefix: &str, from: &str, limit| {
        let found = hub.query().documents(prefix, from, limit).unwrap();
        found.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names("a/", "", 10), ["a/1", "a/2", "a/3"]);
    assert_eq!(names("a/", "a/2", 1), ["a/2"]);
    assert_eq!(names("a/", "a/4", 10), [] as [&str; 0]);
    assert_eq!(names("", "", 2), ["a/1", "a/2"]);
}

/// What is too large changes nothing.
#[test]
fn bounds() {
    let mut hub = Hub::new();
    hub.refused(put("", b"", Condition::upsert()), ErrorCode::ArgumentInvalid);
    hub.refused(
        put(&"n".repeat(DOCUMENT_NAME_MAX + 1), b"", Condition::upsert()),
        ErrorCode::ArgumentInvalid,
    );
    let value = Bytes::from(vec![0; DOCUMENT_BYTES_MAX + 1]);
    let large = PutDocument { name: "n".into(), value, condition: Condition::upsert(), delete: false };
    hub.refused(Op::PutDocument(large), ErrorCode::MessageTooLarge);
    let event = |body: usize, properties: usize| {
        let property = Property { name: "n".into(), value: "v".into() };
        let event = EventRow {
            body: vec![0; body].into(),
            properties: vec![property; properties],
            ..EventRow::default()
        };
        Op::Emit(Emit { event })
    };
    hub.refused(event(MESSAGE_MAX + 1, 0), ErrorCode::MessageTooLarge);
    hub.refused(event(0, PROPERTIES_MAX + 1), ErrorCode::MessageTooLarge);
    hub.ok(event(MESSAGE_MAX, 0));
    assert_eq!(hub.events().len(), 1);
}

/// An event without a time has that of its entry.
#[test]
fn emitted() {
    let mut hub = Hub::new();
    let event = |time_ms| EventRow { device: "d".into(), time_ms, ..EventRow::default() };
    hub.ok(Op::Emit(Emit { event: event(0) }));
    hub.ok(Op::Emit(Emit { event: event(7) }));
    assert_eq!(hub.events().iter().map(|event| event.time_ms).collect::<Vec<_>>(), [START, 7]);
}

/// A commit comes back as it went; another version, another kind or a change of a later release doesn't.
#[test]
fn stored_form_of_commits() {
    let changes = Bulk { ops: vec![BulkItem { op: Some(put("a/x", b"1", Condition::upsert())) }] };
    let commit = Commit { group: "g".into(), epoch: 3, first: 5, next: 9, changes, now_ms: START };
    let (head, body) = commit.encode_entry();
    assert!(Commit::is_head(&head) && !DeviceCommand::is_head(&head));
    assert_eq!(Commit::decode_entry(&head, &body).unwrap(), commit);
    assert!(Commit::decode_entry(&[head[0], 2], &body).unwrap_err().is_newer_format());
    assert!(Commit::decode_entry(&[0x40, 1], &body).is_err());
    assert!(Commit::decode_entry(&head, &body[..body.len() - 1]).is_err());
    let later = Commit { changes: Bulk { ops: vec![BulkItem { op: None }] }, ..commit.clone() };
    let (head, body) = later.encode_entry();
    assert!(Commit::decode_entry(&head, &body).unwrap_err().is_newer_format());
    assert!(Commit { next: 4, ..commit }.check().is_err());
}
