//! Every bound of devices, its default and its reason.

/// Bytes of a key, scope or other short text.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Filters in one change of subscriptions.
pub const FILTERS_MAX: usize = 16;
/// Subscriptions of one session; the public hub allows five at a time, we all kinds that exist.
pub const SUBSCRIPTIONS_MAX: usize = 16;
/// Bytes of a device's message, and of a will.
pub const MESSAGE_MAX: usize = 256 << 10;
/// Bytes of a command with its properties.
pub const COMMAND_MAX: usize = 64 << 10;
/// Application properties of a command, and its system properties.
pub const PROPERTIES_MAX: usize = 100;
/// Changes in one entry.
pub const BULK_MAX: usize = 256;
/// Commands that wait for one device.
pub const QUEUE_MAX: u32 = 50;
/// How often a command may be given back before it ends.
pub const DELIVERIES_MAX: u32 = 10;
/// How long a command waits when its sender doesn't say.
pub const COMMAND_TTL_MS: u64 = 60 * 60 * 1000;
/// How long it waits at the most.
pub const COMMAND_TTL_MS_MAX: u64 = 2 * 24 * 60 * 60 * 1000;
/// Feedback records that wait in one partition; the oldest make room.
pub const FEEDBACK_MAX: u64 = 10_000;
/// Feedback records in one lock.
pub const FEEDBACK_LOCK_MAX: usize = 64;
/// How long feedback waits.
pub const FEEDBACK_TTL_MS: u64 = 60 * 60 * 1000;
/// How often feedback is given out.
pub const FEEDBACK_DELIVERIES_MAX: u32 = 10;
/// Fences that are listed; a gateway that is farther behind looks at all of its sessions.
pub const FENCES_KEPT: u32 = 100_000;
/// Desired changes that are kept for gateways that missed one.
pub const DESIRED_CHANGES_KEPT: usize = 8;
/// Bytes of these together.
pub const DESIRED_CHANGES_BYTES: usize = 32 << 10;
/// Modules of one device.
pub const MODULES_MAX: usize = 50;
/// Bytes of a document's name.
pub const DOCUMENT_NAME_MAX: usize = 512;
/// Bytes of a document.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// Documents of one partition.
pub const DOCUMENTS_MAX: u64 = 1_000_000;
/// Bytes of a commit: it is one log entry, and goes between nodes in one frame.
pub const COMMIT_BYTES_MAX: usize = 4 << 20;
/// Open uploads of one device.
pub const UPLOADS_MAX: usize = 10;
