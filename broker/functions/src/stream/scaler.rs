//! How many nodes work on a function, and whether this one does.
//!
//! Each node ranks the living ones per function by rendezvous hashing. The first one is always a member of the
//! function's group: it waits in reads, without a worker, so a function that nobody needs costs some
//! waiting reads, and the first record starts it at once. It looks at the lag and tells the next ones by
//! rank when they are wanted; what it says holds for a few rounds only, so that the word of a dead node fades.
//!
//! ```text
//! wanted = ceil(lag / target), at least 1 with lag or recent work, at most the nodes and the partitions
//! ```
//!
//! A node that can't run the app (it has no such workers, or they don't start) leaves the work to the others,
//! as long as there are any; as the first one it tells all of them.
//!
//! It grows at once, and shrinks when fewer were wanted for a while: each change moves partitions.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleetline_gateway::tiers::Tier;
use fleetline_types::{NodeId, PartitionId};
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::member::member;
use super::{Stop, StreamFunction};
use crate::ids::number_of;
use crate::peers::{Order, PeerCall};

/// Rounds for which a smaller number has to hold.
const ROUNDS_TO_SHRINK: usize = 12;
/// Rounds for which an order holds.
const ROUNDS_OF_ORDER: u32 = 3;
/// Checkpoints that are asked for at once.
const READS_AT_ONCE: usize = 16;

/// This node's place among those that could work on something; 0 is the first.
pub(crate) fn rank(key: &str, node: NodeId, alive: &[NodeId]) -> usize {
    let score = |node: NodeId| (number_of(format!("{key}@{}", node.0).as_bytes()), node.0);
    let own = score(node);
    alive.iter().filter(|other| **other != node && score(**other) > own).count()
}

/// See the module's header.
pub(crate) fn desired(lag: u64, target: u64, alive: usize, partitions: usize, recent: bool) -> usize {
    let wanted = usize::try_from(lag.div_ceil(target.max(1))).unwrap_or(usize::MAX);
    let least = usize::from(lag > 0 || recent);
    wanted.max(least).min(alive.max(1)).min(partitions)
}

/// What first nodes have said to this one.
#[derive(Default)]
pub(crate) struct Orders {
    wanted: Mutex<HashMap<String, (usize, Instant)>>,
    changed: Notify,
}

impl Orders {
    /// So many nodes shall work on a function, for so long.
    pub(crate) fn take(&self, function: &str, wanted: usize, hold: Duration) {
        let mut all = self.wanted.lock();
        all.retain(|_, (_, until)| *until > Instant::now());
        let before = all.insert(function.to_owned(), (wanted, Instant::now() + hold));
        drop(all);
        if before.is_none_or(|(before, _)| before != wanted) {
            self.changed.notify_waiters();
        }
    }

    fn wanted(&self, function: &str) -> usize {
        let all = self.wanted.lock();
        all.get(function).filter(|(_, until)| *until > Instant::now()).map_or(0, |(wanted, _)| *wanted)
    }
}

