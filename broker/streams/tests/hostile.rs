//! What outsiders can bring into a command must never stop a replica, lose an epoch or write a row that
//! can't be read: such an entry is committed, so every replica would meet it, again after each restart.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_state::memory::MemState;
use fleetline_state::{StateBatch, StateStore};
use fleetline_streams::{StreamCommand, StreamLimits, StreamQuery, StreamReply, StreamState};
use fleetline_types::{LogId, MemberId, Offset, PartitionId, TimestampMs};

const PARTITION: PartitionId = PartitionId(0);

/// A replica whose every command is a round and goes through its stored form, as in a group.
struct Replica {
    store: MemState,
    state: StreamState,
    index: u64,
}

impl Replica {
    fn new(limits: StreamLimits) -> Replica {
        let store = MemState::new();
        let state = StreamState::load(&store, PARTITION, 4, limits).unwrap();
        Replica { store, state, index: 0 }
    }

    fn apply(&mut self, command: &StreamCommand) -> StreamReply {
        let command = StreamCommand::decode(&command.encode()).expect("a proposed command is understood");
        self.index += 1;
        let mut out = StateBatch::default();
        let reply = self.state.apply(LogId::new(1, self.index), &command, &Bytes::new(), &mut out).unwrap();
        self.state.end_of_round(&mut out);
        self.store.write(out).unwrap();
        reply
    }

    fn join(&mut self, group: &str) -> StreamReply {
        self.apply(&StreamCommand::GroupJoin {
            group: group.to_owned(),
            member: None,
            client_name: "c".to_owned(),
            session_timeout_ms: 1000,
        })
    }
}

/// Names that the client protocol lets through but a partition doesn't keep are refused, not fatal.
#[test]
fn long_names_are_refused() {
    let mut replica = Replica::new(StreamLimits::default());
    let long = "g".repeat(1024);
    let client_name = StreamCommand::GroupJoin {
        group: "g".to_owned(),
        member: None,
        client_name: long.clone(),
        session_timeout_ms: 1000,
    };
    let claim = StreamCommand::Claim { group: long.clone(), member: MemberId(1), epoch: 1 };
    let checkpoint = StreamCommand::Checkpoint { group: long.clone(), epoch: 1, next: Offset(0) };
    let remove = StreamCommand::GroupRemove { group: long.clone(), members: vec![MemberId(1)] };
    for command in [client_name, claim, checkpoint, remove] {
        assert!(matches!(replica.apply(&command), StreamReply::Refused(_)), "{command:?}");
    }
    assert!(matches!(replica.join(&long), StreamReply::Refused(_)));
    let back = StreamState::load(&replica.store, PARTITION, 4, StreamLimits::default()).unwrap();
    assert_eq!(back, replica.state);
}

/// A member that reports more partitions than the hub has is answered, not fatal.
#[test]
fn long_releases_are_answered() {
    let mut replica = Replica::new(StreamLimits::default());
    let StreamReply::Assigned(assignment) = replica.join("g") else { panic!() };
    let released = (0..10_000).map(|id| PartitionId(id % 300)).collect();
    let release = StreamCommand::GroupRelease { group: "g".to_owned(), member: assignment.member, released };
    assert!(matches!(replica.apply(&release), StreamReply::Assigned(_) | StreamReply::Refused(_)));
}

/// A consumer group that was forgotten for its bound and comes back grants epochs above all earlier ones:
/// else the partitions, which remember the last epoch, would fence it for good.
#[test]
fn epochs_outlive_a_forgotten_group() {
    let limits = StreamLimits { groups_max: 1, ..StreamLimits::default() };
    let mut replica = Replica::new(limits);
    for _ in 0..5 {
        replica.join("a");
    }
    let StreamReply::Assigned(before) = replica.join("a") else { panic!() };
    let members = (1..=6).map(MemberId).collect();
    replica.apply(&StreamCommand::GroupRemove { group: "a".to_owned(), members });
    assert!(matches!(replica.join("b"), StreamReply::Assigned(_)), "the empty group made room");
    let members = (1..=8).map(MemberId).collect();
    replica.apply(&StreamCommand::GroupRemove { group: "b".to_owned(), members });
    let StreamReply::Assigned(after) = replica.join("a") else { panic!() };
    assert!(!after.owned.is_empty());
    assert!(
        after.owned.iter().all(|(_, epoch)| *epoch > before.generation),
        "{after:?} after generation {}",
        before.generation
    );
}

