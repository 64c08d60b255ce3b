//! `fleetline cluster …`: nodes, partitions, and changes of where they are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Subcommand;
use fleetline_client::model::{ClusterChange, Metadata, NodeInfo, PartitionInfo};
use fleetline_client::{Admin, NodeId, PartitionId};
use serde_json::{Value, json};

use crate::time::{bytes, duration};
use crate::{CliError, ContextArgs};

/// Commands on the cluster.
#[derive(Subcommand, Debug)]
pub enum ClusterCommand {
    /// Shows nodes and partitions: who leads, who is behind, what is damaged.
    ///
    /// Example: `fleetline cluster status`. With --json the same for programs.
    Status {
        /// Print JSON instead of tables.
        #[arg(long)]
        json: bool,
    },
    /// Makes a token by which new nodes may join.
    ///
    /// Example: `fleetline serve --data ./n2 --join "$(fleetline cluster token)"`. Once three nodes are there,
    /// every partition gets three replicas by itself.
    #[command(visible_alias = "add")]
    Token {
        /// How long the token is valid.
        #[arg(long, default_value = "1h", value_parser = duration)]
        valid_for: Duration,
    },
    /// Moves all replicas and leaders off a node, and keeps new ones away.
    ///
    /// Example: `fleetline cluster drain 2`, then `fleetline cluster remove 2`, which waits until the node is
    /// empty. `fleetline cluster status` shows how far it is, `fleetline cluster undrain 2` ends the drain.
    Drain {
        /// The node's id.
        node: u64,
        /// Although too few nodes remain, so that partitions get fewer replicas.
        #[arg(long)]
        fewer_replicas: bool,
    },
    /// Ends a drain: the node takes replicas again.
    ///
    /// Example: `fleetline cluster undrain 2`. Replicas come back by and by, as balance asks for it.
    Undrain {
        /// The node's id.
        node: u64,
    },
    /// Forgets a node: a drained one, once it is empty; with --force one that is lost for good.
    ///
    /// Example: `fleetline cluster drain 2 && fleetline cluster remove 2`. Its id is never used again. Nothing is
    /// removed, not even by force, that holds the only copy of a partition.
    Remove {
        /// The node's id.
        node: u64,
        /// Although it holds replicas: only for a node that will never come back.
        #[arg(long)]
        force: bool,
        /// How long to wait for a draining node to be empty.
        #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
        wait: Duration,
    },
    /// Gives the replicas of a lost node to another one, and forgets the lost one.
    ///
    /// Example: the disk of node 2 is gone. Start a new node with a token; it becomes node 4. Then
    /// `fleetline cluster replace 2 4`.
    Replace {
        /// The lost node's id.
        old: u64,
        /// The id of the node that takes its place.
        new: u64,
    },
    /// Makes a node the leader of a partition.
    ///
    /// Example: `fleetline cluster transfer-leader 0 3`. It becomes the preferred leader, and leads as soon as it
    /// is not behind.
    TransferLeader {
        /// The partition.
        partition: u32,
        /// The node's id; it holds a replica.
        to: u64,
    },
    /// Sets how long and how much of each partition's stream is kept.
    ///
    /// Example: `fleetline cluster retention 7d 50GiB`. What is older, or beyond that size, is removed within a
    /// minute.
    Retention {
        /// How long records are kept.
        #[arg(value_parser = duration, value_name = "TIME")]
        time: Duration,
        /// Bytes of each partition that are kept, like 50GiB.
        #[arg(value_parser = bytes, value_name = "SIZE")]
        bytes: u64,
    },
    /// Says how a cluster is made (a node makes one by itself).
    Init,
    /// Says how a node joins (it does so when it is started).
    Join,
}

