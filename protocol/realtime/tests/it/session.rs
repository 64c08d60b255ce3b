//! A connection's life in scripts: bytes and moments in, bytes and events out.

use bytes::Bytes;
use fleetline_signalr::handshake::HandshakeError;
use fleetline_signalr::negotiate::Transport;
use fleetline_signalr::session::{
    CloseReason, Event, NotResumable, Options, Output, Sent, Session, StatefulReconnect,
};
use fleetline_signalr::{DecodeError, Encoded, Limits, Message, Outcome, Protocol, StreamItem};

use crate::kit::{BOTH, completion, invocation, value};

const SECOND: u64 = 1_000;

fn session() -> Session {
    Session::new(Options::default(), Transport::WebSockets, StatefulReconnect::Off, 0)
}

fn receive(session: &mut Session, now_ms: u64, text: &str) -> Vec<Output> {
    session.receive(now_ms, Bytes::copy_from_slice(text.as_bytes()));
    drain(session, now_ms)
}

fn drain(session: &mut Session, now_ms: u64) -> Vec<Output> {
    std::iter::from_fn(|| session.poll(now_ms)).collect()
}

fn open(session: &mut Session, now_ms: u64) {
    let outputs = receive(session, now_ms, "{\"protocol\":\"json\",\"version\":1}\x1e");
    let opened = Event::Opened { protocol: Protocol::Json, is_resumable: false };
    assert_eq!(outputs, [send("{}\x1e"), Output::Event(opened)]);
}

fn opened() -> Session {
    let mut session = session();
    open(&mut session, 0);
    session
}

fn send(text: &str) -> Output {
    Output::Send(Bytes::copy_from_slice(text.as_bytes()))
}

fn sent(message: &Message) -> Output {
    Output::Send(message.to_bytes(Protocol::Json).unwrap())
}

#[test]
fn handshake_and_what_follows_in_its_frame() {
    for protocol in BOTH {
        let mut session = session();
        assert_eq!(session.protocol(), None);
        let mut bytes = format!("{{\"protocol\":\"{}\",\"version\":1}}\x1e", protocol.name()).into_bytes();
        Message::Ping.encode(protocol, &mut bytes).unwrap();
        session.receive(0, bytes.into());
        let outputs = drain(&mut session, 0);
        let opened = Event::Opened { protocol, is_resumable: false };
        assert_eq!(outputs, [send("{}\x1e"), Output::Event(opened), Output::Event(Event::Ping)]);
        assert_eq!(session.protocol(), Some(protocol));
    }
}

#[test]
fn bad_handshakes_are_answered_and_end() {
    for (text, error) in [
        ("{\"protocol\":\"xml\",\"version\":1}\x1e", HandshakeError::UnknownProtocol),
        ("{\"type\":6}\x1e", HandshakeError::NotHandshake),
    ] {
        let mut session = session();
        let outputs = receive(&mut session, 0, text);
        let answer = format!("{{\"error\":\"{error}\"}}\x1e");
        assert_eq!(outputs, [send(&answer), Output::Close(CloseReason::Handshake(error))]);
        assert!(session.is_closed());
        assert_eq!(receive(&mut session, 1, "{\"type\":6}\x1e"), []);
    }
}

#[test]
fn handshake_that_does_not_come() {
    let mut session = session();
    assert_eq!(session.deadline_ms(), Some(15 * SECOND));
    session.on_deadline(15 * SECOND - 1);
    assert_eq!(drain(&mut session, 0), []);
    session.on_deadline(15 * SECOND);
    assert_eq!(
        drain(&mut session, 0),
        [
            send("{\"error\":\"handshake timed out\"}\x1e"),
            Output::Close(CloseReason::Handshake(HandshakeError::Timeout))
        ]
    );
    assert_eq!(session.deadline_ms(), None);
}

#[test]
fn nothing_is_sent_before_the_handshake_or_after_the_end() {
    let hello = Encoded::invocation("t", Bytes::from_static(b"[]")).unwrap();
    let mut session = session();
    assert_eq!(session.send(0, &hello), Sent::NotOpen);
    assert_eq!(session.complete(0, "1", Outcome::Void), Sent::NotOpen);
    open(&mut session, 0);
    assert_eq!(session.send(0, &hello), Sent::Taken);
    session.close(None, false);
    assert_eq!(session.send(0, &hello), Sent::NotOpen);
    assert_eq!(
        drain(&mut session, 0),
        [Output::Send(hello.json()), send("{\"type\":7}\x1e"), Output::Close(CloseReason::ServerClosed)]
    );
}

