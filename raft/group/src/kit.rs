//! What this crate's tests share: a machine that keeps what it was told, and parts of a group in memory.

use std::path::Path;
use std::sync::Arc;

use fleetline_env::memory::MemDisk;
use fleetline_log::NodeLog;
use fleetline_snapshot::{SnapshotDir, SnapshotOptions};
use fleetline_state::memory::MemState;
use fleetline_state::{KeyKind, StateBatch, StateStore};
use fleetline_types::{GroupId, LogId, LogIndex};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::durable::DurableMark;
use crate::state_machine::StateMachine;
use crate::{Blocking, Command, Machine, MachineError, Reply, SnapshotStore};

pub(crate) const GROUP: GroupId = GroupId(1);

/// Keeps the last body of each head, and notes where rounds end.
#[derive(Clone, Default)]
pub(crate) struct TestMachine {
    pub(crate) rounds: Arc<Mutex<Vec<LogId>>>,
}

impl Machine for TestMachine {
    fn load(&mut self, _store: &dyn StateStore) -> Result<(), MachineError> {
        Ok(())
    }

    fn apply(&mut self, _id: LogId, command: &Command, out: &mut StateBatch) -> Result<Reply, MachineError> {
        out.put(GROUP, KeyKind::Setting, command.head.clone(), command.body.clone());
        Ok(Reply::default())
    }

    fn end_of_round(&mut self, _out: &mut StateBatch) -> Result<(), MachineError> {
        Ok(())
    }

    fn published(&mut self, id: LogId) {
        self.rounds.lock().push(id);
    }
}

/// A state machine on a store in memory, for a log in which everything is durable at once.
pub(crate) fn state_machine(log: Arc<dyn NodeLog>, machine: TestMachine) -> StateMachine {
    let store = Arc::new(MemState::new());
    let options = SnapshotOptions::new(Path::new("snapshots"));
    let dir = SnapshotDir::open(Arc::new(MemDisk::new()), options).expect("a folder in memory");
    let snapshots = Arc::new(SnapshotStore::new(GROUP, dir, log, store.clone(), Blocking::Inline));
    let durable = Arc::new(DurableMark::new(Some(LogIndex(u64::MAX - 1))));
    let (published, _) = watch::channel(None);
    StateMachine::open(GROUP, Box::new(machine), store, durable, snapshots, published)
        .expect("an empty store")
}
