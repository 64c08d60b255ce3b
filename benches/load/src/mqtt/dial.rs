//! From an address to an accepted MQTT connection, plain or over TLS.
//!
//! Used by every case, and by the processes that hold idle connections. TLS sessions are never resumed:
//! each connection pays for a whole handshake, as a device's first one does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::packet::{CONNACK_BYTES, Connect, check_connack};
use super::sas;
use crate::Outcome;

/// Longer than any case takes, and within what IoT Hub allows (1,767 s): no PINGREQ is needed.
const KEEP_ALIVE_S: u16 = 1700;
/// How long one connection may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(60);
/// What certificates of all servers are for.
pub const HOST: &str = "localhost";

/// Both directions of a connection.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How devices say who they are. Device `n` is called `devN` everywhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Login {
    /// By name only.
    Anonymous,
    /// With a token for a hub; all devices have the same key.
    Sas {
        /// The hub's name.
        host: String,
        /// The key in base64.
        key: String,
    },
}

impl Login {
    /// CONNECT of a device, clean session.
    ///
    /// # Errors
    /// When the key isn't base64.
    pub fn connect(&self, number: usize) -> Outcome<Vec<u8>> {
        let client = device(number);
        let login = match self {
            Login::Anonymous => None,
            Login::Sas { host, key } => Some((
                format!("{host}/{client}/?api-version=2021-04-12"),
                sas::token(&format!("{host}/devices/{client}"), key, None)?,
            )),
        };
        let login = login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
        Connect { client: &client, login, clean_session: true, keep_alive_s: KEEP_ALIVE_S }.encode()
    }
}

/// The name of a device.
pub fn device(number: usize) -> String {
    format!("dev{number}")
}

/// Where a device sends telemetry.
pub fn topic(number: usize) -> String {
    format!("devices/{}/messages/events/", device(number))
}

/// What a client of these servers trusts.
///
/// # Errors
/// When the text holds no certificate.
pub fn trust(authority_pem: &str) -> Outcome<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority_pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        return Err("no certificate to trust".into());
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Sends CONNECT over a fresh TCP connection and waits for CONNACK.
///
/// # Errors
/// When it isn't accepted in time.
pub async fn tcp(address: SocketAddr, connect: &[u8]) -> Outcome<TcpStream> {
    let dial = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        greet(&mut stream, connect).await?;
        Ok(stream)
    };
    tokio::time::timeout(DIAL_TIMEOUT, dial).await?
}

/// The same over TLS, where a connector is given.
///
/// # Errors
/// When it isn't accepted in time.
pub async fn any(
    address: SocketAddr,
    tls: Option<&TlsConnector>,
    connect: &[u8],
) -> Outcome<Box<dyn Stream>> {
    let Some(tls) = tls else {
        return Ok(Box::new(tcp(address, connect).await?));
    };
    let dial = async {
        let mut stream = secure(address, tls).await?;
        greet(&mut stream, connect).await?;
        Outcome::<Box<dyn Stream>>::Ok(Box::new(stream))
    };
    tokio::time::timeout(DIAL_TIMEOUT, dial).await?
}

/// A TLS connection on which nothing was said yet.
///
/// # Errors
/// When there is none to be had.
pub async fn secure(
    address: SocketAddr,
    tls: &TlsConnector,
) -> Outcome<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(tls.connect(ServerName::try_from(HOST)?, stream).await?)
}

async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), connect: &[u8]) -> Outcome<()> {
    stream.write_all(connect).await?;
    stream.flush().await?;
    let mut connack = [0; CONNACK_BYTES];
    stream.read_exact(&mut connack).await?;
    check_connack(connack)
}
