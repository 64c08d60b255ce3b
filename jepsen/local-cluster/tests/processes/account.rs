//! Keeps account of every record: what was sent, what was acknowledged and where, what was read.
//!
//! Checks, by promise: P1 an acknowledged record is at its offset; P2 nothing is read that nobody sent;
//! P3 an offset holds one record; P4 records of one device are in the order of sending, and nothing is
//! missing below an acknowledged one; P5 a record is stored once.
//!
//! Beside the account everything is recorded in a journal, of which the checker judges the same promises
//! by other means, and more (`journal.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetline_checker::Report;
use fleetline_client::model::ReadFrom;
use fleetline_client::{
    Client, ClientOptions, ConsumerOptions, PartitionId, Producer, ProducerOptions, Record, SendError,
    partition_of_key,
};
use tokio::task::JoinSet;

use crate::journal::Journal;

/// What became of records.
#[derive(Default)]
pub struct Account {
    /// Body → where it was acknowledged.
    acknowledged: BTreeMap<String, (PartitionId, u64)>,
    /// Bodies whose outcome is unknown.
    unknown: BTreeSet<String>,
    /// Bodies that were not stored.
    failed: BTreeSet<String>,
    /// The history of the test.
    pub journal: Journal,
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
    let partition = partition_of_key(device.as_bytes(), client.metadata().partitions);
    let session = Arc::new(AtomicU32::new(account.lock().unwrap().journal.process()));
    let mut open = JoinSet::new();
    let mut number = 0u64;
    loop {
        let stopping = *stop.borrow();
        if open.len() >= window || (stopping && !open.is_empty()) {
            open.join_next().await.unwrap().unwrap();
            continue;
        }
        if stopping {
            return;
        }
        let body = format!("{device}/{number:08}");
        number += 1;
        let (process, invoke) = {
            let journal = &mut account.lock().unwrap().journal;
            (session.load(Ordering::Relaxed), journal.now())
        };
        let sent = producer.send(Record::new(&device, &body)).await;
        let (account, device, session) = (account.clone(), device.clone(), session.clone());
        open.spawn(async move {
            let outcome = match sent {
                Ok(receipt) => receipt.await,
                Err(refused) => Err(refused),
            };
            let mut account = account.lock().unwrap();
            let place = outcome.as_ref().map(|at| at.offset.0);
            account.journal.sent(process, invoke, partition, (&device, &body), place);
            match outcome {
                Ok(at) => drop(account.acknowledged.insert(body, (at.partition, at.offset.0))),
                Err(SendError::Unknown(_)) => {
                    // Whoever sends on without knowing begins anew.
                    session.store(account.journal.process(), Ordering::Relaxed);
                    account.unknown.insert(body);
                }
                Err(SendError::Failed(_)) => drop(account.failed.insert(body)),
            }
        });
    }
}

/// All records of a partition, by offset.
async fn read_all(client: &Client, partition: PartitionId, journal: &mut Journal) -> Vec<(u64, String)> {
    let end = loop {
        match client.admin().partition(partition).await {
            Ok(info) if info.leader.is_some() => break info.high_watermark.0,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let mut consumer = client.consumer(partition, ReadFrom::Earliest, ConsumerOptions::default());
    let process = journal.process();
    journal.seek(process, partition, 0);
    let mut records = Vec::new();
    while (records.len() as u64) < end {
        let read = consumer.next().await.unwrap();
        journal.read(process, partition, &read);
        for record in read {
            records.push((record.offset.0, String::from_utf8(record.body.to_vec()).unwrap()));
        }
    }
    journal.read_to_end(process, partition, records.len() as u64);
    records
}

/// Reads everything back, and has it judged by the checker, under the test's `name`, and by the account.
/// Gives how many records were acknowledged, and the verdicts.
pub async fn check(client: &Client, account: &mut Account, name: &str) -> (usize, Report) {
    let mut stored: BTreeMap<(PartitionId, u64), String> = BTreeMap::new();
    for partition in (0..client.metadata().partitions).map(PartitionId) {
        let records = read_all(client, partition, &mut account.journal).await;
        stored.extend(records.into_iter().map(|(offset, body)| ((partition, offset), body)));
    }
    let report = account.journal.judge(name);
    for partition in (0..client.metadata().partitions).map(PartitionId) {
        let offsets = stored.keys().filter(|(of, _)| *of == partition).map(|(_, offset)| *offset);
        assert!(offsets.zip(0..).all(|(offset, place)| offset == place), "P3: {partition} has a hole");
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
    (account.acknowledged.len(), report)
}
