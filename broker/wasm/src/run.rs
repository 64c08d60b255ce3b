//! Runs one batch in a fresh instance and says how it ended.
//!
//! Called by `worker.rs` on a blocking thread that holds a [`Permit`](crate::host::Permit). Nothing of an
//! instance survives: memory goes back to the pool, which clears it.
//!
//! ```text
//!   instantiate ─► handle-batch ─┬─ ok(effects)      Returned
//!        │              │        └─ err(text)        Failed
//!        └──────────────┴─ trap, limit, cancel ────► Failed, TimedOut, Cancelled
//! ```

use fleetline_worker::FunctionError;
use wasmtime::{Store, Trap, UpdateDeadline, WasmBacktrace};

use crate::call::{Call, Stopped};
use crate::host::{Prepared, WasmHost};
use crate::limits::{HANDED_OVER_BYTES_MAX, MESSAGE_BYTES_MAX, cut};
use crate::wit::types::{Batch, Effect};

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The function returned these effects.
    Returned(Vec<Effect>),
    /// It said that it failed, or it trapped.
    Failed(FunctionError),
    /// It was stopped at its deadline.
    TimedOut,
    /// It was stopped because it was given up.
    Cancelled,
}

/// Makes an instance and drops it: what is made once for a component (its memory's image, pages of its
/// code) is there then, and the first batch doesn't pay for it. `Err` says why there can't be one.
pub(crate) fn prime(host: &WasmHost, prepared: &Prepared, call: Call) -> Result<(), String> {
    let mut store = store(host, call);
    let _ticking = host.tick();
    let made = prepared.instantiate(&mut store).map(drop);
    store.into_data().log.finish();
    made.map_err(|error| format!("the component does not start: {}", error.root_cause()))
}

/// Runs `batch`; gives back `call` with what the component did to it.
pub(crate) fn run(host: &WasmHost, prepared: &Prepared, batch: &Batch, call: Call) -> (Ended, Call) {
    let mut store = store(host, call);
    let _ticking = host.tick();
    let outcome =
        prepared.instantiate(&mut store).and_then(|function| function.call_handle_batch(&mut store, batch));
    let mut call = store.into_data();
    call.log.finish();
    let ended = match (outcome, call.stopped) {
        (Ok(Ok(effects)), _) => Ended::Returned(effects),
        (Ok(Err(message)), _) => Ended::Failed(failure("FunctionFailed", message, String::new())),
        (Err(_), Some(Stopped::TimedOut)) => Ended::TimedOut,
        (Err(_), Some(Stopped::Cancelled)) => Ended::Cancelled,
        (Err(error), Some(Stopped::OutOfMemory)) => Ended::Failed(trapped("OutOfMemory", &error)),
        (Err(error), None) => Ended::Failed(trapped("Trap", &error)),
    };
    (ended, call)
}

fn store(host: &WasmHost, call: Call) -> Store<Call> {
    let mut store = Store::new(host.engine(), call);
    store.limiter(|call| call);
    store.set_hostcall_fuel(HANDED_OVER_BYTES_MAX);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut store| {
        Ok(match store.data_mut().must_stop() {
            true => UpdateDeadline::Interrupt,
            false => UpdateDeadline::Continue(1),
        })
    });
    store
}

fn trapped(kind: &str, error: &wasmtime::Error) -> FunctionError {
    let stack = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string).unwrap_or_default();
    let message = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    };
    failure(kind, message, stack)
}

/// What the engine gets of a failure.
pub(crate) fn failure(kind: &str, message: String, stack: String) -> FunctionError {
    let (message, stack) = (cut(message, MESSAGE_BYTES_MAX), cut(stack, MESSAGE_BYTES_MAX));
    FunctionError { message, stack, kind: kind.to_owned() }
}
