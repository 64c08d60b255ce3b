//! What the leader of a partition does for its devices after commits, and who looks at what time brings
//! (`passing`).
//!
//! | what | when |
//! |---|---|
//! | wakes | a session is over, its desired properties changed, commands wait |
//! | outbox | events wait to become records of the stream |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_devices::{Effect, EventRow, OUTBOX_PRODUCER, Wake};
use fleetline_gateway::devices::connections::{Connections, Link};
use fleetline_gateway::devices::hub::{DeviceHub, GatewayCall, WakeCall};
use fleetline_partition::Partition;
use fleetline_types::{NodeId, PartitionId, ProducerId, TimestampMs, partition_of_key};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::NodeDevices;

/// How often new partitions and what is due are looked at.
const EVERY: Duration = Duration::from_millis(500);
/// Events in one batch.
const EVENTS_MAX: usize = 512;
/// Wakes that wait for one node without a connection.
const LATE_MAX: usize = 4096;

/// Wakes for nodes that there is no connection to: they are told beside the rounds of partitions, so that a
/// dead node holds up none. Beyond [`LATE_MAX`] they are dropped, as a gateway looks by itself later.
#[derive(Debug, Default)]
pub(super) struct Late {
    waiting: Mutex<BTreeMap<NodeId, Vec<WakeCall>>>,
    filled: Notify,
}

impl Late {
    fn put(&self, node: NodeId, wakes: Vec<WakeCall>) {
        let mut waiting = self.waiting.lock();
        let kept = waiting.entry(node).or_default();
        let room = LATE_MAX.saturating_sub(kept.len());
        if wakes.len() > room {
            metrics::counter!("fleetline_gateway_wakes_failed_total").increment(1);
        }
        kept.extend(wakes.into_iter().take(room));
        drop(waiting);
        self.filled.notify_one();
    }

    /// All that waits, once there is something.
    async fn take(&self) -> BTreeMap<NodeId, Vec<WakeCall>> {
        loop {
            let taken = std::mem::take(&mut *self.waiting.lock());
            if !taken.is_empty() {
                return taken;
            }
            self.filled.notified().await;
        }
    }
}

/// Has the connections of these partitions look for what they may have missed.
pub(super) fn look_again(connections: &Connections, partitions: u32, changed: &[u32]) {
    let changed: BTreeSet<u32> = changed.iter().copied().collect();
    let links =
        connections.matching(|key| changed.contains(&partition_of_key(key.device.as_bytes(), partitions).0));
    links.iter().for_each(|link| link.set(Link::DESIRED | Link::COMMANDS));
}

/// The loops of a partition.
struct Running {
    partition: Arc<Partition>,
    /// Has them look at what is due.
    look: Arc<Notify>,
    handle: tokio::task::AbortHandle,
}

