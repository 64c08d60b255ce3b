//! What the client knows of the cluster, and the loop that gets a request to the right node.
//!
//! Leaders are hints: every answer may correct them (`NotLeader`), and metadata is fetched again
//! when a hint fails, at most once every [`REFRESH_PAUSE`]. Requests are retried on other nodes
//! until `request_timeout`, but never after they may have been taken, unless repeating them does no
//! harm ([`Repeat`]).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fleetline_native::model::{Metadata, NodeInfo};
use fleetline_native::{HubError, ProtocolError, Reply, Request};
use fleetline_types::{NodeId, PartitionId, partition_of_key};
use parking_lot::{Mutex, RwLock};

use crate::backoff::Backoff;
use crate::error::ClientError;
use crate::frames::StreamEnd;
use crate::link::{CallError, Link, NodeConnection, Unreachable};
use crate::options::ClientOptions;

/// The least time between two fetches of metadata.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// Whether a request may be sent again when it is not known whether it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Doing it twice is the same as doing it once.
    Safe,
    /// The caller must be told that the outcome is unknown.
    Never,
}

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Any node.
    Any,
    /// The leader of a partition.
    Leader(PartitionId),
    /// The leader of the control group.
    Control,
}

/// The shared state of a client.
pub(crate) struct Cluster {
    pub options: Arc<ClientOptions>,
    config: quinn::ClientConfig,
    /// The id of the cluster, once known.
    id: Arc<OnceLock<String>>,
    /// One link per address. Bounded by the nodes of the cluster and the endpoints: links to
    /// addresses that are not in the metadata are dropped at each refresh.
    links: Mutex<BTreeMap<String, Arc<Link>>>,
    view: RwLock<Arc<View>>,
    /// Held while fetching metadata; says when it was last tried.
    refreshing: tokio::sync::Mutex<Option<Instant>>,
}

/// Metadata as fetched, and leaders as learned since.
#[derive(Clone)]
struct View {
    metadata: Arc<Metadata>,
    leaders: BTreeMap<PartitionId, NodeId>,
    control: Option<NodeId>,
}

