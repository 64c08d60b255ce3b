//! A partition's devices, one entry a round, and short names for what scripts say often.

use std::sync::Arc;

use bytes::Bytes;
use fleetline_devices::*;
use fleetline_iothub::errors::ErrorCode;
use fleetline_state::memory::MemState;
use fleetline_state::{KeyKind, RowKey, StateBatch, StateStore};
use fleetline_types::{LogId, PartitionId};
use prost::Message;
use serde_json::Value;

pub(crate) const PARTITION: PartitionId = PartitionId(3);
/// When every script begins.
pub(crate) const START: u64 = 1_700_000_000_000;

/// A partition's devices.
pub(crate) struct Hub {
    pub(crate) store: MemState,
    pub(crate) state: DeviceState,
    pub(crate) now: u64,
    pub(crate) index: u64,
    /// Of the last entry.
    pub(crate) effects: Vec<Effect>,
}

impl Hub {
    pub(crate) fn new() -> Hub {
        let store = MemState::new();
        let state = load(&store);
        Hub { store, state, now: START, index: 0, effects: Vec::new() }
    }

    /// A hub with these devices, which have keys.
    pub(crate) fn with(devices: &[&str]) -> Hub {
        let mut hub = Hub::new();
        for device in devices {
            hub.ok(put(DeviceKey::device(*device), Condition::absent()));
        }
        hub
    }

    /// Applies one entry in a round of its own.
    pub(crate) fn apply(&mut self, op: Op) -> DeviceReply {
        let before = self.store.rows();
        self.index += 1;
        let mut out = StateBatch::default();
        let command = DeviceCommand { now_ms: self.now, op: Some(op) };
        let (head, body) = command.encode_entry();
        let decoded = DeviceCommand::decode_entry(&head, &body).unwrap();
        let reply = self.state.apply(LogId::new(1, self.index), &decoded, &mut out).unwrap();
        self.end_round(out);
        if reply.error.is_some() {
            assert_eq!(self.store.rows(), before, "a refusal changed rows: {command:?}");
            assert_eq!(self.effects, [], "a refusal had effects: {command:?}");
        }
        reply
    }

    pub(crate) fn end_round(&mut self, mut out: StateBatch) {
        self.state.end_of_round(&mut out);
        self.store.write(out).unwrap();
        self.effects = self.state.published();
        check_head(&self.store);
        assert_eq!(self.query().head().unwrap(), self.state.head());
    }

    /// Applies what must be accepted.
    pub(crate) fn ok(&mut self, op: Op) -> DeviceReply {
        let reply = self.apply(op.clone());
        assert_eq!(reply.error, None, "{op:?}");
        reply
    }

    /// Applies what must be refused with `code`.
    pub(crate) fn refused(&mut self, op: Op, code: ErrorCode) -> String {
        let reply = self.apply(op.clone());
        let error = reply.error.clone().unwrap_or_else(|| panic!("accepted: {op:?}"));
        assert_eq!(ErrorCode::from_number(error.code), Some(code), "{op:?}: {}", error.text);
        assert_eq!(
            DeviceReply { error: None, ..reply },
            DeviceReply::default(),
            "a refusal says nothing else"
        );
        error.text
    }

    pub(crate) fn query(&self) -> DeviceQuery<'_> {
        DeviceQuery::new(&self.store, PARTITION)
    }

    pub(crate) fn device(&self, key: &DeviceKey) -> DeviceRow {
        self.query().device(key).unwrap().unwrap()
    }

    pub(crate) fn auth(&self, key: &DeviceKey) -> u64 {
        self.query().auth_version(&self.device(key)).unwrap()
    }

    /// Opens a session with the credentials as they are.
    pub(crate) fn open(&mut self, key: &DeviceKey, place: ConnectionPlace) -> SessionOpened {
        let auth_version = self.auth(key);
        self.ok(open(key, auth_version, place)).opened.unwrap()
    }

    /// The events of the outbox since the last call, which become records.
    pub(crate) fn events(&mut self) -> Vec<EventRow> {
        let (first, events) = self.query().outbox(usize::MAX).unwrap();
        let mut out = StateBatch::default();
        self.state.outbox_appended(first, events.len() as u64, &mut out).unwrap();
        self.end_round(out);
        events
    }

    /// What the events are, shortly: `opType device[/module]`, or the message source.
    pub(crate) fn event_names(&mut self) -> Vec<String> {
        self.events().iter().map(event_name).collect()
    }
}

