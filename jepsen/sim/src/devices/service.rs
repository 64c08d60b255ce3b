//! A service: twins and identities with and without conditions, and commands.

use std::time::Duration;

use bytes::Bytes;
use fleetline_devices::{
    AckMode, CommandRow, Condition, DeviceKey, DeviceRow, DeviceSpec, Op, PatchTwin, PutDevice, SendCommand,
    TwinRow,
};
use fleetline_iothub::errors::ErrorCode;
use fleetline_twins::Section;
use tokio::time::sleep;

use super::history::{Disabled, Span};
use super::register::{Asked, RegisterOp, Said};
use super::{Answer, Clients};
use crate::rng::Rng;

/// How long some commands wait.
const SHORT_TTL_MS: u64 = 3000;

pub(super) fn twin_name(key: &DeviceKey) -> String {
    format!("twin of {}", key.device)
}

pub(super) fn identity_name(key: &DeviceKey) -> String {
    format!("identity {}", key.device)
}

/// A twin as a register: its version, and what was written last.
pub(super) fn twin_value(row: &TwinRow) -> (u64, String) {
    let section = Section::decode(&row.desired).unwrap_or_default();
    let value = section.document.get("v").and_then(|value| value.as_str()).unwrap_or_default();
    (row.version, value.to_owned())
}

/// An identity as a register.
pub(super) fn identity_value(row: &DeviceRow) -> (u64, String) {
    (row.etag, row.spec.status_reason.clone())
}

struct Service {
    clients: Clients,
    rng: Rng,
}

/// Runs a service until the run stops.
pub(super) async fn run(clients: Clients, number: u64) {
    let (rng, stop) = (Rng::new(clients.seed, 2200 + number), clients.stop.clone());
    let mut service = Service { clients, rng };
    while !stop.get() {
        let key = service.clients.any_key(&mut service.rng);
        match service.rng.below(10) {
            0..3 => service.patch(key).await,
            3 | 4 => service.read(key).await.map_or((), drop),
            5 => service.put(key).await,
            _ => service.send(key).await,
        }
        sleep(Duration::from_millis(1 + service.rng.below(80))).await;
    }
}

impl Service {
    /// Reads twin and identity; gives their versions.
    async fn read(&mut self, key: DeviceKey) -> Option<(u64, u64)> {
        let invoked = self.clients.history.borrow_mut().tick();
        let partition = self.clients.fresh(&mut self.rng).await?;
        let (twin, device) = (partition.devices().twin(&key).ok()??, partition.devices().device(&key).ok()??);
        let mut history = self.clients.history.borrow_mut();
        let span = history.span(invoked);
        let (twin, device) = (twin_value(&twin), identity_value(&device));
        let versions = (twin.0, device.0);
        for (name, (version, value)) in [(twin_name(&key), twin), (identity_name(&key), device)] {
            history.register(name, RegisterOp { span, asked: Asked::Read, said: Said::Is(version, value) });
        }
        Some(versions)
    }

    /// With a condition on what was just read, mostly.
    async fn condition(&mut self, key: &DeviceKey) -> Option<(Option<u64>, Option<u64>)> {
        if self.rng.below(3) == 0 {
            return Some((None, None));
        }
        let (twin, identity) = self.read(key.clone()).await?;
        Some((Some(twin), Some(identity)))
    }

    async fn patch(&mut self, key: DeviceKey) {
        let Some((if_version, _)) = self.condition(&key).await else { return };
        let value = self.clients.history.borrow_mut().value();
        let patch = PatchTwin {
            key: key.clone(),
            desired: Bytes::from(format!(r#"{{"v":"{value}"}}"#)),
            condition: if_version.map_or(Condition::any(), Condition::tag),
            replace: self.rng.below(2) == 0,
            ..PatchTwin::default()
        };
        let (span, answer) = self.write(Op::PatchTwin(patch)).await;
        let said = said(&answer, |reply| reply.twin.as_ref().map(twin_value));
        self.note(twin_name(&key), span, value, if_version, said);
    }

    /// Enables or disables a device.
    async fn put(&mut self, key: DeviceKey) {
        let Some((_, if_version)) = self.condition(&key).await else { return };
        let value = self.clients.history.borrow_mut().value();
        let disabled = self.rng.below(3) == 0;
        let put = PutDevice {
            key: key.clone(),
            spec: DeviceSpec { disabled, status_reason: value.clone(), ..DeviceSpec::default() },
            condition: if_version.map_or(Condition::any(), Condition::tag),
            ..PutDevice::default()
        };
        let (span, answer) = self.write(Op::PutDevice(put)).await;
        if !disabled && !matches!(answer, Answer::Refused(_) | Answer::NotDone) {
            self.clients.history.borrow_mut().enabled.push((key.device.clone(), span));
        }
        if let (true, Answer::Done { reply, head }) = (disabled, &answer) {
            let version = reply.device.as_ref().map_or(0, |row| row.auth_version);
            let disabled = Disabled { device: key.device.clone(), version, span, head: *head };
            self.clients.history.borrow_mut().disabled.push(disabled);
        }
        let said = said(&answer, |reply| reply.device.as_ref().map(identity_value));
        self.note(identity_name(&key), span, value, if_version, said);
    }

    async fn write(&mut self, op: Op) -> (Span, Answer) {
        let invoked = self.clients.history.borrow_mut().tick();
        let answer = self.clients.change(&mut self.rng, op).await;
        let completed = Some(self.clients.history.borrow_mut().tick());
        let completed = if matches!(answer, Answer::Unknown) { None } else { completed };
        (Span { invoked, completed }, answer)
    }

    fn note(&self, name: String, span: Span, value: String, if_version: Option<u64>, said: Option<Said>) {
        if let Some(said) = said {
            let op = RegisterOp { span, asked: Asked::Write { value, if_version }, said };
            self.clients.history.borrow_mut().register(name, op);
        }
    }

    async fn send(&mut self, key: DeviceKey) {
        let id = self.clients.history.borrow_mut().value();
        let expires_ms = if self.rng.below(3) == 0 { self.clients.wall_ms() + SHORT_TTL_MS } else { 0 };
        let body = Bytes::from(id.clone());
        let (message_id, ack) = (id.clone(), AckMode::Full as i32);
        let command = CommandRow { message_id, body, ack, expires_ms, ..CommandRow::default() };
        match self.clients.change(&mut self.rng, Op::SendCommand(SendCommand { key, command })).await {
            Answer::Done { .. } => drop(self.clients.history.borrow_mut().commands.insert(id, true)),
            Answer::Unknown => drop(self.clients.history.borrow_mut().commands.insert(id, false)),
            Answer::Refused(_) | Answer::NotDone => {}
        }
    }
}

/// What a write was answered; `None` when it certainly wasn't done and says nothing.
fn said(
    answer: &Answer,
    value: impl FnOnce(&fleetline_devices::DeviceReply) -> Option<(u64, String)>,
) -> Option<Said> {
    match answer {
        Answer::Done { reply, .. } => value(reply).map(|(version, value)| Said::Is(version, value)),
        Answer::Refused(ErrorCode::PreconditionFailed) => Some(Said::OtherVersion),
        Answer::Unknown => Some(Said::Unknown),
        Answer::Refused(_) | Answer::NotDone => None,
    }
}
