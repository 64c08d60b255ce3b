//! Coming back on another socket: single steps, and a whole talk with a client that counts as the
//! public JavaScript client does, over sockets that break anywhere.

use std::collections::VecDeque;

use bytes::Bytes;
use fleetline_signalr::negotiate::Transport;
use fleetline_signalr::session::{
    CloseReason, Event, NotResumable, Options, Output, Sent, Session, StatefulReconnect,
};
use fleetline_signalr::{Decoder, Encoded, Limits, Message, Protocol, SequenceError};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::kit::{BOTH, invocation};

fn resumable(options: Options, protocol: Protocol) -> Session {
    let mut session = Session::new(options, Transport::WebSockets, StatefulReconnect::Negotiated, 0);
    let request = format!("{{\"protocol\":\"{}\",\"version\":2}}\x1e", protocol.name());
    session.receive(0, request.into());
    let opened = Event::Opened { protocol, is_resumable: true };
    let outputs = drain(&mut session, 0);
    assert_eq!(outputs, [Output::Send(Bytes::from_static(b"{}\x1e")), Output::Event(opened)]);
    session
}

fn json() -> Session {
    resumable(Options::default(), Protocol::Json)
}

fn drain(session: &mut Session, now_ms: u64) -> Vec<Output> {
    std::iter::from_fn(|| session.poll(now_ms)).collect()
}

fn say(session: &mut Session, now_ms: u64, messages: &[Message]) -> Vec<Output> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| message.encode(Protocol::Json, &mut bytes).unwrap());
    session.receive(now_ms, bytes.into());
    drain(session, now_ms)
}

fn call(number: u64) -> Encoded {
    Encoded::invocation("t", format!("[{number}]").into()).unwrap()
}

fn client_call(number: u64) -> Message {
    Message::Invocation(invocation(None, "c", &format!("[{number}]")))
}

fn called(number: u64) -> Output {
    Output::Event(Event::Invocation(invocation(None, "c", &format!("[{number}]"))))
}

fn sent(message: &Message) -> Output {
    Output::Send(message.to_bytes(Protocol::Json).unwrap())
}

fn sequence(sequence_id: u64) -> Message {
    Message::Sequence { sequence_id }
}

fn ack(sequence_id: u64) -> Message {
    Message::Ack { sequence_id }
}

#[test]
fn only_who_negotiated_it_over_a_websocket_in_version_2() {
    for (transport, reconnect, version, expected) in [
        (Transport::WebSockets, StatefulReconnect::Negotiated, 2, true),
        (Transport::WebSockets, StatefulReconnect::Negotiated, 1, false),
        (Transport::WebSockets, StatefulReconnect::Off, 2, false),
        (Transport::LongPolling, StatefulReconnect::Negotiated, 2, false),
    ] {
        let mut session = Session::new(Options::default(), transport, reconnect, 0);
        session.receive(0, format!("{{\"protocol\":\"json\",\"version\":{version}}}\x1e").into());
        let outputs = drain(&mut session, 0);
        assert!(matches!(
            outputs[1],
            Output::Event(Event::Opened { is_resumable, .. }) if is_resumable == expected
        ));
    }
}

#[test]
fn missed_messages_are_sent_again_behind_sequence() {
    let mut session = json();
    assert_eq!((session.send(0, &call(1)), session.send(0, &call(2))), (Sent::Taken, Sent::Taken));
    drain(&mut session, 0);
    assert_eq!(say(&mut session, 1, &[ack(1)]), [Output::Event(Event::Ack { sequence_id: 1 })]);
    session.on_socket_lost(10);
    assert_eq!(drain(&mut session, 10), [Output::Event(Event::Suspended)]);
    // What is sent meanwhile is kept.
    assert_eq!(session.send(11, &call(3)), Sent::Taken);
    assert_eq!(drain(&mut session, 11), []);
    session.on_new_socket(20).unwrap();
    assert_eq!(
        drain(&mut session, 20),
        [
            Output::Event(Event::Resumed),
            sent(&sequence(2)),
            Output::Send(call(2).json()),
            Output::Send(call(3).json()),
        ]
    );
    // Until the client has said where it goes on, nothing of it counts.
    assert_eq!(say(&mut session, 21, &[Message::Ping, client_call(1), ack(3)]), []);
    assert_eq!(say(&mut session, 21, &[sequence(1), client_call(1)]), [called(1)]);
    assert_eq!(say(&mut session, 22, &[ack(3)]), [Output::Event(Event::Ack { sequence_id: 3 })]);
}

