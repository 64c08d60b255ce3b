//! What can be wrong with a batch.

use fleetline_codec::DecodeError;
use thiserror::Error;

/// Bytes that are not a batch, or not an undamaged one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The form is wrong: cut short, over a limit, damaged, of a later version.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The header says another length than there are bytes.
    #[error("batch says it is {claimed} bytes long, {found} came")]
    Length {
        /// What the header says.
        claimed: usize,
        /// What there is.
        found: usize,
    },
    /// The compressed part can't be unpacked.
    #[error("batch can't be uncompressed: {0}")]
    Compression(String),
    /// A record names a device that the batch's table doesn't have.
    #[error("record names device {index} of a table of {devices}")]
    Device {
        /// What the record says.
        index: u64,
        /// How many the table has.
        devices: usize,
    },
}

/// A record wasn't taken. Only for [`PushError::Full`] it helps to finish the batch and begin another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PushError {
    /// The batch has no room for it; an empty one would.
    #[error("batch is full")]
    Full,
    /// A reader would refuse it.
    #[error("record has {found} {what}, at most {limit} are allowed")]
    OverLimit {
        /// What is too many or too long.
        what: &'static str,
        /// How many it has.
        found: usize,
        /// How many it may have.
        limit: usize,
    },
    /// No batch has room for it.
    #[error("record of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest that fits.
        limit: usize,
    },
}
