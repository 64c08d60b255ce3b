//! What is remembered of producers, so that a batch that is sent again is stored once (P5).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fleetline_batch::Producer;
use fleetline_codec::{DecodeError, Reader, Writer};
use fleetline_types::{LogIndex, Offset, ProducerId, TimestampMs};

use crate::error::StreamError;
use crate::limits::{PRODUCER_WINDOW, StreamLimits};

/// A batch that was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredOnce {
    pub(crate) first_sequence: u64,
    pub(crate) count: u32,
    pub(crate) base_offset: Offset,
    pub(crate) time: TimestampMs,
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProducerState {
    epoch: u32,
    next_sequence: u64,
    /// Its last batches, oldest first.
    window: VecDeque<StoredOnce>,
    /// The entry that touched it last; orders producers by silence, the same on every replica.
    touched: LogIndex,
    touched_at: TimestampMs,
}

/// All producers of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    by_id: BTreeMap<ProducerId, ProducerState>,
    by_silence: BTreeMap<LogIndex, ProducerId>,
}

/// What a batch is to its producer's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next one: store it.
    New,
    /// Stored before.
    Again(StoredOnce),
}

impl Producers {
    /// Whether a batch is new, was stored before, or must be refused.
    pub(crate) fn judge(&self, producer: Producer, count: u32) -> Result<Verdict, StreamError> {
        if producer.id.0 == 0 {
            return Ok(Verdict::New);
        }
        let given = producer.first_sequence;
        let Some(state) = self.by_id.get(&producer.id) else {
            return expect_sequence(0, given);
        };
        if producer.epoch < state.epoch {
            return Err(StreamError::Fenced {
                what: format!("producer {}", producer.id.0),
                current: u64::from(state.epoch),
                given: u64::from(producer.epoch),
            });
        }
        if producer.epoch > state.epoch {
            return expect_sequence(0, given);
        }
        let before = state.window.iter().find(|s| s.first_sequence == given && s.count == count);
        match before {
            Some(stored) => Ok(Verdict::Again(*stored)),
            None => expect_sequence(state.next_sequence, given),
        }
    }

    /// A new batch was stored. Gives the ids of producers that are forgotten for it.
    pub(crate) fn stored(
        &mut self,
        producer: Producer,
        stored: StoredOnce,
        at: LogIndex,
        limits: &StreamLimits,
    ) -> Vec<ProducerId> {
        if producer.id.0 == 0 {
            return Vec::new();
        }
        let fresh = || ProducerState {
            epoch: producer.epoch,
            next_sequence: 0,
            window: VecDeque::with_capacity(PRODUCER_WINDOW),
            touched: at,
            touched_at: stored.time,
        };
        let state = self.by_id.entry(producer.id).or_insert_with(fresh);
        if state.epoch != producer.epoch {
            state.epoch = producer.epoch;
            state.window.clear();
        }
        self.by_silence.remove(&state.touched);
        self.by_silence.insert(at, producer.id);
        state.touched = at;
        state.touched_at = stored.time;
        state.next_sequence = stored.first_sequence + u64::from(stored.count);
        if state.window.len() == PRODUCER_WINDOW {
            state.window.pop_front();
        }
        state.window.push_back(stored);
        self.forget(stored.time, limits)
    }

    /// Forgets who is one too many or silent for too long; at most two at a time, so that a command
    /// costs the same whenever it is applied.
    fn forget(&mut self, now: TimestampMs, limits: &StreamLimits) -> Vec<ProducerId> {
        let mut forgotten = Vec::new();
        for _ in 0..2 {
            let Some((touched, id)) = self.by_silence.first_key_value().map(|(at, id)| (*at, *id)) else {
                break;
            };
            let silent_since = self.by_id.get(&id).map_or(now, |state| state.touched_at);
            let too_many = self.by_id.len() > limits.producers_max;
            if !too_many && now.0.saturating_sub(silent_since.0) <= limits.producer_idle_ms {
                break;
            }
            self.by_silence.remove(&touched);
            self.by_id.remove(&id);
            forgotten.push(id);
        }
        forgotten
    }

    /// The row of a producer; `None` when it is forgotten.
    pub(crate) fn row(&self, id: ProducerId) -> Option<Bytes> {
        let state = self.by_id.get(&id)?;
        let mut out = Vec::with_capacity(32 + state.window.len() * 24);
        let mut w = Writer::new(&mut out);
        w.u8(1)
            .u32(state.epoch)
            .varint(state.next_sequence)
            .varint(state.touched.0)
            .varint(state.touched_at.0);
        w.varint(state.window.len() as u64);
        for stored in &state.window {
            w.varint(stored.first_sequence).varint(u64::from(stored.count));
            w.varint(stored.base_offset.0).varint(stored.time.0);
        }
        Some(out.into())
    }

