//! A partition's state machine with a bug in what it applies.

use fleetline_raft_group::{Command, Machine, MachineError, Reply};
use fleetline_state::{KeyKind, StateBatch, StateOp, StateStore};
use fleetline_streams::StreamCommand;
use fleetline_types::LogId;

use super::Plant;

/// The real machine, whose commands and rows pass through here.
pub(crate) struct PlantedMachine<M> {
    inner: M,
    plant: Plant,
    /// The highest epoch that was claimed since the start.
    claimed: u64,
}

impl<M> PlantedMachine<M> {
    pub(crate) fn new(inner: M, plant: Plant) -> PlantedMachine<M> {
        PlantedMachine { inner, plant, claimed: 0 }
    }

    /// The command as the bug has it.
    fn bent(&mut self, command: &Command) -> Command {
        match StreamCommand::decode(&command.head) {
            Ok(StreamCommand::Claim { epoch, .. }) => {
                self.claimed = self.claimed.max(epoch);
                command.clone()
            }
            Ok(StreamCommand::Checkpoint { group, epoch, next }) if self.plant == Plant::ForgetFence => {
                let epoch = epoch.max(self.claimed);
                let head = StreamCommand::Checkpoint { group, epoch, next }.encode();
                Command { head, body: command.body.clone() }
            }
            _ => command.clone(),
        }
    }
}

impl<M: Machine> Machine for PlantedMachine<M> {
    fn load(&mut self, store: &dyn StateStore) -> Result<(), MachineError> {
        self.inner.load(store)
    }

    fn apply(&mut self, id: LogId, command: &Command, out: &mut StateBatch) -> Result<Reply, MachineError> {
        let before = out.ops.len();
        let bent = self.bent(command);
        let reply = self.inner.apply(id, &bent, out)?;
        let stores = matches!(StreamCommand::decode(&command.head), Ok(StreamCommand::Checkpoint { .. }));
        if stores && self.plant == Plant::ForgetCheckpoint {
            let mut place = 0;
            out.ops.retain(|op| {
                place += 1;
                let row = matches!(op, StateOp::Put(key, _) if key.kind == KeyKind::Checkpoint);
                place <= before || !row
            });
        }
        Ok(reply)
    }

    fn end_of_round(&mut self, out: &mut StateBatch) -> Result<(), MachineError> {
        self.inner.end_of_round(out)
    }

    fn published(&mut self, id: LogId) {
        self.inner.published(id);
    }
}
