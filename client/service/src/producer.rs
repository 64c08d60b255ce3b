//! Sending records: batched by themselves, pipelined, stored once and in order per partition.
//!
//! No timer and no linger: while a partition has a free slot, whatever waits goes at once; while all
//! its slots are taken, records gather into the next batch. So a lone record is fast and a flood is
//! in large batches.
//!
//! [`Producer`] is the only way in; `queue` holds what waits (bounded), `pipeline` is one task per
//! partition that was sent to, `outcome` is what receipts wait on, `batching` the only place that
//! knows the batch format.

mod outcome;
mod pipeline;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_types::{PartitionId, ProducerId, partition_of_key};

use crate::batching;
pub use crate::batching::Compression;
use crate::cluster::Cluster;
use crate::error::{ClientError, SendError};
use crate::options::OptionsError;
use crate::record::Record;
pub use outcome::{BatchReceipt, Position, Positions, SendReceipt};
use pipeline::Pipeline;
use queue::Queue;

/// Batches of one producer that a partition can tell apart; more in flight could be stored twice.
const BATCHES_IN_FLIGHT_MAX: usize = 8;

/// How a producer behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerOptions {
    /// Bytes of a batch at which it closes. Default 64 KiB. Larger batches cost less per byte and
    /// take longer; a node takes 1 MiB by default.
    pub batch_bytes: usize,
    /// Batches of one partition in flight, 1 to 8. Default 4.
    pub batches_in_flight: usize,
    /// Bytes of records that may wait or be in flight, over all partitions. Default 64 MiB. Each
    /// partition has an equal share, at least two batches, so that one without a leader does not
    /// stop the others.
    pub buffer_bytes: usize,
    /// How long a record may take from being accepted to its outcome. Default 30 s.
    pub delivery_timeout: Duration,
    /// How batches are compressed. Default: not.
    pub compression: Compression,
}

impl Default for ProducerOptions {
    fn default() -> ProducerOptions {
        ProducerOptions {
            batch_bytes: 64 * 1024,
            batches_in_flight: 4,
            buffer_bytes: 64 * 1024 * 1024,
            delivery_timeout: Duration::from_secs(30),
            compression: Compression::None,
        }
    }
}

impl ProducerOptions {
    fn check(&self) -> Result<(), OptionsError> {
        let invalid = |text: String| Err(OptionsError::Invalid(text));
        if !(1..=BATCHES_IN_FLIGHT_MAX).contains(&self.batches_in_flight) {
            return invalid(format!("batches_in_flight {} is not in 1 to 8", self.batches_in_flight));
        }
        if !(1024..=batching::BATCH_BYTES_MAX).contains(&self.batch_bytes) {
            let max = batching::BATCH_BYTES_MAX;
            return invalid(format!("batch_bytes {} is not in 1024 to {max}", self.batch_bytes));
        }
        Ok(())
    }
}

/// Sends records. Cheap to clone; clones share everything.
///
/// When the last clone is dropped, what was accepted is still sent, as long as the runtime lives.
/// Call [`Producer::flush`] before it ends.
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Arc<Cluster>,
    options: Arc<ProducerOptions>,
    producer: ProducerId,
    /// One per partition, by number.
    queues: Vec<Arc<Queue>>,
    /// Room of each queue, in bytes.
    room: usize,
}

impl Producer {
    pub(crate) fn new(cluster: Arc<Cluster>, options: ProducerOptions) -> Result<Producer, ClientError> {
        options.check()?;
        let partitions = cluster.partitions().max(1);
        let room =
            (options.buffer_bytes / partitions as usize).max(2 * options.batch_bytes).min(u32::MAX as usize);
        let options = Arc::new(options);
        let queue = |p| Queue::new(PartitionId(p), room, options.batch_bytes, options.clone());
        let queues = (0..partitions).map(|p| Arc::new(queue(p))).collect();
        // Zero stands for "not idempotent".
        let producer = ProducerId(rand::random::<u64>().max(1));
        Ok(Producer { inner: Arc::new(Inner { cluster, options, producer, queues, room }) })
    }

    /// The id by which partitions recognise this producer's batches.
    pub fn id(&self) -> ProducerId {
        self.inner.producer
    }

