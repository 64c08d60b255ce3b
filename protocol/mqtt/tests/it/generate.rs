//! Random valid packets of both versions, owned, so that properties of them can be tested.

use fleetline_mqtt::{
    Ack, Auth, ConnAck, Connect, ConnectProperties, PacketId, Publish, PublishProperties, QoS,
    RetainHandling, Sender, SubscribeOptions, Version, Will, encode,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// The bytes of a valid packet, and how to decode them.
#[derive(Clone, Debug)]
pub struct Wire {
    pub version: Version,
    pub sender: Sender,
    pub bytes: Vec<u8>,
}

pub fn version() -> impl Strategy<Value = Version> {
    select(&[Version::V311, Version::V5])
}

pub fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

/// Text of one to four bytes a character, at times long enough for lengths of two bytes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![9 => "[a-z0-9äß€😀\u{feff}]{0,8}", 1 => "[a-z]{120,140}"]
}

fn topic() -> impl Strategy<Value = String> {
    "[a-z$/ä]{1,12}"
}

pub fn filter() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z$/ä]{1,12}", "([a-z]/|\\+/){0,3}#", "(/[a-z]|/\\+){1,3}", "\\$share/[a-z]{1,3}/[a-z]/#"]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

type Pairs = Vec<(String, String)>;

fn pairs() -> impl Strategy<Value = Pairs> {
    vec((text(), text()), 0..3)
}

fn borrow(pairs: &Pairs) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[derive(Clone, Debug)]
struct Properties {
    payload_format: Option<u8>,
    message_expiry: Option<u32>,
    response_topic: Option<String>,
    correlation_data: Option<Vec<u8>>,
    content_type: Option<String>,
    user: Pairs,
}

fn properties() -> impl Strategy<Value = Properties> {
    let texts = (option::of(topic()), option::of(bytes()), option::of(text()));
    (option::of(0..2_u8), any::<Option<u32>>(), texts, pairs()).prop_map(
        |(payload_format, message_expiry, (response_topic, correlation_data, content_type), user)| {
            Properties {
                payload_format,
                message_expiry,
                response_topic,
                correlation_data,
                content_type,
                user,
            }
        },
    )
}

impl Properties {
    fn borrow<'a>(&'a self, user: &'a [(&'a str, &'a str)]) -> PublishProperties<'a> {
        PublishProperties {
            payload_format: self.payload_format,
            message_expiry: self.message_expiry,
            response_topic: self.response_topic.as_deref(),
            correlation_data: self.correlation_data.as_deref(),
            content_type: self.content_type.as_deref(),
            user_properties: user.into(),
            ..PublishProperties::default()
        }
    }
}

/// A PUBLISH; subscription identifiers only if the server sends it.
#[derive(Clone, Debug)]
pub struct Message {
    pub version: Version,
    pub sender: Sender,
    dup: bool,
    qos: QoS,
    retain: bool,
    topic: String,
    id: PacketId,
    payload: Vec<u8>,
    alias: Option<u16>,
    ids: Vec<u32>,
    properties: Properties,
}

pub fn message() -> impl Strategy<Value = Message> {
    let sender = select(&[Sender::Client, Sender::Server]);
    let head = (version(), sender, any::<bool>(), qos(), any::<bool>());
    let body = (topic(), packet_id(), bytes(), option::of(1..=u16::MAX));
    (head, body, vec(1..=268_435_455_u32, 0..3), properties(), any::<bool>()).prop_map(
        |(
            (version, sender, dup, qos, retain),
            (mut topic, id, payload, alias),
            mut ids,
            properties,
            bare,
        )| {
            if version == Version::V5 && alias.is_some() && bare {
                topic.clear();
            }
            if sender == Sender::Client {
                ids.clear();
            }
            let dup = dup && qos != QoS::AtMostOnce;
            Message { version, sender, dup, qos, retain, topic, id, payload, alias, ids, properties }
        },
    )
}

impl Message {
    /// Calls `f` with the message, and with it as its version can carry it.
    pub fn with<R>(&self, f: impl FnOnce(&Publish<'_>, &Publish<'_>) -> R) -> R {
        let user = borrow(&self.properties.user);
        let full = Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: &self.topic,
            packet_id: (self.qos != QoS::AtMostOnce).then_some(self.id),
            payload: &self.payload,
            properties: PublishProperties {
                topic_alias: self.alias,
                subscription_ids: self.ids[..].into(),
                ..self.properties.borrow(&user)
            },
        };
        match self.version {
            Version::V5 => f(&full, &full),
            Version::V311 => f(&full, &Publish { properties: PublishProperties::default(), ..full }),
        }
    }
}

