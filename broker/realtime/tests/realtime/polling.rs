//! Long polling and server-sent events, as they look on the wire, on the node that owns the connection and on
//! another one.

use bytes::Bytes;
use fleetline_realtime::Destination;
use fleetline_signalr::{Decoder, Limits, Message, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::client::{Reply, client_token, connect, negotiate, raw, request, send};
use crate::sockets::message;
use crate::world::{Node, World};

const HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}\u{1e}";

fn all() -> Destination {
    Destination::All { excluded: Vec::new() }
}

/// A client over long polling; `node` is where its requests go.
struct Poller<'a> {
    node: &'a Node,
    path: String,
    token: String,
}

impl<'a> Poller<'a> {
    async fn new(world: &World, owner: &Node, node: &'a Node) -> Poller<'a> {
        let (_, id) = negotiate(world, owner, "chat", Some("u")).await;
        let token = client_token(world, &node.tier, "chat", Some("u"));
        Poller { node, path: format!("/client/?hub=chat&id={id}"), token }
    }

    async fn ask(&self, method: &str, body: &str) -> Reply {
        send(&self.node.tier, request(method, &self.path, Some(&self.token), body)).await
    }

    fn hang(&self) -> JoinHandle<Reply> {
        let (tier, request) = (self.node.tier.clone(), request("GET", &self.path, Some(&self.token), ""));
        tokio::spawn(async move { send(&tier, request).await })
    }

    async fn open(&self) {
        let reply = self.ask("GET", "").await;
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        assert!(reply.header("cache-control").contains("no-store"));
        assert_eq!(self.ask("POST", HANDSHAKE).await.status, 200);
        let reply = self.ask("GET", "").await;
        assert_eq!((reply.status, &reply.body[..]), (200, &b"{}\x1e"[..]));
    }
}

fn numbers(body: &Bytes) -> Vec<u64> {
    let mut decoder = Decoder::new(Protocol::Json, Limits::default());
    decoder.feed(body.clone());
    let mut found = Vec::new();
    while let Some(message) = decoder.next().expect("message") {
        if let Message::Invocation(call) = message {
            let json = call.arguments.array().to_json().expect("json");
            let arguments: Vec<u64> = serde_json::from_slice(&json).expect("numbers");
            found.push(arguments[0]);
        }
    }
    found
}

async fn long_polling(owner: usize, asked: usize) {
    let (world, nodes) = World::cluster(3).await;
    let poller = Poller::new(&world, &nodes[owner], &nodes[asked]).await;
    poller.open().await;
    let publish = |number| nodes[2].tier.publish("chat", &all(), message("m", number)).expect("room");
    let hanging = poller.hang();
    publish(1);
    let reply = hanging.await.expect("answer");
    assert_eq!((reply.status, numbers(&reply.body)), (200, vec![1]));
    // What comes between two polls waits.
    for number in 2..50 {
        publish(number);
    }
    let mut got = Vec::new();
    while got.len() < 48 {
        let reply = poller.ask("GET", "").await;
        assert_eq!(reply.status, 200);
        got.extend(numbers(&reply.body));
    }
    assert_eq!(got, (2..50).collect::<Vec<_>>());

    // Who isn't the user gets nothing of it.
    let mut stranger = Poller { node: poller.node, path: poller.path.clone(), token: String::new() };
    stranger.token = client_token(&world, &nodes[asked].tier, "chat", Some("other"));
    assert_eq!(stranger.ask("GET", "").await.status, 403);
    assert_eq!(stranger.ask("POST", "x").await.status, 403);

    let hanging = poller.hang();
    assert_eq!(poller.ask("DELETE", "").await.status, 202);
    let mut last = hanging.await.expect("answer");
    while last.status == 200 {
        last = poller.ask("GET", "").await;
    }
    assert!([204, 404].contains(&last.status), "{}", last.status);
    assert_eq!(poller.ask("GET", "").await.status, 404);
    assert_eq!(poller.ask("POST", "x").await.status, 404);
}

#[tokio::test]
async fn long_polling_at_the_owner() {
    long_polling(0, 0).await;
}

#[tokio::test]
async fn long_polling_at_another_node() {
    long_polling(1, 0).await;
}

#[tokio::test]
async fn a_new_poll_takes_the_place_of_the_old_one() {
    let (world, nodes) = World::cluster(1).await;
    let poller = Poller::new(&world, &nodes[0], &nodes[0]).await;
    poller.open().await;
    // Whichever comes second takes the place of the other.
    let either = futures::future::select(poller.hang(), poller.hang()).await;
    let (ended, hanging) = either.factor_first();
    assert_eq!(ended.expect("answer").status, 204);
    nodes[0].tier.publish("chat", &all(), message("m", 1)).expect("room");
    assert_eq!(numbers(&hanging.await.expect("answer").body), [1]);
}

#[tokio::test(start_paused = true)]
async fn polls_that_nobody_needs_end() {
    let (world, nodes) = World::cluster(1).await;
    let poller = Poller::new(&world, &nodes[0], &nodes[0]).await;
    poller.open().await;
    let start = tokio::time::Instant::now();
    let reply = poller.ask("GET", "").await;
    assert_eq!((reply.status, reply.body.len(), start.elapsed().as_secs()), (200, 0, 90));
    // Nobody asks any more.
    while nodes[0].tier.stats().connections > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!((105..107).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert_eq!(poller.ask("GET", "").await.status, 404);
}

#[tokio::test]
async fn binary_messages_over_long_polling() {
    let (world, nodes) = World::cluster(1).await;
    let poller = Poller::new(&world, &nodes[0], &nodes[0]).await;
    poller.ask("GET", "").await;
    assert_eq!(poller.ask("POST", "{\"protocol\":\"messagepack\",\"version\":1}\u{1e}").await.status, 200);
    assert_eq!(&poller.ask("GET", "").await.body[..], b"{}\x1e");
    nodes[0].tier.publish("chat", &all(), message("m", 1)).expect("room");
    let reply = poller.ask("GET", "").await;
    assert_eq!(reply.header("content-type"), "application/octet-stream");
    let mut decoder = Decoder::new(Protocol::MessagePack, Limits::default());
    decoder.feed(reply.body);
    assert!(matches!(decoder.next(), Ok(Some(Message::Invocation(_)))));
}

async fn events(owner: usize, asked: usize) {
    let (world, nodes) = World::cluster(3).await;
    let (_, id) = negotiate(&world, &nodes[owner], "chat", None).await;
    let token = client_token(&world, &nodes[asked].tier, "chat", None);
    let path = format!("/client/?hub=chat&id={id}");
    let head = format!(
        "GET {path}&access_token={token} HTTP/1.1\r\nhost: hub.test\r\naccept: text/event-stream\r\n\r\n"
    );
    let mut pipe = connect(&nodes[asked].tier);
    pipe.write_all(head.as_bytes()).await.expect("written");
    let mut seen = String::new();
    read_until(&mut pipe, &mut seen, ":\r\n\r\n").await;
    assert!(seen.starts_with("HTTP/1.1 200") && seen.contains("content-type: text/event-stream"), "{seen}");
    let posted = send(&nodes[asked].tier, request("POST", &path, Some(&token), HANDSHAKE)).await;
    assert_eq!(posted.status, 200);
    read_until(&mut pipe, &mut seen, "data: {}\u{1e}\r\n\r\n").await;
    for number in 1..20 {
        nodes[2].tier.publish("chat", &all(), message("m", number)).expect("room");
        read_until(&mut pipe, &mut seen, &format!("\"arguments\":[{number}]}}\u{1e}\r\n\r\n")).await;
    }
    // The same request again isn't another reader.
    let again = raw(&nodes[asked].tier, head.as_bytes(), "\r\n\r\n").await;
    assert!(again.starts_with("HTTP/1.1 409"), "{again}");
    drop(pipe);
    if owner == asked {
        while nodes[owner].tier.stats().connections > 0 {
            tokio::task::yield_now().await;
        }
    }
}

async fn read_until(pipe: &mut tokio::io::DuplexStream, seen: &mut String, text: &str) {
    let mut chunk = [0; 4_096];
    while !seen.contains(text) {
        let count = pipe.read(&mut chunk).await.expect("read");
        assert!(count > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..count]));
    }
}

