//! A whole app of WASM functions behind the worker's seam: components written as text, made into
//! components as a toolchain would, put into an app's folder, started and invoked.
//!
//! `guest` makes components, `app` folders and invocations; the other modules are the tests.
#![allow(clippy::unwrap_used)]

mod app;
mod cache;
mod cold;
mod guest;
mod limits;
mod loading;
mod sample;
mod triggers;
mod wasi;
