//! NATS with its MQTT listener, JetStream and `sync_interval: always`.
//!
//! NATS stores a QoS 1 message before PUBACK, but only while somebody is interested in it. So a session that
//! isn't clean subscribes to everything and leaves: then all messages are kept, as with us.

use std::time::Duration;

use async_nats::jetstream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::brokers::{Brokers, Certificate, Store, Transport, Wanted, local};
use super::dial::{self, Login};
use super::packet::{Connect, DISCONNECT, SUBACK_BYTES, check_suback, subscribe};
use crate::Outcome;
use crate::process::{Servers, free_ports, version};

/// Where NATS keeps QoS 1 messages.
const STREAM: &str = "$MQTT_msgs";

/// Starts as many servers, as a cluster if more than one; streams have as many replicas.
///
/// # Errors
/// When it can't be installed or makes no session.
pub async fn start(wanted: Wanted) -> Outcome<Brokers> {
    let binary = crate::nats::binary()?;
    eprintln!("  {}", version(&binary));
    let mut servers = Servers::new()?;
    let ports = free_ports(3 * wanted.nodes)?;
    let (clients, rest) = ports.split_at(wanted.nodes);
    let (routes, listeners) = rest.split_at(wanted.nodes);
    let certificate = match wanted.transport {
        Transport::Plain => None,
        Transport::Tls => Some(Certificate::make(servers.root())?),
    };
    let tls = certificate.as_ref().map(|made| {
        format!(
            ", tls {{ cert_file: \"{}\", key_file: \"{}\" }}",
            made.file.display(),
            made.key_file.display()
        )
    });
    let tls = tls.unwrap_or_default();
    let urls: Vec<String> = routes.iter().map(|route| format!("nats://127.0.0.1:{route}")).collect();
    for number in 0..wanted.nodes {
        let store = servers.root().join(format!("n{number}"));
        let mut config = format!(
            "listen: \"127.0.0.1:{}\"\nserver_name: n{number}\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always }}\n\
             mqtt {{ listen: \"127.0.0.1:{}\", stream_replicas: {}{tls} }}\n",
            clients[number],
            store.display(),
            listeners[number],
            wanted.nodes,
        );
        if wanted.nodes > 1 {
            let (route, routes) = (routes[number], urls.join(", "));
            config += &format!("cluster {{ name: c, listen: \"127.0.0.1:{route}\", routes: [{routes}] }}\n");
        }
        let file = servers.root().join(format!("n{number}.conf"));
        std::fs::write(&file, config)?;
        servers.start(&binary, ["-c".as_ref(), file.as_os_str()])?;
    }
    let client = connect(&format!("127.0.0.1:{}", clients[0]), &mut servers).await?;
    let mut brokers = Brokers {
        servers,
        addresses: local(listeners),
        login: Login::Anonymous,
        authority_pem: certificate.map(|made| made.pem),
        store: Store::Nats(Box::new(jetstream::new(client))),
    };
    keep_everything(&mut brokers).await?;
    Ok(brokers)
}

async fn connect(url: &str, servers: &mut Servers) -> Outcome<async_nats::Client> {
    let mut last = None;
    for _ in 0..300 {
        servers.check()?;
        match async_nats::connect(url).await {
            Ok(client) => return Ok(client),
            Err(error) => last = Some(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("nats doesn't answer: {}", last.unwrap_or_default()).into())
}

/// Makes the session that is interested in everything. A cluster that has no leader yet refuses it.
async fn keep_everything(brokers: &mut Brokers) -> Outcome<()> {
    let connect =
        Connect { client: "keeper", login: None, clean_session: false, keep_alive_s: 0 }.encode()?;
    let (address, tls) = (brokers.addresses[0], brokers.tls()?);
    let mut last = None;
    for _ in 0..300 {
        brokers.servers.check()?;
        let made = async {
            let mut stream = dial::any(address, tls.as_ref(), &connect).await?;
            stream.write_all(&subscribe("devices/#")?).await?;
            stream.flush().await?;
            let mut suback = [0; SUBACK_BYTES];
            stream.read_exact(&mut suback).await?;
            check_suback(suback)?;
            stream.write_all(&DISCONNECT).await?;
            Outcome::Ok(stream.shutdown().await?)
        };
        match made.await {
            Ok(()) => return Ok(()),
            Err(error) => last = Some(error.to_string()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("nats made no session: {}", last.unwrap_or_default()).into())
}

/// How many messages it keeps.
///
/// # Errors
/// When it doesn't say.
pub async fn kept(context: &jetstream::Context) -> Outcome<u64> {
    let mut stream = context.get_stream(STREAM).await?;
    Ok(stream.info().await?.state.messages)
}
