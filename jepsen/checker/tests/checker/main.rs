//! Tests of the checkers: histories of a true order pass, each planted violation is found by its
//! name, and small histories get the answer of a search through all orders.
#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::ptr_arg)] // plants share one signature; some of them insert and remove

mod checkpoints;
mod planted;
mod random;
mod streams;
