//! What operators do, under load and with the real command line: drain, remove, transfer, replace, stop.

use std::time::Duration;

use fleetline_client::PartitionId;
use fleetline_local_cluster::{ClusterOptions, LocalCluster, http_get};
use tokio::sync::watch;

use crate::account::{SharedAccount, check, connect, produce};
use crate::readers::follow;

/// A node is added, one is drained and removed, one is lost and replaced, leadership is moved, a node is
/// stopped in good order: producers go on all the while and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn membership_changes_under_load() {
    let mut cluster = LocalCluster::start(&ClusterOptions { nodes: 3, partitions: 4 }).unwrap();
    let client = connect(&cluster.context()).await;
    let account = SharedAccount::default();
    let (stop, stopped) = watch::channel(false);
    let producing =
        tokio::spawn(produce(client.clone(), "device".to_owned(), 100, account.clone(), stopped.clone()));
    let followers: Vec<_> = (0..4)
        .map(PartitionId)
        .map(|partition| tokio::spawn(follow(client.clone(), partition, account.clone(), stopped.clone())))
        .collect();

    cluster.fleetline(&["cluster", "transfer-leader", "0", "3"]).unwrap();
    wait(&mut cluster, |status| status["partitions"][0]["leader"] == 3);

    let added = cluster.add_node().unwrap();
    cluster.fleetline(&["cluster", "drain", "2"]).unwrap();
    wait(&mut cluster, |status| voters_without(status, 2));
    assert!(cluster.fleetline(&["cluster", "remove", "3"]).is_err(), "a node with replicas isn't removed");
    cluster.fleetline(&["cluster", "remove", "2"]).unwrap();
    wait(&mut cluster, |status| node(status, 2).is_null());

    // Node 3 is lost for good; a new one takes its place.
    let lost = cluster.place_of(3).unwrap();
    cluster.node(lost).kill().unwrap();
    cluster.forget(lost);
    cluster.add_node().unwrap();
    cluster.fleetline(&["cluster", "replace", "3", "5"]).unwrap();
    wait(&mut cluster, |status| voters_without(status, 3) && all_replicated(status, 3));

    let place = added.min(cluster.len() - 1);
    cluster.node(place).stop().unwrap();
    cluster.node(place).start(&[]).unwrap();
    cluster.node(place).wait_ready().unwrap();
    let ops = cluster.node(place).addresses().ops;
    let (code, metrics) = http_get(ops, "/metrics").unwrap();
    assert!(code == 200 && metrics.contains("fleetline_partition_end_offset"), "{metrics}");

    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.send_replace(true);
    producing.await.unwrap();
    for follower in followers {
        follower.await.unwrap();
    }
    let mut account = std::mem::take(&mut *account.lock().unwrap());
    assert!(check(&client, &mut account, "operations").await.0 > 0);
}

fn wait(cluster: &mut LocalCluster, check: impl Fn(&serde_json::Value) -> bool) {
    tokio::task::block_in_place(|| cluster.wait_status(check)).unwrap();
}

fn node(status: &serde_json::Value, id: u64) -> serde_json::Value {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.into_iter().find(|node| node["node"] == id).unwrap_or_default()
}

fn partitions(status: &serde_json::Value) -> Vec<serde_json::Value> {
    status["partitions"].as_array().cloned().unwrap_or_default()
}

fn voters_without(status: &serde_json::Value, id: u64) -> bool {
    let partitions = partitions(status);
    let votes = |p: &serde_json::Value| p["voters"].as_array().is_some_and(|v| v.iter().any(|n| *n == id));
    !partitions.is_empty() && !partitions.iter().any(votes)
}

fn all_replicated(status: &serde_json::Value, count: usize) -> bool {
    partitions(status).iter().all(|p| {
        p["voters"].as_array().is_some_and(|v| v.len() == count)
            && p["learners"].as_array().is_some_and(Vec::is_empty)
            && !p["leader"].is_null()
    })
}