pub(crate) async fn run(context: &ContextArgs, command: ClusterCommand) -> Result<(), CliError> {
    match command {
        ClusterCommand::Init => {
            say!(
                "`fleetline serve --data DIR` on an empty folder makes a cluster of one node; nothing else is needed."
            );
            say!(
                "Then `fleetline cluster token` gives a token by which others join: `fleetline serve --join TOKEN`."
            );
            return Ok(());
        }
        ClusterCommand::Join => {
            say!("Make a token on a machine with the cluster's context: `fleetline cluster token`");
            say!(
                "Start the new node with it:                          `fleetline serve --data DIR --join TOKEN`"
            );
            return Ok(());
        }
        _ => {}
    }
    let admin = context.connect().await?.admin();
    let node = NodeId;
    match command {
        ClusterCommand::Status { json } => return status(&admin, json).await,
        ClusterCommand::Token { valid_for } => {
            say!("{}", admin.create_join_token(valid_for).await?);
            eprintln!("use it with: fleetline serve --data DIR --join TOKEN");
        }
        ClusterCommand::Drain { node: id, fewer_replicas } => {
            if !fewer_replicas {
                check_replicas_without(&admin.metadata().await?, node(id))?;
            }
            admin.change(ClusterChange::Drain(node(id))).await?;
            say!("node {id} is being drained; `fleetline cluster status` shows how far it is");
        }
        ClusterCommand::Retention { time, bytes } => {
            let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            admin.change(ClusterChange::Retention { time_ms, bytes }).await?;
            say!("streams are kept for {}s and {bytes} bytes a partition", time.as_secs());
        }
        ClusterCommand::Undrain { node: id } => {
            admin.change(ClusterChange::Undrain(node(id))).await?;
            say!("node {id} takes replicas again");
        }
        ClusterCommand::Remove { node: id, force, wait } => {
            remove(&admin, node(id), force, wait).await?;
            say!("node {id} is removed; its id is never used again");
        }
        ClusterCommand::Replace { old, new } => {
            admin.change(ClusterChange::Replace { old: node(old), new: node(new) }).await?;
            say!("node {new} takes the place of node {old}; `fleetline cluster status` shows how far it is");
        }
        ClusterCommand::TransferLeader { partition, to } => {
            let partition = PartitionId(partition);
            admin.change(ClusterChange::TransferLeader { partition, to: node(to) }).await?;
            say!("node {to} is the preferred leader of partition {} and takes over", partition.0);
        }
        ClusterCommand::Init | ClusterCommand::Join => {}
    }
    Ok(())
}

/// A drain would leave partitions with fewer replicas than they have: nobody should learn that afterwards.
fn check_replicas_without(metadata: &Metadata, node: NodeId) -> Result<(), CliError> {
    let remain = metadata.nodes.iter().filter(|info| info.node != node && !info.draining).count();
    let fullest = metadata.leaders.iter().map(|(_, _, replicas)| replicas.len()).max().unwrap_or(0);
    if remain >= fullest {
        return Ok(());
    }
    Err(CliError::Failed(format!(
        "partitions have {fullest} replicas, and without node {node} only {remain} other nodes take any: they \
         would survive fewer failures\nhint: add a node first (`fleetline cluster token`), or insist with \
         --fewer-replicas",
        node = node.0
    )))
}

