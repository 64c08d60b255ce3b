//! Feedback: who hears of which outcome, and how services take it.

use bytes::Bytes;
use fleetline_devices::limits::{FEEDBACK_DELIVERIES_MAX, FEEDBACK_LOCK_MAX, FEEDBACK_MAX, FEEDBACK_TTL_MS};
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

/// Sends a command and ends it.
fn ended(hub: &mut Hub, text: &str, ack: AckMode, how: Settle) {
    hub.ok(send(&d(), CommandRow { ack: ack as i32, ..command(text) }));
    let auth = hub.auth(&d());
    hub.ok(lock(&d(), auth, text));
    hub.ok(settle(&d(), auth, text, how));
}

fn take(hub: &mut Hub, token: &str) -> Vec<FeedbackRow> {
    hub.ok(Op::LockFeedback(LockFeedback { token: token.into(), lock_ms: 1000 })).feedback
}

fn settle_feedback(token: &str, settle: Settle) -> Op {
    Op::SettleFeedback(SettleFeedback { token: token.into(), settle: settle as i32 })
}

fn ids(rows: &[FeedbackRow]) -> Vec<&str> {
    rows.iter().map(|row| row.message_id.as_str()).collect()
}

/// Positive hears of success, negative of everything else, full of all, none of nothing.
#[test]
fn by_mode() {
    let mut hub = Hub::with(&["d"]);
    for (name, ack) in
        [("n", AckMode::None), ("p", AckMode::Positive), ("m", AckMode::Negative), ("f", AckMode::Full)]
    {
        ended(&mut hub, &format!("{name}-completed"), ack, Settle::Complete);
        ended(&mut hub, &format!("{name}-rejected"), ack, Settle::Reject);
    }
    let rows = take(&mut hub, "t");
    assert_eq!(ids(&rows), ["p-completed", "m-rejected", "f-completed", "f-rejected"]);
    let outcomes: Vec<_> = rows.iter().map(FeedbackRow::outcome).collect();
    assert_eq!(outcomes, [Outcome::Success, Outcome::Rejected, Outcome::Success, Outcome::Rejected]);
    let generation = hub.device(&d()).generation;
    assert!(rows.iter().all(|row| row.key == d() && row.generation == generation && row.time_ms == START));
}

/// A lock holds for its time; then, or given back, the records come again; completed or rejected they don't.
#[test]
fn locks() {
    let mut hub = Hub::with(&["d"]);
    for text in ["a", "b"] {
        ended(&mut hub, text, AckMode::Full, Settle::Complete);
    }
    assert_eq!(ids(&take(&mut hub, "t")), ["a", "b"]);
    ended(&mut hub, "c", AckMode::Full, Settle::Complete);
    assert_eq!(ids(&take(&mut hub, "u")), ["c"]);
    assert_eq!(ids(&take(&mut hub, "v")), [""; 0]);
    hub.refused(settle_feedback("x", Settle::Complete), ErrorCode::DeviceMessageLockLost);
    hub.refused(settle_feedback("", Settle::Complete), ErrorCode::DeviceMessageLockLost);
    let unknown = SettleFeedback { token: "t".into(), settle: 9 };
    hub.refused(Op::SettleFeedback(unknown), ErrorCode::ArgumentInvalid);
    assert_eq!(hub.ok(settle_feedback("t", Settle::Abandon)).number, 2);
    let again = take(&mut hub, "w");
    assert_eq!((ids(&again), again[0].deliveries), (vec!["a", "b"], 2));
    hub.now += 1000;
    hub.refused(settle_feedback("w", Settle::Complete), ErrorCode::DeviceMessageLockLost);
    assert_eq!(ids(&take(&mut hub, "y")), ["a", "b", "c"]);
    assert_eq!(hub.ok(settle_feedback("y", Settle::Reject)).number, 3);
    hub.refused(settle_feedback("y", Settle::Complete), ErrorCode::DeviceMessageLockLost);
    assert_eq!(hub.state.head().feedback, 0);
    hub.refused(Op::LockFeedback(LockFeedback::default()), ErrorCode::ArgumentInvalid);
}

/// Feedback that was given out ten times, or is an hour old, is forgotten.
#[test]
fn forgotten() {
    let mut hub = Hub::with(&["d"]);
    ended(&mut hub, "a", AckMode::Full, Settle::Complete);
    for n in 1..=FEEDBACK_DELIVERIES_MAX {
        assert_eq!(take(&mut hub, "t")[0].deliveries, n);
        hub.ok(settle_feedback("t", Settle::Abandon));
    }
    assert_eq!(ids(&take(&mut hub, "t")), [""; 0]);
    assert_eq!(hub.state.head().feedback, 0);
    ended(&mut hub, "b", AckMode::Full, Settle::Complete);
    hub.now += FEEDBACK_TTL_MS;
    assert_eq!(ids(&take(&mut hub, "t")), [""; 0]);
    assert_eq!(hub.state.head().feedback, 0);
}

/// One lock takes 64 records, the oldest; the next takes the rest.
#[test]
fn many() {
    let mut hub = Hub::with(&["d"]);
    for n in 0..FEEDBACK_LOCK_MAX + 3 {
        ended(&mut hub, &format!("{n:03}"), AckMode::Full, Settle::Complete);
    }
    let first = take(&mut hub, "t");
    assert_eq!((first.len(), first[0].message_id.as_str()), (64, "000"));
    assert_eq!(ids(&take(&mut hub, "u")), ["064", "065", "066"]);
}

/// When ten thousand wait the oldest make room, several in one round too.
#[test]
fn bounded() {
    let (store, group) = (MemState::new(), GroupId::of_partition(PARTITION));
    let mut rows = StateBatch::default();
    for n in 0..FEEDBACK_MAX {
        let row =
            FeedbackRow { key: DeviceKey::device("e"), message_id: n.to_string(), ..FeedbackRow::default() };
        let key = [[0; 8], n.to_be_bytes()].concat();
        rows.put(group, KeyKind::Feedback, key, row.encode_to_vec());
    }
    let head = DeviceHead { feedback: FEEDBACK_MAX, ..DeviceHead::default() };
    rows.put(group, KeyKind::DeviceHead, Bytes::new(), head.encode_to_vec());
    store.write(rows).unwrap();
    let mut hub = Hub { state: load(&store), store, ..Hub::new() };
    hub.ok(put(d(), Condition::absent()));
    let item = |op| BulkItem { op: Some(op) };
    let mut ops: Vec<_> = (0..4).map(|n| item(send(&d(), command(&format!("new{n}"))))).collect();
    ops.push(item(Op::PurgeCommands(PurgeCommands { key: d() })));
    hub.ok(Op::Bulk(Bulk { ops }));
    assert_eq!(hub.state.head().feedback, FEEDBACK_MAX);
    let left: Vec<FeedbackRow> = crate::steps::rows(&hub, KeyKind::Feedback, b"");
    let ids = ids(&left);
    assert_eq!((ids[0], &ids[ids.len() - 4..]), ("4", &["new0", "new1", "new2", "new3"][..]));
}
