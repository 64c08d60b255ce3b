//! The contract of the codec: samples of every packet, the clauses that decoding must enforce, what
//! hostile bytes may do, round trips, and agreement with another implementation.
#![allow(clippy::unwrap_used)]

mod clauses;
mod clauses_connect;
mod differential;
mod generate;
mod hostile;
mod kit;
mod round_trip;
mod samples;
