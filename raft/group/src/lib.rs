//! One openraft group: type config, adapters onto storage, proposals and reads.
//!
//! `raft/driver` starts one [`Group`] per partition (and one for the control group) and feeds it
//! peer requests; `broker/` proposes commands and reads through it. Consensus itself is openraft;
//! here is what connects it to our log, our state store and our state machines.
//!
//! Invariants:
//! 1. Votes, appends, truncations and purges all go through `fleetline-log`, in the order in which
//!    openraft asks for them, and are reported done only when they are durable.
//! 2. Nothing is applied before it is durable in this node's own log ([`durable`]): after a crash
//!    the log always covers the state.
//! 3. State rows and the applied log id are written as one batch.
//! 4. A timeout or a lost leader after a proposal is [`ProposeError::Unknown`], never a failure.
//! 5. A state machine that meets an entry of a version it doesn't know stops the replica; it never
//!    skips.
//!
//! Not here: which groups exist, peers and their sockets (`raft/driver`, `raft/transport`), what
//! commands mean (`broker/`).
#![deny(missing_docs)]

mod blocking;
mod config;
mod convert;
mod durable;
mod error;
mod group;
#[cfg(test)]
mod kit;
mod log_store;
mod machine;
mod read_rounds;
mod runtime;
mod snapshots;
mod state_machine;
#[cfg(test)]
mod storage_suite;
mod types;

pub use blocking::Blocking;
pub use config::GroupConfig;
pub use convert::{
    EntryKind, entry_from_log, entry_to_log, log_id_from_raft, log_id_to_raft, vote_from_parts, vote_parts,
};
pub use error::{GroupError, ProposeError};
pub use group::{Confirmed, Group, GroupOptions, GroupStatus, ReplicaLag};
pub use log_store::EntryFetcher;
pub use machine::{Machine, MachineError};
pub use runtime::{FleetRuntime, align_ticks, seed_this_thread};
pub use snapshots::{SnapshotHandle, SnapshotStore, raft_meta};
pub use types::{
    AppendRequest, AppendResponse, Command, Entry, LogIdOf, Membership, NetworkSnapshot, Raft, Reply,
    SnapshotMeta, StoredMembership, TypeConfig, Vote,
};
