//! The console on a hub in memory.
#![allow(clippy::unwrap_used)]

mod devices;
mod feed;
mod front;
mod hub;
mod sign_in;
mod status;
mod telemetry;
mod world;
