//! The client against real QUIC fronts on loopback, with a broker in memory behind them that can be
//! told to misbehave.

// Tests may unwrap; clippy does not see that helpers of an integration test are tests.
#![allow(clippy::unwrap_used)]

mod fake;
mod nodes;

mod admin;
mod consume;
mod faults;
mod group;
mod produce;
mod wire;
