//! Sessions: P12 (at most one a device, nothing of the old one behind the new one, one will an end) and what
//! outlives a connection.

use bytes::Bytes;
use fleetline_devices::*;
use fleetline_iothub::errors::ErrorCode;

use crate::kit::*;

fn d() -> DeviceKey {
    DeviceKey::device("d")
}

fn opening(hub: &Hub, change: impl FnOnce(&mut OpenSession)) -> Op {
    let mut open =
        OpenSession { key: d(), auth_version: hub.auth(&d()), place: place(1, 1), ..OpenSession::default() };
    change(&mut open);
    Op::OpenSession(open)
}

fn will(body: &str) -> Option<WillRow> {
    Some(WillRow { bag: "a=1&%24.ct=text".into(), body: Bytes::copy_from_slice(body.as_bytes()) })
}

fn subscribe(epoch: u64, add: &[(&str, u32)], remove: &[&str]) -> Op {
    let add = add.iter().map(|(filter, qos)| SubscriptionRow { filter: (*filter).into(), qos: *qos });
    let remove = remove.iter().map(|filter| (*filter).to_owned()).collect();
    Op::Subscribe(Subscribe { key: d(), epoch, add: add.collect(), remove })
}

fn filters(session: &SessionRow) -> Vec<(&str, u32)> {
    session.subscriptions.iter().map(|row| (row.filter.as_str(), row.qos)).collect()
}

/// Only who may, with the credentials that are: no device, another version, a disabled one.
#[test]
fn who_may_open() {
    let mut hub = Hub::with(&["d"]);
    let m = DeviceKey::module("d", "m");
    hub.refused(open(&DeviceKey::device("x"), 0, place(1, 1)), ErrorCode::DeviceNotFound);
    hub.refused(open(&m, 0, place(1, 1)), ErrorCode::ModuleNotFound);
    let version = hub.auth(&d());
    for wrong in [0, version - 1, version + 1] {
        hub.refused(open(&d(), wrong, place(1, 1)), ErrorCode::ServerBusy);
    }
    hub.ok(put(m.clone(), Condition::absent()));
    let of_module = hub.auth(&m);
    hub.ok(disable(d(), true));
    for key in [d(), m.clone()] {
        hub.refused(open(&key, hub.auth(&key), place(1, 1)), ErrorCode::DeviceDisabled);
    }
    hub.ok(disable(d(), false));
    // The proof of before counts no more, the module's neither.
    hub.refused(open(&d(), version, place(1, 1)), ErrorCode::ServerBusy);
    hub.refused(open(&m, of_module, place(1, 1)), ErrorCode::ServerBusy);
    hub.open(&d(), place(1, 1));
    hub.open(&m, place(1, 2));
    assert_eq!(hub.state.head().connected, 1, "modules aren't counted");
}

/// A new connection ends the old one: its gateway is told, its epoch is worth nothing, and the counter stays.
#[test]
fn takeover() {
    let mut hub = Hub::with(&["d"]);
    let first = hub.open(&d(), place(1, 7)).session;
    assert!(!hub.effects.iter().any(|effect| matches!(effect, Effect::Wake { .. })));
    hub.events();
    let second = hub.open(&d(), place(2, 8)).session;
    assert!(second.epoch > first.epoch);
    let wake = Effect::Wake { place: place(1, 7), key: d(), epoch: first.epoch, wake: Wake::Fenced };
    assert!(hub.effects.contains(&wake), "{:?}", hub.effects);
    let fence = hub.query().fences(hub.state.head().fence - 1, 9).unwrap().unwrap().pop().unwrap();
    assert_eq!((fence.key, fence.with_modules, fence.index), (d(), false, second.epoch));
    hub.refused(reported(&d(), first.epoch, "{}", 0), ErrorCode::DeviceConnectionClosedRemotely);
    hub.refused(subscribe(first.epoch, &[], &[]), ErrorCode::DeviceConnectionClosedRemotely);
    hub.refused(close(&d(), first.epoch, false), ErrorCode::DeviceConnectionClosedRemotely);
    hub.ok(reported(&d(), second.epoch, "{}", 0));
    assert_eq!(hub.state.head().connected, 1);
    let events = hub.events();
    let names: Vec<_> = events.iter().map(event_name).collect();
    assert_eq!(names, ["deviceDisconnected d", "deviceConnected d", "updateTwin d"]);
    // "Strictly increasing per device, string-comparable", within one entry too.
    let number = |event: &EventRow| json(&event.body)["sequenceNumber"].as_str().unwrap().to_owned();
    assert!(number(&events[0]) < number(&events[1]) && number(&events[0]).len() == 64);
}

/// A connection that is closed may have left records in its gateway: one at another gateway fences them, one
/// at the same comes behind them by itself.
#[test]
fn fences_what_a_closed_connection_left() {
    for (next, fences) in
        [(place(1, 2), 0), (place(2, 2), 1), (ConnectionPlace { incarnation: 2, ..place(1, 2) }, 1)]
    {
        let mut hub = Hub::with(&["d"]);
        let session = hub.open(&d(), place(1, 1)).session;
        hub.ok(close(&d(), session.epoch, true));
        let before = hub.state.head().fence.max(1);
        hub.open(&d(), next);
        assert_eq!(hub.state.head().fence.max(1) - before, fences);
        assert_eq!(hub.state.head().connected, 1);
    }
}

