//! Calls to this tier on other nodes.

use std::sync::Arc;
use std::time::Duration;

use fleetline_gateway::devices::hub::Leaders;
use fleetline_gateway::hub::HubError;
use fleetline_gateway::tiers::{Cluster, Tier};
use fleetline_types::{NodeId, PartitionId, Term};
use prost::Message;

use crate::wire::{Answer, Ask, Call};

/// The other nodes, and who leads what.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) me: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) call_wait: Duration,
    leaders: tokio::sync::watch::Receiver<Leaders>,
}

impl Peers {
    pub(crate) fn new(cluster: Arc<dyn Cluster>, call_wait: Duration) -> Peers {
        let devices = cluster.devices();
        let (incarnation, leaders) = (devices.place().incarnation, devices.leaders());
        Peers { me: cluster.node(), cluster, incarnation, call_wait, leaders }
    }

    /// Asks another node.
    pub(crate) async fn call(&self, node: NodeId, ask: Ask) -> Result<Answer, HubError> {
        self.call_within(node, ask, self.call_wait).await
    }

    /// Asks another node, which may take this long.
    pub(crate) async fn call_within(
        &self,
        node: NodeId,
        ask: Ask,
        limit: Duration,
    ) -> Result<Answer, HubError> {
        let body = Call { ask: Some(ask) }.encode_to_vec().into();
        let answer = self.cluster.call_tier(node, Tier::Realtime, body, limit).await?;
        Answer::decode(answer)
            .map_err(|error| HubError::Unknown(format!("the answer can't be read: {error}")))
    }

    /// Who leads a partition, as far as this node knows.
    pub(crate) fn leader(&self, partition: PartitionId) -> (Option<NodeId>, Term) {
        self.leaders.borrow().get(partition.0 as usize).copied().unwrap_or((None, Term::default()))
    }

    /// The term in which this node leads a partition.
    pub(crate) fn leads(&self, partition: PartitionId) -> Option<Term> {
        match self.leader(partition) {
            (Some(leader), term) if leader == self.me => Some(term),
            _ => None,
        }
    }

    /// A value to wait on for changes of leaders.
    pub(crate) fn watch_leaders(&self) -> tokio::sync::watch::Receiver<Leaders> {
        self.leaders.clone()
    }

    /// Nodes that answer, this one included.
    pub(crate) fn alive(&self) -> Vec<NodeId> {
        self.cluster.alive()
    }

    /// Whether there is no other node to ask.
    pub(crate) fn is_alone(&self) -> bool {
        self.cluster.alive().iter().all(|node| *node == self.me)
    }
}
