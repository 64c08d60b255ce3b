//! A device or module on a connection: its session, its links, and what waits for either side.
//!
//! ```text
//!  first attach ─► Opening ─leader says yes─► Open ─last link gone, or session over─► closed behind its
//!                                                                                     last record
//! ```
//!
//! The device decides what is due; `front` performs it. At most one request of a device is at its leader.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fleetline_amqp::message::{Message, MessageWriter, Properties, id_text};
use fleetline_amqp::value::Value;
use fleetline_amqp::{LinkId, PeerOutcome, Receipt, SentId, Writer};
use fleetline_devices::{CommandRow, DesiredChange, DeviceKey, Settle};
use fleetline_gateway::devices::connections::{Link, MethodJob, Registered};
use fleetline_gateway::devices::hub::MethodAnswer;
use fleetline_gateway::devices::record::Stamps;
use fleetline_types::PartitionId;
use tokio::sync::oneshot;

use crate::address::DeviceNode;
use crate::ready::Flag;
use crate::tokens::Auth;
use crate::work::{TwinRequest, Work};

/// Answers and changes that wait for a twin's link.
const REPLIES_MAX: usize = 64;
/// Method calls that wait for the device, or for its answer.
const METHODS_MAX: usize = 64;
/// Pieces of work that wait for the leader; links have windows that keep it below.
const WORK_MAX: usize = 256;

/// A link of the device: what it is for, and whether the device receives on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceLink {
    pub(crate) id: LinkId,
    pub(crate) node: DeviceNode,
    pub(crate) to_device: bool,
}

/// A link whose attach waits for the session, and whether it is to be settled at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) link: DeviceLink,
}

/// What the twin's link asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum TwinAsk {
    /// The leader has to answer.
    Work(Work),
    /// Wants changes, or no more of them; answered at once.
    Notify(TwinRequest, bool),
    /// Isn't a request.
    Bad(TwinRequest, &'static str),
}

/// A device or module.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) id: u64,
    pub(crate) key: DeviceKey,
    pub(crate) partition: PartitionId,
    pub(crate) auth: Auth,
    pub(crate) registered: Registered,
    pub(crate) flag: Arc<Flag>,
    pub(crate) stamps: Stamps,
    pub(crate) is_open: bool,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) links: Vec<DeviceLink>,
    /// Records given to the ingest.
    pub(crate) sent: u64,
    /// Deliveries whose records aren't stored: the number of the last record of each.
    acks: VecDeque<(u64, Receipt)>,
    work: VecDeque<Work>,
    /// Ends with the request that is at the leader.
    pub(crate) running: Option<oneshot::Receiver<()>>,
    commands: Commands,
    twin: Twin,
    methods: Methods,
}

/// Commands on their way to the device.
#[derive(Debug, Default)]
struct Commands {
    /// Fetched and not sent.
    fetched: VecDeque<CommandRow>,
    /// Sent and not settled.
    open: BTreeMap<SentId, u64>,
    /// Sequence numbers of both, and of those whose outcome is on its way to the leader.
    held: BTreeSet<u64>,
    /// Commands up to this one were fetched.
    after: u64,
    wanted: bool,
    /// A fetch is on its way.
    fetching: bool,
}

/// What goes to the twin's receiver.
#[derive(Debug, Default)]
struct Twin {
    replies: VecDeque<Vec<u8>>,
    notifies: bool,
    /// Changes up to this version were sent, or are older than the session.
    sent: u64,
    wanted: bool,
    fetching: bool,
}

/// Method calls.
#[derive(Debug, Default)]
struct Methods {
    waiting: VecDeque<MethodJob>,
    open: BTreeMap<[u8; 16], oneshot::Sender<MethodAnswer>>,
}

impl Device {
    pub(crate) fn new(
        id: u64,
        partition: PartitionId,
        auth: Auth,
        registered: Registered,
        flag: Arc<Flag>,
        stamps: Stamps,
    ) -> Device {
        Device {
            id,
            key: registered.link.key.clone(),
            partition,
            auth,
            registered,
            flag,
            stamps,
            is_open: false,
            waiting: Vec::new(),
            links: Vec::new(),
            sent: 0,
            acks: VecDeque::new(),
            work: VecDeque::new(),
            running: None,
            commands: Commands::default(),
            twin: Twin::default(),
            methods: Methods::default(),
        }
    }

    /// The session is open.
    pub(crate) fn opened(&mut self, epoch: u64, desired_version: u64, generation: String) {
        self.registered.link.opened(epoch);
        self.stamps.generation = generation;
        self.twin.sent = desired_version;
        self.is_open = true;
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.registered.link
    }

    /// The link towards the device for a node.
    pub(crate) fn receiver(&self, node: DeviceNode) -> Option<LinkId> {
        self.links.iter().find(|link| link.to_device && link.node == node).map(|link| link.id)
    }

