//! Why something about function apps was not done.

use fleetline_gateway::devices::hub::AskError;
use fleetline_gateway::hub::HubError;
use fleetline_workers::WorkerError;

/// A refusal, or something that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FunctionsError {
    /// No such app, function, version or key.
    #[error("{0} does not exist")]
    NotFound(String),
    /// What the caller gave is wrong.
    #[error("{0}")]
    Invalid(String),
    /// What the caller gave is larger than it may be.
    #[error("{0}")]
    TooLarge(String),
    /// Somebody else changed the app at the same time, each time that it was tried.
    #[error("app {0} was changed by somebody else at the same time; try again")]
    Conflict(String),
    /// The app's archive isn't what was stored.
    #[error("the archive of app {app} is damaged: {reason}")]
    Damaged {
        /// Which app.
        app: String,
        /// What was found.
        reason: String,
    },
    /// The cluster did not do it, or its outcome is unknown.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The worker did not start or refused the app.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// This node's disk.
    #[error("this node's scratch folder: {0}")]
    Disk(String),
}

impl From<std::io::Error> for FunctionsError {
    fn from(error: std::io::Error) -> FunctionsError {
        FunctionsError::Disk(error.to_string())
    }
}

impl From<AskError> for FunctionsError {
    fn from(error: AskError) -> FunctionsError {
        match error {
            AskError::Hub(error) => FunctionsError::Hub(error),
            AskError::Refused(reply) => FunctionsError::Hub(HubError::Invalid(reply.text)),
        }
    }
}

/// Whether the request may have been done: sending it again is safe only where it is idempotent.
pub(crate) fn is_unknown(error: &HubError) -> bool {
    matches!(error, HubError::Unknown(_) | HubError::Internal(_))
}

/// Whether the same request may succeed later because nothing was wrong with it.
pub(crate) fn is_passing(error: &HubError) -> bool {
    matches!(
        error,
        HubError::NotLeader { .. }
            | HubError::Unavailable(_)
            | HubError::Busy { .. }
            | HubError::DiskFull(_)
            | HubError::Unknown(_)
            | HubError::Internal(_)
    )
}
