//! Functions as WebAssembly components, run inside the node.
//!
//! A component answers a batch with effects (`wit/fleetline.wit`). It starts in well under a millisecond,
//! gets a fresh instance for each batch, and reaches nothing of the node but its log, its state and its
//! settings. To the functions engine it is one more kind of worker: [`WasmKind`] implements the traits of
//! `broker/workers`.
//!
//! ```text
//!   engine ── Invocation ─► worker.rs ─► batch.rs ─► run.rs ─► the component
//!                              ▲            host.rs: engine, cache, who may run    │
//!             InvocationResult └── effects.rs, state.rs ◄──── effects ─────────────┘
//! ```
//!
//! Invariants:
//! 1. Nothing blocks a task: compiling and running have threads of their own, in bounded number.
//! 2. A component is bounded in time, memory, what it hands over and what it logs.
//! 3. Effects leave a component as its result only: one that fails or is stopped has none.
//! 4. Machine code comes from our compiler only (`cache.rs`).
//!
//! Not here: triggers, checkpoints, retries (`broker/functions`); doing the effects.
#![deny(missing_docs)]

mod app;
mod batch;
mod cache;
mod call;
mod effects;
mod error;
mod host;
pub mod limits;
mod options;
mod run;
mod state;
mod ticker;
mod wasi;
mod wit;
mod worker;

pub use error::WasmError;
pub use host::WasmHost;
pub use options::WasmOptions;
pub use state::{STATE, State, StateError, apply_changes};
pub use worker::WasmKind;
