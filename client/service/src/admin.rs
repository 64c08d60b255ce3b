//! Looking at a cluster and changing it.

use std::sync::Arc;
use std::time::Duration;

use fleetline_native::model::{
    CheckpointInfo, ClusterChange, GroupDescription, JoinReply, JoinRequest, Metadata, NodeInfo,
    PartitionInfo, ReadFrom,
};
use fleetline_native::{HubError, Reply, Request};
use fleetline_types::{Offset, PartitionId};
use futures::future::join_all;

use crate::cluster::{Cluster, Repeat, Target, wrong_reply};
use crate::error::ClientError;
use crate::link::CallError;
use crate::options::ClientOptions;

/// What one node says of the partitions it holds.
#[derive(Debug)]
pub struct NodePartitions {
    /// The node.
    pub node: NodeInfo,
    /// Its partitions, or why it did not tell.
    pub partitions: Result<Vec<PartitionInfo>, ClientError>,
}

/// Looks at a cluster and changes it. Cheap to clone.
///
/// Each method takes up to [`ClientOptions::request_timeout`]. Dropped before it is done, a change
/// may have happened or not; the others change nothing.
#[derive(Clone)]
pub struct Admin {
    cluster: Arc<Cluster>,
}

impl Admin {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Admin {
        Admin { cluster }
    }

    async fn call(&self, target: Target, repeat: Repeat, request: Request) -> Result<Reply, ClientError> {
        self.cluster.call(target, repeat, request).await
    }

    /// The cluster as the first node that answers knows it.
    ///
    /// # Errors
    /// [`ClientError`] when no node answers.
    pub async fn metadata(&self) -> Result<Metadata, ClientError> {
        match self.call(Target::Any, Repeat::Safe, Request::Metadata).await? {
            Reply::Metadata(metadata) => Ok(metadata),
            _ => Err(wrong_reply().into()),
        }
    }

    /// What every node says of the partitions that it holds. Nodes are asked at the same time; one
    /// that does not answer is told with the reason. Needs admin access.
    ///
    /// # Errors
    /// [`ClientError`] when no node tells which nodes there are.
    pub async fn partitions(&self) -> Result<Vec<NodePartitions>, ClientError> {
        let nodes = self.metadata().await?.nodes;
        Ok(join_all(nodes.into_iter().map(|node| self.partitions_of(node))).await)
    }

    async fn partitions_of(&self, node: NodeInfo) -> NodePartitions {
        let what = "local_partitions";
        let result = async {
            let connection = self.cluster.link(&node.client_address).connection().await?;
            connection.call(Request::LocalPartitions, self.cluster.options.connect_timeout).await
        };
        let partitions = match result.await {
            Ok(Reply::Partitions(partitions)) => Ok(partitions),
            Ok(_) => Err(wrong_reply().into()),
            Err(CallError::Hub(error)) => Err(error.into()),
            Err(error) => Err(ClientError::Unreachable { what, reason: error.to_string() }),
        };
        NodePartitions { node, partitions }
    }

    /// What the leader of a partition says of it.
    ///
    /// # Errors
    /// [`ClientError`] when it can't be asked.
    pub async fn partition(&self, partition: PartitionId) -> Result<PartitionInfo, ClientError> {
        let request = Request::PartitionInfo(partition);
        match self.call(Target::Leader(partition), Repeat::Safe, request).await? {
            Reply::PartitionInfo(info) => Ok(info),
            _ => Err(wrong_reply().into()),
        }
    }

    /// The offset that a place in a partition stands for.
    ///
    /// # Errors
    /// [`ClientError`] when it can't be told.
    pub async fn resolve(&self, partition: PartitionId, from: ReadFrom) -> Result<Offset, ClientError> {
        let request = Request::Resolve { partition, from };
        match self.call(Target::Leader(partition), Repeat::Safe, request).await? {
            Reply::Offset(offset) => Ok(offset),
            _ => Err(wrong_reply().into()),
        }
    }

