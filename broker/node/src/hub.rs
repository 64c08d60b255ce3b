//! The broker as fronts see it, on this node.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_auth::{Authority, JoinToken, Role, SecretHash, fingerprint_of};
use fleetline_batch::BatchHeader;
use fleetline_cluster::{ControlCommand, ControlReply};
use fleetline_devices::OUTBOX_PRODUCER;
use fleetline_env::Clock;
use fleetline_gateway::hub::{
    Appended, CheckpointInfo, ClusterChange, GroupAssignment, GroupDescription, Hub, HubError, JoinReply,
    JoinRequest, Metadata, NodeInfo, PartitionInfo, ReadFrom, ReadReply,
};
use fleetline_partition::Partition;
use fleetline_raft_driver::Driver;
use fleetline_types::{MemberId, NodeId, Offset, PartitionId, partition_of_key};

use crate::certificates::Certificates;
use crate::control::Control;
use crate::hosting::Hosting;

/// Answers the fronts of this node.
pub(crate) struct NodeHub {
    pub(crate) driver: Arc<Driver>,
    pub(crate) control: Control,
    pub(crate) hosting: Arc<Hosting>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cluster: String,
    pub(crate) partitions: u32,
    /// Names by which devices and services reach any node.
    pub(crate) hosts: Vec<String>,
    /// Of this node, and whether others of the cluster are made elsewhere.
    pub(crate) certificates: Arc<Certificates>,
    /// Connections of devices to this node.
    pub(crate) connections: std::sync::OnceLock<Arc<fleetline_gateway::devices::connections::Connections>>,
    /// The cluster knows this node's addresses, and clients on this machine find what they need.
    pub(crate) announced: AtomicBool,
}

impl NodeHub {
    /// The partition, when this node holds a replica of it; else who might.
    fn partition(&self, partition: PartitionId) -> Result<Arc<Partition>, HubError> {
        if partition.0 >= self.partitions {
            let text = format!("partition {} (the hub has {})", partition.0, self.partitions);
            return Err(HubError::NotFound(text));
        }
        self.hosting.partition(partition).ok_or_else(|| {
            let placed = self.control.view().placements.get(&partition).cloned().unwrap_or_default();
            let what = format!("partition {}", partition.0);
            HubError::NotLeader { what, leader: placed.replicas.first().copied() }
        })
    }

    /// The coordinator of a consumer group.
    fn coordinator(&self, group: &str) -> Result<Arc<Partition>, HubError> {
        self.partition(partition_of_key(group.as_bytes(), self.partitions))
    }

    fn node_infos(&self) -> Vec<NodeInfo> {
        let state = self.control.view();
        let info = |(node, member): (&NodeId, &fleetline_cluster::Member)| NodeInfo {
            node: *node,
            client_address: member.client_address.clone(),
            peer_address: member.peer_address.clone(),
            zone: member.zone.clone(),
            draining: member.draining,
            alive: *node == self.driver.node() || self.driver.transport().is_up(*node),
        };
        state.nodes.iter().map(info).collect()
    }

    async fn done(&self, command: ControlCommand) -> Result<(), HubError> {
        self.control.propose(&command).await.map(drop)
    }

    /// Makes `to` the preferred leader of a partition; its leader hands over then.
    async fn prefer_leader(&self, partition: PartitionId, to: NodeId) -> Result<(), HubError> {
        let state = self.control.view();
        let placement = state
            .placements
            .get(&partition)
            .ok_or_else(|| HubError::NotFound(format!("partition {}", partition.0)))?;
        let Some(at) = placement.replicas.iter().position(|node| *node == to) else {
            let text = format!("node {} holds no replica of partition {}", to.0, partition.0);
            return Err(HubError::Invalid(text));
        };
        let mut replicas = placement.replicas.clone();
        replicas.swap(0, at);
        let expected_epoch = placement.epoch;
        self.done(ControlCommand::SetPlacement { partition, replicas, expected_epoch }).await
    }

    /// Checks a join token against what the cluster keeps of it.
    fn check_token(&self, text: &str) -> Result<(), HubError> {
        let refused =
            || HubError::Forbidden("the join token is not valid (any more); make a new one".to_owned());
        let token = JoinToken::parse(text).map_err(|error| HubError::Invalid(error.to_string()))?;
        let state = self.control.view();
        let kept = state.tokens.get(&format!("{:016x}", token.id)).ok_or_else(refused)?;
        let hash: [u8; 32] = kept.secret_hash.as_ref().try_into().map_err(|_| refused())?;
        let valid = SecretHash(hash).matches(token.id, &token.secret) && self.clock.wall() < kept.expires;
        valid.then_some(()).ok_or_else(refused)
    }
}

