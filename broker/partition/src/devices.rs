//! A partition's devices: proposals and reads of them.

use std::sync::Arc;

use fleetline_devices::{Commit, CommitReply, DeviceCommand, DeviceHead, DeviceQuery, DeviceReply};
use fleetline_native::HubError;
use fleetline_raft_group::Command;
use fleetline_streams::StreamReply;
use prost::Message;

use crate::machine::Effects;
use crate::partition::{Partition, log_error, stream_error};

impl Partition {
    /// Proposes a command, stamped with this node's time, and answers once it is applied here.
    ///
    /// # Errors
    /// `Invalid` before anything is proposed; `NotLeader`, `DiskFull`, `Busy`; `Unknown` once it was
    /// proposed. A refusal by the state is in the reply.
    pub async fn change_devices(&self, command: DeviceCommand) -> Result<DeviceReply, HubError> {
        let command = DeviceCommand { now_ms: self.parts.clock.wall().0, ..command };
        if let Err(error) = command.check() {
            return Ok(error.reply());
        }
        let (head, body) = command.encode_entry();
        self.parts.log.admit(body.len() as u64).map_err(log_error)?;
        let reply = self.propose_entry(Command { head, body }).await?;
        DeviceReply::decode(reply.as_ref()).map_err(|error| HubError::Internal(error.to_string()))
    }

    /// Proposes a commit, stamped with this node's time, and answers with what each of its changes
    /// answered once it is applied here.
    ///
    /// # Errors
    /// As a checkpoint: `NotFound` without a claim, `Fenced` from an owner that isn't the newest,
    /// `OutOfSequence` when a record was committed before; nothing is changed then. `Unknown` once it
    /// was proposed: reading the checkpoint tells.
    pub async fn commit(&self, commit: Commit) -> Result<DeviceReply, HubError> {
        let commit = Commit { now_ms: self.parts.clock.wall().0, ..commit };
        commit.check().map_err(|error| HubError::Invalid(error.to_string()))?;
        let (head, body) = commit.encode_entry();
        self.parts.log.admit(body.len() as u64).map_err(log_error)?;
        let internal = |error: &dyn std::fmt::Display| HubError::Internal(error.to_string());
        let reply = self.propose_entry(Command { head, body }).await?;
        let reply = CommitReply::decode(reply.as_ref()).map_err(|error| internal(&error))?;
        match StreamReply::decode(&reply.stream).map_err(|error| internal(&error))? {
            StreamReply::Refused(error) => Err(stream_error(error)),
            _ => Ok(reply.changes.unwrap_or_default()),
        }
    }

    /// Waits until everything committed before the call is applied here. Leader only.
    ///
    /// # Errors
    /// `NotLeader`, or no quorum.
    pub async fn read_barrier(&self) -> Result<(), HubError> {
        self.barrier().await
    }

    /// Reads of the devices, as of the last round.
    pub fn devices(&self) -> DeviceQuery<'_> {
        DeviceQuery::new(self.parts.store.as_ref(), self.parts.partition)
    }

    /// The counters of the devices, as of the last round.
    pub fn device_head(&self) -> DeviceHead {
        *self.parts.published.devices.borrow()
    }

    /// What its leader has to do after commits.
    pub fn effects(&self) -> Arc<Effects> {
        self.parts.published.effects.clone()
    }
}
