//! Senders to the stream, as Event Hubs producers: single messages and batches, with a partition key,
//! to a partition, or to whichever.
//!
//! What comes while an append is on its way is appended together next. A delivery is one partition's,
//! and its messages lie one behind the other.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use fleetline_amqp::message::{FORMAT_BATCH, Message, batch_messages};
use fleetline_amqp::{Error, Outcome, Receipt, condition};
use fleetline_batch::limits::PROPERTY_BYTES_MAX;
use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_devices::endpoints;
use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_types::{PartitionId, TimestampMs, partition_of_key};

use crate::errors;
use crate::incoming::{Incoming, MessageError};
use crate::service::invalid;

/// Bytes of a message or a batch of a sender, as attach tells it.
pub(crate) const EVENT_BYTES_MAX: u64 = 1 << 20;
/// Bytes of an append.
const APPEND_BYTES: usize = 2 << 20;
/// Bytes of a partition key.
const KEY_BYTES_MAX: usize = 128;

/// A delivery that waits.
#[derive(Debug)]
struct Waiting {
    receipt: Receipt,
    partition: PartitionId,
    format: u32,
    payload: Vec<u8>,
}

/// A sender's link.
#[derive(Debug)]
pub(crate) struct EventSender {
    partition: Option<PartitionId>,
    partitions: u32,
    /// Where the next delivery without a key goes.
    turn: u32,
    queue: VecDeque<Waiting>,
    pub(crate) sending: bool,
}

/// An append, and the deliveries in it.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) partition: PartitionId,
    pub(crate) batch: Bytes,
    pub(crate) receipts: Vec<Receipt>,
}

impl EventSender {
    pub(crate) fn new(partition: Option<PartitionId>, partitions: u32, turn: u32) -> EventSender {
        EventSender { partition, partitions, turn, queue: VecDeque::new(), sending: false }
    }

    /// Takes a delivery.
    ///
    /// # Errors
    /// What it is rejected with.
    pub(crate) fn take(&mut self, receipt: Receipt, format: u32, payload: &[u8]) -> Result<(), Error> {
        let key = check(format, payload)?;
        let partition = match (self.partition, key) {
            (Some(_), Some(_)) => {
                let text = "a partition key can't be combined with a partition";
                return Err(Error::new(condition::NOT_ALLOWED, text));
            }
            (Some(partition), None) => partition,
            (None, Some(key)) => partition_of_key(key.as_bytes(), self.partitions),
            (None, None) => {
                self.turn = self.turn.wrapping_add(1);
                PartitionId(self.turn % self.partitions.max(1))
            }
        };
        self.queue.push_back(Waiting { receipt, partition, format, payload: payload.to_vec() });
        Ok(())
    }

    /// The next append, when none is on its way: the first delivery's partition, and all behind it that
    /// go there too, as long as they fit.
    pub(crate) fn next(&mut self, now: TimestampMs) -> Option<Result<Append, (Receipt, Error)>> {
        if self.sending {
            return None;
        }
        let first = self.queue.pop_front()?;
        let partition = first.partition;
        let mut builder = BatchBuilder::new(APPEND_BYTES);
        if let Err(error) = push(&mut builder, &first, now) {
            return Some(Err((first.receipt, error)));
        }
        let mut taken = vec![first];
        while self.queue.front().is_some_and(|next| {
            next.partition == partition && builder.len() + 2 * next.payload.len() + 4096 < APPEND_BYTES
        }) {
            let Some(next) = self.queue.pop_front() else { break };
            let pushed = push(&mut builder, &next, now);
            taken.push(next);
            if pushed.is_err() {
                // A part of it may be in the batch: the first goes alone, the others come again.
                builder = BatchBuilder::new(APPEND_BYTES);
                taken.drain(1..).rev().for_each(|waiting| self.queue.push_front(waiting));
                drop(push(&mut builder, &taken[0], now));
                break;
            }
        }
        let batch = builder.finish(Producer::default(), Compression::None)?;
        self.sending = true;
        let receipts = taken.iter().map(|waiting| waiting.receipt).collect();
        Some(Ok(Append { partition, batch, receipts }))
    }
}

/// The messages of a delivery.
fn each(
    format: u32,
    payload: &[u8],
    mut with: impl FnMut(&Incoming<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let parse = |bytes| Message::parse(bytes).map_err(|error| invalid(&MessageError::from(error)));
    let message = parse(payload)?;
    if format != FORMAT_BATCH {
        return with(&Incoming::of(&message).map_err(|error| invalid(&error))?);
    }
    let key = message.message_annotations.get("x-opt-partition-key").and_then(|key| key.as_text());
    let messages = batch_messages(&message).map_err(|error| invalid(&MessageError::from(error)))?;
    for bytes in messages {
        let inner = parse(bytes)?;
        let mut incoming = Incoming::of(&inner).map_err(|error| invalid(&error))?;
        incoming.partition_key = incoming.partition_key.or(key);
        with(&incoming)?;
    }
    Ok(())
}

/// Checks a delivery; its partition key.
fn check(format: u32, payload: &[u8]) -> Result<Option<String>, Error> {
    let mut key: Option<Option<String>> = None;
    each(format, payload, |incoming| {
        let found = incoming.partition_key.map(str::to_owned);
        if found.as_ref().is_some_and(|key| key.len() > KEY_BYTES_MAX) {
            let text = format!("a partition key has at most {KEY_BYTES_MAX} bytes");
            return Err(Error::new(condition::ARGUMENT_OUT_OF_RANGE, text));
        }
        let texts = incoming.system.iter().map(|(_, value)| value.len());
        let pairs = incoming.properties.iter().map(|(name, value)| name.len().max(value.len()));
        if texts.chain(pairs).any(|len| len > PROPERTY_BYTES_MAX) {
            let text = format!("a property has at most {PROPERTY_BYTES_MAX} bytes");
            return Err(Error::new(condition::ARGUMENT_OUT_OF_RANGE, text));
        }
        match &key {
            None => key = Some(found),
            Some(known) if *known == found => {}
            Some(_) => {
                let text = "messages of a batch have different partition keys";
                return Err(Error::new(condition::ARGUMENT_ERROR, text));
            }
        }
        Ok(())
    })?;
    key.ok_or_else(|| Error::new(condition::ARGUMENT_ERROR, "a batch without messages"))
}

fn push(builder: &mut BatchBuilder, waiting: &Waiting, now: TimestampMs) -> Result<(), Error> {
    each(waiting.format, &waiting.payload, |incoming| {
        let system: Vec<(u8, &[u8])> =
            incoming.system.iter().map(|(id, value)| (id.number(), value.as_bytes())).collect();
        let pairs = incoming.properties.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let properties: Vec<(&[u8], &[u8])> = pairs.collect();
        let record = RecordRef {
            device: incoming.partition_key.unwrap_or_default().as_bytes(),
            time: now,
            endpoints: endpoints::TELEMETRY,
            system: &system,
            properties: &properties,
            body: &incoming.body,
        };
        builder.push(&record).map_err(|error| Error::new(condition::MESSAGE_SIZE_EXCEEDED, error.to_string()))
    })
}

/// Appends; the outcome of all deliveries in it.
pub(crate) async fn append(hub: Arc<dyn DeviceHub>, partition: PartitionId, batch: Bytes) -> Outcome {
    match hub.append(partition, batch).await {
        Ok(_) => Outcome::Accepted,
        Err(error) => Outcome::Rejected(errors::of_hub(&error)),
    }
}
