//! Consumer groups: how far each has read in each partition, and who its members are.

use std::collections::{BTreeMap, BTreeSet};

use fleetline_gateway::hub::{CheckpointInfo, GroupDescription};
use fleetline_types::PartitionId;
use serde_json::{Value, json};

use super::status::each;
use crate::console::Console;
use crate::limits::{COUNTS_WAIT, GROUPS_MAX};

/// Checkpoints that one answer asks for: each costs its leader a read barrier.
const CHECKPOINTS_MAX: usize = 512;

/// All groups with a checkpoint, bounded; what can't be asked now is left out.
pub(crate) async fn get(console: &Console) -> Value {
    let partitions: Vec<PartitionId> = (0..console.devices.partitions()).map(PartitionId).collect();
    let names = each(partitions.clone(), COUNTS_WAIT, |id| async move { console.hub.group_list(id).await });
    let names: BTreeSet<String> = names.await.into_iter().flatten().flatten().collect();
    let more = names.len() > GROUPS_MAX;
    let names: Vec<String> = names.into_iter().take(GROUPS_MAX).collect();
    let (checkpoints, members) =
        futures::join!(checkpoints(console, &names, &partitions), descriptions(console, &names));
    let groups = names.iter().map(|name| {
        let of_group = checkpoints.iter().filter(|(found, _, _)| found == name);
        let rows: Vec<Value> = of_group.clone().map(|(_, partition, info)| row(*partition, info)).collect();
        let lag: u64 = of_group.map(|(_, _, info)| lag(info)).sum();
        json!({ "group": name, "lag": lag, "partitions": rows, "state": members.get(name).map(description) })
    });
    json!({ "groups": groups.collect::<Vec<_>>(), "more": more })
}

type Checkpoint = (String, PartitionId, CheckpointInfo);

async fn checkpoints(console: &Console, names: &[String], partitions: &[PartitionId]) -> Vec<Checkpoint> {
    let pairs = names.iter().flat_map(|name| partitions.iter().map(move |id| (name.clone(), *id)));
    let found = each(pairs.take(CHECKPOINTS_MAX).collect(), COUNTS_WAIT, |(name, id)| async move {
        let info = console.hub.checkpoint_read(id, &name).await.ok()?;
        // A group that never claimed the partition has nothing to say of it.
        (info.epoch > 0 || info.next.is_some()).then_some((name, id, info))
    });
    let mut found: Vec<Checkpoint> = found.await.into_iter().flatten().collect();
    found.sort_unstable_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    found
}

async fn descriptions(console: &Console, names: &[String]) -> BTreeMap<String, GroupDescription> {
    let found = each(names.to_vec(), COUNTS_WAIT, |name| async move {
        let description = console.hub.group_describe(&name).await.ok()?;
        Some((name, description))
    });
    found.await.into_iter().flatten().collect()
}

fn lag(info: &CheckpointInfo) -> u64 {
    info.high_watermark.0.saturating_sub(info.next.map_or(0, |next| next.0))
}

fn row(partition: PartitionId, info: &CheckpointInfo) -> Value {
    json!({
        "partition": partition.0,
        "next": info.next.map(|next| next.0),
        "end": info.high_watermark.0,
        "lag": lag(info),
        "epoch": info.epoch,
    })
}

fn description(group: &GroupDescription) -> Value {
    let members = group.members.iter().map(|(_, name, owned)| {
        json!({ "name": name, "partitions": owned.iter().map(|id| id.0).collect::<Vec<_>>() })
    });
    json!({ "generation": group.generation, "members": members.collect::<Vec<_>>() })
}
