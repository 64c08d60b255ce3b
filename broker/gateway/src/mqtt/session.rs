//! What packets mean once the session is open. No I/O: packets and answers in, bytes and work out.
//!
//! ```text
//! packet ──on_packet──► Telemetry (the shell gives it to the ingest, then calls `taken`)
//!                       or work in a queue (the shell does one at a time, then calls `done`)
//! ```
//!
//! PUBACKs leave in order (invariant 2 of the parent): each PUBLISH with QoS 1 takes a slot in `acks`;
//! slots are answered from the front as long as the front one is ready.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fleetline_devices::{AckMode, CommandRow, DesiredChange, DeviceKey, SessionOpened, SubscriptionRow};
use fleetline_iothub::bag::{SystemProperty, format_time};
use fleetline_iothub::names::Identity;
use fleetline_iothub::topics::{self, DeviceTopic, Subscription, parse_filter, parse_publish};
use fleetline_mqtt::{
    Packet, PacketId, Publish, PublishProperties, QoS, Subscribe, Unsubscribe, Version, encode, reason,
};
use tokio::sync::oneshot;

use crate::devices::connections::MethodJob;
use crate::devices::hub::MethodAnswer;

/// Work that waits at the most; beyond it the socket isn't read.
const WORK_MAX: usize = 32;
/// Method calls without an answer at the most.
const METHODS_MAX: usize = 64;

/// Something that a leader must be asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Work {
    /// Read the twin.
    TwinGet { rid: String, ack: Option<PacketId> },
    /// Change reported properties.
    Reported { rid: String, if_version: u64, patch: Bytes, ack: Option<PacketId> },
    /// Change subscriptions, then answer.
    Subscribe { id: PacketId, add: Vec<SubscriptionRow>, codes: Vec<u8> },
    /// Change subscriptions, then answer.
    Unsubscribe { id: PacketId, remove: Vec<String>, codes: Vec<u8> },
    /// The device has taken a command.
    Complete { sequence: u64 },
    /// Look for commands behind this one.
    Commands { after: u64, limit: usize },
    /// Look for desired changes behind this version.
    Desired { after: u64 },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Done {
    /// A twin answer: status, version, body.
    Twin {
        rid: String,
        status: u16,
        version: Option<u64>,
        body: String,
        ack: Option<PacketId>,
    },
    Subscribed {
        id: PacketId,
        add: Vec<SubscriptionRow>,
        codes: Vec<u8>,
    },
    Unsubscribed {
        id: PacketId,
        remove: Vec<String>,
        codes: Vec<u8>,
    },
    Completed,
    Commands(Vec<CommandRow>),
    Desired(Vec<DesiredChange>),
    /// Changes are forgotten: the device has to read its twin again, so its connection ends.
    Stale,
}

/// Why a connection ends, in MQTT 5's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Close {
    /// The reason code of DISCONNECT.
    pub(super) reason: u8,
    /// The client said good-bye: its will isn't sent.
    pub(super) graceful: bool,
    /// For the metric.
    pub(super) why: &'static str,
}

impl Close {
    pub(super) fn error(reason: u8, why: &'static str) -> Close {
        Close { reason, graceful: false, why }
    }
}

/// A message for the stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Telemetry<'a> {
    pub(super) bag: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) ack: Option<PacketId>,
    pub(super) retain: bool,
    pub(super) properties: PublishProperties<'a>,
}

/// What the shell has to do with a packet.
#[derive(Debug, PartialEq)]
pub(super) enum Step<'a> {
    /// Nothing more.
    Go,
    /// Give it to the ingest; when there is no room, bring the packet again later.
    Telemetry(Telemetry<'a>),
}

enum Slot {
    /// Ready when this many records are stored.
    Record { id: PacketId, number: u64 },
    /// Ready when its work is done.
    Work { id: PacketId, ready: bool },
}

/// A message to the device that waits for its acknowledgement.
struct Delivery {
    id: PacketId,
    /// The command that it carries.
    sequence: Option<u64>,
}

/// Options of a session that its CONNECT gave.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionLimits {
    pub(super) in_flight_max: usize,
    pub(super) deliveries_max: usize,
    pub(super) packet_bytes_max: Option<u32>,
}

