//! Commands: P13. Each ends once; a token is good for one delivery; the outcome is the true one.

use bytes::Bytes;
use fleetline_devices::limits::{COMMAND_MAX, COMMAND_TTL_MS, COMMAND_TTL_MS_MAX, DELIVERIES_MAX, QUEUE_MAX};
use fleetline_devices::*;
use fleetline_iothub::errors::ErrorCode;

use crate::kit::*;

fn d() -> DeviceKey {
    DeviceKey::device("d")
}

/// The feedback that has come since the last call: message id and outcome.
fn outcomes(hub: &mut Hub) -> Vec<(String, Outcome)> {
    let locked = hub.ok(Op::LockFeedback(LockFeedback { token: "f".into(), lock_ms: 1000 })).feedback;
    if !locked.is_empty() {
        hub.ok(Op::SettleFeedback(SettleFeedback { token: "f".into(), settle: Settle::Complete as i32 }));
    }
    locked.into_iter().map(|row| (row.message_id.clone(), row.outcome())).collect()
}

fn waiting(hub: &Hub) -> Vec<String> {
    let rows = hub.query().commands(&d(), 0, hub.now, usize::MAX).unwrap();
    rows.into_iter().map(|row| row.message_id).collect()
}

fn locked(hub: &mut Hub, token: &str) -> Option<CommandRow> {
    let auth = hub.auth(&d());
    hub.ok(lock(&d(), auth, token)).command
}

/// What the hub sets and what it keeps of a sent command.
#[test]
fn stored() {
    let mut hub = Hub::with(&["d"]);
    let given = CommandRow {
        sequence: 9,
        enqueued_ms: 9,
        deliveries: 9,
        lock_token: "x".into(),
        locked_until_ms: u64::MAX,
        ..command("a")
    };
    let row = hub.ok(send(&d(), given)).command.unwrap();
    let expected = CommandRow {
        sequence: 2 << 8,
        enqueued_ms: START,
        expires_ms: START + COMMAND_TTL_MS,
        ..command("a")
    };
    assert_eq!(row, expected);
    assert_eq!(hub.query().commands(&d(), 0, START, 9).unwrap(), [expected]);
}

/// The expiry that its sender gives, cut to two days; one that has passed is refused.
#[test]
fn expiry_times() {
    let mut hub = Hub::with(&["d"]);
    let with = |expires_ms| send(&d(), CommandRow { expires_ms, ..command("a") });
    for (given, kept) in [
        (START + 1, START + 1),
        (START + COMMAND_TTL_MS_MAX, START + COMMAND_TTL_MS_MAX),
        (START + COMMAND_TTL_MS_MAX + 1, START + COMMAND_TTL_MS_MAX),
        (u64::MAX, START + COMMAND_TTL_MS_MAX),
    ] {
        assert_eq!(hub.ok(with(given)).command.unwrap().expires_ms, kept);
    }
    for passed in [1, START] {
        hub.refused(with(passed), ErrorCode::ArgumentInvalid);
    }
}

/// To whom none is sent. "404001: the device either isn't registered or is disabled."
#[test]
fn who_takes_commands() {
    let mut hub = Hub::with(&["d"]);
    let m = DeviceKey::module("d", "m");
    hub.refused(send(&DeviceKey::device("x"), command("a")), ErrorCode::DeviceNotFound);
    hub.refused(send(&m, command("a")), ErrorCode::ModuleNotFound);
    hub.ok(put(m.clone(), Condition::absent()));
    hub.ok(send(&m, command("a")));
    assert_eq!(hub.query().command_count(&d()).unwrap(), 0, "a module's queue is its own");
    hub.ok(disable(d(), true));
    for key in [d(), m] {
        hub.refused(send(&key, command("a")), ErrorCode::DeviceNotFound);
    }
}