struct Working {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Working {
    /// Whoever is dropped without having been stopped goes at once.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Works on a function, as many nodes as are wanted, until it has to stop.
pub(crate) async fn scale(function: Arc<StreamFunction>, orders: Arc<Orders>, mut stop: Stop) {
    let mut working: Option<Working> = None;
    let mut recent = VecDeque::new();
    let key = function.origin();
    while !stop.is_set() {
        let core = &function.core;
        let alive = core.cluster.alive();
        let place = rank(&key, core.cluster.node(), &alive);
        let is_unable = alive.len() > 1 && function.app.is_unable();
        let wanted = match place {
            0 => lead(&function, &alive, &mut recent, is_unable).await,
            _ => {
                recent.clear();
                orders.wanted(&key)
            }
        };
        let works = (place == 0 || place < wanted) && !is_unable;
        match (works, working.take()) {
            (true, Some(task)) if !task.task.is_finished() => working = Some(task),
            (true, _) => working = Some(start(&function)),
            (false, Some(task)) => end(task).await,
            (false, None) => {}
        }
        let changed = orders.changed.notified();
        tokio::select! {
            () = tokio::time::sleep(core.options.scale_interval) => {}
            () = changed => {}
            () = stop.stopped() => {}
        }
    }
    if let Some(task) = working.take() {
        end(task).await;
    }
}

fn start(function: &Arc<StreamFunction>) -> Working {
    let (sender, stop) = Stop::new();
    Working { stop: sender, task: tokio::spawn(member(function.clone(), stop)) }
}

async fn end(mut working: Working) {
    working.stop.send_replace(true);
    // Bounded by the member's own grace.
    drop((&mut working.task).await);
}

/// Decides, as the first node, and tells the others.
async fn lead(
    function: &Arc<StreamFunction>,
    alive: &[NodeId],
    recent: &mut VecDeque<usize>,
    is_unable: bool,
) -> usize {
    let core = &function.core;
    let partitions = core.devices.partitions() as usize;
    let lag = lag(function, partitions).await;
    let idle = u64::try_from(core.options.idle_stop.as_millis()).unwrap_or(u64::MAX);
    let is_recent = core.now_ms().saturating_sub(function.stats.last_work_ms()) < idle;
    let now = desired(lag, function.app.host.lag_target, alive.len(), partitions, is_recent);
    recent.push_back(now);
    while recent.len() > ROUNDS_TO_SHRINK {
        recent.pop_front();
    }
    let wanted = match is_unable {
        true => alive.len(),
        false => recent.iter().copied().max().unwrap_or(now).min(alive.len()),
    };
    function.stats.set_desired(wanted);
    let key = function.origin();
    let others = alive.iter().filter(|node| **node != core.cluster.node());
    let others = others.filter(|node| rank(&key, **node, alive) < wanted);
    let hold = core.options.scale_interval * ROUNDS_OF_ORDER;
    let hold_ms = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
    let order = PeerCall::Order(Order { function: key.clone(), wanted, hold_ms });
    let Ok(body) = serde_json::to_vec(&order) else { return wanted };
    let tells = others.map(|node| {
        core.cluster.call_tier(*node, Tier::Functions, body.clone().into(), core.options.peer_timeout)
    });
    for told in futures::future::join_all(tells).await {
        if let Err(error) = told {
            tracing::debug!(%error, function = key, "a node can't be told to work on a function");
        }
    }
    wanted
}

/// Records behind the group's checkpoints in all partitions. Those of this node are known; what can't be
/// read now counts as none.
async fn lag(function: &StreamFunction, partitions: usize) -> u64 {
    if function.stats.partitions() >= partitions {
        return function.stats.lag();
    }
    let read = |partition: PartitionId| async move {
        match function.core.hub.checkpoint_read(partition, &function.group).await {
            Ok(found) => found.next.map_or(0, |next| found.high_watermark.0.saturating_sub(next.0)),
            Err(_) => 0,
        }
    };
    let all = futures::stream::iter(function.core.partitions().map(read)).buffer_unordered(READS_AT_ONCE);
    all.fold(0, |sum, lag| async move { sum + lag }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many() {
        let rows = [
            ((0, 100, 3, 8, false), 0),
            ((0, 100, 3, 8, true), 1),
            ((1, 100, 3, 8, false), 1),
            ((101, 100, 3, 8, false), 2),
            ((10_000, 100, 3, 8, false), 3),
            ((10_000, 100, 9, 4, true), 4),
            ((10_000, 0, 9, 4, true), 4),
            ((u64::MAX, 1, 2, 4, true), 2),
        ];
        for ((lag, target, alive, partitions, recent), expected) in rows {
            assert_eq!(desired(lag, target, alive, partitions, recent), expected, "{lag} {alive}");
        }
    }

    /// Each node has a rank of its own; when one goes, the others keep their order.
    #[test]
    fn ranks() {
        let nodes: Vec<NodeId> = (1..=5).map(NodeId).collect();
        for key in ["a/f", "a/g", "b/f"] {
            let mut ranks: Vec<usize> = nodes.iter().map(|node| rank(key, *node, &nodes)).collect();
            let first = nodes[ranks.iter().position(|rank| *rank == 0).unwrap()];
            let second = nodes[ranks.iter().position(|rank| *rank == 1).unwrap()];
            ranks.sort_unstable();
            assert_eq!(ranks, [0, 1, 2, 3, 4]);
            let left: Vec<NodeId> = nodes.iter().copied().filter(|node| *node != first).collect();
            assert_eq!(rank(key, second, &left), 0);
        }
        let firsts: std::collections::BTreeSet<usize> = (0..50)
            .map(|n| nodes.iter().position(|node| rank(&format!("a/{n}"), *node, &nodes) == 0).unwrap())
            .collect();
        assert_eq!(firsts.len(), 5);
    }

    #[test]
    fn orders_fade() {
        let orders = Orders::default();
        orders.take("a/f", 3, Duration::from_secs(60));
        assert_eq!((orders.wanted("a/f"), orders.wanted("a/g")), (3, 0));
        orders.take("a/f", 2, Duration::ZERO);
        assert_eq!(orders.wanted("a/f"), 0);
    }
}
