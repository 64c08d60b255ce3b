//! What a replicated state machine is to a group.

use fleetline_state::{StateBatch, StateError, StateStore};
use fleetline_types::LogId;
use thiserror::Error;

use crate::{Command, Reply};

/// A state machine can't go on. It stops this replica (never the others, who may run a newer
/// version): an entry that isn't understood must not be skipped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MachineError {
    /// An entry of a version or kind that this build doesn't know.
    #[error("entry {id} can't be applied by this version: {reason}; upgrade this node")]
    UnknownEntry {
        /// Which entry.
        id: LogId,
        /// What is unknown.
        reason: String,
    },
    /// Its stored rows can't be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// A state machine, replicated by a group. Pure: no clock, no randomness, no I/O but reading the
/// rows it wrote; equal entries give equal rows and replies on every replica.
pub trait Machine: Send + Sync + 'static {
    /// Reads all it needs from the store: at start, and after a snapshot was installed.
    fn load(&mut self, store: &dyn StateStore) -> Result<(), MachineError>;

    /// Applies one command; row changes go to `out`. A bad command is answered by a reply.
    ///
    /// # Errors
    /// Only what must stop the replica.
    fn apply(&mut self, id: LogId, command: &Command, out: &mut StateBatch) -> Result<Reply, MachineError>;

    /// The round's last command was applied: adds rows that are written once per round.
    fn end_of_round(&mut self, out: &mut StateBatch) -> Result<(), MachineError>;

    /// The round is visible in the store up to and including `id`: lets readers see it.
    fn published(&mut self, id: LogId);
}