/// Fifty wait; one more is refused until one has ended, by expiry as well.
#[test]
fn full() {
    let mut hub = Hub::with(&["d"]);
    for n in 0..QUEUE_MAX {
        let expires_ms = START + if n == 7 { 10 } else { 1000 };
        hub.ok(send(&d(), CommandRow { expires_ms, ..command(&n.to_string()) }));
    }
    hub.refused(send(&d(), command("more")), ErrorCode::DeviceMaximumQueueDepthExceeded);
    assert_eq!(hub.query().command_count(&d()).unwrap(), QUEUE_MAX);
    hub.now += 10;
    hub.ok(send(&d(), command("more")));
    hub.refused(send(&d(), command("again")), ErrorCode::DeviceMaximumQueueDepthExceeded);
    assert_eq!(outcomes(&mut hub), [("7".to_owned(), Outcome::Expired)]);
}

/// "C2D message: 65 536 bytes", counted as body and values; one more is refused.
#[test]
fn size() {
    let mut hub = Hub::with(&["d"]);
    let with = |body: usize, value: usize| {
        let properties = vec![Property { name: "n".into(), value: "v".repeat(value) }];
        send(&d(), CommandRow { body: vec![0; body].into(), properties, ..CommandRow::default() })
    };
    hub.ok(send(&d(), CommandRow { body: vec![0; COMMAND_MAX].into(), ..CommandRow::default() }));
    hub.ok(with(COMMAND_MAX - 10, 9));
    hub.refused(with(COMMAND_MAX - 10, 10), ErrorCode::MessageTooLarge);
    let body = Bytes::from(vec![0; COMMAND_MAX + 1]);
    hub.refused(send(&d(), CommandRow { body, ..CommandRow::default() }), ErrorCode::MessageTooLarge);
    let properties = vec![Property::default(); 101];
    hub.refused(send(&d(), CommandRow { properties, ..CommandRow::default() }), ErrorCode::MessageTooLarge);
}

/// The oldest that nobody has, in order; nothing when all are had; each is one's own until the lock is over.
#[test]
fn locks() {
    let mut hub = Hub::with(&["d"]);
    let auth = hub.auth(&d());
    hub.refused(lock(&d(), auth + 1, "t"), ErrorCode::ServerBusy);
    hub.refused(lock(&d(), auth, ""), ErrorCode::ArgumentInvalid);
    assert_eq!(locked(&mut hub, "t0"), None);
    for text in ["a", "b"] {
        hub.ok(send(&d(), command(text)));
    }
    let first = locked(&mut hub, "t1").unwrap();
    assert_eq!((first.message_id.as_str(), first.lock_token.as_str()), ("a", "t1"));
    assert_eq!(first.locked_until_ms, START + 60_000);
    assert_eq!(locked(&mut hub, "t2").unwrap().message_id, "b");
    assert_eq!(locked(&mut hub, "t3"), None);
    assert_eq!(waiting(&hub), [""; 0]);
    assert_eq!(hub.query().command_count(&d()).unwrap(), 2);
    hub.now += 59_999;
    hub.ok(settle(&d(), auth, "t2", Settle::Complete));
    hub.now += 1;
    // The lock is over: its token is worth nothing, and the command is given again, under a new one.
    hub.refused(settle(&d(), auth, "t1", Settle::Complete), ErrorCode::DeviceMessageLockLost);
    let again = locked(&mut hub, "t4").unwrap();
    assert_eq!((again.message_id.as_str(), again.deliveries), ("a", 0), "a lost lock doesn't count");
    hub.refused(settle(&d(), auth, "t1", Settle::Complete), ErrorCode::DeviceMessageLockLost);
    hub.ok(settle(&d(), auth, "t4", Settle::Complete));
    hub.refused(settle(&d(), auth, "t4", Settle::Complete), ErrorCode::DeviceMessageLockLost);
    assert_eq!(outcomes(&mut hub), [("b".to_owned(), Outcome::Success), ("a".to_owned(), Outcome::Success)]);
}

