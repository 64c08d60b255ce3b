//! Two replicas with different rounds, one of them reloaded and losing power again and again, against each
//! other and against a plain model: equal replies, equal state, offsets without a hole, reads that find
//! all.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use fleetline_batch::{BatchBuilder, BatchHeader, Compression, Producer, RecordRef};
use fleetline_state::memory::MemState;
use fleetline_state::{KeyKind, StateBatch, StateStore};
use fleetline_streams::{StreamCommand, StreamLimits, StreamQuery, StreamReply, StreamState};
use fleetline_types::{GroupId, LogId, LogIndex, MemberId, Offset, PartitionId, ProducerId, TimestampMs};
use proptest::prelude::*;

const PARTITION: PartitionId = PartitionId(2);

fn limits() -> StreamLimits {
    StreamLimits { producers_max: 3, producer_idle_ms: 500, groups_max: 3, members_max: 3 }
}

fn load(store: &MemState) -> StreamState {
    StreamState::load(store, PARTITION, 4, limits()).unwrap()
}

fn batch(producer: u64, epoch: u32, sequence: u64, count: u32) -> Bytes {
    let mut builder = BatchBuilder::default();
    for _ in 0..count {
        builder.push(&RecordRef { device: b"d", body: b"x", ..RecordRef::default() }).unwrap();
    }
    let producer = Producer { id: ProducerId(producer), epoch, first_sequence: sequence };
    builder.finish(producer, Compression::None).unwrap()
}

/// A replica: applies in rounds of its own.
struct Replica {
    store: MemState,
    state: StreamState,
    pending: StateBatch,
    /// One behind the last entry applied; a row of each round, as the group keeps it.
    applied: u64,
}

/// An entry of the log, with the reply that it once got.
struct Entry {
    command: StreamCommand,
    body: Bytes,
    reply: StreamReply,
}

impl Replica {
    fn new() -> Replica {
        let store = MemState::new();
        let state = load(&store);
        Replica { store, state, pending: StateBatch::default(), applied: 0 }
    }

    fn apply(&mut self, index: u64, command: &StreamCommand, body: &Bytes) -> StreamReply {
        assert_eq!(index, self.applied);
        self.applied += 1;
        self.state.apply(LogId::new(1, index), command, body, &mut self.pending).unwrap()
    }

    fn end_round(&mut self) {
        self.state.end_of_round(&mut self.pending);
        let applied = self.applied.to_be_bytes().to_vec();
        self.pending.put(GroupId::of_partition(PARTITION), KeyKind::Applied, Bytes::new(), applied);
        self.store.write(std::mem::take(&mut self.pending)).unwrap();
    }
}

impl Replica {
    fn sweep(&self) {
        if let Some(batch) = StreamQuery::new(&self.store, PARTITION).sweep().unwrap() {
            self.store.write(batch).unwrap();
        }
    }

    /// Loses power: the store falls back to some batch since its last flush, memory is gone. Then the log
    /// is replayed from what the store has applied. Replies must be as they were, and so must the state.
    fn crash(&mut self, seed: u64, log: &[Entry]) {
        let mut before = self.state.clone();
        before.end_of_round(&mut StateBatch::default());
        self.store = self.store.crash(seed);
        self.pending = StateBatch::default();
        self.state = load(&self.store);
        let row = self.store.get(GroupId::of_partition(PARTITION), KeyKind::Applied, b"").unwrap();
        self.applied = row.map_or(0, |row| u64::from_be_bytes(row[..].try_into().unwrap()));
        for index in self.applied..log.len() as u64 {
            let entry = &log[index as usize];
            assert_eq!(self.apply(index, &entry.command, &entry.body), entry.reply, "replay of {index}");
            if (seed >> (index % 60)) & 3 == 0 {
                self.end_round();
            }
        }
        self.end_round();
        assert_eq!(self.state, before);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        producer: u64,
        epoch: u32,
        sequence: u64,
        count: u32,
        time: u64,
    },
    /// The batch behind the producer's last accepted one.
    AppendNext {
        producer: u64,
        count: u32,
        time: u64,
    },
    /// One of the last appends that were accepted, again, byte for byte.
    Resend {
        back: usize,
        time: u64,
    },
    Command(StreamCommand),
    EndFirst,
    EndSecond,
    ReloadSecond,
    FlushSecond,
    CrashSecond {
        seed: u64,
    },
    SweepSecond,
    Trim,
}

