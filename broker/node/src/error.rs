//! Why a node can't start or go on.

use std::fmt::Display;
use std::path::Path;

use thiserror::Error;

/// Why a node can't start or had to stop.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The data folder can't be used.
    #[error("data folder: {path}: {reason}")]
    Data {
        /// Which file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration can't be used.
    #[error("configuration: {0}")]
    Config(String),
    /// The log can't be opened.
    #[error("log: {0}")]
    Log(#[from] fleetline_log::LogError),
    /// The state store can't be opened.
    #[error("state: {0}")]
    State(#[from] fleetline_state::StateError),
    /// A group can't be started.
    #[error("group: {0}")]
    Group(#[from] fleetline_raft_group::GroupError),
    /// A port can't be opened.
    #[error("can't listen on {address}: {reason}")]
    Listen {
        /// Which address.
        address: String,
        /// Why not.
        reason: String,
    },
    /// Certificates can't be made or read.
    #[error("certificates: {0}")]
    Certificates(String),
    /// The cluster could not be joined.
    #[error("can't join the cluster: {0}")]
    Join(String),
    /// A part of the node stopped that it can't do without.
    #[error("node stops: {0}")]
    Stopped(String),
}

impl NodeError {
    /// A failure of a file in the data folder.
    pub(crate) fn data(path: &Path, reason: impl Display) -> NodeError {
        NodeError::Data { path: path.display().to_string(), reason: reason.to_string() }
    }
}
