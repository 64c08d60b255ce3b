//! File notifications: what the hub has told of uploads that ended well, for services.
//!
//! The hub has no queue of them: each is an event of the stream, in the partition of its device. A
//! receiver scans the stream from where the hub's services have come to, a document of each partition,
//! `amqp/files`; only batches of the hub's own events are looked into. What is completed moves the
//! document on, up to the first notification that isn't.
//!
//! Each notification comes at least once. Unlike at the public hub, receivers that are attached at the
//! same time each get all of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use fleetline_amqp::{PeerOutcome, SentId};
use fleetline_batch::BatchReader;
use fleetline_devices::{AskDocuments, Condition, OUTBOX_PRODUCER, Op, PutDocument, Request};
use fleetline_gateway::devices::hub::{AskError, DeviceHub, answered};
use fleetline_gateway::hub::{Hub, HubError, ReadFrom, StoredBatch};
use fleetline_iothub::bag::SystemProperty;
use fleetline_types::{Offset, PartitionId, ProducerId, TimestampMs};
use futures::future::AbortHandle;
use serde::{Deserialize, Serialize};

use crate::service::service_message;

/// Receiving them, as policies name it.
pub(crate) const FILES: &str = "fileUpload/notifications/action";
/// The media type that SDKs look for.
const MEDIA_TYPE: &str = "application/vnd.microsoft.iothub.filenotification.json";
/// The source of the events.
const SOURCE: &[u8] = b"fileNotifications";
/// The document of each partition.
const DOCUMENT: &str = "amqp/files";
/// What is older when nobody has ever received isn't told any more, as the public hub's time to live.
const OLDEST_MS: u64 = 3_600_000;
/// How often a notification is given back before it is given up.
const DELIVERIES_MAX: u32 = 10;
/// How often a move of the document is tried when others move it, too.
const ATTEMPTS: usize = 4;

/// A notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) partition: PartitionId,
    offset: u64,
    deliveries: u32,
    pub(crate) tag: [u8; 16],
    pub(crate) message: Vec<u8>,
}

/// A service's link for notifications.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Where to scan on, by partition; none before the first look.
    pub(crate) next: Vec<Option<u64>>,
    ready: VecDeque<Note>,
    /// A scan is on its way; whether it waits until there is something.
    pub(crate) fetching: Option<(AbortHandle, bool)>,
    open: BTreeMap<SentId, Note>,
}

impl Drop for Files {
    fn drop(&mut self) {
        self.fetching.iter().for_each(|(fetching, _)| fetching.abort());
    }
}

impl Files {
    pub(crate) fn ready(&self) -> Option<&Note> {
        self.ready.front()
    }

    /// The first one was sent.
    pub(crate) fn sent(&mut self, id: SentId) {
        if let Some(note) = self.ready.pop_front() {
            self.open.insert(id, note);
        }
    }

    /// A scan has ended.
    pub(crate) fn on_scanned(&mut self, scanned: Scanned) {
        self.fetching = None;
        self.next = scanned.next;
        self.ready.extend(scanned.note);
    }

    /// The client's word; how far the partition's document may move, if it may.
    pub(crate) fn on_outcome(&mut self, id: SentId, outcome: &PeerOutcome) -> Option<(PartitionId, u64)> {
        let mut note = self.open.remove(&id)?;
        let is_back = matches!(outcome, PeerOutcome::Released | PeerOutcome::Modified { .. });
        note.deliveries += 1;
        if is_back && note.deliveries < DELIVERIES_MAX {
            self.ready.push_back(note);
            return None;
        }
        let partition = note.partition;
        let waiting = self.open.values().chain(&self.ready).filter(|note| note.partition == partition);
        let first = waiting.map(|note| note.offset).min();
        let scanned = self.next.get(partition.0 as usize).copied().flatten();
        Some((partition, first.or(scanned)?))
    }
}

/// What the document holds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Checkpoint {
    next: u64,
}

async fn checkpoint(
    devices: &Arc<dyn DeviceHub>,
    partition: PartitionId,
) -> Result<(u64, Option<Checkpoint>), AskError> {
    let ask = AskDocuments { name: DOCUMENT.to_owned(), all: false, from: String::new(), limit: 1 };
    let answer = answered(devices.ask(partition, Request::Documents(ask)).await?)?;
    let Some(document) = answer.documents.into_iter().next() else { return Ok((0, None)) };
    Ok((document.row.version, serde_json::from_slice(&document.row.value).ok()))
}

