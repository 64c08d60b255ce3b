//! What the clients of the device workload invoked and learnt. Times are ticks: one a note, so that they
//! order everything that happened.

use std::collections::{BTreeMap, BTreeSet};

use fleetline_devices::Settle;

use super::register::RegisterOp;

/// From when to when an operation ran; `completed` is `None` when its outcome is unknown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) invoked: u64,
    pub(crate) completed: Option<u64>,
}

impl Span {
    /// Whether it was over before the other began.
    pub(crate) fn is_before(self, other: Span) -> bool {
        self.completed.is_some_and(|completed| completed < other.invoked)
    }
}

/// A session that was opened.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) device: String,
    pub(crate) epoch: u64,
    pub(crate) span: Span,
    /// Records at this offset and behind it were committed after the session was opened.
    pub(crate) head: u64,
}

/// Something that was accepted in a session.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    pub(crate) device: String,
    pub(crate) epoch: u64,
    pub(crate) span: Span,
}

/// A device was disabled.
#[derive(Clone, Debug)]
pub(crate) struct Disabled {
    pub(crate) device: String,
    /// Sessions of lower epochs are over.
    pub(crate) version: u64,
    pub(crate) span: Span,
    /// As with [`Opened`].
    pub(crate) head: u64,
}

/// A command that was taken under a lock.
#[derive(Clone, Debug)]
pub(crate) struct Locked {
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) span: Span,
}

/// A lock's holder said what became of the command.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) id: String,
    pub(crate) token: String,
    pub(crate) how: Settle,
    pub(crate) span: Span,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct History {
    tick: u64,
    /// Changes that were acknowledged.
    pub(crate) changes: u64,
    /// By name: twins and identities.
    pub(crate) registers: BTreeMap<String, Vec<RegisterOp>>,
    pub(crate) opened: Vec<Opened>,
    pub(crate) used: Vec<Used>,
    pub(crate) disabled: Vec<Disabled>,
    /// Devices that may have been enabled.
    pub(crate) enabled: Vec<(String, Span)>,
    /// Bodies of all records that a gateway sent.
    pub(crate) sent: BTreeSet<String>,
    /// Bodies of acknowledged records, and their offsets where they are known.
    pub(crate) stored: BTreeMap<String, Option<u64>>,
    /// Commands, by id; `true` when their sending was acknowledged.
    pub(crate) commands: BTreeMap<String, bool>,
    pub(crate) locked: Vec<Locked>,
    pub(crate) settled: Vec<Settled>,
}

impl History {
    /// The next tick.
    pub(crate) fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    /// Ends what was invoked then.
    pub(crate) fn span(&mut self, invoked: u64) -> Span {
        Span { invoked, completed: Some(self.tick()) }
    }

    /// A value that nobody has used.
    pub(crate) fn value(&mut self) -> String {
        format!("v{}", self.tick())
    }

    pub(crate) fn register(&mut self, name: String, op: RegisterOp) {
        self.registers.entry(name).or_default().push(op);
    }
}
