//! Bounded reader and writer, varints and checksums for every hand-written format.
//!
//! Used by everything that puts bytes on disk or on the wire without protobuf: the record batch
//! (`protocol/batch`), replicated commands and rows (`broker/*`), the log's frames, the native
//! protocol. Calls nothing but the checksum.
//!
//! Invariants:
//! 1. A [`Reader`] never reads over its end and never panics, whatever the bytes; the only outcome
//!    of bad bytes is a [`DecodeError`].
//! 2. It never takes memory: what it returns are slices of the input. [`Reader::count`] gives a
//!    count that memory may be reserved for, since the input is long enough to hold that many.
//! 3. One value has one form: varints must be minimal, flags 0 or 1, nothing may trail. So bytes
//!    that decode also encode to the same bytes, which [`kit`] checks for every format.
//!
//! All fixed-width numbers are little-endian, except where a key must sort as bytes
//! ([`Writer::u64_be`]). Varints are LEB128: seven bits a byte, lowest first, the high bit says
//! that another byte follows.
//!
//! Not here: what the bytes mean, and reading from sockets or files.
#![deny(missing_docs)]

mod crc;
mod error;
#[cfg(any(test, feature = "kit"))]
pub mod kit;
mod reader;
mod varint;
mod writer;

pub use crc::{checksum, checksum_append, checksum_combine, checksum_replace_prefix};
pub use error::DecodeError;
pub use reader::{BytesReader, Reader};
pub use varint::{VARINT_BYTES_MAX, unzigzag, varint_len, zigzag};
pub use writer::Writer;
