//! Fences: P11, P12 and pitfall 14 of the reliability page, with batches as gateways make them.

use bytes::Bytes;
use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_devices::limits::FENCES_KEPT;
use fleetline_devices::*;
use fleetline_iothub::errors::ErrorCode;
use fleetline_state::memory::MemState;
use fleetline_state::{KeyKind, StateBatch, StateStore};
use fleetline_types::GroupId;
use prost::Message;

use crate::kit::*;

fn d() -> DeviceKey {
    DeviceKey::device("d")
}

fn batch(devices: &[&str], compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::default();
    for device in devices {
        let body = &[7; 200];
        builder.push(&RecordRef { device: device.as_bytes(), body, ..RecordRef::default() }).unwrap();
    }
    builder.finish(Producer::default(), compression).unwrap()
}

fn passes(hub: &Hub, fence: u32, devices: &[&str]) -> bool {
    hub.state.batch_passes(fence, &batch(devices, Compression::None)).unwrap()
}

/// A batch that was formed before the fence is refused when it names the device; other devices pass, and so
/// does one that was formed after it, and one that is no gateway's.
#[test]
fn batches() {
    let mut hub = Hub::with(&["d", "e"]);
    assert_eq!(hub.state.head().fence, 0);
    assert!(passes(&hub, 1, &["d"]));
    hub.ok(disable(d(), true));
    let first = hub.state.head().fence;
    assert_eq!(first, 2, "1 is a gateway that knows of none");
    for (fence, devices, pass) in [
        (1, &["d"][..], false),
        (1, &["e", "x", "d"], false),
        (1, &["e", "x"], true),
        (2, &["d"], true),
        (3, &["d"], true),
        (0, &["d"], true),
    ] {
        assert_eq!(passes(&hub, fence, devices), pass, "{fence} {devices:?}");
        let packed = batch(&devices.repeat(20), Compression::Lz4);
        assert_eq!(hub.state.batch_passes(fence, &packed).unwrap(), pass, "compressed");
    }
    // A later fence of somebody else: the first still counts for who hasn't seen it.
    hub.ok(disable(DeviceKey::device("e"), true));
    assert!(!passes(&hub, 1, &["d"]) && passes(&hub, 2, &["d"]) && !passes(&hub, 2, &["e"]));
    // Enabled again: what was formed before the disable stays out, and a reload forgets nothing.
    hub.ok(disable(d(), false));
    hub.state = load(&hub.store);
    assert!(!passes(&hub, 1, &["d"]) && passes(&hub, 3, &["d", "e"]));
    assert!(hub.state.batch_passes(1, &Bytes::from_static(b"no batch")).unwrap(), "the stream refuses it");
}

/// What fences: each thing that takes a right away, and nothing else.
#[test]
fn what_fences() {
    let with_keys = |primary: &str, secondary: &str| {
        put_spec(
            d(),
            DeviceSpec { auth: auth(primary, secondary), ..DeviceSpec::default() },
            Condition::any(),
        )
    };
    let reason = DeviceSpec { status_reason: "r".into(), ..DeviceSpec::default() };
    let table: Vec<(&str, Op, bool)> = vec![
        ("nothing changes", put(d(), Condition::any()), false),
        ("a reason", put_spec(d(), reason, Condition::any()), false),
        ("primary key", with_keys("YQ==", ""), true),
        ("secondary key", with_keys("", "YQ=="), true),
        ("disabled", disable(d(), true), true),
        ("deleted", delete(d(), Condition::any()), true),
        ("enabled, as it was", disable(d(), false), false),
        ("twin", desired(&d(), "{}", Condition::any()), false),
    ];
    for (what, op, fences) in table {
        let mut hub = Hub::with(&["d"]);
        let epoch = hub.open(&d(), place(1, 1)).session.epoch;
        let version = hub.auth(&d());
        hub.ok(op);
        assert_eq!(hub.state.head().fence > 0, fences, "{what}");
        let wake = Effect::Wake { place: place(1, 1), key: d(), epoch, wake: Wake::Fenced };
        assert_eq!(hub.effects.contains(&wake), fences, "{what}");
        assert_eq!(hub.state.head().connected, u64::from(!fences), "{what}");
        let reply = hub.apply(reported(&d(), epoch, "{}", 0));
        assert_eq!(reply.error.is_some(), fences, "{what}");
        let reply = hub.apply(open(&d(), version, place(1, 2)));
        assert_eq!(reply.error.is_some(), fences, "{what}: a proof of before");
    }
}

