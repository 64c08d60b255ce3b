//! Judging an identity's proof against what is stored of it.

use fleetline_iothub::sas::{SasKey, SasToken};
use thiserror::Error;

use crate::request::{CertificateProof, Proof, Shown};
use crate::rows::{AuthKind, DeviceRow};

/// Why a proof is refused. It is logged and counted; the peer hears only that it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// Nothing was shown.
    #[error("no proof was shown")]
    Missing,
    /// The identity proves itself in another way.
    #[error("the identity proves itself in another way")]
    OtherKind,
    /// The signature is of none of the identity's keys.
    #[error("signature doesn't match any key of the identity")]
    Signature,
    /// The certificate isn't the identity's.
    #[error("certificate is not that of the identity")]
    Certificate,
    /// The certificate's authority isn't known.
    #[error("certificate doesn't come from an authority of the hub")]
    Authority,
}

/// Checks `proof` for the identity of `row`. Whether it is enabled is not looked at.
///
/// # Errors
/// [`ProofError`].
pub fn check_proof(row: &DeviceRow, proof: &Proof) -> Result<(), ProofError> {
    let kind = AuthKind::try_from(row.spec.auth.kind).map_err(|_| ProofError::OtherKind)?;
    match (&proof.shown, kind) {
        (None, _) | (Some(Shown::Policy(false)), _) => Err(ProofError::Missing),
        (Some(Shown::Policy(true)), _) => Ok(()),
        (Some(Shown::Token(token)), AuthKind::Sas) => check_token(row, token),
        (Some(Shown::Certificate(shown)), AuthKind::SelfSigned) => check_thumbprint(row, shown),
        (Some(Shown::Certificate(shown)), AuthKind::CertificateAuthority) => check_chain(row, shown),
        _ => Err(ProofError::OtherKind),
    }
}

fn check_token(row: &DeviceRow, token: &str) -> Result<(), ProofError> {
    let token = SasToken::parse(token).map_err(|_| ProofError::Signature)?;
    let auth = &row.spec.auth;
    let keys = [&auth.primary_key, &auth.secondary_key];
    // Anybody can sign with an empty key.
    let valid = keys
        .into_iter()
        .filter(|key| !key.is_empty())
        .any(|key| SasKey::from_base64(key).is_ok_and(|key| token.verify(&key)));
    valid.then_some(()).ok_or(ProofError::Signature)
}

fn check_thumbprint(row: &DeviceRow, shown: &CertificateProof) -> Result<(), ProofError> {
    let auth = &row.spec.auth;
    let known = [&auth.primary_thumbprint, &auth.secondary_thumbprint];
    let fits = |known: &&String| !known.is_empty() && (**known == shown.sha1 || **known == shown.sha256);
    known.iter().any(fits).then_some(()).ok_or(ProofError::Certificate)
}

fn check_chain(row: &DeviceRow, shown: &CertificateProof) -> Result<(), ProofError> {
    if !shown.chained {
        return Err(ProofError::Authority);
    }
    // Common names of modules are written as MQTT client ids are.
    (shown.common_name == row.key.text()).then_some(()).ok_or(ProofError::Certificate)
}

#[cfg(test)]
mod tests {
    use fleetline_iothub::sas::generate_token;

    use super::*;
    use crate::rows::{AuthRow, DeviceKey, DeviceSpec};

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn row(auth: AuthRow) -> DeviceRow {
        let spec = DeviceSpec { auth, ..DeviceSpec::default() };
        DeviceRow { key: DeviceKey::module("d", "m"), spec, ..DeviceRow::default() }
    }

    fn token(key: &str) -> Proof {
        let key = SasKey::from_base64(key).unwrap();
        Proof { shown: Some(Shown::Token(generate_token("h/devices/d/modules/m", &key, 99, None))) }
    }

    /// Either key signs; another key, another kind of proof and nothing at all are refused.
    #[test]
    fn tokens() {
        let other = "BBECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        for keys in [(KEY, other), (other, KEY)] {
            let auth =
                AuthRow { primary_key: keys.0.into(), secondary_key: keys.1.into(), ..AuthRow::default() };
            assert_eq!(check_proof(&row(auth), &token(KEY)), Ok(()));
        }
        let auth = AuthRow { primary_key: other.into(), ..AuthRow::default() };
        assert_eq!(check_proof(&row(auth.clone()), &token(KEY)), Err(ProofError::Signature));
        assert_eq!(check_proof(&row(auth.clone()), &Proof::default()), Err(ProofError::Missing));
        let shown = Proof { shown: Some(Shown::Certificate(CertificateProof::default())) };
        assert_eq!(check_proof(&row(auth), &shown), Err(ProofError::OtherKind));
        let none = AuthRow { kind: AuthKind::None as i32, primary_key: KEY.into(), ..AuthRow::default() };
        assert_eq!(check_proof(&row(none), &token(KEY)), Err(ProofError::OtherKind));
    }

    /// Certificates by either thumbprint of either hash, or by authority and name. An empty thumbprint
    /// fits nothing.
    #[test]
    fn certificates() {
        let shown = |sha1: &str, common_name: &str, chained| Proof {
            shown: Some(Shown::Certificate(CertificateProof {
                sha1: sha1.into(),
                sha256: String::new(),
                common_name: common_name.into(),
                chained,
            })),
        };
        let by_thumbprint = AuthRow {
            kind: AuthKind::SelfSigned as i32,
            secondary_thumbprint: "AB".into(),
            ..AuthRow::default()
        };
        assert_eq!(check_proof(&row(by_thumbprint.clone()), &shown("AB", "", false)), Ok(()));
        assert_eq!(check_proof(&row(by_thumbprint), &shown("", "", false)), Err(ProofError::Certificate));
        let by_chain = AuthRow { kind: AuthKind::CertificateAuthority as i32, ..AuthRow::default() };
        assert_eq!(check_proof(&row(by_chain.clone()), &shown("", "d/m", true)), Ok(()));
        assert_eq!(check_proof(&row(by_chain.clone()), &shown("", "d", true)), Err(ProofError::Certificate));
        assert_eq!(check_proof(&row(by_chain), &shown("", "d/m", false)), Err(ProofError::Authority));
    }
}
