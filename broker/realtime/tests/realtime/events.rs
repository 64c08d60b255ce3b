//! What clients do, told to functions of the node and to upstreams.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_realtime::{ClientEvent, ClientEventKind, ClientEvents, EventAnswer, SETTING};
use fleetline_signalr::{Arguments, Completion, Invocation, Message, Outcome, Protocol, Value};
use parking_lot::Mutex;
use ring::hmac;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::client::{Client, Wants};
use crate::world::World;

/// Functions that note what they are told, and answer by the method's name.
struct Functions {
    seen: mpsc::UnboundedSender<ClientEvent>,
    gate: tokio::sync::Semaphore,
}

#[async_trait]
impl ClientEvents for Functions {
    fn wants(&self, hub: &str, _: &str, event: &str) -> bool {
        hub == "chat" && event != "unwanted"
    }

    async fn on_event(&self, event: ClientEvent) -> EventAnswer {
        let name = event.kind.name().to_owned();
        let arguments = match &event.kind {
            ClientEventKind::Message { arguments, .. } => arguments.clone(),
            _ => Bytes::new(),
        };
        self.seen.send(event).expect("the test listens");
        let text = |text: &'static str| Bytes::from_static(text.as_bytes());
        match name.as_str() {
            "echo" => EventAnswer { result: Some(arguments), ..EventAnswer::default() },
            "fail" => EventAnswer { error: Some("no".to_owned()), ..EventAnswer::default() },
            "stream" => EventAnswer { items: vec![text("1"), text("\"two\"")], ..EventAnswer::default() },
            "wait" => {
                self.gate.acquire().await.expect("open").forget();
                EventAnswer::default()
            }
            _ => EventAnswer::default(),
        }
    }
}

fn functions() -> (Arc<Functions>, mpsc::UnboundedReceiver<ClientEvent>) {
    let (seen, events) = mpsc::unbounded_channel();
    (Arc::new(Functions { seen, gate: tokio::sync::Semaphore::new(0) }), events)
}

fn call(id: Option<&str>, target: &str, arguments: &'static str) -> Invocation {
    let arguments = Arguments::json(Bytes::from_static(arguments.as_bytes())).expect("json");
    Invocation { invocation_id: id.map(str::to_owned), ..Invocation::new(target, arguments) }
}

fn completion(id: &str, outcome: Outcome) -> Result<Message, u16> {
    Ok(Message::Completion(Completion { invocation_id: id.to_owned(), outcome }))
}

#[tokio::test]
async fn functions_are_told_and_answer() {
    let (world, nodes) = World::cluster(1).await;
    let (functions, mut events) = functions();
    nodes[0].tier.on_client_event(functions);
    let claims = vec![fleetline_signalr::token::Claim { kind: "role".into(), value: "driver".into() }];
    let wants = Wants { user: Some("u"), claims, ..Wants::of("chat") };
    let mut client = Client::with(&world, &nodes[0], &wants).await;
    let event = events.recv().await.expect("event");
    assert_eq!((event.kind, event.user_id.as_deref()), (ClientEventKind::Connected, Some("u")));
    assert!(event.claims.contains(&("role".to_owned(), "driver".to_owned())), "{:?}", event.claims);
    assert_eq!(event.query, "hub=chat&app=1");

    client.say(&Message::Invocation(call(Some("1"), "echo", "[1,\"a\"]"))).await;
    let result = Outcome::Result(Value::json(Bytes::from_static(b"[1,\"a\"]")).expect("json"));
    assert_eq!(client.message().await, completion("1", result));
    client.say(&Message::Invocation(call(Some("2"), "fail", "[]"))).await;
    assert_eq!(client.message().await, completion("2", Outcome::Error("no".to_owned())));
    client.say(&Message::Invocation(call(Some("3"), "void", "[]"))).await;
    assert_eq!(client.message().await, completion("3", Outcome::Void));
    client.say(&Message::StreamInvocation(call(Some("4"), "stream", "[]"))).await;
    for expected in ["1", "\"two\""] {
        let Ok(Message::StreamItem(item)) = client.message().await else { panic!("no item") };
        assert_eq!(
            (item.invocation_id.as_str(), item.item.raw()),
            ("4", &Bytes::from_static(expected.as_bytes()))
        );
    }
    assert_eq!(client.message().await, completion("4", Outcome::Void));
    client.say(&Message::Invocation(call(Some("5"), "unwanted", "[]"))).await;
    assert!(matches!(
        client.message().await,
        Ok(Message::Completion(Completion { outcome: Outcome::Error(_), .. }))
    ));
    // A message that waits for no answer, and then the end: both are told.
    client.say(&Message::Invocation(call(None, "last", "[]"))).await;
    client.socket.close(None).await.expect("closed");
    drop(client);
    let mut names = Vec::new();
    loop {
        let event = events.recv().await.expect("event");
        names.push(event.kind.name().to_owned());
        if let ClientEventKind::Disconnected { error } = event.kind {
            assert_eq!(error, None);
            break;
        }
    }
    assert_eq!(names, ["echo", "fail", "void", "stream", "last", "disconnected"]);
}

