//! `fleetline cluster …`: nodes, partitions, and changes of where they are.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Subcommand;
use fleetline_client::model::{ClusterChange, Metadata, NodeInfo, PartitionInfo};
use fleetline_client::{Admin, NodeId, PartitionId};
use serde_json::{Value, json};

use crate::time::duration;
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
    /// Example: `fleetline cluster drain 2`, then watch `fleetline cluster status` until it holds nothing, then
    /// `fleetline cluster remove 2`.
    Drain {
        /// The node's id.
        node: u64,
        /// End a drain instead.
        #[arg(long)]
        undo: bool,
    },
    /// Forgets a drained node; with --force one that is lost for good.
    Remove {
        /// The node's id.
        node: u64,
        /// Although it holds replicas: only for a node that will never come back.
        #[arg(long)]
        force: bool,
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
    TransferLeader {
        /// The partition.
        partition: u32,
        /// The node's id; it holds a replica.
        to: u64,
    },
    /// Says how a cluster is made (a node makes one by itself).
    Init,
    /// Says how a node joins (it does so when it is started).
    Join,
}

pub(crate) async fn run(context: &ContextArgs, command: ClusterCommand) -> Result<(), CliError> {
    match command {
        ClusterCommand::Init => {
            println!(
                "`fleetline serve --data DIR` on an empty folder makes a cluster of one node; nothing else is needed."
            );
            println!(
                "Then `fleetline cluster token` gives a token by which others join: `fleetline serve --join TOKEN`."
            );
            return Ok(());
        }
        ClusterCommand::Join => {
            println!("Make a token on a machine with the cluster's context: `fleetline cluster token`");
            println!(
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
            println!("{}", admin.create_join_token(valid_for).await?);
            eprintln!("use it with: fleetline serve --data DIR --join TOKEN");
        }
        ClusterCommand::Drain { node: id, undo } => {
            let change = if undo { ClusterChange::Undrain(node(id)) } else { ClusterChange::Drain(node(id)) };
            admin.change(change).await?;
            match undo {
                true => println!("node {id} takes replicas again"),
                false => {
                    println!("node {id} is being drained; `fleetline cluster status` shows how far it is")
                }
            }
        }
        ClusterCommand::Remove { node: id, force } => {
            admin.change(ClusterChange::Remove { node: node(id), force }).await?;
            println!("node {id} is removed; its id is never used again");
        }
        ClusterCommand::Replace { old, new } => {
            admin.change(ClusterChange::Replace { old: node(old), new: node(new) }).await?;
            println!(
                "node {new} takes the place of node {old}; `fleetline cluster status` shows how far it is"
            );
        }
        ClusterCommand::TransferLeader { partition, to } => {
            let partition = PartitionId(partition);
            admin.change(ClusterChange::TransferLeader { partition, to: node(to) }).await?;
            println!("node {to} is the preferred leader of partition {} and takes over", partition.0);
        }
        ClusterCommand::Init | ClusterCommand::Join => {}
    }
    Ok(())
}

/// The cluster as all nodes together tell it.
struct Status {
    metadata: Metadata,
    /// Per partition what its leader says of it, or else any replica.
    partitions: BTreeMap<u32, PartitionInfo>,
    replicas: BTreeMap<NodeId, usize>,
    leads: BTreeMap<NodeId, usize>,
    silent: Vec<NodeId>,
}

async fn gather(admin: &Admin) -> Result<Status, CliError> {
    let mut status = Status {
        metadata: admin.metadata().await?,
        partitions: BTreeMap::new(),
        replicas: BTreeMap::new(),
        leads: BTreeMap::new(),
        silent: Vec::new(),
    };
    for node in admin.partitions().await? {
        let id = node.node.node;
        let Ok(infos) = node.partitions else {
            status.silent.push(id);
            continue;
        };
        for info in infos {
            *status.replicas.entry(id).or_default() += 1;
            let leads = info.leader == Some(id);
            *status.leads.entry(id).or_default() += usize::from(leads);
            let known = status.partitions.get(&info.partition.0);
            if leads || known.is_none() {
                status.partitions.insert(info.partition.0, info);
            }
        }
    }
    Ok(status)
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
        println!("{:#}", to_json(&status));
        return Ok(());
    }
    let leader = status.metadata.control_leader.map_or("none".to_owned(), |node| node.0.to_string());
    println!("cluster {}   control leader {leader}   durability quorum-fsync\n", status.metadata.cluster);
    println!(
        "{:>5}  {:<22} {:<10} {:<9} {:>5} {:>8}",
        "node", "address", "zone", "state", "leads", "replicas"
    );
    for info in &status.metadata.nodes {
        let state = match (info.alive && !status.silent.contains(&info.node), info.draining) {
            (false, _) => "away",
            (true, true) => "draining",
            (true, false) => "alive",
        };
        let zone = if info.zone.is_empty() { "-" } else { &info.zone };
        let count = |map: &BTreeMap<NodeId, usize>| map.get(&info.node).copied().unwrap_or(0);
        let (leads, replicas) = (count(&status.leads), count(&status.replicas));
        println!(
            "{:>5}  {:<22} {zone:<10} {state:<9} {leads:>5} {replicas:>8}",
            info.node.0, info.client_address
        );
    }
    println!(
        "\n{:>9} {:>6} {:>5}  {:<12} {:<9} {:>12} {:>12} {:>6} {:>12} {:>7}",
        "partition", "leader", "term", "voters", "learners", "start", "end", "lag", "bytes", "damaged"
    );
    for info in status.partitions.values() {
        let list = |nodes: &[NodeId]| {
            let text: Vec<String> = nodes.iter().map(|node| node.0.to_string()).collect();
            if text.is_empty() { "-".to_owned() } else { text.join(",") }
        };
        println!(
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
