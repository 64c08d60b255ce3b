//! What can go wrong in a group, sorted by who must act.

use fleetline_types::{GroupId, NodeId};
use thiserror::Error;

/// Why a proposal has no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// Nothing was proposed: another node leads.
    #[error("group {group} is led by {leader:?}, not by this node")]
    NotLeader {
        /// Which group.
        group: GroupId,
        /// Who leads, when known.
        leader: Option<NodeId>,
    },
    /// It was proposed and may or may not be committed, now or later.
    #[error("outcome of a proposal to group {group} is unknown: {reason}")]
    Unknown {
        /// Which group.
        group: GroupId,
        /// What happened.
        reason: String,
    },
    /// Nothing was proposed: the group isn't running here any more.
    #[error("group {group} has stopped on this node: {reason}")]
    Stopped {
        /// Which group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// Nothing was done: a membership change that can't be made now, or a command that can't be stored.
    #[error("group {group} refused it: {reason}")]
    Refused {
        /// Which group.
        group: GroupId,
        /// Why.
        reason: String,
    },
}

/// Why a group can't be started or has stopped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GroupError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] fleetline_log::LogError),
    /// The state store failed.
    #[error(transparent)]
    State(#[from] fleetline_state::StateError),
    /// The state machine can't go on.
    #[error(transparent)]
    Machine(#[from] crate::MachineError),
    /// openraft stopped.
    #[error("consensus stopped: {0}")]
    Raft(String),
    /// A configuration that openraft refuses.
    #[error("raft configuration is invalid: {0}")]
    Config(String),
    /// A snapshot could not be made, read or installed.
    #[error("snapshot failed: {0}")]
    Snapshot(String),
}
