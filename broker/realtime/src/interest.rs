//! Telling the directories which keys this node has members of.
//!
//! Per partition there is a queue of keys whose membership changed, and at most one task that works it off: it
//! looks up whether each key has members *now*, tells the leader, and ends. A new leader, or one that
//! asks for it, is told everything. Whoever has added a member waits until the leader knows
//! ([`Interest::ensure`]), so a message that is published after that is not missed.
//!
//! Nothing has to be told when this node leads the partition (its registry answers), when nobody does (the
//! next leader begins with nobody having told, and takes everybody for interested), or when the leader
//! isn't reachable from here (then this node isn't alive there, and the publisher's node sends to it itself).

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fleetline_types::{NodeId, PartitionId, Term};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::key::Key;
use crate::peers::Peers;
use crate::registry::Registry;
use crate::wire::{Answer, Ask, Forget, InterestUpdate};

/// Between two attempts to tell a leader.
const RETRY: Duration = Duration::from_millis(50);

#[derive(Default)]
struct State {
    /// Keys whose membership has changed since it was told.
    changed: HashSet<Key>,
    /// Counts changes; all up to `confirmed` are known where they have to be.
    counter: u64,
    confirmed: u64,
    /// Whom everything was told, in which term.
    told: Option<(NodeId, Term)>,
    next_number: u64,
    is_running: bool,
}

#[derive(Default)]
struct Shard {
    state: Mutex<State>,
    confirmed: Notify,
}

/// The partitions' queues.
pub(crate) struct Interest {
    peers: Peers,
    registry: Arc<Registry>,
    shards: Vec<Shard>,
    keys_max: usize,
}

/// The leader doesn't know in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotTold;

/// What has to be told now.
enum Next {
    /// Nothing: the task ends.
    Idle,
    /// Changes, to a leader that knows the rest.
    Some { leader: NodeId, term: Term, keys: Vec<Key>, counter: u64 },
    /// Everything, to a leader that knows nothing.
    All { leader: NodeId, term: Term, counter: u64, before: Option<NodeId> },
}

impl Interest {
    pub(crate) fn new(peers: Peers, registry: Arc<Registry>, keys_max: usize) -> Interest {
        let shards = (0..registry.partitions()).map(|_| Shard::default()).collect();
        Interest { peers, registry, shards, keys_max: keys_max.max(1) }
    }

    /// A key has its first member here, or its last one has gone.
    pub(crate) fn on_change(self: &Arc<Self>, key: Key) {
        let partition = key.partition(self.registry.partitions());
        let shard = &self.shards[partition.0 as usize];
        let mut state = shard.state.lock();
        state.counter += 1;
        state.changed.insert(key);
        self.start(partition, &mut state);
    }

    fn start(self: &Arc<Self>, partition: PartitionId, state: &mut State) {
        if !std::mem::replace(&mut state.is_running, true) {
            tokio::spawn(self.clone().work(partition));
        }
    }

    /// Waits until the leader knows of all changes of a key that were made before, at most this long.
    pub(crate) async fn ensure(&self, key: &Key, wait: Duration) -> Result<(), NotTold> {
        let shard = &self.shards[key.partition(self.registry.partitions()).0 as usize];
        let wanted = shard.state.lock().counter;
        let known = async {
            loop {
                let mut notified = std::pin::pin!(shard.confirmed.notified());
                notified.as_mut().enable();
                if shard.state.lock().confirmed >= wanted {
                    return;
                }
                notified.await;
            }
        };
        tokio::time::timeout(wait, known).await.map_err(|_| NotTold)
    }

    /// Tells leaders that are new, and refreshes the others if `refresh` says so.
    pub(crate) fn look(self: &Arc<Self>, refresh: bool) {
        for (index, shard) in self.shards.iter().enumerate() {
            let partition = PartitionId(index as u32);
            let mut state = shard.state.lock();
            let is_new = match self.leader_to_tell(partition) {
                Some(leader) => state.told != Some(leader),
                None => state.told.is_some() || state.confirmed < state.counter,
            };
            if is_new || (refresh && state.told.is_some()) {
                self.start(partition, &mut state);
            }
        }
    }

    fn leader_to_tell(&self, partition: PartitionId) -> Option<(NodeId, Term)> {
        let (leader, term) = self.peers.leader(partition);
        let leader = leader.filter(|leader| *leader != self.peers.me)?;
        self.peers.alive().contains(&leader).then_some((leader, term))
    }