/// A CONNECT.
#[derive(Clone, Debug)]
pub struct Hello {
    pub version: Version,
    client_id: String,
    clean_start: bool,
    keep_alive: u16,
    username: Option<String>,
    password: Option<Vec<u8>>,
    will: Option<(String, Vec<u8>, QoS, bool, u32, Properties)>,
    session_expiry: u32,
    receive_maximum: u16,
    maximum_packet_size: Option<u32>,
    alias_maximum: u16,
    information: (bool, bool),
    authentication: Option<(String, Option<Vec<u8>>)>,
    user: Pairs,
}

pub fn hello() -> impl Strategy<Value = Hello> {
    let head = (version(), text(), any::<bool>(), any::<u16>(), option::of(text()), option::of(bytes()));
    let will = option::of((topic(), bytes(), qos(), any::<bool>(), any::<u32>(), properties()));
    let numbers = (any::<u32>(), 1..=u16::MAX, option::of(1..=u32::MAX), any::<u16>());
    let rest = (any::<(bool, bool)>(), option::of((text(), option::of(bytes()))), pairs());
    (head, will, numbers, rest).prop_map(
        |((version, client_id, clean_start, keep_alive, username, password), will, numbers, rest)| {
            let (session_expiry, receive_maximum, maximum_packet_size, alias_maximum) = numbers;
            let (information, authentication, user) = rest;
            let v5 = version == Version::V5;
            Hello {
                clean_start: clean_start || (!v5 && client_id.is_empty()),
                password: password.filter(|_| v5 || username.is_some()),
                version,
                client_id,
                keep_alive,
                username,
                will,
                session_expiry,
                receive_maximum,
                maximum_packet_size,
                alias_maximum,
                information,
                authentication,
                user,
            }
        },
    )
}

impl Hello {
    /// Calls `f` with the CONNECT, and with it as its version can carry it.
    pub fn with<R>(&self, f: impl FnOnce(&Connect<'_>, &Connect<'_>) -> R) -> R {
        let user = borrow(&self.user);
        let will_user = self.will.as_ref().map(|will| borrow(&will.5.user)).unwrap_or_default();
        let will = self.will.as_ref().map(|(topic, payload, qos, retain, delay, properties)| Will {
            topic,
            payload,
            qos: *qos,
            retain: *retain,
            delay: *delay,
            properties: properties.borrow(&will_user),
        });
        let full = Connect {
            version: self.version,
            client_id: &self.client_id,
            clean_start: self.clean_start,
            keep_alive: self.keep_alive,
            username: self.username.as_deref(),
            password: self.password.as_deref(),
            will,
            properties: ConnectProperties {
                session_expiry: self.session_expiry,
                receive_maximum: self.receive_maximum,
                maximum_packet_size: self.maximum_packet_size,
                topic_alias_maximum: self.alias_maximum,
                request_problem_information: self.information.0,
                request_response_information: self.information.1,
                authentication_method: self.authentication.as_ref().map(|(method, _)| method.as_str()),
                authentication_data: self.authentication.as_ref().and_then(|(_, data)| data.as_deref()),
                user_properties: user[..].into(),
            },
        };
        if self.version == Version::V5 {
            return f(&full, &full);
        }
        let will = will.map(|will| Will { delay: 0, properties: PublishProperties::default(), ..will });
        let session_expiry = if self.clean_start { 0 } else { u32::MAX };
        let properties = ConnectProperties { session_expiry, ..ConnectProperties::default() };
        f(&full, &Connect { will, properties, ..full })
    }
}

pub fn options() -> impl Strategy<Value = SubscribeOptions> {
    let handling = select(&[RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend]);
    (qos(), any::<(bool, bool)>(), handling).prop_map(
        |(qos, (no_local, retain_as_published), retain_handling)| SubscribeOptions {
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        },
    )
}

/// Filters with options, of which no-local is left out for shared subscriptions.
pub fn filters() -> impl Strategy<Value = Vec<(String, SubscribeOptions)>> {
    vec((filter(), options()), 1..4).prop_map(|mut filters| {
        for (filter, options) in &mut filters {
            options.no_local &= !filter.starts_with("$share/");
        }
        filters
    })
}

