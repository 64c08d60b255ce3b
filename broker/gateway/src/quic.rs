//! The native front: `fleetline/1` over QUIC.
//!
//! [`QuicFront::start`] opens the socket and one accept loop; each connection has one task, each of
//! its streams another (and no task is ever made per batch). What a stream does is decided by its
//! first frame: a call (`call`), an append stream (`append`), a read stream (`read`). All of them
//! end in the [`Hub`] trait.
//!
//! Invariants:
//! 1. A connection does nothing before its hello is answered; until then, and for callers without
//!    an identity, it may send 8 KiB.
//! 2. Everything that waits has a bound: connections, handshakes, streams, batches and bytes of a
//!    window, credit. A full window stops the reading of its stream, so that the bound reaches the
//!    client as QUIC flow control.
//! 3. A node that starts again with the same secret resets the connections of its former life, so
//!    that clients notice its death at once and not after the idle time.
//! 4. At shutdown, batches that were taken are answered, and clients are told to go elsewhere.
//!
//! Not here: TLS material and what a certificate may do (the [`Authorizer`]), leadership, retries.

mod append;
pub mod call;
mod connection;
mod endpoint;
mod read;
mod stream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fleetline_native::connection::CloseCode;
use quinn::{Endpoint, Incoming, VarInt};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::access::Authorizer;
use crate::hub::Hub;
use crate::limits::{LimitError, QuicLimits};
use crate::meters::{Held, Meters};

/// Names of what this server can do beyond the base of its version, told in hello.
pub(crate) const FEATURES: &[&str] = &[];

/// How long [`QuicFront::shutdown`] waits for the close packets to leave.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// What the front needs to start.
#[derive(Clone)]
pub struct QuicOptions {
    /// Where to listen; port 0 picks one ([`QuicFront::local_addr`] tells).
    pub listen: SocketAddr,
    /// TLS of the server. It must allow TLS 1.3 and ask for a client certificate without insisting
    /// on one; the ALPN name is set here.
    pub tls: Arc<rustls::ServerConfig>,
    /// A secret of this node that survives restarts. From it come the stateless reset tokens, so
    /// that connections of a former life of the node are reset.
    pub reset_secret: [u8; 32],
    /// Bounds.
    pub limits: QuicLimits,
}

/// Why the front did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A bound that can't work.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The TLS settings don't fit QUIC.
    #[error("tls settings do not fit quic, which needs tls 1.3 and its aes-128-gcm suite: {0}")]
    Tls(String),
    /// The socket can't be opened.
    #[error("udp socket on {listen} can't be opened: {error}")]
    Socket {
        /// The address.
        listen: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

/// The running front.
pub struct QuicFront {
    endpoint: Endpoint,
    local: SocketAddr,
    draining: watch::Sender<bool>,
    accept: JoinHandle<()>,
}

impl QuicFront {
    /// Opens the socket and begins to accept connections. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] names the bound, TLS setting or address that can't work.
    pub fn start(
        options: QuicOptions,
        hub: Arc<dyn Hub>,
        authorizer: Arc<dyn Authorizer>,
    ) -> Result<QuicFront, StartError> {
        options.limits.check()?;
        let endpoint = endpoint::open(&options)?;
        let local =
            endpoint.local_addr().map_err(|error| StartError::Socket { listen: options.listen, error })?;
        let (draining, watching) = watch::channel(false);
        let shared = Arc::new(Shared {
            meters: Meters::new(&options.limits),
            limits: options.limits,
            hub,
            authorizer,
            draining: watching,
            handshaking: AtomicUsize::new(0),
        });
        let accept = tokio::spawn(accept_loop(endpoint.clone(), shared));
        Ok(QuicFront { endpoint, local, draining, accept })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Stops accepting, lets streams answer what they have taken for up to `grace`, then closes all
    /// connections with a code that sends clients to other nodes.
    pub async fn shutdown(mut self, grace: Duration) {
        self.draining.send_replace(true);
        if tokio::time::timeout(grace, &mut self.accept).await.is_err() {
            tracing::warn!(grace_ms = grace.as_millis() as u64, "streams were cut off at shutdown");
        }
        self.accept.abort();
        self.endpoint.close(VarInt::from_u32(CloseCode::ShuttingDown.code()), b"node is shutting down");
        let _ = tokio::time::timeout(CLOSE_WAIT, self.endpoint.wait_idle()).await;
    }
}

impl Drop for QuicFront {
    fn drop(&mut self) {
        self.accept.abort();
        self.endpoint.close(VarInt::from_u32(CloseCode::ShuttingDown.code()), b"front was dropped");
    }
}

/// What all connections share.
pub(crate) struct Shared {
    pub limits: QuicLimits,
    pub meters: Meters,
    pub hub: Arc<dyn Hub>,
    pub authorizer: Arc<dyn Authorizer>,
    /// Turns true once, at shutdown.
    pub draining: watch::Receiver<bool>,
    /// Connections whose hello has not been answered.
    handshaking: AtomicUsize,
}

/// Counts a connection as in its handshake, until dropped.
pub(crate) struct Handshaking {
    shared: Arc<Shared>,
    _gauge: Held,
}

impl Handshaking {
    fn new(shared: &Arc<Shared>) -> Handshaking {
        shared.handshaking.fetch_add(1, Ordering::Relaxed);
        Handshaking { shared: shared.clone(), _gauge: Held::one(&shared.meters.handshakes) }
    }
}

impl Drop for Handshaking {
    fn drop(&mut self) {
        self.shared.handshaking.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts connections until shutdown, then waits for those that are open.
async fn accept_loop(endpoint: Endpoint, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut draining = shared.draining.clone();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(incoming, &shared, &mut connections),
                None => break,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            _ = draining.wait_for(|draining| *draining) => break,
        }
    }
    endpoint.set_server_config(None);
    while connections.join_next().await.is_some() {}
}

/// Decides at the first packet: take it, refuse it, or have the address proven first.
fn admit(incoming: Incoming, shared: &Arc<Shared>, connections: &mut JoinSet<()>) {
    let limits = &shared.limits;
    if connections.len() >= limits.connections_max {
        shared.meters.refused.increment(1);
        incoming.refuse();
        return;
    }
    let crowded = shared.handshaking.load(Ordering::Relaxed) >= limits.handshakes_max;
    if crowded && !incoming.remote_address_validated() {
        shared.meters.retried.increment(1);
        // An incoming that can't be retried (it holds a token already) is dropped, which refuses it.
        let _ = incoming.retry();
        return;
    }
    let handshaking = Handshaking::new(shared);
    connections.spawn(connection::serve(incoming, shared.clone(), handshaking));
}
