//! The engine of function apps against a cluster in memory: real state machines, fake workers.
#![allow(clippy::unwrap_used)]

mod apps;
mod fakes;
mod http;
mod node;
mod scaling;
mod stream;
mod timers;
mod world;
