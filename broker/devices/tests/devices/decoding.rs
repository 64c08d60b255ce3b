//! Stored commands are bytes of a log: any bytes decode or are refused, and what a later release wrote stops
//! a replica instead of being skipped.

use fleetline_devices::*;
use proptest::prelude::*;
use prost::Message;

use crate::kit::*;
use crate::steps::{resolve, step};

/// A command that this release doesn't know, alone and among others.
#[test]
fn unknown_commands_stop() {
    let head = [HEAD_KIND, 1];
    // Field 99, an empty message.
    let unknown = [0x9a, 0x06, 0x00];
    assert!(DeviceCommand::decode_entry(&head, &unknown).is_err());
    let known = BulkItem { op: Some(put(DeviceKey::device("d"), Condition::absent())) }.encode_to_vec();
    let with = |items: &[&[u8]]| {
        let mut bulk = Vec::new();
        for item in items {
            bulk.extend([0x0a, item.len() as u8]);
            bulk.extend_from_slice(item);
        }
        [vec![0x7a, bulk.len() as u8], bulk].concat()
    };
    assert!(DeviceCommand::decode_entry(&head, &with(&[&known])).is_ok());
    assert!(DeviceCommand::decode_entry(&head, &with(&[&known, &unknown])).is_err());
    let (_, body) = DeviceCommand::new(put(DeviceKey::device("d"), Condition::absent())).encode_entry();
    for head in [&[][..], &[HEAD_KIND], &[HEAD_KIND, 0], &[HEAD_KIND, 2], &[HEAD_KIND, 1, 0], &[0x41, 1]] {
        assert!(DeviceCommand::decode_entry(head, &body).is_err(), "{head:?}");
    }
    assert!(
        DeviceCommand::is_head(&head)
            && !DeviceCommand::is_head(&[])
            && !DeviceCommand::is_head(&[1, HEAD_KIND])
    );
}

/// Entries are in logs: these bytes may not change.
#[test]
fn golden() {
    let op = Op::CloseSession(CloseSession { key: DeviceKey::device("d"), epoch: 300, graceful: true });
    let (head, body) = DeviceCommand { now_ms: 5, op: Some(op) }.encode_entry();
    let hex: String = head.iter().chain(&body).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "4001320a0a030a016410ac021801a00105");
}

proptest! {
    /// Random bytes, and real commands with a byte changed, decode or are refused; what decodes applies.
    #[test]
    fn any_bytes(head in prop::collection::vec(any::<u8>(), 0..4), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = DeviceCommand::decode_entry(&head, &body);
        let _ = DeviceCommand::decode_entry(&[HEAD_KIND, 1], &body);
    }

    #[test]
    fn changed_bytes(steps in prop::collection::vec((step(), any::<(usize, u8)>()), 1..20)) {
        let mut hub = Hub::with(&["d0", "d1"]);
        for (step, (place, byte)) in steps {
            let op = resolve(&mut hub, &step);
            let (head, body) = DeviceCommand { now_ms: hub.now, op: Some(op) }.encode_entry();
            let mut body = body.to_vec();
            let place = place % body.len();
            body[place] = byte;
            if let Ok(DeviceCommand { op: Some(op), now_ms }) = DeviceCommand::decode_entry(&head, &body) {
                let now = std::mem::replace(&mut hub.now, now_ms);
                hub.apply(op);
                hub.now = now;
            }
        }
    }
}
