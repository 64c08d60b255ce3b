//! What a node is made of, in start order.
//!
//! ```text
//! data folder → log (takes the folder's lock) → state → certificates → links to peers
//!   → control group → partitions that the log holds → fronts → duties
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fleetline_auth::{ClientAuth, Role, identity_of};
use fleetline_cluster::ControlCommand;
use fleetline_config::{FrontListen, NodeConfig};
use fleetline_env::real::{RealClock, RealDisk, RealEntropy};
use fleetline_env::{Clock, Entropy};
use fleetline_gateway::devices::connections::Connections;
use fleetline_gateway::limits::QuicLimits;
use fleetline_gateway::ops::{OpsOptions, OpsServer};
use fleetline_gateway::quic::{QuicFront, QuicOptions};
use fleetline_log::{LogOptions, NodeLog, SegLog};
use fleetline_native::connection::ALPN;
use fleetline_raft_driver::{Driver, DriverOptions};
use fleetline_raft_group::{GroupConfig, align_ticks};
use fleetline_raft_transport::tcp::{Identify, Listen, TcpOptions, TcpTransport};
use fleetline_raft_transport::{PeerAddress, PeerTransport};
use fleetline_snapshot::{SnapshotDir, SnapshotOptions};
use fleetline_state::StateStore;
use fleetline_state::rocks::{RocksOptions, RocksState};
use fleetline_telemetry::Metrics;
use fleetline_types::{GroupId, NodeId};
use tokio::sync::watch;

use crate::access::ByCertificate;
use crate::announce::Announcer;
use crate::anywhere::Anywhere;
use crate::certificates::{self, Certificates};
use crate::control::{Control, ControlMachine};
use crate::data_dir::{DataDir, Identity};
use crate::devices::{DevicesParts, NodeDevices};
use crate::duties::Duties;
use crate::error::NodeError;
use crate::fronts::{FrontParts, Fronts};
use crate::hosting::Hosting;
use crate::hub::NodeHub;
use crate::objects;
use crate::status;
use crate::tiers::{Kinds, TierParts, Tiers};

/// The highest feature level that this build knows.
pub(crate) const FEATURE_LEVEL: u32 = 1;
/// How long open requests get at shutdown.
const GRACE: Duration = Duration::from_secs(3);
/// How long state may take to be flushed at shutdown: a disk that is stuck must not keep the process.
const FLUSH: Duration = Duration::from_secs(30);

/// A running node.
pub struct Node {
    hub: Arc<NodeHub>,
    duties: Duties,
    loops: tokio::task::JoinSet<()>,
    fronts: Fronts,
    tiers: Tiers,
    _kinds: Kinds,
    front: QuicFront,
    ops: OpsServer,
    failed: watch::Receiver<Option<String>>,
}

/// Storage of a node.
struct Storage {
    log: Arc<dyn NodeLog>,
    store: Arc<dyn StateStore>,
    snapshots: SnapshotDir,
}

