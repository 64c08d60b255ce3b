//! The cluster: nodes, partitions with leader and lag, how many devices there are.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetline_devices::{DeviceHead, Request};
use fleetline_gateway::devices::hub::answered;
use fleetline_gateway::hub::{NodeInfo, PartitionInfo};
use fleetline_types::{NodeId, PartitionId};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::console::Console;
use crate::limits::{COUNTS_AT_ONCE, COUNTS_TTL, COUNTS_WAIT};

/// Devices of all partitions, as of a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    at: Instant,
    head: DeviceHead,
    /// Partitions whose leader didn't answer.
    missing: u32,
}

/// Answers what it knows; what can't be asked now is null.
pub(crate) async fn get(console: &Console) -> Value {
    let metadata = console.hub.metadata();
    let (infos, counts) = futures::join!(infos(console, metadata.partitions), counts(console));
    let partitions = metadata.leaders.iter().map(|(partition, leader, replicas)| {
        json!({
            "partition": partition.0,
            "leader": leader.map(|node| node.0),
            "replicas": numbers(replicas),
            "info": infos.get(partition).map(info_json),
        })
    });
    json!({
        "now": console.devices.now_ms(),
        "version": env!("CARGO_PKG_VERSION"),
        "cluster": metadata.cluster,
        "host": console.devices.settings().host_name,
        "node": metadata.node.0,
        "controlLeader": metadata.control_leader.map(|node| node.0),
        "nodes": metadata.nodes.iter().map(node_json).collect::<Vec<_>>(),
        "partitions": partitions.collect::<Vec<_>>(),
        "devices": {
            "registered": counts.head.devices,
            "connected": counts.head.connected,
            "disabled": counts.head.disabled,
            "partitionsMissing": counts.missing,
        },
        "functions": console.functions.is_some(),
        "live": console.live.as_ref().map(|live| json!({ "watchers": live.watchers() })),
    })
}

fn numbers(nodes: &[NodeId]) -> Vec<u64> {
    nodes.iter().map(|node| node.0).collect()
}

fn node_json(info: &NodeInfo) -> Value {
    json!({
        "node": info.node.0,
        "client": info.client_address,
        "peer": info.peer_address,
        "zone": info.zone,
        "draining": info.draining,
        "alive": info.alive,
    })
}

fn info_json(info: &PartitionInfo) -> Value {
    json!({
        "term": info.term.0,
        "voters": numbers(&info.voters),
        "learners": numbers(&info.learners),
        "start": info.start.0,
        "end": info.high_watermark.0,
        "lastEnqueued": info.last_enqueued.0,
        "bytes": info.bytes,
        "replicationLag": info.replication_lag,
        "applyLag": info.apply_lag,
        "damaged": info.damaged,
    })
}

/// What is known of each partition: from here, or from whoever the hub asks.
async fn infos(console: &Console, partitions: u32) -> BTreeMap<PartitionId, PartitionInfo> {
    let local = console.hub.local_partitions().await;
    let mut infos: BTreeMap<_, _> = local.into_iter().map(|info| (info.partition, info)).collect();
    let missing: Vec<_> = (0..partitions).map(PartitionId).filter(|id| !infos.contains_key(id)).collect();
    infos.extend(
        each(
            missing,
            COUNTS_WAIT,
            |id| async move { Some((id, console.hub.partition_info(id).await.ok()?)) },
        )
        .await
        .into_iter()
        .flatten(),
    );
    infos
}

/// Counts of all partitions, some seconds old at the most.
async fn counts(console: &Console) -> Counts {
    let known = *console.counts.lock();
    if let Some(counts) = known.filter(|counts| counts.at.elapsed() < COUNTS_TTL) {
        return counts;
    }
    let partitions = console.devices.partitions();
    let heads = each((0..partitions).map(PartitionId).collect(), COUNTS_WAIT, |id| async move {
        answered(console.devices.ask(id, Request::Head(true)).await.ok()?).ok()?.head
    });
    let heads: Vec<DeviceHead> = heads.await.into_iter().flatten().collect();
    let sum = |of: fn(&DeviceHead) -> u64| heads.iter().map(of).sum();
    let head = DeviceHead {
        devices: sum(|head| head.devices),
        connected: sum(|head| head.connected),
        disabled: sum(|head| head.disabled),
        ..DeviceHead::default()
    };
    let missing = partitions.saturating_sub(heads.len() as u32);
    let counts = Counts { at: Instant::now(), head, missing };
    *console.counts.lock() = Some(counts);
    counts
}

/// Asks for each of `items`, some at a time, and gives what has come within `wait`.
pub(crate) async fn each<I, T, F>(items: Vec<I>, wait: Duration, ask: impl Fn(I) -> F) -> Vec<T>
where
    F: Future<Output = T>,
{
    let deadline = Instant::now() + wait;
    let mut answers = futures::stream::iter(items.into_iter().map(ask)).buffer_unordered(COUNTS_AT_ONCE);
    let mut found = Vec::new();
    while let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await {
        found.push(answer);
    }
    found
}