/// Each way to end, by token and by session; then it is over.
#[test]
fn settled() {
    for by_session in [false, true] {
        for (how, outcome) in [(Settle::Complete, Outcome::Success), (Settle::Reject, Outcome::Rejected)] {
            let mut hub = Hub::with(&["d"]);
            let epoch = hub.open(&d(), place(1, 1)).session.epoch;
            let sequence = hub.ok(send(&d(), command("a"))).command.unwrap().sequence;
            let auth = hub.auth(&d());
            let op = match by_session {
                true => settle_in_session(&d(), epoch, sequence, how),
                false => {
                    locked(&mut hub, "t").unwrap();
                    // It is somebody else's now.
                    hub.refused(
                        settle_in_session(&d(), epoch, sequence, how),
                        ErrorCode::DeviceMessageLockLost,
                    );
                    settle(&d(), auth, "t", how)
                }
            };
            hub.ok(op.clone());
            hub.refused(op, ErrorCode::DeviceMessageLockLost);
            assert_eq!(outcomes(&mut hub), [("a".to_owned(), outcome)]);
            assert_eq!((waiting(&hub).len(), hub.query().command_count(&d()).unwrap()), (0, 0));
        }
    }
}

/// Who may not settle: a session that is over, a token with an old proof, a disabled device; another number
/// than those that exist.
#[test]
fn not_settled() {
    let mut hub = Hub::with(&["d"]);
    let epoch = hub.open(&d(), place(1, 1)).session.epoch;
    let sequence = hub.ok(send(&d(), command("a"))).command.unwrap().sequence;
    hub.refused(
        settle_in_session(&d(), epoch, sequence + 1, Settle::Complete),
        ErrorCode::DeviceMessageLockLost,
    );
    hub.refused(
        settle_in_session(&d(), epoch + 1, sequence, Settle::Complete),
        ErrorCode::DeviceConnectionClosedRemotely,
    );
    let unknown = SettleCommand { key: d(), epoch, sequence, settle: 9, ..SettleCommand::default() };
    hub.refused(Op::SettleCommand(unknown), ErrorCode::ArgumentInvalid);
    let auth = hub.auth(&d());
    locked(&mut hub, "t").unwrap();
    hub.refused(settle(&d(), auth - 1, "t", Settle::Complete), ErrorCode::ServerBusy);
    hub.refused(settle(&d(), auth, "u", Settle::Complete), ErrorCode::DeviceMessageLockLost);
    hub.ok(disable(d(), true));
    let now = hub.auth(&d());
    hub.refused(settle(&d(), now, "t", Settle::Complete), ErrorCode::DeviceDisabled);
    hub.refused(lock(&d(), now, "v"), ErrorCode::DeviceDisabled);
    hub.refused(
        settle_in_session(&d(), epoch, sequence, Settle::Complete),
        ErrorCode::DeviceConnectionClosedRemotely,
    );
    assert_eq!(hub.query().command_count(&d()).unwrap(), 1);
}

/// Given back it comes again, in its place and with its count; the tenth time ends it.
#[test]
fn abandoned() {
    let mut hub = Hub::with(&["d"]);
    let auth = hub.auth(&d());
    for text in ["a", "b"] {
        hub.ok(send(&d(), command(text)));
    }
    for count in 0..DELIVERIES_MAX {
        let row = locked(&mut hub, &format!("t{count}")).unwrap();
        assert_eq!((row.message_id.as_str(), row.deliveries), ("a", count));
        hub.ok(settle(&d(), auth, &format!("t{count}"), Settle::Abandon));
        hub.refused(
            settle(&d(), auth, &format!("t{count}"), Settle::Complete),
            ErrorCode::DeviceMessageLockLost,
        );
    }
    assert_eq!(outcomes(&mut hub), [("a".to_owned(), Outcome::DeliveryCountExceeded)]);
    assert_eq!(locked(&mut hub, "t").unwrap().message_id, "b");
}

