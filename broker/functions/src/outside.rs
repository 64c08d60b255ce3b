//! Doing effects outside of a commit, at least once each, in order.
//!
//! A partition without a leader is waited for; what the hub refuses for itself (a device that isn't there)
//! is logged, counted and left, as in a commit. The real-time tier is asked a few times only: it promises
//! its best, and a busy one must not hold up a partition.

use std::collections::HashMap;
use std::time::Duration;

use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_devices::EventRow;
use fleetline_gateway::devices::hub::AskError;
use fleetline_gateway::hub::HubError;
use fleetline_types::{PartitionId, ProducerId, TimestampMs};
use fleetline_worker::LogLevel;
use tokio::sync::Mutex;

use crate::core::Core;
use crate::error::is_passing;
use crate::placing::Outside;
use crate::realtime::RealtimeError;
use crate::stats::FunctionStats;

/// Waits between tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How often a busy real-time tier is asked.
const REALTIME_TRIES: u32 = 5;
/// Bytes of a batch of one record: a record's body and properties and what is around them.
const BATCH_BYTES: usize = 1 << 20;

/// Appends to other partitions' streams for one owner of a partition. A batch that is sent again is stored
/// once: within the owner's epoch its sequence is the same.
pub(crate) struct Appender {
    producer: Option<(u64, u32)>,
    next: Mutex<HashMap<PartitionId, u64>>,
}

impl Appender {
    /// Of the owner of a partition; the claim's epoch must fit into 32 bits to be recognised.
    pub(crate) fn of_owner(app: &str, function: &str, partition: PartitionId, epoch: u64) -> Appender {
        let words = format!("{app}/{function}/{}", partition.0);
        // 0 and the highest number mean something else.
        let id = crate::ids::number_of(words.as_bytes()).clamp(1, u64::MAX - 1);
        let producer = u32::try_from(epoch).ok().map(|epoch| (id, epoch));
        Appender { producer, next: Mutex::default() }
    }

    /// Of somebody without an epoch: what is sent again is stored again.
    pub(crate) fn unnumbered() -> Appender {
        Appender { producer: None, next: Mutex::default() }
    }
}

/// Why effects were not all done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutsideError {
    /// Whoever does it has to stop.
    #[error("stopped while the hub did not answer: {0}")]
    Stopped(String),
}

/// Does effects outside of a commit.
pub(crate) struct Doer<'a> {
    pub(crate) core: &'a Core,
    pub(crate) app: &'a str,
    pub(crate) function: &'a str,
    pub(crate) stats: &'a FunctionStats,
    pub(crate) appender: &'a Appender,
    /// Asked between tries.
    pub(crate) must_stop: &'a (dyn Fn() -> bool + Send + Sync),
}

impl Doer<'_> {
    /// Does them, in order.
    pub(crate) async fn all(&self, effects: Vec<Outside>) -> Result<(), OutsideError> {
        for effect in effects {
            match effect {
                Outside::Change(partition, op) => {
                    self.until_done(|| async {
                        match self.core.devices.change(partition, (*op).clone()).await {
                            Ok(_) => Ok(()),
                            Err(AskError::Refused(reply)) => Err(HubError::Invalid(reply.text)),
                            Err(AskError::Hub(error)) => Err(error),
                        }
                    })
                    .await?;
                }
                Outside::Append(partition, row) => self.append(partition, &row).await?,
                Outside::Message { hub, destination, target, arguments } => {
                    self.realtime(|| {
                        self.core.realtime.send(&hub, destination.clone(), &target, arguments.clone())
                    })
                    .await;
                }
                Outside::Group { hub, action } => {
                    self.realtime(|| self.core.realtime.group(&hub, action.clone())).await;
                }
            }
        }
        Ok(())
    }

    async fn append(&self, partition: PartitionId, row: &EventRow) -> Result<(), OutsideError> {
        // Held over the append: batches of a producer go one after the other.
        let mut next = self.appender.next.lock().await;
        let sequence = next.entry(partition).or_default();
        let producer = self.appender.producer.map_or(Producer::default(), |(id, epoch)| Producer {
            id: ProducerId(id),
            epoch,
            first_sequence: *sequence,
        });
        let Some(batch) = batch_of(row, producer) else {
            self.refused("a record that fits into no batch");
            return Ok(());
        };
        let stored = self
            .until_done(|| async { self.core.hub.append(partition, batch.clone()).await.map(drop) })
            .await?;
        if stored {
            *sequence += 1;
        }
        Ok(())
    }

    /// Whether it was done; `false` when it was refused.
    async fn until_done<F, Fut>(&self, mut ask: F) -> Result<bool, OutsideError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), HubError>>,
    {
        let mut pause = PAUSES.0;
        loop {
            match ask().await {
                Ok(()) => return Ok(true),
                Err(error) if is_passing(&error) => {
                    if (self.must_stop)() {
                        return Err(OutsideError::Stopped(error.to_string()));
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
                Err(error) => {
                    self.refused(&error.to_string());
                    return Ok(false);
                }
            }
        }
    }

    async fn realtime<F, Fut>(&self, mut ask: F)
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<(), RealtimeError>>,
    {
        let mut pause = PAUSES.0;
        for attempt in 1..=REALTIME_TRIES {
            match ask().await {
                Ok(()) => return,
                Err(RealtimeError::Busy(_)) if attempt < REALTIME_TRIES && !(self.must_stop)() => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
                Err(error) => return self.refused(&error.to_string()),
            }
        }
    }

    fn refused(&self, reason: &str) {
        self.stats.effects_refused(1);
        self.core.say(self.app, self.function, LogLevel::Warning, format!("an effect was refused: {reason}"));
    }
}

fn batch_of(row: &EventRow, producer: Producer) -> Option<bytes::Bytes> {
    let system: Vec<(u8, &[u8])> = row
        .system
        .iter()
        .filter_map(|property| Some((u8::try_from(property.id).ok()?, property.value.as_bytes())))
        .collect();
    let properties: Vec<(&[u8], &[u8])> =
        row.properties.iter().map(|property| (property.name.as_bytes(), property.value.as_bytes())).collect();
    let mut builder = BatchBuilder::new(BATCH_BYTES);
    let record = RecordRef {
        device: row.device.as_bytes(),
        time: TimestampMs(row.time_ms),
        endpoints: row.endpoints,
        system: &system,
        properties: &properties,
        body: &row.body,
    };
    builder.push(&record).ok()?;
    builder.finish(producer, Compression::None)
}
