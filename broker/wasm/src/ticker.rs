//! Moves the engine's epoch on while components run, so that each is looked at every [`TICK`].
//!
//! Compiled code compares the epoch at loops and calls; when it has passed, the callback in `run.rs`
//! decides whether the component goes on. The thread sleeps without waking up while nothing runs:
//! an idle node stays idle.
//!
//! `host.rs` owns the ticker; each run holds a [`Ticking`]. Dropping the ticker ends its thread.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use wasmtime::EngineWeak;

/// How often a running component is looked at: how much later than its limit it may end.
pub(crate) const TICK: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
struct Shared {
    work: Mutex<Work>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    running: usize,
    is_over: bool,
}

/// The thread that ticks.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let its = shared.clone();
        let thread =
            std::thread::Builder::new().name("wasm-epoch".into()).spawn(move || tick(&its, &engine))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Ticks at least until what is returned is dropped.
    pub(crate) fn run(&self) -> Ticking {
        let mut work = self.shared.work.lock();
        work.running += 1;
        if work.running == 1 {
            self.shared.changed.notify_all();
        }
        Ticking(self.shared.clone())
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.work.lock().is_over = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It only fails when the thread panicked; then it has ended too.
            drop(thread.join());
        }
    }
}

/// Something runs.
#[derive(Debug)]
pub(crate) struct Ticking(Arc<Shared>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.work.lock().running -= 1;
    }
}

fn tick(shared: &Shared, engine: &EngineWeak) {
    let mut work = shared.work.lock();
    loop {
        if work.is_over {
            return;
        }
        if work.running == 0 {
            shared.changed.wait(&mut work);
            continue;
        }
        shared.changed.wait_for(&mut work, TICK);
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
    }
}