pub(crate) fn load(store: &MemState) -> DeviceState {
    DeviceState::load(Arc::new(store.clone()), PARTITION).unwrap()
}

pub(crate) fn property<'a>(event: &'a EventRow, name: &str) -> Option<&'a str> {
    event.properties.iter().find(|property| property.name == name).map(|property| property.value.as_str())
}

pub(crate) fn event_name(event: &EventRow) -> String {
    let what = property(event, "opType").or(property(event, "iothub-MessageType")).unwrap_or("telemetry");
    match property(event, "moduleId") {
        Some(module) => format!("{what} {}/{module}", event.device),
        None => format!("{what} {}", event.device),
    }
}

pub(crate) fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

fn rows<M: Message + Default>(rows: &[(RowKey, Bytes)], kind: KeyKind) -> Vec<(Bytes, M)> {
    let of_kind = rows.iter().filter(|(row, _)| row.kind == kind);
    of_kind.map(|(row, value)| (row.key.clone(), M::decode(value.as_ref()).unwrap())).collect()
}

/// Counts anew what the head and the queues count.
pub(crate) fn check_head(store: &MemState) {
    let all = store.rows();
    let head = rows::<DeviceHead>(&all, KeyKind::DeviceHead).pop().map(|(_, head)| head).unwrap_or_default();
    let devices = rows::<DeviceRow>(&all, KeyKind::Device);
    let devices: Vec<_> = devices.iter().filter(|(_, row)| !row.key.is_module()).collect();
    assert_eq!(head.devices, devices.len() as u64);
    assert_eq!(head.disabled, devices.iter().filter(|(_, row)| row.spec.disabled).count() as u64);
    let sessions = rows::<SessionRow>(&all, KeyKind::Session);
    let connected = sessions.iter().filter(|(key, row)| row.connected && !key.contains(&0));
    assert_eq!(head.connected, connected.count() as u64);
    let fences = rows::<FenceRow>(&all, KeyKind::FenceLog);
    match (fences.first(), fences.last()) {
        (Some((_, first)), Some((_, last))) => {
            assert_eq!((head.fence_oldest, head.fence), (first.number, last.number));
            assert_eq!(fences.len() as u32, head.fence - head.fence_oldest + 1);
        }
        _ => assert_eq!((head.fence_oldest, head.fence), (0, 0)),
    }
    let outbox: Vec<u64> = rows::<EventRow>(&all, KeyKind::Outbox)
        .iter()
        .map(|(key, _)| u64::from_be_bytes(key.as_ref().try_into().unwrap()))
        .collect();
    assert_eq!(outbox, (head.outbox_done..head.outbox_next).collect::<Vec<_>>());
    assert_eq!(head.documents, rows::<DocumentRow>(&all, KeyKind::Document).len() as u64);
    assert_eq!(head.feedback, rows::<FeedbackRow>(&all, KeyKind::Feedback).len() as u64);
    check_queues(&all);
}

fn check_queues(all: &[(RowKey, Bytes)]) {
    let queues = rows::<QueueRow>(all, KeyKind::CommandQueue);
    let commands = rows::<CommandRow>(all, KeyKind::Command);
    let mut counted = 0;
    for (key, queue) in queues {
        let text = String::from_utf8(key.to_vec()).unwrap();
        let key = match text.split_once('\0') {
            Some((device, module)) => DeviceKey::module(device, module),
            None => DeviceKey::device(text),
        };
        let prefix = key.numbered_prefix();
        let own: Vec<_> = commands.iter().filter(|(key, _)| key.starts_with(&prefix)).collect();
        assert_eq!(queue.count, own.len() as u32, "{}", key.text());
        assert_eq!(Some(queue.next_expiry_ms), own.iter().map(|(_, row)| row.expires_ms).min());
        counted += own.len();
    }
    assert_eq!(counted, commands.len(), "commands of no queue");
}

