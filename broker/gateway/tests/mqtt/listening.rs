//! The listener before the front: real sockets and TLS, so time is real here.

use std::sync::Arc;

use fleetline_gateway::listen::{Listening, accept, bind};
use fleetline_gateway::mqtt::serve;
use fleetline_gateway::tls::server_config;
use fleetline_mqtt::{Connect, Version, encode};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::counts::Counts;
use crate::world::World;

/// A client's side that trusts this certificate.
fn connector(certificate: CertificateDer<'static>) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Peers that connect and say nothing keep nobody out: at the bound the oldest of them is dropped, at once.
#[tokio::test]
async fn silent_peers_keep_nobody_out() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let world = World::new().await;
    let made = rcgen::generate_simple_self_signed(["hub.example".to_owned()]).unwrap();
    let tls = server_config(&made.cert.pem(), &made.signing_key.serialize_pem(), &[]).unwrap();
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let listening = Listening { hub: world.hub.clone(), tls: Some(tls), name: "mqtt", handshakes_max: 2 };
    let (plain, secure) = (world.context.clone(), world.context.clone());
    let accepting = accept(
        listening,
        listener,
        move |socket, peer| serve(plain.clone(), socket, peer),
        move |socket, peer| serve(secure.clone(), socket, peer),
    );
    let accepting = tokio::spawn(accepting);
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("hub.example").unwrap();
    let mut client = connector(made.cert.der().clone()).connect(name, socket).await.unwrap();
    let token = world.token("hub.example/devices/a", 60);
    let mut connect = Connect::new(Version::V311, "a");
    connect.username = Some("hub.example/a/?api-version=2021-04-12");
    connect.password = Some(token.as_bytes());
    let mut bytes = Vec::new();
    encode::connect(&mut bytes, &connect).unwrap();
    client.write_all(&bytes).await.unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    // Two gave way: one to the third silent peer, one to the client. The third stays.
    for gone in &mut silent[..2] {
        assert_eq!(gone.read(&mut [0; 16]).await.unwrap_or(0), 0);
    }
    assert_eq!(counts.of("fleetline_front_refused_total mqtt handshakes_max"), 2);
    assert_eq!(counts.of("fleetline_front_refused_total mqtt handshake_timeout"), 0);
    accepting.abort();
}
