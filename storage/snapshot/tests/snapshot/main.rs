//! Snapshots from a sender's state and log to a receiver's: transfer, damage, crashes.
#![allow(clippy::unwrap_used)]

mod crash;
mod hostile;
mod kit;
mod transfer;
