//! What a client needs to know before it can connect, and the TLS that follows from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleetline_native::connection::ALPN;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// How to reach a cluster and how to behave there.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `host:port` of some nodes, to begin with; the others are learned from them. The host part is
    /// the name that the node's certificate must carry.
    pub endpoints: Vec<String>,
    /// The certificate of the authority that signed the nodes' certificates, PEM.
    pub authority_pem: String,
    /// This client's certificate chain and private key, both PEM. Without it only a join request is
    /// answered.
    pub identity: Option<(String, String)>,
    /// The id of the cluster; a node of another one is refused. `None` takes what the first node
    /// says.
    pub cluster: Option<String>,
    /// What this client calls itself in logs and group descriptions. At most 1 KiB.
    pub client_name: String,
    /// How long one connection may take to come up, hello included. Default 3 s.
    pub connect_timeout: Duration,
    /// How long a request may take in all, with retries on other nodes. Default 15 s.
    pub request_timeout: Duration,
    /// First pause before something is tried again; doubles, with jitter. Default 20 ms.
    pub backoff_min: Duration,
    /// Longest pause before something is tried again. Default 1 s.
    pub backoff_max: Duration,
    /// A silent connection is given up after this long. Default 15 s. A node that dies is noticed
    /// earlier, when its kernel or its next life says so; a node that vanishes is not.
    pub idle_timeout: Duration,
    /// A sign of life is sent after this much silence. Default 5 s.
    pub keep_alive: Duration,
    /// Bytes of the largest UDP payload that path discovery tries. Default 1452; up to 6500 on jumbo
    /// networks.
    pub mtu_upper_bound: u16,
}

impl ClientOptions {
    /// Options with defaults for everything that has one.
    pub fn new(endpoints: Vec<String>, authority_pem: String) -> ClientOptions {
        ClientOptions {
            endpoints,
            authority_pem,
            identity: None,
            cluster: None,
            client_name: format!("fleetline-client/{}", env!("CARGO_PKG_VERSION")),
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(15),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(15),
            keep_alive: Duration::from_secs(5),
            mtu_upper_bound: 1452,
        }
    }

    /// Reads `endpoints` (one `host:port` a line, `#` begins a comment), `authority.pem`,
    /// `client.pem` and `client.key` from a folder, as `fleetline serve` writes it. The last two may
    /// be missing together: then the client has no identity.
    ///
    /// # Errors
    /// [`OptionsError`] names the file that can't be read.
    pub fn from_context(dir: impl AsRef<Path>) -> Result<ClientOptions, OptionsError> {
        let dir = dir.as_ref();
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(|error| OptionsError::File { path, error })
        };
        let lines = read("endpoints")?;
        let endpoints = lines
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim())
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        let mut options = ClientOptions::new(endpoints, read("authority.pem")?);
        if dir.join("client.pem").exists() || dir.join("client.key").exists() {
            options.identity = Some((read("client.pem")?, read("client.key")?));
        }
        Ok(options)
    }

    /// Checks values and builds the QUIC settings from them.
    pub(crate) fn quic(&self) -> Result<quinn::ClientConfig, OptionsError> {
        if self.endpoints.is_empty() {
            return Err(OptionsError::Invalid("no endpoint is given".into()));
        }
        for endpoint in &self.endpoints {
            host_of(endpoint)?;
        }
        if !(1200..=6500).contains(&self.mtu_upper_bound) {
            let message = format!("mtu_upper_bound {} is not in 1200 to 6500", self.mtu_upper_bound);
            return Err(OptionsError::Invalid(message));
        }
        let tls = self.tls()?;
        let crypto = QuicClientConfig::try_from(tls).map_err(|e| OptionsError::Invalid(e.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(self.transport()?));
        Ok(config)
    }

    fn tls(&self) -> Result<rustls::ClientConfig, OptionsError> {
        let mut roots = RootCertStore::empty();
        for cert in certificates(&self.authority_pem, "authority_pem")? {
            roots.add(cert).map_err(|e| OptionsError::Invalid(format!("authority_pem: {e}")))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| OptionsError::Invalid(e.to_string()))?
            .with_root_certificates(roots);
        let mut tls = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                    .map_err(|e| OptionsError::Invalid(format!("private key of the identity: {e}")))?;
                builder
                    .with_client_auth_cert(certificates(chain, "certificate of the identity")?, key)
                    .map_err(|e| OptionsError::Invalid(format!("identity: {e}")))?
            }
        };
        tls.alpn_protocols = vec![ALPN.to_vec()];
        Ok(tls)
    }

    fn transport(&self) -> Result<TransportConfig, OptionsError> {
        let idle = IdleTimeout::try_from(self.idle_timeout).map_err(|_| {
            OptionsError::Invalid(format!("idle_timeout {:?} is too long", self.idle_timeout))
        })?;
        let mut mtu = MtuDiscoveryConfig::default();
        mtu.upper_bound(self.mtu_upper_bound);
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(2 * 1024 * 1024))
            .receive_window(VarInt::from_u32(16 * 1024 * 1024))
            .send_window(16 * 1024 * 1024)
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.keep_alive))
            .mtu_discovery_config(Some(mtu));
        Ok(transport)
    }
}

/// The host part of `host:port`, without the brackets of an IPv6 address.
pub(crate) fn host_of(endpoint: &str) -> Result<&str, OptionsError> {
    let invalid = || OptionsError::Invalid(format!("endpoint {endpoint:?} is not host:port"));
    let (host, port) = endpoint.rsplit_once(':').ok_or_else(invalid)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(invalid());
    }
    Ok(host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host))
}

fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, OptionsError> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certs {
        Ok(certs) if certs.is_empty() => Err(OptionsError::Invalid(format!("{what} holds no certificate"))),
        Ok(certs) => Ok(certs),
        Err(error) => Err(OptionsError::Invalid(format!("{what}: {error}"))),
    }
}

/// Options that can't work.
#[derive(Debug, Error)]
pub enum OptionsError {
    /// A file of the context folder can't be read.
    #[error("{path}: {error}; is this a folder written by `fleetline serve`?", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A value that can't work.
    #[error("client options: {0}")]
    Invalid(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hosts of endpoints, with and without brackets; what is no endpoint is refused.
    #[test]
    fn hosts_of_endpoints() {
        for (endpoint, expected) in [
            ("localhost:7400", Some("localhost")),
            ("10.0.0.1:1", Some("10.0.0.1")),
            ("[::1]:7400", Some("::1")),
            ("localhost", None),
            (":7400", None),
            ("a:b", None),
            ("a:70000", None),
        ] {
            assert_eq!(host_of(endpoint).ok(), expected, "{endpoint}");
        }
    }

    /// Options without an endpoint or with a text that is no certificate are refused by name.
    #[test]
    fn bad_options_are_named() {
        let error = |options: ClientOptions| options.quic().err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error(ClientOptions::new(vec![], String::new())).contains("no endpoint"));
        let text = error(ClientOptions::new(vec!["a:1".into()], "hello".into()));
        assert!(text.contains("authority_pem holds no certificate"), "{text}");
    }

    /// A folder without its files is named in the error, with what it should have been.
    #[test]
    fn a_missing_context_is_named() {
        let error = ClientOptions::from_context("/nonexistent").unwrap_err().to_string();
        assert!(error.starts_with("/nonexistent/endpoints:"), "{error}");
    }
}
