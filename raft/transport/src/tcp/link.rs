//! The requester's side of one lane to one peer: makes the connection when it is needed.
//!
//! Used by `TcpTransport::send`. One attempt at a time; everybody who wants to send waits for it.
//! After a failed attempt sends fail at once until the back-off is over, unless the peer's address
//! changes or the peer itself calls: then the next send tries again.
//!
//! ```text
//!  idle ──send──► connecting ──ok──► up ──broke──► idle
//!    ▲                │
//!    └── back-off ◄───┘ failed        50 ms doubling to 2 s, each times 0.5 to 1
//! ```
//!
//! Invariant: at most one connection of a link is up, and it is closed before the next is made.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fleetline_types::NodeId;
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::Shared;
use super::connection::{Connection, Side};
use super::handshake::{Met, ask};
use crate::metric_definitions::lane_index;
use crate::{Lane, TransportError};

const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

/// The links to one peer.
pub(crate) struct Peer {
    links: [Arc<Link>; Lane::ALL.len()],
}

impl Peer {
    pub(crate) fn new(node: NodeId, address: String) -> Peer {
        Peer { links: Lane::ALL.map(|lane| Arc::new(Link::new(node, lane, address.clone()))) }
    }

    pub(crate) fn link(&self, lane: Lane) -> &Arc<Link> {
        &self.links[lane_index(lane)]
    }

    pub(crate) fn set_address(&self, address: &str) {
        self.links.iter().for_each(|link| link.set_address(address));
    }

    pub(crate) fn forget_back_off(&self) {
        self.links.iter().for_each(|link| link.state.lock().not_before = None);
    }

    pub(crate) fn close(&self) {
        self.links.iter().for_each(|link| link.close());
    }
}

pub(crate) struct Link {
    peer: NodeId,
    lane: Lane,
    state: Mutex<LinkState>,
}

struct LinkState {
    address: String,
    current: Current,
    /// Failed attempts since the last good one.
    failures: u32,
    not_before: Option<Instant>,
    last_error: String,
    connected_before: bool,
    closed: bool,
}

enum Current {
    Idle,
    Connecting { outcome: watch::Receiver<Option<Outcome>>, attempt: AbortHandle },
    Up(Arc<Connection>),
}

type Outcome = Result<Arc<Connection>, String>;

impl Link {
    fn new(peer: NodeId, lane: Lane, address: String) -> Link {
        let state = LinkState {
            address,
            current: Current::Idle,
            failures: 0,
            not_before: None,
            last_error: String::new(),
            connected_before: false,
            closed: false,
        };
        Link { peer, lane, state: Mutex::new(state) }
    }

    /// The live connection; made now when there is none.
    pub(crate) async fn connection(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
    ) -> Result<Arc<Connection>, TransportError> {
        loop {
            let mut outcome = match self.current(shared)? {
                Ok(connection) => return Ok(connection),
                Err(outcome) => outcome,
            };
            if let Ok(outcome) = outcome.wait_for(Option::is_some).await {
                return match outcome.as_ref().expect("waited for an outcome") {
                    Ok(connection) => Ok(connection.clone()),
                    Err(reason) => {
                        Err(TransportError::Unreachable { node: self.peer, reason: reason.clone() })
                    }
                };
            }
            // The attempt was given up because the address changed or the link was closed.
        }
    }