/// A round of any number of batches (a long replay after a restart) leaves index rows that can be read.
#[test]
fn long_rounds_stay_readable() {
    let mut builder = BatchBuilder::default();
    builder.push(&RecordRef { device: b"d", ..RecordRef::default() }).unwrap();
    let body = builder.finish(Producer::default(), Compression::None).unwrap();
    let mut replica = Replica::new(StreamLimits::default());
    let mut out = StateBatch::default();
    let count = (1 << 16) + 10;
    for index in 0..count {
        let append = StreamCommand::Append { time: TimestampMs(index) };
        replica.state.apply(LogId::new(1, index), &append, &body, &mut out).unwrap();
    }
    replica.state.end_of_round(&mut out);
    replica.store.write(out).unwrap();
    let query = StreamQuery::new(&replica.store, PARTITION);
    for offset in [0, 1023, 1024, count / 2, count - 1] {
        let place = query.locate(Offset(offset)).unwrap()[0];
        assert_eq!((place.base_offset, place.entry.0), (Offset(offset), offset));
    }
    assert_eq!(query.locate_time(TimestampMs(40_000)).unwrap(), Offset(40_000));
}

/// A read goes on over rounds, without a hole, until it has what was asked for; one batch always fits.
#[test]
fn reads_go_over_rounds() {
    let mut builder = BatchBuilder::default();
    builder.push(&RecordRef { device: b"d", ..RecordRef::default() }).unwrap();
    let body = builder.finish(Producer::default(), Compression::None).unwrap();
    let bytes = body.len() as u64;
    let mut replica = Replica::new(StreamLimits::default());
    for index in 0..1000 {
        let mut out = StateBatch::default();
        let append = StreamCommand::Append { time: TimestampMs(index) };
        replica.state.apply(LogId::new(1, index), &append, &body, &mut out).unwrap();
        replica.state.end_of_round(&mut out);
        replica.store.write(out).unwrap();
    }
    let query = StreamQuery::new(&replica.store, PARTITION);
    for (offset, max_bytes, count) in [
        (0, 1, 1),
        (5, 2 * bytes, 2),
        (7, 10 * bytes - 1, 10),
        (995, 1 << 20, 5),
        (0, 1 << 20, 257),
        (1000, 1, 0),
    ] {
        let places = query.locate_up_to(Offset(offset), max_bytes).unwrap();
        assert_eq!(places.len(), count, "{offset} {max_bytes}");
        assert!(places.iter().zip(offset..).all(|(place, at)| place.base_offset == Offset(at)));
    }
}

/// A batch of a later version stops the replica; one that is merely malformed is refused and leaves no
/// trace.
#[test]
fn later_batches_stop_the_replica() {
    let mut builder = BatchBuilder::default();
    builder.push(&RecordRef { device: b"d", ..RecordRef::default() }).unwrap();
    let body = builder.finish(Producer::default(), Compression::None).unwrap();
    let mut replica = Replica::new(StreamLimits::default());
    let before = replica.state.clone();
    let mut apply = |place: usize, value: u8| {
        let mut other = body.to_vec();
        other[place] = value;
        let append = StreamCommand::Append { time: TimestampMs(5) };
        let mut out = StateBatch::default();
        let reply = replica.state.apply(LogId::new(1, 1), &append, &other.into(), &mut out);
        assert!(out.ops.is_empty());
        reply
    };
    assert!(apply(2, 2).is_err(), "version");
    assert!(apply(3, 0x80).is_err(), "flags");
    assert!(matches!(apply(0, 0), Ok(StreamReply::Refused(_))), "magic");
    assert!(matches!(apply(12, 0), Ok(StreamReply::Refused(_))), "count");
    assert_eq!(replica.state, before);
}
