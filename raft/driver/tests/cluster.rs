//! Whole groups on several drivers over the network in memory, on virtual time: elections,
//! proposals, a dead leader, membership by learner, a new replica by snapshot, damage and repair.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_env::memory::MemDisk;
use fleetline_log::NodeLog;
use fleetline_log::memory::MemLog;
use fleetline_raft_driver::{Driver, DriverOptions};
use fleetline_raft_group::{
    Blocking, Command, Group, GroupConfig, Machine, MachineError, ProposeError, Reply, SnapshotStore,
};
use fleetline_raft_transport::memory::{MemNetwork, MemOptions};
use fleetline_raft_transport::{PeerAddress, PeerTransport};
use fleetline_snapshot::{SnapshotDir, SnapshotOptions};
use fleetline_state::memory::MemState;
use fleetline_state::{KeyKind, StateBatch, StateStore};
use fleetline_types::{GroupId, LogId, LogIndex, NodeId};

const GROUP: GroupId = GroupId(1);

/// Keeps the last value of each key; answers with the index of the entry.
struct Register(GroupId);

impl Machine for Register {
    fn load(&mut self, _store: &dyn StateStore) -> Result<(), MachineError> {
        Ok(())
    }

    fn apply(&mut self, id: LogId, command: &Command, out: &mut StateBatch) -> Result<Reply, MachineError> {
        if command.head.starts_with(b"later version") {
            return Err(MachineError::UnknownEntry { id, reason: "version 9".to_owned() });
        }
        out.put(self.0, KeyKind::Setting, command.head.clone(), command.body.clone());
        Ok(Reply(Bytes::copy_from_slice(&id.index.0.to_be_bytes())))
    }

    fn end_of_round(&mut self, _out: &mut StateBatch) -> Result<(), MachineError> {
        Ok(())
    }

    fn published(&mut self, _id: LogId) {}
}

struct TestNode {
    driver: Arc<Driver>,
    log: Arc<MemLog>,
    store: Arc<MemState>,
    snapshots: SnapshotDir,
}

impl TestNode {
    async fn start(network: &MemNetwork, id: u64) -> TestNode {
        TestNode::start_on(network, id, MemLog::new()).await
    }

    async fn start_on(network: &MemNetwork, id: u64, log: MemLog) -> TestNode {
        let log = Arc::new(log);
        let store = Arc::new(MemState::new());
        let disk = Arc::new(MemDisk::new());
        let snapshots = SnapshotDir::open(disk, SnapshotOptions::new(Path::new("snapshots"))).unwrap();
        let options = DriverOptions {
            node: NodeId(id),
            config: GroupConfig::default(),
            log: log.clone(),
            store: store.clone(),
        };
        let connect = async |handler| -> Result<Arc<dyn PeerTransport>, std::convert::Infallible> {
            Ok(network.endpoint(NodeId(id), handler) as Arc<dyn PeerTransport>)
        };
        let driver = Driver::start(options, connect).await.unwrap();
        for peer in (1..=4).filter(|peer| *peer != id) {
            let address = PeerAddress { address: format!("n{peer}") };
            driver.transport().set_peer(NodeId(peer), address);
        }
        TestNode { driver, log, store, snapshots }
    }

    async fn start_group(&self) -> Group {
        let (log, store) = (self.log.clone(), self.store.clone());
        let snapshots = SnapshotStore::new(GROUP, self.snapshots.clone(), log, store, Blocking::Inline);
        self.driver.start_group(GROUP, Box::new(Register(GROUP)), Arc::new(snapshots)).await.unwrap()
    }

    fn group(&self) -> Group {
        self.driver.group(GROUP).unwrap()
    }

    fn value(&self, key: &str) -> Option<Bytes> {
        self.store.get(GROUP, KeyKind::Setting, key.as_bytes()).unwrap()
    }
}

struct TestCluster {
    network: MemNetwork,
    nodes: BTreeMap<NodeId, TestNode>,
}