/// A client that went back to number 1 and has acknowledged 2 since gives up if we go on at 3: whether it
/// has passed what was sent again is known only from a message that is new.
#[test]
fn what_was_sent_again_is_kept_until_something_new_is_acknowledged() {
    let mut session = json();
    assert_eq!((session.send(0, &call(1)), session.send(0, &call(2))), (Sent::Taken, Sent::Taken));
    let resume = |session: &mut Session| {
        session.on_socket_lost(1);
        session.on_new_socket(2).unwrap();
        let outputs = drain(session, 2);
        say(session, 3, &[sequence(1)]);
        outputs[2..].to_vec()
    };
    let both = [Output::Send(call(1).json()), Output::Send(call(2).json())];
    assert_eq!(resume(&mut session), [&[sent(&sequence(1))], &both[..]].concat());
    say(&mut session, 4, &[ack(2)]);
    assert_eq!(resume(&mut session), [&[sent(&sequence(1))], &both[..]].concat());
    assert_eq!(session.send(5, &call(3)), Sent::Taken);
    say(&mut session, 6, &[ack(3)]);
    assert_eq!(resume(&mut session), [sent(&sequence(4))]);
}

/// A client that never gets that far doesn't fill the memory: at twice the bound the old ones go.
#[test]
fn what_is_kept_is_bounded() {
    let length = call(1).json().len();
    let options = Options { replay_bytes_max: 3 * length, ..Options::default() };
    let mut session = resumable(options, Protocol::Json);
    let mut most = 0;
    for number in 1..=9 {
        while session.send(0, &call(number)) == Sent::Taken {}
        session.on_socket_lost(1);
        session.on_new_socket(2).unwrap();
        let outputs = drain(&mut session, 2);
        let again = outputs.iter().filter(|output| matches!(output, Output::Send(_))).count() - 1;
        most = most.max(again);
        say(&mut session, 3, &[sequence(1)]);
        say(&mut session, 3, &[ack(3 * number)]);
    }
    assert_eq!(most, 6);
}

#[test]
fn what_was_processed_is_dropped() {
    let mut session = json();
    assert_eq!(say(&mut session, 0, &[client_call(1), client_call(2)]), [called(1), called(2)]);
    session.on_socket_lost(1);
    session.on_new_socket(2).unwrap();
    drain(&mut session, 2);
    let again = [sequence(1), client_call(1), client_call(2), client_call(3)];
    assert_eq!(say(&mut session, 3, &again), [called(3)]);
}

#[test]
fn half_a_message_of_the_old_socket_is_forgotten() {
    let mut session = json();
    session.receive(0, Bytes::from_static(b"{\"type\":1,\"tar"));
    drain(&mut session, 0);
    session.on_socket_lost(1);
    session.receive(1, Bytes::from_static(b"get\":\"c\",\"arguments\":[1]}\x1e"));
    session.on_new_socket(2).unwrap();
    drain(&mut session, 2);
    assert_eq!(say(&mut session, 3, &[sequence(1), client_call(1)]), [called(1)]);
}

/// A second of messages is acknowledged once; pings aren't counted.
#[test]
fn acknowledgements_are_at_most_one_a_second() {
    let mut session = json();
    say(&mut session, 100, &[client_call(1), Message::Ping]);
    assert_eq!(session.deadline_ms(), Some(1_100));
    say(&mut session, 900, &[client_call(2)]);
    session.on_deadline(1_099);
    assert_eq!(drain(&mut session, 1_099), []);
    session.on_deadline(1_100);
    assert_eq!(drain(&mut session, 1_100), [sent(&ack(2))]);
    say(&mut session, 1_200, &[Message::Ping]);
    assert_eq!(session.deadline_ms(), Some(16_100));
}

#[test]
fn full_buffer_holds_senders_back() {
    let length = call(1).json().len();
    let mut session =
        resumable(Options { replay_bytes_max: 2 * length, ..Options::default() }, Protocol::Json);
    assert_eq!(session.send(0, &call(1)), Sent::Taken);
    assert_eq!(session.send(0, &call(2)), Sent::Taken);
    assert_eq!(session.send(0, &call(3)), Sent::Full);
    // What doesn't count is sent all the same.
    assert_eq!(session.send(0, &Encoded::message(Message::Ping).unwrap()), Sent::Taken);
    assert_eq!(drain(&mut session, 0).len(), 3);
    let acked = Output::Event(Event::Ack { sequence_id: 1 });
    assert_eq!(say(&mut session, 1, &[ack(1)]), [acked, Output::Event(Event::Drained)]);
    assert_eq!(session.send(1, &call(3)), Sent::Taken);
    drain(&mut session, 1);
    // Nobody waits now.
    assert_eq!(say(&mut session, 2, &[ack(2)]), [Output::Event(Event::Ack { sequence_id: 2 })]);
}

