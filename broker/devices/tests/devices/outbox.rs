//! The outbox: each event becomes a record once, in order.

use fleetline_devices::*;
use fleetline_state::StateBatch;

use crate::kit::*;

/// Appends fit only where the outbox begins and as far as it goes; what was appended is gone.
#[test]
fn appended_in_order() {
    let mut hub = Hub::with(&["a", "b", "c"]);
    assert_eq!(hub.query().outbox(2).unwrap().1.len(), 2);
    for (first, count, fits) in
        [(0, 3, true), (0, 1, true), (0, 0, true), (0, 4, false), (1, 1, false), (0, u64::MAX, false)]
    {
        assert_eq!(hub.state.outbox_fits(first, count).is_ok(), fits, "{first} {count}");
    }
    let mut out = StateBatch::default();
    hub.state.outbox_appended(0, 2, &mut out).unwrap();
    hub.end_round(out);
    assert!(hub.state.outbox_fits(0, 2).is_err(), "the same append again");
    let (first, events) = hub.query().outbox(9).unwrap();
    assert_eq!((first, events.len(), events[0].device.as_str()), (2, 1, "c"));
    let mut out = StateBatch::default();
    assert!(hub.state.outbox_appended(2, 2, &mut out).is_err());
    assert_eq!(out.ops, []);
    hub.state.outbox_appended(2, 1, &mut out).unwrap();
    hub.end_round(out);
    assert_eq!(hub.query().outbox(9).unwrap(), (3, Vec::new()));
    // Numbers go on behind a reload.
    hub.state = load(&hub.store);
    hub.ok(put(DeviceKey::device("d"), Condition::absent()));
    assert_eq!(hub.query().outbox(9).unwrap().0, 3);
}

/// The leader is told once a round that there are events.
#[test]
fn effect() {
    let mut hub = Hub::with(&["a"]);
    assert_eq!(hub.effects, [Effect::Outbox]);
    let item = |id: &str| BulkItem { op: Some(put(DeviceKey::device(id), Condition::absent())) };
    hub.ok(Op::Bulk(Bulk { ops: vec![item("b"), item("c")] }));
    assert_eq!(hub.effects, [Effect::Outbox]);
}