/// Removes a node; one that is being drained is waited for.
async fn remove(admin: &Admin, node: NodeId, force: bool, wait: Duration) -> Result<(), CliError> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        let refused = match admin.change(ClusterChange::Remove { node, force }).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_definite() => error,
            Err(error) => return Err(error.into()),
        };
        let metadata = admin.metadata().await?;
        let draining = metadata.nodes.iter().any(|info| info.node == node && info.draining);
        if force || !draining || begun.elapsed() >= wait {
            return Err(refused.into());
        }
        if !told {
            eprintln!("node {} is not empty yet, waiting (Ctrl-C: it goes on being drained)", node.0);
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The cluster as all nodes together tell it.
struct Status {
    metadata: Metadata,
    /// Per partition what its leader says of it, or else any replica.
    partitions: BTreeMap<u32, PartitionInfo>,
    /// Per node the groups that it is a member of.
    replicas: BTreeMap<NodeId, usize>,
    leads: BTreeMap<NodeId, usize>,
    silent: Vec<NodeId>,
}

async fn gather(admin: &Admin) -> Result<Status, CliError> {
    let metadata = admin.metadata().await?;
    let told = admin.partitions().await?.into_iter().map(|told| (told.node.node, told.partitions.ok()));
    Ok(summarize(metadata, told))
}

/// Puts together what the nodes told. A node's own list may still name what was moved away from it, so
/// replicas are counted as the leaders name them.
fn summarize(metadata: Metadata, told: impl Iterator<Item = (NodeId, Option<Vec<PartitionInfo>>)>) -> Status {
    let mut partitions: BTreeMap<u32, (bool, PartitionInfo)> = BTreeMap::new();
    let mut silent = Vec::new();
    for (node, infos) in told {
        let Some(infos) = infos else {
            silent.push(node);
            continue;
        };
        for info in infos {
            // The newest term speaks, its leader first: one that was deposed may not know it yet.
            let rank = |leads: bool, info: &PartitionInfo| (info.term, leads, info.high_watermark);
            let leads = info.leader == Some(node);
            let known = partitions.get(&info.partition.0);
            if known.is_none_or(|(led, known)| rank(leads, &info) > rank(*led, known)) {
                partitions.insert(info.partition.0, (leads, info));
            }
        }
    }
    let partitions: BTreeMap<u32, PartitionInfo> =
        partitions.into_iter().map(|(id, (_, info))| (id, info)).collect();
    let mut status =
        Status { metadata, partitions, replicas: BTreeMap::new(), leads: BTreeMap::new(), silent };
    for info in status.partitions.values() {
        for node in info.voters.iter().chain(&info.learners) {
            *status.replicas.entry(*node).or_default() += 1;
        }
        if let Some(leader) = info.leader {
            *status.leads.entry(leader).or_default() += 1;
        }
    }
    status
}

fn ids(nodes: &[NodeId]) -> Vec<u64> {
    nodes.iter().map(|node| node.0).collect()
}

fn to_json(status: &Status) -> Value {
    let node = |info: &NodeInfo| {
        json!({
            "node": info.node.0, "client_address": info.client_address, "peer_address": info.peer_address,
            "zone": info.zone, "draining": info.draining,
            "alive": info.alive && !status.silent.contains(&info.node),
            "replicas": status.replicas.get(&info.node).copied().unwrap_or(0),
            "leads": status.leads.get(&info.node).copied().unwrap_or(0),
        })
    };
    let partition = |info: &PartitionInfo| {
        json!({
            "partition": info.partition.0, "leader": info.leader.map(|node| node.0), "term": info.term.0,
            "voters": ids(&info.voters), "learners": ids(&info.learners), "start": info.start.0,
            "end": info.high_watermark.0, "bytes": info.bytes, "lag": info.replication_lag,
            "damaged": info.damaged,
        })
    };
    json!({
        "cluster": status.metadata.cluster,
        "control_leader": status.metadata.control_leader.map(|node| node.0),
        "durability": "quorum-fsync",
        "nodes": status.metadata.nodes.iter().map(node).collect::<Vec<_>>(),
        "partitions": status.partitions.values().map(partition).collect::<Vec<_>>(),
    })
}

async fn status(admin: &Admin, json: bool) -> Result<(), CliError> {
    let status = gather(admin).await?;
    if json {
        say!("{:#}", to_json(&status));
        return Ok(());
    }
    let leader = status.metadata.control_leader.map_or("none".to_owned(), |node| node.0.to_string());
    say!("cluster {}   control leader {leader}   durability quorum-fsync\n", status.metadata.cluster);
    say!("{:>5}  {:<22} {:<10} {:<9} {:>5} {:>8}", "node", "address", "zone", "state", "leads", "replicas");
    for info in &status.metadata.nodes {
        let state = match (info.alive && !status.silent.contains(&info.node), info.draining) {
            (false, _) => "away",
            (true, true) => "draining",
            (true, false) => "alive",
        };
        let zone = if info.zone.is_empty() { "-" } else { &info.zone };
        let count = |map: &BTreeMap<NodeId, usize>| map.get(&info.node).copied().unwrap_or(0);
        let (leads, replicas) = (count(&status.leads), count(&status.replicas));
        say!(
            "{:>5}  {:<22} {zone:<10} {state:<9} {leads:>5} {replicas:>8}",
            info.node.0,
            info.client_address
        );
    }
    say!(
        "\n{:>9} {:>6} {:>5}  {:<12} {:<9} {:>12} {:>12} {:>6} {:>12} {:>7}",
        "partition",
        "leader",
        "term",
        "voters",
        "learners",
        "start",
        "end",
        "lag",
        "bytes",
        "damaged"
    );
    for info in status.partitions.values() {
        let list = |nodes: &[NodeId]| {
            let text: Vec<String> = nodes.iter().map(|node| node.0.to_string()).collect();
            if text.is_empty() { "-".to_owned() } else { text.join(",") }
        };
        say!(
            "{:>9} {:>6} {:>5}  {:<12} {:<9} {:>12} {:>12} {:>6} {:>12} {:>7}",
            info.partition.0,
            info.leader.map_or("none".to_owned(), |node| node.0.to_string()),
            info.term.0,
            list(&info.voters),
            list(&info.learners),
            info.start.0,
            info.high_watermark.0,
            info.replication_lag,
            info.bytes,
            info.damaged
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fleetline_types::{Offset, Term, TimestampMs};

    use super::*;

    fn metadata(draining: &[u64], replicas: &[u64]) -> Metadata {
        let node = |id: u64| NodeInfo {
            node: NodeId(id),
            client_address: format!("n{id}:4433"),
            peer_address: format!("n{id}:4434"),
            zone: String::new(),
            draining: draining.contains(&id),
            alive: true,
        };
        let replicas = replicas.iter().copied().map(NodeId).collect();
        Metadata {
            cluster: "c".to_owned(),
            node: NodeId(1),
            partitions: 1,
            nodes: (1..=4).map(node).collect(),
            leaders: vec![(PartitionId(0), Some(NodeId(1)), replicas)],
            control_leader: Some(NodeId(1)),
        }
    }

    fn info(leader: Option<u64>, term: u64, voters: &[u64]) -> PartitionInfo {
        PartitionInfo {
            partition: PartitionId(0),
            leader: leader.map(NodeId),
            term: Term(term),
            voters: voters.iter().copied().map(NodeId).collect(),
            learners: Vec::new(),
            start: Offset(0),
            high_watermark: Offset(9),
            last_enqueued: TimestampMs(0),
            bytes: 0,
            replication_lag: 0,
            apply_lag: 0,
            damaged: 0,
        }
    }

    /// The leader of the newest term speaks for its partition: a deposed one and a node that the
    /// partition has left are not believed, and the latter counts as empty.
    #[test]
    fn the_newest_leader_speaks() {
        let told = [
            (NodeId(1), Some(vec![info(Some(1), 3, &[1, 2, 3])])),
            (NodeId(2), Some(vec![info(Some(2), 4, &[2, 3, 4])])),
            (NodeId(3), None),
            (NodeId(4), Some(vec![info(Some(2), 4, &[2, 3])])),
        ];
        let status = summarize(metadata(&[1], &[2, 3, 4]), told.into_iter());
        assert_eq!(ids(&status.partitions[&0].voters), [2, 3, 4]);
        assert_eq!(status.replicas.get(&NodeId(1)), None);
        assert_eq!(status.leads, BTreeMap::from([(NodeId(2), 1)]));
        assert_eq!(status.silent, [NodeId(3)]);
        let json = to_json(&status);
        assert_eq!((&json["nodes"][0]["replicas"], &json["nodes"][2]["alive"]), (&0.into(), &false.into()));
    }

    /// A drain that would cost replicas is refused, with what to do instead.
    #[test]
    fn drains_that_cost_replicas() {
        assert!(check_replicas_without(&metadata(&[], &[1, 2, 3]), NodeId(2)).is_ok());
        let refused = check_replicas_without(&metadata(&[4], &[1, 2, 3]), NodeId(2)).unwrap_err();
        assert!(refused.to_string().contains("only 2 other nodes"), "{refused}");
        assert!(refused.to_string().contains("--fewer-replicas"), "{refused}");
        assert!(check_replicas_without(&metadata(&[], &[1]), NodeId(1)).is_ok());
    }
}
