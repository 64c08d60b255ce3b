//! Identities, twins, sessions and commands against plain maps written from the specification: every reply is
//! predicted, and each command is in exactly one place: waiting, or ended with one outcome.

use std::collections::BTreeMap;

use fleetline_devices::*;
use fleetline_iothub::errors::ErrorCode;
use fleetline_state::KeyKind;
use fleetline_twins::Section;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::kit::*;
use crate::steps::{furnished, resolve, rows, single};

type Refused<T> = Result<T, ErrorCode>;

/// What a reply says, as far as it is predicted.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said {
    etag: Option<(u64, bool)>,
    twin: Option<(u64, Value, Value)>,
    number: u64,
    opened: Option<(u64, bool, Vec<String>)>,
    command: Option<(String, u32)>,
}

#[derive(Clone, Debug)]
struct Waiting {
    id: String,
    sequence: u64,
    expires: u64,
    ack: i32,
    count: u32,
    lock: Option<(String, u64)>,
}

impl Waiting {
    fn is_locked(&self, now: u64) -> bool {
        self.lock.as_ref().is_some_and(|(_, until)| *until > now)
    }
}

#[derive(Clone, Debug, Default)]
struct Identity {
    etag: u64,
    disabled: bool,
    /// Kind, keys, thumbprint.
    proof: (i32, String, String, String),
    auth: u64,
    version: u64,
    tags: Value,
    desired: (u64, Value),
    reported: (u64, Value),
    /// Epoch, connected, clean, subscriptions.
    session: Option<(u64, bool, bool, Vec<String>)>,
    queue: Vec<Waiting>,
}

#[derive(Default)]
struct Model {
    identities: BTreeMap<DeviceKey, Identity>,
    /// Message id to outcomes of everything that ended and was to be heard of.
    ended: Vec<(DeviceKey, String, Outcome)>,
    now: u64,
    at: u64,
}

/// A change of a document: what its text says, written anew.
fn changed(document: &Value, change: &Value, replace: bool) -> Value {
    fn merge(into: &mut Map<String, Value>, change: &Map<String, Value>) {
        for (name, value) in change {
            match value {
                Value::Null => drop(into.remove(name)),
                Value::Object(below) => {
                    let old = into.entry(name.clone()).or_insert_with(|| json!({}));
                    if !old.is_object() {
                        *old = json!({});
                    }
                    merge(old.as_object_mut().unwrap(), below);
                }
                other => drop(into.insert(name.clone(), other.clone())),
            }
        }
    }
    let mut document = if replace { json!({}) } else { document.clone() };
    merge(document.as_object_mut().unwrap(), change.as_object().unwrap());
    document
}

fn parsed(text: &[u8]) -> Refused<Option<Value>> {
    if text.is_empty() {
        return Ok(None);
    }
    match serde_json::from_slice::<Value>(text) {
        Ok(value) if value.is_object() => Ok(Some(value)),
        _ => Err(ErrorCode::IotHubFormatError),
    }
}

impl Model {
    fn existing(&mut self, key: &DeviceKey) -> Refused<&mut Identity> {
        let missing = if key.is_module() { ErrorCode::ModuleNotFound } else { ErrorCode::DeviceNotFound };
        self.identities.get_mut(key).ok_or(missing)
    }

    fn entitled(&mut self, key: &DeviceKey, auth: u64) -> Refused<()> {
        let own = self.existing(key)?.clone();
        let device = self.existing(&DeviceKey::device(&key.device))?;
        if own.disabled || device.disabled {
            return Err(ErrorCode::DeviceDisabled);
        }
        if own.auth.max(device.auth) == auth { Ok(()) } else { Err(ErrorCode::ServerBusy) }
    }

    fn live(&mut self, key: &DeviceKey, epoch: u64) -> Refused<&mut Identity> {
        let found = self.identities.get_mut(key);
        let live = |identity: &&mut Identity| matches!(&identity.session, Some((e, true, ..)) if *e == epoch);
        found.filter(live).ok_or(ErrorCode::DeviceConnectionClosedRemotely)
    }

    fn tag(condition: &Condition, current: u64) -> Refused<()> {
        match condition.kind {
            Condition::ANY | Condition::UPSERT => Ok(()),
            Condition::TAG if condition.tag == current => Ok(()),
            Condition::TAG => Err(ErrorCode::PreconditionFailed),
            _ => Err(ErrorCode::ArgumentInvalid),
        }
    }

    fn end_sessions(&mut self, key: &DeviceKey) {
        for (other, identity) in &mut self.identities {
            let hit = other == key || !key.is_module() && other.device == key.device;
            if let Some((epoch, connected @ true, clean, subscriptions)) =
                identity.session.as_mut().filter(|_| hit)
            {
                (*epoch, *connected) = (self.at, false);
                if *clean {
                    subscriptions.clear();
                }
            }
        }
    }

