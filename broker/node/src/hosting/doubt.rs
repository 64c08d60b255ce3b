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

#[cfg(test)]
mod tests {
    use fleetline_cluster::ControlCommand;
    use fleetline_log::NodeLog;
    use fleetline_raft_transport::memory::{MemNetwork, MemOptions};

    use super::super::test_kit::start;
    use super::*;
    use crate::control::ControlMachine;

    async fn place(control: &Control, partition: u32) {
        let partition = PartitionId(partition);
        let command =
            ControlCommand::SetPlacement { partition, replicas: vec![NodeId(1)], expected_epoch: 0 };
        control.propose(&command).await.unwrap();
    }

    async fn follow(hosting: &Hosting, control: &Control) {
        hosting.follow(&control.view(), &mut BTreeSet::new()).await.unwrap();
    }

    /// A partition that was placed when the node was back may have been here, and isn't made anew; one
    /// that is placed later can't have been. Until that is known, neither is touched.
    #[tokio::test]
    async fn first_replicas_wait_for_the_control_group() {
        let (hosting, log) = start(&MemNetwork::new(MemOptions::default()), 1).await;
        let (machine, view) = ControlMachine::new();
        let group = hosting.start_group(GroupId::CONTROL, Box::new(machine)).await.unwrap();
        group.initialize(&BTreeSet::from([NodeId(1)])).await.unwrap();
        let control = Control::new(hosting.driver.clone(), view);
        let make = [
            ControlCommand::Bootstrap {
                cluster: "c".to_owned(),
                partitions: 2,
                replicas: 1,
                authority_pem: String::new(),
                authority_key_pem: String::new(),
            },
            ControlCommand::AddNode {
                disk_id: "d".to_owned(),
                client_address: "c1".to_owned(),
                peer_address: "p1".to_owned(),
                zone: String::new(),
                feature_level: 1,
            },
        ];
        for command in &make {
            control.propose(command).await.unwrap();
        }
        place(&control, 0).await;
        log.set_doubt();
        follow(&hosting, &control).await;
        assert!(hosting.partition(PartitionId(0)).is_none());

        hosting.end_doubt(&control).await.unwrap();
        assert!(!log.doubts_unknown());
        place(&control, 1).await;
        follow(&hosting, &control).await;
        let [lost, new] = [0, 1].map(|id| hosting.partition(PartitionId(id)).unwrap().group().clone());
        new.applied().wait_for(|applied| applied.is_some()).await.unwrap();
        assert_eq!((log.state(lost.id()).last, lost.is_leader()), (None, false));
        assert!(new.is_leader() && !log.state(new.id()).amnesia && log.state(lost.id()).amnesia);
    }
}
