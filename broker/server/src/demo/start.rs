//! The demo's node: on free ports of this machine, until it is ready.

use std::net::SocketAddr;
use std::time::Duration;

use fleetline_cli::CliError;
use fleetline_config::FrontListen;
use fleetline_node::Node;
use fleetline_telemetry::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::ports::{Kind, Ports};
use super::show::Step;
use super::{DemoArgs, failed};
use crate::serve::ServeArgs;

/// How long a node may take until it is ready: it replays its log, and makes certificates the first time.
const READY_MAX: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// A node that is ready.
pub(super) struct Started {
    pub(super) node: Node,
    /// Where HTTPS is served.
    pub(super) https: SocketAddr,
    /// Where MQTT over TLS is served.
    pub(super) mqtt: SocketAddr,
}

/// Starts the node and waits until it is ready.
///
/// # Errors
/// What keeps it from starting, and what to do about it.
pub(super) async fn node(args: &DemoArgs, metrics: Metrics) -> Result<Started, CliError> {
    if !args.workers.join("python").is_dir() {
        return Err(CliError::Failed(format!(
            "there is no {}: Python functions can't run\nhint: `broker/workers/setup.sh {}` makes it (python3 with \
             venv, npm and their registries are needed), or name another folder with --workers",
            args.workers.join("python").display(),
            args.workers.display()
        )));
    }
    let step = Step::begin("node");
    let is_new = !args.data.join("node.json").exists();
    step.tell(if is_new { "making a cluster of one node, and its certificates" } else { "reading its data" });
    let mut ports = Ports::default();
    let https = match args.https {
        Some(address) => address,
        None => ports.find("HTTPS", Kind::Tcp, 8443)?,
    };
    let http = match args.http {
        Some(address) => address,
        None => ports.find("HTTP", Kind::Tcp, 8088)?,
    };
    let mqtt = ports.find("MQTT", Kind::Both, 8883)?;
    let ops = ports.find("metrics", Kind::Tcp, 4480)?;
    let serve = ServeArgs {
        data: Some(args.data.clone()),
        listen: Some(ports.find("clients", Kind::Udp, 4433)?),
        peer_listen: Some(ports.find("other nodes", Kind::Tcp, 4434)?),
        ops_listen: Some(ops),
        mqtt_listen: Some(FrontListen::At(mqtt)),
        https_listen: Some(FrontListen::At(https)),
        http_plain_listen: Some(FrontListen::At(http)),
        amqp_listen: Some(FrontListen::At(ports.find("AMQP", Kind::Tcp, 5671)?)),
        workers: Some(args.workers.clone()),
        ..ServeArgs::default()
    };
    let node = Node::start(serve.to_config()?, metrics).await.map_err(|error| explained(&error, args))?;
    if let Err(error) = ready(ops).await {
        node.shutdown().await;
        return Err(error);
    }
    step.done(&format!(
        "{} is ready: MQTT {}, HTTPS {}, HTTP {}, metrics http://{ops}/metrics",
        node.id(),
        mqtt.port(),
        https.port(),
        http.port()
    ));
    Ok(Started { node, https, mqtt })
}

fn explained(error: &fleetline_node::NodeError, args: &DemoArgs) -> CliError {
    failed(format_args!(
        "the node doesn't start: {error}\nhint: does another demo or node run on {}? --data names another folder",
        args.data.display()
    ))
}

/// Waits until the node says that it is ready: then its client folder is written, too.
async fn ready(ops: SocketAddr) -> Result<(), CliError> {
    let give_up = Instant::now() + READY_MAX;
    loop {
        let answer = readyz(ops).await.unwrap_or_else(|error| error.to_string());
        if answer.starts_with("HTTP/1.1 200") {
            return Ok(());
        }
        if Instant::now() >= give_up {
            let reason = answer.lines().last().unwrap_or_default();
            return Err(failed(format_args!(
                "the node is not ready after {} s: {reason}",
                READY_MAX.as_secs()
            )));
        }
        sleep(LOOK).await;
    }
}

async fn readyz(ops: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(ops).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {ops}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    // A few lines; whatever else answers there isn't read without end.
    stream.take(16 << 10).read_to_string(&mut answer).await?;
    Ok(answer)
}