    fn put(&mut self, put: &PutDevice) -> Refused<Said> {
        let key = &put.key;
        let given = &put.spec.auth;
        let proof = |old: Option<&Identity>| {
            if given.kind != 0 {
                return (given.kind, String::new(), String::new(), given.primary_thumbprint.clone());
            }
            let old = old.filter(|old| old.proof.0 == 0).map(|old| &old.proof);
            let key = |given: &String, old: Option<&String>, drawn: &String| {
                if given.is_empty() { old.unwrap_or(drawn).clone() } else { given.clone() }
            };
            let primary = key(&given.primary_key, old.map(|old| &old.1), &put.new_primary_key);
            let secondary = key(&given.secondary_key, old.map(|old| &old.2), &put.new_secondary_key);
            (0, primary, secondary, String::new())
        };
        if let Some(old) = self.identities.get(key).cloned() {
            if put.condition.kind == Condition::ABSENT {
                let module = ErrorCode::ModuleAlreadyExistsOnDevice;
                return Err(if key.is_module() { module } else { ErrorCode::DeviceAlreadyExists });
            }
            Self::tag(&put.condition, old.etag)?;
            let (now, status) = (proof(Some(&old)), old.disabled != put.spec.disabled);
            let changes = status || now != old.proof;
            let auth = if changes { self.at } else { old.auth };
            let fenced = (status && put.spec.disabled) || now != old.proof;
            let identity =
                Identity { etag: old.etag + 1, disabled: put.spec.disabled, proof: now, auth, ..old.clone() };
            self.identities.insert(key.clone(), identity);
            if fenced {
                self.end_sessions(key);
            }
            return Ok(Said { etag: Some((old.etag + 1, false)), ..Said::default() });
        }
        let missing = if key.is_module() { ErrorCode::ModuleNotFound } else { ErrorCode::DeviceNotFound };
        if !matches!(put.condition.kind, Condition::ABSENT | Condition::UPSERT) {
            return Err(missing);
        }
        if key.is_module() {
            self.existing(&DeviceKey::device(&key.device))?;
        }
        let tags = parsed(&put.tags)?.map_or(json!({}), |tags| changed(&json!({}), &tags, true));
        let desired = parsed(&put.desired)?;
        let desired = desired.map_or((1, json!({})), |desired| (2, changed(&json!({}), &desired, true)));
        let reported = (1, json!({}));
        let (disabled, auth, proof) = (put.spec.disabled, self.at, proof(None));
        let identity = Identity {
            etag: 1,
            disabled,
            proof,
            auth,
            version: 1,
            tags,
            desired,
            reported,
            ..Identity::default()
        };
        self.identities.insert(key.clone(), identity);
        Ok(Said { etag: Some((1, true)), ..Said::default() })
    }

    fn delete(&mut self, delete: &DeleteDevice) -> Refused<Said> {
        let etag = self.existing(&delete.key)?.etag;
        Self::tag(&delete.condition, etag)?;
        let goes = |key: &DeviceKey| {
            *key == delete.key || !delete.key.is_module() && key.device == delete.key.device
        };
        self.identities.retain(|key, _| !goes(key));
        self.ended.retain(|(key, ..)| !goes(key));
        Ok(Said::default())
    }

    fn patch(&mut self, patch: &PatchTwin) -> Refused<Said> {
        let identity = self.existing(&patch.key)?;
        Self::tag(&patch.condition, identity.version)?;
        let (tags, desired) = (parsed(&patch.tags)?, parsed(&patch.desired)?);
        if let Some(tags) = tags {
            identity.tags = changed(&identity.tags, &tags, patch.replace);
        }
        if let Some(desired) = desired {
            identity.desired =
                (identity.desired.0 + 1, changed(&identity.desired.1, &desired, patch.replace));
        }
        identity.version += 1;
        let twin = (identity.version, identity.tags.clone(), identity.desired.1.clone());
        Ok(Said { twin: Some(twin), ..Said::default() })
    }

    fn report(&mut self, patch: &PatchReported) -> Refused<Said> {
        let identity = self.live(&patch.key, patch.epoch)?;
        if patch.if_version != 0 && patch.if_version != identity.reported.0 {
            return Err(ErrorCode::PreconditionFailed);
        }
        let change = parsed(&patch.patch)?.unwrap();
        identity.reported = (identity.reported.0 + 1, changed(&identity.reported.1, &change, false));
        Ok(Said { number: identity.reported.0, ..Said::default() })
    }

