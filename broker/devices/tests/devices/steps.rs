//! Random commands that mean something: a step is a few numbers, which become a command by what is there.

use bytes::Bytes;
use fleetline_devices::*;
use fleetline_state::KeyKind;
use fleetline_twins::Section;
use proptest::prelude::*;
use prost::Message;

use crate::kit::*;

/// What to do, to whom, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) what: What,
    pub(crate) who: usize,
    pub(crate) a: u8,
    pub(crate) b: u8,
    /// What the clock does before; another leader's may be behind.
    pub(crate) clock: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Put,
    Delete,
    PatchTwin,
    PatchReported,
    Open,
    Close,
    Subscribe,
    Send,
    Lock,
    Settle,
    SettleInSession,
    Purge,
    Expire,
    LockFeedback,
    SettleFeedback,
    BeginUpload,
    FinishUpload,
    PutDocument,
    Emit,
    Bulk,
}

use What::*;

/// Most of these are often refused when they are rare.
const WEIGHTED: [What; 50] = [
    PutDocument,
    PutDocument,
    Emit,
    Put,
    Put,
    Put,
    Put,
    Delete,
    PatchTwin,
    PatchTwin,
    PatchTwin,
    PatchReported,
    PatchReported,
    PatchReported,
    Open,
    Open,
    Open,
    Open,
    Open,
    Close,
    Close,
    Subscribe,
    Subscribe,
    Send,
    Send,
    Send,
    Send,
    Send,
    Send,
    Lock,
    Lock,
    Lock,
    Settle,
    Settle,
    Settle,
    Settle,
    Settle,
    SettleInSession,
    SettleInSession,
    SettleInSession,
    Purge,
    Expire,
    LockFeedback,
    LockFeedback,
    SettleFeedback,
    SettleFeedback,
    BeginUpload,
    BeginUpload,
    FinishUpload,
    FinishUpload,
];

/// Steps but no [`Bulk`].
pub(crate) fn single() -> impl Strategy<Value = Step> {
    let clock = prop_oneof![
        30 => Just(0), 30 => 1i64..50, 2 => Just(60_000), 1 => 1_000_000i64..4_000_000, 2 => -5000i64..0
    ];
    (prop::sample::select(&WEIGHTED[..]), 0usize..8, any::<u8>(), any::<u8>(), clock)
        .prop_map(|(what, who, a, b, clock)| Step { what, who, a, b, clock })
}

/// Steps that begin with making all that they are about.
pub(crate) fn furnished(step: impl Strategy<Value = Step>, most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step, 1..most).prop_map(|steps| {
        let step = |what, who| Step { what, who, a: 32, b: 96, clock: 0 };
        let made =
            [0, 4, 5, 7].map(|who| [step(Put, who), step(Open, who), step(Send, who), step(Lock, who)]);
        made.into_iter().flatten().chain(steps).collect()
    })
}

/// Any step.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let bulk = (0usize..8, any::<u8>(), any::<u8>()).prop_map(|(who, a, b)| Step {
        what: Bulk,
        who,
        a,
        b,
        clock: 1,
    });
    prop_oneof![30 => single(), 2 => bulk]
}

pub(crate) fn who(number: usize) -> DeviceKey {
    match number {
        0..4 => DeviceKey::device("d0"),
        4 => DeviceKey::device("d1"),
        5 | 6 => DeviceKey::module("d0", "m"),
        _ => DeviceKey::module("d1", "m"),
    }
}