/// A will once for each end that isn't graceful: broken connection and takeover, not good-bye, nor when the
/// right to send is gone, nor again.
#[test]
fn wills() {
    let mut hub = Hub::with(&["d"]);
    let session = hub.ok(opening(&hub, |open| open.will = will("gone"))).opened.unwrap().session;
    hub.events();
    hub.ok(close(&d(), session.epoch, false));
    hub.refused(close(&d(), session.epoch, false), ErrorCode::DeviceConnectionClosedRemotely);
    let events = hub.events();
    let names: Vec<_> = events.iter().map(event_name).collect();
    assert_eq!(names, ["Will d", "deviceDisconnected d"]);
    assert_eq!((&events[0].body[..], events[0].endpoints), (&b"gone"[..], endpoints::TELEMETRY));
    assert_eq!(property(&events[0], "a"), Some("1"));
    let system: Vec<_> = events[0].system.iter().map(|row| row.value.as_str()).collect();
    assert_eq!(system, ["text", "d", "Telemetry"]);

    let session = hub.ok(opening(&hub, |open| open.will = will("gone"))).opened.unwrap().session;
    hub.events();
    hub.ok(close(&d(), session.epoch, true));
    assert_eq!(hub.event_names(), ["deviceDisconnected d"]);

    hub.ok(opening(&hub, |open| open.will = will("taken")));
    hub.events();
    let session = hub.ok(opening(&hub, |open| open.place = place(2, 1))).opened.unwrap().session;
    assert_eq!(hub.event_names(), ["Will d", "deviceDisconnected d", "deviceConnected d"]);
    hub.ok(close(&d(), session.epoch, false));
    assert_eq!(hub.event_names(), ["deviceDisconnected d"], "the new connection has none");

    hub.ok(opening(&hub, |open| open.will = will("forbidden")));
    hub.events();
    hub.ok(disable(d(), true));
    assert_eq!(hub.event_names(), ["deviceDisconnected d"]);
}

/// Subscriptions: added, changed, removed; of one filter there is one; they outlive the connection unless it
/// is clean, and are not asked for when the next begins fresh.
#[test]
fn subscriptions() {
    for (clean, fresh, kept) in
        [(false, false, true), (true, false, false), (false, true, false), (true, true, false)]
    {
        for taken_over in [false, true] {
            let mut hub = Hub::with(&["d"]);
            let opened = hub.ok(opening(&hub, |open| open.clean = clean)).opened.unwrap();
            assert!(!opened.present);
            let epoch = opened.session.epoch;
            hub.ok(subscribe(epoch, &[("a", 0), ("b", 1), ("a", 1)], &[]));
            hub.ok(subscribe(epoch, &[("c", 0), ("b", 0)], &["a", "x"]));
            let session = hub.query().session(&d()).unwrap().unwrap();
            assert_eq!(filters(&session), [("c", 0), ("b", 0)]);
            if !taken_over {
                hub.ok(close(&d(), epoch, false));
            }
            let next = hub.ok(opening(&hub, |open| open.fresh = fresh)).opened.unwrap();
            assert_eq!((next.present, next.session.subscriptions.len()), (kept, if kept { 2 } else { 0 }));
        }
    }
}

/// A session has sixteen subscriptions; more are refused and leave the others.
#[test]
fn subscriptions_are_bounded() {
    let mut hub = Hub::with(&["d"]);
    let epoch = hub.open(&d(), place(1, 1)).session.epoch;
    let names: Vec<String> = (0..17).map(|n| format!("f{n}")).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), 0)).collect();
    hub.refused(subscribe(epoch, &all, &[]), ErrorCode::MessageTooLarge);
    hub.ok(subscribe(epoch, &all[..16], &[]));
    hub.refused(subscribe(epoch, &all[16..], &[]), ErrorCode::IotHubQuotaExceeded);
    hub.ok(subscribe(epoch, &all[16..], &["f0"]));
    assert_eq!(hub.query().session(&d()).unwrap().unwrap().subscriptions.len(), 16);
    let long = "x".repeat(fleetline_devices::limits::TEXT_BYTES_MAX + 1);
    hub.refused(subscribe(epoch, &[(&long, 0)], &["f1"]), ErrorCode::MessageTooLarge);
}

/// What a connection is told when it opens: the version from which on desired changes come, and the model is
/// kept.
#[test]
fn opened() {
    let mut hub = Hub::with(&["d"]);
    hub.ok(desired(&d(), r#"{"a":1}"#, Condition::any()));
    let opened = hub.ok(opening(&hub, |open| open.model_id = "dtmi:x;1".into())).opened.unwrap();
    assert_eq!(opened.desired_version, 2);
    assert_eq!(hub.query().twin(&d()).unwrap().unwrap().model_id, "dtmi:x;1");
    assert_eq!(hub.query().twin(&d()).unwrap().unwrap().version, 2, "a model is no change of the twin");
    hub.ok(opening(&hub, |_| {}));
    assert_eq!(hub.query().twin(&d()).unwrap().unwrap().model_id, "dtmi:x;1");
}

/// Pages of connected sessions leave out those that aren't.
#[test]
fn connected() {
    let mut hub = Hub::with(&["a", "b", "c", "d"]);
    for id in ["a", "b", "c"] {
        let key = DeviceKey::device(id);
        let session = hub.open(&key, place(1, 1)).session;
        if id == "b" {
            hub.ok(close(&key, session.epoch, true));
        }
    }
    let (mut found, mut from) = (Vec::new(), Bytes::new());
    loop {
        let page = hub.query().connected(&from, 1).unwrap();
        found.extend(page.rows.into_iter().map(|(key, _)| key.text()));
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(found, ["a", "c"]);
}