/// An open session.
pub(super) struct Session {
    pub(super) version: Version,
    pub(super) key: DeviceKey,
    limits: SessionLimits,
    /// Granted QoS by kind of subscription.
    subscriptions: [Option<u8>; Subscription::ALL.len()],
    acks: VecDeque<Slot>,
    /// Records given to the ingest.
    sent: u64,
    last_id: u16,
    deliveries: Vec<Delivery>,
    work: VecDeque<Work>,
    /// Commands up to this one were sent.
    commands_sent: u64,
    commands_wanted: bool,
    /// Desired changes up to this one were sent, or are older than the session.
    desired_sent: u64,
    desired_wanted: bool,
    methods: BTreeMap<u64, oneshot::Sender<MethodAnswer>>,
    last_rid: u64,
}

impl Session {
    pub(super) fn new(
        version: Version,
        key: DeviceKey,
        limits: SessionLimits,
        opened: &SessionOpened,
    ) -> Session {
        let mut session = Session {
            version,
            key,
            limits,
            subscriptions: [None; Subscription::ALL.len()],
            acks: VecDeque::new(),
            sent: 0,
            last_id: 0,
            deliveries: Vec::new(),
            work: VecDeque::new(),
            commands_sent: 0,
            commands_wanted: false,
            desired_sent: opened.desired_version,
            desired_wanted: false,
            methods: BTreeMap::new(),
            last_rid: 0,
        };
        for row in &opened.session.subscriptions {
            session.note_subscription(row);
        }
        session.commands_wanted =
            session.qos_of(&[Subscription::Commands, Subscription::ModuleCommands]).is_some();
        session
    }

    fn note_subscription(&mut self, row: &SubscriptionRow) {
        if let Ok(subscription) = parse_filter(&row.filter, identity(&self.key)) {
            self.subscriptions[subscription as usize] = Some(row.qos.min(1) as u8);
        }
    }

