//! From a publisher to every node that has members.
//!
//! ```text
//!   publish ─► lane of the key's partition ─► leader: who has members? ─┬─► node ─► fan-out
//!              (bounded, one batch at a time)                           └─► node ─► fan-out
//!           └► lane of the node in a connection's id ──────────────────────► node ─► fan-out
//! ```
//!
//! A node that is alone hands orders straight to its fan-out. Otherwise each lane has one batch on its way; it
//! ends when every node that is concerned has it, so a lost leader loses nothing: nodes that its answer
//! doesn't cover are sent to directly. What a node may get twice that way carries a number per lane, and
//! the node drops what it has had: each order once, in the order of its publisher's node and lane.
//!
//! Bounded: bytes per lane ([`PublishError::Busy`]), one task per lane that has something to do. A node
//! that is alive and doesn't take a batch in [`ATTEMPTS`] tries loses it; a counter says so.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetline_signalr::connection_id::ConnectionId;
use fleetline_types::{NodeId, PartitionId, Term};
use futures::future::join_all;
use parking_lot::Mutex;
use thiserror::Error;

use crate::adopted::Adopted;
use crate::directory::Directory;
use crate::fanout::{Fanout, Order, Target};
use crate::peers::Peers;
use crate::registry::Registry;
use crate::wire::{Answer, Ask, Batch, WireOrder};

/// Tries to hand a batch to a node that is alive.
const ATTEMPTS: u32 = 5;
/// Between two of them.
const RETRY: Duration = Duration::from_millis(100);
/// Orders of one batch: their keys and numbers cost more than their bytes.
const BATCH_ORDERS_MAX: usize = 4_096;
/// Stands for nodes that aren't there.
const NOBODY: NodeId = NodeId(NODE_BIT - 1);
/// Lanes that lead to a node have this bit.
const NODE_BIT: u64 = 1 << 63;

/// A message that wasn't taken; nothing of it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PublishError {
    /// More waits than is allowed; try again soon.
    #[error("more messages wait than are allowed, try again soon")]
    Busy,
}

/// Where orders go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LaneId {
    Partition(PartitionId),
    Node(NodeId),
}

impl LaneId {
    fn number(self) -> u64 {
        match self {
            LaneId::Partition(partition) => u64::from(partition.0),
            LaneId::Node(node) => node.0 | NODE_BIT,
        }
    }

    fn of(number: u64) -> LaneId {
        match number & NODE_BIT {
            0 => LaneId::Partition(PartitionId(u32::try_from(number).unwrap_or(u32::MAX))),
            _ => LaneId::Node(NodeId(number & !NODE_BIT)),
        }
    }
}

#[derive(Default)]
struct Lane {
    orders: VecDeque<Order>,
    bytes: usize,
    last_number: u64,
    is_running: bool,
}

/// Orders of a batch with their numbers.
type Numbered = Vec<(u64, Order)>;

/// What has come from another node, so that nothing is taken twice.
#[derive(Default)]
struct Origin {
    incarnation: u64,
    /// The last number of each lane.
    last: HashMap<u64, u64>,
}

/// Sends orders of this node, and hands on those of others.
pub(crate) struct Publisher {
    pub(crate) peers: Peers,
    registry: Arc<Registry>,
    fanout: Arc<Fanout>,
    pub(crate) directory: Directory,
    pub(crate) adopted: Adopted,
    lanes: Mutex<HashMap<LaneId, Lane>>,
    origins: Mutex<HashMap<NodeId, Arc<Mutex<Origin>>>>,
    clock: crate::clock::Clock,
    bytes_max: usize,
    batch_bytes: usize,
    lost: AtomicU64,
}

/// What a [`Publisher`] is made of.
pub(crate) struct Parts {
    pub(crate) peers: Peers,
    pub(crate) registry: Arc<Registry>,
    pub(crate) fanout: Arc<Fanout>,
    pub(crate) directory: Directory,
    pub(crate) clock: crate::clock::Clock,
    pub(crate) bytes_max: usize,
    pub(crate) batch_bytes: usize,
}

impl Publisher {
    pub(crate) fn new(parts: Parts) -> Publisher {
        let Parts { peers, registry, fanout, directory, clock, bytes_max, batch_bytes } = parts;
        Publisher {
            peers,
            registry,
            fanout,
            directory,
            adopted: Adopted::default(),
            lanes: Mutex::default(),
            origins: Mutex::default(),
            clock,
            bytes_max,
            batch_bytes,
            lost: AtomicU64::new(0),
        }
    }

