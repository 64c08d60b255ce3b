//! Keys, trust and revocation lists that can change while a node runs.
//!
//! rustls takes its certificates once. What it is given here are cells: [`LiveKey`] shows whichever
//! certificate was set last, and the verifiers of [`LiveTls`] judge by the authority and the lists
//! that were set last. `broker/node` sets them when files change or a certificate was renewed.
//!
//! Invariants:
//! 1. A change is checked before it takes effect; a bad one changes nothing.
//! 2. Only handshakes look: connections that are open go on, also those of a revoked certificate.
//! 3. With revocation lists, a certificate whose status they don't tell is refused. A list that is
//!    past its next update still counts: an authority that is late must not stop a cluster.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, InconsistentKeys, ServerConfig,
    SignatureScheme,
};

use crate::tls::{certificates, client_builder, finish_client, provider, roots, tls};
use crate::{AuthError, ClientAuth, TlsBundle};

/// A certificate chain with its key, from PEM. The key may have any form that rustls reads.
///
/// # Errors
/// When one can't be read, or they don't belong together.
pub fn certified_key(chain_pem: &str, key_pem: &str) -> Result<Arc<CertifiedKey>, AuthError> {
    certify(certificates(chain_pem)?, key_pem)
}

pub(crate) fn certify(
    chain: Vec<CertificateDer<'static>>,
    key_pem: &str,
) -> Result<Arc<CertifiedKey>, AuthError> {
    // The parser's words could quote the key, so they are not passed on.
    let malformed = || AuthError::Malformed { what: "private key", reason: "no key in PEM form".to_owned() };
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| malformed())?;
    match CertifiedKey::from_der(chain, key, &provider()) {
        Ok(key) => Ok(Arc::new(key)),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(AuthError::KeyMismatch("own")),
        Err(error) => Err(tls(error)),
    }
}

/// The certificate that is shown from now on.
pub struct LiveKey(RwLock<Arc<CertifiedKey>>);

impl LiveKey {
    /// Shows this one.
    pub fn new(key: Arc<CertifiedKey>) -> Arc<LiveKey> {
        Arc::new(LiveKey(RwLock::new(key)))
    }

    /// Shows this one in the handshakes that follow.
    pub fn set(&self, key: Arc<CertifiedKey>) {
        *self.0.write() = key;
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.0.read().clone()
    }
}

impl ResolvesServerCert for LiveKey {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for LiveKey {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl fmt::Debug for LiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LiveKey")
    }
}

/// Who is believed: one authority, less what its lists revoke.
pub(crate) struct Trust {
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
    pub(crate) servers: Arc<WebPkiServerVerifier>,
}

impl Trust {
    /// Believes `authority_pem`, less what the lists in `crl_pem` revoke.
    pub(crate) fn new(authority_pem: &str, crl_pem: Option<&str>) -> Result<Trust, AuthError> {
        let roots = Arc::new(roots(authority_pem)?);
        let lists = crl_pem.map(revocation_lists).transpose()?.unwrap_or_default();
        let unbuilt = |error: &dyn fmt::Display| AuthError::Tls(error.to_string());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .with_crls(lists.clone())
            .build()
            .map_err(|error| unbuilt(&error))?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .with_crls(lists)
            .build()
            .map_err(|error| unbuilt(&error))?;
        Ok(Trust { clients, servers })
    }
}

/// All revocation lists in a PEM text; at least one, because none would revoke nothing unnoticed.
fn revocation_lists(pem: &str) -> Result<Vec<CertificateRevocationListDer<'static>>, AuthError> {
    let malformed = |reason: String| AuthError::Malformed { what: "revocation list", reason };
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| malformed(error.to_string()))?;
    if found.is_empty() { Err(malformed("no X509 CRL in PEM form".into())) } else { Ok(found) }
}

/// A node's TLS, whose parts can be replaced while its configurations are in use.
pub struct LiveTls {
    key: Arc<LiveKey>,
    trust: Arc<RwLock<Arc<Trust>>>,
}

impl LiveTls {
    /// Shows and trusts what `bundle` says, less what the lists in `crl_pem` revoke.
    ///
    /// # Errors
    /// When a part can't be read or the parts don't fit.
    pub fn new(bundle: &TlsBundle, crl_pem: Option<&str>) -> Result<LiveTls, AuthError> {
        let trust = Trust::new(&bundle.authority_pem, crl_pem)?;
        let key = LiveKey::new(certify(bundle.chain()?, &bundle.key_pem)?);
        Ok(LiveTls { key, trust: Arc::new(RwLock::new(Arc::new(trust))) })
    }

    /// As [`LiveTls::new`] from now on, in every configuration that was made of this.
    ///
    /// # Errors
    /// When a part can't be read or the parts don't fit; nothing has changed then.
    pub fn replace(&self, bundle: &TlsBundle, crl_pem: Option<&str>) -> Result<(), AuthError> {
        let trust = Trust::new(&bundle.authority_pem, crl_pem)?;
        let key = certify(bundle.chain()?, &bundle.key_pem)?;
        *self.trust.write() = Arc::new(trust);
        self.key.set(key);
        Ok(())
    }

    /// For the listener of `raft/transport`: clients must show a certificate of the authority.
    ///
    /// # Errors
    /// When rustls can't be set up.
    pub fn peer_server(&self) -> Result<Arc<ServerConfig>, AuthError> {
        self.front_server(&[], ClientAuth::Required)
    }

    /// For connections of `raft/transport` to its peers.
    ///
    /// # Errors
    /// When rustls can't be set up.
    pub fn peer_client(&self) -> Result<Arc<ClientConfig>, AuthError> {
        let config = client_builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(LiveServers(self.trust.clone())))
            .with_client_cert_resolver(self.key.clone());
        Ok(finish_client(config, &[]))
    }

    /// For a listener of clients that speak one of the `alpn` protocols (all, when it is empty).
    ///
    /// # Errors
    /// When rustls can't be set up.
    pub fn front_server(&self, alpn: &[&[u8]], auth: ClientAuth) -> Result<Arc<ServerConfig>, AuthError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls)?;
        let mandatory = auth == ClientAuth::Required;
        let builder = match auth {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Optional | ClientAuth::Required => {
                let verifier = LiveClients { trust: self.trust.clone(), mandatory };
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
        };
        let mut config = builder.with_cert_resolver(self.key.clone());
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }
}

/// Verifies clients by the trust of the moment.
struct LiveClients {
    trust: Arc<RwLock<Arc<Trust>>>,
    mandatory: bool,
}

impl LiveClients {
    fn now(&self) -> Arc<dyn ClientCertVerifier> {
        self.trust.read().clients.clone()
    }
}

impl ClientCertVerifier for LiveClients {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// None: they can't change, and clients of ours have one certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.now().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.now().verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.now().verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.now().supported_verify_schemes()
    }
}

impl fmt::Debug for LiveClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LiveClients")
    }
}

/// Verifies peers by the trust of the moment.
struct LiveServers(Arc<RwLock<Arc<Trust>>>);

impl LiveServers {
    fn now(&self) -> Arc<WebPkiServerVerifier> {
        self.0.read().servers.clone()
    }
}

impl ServerCertVerifier for LiveServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.now().verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.now().verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.now().verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.now().supported_verify_schemes()
    }
}

impl fmt::Debug for LiveServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LiveServers")
    }
}
