//! The types and traits of `wit/fleetline.wit`, generated from it.
#![allow(missing_docs)]

wasmtime::component::bindgen!({
    path: "wit",
    world: "function",
});

pub use fleetline::functions::{logging, settings, state, types};
