//! What all fronts for devices share: requests to the leaders, the hub's settings, live connections,
//! and the way of telemetry into the stream.
//!
//! ```text
//! mqtt, http ──records──► ingest (one open batch a partition) ──► DeviceHub::append ──► leader
//!      │  ◄──acks, wakes── connections ◄──wakes, calls── other nodes' leaders and services
//!      └──DeviceHub::ask──► leader
//! ```
//!
//! Invariants:
//! 1. A gateway holds no truth: what it remembers of a session is its epoch, and the leader (or the
//!    log itself) refuses what comes from an older one.
//! 2. Records of one connection reach the log in the order in which they came, and are
//!    acknowledged in that order, once a quorum has them.
//! 3. Everything that waits is bounded; a full partition stops the reading of the sockets that feed it.

pub mod connections;
pub mod hub;
pub mod ingest;
pub mod login;
pub mod record;
pub mod settings;

use std::sync::Arc;

use fleetline_types::{PartitionId, partition_of_key};

use connections::Connections;
use hub::DeviceHub;
use ingest::Ingest;

/// What the fronts of a node share.
pub struct DeviceGateway {
    /// The leaders of partitions, wherever they are.
    pub hub: Arc<dyn DeviceHub>,
    /// Live connections of this node.
    pub connections: Arc<Connections>,
    /// Telemetry on its way.
    pub ingest: Arc<Ingest>,
}

impl DeviceGateway {
    /// The partition of a device.
    pub fn partition_of(&self, device: &str) -> PartitionId {
        partition_of_key(device.as_bytes(), self.hub.partitions())
    }
}
