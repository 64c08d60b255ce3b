//! The front on the wire, seen by a bare QUIC connection: hello, broken frames, bounds before the
//! caller is known, migration, and resets after a restart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use fleetline_native::connection::{ALPN, CloseCode};
use fleetline_native::frame::{Frame, FrameDecoder, FrameKind, put_frame};
use fleetline_native::proto;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, TransportConfig};

use crate::nodes::{Authority, Nodes};

fn config(authority: &Authority, known: bool) -> quinn::ClientConfig {
    let crypto = QuicClientConfig::try_from(authority.client_tls(known, ALPN)).unwrap();
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_millis(50)));
    transport.max_idle_timeout(Some(Duration::from_secs(120).try_into().unwrap()));
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    config
}

async fn connect(nodes: &Nodes, known: bool) -> (Endpoint, Connection) {
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = config(&nodes.authority, known);
    let connecting = endpoint.connect_with(config, nodes.nodes[0].address, "localhost").unwrap();
    (endpoint, connecting.await.unwrap())
}

fn frame(kind: FrameKind, head: &impl prost::Message, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_frame(&mut out, kind, head, body.len());
    out.extend_from_slice(body);
    out.freeze()
}

fn hello(min_version: u32, max_version: u32) -> Bytes {
    let hello = proto::Hello { min_version, max_version, ..proto::Hello::default() };
    frame(FrameKind::Hello, &hello, &[])
}

async fn next(recv: &mut RecvStream, decoder: &mut FrameDecoder, pending: &mut Bytes) -> Frame {
    loop {
        if let Some(frame) = decoder.decode(pending).unwrap() {
            return frame;
        }
        *pending = recv.read_chunk(usize::MAX, true).await.unwrap().expect("a frame comes").bytes;
    }
}

/// Says hello on a fresh connection.
async fn greet(connection: &Connection) -> proto::HelloAnswer {
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&hello(1, 1)).await.unwrap();
    send.finish().unwrap();
    let frame = next(&mut recv, &mut FrameDecoder::new(1 << 20), &mut Bytes::new()).await;
    assert_eq!(frame.kind, FrameKind::HelloAnswer);
    frame.decode_head().unwrap()
}

/// The code with which the node closes the connection.
async fn close_code(connection: &Connection) -> Option<CloseCode> {
    match connection.closed().await {
        ConnectionError::ApplicationClosed(close) => CloseCode::from_code(close.error_code.into()),
        other => panic!("{other}"),
    }
}

/// What does not begin with a good hello is closed with a code that says why.
#[tokio::test]
async fn only_a_good_hello_opens() {
    let nodes = Nodes::start(1, 1);
    let mut long = BytesMut::new();
    long.put_u32_le(9_000);
    for (bytes, expected) in [
        (hello(2, 7), CloseCode::Version),
        (frame(FrameKind::Call, &proto::Call::default(), &[]), CloseCode::Protocol),
        (Bytes::from_static(b"\x06\0\0\0\x99\0\0\0\0\0"), CloseCode::Protocol),
        (long.freeze(), CloseCode::Protocol),
    ] {
        let (_endpoint, connection) = connect(&nodes, true).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        assert_eq!(close_code(&connection).await, Some(expected), "{bytes:?}");
    }
}

/// A caller without identity may send small frames only, and open no streams of records.
#[tokio::test]
async fn strangers_are_kept_small() {
    let nodes = Nodes::start(1, 1);
    let (_endpoint, connection) = connect(&nodes, false).await;
    assert_eq!(greet(&connection).await.cluster, "test");
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let open = frame(FrameKind::AppendOpen, &proto::AppendOpen { partition: 0 }, &[]);
    send.write_all(&open).await.unwrap();
    let answer = next(&mut recv, &mut FrameDecoder::new(1 << 20), &mut Bytes::new()).await;
    assert_eq!(answer.kind, FrameKind::Error);
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&8_193u32.to_le_bytes()).await.unwrap();
    assert_eq!(close_code(&connection).await, Some(CloseCode::Protocol));
}

/// An append stream goes on when its client moves to another address.
#[tokio::test]
async fn a_client_may_move() {
    let nodes = Nodes::start(1, 1);
    let (endpoint, connection) = connect(&nodes, true).await;
    greet(&connection).await;
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let open = frame(FrameKind::AppendOpen, &proto::AppendOpen { partition: 0 }, &[]);
    send.write_all(&open).await.unwrap();
    let (mut decoder, mut pending) = (FrameDecoder::new(1 << 20), Bytes::new());
    for sequence in 0..10u64 {
        if sequence % 3 == 2 {
            let here: SocketAddr = "127.0.0.1:0".parse().unwrap();
            endpoint.rebind(std::net::UdpSocket::bind(here).unwrap()).unwrap();
        }
        let batch = crate::fake::build_as(sequence, &[("d", "x")]);
        send.write_all(&frame(FrameKind::Append, &proto::Append { sequence }, &batch)).await.unwrap();
        let answer = next(&mut recv, &mut decoder, &mut pending).await;
        assert_eq!(answer.kind, FrameKind::Appended);
        let answer: proto::Appended = answer.decode_head().unwrap();
        assert_eq!((answer.sequence, answer.base_offset, answer.duplicate), (sequence, sequence, false));
    }
}

/// A node that was killed and started again resets the connections of its former life (the socket
/// here hears nothing from the kernel, and the idle time-out is longer than any wait).
#[tokio::test]
async fn a_new_life_resets_the_old_one() {
    let mut nodes = Nodes::start(1, 1);
    let (_endpoint, connection) = connect(&nodes, true).await;
    greet(&connection).await;
    let nodes = tokio::task::spawn_blocking(move || {
        nodes.kill(1);
        nodes.restart(1);
        nodes
    })
    .await
    .unwrap();
    assert!(matches!(connection.closed().await, ConnectionError::Reset));
    drop(nodes);
}