    /// Takes an order of a publisher here. To be called within a runtime.
    pub(crate) fn publish(self: &Arc<Self>, order: Order) -> Result<(), PublishError> {
        let id = match &order.target {
            Target::Key(key) => LaneId::Partition(key.partition(self.registry.partitions())),
            Target::Connection { id, .. } => match ConnectionId::parse(id) {
                Ok(id) => self.lane_to(id.node()),
                // Nobody has it.
                Err(_) => return Ok(()),
            },
        };
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(id).or_default();
        let is_here = || id == LaneId::Node(self.peers.me) && self.has_connection(&order.target);
        if !lane.is_running && (self.peers.is_alone() || is_here()) {
            drop(lanes);
            return self.fanout.offer(order).map_err(|_| PublishError::Busy);
        }
        let weight = order.weight();
        if lane.bytes > 0 && lane.bytes + weight > self.bytes_max {
            return Err(PublishError::Busy);
        }
        lane.bytes += weight;
        lane.orders.push_back(order);
        if !std::mem::replace(&mut lane.is_running, true) {
            tokio::spawn(self.clone().work(id));
        }
        Ok(())
    }

    /// Ids may name nodes that never were; all those share a lane, so that lanes stay few.
    fn lane_to(&self, node: NodeId) -> LaneId {
        let is_known = self.peers.alive().contains(&node);
        LaneId::Node(if is_known { node } else { NOBODY })
    }

    fn has_connection(&self, target: &Target) -> bool {
        match target {
            Target::Connection { hub, id } => self.registry.connection_of(hub, id).is_some(),
            Target::Key(_) => false,
        }
    }

    /// Bytes that wait in lanes.
    pub(crate) fn bytes(&self) -> usize {
        self.lanes.lock().values().map(|lane| lane.bytes).sum()
    }

