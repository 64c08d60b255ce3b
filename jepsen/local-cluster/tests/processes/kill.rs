//! Leaders are killed with kill -9 while producers and a consumer group run; every acknowledged record is
//! accounted for, the group has seen every one, and the checker finds nothing wrong with the history.

use std::time::Duration;

use fleetline_client::{Client, PartitionId};
use fleetline_local_cluster::{ClusterOptions, LocalCluster};
use tokio::sync::watch;

use crate::account::{SharedAccount, check, connect, produce};
use crate::readers::{Processed, follow, look_on, member};

/// The place (from 0) of the node that leads `partition`.
async fn leader_of(client: &Client, cluster: &mut LocalCluster, partition: PartitionId) -> usize {
    loop {
        if let Ok(info) = client.admin().partition(partition).await
            && let Some(leader) = info.leader
            && let Ok(metadata) = client.admin().metadata().await
            && let Some(node) = metadata.nodes.iter().find(|node| node.node == leader)
        {
            for place in 0..cluster.len() {
                if cluster.node(place).addresses().client.to_string() == node.client_address {
                    return place;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until at least `more` further records are acknowledged.
async fn progress(account: &SharedAccount, more: usize) {
    let goal = account.lock().unwrap().acknowledged_count() + more;
    while account.lock().unwrap().acknowledged_count() < goal {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// See the head of the file.
#[tokio::test(flavor = "multi_thread")]
async fn killed_leaders_lose_nothing() {
    let mut cluster = LocalCluster::start(&ClusterOptions { nodes: 3, partitions: 4 }).unwrap();
    cluster.write_endpoints().unwrap();
    let client = connect(&cluster.context()).await;
    let account = SharedAccount::default();
    let processed = Processed::default();
    let (stop_producing, producing) = watch::channel(false);
    let (stop_reading, reading) = watch::channel(false);
    let producers: Vec<_> = (0..4)
        .map(|n| {
            let (device, account) = (format!("device-{n}"), account.clone());
            tokio::spawn(produce(client.clone(), device, 20, account, producing.clone()))
        })
        .collect();
    let mut readers: Vec<_> = (0..2)
        .map(|_| tokio::spawn(member(client.clone(), processed.clone(), account.clone(), reading.clone())))
        .collect();
    readers.extend(
        (0..4).map(PartitionId).map(|partition| {
            tokio::spawn(follow(client.clone(), partition, account.clone(), reading.clone()))
        }),
    );
    readers.push(tokio::spawn(look_on(client.clone(), account.clone(), reading)));
    for round in 0..4 {
        progress(&account, 2000).await;
        let place = leader_of(&client, &mut cluster, PartitionId(round % 4)).await;
        cluster.node(place).kill().unwrap();
        progress(&account, 2000).await;
        cluster.node(place).start(&[]).unwrap();
        cluster.node(place).wait_ready().unwrap();
    }
    // All at once: what a power cut of the whole cluster does to processes.
    for place in 0..cluster.len() {
        cluster.node(place).kill().unwrap();
    }
    for place in 0..cluster.len() {
        cluster.node(place).start(&[]).unwrap();
    }
    progress(&account, 2000).await;
    stop_producing.send_replace(true);
    for producer in producers {
        producer.await.unwrap();
    }
    let acknowledged = account.lock().unwrap().acknowledged_bodies();
    while !processed.lock().unwrap().is_superset(&acknowledged) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop_reading.send_replace(true);
    for reader in readers {
        reader.await.unwrap();
    }
    let mut account = std::mem::take(&mut *account.lock().unwrap());
    let (acknowledged, verdicts) = check(&client, &mut account, "kill").await;
    assert!(acknowledged >= 18_000);
    // The group and its checkpoints were judged too.
    assert!(verdicts.checkpoints.is_some());
    assert!(verdicts.ownership.is_some());
}
