//! The state machine of a partition's group: stored commands in, stored replies out.

use fleetline_raft_group::{Command, Machine, MachineError, Reply};
use fleetline_state::{StateBatch, StateStore};
use fleetline_streams::{Head, StreamCommand, StreamLimits, StreamState};
use fleetline_types::{LogId, PartitionId};
use tokio::sync::watch;

/// Hands a group's commands to `broker/streams`, and publishes the ends of the stream that readers
/// may see: those of a whole round.
pub struct PartitionMachine {
    partition: PartitionId,
    partitions: u32,
    limits: StreamLimits,
    state: Option<StreamState>,
    head: watch::Sender<Head>,
}

impl PartitionMachine {
    /// A machine for `partition` of a hub with `partitions`, and the head that it will publish.
    pub fn new(
        partition: PartitionId,
        partitions: u32,
        limits: StreamLimits,
    ) -> (PartitionMachine, watch::Receiver<Head>) {
        let (head, receiver) = watch::channel(Head::default());
        (PartitionMachine { partition, partitions, limits, state: None, head }, receiver)
    }

    fn state(&mut self) -> &mut StreamState {
        self.state.as_mut().expect("invariant: a group loads its machine before it applies")
    }
}

impl Machine for PartitionMachine {
    fn load(&mut self, store: &dyn StateStore) -> Result<(), MachineError> {
        self.state = Some(StreamState::load(store, self.partition, self.partitions, self.limits)?);
        Ok(())
    }

    fn apply(&mut self, id: LogId, command: &Command, out: &mut StateBatch) -> Result<Reply, MachineError> {
        let state = self.state();
        let reply = StreamCommand::decode(&command.head)
            .and_then(|decoded| state.apply(id, &decoded, &command.body, out))
            .map_err(|error| MachineError::UnknownEntry { id, reason: error.to_string() })?;
        Ok(Reply(reply.encode()))
    }

    fn end_of_round(&mut self, out: &mut StateBatch) -> Result<(), MachineError> {
        self.state().end_of_round(out);
        Ok(())
    }

    fn published(&mut self, _id: LogId) {
        let head = self.state().head();
        self.head.send_if_modified(|seen| std::mem::replace(seen, head) != head);
    }
}
