//! What the leader does once a round is committed and visible. Every replica produces effects, the
//! one that leads performs them; each may be lost with a leader and done twice, so each only says
//! "look": the gateway then asks for what it has missed.

use crate::rows::{ConnectionPlace, DeviceKey};

/// Why a gateway should look at a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// It is over: close the connection.
    Fenced,
    /// The desired properties have changed.
    Desired,
    /// There are commands.
    Commands,
}

/// Something to do after commit.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Tell the gateway of a session.
    Wake {
        /// The connection that has (or had) the session.
        place: ConnectionPlace,
        /// Whose session.
        key: DeviceKey,
        /// The session's epoch.
        epoch: u64,
        /// Why.
        wake: Wake,
    },
    /// There are events that should become records of the stream.
    Outbox,
}