/// Refuses what only nodes append: events of the hub itself, and batches that say which fence their maker
/// has applied.
fn check_client_batch(batch: &[u8]) -> Result<(), HubError> {
    let header = BatchHeader::parse(batch).map_err(|error| HubError::Invalid(error.to_string()))?;
    if header.producer.id.0 == OUTBOX_PRODUCER {
        return Err(HubError::Invalid(format!("producer id {OUTBOX_PRODUCER} is the hub's own")));
    }
    match header.fence {
        0 => Ok(()),
        fence => Err(HubError::Invalid(format!("a client's batch can't name a fence ({fence})"))),
    }
}

/// The host part of `host:port`.
pub(crate) fn host_of(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']']).to_owned()
}

#[async_trait]
impl Hub for NodeHub {
    async fn append(&self, partition: PartitionId, batch: Bytes) -> Result<Appended, HubError> {
        check_client_batch(&batch)?;
        self.partition(partition)?.append(batch).await
    }

    async fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        max_bytes: u64,
        wait: Duration,
    ) -> Result<ReadReply, HubError> {
        self.partition(partition)?.read(from, max_bytes, wait).await
    }

    async fn resolve(&self, partition: PartitionId, from: ReadFrom) -> Result<Offset, HubError> {
        self.partition(partition)?.resolve(from)
    }

    async fn partition_info(&self, partition: PartitionId) -> Result<PartitionInfo, HubError> {
        Ok(self.partition(partition)?.info())
    }

    async fn group_join(
        &self,
        group: &str,
        member: Option<MemberId>,
        client_name: &str,
        session_timeout: Duration,
    ) -> Result<GroupAssignment, HubError> {
        self.coordinator(group)?.group_join(group, member, client_name, session_timeout).await
    }

    async fn group_heartbeat(
        &self,
        group: &str,
        member: MemberId,
        _generation: u64,
        released: &[PartitionId],
    ) -> Result<GroupAssignment, HubError> {
        self.coordinator(group)?.group_heartbeat(group, member, released).await
    }

    async fn group_leave(&self, group: &str, member: MemberId) -> Result<(), HubError> {
        self.coordinator(group)?.group_leave(group, member).await
    }

    async fn group_describe(&self, group: &str) -> Result<GroupDescription, HubError> {
        self.coordinator(group)?.group_describe(group).await
    }

    async fn group_list(&self, partition: PartitionId) -> Result<Vec<String>, HubError> {
        self.partition(partition)?.group_list()
    }

    async fn claim(
        &self,
        partition: PartitionId,
        group: &str,
        member: MemberId,
        epoch: u64,
    ) -> Result<CheckpointInfo, HubError> {
        self.partition(partition)?.claim(group, member, epoch).await
    }

    async fn checkpoint(
        &self,
        partition: PartitionId,
        group: &str,
        epoch: u64,
        next: Offset,
    ) -> Result<(), HubError> {
        self.partition(partition)?.checkpoint(group, epoch, next).await
    }

    async fn checkpoint_read(&self, partition: PartitionId, group: &str) -> Result<CheckpointInfo, HubError> {
        self.partition(partition)?.checkpoint_read(group).await
    }

    fn metadata(&self) -> Metadata {
        let state = self.control.view();
        let leaders = (0..self.partitions).map(PartitionId).map(|partition| {
            let placed = state.placements.get(&partition).map(|p| p.replicas.clone()).unwrap_or_default();
            let known = self.hosting.partition(partition).and_then(|p| p.group().leader().0);
            (partition, known.or(placed.first().copied()), placed)
        });
        Metadata {
            cluster: self.cluster.clone(),
            node: self.driver.node(),
            partitions: self.partitions,
            nodes: self.node_infos(),
            leaders: leaders.collect(),
            control_leader: self.control.leader(),
        }
    }

    async fn local_partitions(&self) -> Vec<PartitionInfo> {
        self.hosting.all().iter().map(|partition| partition.info()).collect()
    }

    async fn change(&self, change: ClusterChange) -> Result<(), HubError> {
        match change {
            ClusterChange::Drain(node) => {
                self.done(ControlCommand::SetDraining { node, draining: true }).await
            }
            ClusterChange::Undrain(node) => {
                self.done(ControlCommand::SetDraining { node, draining: false }).await
            }
            ClusterChange::Remove { node, force } => {
                self.done(ControlCommand::RemoveNode { node, force }).await
            }
            ClusterChange::Replace { old, new } => self.done(ControlCommand::ReplaceNode { old, new }).await,
            ClusterChange::TransferLeader { partition, to } => self.prefer_leader(partition, to).await,
            ClusterChange::Retention { time_ms, bytes } => {
                self.done(ControlCommand::SetRetention { time_ms, bytes }).await
            }
        }
    }

    async fn create_join_token(&self, valid_for: Duration) -> Result<String, HubError> {
        let state = self.control.view();
        let own = self.certificates.own_authority();
        if own.is_none() && state.settings.authority_key_pem.is_empty() {
            let text = "this node can't vouch for others: ask one that has tls_authority";
            return Err(HubError::Invalid(text.to_owned()));
        }
        let internal = |error: &dyn std::fmt::Display| HubError::Internal(error.to_string());
        let fingerprint = fingerprint_of(own.as_ref().unwrap_or(&state.settings.authority_pem))
            .map_err(|e| internal(&e))?;
        let addresses = state.nodes.values().map(|member| member.client_address.clone()).take(16).collect();
        let token = JoinToken::generate(addresses, fingerprint).map_err(|e| internal(&e))?;
        let now = self.clock.wall();
        let command = ControlCommand::CreateToken {
            id: format!("{:016x}", token.id),
            secret_hash: Bytes::copy_from_slice(&token.secret_hash().0),
            expires: now.plus_ms(valid_for.as_millis() as u64),
            now,
        };
        self.done(command).await?;
        Ok(token.to_text())
    }

    async fn join(&self, request: JoinRequest) -> Result<JoinReply, HubError> {
        self.check_token(&request.secret)?;
        let state = self.control.view();
        let invalid = |error: &dyn std::fmt::Display| HubError::Invalid(error.to_string());
        let settings = &state.settings;
        let own = self.certificates.own_authority();
        let authority = match (&own, request.csr_pem.is_empty()) {
            (Some(_), true) => None,
            (None, false) => Some(
                Authority::from_pem(&settings.authority_pem, &settings.authority_key_pem)
                    .map_err(|error| HubError::Internal(error.to_string()))?,
            ),
            (Some(_), false) => return Err(HubError::Invalid(
                "this cluster's certificates come from elsewhere: set tls_authority, tls_certificate and tls_key \
                 on the new node".to_owned(),
            )),
            (None, true) => return Err(HubError::Invalid(
                "this cluster certifies its nodes itself: leave tls_authority, tls_certificate and tls_key out \
                 on the new node".to_owned(),
            )),
        };
        let command = ControlCommand::AddNode {
            disk_id: request.disk_id.clone(),
            client_address: request.client_address.clone(),
            peer_address: request.peer_address.clone(),
            zone: request.zone.clone(),
            feature_level: request.feature_level,
        };
        let ControlReply::Node(node) = self.control.propose(&command).await? else {
            return Err(HubError::Internal("the control group gave no node id".to_owned()));
        };
        let mut hosts = vec![host_of(&request.client_address), host_of(&request.peer_address)];
        hosts.extend(self.hosts.iter().cloned());
        hosts.sort_unstable();
        hosts.dedup();
        let signed =
            authority.map(|authority| authority.sign_csr(&request.csr_pem, &Role::Node(node), &hosts));
        let certificate_pem = signed.transpose().map_err(|error| invalid(&error))?.unwrap_or_default();
        tracing::info!(%node, address = request.client_address, "node joins the cluster");
        Ok(JoinReply {
            node,
            cluster: self.cluster.clone(),
            certificate_pem,
            authority_pem: own.unwrap_or_else(|| settings.authority_pem.clone()),
            nodes: self.node_infos(),
            partitions: self.partitions,
        })
    }
}

