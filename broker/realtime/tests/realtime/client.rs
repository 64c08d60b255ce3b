//! A client in the tests: HTTP over a pipe in memory, and WebSockets of another implementation.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use fleetline_gateway::http::{HttpMount, PeerInfo};
use fleetline_realtime::Realtime;
use fleetline_signalr::audience::client_audience;
use fleetline_signalr::connection_string::ConnectionString;
use fleetline_signalr::token::{Claim, Grant, mint};
use fleetline_signalr::{Decoder, Limits, Message, Protocol, access_key};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ring::hmac;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::world::{ENDPOINT, Node, World};

/// Bytes that a pipe holds.
const PIPE: usize = 64 << 10;

/// A pipe to the front of a node.
pub fn connect(tier: &Arc<Realtime>) -> DuplexStream {
    connect_with(tier, PIPE)
}

/// A pipe that holds as many bytes.
pub fn connect_with(tier: &Arc<Realtime>, bytes: usize) -> DuplexStream {
    let (ours, theirs) = duplex(bytes);
    serve(tier, theirs);
    ours
}

/// Serves a connection as the node's front does.
pub fn serve<I>(tier: &Arc<Realtime>, io: I)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tier = tier.clone();
    let peer =
        PeerInfo { address: ([127, 0, 0, 1], 1).into(), certificate: None, chained: Arc::new(|_| false) };
    tokio::spawn(async move {
        let answer = move |request: Request<Incoming>| {
            let (tier, peer) = (tier.clone(), peer.clone());
            async move {
                assert!(tier.claims(request.method(), request.uri().path()));
                Ok::<_, std::convert::Infallible>(tier.answer(request, peer).await)
            }
        };
        let service = hyper::service::service_fn(answer);
        let builder = hyper::server::conn::http1::Builder::new();
        let _ = builder.serve_connection(TokioIo::new(io), service).with_upgrades().await;
    });
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("json")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

/// Sends a request and reads the whole answer.
pub async fn send(tier: &Arc<Realtime>, request: Request<Full<Bytes>>) -> Reply {
    let io = TokioIo::new(connect(tier));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("http");
    tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("answer");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("body").to_bytes();
    Reply { status: head.status.as_u16(), headers: head.headers, body }
}

pub fn request(method: &str, path: &str, token: Option<&str>, body: &str) -> Request<Full<Bytes>> {
    let mut builder = Request::builder().method(method).uri(path).header("host", "hub.test");
    if let Some(token) = token {
        builder = builder.header("authorization", format!("Bearer {token}"));
    }
    builder.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("request")
}

/// The key of the hub's connection string.
pub fn access_key(tier: &Realtime) -> access_key::AccessKey {
    let text = tier.connection_string().expect("keys");
    let parsed = ConnectionString::parse(&text).expect("connection string");
    access_key::AccessKey::new(&parsed.access_key.expect("key")).expect("key")
}

fn token(world: &World, tier: &Realtime, audience: &str, user: Option<&str>, claims: &[Claim]) -> String {
    let grant =
        Grant { audience, user_id: user, claims, issued_at_secs: world.now_secs(), lifetime_secs: 3_600 };
    mint(&access_key(tier), access_key::Algorithm::Hs256, &grant)
}

/// The token of a client.
pub fn client_token(world: &World, tier: &Realtime, hub: &str, user: Option<&str>) -> String {
    client_token_with(world, tier, hub, user, &[])
}

pub fn client_token_with(
    world: &World,
    tier: &Realtime,
    hub: &str,
    user: Option<&str>,
    claims: &[Claim],
) -> String {
    token(world, tier, &client_audience(ENDPOINT, hub), user, claims)
}

/// Sends a request of a backend.
pub async fn rest(world: &World, node: &Node, method: &str, path: &str, body: &str) -> Reply {
    let without_query = path.split('?').next().unwrap_or_default();
    let token = token(world, &node.tier, &format!("{ENDPOINT}{without_query}"), None, &[]);
    send(&node.tier, request(method, path, Some(&token), body)).await
}

/// Negotiates and gives connection id and token.
pub async fn negotiate(world: &World, node: &Node, hub: &str, user: Option<&str>) -> (String, String) {
    let token = client_token(world, &node.tier, hub, user);
    let path = format!("/client/negotiate?hub={hub}&negotiateVersion=1");
    let reply = send(&node.tier, request("POST", &path, Some(&token), "")).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    let text = |name: &str| reply.json()[name].as_str().expect("text").to_owned();
    (text("connectionId"), text("connectionToken"))
}

/// A client over a WebSocket.
pub struct Client {
    pub socket: WebSocketStream<DuplexStream>,
    decoder: Decoder,
    protocol: Protocol,
}

/// What a test wants of a client.
#[derive(Clone)]
pub struct Wants<'a> {
    pub hub: &'a str,
    pub user: Option<&'a str>,
    pub protocol: Protocol,
    /// The token of a connection that was negotiated.
    pub id: Option<&'a str>,
    pub version: u32,
    pub pipe: usize,
    pub claims: Vec<Claim>,
    /// A token of the test's own.
    pub token: Option<String>,
}

