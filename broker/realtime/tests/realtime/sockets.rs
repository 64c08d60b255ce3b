//! WebSockets: handshake, messages, keep-alive, what ends a connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fleetline_realtime::{Destination, Encoded, GroupAction, RealtimeLimits, RealtimeOptions};
use fleetline_signalr::{Message, Protocol};
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::client::{Client, Wants, client_token, negotiate, open, raw_token, serve};
use crate::world::{ENDPOINT, World};

pub fn message(target: &str, number: u64) -> Encoded {
    Encoded::invocation(target, Bytes::from(format!("[{number}]"))).expect("json")
}

fn all() -> Destination {
    Destination::All { excluded: Vec::new() }
}

#[tokio::test]
async fn everybody_gets_what_is_for_them_in_both_protocols() {
    let (world, nodes) = World::cluster(1).await;
    let node = &nodes[0];
    let mut json = Client::join(&world, node, "Chat", Some("alice")).await;
    let msgpack = Wants { protocol: Protocol::MessagePack, user: Some("bob"), ..Wants::of("chat") };
    let mut msgpack = Client::with(&world, node, &msgpack).await;
    let mut other = Client::join(&world, node, "other", Some("alice")).await;

    node.tier.publish("chat", &all(), message("first", 1)).expect("room");
    node.tier.publish("CHAT", &Destination::User("alice".into()), message("alice", 2)).expect("room");
    node.tier.publish("chat", &all(), message("last", 3)).expect("room");
    node.tier.publish("other", &all(), message("other", 4)).expect("room");
    assert_eq!(json.call().await, ("first".to_owned(), json!([1])));
    assert_eq!(json.call().await, ("alice".to_owned(), json!([2])));
    assert_eq!(json.call().await, ("last".to_owned(), json!([3])));
    assert_eq!(msgpack.call().await, ("first".to_owned(), json!([1])));
    assert_eq!(msgpack.call().await, ("last".to_owned(), json!([3])));
    assert_eq!(other.call().await, ("other".to_owned(), json!([4])));
    assert_eq!(world.calls.load(std::sync::atomic::Ordering::Relaxed), 0, "one node asks nobody");
}

#[tokio::test]
async fn groups_exclusions_and_connections() {
    let (world, nodes) = World::cluster(1).await;
    let node = &nodes[0];
    let mut ids = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (id, token) = negotiate(&world, node, "chat", None).await;
        clients.push(Client::with(&world, node, &Wants { id: Some(&token), ..Wants::of("chat") }).await);
        ids.push(id);
    }
    for id in &ids[..2] {
        let add = GroupAction::AddConnection { connection: id.clone(), group: "g".to_owned() };
        assert_eq!(node.tier.group_action("chat", add).await, Ok(true));
    }
    let publish =
        |to: &Destination, number| node.tier.publish("chat", to, message("m", number)).expect("room");
    publish(&Destination::Group { name: "g".into(), excluded: vec![ids[0].clone()] }, 1);
    publish(&Destination::Connection(ids[2].clone()), 2);
    publish(&Destination::Connection("nobody".into()), 3);
    publish(&Destination::All { excluded: vec![ids[1].clone()] }, 4);
    publish(&Destination::Group { name: "g".into(), excluded: Vec::new() }, 5);
    publish(&all(), 6);
    let mut got = Vec::new();
    for client in &mut clients {
        let mut numbers = vec![client.number().await];
        while numbers.last() != Some(&6) {
            numbers.push(client.number().await);
        }
        got.push(numbers);
    }
    assert_eq!(got, [vec![4, 5, 6], vec![1, 5, 6], vec![2, 4, 6]]);
    assert_eq!(node.tier.stats().connections, 3);
}

#[tokio::test]
async fn each_client_gets_a_publishers_messages_in_order() {
    let (world, nodes) = World::cluster(1).await;
    let node = &nodes[0];
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::join(&world, node, "chat", None).await);
    }
    for number in 0..2_000 {
        node.tier.publish("chat", &all(), message("m", number)).expect("room");
    }
    for client in &mut clients {
        for number in 0..2_000 {
            assert_eq!(client.number().await, number);
        }
    }
}

