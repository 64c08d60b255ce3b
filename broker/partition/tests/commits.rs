//! Commits of functions, as a partition's machine applies them: checkpoint and changes together or not
//! at all, once for each record.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_devices::{Bulk, BulkItem, Commit, CommitReply, Condition, DeviceQuery, Op, PutDocument};
use fleetline_partition::PartitionMachine;
use fleetline_raft_group::{Command, Machine};
use fleetline_state::memory::MemState;
use fleetline_state::{StateBatch, StateStore};
use fleetline_streams::{StreamCommand, StreamError, StreamLimits, StreamReply};
use fleetline_types::{LogId, MemberId, PartitionId, TimestampMs};
use prost::Message;

const PARTITION: PartitionId = PartitionId(2);

struct World {
    store: Arc<MemState>,
    machine: PartitionMachine,
    index: u64,
}

impl World {
    /// A partition with ten records whose owner in `g` has epoch 1.
    fn new() -> World {
        let store = Arc::new(MemState::new());
        let machine = machine(&store);
        let mut world = World { store, machine, index: 0 };
        let append = StreamCommand::Append { time: TimestampMs(5) };
        world.stream(&append, ten_records());
        world.claim(1);
        world
    }

    fn apply(&mut self, head: Bytes, body: Bytes) -> Bytes {
        self.index += 1;
        let mut out = StateBatch::default();
        let id = LogId::new(1, self.index);
        let reply = self.machine.apply(id, &Command { head, body }, &mut out).unwrap();
        self.machine.end_of_round(&mut out).unwrap();
        self.store.write(out).unwrap();
        self.machine.published(id);
        reply.0
    }

    fn stream(&mut self, command: &StreamCommand, body: Bytes) -> StreamReply {
        StreamReply::decode(&self.apply(command.encode(), body)).unwrap()
    }

    fn claim(&mut self, epoch: u64) {
        let claim = StreamCommand::Claim { group: "g".into(), member: MemberId(epoch), epoch };
        assert!(matches!(self.stream(&claim, Bytes::new()), StreamReply::Claimed(_)));
    }

    /// Commits records with one change, to the document that counts.
    fn commit(&mut self, epoch: u64, first: u64, next: u64) -> Result<(), StreamError> {
        let count = self.count() + (next - first);
        let put = PutDocument {
            name: "t/count".into(),
            value: count.to_string().into(),
            condition: Condition::upsert(),
            delete: false,
        };
        let changes = Bulk { ops: vec![BulkItem { op: Some(Op::PutDocument(put)) }] };
        let commit = Commit { group: "g".into(), epoch, first, next, changes, now_ms: 9 };
        let (head, body) = commit.encode_entry();
        let before = self.store.rows();
        let reply = CommitReply::decode(self.apply(head, body)).unwrap();
        match StreamReply::decode(&reply.stream).unwrap() {
            StreamReply::Refused(error) => {
                assert_eq!(reply.changes, None);
                assert_eq!(self.store.rows(), before, "a refused commit changed rows");
                Err(error)
            }
            _ => {
                assert_eq!(reply.changes.unwrap().replies[0].error, None);
                Ok(())
            }
        }
    }

    fn count(&self) -> u64 {
        let found = DeviceQuery::new(self.store.as_ref(), PARTITION).document("t/count").unwrap();
        found.map_or(0, |row| String::from_utf8(row.value.to_vec()).unwrap().parse().unwrap())
    }
}

fn machine(store: &Arc<MemState>) -> PartitionMachine {
    let (mut machine, _) = PartitionMachine::new(PARTITION, 4, StreamLimits::default(), store.clone());
    machine.load(store.as_ref()).unwrap();
    machine
}

fn ten_records() -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    for _ in 0..10 {
        let (system, properties): (&[_], &[_]) = (&[], &[]);
        let record =
            RecordRef { device: b"d", time: TimestampMs(1), endpoints: 0, system, properties, body: b"x" };
        builder.push(&record).unwrap();
    }
    builder.finish(Producer::default(), Compression::None).unwrap()
}

/// Records are committed in order and once; a second commit of any of them is refused with where the
/// checkpoint is, so that a caller that doesn't know the outcome can go on from there.
#[test]
fn once() {
    let mut world = World::new();
    world.commit(1, 0, 4).unwrap();
    let refused = world.commit(1, 0, 4).unwrap_err();
    assert_eq!(refused, StreamError::OutOfSequence { expected: 4, given: 0 });
    let refused = world.commit(1, 2, 6).unwrap_err();
    assert_eq!(refused, StreamError::OutOfSequence { expected: 4, given: 2 });
    world.commit(1, 4, 10).unwrap();
    assert_eq!(world.count(), 10);
}

/// An owner that was replaced commits nothing, nor does one that never claimed; nor beyond the end.
#[test]
fn fenced() {
    let mut world = World::new();
    world.commit(1, 0, 4).unwrap();
    world.claim(2);
    assert!(matches!(world.commit(1, 4, 6), Err(StreamError::Fenced { current: 2, given: 1, .. })));
    assert!(matches!(world.commit(3, 4, 6), Err(StreamError::Fenced { .. })));
    assert!(matches!(world.commit(2, 4, 11), Err(StreamError::Invalid(_))));
    world.commit(2, 4, 6).unwrap();
    assert_eq!(world.count(), 6);
}

/// What a restart reads is what was committed.
#[test]
fn survives_a_restart() {
    let mut world = World::new();
    world.commit(1, 0, 4).unwrap();
    world.machine = machine(&world.store);
    assert!(matches!(world.commit(1, 0, 4), Err(StreamError::OutOfSequence { expected: 4, .. })));
    assert_eq!(world.count(), 4);
}

/// A commit of a later release stops the replica, as any entry that it doesn't know.
#[test]
fn later_release() {
    let mut world = World::new();
    let command = Command { head: Bytes::from_static(&[0x41, 9]), body: Bytes::new() };
    let mut out = StateBatch::default();
    assert!(world.machine.apply(LogId::new(1, 99), &command, &mut out).is_err());
}
