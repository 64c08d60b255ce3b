//! Method calls of a device, and its answers.

use std::collections::{BTreeMap, VecDeque};

use fleetline_amqp::message::{Message, MessageWriter, Properties, id_text};
use fleetline_amqp::value::Value;
use fleetline_gateway::devices::connections::MethodJob;
use fleetline_gateway::devices::hub::MethodAnswer;
use tokio::sync::oneshot;

use super::Device;
use crate::address::DeviceNode;

/// Method calls that wait for the device, or for its answer.
const METHODS_MAX: usize = 64;

/// Method calls.
#[derive(Debug, Default)]
pub(super) struct Methods {
    pub(super) waiting: VecDeque<MethodJob>,
    pub(super) open: BTreeMap<[u8; 16], oneshot::Sender<MethodAnswer>>,
    /// What the leader was told: whether the device listens for calls.
    pub(super) told: bool,
}

impl Device {
    /// Method calls have come for the device.
    pub(crate) fn on_calls(&mut self, jobs: Vec<MethodJob>) {
        let listens = self.receiver(DeviceNode::Methods).is_some();
        self.methods.open.retain(|_, answer| !answer.is_closed());
        self.methods.waiting.retain(|job| !job.answer.is_closed());
        for job in jobs {
            let refusal = if !listens {
                Some(MethodAnswer::NOT_ONLINE)
            } else if self.methods.open.len() + self.methods.waiting.len() >= METHODS_MAX {
                Some(MethodAnswer::BUSY)
            } else {
                None
            };
            match refusal {
                Some(outcome) => drop(job.answer.send(MethodAnswer::without(outcome))),
                None => self.methods.waiting.push_back(job),
            }
        }
    }

    pub(crate) fn next_call(&mut self) -> Option<&MethodJob> {
        while self.methods.waiting.front().is_some_and(|job| job.answer.is_closed()) {
            self.methods.waiting.pop_front();
        }
        self.methods.waiting.front()
    }

    /// The first call was sent under this id.
    pub(crate) fn call_sent(&mut self, id: [u8; 16]) {
        if let Some(job) = self.methods.waiting.pop_front() {
            self.methods.open.insert(id, job.answer);
        }
    }

    /// The device has answered a method. `false`: the message isn't an answer to anything open.
    pub(crate) fn on_method_answer(&mut self, message: &Message<'_>) -> bool {
        let Ok(properties) = message.properties() else { return false };
        let id = match properties.correlation_id {
            Value::Uuid(id) => Some(id),
            other => id_text(&other).and_then(|text| uuid_of(&text)),
        };
        let status = message.application_properties.iter().find_map(|(name, value)| {
            let is_status = name.as_text().is_some_and(|name| name.eq_ignore_ascii_case("IoThub-status"));
            is_status.then(|| value.as_i64().and_then(|status| i32::try_from(status).ok())).flatten()
        });
        let (Some(id), Some(status)) = (id, status) else { return false };
        // Nobody may wait for it any more.
        let Some(answer) = self.methods.open.remove(&id) else { return true };
        let payload = message.data().into_owned().into();
        drop(answer.send(MethodAnswer { outcome: MethodAnswer::DONE, status, payload }));
        true
    }

    /// Calls end: those that were not sent were not called.
    pub(crate) fn drop_methods(&mut self) {
        for job in self.methods.waiting.drain(..) {
            drop(job.answer.send(MethodAnswer::without(MethodAnswer::NOT_ONLINE)));
        }
        self.methods.open.clear();
    }
}

/// A uuid in its canonical text.
fn uuid_of(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut id = [0; 16];
    for (at, pair) in digits.chunks(2).enumerate() {
        id[at] = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(id)
}

/// The message of a method call; the payload follows it.
pub(crate) fn call_head(out: &mut Vec<u8>, id: &[u8; 16], name: &str, len: usize) {
    MessageWriter::new(out)
        .properties(&Properties { correlation_id: Value::Uuid(*id), ..Properties::default() })
        .application_properties(|w| {
            w.string("IoThub-methodname");
            w.string(name);
        })
        .data_head(len);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of uuids lead back, others don't.
    #[test]
    fn uuids() {
        let id = [0xab; 16];
        assert_eq!(uuid_of("abababab-abab-abab-abab-abababababab"), Some(id));
        assert_eq!(uuid_of("ABABABABABABABABABABABABABABABAB"), Some(id));
        for bad in ["", "abab", "abababab-abab-abab-abab-ababababab+b", &"a".repeat(33)] {
            assert_eq!(uuid_of(bad), None);
        }
    }
}