impl<'a> Wants<'a> {
    pub fn of(hub: &'a str) -> Wants<'a> {
        Wants {
            hub,
            user: None,
            protocol: Protocol::Json,
            id: None,
            version: 1,
            pipe: PIPE,
            claims: Vec::new(),
            token: None,
        }
    }
}

/// Opens a WebSocket, without a handshake of the hub protocol.
pub async fn open(
    world: &World,
    node: &Node,
    wants: &Wants<'_>,
) -> Result<WebSocketStream<DuplexStream>, u16> {
    let Wants { hub, user, id, pipe, claims, .. } = wants;
    let minted = || client_token_with(world, &node.tier, hub, *user, claims);
    let token = wants.token.clone().unwrap_or_else(minted);
    let id = id.map(|id| format!("&id={id}")).unwrap_or_default();
    let url = format!("ws://hub.test/client/?hub={hub}{id}&app=1&access_token={token}");
    let request = url.into_client_request().expect("url");
    match tokio_tungstenite::client_async(request, connect_with(&node.tier, *pipe)).await {
        Ok((socket, _)) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

impl Client {
    /// A client of a hub that is open.
    pub async fn join(world: &World, node: &Node, hub: &str, user: Option<&str>) -> Client {
        Client::with(world, node, &Wants { user, ..Wants::of(hub) }).await
    }

    pub async fn with(world: &World, node: &Node, wants: &Wants<'_>) -> Client {
        let socket = open(world, node, wants).await.expect("switched over");
        let mut client = Client::on(socket, wants.protocol);
        client.handshake(wants.version).await;
        client
    }

    pub fn on(socket: WebSocketStream<DuplexStream>, protocol: Protocol) -> Client {
        Client { socket, decoder: Decoder::new(protocol, Limits::default()), protocol }
    }

    pub async fn handshake(&mut self, version: u32) {
        let name = self.protocol.name();
        self.write(format!("{{\"protocol\": \"{name}\",\"version\":{version}}}\u{1e}").into()).await;
        let answer = self.frame().await.expect("answer");
        assert_eq!(answer, "{}\u{1e}");
    }

    /// Sends a payload in a frame of its own.
    pub async fn write(&mut self, payload: Bytes) {
        let frame = match self.protocol {
            Protocol::Json => Frame::Text(String::from_utf8(payload.to_vec()).expect("text").into()),
            Protocol::MessagePack => Frame::Binary(payload),
        };
        self.socket.send(frame).await.expect("sent");
    }

    pub async fn say(&mut self, message: &Message) {
        self.write(message.to_bytes(self.protocol).expect("bytes")).await;
    }

    /// The next frame with data; the code of a close frame at the end.
    pub async fn frame(&mut self) -> Result<Bytes, u16> {
        loop {
            match self.socket.next().await {
                Some(Ok(Frame::Text(text))) => return Ok(Bytes::copy_from_slice(text.as_bytes())),
                Some(Ok(Frame::Binary(bytes))) => return Ok(bytes),
                Some(Ok(Frame::Close(Some(close)))) => return Err(close.code.into()),
                Some(Ok(Frame::Close(None))) => return Err(1005),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(1006),
            }
        }
    }

    /// The next message; the close code at the end.
    pub async fn message(&mut self) -> Result<Message, u16> {
        loop {
            if let Some(message) = self.decoder.next().expect("a message") {
                return Ok(message);
            }
            let payload = self.frame().await?;
            self.decoder.feed(payload);
        }
    }

    /// The next call: target and arguments. Pings are skipped.
    pub async fn call(&mut self) -> (String, Value) {
        loop {
            match self.message().await.expect("a message") {
                Message::Invocation(call) => {
                    let arguments = call.arguments.array().to_json().expect("json");
                    return (call.target, serde_json::from_slice(&arguments).expect("json"));
                }
                Message::Ping => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// The number in the next call.
    pub async fn number(&mut self) -> u64 {
        self.call().await.1[0].as_u64().expect("a number")
    }
}

/// Writes bytes and reads until the other side closes, or has said `until`.
pub async fn raw(tier: &Arc<Realtime>, bytes: &[u8], until: &str) -> String {
    let mut pipe = connect(tier);
    pipe.write_all(bytes).await.expect("written");
    let (mut read, mut chunk) = (Vec::new(), [0; 4_096]);
    loop {
        let count = pipe.read(&mut chunk).await.expect("read");
        read.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&read).into_owned();
        if count == 0 || text.contains(until) {
            return text;
        }
    }
}

/// A token that says exactly this, signed with the hub's key as a backend's library would.
pub fn raw_token(tier: &Realtime, header: &Value, payload: &Value) -> String {
    let text = tier.connection_string().expect("keys");
    let key = ConnectionString::parse(&text).expect("connection string").access_key.expect("key");
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{signature}")
}