/// An answer that finds no room isn't lost: its invocation stays open.
#[test]
fn completion_waits_for_room() {
    let mut session = resumable(Options { replay_bytes_max: 1, ..Options::default() }, Protocol::Json);
    let asked = Message::Invocation(invocation(Some("1"), "c", "[]"));
    assert_eq!(say(&mut session, 0, std::slice::from_ref(&asked)).len(), 1);
    assert_eq!(session.send(0, &call(1)), Sent::Taken);
    let void = || fleetline_signalr::Outcome::Void;
    assert_eq!(session.complete(0, "1", void()), Sent::Full);
    drain(&mut session, 0);
    say(&mut session, 1, &[ack(1)]);
    assert_eq!(session.complete(1, "1", void()), Sent::Taken);
    assert_eq!(session.complete(1, "1", void()), Sent::Unknown);
    drain(&mut session, 1);
    // A client that wants refusals and acknowledges nothing is not kept.
    let second = Message::Invocation(invocation(Some("2"), "c", "[]"));
    let outputs = say(&mut session, 2, &[second.clone(), second]);
    assert!(matches!(outputs.last(), Some(Output::Close(CloseReason::Unacknowledged))), "{outputs:?}");
}

#[test]
fn grace_runs_out() {
    let mut session = json();
    session.on_socket_lost(1_000);
    drain(&mut session, 1_000);
    assert_eq!(session.deadline_ms(), Some(16_000));
    session.on_socket_lost(5_000);
    assert_eq!(session.deadline_ms(), Some(16_000));
    session.on_deadline(15_999);
    assert_eq!(drain(&mut session, 15_999), []);
    session.on_deadline(16_000);
    assert_eq!(drain(&mut session, 16_000), [Output::Close(CloseReason::SocketLost)]);
    assert_eq!(session.on_new_socket(16_001), Err(NotResumable));
}

/// The client may be back before we notice that its old socket is dead.
#[test]
fn new_socket_before_the_old_one_is_missed() {
    let mut session = json();
    assert_eq!(session.send(0, &call(1)), Sent::Taken);
    session.on_new_socket(1).unwrap();
    assert_eq!(
        drain(&mut session, 1),
        [Output::Event(Event::Resumed), sent(&sequence(1)), Output::Send(call(1).json())]
    );
}

#[test]
fn impossible_numbers_end_the_connection() {
    for (message, error) in [
        (ack(1), SequenceError::AckAhead { acked: 1, sent: 0 }),
        (sequence(2), SequenceError::SequenceAhead { sequence: 2, expected: 1 }),
        (sequence(u64::MAX), SequenceError::SequenceAhead { sequence: u64::MAX, expected: 1 }),
        (sequence(0), SequenceError::SequenceZero),
    ] {
        let mut session = json();
        let outputs = say(&mut session, 0, &[message]);
        let close = Message::Close { error: Some(error.to_string()), allow_reconnect: false };
        assert_eq!(outputs, [sent(&close), Output::Close(CloseReason::Sequence(error))]);
    }
}

/// A client that counts as `MessageBuffer` of the JavaScript client 10.0 does.
struct Client {
    protocol: Protocol,
    decoder: Decoder,
    kept: VecDeque<(u64, Vec<u8>)>,
    total: u64,
    next: u64,
    latest: u64,
    reconnecting: bool,
    got: Vec<u64>,
}

impl Client {
    fn new(protocol: Protocol) -> Client {
        Client {
            protocol,
            decoder: Decoder::new(protocol, Limits::default()),
            kept: VecDeque::new(),
            total: 0,
            next: 1,
            latest: 0,
            reconnecting: false,
            got: Vec::new(),
        }
    }

    fn call(&mut self) -> Vec<u8> {
        self.total += 1;
        let bytes = client_call(self.total).to_bytes(self.protocol).unwrap().to_vec();
        self.kept.push_back((self.total, bytes.clone()));
        bytes
    }

