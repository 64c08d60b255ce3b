//! Every bound of a batch, and why it is what it is.

/// Bytes of a stored batch that producers make at the most unless told otherwise: large enough
/// that the costs per batch vanish, small enough that a reader's credit stays fine-grained.
pub const BATCH_BYTES_DEFAULT: usize = 1 << 20;
/// Bytes of a batch that anybody accepts at the most, stored and uncompressed alike.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Records in a batch at the most; bounds what a header can make a reader expect.
pub const RECORDS_MAX: u32 = 1 << 17;
/// Bytes of a device id at the most (128 characters of ASCII at the public SDKs, with room).
pub const DEVICE_ID_BYTES_MAX: usize = 512;
/// Properties of a kind that a record carries at the most.
pub const PROPERTIES_MAX: usize = 256;
/// Bytes of a property's name or value at the most.
pub const PROPERTY_BYTES_MAX: usize = 64 << 10;
/// An uncompressed batch is at most so many times larger than what is stored.
pub const EXPANSION_MAX: usize = 255;