/// A device's fence ends its modules' sessions; a module's ends its own alone.
#[test]
fn modules() {
    let [m, n] = ["m", "n"].map(|module| DeviceKey::module("d", module));
    let set_up = || {
        let mut hub = Hub::with(&["d"]);
        for key in [&m, &n] {
            hub.ok(put(key.clone(), Condition::absent()));
        }
        let epochs = [d(), m.clone(), n.clone()].map(|key| hub.open(&key, place(1, 1)).session.epoch);
        (hub, epochs)
    };
    let connected = |hub: &Hub| -> Vec<String> {
        hub.query().connected(b"", 9).unwrap().rows.into_iter().map(|(key, _)| key.text()).collect()
    };
    let last = |hub: &Hub| hub.query().fences(hub.state.head().fence - 1, 9).unwrap().unwrap().pop().unwrap();

    let (mut hub, _) = set_up();
    hub.ok(disable(d(), true));
    assert_eq!(connected(&hub), [""; 0]);
    assert!(last(&hub).with_modules && last(&hub).key == d());

    let keys = DeviceSpec { auth: auth("YQ==", "YQ=="), ..DeviceSpec::default() };
    for op in [
        put_spec(m.clone(), keys, Condition::any()),
        disable(m.clone(), true),
        delete(m.clone(), Condition::any()),
    ] {
        let (mut hub, [_, _, epoch]) = set_up();
        hub.ok(op.clone());
        assert_eq!(connected(&hub), ["d", "d/n"], "{op:?}");
        assert!(!last(&hub).with_modules && last(&hub).key == m);
        // Batches name devices: the whole device's are looked into.
        assert!(!passes(&hub, 1, &["d"]));
        hub.ok(reported(&n, epoch, "{}", 0));
    }

    let (mut hub, [_, epoch, _]) = set_up();
    hub.open(&m, place(2, 2));
    assert_eq!(connected(&hub), ["d", "d/m", "d/n"]);
    hub.refused(reported(&m, epoch, "{}", 0), ErrorCode::DeviceConnectionClosedRemotely);
}

/// A deleted device's records of before stay out, also when there is one of that name again.
#[test]
fn made_anew() {
    let mut hub = Hub::with(&["d"]);
    let epoch = hub.open(&d(), place(1, 1)).session.epoch;
    hub.ok(delete(d(), Condition::any()));
    let fence = hub.state.head().fence;
    hub.ok(put(d(), Condition::absent()));
    let session = hub.open(&d(), place(1, 2)).session;
    assert!(session.epoch > epoch);
    assert!(!passes(&hub, fence - 1, &["d"]) && passes(&hub, fence, &["d"]));
    hub.refused(reported(&d(), epoch, "{}", 0), ErrorCode::DeviceConnectionClosedRemotely);
}

/// Fences behind a number, so many at a time; `None` for who is behind all that are listed.
#[test]
fn listed() {
    let mut hub = Hub::with(&["d"]);
    assert_eq!(hub.query().fences(1, 9).unwrap(), Some(Vec::new()));
    for n in 0..6 {
        hub.ok(disable(d(), n % 2 == 0));
    }
    let numbers = |after, limit| -> Vec<u32> {
        hub.query().fences(after, limit).unwrap().unwrap().iter().map(|row| row.number).collect()
    };
    assert_eq!(numbers(1, 9), [2, 3, 4]);
    assert_eq!(numbers(1, 2), [2, 3]);
    assert_eq!(numbers(3, 9), [4]);
    assert_eq!(numbers(4, 9), [0; 0]);
    assert_eq!(numbers(u32::MAX, 9), [0; 0]);
    let indexes: Vec<u64> = hub.query().fences(1, 9).unwrap().unwrap().iter().map(|row| row.index).collect();
    assert!(indexes.is_sorted());
}

/// A hundred thousand fences are listed; the oldest go one by one. Who has missed one that is gone is told so,
/// and its batches are held against the device's own row still.
#[test]
fn forgotten() {
    let (store, group) = (MemState::new(), GroupId::of_partition(PARTITION));
    let mut rows = StateBatch::default();
    let last = FENCES_KEPT + 1;
    for number in 2..=last {
        let row = FenceRow { key: DeviceKey::device("e"), with_modules: false, index: 1, number };
        rows.put(group, KeyKind::FenceLog, number.to_be_bytes().to_vec(), row.encode_to_vec());
    }
    let head = DeviceHead { fence: last, fence_oldest: 2, ..DeviceHead::default() };
    rows.put(group, KeyKind::DeviceHead, Bytes::new(), head.encode_to_vec());
    store.write(rows).unwrap();
    let mut hub = Hub { state: load(&store), store, ..Hub::new() };
    assert!(hub.query().fences(1, 1).unwrap().is_some());
    hub.ok(put(d(), Condition::absent()));
    hub.ok(disable(d(), true));
    let head = hub.state.head();
    assert_eq!((head.fence_oldest, head.fence), (3, last + 1));
    assert_eq!(hub.query().fences(1, 1).unwrap(), None);
    assert_eq!(hub.query().fences(2, 1).unwrap().unwrap()[0].number, 3);
    assert!(!passes(&hub, 1, &["d"]));
}
