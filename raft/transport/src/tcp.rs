//! The real transport: TCP with mutual TLS 1.3, a connection per peer and lane.
//!
//! `broker/node` starts one; `raft/driver` sends through it. The requester makes the connection;
//! requests and answers share it, matched by request id. Frames are drawn in `frame`, the handshake
//! in `tcp/handshake`, queues in `tcp/connection`, reconnecting in `tcp/link`.
//!
//! Invariants: those of the crate. TCP brings order and the end of a dead process; this adds
//! who speaks (certificate and hello) and bounds in bytes.
//!
//! Not here: certificates (`fleetline-auth` makes the rustls configurations), discovery.

mod accept;
mod connection;
mod handshake;
mod link;
mod presence;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fleetline_types::NodeId;
use parking_lot::{Mutex, RwLock};
use rustls::pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use self::connection::{Connection, Limits};
use self::link::Peer;
use self::presence::Presence;
use crate::metric_definitions::TransportMetrics;
use crate::rng::Rng;
use crate::{
    Lane, PeerAddress, PeerHandler, PeerMessage, PeerTransport, RefusedReason, ReplyFuture, TransportError,
};

/// Tells the node that a certificate names; `None` when it names none of this cluster.
pub type Identify = Arc<dyn Fn(&CertificateDer<'_>) -> Option<NodeId> + Send + Sync>;

/// Whether a node may connect with this disk incarnation.
pub type Admit = Arc<dyn Fn(NodeId, &str) -> bool + Send + Sync>;

/// Where to listen for peers.
#[derive(Debug)]
pub enum Listen {
    /// Bind this address; port 0 picks one.
    Address(SocketAddr),
    /// Take this listener, which is bound already.
    Bound(std::net::TcpListener),
}

/// How to start a [`TcpTransport`].
pub struct TcpOptions {
    /// This node.
    pub node: NodeId,
    /// The cluster's name; peers of another are refused.
    pub cluster: String,
    /// Identity of this node's data folder, told to peers.
    pub disk_incarnation: String,
    /// Where peers connect to.
    pub listen: Listen,
    /// Must ask for client certificates; the ALPN is set by the transport.
    pub server_tls: Arc<rustls::ServerConfig>,
    /// Must present this node's certificate; the ALPN is set by the transport.
    pub client_tls: Arc<rustls::ClientConfig>,
    /// The most bytes of head and body in a message. Default 16 MiB. Must be equal on all nodes.
    pub frame_bytes_max: usize,
    /// The most bytes that wait to be written, per peer and lane. Default 8 MiB. Higher absorbs
    /// longer stalls and costs memory; too low stops pipelining.
    pub lane_queue_bytes_max: usize,
    /// Connections that may be in the handshake at once. Default 256.
    pub unauthenticated_max: usize,
    /// How long a handshake may take that a peer began. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long making a connection may take, handshake included. Default 3 s.
    pub connect_timeout: Duration,
    /// Reads the node id out of a certificate.
    pub identify: Identify,
    /// Decides by disk incarnation whether a node may connect. Default: all. Independent of it, a
    /// node is refused while it is connected with another disk.
    pub admit: Admit,
}

impl TcpOptions {
    /// Options with defaults for all bounds.
    pub fn new(
        node: NodeId,
        cluster: impl Into<String>,
        disk_incarnation: impl Into<String>,
        listen: Listen,
        server_tls: Arc<rustls::ServerConfig>,
        client_tls: Arc<rustls::ClientConfig>,
        identify: Identify,
    ) -> TcpOptions {
        TcpOptions {
            node,
            cluster: cluster.into(),
            disk_incarnation: disk_incarnation.into(),
            listen,
            server_tls,
            client_tls,
            frame_bytes_max: 16 * 1024 * 1024,
            lane_queue_bytes_max: 8 * 1024 * 1024,
            unauthenticated_max: 256,
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            identify,
            admit: Arc::new(|_, _| true),
        }
    }
}

/// Peers over TCP and TLS. Must be started inside a tokio runtime.
pub struct TcpTransport {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    /// Yields `None` when the last task has ended.
    all_ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

/// What all tasks of a transport use.
pub(crate) struct Shared {
    node: NodeId,
    cluster: String,
    disk_incarnation: String,
    server_tls: Arc<rustls::ServerConfig>,
    client_tls: Arc<rustls::ClientConfig>,
    limits: Limits,
    unauthenticated_max: usize,
    handshake_timeout: Duration,
    connect_timeout: Duration,
    identify: Identify,
    admit: Admit,
    handler: Arc<dyn PeerHandler>,
    presence: Arc<Presence>,
    metrics: TransportMetrics,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    /// Connections that peers made, by peer and lane.
    inbound: Mutex<BTreeMap<(NodeId, usize), Arc<Connection>>>,
    jitter: Mutex<Rng>,
    stopped: watch::Sender<bool>,
    /// Every task holds a clone of this; gone after shutdown began.
    alive: Mutex<Option<mpsc::Sender<()>>>,
}

impl TcpTransport {
    /// Binds the listener and begins to take connections.
    ///
    /// # Errors
    /// When the address can't be bound, or a bound is zero or beyond what a frame can say.
    pub fn start(options: TcpOptions, handler: Arc<dyn PeerHandler>) -> io::Result<Arc<TcpTransport>> {
        check(&options)?;
        let listener = bind(options.listen)?;
        let local_addr = listener.local_addr()?;
        let (alive, all_ended) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            node: options.node,
            cluster: options.cluster,
            disk_incarnation: options.disk_incarnation,
            server_tls: handshake::with_alpn_server(&options.server_tls),
            client_tls: handshake::with_alpn_client(&options.client_tls),
            limits: Limits {
                frame_bytes_max: options.frame_bytes_max,
                queue_bytes_max: options.lane_queue_bytes_max,
            },
            unauthenticated_max: options.unauthenticated_max,
            handshake_timeout: options.handshake_timeout,
            connect_timeout: options.connect_timeout,
            identify: options.identify,
            admit: options.admit,
            presence: Arc::new(Presence::new(handler.clone())),
            handler,
            metrics: TransportMetrics::new(options.lane_queue_bytes_max, options.unauthenticated_max),
            peers: RwLock::new(BTreeMap::new()),
            inbound: Mutex::new(BTreeMap::new()),
            // The standard library's random keys; jitter needs to differ between nodes, no more.
            jitter: Mutex::new(Rng::new(RandomState::new().build_hasher().finish())),
            stopped: watch::Sender::new(false),
            alive: Mutex::new(Some(alive)),
        });
        tokio::spawn(accept::listen(shared.clone(), listener));
        Ok(Arc::new(TcpTransport { shared, local_addr, all_ended: tokio::sync::Mutex::new(all_ended) }))
    }

    /// The address that the listener is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Connections refused for this reason since the start.
    pub fn refused(&self, reason: RefusedReason) -> u64 {
        self.shared.metrics.refused(reason)
    }
}

