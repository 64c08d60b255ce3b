//! The answerer's side: takes connections, meets peers, runs what passed.
//!
//! One task listens; each connection has a task of its own from the first byte. Strangers are
//! bounded in number and in time, before TLS takes any memory for them.
//!
//! Invariants:
//! 1. At most `unauthenticated_max` connections are in the handshake, each for at most
//!    `handshake_timeout`.
//! 2. Per peer and lane at most one connection runs. A newer one closes the older and begins only
//!    when nothing of the older can reach the handler any more: requests of a broken connection
//!    never arrive behind those of the next.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::Shared;
use super::connection::{Connection, Outgoing, Side};
use super::handshake::{Met, Refusal, meet, refusal, welcome};
use super::link::tune;
use crate::RefusedReason;
use crate::metric_definitions::lane_index;

/// Takes connections until shutdown.
pub(crate) async fn listen(shared: Arc<Shared>, listener: TcpListener) {
    let _alive = shared.alive();
    let strangers = Arc::new(Semaphore::new(shared.unauthenticated_max));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopped() => return,
        };
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                // Out of descriptors or the like: the listener stays good, so wait a little.
                warn!(%error, "peer connection could not be accepted");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(stranger) = strangers.clone().try_acquire_owned() else {
            shared.metrics.count_refused(RefusedReason::TooMany);
            continue;
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let _alive = shared.alive();
            shared.metrics.unauthenticated.increment(1.0);
            let met = tokio::select! {
                met = timeout(shared.handshake_timeout, introduce(&shared, tcp)) => met,
                () = shared.stopped() => Ok(Err(refusal(RefusedReason::Slow, "shutting down".into()))),
            };
            shared.metrics.unauthenticated.decrement(1.0);
            drop(stranger);
            match met {
                Ok(Ok(arrived)) => arrived.run(&shared).await,
                Ok(Err(refusal)) => on_refused(&shared, &refusal),
                Err(_) => on_refused(&shared, &refusal(RefusedReason::Slow, "no hello in time".into())),
            }
        });
    }
}

fn on_refused(shared: &Shared, refusal: &Refusal) {
    if !shared.is_stopped() {
        warn!(reason = refusal.reason.label(), text = %refusal.text, "peer connection refused");
        shared.metrics.count_refused(refusal.reason);
    }
}

/// A peer that was welcomed, and its place among the connections of this node.
struct Arrived {
    met: Met,
    connection: Arc<Connection>,
    queue: tokio::sync::mpsc::UnboundedReceiver<Outgoing>,
    place: Place,
}

async fn introduce(shared: &Arc<Shared>, tcp: TcpStream) -> Result<Arrived, Refusal> {
    tune(&tcp).map_err(|error| refusal(RefusedReason::Tls, format!("socket options: {error}")))?;
    let mut met = meet(shared, tcp).await?;
    let metrics = shared.metrics.lane(met.lane).clone();
    let (connection, queue) = Connection::new(met.peer, met.lane, Side::Answerer, shared.limits, metrics);
    let place = Place { shared: shared.clone(), key: (met.peer, lane_index(met.lane)), connection };
    let older = shared.inbound.lock().insert(place.key, place.connection.clone());
    if let Some(older) = older {
        older.close();
        older.finished().await;
    }
    welcome(shared, &mut met).await?;
    let connection = place.connection.clone();
    Ok(Arrived { met, connection, queue, place })
}

impl Arrived {
    async fn run(self, shared: &Arc<Shared>) {
        info!(peer = %self.met.peer, lane = ?self.met.lane, "peer connected");
        shared.on_called_by(self.met.peer);
        if shared.is_stopped() {
            // Shutdown may have gone through the table before this connection was in it.
            self.connection.close();
        }
        self.connection.run(self.met.stream, self.met.rest, self.queue, shared.handler.clone()).await;
        drop(self.place);
        drop(self.met.joined);
    }
}

/// The place of a connection in the table, given back however its task ends.
struct Place {
    shared: Arc<Shared>,
    key: (fleetline_types::NodeId, usize),
    connection: Arc<Connection>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connection.finish();
        let mut inbound = self.shared.inbound.lock();
        if inbound.get(&self.key).is_some_and(|now| Arc::ptr_eq(now, &self.connection)) {
            inbound.remove(&self.key);
        }
    }
}