/// The command of a step, for the hub as it is. Moves its clock.
pub(crate) fn resolve(hub: &mut Hub, step: &Step) -> Op {
    hub.now = hub.now.saturating_add_signed(step.clock);
    let Step { a, b, .. } = *step;
    let key = who(step.who);
    match step.what {
        Put => put_op(hub, key, a, b),
        Delete => delete(
            key.clone(),
            condition(a | b & 4, hub.query().device(&key).unwrap().map_or(7, |row| row.etag)),
        ),
        PatchTwin => patch_op(hub, key, a, b),
        PatchReported => {
            let version = hub
                .query()
                .twin(&key)
                .unwrap()
                .map_or(1, |row| Section::decode(&row.reported).unwrap().version);
            reported(
                &key,
                epoch(hub, &key, a),
                document(b),
                [0, version, version + 1][usize::from(a / 4 % 3)],
            )
        }
        Open => open_op(hub, key, a, b),
        Close => close(&key, epoch(hub, &key, a), b & 1 == 0),
        Subscribe => {
            let add = vec![SubscriptionRow { filter: format!("f{}", b % 5), qos: u32::from(b & 1) }];
            let remove = vec![format!("f{}", b / 5 % 5)];
            Op::Subscribe(fleetline_devices::Subscribe { epoch: epoch(hub, &key, a), key, add, remove })
        }
        Send => {
            let text = hub.index.to_string();
            let expires_ms =
                [0, 0, hub.now + 900, hub.now + 90_000, hub.now.saturating_sub(1)][usize::from(b % 9 % 5)];
            send(&key, CommandRow { ack: i32::from(a % 5), expires_ms, ..command(&text) })
        }
        Lock => {
            let token = if a == 0 { String::new() } else { format!("t{}", hub.index) };
            lock(&key, auth_version(hub, &key, b), &token)
        }
        Settle => settle(&key, auth_version(hub, &key, b), &token(hub, &key, a), how(a)),
        SettleInSession => {
            let all = all_commands(hub, &key);
            let sequence = all.get(usize::from(a) % 4).map_or(u64::from(a), |row| row.sequence);
            settle_in_session(&key, epoch(hub, &key, b), sequence, how(a / 4))
        }
        Purge => Op::PurgeCommands(PurgeCommands { key }),
        Expire => Op::ExpireCommands(ExpireCommands { keys: (3..8).map(who).collect() }),
        LockFeedback => Op::LockFeedback(fleetline_devices::LockFeedback {
            token: format!("f{}", hub.index),
            lock_ms: 100 * u64::from(a),
        }),
        SettleFeedback => {
            let rows = rows::<FeedbackRow>(hub, KeyKind::Feedback, b"");
            let tokens: Vec<_> = rows.iter().filter(|row| !row.lock_token.is_empty()).collect();
            let token = tokens.get(usize::from(b % 3)).map_or(String::new(), |row| row.lock_token.clone());
            Op::SettleFeedback(fleetline_devices::SettleFeedback { token, settle: how(a) as i32 })
        }
        BeginUpload => {
            let upload = UploadRow {
                correlation_id: (a % 3).to_string(),
                expires_ms: hub.now + 50 * u64::from(b),
                ..UploadRow::default()
            };
            let auth_version = auth_version(hub, &key, b);
            Op::BeginUpload(fleetline_devices::BeginUpload { key, auth_version, upload })
        }
        FinishUpload => {
            let event = EventRow {
                device: key.device.clone(),
                body: vec![0; usize::from(b & 1)].into(),
                ..EventRow::default()
            };
            let (auth_version, correlation_id) = (auth_version(hub, &key, b), (a % 3).to_string());
            Op::FinishUpload(fleetline_devices::FinishUpload { key, auth_version, correlation_id, event })
        }
        PutDocument => {
            let name = format!("t/{}", a % 3);
            let version = hub.query().document(&name).unwrap().map_or(0, |row| row.version);
            let condition = condition(b, version);
            let (value, delete) = (vec![a; usize::from(b % 7)].into(), b & 3 == 3);
            Op::PutDocument(fleetline_devices::PutDocument { name, value, condition, delete })
        }
        Emit => {
            let event = EventRow { device: key.device, body: vec![a].into(), ..EventRow::default() };
            Op::Emit(fleetline_devices::Emit { event })
        }
        Bulk => {
            let items = WEIGHTED.iter().cycle().skip(usize::from(a)).step_by(7).take(1 + usize::from(b % 6));
            let ops = items.enumerate().map(|(n, what)| {
                let step =
                    Step { what: *what, who: (step.who + n) % 8, a: a.rotate_left(n as u32), b, clock: 0 };
                BulkItem { op: Some(resolve(hub, &step)) }
            });
            Op::Bulk(fleetline_devices::Bulk { ops: ops.collect() })
        }
    }
}

