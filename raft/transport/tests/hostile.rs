//! Strangers and broken peers at the door of the real transport. Frames are built by hand from the
//! drawing in `frame.rs`, so a change of the layout shows here.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::sync::Arc;
use std::time::Duration;

use fleetline_raft_transport::tcp::TcpTransport;
use fleetline_raft_transport::{Lane, PeerAddress, PeerTransport, RefusedReason, TransportError};
use fleetline_types::NodeId;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use common::{Authority, CLUSTER, ECHO, Heard, Recorder, message};

const TRANSPORT: u8 = 0x80;

/// A frame: kind, flags, head; group and id are zero.
fn frame(kind: u8, flags: u8, head: &[u8], body_len: u32) -> Vec<u8> {
    let mut bytes = (18 + head.len() as u32 + body_len).to_le_bytes().to_vec();
    bytes.extend([kind, flags]);
    bytes.extend([0; 12]);
    bytes.extend((head.len() as u32).to_le_bytes());
    bytes.extend(head);
    bytes
}

fn hello(versions: (u32, u32), node: u64, lane: u8, cluster: &str, disk: &str) -> Vec<u8> {
    let mut head = versions.0.to_le_bytes().to_vec();
    head.extend(versions.1.to_le_bytes());
    head.extend(node.to_le_bytes());
    head.push(lane);
    for text in [cluster, disk] {
        head.extend((text.len() as u16).to_le_bytes());
        head.extend(text.as_bytes());
    }
    frame(1, TRANSPORT, &head, 0)
}

struct Door {
    authority: Authority,
    transport: Arc<TcpTransport>,
    recorder: Arc<Recorder>,
}

impl Door {
    fn new() -> Door {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut fleetline_raft_transport::tcp::TcpOptions)) -> Door {
        let authority = Authority::new();
        let (transport, recorder) = authority.start(1, change);
        Door { authority, transport, recorder }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.transport.local_addr()).await.unwrap()
    }

    async fn tls(&self, config: Arc<ClientConfig>, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let mut config = (*config).clone();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from(format!("node-1.{CLUSTER}.fleetline")).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, self.tcp().await).await
    }

    /// A TLS connection with a good certificate of node 2.
    async fn node_2(&self) -> TlsStream<TcpStream> {
        let leaf = self.authority.node(2);
        self.tls(self.authority.client(Some(&leaf)), b"fleetline-peer/1").await.unwrap()
    }

    /// Sends `bytes` as node 2 and reads until the other side ends the connection.
    async fn answer_to(&self, bytes: &[u8]) -> Vec<u8> {
        let mut tls = self.node_2().await;
        tls.write_all(bytes).await.unwrap();
        read_to_end(&mut tls).await
    }

    /// Waits until this many connections were refused for this reason.
    async fn refused(&self, reason: RefusedReason, count: u64) {
        while self.transport.refused(reason) < count {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.transport.refused(reason), count);
    }

    /// A good peer still gets in and gets its answer.
    async fn still_works(&self) {
        let (peer, _) = self.authority.start(3, |_| {});
        peer.set_peer(NodeId(1), PeerAddress { address: self.transport.local_addr().to_string() });
        let sent = peer.send(NodeId(1), Lane::Control, message(ECHO, 42, &[])).await.unwrap();
        assert_eq!(sent.await.unwrap().group.0, 42);
    }
}

/// What came until the end, which may be a clean one or a reset.
async fn read_to_end<S: AsyncReadExt + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buf = [0; 4096];
    while let Ok(count) = stream.read(&mut buf).await {
        if count == 0 {
            break;
        }
        all.extend_from_slice(&buf[..count]);
    }
    all
}

