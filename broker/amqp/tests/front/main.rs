//! The front over pipes in memory, against a hub whose partitions apply commands for real. The client is
//! written down frame by frame; `sdk` has one of another crate.
//!
//! Time is virtual: it moves only when nothing else can.
#![allow(clippy::unwrap_used)]

mod client;
mod consumers;
mod devices;
mod hostile;
mod hub;
mod logins;
mod sdk;
mod senders;
mod services;
mod sharing;
mod world;
