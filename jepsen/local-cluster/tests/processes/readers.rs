//! Who reads while a test runs: followers of one partition, members of a consumer group, and a looker-on
//! who asks for checkpoints. All record what they learn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetline_checker::Kind;
use fleetline_client::model::ReadFrom;
use fleetline_client::{
    Client, ConsumerOptions, GroupConsumer, GroupEvent, GroupOptions, PartitionId, ReceivedBatch,
    ReceivedRecord,
};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::account::SharedAccount;

/// How often the looks at `stop` come, at least.
const LOOK: Duration = Duration::from_millis(300);
/// The name of the consumer group.
const GROUP: &str = "readers";

/// Bodies that a consumer group has processed: noted before the checkpoint.
pub type Processed = Arc<Mutex<BTreeSet<String>>>;

/// Reads one partition from its first record on, over all faults.
pub async fn follow(
    client: Client,
    partition: PartitionId,
    account: SharedAccount,
    stop: watch::Receiver<bool>,
) {
    let process = {
        let journal = &mut account.lock().unwrap().journal;
        let process = journal.process();
        journal.seek(process, partition, 0);
        process
    };
    let mut consumer = client.consumer(partition, ReadFrom::Earliest, ConsumerOptions::default());
    while !*stop.borrow() {
        // An error doesn't move the position, and neither does giving up waiting.
        if let Ok(Ok(records)) = timeout(LOOK, consumer.next()).await {
            account.lock().unwrap().journal.read(process, partition, &records);
        }
    }
}

/// Asks for the checkpoints of the group again and again.
pub async fn look_on(client: Client, account: SharedAccount, stop: watch::Receiver<bool>) {
    let process = account.lock().unwrap().journal.process();
    while !*stop.borrow() {
        for partition in (0..client.metadata().partitions).map(PartitionId) {
            let invoke = account.lock().unwrap().journal.now();
            if let Ok(found) = client.admin().checkpoint(partition, GROUP).await {
                let journal = &mut account.lock().unwrap().journal;
                journal.learnt(Kind::CheckpointRead, process, invoke, partition, GROUP, &found);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// A member of the group; a new one whenever it can't go on.
pub async fn member(
    client: Client,
    processed: Processed,
    account: SharedAccount,
    stop: watch::Receiver<bool>,
) {
    while !*stop.borrow() {
        let (process, joined) = {
            let journal = &mut account.lock().unwrap().journal;
            (journal.process(), journal.now())
        };
        let options = GroupOptions { session_timeout: Duration::from_secs(3), ..Default::default() };
        let Ok(consumer) = client.group(GROUP, options).await else {
            sleep(Duration::from_millis(200)).await;
            continue;
        };
        let (client, account, processed) = (client.clone(), account.clone(), processed.clone());
        let epochs = BTreeMap::new();
        Member { client, consumer, process, joined, epochs, processed, account }.run(&stop).await;
    }
}

struct Member {
    client: Client,
    consumer: GroupConsumer,
    process: u32,
    /// Before it asked to join: none of its claims is older.
    joined: u64,
    /// By which epoch it owns what.
    epochs: BTreeMap<PartitionId, u64>,
    processed: Processed,
    account: SharedAccount,
}

impl Member {
    async fn run(mut self, stop: &watch::Receiver<bool>) {
        while !*stop.borrow() {
            match timeout(LOOK, self.consumer.next()).await {
                Ok(Ok(GroupEvent::Assigned { partition, next })) => {
                    let next = next.map_or(0, |next| next.0);
                    self.account.lock().unwrap().journal.seek(self.process, partition, next);
                    self.learn_epoch(partition, stop).await;
                }
                Ok(Ok(GroupEvent::Gap { partition, start, .. })) => {
                    self.account.lock().unwrap().journal.seek(self.process, partition, start.0);
                }
                Ok(Ok(GroupEvent::Batch(batch))) => self.process_batch(&batch).await,
                Ok(Ok(GroupEvent::Lost(partition))) => drop(self.epochs.remove(&partition)),
                Ok(Ok(GroupEvent::Revoking(_))) | Err(_) => {}
                Ok(Err(_)) => return,
            }
        }
    }

    /// The client doesn't tell the epoch of a claim, so the partition is asked. When the last claim is
    /// this member's own, it was confirmed, and nobody has stored anything under it: its answer was what
    /// the partition says now. Otherwise another one has it already.
    async fn learn_epoch(&mut self, partition: PartitionId, stop: &watch::Receiver<bool>) {
        self.epochs.remove(&partition);
        while !*stop.borrow() {
            let invoke = self.account.lock().unwrap().journal.now();
            let Ok(found) = self.client.admin().checkpoint(partition, GROUP).await else { continue };
            let journal = &mut self.account.lock().unwrap().journal;
            journal.learnt(Kind::CheckpointRead, self.process, invoke, partition, GROUP, &found);
            if found.member == self.consumer.member() {
                self.epochs.insert(partition, found.epoch);
                journal.learnt(Kind::Claim, self.process, self.joined, partition, GROUP, &found);
            }
            return;
        }
    }

    /// Processes a batch and stores the checkpoint behind it, when it is known by which epoch.
    async fn process_batch(&self, batch: &ReceivedBatch) {
        let (partition, next) = (batch.partition(), batch.next_offset());
        let records: Vec<ReceivedRecord> = batch.records().collect::<Result<_, _>>().unwrap();
        let bodies = records.iter().map(|record| String::from_utf8(record.body.to_vec()).unwrap());
        self.processed.lock().unwrap().extend(bodies);
        let invoke = {
            let journal = &mut self.account.lock().unwrap().journal;
            journal.read(self.process, partition, &records);
            journal.now()
        };
        let Some(&epoch) = self.epochs.get(&partition) else { return };
        // Fenced or without an answer: then the records come again, here or elsewhere.
        let result = self.consumer.checkpoint(partition, next).await;
        let journal = &mut self.account.lock().unwrap().journal;
        journal.checkpointed(self.process, invoke, partition, (GROUP, epoch, next.0), &result);
    }
}
