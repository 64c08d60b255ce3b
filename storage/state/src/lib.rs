//! Keyed state of one node: everything that has a key, for all groups.
//!
//! Called by the state machines through `raft/group`. Two implementations behind [`StateStore`]:
//! `rocks` (RocksDB, feature `rocks`) and `memory` (the model; it can lose power).
//!
//! Invariants:
//! 1. A [`StateBatch`] is applied as a whole; readers see all of it or nothing.
//! 2. Nothing is durable until [`StateStore::flush`] returns; after a crash the store holds exactly
//!    what it held after some batch that is not older than the last completed flush. (The log is
//!    replayed from the applied index that is itself a row of the state.)
//! 3. A [`KeyKind`] number once given is never reused.
//!
//! Not here: what the rows mean (each feature's `state.rs`), the log.
#![deny(missing_docs)]

mod api;
mod error;
mod key_kind;
pub mod memory;
#[cfg(feature = "rocks")]
pub mod rocks;

pub use api::{Row, RowKey, StateBatch, StateOp, StateSnapshot, StateStats, StateStore};
pub use error::StateError;
pub use key_kind::KeyKind;
