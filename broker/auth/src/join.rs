//! TLS for a node that joins: it trusts nobody yet and knows only the authority's fingerprint.
//!
//! The server sends its whole chain. The one certificate in it whose SHA-256 is in the token becomes
//! the only root, and the rest is verified as usual. The address that was dialled plays no part: any
//! node of that cluster will do, and its certificate must say that it is one.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::authority::authority_cluster;
use crate::tls::{client_builder, finish_client, provider};
use crate::{AuthError, Fingerprint, Role, identity_of};

/// A client that takes exactly the nodes of the authority with this fingerprint, and shows no
/// certificate of its own.
///
/// # Errors
/// When rustls can't be set up.
pub fn join_client(fingerprint: Fingerprint, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, AuthError> {
    let algorithms = provider().signature_verification_algorithms;
    let verifier = Arc::new(FingerprintVerifier { fingerprint, algorithms });
    let config =
        client_builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(finish_client(config, alpn))
}

struct FingerprintVerifier {
    fingerprint: Fingerprint,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for FingerprintVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| Fingerprint::of_der(certificate.as_ref()) == self.fingerprint)
            .ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let identity = identity_of(end_entity).map_err(|_| bad())?;
        // An authority that we made signs for one cluster; one of an own PKI names none.
        let foreign = authority_cluster(authority).is_ok_and(|cluster| cluster != identity.cluster);
        if foreign || !matches!(identity.role, Role::Node(_)) {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForName));
        }
        let name = ServerName::try_from(identity.name()).map_err(|_| bad())?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for FingerprintVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FingerprintVerifier({})", self.fingerprint)
    }
}

fn bad() -> Error {
    Error::InvalidCertificate(CertificateError::BadEncoding)
}
