//! What a log that has lost its tail doesn't know: was a group never here, or was it lost whole?
//!
//! A new replica of a group that lives elsewhere needs no answer: it doesn't vote until a leader has
//! filled it. The first replica of a new group does: nobody else can fill it, and if it was here before,
//! making it again would throw away what it had acknowledged. So first replicas wait until the control
//! group, asked after the start, has said which partitions had been placed by then. Those may have been
//! here, and one that is lost stays without a leader (`Group::initialize` reports it); those that are
//! placed later can't have been.

use std::collections::BTreeSet;
use std::time::Duration;

use fleetline_log::LogError;
use fleetline_types::{GroupId, LogId, NodeId, PartitionId};

use super::Hosting;
use crate::control::Control;
use crate::error::NodeError;

/// How long the control group may take to answer, and its entries to arrive.
const PATIENCE: Duration = Duration::from_secs(2);

impl Hosting {
    /// Whether it isn't known yet if the partition was here before.
    pub(super) fn is_doubtful(&self, partition: PartitionId) -> bool {
        let log = self.driver.log();
        log.doubts_unknown() && log.state(GroupId::of_partition(partition)).last.is_none()
    }

    /// Tells a log that is in doubt which groups may have been here, as soon as the control group can be
    /// asked; nothing when it isn't in doubt.
    pub(crate) async fn end_doubt(&self, control: &Control) -> Result<(), NodeError> {
        if !self.driver.log().doubts_unknown() {
            return Ok(());
        }
        let nodes = control.view().nodes.keys().copied().collect();
        match self.control_since_start(&nodes).await {
            Ok(()) => self.doubt_only(control.view().placements.keys().copied()).await,
            Err(reason) => {
                tracing::info!(
                    reason,
                    "not known yet which partitions were here before the log lost its tail"
                );
                Ok(())
            }
        }
    }

    /// Returns once the control state here holds all that was committed before the call.
    async fn control_since_start(&self, nodes: &BTreeSet<NodeId>) -> Result<(), String> {
        let said = self.driver.confirm(GroupId::CONTROL, nodes, PATIENCE).await?;
        let group = self.driver.group(GroupId::CONTROL).ok_or("control group is stopping")?;
        let mut applied = group.applied();
        let arrived = |applied: &Option<LogId>| {
            applied.is_some_and(|id| id.index >= said.last.index || id.term > said.last.term)
        };
        let waited = tokio::time::timeout(PATIENCE, applied.wait_for(arrived)).await;
        waited.map_err(|_| "control state is behind".to_owned())?.map(drop).map_err(|e| e.to_string())
    }

    /// Ends the doubt about all partitions but `placed`, those that were placed when this node was back.
    async fn doubt_only(&self, placed: impl Iterator<Item = PartitionId>) -> Result<(), NodeError> {
        let doubtful: Vec<GroupId> = placed.map(GroupId::of_partition).collect();
        let (sender, trusted) = tokio::sync::oneshot::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        self.driver.log().trust_unknown_groups(&doubtful, done)?;
        let closed = || LogError::Poisoned { reason: "log writer has gone".to_owned() };
        trusted.await.unwrap_or_else(|_| Err(closed()))?;
        tracing::info!(doubtful = doubtful.len(), "log knows again what was never here");
        Ok(())
    }
}
