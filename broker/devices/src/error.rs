//! Why a command changed nothing.

use fleetline_iothub::errors::ErrorCode;
use thiserror::Error;

use crate::command::{DeviceReply, ErrorReply};

/// A refusal. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// No such identity.
    #[error("device {0} is not registered")]
    NotFound(String),
    /// No such module.
    #[error("module {0} is not registered")]
    ModuleNotFound(String),
    /// It exists already.
    #[error("device {0} exists already")]
    Exists(String),
    /// The module exists already.
    #[error("module {0} exists already")]
    ModuleExists(String),
    /// The etag or version is another one.
    #[error("{what} is {current}, the request expects {expected}")]
    Precondition {
        /// Of what.
        what: &'static str,
        /// What it is.
        current: u64,
        /// What was expected.
        expected: u64,
    },
    /// The identity is disabled.
    #[error("device {0} is disabled")]
    Disabled(String),
    /// A service sends to a disabled identity, which the public hub answers as if it weren't there.
    #[error("device {0} is disabled and takes no commands")]
    TakesNothing(String),
    /// A service makes or removes a module that belongs to the hub.
    #[error("module {0} comes and goes with its device")]
    HubModule(String),
    /// The proof was checked against an identity that has changed since: check again.
    #[error("device {0} has changed, check its proof again")]
    AuthChanged(String),
    /// The session is over: another connection has the identity, or it may not connect any more.
    #[error("session {given} of {device} is over")]
    Fenced {
        /// Whose.
        device: String,
        /// The epoch that was given.
        given: u64,
    },
    /// A field is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Something is too large.
    #[error("{0}")]
    TooLarge(String),
    /// A twin document is refused.
    #[error("{text}")]
    Twin {
        /// The number of the error.
        code: u32,
        /// For people.
        text: String,
    },
    /// The device's queue is full.
    #[error("device {0} has {limit} commands waiting", limit = crate::limits::QUEUE_MAX)]
    QueueFull(String),
    /// The lock is over, or never was.
    #[error("lock {0} is not valid (any more)")]
    LockLost(String),
    /// Too many modules, uploads or subscriptions.
    #[error("{0}")]
    Limit(String),
    /// No such upload.
    #[error("upload {0} is not known")]
    UploadNotFound(String),
}

impl DeviceError {
    /// A wrong field.
    pub fn invalid(text: impl Into<String>) -> DeviceError {
        DeviceError::Invalid(text.into())
    }

    /// Which error of the public hub it is.
    pub fn code(&self) -> ErrorCode {
        match self {
            DeviceError::NotFound(_) | DeviceError::TakesNothing(_) => ErrorCode::DeviceNotFound,
            DeviceError::ModuleNotFound(_) => ErrorCode::ModuleNotFound,
            DeviceError::Exists(_) => ErrorCode::DeviceAlreadyExists,
            DeviceError::ModuleExists(_) => ErrorCode::ModuleAlreadyExistsOnDevice,
            DeviceError::Precondition { .. } => ErrorCode::PreconditionFailed,
            DeviceError::Disabled(_) => ErrorCode::DeviceDisabled,
            DeviceError::HubModule(_) => ErrorCode::SystemModuleModifyUnauthorizedAccess,
            DeviceError::AuthChanged(_) => ErrorCode::ServerBusy,
            DeviceError::Fenced { .. } => ErrorCode::DeviceConnectionClosedRemotely,
            DeviceError::Invalid(_) => ErrorCode::ArgumentInvalid,
            DeviceError::TooLarge(_) => ErrorCode::MessageTooLarge,
            DeviceError::Twin { code, .. } => {
                ErrorCode::from_number(*code).unwrap_or(ErrorCode::ArgumentInvalid)
            }
            DeviceError::QueueFull(_) => ErrorCode::DeviceMaximumQueueDepthExceeded,
            DeviceError::LockLost(_) => ErrorCode::DeviceMessageLockLost,
            DeviceError::Limit(_) => ErrorCode::IotHubQuotaExceeded,
            DeviceError::UploadNotFound(_) => ErrorCode::InvalidFileUploadCorrelationId,
        }
    }

    /// The passing form.
    pub fn reply(&self) -> DeviceReply {
        let error = ErrorReply { code: self.code().number(), text: self.to_string() };
        DeviceReply { error: Some(error), ..DeviceReply::default() }
    }
}
