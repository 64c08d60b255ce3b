//! A machine in memory: a disk that can lose power, fill up, fail and rot; a clock that is set by
//! hand; random numbers from a seed.
//!
//! Used by the simulator and by the tests of everything above. Nothing here reads the real world,
//! so the same calls with the same seeds give the same bytes.
//!
//! Invariants:
//! 1. [`MemDisk`] promises what the contract of [`crate::Disk`] says and nothing beyond it: what a
//!    real disk may lose in a power cut, some seed of [`MemDisk::crash`] loses.
//! 2. What was synced before a power cut, names and bytes, is in every image of it.
//!
//! Not here: slow disks (the simulator's schedule delays calls), misdirected writes.
//!
//! How power is cut: `image.rs`. How faults are chosen: `fault.rs`.

mod clock;
mod disk;
mod entropy;
mod fault;
mod image;

pub use clock::ManualClock;
pub use disk::MemDisk;
pub use entropy::SeededEntropy;
pub use fault::{FaultKind, FaultRule};