    /// Takes a row back in.
    pub(crate) fn load(&mut self, id: ProducerId, row: &[u8]) -> Result<(), DecodeError> {
        let mut r = Reader::new(row);
        if r.u8("producer version")? != 1 {
            return Err(DecodeError::Invalid { what: "producer row", reason: "of a later version" });
        }
        let mut state = ProducerState {
            epoch: r.u32("epoch")?,
            next_sequence: r.varint("next sequence")?,
            touched: LogIndex(r.varint("touched")?),
            touched_at: TimestampMs(r.varint("touched at")?),
            window: VecDeque::with_capacity(PRODUCER_WINDOW),
        };
        for _ in 0..r.count("window", PRODUCER_WINDOW, 4)? {
            state.window.push_back(StoredOnce {
                first_sequence: r.varint("first sequence")?,
                count: r.varint_u32("count")?,
                base_offset: Offset(r.varint("base offset")?),
                time: TimestampMs(r.varint("time")?),
            });
        }
        r.finish("producer row")?;
        self.by_silence.insert(state.touched, id);
        self.by_id.insert(id, state);
        Ok(())
    }
}

fn expect_sequence(expected: u64, given: u64) -> Result<Verdict, StreamError> {
    match given == expected {
        true => Ok(Verdict::New),
        false => Err(StreamError::OutOfSequence { expected, given }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(id: u64, epoch: u32, first_sequence: u64) -> Producer {
        Producer { id: ProducerId(id), epoch, first_sequence }
    }

    fn store(producers: &mut Producers, from: Producer, count: u32, at: u64) -> Vec<ProducerId> {
        let base_offset = Offset(at * 100);
        let stored =
            StoredOnce { first_sequence: from.first_sequence, count, base_offset, time: TimestampMs(at) };
        let limits = StreamLimits { producers_max: 3, producer_idle_ms: 1000, ..StreamLimits::default() };
        producers.stored(from, stored, LogIndex(at), &limits)
    }

    /// Next is new, known is the same again, a gap and a number too old are refused, epochs fence.
    #[test]
    fn verdicts() {
        let mut p = Producers::default();
        assert_eq!(p.judge(producer(1, 1, 5), 1), Err(StreamError::OutOfSequence { expected: 0, given: 5 }));
        store(&mut p, producer(1, 1, 0), 10, 1);
        store(&mut p, producer(1, 1, 10), 5, 2);
        assert_eq!(p.judge(producer(1, 1, 15), 3), Ok(Verdict::New));
        assert!(
            matches!(p.judge(producer(1, 1, 0), 10), Ok(Verdict::Again(s)) if s.base_offset == Offset(100))
        );
        assert!(p.judge(producer(1, 1, 0), 9).is_err());
        assert!(p.judge(producer(1, 1, 16), 1).is_err());
        assert!(matches!(p.judge(producer(1, 0, 15), 1), Err(StreamError::Fenced { current: 1, .. })));
        assert!(p.judge(producer(1, 2, 15), 1).is_err());
        assert_eq!(p.judge(producer(1, 2, 0), 1), Ok(Verdict::New));
        store(&mut p, producer(1, 2, 0), 1, 3);
        assert!(p.judge(producer(1, 2, 10), 5).is_err(), "a new epoch forgets the old one's window");
        assert_eq!(p.judge(producer(0, 0, 77), 1), Ok(Verdict::New));
    }

    /// Who is one too many or silent for too long is forgotten, the most silent first.
    #[test]
    fn forgetting() {
        let mut p = Producers::default();
        for id in 1..=3 {
            assert!(store(&mut p, producer(id, 1, 0), 1, id).is_empty());
        }
        store(&mut p, producer(1, 1, 1), 1, 4);
        assert_eq!(store(&mut p, producer(4, 1, 0), 1, 5), [ProducerId(2)]);
        assert_eq!(store(&mut p, producer(4, 1, 1), 1, 2000), [ProducerId(3), ProducerId(1)]);
    }

    /// A row brings a producer back as it was.
    #[test]
    fn rows() {
        let mut p = Producers::default();
        for n in 0..20 {
            store(&mut p, producer(5, 1, n * 2), 2, n + 1);
        }
        let mut back = Producers::default();
        back.load(ProducerId(5), &p.row(ProducerId(5)).unwrap()).unwrap();
        assert_eq!(back, p);
    }
}
