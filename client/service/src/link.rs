//! The way to one node: its address, and the one connection that everything to it shares.
//!
//! A connection is made when it is first needed and made again when it is lost. One attempt serves
//! all who wait, and outlives them: who comes next takes it on where it is. After a failure the link
//! says so at once for a short while (with jitter), so that callers try other nodes instead of
//! queueing here. The UDP socket is connected to the node's address: the kernel then reports a
//! closed port, so a dead process is noticed at the next packet. quinn does not hear of it (the
//! report is neither a datagram nor a reason to stop sending), so [`Refusals`] watches the socket.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fleetline_native::connection::{CloseCode, VERSION_MAX, VERSION_MIN};
use fleetline_native::frame::{FrameKind, frame_bytes};
use fleetline_native::{HubError, ProtocolError, Reply, Request, error_map, proto};
use fleetline_types::NodeId;
use futures::future::{BoxFuture, FutureExt, Shared};
use parking_lot::Mutex;
use quinn::{Connection, ConnectionError, Endpoint, EndpointConfig, SendStream, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::io::Interest;

use crate::backoff::Backoff;
use crate::frames::{FrameReader, StreamEnd};
use crate::options::{ClientOptions, host_of};

/// Bytes of the UDP socket's buffers, as far as the kernel allows.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// The node could not be reached; nothing was sent.
#[derive(Clone, Debug, Error)]
#[error("{address}: {reason}")]
pub(crate) struct Unreachable {
    pub address: String,
    pub reason: String,
}

/// Why a call has no reply.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    /// Nothing was sent.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The node answered with an error.
    #[error(transparent)]
    Hub(HubError),
    /// The request may have been taken.
    #[error(transparent)]
    Lost(StreamEnd),
}

/// A connection whose hello was answered.
pub(crate) struct NodeConnection {
    connection: Connection,
    node: NodeId,
}

/// The way to one node.
pub(crate) struct Link {
    connector: Connector,
    state: Mutex<State>,
}

/// What an attempt to connect needs.
#[derive(Clone)]
struct Connector {
    address: String,
    config: quinn::ClientConfig,
    options: Arc<ClientOptions>,
    /// The id of the cluster, from the options or the first node that answered; others are refused.
    cluster: Arc<OnceLock<String>>,
}

type Attempt = Shared<BoxFuture<'static, Result<Arc<NodeConnection>, Unreachable>>>;

struct State {
    current: Option<Arc<NodeConnection>>,
    /// The attempt that is under way.
    attempt: Option<Attempt>,
    backoff: Backoff,
    /// After a failure: until when the answer is the same, and which.
    refused: Option<(Instant, Unreachable)>,
}

impl Link {
    pub(crate) fn new(
        address: String,
        config: quinn::ClientConfig,
        options: Arc<ClientOptions>,
        cluster: Arc<OnceLock<String>>,
    ) -> Link {
        let backoff = Backoff::new(options.backoff_min, options.backoff_max);
        let state = State { current: None, attempt: None, backoff, refused: None };
        Link { connector: Connector { address, config, options, cluster }, state: Mutex::new(state) }
    }

    /// Whether there is a live connection.
    pub(crate) fn is_live(&self) -> bool {
        self.state.lock().live().is_some()
    }

    /// The live connection, made if need be.
    ///
    /// Cancel-safe: an attempt that is dropped is taken on by the next caller.
    pub(crate) async fn connection(&self) -> Result<Arc<NodeConnection>, Unreachable> {
        let attempt = {
            let mut state = self.state.lock();
            if let Some(live) = state.live() {
                return Ok(live);
            }
            match (&state.attempt, &state.refused) {
                (Some(attempt), _) => attempt.clone(),
                (None, Some((until, error))) if Instant::now() < *until => return Err(error.clone()),
                (None, _) => {
                    let attempt = self.connector.clone().attempt().boxed().shared();
                    state.attempt = Some(attempt.clone());
                    attempt
                }
            }
        };
        let result = attempt.clone().await;
        let mut state = self.state.lock();
        // The first who sees the result takes it down; an attempt may have followed since.
        if state.attempt.as_ref().is_some_and(|a| a.ptr_eq(&attempt)) {
            state.finish(&result);
        }
        result
    }
}