    fn open(&mut self, open: &OpenSession) -> Refused<Said> {
        self.entitled(&open.key, open.auth_version)?;
        let at = self.at;
        let identity = self.existing(&open.key)?;
        let old = identity.session.take().filter(|(_, _, clean, _)| !clean && !open.fresh);
        let (present, subscriptions) = (old.is_some(), old.map(|old| old.3).unwrap_or_default());
        identity.session = Some((at, true, open.clean, subscriptions.clone()));
        Ok(Said { opened: Some((at, present, subscriptions)), ..Said::default() })
    }

    fn close(&mut self, close: &CloseSession) -> Refused<Said> {
        let identity = self.live(&close.key, close.epoch)?;
        if let Some((_, connected, clean, subscriptions)) = &mut identity.session {
            *connected = false;
            if *clean {
                subscriptions.clear();
            }
        }
        Ok(Said::default())
    }

    fn subscribe(&mut self, subscribe: &Subscribe) -> Refused<Said> {
        let identity = self.live(&subscribe.key, subscribe.epoch)?;
        if let Some((.., subscriptions)) = &mut identity.session {
            let added: Vec<String> = subscribe.add.iter().map(|row| row.filter.clone()).collect();
            subscriptions.retain(|filter| !subscribe.remove.contains(filter) && !added.contains(filter));
            subscriptions.extend(added);
        }
        Ok(Said::default())
    }

    fn end(&mut self, key: &DeviceKey, command: &Waiting, outcome: Outcome) {
        let heard = match command.ack {
            1 => outcome == Outcome::Success,
            2 => outcome != Outcome::Success,
            3 => true,
            _ => false,
        };
        if heard {
            self.ended.push((key.clone(), command.id.clone(), outcome));
        }
    }

    fn expire(&mut self, key: &DeviceKey) {
        let now = self.now;
        let Some(identity) = self.identities.get_mut(key) else { return };
        let over = |command: &Waiting| command.expires <= now && !command.is_locked(now);
        let (gone, kept) = std::mem::take(&mut identity.queue).into_iter().partition(over);
        identity.queue = kept;
        let gone: Vec<Waiting> = gone;
        for command in &gone {
            self.end(key, command, Outcome::Expired);
        }
    }

    fn send(&mut self, send: &SendCommand) -> Refused<Said> {
        let (key, given, now, at) = (&send.key, &send.command, self.now, self.at);
        let mut disabled = self.existing(key)?.disabled;
        disabled |= self.existing(&DeviceKey::device(&key.device))?.disabled;
        if disabled {
            return Err(ErrorCode::DeviceNotFound);
        }
        if given.expires_ms != 0 && given.expires_ms <= now {
            return Err(ErrorCode::ArgumentInvalid);
        }
        self.expire(key);
        let queue = &mut self.existing(key)?.queue;
        if queue.len() == 50 {
            return Err(ErrorCode::DeviceMaximumQueueDepthExceeded);
        }
        let id = given.message_id.clone();
        let expires = if given.expires_ms == 0 { now + 3_600_000 } else { given.expires_ms };
        queue.push(Waiting { id: id.clone(), sequence: at, expires, ack: given.ack, count: 0, lock: None });
        Ok(Said { command: Some((id, 0)), ..Said::default() })
    }

    fn lock(&mut self, lock: &LockCommand) -> Refused<Said> {
        if lock.token.is_empty() {
            return Err(ErrorCode::ArgumentInvalid);
        }
        self.entitled(&lock.key, lock.auth_version)?;
        self.expire(&lock.key);
        let now = self.now;
        let queue = &mut self.existing(&lock.key)?.queue;
        let free = queue.iter_mut().find(|command| !command.is_locked(now) && command.expires > now);
        let command = free.map(|command| {
            command.lock = Some((lock.token.clone(), now + lock.lock_ms));
            (command.id.clone(), command.count)
        });
        Ok(Said { command, ..Said::default() })
    }

    fn settle(&mut self, settle: &SettleCommand) -> Refused<Said> {
        let (key, now) = (&settle.key, self.now);
        let found = match settle.token.is_empty() {
            true => {
                let queue = &self.live(key, settle.epoch)?.queue;
                queue
                    .iter()
                    .position(|command| command.sequence == settle.sequence && !command.is_locked(now))
            }
            false => {
                self.entitled(key, settle.auth_version)?;
                let mine = |command: &Waiting| {
                    command.is_locked(now)
                        && command.lock.as_ref().is_some_and(|(token, _)| *token == settle.token)
                };
                self.existing(key)?.queue.iter().position(mine)
            }
        };
        let place = found.ok_or(ErrorCode::DeviceMessageLockLost)?;
        let queue = &mut self.existing(key)?.queue;
        let outcome = match settle.settle {
            0 => Outcome::Success,
            1 => Outcome::Rejected,
            _ if queue[place].count == 9 => Outcome::DeliveryCountExceeded,
            _ => {
                queue[place].count += 1;
                queue[place].lock = None;
                return Ok(Said::default());
            }
        };
        let command = queue.remove(place);
        self.end(key, &command, outcome);
        Ok(Said::default())
    }