fn put_op(hub: &Hub, key: DeviceKey, a: u8, b: u8) -> Op {
    let old = hub.query().device(&key).unwrap();
    let keys = match b / 16 {
        0 => auth("", ""),
        1 => auth("a2V5MQ==", ""),
        2 => auth("", "a2V5Mg=="),
        3 => AuthRow {
            kind: AuthKind::SelfSigned as i32,
            primary_thumbprint: "AB".into(),
            ..AuthRow::default()
        },
        _ => old.as_ref().map(|row| row.spec.auth.clone()).unwrap_or_default(),
    };
    let spec = DeviceSpec { disabled: b % 16 == 1, edge: b % 16 == 2, auth: keys, ..DeviceSpec::default() };
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    let condition = match (&old, a % 8) {
        (None, 0..5) => Condition::absent(),
        _ => condition(a, old.map_or(7, |row| row.etag)),
    };
    Op::PutDevice(PutDevice {
        key,
        spec,
        condition,
        new_primary_key: "ZHJhd24=".into(),
        new_secondary_key: "ZHJhd24y".into(),
        tags: text(["", "{}", r#"{"t":1}"#, "1"][usize::from(b / 64)]),
        desired: text(["", r#"{"x":{"y":1}}"#, "{}", "{"][usize::from(a / 64)]),
    })
}

fn patch_op(hub: &Hub, key: DeviceKey, a: u8, b: u8) -> Op {
    let current = hub.query().twin(&key).unwrap().map_or(7, |row| row.version);
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let [tags, desired] = [b, b / 16].map(|number| if number % 3 == 0 { "" } else { document(number) });
    let (tags, desired, replace) = (text(tags), text(desired), a & 64 != 0);
    Op::PatchTwin(fleetline_devices::PatchTwin {
        key,
        tags,
        desired,
        replace,
        condition: condition(a, current),
    })
}

fn open_op(hub: &Hub, key: DeviceKey, a: u8, b: u8) -> Op {
    let will = (a & 2 == 0).then(|| WillRow { bag: "p=1".into(), body: Bytes::from_static(b"will") });
    Op::OpenSession(OpenSession {
        auth_version: auth_version(hub, &key, b),
        key,
        place: place(1 + u64::from(b % 3), hub.index),
        clean: a & 1 == 0,
        will,
        model_id: if a & 8 == 0 { String::new() } else { format!("m{}", b % 2) },
        fresh: a & 4 == 0,
    })
}

fn condition(a: u8, current: u64) -> Condition {
    match a % 8 {
        0 | 1 => Condition::any(),
        2..5 => Condition::tag(current),
        5 => Condition::tag(current.saturating_sub(1)),
        6 => Condition::upsert(),
        _ => Condition::absent(),
    }
}

/// Documents that meet each other, one of them wrong.
pub(crate) fn document(number: u8) -> &'static str {
    let table = [
        "{}",
        r#"{"x":1}"#,
        r#"{"x":{"y":1,"z":2}}"#,
        r#"{"x":{"y":null}}"#,
        r#"{"x":null}"#,
        r#"{"w":[1,{"x":2}]}"#,
        r#"{"w":{"x":{"y":"text"}}}"#,
        "[]",
    ];
    table[usize::from(number) % table.len()]
}

fn how(a: u8) -> fleetline_devices::Settle {
    use fleetline_devices::Settle::*;
    [Complete, Reject, Abandon, Abandon][usize::from(a % 4)]
}

/// The session's epoch, seldom another one.
fn epoch(hub: &Hub, key: &DeviceKey, a: u8) -> u64 {
    let epoch = hub.query().session(key).unwrap().map_or(1, |row| row.epoch);
    if a % 8 == 7 { epoch.saturating_sub(256) } else { epoch }
}

fn auth_version(hub: &Hub, key: &DeviceKey, b: u8) -> u64 {
    let current = hub.query().device(key).unwrap().map_or(1, |row| hub.query().auth_version(&row).unwrap());
    if b % 16 == 15 { current - 1 } else { current }
}

fn token(hub: &Hub, key: &DeviceKey, a: u8) -> String {
    let all = all_commands(hub, key);
    let locked: Vec<_> = all.iter().filter(|row| !row.lock_token.is_empty()).collect();
    match locked.get(usize::from(a / 4 % 3)) {
        Some(row) => row.lock_token.clone(),
        None => "none".to_owned(),
    }
}

pub(crate) fn all_commands(hub: &Hub, key: &DeviceKey) -> Vec<CommandRow> {
    rows(hub, KeyKind::Command, &key.numbered_prefix())
}

/// The rows of a kind whose keys begin so.
pub(crate) fn rows<M: Message + Default>(hub: &Hub, kind: KeyKind, prefix: &[u8]) -> Vec<M> {
    let rows = hub.store.rows();
    let own = rows.iter().filter(|(row, _)| row.kind == kind && row.key.starts_with(prefix));
    own.map(|(_, value)| M::decode(value.as_ref()).unwrap()).collect()
}

/// Each kind of step is accepted often enough, and refused, to show something.
#[test]
fn steps_are_accepted_and_refused() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut counts = std::collections::BTreeMap::<String, [u32; 2]>::new();
    for _ in 0..300 {
        let mut hub = Hub::new();
        for step in furnished(step(), 100).new_tree(&mut runner).unwrap().current() {
            let op = resolve(&mut hub, &step);
            let refused = hub.apply(op).error.is_some();
            counts.entry(format!("{:?}", step.what)).or_default()[usize::from(refused)] += 1;
        }
    }
    for (what, [accepted, refused]) in &counts {
        let never_refused = ["Bulk", "Emit", "Expire", "LockFeedback"].contains(&what.as_str());
        assert!(*accepted > 10 && (*refused > 5 || never_refused), "{what}: {counts:?}");
    }
    assert_eq!(counts.len(), 20, "{counts:?}");
}