/// A ping goes out after 15 s without anything else, and only then.
#[test]
fn keep_alive() {
    let mut session = opened();
    assert_eq!(session.deadline_ms(), Some(15 * SECOND));
    receive(&mut session, 10 * SECOND, "{\"type\":6}\x1e");
    let hello = Encoded::invocation("t", Bytes::from_static(b"[]")).unwrap();
    assert_eq!(session.send(10 * SECOND, &hello), Sent::Taken);
    drain(&mut session, 10 * SECOND);
    session.on_deadline(15 * SECOND);
    assert_eq!(drain(&mut session, 15 * SECOND), []);
    assert_eq!(session.deadline_ms(), Some(25 * SECOND));
    session.on_deadline(25 * SECOND);
    assert_eq!(drain(&mut session, 25 * SECOND), [send("{\"type\":6}\x1e")]);
    assert_eq!(session.deadline_ms(), Some(40 * SECOND));
}

#[test]
fn silent_client_is_told_to_come_back() {
    let mut session = opened();
    session.on_deadline(29 * SECOND);
    assert_eq!(drain(&mut session, 29 * SECOND), [send("{\"type\":6}\x1e")]);
    session.on_deadline(30 * SECOND);
    let close = Message::Close { error: Some("client timed out".to_owned()), allow_reconnect: true };
    assert_eq!(drain(&mut session, 30 * SECOND), [sent(&close), Output::Close(CloseReason::ClientTimeout)]);
}

/// Polls and their time-outs show who is there; a ping would wake a poll for nothing.
#[test]
fn long_polling_has_no_pings() {
    let mut session =
        Session::new(Options::default(), Transport::LongPolling, StatefulReconnect::Negotiated, 0);
    open(&mut session, 0);
    assert_eq!(session.deadline_ms(), None);
    session.on_deadline(1_000 * SECOND);
    assert_eq!(drain(&mut session, 0), []);
    assert_eq!(session.on_new_socket(0), Err(NotResumable));
}

#[test]
fn invocations_and_their_answers() {
    let mut session = opened();
    let call = |id| Message::Invocation(invocation(id, "t", "[1]"));
    let text = String::from_utf8(
        [call(Some("1")), call(None)].iter().flat_map(|one| one.to_bytes(Protocol::Json).unwrap()).collect(),
    )
    .unwrap();
    assert_eq!(
        receive(&mut session, 0, &text),
        [
            Output::Event(Event::Invocation(invocation(Some("1"), "t", "[1]"))),
            Output::Event(Event::Invocation(invocation(None, "t", "[1]"))),
        ]
    );
    assert_eq!(session.complete(1, "2", Outcome::Void), Sent::Unknown);
    assert_eq!(session.complete(1, "1", Outcome::Result(value("[7]"))), Sent::Taken);
    assert_eq!(session.complete(1, "1", Outcome::Void), Sent::Unknown);
    let answer = completion("1", Outcome::Result(value("[7]")));
    assert_eq!(drain(&mut session, 1), [sent(&answer)]);
}

#[test]
fn streams_both_ways() {
    let mut session = opened();
    let outputs = receive(
        &mut session,
        0,
        concat!(
            "{\"type\":4,\"invocationId\":\"1\",\"target\":\"t\",\"arguments\":[],\"streamIds\":[\"s\"]}\x1e",
            "{\"type\":2,\"invocationId\":\"s\",\"item\":5}\x1e{\"type\":3,\"invocationId\":\"s\"}\x1e",
            "{\"type\":5,\"invocationId\":\"9\"}\x1e{\"type\":5,\"invocationId\":\"1\"}\x1e",
        ),
    );
    let mut expected = invocation(Some("1"), "t", "[]");
    expected.stream_ids = vec!["s".to_owned()];
    let item = StreamItem { invocation_id: "s".to_owned(), item: value("5") };
    let Message::Completion(end) = completion("s", Outcome::Void) else { panic!() };
    assert_eq!(
        outputs,
        [
            Event::StreamInvocation(expected),
            Event::StreamItem(item),
            Event::CompletionFromClient(end),
            Event::CancelInvocation { invocation_id: "1".to_owned() },
        ]
        .map(Output::Event)
    );
    let item = |id: &str| StreamItem { invocation_id: id.to_owned(), item: value("6") };
    assert_eq!(session.send_item(0, item("9")), Sent::Unknown);
    assert_eq!(session.send_item(0, item("1")), Sent::Taken);
    assert_eq!(session.complete(0, "1", Outcome::Void), Sent::Taken);
    assert_eq!(session.send_item(0, item("1")), Sent::Unknown);
    let outputs = drain(&mut session, 0);
    assert_eq!(outputs, [sent(&Message::StreamItem(item("1"))), sent(&completion("1", Outcome::Void))]);
}

