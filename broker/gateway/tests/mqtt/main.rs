//! The MQTT front over streams in memory, against a hub whose partitions apply commands for real.
//!
//! Time is virtual: it moves only when nothing else can, so a test that waits a minute takes none.
#![allow(clippy::unwrap_used)]

mod backpressure;
mod chaos;
mod client;
mod commands;
mod connecting;
mod counts;
mod fences;
mod flushing;
mod framing;
mod hub;
mod listening;
mod order;
mod producers;
mod reads;
mod sessions;
mod takeover;
mod timing;
mod topics;
mod twins;
mod world;
