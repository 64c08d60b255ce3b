//! `fleetline serve`: flags to configuration, joining, running, stopping.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use fleetline_cli::CliError;
use fleetline_client::ClientOptions;
use fleetline_config::{FrontListen, NodeConfig};
use fleetline_node::{Node, fetch_authority, prepare_join};
use fleetline_telemetry::{LogFormat, Metrics, init_logs};
use tokio::signal::unix::{SignalKind, signal};

/// Flags of a node; each overrides the file and the environment.
#[derive(Args, Debug, Default)]
pub struct ServeArgs {
    /// The data folder; made when missing.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// A TOML file with options; see --print-config.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where clients connect (QUIC, UDP).
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where other nodes connect (TCP).
    #[arg(long, value_name = "ADDR:PORT")]
    pub peer_listen: Option<SocketAddr>,
    /// Where metrics and health are served (HTTP).
    #[arg(long, value_name = "ADDR:PORT")]
    pub ops_listen: Option<SocketAddr>,
    /// Where devices connect with MQTT over TLS and QUIC: auto, off or an address.
    #[arg(long, value_name = "ADDR:PORT")]
    pub mqtt_listen: Option<FrontListen>,
    /// Where devices connect with MQTT without TLS.
    #[arg(long, value_name = "ADDR:PORT")]
    pub mqtt_plain_listen: Option<FrontListen>,
    /// Where HTTPS and WebSocket are served: auto, off or an address.
    #[arg(long, value_name = "ADDR:PORT")]
    pub https_listen: Option<FrontListen>,
    /// Where HTTP and WebSocket are served without TLS, for a browser on this machine: off or an address.
    #[arg(long, value_name = "ADDR:PORT")]
    pub http_plain_listen: Option<FrontListen>,
    /// Where devices and services connect with AMQP over TLS: auto, off or an address.
    #[arg(long, value_name = "ADDR:PORT")]
    pub amqp_listen: Option<FrontListen>,
    /// Where they connect with AMQP without TLS.
    #[arg(long, value_name = "ADDR:PORT")]
    pub amqp_plain_listen: Option<FrontListen>,
    /// Folder with what Python and Node functions need (broker/workers/setup.sh makes it).
    #[arg(long, value_name = "DIR")]
    pub workers: Option<PathBuf>,
    /// The hub's name in connection strings.
    #[arg(long, value_name = "HOST")]
    pub hub_name: Option<String>,
    /// The host by which clients and nodes reach this node.
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// Failure zone; replicas are spread over zones.
    #[arg(long)]
    pub zone: Option<String>,
    /// Partitions of a new hub.
    #[arg(long)]
    pub partitions: Option<u32>,
    /// Replicas that a partition of a new hub should have.
    #[arg(long)]
    pub replicas: Option<u32>,
    /// Join the cluster that made this token, if the folder belongs to none yet.
    #[arg(long, value_name = "TOKEN")]
    pub join: Option<String>,
    /// Print the effective configuration and end.
    #[arg(long)]
    pub print_config: bool,
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(error.to_string())
}

impl ServeArgs {
    /// The configuration that file, environment and flags give together.
    pub fn to_config(&self) -> Result<NodeConfig, CliError> {
        let loaded = NodeConfig::load(self.config.as_deref(), std::env::vars());
        let mut config = loaded.map_err(|errors| CliError::Usage(format!("configuration:\n{errors}")))?;
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                *to = value.clone();
            }
        }
        set(&mut config.data, &self.data);
        set(&mut config.listen, &self.listen);
        set(&mut config.peer_listen, &self.peer_listen);
        set(&mut config.ops_listen, &self.ops_listen);
        set(&mut config.mqtt_listen, &self.mqtt_listen);
        set(&mut config.mqtt_plain_listen, &self.mqtt_plain_listen);
        set(&mut config.https_listen, &self.https_listen);
        set(&mut config.http_plain_listen, &self.http_plain_listen);
        set(&mut config.amqp_listen, &self.amqp_listen);
        set(&mut config.amqp_plain_listen, &self.amqp_plain_listen);
        set(&mut config.workers, &self.workers);
        set(&mut config.hub_name, &self.hub_name);
        set(&mut config.advertise, &self.advertise);
        set(&mut config.zone, &self.zone);
        set(&mut config.partitions, &self.partitions);
        set(&mut config.replicas, &self.replicas);
        // Workers run in the folders of their apps.
        if !config.workers.as_os_str().is_empty() {
            config.workers = std::path::absolute(&config.workers)?;
        }
        config.validate().map_err(|errors| CliError::Usage(format!("configuration:\n{errors}")))?;
        Ok(config)
    }
}

/// Runs a node until it is told to stop or can't go on.
pub async fn run(args: ServeArgs) -> Result<(), CliError> {
    let config = args.to_config()?;
    if args.print_config {
        print!("{}", config.effective());
        return Ok(());
    }
    let format = if config.log_format == "json" { LogFormat::Json } else { LogFormat::Text };
    init_logs(&config.log_level, format).map_err(CliError::Usage)?;
    let metrics = Metrics::install().map_err(failed)?;
    if let Some(token) = &args.join {
        join(&config, token).await?;
    }
    let mut node = Node::start(config, metrics).await.map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stopped = tokio::select! {
        error = node.wait() => Err(failed(error)),
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    // When what failed may be the disk, nothing that follows may claim that it was saved.
    stopped?;
    tracing::info!("stopping: leadership is handed over first");
    node.shutdown().await;
    Ok(())
}

/// Joins the cluster of `token`, unless the folder belongs to one already.
async fn join(config: &NodeConfig, token: &str) -> Result<(), CliError> {
    let Some((token, plan)) = prepare_join(config, token).map_err(failed)? else {
        tracing::info!("folder belongs to a cluster already, the token isn't needed");
        return Ok(());
    };
    let authority = fetch_authority(&token).await.map_err(failed)?;
    let options = ClientOptions::new(token.addresses.clone(), authority);
    let reply = fleetline_client::join(options, plan.request.clone()).await?;
    tracing::info!(cluster = reply.cluster, node = %reply.node, "joined");
    plan.accept(&reply).map_err(failed)
}