    /// Names of all consumer groups with a checkpoint anywhere, sorted.
    ///
    /// # Errors
    /// [`ClientError`] when a partition can't be asked.
    pub async fn groups(&self) -> Result<Vec<String>, ClientError> {
        let ask =
            |p| self.call(Target::Leader(PartitionId(p)), Repeat::Safe, Request::GroupList(PartitionId(p)));
        let mut names = Vec::new();
        for reply in join_all((0..self.cluster.partitions()).map(ask)).await {
            match reply? {
                Reply::GroupNames(more) => names.extend(more),
                _ => return Err(wrong_reply().into()),
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Members of a consumer group and what they own.
    ///
    /// # Errors
    /// [`ClientError`]; [`HubError::NotFound`] when there is no such group.
    pub async fn group(&self, group: &str) -> Result<GroupDescription, ClientError> {
        let request = Request::GroupDescribe { group: group.to_owned() };
        let target = Target::Leader(self.cluster.coordinator(group));
        match self.call(target, Repeat::Safe, request).await? {
            Reply::Group(group) => Ok(group),
            _ => Err(wrong_reply().into()),
        }
    }

    /// The checkpoint of a consumer group in a partition (linearizable).
    ///
    /// # Errors
    /// [`ClientError`] when it can't be read.
    pub async fn checkpoint(
        &self,
        partition: PartitionId,
        group: &str,
    ) -> Result<CheckpointInfo, ClientError> {
        let request = Request::CheckpointRead { partition, group: group.to_owned() };
        match self.call(Target::Leader(partition), Repeat::Safe, request).await? {
            Reply::Checkpoint(checkpoint) => Ok(checkpoint),
            _ => Err(wrong_reply().into()),
        }
    }

    /// Changes the cluster. Returns when the change is committed; the work it causes goes on behind
    /// it. Needs admin access.
    ///
    /// # Errors
    /// [`ClientError`]; when [`ClientError::is_definite`] says no, look before asking again.
    pub async fn change(&self, change: ClusterChange) -> Result<(), ClientError> {
        let target = match change {
            ClusterChange::TransferLeader { partition, .. } => Target::Leader(partition),
            _ => Target::Control,
        };
        match self.call(target, Repeat::Never, Request::Change(change)).await? {
            Reply::Done => Ok(()),
            _ => Err(wrong_reply().into()),
        }
    }

    /// Makes a token by which nodes may join for a while. Needs admin access.
    ///
    /// # Errors
    /// [`ClientError`]; a token whose answer was lost expires unused.
    pub async fn create_join_token(&self, valid_for: Duration) -> Result<String, ClientError> {
        let request = Request::CreateJoinToken { valid_for };
        match self.call(Target::Control, Repeat::Safe, request).await? {
            Reply::Token(token) => Ok(token),
            _ => Err(wrong_reply().into()),
        }
    }
}

/// Asks a cluster to admit a new node. Needs no identity: the token speaks for the caller. Asking
/// again with the same disk id gives the same node id.
///
/// # Errors
/// [`ClientError`]; [`HubError::Forbidden`] when the token is not (or no longer) good.
pub async fn join(options: ClientOptions, request: JoinRequest) -> Result<JoinReply, ClientError> {
    let cluster = Cluster::unconnected(options)?;
    // Metadata is not for strangers, so a leader that is named can't be looked up: all endpoints
    // are asked in turn instead.
    let endpoints = cluster.options.endpoints.clone();
    let mut last = None;
    for endpoint in endpoints {
        let result = async {
            let connection = cluster.link(&endpoint).connection().await?;
            connection.call(Request::Join(request.clone()), cluster.options.request_timeout).await
        };
        match result.await {
            Ok(Reply::Joined(reply)) => return Ok(reply),
            Ok(_) => return Err(wrong_reply().into()),
            Err(CallError::Hub(error @ (HubError::Forbidden(_) | HubError::Invalid(_)))) => {
                return Err(error.into());
            }
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(CallError::Hub(error)) => error.into(),
        Some(CallError::Lost(end)) => ClientError::Unknown { what: "join", reason: end.to_string() },
        Some(error) => ClientError::Unreachable { what: "join", reason: error.to_string() },
        None => ClientError::Unreachable { what: "join", reason: "no endpoint is given".into() },
    })
}