pub(crate) fn place(node: u64, connection: u64) -> ConnectionPlace {
    ConnectionPlace { node, incarnation: 1, connection }
}

pub(crate) fn auth(primary: &str, secondary: &str) -> AuthRow {
    AuthRow { primary_key: primary.into(), secondary_key: secondary.into(), ..AuthRow::default() }
}

pub(crate) fn put_spec(key: DeviceKey, spec: DeviceSpec, condition: Condition) -> Op {
    Op::PutDevice(PutDevice {
        key,
        spec,
        condition,
        new_primary_key: "ZHJhd24=".into(),
        new_secondary_key: "ZHJhd24y".into(),
        ..PutDevice::default()
    })
}

pub(crate) fn put(key: DeviceKey, condition: Condition) -> Op {
    put_spec(key, DeviceSpec::default(), condition)
}

pub(crate) fn disable(key: DeviceKey, disabled: bool) -> Op {
    put_spec(key, DeviceSpec { disabled, ..DeviceSpec::default() }, Condition::any())
}

pub(crate) fn delete(key: DeviceKey, condition: Condition) -> Op {
    Op::DeleteDevice(DeleteDevice { key, condition })
}

pub(crate) fn open(key: &DeviceKey, auth_version: u64, place: ConnectionPlace) -> Op {
    Op::OpenSession(OpenSession { key: key.clone(), auth_version, place, ..OpenSession::default() })
}

pub(crate) fn close(key: &DeviceKey, epoch: u64, graceful: bool) -> Op {
    Op::CloseSession(CloseSession { key: key.clone(), epoch, graceful })
}

pub(crate) fn desired(key: &DeviceKey, patch: &str, condition: Condition) -> Op {
    let desired = Bytes::copy_from_slice(patch.as_bytes());
    Op::PatchTwin(PatchTwin { key: key.clone(), desired, condition, ..PatchTwin::default() })
}

pub(crate) fn reported(key: &DeviceKey, epoch: u64, patch: &str, if_version: u64) -> Op {
    let patch = Bytes::copy_from_slice(patch.as_bytes());
    Op::PatchReported(PatchReported { key: key.clone(), epoch, patch, if_version })
}

pub(crate) fn send(key: &DeviceKey, command: CommandRow) -> Op {
    Op::SendCommand(SendCommand { key: key.clone(), command })
}

/// A command with this text as body and message id, and all feedback.
pub(crate) fn command(text: &str) -> CommandRow {
    let body = Bytes::copy_from_slice(text.as_bytes());
    CommandRow { body, message_id: text.into(), ack: AckMode::Full as i32, ..CommandRow::default() }
}

pub(crate) fn lock(key: &DeviceKey, auth_version: u64, token: &str) -> Op {
    Op::LockCommand(LockCommand { key: key.clone(), auth_version, token: token.into(), lock_ms: 60_000 })
}

pub(crate) fn settle(key: &DeviceKey, auth_version: u64, token: &str, settle: Settle) -> Op {
    let settle = settle as i32;
    let (key, token) = (key.clone(), token.into());
    Op::SettleCommand(SettleCommand { key, token, settle, auth_version, ..SettleCommand::default() })
}

pub(crate) fn settle_in_session(key: &DeviceKey, epoch: u64, sequence: u64, settle: Settle) -> Op {
    let settle = settle as i32;
    Op::SettleCommand(SettleCommand { key: key.clone(), epoch, sequence, settle, ..SettleCommand::default() })
}

pub(crate) fn expire(key: &DeviceKey) -> Op {
    Op::ExpireCommands(ExpireCommands { keys: vec![key.clone()] })
}
