//! A receiver of a partition's events: reads stored batches ahead of the credit, and hands records out.
//!
//! Nothing is decoded but the batch's records, and no body is copied before it goes to the socket.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use fleetline_amqp::{Error, condition};
use fleetline_batch::{BatchReader, RecordView};
use fleetline_devices::endpoints;
use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::hub::{Hub, HubError, ReadFrom, ReadReply, StoredBatch};
use fleetline_types::{Offset, PartitionId};
use futures::future::AbortHandle;
use tokio::time::Instant;

use crate::outgoing::Metric;
use crate::owners::{self, Claim, Held};

/// How long a read waits for a record; then it is asked again, so that one that is lost costs no more.
const READ_WAIT: Duration = Duration::from_secs(20);
/// How long a partition may have no answer before the link is detached, so that the client comes again.
const PATIENCE: Duration = Duration::from_secs(15);

/// A receiver.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) partition: PartitionId,
    /// The next record that the client gets.
    pub(crate) next: u64,
    batches: VecDeque<StoredBatch>,
    current: Option<Current>,
    /// A read is on its way; whether it waits for records that aren't there yet.
    pub(crate) read: Option<(AbortHandle, bool)>,
    /// The look at the owner is on its way.
    pub(crate) watch: Option<AbortHandle>,
    pub(crate) held: Held,
    /// The client wants to know how far the partition goes.
    pub(crate) metrics: bool,
    pub(crate) metric: Metric,
    shows_hub_events: bool,
}

#[derive(Debug)]
struct Current {
    records: BatchReader,
    offset: u64,
    enqueued_ms: u64,
}

/// A record with its place.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) record: RecordView,
    pub(crate) offset: u64,
    pub(crate) enqueued_ms: u64,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.read.iter().map(|(read, _)| read).chain(&self.watch).for_each(AbortHandle::abort);
    }
}

impl Reader {
    pub(crate) fn new(
        partition: PartitionId,
        next: Offset,
        held: Held,
        metrics: bool,
        shows_hub_events: bool,
    ) -> Reader {
        Reader {
            partition,
            next: next.0,
            batches: VecDeque::new(),
            current: None,
            read: None,
            watch: None,
            held,
            metrics,
            metric: Metric::default(),
            shows_hub_events,
        }
    }

    /// Whether there is nothing left of what was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_none() && self.batches.is_empty()
    }

    /// Batches have come.
    pub(crate) fn on_read(&mut self, reply: ReadReply) {
        self.metric.end = reply.high_watermark.0;
        self.batches.extend(reply.batches);
        // What lies before the next batch was removed by retention, or holds no records.
        if self.is_empty() {
            self.next = self.next.max(reply.next.0);
        }
    }

    /// The next record that the client wants.
    ///
    /// # Errors
    /// A batch that can't be read.
    pub(crate) fn next_record(&mut self) -> Result<Option<Next>, Error> {
        let damaged =
            |error: &dyn std::fmt::Display| Error::new(condition::INTERNAL_ERROR, error.to_string());
        loop {
            let Some(current) = self.current.as_mut() else {
                let Some(batch) = self.batches.pop_front() else { return Ok(None) };
                let records = BatchReader::new(batch.batch).map_err(|error| damaged(&error))?;
                let (offset, enqueued_ms) = (batch.base_offset.0, batch.enqueued.0);
                self.current = Some(Current { records, offset, enqueued_ms });
                continue;
            };
            let Some(record) = current.records.next() else {
                self.current = None;
                continue;
            };
            let record = record.map_err(|error| damaged(&error))?;
            let offset = current.offset;
            current.offset += 1;
            if offset < self.next {
                continue;
            }
            self.next = offset + 1;
            let is_hub_event =
                record.endpoints & endpoints::EVENTS != 0 && record.endpoints & endpoints::TELEMETRY == 0;
            if is_hub_event && !self.shows_hub_events {
                continue;
            }
            return Ok(Some(Next { record, offset, enqueued_ms: current.enqueued_ms }));
        }
    }
}

/// What was read, and how far the partition goes if that was asked for.
#[derive(Debug)]
pub(crate) struct ReadDone {
    pub(crate) reply: ReadReply,
    pub(crate) metric: Option<Metric>,
}

/// Waits for a partition that has no answer now, within [`PATIENCE`].
struct Patience {
    until: Instant,
    wait: Duration,
}

impl Patience {
    fn new() -> Patience {
        Patience { until: Instant::now() + PATIENCE, wait: Duration::from_millis(50) }
    }

    /// # Errors
    /// The error, when it is none that passes or it has taken too long.
    async fn with(&mut self, error: HubError) -> Result<(), Error> {
        let passes = error.is_retryable() || matches!(error, HubError::OffsetBeyondEnd { .. });
        if !passes || Instant::now() >= self.until {
            return Err(given_up(&error));
        }
        tracing::debug!(%error, "partition is asked again later");
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(Duration::from_secs(1));
        Ok(())
    }
}

/// What a client hears whose partition has no answer: for what passes, it shall come again.
fn given_up(error: &HubError) -> Error {
    match error.is_retryable() {
        true => Error::new(condition::DETACH_FORCED, format!("the partition has no answer now: {error}")),
        false => crate::errors::of_hub(error),
    }
}

/// Reads on from `next`.
///
/// # Errors
/// What the link is detached with.
pub(crate) async fn read(
    hub: Arc<dyn Hub>,
    devices: Arc<dyn DeviceHub>,
    partition: PartitionId,
    mut next: u64,
    bytes: u64,
    metrics: bool,
    waits: bool,
) -> Result<ReadDone, Error> {
    let wait = if waits { READ_WAIT } else { Duration::ZERO };
    let mut patience = Patience::new();
    let reply = loop {
        match hub.read(partition, Offset(next), bytes, wait).await {
            Ok(reply) => break reply,
            // "An offset older than retention → start at the oldest event."
            Err(HubError::OffsetGone { start, .. }) if start.0 > next => next = start.0,
            // A replica may be behind what its client has read of another one.
            Err(error) => patience.with(error).await?,
        }
    };
    let metric = match metrics {
        true => hub.partition_info(partition).await.ok().map(|info| Metric {
            end: info.high_watermark.0,
            last_enqueued_ms: info.last_enqueued.0,
            read_ms: devices.now_ms(),
        }),
        false => None,
    };
    Ok(ReadDone { reply, metric })
}

/// Takes the place among receivers, and finds where to begin.
///
/// # Errors
/// What the link is refused with.
pub(crate) async fn open(
    hub: Arc<dyn Hub>,
    devices: Arc<dyn DeviceHub>,
    partition: PartitionId,
    from: ReadFrom,
    claim: Arc<Claim>,
) -> Result<Offset, Error> {
    owners::claim(&devices, &claim).await?;
    let mut patience = Patience::new();
    loop {
        let resolved = match from {
            ReadFrom::Offset(offset) => return Ok(offset),
            from => hub.resolve(partition, from).await,
        };
        match resolved {
            Ok(offset) => return Ok(offset),
            Err(HubError::OffsetGone { start, .. }) => return Ok(start),
            Err(error) => patience.with(error).await?,
        }
    }
}
