//! Node-to-node messages and their version ladder.
//!
//! Used by `raft/driver`, which puts the heads into frames of `raft/transport`. A head is a prost
//! message; the payload bytes of entries and snapshots follow it raw in the same frame and are
//! never copied into a message. No I/O and no meaning here: only bytes and numbers.
//!
//! Version ladder: [`MessageVersion`] has one variant per wire version, each with what it changed.
//! Two nodes speak the highest version that both know; the transport's hello settles it.
#![deny(missing_docs)]

mod body;
mod kind;
mod version;

/// The messages that `proto/peer.proto` defines.
#[allow(missing_docs)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/fleetline.peer.rs"));
}

pub use body::{BodyError, split_body};
pub use kind::MessageKind;
pub use version::MessageVersion;
