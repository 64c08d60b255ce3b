//! MQTT's WebSocket: the handshake, and frames as bytes.

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::client::{Client, Reply, read_reply};
use crate::world::World;

const HANDSHAKE: [&str; 5] = [
    "Connection: keep-alive, Upgrade",
    "Upgrade: WebSocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: other, mqtt",
];

async fn handshake(world: &World, headers: &[&str]) -> (Client, Reply) {
    let mut client = world.connect();
    let target = "/$iothub/websocket?iothub-no-client-cert=true";
    let text = format!("GET {target} HTTP/1.1\r\nhost: hub.example\r\n{}\r\n\r\n", headers.join("\r\n"));
    client.io.write_all(text.as_bytes()).await.unwrap();
    let reply = read_reply(&mut client.io, false).await;
    (client, reply)
}

/// The sample handshake of RFC 6455 §1.3; the subprotocol is echoed, extensions are declined.
#[tokio::test]
async fn frames_are_a_stream_of_bytes() {
    let world = World::new();
    let mut headers = HANDSHAKE.to_vec();
    headers.push("Sec-WebSocket-Extensions: permessage-deflate");
    let (client, reply) = handshake(&world, &headers).await;
    assert_eq!(
        (reply.status, reply.header("sec-websocket-accept")),
        (101, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
    );
    assert_eq!(
        (reply.header("sec-websocket-protocol"), reply.header("sec-websocket-extensions")),
        (Some("mqtt"), None)
    );
    assert!(reply.head.to_lowercase().contains("connection: upgrade"));
    let mut frames = WebSocketStream::from_raw_socket(client.io, Role::Client, None).await;
    // As Node does: 1, 2 and 4 bytes.
    let sent: Vec<u8> = (0..=255).cycle().take(7000).collect();
    let mut rest = sent.as_slice();
    for size in [1, 2, 4].into_iter().cycle() {
        let (frame, more) = rest.split_at(size.min(rest.len()));
        frames.feed(Message::binary(frame.to_vec())).await.unwrap();
        rest = more;
        if rest.is_empty() {
            break;
        }
    }
    frames.send(Message::Ping(vec![7].into())).await.unwrap();
    let (mut got, mut pongs, mut count) = (Vec::new(), 0, 0);
    while got.len() < sent.len() || pongs == 0 {
        match frames.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => {
                got.extend_from_slice(&bytes);
                count += 1;
            }
            Message::Pong(_) => pongs += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, sent);
    // 3000 frames came; what was there was read together.
    assert!(count < 300, "{count} reads");
    frames.close(None).await.unwrap();
}

/// "If any other type of data frame is received the recipient MUST close the Network Connection."
#[tokio::test]
async fn text_ends_the_connection() {
    let world = World::new();
    let (client, _) = handshake(&world, &HANDSHAKE).await;
    let mut frames = WebSocketStream::from_raw_socket(client.io, Role::Client, None).await;
    frames.send(Message::text("hello")).await.unwrap();
    let end = frames.next().await;
    assert!(!matches!(end, Some(Ok(Message::Binary(_) | Message::Text(_)))), "{end:?}");
}

/// A frame that says 4 GiB, an unmasked one, one without end: the connection is over, at no cost.
#[tokio::test]
async fn hostile_frames() {
    for frame in [
        &[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4][..],
        &[0x82, 0x02, b'h', b'i'],
        &[0x8f, 0x80, 1, 2, 3, 4],
        &[0x02, 0xff, 0, 0, 0, 0, 0x00, 0x10, 0, 0, 1, 2, 3, 4],
    ] {
        let world = World::new();
        let (mut client, _) = handshake(&world, &HANDSHAKE).await;
        client.io.write_all(frame).await.unwrap();
        let mut all = Vec::new();
        client.io.read_to_end(&mut all).await.unwrap();
        assert!(all.len() < 64, "{frame:?}: {all:?}");
    }
}

#[tokio::test]
async fn handshakes_that_are_refused() {
    let world = World::new();
    for (at, instead, status) in [
        (0, "Connection: close", 400),
        (1, "Upgrade: h2c", 400),
        (2, "Sec-WebSocket-Version: 8", 400),
        (3, "Sec-WebSocket-Key: short", 400),
        (4, "Sec-WebSocket-Protocol: AMQPWSB10", 404),
        (4, "X-Nothing: here", 404),
    ] {
        let mut headers = HANDSHAKE.to_vec();
        headers[at] = instead;
        let (_client, reply) = handshake(&world, &headers).await;
        assert_eq!(reply.status, status, "{instead}");
    }
}
