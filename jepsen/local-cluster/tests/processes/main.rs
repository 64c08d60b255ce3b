//! Tests with real processes: `cargo build -p fleetline` first, or name a binary in `FLEETLINE_BIN`.
#![allow(clippy::unwrap_used)]

mod account;
mod examples;
mod folder;
mod journal;
mod kill;
mod operations;
mod readers;
