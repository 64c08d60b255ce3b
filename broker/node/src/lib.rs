//! A node: roles, start order, shutdown; the one crate that sees all others.
//!
//! `broker/server` calls [`Node::start`] and waits. Inside: [`node`] puts the parts together,
//! `control` runs the control group, `hosting` starts the partitions that the placement gives this
//! node, `duties` are its periodic loops (placement, reconciliation, retention, flush, expiry), and
//! `hub` answers the fronts.
//!
//! Invariants:
//! 1. The log is opened first and closed last: its lock is what keeps a second process out.
//! 2. A node acts on the control state that it has applied; what needs a fresh one goes through the
//!    control group's leader (P16).
//! 3. Replicas are never deleted on suspicion: a group that the placement doesn't give this node goes
//!    on until its own membership says that it has no part in it.
//! 4. Shutdown hands leadership over before it stops anything.
#![deny(missing_docs)]

mod access;
mod announce;
mod anywhere;
mod certificates;
mod control;
mod data_dir;
mod devices;
mod duties;
mod error;
mod fronts;
mod hosting;
mod hub;
mod joining;
mod node;
mod objects;
mod status;
mod tiers;

pub use data_dir::{DataDir, Identity};
pub use error::NodeError;
pub use joining::{JoinPlan, fetch_authority, prepare_join};
pub use node::Node;