    /// The live connection, or the outcome to wait for.
    fn current(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
    ) -> Result<Result<Arc<Connection>, watch::Receiver<Option<Outcome>>>, TransportError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(TransportError::UnknownPeer(self.peer));
        }
        match &state.current {
            Current::Up(connection) if !connection.is_closed() => return Ok(Ok(connection.clone())),
            Current::Connecting { outcome, .. } => return Ok(Err(outcome.clone())),
            Current::Up(_) | Current::Idle => {}
        }
        if let Some(wait) = state.not_before.and_then(|at| at.checked_duration_since(Instant::now()))
            && !wait.is_zero()
        {
            let reason = format!("{} (next attempt in {} ms)", state.last_error, wait.as_millis());
            return Err(TransportError::Unreachable { node: self.peer, reason });
        }
        let (told, outcome) = watch::channel(None);
        let address = state.address.clone();
        let attempt = tokio::spawn(self.clone().attempt(shared.clone(), address, told)).abort_handle();
        state.current = Current::Connecting { outcome: outcome.clone(), attempt };
        Ok(Err(outcome))
    }

    async fn attempt(
        self: Arc<Self>,
        shared: Arc<Shared>,
        address: String,
        told: watch::Sender<Option<Outcome>>,
    ) {
        let _alive = shared.alive();
        let made = timeout(shared.connect_timeout, connect(&shared, &address, self.peer, self.lane)).await;
        let made = made.unwrap_or_else(|_| {
            Err(format!("no answer from {address} in {} ms", shared.connect_timeout.as_millis()))
        });
        let outcome = match made {
            Ok(met) => self.on_connected(&shared, met),
            Err(reason) => self.on_failed(&shared, reason),
        };
        told.send_replace(Some(outcome));
    }

    fn on_connected(&self, shared: &Arc<Shared>, met: Met) -> Outcome {
        let metrics = shared.metrics.lane(self.lane);
        let (connection, queue) =
            Connection::new(self.peer, self.lane, Side::Requester, shared.limits, metrics.clone());
        {
            let mut state = self.state.lock();
            if state.closed {
                return Err("peer was removed".to_owned());
            }
            if state.connected_before {
                metrics.reconnects.increment(1);
            }
            metrics.connects.increment(1);
            state.connected_before = true;
            state.failures = 0;
            state.not_before = None;
            state.current = Current::Up(connection.clone());
        }
        info!(peer = %self.peer, lane = ?self.lane, "connected to peer");
        let (running, shared) = (connection.clone(), shared.clone());
        tokio::spawn(async move {
            let _alive = shared.alive();
            running.run(met.stream, met.rest, queue, shared.handler.clone()).await;
            drop(met.joined);
        });
        Ok(connection)
    }

    fn on_failed(&self, shared: &Shared, reason: String) -> Outcome {
        shared.metrics.lane(self.lane).connect_failures.increment(1);
        let mut state = self.state.lock();
        let full = BACK_OFF_MIN.saturating_mul(1 << state.failures.min(6)).min(BACK_OFF_MAX);
        let wait = shared.jitter.lock().between(full / 2, full).max(BACK_OFF_MIN);
        if state.failures == 0 {
            warn!(peer = %self.peer, lane = ?self.lane, %reason, "peer can't be reached");
        } else {
            debug!(peer = %self.peer, lane = ?self.lane, %reason, ?wait, "peer still can't be reached");
        }
        state.failures = state.failures.saturating_add(1);
        state.not_before = Some(Instant::now() + wait);
        state.last_error.clone_from(&reason);
        state.current = Current::Idle;
        Err(reason)
    }

    fn set_address(&self, address: &str) {
        let mut state = self.state.lock();
        if state.address == address {
            return;
        }
        address.clone_into(&mut state.address);
        state.failures = 0;
        state.not_before = None;
        if let Current::Connecting { attempt, .. } = &state.current {
            attempt.abort();
            state.current = Current::Idle;
        }
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        match std::mem::replace(&mut state.current, Current::Idle) {
            Current::Idle => {}
            Current::Connecting { attempt, .. } => attempt.abort(),
            Current::Up(connection) => connection.close(),
        }
    }
}

async fn connect(shared: &Shared, address: &str, peer: NodeId, lane: Lane) -> Result<Met, String> {
    let addresses = lookup_host(address)
        .await
        .map_err(|error| format!("address {address:?} can't be resolved: {error}"))?;
    let mut last = format!("address {address:?} resolves to nothing");
    for address in addresses {
        let tcp = match TcpStream::connect(address).await {
            Ok(tcp) => tcp,
            Err(error) => {
                last = format!("{address}: {error}");
                continue;
            }
        };
        tune(&tcp).map_err(|error| format!("{address}: socket options: {error}"))?;
        return ask(shared, tcp, peer, lane)
            .await
            .map_err(|refusal| format!("{address}: {} ({})", refusal.text, refusal.reason.label()));
    }
    Err(last)
}

/// Socket options of every peer connection: no delay for small frames, and an end within seconds
/// when the other machine is gone without a word.
pub(crate) fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let socket = SockRef::from(tcp);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(3))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(Duration::from_secs(10)))
}
