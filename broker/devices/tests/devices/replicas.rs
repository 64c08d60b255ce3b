//! Two replicas that end their rounds at different places, one of them started anew again and again: equal
//! replies, rows and effects. (That a refusal changes nothing and that the head counts what is there is
//! checked around every entry by `kit`.)

use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
use fleetline_devices::*;
use fleetline_state::memory::MemState;
use fleetline_state::{StateBatch, StateStore};
use fleetline_types::LogId;
use proptest::prelude::*;

use crate::kit::*;
use crate::steps::{Step, furnished, resolve, step};

/// An entry of the log.
#[derive(Clone, Debug)]
enum Entry {
    Change(Box<DeviceCommand>),
    /// Events that became records.
    Outbox(u64, u64),
}

/// A replica with rounds of its own.
struct Replica {
    store: MemState,
    state: DeviceState,
    pending: StateBatch,
    /// Entries that are in the store.
    stored: usize,
    applied: usize,
    effects: Vec<Effect>,
}

impl Replica {
    fn new() -> Replica {
        let store = MemState::new();
        let (state, pending) = (load(&store), StateBatch::default());
        Replica { store, state, pending, stored: 0, applied: 0, effects: Vec::new() }
    }

    fn apply(&mut self, index: u64, entry: &Entry) -> Option<DeviceReply> {
        self.applied += 1;
        match entry {
            Entry::Change(command) => {
                Some(self.state.apply(LogId::new(1, index), command, &mut self.pending).unwrap())
            }
            Entry::Outbox(first, count) => {
                self.state.outbox_appended(*first, *count, &mut self.pending).unwrap();
                None
            }
        }
    }

    fn end_round(&mut self) {
        self.state.end_of_round(&mut self.pending);
        self.store.write(std::mem::take(&mut self.pending)).unwrap();
        self.stored = self.applied;
        // How often it is said that the outbox has something depends on the rounds.
        self.effects.extend(self.state.published().into_iter().filter(|effect| *effect != Effect::Outbox));
        check_head(&self.store);
    }

    /// What isn't stored is lost with the process, and applied again.
    fn restart(&mut self, log: &[(u64, Entry, Option<DeviceReply>)]) {
        self.state = load(&self.store);
        self.pending = StateBatch::default();
        self.applied = self.stored;
        for (index, entry, reply) in &log[self.stored..] {
            assert_eq!(self.apply(*index, entry), *reply, "{entry:?} again");
        }
    }
}

fn passes(state: &DeviceState, fence: u32, device: &str) -> bool {
    let mut builder = BatchBuilder::default();
    builder.push(&RecordRef { device: device.as_bytes(), ..RecordRef::default() }).unwrap();
    let batch = builder.finish(Producer::default(), Compression::None).unwrap();
    state.batch_passes(fence, &batch).unwrap()
}

fn run(steps: &[Step], rounds: &[u8]) {
    let (mut hub, mut other) = (Hub::new(), Replica::new());
    let mut effects = Vec::new();
    let mut log = Vec::new();
    for (step, round) in steps.iter().zip(rounds) {
        let op = resolve(&mut hub, step);
        let entry = Entry::Change(Box::new(DeviceCommand { now_ms: hub.now, op: Some(op.clone()) }));
        let reply = Some(hub.apply(op));
        let index = hub.index;
        effects.extend(hub.effects.iter().filter(|effect| **effect != Effect::Outbox).cloned());
        assert_eq!(other.apply(index, &entry), reply, "{entry:?}");
        log.push((index, entry, reply));
        if round % 8 == 7 {
            let (first, events) = hub.query().outbox(usize::from(*round / 8)).unwrap();
            let entry = Entry::Outbox(first, events.len() as u64);
            let mut out = StateBatch::default();
            hub.state.outbox_appended(first, events.len() as u64, &mut out).unwrap();
            hub.end_round(out);
            other.apply(index, &entry);
            log.push((index, entry, None));
        }
        for (fence, device) in [(1, "d0"), (u32::from(*round), "d1"), (hub.state.head().fence, "d0")] {
            assert_eq!(passes(&other.state, fence, device), passes(&hub.state, fence, device));
        }
        assert_eq!(other.state.head(), hub.state.head());
        match round % 5 {
            0 => other.end_round(),
            1 => other.restart(&log),
            2 => {
                other.end_round();
                assert_eq!(other.store.rows(), hub.store.rows());
            }
            _ => {}
        }
    }
    other.end_round();
    assert_eq!(other.store.rows(), hub.store.rows());
    assert_eq!(other.effects, effects);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn agree(steps in furnished(step(), 120), rounds in prop::collection::vec(any::<u8>(), 136)) {
        run(&steps, &rounds);
    }
}
