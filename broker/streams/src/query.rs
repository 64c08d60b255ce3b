//! Reads of a partition's rows. Each reads one state of the store; what it promises is said on it.

use bytes::Bytes;
use fleetline_codec::DecodeError;
use fleetline_state::{KeyKind, StateBatch, StateError, StateStore};
use fleetline_types::{GroupId, LogIndex, MemberId, Offset, PartitionId, TimestampMs};

use crate::consumer_group::ConsumerGroup;
use crate::reply::Claimed;
use crate::state::{Head, decode_checkpoint, decode_head, each_row, malformed, text_key};
use crate::stream_index::{BatchPlace, Run};

/// Index rows of one read behind the first: it is done on a thread that others wait for.
const ROWS_READ_MAX: usize = 256;

/// Where retention wants the stream to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimPoint {
    /// Where it begins now.
    pub expected_start: Offset,
    /// The first record that stays.
    pub first_kept: Offset,
    /// The entry that holds it.
    pub first_kept_entry: LogIndex,
    /// Bytes of the batches that go.
    pub freed_bytes: u64,
}

/// Reads of one partition.
#[derive(Clone, Copy, Debug)]
pub struct StreamQuery<'a> {
    store: &'a dyn StateStore,
    group: GroupId,
}

impl<'a> StreamQuery<'a> {
    /// Reads of `partition` in `store`.
    pub fn new(store: &'a dyn StateStore, partition: PartitionId) -> StreamQuery<'a> {
        StreamQuery { store, group: GroupId::of_partition(partition) }
    }

    /// The ends of the stream as of the last round in the store.
    pub fn head(&self) -> Result<Head, StateError> {
        match self.store.get(self.group, KeyKind::StreamHead, b"")? {
            Some(row) => decode_head(&row).map_err(|error| malformed(KeyKind::StreamHead, &error)),
            None => Ok(Head::default()),
        }
    }

    fn run(key: &[u8], row: &[u8]) -> Result<Run, StateError> {
        Run::decode(key, row).map_err(|error| malformed(KeyKind::StreamIndex, &error))
    }

    /// The batches from the one that holds `offset` on, to the end of its index row. Empty when the
    /// store knows no such record.
    pub fn locate(&self, offset: Offset) -> Result<Vec<BatchPlace>, StateError> {
        let key = Run::key(offset);
        let Some((key, row)) = self.store.last_at_or_below(self.group, KeyKind::StreamIndex, &key)? else {
            return Ok(Vec::new());
        };
        let mut places = Self::run(&key, &row)?.0;
        places.retain(|place| place.end() > offset);
        Ok(places)
    }

    /// The batches from the one that holds `offset` on, until they are about `max_bytes` together; at least
    /// one. A round of a quiet hub stores one batch, so that its index row has one: a read goes on over
    /// rows, [`ROWS_READ_MAX`] behind the first.
    pub fn locate_up_to(&self, offset: Offset, max_bytes: u64) -> Result<Vec<BatchPlace>, StateError> {
        let mut places = self.locate(offset)?;
        let mut bytes: u64 = places.iter().map(|place| u64::from(place.bytes)).sum();
        let Some(last) = places.last().filter(|_| bytes < max_bytes) else {
            return Ok(places);
        };
        let from = Run::key(last.end());
        for (key, row) in self.store.scan(self.group, KeyKind::StreamIndex, &from, ROWS_READ_MAX)? {
            let run = Self::run(&key, &row)?.0;
            bytes += run.iter().map(|place| u64::from(place.bytes)).sum::<u64>();
            places.extend(run);
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(places)
    }

    /// The first record enqueued at or after `time`; the end of the stream when there is none.
    pub fn locate_time(&self, time: TimestampMs) -> Result<Offset, StateError> {
        let head = self.head()?;
        let (mut low, mut high) = (head.start, head.next);
        // Times grow with offsets: find the first batch that isn't before `time`.
        while low < high {
            let middle = Offset(low.0 + (high.0 - low.0) / 2);
            let Some(place) = self.locate(middle)?.first().copied() else {
                break;
            };
            match place.time < time {
                true => low = place.end(),
                false => high = place.base_offset.max(low),
            }
        }
        Ok(low)
    }

    /// What retention wants to forget: whole batches from the start that are older than `before`, or
    /// that are over `bytes_max`. The newest batch always stays. `None` when there is nothing.
    pub fn trim_point(&self, before: TimestampMs, bytes_max: u64) -> Result<Option<TrimPoint>, StateError> {
        let head = self.head()?;
        let mut point = TrimPoint {
            expected_start: head.start,
            first_kept: head.start,
            first_kept_entry: head.first_entry,
            freed_bytes: 0,
        };
        'stream: while point.first_kept < head.next {
            let places = self.locate(point.first_kept)?;
            if places.is_empty() {
                break;
            }
            for place in places {
                let too_old = place.time < before;
                let too_much = head.bytes - point.freed_bytes > bytes_max;
                point.first_kept = place.base_offset;
                point.first_kept_entry = place.entry;
                if place.end() == head.next || !(too_old || too_much) {
                    break 'stream;
                }
                point.freed_bytes += u64::from(place.bytes);
                point.first_kept = place.end();
            }
        }
        Ok((point.first_kept > head.start).then_some(point))
    }

    /// Index rows that no retained record needs, as a batch that removes them. Local housekeeping:
    /// rows begin where this replica's rounds ended.
    pub fn sweep(&self) -> Result<Option<StateBatch>, StateError> {
        let key = Run::key(self.head()?.start);
        let Some((needed, _)) = self.store.last_at_or_below(self.group, KeyKind::StreamIndex, &key)? else {
            return Ok(None);
        };
        let first = self.store.scan(self.group, KeyKind::StreamIndex, b"", 1)?;
        if first.first().is_none_or(|(key, _)| *key >= needed) {
            return Ok(None);
        }
        let mut batch = StateBatch::default();
        batch.delete_range(self.group, KeyKind::StreamIndex, Bytes::new(), needed);
        Ok(Some(batch))
    }

    /// The consumer groups that this partition coordinates.
    pub fn consumer_groups(&self) -> Result<Vec<(String, ConsumerGroup)>, StateError> {
        let mut groups = Vec::new();
        each_row(self.store, self.group, KeyKind::ConsumerGroup, |key, row| {
            groups.push((text_key(key)?, ConsumerGroup::decode(row)?));
            Ok(())
        })?;
        Ok(groups)
    }

    /// One consumer group.
    pub fn consumer_group(&self, name: &str) -> Result<Option<ConsumerGroup>, StateError> {
        let row = self.store.get(self.group, KeyKind::ConsumerGroup, name.as_bytes())?;
        let decode = |row: Bytes| ConsumerGroup::decode(&row);
        row.map(decode).transpose().map_err(|error: DecodeError| malformed(KeyKind::ConsumerGroup, &error))
    }

    /// What this partition keeps for a consumer group.
    pub fn checkpoint(&self, group: &str) -> Result<Claimed, StateError> {
        let end = self.head()?.next;
        let row = self.store.get(self.group, KeyKind::Checkpoint, group.as_bytes())?;
        let Some(row) = row else {
            return Ok(Claimed { epoch: 0, member: MemberId(0), next: None, end });
        };
        let row = decode_checkpoint(&row).map_err(|error| malformed(KeyKind::Checkpoint, &error))?;
        Ok(Claimed { epoch: row.epoch, member: row.member, next: row.next, end })
    }

    /// Consumer groups that have claimed this partition.
    pub fn checkpoint_names(&self) -> Result<Vec<String>, StateError> {
        let mut names = Vec::new();
        each_row(self.store, self.group, KeyKind::Checkpoint, |key, _| {
            names.push(text_key(key)?);
            Ok(())
        })?;
        Ok(names)
    }
}
