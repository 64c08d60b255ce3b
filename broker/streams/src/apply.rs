//! Commands, one by one: state and command in, state, rows and reply out.

use bytes::Bytes;
use fleetline_batch::{BatchError, BatchHeader, Producer};
use fleetline_codec::DecodeError;
use fleetline_state::{KeyKind, StateBatch};
use fleetline_types::{LogId, LogIndex, MemberId, Offset, TimestampMs};

use crate::command::StreamCommand;
use crate::consumer_group::{ConsumerGroup, Member};
use crate::error::StreamError;
use crate::producer::{StoredOnce, Verdict};
use crate::reply::{Claimed, StreamReply};
use crate::state::{CheckpointRow, StreamState, encode_checkpoint};
use crate::stream_index::BatchPlace;

impl StreamState {
    /// Applies one command. `body` is the batch of an append. Rows that aren't written once per
    /// round go to `out`. A command that can't be done is answered by a refusal and changes nothing.
    ///
    /// # Errors
    /// When the batch is of a later version than this release knows. The replica must stop: a newer
    /// one beside it stores the batch, so a refusal here would give all later records other offsets.
    pub fn apply(
        &mut self,
        id: LogId,
        command: &StreamCommand,
        body: &Bytes,
        out: &mut StateBatch,
    ) -> Result<StreamReply, DecodeError> {
        if let Err(error) = command.check() {
            return Ok(StreamReply::Refused(error));
        }
        let reply = match command {
            StreamCommand::Append { time } => match BatchHeader::parse(body) {
                Ok(header) => self.append(id.index, *time, &header, body.len() as u32),
                Err(BatchError::Decode(error)) if error.is_newer_format() => return Err(error),
                // The leader has checked the batch: this was never proposed by one.
                Err(error) => Err(StreamError::Invalid(error.to_string())),
            },
            StreamCommand::GroupJoin { group, member, client_name, session_timeout_ms } => {
                let info =
                    Member { client_name: client_name.clone(), session_timeout_ms: *session_timeout_ms };
                self.group_join(id.index, group, *member, info, out)
            }
            StreamCommand::GroupRelease { group, member, released } => {
                let partitions = self.partitions;
                self.with_group(group, out, |state| {
                    state.release(*member, released, partitions)?;
                    Ok(StreamReply::Assigned(state.assignment(*member)?))
                })
            }
            StreamCommand::GroupRemove { group, members } => {
                let partitions = self.partitions;
                self.with_group(group, out, |state| {
                    state.remove(members, partitions);
                    Ok(StreamReply::Done)
                })
            }
            StreamCommand::Claim { group, member, epoch } => self.claim(group, *member, *epoch, out),
            StreamCommand::Checkpoint { group, epoch, next } => self.checkpoint(group, *epoch, *next, out),
            StreamCommand::Trim { expected_start, first_kept, first_kept_entry, freed_bytes } => {
                self.trim(*expected_start, *first_kept, *first_kept_entry, *freed_bytes)
            }
        };
        Ok(reply.unwrap_or_else(StreamReply::Refused))
    }

    /// Stores a batch whose order its caller has checked already, whatever its producer: the outbox of
    /// the partition's devices.
    pub fn append_unnumbered(
        &mut self,
        id: LogId,
        command: &StreamCommand,
        header: &BatchHeader,
        bytes: u32,
    ) -> StreamReply {
        let StreamCommand::Append { time } = command else {
            return StreamReply::Refused(StreamError::Invalid("not an append".to_owned()));
        };
        let mut header = *header;
        header.producer = Producer::default();
        self.append(id.index, *time, &header, bytes).unwrap_or_else(StreamReply::Refused)
    }

    /// Stores the checkpoint of a commit: for the records from `first` to before `next`. Unlike a plain
    /// checkpoint it is refused when any of these was checkpointed before, so that what is committed
    /// with it happens once.
    pub fn commit_checkpoint(
        &mut self,
        group: &str,
        epoch: u64,
        first: Offset,
        next: Offset,
        out: &mut StateBatch,
    ) -> StreamReply {
        let named = StreamCommand::Checkpoint { group: group.to_owned(), epoch, next };
        let judged = named.check().and_then(|()| {
            let done = self.checkpoints.get(group).and_then(|row| row.next);
            match done {
                Some(done)
                    if done > first && self.checkpoints.get(group).is_some_and(|row| row.epoch == epoch) =>
                {
                    Err(StreamError::OutOfSequence { expected: done.0, given: first.0 })
                }
                _ => self.checkpoint(group, epoch, next, out),
            }
        });
        judged.unwrap_or_else(StreamReply::Refused)
    }

    fn append(
        &mut self,
        entry: LogIndex,
        time: TimestampMs,
        header: &BatchHeader,
        bytes: u32,
    ) -> Result<StreamReply, StreamError> {
        if let Verdict::Again(stored) = self.producers.judge(header.producer, header.count)? {
            let (base_offset, enqueued) = (stored.base_offset, stored.time);
            return Ok(StreamReply::Appended { base_offset, enqueued, duplicate: true });
        }
        let enqueued = time.max(self.head.last_enqueued);
        let base_offset = self.head.next;
        let count = header.count;
        self.note_batch(BatchPlace { base_offset, count, entry, bytes, time: enqueued });
        let stored = StoredOnce {
            first_sequence: header.producer.first_sequence,
            count: header.count,
            base_offset,
            time: enqueued,
        };
        let forgotten = self.producers.stored(header.producer, stored, entry, &self.limits);
        self.round.producers.extend(forgotten);
        if header.producer.id.0 != 0 {
            self.round.producers.insert(header.producer.id);
        }
        Ok(StreamReply::Appended { base_offset, enqueued, duplicate: false })
    }