    fn resend(&mut self) -> Vec<u8> {
        self.reconnecting = true;
        self.decoder = Decoder::new(self.protocol, Limits::default());
        let first = self.kept.front().map_or(self.total + 1, |(number, _)| *number);
        let mut out = sequence(first).to_bytes(self.protocol).unwrap().to_vec();
        self.kept.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
        out
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.decoder.feed(Bytes::copy_from_slice(bytes));
        while let Some(message) = self.decoder.next().unwrap() {
            match message {
                Message::Sequence { sequence_id } => {
                    self.reconnecting = false;
                    assert!(sequence_id <= self.next, "the client would stop");
                    self.next = sequence_id;
                }
                _ if self.reconnecting => {}
                Message::Ack { sequence_id } => {
                    self.kept.retain(|(number, _)| *number > sequence_id);
                }
                Message::Invocation(call) => {
                    self.next += 1;
                    if self.next - 1 > self.latest {
                        self.latest = self.next - 1;
                        let number = call.arguments.values().unwrap()[0].to_json().unwrap();
                        self.got.push(std::str::from_utf8(&number).unwrap().parse().unwrap());
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    ServerSends,
    ClientSends,
    /// Bytes that are under way arrive, this many at most.
    ToClient(Index),
    ToServer(Index),
    ClientAcks,
    ServerAcks,
    /// What is under way is lost.
    Break,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::ServerSends),
        4 => Just(Step::ClientSends),
        4 => any::<Index>().prop_map(Step::ToClient),
        4 => any::<Index>().prop_map(Step::ToServer),
        1 => Just(Step::ClientAcks),
        1 => Just(Step::ServerAcks),
        1 => Just(Step::Break),
    ]
}

/// Both ends, and what is under way between them.
struct Talk {
    session: Session,
    client: Client,
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    now_ms: u64,
    sent: u64,
    got: Vec<u64>,
}

impl Talk {
    fn settle(&mut self) {
        while let Some(output) = self.session.poll(self.now_ms) {
            match output {
                Output::Send(bytes) => self.to_client.extend_from_slice(&bytes),
                Output::Event(Event::Invocation(call)) => {
                    let number = call.arguments.values().unwrap()[0].to_json().unwrap();
                    self.got.push(std::str::from_utf8(&number).unwrap().parse().unwrap());
                }
                Output::Event(_) => {}
                Output::Close(reason) => panic!("{reason}"),
            }
        }
    }

    fn reconnect(&mut self) {
        self.session.on_socket_lost(self.now_ms);
        self.settle();
        self.to_client.clear();
        self.to_server = self.client.resend();
        self.session.on_new_socket(self.now_ms).unwrap();
        self.settle();
    }

    fn deliver_to_client(&mut self, count: usize) {
        let bytes: Vec<u8> = self.to_client.drain(..count).collect();
        self.client.receive(&bytes);
    }

    fn deliver_to_server(&mut self, count: usize) {
        let bytes: Vec<u8> = self.to_server.drain(..count).collect();
        self.session.receive(self.now_ms, bytes.into());
        self.settle();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::ServerSends => {
                self.sent += 1;
                assert_eq!(self.session.send(self.now_ms, &call(self.sent)), Sent::Taken);
                self.settle();
            }
            Step::ClientSends => {
                let bytes = self.client.call();
                self.to_server.extend_from_slice(&bytes);
            }
            Step::ToClient(count) => self.deliver_to_client(count.index(self.to_client.len() + 1)),
            Step::ToServer(count) => self.deliver_to_server(count.index(self.to_server.len() + 1)),
            Step::ClientAcks => {
                if self.client.latest > 0 {
                    let bytes = ack(self.client.latest).to_bytes(self.client.protocol).unwrap();
                    self.to_server.extend_from_slice(&bytes);
                }
            }
            Step::ServerAcks => {
                self.now_ms += 1_000;
                self.session.on_deadline(self.now_ms);
                self.settle();
            }
            Step::Break => self.reconnect(),
        }
    }
}

proptest! {
    /// Each side gets each message of the other once, in order.
    #[test]
    fn nothing_is_lost_or_doubled(steps in vec(step(), 0..80)) {
        for protocol in BOTH {
            let options = Options {
                keep_alive_ms: u64::MAX,
                client_timeout_ms: u64::MAX,
                ..Options::default()
            };
            let mut talk = Talk {
                session: resumable(options, protocol),
                client: Client::new(protocol),
                to_client: Vec::new(),
                to_server: Vec::new(),
                now_ms: 0,
                sent: 0,
                got: Vec::new(),
            };
            steps.iter().for_each(|step| talk.step(step));
            talk.reconnect();
            talk.deliver_to_client(talk.to_client.len());
            talk.deliver_to_server(talk.to_server.len());
            prop_assert_eq!(&talk.client.got, &(1..=talk.sent).collect::<Vec<_>>());
            prop_assert_eq!(&talk.got, &(1..=talk.client.total).collect::<Vec<_>>());
        }
    }
}
