//! MQTT 3.1.1 and 5 for devices, over whatever carries bytes: TCP, TLS, WebSocket, a QUIC stream.
//!
//! [`serve`] runs one connection in the task that calls it: `login` reads CONNECT and opens the session
//! at the leader, then `shell` moves bytes and `session` decides what packets mean. No task is made per
//! packet or per request; at most one request to a leader is on its way per connection, others wait in
//! a bounded queue and then the socket isn't read.
//!
//! Invariants:
//! 1. CONNECT may cost 8 KiB, and 10 seconds until all of it is there. Behind it only the leader's answer is
//!    waited for, as long as the hub has patience; nothing is read meanwhile.
//! 2. PUBACKs leave in the order of their PUBLISHes, each after what it acknowledges is committed.
//! 3. Nothing precedes CONNACK, and nothing is taken from a connection whose session is over.
//! 4. A refusal that means "later" (no leader, overload) is never one that means "never".
//!
//! Deliberately not met: packet ids of messages to a device don't outlive its connection, so what
//! comes again after a reconnect has a new id and DUP 0 (`[MQTT-4.4.0-1]`); retained messages and QoS 2
//! don't exist here, as the hub that devices expect doesn't have them.

mod input;
mod login;
mod session;
mod shell;
mod work;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fleetline_mqtt::Limits;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::devices::DeviceGateway;
use crate::http::PeerInfo;

/// Bounds of the MQTT front.
#[derive(Clone, Debug)]
pub struct MqttLimits {
    /// Bounds of packets.
    pub packets: Limits,
    /// Bytes of CONNECT.
    pub connect_bytes_max: usize,
    /// How long TLS, WebSocket and CONNECT may take together.
    pub connect_timeout: Duration,
    /// Connections at once.
    pub connections_max: usize,
    /// The longest that a connection may be silent, whatever its keep-alive says.
    pub silence_max: Duration,
    /// PUBLISHes of one connection that wait for their acknowledgement.
    pub in_flight_max: usize,
    /// Messages to a device that wait for its acknowledgement.
    pub deliveries_max: usize,
    /// Bytes that wait for a slow reader; beyond them it isn't read from.
    pub output_bytes_max: usize,
    /// How long a token may be over before its connection is closed.
    pub expiry_grace: Duration,
}

impl Default for MqttLimits {
    fn default() -> MqttLimits {
        MqttLimits {
            packets: Limits::default(),
            connect_bytes_max: 8 << 10,
            connect_timeout: Duration::from_secs(10),
            connections_max: 1_000_000,
            silence_max: Duration::from_secs(1767),
            in_flight_max: 4096,
            deliveries_max: 16,
            output_bytes_max: 512 << 10,
            expiry_grace: Duration::ZERO,
        }
    }
}

/// What all connections of the front share.
pub struct MqttContext {
    /// The way to leaders and into the stream.
    pub gateway: Arc<DeviceGateway>,
    /// Bounds.
    pub limits: MqttLimits,
    count: AtomicUsize,
}

impl MqttContext {
    /// Over this gateway.
    pub fn new(gateway: Arc<DeviceGateway>, limits: MqttLimits) -> Arc<MqttContext> {
        Arc::new(MqttContext { gateway, limits, count: AtomicUsize::new(0) })
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// Counts a connection as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs one connection to its end.
///
/// The future is small: what opening a session needs is given back before the connection is idle.
pub async fn serve<IO>(context: Arc<MqttContext>, io: IO, peer: PeerInfo)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if context.count.fetch_add(1, Ordering::Relaxed) >= context.limits.connections_max {
        context.count.fetch_sub(1, Ordering::Relaxed);
        refused("connections_max");
        return;
    }
    let _counted = Counted(&context.count);
    let opening: BoxFuture<'_, Option<Box<shell::Shell<IO>>>> = Box::pin(open(&context, io, peer));
    if let Some(mut shell) = opening.await {
        let close = poll_fn(|cx| shell.poll(cx)).await;
        let ending: BoxFuture<'_, ()> = Box::pin(shell.end(close));
        ending.await;
    }
}

/// Reads CONNECT and opens the session.
async fn open<IO>(context: &Arc<MqttContext>, mut io: IO, peer: PeerInfo) -> Option<Box<shell::Shell<IO>>>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limit = context.limits.connect_timeout;
    let opened = match tokio::time::timeout(limit, login::read_connect(context, &mut io)).await {
        Ok(Some(connect)) => login::open(context, &mut io, &peer, connect).await,
        Ok(None) => None,
        Err(_) => {
            refused("connect_timeout");
            None
        }
    };
    opened.map(|opened| Box::new(shell::Shell::new(context.clone(), io, opened)))
}

/// Counts a refusal by its reason.
fn refused(reason: &'static str) {
    metrics::counter!("fleetline_mqtt_refused_total", "reason" => reason).increment(1);
}
