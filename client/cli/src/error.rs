//! What a command can end with.

use fleetline_client::{ClientError, ConsumeError, GroupError, SendError};
use thiserror::Error;

/// Why a command did not do what it was asked for.
#[derive(Debug, Error)]
pub enum CliError {
    /// It failed; the text says what to do next.
    #[error("{0}")]
    Failed(String),
    /// It may have happened.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The arguments make no sense together.
    #[error("{0}")]
    Usage(String),
}

impl CliError {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            CliError::Failed(_) => 1,
            CliError::Usage(_) => 2,
            CliError::Unknown(_) => 3,
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match error.is_definite() {
            true => CliError::Failed(error.to_string()),
            false => CliError::Unknown(error.to_string()),
        }
    }
}

impl From<SendError> for CliError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Unknown(_) => CliError::Unknown(error.to_string()),
            error => CliError::Failed(error.to_string()),
        }
    }
}

impl From<ConsumeError> for CliError {
    fn from(error: ConsumeError) -> Self {
        CliError::Failed(error.to_string())
    }
}

impl From<GroupError> for CliError {
    fn from(error: GroupError) -> Self {
        CliError::Failed(error.to_string())
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        CliError::Failed(error.to_string())
    }
}
