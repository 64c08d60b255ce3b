//! rustls configurations from the cluster's certificates.
//!
//! All are TLS 1.3 only with the ring provider, trust nothing but the given authority, and neither
//! resume sessions nor take early data.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::authority::certificate_of_pem;
use crate::live::{Trust, certified_key};
use crate::{AuthError, Identity, LiveTls, Role, identity_of};

/// What somebody needs to prove who it is, and to verify others.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsBundle {
    /// The authority's certificate.
    pub authority_pem: String,
    /// Its own certificate; intermediate ones may follow it.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
}

/// Whether a front asks its clients for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Not at all: clients prove themselves otherwise.
    None,
    /// A client may show one of this authority; a bad one is refused.
    Optional,
    /// A client must.
    Required,
}

impl TlsBundle {
    /// Who the certificate names.
    ///
    /// # Errors
    /// See [`identity_of`].
    pub fn identity(&self) -> Result<Identity, AuthError> {
        identity_of(&certificate_of_pem(&self.certificate_pem)?)
    }

    /// Checks that the certificate is `role`'s in `cluster` and that the key belongs to it.
    ///
    /// # Errors
    /// What doesn't fit.
    pub fn check(&self, cluster: &str, role: &Role) -> Result<(), AuthError> {
        let certificate = certificate_of_pem(&self.certificate_pem)?;
        let identity = identity_of(&certificate)?;
        if identity.cluster != cluster {
            return Err(AuthError::WrongCluster { found: identity.cluster, expected: cluster.to_owned() });
        }
        if identity.role != *role {
            let (found, expected) = (identity.role.to_string(), role.to_string());
            return Err(AuthError::WrongRole { found, expected });
        }
        certified_key(&self.certificate_pem, &self.key_pem).map(drop)
    }

    /// Checks that the certificate would be believed by others of its kind: signed by the authority, in
    /// its time, fit for its role, and not revoked by the lists in `crl_pem`.
    ///
    /// # Errors
    /// Why not.
    pub fn verify(&self, crl_pem: Option<&str>, now: SystemTime) -> Result<(), AuthError> {
        let identity = self.identity()?;
        let chain = certificates(&self.certificate_pem)?;
        let (own, above) = chain.split_first().ok_or(AuthError::NotOneName(0))?;
        let trust = Trust::new(&self.authority_pem, crl_pem)?;
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        let refused =
            |error: rustls::Error| AuthError::Refused { name: identity.name(), reason: error.to_string() };
        trust.clients.verify_client_cert(own, above, now).map_err(refused)?;
        if matches!(identity.role, Role::Node(_)) {
            let name = identity.name();
            let name = ServerName::try_from(name.clone()).map_err(|_| AuthError::UnknownName(name))?;
            trust.servers.verify_server_cert(own, above, &name, &[], now).map_err(refused)?;
        }
        Ok(())
    }

    /// See [`LiveTls::peer_server`].
    ///
    /// # Errors
    /// When a part can't be read or the parts don't fit.
    pub fn peer_server(&self) -> Result<Arc<ServerConfig>, AuthError> {
        LiveTls::new(self, None)?.peer_server()
    }

    /// For connections of `raft/transport` to its peers.
    ///
    /// # Errors
    /// When a part can't be read or the parts don't fit.
    pub fn peer_client(&self) -> Result<Arc<ClientConfig>, AuthError> {
        front_client(self, &[])
    }

    /// See [`LiveTls::front_server`].
    ///
    /// # Errors
    /// When a part can't be read or the parts don't fit.
    pub fn front_server(&self, alpn: &[&[u8]], auth: ClientAuth) -> Result<Arc<ServerConfig>, AuthError> {
        LiveTls::new(self, None)?.front_server(alpn, auth)
    }

    /// The own certificate and those above it. The authority's is sent too: a node that joins knows
    /// only its fingerprint.
    pub(crate) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, AuthError> {
        let mut chain = certificates(&self.certificate_pem)?;
        for authority in certificates(&self.authority_pem)? {
            if !chain.contains(&authority) {
                chain.push(authority);
            }
        }
        Ok(chain)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, AuthError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|_| AuthError::Malformed {
            what: "private key",
            reason: "no key in PEM form".to_owned(),
        })
    }
}

impl fmt::Debug for TlsBundle {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsBundle").field("identity", &self.identity()).finish_non_exhaustive()
    }
}

/// For a client that shows the certificate in `bundle`.
///
/// # Errors
/// When a part can't be read or the parts don't fit.
pub fn front_client(bundle: &TlsBundle, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, AuthError> {
    let config = client_builder()?
        .with_root_certificates(roots(&bundle.authority_pem)?)
        .with_client_auth_cert(bundle.chain()?, bundle.key()?)
        .map_err(tls)?;
    Ok(finish_client(config, alpn))
}

/// For a client that only verifies the server, and proves itself otherwise.
///
/// # Errors
/// When the authority's certificate can't be read.
pub fn front_client_anonymous(authority_pem: &str, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, AuthError> {
    let config = client_builder()?.with_root_certificates(roots(authority_pem)?).with_no_client_auth();
    Ok(finish_client(config, alpn))
}

pub(crate) fn client_builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, AuthError>
{
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)
}

pub(crate) fn finish_client(mut config: ClientConfig, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Arc::new(config)
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn roots(authority_pem: &str) -> Result<RootCertStore, AuthError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(authority_pem)? {
        roots.add(authority).map_err(tls)?;
    }
    Ok(roots)
}

/// All certificates in a PEM text; at least one.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, AuthError> {
    let malformed = |reason: String| AuthError::Malformed { what: "certificate", reason };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| malformed(error.to_string()))?;
    if found.is_empty() { Err(malformed("no certificate in PEM form".into())) } else { Ok(found) }
}

pub(crate) fn tls(error: rustls::Error) -> AuthError {
    AuthError::Tls(error.to_string())
}