#[tokio::test]
async fn events_at_the_owner() {
    events(0, 0).await;
}

#[tokio::test]
async fn events_at_another_node() {
    events(1, 0).await;
}

/// A reader that doesn't keep up is dropped like a slow socket.
#[tokio::test]
async fn a_reader_of_events_that_does_not_read_is_dropped() {
    let (world, nodes) = World::cluster(1).await;
    let (_, id) = negotiate(&world, &nodes[0], "chat", None).await;
    let token = client_token(&world, &nodes[0].tier, "chat", None);
    let path = format!("/client/?hub=chat&id={id}");
    let head =
        format!("GET {path}&access_token={token} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n");
    let mut pipe = connect(&nodes[0].tier);
    pipe.write_all(head.as_bytes()).await.expect("written");
    read_until(&mut pipe, &mut String::new(), ":\r\n\r\n").await;
    assert_eq!(send(&nodes[0].tier, request("POST", &path, Some(&token), HANDSHAKE)).await.status, 200);
    read_until(&mut pipe, &mut String::new(), "{}\u{1e}").await;
    let text = format!("[\"{}\"]", "x".repeat(20_000));
    while nodes[0].tier.stats().slow_clients == 0 {
        let big = fleetline_realtime::Encoded::invocation("big", Bytes::from(text.clone())).expect("json");
        nodes[0].tier.publish("chat", &all(), big).expect("room");
        while nodes[0].tier.stats().waiting_bytes > 0 {
            tokio::task::yield_now().await;
        }
    }
    drop(pipe);
    while nodes[0].tier.stats().connections > 0 {
        tokio::task::yield_now().await;
    }
}
