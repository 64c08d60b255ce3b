//! Planted bugs: each is one line that a release could have wrong, put at a seam of the simulation, so that
//! no crate of the product knows of it. A test shows that each is found (`tests/plants.rs`); a net that
//! catches none of them has holes.

mod log;
mod machine;

pub(crate) use log::HastyLog;
pub(crate) use machine::PlantedMachine;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A node acknowledges a batch that it has proposed, before a quorum has it.
    AcknowledgeBeforeQuorum,
    /// The log says that entries are durable before they are on disk.
    AcknowledgeBeforeDurable,
    /// Producers aren't recognised, so a batch that is sent again is stored again.
    ForgetProducers,
    /// Any node answers for the checkpoint, as of what it has applied.
    ReadCheckpointAnywhere,
    /// A checkpoint is answered for and its row isn't written.
    ForgetCheckpoint,
    /// A checkpoint of an owner that was replaced is accepted.
    ForgetFence,
}