    async fn work(self: Arc<Self>, partition: PartitionId) {
        // The first round of a task tells even if nothing has changed: that refreshes.
        let mut is_refresh = true;
        loop {
            let next = self.next(partition, std::mem::take(&mut is_refresh));
            let told = match next {
                Next::Idle => return,
                Next::Some { leader, term, keys, counter } => {
                    self.tell_some(partition, leader, term, keys, counter).await
                }
                Next::All { leader, term, counter, before } => {
                    if let Some(before) = before {
                        let forget = Ask::Forget(Forget { partition: partition.0 });
                        let _ = self.peers.call(before, forget).await;
                    }
                    self.tell_all(partition, leader, term, counter).await
                }
            };
            if !told {
                self.shards[partition.0 as usize].state.lock().told = None;
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    fn next(&self, partition: PartitionId, is_refresh: bool) -> Next {
        let shard = &self.shards[partition.0 as usize];
        let mut state = shard.state.lock();
        let Some((leader, term)) = self.leader_to_tell(partition) else {
            state.told = None;
            state.changed = HashSet::new();
            state.confirmed = state.counter;
            state.is_running = false;
            drop(state);
            shard.confirmed.notify_waiters();
            return Next::Idle;
        };
        let counter = state.counter;
        if state.told != Some((leader, term)) {
            state.changed = HashSet::new();
            let before = state.told.take().map(|(node, _)| node).filter(|node| *node != leader);
            return Next::All { leader, term, counter, before };
        }
        if state.changed.is_empty() && !is_refresh {
            state.is_running = false;
            return Next::Idle;
        }
        let keys = std::mem::take(&mut state.changed).into_iter().collect();
        Next::Some { leader, term, keys, counter }
    }

    async fn tell_some(
        &self,
        partition: PartitionId,
        leader: NodeId,
        term: Term,
        keys: Vec<Key>,
        counter: u64,
    ) -> bool {
        let mut chunks = keys.chunks(self.keys_max).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            // What it is now counts: a key may have come and gone since it was noted.
            let (added, removed) = chunk.iter().partition::<Vec<_>, _>(|key| self.registry.has(key));
            let names = |keys: Vec<&Key>| keys.into_iter().map(|key| key.as_str().to_owned()).collect();
            let (added, removed) = (names(added), names(removed));
            let update = InterestUpdate { is_complete: true, added, removed, ..InterestUpdate::default() };
            if !self.send(partition, leader, term, update).await {
                return false;
            }
            if chunks.peek().is_none() {
                break;
            }
        }
        self.confirm(partition, (leader, term), counter);
        true
    }

    async fn tell_all(&self, partition: PartitionId, leader: NodeId, term: Term, counter: u64) -> bool {
        self.shards[partition.0 as usize].state.lock().next_number = 0;
        let keys = self.registry.keys(partition);
        let mut chunks = keys.chunks(self.keys_max).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let added = chunk.iter().map(|key| key.as_str().to_owned()).collect();
            let is_complete = chunks.peek().is_none();
            let update = InterestUpdate { is_complete, added, ..InterestUpdate::default() };
            if !self.send(partition, leader, term, update).await {
                return false;
            }
            if is_complete {
                break;
            }
        }
        self.confirm(partition, (leader, term), counter);
        true
    }

    async fn send(
        &self,
        partition: PartitionId,
        leader: NodeId,
        term: Term,
        mut update: InterestUpdate,
    ) -> bool {
        update.partition = partition.0;
        update.term = term.0;
        update.incarnation = self.peers.incarnation;
        {
            let mut state = self.shards[partition.0 as usize].state.lock();
            update.number = state.next_number;
            state.next_number += 1;
        }
        matches!(self.peers.call(leader, Ask::Interest(update)).await, Ok(answer) if answer.outcome == Answer::DONE)
    }

    fn confirm(&self, partition: PartitionId, told: (NodeId, Term), counter: u64) {
        let shard = &self.shards[partition.0 as usize];
        let mut state = shard.state.lock();
        state.told = Some(told);
        state.confirmed = state.confirmed.max(counter);
        drop(state);
        shard.confirmed.notify_waiters();
    }
}
