//! Leaders are killed with kill -9 while producers and a consumer group run; every acknowledged record is
//! accounted for, and the group has seen every one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetline_client::{Client, GroupEvent, GroupOptions, PartitionId};
use fleetline_local_cluster::{ClusterOptions, LocalCluster};
use tokio::sync::watch;

use crate::account::{SharedAccount, check, connect, produce};

/// Bodies that a consumer group has processed: noted before the checkpoint.
type Processed = Arc<Mutex<BTreeSet<String>>>;

async fn member(client: Client, processed: Processed, stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let options = GroupOptions { session_timeout: Duration::from_secs(3), ..Default::default() };
        let Ok(mut member) = client.group("readers", options).await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        while !*stop.borrow() {
            let event = tokio::time::timeout(Duration::from_millis(300), member.next()).await;
            match event {
                Ok(Ok(GroupEvent::Batch(batch))) => {
                    for record in batch.records() {
                        let body = String::from_utf8(record.unwrap().body.to_vec()).unwrap();
                        processed.lock().unwrap().insert(body);
                    }
                    // Fenced or without an answer: then the records come again, here or elsewhere.
                    drop(member.checkpoint(batch.partition(), batch.next_offset()).await);
                }
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(_)) => break,
            }
        }
    }
}

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
    let members: Vec<_> =
        (0..2).map(|_| tokio::spawn(member(client.clone(), processed.clone(), reading.clone()))).collect();
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
    for member in members {
        member.await.unwrap();
    }
    let account = std::mem::take(&mut *account.lock().unwrap());
    assert!(check(&client, &account).await >= 18_000);
}
