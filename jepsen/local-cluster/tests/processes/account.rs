//! Keeps account of every record: what was sent, what was acknowledged and where, what was read.
//!
//! Checks, by promise: P1 an acknowledged record is at its offset; P2 nothing is read that nobody sent;
//! P3 an offset holds one record; P4 records of one device are in the order of sending, and nothing is
//! missing below an acknowledged one; P5 a record is stored once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetline_client::model::ReadFrom;
use fleetline_client::{
    Client, ClientOptions, ConsumerOptions, PartitionId, Producer, ProducerOptions, Record, SendError,
};

/// What became of records.
#[derive(Default)]
pub struct Account {
    /// Body → where it was acknowledged.
    acknowledged: BTreeMap<String, (PartitionId, u64)>,
    /// Bodies whose outcome is unknown.
    unknown: BTreeSet<String>,
    /// Bodies that were not stored.
    failed: BTreeSet<String>,
}

impl Account {
    /// How many records are acknowledged.
    pub fn acknowledged_count(&self) -> usize {
        self.acknowledged.len()
    }

    /// Their bodies.
    pub fn acknowledged_bodies(&self) -> BTreeSet<String> {
        self.acknowledged.keys().cloned().collect()
    }
}

/// Shared by all producers of a test.
pub type SharedAccount = Arc<Mutex<Account>>;

/// Connects with the context of a cluster.
pub async fn connect(context: &std::path::Path) -> Client {
    let options = ClientOptions::from_context(context).unwrap();
    loop {
        match Client::connect(options.clone()).await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Sends records of one device until `stop`, at most `window` without an answer, and keeps account.
pub async fn produce(
    client: Client,
    device: String,
    window: usize,
    account: SharedAccount,
    stop: tokio::sync::watch::Receiver<bool>,
) {
    let options = ProducerOptions { delivery_timeout: Duration::from_secs(60), ..Default::default() };
    let producer: Producer = client.producer(options).unwrap();
    let mut open = std::collections::VecDeque::new();
    let mut number = 0u64;
    loop {
        let stopping = *stop.borrow();
        if open.len() >= window || (stopping && !open.is_empty()) {
            let (body, receipt): (String, fleetline_client::SendReceipt) = open.pop_front().unwrap();
            let outcome = receipt.await;
            let mut account = account.lock().unwrap();
            match outcome {
                Ok(at) => drop(account.acknowledged.insert(body, (at.partition, at.offset.0))),
                Err(SendError::Unknown(_)) => drop(account.unknown.insert(body)),
                Err(SendError::Failed(_)) => drop(account.failed.insert(body)),
            }
            continue;
        }
        if stopping {
            return;
        }
        let body = format!("{device}/{number:08}");
        number += 1;
        match producer.send(Record::new(&device, &body)).await {
            Ok(receipt) => open.push_back((body, receipt)),
            Err(_) => drop(account.lock().unwrap().failed.insert(body)),
        }
    }
}

/// All records of a partition, by offset.
async fn read_all(client: &Client, partition: PartitionId) -> Vec<(u64, String)> {
    let end = loop {
        match client.admin().partition(partition).await {
            Ok(info) if info.leader.is_some() => break info.high_watermark.0,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let mut consumer = client.consumer(partition, ReadFrom::Earliest, ConsumerOptions::default());
    let mut records = Vec::new();
    while (records.len() as u64) < end {
        for record in consumer.next().await.unwrap() {
            records.push((record.offset.0, String::from_utf8(record.body.to_vec()).unwrap()));
        }
    }
    records
}

/// Reads everything back and checks the account. Gives how many records were acknowledged.
pub async fn check(client: &Client, account: &Account) -> usize {
    let mut stored: BTreeMap<(PartitionId, u64), String> = BTreeMap::new();
    for partition in (0..client.metadata().partitions).map(PartitionId) {
        for (place, (offset, body)) in read_all(client, partition).await.into_iter().enumerate() {
            assert_eq!(place as u64, offset, "P3: offsets of {partition} have a hole");
            stored.insert((partition, offset), body);
        }
    }
    for (body, (partition, offset)) in &account.acknowledged {
        let found = stored.get(&(*partition, *offset));
        assert_eq!(found, Some(body), "P1: acknowledged record is not at {partition}/{offset}");
    }
    let mut seen = BTreeSet::new();
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for body in stored.values() {
        let known = account.acknowledged.contains_key(body) || account.unknown.contains(body);
        assert!(known, "P2: {body} is stored, but was not sent or has failed");
        assert!(seen.insert(body), "P5: {body} is stored twice");
        let device = body.split('/').next().unwrap();
        let before = last.insert(device, body);
        assert!(before.is_none_or(|before| before < body.as_str()), "P4: {body} stands behind {before:?}");
    }
    let lost = account.acknowledged.len() + account.unknown.len() - seen.len();
    assert!(lost <= account.unknown.len());
    eprintln!(
        "{} acknowledged, {} unknown, {} failed, {} stored",
        account.acknowledged.len(),
        account.unknown.len(),
        account.failed.len(),
        stored.len()
    );
    account.acknowledged.len()
}
