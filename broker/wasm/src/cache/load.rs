//! The one unsafe call of this crate: turning machine code from the cache into a component.
//!
//! `host.rs` calls it with what `Cache::read` returned.
#![allow(unsafe_code)]

use wasmtime::Engine;
use wasmtime::component::Component;

/// Loads machine code that [`Cache::read`](super::Cache::read) has returned.
///
/// # Errors
/// When it was made by another version of the engine, or with other settings.
pub(crate) fn load(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `Component::deserialize` needs bytes that `Component::serialize` has made and nobody has
    // changed. `Cache::read` returns only bytes whose HMAC, under a key that this user alone can read, is
    // that of what `WasmHost::prepare` wrote after such a call; they lie in our memory, so nobody changes
    // them after the check. That the engine's version and settings fit is checked by wasmtime.
    unsafe { Component::deserialize(engine, code) }
}