#[async_trait]
impl PeerTransport for TcpTransport {
    fn set_peer(&self, node: NodeId, address: PeerAddress) {
        let mut peers = self.shared.peers.write();
        if self.shared.is_stopped() {
            return;
        }
        match peers.get(&node) {
            Some(peer) => peer.set_address(&address.address),
            None => {
                peers.insert(node, Arc::new(Peer::new(node, address.address)));
            }
        }
    }

    fn remove_peer(&self, node: NodeId) {
        let peer = self.shared.peers.write().remove(&node);
        if let Some(peer) = peer {
            peer.close();
        }
        let inbound = self.shared.inbound.lock();
        inbound.iter().filter(|((peer, _), _)| *peer == node).for_each(|(_, connection)| connection.close());
    }

    async fn send(
        &self,
        to: NodeId,
        lane: Lane,
        message: PeerMessage,
    ) -> Result<ReplyFuture, TransportError> {
        let (len, limit) = (message.len(), self.shared.limits.frame_bytes_max);
        if len > limit {
            return Err(TransportError::TooLarge { len, limit });
        }
        if self.shared.is_stopped() {
            return Err(TransportError::Closed);
        }
        let peer = self.shared.peers.read().get(&to).cloned();
        let peer = peer.ok_or(TransportError::UnknownPeer(to))?;
        let connection = peer.link(lane).connection(&self.shared).await;
        match connection {
            Ok(connection) => connection.request(message).await,
            Err(_) if self.shared.is_stopped() => Err(TransportError::Closed),
            Err(error) => Err(error),
        }
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.shared.presence.is_up(node)
    }

    async fn shutdown(&self) {
        self.shared.stop();
        let _ = self.all_ended.lock().await.recv().await;
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpTransport({} at {})", self.shared.node, self.local_addr)
    }
}

impl Shared {
    pub(crate) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Waits for shutdown.
    pub(crate) async fn stopped(&self) {
        // The sender lives in self, so waiting can't fail.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// What a new task holds until it ends.
    pub(crate) fn alive(&self) -> Option<mpsc::Sender<()>> {
        self.alive.lock().clone()
    }

    /// A peer called: it is reachable again, so the next send need not wait for the back-off.
    pub(crate) fn on_called_by(&self, peer: NodeId) {
        let peer = self.peers.read().get(&peer).cloned();
        if let Some(peer) = peer {
            peer.forget_back_off();
        }
    }

    fn stop(&self) {
        let peers = {
            let mut peers = self.peers.write();
            self.stopped.send_replace(true);
            std::mem::take(&mut *peers)
        };
        peers.values().for_each(|peer| peer.close());
        self.inbound.lock().values().for_each(|connection| connection.close());
        self.alive.lock().take();
    }
}

fn check(options: &TcpOptions) -> io::Result<()> {
    let invalid = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    let bytes_max = 1 << 30;
    for (name, value) in
        [("frame_bytes_max", options.frame_bytes_max), ("lane_queue_bytes_max", options.lane_queue_bytes_max)]
    {
        if value == 0 || value > bytes_max {
            return invalid(format!("{name} is {value}; give 1 to {bytes_max} bytes"));
        }
    }
    if options.unauthenticated_max == 0 || options.unauthenticated_max > 65_536 {
        return invalid(format!("unauthenticated_max is {}; give 1 to 65536", options.unauthenticated_max));
    }
    for (name, text) in [("cluster", &options.cluster), ("disk_incarnation", &options.disk_incarnation)] {
        if text.is_empty() || text.len() > 255 {
            return invalid(format!("{name} has {} bytes; give 1 to 255", text.len()));
        }
    }
    Ok(())
}

fn bind(listen: Listen) -> io::Result<TcpListener> {
    let listener = match listen {
        Listen::Bound(listener) => listener,
        Listen::Address(address) => {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            // A restarted node takes its port back while old connections are in TIME_WAIT.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(1024)?;
            socket.into()
        }
    };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