fn group() -> impl Strategy<Value = String> {
    prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just(String::new())]
}

fn step() -> impl Strategy<Value = Step> {
    let member = 0u64..40;
    prop_oneof![
        8 => (1u64..4, 1u32..4, 0u64..2000).prop_map(
            |(producer, count, time)| Step::AppendNext { producer, count, time }),
        4 => (0usize..30, 0u64..2000).prop_map(|(back, time)| Step::Resend { back, time }),
        4 => (0u64..5, 0u32..3, 0u64..12, 1u32..4, 0u64..2000).prop_map(
            |(producer, epoch, sequence, count, time)| Step::Append { producer, epoch, sequence, count, time }),
        1 => (group(), prop::option::of(member.clone())).prop_map(|(group, member)| Step::Command(
            StreamCommand::GroupJoin {
                group, member: member.map(MemberId), client_name: "c".into(), session_timeout_ms: 1000,
            })),
        1 => (group(), member.clone(), prop::collection::vec(0u32..5, 0..4)).prop_map(
            |(group, member, released)| Step::Command(StreamCommand::GroupRelease {
                group, member: MemberId(member), released: released.into_iter().map(PartitionId).collect(),
            })),
        1 => (group(), member.clone()).prop_map(|(group, member)| Step::Command(
            StreamCommand::GroupRemove { group, members: vec![MemberId(member)] })),
        1 => (group(), member, 0u64..6).prop_map(|(group, member, epoch)| Step::Command(
            StreamCommand::Claim { group, member: MemberId(member), epoch })),
        1 => (group(), 0u64..6, 0u64..60).prop_map(|(group, epoch, next)| Step::Command(
            StreamCommand::Checkpoint { group, epoch, next: Offset(next) })),
        2 => Just(Step::EndFirst),
        2 => Just(Step::EndSecond),
        1 => Just(Step::ReloadSecond),
        1 => Just(Step::FlushSecond),
        1 => any::<u64>().prop_map(|seed| Step::CrashSecond { seed }),
        1 => Just(Step::SweepSecond),
        1 => Just(Step::Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// See the head of the file.
    #[test]
    fn replicas_agree(steps in prop::collection::vec(step(), 1..160)) {
        let (mut first, mut second) = (Replica::new(), Replica::new());
        // The model: per accepted batch its entry, first offset and count.
        let mut stored: Vec<(u64, u64, u32)> = Vec::new();
        let mut log: Vec<Entry> = Vec::new();
        // Producers' last accepted batches: epoch and next sequence. And all accepted: body and offset.
        let mut last: BTreeMap<u64, (u32, u64)> = BTreeMap::new();
        let mut begun_anew = std::collections::BTreeSet::new();
        let mut accepted: Vec<(Bytes, Offset)> = Vec::new();
        for step in steps {
            let mut first_offset = None;
            let (command, body) = match step {
                Step::EndFirst => { first.end_round(); continue }
                Step::EndSecond => { second.end_round(); continue }
                Step::ReloadSecond => {
                    second.end_round();
                    let back = load(&second.store);
                    prop_assert_eq!(&back, &second.state);
                    second.state = back;
                    continue;
                }
                Step::FlushSecond => { second.store.flush().unwrap(); continue }
                Step::CrashSecond { seed } => { second.crash(seed, &log); continue }
                Step::SweepSecond => { second.sweep(); continue }
                Step::Trim => {
                    first.end_round();
                    let query = StreamQuery::new(&first.store, PARTITION);
                    let Some(point) = query.trim_point(TimestampMs(300), 400).unwrap() else { continue };
                    let command = StreamCommand::Trim {
                        expected_start: point.expected_start,
                        first_kept: point.first_kept,
                        first_kept_entry: point.first_kept_entry,
                        freed_bytes: point.freed_bytes,
                    };
                    (command, Bytes::new())
                }
                Step::Append { producer, epoch, sequence, count, time } => {
                    (StreamCommand::Append { time: TimestampMs(time) }, batch(producer, epoch, sequence, count))
                }
                Step::AppendNext { producer, count, time } => {
                    let (epoch, sequence) = last.get(&producer).copied().unwrap_or_default();
                    (StreamCommand::Append { time: TimestampMs(time) }, batch(producer, epoch, sequence, count))
                }
                Step::Resend { back, time } => {
                    let Some((body, offset)) = accepted.iter().rev().nth(back).cloned() else { continue };
                    first_offset = Some(offset);
                    (StreamCommand::Append { time: TimestampMs(time) }, body)
                }
                Step::Command(command) => (command, Bytes::new()),
            };
            let index = log.len() as u64;
            let reply = first.apply(index, &command, &body);
            prop_assert_eq!(&second.apply(index, &command, &body), &reply);
            if let StreamReply::Appended { base_offset, duplicate: false, .. } = &reply {
                let base_offset = *base_offset;
                let next = stored.last().map_or(0, |(_, base, count)| base + u64::from(*count));
                prop_assert_eq!(base_offset, Offset(next), "offsets have no hole");
                let header = BatchHeader::parse(&body).unwrap();
                stored.push((index, next, header.count));
                let (producer, count) = (header.producer, u64::from(header.count));
                if producer.id.0 != 0 {
                    last.insert(producer.id.0, (producer.epoch, producer.first_sequence + count));
                    accepted.push((body.clone(), base_offset));
                    // A producer that was forgotten begins anew: its first batch may be stored again, and
                    // then those that followed it.
                    if first_offset.is_some() && producer.first_sequence == 0 {
                        begun_anew.insert(producer.id.0);
                    }
                    prop_assert!(first_offset.is_none() || begun_anew.contains(&producer.id.0), "stored twice");
                }
            }
            if let (Some(first), StreamReply::Appended { base_offset, duplicate: true, .. }) =
                (first_offset, &reply)
            {
                prop_assert!(*base_offset >= first, "a resend is where it was stored last");
                let same = |(_, base, _): &&(u64, u64, u32)| *base == base_offset.0;
                let (entry, _, count) = stored.iter().find(same).expect("a duplicate names a stored batch");
                let kept = BatchHeader::parse(&log[*entry as usize].body).unwrap();
                let again = BatchHeader::parse(&body).unwrap();
                prop_assert_eq!((kept.producer, *count), (again.producer, again.count));
            }
            if let (StreamCommand::Trim { .. }, reply) = (&command, &reply) {
                prop_assert_eq!(reply, &StreamReply::Done);
            }
            log.push(Entry { command, body, reply });
        }
        for replica in [&mut first, &mut second] {
            replica.end_round();
            replica.sweep();
        }
        prop_assert_eq!(&load(&first.store), &load(&second.store));
        for replica in [&first, &second] {
            let query = StreamQuery::new(&replica.store, PARTITION);
            let head = query.head().unwrap();
            for (entry, base, count) in stored.iter().filter(|(_, base, _)| *base >= head.start.0) {
                for offset in *base..base + u64::from(*count) {
                    let place = query.locate(Offset(offset)).unwrap()[0];
                    prop_assert_eq!((place.entry, place.base_offset), (LogIndex(*entry), Offset(*base)));
                }
            }
            prop_assert!(query.locate(head.next).unwrap().is_empty());
            for time in [0, 100, 700, 5000] {
                let found = query.locate_time(TimestampMs(time)).unwrap();
                prop_assert!(found >= head.start && found <= head.next);
                if found < head.next {
                    prop_assert!(query.locate(found).unwrap()[0].time >= TimestampMs(time));
                }
                if found > head.start {
                    prop_assert!(query.locate(Offset(found.0 - 1)).unwrap()[0].time < TimestampMs(time));
                }
            }
        }
    }
}