impl TestCluster {
    async fn start(count: u64) -> TestCluster {
        fleetline_raft_group::seed_this_thread(Some(7));
        let network = MemNetwork::new(MemOptions::default());
        let mut nodes = BTreeMap::new();
        for id in 1..=count {
            let node = TestNode::start(&network, id).await;
            node.start_group().await;
            nodes.insert(NodeId(id), node);
        }
        let voters: BTreeSet<NodeId> = nodes.keys().copied().collect();
        nodes[&NodeId(1)].group().initialize(&voters).await.unwrap();
        TestCluster { network, nodes }
    }

    /// The leader that a majority agrees on; waits for one.
    async fn leader(&self) -> NodeId {
        loop {
            let mut votes: BTreeMap<NodeId, usize> = BTreeMap::new();
            for node in self.nodes.values() {
                if let Some(leader) = node.group().status().leader {
                    *votes.entry(leader).or_default() += 1;
                }
            }
            let agreed = votes.iter().find(|(id, count)| {
                **count * 2 > self.nodes.len() && self.nodes.get(id).is_some_and(|n| n.group().is_leader())
            });
            if let Some((leader, _)) = agreed {
                return *leader;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn put(&self, key: &str, value: &str) -> u64 {
        loop {
            let leader = self.leader().await;
            let command = Command {
                head: Bytes::copy_from_slice(key.as_bytes()),
                body: Bytes::copy_from_slice(value.as_bytes()),
            };
            match self.nodes[&leader].group().propose(command).await {
                Ok(reply) => return u64::from_be_bytes(reply.0.as_ref().try_into().unwrap()),
                Err(ProposeError::NotLeader { .. } | ProposeError::Unknown { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn wait_value(&self, node: NodeId, key: &str, value: &str) {
        while self.nodes[&node].value(key).as_deref() != Some(value.as_bytes()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Runs a test on one thread and virtual time.
fn on_virtual_time(test: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(test);
}

/// What is acknowledged is on every replica, in one order.
#[test]
fn replicates() {
    on_virtual_time(async {
        let cluster = TestCluster::start(3).await;
        let first = cluster.put("a", "1").await;
        let second = cluster.put("a", "2").await;
        assert!(first < second);
        for node in cluster.nodes.keys() {
            cluster.wait_value(*node, "a", "2").await;
        }
    });
}

/// A leader whose process dies is replaced far below the election time-out, and nothing that it
/// acknowledged is gone.
#[test]
fn a_dead_leader_is_succeeded_at_once() {
    on_virtual_time(async {
        let mut cluster = TestCluster::start(3).await;
        cluster.put("a", "1").await;
        let dead = cluster.leader().await;
        cluster.network.kill(dead);
        let node = cluster.nodes.remove(&dead).unwrap();
        let before = tokio::time::Instant::now();
        cluster.put("b", "2").await;
        let gap = before.elapsed();
        assert!(gap < Duration::from_millis(1000), "gap {gap:?}: waited for the election time-out");
        for node in cluster.nodes.keys() {
            cluster.wait_value(*node, "a", "1").await;
        }
        node.driver.shutdown().await;
    });
}

/// A proposal that a cut-off leader took is unknown or refused, never acknowledged; the majority goes on.
#[test]
fn a_leader_without_a_majority_acknowledges_nothing() {
    on_virtual_time(async {
        let cluster = TestCluster::start(3).await;
        cluster.put("a", "1").await;
        let old = cluster.leader().await;
        cluster.network.isolate(old);
        let orphan = cluster.nodes[&old].group();
        let command = Command { head: Bytes::from_static(b"lost"), body: Bytes::from_static(b"x") };
        let lonely = tokio::spawn(async move { orphan.propose(command).await });
        let new = loop {
            let others = cluster.nodes.iter().filter(|(id, _)| **id != old);
            if let Some((id, _)) = others.into_iter().find(|(_, n)| n.group().is_leader()) {
                break *id;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let command = Command { head: Bytes::from_static(b"b"), body: Bytes::from_static(b"2") };
        cluster.nodes[&new].group().propose(command).await.unwrap();
        cluster.network.heal_all();
        cluster.wait_value(old, "b", "2").await;
        assert!(lonely.await.unwrap().is_err());
        assert!(cluster.nodes.values().all(|node| node.value("lost").is_none()));
    });
}

/// Membership by learner first; the new replica is filled from the log, and the old one forgotten.
#[test]
fn replaces_a_replica() {
    on_virtual_time(async {
        let mut cluster = TestCluster::start(3).await;
        cluster.put("a", "1").await;
        let node = TestNode::start(&cluster.network, 4).await;
        node.start_group().await;
        cluster.nodes.insert(NodeId(4), node);
        let leader = cluster.leader().await;
        let leaving = *cluster.nodes.keys().find(|id| **id != leader && id.0 != 4).unwrap();
        let group = cluster.nodes[&leader].group();
        group.add_learner(NodeId(4)).await.unwrap();
        cluster.wait_value(NodeId(4), "a", "1").await;
        let voters: BTreeSet<NodeId> = cluster.nodes.keys().copied().filter(|id| *id != leaving).collect();
        group.change_voters(&voters).await.unwrap();
        let status = group.status();
        assert_eq!((status.voters, status.learners, status.joint), (voters, BTreeSet::new(), false));
        cluster.put("a", "2").await;
        cluster.wait_value(NodeId(4), "a", "2").await;
    });
}

/// A replica that the log alone can't fill any more gets a snapshot: rows, log range, membership.
#[test]
fn fills_a_replica_by_snapshot() {
    on_virtual_time(async {
        let mut cluster = TestCluster::start(1).await;
        for i in 0..50 {
            cluster.put(&format!("k{i}"), "v").await;
        }
        let leader = &cluster.nodes[&NodeId(1)];
        let group = leader.group();
        group.compact(LogIndex(30), Duration::from_secs(60)).await.unwrap();
        leader.log.retain_from(GROUP, LogIndex(20)).unwrap();
        let node = TestNode::start(&cluster.network, 2).await;
        node.start_group().await;
        cluster.nodes.insert(NodeId(2), node);
        group.add_learner(NodeId(2)).await.unwrap();
        cluster.wait_value(NodeId(2), "k49", "v").await;
        let new = &cluster.nodes[&NodeId(2)];
        assert_eq!(new.value("k0").as_deref(), Some(b"v".as_slice()));
        assert_eq!(new.log.state(GROUP).first_retained, LogIndex(20));
        let history = new.log.read(GROUP, LogIndex(20)..LogIndex(30), u64::MAX).unwrap();
        assert_eq!(history.len(), 10);
    });
}

/// An entry whose bytes are damaged on the leader's disk is fetched from a peer when it is needed.
#[test]
fn repairs_a_damaged_entry() {
    on_virtual_time(async {
        let mut cluster = TestCluster::start(3).await;
        for i in 0..10 {
            cluster.put(&format!("k{i}"), "v").await;
        }
        for node in cluster.nodes.keys() {
            cluster.wait_value(*node, "k9", "v").await;
        }
        let leader = cluster.leader().await;
        let damaged = LogIndex(5);
        cluster.nodes[&leader].log.damage(GROUP, damaged);
        let node = TestNode::start(&cluster.network, 4).await;
        node.start_group().await;
        cluster.nodes.insert(NodeId(4), node);
        cluster.nodes[&leader].group().add_learner(NodeId(4)).await.unwrap();
        cluster.wait_value(NodeId(4), "k9", "v").await;
        assert!(cluster.nodes[&leader].log.damaged(GROUP, 10).is_empty());
    });
}

/// A replica that has forgotten doesn't vote, and votes again once a leader has refilled it.
#[test]
fn an_amnesiac_votes_only_when_refilled() {
    on_virtual_time(async {
        let mut cluster = TestCluster::start(3).await;
        cluster.put("a", "1").await;
        let leader = cluster.leader().await;
        let amnesiac = *cluster.nodes.keys().find(|id| **id != leader).unwrap();
        cluster.network.kill(amnesiac);
        let old = cluster.nodes.remove(&amnesiac).unwrap();
        old.driver.shutdown().await;
        let node = TestNode::start(&cluster.network, amnesiac.0).await;
        node.log.set_amnesia(GROUP);
        let group = node.start_group().await;
        cluster.nodes.insert(amnesiac, node);
        while cluster.nodes[&amnesiac].log.state(GROUP).amnesia {
            cluster.put("b", "2").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(cluster.nodes[&amnesiac].value("a").as_deref(), Some(b"1".as_slice()));
        assert!(group.status().leader.is_some());
    });
}

/// A group that this disk may have forgotten isn't made anew; one that can't have been here is.
#[test]
fn a_forgotten_group_is_not_made_anew() {
    on_virtual_time(async {
        let node = TestNode::start(&MemNetwork::new(MemOptions::default()), 1).await;
        node.log.set_doubt();
        let (voters, done) = (BTreeSet::from([NodeId(1)]), Box::new(|_| ()));
        node.start_group().await.initialize(&voters).await.unwrap();
        assert_eq!(node.log.state(GROUP).last, None);
        node.driver.stop_group(GROUP).await;
        node.log.trust_unknown_groups(&[GROUP], done.clone()).unwrap();
        node.start_group().await.initialize(&voters).await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(node.log.state(GROUP).last.is_none() && !node.group().is_leader());

        let node = TestNode::start(&MemNetwork::new(MemOptions::default()), 1).await;
        node.log.set_doubt();
        node.log.trust_unknown_groups(&[], done).unwrap();
        let group = node.start_group().await;
        group.initialize(&voters).await.unwrap();
        group.applied().wait_for(|applied| applied.is_some()).await.unwrap();
        assert!(group.is_leader());
    });
}

/// A cluster whose node that was asked for left the group, and was told so; gives the leader and it.
async fn with_a_leaver(isolated: bool) -> (TestCluster, NodeId, NodeId) {
    let mut cluster = TestCluster::start(3).await;
    cluster.put("a", "1").await;
    let leader = cluster.leader().await;
    for node in cluster.nodes.keys() {
        cluster.wait_value(*node, "a", "1").await;
    }
    let node = TestNode::start(&cluster.network, 4).await;
    node.start_group().await;
    cluster.nodes.insert(NodeId(4), node);
    let followers: Vec<NodeId> =
        cluster.nodes.keys().copied().filter(|id| *id != leader && id.0 != 4).collect();
    if isolated {
        cluster.network.isolate(followers[1]);
    }
    let group = cluster.nodes[&leader].group();
    group.add_learner(NodeId(4)).await.unwrap();
    cluster.wait_value(NodeId(4), "a", "1").await;
    let others: BTreeSet<NodeId> = cluster.nodes.keys().copied().collect();
    let leaving = &cluster.nodes[&followers[0]].driver;
    let said = leaving.confirm(GROUP, &others, Duration::from_secs(5)).await.unwrap();
    assert!(said.has_member(followers[0]) && said.has_member(NodeId(4)));
    group.change_voters(&BTreeSet::from([leader, NodeId(4)])).await.unwrap();
    leaving.stop_group(GROUP).await;
    let said = leaving.confirm(GROUP, &others, Duration::from_secs(5)).await.unwrap();
    assert!(!said.has_member(followers[0]) && said.has_member(leader));
    (cluster, leader, followers[0])
}

/// A replica that was removed leaves nothing behind but its vote, also when its rows outlived a crash;
/// should it be placed here again, it is filled anew and votes again.
#[test]
fn a_removed_replica_can_come_back() {
    on_virtual_time(async {
        let (cluster, leader, left) = with_a_leaver(false).await;
        let node = &cluster.nodes[&left];
        let mut last = 0;
        for _ in 0..1000 {
            let reply = cluster.nodes[&leader].group().propose(Command::default()).await.unwrap();
            last = u64::from_be_bytes(reply.0.as_ref().try_into().unwrap());
        }
        // As after a crash between the removal from the log and that of the rows.
        node.log.remove_group(GROUP, Box::new(|_| ())).unwrap();
        assert!(node.value("a").is_some() && node.log.state(GROUP).removed);
        let group = node.start_group().await;
        assert!(node.value("a").is_none());
        cluster.nodes[&leader].group().add_learner(left).await.unwrap();
        while node.log.state(GROUP).amnesia {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Everything that the leader had, though its term began long before.
        assert!(node.group().applied().borrow().unwrap().index >= LogIndex(last));
        assert!(!node.log.state(GROUP).removed && node.value("a").is_some());
        node.driver.stop_group(GROUP).await;
        group.remove().await.unwrap();
        let state = node.log.state(GROUP);
        assert_eq!((state.last, state.removed, node.value("a")), (None, true, None));
        assert!(state.vote.is_some() && node.log.groups().is_empty());
    });
}

/// A former member that missed the change of members, and one that was removed and is back empty, are a
/// majority of the old members: they must not elect a leader beside the real group.
#[test]
fn a_removed_replica_elects_nobody() {
    on_virtual_time(async {
        let (cluster, leader, left) = with_a_leaver(true).await;
        let stale = *cluster.nodes.keys().find(|id| ![leader, left, NodeId(4)].contains(id)).unwrap();
        cluster.nodes[&left].log.remove_group(GROUP, Box::new(|_| ())).unwrap();
        cluster.nodes[&left].start_group().await;
        cluster.network.kill(leader);
        cluster.network.kill(NodeId(4));
        cluster.network.heal_all();
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!cluster.nodes[&stale].group().is_leader());
        }
        assert!(cluster.nodes[&stale].group().status().voters.contains(&left));
    });
}

/// A command whose head the log can't hold is refused, and harms nobody; the largest that it can goes.
#[test]
fn a_head_that_is_too_long_is_refused() {
    on_virtual_time(async {
        let cluster = TestCluster::start(1).await;
        cluster.put("a", "1").await;
        let group = cluster.nodes[&NodeId(1)].group();
        let command = |len: usize| Command { head: Bytes::from(vec![b'h'; len]), body: Bytes::new() };
        assert!(matches!(group.propose(command(65_536)).await, Err(ProposeError::Refused { .. })));
        group.propose(command(65_535)).await.unwrap();
    });
}

/// An entry of a later version stops the replica; it is not skipped.
#[test]
fn an_unknown_entry_stops_the_replica() {
    on_virtual_time(async {
        let cluster = TestCluster::start(1).await;
        let command = Command { head: Bytes::from_static(b"later version"), body: Bytes::new() };
        let group = cluster.nodes[&NodeId(1)].group();
        assert!(matches!(group.propose(command).await, Err(ProposeError::Unknown { .. })));
        while group.status().stopped.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let command = Command { head: Bytes::from_static(b"a"), body: Bytes::new() };
        assert!(group.propose(command).await.is_err());
    });
}

/// A log that isn't written holds up the end of a node for ten seconds, not for ever: a replica waits for its
/// vote to be durable.
#[test]
fn a_stuck_log_does_not_keep_the_process() {
    on_virtual_time(async {
        let network = MemNetwork::new(MemOptions::default());
        let node = TestNode::start_on(&network, 1, MemLog::manual()).await;
        let group = node.start_group().await;
        let initializing = tokio::spawn(async move { group.initialize(&BTreeSet::from([NodeId(1)])).await });
        while node.log.state(GROUP).vote.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let started = tokio::time::Instant::now();
        let stopped = tokio::time::timeout(Duration::from_secs(60), node.driver.shutdown()).await;
        assert_eq!((stopped, started.elapsed().as_secs()), (Ok(()), 10));
        assert!(node.driver.groups().is_empty());
        initializing.abort();
    });
}
