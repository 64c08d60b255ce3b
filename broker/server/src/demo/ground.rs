//! How aircraft reach the hub: TCP to the node's MQTT port, TLS with the hub's name.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use fleetline_cli::Hub;
use fleetline_iothub::sas::SasKey;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How connections are made.
pub(super) trait Dial: Send + Sync + 'static {
    /// Both directions of a connection.
    type Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send;
    /// Connects, TLS included.
    fn dial(&self) -> impl Future<Output = std::io::Result<Self::Stream>> + Send;
}

/// The hub, as aircraft see it.
pub(super) struct Ground<D> {
    /// Its name.
    pub(super) hub: String,
    /// The key of each device.
    pub(super) keys: BTreeMap<String, SasKey>,
    pub(super) dial: D,
}

/// Connections over TLS.
pub(super) struct Tls {
    name: String,
    address: SocketAddr,
    config: Arc<ClientConfig>,
}

impl Tls {
    /// To the MQTT port of a hub, trusting whom its other clients trust.
    pub(super) fn new(hub: &Hub, address: SocketAddr) -> Tls {
        Tls { name: hub.name.clone(), address, config: hub.tls.clone() }
    }
}

impl Dial for Tls {
    type Stream = TlsStream<TcpStream>;

    async fn dial(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(self.name.clone()).map_err(std::io::Error::other)?;
        TlsConnector::from(self.config.clone()).connect(name, stream).await
    }
}