#[tokio::test]
async fn messagepack_clients_are_answered_in_theirs() {
    let (world, nodes) = World::cluster(1).await;
    let (functions, _events) = functions();
    nodes[0].tier.on_client_event(functions);
    let wants = Wants { protocol: Protocol::MessagePack, ..Wants::of("chat") };
    let mut client = Client::with(&world, &nodes[0], &wants).await;
    client.say(&Message::Invocation(call(Some("1"), "echo", "[1,\"a\"]"))).await;
    let Ok(Message::Completion(Completion { outcome: Outcome::Result(value), .. })) = client.message().await
    else {
        panic!("no result")
    };
    assert_eq!(value.to_json().expect("json"), "[1,\"a\"]");
}

/// Events of one connection come one after the other; what comes meanwhile waits, and is bounded by not reading.
/// The client goes on to hear the server.
#[tokio::test(start_paused = true)]
async fn a_slow_function_holds_up_only_its_client() {
    let (world, nodes) = World::cluster(1).await;
    let (functions, mut events) = functions();
    nodes[0].tier.on_client_event(functions.clone());
    let mut client = Client::join(&world, &nodes[0], "chat", None).await;
    client.say(&Message::Invocation(call(Some("w"), "wait", "[]"))).await;
    for _ in 0..100 {
        client.say(&Message::Invocation(call(None, "next", "[]"))).await;
    }
    let start = tokio::time::Instant::now();
    assert_eq!(client.message().await, Ok(Message::Ping));
    assert!(start.elapsed().as_secs() <= 16);
    functions.gate.add_permits(1);
    assert_eq!(client.message().await, completion("w", Outcome::Void));
    let mut count = 0;
    while count < 100 {
        count += usize::from(events.recv().await.expect("event").kind.name() == "next");
    }
}

/// An upstream on a socket: notes requests and answers with what it is given.
struct Server {
    address: std::net::SocketAddr,
    requests: mpsc::UnboundedReceiver<(String, Vec<u8>)>,
    replies: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn new() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        let (sender, requests) = mpsc::unbounded_channel();
        let replies: Arc<Mutex<Vec<String>>> = Arc::default();
        let given = replies.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("accepted");
                let (sender, given) = (sender.clone(), given.clone());
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some(request) = read_request(&mut stream).await {
                        let _ = sender.send(request);
                        let reply = given.lock().pop();
                        let reply = reply.unwrap_or_else(|| "204 No Content\r\n\r\n".to_owned());
                        stream.write_all(format!("HTTP/1.1 {reply}").as_bytes()).await.expect("written");
                    }
                });
            }
        });
        Server { address, requests, replies }
    }

    fn reply(&self, status: &str, body: &str) {
        let reply = format!("{status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        self.replies.lock().push(reply);
    }
}

/// The value of a header.
fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let fits = |line: &'h str| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    };
    head.lines().find_map(fits).expect("header")
}

