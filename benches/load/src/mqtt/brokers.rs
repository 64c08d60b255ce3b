//! The servers of one system with their MQTT listeners, started for one case and gone after it.
//!
//! `mqtt` asks for them; what is particular to each system is in `mosquitto`, `nats` and `hub`.
//!
//! Invariant: a figure of a system that keeps what it acknowledges is checked against what it kept
//! ([`Brokers::check_kept`]), so that nobody is fast by dropping.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_rustls::TlsConnector;

use super::dial::{self, HOST, Login, Stream};
use super::{hub, mosquitto, nats};
use crate::process::Servers;
use crate::{Outcome, System};

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// MQTT over TCP.
    Plain,
    /// MQTT over TLS over TCP.
    Tls,
}

/// What is to be started.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// How many servers.
    pub nodes: usize,
    /// Of the listeners.
    pub transport: Transport,
    /// How many devices must be able to connect, from number 0 on.
    pub devices: usize,
}

/// Who can be asked what was kept.
pub enum Store {
    /// Nothing is kept.
    None,
    /// Messages in a stream.
    Nats(Box<async_nats::jetstream::Context>),
    /// Records in partitions.
    Fleetline(fleetline_client::Client),
}

/// Servers that run.
pub struct Brokers {
    /// Their processes.
    pub servers: Servers,
    /// MQTT listeners, one a node.
    pub addresses: Vec<SocketAddr>,
    /// How devices log in.
    pub login: Login,
    /// Whom to trust, where listeners speak TLS.
    pub authority_pem: Option<String>,
    /// Who knows what was kept.
    pub store: Store,
}

impl Brokers {
    /// Starts them and waits until the first device was accepted everywhere.
    ///
    /// # Errors
    /// When the system can't be installed, can't do this, or doesn't answer.
    pub async fn start(system: System, wanted: Wanted) -> Outcome<Brokers> {
        let mut brokers = match system {
            System::Fleetline => hub::start(wanted).await?,
            System::Mosquitto => mosquitto::start(wanted)?,
            System::Nats => nats::start(wanted).await?,
            System::Etcd => return Err("etcd speaks no MQTT".into()),
        };
        let connect = brokers.login.connect(0)?;
        for address in brokers.addresses.clone() {
            brokers.wait_accepted(address, &connect).await?;
        }
        Ok(brokers)
    }

    /// What clients need for the listeners; none where they are plain.
    ///
    /// # Errors
    /// When the authority is no certificate.
    pub fn tls(&self) -> Outcome<Option<TlsConnector>> {
        self.authority_pem.as_deref().map(dial::trust).transpose()
    }

    async fn wait_accepted(&mut self, address: SocketAddr, connect: &[u8]) -> Outcome<Box<dyn Stream>> {
        let tls = self.tls()?;
        let mut last = None;
        for _ in 0..300 {
            self.servers.check()?;
            match dial::any(address, tls.as_ref(), connect).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error.to_string()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(format!("no MQTT connection to {address}: {}", last.unwrap_or_default()).into())
    }

    /// Fails when less was kept than acknowledged.
    ///
    /// # Errors
    /// Then, and when the system doesn't tell.
    pub async fn check_kept(&self, acknowledged: u64) -> Outcome<()> {
        let kept = match &self.store {
            Store::None => return Ok(()),
            Store::Nats(context) => nats::kept(context).await?,
            Store::Fleetline(client) => hub::kept(client).await?,
        };
        match kept >= acknowledged {
            true => Ok(()),
            false => Err(format!("{acknowledged} were acknowledged and {kept} are there").into()),
        }
    }
}

/// A server certificate and its key as files, for peers; it is its own authority.
pub struct Certificate {
    /// The certificate's text.
    pub pem: String,
    /// Its file.
    pub file: PathBuf,
    /// The key's file.
    pub key_file: PathBuf,
}

impl Certificate {
    /// Makes one for [`HOST`] with a P-256 key, as our own servers have.
    ///
    /// # Errors
    /// When files can't be written.
    pub fn make(dir: &Path) -> Outcome<Certificate> {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
        let (pem, file, key_file) = (made.cert.pem(), dir.join("cert.pem"), dir.join("key.pem"));
        std::fs::write(&file, &pem)?;
        std::fs::write(&key_file, made.signing_key.serialize_pem())?;
        Ok(Certificate { pem, file, key_file })
    }
}

/// Loopback addresses of those ports.
pub fn local(ports: &[u16]) -> Vec<SocketAddr> {
    ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
}
