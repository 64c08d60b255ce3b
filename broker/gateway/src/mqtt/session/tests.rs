//! Scripts of a session: what a client sends, what it gets, and what a leader is asked for.

use fleetline_devices::{ConnectionPlace, SessionRow};
use fleetline_mqtt::{Limits, Sender, SubscribeOptions, decode, frame_len};

use super::*;
use crate::devices::hub::MethodCall;

const METHODS: &str = "$iothub/methods/POST/#";
const TWIN: &str = "$iothub/twin/res/#";
const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";
const COMMANDS: &str = "devices/d/messages/devicebound/#";

fn session(filters: &[(&str, u32)]) -> Session {
    let subscriptions =
        filters.iter().map(|(filter, qos)| SubscriptionRow { filter: (*filter).into(), qos: *qos }).collect();
    let row = SessionRow { epoch: 7, connected: true, subscriptions, ..SessionRow::default() };
    let opened = SessionOpened { session: row, present: true, desired_version: 3 };
    let limits = SessionLimits { in_flight_max: 8, deliveries_max: 2, packet_bytes_max: None };
    Session::new(Version::V311, DeviceKey::device("d"), limits, &opened)
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

fn publish<'a>(topic: &'a str, payload: &'a [u8], packet_id: Option<u16>) -> Packet<'a> {
    let qos = if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    let properties = PublishProperties::default();
    let packet_id = packet_id.map(id);
    Packet::Publish(Publish { dup: false, qos, retain: false, topic, packet_id, payload, properties })
}

/// What a client reads out of `bytes`, a line each.
fn read(mut bytes: &[u8]) -> Vec<String> {
    let limits = Limits { sender: Sender::Server, ..Limits::default() };
    let mut lines = Vec::new();
    while let Some(len) = frame_len(bytes, &limits).unwrap() {
        lines.push(match decode(&bytes[..len], Some(Version::V311), &limits).unwrap() {
            Packet::PubAck(ack) => format!("puback {}", ack.packet_id.get()),
            Packet::SubAck(ack) => format!("suback {} {:?}", ack.packet_id.get(), ack.codes),
            Packet::UnsubAck(ack) => format!("unsuback {}", ack.packet_id.get()),
            Packet::PingResp => "pingresp".to_owned(),
            Packet::Publish(p) => {
                let id = p.packet_id.map_or(0, PacketId::get);
                format!("publish {id} {} {}", p.topic, String::from_utf8_lossy(p.payload))
            }
            other => format!("{other:?}"),
        });
        bytes = &bytes[len..];
    }
    lines
}

fn take(session: &mut Session, packet: Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match session.on_packet(packet, &mut out).unwrap() {
        Step::Telemetry(telemetry) => session.taken(telemetry.ack),
        Step::Go => {}
    }
    out
}

fn done(session: &mut Session, done: Done) -> Vec<String> {
    let mut out = Vec::new();
    session.on_done(done, &mut out).unwrap();
    read(&out)
}

fn acks(session: &mut Session, stored: u64) -> Vec<String> {
    let mut out = Vec::new();
    session.flush_acks(stored, &mut out);
    read(&out)
}

/// PUBACKs leave in the order of the PUBLISHes, whatever is ready first. [MQTT-4.6.0-2]
#[test]
fn acknowledgements_keep_their_order() {
    let mut s = session(&[(TWIN, 1)]);
    take(&mut s, publish("devices/d/messages/events/", b"1", Some(10)));
    take(&mut s, publish("$iothub/twin/PATCH/properties/reported/?$rid=1", b"{}", Some(11)));
    take(&mut s, publish("devices/d/messages/events/", b"2", None));
    take(&mut s, publish("devices/d/messages/events/", b"3", Some(12)));
    assert_eq!(acks(&mut s, 0), [""; 0]);
    assert_eq!(acks(&mut s, 3), ["puback 10"]);
    let work = s.next_work().unwrap();
    assert!(matches!(&work, Work::Reported { rid, if_version: 0, .. } if rid == "1"));
    let answer =
        Done::Twin { rid: "1".into(), status: 204, version: Some(5), body: String::new(), ack: Some(id(11)) };
    assert_eq!(done(&mut s, answer), ["publish 1 $iothub/twin/res/204/?$rid=1&$version=5 "]);
    assert_eq!(acks(&mut s, 3), ["puback 11", "puback 12"]);
    assert!(s.next_work().is_none());
}

/// Who doesn't listen for twin answers gets none, and the request is done all the same.
#[test]
fn twin_answers_need_a_subscription() {
    let mut s = session(&[]);
    take(&mut s, publish("$iothub/twin/GET/?$rid=9", b" ", None));
    assert_eq!(s.next_work(), Some(Work::TwinGet { rid: "9".into(), ack: None }));
    let answer = Done::Twin { rid: "9".into(), status: 200, version: None, body: "{}".into(), ack: None };
    assert_eq!(done(&mut s, answer), [""; 0]);
}

/// Several filters in one packet get a code each: at most QoS 1, and a failure for a foreign one.
/// [MQTT-3.8.4-5], [MQTT-3.9.3-2]
#[test]
fn subscribing() {
    let mut s = session(&[]);
    let filters = [
        (COMMANDS, SubscribeOptions::with_qos(QoS::ExactlyOnce)),
        ("devices/other/messages/devicebound/#", SubscribeOptions::with_qos(QoS::AtLeastOnce)),
        (METHODS, SubscribeOptions::with_qos(QoS::AtMostOnce)),
    ];
    let mut bytes = Vec::new();
    encode::subscribe(&mut bytes, Version::V311, id(5), None, &filters).unwrap();
    let packet = decode(&bytes, Some(Version::V311), &Limits::default()).unwrap();
    assert!(take(&mut s, packet).is_empty());
    let Some(Work::Subscribe { id, add, codes }) = s.next_work() else { panic!("no work") };
    let added: Vec<(&str, u32)> = add.iter().map(|row| (row.filter.as_str(), row.qos)).collect();
    assert_eq!(added, [(COMMANDS, 1), (METHODS, 0)]);
    assert_eq!(done(&mut s, Done::Subscribed { id, add, codes }), ["suback 5 [1, 128, 0]"]);
    assert_eq!(s.next_work(), Some(Work::Commands { after: 0, limit: 2 }));
}

fn command(sequence: u64) -> CommandRow {
    CommandRow { sequence, body: format!("c{sequence}").into_bytes().into(), ..CommandRow::default() }
}

/// Commands come within the window, are completed by PUBACK, and then the next are looked for.
#[test]
fn commands() {
    let mut s = session(&[(COMMANDS, 1)]);
    assert_eq!(s.next_work(), Some(Work::Commands { after: 0, limit: 2 }));
    let sent = done(&mut s, Done::Commands(vec![command(10), command(20)]));
    let topic = "devices/d/messages/devicebound/%24.to=%2Fdevices%2Fd%2Fmessages%2FdeviceBound&%24.exp=1970-01-01T00%3A00%3A00.0000000Z";
    assert_eq!(sent, [format!("publish 1 {topic} c10"), format!("publish 2 {topic} c20")]);
    assert_eq!(s.next_work(), None, "the window is full");
    take(&mut s, Packet::PubAck(fleetline_mqtt::Ack { packet_id: id(1), reason: 0 }));
    assert_eq!(s.next_work(), Some(Work::Complete { sequence: 10 }));
    done(&mut s, Done::Completed);
    assert_eq!(s.next_work(), Some(Work::Commands { after: 20, limit: 1 }));
    take(&mut s, Packet::PubAck(fleetline_mqtt::Ack { packet_id: id(77), reason: 0 }));
    assert_eq!(s.next_work(), None, "an unknown id is nothing");
}

/// Desired changes come once each, with their version, and only to who listens.
#[test]
fn desired_changes() {
    let change = |version| DesiredChange { version, patch: Bytes::from_static(b"{\"a\":1}") };
    let mut s = session(&[(DESIRED, 0)]);
    s.want_desired();
    assert_eq!(s.next_work(), Some(Work::Desired { after: 3 }));
    let sent = done(&mut s, Done::Desired(vec![change(3), change(4), change(5)]));
    let line = |version| {
        format!(
            "publish 0 $iothub/twin/PATCH/properties/desired/?$version={version} {{\"$version\":{version},\"a\":1}}"
        )
    };
    assert_eq!(sent, [line(4), line(5)]);
    assert_eq!(done(&mut s, Done::Desired(vec![change(5)])), [""; 0]);
    let mut out = Vec::new();
    assert!(s.on_done(Done::Stale, &mut out).is_err());
    let mut deaf = session(&[]);
    assert_eq!(done(&mut deaf, Done::Desired(vec![change(4)])), [""; 0]);
}

fn method(name: &str) -> (MethodJob, oneshot::Receiver<MethodAnswer>) {
    let (answer, answered) = oneshot::channel();
    let call = MethodCall {
        key: DeviceKey::device("d"),
        place: ConnectionPlace::default(),
        epoch: 7,
        name: name.into(),
        payload: Bytes::from_static(b"null"),
        timeout_ms: 1000,
    };
    (MethodJob { call, answer }, answered)
}

/// A method goes to who listens, its answer back to who asked; a second answer is nothing.
#[test]
fn methods() {
    let mut s = session(&[(METHODS, 1)]);
    let (job, mut answered) = method("reboot");
    let mut out = Vec::new();
    s.on_method(job, &mut out);
    assert_eq!(read(&out), ["publish 0 $iothub/methods/POST/reboot/?$rid=1 null"]);
    for _ in 0..2 {
        take(&mut s, publish("$iothub/methods/res/-5/?$rid=1", b"{}", Some(3)));
    }
    let answer = answered.try_recv().unwrap();
    assert_eq!(
        (answer.outcome, answer.status, answer.payload.as_ref()),
        (MethodAnswer::DONE, -5, b"{}".as_ref())
    );
    assert_eq!(acks(&mut s, 0), ["puback 3", "puback 3"]);
    let mut deaf = session(&[]);
    let (job, mut answered) = method("reboot");
    deaf.on_method(job, &mut Vec::new());
    assert_eq!(answered.try_recv().unwrap().outcome, MethodAnswer::NOT_ONLINE);
}

/// What may not come ends the connection, with the reason that MQTT 5 has for it.
#[test]
fn violations() {
    let qos2 = Publish {
        dup: false,
        qos: QoS::ExactlyOnce,
        retain: false,
        topic: "devices/d/messages/events/",
        packet_id: Some(id(1)),
        payload: b"",
        properties: PublishProperties::default(),
    };
    let alias = Publish {
        qos: QoS::AtMostOnce,
        packet_id: None,
        properties: PublishProperties { topic_alias: Some(1), ..PublishProperties::default() },
        ..qos2
    };
    let ack = fleetline_mqtt::Ack { packet_id: id(1), reason: 0 };
    let rows = [
        (Packet::Publish(qos2), reason::QOS_NOT_SUPPORTED),
        (Packet::Publish(alias), reason::TOPIC_ALIAS_INVALID),
        (publish("devices/other/messages/events/", b"", None), reason::TOPIC_NAME_INVALID),
        (publish("free/topic", b"", None), reason::TOPIC_NAME_INVALID),
        (Packet::PubRel(ack), reason::PROTOCOL_ERROR),
        (Packet::PingResp, reason::PROTOCOL_ERROR),
    ];
    for (packet, expected) in rows {
        let close = session(&[]).on_packet(packet, &mut Vec::new()).unwrap_err();
        assert_eq!((close.reason, close.graceful), (expected, false));
    }
    let good_bye = Packet::Disconnect { reason: 0, session_expiry: None };
    assert!(session(&[]).on_packet(good_bye, &mut Vec::new()).unwrap_err().graceful);
}

/// A client that doesn't wait for answers is not read on: nothing grows without a bound.
#[test]
fn bounds() {
    let mut s = session(&[]);
    for n in 1..=8 {
        assert!(s.has_room());
        take(&mut s, publish("devices/d/messages/events/", b"", Some(n)));
    }
    assert!(!s.has_room());
    acks(&mut s, 1);
    assert!(s.has_room());
    for n in 0..WORK_MAX {
        assert!(s.has_room(), "{n}");
        take(&mut s, publish("$iothub/twin/GET/?$rid=1", b"", None));
    }
    assert!(!s.has_room());
}