    fn group_join(
        &mut self,
        at: LogIndex,
        group: &str,
        member: Option<MemberId>,
        info: Member,
        out: &mut StateBatch,
    ) -> Result<StreamReply, StreamError> {
        if !self.groups.contains_key(group) {
            self.make_room_for_group(out)?;
            self.groups.insert(group.to_owned(), ConsumerGroup::new(at));
        }
        let (partitions, limits) = (self.partitions, self.limits);
        self.with_group(group, out, |state| {
            let id = state.join(at, member, info, partitions, &limits)?;
            Ok(StreamReply::Assigned(state.assignment(id)?))
        })
    }

    /// Beyond the bound, the first group without members (by name) is forgotten.
    fn make_room_for_group(&mut self, out: &mut StateBatch) -> Result<(), StreamError> {
        if self.groups.len() < self.limits.groups_max {
            return Ok(());
        }
        let empty = self.groups.iter().find(|(_, group)| group.members().next().is_none());
        let name = empty.map(|(name, _)| name.clone()).ok_or_else(|| {
            StreamError::Limit(format!(
                "a partition coordinates at most {} consumer groups",
                self.limits.groups_max
            ))
        })?;
        self.groups.remove(&name);
        out.delete(self.group, KeyKind::ConsumerGroup, name.into_bytes());
        Ok(())
    }

    /// Changes a consumer group and writes its row if it did change.
    fn with_group(
        &mut self,
        name: &str,
        out: &mut StateBatch,
        change: impl FnOnce(&mut ConsumerGroup) -> Result<StreamReply, StreamError>,
    ) -> Result<StreamReply, StreamError> {
        let group = self
            .groups
            .get_mut(name)
            .ok_or_else(|| StreamError::NotFound(format!("consumer group {name}")))?;
        let before = group.clone();
        let reply = change(group);
        if *group != before {
            out.put(self.group, KeyKind::ConsumerGroup, name.as_bytes().to_vec(), group.encode());
        }
        reply
    }

    fn claim(
        &mut self,
        group: &str,
        member: MemberId,
        epoch: u64,
        out: &mut StateBatch,
    ) -> Result<StreamReply, StreamError> {
        let known = self.checkpoints.get(group).copied();
        if known.is_none() && self.checkpoints.len() >= self.limits.groups_max {
            let text = format!("a partition keeps at most {} checkpoints", self.limits.groups_max);
            return Err(StreamError::Limit(text));
        }
        let row = known.unwrap_or_default();
        let same = known.is_some() && row.epoch == epoch && row.member == member;
        if known.is_some() && epoch <= row.epoch && !same {
            return Err(fenced(group, row.epoch, epoch));
        }
        let row = CheckpointRow { epoch, member, next: row.next };
        self.put_checkpoint(group, row, out);
        Ok(StreamReply::Claimed(Claimed { epoch, member, next: row.next, end: self.head.next }))
    }

    fn checkpoint(
        &mut self,
        group: &str,
        epoch: u64,
        next: Offset,
        out: &mut StateBatch,
    ) -> Result<StreamReply, StreamError> {
        let row = self.checkpoints.get(group).copied();
        let row = row.ok_or_else(|| StreamError::NotFound(format!("claim of consumer group {group}")))?;
        if epoch != row.epoch {
            return Err(fenced(group, row.epoch, epoch));
        }
        if next > self.head.next {
            let text = format!("checkpoint {next} is behind the end of the stream, {}", self.head.next);
            return Err(StreamError::Invalid(text));
        }
        if row.next.is_none_or(|before| before < next) {
            self.put_checkpoint(group, CheckpointRow { next: Some(next), ..row }, out);
        }
        Ok(StreamReply::Done)
    }

    fn put_checkpoint(&mut self, group: &str, row: CheckpointRow, out: &mut StateBatch) {
        self.checkpoints.insert(group.to_owned(), row);
        out.put(self.group, KeyKind::Checkpoint, group.as_bytes().to_vec(), encode_checkpoint(&row));
    }

    /// Index rows below the new start stay until [`crate::StreamQuery::sweep`]: where rows begin
    /// depends on where rounds ended, which differs between replicas.
    fn trim(
        &mut self,
        expected_start: Offset,
        first_kept: Offset,
        first_kept_entry: LogIndex,
        freed_bytes: u64,
    ) -> Result<StreamReply, StreamError> {
        if expected_start != self.head.start {
            return Err(StreamError::Invalid(format!(
                "stream starts at {}, not {expected_start}",
                self.head.start
            )));
        }
        if first_kept <= self.head.start || first_kept >= self.head.next || freed_bytes >= self.head.bytes {
            let text =
                format!("trim to {first_kept} of a stream from {} to {}", self.head.start, self.head.next);
            return Err(StreamError::Invalid(text));
        }
        self.head.start = first_kept;
        self.head.first_entry = first_kept_entry;
        self.head.bytes -= freed_bytes;
        self.round.head = true;
        Ok(StreamReply::Done)
    }
}

fn fenced(group: &str, current: u64, given: u64) -> StreamError {
    StreamError::Fenced { what: format!("owner in consumer group {group}"), current, given }
}