    /// The partition that a device's records go to.
    pub fn partition_of(&self, device: &str) -> PartitionId {
        partition_of_key(device.as_bytes(), self.inner.queues.len() as u32)
    }

    /// Waits for room, and accepts a record. The receipt tells where it was stored.
    ///
    /// Records of one device that are sent one after the other are stored in that order.
    ///
    /// Cancel-safe: when dropped, the record was not accepted.
    ///
    /// # Errors
    /// [`SendError::Failed`] when the record can't be sent at all (too large, malformed).
    pub async fn send(&self, record: Record<'_>) -> Result<SendReceipt, SendError> {
        let queue = self.queue(self.partition_of(record.device))?;
        let room = batching::room_of(&record);
        self.take_room(queue, room).await?;
        queue.push(&record, room)
    }

    /// Sends a record and waits until it is stored.
    ///
    /// When dropped, the record may be stored or not.
    ///
    /// # Errors
    /// [`SendError`] says whether it may be stored.
    pub async fn send_wait(&self, record: Record<'_>) -> Result<Position, SendError> {
        self.send(record).await?.await
    }

    /// Accepts many records, with one receipt for each run of records that share a batch: what to
    /// use when millions a second matter.
    ///
    /// When dropped, the records so far were accepted and their receipts are gone.
    ///
    /// # Errors
    /// [`SendError::Failed`] at the first record that can't be sent; those before it were accepted.
    pub async fn send_many<'r>(
        &self,
        records: impl IntoIterator<Item = Record<'r>>,
    ) -> Result<Vec<BatchReceipt>, SendError> {
        let mut receipts: Vec<BatchReceipt> = Vec::new();
        // Per partition, one behind the place of its last receipt.
        let mut last = vec![0usize; self.inner.queues.len()];
        for record in records {
            let SendReceipt { outcome, partition, index, .. } = self.send(record).await?;
            let at = &mut last[partition.0 as usize];
            match at.checked_sub(1).map(|at| &mut receipts[at]) {
                Some(run) if Arc::ptr_eq(&run.outcome, &outcome) && run.index + run.count == index => {
                    run.count += 1;
                }
                _ => {
                    receipts.push(BatchReceipt { outcome, partition, index, count: 1, slot: None });
                    *at = receipts.len();
                }
            }
        }
        Ok(receipts)
    }

    /// Accepts a batch that the caller has built. Its producer, epoch and sequence are replaced by
    /// this producer's, so it is stored once like any other.
    ///
    /// Cancel-safe: when dropped, the batch was not accepted.
    ///
    /// # Errors
    /// [`SendError::Failed`] when it is no batch, too large, or the partition does not exist.
    pub async fn send_batch(&self, partition: PartitionId, batch: Bytes) -> Result<BatchReceipt, SendError> {
        let queue = self.queue(partition)?;
        let count = batching::count_of(&batch).map_err(SendError::Failed)?;
        let room = batch.len();
        self.take_room(queue, room).await?;
        Ok(queue.push_built(batch, count, room))
    }

    /// Waits until everything that was accepted before has its outcome.
    ///
    /// Cancel-safe: dropping it changes nothing.
    pub async fn flush(&self) {
        for queue in &self.inner.queues {
            queue.flush().await;
        }
    }

    /// The queue of a partition, with its pipeline running.
    fn queue(&self, partition: PartitionId) -> Result<&Arc<Queue>, SendError> {
        let inner = &self.inner;
        let queue = inner
            .queues
            .get(partition.0 as usize)
            .ok_or_else(|| SendError::Failed(format!("{partition} does not exist")))?;
        if queue.start() {
            let (cluster, options) = (inner.cluster.clone(), inner.options.clone());
            tokio::spawn(Pipeline::new(cluster, queue.clone(), options, inner.producer).run());
        }
        Ok(queue)
    }

    /// Waits until `room` bytes are free, and takes them.
    async fn take_room(&self, queue: &Queue, room: usize) -> Result<(), SendError> {
        if room > self.inner.room {
            let max = self.inner.room;
            return Err(SendError::Failed(format!("{room} bytes do not fit the buffer of {max} bytes")));
        }
        let permit = queue.room.acquire_many(room as u32).await;
        permit.expect("the semaphore is never closed").forget();
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for queue in &self.queues {
            queue.close();
        }
    }
}