    fn qos_of(&self, kinds: &[Subscription]) -> Option<QoS> {
        let granted = kinds.iter().filter_map(|kind| self.subscriptions[*kind as usize]).max()?;
        Some(if granted == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce })
    }

    /// Whether the socket may be read: what would come has room.
    pub(super) fn has_room(&self) -> bool {
        self.work.len() < WORK_MAX && self.acks.len() < self.limits.in_flight_max
    }

    /// Whether nothing is open: buffers can go.
    pub(super) fn is_idle(&self) -> bool {
        self.acks.is_empty() && self.work.is_empty()
    }

    /// Gives memory back that an idle session doesn't need.
    pub(super) fn give_back(&mut self) {
        if self.acks.is_empty() && self.acks.capacity() > 0 {
            self.acks = VecDeque::new();
        }
        if self.work.is_empty() && self.work.capacity() > 0 {
            self.work = VecDeque::new();
        }
    }

    /// Decides what a packet means.
    pub(super) fn on_packet<'a>(&mut self, packet: Packet<'a>, out: &mut Vec<u8>) -> Result<Step<'a>, Close> {
        match packet {
            Packet::Publish(publish) => return self.on_publish(publish),
            Packet::PubAck(ack) => self.on_puback(ack.packet_id),
            Packet::Subscribe(subscribe) => self.on_subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(unsubscribe),
            Packet::PingReq => encode::pingresp(out),
            Packet::Disconnect { reason, .. } => {
                // [MQTT-3.14.4-3]: the will is discarded, unless an MQTT 5 client asks for it.
                let graceful = reason != reason::DISCONNECT_WITH_WILL;
                return Err(Close { reason: reason::SUCCESS, graceful, why: "disconnect" });
            }
            // [MQTT-3.1.0-2]: a second CONNECT is a violation.
            Packet::Connect(_) => return Err(Close::error(reason::PROTOCOL_ERROR, "second_connect")),
            // QoS 2 isn't granted and not accepted, so none of its packets is ever due.
            Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_) => {
                return Err(Close::error(reason::PROTOCOL_ERROR, "qos2_packet"));
            }
            Packet::Auth(_) => return Err(Close::error(reason::PROTOCOL_ERROR, "auth")),
            // [MQTT-4.8.0-1]: packets that only a server sends.
            _ => return Err(Close::error(reason::PROTOCOL_ERROR, "server_packet")),
        }
        Ok(Step::Go)
    }

    fn on_publish<'a>(&mut self, publish: Publish<'a>) -> Result<Step<'a>, Close> {
        if publish.qos == QoS::ExactlyOnce {
            return Err(Close::error(reason::QOS_NOT_SUPPORTED, "qos2"));
        }
        if publish.properties.topic_alias.is_some() {
            // [MQTT5-3.3.2-9]: above the maximum that CONNACK told, which is none.
            return Err(Close::error(reason::TOPIC_ALIAS_INVALID, "topic_alias"));
        }
        if publish.retain && self.version == Version::V5 {
            // [MQTT5-3.2.2-14]: CONNACK has told that nothing is retained.
            return Err(Close::error(reason::RETAIN_NOT_SUPPORTED, "retain"));
        }
        let ack = publish.packet_id;
        let topic = parse_publish(publish.topic, identity(&self.key))
            .map_err(|_| Close::error(reason::TOPIC_NAME_INVALID, "topic"))?;
        match topic {
            DeviceTopic::Telemetry { bag } => {
                let (payload, retain, properties) = (publish.payload, publish.retain, publish.properties);
                return Ok(Step::Telemetry(Telemetry { bag, payload, ack, retain, properties }));
            }
            DeviceTopic::TwinGet { rid } => {
                self.acks.extend(ack.map(|id| Slot::Work { id, ready: false }));
                self.work.push_back(Work::TwinGet { rid: rid.to_owned(), ack });
            }
            DeviceTopic::TwinReported { rid, if_version } => {
                self.acks.extend(ack.map(|id| Slot::Work { id, ready: false }));
                let patch = Bytes::copy_from_slice(publish.payload);
                let (rid, if_version) = (rid.to_owned(), if_version.unwrap_or(0));
                self.work.push_back(Work::Reported { rid, if_version, patch, ack });
            }
            DeviceTopic::MethodResponse { status, rid } => {
                self.acks.extend(ack.map(|id| Slot::Work { id, ready: true }));
                self.on_method_response(status, rid, publish.payload);
            }
        }
        Ok(Step::Go)
    }

    /// The record that [`Step::Telemetry`] told of is with the ingest. Gives its number.
    pub(super) fn next_number(&self) -> u64 {
        self.sent + 1
    }

    /// Records given to the ingest.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// The ingest has taken the record of that number.
    pub(super) fn taken(&mut self, ack: Option<PacketId>) {
        self.sent += 1;
        let number = self.sent;
        self.acks.extend(ack.map(|id| Slot::Record { id, number }));
    }

    /// Answers every PUBLISH that is ready, in order, when records up to `acked` are stored.
    pub(super) fn flush_acks(&mut self, acked: u64, out: &mut Vec<u8>) {
        while let Some(front) = self.acks.front() {
            let id = match *front {
                Slot::Record { id, number } if number <= acked => id,
                Slot::Work { id, ready: true } => id,
                _ => return,
            };
            encode::puback(out, self.version, id, reason::SUCCESS);
            self.acks.pop_front();
        }
    }

    fn work_acked(&mut self, ack: Option<PacketId>) {
        let waiting = |slot: &&mut Slot| matches!(slot, Slot::Work { id, ready: false } if Some(*id) == ack);
        if let Some(Slot::Work { ready, .. }) = self.acks.iter_mut().find(waiting) {
            *ready = true;
        }
    }

    fn on_puback(&mut self, id: PacketId) {
        // An unknown id is what a client may have left from an earlier connection.
        let Some(at) = self.deliveries.iter().position(|delivery| delivery.id == id) else { return };
        if let Some(sequence) = self.deliveries.swap_remove(at).sequence {
            self.work.push_back(Work::Complete { sequence });
        }
    }

    fn on_subscribe(&mut self, subscribe: Subscribe<'_>) {
        let mut add: Vec<SubscriptionRow> = Vec::new();
        let mut codes = Vec::new();
        for (filter, options) in subscribe.filters {
            match parse_filter(filter, identity(&self.key)) {
                Ok(_) => {
                    let qos = options.qos.bits().min(1);
                    add.retain(|row| row.filter != filter);
                    add.push(SubscriptionRow { filter: filter.to_owned(), qos: u32::from(qos) });
                    codes.push(qos);
                }
                // [MQTT-3.9.3-2]: 0x80 is the only failure of 3.1.1.
                Err(_) if self.version == Version::V311 => codes.push(reason::UNSPECIFIED_ERROR),
                Err(_) => codes.push(reason::NOT_AUTHORIZED),
            }
        }
        self.work.push_back(Work::Subscribe { id: subscribe.packet_id, add, codes });
    }

    fn on_unsubscribe(&mut self, unsubscribe: Unsubscribe<'_>) {
        let held = |filter: &str| {
            parse_filter(filter, identity(&self.key))
                .is_ok_and(|kind| self.subscriptions[kind as usize].is_some())
        };
        // The leader hears only of what may be there: a packet may name more filters than a session has.
        let mut remove: Vec<String> = Vec::new();
        let mut codes = Vec::new();
        for filter in unsubscribe.filters {
            let is_held = held(filter);
            codes.push(if is_held { reason::SUCCESS } else { reason::NO_SUBSCRIPTION_EXISTED });
            if is_held && remove.iter().all(|known| known != filter) {
                remove.push(filter.to_owned());
            }
        }
        self.work.push_back(Work::Unsubscribe { id: unsubscribe.packet_id, remove, codes });
    }

    fn on_method_response(&mut self, status: i32, rid: &str, payload: &[u8]) {
        let answer = rid.parse().ok().and_then(|rid: u64| self.methods.remove(&rid));
        if let Some(answer) = answer {
            let payload = Bytes::copy_from_slice(payload);
            // The caller may have given up.
            drop(answer.send(MethodAnswer { outcome: MethodAnswer::DONE, status, payload }));
        }
    }

    /// A service calls a method.
    pub(super) fn on_method(&mut self, job: MethodJob, out: &mut Vec<u8>) {
        self.methods.retain(|_, answer| !answer.is_closed());
        let refused = match self.qos_of(&[Subscription::Methods]) {
            None => MethodAnswer::NOT_ONLINE,
            Some(_) if self.methods.len() >= METHODS_MAX => MethodAnswer::BUSY,
            Some(_) => {
                self.last_rid += 1;
                let mut topic = String::new();
                topics::method_request_topic(&mut topic, &job.call.name, &self.last_rid.to_string());
                self.publish(&topic, &job.call.payload, QoS::AtMostOnce, None, out);
                self.methods.insert(self.last_rid, job.answer);
                return;
            }
        };
        drop(job.answer.send(MethodAnswer::without(refused)));
    }

    /// The connection ends: who waits for a method's answer hears it now.
    pub(super) fn drop_methods(&mut self) {
        self.methods.clear();
    }

    /// There may be commands.
    pub(super) fn want_commands(&mut self) {
        self.commands_wanted = self.qos_of(&[Subscription::Commands, Subscription::ModuleCommands]).is_some();
    }

    /// There may be desired changes.
    pub(super) fn want_desired(&mut self) {
        self.desired_wanted = true;
    }

    /// The next work to do.
    pub(super) fn next_work(&mut self) -> Option<Work> {
        if let Some(work) = self.work.pop_front() {
            return Some(work);
        }
        if std::mem::take(&mut self.desired_wanted) {
            return Some(Work::Desired { after: self.desired_sent });
        }
        let room = self.limits.deliveries_max.saturating_sub(self.deliveries.len());
        if self.commands_wanted && room > 0 {
            self.commands_wanted = false;
            return Some(Work::Commands { after: self.commands_sent, limit: room });
        }
        None
    }

    /// Work has ended.
    pub(super) fn on_done(&mut self, done: Done, out: &mut Vec<u8>) -> Result<(), Close> {
        match done {
            Done::Twin { rid, status, version, body, ack } => {
                self.work_acked(ack);
                if let Some(qos) = self.qos_of(&[Subscription::TwinResponses]) {
                    let mut topic = String::new();
                    topics::twin_response_topic(&mut topic, status, &rid, version);
                    self.publish(&topic, body.as_bytes(), qos, None, out);
                }
            }
            Done::Subscribed { id, add, codes } => {
                add.iter().for_each(|row| self.note_subscription(row));
                self.answer(encode::suback(out, self.version, id, &codes))?;
                self.want_commands();
            }
            Done::Unsubscribed { id, remove, codes } => {
                for filter in remove {
                    if let Ok(kind) = parse_filter(&filter, identity(&self.key)) {
                        self.subscriptions[kind as usize] = None;
                    }
                }
                self.answer(encode::unsuback(out, self.version, id, &codes))?;
            }
            Done::Completed => self.want_commands(),
            Done::Commands(commands) => commands.iter().for_each(|command| self.deliver(command, out)),
            Done::Desired(changes) => changes.iter().for_each(|change| self.push_desired(change, out)),
            Done::Stale => return Err(Close::error(reason::SERVER_BUSY, "desired_changes_forgotten")),
        }
        Ok(())
    }

    fn answer(&self, encoded: Result<(), fleetline_mqtt::EncodeError>) -> Result<(), Close> {
        encoded.map_err(|_| Close::error(reason::UNSPECIFIED_ERROR, "encode"))
    }

    fn deliver(&mut self, command: &CommandRow, out: &mut Vec<u8>) {
        let Some(qos) = self.qos_of(&[Subscription::Commands, Subscription::ModuleCommands]) else { return };
        self.commands_sent = self.commands_sent.max(command.sequence);
        let mut system: Vec<(SystemProperty, &str)> = command
            .system
            .iter()
            .filter_map(|row| Some((SystemProperty::from_number(row.id as u8)?, row.value.as_str())))
            .collect();
        let ack = match AckMode::try_from(command.ack).unwrap_or(AckMode::None) {
            AckMode::None => "",
            AckMode::Positive => "positive",
            AckMode::Negative => "negative",
            AckMode::Full => "full",
        };
        let expiry = format_time(command.expires_ms);
        let own = [
            (SystemProperty::MessageId, command.message_id.as_str()),
            (SystemProperty::Ack, ack),
            (SystemProperty::Expiry, expiry.as_str()),
        ];
        for (property, value) in own {
            if !value.is_empty() && system.iter().all(|(known, _)| *known != property) {
                system.push((property, value));
            }
        }
        let application: Vec<(&str, &str)> =
            command.properties.iter().map(|row| (row.name.as_str(), row.value.as_str())).collect();
        let mut topic = String::new();
        topics::command_topic(&mut topic, &identity(&self.key), &system, &application);
        let sent = self.publish(&topic, &command.body, qos, Some(command.sequence), out);
        if !sent || qos == QoS::AtMostOnce {
            // Sent once and not to be acknowledged, or too large for this client for ever.
            self.work.push_back(Work::Complete { sequence: command.sequence });
        }
        self.commands_wanted = true;
    }

    fn push_desired(&mut self, change: &DesiredChange, out: &mut Vec<u8>) {
        if change.version <= self.desired_sent {
            return;
        }
        self.desired_sent = change.version;
        let Some(qos) = self.qos_of(&[Subscription::DesiredChanges]) else { return };
        let Ok(serde_json::Value::Object(mut patch)) = serde_json::from_slice(&change.patch) else { return };
        patch.insert("$version".to_owned(), change.version.into());
        let mut topic = String::new();
        topics::desired_topic(&mut topic, change.version);
        let body = serde_json::Value::Object(patch).to_string();
        self.publish(&topic, body.as_bytes(), qos, None, out);
    }

    /// Writes a PUBLISH; `false` when the client doesn't take packets of this size.
    fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        sequence: Option<u64>,
        out: &mut Vec<u8>,
    ) -> bool {
        // [MQTT5-3.3.4-9]: never more open than the client takes. Answers and changes that nobody
        // acknowledges go on with QoS 0; they belong to this connection anyway.
        let is_full = self.deliveries.len() >= self.limits.deliveries_max;
        let qos = if sequence.is_none() && is_full { QoS::AtMostOnce } else { qos };
        let packet_id = (qos == QoS::AtLeastOnce).then(|| self.free_id());
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id,
            payload,
            properties: PublishProperties::default(),
        };
        let start = out.len();
        let encoded = encode::publish(out, self.version, &publish);
        // [MQTT5-3.1.2-24]: never a packet larger than the client said.
        let fits = self.limits.packet_bytes_max.is_none_or(|max| out.len() - start <= max as usize);
        if encoded.is_err() || !fits {
            out.truncate(start);
            metrics::counter!("fleetline_mqtt_undeliverable_total").increment(1);
            return false;
        }
        self.deliveries.extend(packet_id.map(|id| Delivery { id, sequence }));
        true
    }

    /// [MQTT-2.3.1-4]: an id that isn't in use.
    fn free_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.last_id)
                && self.deliveries.iter().all(|delivery| delivery.id != id)
            {
                return id;
            }
        }
    }
}

/// The identity of a key.
pub(super) fn identity(key: &DeviceKey) -> Identity<'_> {
    match key.is_module() {
        true => Identity::of_module(&key.device, &key.module),
        false => Identity::of_device(&key.device),
    }
}

#[cfg(test)]
mod tests;
