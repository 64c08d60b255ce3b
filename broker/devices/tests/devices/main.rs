//! Scripts and properties of `fleetline_devices::DeviceState`, on the state store in memory.
//!
//! Each script drives one partition's devices as the log would, and asserts on replies, effects, events and
//! what queries read. Around each entry `kit` checks what always holds: a refused command has changed no
//! row, and the head counts what is there.
#![allow(clippy::unwrap_used)]

mod commands;
mod decoding;
mod documents;

mod feedback;
mod fences;
mod kit;
mod limits;
mod model;

mod outbox;
mod registry;
mod replicas;

mod sessions;
mod steps;

mod twins;
mod uploads;
