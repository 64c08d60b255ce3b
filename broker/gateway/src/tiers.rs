//! What the other tiers of a node (realtime, functions, the console, AMQP) ask of the cluster.
//!
//! They have the same two doors as the fronts for devices and clients ([`crate::hub::Hub`],
//! [`crate::devices::hub::DeviceHub`]), and this one: raw settings of the hub, and calls between the
//! nodes of a tier. The node gives them a `Hub` that answers for every partition, wherever its replicas
//! lie, so a tier never looks for a leader itself.
//!
//! Not here: what tiers say to each other; the bytes are theirs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_types::NodeId;
use tokio::sync::watch;

use crate::devices::hub::DeviceHub;
use crate::hub::{Hub, HubError};

/// Tiers that call each other between nodes. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Tier {
    /// Realtime hubs.
    Realtime = 1,
    /// Function apps.
    Functions = 2,
    /// Event Hubs receivers over AMQP: epochs.
    Amqp = 3,
}

impl Tier {
    /// All tiers.
    pub const ALL: [Tier; 3] = [Tier::Realtime, Tier::Functions, Tier::Amqp];

    /// The tier of this number.
    pub fn from_number(number: u32) -> Option<Tier> {
        Tier::ALL.into_iter().find(|tier| *tier as u32 == number)
    }
}

/// A raw setting of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawSetting {
    /// Its name.
    pub name: String,
    /// Its version, for [`DeviceHub::put_setting`]; 0 when it was never set.
    pub version: u64,
    /// Its value; empty when it was removed.
    pub value: Bytes,
}

/// Answers the same tier of other nodes.
#[async_trait]
pub trait TierService: Send + Sync + 'static {
    /// Answers a call; a text is a refusal before anything was done.
    async fn on_call(&self, from: NodeId, body: Bytes) -> Result<Bytes, String>;
}

/// The cluster, as tiers see it.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// This node.
    fn node(&self) -> NodeId;

    /// Nodes that this one has a connection to, and itself, in order.
    fn alive(&self) -> Vec<NodeId>;

    /// The stream's partitions, wherever they are.
    fn hub(&self) -> Arc<dyn Hub>;

    /// Devices, settings, documents and commits.
    fn devices(&self) -> Arc<dyn DeviceHub>;

    /// A raw setting as this node knows it.
    fn setting(&self, name: &str) -> RawSetting;

    /// All raw settings whose names begin so.
    fn settings_with(&self, prefix: &str) -> Vec<RawSetting>;

    /// Changes whenever a setting may have changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Has `service` answer the calls of a tier to this node; to be called once, before the node listens.
    fn serve_tier(&self, tier: Tier, service: Arc<dyn TierService>);

    /// Calls a tier on another node, or on this one. At most 4 MiB each way.
    ///
    /// # Errors
    /// `Unavailable` when it was not asked; `Unknown` when it may have been.
    async fn call_tier(
        &self,
        node: NodeId,
        tier: Tier,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, HubError>;
}