/// Moves a partition's document on, never back. What fails is told again with the next completion, or
/// comes again.
pub(crate) async fn complete(devices: Arc<dyn DeviceHub>, partition: PartitionId, next: u64) {
    for _ in 0..ATTEMPTS {
        let Ok((version, current)) = checkpoint(&devices, partition).await else { return };
        if current.is_some_and(|current| current.next >= next) {
            return;
        }
        let condition = if version == 0 { Condition::absent() } else { Condition::tag(version) };
        let value = serde_json::to_vec(&Checkpoint { next }).unwrap_or_default();
        let put = PutDocument { name: DOCUMENT.to_owned(), value: value.into(), condition, delete: false };
        match devices.change(partition, Op::PutDocument(put)).await {
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "file notifications: checkpoint is moved again"),
        }
    }
}

/// What a scan gives.
#[derive(Debug)]
pub(crate) struct Scanned {
    next: Vec<Option<u64>>,
    pub(crate) note: Option<Note>,
}

/// What a scan needs.
pub(crate) struct Scan {
    pub(crate) hub: Arc<dyn Hub>,
    pub(crate) devices: Arc<dyn DeviceHub>,
    pub(crate) next: Vec<Option<u64>>,
    pub(crate) read_bytes: u64,
    /// None: what there is now, else it waits for one.
    pub(crate) interval: Option<Duration>,
}

/// Looks for the next notification.
pub(crate) async fn scan(mut scan: Scan) -> Scanned {
    scan.next.resize(scan.devices.partitions() as usize, None);
    loop {
        for partition in 0..scan.next.len() {
            match scan_partition(&mut scan, partition).await {
                Ok(Some(note)) => return Scanned { next: scan.next, note: Some(note) },
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, partition, "file notifications are looked for later"),
            }
        }
        match scan.interval {
            Some(interval) => tokio::time::sleep(interval).await,
            None => return Scanned { next: scan.next, note: None },
        }
    }
}

async fn scan_partition(scan: &mut Scan, place: usize) -> Result<Option<Note>, AskError> {
    let partition = PartitionId(place as u32);
    let mut next = match scan.next[place] {
        Some(next) => next,
        None => match checkpoint(&scan.devices, partition).await?.1 {
            Some(checkpoint) => checkpoint.next,
            None => {
                let oldest = TimestampMs(scan.devices.now_ms().saturating_sub(OLDEST_MS));
                scan.hub.resolve(partition, ReadFrom::Time(oldest)).await?.0
            }
        },
    };
    loop {
        let read = scan.hub.read(partition, Offset(next), scan.read_bytes, Duration::ZERO).await;
        let reply = match read {
            Err(HubError::OffsetGone { start, .. }) if start.0 > next => {
                next = start.0;
                continue;
            }
            other => other?,
        };
        for batch in &reply.batches {
            if let Some((offset, note)) = first_note(scan, partition, batch, next) {
                scan.next[place] = Some(offset + 1);
                return Ok(Some(note));
            }
        }
        next = next.max(reply.next.0);
        scan.next[place] = Some(next);
        if reply.batches.is_empty() {
            return Ok(None);
        }
    }
}

/// The first notification in a batch, from an offset on.
fn first_note(scan: &Scan, partition: PartitionId, batch: &StoredBatch, from: u64) -> Option<(u64, Note)> {
    let records = BatchReader::new(batch.batch.clone()).ok()?;
    if records.header().producer.id != ProducerId(OUTBOX_PRODUCER) {
        return None;
    }
    let source = SystemProperty::MessageSource.number();
    let is_note = |record: &fleetline_batch::RecordView| {
        record.system().any(|(id, value)| id == source && value.as_ref() == SOURCE)
    };
    let numbered = (batch.base_offset.0..).zip(records.map_while(Result::ok));
    let (offset, record) =
        numbered.filter(|(offset, _)| *offset >= from).find(|(_, record)| is_note(record))?;
    let mut tag = [0; 16];
    scan.devices.random(&mut tag);
    let token = fleetline_amqp::message::uuid_text(&tag);
    let host = scan.devices.settings().host_name.clone();
    let message = service_message(MEDIA_TYPE, &host, batch.enqueued.0, &token, &record.body);
    Some((offset, Note { partition, offset, deliveries: 0, tag, message }))
}
