//! The outside world as traits: disk, clock, entropy.
//!
//! Three of the six doors through which anything random enters a node (the others are the peer
//! network, client bytes and the order of tasks). Storage and broker code takes these traits and
//! nothing else, so that a whole cluster can run on a memory disk with a virtual clock from one
//! seed. `real` is the machine; `memory` is a disk in memory that can lose power, fill up and rot.
//!
//! Contract of [`Disk`] and [`DiskFile`] (one suite, `tests/contract.rs`, runs on both):
//! 1. A write is readable at once by every handle, and durable only after `sync_data` of that file.
//! 2. A created, renamed or removed name is durable only after `sync_dir` of its folder.
//! 3. After any error of `sync_data` nothing may be assumed of the writes since the last good one.
//!
//! Not here: formats, retries, policy. A caller that sees an error decides.
#![deny(missing_docs)]

mod clock;
mod disk;
mod entropy;
pub mod memory;
pub mod real;

pub use clock::{Clock, Monotonic};
pub use disk::{Disk, DiskFile, FileLock, OpenMode};
pub use entropy::Entropy;