    /// A link is attached. Gives the one whose place it takes.
    pub(crate) fn attached(&mut self, link: DeviceLink) -> Option<LinkId> {
        let former = if link.to_device { self.receiver(link.node) } else { None };
        if let Some(former) = former {
            self.detached(former);
        }
        self.links.push(link);
        if link.to_device && link.node == DeviceNode::Commands {
            self.commands.wanted = true;
        }
        former
    }

    /// A link is gone.
    pub(crate) fn detached(&mut self, id: LinkId) {
        self.waiting.retain(|waiting| waiting.link.id != id);
        let Some(at) = self.links.iter().position(|link| link.id == id) else { return };
        let link = self.links.swap_remove(at);
        match link.node {
            DeviceNode::Commands => {
                // What it had is fetched again for the next one; what is being settled stays held.
                let dropped = self.commands.fetched.drain(..).map(|row| row.sequence);
                let open = std::mem::take(&mut self.commands.open);
                for sequence in dropped.chain(open.into_values()) {
                    self.commands.held.remove(&sequence);
                }
                self.commands.after = 0;
            }
            DeviceNode::Twin if link.to_device => {
                self.twin.replies.clear();
                self.twin.notifies = false;
            }
            DeviceNode::Methods if link.to_device => self.drop_methods(),
            _ => {}
        }
        self.acks.retain(|(_, receipt)| receipt.link != id);
    }

    pub(crate) fn has_links(&self) -> bool {
        !self.links.is_empty() || !self.waiting.is_empty()
    }

    /// Records up to `sent` were given to the ingest for this delivery.
    pub(crate) fn given(&mut self, receipt: Receipt) {
        self.acks.push_back((self.sent, receipt));
    }

    /// The next delivery that is stored.
    pub(crate) fn next_stored(&mut self, acked: u64) -> Option<Receipt> {
        match self.acks.front() {
            Some((number, _)) if *number <= acked => self.acks.pop_front().map(|(_, receipt)| receipt),
            _ => None,
        }
    }

    // ---- work

    /// Queues work; `false` when there is too much.
    pub(crate) fn push_work(&mut self, work: Work) -> bool {
        if self.work.len() >= WORK_MAX {
            return false;
        }
        self.work.push_back(work);
        true
    }

    /// The next piece of work, when none is running. `credit` is that of the commands' link.
    pub(crate) fn next_work(&mut self, credit: u32, deliveries_max: usize) -> Option<Work> {
        if !self.is_open || self.running.is_some() {
            return None;
        }
        if let Some(work) = self.work.pop_front() {
            return Some(work);
        }
        let commands = &mut self.commands;
        let room = deliveries_max.saturating_sub(commands.held.len()).min(credit as usize);
        if commands.wanted && commands.fetched.is_empty() && room > 0 {
            commands.wanted = false;
            commands.fetching = true;
            // Those that are held may stand in front of the next ones.
            return Some(Work::Commands { after: commands.after, limit: room + commands.held.len() });
        }
        if self.twin.wanted && self.twin.notifies && self.twin.replies.len() < REPLIES_MAX {
            self.twin.wanted = false;
            self.twin.fetching = true;
            return Some(Work::Desired { after: self.twin.sent });
        }
        None
    }

    /// Outcomes that wait; the device's end must not lose them.
    pub(crate) fn take_settles(&mut self) -> Vec<Work> {
        self.work.drain(..).filter(|work| matches!(work, Work::Settle { .. })).collect()
    }

    // ---- commands

    pub(crate) fn want_commands(&mut self) {
        self.commands.wanted = self.receiver(DeviceNode::Commands).is_some();
    }

    pub(crate) fn is_fetching_commands(&self) -> bool {
        self.commands.fetching || (self.commands.wanted && self.is_open)
    }

    /// Commands were fetched.
    pub(crate) fn on_commands(&mut self, rows: Vec<CommandRow>) {
        self.commands.fetching = false;
        if self.receiver(DeviceNode::Commands).is_none() {
            return;
        }
        for row in rows {
            self.commands.after = self.commands.after.max(row.sequence);
            if self.commands.held.insert(row.sequence) {
                self.commands.fetched.push_back(row);
                // There may be more.
                self.commands.wanted = true;
            }
        }
    }

    pub(crate) fn next_command(&self) -> Option<&CommandRow> {
        self.commands.fetched.front()
    }

    /// The first fetched command was sent.
    pub(crate) fn command_sent(&mut self, sent: SentId) {
        if let Some(row) = self.commands.fetched.pop_front() {
            self.commands.open.insert(sent, row.sequence);
        }
    }

