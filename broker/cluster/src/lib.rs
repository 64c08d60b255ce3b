//! Members, placement and settings: the replicated state of the control group.
//!
//! Called by `broker/node` on every node, in log order, and pure: no clock, no I/O beyond rows.
//! `placement` says where replicas should lie, `reconcile` which step brings one partition closer
//! to that; both are functions that `broker/node` calls and whose results it proposes or does.
//!
//! Invariants:
//! 1. A node id is given once and never again, also after the node was removed.
//! 2. A placement changes only against the epoch that its proposer saw.
//! 3. A node that holds a placed replica, or may still hold one from an earlier placement, is removed
//!    only by force; one that holds the only copy of a partition is not removed at all.
//! 4. The feature level rises only when every node knows it.
//!
//! Not here: who leads, who is alive (`broker/node` tells `placement`), moving data (`raft`).
#![deny(missing_docs)]

mod command;
pub mod placement;
pub mod reconcile;
mod reply;
mod state;

pub use command::{ControlCommand, HUB_SETTING_BYTES_MAX};
pub use reply::{ControlError, ControlReply};
pub use state::{ControlState, HubSetting, Member, Placement, Settings, Token};