    fn purge(&mut self, key: &DeviceKey) -> Refused<Said> {
        let queue = std::mem::take(&mut self.existing(key)?.queue);
        for command in &queue {
            self.end(key, command, Outcome::Purged);
        }
        Ok(Said { number: queue.len() as u64, ..Said::default() })
    }

    /// `None` for commands that it says nothing about.
    fn apply(&mut self, op: &Op) -> Option<Refused<Said>> {
        Some(match op {
            Op::PutDevice(put) => self.put(put),
            Op::DeleteDevice(delete) => self.delete(delete),
            Op::PatchTwin(patch) => self.patch(patch),
            Op::PatchReported(patch) => self.report(patch),
            Op::OpenSession(open) => self.open(open),
            Op::CloseSession(close) => self.close(close),
            Op::Subscribe(subscribe) => self.subscribe(subscribe),
            Op::SendCommand(send) => self.send(send),
            Op::LockCommand(lock) => self.lock(lock),
            Op::SettleCommand(settle) => self.settle(settle),
            Op::PurgeCommands(purge) => self.purge(&purge.key),
            Op::ExpireCommands(expire) => {
                expire.keys.iter().for_each(|key| self.expire(key));
                Ok(Said::default())
            }
            _ => return None,
        })
    }
}

fn said(reply: &DeviceReply) -> Refused<Said> {
    if let Some(error) = &reply.error {
        return Err(ErrorCode::from_number(error.code).unwrap());
    }
    let document = |section: &[u8]| Value::Object(Section::decode(section).unwrap().document);
    Ok(Said {
        etag: reply.device.as_ref().map(|row| (row.etag, reply.created)),
        twin: reply.twin.as_ref().map(|row| (row.version, json(&row.tags), document(&row.desired))),
        number: reply.number,
        opened: reply.opened.as_ref().map(|opened| {
            let subscriptions = opened.session.subscriptions.iter().map(|row| row.filter.clone());
            (opened.session.epoch, opened.present, subscriptions.collect())
        }),
        command: reply.command.as_ref().map(|row| (row.message_id.clone(), row.deliveries)),
    })
}

/// Everything that is stored, against the model.
fn check_rows(hub: &Hub, model: &Model) {
    let devices: Vec<DeviceKey> =
        rows::<DeviceRow>(hub, KeyKind::Device, b"").into_iter().map(|row| row.key).collect();
    assert_eq!(devices, model.identities.keys().cloned().collect::<Vec<_>>());
    for (key, identity) in &model.identities {
        let twin = hub.query().twin(key).unwrap().unwrap();
        let section = |stored: &[u8]| {
            let section = Section::decode(stored).unwrap();
            (section.version, Value::Object(section.document))
        };
        assert_eq!((twin.version, json(&twin.tags)), (identity.version, identity.tags.clone()));
        assert_eq!(
            (section(&twin.desired), section(&twin.reported)),
            (identity.desired.clone(), identity.reported.clone())
        );
        let commands = crate::steps::all_commands(hub, key);
        let stored: Vec<_> =
            commands.iter().map(|row| (row.message_id.as_str(), row.sequence, row.deliveries)).collect();
        let waiting: Vec<_> =
            identity.queue.iter().map(|one| (one.id.as_str(), one.sequence, one.count)).collect();
        assert_eq!(stored, waiting, "{}", key.text());
    }
    let feedback = rows::<FeedbackRow>(hub, KeyKind::Feedback, b"");
    let mut heard: Vec<_> =
        feedback.iter().map(|row| (row.key.clone(), row.message_id.clone(), row.outcome())).collect();
    heard.sort();
    let mut ended = model.ended.clone();
    ended.sort();
    assert_eq!(heard, ended, "each command that was to be heard of ended once");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn predicted(steps in furnished(single(), 150)) {
        let (mut hub, mut model) = (Hub::new(), Model::default());
        for step in &steps {
            let op = resolve(&mut hub, step);
            // Edge devices' modules and services that take feedback are in the scripts.
            let op = match op {
                Op::PutDevice(mut put) => {
                    put.spec.edge = false;
                    Op::PutDevice(put)
                }
                Op::LockFeedback(_) | Op::SettleFeedback(_) => continue,
                other => other,
            };
            let reply = hub.apply(op.clone());
            (model.now, model.at) = (hub.now, hub.index << 8);
            if let Some(predicted) = model.apply(&op) {
                assert_eq!(said(&reply), predicted, "{op:?}");
            }
            check_rows(&hub, &model);
        }
    }
}