impl Node {
    /// Starts a node from its data folder. An empty folder becomes a new cluster of one node.
    ///
    /// # Errors
    /// What can't be read, opened or listened on.
    pub async fn start(config: NodeConfig, metrics: Metrics) -> Result<Node, NodeError> {
        config.validate().map_err(|errors| NodeError::Config(format!("\n{errors}")))?;
        let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
        let data = DataDir::open(&config.data, &RealEntropy)?;
        let storage = open_storage(&config, &data, clock.clone())?;
        let objects = objects::open(&config.objects, &data).await?;
        let (identity, new) = match data.identity()? {
            Some(identity) => (identity, false),
            None => (new_identity(&config, &data, storage.log.as_ref())?, true),
        };
        let node = identity.node_id();
        if new {
            // A folder that has an identity is a cluster for good: not for a port that is taken.
            ports_are_free(&config)?;
            data.write_identity(&identity)?;
        }
        let certs = Certificates::open(&config, data.path("certs"), &identity, &certificate_hosts(&config))?;
        let driver = start_driver(&config, &data, &identity, &certs, &storage).await?;
        for (peer, address) in identity.peers.iter().filter(|(peer, _)| **peer != node.0) {
            driver.transport().set_peer(NodeId(*peer), PeerAddress { address: address.clone() });
        }
        let hosting = Hosting::new(driver.clone(), storage.snapshots, clock.clone(), identity.partitions);
        let (machine, view) = ControlMachine::new();
        let group = hosting.start_group(GroupId::CONTROL, Box::new(machine)).await?;
        let control = Control::new(driver.clone(), view);
        hosting.start_stored().await?;
        // Only the node that made the cluster has its authority's key in its own folder, if it has one.
        if let (NodeId(1), Some(authority)) = (node, certs.of_new_cluster()) {
            group.initialize(&BTreeSet::from([node])).await?;
            bootstrap(&config, &identity, &control, authority).await?;
        }
        let devices = NodeDevices::new(DevicesParts {
            driver: driver.clone(),
            control: control.clone(),
            hosting: hosting.clone(),
            clock: clock.clone(),
            partitions: identity.partitions,
            host_name: config.hub_host(),
            host_names: certificate_hosts(&config).to_vec(),
        });
        let hub = Arc::new(NodeHub {
            driver: driver.clone(),
            control: control.clone(),
            hosting: hosting.clone(),
            clock,
            cluster: identity.cluster.clone(),
            partitions: identity.partitions,
            hosts: certificate_hosts(&config)[1..].to_vec(),
            certificates: certs.clone(),
            connections: std::sync::OnceLock::new(),
            announced: AtomicBool::new(false),
        });
        let anywhere = Anywhere::new(hub.clone(), devices.clone());
        devices.set_anywhere(&anywhere);
        let scratch = data.path("functions");
        let kinds = Kinds::find(&config, &scratch).await;
        let (fronts, tiers) = {
            let made = std::cell::OnceCell::new();
            let mounts = |ports, connections: &Arc<Connections>| {
                let (cluster, connections) = (anywhere.clone(), connections.clone());
                let parts = TierParts {
                    config: &config,
                    scratch: &scratch,
                    cluster,
                    connections,
                    kinds: &kinds,
                    ports,
                };
                made.get_or_init(|| Tiers::new(parts)).mounts()
            };
            let parts = FrontParts {
                config: &config,
                certs: &certs,
                devices: &devices,
                stream: anywhere.clone(),
                objects: Some(objects),
                made_ms: data.made_ms(),
            };
            let fronts = Fronts::start(parts, &mounts)?;
            (fronts, made.into_inner().ok_or_else(|| NodeError::Stopped("tiers were not made".to_owned()))?)
        };
        if hub.connections.set(fronts.connections_of().clone()).is_err() {
            tracing::error!("connections were set twice");
        }
        let front = start_front(&config, &data, &identity, &certs, hub.clone())?;
        let ops = start_ops(&config, hub.clone(), metrics).await?;
        let (failing, failed) = watch::channel(None);
        let duties = Duties {
            driver,
            control: control.clone(),
            hosting,
            dead_after: config.dead_after.duration(),
            flush_every: config.flush_every.duration(),
            flushed: Arc::default(),
            failed: failing,
        };
        let mut loops = duties.clone().start();
        devices.start(&mut loops);
        tiers.start(&mut loops);
        loops.spawn(anywhere.follow());
        loops.spawn(certificates::keep(certs, control));
        let announcer = Announcer { config, data, identity, hub: hub.clone(), ports: fronts.ports() };
        loops.spawn(announcer.run());
        tracing::info!(%node, client = %front.local_addr(), ops = %ops.local_addr(), "node is running");
        Ok(Node { hub, duties, loops, fronts, tiers, _kinds: kinds, front, ops, failed })
    }

    /// Where clients connect.
    pub fn client_address(&self) -> std::net::SocketAddr {
        self.front.local_addr()
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.hub.driver.node()
    }

    /// Its functions, for an app that is developed on this machine; none when it runs none.
    pub fn functions(&self) -> Option<Arc<fleetline_functions::Functions>> {
        self.tiers.functions()
    }

    /// Waits until the node can't go on by itself.
    pub async fn wait(&mut self) -> NodeError {
        loop {
            if let Some(reason) = self.failed.borrow_and_update().clone() {
                return NodeError::Stopped(reason);
            }
            tokio::select! {
                changed = self.failed.changed() => if changed.is_err() {
                    return NodeError::Stopped("its duties have ended".to_owned());
                },
                // Its partition's records would wait for ever.
                reason = self.fronts.ingest_ended() => {
                    return NodeError::Stopped(format!("a task that sends records has ended: {reason}"));
                }
            }
        }
    }

    /// Stops in good order: leadership is handed over, open requests are answered, state is flushed.
    pub async fn shutdown(mut self) {
        self.tiers.shutdown().await;
        self.loops.shutdown().await;
        self.hand_over().await;
        self.fronts.shutdown().await;
        self.front.shutdown(GRACE).await;
        self.ops.shutdown(Duration::from_secs(1)).await;
        let flushed = tokio::time::timeout(FLUSH, self.duties.flush_once()).await;
        let why = match flushed {
            Ok(flushed) => flushed.err().map(|error| error.to_string()),
            Err(_) => Some(format!("it took longer than {} s", FLUSH.as_secs())),
        };
        if let Some(error) = why {
            tracing::warn!(error, "state was not flushed; the log is replayed at the next start");
        }
        self.hub.driver.shutdown().await;
        tracing::info!("node has stopped");
    }