    /// Orders that a living node didn't take.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    async fn work(self: Arc<Self>, id: LaneId) {
        loop {
            let (batch, bytes) = {
                let mut lanes = self.lanes.lock();
                let Some(lane) = lanes.get_mut(&id) else { return };
                let taken = take_batch(lane, self.batch_bytes);
                if taken.0.is_empty() {
                    lane.is_running = false;
                    return;
                }
                taken
            };
            match id {
                LaneId::Partition(partition) => self.send_by_directory(partition, &batch).await,
                LaneId::Node(node) => self.send_to_connections(node, &batch).await,
            }
            if let Some(lane) = self.lanes.lock().get_mut(&id) {
                lane.bytes -= bytes;
            }
        }
    }

    fn wire(&self, id: LaneId, orders: &[(u64, Order)]) -> Batch {
        Batch {
            origin: self.peers.me.0,
            incarnation: self.peers.incarnation,
            lane: id.number(),
            orders: orders.iter().map(|(number, order)| WireOrder::new(*number, order)).collect(),
        }
    }

    /// Has the leader of the partition send a batch, and sends it itself to nodes that the leader hasn't covered.
    async fn send_by_directory(&self, partition: PartitionId, batch: &Numbered) {
        let wire = self.wire(LaneId::Partition(partition), batch);
        let covered = match self.peers.leader(partition) {
            (Some(leader), term) if leader == self.peers.me => self.cover(partition, term, &wire).await,
            (Some(leader), _) if self.peers.alive().contains(&leader) => {
                // The leader's own calls come in between.
                let limit = self.peers.call_wait.saturating_mul(2);
                match self.peers.call_within(leader, Ask::Publish(wire.clone()), limit).await {
                    Ok(answer) if answer.is_done() => answer.covered.into_iter().map(NodeId).collect(),
                    _ => Vec::new(),
                }
            }
            _ => Vec::new(),
        };
        let missing = self.peers.alive().into_iter().filter(|node| !covered.contains(node));
        join_all(missing.map(|node| self.deliver(node, wire.clone()))).await;
    }

    /// As the leader of a partition: sends a batch to every node that may have members. Answers which nodes have
    /// it, or need nothing of it.
    async fn cover(&self, partition: PartitionId, term: Term, batch: &Batch) -> Vec<NodeId> {
        let now = self.clock.now_ms();
        let part = |node: NodeId| {
            let is_wanted = |order: &&WireOrder| match node == self.peers.me {
                true => crate::key::Key::parse(&order.key).is_some_and(|key| self.registry.has(&key)),
                false => self.directory.may_have(node, partition, term, &order.key, now),
            };
            with_orders(batch, batch.orders.iter().filter(is_wanted).cloned().collect())
        };
        let sends = self.peers.alive().into_iter().map(|node| {
            let part = part(node);
            async move {
                let has_it = part.orders.is_empty() || self.deliver_once(node, part).await;
                has_it.then_some(node)
            }
        });
        join_all(sends).await.into_iter().flatten().collect()
    }

    /// Hands a batch to one node, as long as it is alive.
    async fn deliver(&self, node: NodeId, batch: Batch) {
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(RETRY).await;
            }
            if self.deliver_once(node, batch.clone()).await {
                return;
            }
            if !self.peers.alive().contains(&node) {
                // Its members are gone with it, or connect anew elsewhere.
                return;
            }
        }
        self.lost.fetch_add(batch.orders.len() as u64, Ordering::Relaxed);
        metrics::counter!("fleetline_realtime_lost_total").increment(batch.orders.len() as u64);
        tracing::warn!(%node, orders = batch.orders.len(), "a node doesn't take messages, they are lost for it");
    }

    async fn deliver_once(&self, node: NodeId, batch: Batch) -> bool {
        if node == self.peers.me {
            self.accept(batch).await;
            return true;
        }
        matches!(self.peers.call(node, Ask::Deliver(batch)).await, Ok(answer) if answer.is_done())
    }

    /// Sends orders for connections whose ids name `node`.
    async fn send_to_connections(&self, node: NodeId, batch: &Numbered) {
        let id = LaneId::Node(node);
        let wire = self.wire(id, batch);
        let missed = if node == self.peers.me {
            self.place(wire.clone()).await
        } else if self.peers.alive().contains(&node) {
            let limit = self.peers.call_wait.saturating_mul(2);
            match self.peers.call_within(node, Ask::Publish(wire.clone()), limit).await {
                Ok(answer) if answer.is_done() => answer.missed,
                _ => batch.iter().map(|(number, _)| *number).collect(),
            }
        } else {
            batch.iter().map(|(number, _)| *number).collect()
        };
        if missed.is_empty() {
            return;
        }
        // The node doesn't know where they are: it has started anew, or is gone.
        let is_missed = |order: &&WireOrder| missed.contains(&order.number);
        let part = with_orders(&wire, wire.orders.iter().filter(is_missed).cloned().collect());
        let others = self.peers.alive().into_iter().filter(|other| *other != node);
        join_all(others.map(|other| self.deliver(other, part.clone()))).await;
    }

    /// As the node that the ids of connections name: hands orders to them, here or where they are. Answers
    /// the numbers of those that aren't known.
    async fn place(&self, batch: Batch) -> Vec<u64> {
        let (mut here, mut missed) = (Vec::new(), Vec::new());
        let mut there: HashMap<NodeId, Vec<WireOrder>> = HashMap::new();
        let head = with_orders(&batch, Vec::new());
        for order in batch.orders {
            if self.registry.connection(&order.connection).is_some() {
                here.push(order);
            } else if let Some(node) = self.adopted.node_of(&order.connection) {
                there.entry(node).or_default().push(order);
            } else {
                missed.push(order.number);
            }
        }
        let part = |orders| with_orders(&head, orders);
        self.accept(part(here)).await;
        let sends = there.into_iter().map(|(node, orders)| {
            let numbers: Vec<u64> = orders.iter().map(|order| order.number).collect();
            let batch = part(orders);
            async move { if self.deliver_once(node, batch).await { Vec::new() } else { numbers } }
        });
        missed.extend(join_all(sends).await.into_iter().flatten());
        missed
    }

    /// Another node asks this one to see that a batch gets where it belongs.
    pub(crate) async fn on_publish(&self, batch: Batch) -> Answer {
        match LaneId::of(batch.lane) {
            LaneId::Partition(partition) => match self.peers.leads(partition) {
                Some(term) => {
                    let covered = self.cover(partition, term, &batch).await;
                    Answer { covered: covered.into_iter().map(|node| node.0).collect(), ..Answer::done() }
                }
                None => Answer::not_done(Answer::NOT_LEADER),
            },
            LaneId::Node(_) => Answer { missed: self.place(batch).await, ..Answer::done() },
        }
    }

    /// Another node hands this one what is for its members.
    pub(crate) async fn on_deliver(&self, batch: Batch) -> Answer {
        self.accept(batch).await;
        Answer::done()
    }

    /// Hands a batch to this node's fan-out, each order once. Waits while that is full.
    async fn accept(&self, batch: Batch) {
        let origin = self.origins.lock().entry(NodeId(batch.origin)).or_default().clone();
        for wire in batch.orders {
            let Some(mut order) = wire.order() else { continue };
            loop {
                let hub = order.target.hub().to_owned();
                {
                    let mut origin = origin.lock();
                    if origin.incarnation != batch.incarnation {
                        *origin = Origin { incarnation: batch.incarnation, ..Origin::default() };
                    }
                    let last = origin.last.entry(batch.lane).or_default();
                    if *last >= wire.number {
                        break;
                    }
                    match self.fanout.offer(order) {
                        Ok(()) => {
                            *last = wire.number;
                            break;
                        }
                        Err(back) => order = back,
                    }
                }
                self.fanout.room(&hub).await;
            }
        }
    }
}

/// The batch with only these of its orders.
fn with_orders(batch: &Batch, orders: Vec<WireOrder>) -> Batch {
    Batch { origin: batch.origin, incarnation: batch.incarnation, lane: batch.lane, orders }
}

/// Takes as many orders as fit into a call.
fn take_batch(lane: &mut Lane, bytes_max: usize) -> (Numbered, usize) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some(next) = lane.orders.front() {
        let weight = next.weight();
        if !batch.is_empty() && (bytes + weight > bytes_max || batch.len() >= BATCH_ORDERS_MAX) {
            break;
        }
        bytes += weight;
        if let Some(order) = lane.orders.pop_front() {
            lane.last_number += 1;
            batch.push((lane.last_number, order));
        }
    }
    (batch, bytes)
}
