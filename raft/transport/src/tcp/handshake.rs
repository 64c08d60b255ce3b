//! The handshake: TLS, then a hello each way.
//!
//! ```text
//!  requester                                   answerer
//!     │ ── TLS 1.3, both certificates, ALPN ──── │
//!     │ ── hello (versions, node, lane, ...) ──► │  checks certificate, cluster, node, version, disk
//!     │ ◄── hello (version chosen) or refused ── │
//! ```
//!
//! Used by `link` and `accept`, which bound its time. Invariant: what a hello says of its sender is
//! used only after it was found equal to what the certificate says.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use fleetline_peer::MessageVersion;
use fleetline_types::NodeId;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::Shared;
use super::presence::Joined;
use crate::Lane;
use crate::frame::{
    Frame, HEADER_BYTES, HELLO_BYTES_MAX, Hello, RefusedReason, hello_frame, refused_frame, take_frame,
};

/// The application protocol of peer connections.
pub(crate) const ALPN: &[u8] = b"fleetline-peer/1";
/// TLS records that may wait for the socket; more of them a system call.
const TLS_BUFFER_BYTES: usize = 320 * 1024;

/// A connection was not made.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub reason: RefusedReason,
    pub text: String,
}

/// A peer that has shown who it is.
pub(crate) struct Met {
    pub stream: TlsStream<TcpStream>,
    pub peer: NodeId,
    pub lane: Lane,
    pub joined: Joined,
    /// Bytes read beyond the hello.
    pub rest: BytesMut,
}

/// The requester's side, up to the answerer's hello.
pub(crate) async fn ask(shared: &Shared, tcp: TcpStream, peer: NodeId, lane: Lane) -> Result<Met, Refusal> {
    let name = peer_name(peer, &shared.cluster);
    let name = ServerName::try_from(name.clone())
        .map_err(|_| refusal(RefusedReason::Certificate, format!("{name} is no host name")))?;
    let connector = TlsConnector::from(shared.client_tls.clone());
    let mut tls = connector.connect(name, tcp).await.map_err(tls_failed)?;
    tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    let mut stream = TlsStream::Client(tls);
    check_certificate(shared, &stream, peer)?;
    let versions = (MessageVersion::OLDEST as u32, MessageVersion::NEWEST as u32);
    write(&mut stream, &hello_frame(&own_hello(shared, versions, lane))).await?;
    let (hello, rest) = read_hello(&mut stream).await?;
    if MessageVersion::negotiate(hello.versions.0, hello.versions.1).is_none() {
        return Err(refusal(RefusedReason::Version, format!("peer chose version {}", hello.versions.0)));
    }
    let joined = check_hello(shared, &hello, peer)?;
    if hello.lane != lane {
        return Err(refusal(RefusedReason::Malformed, "peer answers for another lane".into()));
    }
    Ok(Met { stream, peer, lane, joined, rest })
}

/// The answerer's side, up to the requester's hello. [`welcome`] completes it.
pub(crate) async fn meet(shared: &Shared, tcp: TcpStream) -> Result<Met, Refusal> {
    let acceptor = TlsAcceptor::from(shared.server_tls.clone());
    let mut tls = acceptor.accept(tcp).await.map_err(tls_failed)?;
    tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    let mut stream = TlsStream::Server(tls);
    match meet_over_tls(shared, &mut stream).await {
        Ok((peer, lane, joined, rest)) => Ok(Met { stream, peer, lane, joined, rest }),
        Err(refusal) => {
            // Best effort: a stranger that doesn't listen is no reason to log more than the refusal.
            let _ = write(&mut stream, &refused_frame(refusal.reason, &refusal.text)).await;
            let _ = stream.shutdown().await;
            Err(refusal)
        }
    }
}

async fn meet_over_tls(
    shared: &Shared,
    stream: &mut TlsStream<TcpStream>,
) -> Result<(NodeId, Lane, Joined, BytesMut), Refusal> {
    let peer = certified_node(shared, stream)?;
    let (hello, rest) = read_hello(stream).await?;
    if MessageVersion::negotiate(hello.versions.0, hello.versions.1).is_none() {
        let (oldest, newest) = hello.versions;
        return Err(refusal(
            RefusedReason::Version,
            format!(
                "peer speaks versions {oldest} to {newest}, this node {} to {}; upgrade one release at a time",
                MessageVersion::OLDEST as u32,
                MessageVersion::NEWEST as u32
            ),
        ));
    }
    let joined = check_hello(shared, &hello, peer)?;
    Ok((peer, hello.lane, joined, rest))
}