/// One client that doesn't read is dropped; the others get everything.
#[tokio::test]
async fn a_slow_client_is_dropped_and_others_go_on() {
    let world = World::new();
    let limits = RealtimeLimits { queue_bytes_max: 200_000, ..RealtimeLimits::default() };
    let node = world.start(1, RealtimeOptions { limits, ..RealtimeOptions::new(ENDPOINT) }).await;
    let mut fast = Client::join(&world, &node, "chat", None).await;
    let mut slow = Client::with(&world, &node, &Wants { pipe: 1_024, ..Wants::of("chat") }).await;
    let text = format!("[\"{}\"]", "x".repeat(10_000));
    for number in 0..200 {
        let big = Encoded::invocation("big", Bytes::from(text.clone())).expect("json");
        node.tier.publish("chat", &all(), big).expect("room");
        let (target, _) = fast.call().await;
        assert_eq!(target, "big", "{number}");
    }
    assert_eq!(node.tier.stats().slow_clients, 1);
    let end = loop {
        match slow.message().await {
            Ok(Message::Close { error, allow_reconnect }) => break (error, allow_reconnect),
            Ok(_) => {}
            Err(code) => panic!("closed with {code} and without a word"),
        }
    };
    assert_eq!(end, (Some("the client does not read fast enough".to_owned()), true));
    node.tier.publish("chat", &all(), message("after", 1)).expect("room");
    assert_eq!(fast.call().await.0, "after");
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_pings_and_ended() {
    let (world, nodes) = World::cluster(1).await;
    let node = &nodes[0];
    let mut client = Client::join(&world, node, "chat", None).await;
    let start = tokio::time::Instant::now();
    assert_eq!(client.message().await, Ok(Message::Ping));
    assert!((15..17).contains(&start.elapsed().as_secs()));
    client.say(&Message::Ping).await;
    // A message is as good as a ping.
    tokio::time::sleep(Duration::from_secs(10)).await;
    node.tier.publish("chat", &all(), message("m", 1)).expect("room");
    assert_eq!(client.number().await, 1);
    let before = tokio::time::Instant::now();
    assert_eq!(client.message().await, Ok(Message::Ping));
    assert!((14..17).contains(&before.elapsed().as_secs()), "{:?}", before.elapsed());
    // The client says nothing any more.
    let end = loop {
        match client.message().await {
            Ok(Message::Ping) => {}
            other => break other,
        }
    };
    assert!(matches!(end, Ok(Message::Close { allow_reconnect: true, .. })), "{end:?}");
    assert_eq!(client.frame().await, Err(1000));
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_client_without_handshake_is_ended() {
    let (world, nodes) = World::cluster(1).await;
    let socket = open(&world, &nodes[0], &Wants::of("chat")).await.expect("switched over");
    let mut client = Client::on(socket, Protocol::Json);
    let start = tokio::time::Instant::now();
    let refusal = client.frame().await.expect("refusal");
    assert!(String::from_utf8_lossy(&refusal).contains("timed out"));
    assert_eq!(start.elapsed().as_secs(), 15);
    assert_eq!(client.frame().await, Err(1000));
}

#[tokio::test(start_paused = true)]
async fn a_token_may_end_its_connection() {
    let (world, nodes) = World::cluster(1).await;
    let now = world.now_secs();
    let payload = json!({
        "aud": format!("{ENDPOINT}/client/?hub=chat"), "exp": now + 20, "asrs.s.coae": "true", "sub": "u",
    });
    let token = raw_token(&nodes[0].tier, &json!({ "alg": "HS256" }), &payload);
    let mut client =
        Client::with(&world, &nodes[0], &Wants { token: Some(token), ..Wants::of("chat") }).await;
    let start = tokio::time::Instant::now();
    assert_eq!(client.message().await, Ok(Message::Ping));
    let end = client.message().await;
    assert!(matches!(end, Ok(Message::Close { error: Some(_), allow_reconnect: true })), "{end:?}");
    assert_eq!(start.elapsed().as_secs(), 20);
}

#[tokio::test]
async fn closing_tells_the_reason() {
    let (world, nodes) = World::cluster(1).await;
    let node = &nodes[0];
    let mut client = Client::join(&world, node, "chat", Some("u")).await;
    node.tier.publish("chat", &all(), message("m", 1)).expect("room");
    node.tier.close("chat", &Destination::User("u".into()), Some("go".to_owned())).expect("room");
    assert_eq!(client.number().await, 1);
    let close = Message::Close { error: Some("go".to_owned()), allow_reconnect: false };
    assert_eq!(client.message().await, Ok(close));
    assert_eq!(client.frame().await, Err(1000));
    while node.tier.stats().connections > 0 {
        tokio::task::yield_now().await;
    }

    let mut client = Client::join(&world, node, "chat", None).await;
    node.tier.shut_down();
    assert!(matches!(client.message().await, Ok(Message::Close { allow_reconnect: true, .. })));
}

#[tokio::test]
async fn clients_leave_with_and_without_a_word() {
    let (world, nodes) = World::cluster(1).await;
    let node = &nodes[0];
    let mut polite = Client::join(&world, node, "chat", None).await;
    polite.socket.close(None).await.expect("closed");
    while polite.socket.next().await.is_some() {}
    let brusque = Client::join(&world, node, "chat", None).await;
    drop(brusque);
    let mut says = Client::join(&world, node, "chat", None).await;
    says.say(&Message::Close { error: None, allow_reconnect: false }).await;
    assert_eq!(says.frame().await, Err(1000));
    while node.tier.stats().connections > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.tier.stats().hubs, Vec::<String>::new());
}

#[tokio::test]
async fn hostile_input_ends_only_its_connection() {
    let (world, nodes) = World::cluster(1).await;
    let node = &nodes[0];
    let mut good = Client::join(&world, node, "chat", None).await;
    for bad in ["{\"type\":1}\u{1e}", "nonsense\u{1e}", "{\"type\":\"1\"}\u{1e}", &"x".repeat(40_000)] {
        let mut client = Client::join(&world, node, "chat", None).await;
        client.write(Bytes::copy_from_slice(bad.as_bytes())).await;
        let end = client.message().await;
        assert!(matches!(end, Ok(Message::Close { error: Some(_), allow_reconnect: false })), "{end:?}");
        assert_eq!(client.frame().await, Err(1000));
    }
    for bad in ["", "{}", "{\"protocol\":\"xml\",\"version\":1}", "{\"protocol\":\"json\",\"version\":9}"] {
        let socket = open(&world, node, &Wants::of("chat")).await.expect("switched over");
        let mut client = Client::on(socket, Protocol::Json);
        client.write(format!("{bad}\u{1e}").into()).await;
        let refusal = client.frame().await.expect("refusal");
        assert!(refusal.starts_with(b"{\"error\":"), "{refusal:?}");
        assert_eq!(client.frame().await, Err(1000));
    }
    node.tier.publish("chat", &all(), message("m", 7)).expect("room");
    assert_eq!(good.number().await, 7);
}

#[tokio::test]
async fn frames_of_any_cut_are_one_stream() {
    let (world, nodes) = World::cluster(1).await;
    let mut client = Client::join(&world, &nodes[0], "chat", None).await;
    for byte in "{\"type\":6}\u{1e}{\"type\":6}\u{1e}".bytes() {
        client.socket.send(Frame::Text(String::from(char::from(byte)).into())).await.expect("sent");
    }
    client.socket.send(Frame::Ping(Bytes::from_static(b"echo"))).await.expect("sent");
    let pong = loop {
        match client.socket.next().await {
            Some(Ok(Frame::Pong(payload))) => break payload,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(pong, "echo");
    nodes[0].tier.publish("chat", &all(), message("m", 1)).expect("room");
    assert_eq!(client.number().await, 1);
}

#[tokio::test]
async fn connections_are_bounded() {
    let world = World::new();
    let limits = RealtimeLimits { connections_max: 2, ..RealtimeLimits::default() };
    let node = world.start(1, RealtimeOptions { limits, ..RealtimeOptions::new(ENDPOINT) }).await;
    let _first = Client::join(&world, &node, "chat", None).await;
    let second = Client::join(&world, &node, "chat", None).await;
    assert_eq!(open(&world, &node, &Wants::of("chat")).await.err(), Some(503));
    drop(second);
    while node.tier.stats().connections > 1 {
        tokio::task::yield_now().await;
    }
    let _third = Client::join(&world, &node, "chat", None).await;
}

#[tokio::test]
async fn users_get_their_groups_when_they_come() {
    let (world, nodes) = World::cluster(1).await;
    let node = &nodes[0];
    let add = |group: &str, ttl| GroupAction::AddUser { user: "u".into(), group: group.into(), ttl };
    let mut before = Client::join(&world, node, "chat", Some("u")).await;
    for (group, ttl) in
        [("year", None), ("short", Some(Duration::from_secs(60))), ("now", Some(Duration::ZERO))]
    {
        assert_eq!(node.tier.group_action("chat", add(group, ttl)).await, Ok(true));
    }
    let mut after = Client::join(&world, node, "chat", Some("u")).await;
    let send = |group: &str, number| {
        let to = Destination::Group { name: group.into(), excluded: Vec::new() };
        node.tier.publish("chat", &to, message("m", number)).expect("room");
    };
    send("now", 1);
    send("short", 2);
    send("year", 3);
    assert_eq!([before.number().await, before.number().await, before.number().await], [1, 2, 3]);
    assert_eq!([after.number().await, after.number().await], [2, 3]);
    for (group, is_in) in [("year", true), ("short", true), ("now", true), ("none", false)] {
        assert_eq!(node.tier.is_user_in_group("chat", "u", group).await, Ok(is_in), "{group}");
    }

    world.pass(Duration::from_secs(61));
    let gone = async {
        while node.tier.is_user_in_group("chat", "u", "short").await != Ok(false) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    gone.await;
    send("short", 4);
    let remove = GroupAction::RemoveUser { user: "u".into(), group: "year".into() };
    assert_eq!(node.tier.group_action("chat", remove.clone()).await, Ok(true));
    assert_eq!(node.tier.group_action("chat", remove).await, Ok(false));
    send("year", 5);
    send("now", 6);
    assert_eq!(before.number().await, 6);
    let remove = GroupAction::RemoveUserFromAll { user: "u".into() };
    node.tier.group_action("chat", remove).await.expect("done");
    send("now", 7);
    node.tier.publish("chat", &all(), message("m", 8)).expect("room");
    assert_eq!(before.number().await, 8);
    assert_eq!(after.number().await, 8);
}

#[tokio::test]
async fn a_full_lane_says_busy() {
    let world = World::new();
    let limits = RealtimeLimits { publish_bytes_max: 5_000, ..RealtimeLimits::default() };
    let node = world.start(1, RealtimeOptions { limits, ..RealtimeOptions::new(ENDPOINT) }).await;
    // Nothing is worked off in between: this test never yields.
    let results: Vec<_> =
        (0..100).map(|number| node.tier.publish("chat", &all(), message("m", number))).collect();
    let taken = results.iter().take_while(|result| result.is_ok()).count();
    assert!((10..40).contains(&taken), "{taken}");
    assert!(results[taken..].iter().all(|result| result.is_err()));
    while node.tier.stats().waiting_bytes > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.tier.publish("chat", &all(), message("m", 1)), Ok(()));
}

/// A stream that holds bytes back until it is flushed, and whose flush has to be tried again, as TLS over a full
/// socket.
struct HoldsBack {
    pipe: DuplexStream,
    held: Vec<u8>,
    refused: bool,
}

impl AsyncRead for HoldsBack {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, to)
    }
}

impl AsyncWrite for HoldsBack {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.held.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.held.is_empty() && !std::mem::replace(&mut this.refused, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        while !this.held.is_empty() {
            let count = std::task::ready!(Pin::new(&mut this.pipe).poll_write(cx, &this.held))?;
            this.held.drain(..count);
        }
        this.refused = false;
        Pin::new(&mut this.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// Time stands still, so what isn't flushed until the next ping never comes.
#[tokio::test(start_paused = true)]
async fn a_stream_that_holds_bytes_back_is_flushed() {
    let (world, nodes) = World::cluster(1).await;
    let node = &nodes[0];
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    serve(&node.tier, HoldsBack { pipe: theirs, held: Vec::new(), refused: false });
    let token = client_token(&world, &node.tier, "chat", None);
    let url = format!("ws://hub.test/client/?hub=chat&access_token={token}");
    let (socket, _) = tokio_tungstenite::client_async(url, ours).await.expect("switched over");
    let mut client = Client::on(socket, Protocol::Json);
    let start = tokio::time::Instant::now();
    client.handshake(1).await;
    for number in 0..10 {
        node.tier.publish("chat", &all(), message("m", number)).expect("room");
        assert_eq!(client.number().await, number);
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}
