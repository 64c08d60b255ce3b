//! Functions that the stream starts: a member of a consumer group per function and node, a run per owned
//! partition.
//!
//! ```text
//!  scaler ─► member ── join, heartbeat ──► coordinator
//!              │ a run per owned partition
//!              ▼
//!  run: claim ─► read ─► batch ─► attempt ─► effects elsewhere ─► commit ─┐
//!                  ▲                │ failed: wait, again; poison         │
//!                  └────────────────┴─────────────────────────────────────┘
//! ```
//!
//! Invariants:
//! 1. Batches of a partition go one after the other, in order; the next begins once the checkpoint of the
//!    last one is stored.
//! 2. What a batch changes in its own partition is in the entry that stores its checkpoint: once, whatever
//!    fails (P15). A run that was fenced changes nothing any more.
//! 3. A record is left behind only when its function succeeded, or it is in the stream again as poison, in
//!    that same entry.

mod attempt;
mod batch;
mod commit;
mod member;
mod poison;
mod run;
mod scaler;

use std::sync::Arc;

use tokio::sync::watch;

use crate::app::App;
use crate::core::Core;
use crate::spec::{FunctionSpec, StreamTrigger, Trigger};
use crate::stats::FunctionStats;

pub(crate) use scaler::{Orders, rank, scale};

/// A function that the stream starts, on this node.
#[derive(Clone)]
pub(crate) struct StreamFunction {
    pub(crate) core: Arc<Core>,
    pub(crate) app: Arc<App>,
    pub(crate) spec: Arc<FunctionSpec>,
    pub(crate) trigger: StreamTrigger,
    /// Its consumer group.
    pub(crate) group: String,
    pub(crate) stats: Arc<FunctionStats>,
}

impl StreamFunction {
    /// `None` when something else starts it, or nothing.
    pub(crate) fn new(app: &Arc<App>, spec: &Arc<FunctionSpec>) -> Option<Arc<StreamFunction>> {
        let Some(Trigger::Stream(trigger)) = spec.active() else { return None };
        let group = trigger.group.clone().unwrap_or_else(|| group_of(&app.name, &spec.name));
        Some(Arc::new(StreamFunction {
            core: app.core.clone(),
            app: app.clone(),
            spec: spec.clone(),
            trigger: trigger.clone(),
            group,
            stats: app.core.stats(&app.name, &spec.name),
        }))
    }

    /// As records that it made name it.
    pub(crate) fn origin(&self) -> String {
        format!("{}/{}", self.app.name, self.spec.name)
    }
}

/// The consumer group of a function whose binding names none.
pub(crate) fn group_of(app: &str, function: &str) -> String {
    format!("$fn-{app}-{function}")
}

/// Says that something has to stop, softly.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// The sender says `true`, or is dropped.
    pub(crate) fn new() -> (watch::Sender<bool>, Stop) {
        let (sender, receiver) = watch::channel(false);
        (sender, Stop(receiver))
    }

    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns when it has to stop.
    pub(crate) async fn stopped(&mut self) {
        drop(self.0.wait_for(|stop| *stop).await);
    }

    /// Waits so long; `false` when it has to stop before.
    pub(crate) async fn sleep(&mut self, time: std::time::Duration) -> bool {
        if self.is_set() {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.stopped() => false,
        }
    }
}