impl State {
    fn live(&self) -> Option<Arc<NodeConnection>> {
        self.current.as_ref().filter(|c| c.connection.close_reason().is_none()).cloned()
    }

    fn finish(&mut self, result: &Result<Arc<NodeConnection>, Unreachable>) {
        self.attempt = None;
        match result {
            Ok(connection) => {
                self.backoff.reset();
                self.refused = None;
                self.current = Some(connection.clone());
            }
            Err(error) => self.refused = Some((Instant::now() + self.backoff.next(), error.clone())),
        }
    }
}

impl Connector {
    async fn attempt(self) -> Result<Arc<NodeConnection>, Unreachable> {
        let within = self.options.connect_timeout;
        let result = tokio::time::timeout(within, self.connect()).await;
        match result.unwrap_or_else(|_| Err(format!("no connection in {} ms", within.as_millis()))) {
            Ok(connection) => {
                tracing::debug!(address = self.address, node = %connection.node, "connected");
                Ok(Arc::new(connection))
            }
            Err(reason) => {
                tracing::debug!(address = self.address, reason, "not connected");
                Err(Unreachable { address: self.address, reason })
            }
        }
    }

    async fn connect(&self) -> Result<NodeConnection, String> {
        let host = host_of(&self.address).map_err(|e| e.to_string())?;
        let addresses = tokio::net::lookup_host(&self.address).await.map_err(|e| e.to_string())?;
        let mut reason = "the name has no address".to_owned();
        for address in addresses {
            match self.connect_to(address, host).await {
                Ok(connection) => return Ok(connection),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    async fn connect_to(&self, address: SocketAddr, host: &str) -> Result<NodeConnection, String> {
        let socket = socket_to(address).map_err(|e| e.to_string())?;
        let refusals = Refusals::watch(&socket).map_err(|e| e.to_string())?;
        let mut config = EndpointConfig::default();
        config.max_udp_payload_size(self.options.mtu_upper_bound.max(1472)).map_err(|e| e.to_string())?;
        let endpoint =
            Endpoint::new(config, None, socket, Arc::new(quinn::TokioRuntime)).map_err(|e| e.to_string())?;
        let connecting =
            endpoint.connect_with(self.config.clone(), address, host).map_err(|e| e.to_string())?;
        let connection = tokio::select! {
            connection = connecting => connection.map_err(|e| e.to_string())?,
            () = refusals.refused() => return Err("the port is closed".into()),
        };
        tokio::spawn(refusals.guard(connection.clone()));
        let answer = self.hello(&connection).await.map_err(|e| e.to_string())?;
        let cluster = self.cluster.get_or_init(|| answer.cluster.clone());
        if *cluster != answer.cluster {
            connection.close(VarInt::from_u32(CloseCode::WrongCluster.code()), b"wrong cluster");
            return Err(format!("the node is of cluster {}, not {cluster}", answer.cluster));
        }
        Ok(NodeConnection { connection, node: NodeId(answer.node) })
    }

    async fn hello(&self, connection: &Connection) -> Result<proto::HelloAnswer, StreamEnd> {
        let hello = proto::Hello {
            min_version: VERSION_MIN,
            max_version: VERSION_MAX,
            cluster: self.cluster.get().cloned().unwrap_or_default(),
            client_name: self.options.client_name.clone(),
        };
        let (mut send, recv) = connection.open_bi().await.map_err(lost)?;
        send.write_all(&frame_bytes(FrameKind::Hello, &hello, 0)).await?;
        let _ = send.finish();
        let frame = FrameReader::new(recv).next().await?;
        if frame.kind != FrameKind::HelloAnswer {
            let (expected, found) = ("hello answer", frame.kind);
            return Err(ProtocolError::UnexpectedFrame { expected, found }.into());
        }
        let answer: proto::HelloAnswer = frame.decode_head()?;
        if !(VERSION_MIN..=VERSION_MAX).contains(&answer.version) {
            return Err(ProtocolError::Missing { what: "common protocol version" }.into());
        }
        Ok(answer)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(open) = self.state.lock().current.take() {
            open.connection.close(VarInt::from_u32(CloseCode::Done.code()), b"client is done");
        }
    }
}

impl NodeConnection {
    /// Opens a stream.
    pub(crate) async fn open(&self) -> Result<(SendStream, FrameReader), StreamEnd> {
        let (send, recv) = self.connection.open_bi().await.map_err(lost)?;
        Ok((send, FrameReader::new(recv)))
    }

    /// Makes one call, waiting up to `within` for its answer.
    ///
    /// When dropped before it is done, the outcome is unknown.
    pub(crate) async fn call(&self, request: Request, within: Duration) -> Result<Reply, CallError> {
        let sent = async {
            let (mut send, mut reader) = self.open().await.map_err(|end| {
                let address = self.connection.remote_address().to_string();
                CallError::Unreachable(Unreachable { address, reason: end.to_string() })
            })?;
            let bytes = frame_bytes(FrameKind::Call, &request.into_wire(), 0);
            send.write_all(&bytes).await.map_err(|e| CallError::Lost(e.into()))?;
            let _ = send.finish();
            reader.next().await.map_err(CallError::Lost)
        };
        let frame = tokio::time::timeout(within, sent).await.unwrap_or_else(|_| {
            Err(CallError::Lost(StreamEnd::Lost(format!("no answer in {} ms", within.as_millis()))))
        })?;
        let broken = |error: ProtocolError| CallError::Lost(StreamEnd::Protocol(error));
        match frame.kind {
            FrameKind::Answer => {
                let answer = frame.decode_head().map_err(|e| broken(e.into()))?;
                Reply::from_wire(answer).map_err(broken)
            }
            FrameKind::Error => {
                let error = frame.decode_head().map_err(|e| broken(e.into()))?;
                Err(CallError::Hub(error_map::from_wire(error)))
            }
            found => Err(broken(ProtocolError::UnexpectedFrame { expected: "an answer", found })),
        }
    }
}

/// Watches a connected socket for the kernel's word that nobody listens at the other end.
struct Refusals {
    socket: tokio::net::UdpSocket,
}

impl Refusals {
    fn watch(socket: &std::net::UdpSocket) -> io::Result<Refusals> {
        Ok(Refusals { socket: tokio::net::UdpSocket::from_std(socket.try_clone()?)? })
    }

    /// Waits for a report. One that a send has taken first is missed; the next packet brings another.
    async fn refused(&self) {
        loop {
            if self.socket.ready(Interest::ERROR).await.is_err() {
                return std::future::pending().await;
            }
            // Other errors (a probe that is too large for the path) are QUIC's daily business.
            if let Ok(Some(error)) = self.socket.take_error()
                && error.kind() == io::ErrorKind::ConnectionRefused
            {
                return;
            }
            let _ = self.socket.try_io(Interest::ERROR, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
    }

    /// Ends `connection` at the first report.
    async fn guard(self, connection: Connection) {
        tokio::select! {
            () = self.refused() => {
                tracing::debug!(remote = %connection.remote_address(), "the node's port is closed");
                connection.close(VarInt::from_u32(CloseCode::Done.code()), b"port is closed");
            }
            _ = connection.closed() => {}
        }
    }
}

fn lost(error: ConnectionError) -> StreamEnd {
    StreamEnd::Lost(format!("connection lost: {error}"))
}

/// A UDP socket for one node, with large buffers as far as the kernel allows.
fn socket_to(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Small buffers lose packets in bulk; QUIC repairs that, so it is no reason to fail.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    socket.bind(&any.into())?;
    // Elsewhere a connected socket refuses to send to an address that is given.
    if cfg!(target_os = "linux") {
        socket.connect(&address.into())?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
