//! The control group on this node: its state machine, the view of it, and commands to its leader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_cluster::{ControlCommand, ControlError, ControlReply, ControlState};
use fleetline_native::HubError;
use fleetline_raft_driver::{Driver, ForwardError};
use fleetline_raft_group::{Command, Machine, MachineError, Reply};
use fleetline_state::{StateBatch, StateStore};
use fleetline_types::{GroupId, LogId, NodeId};
use tokio::sync::watch;

/// How long a command may look for the control group's leader and wait for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The state machine of the control group.
pub(crate) struct ControlMachine {
    state: ControlState,
    view: watch::Sender<Arc<ControlState>>,
}

impl ControlMachine {
    /// A machine, and the view that it publishes.
    pub(crate) fn new() -> (ControlMachine, watch::Receiver<Arc<ControlState>>) {
        let (view, receiver) = watch::channel(Arc::new(ControlState::default()));
        (ControlMachine { state: ControlState::default(), view }, receiver)
    }
}

impl Machine for ControlMachine {
    fn load(&mut self, store: &dyn StateStore) -> Result<(), MachineError> {
        self.state = ControlState::load(store)?;
        Ok(())
    }

    fn apply(&mut self, id: LogId, command: &Command, out: &mut StateBatch) -> Result<Reply, MachineError> {
        let command = ControlCommand::decode(&command.head)
            .map_err(|error| MachineError::UnknownEntry { id, reason: error.to_string() })?;
        Ok(Reply(self.state.apply(&command, out).encode()))
    }

    fn end_of_round(&mut self, _out: &mut StateBatch) -> Result<(), MachineError> {
        Ok(())
    }

    fn published(&mut self, _id: LogId) {
        self.view.send_if_modified(|seen| {
            let changed = **seen != self.state;
            if changed {
                *seen = Arc::new(self.state.clone());
            }
            changed
        });
    }
}

/// The control group, as the rest of the node uses it.
#[derive(Clone)]
pub(crate) struct Control {
    driver: Arc<Driver>,
    view: watch::Receiver<Arc<ControlState>>,
}

impl Control {
    pub(crate) fn new(driver: Arc<Driver>, view: watch::Receiver<Arc<ControlState>>) -> Control {
        Control { driver, view }
    }

    /// The state as applied here.
    pub(crate) fn view(&self) -> Arc<ControlState> {
        self.view.borrow().clone()
    }

    /// The state, as a value to wait on.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<ControlState>> {
        self.view.clone()
    }

    /// Whether this node leads the control group.
    pub(crate) fn is_leader(&self) -> bool {
        self.driver.group(GroupId::CONTROL).is_some_and(|group| group.is_leader())
    }

    /// Who leads it, as far as known.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.driver.group(GroupId::CONTROL).and_then(|group| group.status().leader)
    }

    /// Has the leader propose a command, wherever it is, and waits until it is applied there.
    pub(crate) async fn propose(&self, command: &ControlCommand) -> Result<ControlReply, HubError> {
        let group = self.driver.group(GroupId::CONTROL);
        let voters = group.map(|group| group.status().voters).unwrap_or_default();
        let nodes: BTreeSet<NodeId> = match voters.is_empty() {
            true => self.view().nodes.keys().copied().collect(),
            false => voters,
        };
        let command = Command { head: command.encode(), body: Bytes::new() };
        let answer = self.driver.propose_anywhere(GroupId::CONTROL, command, &nodes, PATIENCE).await;
        let reply = answer.map_err(|error| match error {
            ForwardError::NoLeader { reason, .. } => {
                HubError::Unavailable(format!("the control group ({reason})"))
            }
            ForwardError::Unknown { reason, .. } => HubError::Unknown(reason),
        })?;
        match ControlReply::decode(&reply.0).map_err(|error| HubError::Internal(error.to_string()))? {
            ControlReply::Refused(ControlError::NotFound(what)) => Err(HubError::NotFound(what)),
            ControlReply::Refused(error) => Err(HubError::Invalid(error.to_string())),
            reply => Ok(reply),
        }
    }
}
