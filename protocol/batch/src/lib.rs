//! The record batch: one set of bytes from producer to consumer.
//!
//! Made by the client crate and by gateways, carried as the body of a Raft entry, stored, and given
//! to readers as it is. A leader checks the header and the crc ([`BatchHeader::verify`]) and never
//! looks at records; only readers do ([`BatchReader`]), without copying.
//!
//! ```text
//!  0     2   3   4     8       12      16        24      28      32        40      48    52       64
//!  ┌─────┬───┬───┬─────┬───────┬───────┬─────────┬───────┬───────┬─────────┬───────┬─────┬────────┬──────
//!  │magic│ver│flg│crc  │length │count  │producer │epoch  │fence  │sequence │time   │raw  │reserved│ body
//!  └─────┴───┴───┴─────┴───────┴───────┴─────────┴───────┴───────┴─────────┴───────┴─────┴────────┴──────
//!   crc32c over everything but itself, as stored · little-endian · flags: 1 = body is one LZ4 block
//!
//!  body   = devices varint × { length varint, id } · records
//!  record = length varint · device varint · time zigzag varint (ms, against the header's) · endpoints varint
//!         · system count varint × { id u8, length varint, value }
//!         · application count varint × { length varint, name, length varint, value }
//!         · length varint · body
//! ```
//!
//! Invariants: a batch has at least one record; every length is checked before anything is taken
//! from it or allocated for it; bytes that don't verify are never read further.
//!
//! Not here: what properties mean, who may send what, where a batch is stored.
#![deny(missing_docs)]

mod builder;
mod device_table;
mod error;
mod header;
pub mod limits;
mod reader;

pub use builder::{BatchBuilder, RecordRef};
pub use error::{BatchError, PushError};
pub use header::{BatchHeader, Compression, HEADER_BYTES, Producer, restamp};
pub use reader::{BatchReader, Properties, RecordView, SystemProperties};
