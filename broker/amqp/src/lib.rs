//! The AMQP front: devices, services and the Event Hubs-compatible endpoint, over whatever carries
//! bytes: TCP with TLS, WebSocket, a pipe.
//!
//! [`serve`] runs one connection in the task that calls it, with all its sessions and links: thousands of
//! devices may share it. `shell` moves bytes, the engine of `protocol/amqp` keeps the protocol, `front`
//! decides what a node means, and asks leaders through `DeviceHub` and `Hub`. No task is made per link,
//! message or request: requests are futures within the task, at most one on its way per device, per
//! receiver of events and per sender.
//!
//! ```text
//!  socket ─ shell ─ engine ─ front ─┬─ cbs          tokens
//!                                   ├─ device       telemetry, commands, twin, methods
//!                                   ├─ service      commands of services, feedback
//!                                   ├─ files        file notifications
//!                                   ├─ stream       partitions to consumers: credit, epochs
//!                                   ├─ events       senders to the stream
//!                                   └─ management   what the endpoint consists of
//! ```
//!
//! Invariants:
//! 1. Until a token was verified or a device let in, a connection may cost 8 KiB a frame, few links and
//!    [`AmqpLimits::login_timeout`]; afterwards each link is judged for itself.
//! 2. A delivery is accepted after what it carries is committed, and not before.
//! 3. One device's error, takeover or lapsed token ends its own links; others on the connection go on.
//! 4. Links that have something to send take turns, so many messages a turn; a link without credit and a
//!    socket that isn't read cost nothing but what is fetched already.
//! 5. Deliveries of events are settled when they are sent: progress is the client's affair.
//! 6. What waits is bounded, see [`AmqpLimits`]; a full partition stops the reading of the socket.
//!
//! Deliberately different from the public hub: a command that a device was sent belongs to its link until
//! the link ends, there is no lock of a minute that runs out meanwhile. Tokens of an identity provider
//! (JWT) are refused.
#![deny(missing_docs)]

mod address;
mod cbs;
mod device;
mod errors;
mod events;
mod files;
mod filter;
mod front;
mod incoming;
mod limits;
mod management;
mod outgoing;
mod owners;
mod ready;
mod service;
mod shell;
mod stream;
mod tokens;
mod work;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fleetline_gateway::devices::DeviceGateway;
use fleetline_gateway::http::PeerInfo;
use fleetline_gateway::hub::Hub;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub use limits::AmqpLimits;

/// The WebSocket subprotocol of AMQP.
pub const WEBSOCKET_PROTOCOL: &str = "AMQPWSB10";
/// Paths under which WebSockets carry AMQP.
pub const WEBSOCKET_PATHS: [&str; 2] = ["/$iothub/websocket", "/$servicebus/websocket"];

/// What the endpoint says of itself.
#[derive(Clone, Debug)]
pub struct AmqpIdentity {
    /// The Event Hubs-compatible name. The first label of each of the hub's host names is taken too.
    pub hub_name: String,
    /// When the hub was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// The port of AMQP with TLS, for clients that are told the endpoint's place.
    pub port: u16,
    /// Consumers also get the hub's own events (twin changes, connections, …); else only what devices
    /// and senders send, as the public hub does without routes.
    pub shows_hub_events: bool,
}

/// What all connections of the front share.
pub struct AmqpContext {
    /// The way to leaders and into the stream.
    pub gateway: Arc<DeviceGateway>,
    /// The stream: read, resolve and describe must answer for every partition.
    pub hub: Arc<dyn Hub>,
    /// What the endpoint says of itself.
    pub identity: AmqpIdentity,
    /// Bounds.
    pub limits: AmqpLimits,
    owners: Arc<owners::Local>,
    count: AtomicUsize,
    stop: watch::Sender<bool>,
}

impl AmqpContext {
    /// Over these.
    pub fn new(
        gateway: Arc<DeviceGateway>,
        hub: Arc<dyn Hub>,
        identity: AmqpIdentity,
        limits: AmqpLimits,
    ) -> Arc<AmqpContext> {
        let owners = Arc::default();
        let stop = watch::channel(false).0;
        Arc::new(AmqpContext { gateway, hub, identity, limits, owners, count: AtomicUsize::new(0), stop })
    }

    /// Connections now.
    pub fn connections(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Closes all connections with `amqp:connection:forced`, so that clients go to another node.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether an address may give the hub this name.
    fn is_hub(&self, name: &str) -> bool {
        self.names().iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// What the hub may be called: its name as an event hub, and the first labels of its hosts.
    fn names(&self) -> Vec<String> {
        let settings = self.gateway.hub.settings();
        let mut hosts = vec![&settings.host_name];
        hosts.extend(settings.host_names.iter().chain(&settings.access.host_names));
        let labels = hosts.into_iter().filter_map(|host| host.split('.').next()).map(str::to_owned);
        std::iter::once(self.identity.hub_name.clone()).chain(labels).collect()
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
pub async fn serve<IO>(context: Arc<AmqpContext>, io: IO, peer: PeerInfo)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if context.count.fetch_add(1, Ordering::Relaxed) >= context.limits.connections_max {
        context.count.fetch_sub(1, Ordering::Relaxed);
        refused("connections_max");
        return;
    }
    let _counted = Counted(&context.count);
    let mut shell = Box::new(shell::Shell::new(context.clone(), io, peer));
    let why = poll_fn(|cx| shell.poll(cx)).await;
    refused(why);
    shell.end().await;
}

/// Counts an end by its reason.
fn refused(reason: &'static str) {
    metrics::counter!("fleetline_amqp_ended_total", "reason" => reason).increment(1);
}
