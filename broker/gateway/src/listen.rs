//! Accepting connections of devices and services: TCP with or without TLS, and QUIC streams.
//!
//! One loop a listener; each connection is a task of its own that ends with it. Before a peer is known
//! it costs a task and a TLS state: how many may be in that phase is bounded (`handshakes`), and how long.
//! Accepting waits for no peer.

mod handshakes;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::devices::hub::DeviceHub;
use crate::http::{Chained, PeerInfo};
use crate::tls;
use handshakes::Handshakes;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes of a listener at the same time, usually: some 30 MiB of TLS states, and more than one machine
/// finishes in a second. Beyond it the oldest is dropped.
pub const HANDSHAKES_MAX: usize = 1024;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// Anything that carries bytes.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// A TLS connection; boxed, because it is moved from hand to hand and large.
pub type Tls = Box<tokio_rustls::server::TlsStream<TcpStream>>;

/// What every listener needs.
#[derive(Clone)]
pub struct Listening {
    /// For settings and time.
    pub hub: Arc<dyn DeviceHub>,
    /// TLS, unless the listener is plain.
    pub tls: Option<Arc<ServerConfig>>,
    /// For the metrics: `mqtt`, `mqtt-plain`, `https`.
    pub name: &'static str,
    /// Handshakes at the same time, see [`HANDSHAKES_MAX`].
    pub handshakes_max: usize,
}

/// Opens a TCP listener with a long queue.
///
/// # Errors
/// What the system says.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the future is dropped, which ends them too. `serve` and `serve_tls` run
/// one connection each.
pub async fn accept<P, T, PF, TF>(listening: Listening, listener: TcpListener, serve: P, serve_tls: T)
where
    P: Fn(TcpStream, PeerInfo) -> PF + Clone + Send + 'static,
    T: Fn(Tls, PeerInfo) -> TF + Clone + Send + 'static,
    PF: Future<Output = ()> + Send + 'static,
    TF: Future<Output = ()> + Send + 'static,
{
    let handshakes = Handshakes::new(listening.name, listening.handshakes_max);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (socket, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly out of descriptors: others must end first.
                tracing::warn!(front = listening.name, %error, "connection can't be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if !listening.hub.settings().admits(address.ip()) {
            refused(listening.name, "address");
            continue;
        }
        // Small packets shall not wait for others; without it they only come later.
        drop(socket.set_nodelay(true));
        let Some(config) = listening.tls.clone() else {
            let peer = PeerInfo { address, certificate: None, chained: never() };
            connections.spawn(serve(socket, peer));
            continue;
        };
        let mut begun = handshakes.begin();
        let (listening, serve_tls) = (listening.clone(), serve_tls.clone());
        connections.spawn(async move {
            // In a future of its own, which is given back: the connection's own is small.
            let shaken: BoxFuture<'_, Option<(Tls, PeerInfo)>> = Box::pin(async move {
                let tls = tokio::select! {
                    tls = handshake(&listening, config, socket) => tls,
                    () = begun.dropped() => {
                        refused(listening.name, "handshakes_max");
                        None
                    }
                };
                drop(begun);
                let tls = tls?;
                let peer = peer_info(&listening.hub, address, tls.get_ref().1.peer_certificates());
                Some((tls, peer))
            });
            if let Some((tls, peer)) = shaken.await {
                serve_tls(tls, peer).await;
            }
        });
    }
}

async fn handshake(listening: &Listening, config: Arc<ServerConfig>, socket: TcpStream) -> Option<Tls> {
    let mut tls = match tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(socket)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::debug!(front = listening.name, %error, "tls handshake failed");
            refused(listening.name, "handshake");
            return None;
        }
        Err(_) => {
            refused(listening.name, "handshake_timeout");
            return None;
        }
    };
    let session = tls.get_mut().1;
    session.set_buffer_limit(Some(16 << 10));
    if listening.hub.settings().access.tls13_only
        && session.protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3)
    {
        refused(listening.name, "tls_version");
        return None;
    }
    Some(Box::new(tls))
}

/// Who is at the other end of a TLS connection.
pub fn peer_info(
    hub: &Arc<dyn DeviceHub>,
    address: SocketAddr,
    certificates: Option<&[CertificateDer<'_>]>,
) -> PeerInfo {
    let certificate = tls::shown(certificates);
    let chained: Chained = match certificate {
        None => never(),
        Some(_) => {
            let hub = hub.clone();
            Arc::new(move |shown| tls::is_chained(&hub.settings(), shown, hub.now_ms() / 1000))
        }
    };
    PeerInfo { address, certificate, chained }
}

fn never() -> Chained {
    static NEVER: std::sync::OnceLock<Chained> = std::sync::OnceLock::new();
    NEVER.get_or_init(|| Arc::new(|_| false)).clone()
}

fn refused(front: &'static str, reason: &'static str) {
    metrics::counter!("fleetline_front_refused_total", "front" => front, "reason" => reason).increment(1);
}

/// Accepts MQTT over QUIC: each connection's first bidirectional stream is one MQTT connection.
pub async fn accept_quic<T, TF>(hub: Arc<dyn DeviceHub>, endpoint: quinn::Endpoint, serve: T)
where
    T: Fn(tokio::io::Join<quinn::RecvStream, quinn::SendStream>, PeerInfo) -> TF + Clone + Send + 'static,
    TF: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while connections.try_join_next().is_some() {}
        if !hub.settings().admits(incoming.remote_address().ip()) {
            refused("mqtt-quic", "address");
            incoming.refuse();
            continue;
        }
        // An address that wasn't proved costs us nothing while many connect.
        if endpoint.open_connections() > HANDSHAKES_MAX && !incoming.remote_address_validated() {
            drop(incoming.retry());
            continue;
        }
        let (hub, serve) = (hub.clone(), serve.clone());
        connections.spawn(async move {
            let opened = tokio::time::timeout(HANDSHAKE, async {
                let connection = incoming.await.ok()?;
                let stream = connection.accept_bi().await.ok()?;
                Some((connection, stream))
            });
            let Ok(Some((connection, (send, receive)))) = opened.await else {
                refused("mqtt-quic", "handshake");
                return;
            };
            let certificates = connection
                .peer_identity()
                .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
            let peer =
                peer_info(&hub, connection.remote_address(), certificates.as_deref().map(Vec::as_slice));
            drop(hub);
            serve(tokio::io::join(receive, send), peer).await;
            connection.close(0u32.into(), b"");
        });
    }
}
