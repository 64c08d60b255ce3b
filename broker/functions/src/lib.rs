//! Function apps: code of the hub's users that runs beside the data.
//!
//! A node makes one [`Functions`], runs it, and mounts it on its HTTPS front. Apps are stored in the cluster
//! (`store`, `manifest`), every node hosts all of them (`functions`, `app`), and starts a worker
//! (`broker/workers`, `broker/wasm`) only when there is something to do. What starts functions: the stream
//! (`stream`), HTTP and webhooks (`http`), timers (`timers`), realtime clients (`signalr`). What they want
//! done is read by `effects`, sorted by `placing`, and done by `stream/commit` or `outside`.
//!
//! Invariants:
//! 1. What a batch of records causes in its own partition commits with its checkpoint: once (design D7, P15).
//!    Everything else is done at least once, with an id that is the same when it is done again.
//! 2. The order of a partition is kept, and a record is never left behind silently: it is processed or it
//!    is poison in the same stream.
//! 3. A timer's tick runs once in the cluster while nothing fails, and at least once.
//! 4. What an app's author writes can't make a node exceed its bounds (`options`).
//!
//! Not here: how workers run (`broker/workers`), who leads what (`Cluster`), the real-time tier.
#![deny(missing_docs)]

mod app;
mod archive;
mod civil;
mod core;
mod direct;
mod effects;
mod error;
mod expression;
mod functions;
mod host_json;
mod http;
mod ids;
mod inputs;
mod local;
mod logs;
mod management;
mod manifest;
mod ncrontab;
mod options;
mod outside;
mod peers;
mod placing;
mod realtime;
mod records;
mod retry;
mod route;
mod signalr;
mod spec;
mod state;
mod stats;
mod store;
mod stored;
mod stream;
mod timers;

pub use archive::pack;
pub use core::Printer;
pub use error::FunctionsError;
pub use functions::Functions;
pub use logs::KeptLine;
pub use ncrontab::{Schedule, ScheduleError};
pub use options::FunctionsOptions;
pub use realtime::{
    ClientEvent, ClientReply, ConnectionInfo, Destination, GroupAction, Member, RealtimeError, RealtimeOut,
};
pub use stats::FunctionNumbers;