impl Cluster {
    /// Connects to the first endpoint that answers and fetches metadata.
    pub(crate) async fn connect(options: ClientOptions) -> Result<Arc<Cluster>, ClientError> {
        let cluster = Cluster::unconnected(options)?;
        let deadline = Instant::now() + cluster.options.request_timeout;
        let mut backoff = cluster.backoff();
        loop {
            match cluster.fetch().await {
                Ok(()) => return Ok(cluster),
                Err(CallError::Hub(error)) if !error.is_retryable() => return Err(error.into()),
                Err(error) => {
                    let pause = backoff.next();
                    if Instant::now() + pause >= deadline {
                        let reason = error.to_string();
                        return Err(ClientError::Unreachable { what: "connecting", reason });
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// A cluster of which nothing is known but its endpoints, for callers without an identity.
    pub(crate) fn unconnected(options: ClientOptions) -> Result<Arc<Cluster>, ClientError> {
        let config = options.quic()?;
        let nothing = Metadata {
            cluster: String::new(),
            node: NodeId(0),
            partitions: 0,
            nodes: Vec::new(),
            leaders: Vec::new(),
            control_leader: None,
        };
        let view = View { metadata: Arc::new(nothing), leaders: BTreeMap::new(), control: None };
        let id = options.cluster.clone().map_or_else(OnceLock::new, OnceLock::from);
        Ok(Arc::new(Cluster {
            options: Arc::new(options),
            config,
            id: Arc::new(id),
            links: Mutex::new(BTreeMap::new()),
            view: RwLock::new(Arc::new(view)),
            refreshing: tokio::sync::Mutex::new(None),
        }))
    }

    pub(crate) fn metadata(&self) -> Arc<Metadata> {
        self.view.read().metadata.clone()
    }

    /// How many partitions the hub has.
    pub(crate) fn partitions(&self) -> u32 {
        self.view.read().metadata.partitions
    }

    /// The partition that coordinates a consumer group.
    pub(crate) fn coordinator(&self, group: &str) -> PartitionId {
        partition_of_key(group.as_bytes(), self.partitions())
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.options.backoff_min, self.options.backoff_max)
    }

    /// The link to an address.
    pub(crate) fn link(&self, address: &str) -> Arc<Link> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(address) {
            return link.clone();
        }
        let (config, options) = (self.config.clone(), self.options.clone());
        let link = Arc::new(Link::new(address.to_owned(), config, options, self.id.clone()));
        links.insert(address.to_owned(), link.clone());
        link
    }

    /// Notes the leader that a node named; `None` forgets the one that was known.
    pub(crate) fn learn(&self, target: Target, leader: Option<NodeId>) {
        let mut view = self.view.write();
        let view = Arc::make_mut(&mut view);
        match (target, leader) {
            (Target::Leader(partition), Some(node)) => {
                view.leaders.insert(partition, node);
            }
            (Target::Leader(partition), None) => {
                view.leaders.remove(&partition);
            }
            (Target::Control, leader) => view.control = leader,
            (Target::Any, _) => {}
        }
    }

    /// Fetches metadata again, unless somebody just did. Failure is not an error here: what is
    /// known stays.
    pub(crate) async fn refresh(&self) {
        let mut last = self.refreshing.lock().await;
        if last.is_some_and(|at| at.elapsed() < REFRESH_PAUSE) {
            return;
        }
        if let Err(error) = self.fetch().await {
            tracing::debug!(%error, "metadata could not be fetched");
        }
        *last = Some(Instant::now());
    }

    /// Fetches metadata from the first address that answers; live connections come first.
    async fn fetch(&self) -> Result<(), CallError> {
        let mut links: Vec<Arc<Link>> = self.addresses().iter().map(|a| self.link(a)).collect();
        links.sort_by_key(|link| !link.is_live());
        let mut last = None;
        for link in links {
            let result = async {
                let connection = link.connection().await?;
                connection.call(Request::Metadata, self.options.connect_timeout).await
            };
            match result.await {
                Ok(Reply::Metadata(metadata)) => {
                    self.install(metadata);
                    return Ok(());
                }
                Ok(_) => last = Some(CallError::Lost(StreamEnd::Protocol(wrong_reply()))),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there is an endpoint, the options were checked"))
    }

    /// All addresses: of the nodes that are known, and the endpoints.
    fn addresses(&self) -> Vec<String> {
        let metadata = self.metadata();
        let mut addresses: Vec<String> =
            metadata.nodes.iter().filter(|node| node.alive).map(|node| node.client_address.clone()).collect();
        for endpoint in &self.options.endpoints {
            if !addresses.contains(endpoint) {
                addresses.push(endpoint.clone());
            }
        }
        addresses
    }

    fn install(&self, metadata: Metadata) {
        // Endpoints were only the way in: once nodes are known by their own addresses, the way in
        // is closed, so that each node has one connection.
        let keep = |address: &String| metadata.nodes.iter().any(|node| node.client_address == *address);
        self.links.lock().retain(|address, _| keep(address));
        let mut view = self.view.write();
        let mut leaders = view.leaders.clone();
        for (partition, leader, _) in &metadata.leaders {
            if let Some(leader) = leader {
                leaders.insert(*partition, *leader);
            }
        }
        let control = metadata.control_leader.or(view.control);
        *view = Arc::new(View { metadata: Arc::new(metadata), leaders, control });
    }

    /// Nodes to ask for `target`, best first: its leader, nodes with a replica, the others.
    pub(crate) fn candidates(&self, target: Target) -> Vec<Arc<Link>> {
        let view = self.view.read().clone();
        let metadata = &view.metadata;
        let (leader, replicas) = match target {
            Target::Any => (None, None),
            Target::Control => (view.control, None),
            Target::Leader(partition) => {
                let row = metadata.leaders.iter().find(|(p, _, _)| *p == partition);
                (view.leaders.get(&partition).copied(), row.map(|(_, _, replicas)| replicas))
            }
        };
        let rank = |node: &NodeInfo| {
            let has_replica = replicas.is_none_or(|r| r.contains(&node.node));
            (leader != Some(node.node), !node.alive, !has_replica)
        };
        let mut nodes: Vec<&NodeInfo> = metadata.nodes.iter().collect();
        nodes.sort_by_key(|node| rank(node));
        let mut links: Vec<_> = nodes.into_iter().map(|node| self.link(&node.client_address)).collect();
        if links.is_empty() {
            links.extend(self.options.endpoints.iter().map(|endpoint| self.link(endpoint)));
        }
        if leader.is_none() && matches!(target, Target::Any) {
            links.sort_by_key(|link| !link.is_live());
        }
        links
    }

    /// Gets `request` to `target` and its reply back, over leader changes and lost nodes, within
    /// `request_timeout`.
    ///
    /// When dropped before it is done, the outcome is unknown.
    pub(crate) async fn call(
        &self,
        target: Target,
        repeat: Repeat,
        request: Request,
    ) -> Result<Reply, ClientError> {
        let what = request.name();
        let mut route = Route::new(self, target);
        let deadline = Instant::now() + self.options.request_timeout;
        // Set once the request may have been taken by a node that did not answer.
        let mut maybe = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let result = match route.connection(self).await {
                Ok(connection) => connection.call(request.clone(), left).await,
                Err(error) => Err(error.into()),
            };
            let error = match result {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            match &error {
                CallError::Hub(hub) if !hub.is_retryable() => return Err(hub.clone().into()),
                CallError::Hub(hub) if !hub.is_definite() => maybe = Some(hub.to_string()),
                CallError::Lost(end) => maybe = Some(end.to_string()),
                _ => {}
            }
            if let (Some(reason), Repeat::Never) = (&maybe, repeat) {
                return Err(ClientError::Unknown { what, reason: reason.clone() });
            }
            let pause = route.on_error(self, &error).await;
            if Instant::now() + pause >= deadline {
                return Err(match maybe {
                    Some(reason) => ClientError::Unknown { what, reason },
                    None => ClientError::Unreachable { what, reason: error.to_string() },
                });
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// The state of one loop of attempts at a target: whom to ask next, and how long to wait before.
pub(crate) struct Route {
    target: Target,
    backoff: Backoff,
    /// How many of the candidates have been found useless since the last news.
    skip: usize,
    /// Hints followed without a pause since something worked: two nodes that name each other must
    /// not be asked in a tight loop.
    hops: u32,
}

impl Route {
    pub(crate) fn new(cluster: &Cluster, target: Target) -> Route {
        Route { target, backoff: cluster.backoff(), skip: 0, hops: 0 }
    }

    /// A connection to the node that is to be asked next.
    pub(crate) async fn connection(&self, cluster: &Cluster) -> Result<Arc<NodeConnection>, Unreachable> {
        let candidates = cluster.candidates(self.target);
        candidates[self.skip % candidates.len()].connection().await
    }

    /// The node that was asked last is of no use now: ask the next one.
    pub(crate) fn skip(&mut self) {
        self.skip += 1;
    }

    /// Something worked.
    pub(crate) fn on_success(&mut self) {
        self.backoff.reset();
        self.skip = 0;
        self.hops = 0;
    }

    /// Learns from an error, and says how long to wait before the next attempt.
    pub(crate) async fn on_error(&mut self, cluster: &Cluster, error: &CallError) -> Duration {
        match error {
            CallError::Hub(hub) => self.on_hub_error(cluster, hub).await,
            CallError::Unreachable(_) | CallError::Lost(_) => {
                self.skip += 1;
                cluster.refresh().await;
                self.backoff.next()
            }
        }
    }

    pub(crate) async fn on_hub_error(&mut self, cluster: &Cluster, error: &HubError) -> Duration {
        match error {
            HubError::NotLeader { leader: Some(leader), .. } => {
                cluster.learn(self.target, Some(*leader));
                self.skip = 0;
                self.hops += 1;
                let known = cluster.metadata().nodes.iter().any(|node| node.node == *leader);
                if !known {
                    cluster.refresh().await;
                }
                if self.hops <= 2 { Duration::ZERO } else { self.backoff.next() }
            }
            HubError::Busy { retry_after_ms, .. } => {
                self.backoff.next().max(Duration::from_millis(*retry_after_ms))
            }
            HubError::NotLeader { leader: None, .. } | HubError::NotFound(_) => {
                self.skip += 1;
                cluster.learn(self.target, None);
                cluster.refresh().await;
                self.backoff.next()
            }
            _ => {
                cluster.refresh().await;
                self.backoff.next()
            }
        }
    }
}

/// The error of a reply that is not of the request's kind.
pub(crate) fn wrong_reply() -> ProtocolError {
    ProtocolError::Missing { what: "the reply to this request" }
}