async fn read_request(stream: &mut BufReader<tokio::net::TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "))?.trim().parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

#[tokio::test]
async fn upstreams_are_called_with_a_signature() {
    let (world, nodes) = World::cluster(1).await;
    let mut server = Server::new().await;
    let setting = json!({
        "accessKeys": { "primary": "first", "secondary": "second" },
        "upstreams": [{ "UrlTemplate": format!("http://{}/{{hub}}/{{category}}/{{event}}?code=x", server.address) }],
    });
    world.set(SETTING, setting.to_string());
    while nodes[0].tier.connection_string().is_none_or(|string| !string.contains("AccessKey=first;")) {
        tokio::task::yield_now().await;
    }
    let mut client = Client::join(&world, &nodes[0], "chat", Some("u")).await;
    let (head, body) = server.requests.recv().await.expect("request");
    assert!(head.starts_with("POST /chat/connections/connected?code=x HTTP/1.1\r\n"), "{head}");
    assert_eq!(body, br#"{"type":10}"#);
    let id = head.lines().find_map(|line| line.strip_prefix("x-asrs-connection-id: ")).expect("id");
    assert!(
        head.contains("x-asrs-user-id: u\r\n") && head.contains("x-asrs-client-query: ?hub=chat&app=1\r\n")
    );

    let answer = |id: &str| format!("{{\"type\":3,\"invocationId\":\"{id}\",\"result\":\"yes\"}}");
    server.reply("200 OK", &answer("1"));
    client.say(&Message::Invocation(call(Some("1"), "Ask Me", "[1]"))).await;
    let result = Outcome::Result(Value::json(Bytes::from_static(b"\"yes\"")).expect("json"));
    assert_eq!(client.message().await, completion("1", result));
    let (head, body) = server.requests.recv().await.expect("request");
    assert!(head.starts_with("POST /chat/messages/Ask%20Me?code=x "), "{head}");
    let body: serde_json::Value = serde_json::from_slice(&body).expect("json");
    assert_eq!((&body["target"], &body["arguments"]), (&json!("Ask Me"), &json!([1])));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let signature = |key: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        format!("sha256={}", hex(hmac::sign(&key, id.as_bytes()).as_ref()))
    };
    let line = header(&head, "x-asrs-signature");
    assert_eq!(line, format!("{},{}", signature("first"), signature("second")));

    for (status, body, expected) in [
        ("500 Oops", "", Outcome::Error("Invocation failed, status code 500".to_owned())),
        ("302 Found", "", Outcome::Error("Invocation failed, status code 302".to_owned())),
        ("200 OK", "", Outcome::Void),
    ] {
        server.reply(status, body);
        client.say(&Message::Invocation(call(Some("2"), "x", "[]"))).await;
        assert_eq!(client.message().await, completion("2", expected), "{status}");
        server.requests.recv().await.expect("request");
    }
    drop(client);
    let (head, body) = server.requests.recv().await.expect("request");
    assert!(head.starts_with("POST /chat/connections/disconnected"), "{head}");
    assert_eq!(body, br#"{"type":11}"#);
    assert_eq!(nodes[0].tier.stats().upstream_failed, 2);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_counts_as_500() {
    let (world, nodes) = World::cluster(1).await;
    let free = TcpListener::bind("127.0.0.1:0").await.expect("bound").local_addr().expect("address");
    let setting = json!({
        "accessKeys": { "primary": "first" },
        "upstreams": [{ "UrlTemplate": format!("http://{free}/") , "CategoryPattern": "messages" }],
    });
    world.set(SETTING, setting.to_string());
    while nodes[0].tier.connection_string().is_none_or(|string| !string.contains("AccessKey=first;")) {
        tokio::task::yield_now().await;
    }
    let mut client = Client::join(&world, &nodes[0], "chat", None).await;
    client.say(&Message::Invocation(call(Some("1"), "x", "[]"))).await;
    let expected = Outcome::Error("Invocation failed, status code 500".to_owned());
    assert_eq!(client.message().await, completion("1", expected));
}
