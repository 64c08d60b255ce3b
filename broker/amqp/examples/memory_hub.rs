//! The front before a hub in memory, for trying SDKs by hand:
//!
//! ```text
//! cargo run -p fleetline-amqp-front --example memory_hub -- FOLDER
//! ```
//!
//! It listens on 127.0.0.1, port 5672 in plain and 5671 with TLS, and writes `ca.pem` for its certificate
//! into FOLDER. The devices are `a` and `b`; it prints connection strings.

#![allow(clippy::unwrap_used)]

#[path = "../tests/front/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../tests/front/hub.rs"]
#[allow(dead_code)]
mod hub;
#[path = "../tests/front/world.rs"]
#[allow(dead_code)]
mod world;

use std::sync::Arc;

use fleetline_amqp_front::{AmqpLimits, serve};
use fleetline_gateway::devices::ingest::IngestOptions;
use fleetline_gateway::http::PeerInfo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::world::{DEVICE_KEY, POLICY_KEY, World};

fn tls(folder: &str) -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    std::fs::write(format!("{folder}/ca.pem"), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::main]
async fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let world = World::with(AmqpLimits::default(), IngestOptions::default(), |_| {}).await;
    world.hub.set(|settings| settings.host_names.push("localhost".into()));
    println!("HostName=localhost;SharedAccessKeyName=service;SharedAccessKey={POLICY_KEY}");
    println!("HostName=localhost;DeviceId=a;SharedAccessKey={DEVICE_KEY}");
    let acceptor = tls(&folder);
    let plain = TcpListener::bind("127.0.0.1:5672").await.unwrap();
    let secure = TcpListener::bind("127.0.0.1:5671").await.unwrap();
    println!("ready");
    loop {
        let (io, address, is_plain) = tokio::select! {
            accepted = plain.accept() => accepted.map(|(io, address)| (io, address, true)).unwrap(),
            accepted = secure.accept() => accepted.map(|(io, address)| (io, address, false)).unwrap(),
        };
        let peer = PeerInfo { address, certificate: None, chained: Arc::new(|_| false) };
        let (context, acceptor) = (world.context.clone(), acceptor.clone());
        tokio::spawn(async move {
            match is_plain {
                true => serve(context, io, peer).await,
                false => match acceptor.accept(io).await {
                    Ok(io) => serve(context, io, peer).await,
                    Err(error) => println!("tls: {error}"),
                },
            }
        });
    }
}
