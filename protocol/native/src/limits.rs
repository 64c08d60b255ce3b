//! Bounds of the native protocol. They are part of the protocol: both sides check them before they
//! take memory, and a frame beyond one closes the connection.

/// Bytes of the largest batch that any server takes (the hard limit of `fleetline-batch`).
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of the largest frame, counted behind its length field: the largest batch and 64 KiB for
/// everything else.
pub const FRAME_BYTES_MAX: usize = BATCH_BYTES_MAX + 64 * 1024;

/// Bytes of the largest head. Metadata of 200 nodes and 4,096 partitions takes about 150 KiB.
pub const HEAD_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the largest frame of a caller that has not said hello, or has no identity: enough for
/// a join request with its certificate signing request.
pub const ANONYMOUS_FRAME_BYTES_MAX: usize = 8 * 1024;

/// Memory that a frame's announced length alone may take, in bytes. The rest is taken as bytes
/// arrive, so that an announcement costs its sender about as much as it costs us. A batch of the
/// default size (64 KiB) with its head fits and is never moved.
pub const FRAME_FIRST_ALLOCATION: usize = 80 * 1024;

/// Bytes of the longest consumer group name, client name, address, zone or token.
pub const NAME_BYTES_MAX: usize = 1024;

/// Bytes of the longest text in an error, so that an error frame always fits a small window.
pub const ERROR_TEXT_BYTES_MAX: usize = 2048;
