//! Real Python and Node workers with apps as their authors would write them (`tests/apps`).
//!
//! Needs the folder that `broker/workers/setup.sh` makes; says so when it is missing.

#![allow(clippy::unwrap_used)]

mod failures;
mod gate;
mod kit;
mod node;
mod python;
mod stop;