    /// Asks another voter to take over each group that this node leads, and waits a moment for it.
    async fn hand_over(&self) {
        let this = self.id();
        let asked = self.hub.driver.groups().into_iter().filter(|group| group.is_leader());
        let handed = asked.map(|group| async move {
            let status = group.status();
            let mut heirs: Vec<_> = status
                .replicas
                .iter()
                .filter(|r| r.node != this && status.voters.contains(&r.node))
                .collect();
            heirs.sort_by_key(|replica| std::cmp::Reverse(replica.matched));
            let Some(heir) = heirs.first().filter(|heir| self.hub.driver.transport().is_up(heir.node)) else {
                return;
            };
            if let Err(error) = group.transfer_leader(heir.node).await {
                tracing::info!(group = %group.id(), %error, "leadership was not handed over");
                return;
            }
            let changed = async {
                while group.is_leader() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            if tokio::time::timeout(Duration::from_secs(1), changed).await.is_err() {
                tracing::info!(group = %group.id(), "nobody took over in time");
            }
        });
        futures::future::join_all(handed).await;
    }
}

/// Names and addresses by which devices, services and nodes reach this node.
fn certificate_hosts(config: &NodeConfig) -> [String; 5] {
    let address = std::net::Ipv4Addr::LOCALHOST.to_string();
    // Some SDKs refuse a name without a dot.
    [config.host(), config.hub_host(), "localhost".to_owned(), "hub.localhost".to_owned(), address]
}

/// Checks that the configured ports can be opened.
fn ports_are_free(config: &NodeConfig) -> Result<(), NodeError> {
    let failed = |address: std::net::SocketAddr, error: std::io::Error| NodeError::Listen {
        address: address.to_string(),
        reason: error.to_string(),
    };
    std::net::UdpSocket::bind(config.listen).map_err(|error| failed(config.listen, error))?;
    let mut tcp = vec![config.peer_listen, config.ops_listen];
    let fronts = [
        config.mqtt_listen,
        config.mqtt_plain_listen,
        config.https_listen,
        config.http_plain_listen,
        config.amqp_listen,
        config.amqp_plain_listen,
    ];
    tcp.extend(fronts.iter().filter_map(|front| match front {
        FrontListen::At(address) => Some(*address),
        FrontListen::Auto | FrontListen::Off => None,
    }));
    for address in tcp {
        std::net::TcpListener::bind(address).map_err(|error| failed(address, error))?;
    }
    Ok(())
}

fn unusable(error: impl std::fmt::Display) -> NodeError {
    NodeError::Certificates(error.to_string())
}

fn open_storage(config: &NodeConfig, data: &DataDir, clock: Arc<dyn Clock>) -> Result<Storage, NodeError> {
    let disk = Arc::new(RealDisk);
    let options = LogOptions {
        segment_bytes: config.log_segment.0,
        cache_bytes: config.log_cache.0,
        queue_bytes_max: config.log_queue.0,
        reserve_bytes: config.disk_reserve.0,
        ..LogOptions::new(data.path("log"))
    };
    let (log, report) = SegLog::open(disk.clone(), clock, options)?;
    tracing::info!(segments = report.segments, frames = report.frames, bytes = report.bytes, "log is open");
    if report.torn_bytes > 0 {
        tracing::info!(bytes = report.torn_bytes, "an unfinished last write was cut off");
    }
    if report.damaged_entries > 0 || !report.damaged_ranges.is_empty() {
        let (entries, ranges) = (report.damaged_entries, report.damaged_ranges.len());
        tracing::error!(
            entries,
            ranges,
            "the log is damaged here; entries are fetched from peers when needed"
        );
    }
    let mut rocks = RocksOptions::new(data.path("state"));
    rocks.block_cache_bytes = config.state_cache.0 as usize;
    rocks.memtable_bytes = config.state_memtable.0 as usize;
    let store: Arc<dyn StateStore> = Arc::new(RocksState::open(&rocks)?);
    let mut snapshots = SnapshotOptions::new(data.path("snapshots"));
    snapshots.reserve_bytes = config.disk_reserve.0;
    let snapshots = SnapshotDir::open(disk, snapshots)
        .map_err(|error| NodeError::data(&data.path("snapshots"), error))?;
    Ok(Storage { log, store, snapshots })
}

/// Makes the identity of a new cluster's first node.
fn new_identity(config: &NodeConfig, data: &DataDir, log: &dyn NodeLog) -> Result<Identity, NodeError> {
    if !log.groups().is_empty() {
        let path = data.path("node.json");
        return Err(NodeError::data(&path, "is missing, but the log isn't empty: restore it from a backup"));
    }
    let cluster = format!("{:016x}", RealEntropy.next_u64());
    let partitions = config.partitions;
    Ok(Identity { format: 1, cluster, node: 1, partitions, peers: BTreeMap::new() })
}

async fn start_driver(
    config: &NodeConfig,
    data: &DataDir,
    identity: &Identity,
    certs: &Certificates,
    storage: &Storage,
) -> Result<Arc<Driver>, NodeError> {
    // Two ticks a beat: a leader beats with the first tick behind its interval, and with three quarters of a
    // beat that is each second one.
    let beat = config.heartbeat.duration();
    align_ticks(beat / 2);
    let options = DriverOptions {
        node: identity.node_id(),
        config: GroupConfig {
            heartbeat: beat * 3 / 4,
            election: (config.election_min.duration(), config.election_max.duration()),
            ..GroupConfig::default()
        },
        log: storage.log.clone(),
        store: storage.store.clone(),
    };
    let cluster = identity.cluster.clone();
    let identify: Identify = Arc::new(move |certificate| match identity_of(certificate) {
        Ok(found) if found.cluster == cluster => match found.role {
            Role::Node(node) => Some(node),
            _ => None,
        },
        _ => None,
    });
    let tcp = TcpOptions::new(
        identity.node_id(),
        identity.cluster.clone(),
        data.disk_id(),
        Listen::Address(config.peer_listen),
        certs.live().peer_server().map_err(unusable)?,
        certs.live().peer_client().map_err(unusable)?,
        identify,
    );
    let listen = config.peer_listen;
    Driver::start(options, async move |handler| {
        let transport = TcpTransport::start(tcp, handler);
        let transport = transport.map_err(|error| NodeError::Listen {
            address: format!("{listen} (peers)"),
            reason: error.to_string(),
        })?;
        Ok(transport as Arc<dyn PeerTransport>)
    })
    .await
}

/// Makes the cluster, this node its member and the first placements, as far as they aren't made yet.
async fn bootstrap(
    config: &NodeConfig,
    identity: &Identity,
    control: &Control,
    (authority_pem, authority_key_pem): (String, String),
) -> Result<(), NodeError> {
    let failed =
        |error: &dyn std::fmt::Display| NodeError::Stopped(format!("cluster can't be made: {error}"));
    if !control.view().settings.cluster.is_empty() {
        return Ok(());
    }
    let commands = [ControlCommand::Bootstrap {
        cluster: identity.cluster.clone(),
        partitions: identity.partitions,
        replicas: config.replicas,
        authority_pem,
        authority_key_pem,
    }];
    for command in commands {
        match control.propose(&command).await {
            // Another node leads already: the cluster was made in an earlier life of this node.
            Ok(_) | Err(fleetline_native::HubError::Invalid(_)) => {}
            Err(error) => return Err(failed(&error)),
        }
    }
    Ok(())
}

fn start_front(
    config: &NodeConfig,
    data: &DataDir,
    identity: &Identity,
    certs: &Certificates,
    hub: Arc<NodeHub>,
) -> Result<QuicFront, NodeError> {
    let tls = certs.live().front_server(&[ALPN], ClientAuth::Optional).map_err(unusable)?;
    let reset_secret = data.reset_secret(&RealEntropy)?;
    let options = QuicOptions { listen: config.listen, tls, reset_secret, limits: QuicLimits::default() };
    let authorizer = Arc::new(ByCertificate { cluster: identity.cluster.clone() });
    QuicFront::start(options, hub, authorizer).map_err(|error| NodeError::Listen {
        address: format!("{} (clients)", config.listen),
        reason: error.to_string(),
    })
}

async fn start_ops(config: &NodeConfig, hub: Arc<NodeHub>, metrics: Metrics) -> Result<OpsServer, NodeError> {
    let (for_metrics, for_ready) = (hub.clone(), hub.clone());
    let options = OpsOptions {
        listen: config.ops_listen,
        metrics: Arc::new(move || {
            status::record(&for_metrics);
            metrics.render()
        }),
        ready: Arc::new(move || status::ready(&for_ready)),
        status: Arc::new(move || Box::pin(status::status(hub.clone()))),
    };
    OpsServer::start(options).await.map_err(|error| NodeError::Listen {
        address: format!("{} (operations)", config.ops_listen),
        reason: error.to_string(),
    })
}