/// A CONNACK of MQTT 5 with most properties, from a seed of booleans and numbers.
fn connack() -> impl Strategy<Value = Wire> {
    let numbers = (any::<Option<u32>>(), option::of(1..=u16::MAX), option::of(1..=u32::MAX));
    let flags = (any::<Option<bool>>(), any::<Option<bool>>(), any::<Option<u16>>());
    (numbers, flags, option::of(text()), pairs()).prop_map(|(numbers, flags, words, user)| {
        let user = borrow(&user);
        let connack = ConnAck {
            session_present: true,
            session_expiry: numbers.0,
            receive_maximum: numbers.1,
            maximum_packet_size: numbers.2,
            retain_available: flags.0,
            shared_available: flags.1,
            server_keep_alive: flags.2,
            topic_alias_maximum: flags.2,
            maximum_qos: flags.0.map(|_| QoS::AtLeastOnce),
            reason_string: words.as_deref(),
            assigned_client_id: words.as_deref(),
            user_properties: user[..].into(),
            ..ConnAck::new(Version::V5, 0)
        };
        let mut bytes = Vec::new();
        encode::connack(&mut bytes, &connack).unwrap();
        Wire { version: Version::V5, sender: Sender::Server, bytes }
    })
}

/// The packets without lists and strings, and those that carry codes.
fn small() -> impl Strategy<Value = Wire> {
    (version(), packet_id(), any::<bool>(), 0..11_u8).prop_map(|(version, id, failed, kind)| {
        let mut bytes = Vec::new();
        let out = &mut bytes;
        let code = if failed { 0x87 } else { 0 };
        let not_found = if failed { 0x92 } else { 0 };
        let mut sender = Sender::Client;
        match kind {
            0 => encode::puback(out, version, id, code),
            1 => encode::pubrec(out, version, id, code),
            2 => encode::pubrel(out, version, id, not_found),
            3 => encode::pubcomp(out, version, id, not_found),
            4 => encode::pingreq(out),
            5 => encode::disconnect(out, version, if failed { 4 } else { 0 }),
            6 if version == Version::V5 => {
                let auth = Auth { reason: 0x18, authentication_method: Some("m"), ..Auth::default() };
                encode::auth(out, &auth).unwrap();
            }
            7 if version == Version::V5 => {
                let leaving = encode::DisconnectOut {
                    reason: 4,
                    session_expiry: Some(u32::from(id.get())),
                    reason_string: Some("words"),
                    server_reference: None,
                };
                encode::disconnect_v5(out, &leaving).unwrap();
            }
            8 => {
                sender = Sender::Server;
                encode::suback(out, version, id, &[0, 1, 2, code]).unwrap();
            }
            9 => {
                sender = Sender::Server;
                encode::unsuback(out, version, id, &[code]).unwrap();
            }
            _ => {
                sender = Sender::Server;
                encode::pingresp(out);
            }
        }
        Wire { version, sender, bytes }
    })
}

/// Any valid packet.
pub fn wire() -> impl Strategy<Value = Wire> {
    let publish = message().prop_map(|message| {
        let mut bytes = Vec::new();
        message.with(|full, _| encode::publish(&mut bytes, message.version, full)).unwrap();
        Wire { version: message.version, sender: message.sender, bytes }
    });
    let connect = hello().prop_map(|hello| {
        let mut bytes = Vec::new();
        hello.with(|full, _| encode::connect(&mut bytes, full)).unwrap();
        Wire { version: hello.version, sender: Sender::Client, bytes }
    });
    let subscription_id = option::of(1..=268_435_455_u32);
    let subscribe = (version(), packet_id(), subscription_id, filters()).prop_map(
        |(version, id, subscription_id, filters)| {
            let filters: Vec<_> =
                filters.iter().map(|(filter, options)| (filter.as_str(), *options)).collect();
            let mut bytes = Vec::new();
            encode::subscribe(&mut bytes, version, id, subscription_id, &filters).unwrap();
            Wire { version, sender: Sender::Client, bytes }
        },
    );
    let unsubscribe = (version(), packet_id(), vec(filter(), 1..4)).prop_map(|(version, id, filters)| {
        let filters: Vec<_> = filters.iter().map(String::as_str).collect();
        let mut bytes = Vec::new();
        encode::unsubscribe(&mut bytes, version, id, &filters).unwrap();
        Wire { version, sender: Sender::Client, bytes }
    });
    prop_oneof![3 => publish, 2 => connect, 2 => subscribe, 1 => unsubscribe, 1 => connack(), 2 => small()]
}

/// Any acknowledgement that a client may send.
pub fn ack() -> impl Strategy<Value = Ack> {
    let code = select(&[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]);
    (packet_id(), code).prop_map(|(packet_id, reason)| Ack { packet_id, reason })
}