/// Strangers with no certificate, one of another authority or no TLS at all don't get in.
#[tokio::test]
async fn strangers() {
    let door = Door::new();
    let foreign = Authority::new();
    let leaf = foreign.node(2);
    // TLS 1.3 lets the client finish first; the refusal comes with the first read.
    let foreign_client = foreign.client_that_trusts(&leaf, &door.authority);
    for config in [foreign_client, door.authority.client(None)] {
        if let Ok(mut tls) = door.tls(config, b"fleetline-peer/1").await {
            assert_eq!(read_to_end(&mut tls).await, b"");
        }
    }
    door.refused(RefusedReason::Tls, 2).await;
    let leaf = door.authority.node(2);
    door.tls(door.authority.client(Some(&leaf)), b"h2").await.unwrap_err();
    door.refused(RefusedReason::Tls, 3).await;
    let mut tcp = door.tcp().await;
    tcp.write_all(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n").await.unwrap();
    read_to_end(&mut tcp).await;
    door.refused(RefusedReason::Tls, 4).await;
    assert!(door.recorder.heard().is_empty());
    door.still_works().await;
}

/// A certificate of the authority that names no node is refused, and is told why.
#[tokio::test]
async fn a_client_is_no_node() {
    let door = Door::new();
    let leaf = door.authority.leaf("admin.plant.fleetline");
    let mut tls = door.tls(door.authority.client(Some(&leaf)), b"fleetline-peer/1").await.unwrap();
    // The hello may meet a closed connection already.
    let _ = tls.write_all(&hello((1, 1), 2, 0, CLUSTER, "d")).await;
    let answer = read_to_end(&mut tls).await;
    assert!(String::from_utf8_lossy(&answer).contains("names no node"), "{answer:?}");
    door.refused(RefusedReason::Certificate, 1).await;
    door.still_works().await;
}

/// Hellos that don't fit are refused with a reason that the peer can read and that is counted.
#[tokio::test]
async fn hellos_that_do_not_fit() {
    let door = Door::with(|options| options.admit = Arc::new(|_, disk| disk != "lost"));
    let table = [
        (hello((1, 1), 2, 0, "other", "d"), RefusedReason::Cluster, "cluster"),
        (hello((1, 1), 3, 0, CLUSTER, "d"), RefusedReason::Node, "hello names node"),
        (hello((1, 1), 1, 0, CLUSTER, "d"), RefusedReason::Node, "hello names node"),
        (hello((900, 901), 2, 0, CLUSTER, "d"), RefusedReason::Version, "900 to 901"),
        (hello((0, 0), 2, 0, CLUSTER, "d"), RefusedReason::Version, "versions"),
        (hello((1, 1), 2, 0, CLUSTER, "lost"), RefusedReason::DiskIncarnation, "lost"),
        (hello((1, 1), 2, 9, CLUSTER, "d"), RefusedReason::Malformed, "lane 9"),
        (frame(1, TRANSPORT, &[1, 2, 3], 0), RefusedReason::Malformed, "ends early"),
        (frame(1, 0, b"request first", 0), RefusedReason::Malformed, "no hello"),
        (frame(1, 0x11, b"", 0), RefusedReason::Malformed, "flags"),
        (frame(1, TRANSPORT, b"", 5000), RefusedReason::Malformed, "over the limit"),
        (vec![0xff; 64], RefusedReason::Malformed, "over the limit"),
        (vec![0; 64], RefusedReason::Malformed, "shorter"),
    ];
    let mut counts = std::collections::BTreeMap::new();
    for (bytes, reason, text) in table {
        let answer = door.answer_to(&bytes).await;
        assert_eq!(answer.get(4..6), Some(&[2, TRANSPORT][..]), "{reason:?}: not a refusal");
        let answer = String::from_utf8_lossy(&answer[22..]).into_owned();
        assert!(answer.contains(text), "{answer:?} doesn't say {text:?}");
        let count = counts.entry(reason).or_insert(0);
        *count += 1;
        door.refused(reason, *count).await;
    }
    assert!(door.recorder.heard().is_empty());
    door.still_works().await;
}

/// After a good hello, bytes that break the protocol end the connection, and only that: an oversize
/// frame before a byte of it is taken, garbage, an answer nobody asked for, a second hello.
#[tokio::test]
async fn broken_frames() {
    let door = Door::new();
    let good = hello((1, 1), 2, 0, CLUSTER, "d");
    let oversize = frame(1, 0, b"", (16 << 20) + 1);
    let mut lying_head = frame(1, 0, b"", 0);
    lying_head[18..22].copy_from_slice(&9u32.to_le_bytes());
    for bytes in [oversize, vec![0xff; 100], lying_head, frame(1, 1, b"answer", 0), good.clone()] {
        let mut tls = door.node_2().await;
        tls.write_all(&good).await.unwrap();
        let mut welcome = vec![0; good.len()];
        tls.read_exact(&mut welcome[..22]).await.unwrap();
        assert_eq!(welcome[4..6], [1, TRANSPORT], "welcomed");
        // It may be closed before all is written.
        let _ = tls.write_all(&bytes).await;
        read_to_end(&mut tls).await;
        let downs = |heard: &[Heard]| heard.iter().filter(|heard| **heard == Heard::Down(2)).count();
        let ups = |heard: &[Heard]| heard.iter().filter(|heard| **heard == Heard::Up(2)).count();
        door.recorder.until(|heard| downs(heard) == ups(heard) && ups(heard) > 0).await;
    }
    assert!(door.recorder.heard().iter().all(|heard| !matches!(heard, Heard::Request { .. })));
    door.still_works().await;
}

/// Half a hello, and a connection that says nothing at all, are ended when their time is over.
#[tokio::test]
async fn half_a_hello_held_open() {
    let door = Door::with(|options| options.handshake_timeout = Duration::from_millis(300));
    let mut silent = door.tcp().await;
    let mut half = door.node_2().await;
    half.write_all(&hello((1, 1), 2, 0, CLUSTER, "d")[..30]).await.unwrap();
    read_to_end(&mut half).await;
    read_to_end(&mut silent).await;
    door.refused(RefusedReason::Slow, 2).await;
    assert!(door.recorder.heard().is_empty());
}

/// More strangers than the bound are closed at once; when they are gone, peers get in again.
#[tokio::test]
async fn many_connections() {
    let door = Door::new();
    let mut strangers = Vec::new();
    for _ in 0..256 {
        strangers.push(door.tcp().await);
    }
    for number in 1..=20 {
        assert_eq!(read_to_end(&mut door.tcp().await).await, b"");
        door.refused(RefusedReason::TooMany, number).await;
    }
    drop(strangers);
    door.refused(RefusedReason::Tls, 256).await;
    door.still_works().await;
}

/// While a node is connected, a second one with its certificate and another disk is refused.
#[tokio::test]
async fn two_disks_with_one_name() {
    let door = Door::new();
    let mut first = door.node_2().await;
    first.write_all(&hello((1, 1), 2, 0, CLUSTER, "first")).await.unwrap();
    first.read_exact(&mut [0; 22]).await.unwrap();
    let answer = door.answer_to(&hello((1, 1), 2, 2, CLUSTER, "second")).await;
    assert!(String::from_utf8_lossy(&answer).contains("\"first\""));
    door.refused(RefusedReason::DiskIncarnation, 1).await;
    drop(first);
    door.recorder.until_heard(Heard::Down(2)).await;
    let mut second = door.node_2().await;
    second.write_all(&hello((1, 1), 2, 2, CLUSTER, "second")).await.unwrap();
    let mut welcome = [0; 22];
    second.read_exact(&mut welcome).await.unwrap();
    assert_eq!(welcome[4], 1);
}

/// A requester that calls the wrong node, or a cluster of another name, learns why it can't.
#[tokio::test]
async fn calling_the_wrong_one() {
    let door = Door::new();
    let at_door = PeerAddress { address: door.transport.local_addr().to_string() };
    let reason = |sent: Result<_, TransportError>| match sent {
        Err(TransportError::Unreachable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let (caller, _) = door.authority.start(2, |_| {});
    caller.set_peer(NodeId(9), at_door.clone());
    let sent = caller.send(NodeId(9), Lane::Control, message(ECHO, 1, &[])).await.map(drop);
    assert!(reason(sent).contains("tls"), "the certificate is not node 9's");
    let (old, _) = door.authority.start(4, |options| options.cluster = CLUSTER.to_owned());
    old.set_peer(NodeId(1), PeerAddress { address: "127.0.0.1:1".into() });
    let sent = old.send(NodeId(1), Lane::Control, message(ECHO, 1, &[])).await.map(drop);
    assert!(reason(sent).contains("127.0.0.1:1"));
    // A new address ends the back-off: the very next send works.
    old.set_peer(NodeId(1), at_door);
    let sent = old.send(NodeId(1), Lane::Control, message(ECHO, 7, &[])).await.unwrap();
    assert_eq!(sent.await.unwrap().group.0, 7);
    // Without one, sends fail at once and say when the next attempt is.
    old.set_peer(NodeId(8), PeerAddress { address: "127.0.0.1:1".into() });
    for text in ["127.0.0.1:1", "next attempt"] {
        let sent = old.send(NodeId(8), Lane::Control, message(ECHO, 1, &[])).await.map(drop);
        assert!(reason(sent).contains(text));
    }
}
