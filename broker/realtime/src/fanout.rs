//! From one publish to the outboxes of this node's members.
//!
//! Orders wait in lanes, one lane per hub (by hash), and each lane is worked off by one task: so a publisher
//! never walks over members, and the orders of a hub keep their order. Orders that follow each other
//! for the same key are handed to each member together, so that it is woken once for all of them. A lane's
//! task lives as long as there is something to do.
//!
//! Bounded by bytes: a full lane gives an order back ([`Fanout::offer`]), and who can wait does
//! ([`Fanout::room`]).

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::key::Key;
use crate::member::Member;
use crate::outbox::{End, Pushed};
use crate::outgoing::Outgoing;
use crate::registry::Registry;
use crate::stats::Stats;

/// Orders of one key that are handed over together.
const RUN_MAX: usize = 64;
/// What an order counts beside its message.
const ORDER_BYTES: usize = 128;

/// For whom an order is, on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// All members of a key.
    Key(Key),
    /// One connection.
    Connection { hub: Arc<str>, id: Arc<str> },
}

impl Target {
    pub(crate) fn hub(&self) -> &str {
        match self {
            Target::Key(key) => key.hub_name(),
            Target::Connection { hub, .. } => hub,
        }
    }
}

/// What is done to the target.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Send a message.
    Send(Outgoing),
    /// End the connections.
    Close(Option<String>),
}

/// One thing to do.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) target: Target,
    /// Ids of connections that are left out.
    pub(crate) excluded: Arc<[String]>,
    pub(crate) action: Action,
}

impl Order {
    /// What it counts against bounds.
    pub(crate) fn weight(&self) -> usize {
        let excluded: usize = self.excluded.iter().map(|id| id.len() + 24).sum();
        let action = match &self.action {
            Action::Send(message) => message.weight(),
            Action::Close(reason) => reason.as_ref().map_or(0, String::len),
        };
        ORDER_BYTES + excluded + action
    }
}

#[derive(Default)]
struct Queue {
    orders: VecDeque<Order>,
    /// Weights of `orders`, and of those that the task has taken and not finished.
    bytes: usize,
    is_running: bool,
}

#[derive(Default)]
struct Lane {
    queue: Mutex<Queue>,
    room: Notify,
}

/// The lanes of a node.
pub(crate) struct Fanout {
    registry: Arc<Registry>,
    stats: Arc<Stats>,
    lanes: Vec<Arc<Lane>>,
    hasher: RandomState,
    bytes_max: usize,
}

impl Fanout {
    pub(crate) fn new(registry: Arc<Registry>, stats: Arc<Stats>, lanes: usize, bytes_max: usize) -> Fanout {
        let lanes = (0..lanes.max(1)).map(|_| Arc::default()).collect();
        Fanout { registry, stats, lanes, hasher: RandomState::new(), bytes_max }
    }

    fn lane(&self, hub: &str) -> &Arc<Lane> {
        &self.lanes[self.hasher.hash_one(hub) as usize % self.lanes.len()]
    }

    /// Takes an order, if its lane has room; else it comes back. To be called within a runtime.
    pub(crate) fn offer(self: &Arc<Self>, order: Order) -> Result<(), Order> {
        let lane = self.lane(order.target.hub());
        let mut queue = lane.queue.lock();
        let weight = order.weight();
        if queue.bytes > 0 && queue.bytes + weight > self.bytes_max {
            return Err(order);
        }
        queue.bytes += weight;
        queue.orders.push_back(order);
        let starts = !std::mem::replace(&mut queue.is_running, true);
        drop(queue);
        if starts {
            tokio::spawn(work(self.clone(), lane.clone()));
        }
        Ok(())
    }

    /// Waits until the lane of a hub has less to do than now, or nothing.
    pub(crate) async fn room(&self, hub: &str) {
        let lane = self.lane(hub);
        let mut notified = std::pin::pin!(lane.room.notified());
        notified.as_mut().enable();
        if lane.queue.lock().bytes == 0 {
            return;
        }
        notified.await;
    }

    /// Bytes that wait in all lanes.
    pub(crate) fn bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.queue.lock().bytes).sum()
    }
}

/// Works a lane off.
async fn work(fanout: Arc<Fanout>, lane: Arc<Lane>) {
    loop {
        let orders = {
            let mut queue = lane.queue.lock();
            if queue.orders.is_empty() {
                queue.is_running = false;
                return;
            }
            std::mem::take(&mut queue.orders)
        };
        let mut run = Vec::new();
        let mut orders = orders.into_iter().peekable();
        while let Some(order) = orders.next() {
            let mut weight = order.weight();
            match order.action {
                Action::Send(message) => {
                    run.push(message);
                    while run.len() < RUN_MAX
                        && let Some(next) =
                            orders.next_if(|next| is_same(next, &order.target, &order.excluded))
                    {
                        weight += next.weight();
                        if let Action::Send(message) = next.action {
                            run.push(message);
                        }
                    }
                    fanout.send(&order.target, &order.excluded, &run).await;
                    run.clear();
                }
                Action::Close(reason) => fanout.close(&order.target, &order.excluded, &reason).await,
            }
            lane.queue.lock().bytes -= weight;
            lane.room.notify_waiters();
        }
    }
}

/// Whether an order sends to the same members.
fn is_same(order: &Order, target: &Target, excluded: &Arc<[String]>) -> bool {
    matches!(order.action, Action::Send(_))
        && order.target == *target
        && (Arc::ptr_eq(&order.excluded, excluded) || order.excluded == *excluded)
}

impl Fanout {
    async fn send(&self, target: &Target, excluded: &[String], run: &[Outgoing]) {
        let mut sent = 0_u64;
        self.each(target, excluded, |member| match member.outbox.push(run) {
            Pushed::Taken => sent += run.len() as u64,
            Pushed::Overflowed => self.stats.on_slow(member),
            Pushed::Ended => {}
        })
        .await;
        self.stats.on_fanned_out(sent);
    }

    async fn close(&self, target: &Target, excluded: &[String], reason: &Option<String>) {
        self.each(target, excluded, |member| member.outbox.end(End::Ordered(reason.clone()))).await;
    }

    /// Visits all members of the target; others get their turn between pieces.
    async fn each(&self, target: &Target, excluded: &[String], mut visit: impl FnMut(&Arc<Member>)) {
        let excluded: HashSet<&str> = excluded.iter().map(String::as_str).collect();
        let is_excluded = |member: &Member| !excluded.is_empty() && excluded.contains(member.id.as_str());
        match target {
            Target::Connection { hub, id } => {
                if let Some(member) = self.registry.connection_of(hub, id) {
                    visit(&member);
                }
            }
            Target::Key(key) => {
                let Some(members) = self.registry.members(key) else { return };
                let mut from = Some(0);
                while let Some(at) = from {
                    from = members.visit(at, |member| {
                        if !is_excluded(member) {
                            visit(member);
                        }
                    });
                    if from.is_some() {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
    }
}
