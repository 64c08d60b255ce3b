//! The HTTPS front over raw HTTP text, against a hub whose partitions apply commands for real.
#![allow(clippy::unwrap_used)]

mod client;
mod hostile;
mod hub;
mod messages;
mod methods;
mod registry;
mod settings;
mod twins;
mod uploads;
mod websocket;
mod world;
