//! Tests of the crate through its public names, one module per subject.
#![allow(clippy::unwrap_used)]

mod differential;
mod golden;
mod handshake;
mod hostile;
mod kit;
mod negotiate;
mod rest;
mod resume;
mod round_trip;
mod session;
mod token;
mod upstream;
