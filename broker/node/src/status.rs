//! What the operations port tells: readiness, status, and the metrics that are read at that moment.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fleetline_gateway::hub::Hub;
use serde_json::{Value, json};

use crate::hub::NodeHub;

/// Why this node should get no traffic now.
pub(crate) fn ready(hub: &NodeHub) -> Result<(), String> {
    if hub.control.leader().is_none() {
        return Err("the control group has no leader that this node knows".to_owned());
    }
    if !hub.announced.load(Ordering::Relaxed) {
        return Err("the cluster does not know this node's addresses yet".to_owned());
    }
    let orphans: Vec<u32> = hub
        .hosting
        .all()
        .iter()
        .filter(|partition| partition.group().status().leader.is_none())
        .map(|partition| partition.id().0)
        .collect();
    match orphans.is_empty() {
        true => Ok(()),
        false => Err(format!("partitions without a leader: {orphans:?}")),
    }
}

/// The node as JSON.
pub(crate) async fn status(hub: Arc<NodeHub>) -> Value {
    let metadata = hub.metadata();
    let log = hub.driver.log().stats();
    let state = hub.driver.store().stats();
    let partitions: Vec<Value> = hub
        .local_partitions()
        .await
        .into_iter()
        .map(|info| {
            json!({
                "partition": info.partition.0, "leader": info.leader.map(|node| node.0), "term": info.term.0,
                "voters": info.voters.iter().map(|node| node.0).collect::<Vec<_>>(),
                "learners": info.learners.iter().map(|node| node.0).collect::<Vec<_>>(),
                "start": info.start.0, "end": info.high_watermark.0, "bytes": info.bytes,
                "replication_lag": info.replication_lag, "apply_lag": info.apply_lag, "damaged": info.damaged,
            })
        })
        .collect();
    json!({
        "cluster": metadata.cluster, "node": metadata.node.0,
        "control_leader": metadata.control_leader.map(|node| node.0),
        "durability": "quorum-fsync",
        "log": {
            "bytes": log.bytes, "segments": log.segments, "syncs": log.syncs, "frames": log.frames,
            "queued_bytes": log.queued_bytes, "damaged": log.damaged, "free_bytes": log.free_bytes,
        },
        "state": { "bytes": state.bytes, "unflushed_bytes": state.unflushed_bytes },
        "partitions": partitions,
    })
}

/// Sets the gauges of all partitions here; called before metrics are rendered.
pub(crate) fn record(hub: &NodeHub) {
    for partition in hub.hosting.all() {
        let info = partition.info();
        let label = info.partition.0.to_string();
        let set =
            |name: &'static str, value: f64| metrics::gauge!(name, "partition" => label.clone()).set(value);
        set("fleetline_partition_leads", f64::from(u8::from(info.leader == Some(hub.driver.node()))));
        set("fleetline_partition_term", info.term.0 as f64);
        set("fleetline_partition_start_offset", info.start.0 as f64);
        set("fleetline_partition_end_offset", info.high_watermark.0 as f64);
        set("fleetline_partition_bytes", info.bytes as f64);
        set("fleetline_partition_replication_lag_entries", info.replication_lag as f64);
        set("fleetline_partition_apply_lag_entries", info.apply_lag as f64);
        set("fleetline_partition_damaged_entries", info.damaged as f64);
    }
    if let Some(connections) = hub.connections.get() {
        metrics::gauge!("fleetline_device_connections").set(connections.len() as f64);
    }
    let state = hub.driver.store().stats();
    metrics::gauge!("fleetline_state_bytes").set(state.bytes as f64);
    metrics::gauge!("fleetline_state_unflushed_bytes").set(state.unflushed_bytes as f64);
}
