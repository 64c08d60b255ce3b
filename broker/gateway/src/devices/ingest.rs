//! The way of telemetry into the stream: one open batch a partition, natural batching.
//!
//! Fronts push records; while the partition has its batches in flight, the next one fills. One task a
//! partition sends them, in order, and acknowledges each connection's records once a quorum has them.
//!
//! Order and repetition: the process is a producer with an id of its own; batches carry sequence
//! numbers, so what is sent again is stored once. When one fails, the task waits for those behind it
//! and sends everything that isn't stored again, in order.
//!
//! Fences (design D6): a batch carries the number of the last fence that this gateway has applied. A
//! batch that is refused for one is formed anew without the records of sessions that are over.
//!
//! Bounds: an open batch of [`IngestOptions::batch_bytes`] and a window of batches a partition; a full
//! one tells the front, which stops reading its socket until there is room.

mod pipeline;
mod refill;

use std::sync::Arc;

use fleetline_batch::{PushError, RecordRef};
use fleetline_types::PartitionId;
use tokio::task::JoinSet;

use super::connections::{Connections, Link};
use super::hub::DeviceHub;
use pipeline::Pipeline;

/// Bounds of the ingest.
#[derive(Clone, Copy, Debug)]
pub struct IngestOptions {
    /// Bytes of a batch; the largest message with its properties must fit.
    pub batch_bytes: usize,
    /// Batches of a partition on their way.
    pub window: usize,
}

impl Default for IngestOptions {
    fn default() -> IngestOptions {
        IngestOptions { batch_bytes: 512 << 10, window: 4 }
    }
}

/// What became of a record that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is on its way; the link's `acked` will reach its number.
    Taken,
    /// There is no room now: wait for [`Ingest::room`], then push again.
    Full,
    /// The session is over.
    Over,
    /// No batch can hold it.
    Refused(PushError),
}

/// All partitions' ways.
pub struct Ingest {
    pipelines: Vec<Arc<Pipeline>>,
}

impl Ingest {
    /// Starts one task a partition; they end with the returned set.
    pub fn start(
        hub: &Arc<dyn DeviceHub>,
        connections: &Arc<Connections>,
        options: IngestOptions,
    ) -> (Arc<Ingest>, JoinSet<()>) {
        let mut tasks = JoinSet::new();
        let pipelines = (0..hub.partitions()).map(|partition| {
            let pipeline = Pipeline::new(PartitionId(partition), hub.clone(), connections.clone(), options);
            tasks.spawn(pipeline.clone().run());
            pipeline
        });
        let ingest = Arc::new(Ingest { pipelines: pipelines.collect() });
        (ingest, tasks)
    }

    fn pipeline(&self, partition: PartitionId) -> &Pipeline {
        &self.pipelines[partition.0 as usize]
    }

    /// Gives a record to the partition's open batch. `number` counts the link's records from 1 on.
    pub fn push(
        &self,
        partition: PartitionId,
        link: &Arc<Link>,
        number: u64,
        record: &RecordRef<'_>,
    ) -> Pushed {
        self.pipeline(partition).push(link, number, record)
    }

    /// Whether the partition's open batch waits to be taken.
    pub fn has_waiting(&self, partition: PartitionId) -> bool {
        self.pipeline(partition).has_waiting()
    }

    /// Waits until the partition's open batch has been taken once.
    pub async fn room(&self, partition: PartitionId) {
        self.pipeline(partition).room().await;
    }

    /// Pushes a record as soon as there is room.
    pub async fn push_when_possible(
        &self,
        partition: PartitionId,
        link: &Arc<Link>,
        number: u64,
        record: &RecordRef<'_>,
    ) -> Pushed {
        let pipeline = self.pipeline(partition);
        loop {
            let room = pipeline.room();
            tokio::pin!(room);
            match pipeline.push(link, number, record) {
                Pushed::Full => room.await,
                pushed => return pushed,
            }
        }
    }
}