#[cfg(test)]
mod tests {
    use fleetline_batch::{BatchBuilder, Compression, Producer, RecordRef};
    use fleetline_types::{ProducerId, TimestampMs};

    use super::*;

    fn batch(producer: u64, fence: u32) -> Bytes {
        let mut builder = BatchBuilder::default();
        builder.set_fence(fence);
        let record = RecordRef {
            device: b"d",
            time: TimestampMs(1),
            endpoints: 0,
            system: &[],
            properties: &[],
            body: b"hello",
        };
        builder.push(&record).unwrap();
        let producer = Producer { id: ProducerId(producer), epoch: 1, first_sequence: 0 };
        builder.finish(producer, Compression::None).unwrap()
    }

    /// A client can neither pass for the hub, whose events are numbered by the outbox, nor for a gateway.
    #[test]
    fn what_clients_may_append() {
        assert_eq!(check_client_batch(&batch(7, 0)), Ok(()));
        assert_eq!(check_client_batch(&batch(OUTBOX_PRODUCER - 1, 0)), Ok(()));
        let refused = [batch(OUTBOX_PRODUCER, 0), batch(7, 1), Bytes::from_static(b"no batch")];
        for bytes in refused {
            assert!(matches!(check_client_batch(&bytes), Err(HubError::Invalid(_))), "{bytes:?}");
        }
    }
}
