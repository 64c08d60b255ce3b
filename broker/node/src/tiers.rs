//! The tiers of a node beyond the fronts for devices: realtime hubs, functions, the console.
//!
//! Made in [`Tiers::start`], once the ports of the HTTP fronts are known, and mounted on them. Each tier
//! knows the cluster only; what one needs of another is joined here: functions speak to realtime clients
//! and are called by them ([`realtime_out`], [`client_events`]), and the console's feed goes out
//! through a realtime hub ([`live`]).
//!
//! Not here: what tiers do, on which ports they listen (`fronts`).

mod client_events;
mod live;
mod realtime_out;

use std::path::Path;
use std::sync::Arc;

use fleetline_cluster::ControlState;
use fleetline_config::NodeConfig;
use fleetline_console::{Console, ConsoleParts, FeedScope};
use fleetline_functions::{Functions, FunctionsOptions};
use fleetline_gateway::devices::connections::Connections;
use fleetline_gateway::http::HttpMount;
use fleetline_gateway::tiers::Cluster;
use fleetline_realtime::{Realtime, RealtimeOptions};
use fleetline_signalr::connection_string::ConnectionString;
use fleetline_wasm::{WasmHost, WasmKind, WasmOptions};
use fleetline_workers::{Options as WorkerOptions, WorkerKind, Workers};
use tokio::task::JoinSet;

use crate::data_dir::FrontPorts;

/// Running tiers.
#[derive(Clone)]
pub(crate) struct Tiers {
    realtime: Arc<Realtime>,
    functions: Option<Arc<Functions>>,
    console: Arc<Console>,
    feed: Arc<live::Feed>,
}

/// What runs functions on this node.
pub(crate) struct Kinds {
    kinds: Vec<Arc<dyn WorkerKind>>,
    /// Closes the workers' gate when it is dropped.
    _workers: Option<Workers>,
}

impl Kinds {
    /// Finds out what this node can run. What it can't is said, and is no reason not to start.
    pub(crate) async fn find(config: &NodeConfig, scratch: &Path) -> Kinds {
        let mut kinds: Vec<Arc<dyn WorkerKind>> = Vec::new();
        if !config.functions {
            return Kinds { kinds, _workers: None };
        }
        let options = WasmOptions { cache: Some(scratch.join("compiled")), ..WasmOptions::default() };
        match WasmHost::new(options) {
            Ok(host) => kinds.push(Arc::new(WasmKind::new(host))),
            Err(error) => tracing::warn!(%error, "functions of WebAssembly can't run on this node"),
        }
        if config.workers.as_os_str().is_empty() {
            return Kinds { kinds, _workers: None };
        }
        let options = WorkerOptions::of_prefix(&scratch.join("workers"), &config.workers);
        match Workers::start(options).await {
            Ok(workers) => {
                kinds.extend([workers.python(), workers.node()]);
                Kinds { kinds, _workers: Some(workers) }
            }
            Err(error) => {
                tracing::warn!(%error, "functions of Python and Node can't run on this node");
                Kinds { kinds, _workers: None }
            }
        }
    }
}

/// What tiers are made of.
pub(crate) struct TierParts<'a> {
    pub(crate) config: &'a NodeConfig,
    pub(crate) scratch: &'a Path,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) kinds: &'a Kinds,
    pub(crate) ports: FrontPorts,
}

impl Tiers {
    /// Makes the tiers; they answer other nodes from now on.
    pub(crate) fn new(parts: TierParts<'_>) -> Tiers {
        let TierParts { config, scratch, cluster, connections, kinds, ports } = parts;
        let realtime = Realtime::new(cluster.clone(), RealtimeOptions::new(endpoint(config, ports)));
        let functions = Functions::new(
            cluster.clone(),
            Arc::new(realtime_out::Out(realtime.clone())),
            kinds.kinds.clone(),
            FunctionsOptions::new(scratch.join("apps")),
        );
        realtime.on_client_event(Arc::new(client_events::ToFunctions(functions.clone())));
        let feed = live::Feed::new(realtime.clone());
        let console = Console::new(ConsoleParts {
            hub: cluster.hub(),
            devices: cluster.devices(),
            functions: Some(Arc::new(live::Status(functions.clone()))),
            live: Some(feed.clone()),
            meters: Some(Arc::new(live::NodeMeters { connections, realtime: realtime.clone() })),
            scope: FeedScope::Led,
            connect_sources: Vec::new(),
        });
        Tiers { realtime, functions: config.functions.then_some(functions), console, feed }
    }

    /// What answers on the HTTP fronts; earlier ones go first.
    pub(crate) fn mounts(&self) -> Vec<Arc<dyn HttpMount>> {
        let mut mounts: Vec<Arc<dyn HttpMount>> = vec![self.realtime.clone(), self.console.clone()];
        if let Some(functions) = &self.functions {
            mounts.push(functions.clone());
        }
        mounts
    }

    /// Their loops, until the set is dropped.
    pub(crate) fn start(&self, loops: &mut JoinSet<()>) {
        loops.spawn(self.realtime.clone().run());
        loops.spawn(self.feed.clone().follow());
        loops.spawn(self.console.clone().run());
        if let Some(functions) = &self.functions {
            loops.spawn(functions.clone().run());
        }
    }

    /// The functions of this node, for an app that is developed on this machine.
    pub(crate) fn functions(&self) -> Option<Arc<Functions>> {
        self.functions.clone()
    }

    /// Ends functions softly and tells browsers to go elsewhere.
    pub(crate) async fn shutdown(&self) {
        self.realtime.shut_down();
        if let Some(functions) = &self.functions {
            functions.stop().await;
        }
    }
}

/// The connection string of the realtime hubs; none before their keys are made.
pub(crate) fn realtime_connection_string(
    config: &NodeConfig,
    ports: FrontPorts,
    state: &ControlState,
) -> Option<String> {
    let setting = state.hub.get(fleetline_realtime::SETTING)?;
    let setting: serde_json::Value = serde_json::from_slice(&setting.value).ok()?;
    let key = setting["accessKeys"]["primary"].as_str()?;
    let endpoint = endpoint(config, ports);
    // The port has a field of its own.
    let (_, authority) = endpoint.split_once("://")?;
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let bare = port.map_or(endpoint.as_str(), |port: u16| endpoint.trim_end_matches(&format!(":{port}")));
    Some(ConnectionString::new(bare, port, key).to_string())
}

/// How clients reach the realtime hubs.
fn endpoint(config: &NodeConfig, ports: FrontPorts) -> String {
    let host = config.hub_host();
    match (ports.https, ports.http_plain) {
        (Some(443), _) | (None, None) => format!("https://{host}"),
        (Some(port), _) => format!("https://{host}:{port}"),
        (None, Some(port)) => format!("http://{host}:{port}"),
    }
}