/// Tells the requester that it may ask.
pub(crate) async fn welcome(shared: &Shared, met: &mut Met) -> Result<(), Refusal> {
    let version = MessageVersion::NEWEST as u32;
    write(&mut met.stream, &hello_frame(&own_hello(shared, (version, version), met.lane))).await
}

/// The DNS name in the certificate of a node.
pub(crate) fn peer_name(node: NodeId, cluster: &str) -> String {
    format!("node-{}.{cluster}.fleetline", node.0)
}

pub(crate) fn refusal(reason: RefusedReason, text: String) -> Refusal {
    Refusal { reason, text }
}

fn own_hello(shared: &Shared, versions: (u32, u32), lane: Lane) -> Hello {
    Hello {
        versions,
        node: shared.node,
        lane,
        cluster: shared.cluster.clone(),
        disk_incarnation: shared.disk_incarnation.clone(),
    }
}

/// The node that the peer's certificate names, after the checks that TLS leaves to us.
fn certified_node(shared: &Shared, stream: &TlsStream<TcpStream>) -> Result<NodeId, Refusal> {
    let tls = stream.get_ref().1;
    if tls.alpn_protocol() != Some(ALPN) {
        return Err(refusal(RefusedReason::Tls, "peer doesn't speak fleetline-peer/1".into()));
    }
    let certificate: &CertificateDer<'_> = tls
        .peer_certificates()
        .and_then(|chain| chain.first())
        .ok_or_else(|| refusal(RefusedReason::Certificate, "peer has no certificate".into()))?;
    (shared.identify)(certificate).ok_or_else(|| {
        refusal(
            RefusedReason::Certificate,
            format!("certificate names no node of cluster {}", shared.cluster),
        )
    })
}

fn check_certificate(shared: &Shared, stream: &TlsStream<TcpStream>, peer: NodeId) -> Result<(), Refusal> {
    let found = certified_node(shared, stream)?;
    if found == peer {
        return Ok(());
    }
    Err(refusal(RefusedReason::Node, format!("certificate names node {found}, expected {peer}")))
}

fn check_hello(shared: &Shared, hello: &Hello, peer: NodeId) -> Result<Joined, Refusal> {
    if hello.cluster != shared.cluster {
        let text = format!("peer is of cluster {:?}, this node of {:?}", hello.cluster, shared.cluster);
        return Err(refusal(RefusedReason::Cluster, text));
    }
    if hello.node != peer || peer == shared.node {
        let text =
            format!("hello names node {}, certificate {peer}, this node is {}", hello.node, shared.node);
        return Err(refusal(RefusedReason::Node, text));
    }
    let disk = &hello.disk_incarnation;
    if !(shared.admit)(peer, disk) {
        let text = format!("node {peer} is not known with disk {disk:?}; replace it before it returns");
        return Err(refusal(RefusedReason::DiskIncarnation, text));
    }
    shared.presence.join(peer, disk).map_err(|other| {
        let text = format!("node {peer} is connected with disk {other:?}, and now calls with {disk:?}");
        refusal(RefusedReason::DiskIncarnation, text)
    })
}

async fn read_hello<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(Hello, BytesMut), Refusal> {
    let mut buf = BytesMut::with_capacity(HELLO_BYTES_MAX);
    loop {
        let frame = take_frame(&mut buf, HELLO_BYTES_MAX - HEADER_BYTES)
            .map_err(|error| refusal(RefusedReason::Malformed, error.to_string()))?;
        match frame {
            Some(Frame::Hello(hello)) => return Ok((hello, buf)),
            Some(Frame::Refused { reason, text }) => {
                return Err(refusal(reason, format!("peer refuses this node: {text}")));
            }
            Some(_) => {
                return Err(refusal(RefusedReason::Malformed, "first frame is no hello".into()));
            }
            None => {}
        }
        let count = stream.read_buf(&mut buf).await.map_err(tls_failed)?;
        if count == 0 {
            return Err(refusal(RefusedReason::Malformed, "connection ended before the hello".into()));
        }
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> Result<(), Refusal> {
    stream.write_all(bytes).await.map_err(tls_failed)?;
    stream.flush().await.map_err(tls_failed)
}

fn tls_failed(error: io::Error) -> Refusal {
    refusal(RefusedReason::Tls, error.to_string())
}

/// `config` with the ALPN of peer connections, which is all it may be used for.
pub(crate) fn with_alpn_server(config: &rustls::ServerConfig) -> Arc<rustls::ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

/// See [`with_alpn_server`].
pub(crate) fn with_alpn_client(config: &rustls::ClientConfig) -> Arc<rustls::ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}