/// Too old: it is neither listed nor locked, and ends when somebody looks. Under a lock that holds, it is its
/// holder's to end.
#[test]
fn expired() {
    let mut hub = Hub::with(&["d"]);
    let auth = hub.auth(&d());
    for (text, expires_ms) in [("a", START + 10), ("b", START + 20), ("c", START + 30)] {
        hub.ok(send(&d(), CommandRow { expires_ms, ..command(text) }));
    }
    hub.now = START + 5;
    assert_eq!(locked(&mut hub, "t").unwrap().message_id, "a");
    hub.now = START + 19;
    hub.ok(expire(&d()));
    assert_eq!(outcomes(&mut hub), []);
    assert_eq!(hub.query().queues(b"", 9).unwrap().rows, [(d(), START + 10)]);
    hub.now = START + 20;
    assert_eq!(waiting(&hub), ["c"], "b is too old though nobody has ended it");
    hub.ok(expire(&d()));
    assert_eq!(outcomes(&mut hub), [("b".to_owned(), Outcome::Expired)]);
    hub.ok(settle(&d(), auth, "t", Settle::Complete));
    assert_eq!(outcomes(&mut hub), [("a".to_owned(), Outcome::Success)]);
    assert_eq!(hub.query().queues(b"", 9).unwrap().rows, [(d(), START + 30)]);
    hub.now = START + 30;
    assert_eq!(locked(&mut hub, "u"), None, "a lock ends what is too old");
    assert_eq!(outcomes(&mut hub), [("c".to_owned(), Outcome::Expired)]);
    hub.ok(Op::ExpireCommands(ExpireCommands { keys: vec![d(), DeviceKey::device("x")] }));
}

/// A lock that runs out behind the expiry frees nothing: the command ends.
#[test]
fn expired_under_a_lost_lock() {
    let mut hub = Hub::with(&["d"]);
    hub.ok(send(&d(), CommandRow { expires_ms: START + 10, ..command("a") }));
    locked(&mut hub, "t").unwrap();
    hub.now += 60_000;
    let auth = hub.auth(&d());
    hub.refused(settle(&d(), auth, "t", Settle::Complete), ErrorCode::DeviceMessageLockLost);
    hub.ok(expire(&d()));
    assert_eq!(outcomes(&mut hub), [("a".to_owned(), Outcome::Expired)]);
}

/// A purge ends all, locked ones too, and says how many.
#[test]
fn purged() {
    let mut hub = Hub::with(&["d"]);
    let purge = |key| Op::PurgeCommands(PurgeCommands { key });
    hub.refused(purge(DeviceKey::device("x")), ErrorCode::DeviceNotFound);
    assert_eq!(hub.ok(purge(d())).number, 0);
    for text in ["a", "b", "c"] {
        hub.ok(send(&d(), command(text)));
    }
    locked(&mut hub, "t").unwrap();
    assert_eq!(hub.ok(purge(d())).number, 3);
    let auth = hub.auth(&d());
    hub.refused(settle(&d(), auth, "t", Settle::Complete), ErrorCode::DeviceMessageLockLost);
    let ended: Vec<_> = outcomes(&mut hub).into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(ended, [Outcome::Purged; 3]);
}

/// Who is connected is woken by a command and by one that is given back.
#[test]
fn wakes() {
    let mut hub = Hub::with(&["d"]);
    hub.ok(send(&d(), command("a")));
    assert_eq!(hub.effects, []);
    let epoch = hub.open(&d(), place(1, 2)).session.epoch;
    let wake = [Effect::Wake { place: place(1, 2), key: d(), epoch, wake: Wake::Commands }];
    let sequence = hub.ok(send(&d(), command("b"))).command.unwrap().sequence;
    assert_eq!(hub.effects, wake);
    hub.ok(settle_in_session(&d(), epoch, sequence, Settle::Abandon));
    assert_eq!(hub.effects, wake);
    hub.ok(settle_in_session(&d(), epoch, sequence, Settle::Complete));
    assert_eq!(hub.effects, []);
}

/// Commands behind a number, at most so many.
#[test]
fn listed() {
    let mut hub = Hub::with(&["d", "dd"]);
    hub.ok(put(DeviceKey::module("d", "m"), Condition::absent()));
    for key in [DeviceKey::module("d", "m"), DeviceKey::device("dd")] {
        hub.ok(send(&key, command("other")));
    }
    let sequences: Vec<u64> =
        (0..4).map(|n| hub.ok(send(&d(), command(&n.to_string()))).command.unwrap().sequence).collect();
    let list = |after, limit| -> Vec<u64> {
        let rows = hub.query().commands(&d(), after, hub.now, limit).unwrap();
        rows.into_iter().map(|row| row.sequence).collect()
    };
    assert_eq!(list(0, 9), sequences);
    assert_eq!(list(sequences[1], 9), sequences[2..]);
    assert_eq!(list(sequences[0] - 1, 2), sequences[..2]);
    assert_eq!(list(u64::MAX, 9), [0; 0]);
}
