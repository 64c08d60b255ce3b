//! Who may do what, by certificate.

use fleetline_auth::{Role, identity_of};
use fleetline_gateway::access::{Access, Authorizer};
use rustls::pki_types::CertificateDer;

/// Reads the role out of a verified certificate of the cluster's authority.
pub(crate) struct ByCertificate {
    pub(crate) cluster: String,
}

impl Authorizer for ByCertificate {
    fn identify(&self, certs: Option<&[CertificateDer<'_>]>) -> Access {
        let Some(certificate) = certs.and_then(|certs| certs.first()) else {
            return Access::Anonymous;
        };
        match identity_of(certificate) {
            Ok(identity) if identity.cluster == self.cluster => match identity.role {
                Role::Admin | Role::Node(_) => Access::Admin,
                Role::Client(_) => Access::Client,
            },
            Ok(_) => Access::Anonymous,
            Err(error) => {
                tracing::debug!(%error, "client certificate names nobody of this cluster");
                Access::Anonymous
            }
        }
    }
}