impl NodeDevices {
    /// Runs the loops of every partition that this node has, and has those that it leads look at what has
    /// become due: one clock for all, so that idle partitions wake nobody.
    pub(super) async fn lead(self: Arc<Self>) {
        let mut loops = JoinSet::new();
        let mut known: BTreeMap<PartitionId, Running> = BTreeMap::new();
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            while loops.try_join_next().is_some() {}
            let hosted: BTreeMap<_, _> =
                self.hosting.all().into_iter().map(|partition| (partition.id(), partition)).collect();
            known.retain(|id, running| {
                let stays = hosted.get(id).is_some_and(|found| Arc::ptr_eq(found, &running.partition));
                if !stays {
                    running.handle.abort();
                }
                stays
            });
            for (id, partition) in hosted {
                let running = known.entry(id).or_insert_with(|| {
                    let look = Arc::<Notify>::default();
                    let handle = loops.spawn(self.clone().of_partition(partition.clone(), look.clone()));
                    Running { partition, look, handle }
                });
                if running.partition.group().is_leader() {
                    running.look.notify_one();
                }
            }
        }
    }

    async fn of_partition(self: Arc<Self>, partition: Arc<Partition>, look: Arc<Notify>) {
        tokio::join!(self.wakes(&partition), self.as_time_passes(&partition, &look));
    }

    async fn wakes(&self, partition: &Arc<Partition>) {
        let effects = partition.effects();
        loop {
            let taken = effects.take().await;
            let count = taken.len();
            if partition.group().is_leader() {
                self.perform(partition, taken).await;
            }
            effects.performed(count);
        }
    }

    /// Tells gateways, each once, and hands events on.
    async fn perform(&self, partition: &Arc<Partition>, effects: Vec<Effect>) {
        let mut by_node: BTreeMap<NodeId, Vec<WakeCall>> = BTreeMap::new();
        let mut outbox = false;
        for effect in effects {
            match effect {
                Effect::Wake { place, epoch, wake, .. } => {
                    let node = NodeId(place.node);
                    let call = WakeCall { place, epoch, wake: WakeCall::number(wake) };
                    by_node.entry(node).or_default().push(call);
                }
                Effect::Outbox => outbox = true,
            }
        }
        let near = |node: NodeId| node == self.driver.node() || self.driver.transport().is_up(node);
        let (now, late): (Vec<_>, Vec<_>) = by_node.into_iter().partition(|(node, _)| near(*node));
        late.into_iter().for_each(|(node, wakes)| self.late.put(node, wakes));
        self.tell(now).await;
        if outbox {
            self.drain_outbox(partition).await;
        }
    }

    /// Tells gateways that there is no connection to. One that is dead takes its time here, beside the
    /// rounds of partitions.
    pub(super) async fn tell_late(self: Arc<Self>) {
        loop {
            let calls = self.late.take().await;
            self.tell(calls).await;
        }
    }

    async fn tell(&self, calls: impl IntoIterator<Item = (NodeId, Vec<WakeCall>)>) {
        let fenced = |wakes: &[WakeCall]| wakes.iter().any(|wake| wake.reason() == Some(Wake::Fenced));
        let calls = calls.into_iter().map(|(node, wakes)| async move {
            let fenced = fenced(&wakes);
            if let Err(error) = self.call_gateway(node, GatewayCall { wakes, method: None }).await {
                tracing::debug!(%node, fenced, %error, "gateway could not be told");
                metrics::counter!("fleetline_gateway_wakes_failed_total").increment(1);
            }
        });
        futures::future::join_all(calls).await;
    }

    /// Appends waiting events to the stream, in order, each once.
    pub(super) async fn drain_outbox(&self, partition: &Arc<Partition>) {
        loop {
            let (first, events) = match partition.devices().outbox(EVENTS_MAX) {
                Ok((_, events)) if events.is_empty() => return,
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(partition = %partition.id(), %error, "outbox can't be read");
                    return;
                }
            };
            let Some(batch) = events_batch(first, &events) else { return };
            match partition.append(batch).await {
                Ok(_) => {}
                // Another round was first, or leadership has moved: whoever leads goes on.
                Err(error) => {
                    tracing::debug!(partition = %partition.id(), %error, "events wait");
                    return;
                }
            }
        }
    }
}

/// A batch of events, numbered as the outbox numbers them; as many as fit.
fn events_batch(first: u64, events: &[EventRow]) -> Option<bytes::Bytes> {
    let mut builder = BatchBuilder::default();
    for event in events {
        let system: Vec<(u8, &[u8])> =
            event.system.iter().map(|row| (row.id as u8, row.value.as_bytes())).collect();
        let properties: Vec<(&[u8], &[u8])> =
            event.properties.iter().map(|row| (row.name.as_bytes(), row.value.as_bytes())).collect();
        let record = RecordRef {
            device: event.device.as_bytes(),
            time: TimestampMs(event.time_ms),
            endpoints: event.endpoints,
            system: &system,
            properties: &properties,
            body: &event.body,
        };
        if let Err(error) = builder.push(&record) {
            if builder.is_empty() {
                tracing::error!(%error, "an event fits no batch");
            }
            break;
        }
    }
    let producer = Producer { id: ProducerId(OUTBOX_PRODUCER), epoch: 1, first_sequence: first };
    builder.finish(producer, Compression::None)
}

#[cfg(test)]
mod tests {
    use fleetline_devices::ConnectionPlace;

    use super::*;

    fn wakes(count: usize) -> Vec<WakeCall> {
        let place = |connection| ConnectionPlace { node: 2, incarnation: 1, connection };
        (0..count).map(|at| WakeCall { place: place(at as u64), epoch: 1, wake: 1 }).collect()
    }

    /// What comes for a node without a connection is taken once, together, the oldest of it within the bound.
    #[tokio::test]
    async fn late_wakes() {
        let late = Late::default();
        let mut taking = std::pin::pin!(late.take());
        assert!(futures::poll!(taking.as_mut()).is_pending());
        late.put(NodeId(2), wakes(3));
        late.put(NodeId(3), wakes(1));
        late.put(NodeId(2), wakes(LATE_MAX));
        let taken: Vec<_> = taking.await.into_iter().map(|(node, wakes)| (node.0, wakes.len())).collect();
        assert_eq!(taken, [(2, LATE_MAX), (3, 1)]);
        assert!(futures::poll!(std::pin::pin!(late.take())).is_pending());
    }
}
