//! TLS of the fronts for devices: 1.2 and 1.3, client certificates asked for and never insisted on.
//!
//! A device's certificate may be self-signed (known by its thumbprint), so the handshake checks only
//! that the client has its key; who it is is decided when it says so. Chains are judged at login,
//! against the hub's authorities of that moment.

use std::sync::Arc;
use std::time::Duration;

use fleetline_devices::CertificateProof;
use ring::digest;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use thiserror::Error;

use crate::devices::login::ShownCertificate;
use crate::devices::settings::HubSettings;

/// Certificates of a client's chain at the most.
const CHAIN_MAX: usize = 10;
/// Bytes of them together.
const CHAIN_BYTES_MAX: usize = 32 << 10;

/// Why TLS can't be set up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("tls can't be set up: {0}")]
pub struct TlsError(String);

/// The server's side, from a certificate chain and its key in PEM.
///
/// # Errors
/// When they can't be read or don't fit each other.
pub fn server_config(chain_pem: &str, key_pem: &str, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let error = |error: &dyn std::fmt::Display| TlsError(error.to_string());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|found| error(&found))?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|found| error(&found))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyClient { provider: provider.clone() });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|found| error(&found))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|found| error(&found))?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Takes any certificate whose key the client has.
#[derive(Debug)]
struct AnyClient {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let bytes =
            end_entity.len() + intermediates.iter().map(|certificate| certificate.len()).sum::<usize>();
        match intermediates.len() < CHAIN_MAX && bytes <= CHAIN_BYTES_MAX {
            true => Ok(ClientCertVerified::assertion()),
            false => Err(rustls::Error::General("certificate chain is too long".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a client's certificates show; `None` when it showed none or none that can be read.
pub fn shown(chain: Option<&[CertificateDer<'_>]>) -> Option<Arc<ShownCertificate>> {
    let chain = chain?;
    let leaf = chain.first()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let proof = CertificateProof {
        sha1: hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, leaf).as_ref()),
        sha256: hex(digest::digest(&digest::SHA256, leaf).as_ref()),
        common_name: common_name.unwrap_or_default().to_owned(),
        chained: false,
    };
    let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
    Some(Arc::new(ShownCertificate { proof, chain }))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Whether a certificate chains up to a verified authority of the hub, at this time.
pub fn is_chained(settings: &HubSettings, shown: &ShownCertificate, now_secs: u64) -> bool {
    let mut roots = RootCertStore::empty();
    for authority in settings.authorities.values().filter(|authority| authority.verified) {
        let certificates = CertificateDer::pem_slice_iter(authority.pem.as_bytes());
        roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    }
    if roots.is_empty() {
        return false;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let Ok(verifier) = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return false;
    };
    let mut chain = shown.chain.iter().map(|der| CertificateDer::from(der.as_slice()));
    let Some(leaf) = chain.next() else { return false };
    let intermediates: Vec<CertificateDer<'_>> = chain.collect();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now_secs));
    verifier.verify_client_cert(&leaf, &intermediates, now).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::devices::settings::DeviceAuthority;

    fn authority(name: &str) -> (rcgen::CertifiedIssuer<'static, rcgen::KeyPair>, String) {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let issuer =
            rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let pem = issuer.pem();
        (issuer, pem)
    }

    fn device(issuer: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>, id: &str) -> ShownCertificate {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, id);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, issuer).unwrap();
        let chain = [certificate.der().clone()];
        (*shown(Some(&chain)).unwrap()).clone()
    }

    /// A certificate counts if a verified authority issued it; the same name from another one doesn't.
    #[test]
    fn chains() {
        let (issuer, pem) = authority("hub ca");
        let (other, _) = authority("hub ca");
        let settings = |verified| HubSettings {
            authorities: BTreeMap::from([(
                "ca".to_owned(),
                DeviceAuthority { pem: pem.clone(), verified, code: String::new() },
            )]),
            ..HubSettings::default()
        };
        let now = 1_800_000_000;
        let (good, bad) = (device(&issuer, "d"), device(&other, "d"));
        assert_eq!(good.proof.common_name, "d");
        assert!(is_chained(&settings(true), &good, now));
        assert!(!is_chained(&settings(true), &bad, now));
        assert!(!is_chained(&settings(false), &good, now));
        assert!(!is_chained(&HubSettings::default(), &good, now));
    }

    /// Nothing shown is nothing; what can't be read as well.
    #[test]
    fn nothing() {
        assert!(shown(None).is_none() && shown(Some(&[])).is_none());
        assert!(shown(Some(&[CertificateDer::from(vec![1, 2, 3])])).is_none());
    }
}