    /// The device has given its word on a command.
    pub(crate) fn on_outcome(&mut self, sent: SentId, outcome: &PeerOutcome, settled: bool) {
        let Some(sequence) = self.commands.open.remove(&sent) else { return };
        let settle = match outcome {
            PeerOutcome::Accepted | PeerOutcome::None => Settle::Complete,
            PeerOutcome::Rejected(_) => Settle::Reject,
            PeerOutcome::Released => Settle::Abandon,
            PeerOutcome::Modified { undeliverable_here: true, .. } => Settle::Reject,
            PeerOutcome::Modified { .. } => Settle::Abandon,
        };
        let sent = (!settled).then_some(sent);
        self.work.push_back(Work::Settle { sequence, settle, sent });
    }

    /// The leader has settled a command.
    pub(crate) fn on_settled(&mut self, sequence: u64, settle: Settle) {
        self.commands.held.remove(&sequence);
        if settle == Settle::Abandon {
            self.commands.after = self.commands.after.min(sequence.saturating_sub(1));
        }
        self.want_commands();
    }

    // ---- twin

    /// Reads a request of the twin's link.
    pub(crate) fn twin_ask(&self, message: &Message<'_>, receipt: Receipt) -> TwinAsk {
        let text = |name: &str| message.message_annotations.get(name).and_then(|value| value.as_text());
        let mut id = Vec::new();
        if let Ok(properties) = message.properties()
            && !properties.correlation_id.is_null()
        {
            Writer::new(&mut id).value(&properties.correlation_id);
        }
        let request = TwinRequest { id, receipt };
        let resource = text("resource").unwrap_or_default();
        let reported = resource.eq_ignore_ascii_case("/properties/reported");
        let desired = resource.eq_ignore_ascii_case("/notifications/twin/properties/desired");
        match text("operation").unwrap_or_default().to_ascii_uppercase().as_str() {
            "GET" if resource.is_empty() => TwinAsk::Work(Work::TwinGet(request)),
            "PATCH" if reported => {
                let version = message.message_annotations.get("version");
                let if_version = match version {
                    None | Some(Value::Null) => 0,
                    Some(value) => match value.as_i64().and_then(|version| u64::try_from(version).ok()) {
                        Some(version) => version,
                        None => return TwinAsk::Bad(request, "version is not a number"),
                    },
                };
                let patch = message.data().into_owned().into();
                TwinAsk::Work(Work::Reported { request, if_version, patch })
            }
            "PUT" if desired => TwinAsk::Notify(request, true),
            "DELETE" if desired => TwinAsk::Notify(request, false),
            _ => TwinAsk::Bad(request, "neither operation nor resource is one of a twin"),
        }
    }

    pub(crate) fn set_notifies(&mut self, notifies: bool) {
        self.twin.notifies = notifies;
        self.twin.wanted |= notifies;
    }

    pub(crate) fn want_desired(&mut self) {
        self.twin.wanted = true;
    }

    /// An answer for the twin's receiver. One that nobody fetches pushes the oldest out.
    pub(crate) fn twin_reply(&mut self, id: &[u8], status: u16, version: Option<u64>, body: &str) {
        let mut out = Vec::new();
        let mut raw = id;
        let correlation_id = Value::read(&mut raw).unwrap_or(Value::Null);
        MessageWriter::new(&mut out)
            .message_annotations(|w| {
                w.symbol("status");
                w.int(status.into());
                if let Some(version) = version {
                    w.symbol("version");
                    w.long(version as i64);
                }
            })
            .properties(&Properties { correlation_id, ..Properties::default() })
            .data(body.as_bytes());
        self.push_reply(out);
    }

    fn push_reply(&mut self, reply: Vec<u8>) {
        if self.twin.replies.len() >= REPLIES_MAX {
            metrics::counter!("fleetline_amqp_undeliverable_total").increment(1);
            self.twin.replies.pop_front();
        }
        self.twin.replies.push_back(reply);
    }

    /// Desired properties have changed.
    pub(crate) fn on_desired(&mut self, changes: &[DesiredChange]) {
        self.twin.fetching = false;
        for change in
            changes.iter().filter(|change| change.version > self.twin.sent).cloned().collect::<Vec<_>>()
        {
            self.twin.sent = change.version;
            let parsed = serde_json::from_slice(&change.patch);
            let Ok(serde_json::Value::Object(mut patch)) = parsed else { continue };
            if !self.twin.notifies {
                continue;
            }
            patch.insert("$version".to_owned(), change.version.into());
            let body = serde_json::Value::Object(patch).to_string();
            let mut out = Vec::new();
            // Without a correlation id: "Node and Java use that to tell it apart".
            MessageWriter::new(&mut out)
                .message_annotations(|w| {
                    w.symbol("resource");
                    w.string("/notifications/twin/properties/desired");
                })
                .data(body.as_bytes());
            self.push_reply(out);
        }
    }

    pub(crate) fn next_reply(&self) -> Option<&[u8]> {
        self.twin.replies.front().map(Vec::as_slice)
    }

    pub(crate) fn reply_sent(&mut self) {
        self.twin.replies.pop_front();
        self.twin.wanted |= self.twin.notifies && self.twin.replies.len() + 1 == REPLIES_MAX;
    }

    // ---- methods

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
