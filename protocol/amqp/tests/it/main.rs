//! The engine and its codec against scripted peers, another crate's codec and client, and hostile bytes.
#![allow(clippy::unwrap_used)]

mod client;
mod codec;
mod hostile;
mod kit;
mod links;
mod opening;
mod samples;
mod sessions;
mod transfers;
