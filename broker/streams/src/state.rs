//! The applied state of a partition: what is in memory, and the rows that it comes from.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use fleetline_codec::{DecodeError, Reader, Writer};
use fleetline_state::{KeyKind, StateBatch, StateError, StateStore};
use fleetline_types::{GroupId, LogIndex, MemberId, Offset, PartitionId, ProducerId, TimestampMs};

use crate::command::optional;
use crate::consumer_group::ConsumerGroup;
use crate::limits::{RUN_BATCHES_MAX, StreamLimits};
use crate::producer::Producers;
use crate::stream_index::{BatchPlace, Run};

/// Rows read at a time when a partition is loaded.
const LOAD_PAGE: usize = 1000;

/// The ends of a partition's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// First retained record; `start <= next`.
    pub start: Offset,
    /// One behind the last record.
    pub next: Offset,
    /// When the last record was enqueued.
    pub last_enqueued: TimestampMs,
    /// Bytes of the retained batches.
    pub bytes: u64,
    /// The first entry that the retained stream needs.
    pub first_entry: LogIndex,
}

/// What this partition keeps for a consumer group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckpointRow {
    pub(crate) epoch: u64,
    pub(crate) member: MemberId,
    pub(crate) next: Option<Offset>,
}

/// A partition's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    pub(crate) group: GroupId,
    pub(crate) partitions: u32,
    pub(crate) limits: StreamLimits,
    pub(crate) head: Head,
    pub(crate) producers: Producers,
    pub(crate) groups: BTreeMap<String, ConsumerGroup>,
    pub(crate) checkpoints: BTreeMap<String, CheckpointRow>,
    pub(crate) round: Round,
}

/// What the current round has changed and not yet written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) run: Run,
    pub(crate) head: bool,
    pub(crate) producers: BTreeSet<ProducerId>,
}

impl StreamState {
    /// Reads the state of `partition` of a hub with `partitions`.
    ///
    /// # Errors
    /// When a row can't be read.
    pub fn load(
        store: &dyn StateStore,
        partition: PartitionId,
        partitions: u32,
        limits: StreamLimits,
    ) -> Result<StreamState, StateError> {
        let group = GroupId::of_partition(partition);
        let mut state = StreamState {
            group,
            partitions,
            limits,
            head: Head::default(),
            producers: Producers::default(),
            groups: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            round: Round::default(),
        };
        if let Some(row) = store.get(group, KeyKind::StreamHead, b"")? {
            state.head = decode_head(&row).map_err(|error| malformed(KeyKind::StreamHead, &error))?;
        }
        each_row(store, group, KeyKind::Producer, |key, row| {
            let mut r = Reader::new(key);
            let id = ProducerId(r.u64_be("producer key")?);
            r.finish("producer key")?;
            state.producers.load(id, row)
        })?;
        each_row(store, group, KeyKind::ConsumerGroup, |key, row| {
            state.groups.insert(text_key(key)?, ConsumerGroup::decode(row)?);
            Ok(())
        })?;
        each_row(store, group, KeyKind::Checkpoint, |key, row| {
            state.checkpoints.insert(text_key(key)?, decode_checkpoint(row)?);
            Ok(())
        })?;
        Ok(state)
    }

    /// The ends of the stream, as of the last applied command.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Notes a stored batch for the round's index row.
    pub(crate) fn note_batch(&mut self, place: BatchPlace) {
        self.round.run.0.push(place);
        self.round.head = true;
        if self.head.bytes == 0 {
            self.head.first_entry = place.entry;
        }
        self.head.next = place.end();
        self.head.last_enqueued = place.time;
        self.head.bytes += u64::from(place.bytes);
    }

    /// Writes the rows that the round has changed and that no command wrote itself.
    pub fn end_of_round(&mut self, out: &mut StateBatch) {
        let round = std::mem::take(&mut self.round);
        for places in round.run.0.chunks(RUN_BATCHES_MAX) {
            out.put(self.group, KeyKind::StreamIndex, Run::key(places[0].base_offset), Run::encode(places));
        }
        for id in round.producers {
            let key = Bytes::copy_from_slice(&id.0.to_be_bytes());
            match self.producers.row(id) {
                Some(row) => out.put(self.group, KeyKind::Producer, key, row),
                None => out.delete(self.group, KeyKind::Producer, key),
            }
        }
        if round.head {
            out.put(self.group, KeyKind::StreamHead, Bytes::new(), encode_head(&self.head));
        }
    }
}

pub(crate) fn malformed(kind: KeyKind, error: &DecodeError) -> StateError {
    StateError::Malformed { kind: kind as u8, reason: error.to_string() }
}

/// Calls `take` with every row of a kind.
pub(crate) fn each_row(
    store: &dyn StateStore,
    group: GroupId,
    kind: KeyKind,
    mut take: impl FnMut(&[u8], &[u8]) -> Result<(), DecodeError>,
) -> Result<(), StateError> {
    let mut from = Vec::new();
    loop {
        let rows = store.scan(group, kind, &from, LOAD_PAGE)?;
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        from = [last.as_ref(), &[0]].concat();
        for (key, row) in &rows {
            take(key, row).map_err(|error| malformed(kind, &error))?;
        }
    }
}

pub(crate) fn text_key(key: &[u8]) -> Result<String, DecodeError> {
    let text = std::str::from_utf8(key);
    text.map(str::to_owned).map_err(|_| DecodeError::Invalid { what: "row key", reason: "not UTF-8" })
}

fn encode_head(head: &Head) -> Bytes {
    let mut out = Vec::with_capacity(32);
    let mut w = Writer::new(&mut out);
    w.u8(1).varint(head.start.0).varint(head.next.0).varint(head.last_enqueued.0);
    w.varint(head.bytes).varint(head.first_entry.0);
    out.into()
}

pub(crate) fn decode_head(row: &[u8]) -> Result<Head, DecodeError> {
    let mut r = Reader::new(row);
    if r.u8("head version")? != 1 {
        return Err(DecodeError::Invalid { what: "head row", reason: "of a later version" });
    }
    let head = Head {
        start: Offset(r.varint("start")?),
        next: Offset(r.varint("next")?),
        last_enqueued: TimestampMs(r.varint("last enqueued")?),
        bytes: r.varint("bytes")?,
        first_entry: LogIndex(r.varint("first entry")?),
    };
    r.finish("head row")?;
    Ok(head)
}

pub(crate) fn encode_checkpoint(row: &CheckpointRow) -> Bytes {
    let mut out = Vec::with_capacity(24);
    let mut w = Writer::new(&mut out);
    w.u8(1).varint(row.epoch).varint(row.member.0).flag(row.next.is_some());
    w.varint(row.next.unwrap_or_default().0);
    out.into()
}

pub(crate) fn decode_checkpoint(row: &[u8]) -> Result<CheckpointRow, DecodeError> {
    let mut r = Reader::new(row);
    if r.u8("checkpoint version")? != 1 {
        return Err(DecodeError::Invalid { what: "checkpoint row", reason: "of a later version" });
    }
    let (epoch, member) = (r.varint("epoch")?, MemberId(r.varint("member")?));
    let next = optional(&mut r, "next")?.map(Offset);
    r.finish("checkpoint row")?;
    Ok(CheckpointRow { epoch, member, next })
}
