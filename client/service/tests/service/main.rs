//! The client against real QUIC fronts on loopback, with a broker in memory behind them that can be
//! told to misbehave.

mod fake;
mod nodes;

mod admin;
mod consume;
mod faults;
mod group;
mod produce;
mod wire;