#[test]
fn too_many_open_invocations_are_refused() {
    let options = Options { open_invocations_max: 1, ..Options::default() };
    let mut session = Session::new(options, Transport::WebSockets, StatefulReconnect::Off, 0);
    open(&mut session, 0);
    let call =
        |id: &str| format!("{{\"type\":1,\"invocationId\":\"{id}\",\"target\":\"t\",\"arguments\":[]}}\x1e");
    assert_eq!(receive(&mut session, 0, &call("1")).len(), 1);
    for (id, text) in [("1", "the invocation id is already in use"), ("2", "too many invocations are open")] {
        let refused = completion(id, Outcome::Error(text.to_owned()));
        assert_eq!(receive(&mut session, 0, &call(id)), [sent(&refused)]);
    }
    assert_eq!(session.complete(0, "1", Outcome::Void), Sent::Taken);
    drain(&mut session, 0);
    assert_eq!(
        receive(&mut session, 0, &call("2")),
        [Output::Event(Event::Invocation(invocation(Some("2"), "t", "[]")))]
    );
}

/// A result that JSON can't say ends the invocation with an error instead.
#[test]
fn unsayable_result_becomes_an_error() {
    let mut session = opened();
    receive(&mut session, 0, "{\"type\":1,\"invocationId\":\"1\",\"target\":\"t\",\"arguments\":[]}\x1e");
    let extension = fleetline_signalr::Value::msgpack(Bytes::from_static(&[0xd4, 5, 0])).unwrap();
    assert_eq!(session.complete(0, "1", Outcome::Result(extension)), Sent::Taken);
    let refused = Outcome::Error("messagepack extension 5 has no form in json".to_owned());
    assert_eq!(drain(&mut session, 0), [sent(&completion("1", refused))]);
}

#[test]
fn hostile_input_is_answered_with_close() {
    let long_id = "i".repeat(257);
    let over = Limits { message_bytes_max: 1_000, ..Limits::default() };
    for (text, reason) in [
        (
            "{\"type\":3,\"invocationId\":\"1\",\"result\":1,\"error\":\"e\"}\x1e".to_owned(),
            CloseReason::Decode(DecodeError::ResultAndError),
        ),
        (
            format!("{}\x1e", "x".repeat(1_001)),
            CloseReason::Decode(DecodeError::TooLong { bytes: 1_001, limit: 1_000 }),
        ),
        (
            format!("{{\"type\":1,\"invocationId\":\"{long_id}\",\"target\":\"t\",\"arguments\":[]}}\x1e"),
            CloseReason::InvocationId { bytes: 257, limit: 256 },
        ),
    ] {
        let options = Options { limits: over, ..Options::default() };
        let mut session = Session::new(options, Transport::WebSockets, StatefulReconnect::Off, 0);
        open(&mut session, 0);
        let outputs = receive(&mut session, 0, &format!("{text}{{\"type\":6}}\x1e"));
        let close = Message::Close { error: Some(reason.to_string()), allow_reconnect: false };
        assert_eq!(outputs, [sent(&close), Output::Close(reason)]);
        assert_eq!(receive(&mut session, 0, "{\"type\":6}\x1e"), []);
    }
}

#[test]
fn client_says_goodbye() {
    let mut session = opened();
    let outputs = receive(&mut session, 0, "{\"type\":7,\"error\":\"e\"}\x1e{\"type\":6}\x1e");
    let reason = CloseReason::ClientClosed { error: Some("e".to_owned()) };
    assert_eq!(outputs, [Output::Close(reason)]);
}

#[test]
fn lost_socket_is_the_end() {
    for is_open in [false, true] {
        let mut session = session();
        if is_open {
            open(&mut session, 0);
        }
        session.on_socket_lost(5);
        assert_eq!(drain(&mut session, 5), [Output::Close(CloseReason::SocketLost)]);
        assert_eq!(session.on_new_socket(6), Err(NotResumable));
        session.on_socket_lost(6);
        assert_eq!(drain(&mut session, 6), []);
    }
}
