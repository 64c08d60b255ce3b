//! Proving that who names an authority of devices has its private key: the hub draws a code, the
//! owner signs a certificate whose common name is that code.
//!
//! Only the signature and the name count for the proof. Certificates for this purpose are often made
//! by hand, of version 1 and without extensions, so no path rules are applied to them.

use std::collections::BTreeMap;

use fleetline_iothub::errors::ErrorCode;
use http::StatusCode;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;
use serde_json::json;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use super::super::call::{Call, hex};
use super::super::errors::HttpError;
use super::super::reply::{self, Answer};
use super::hub::store;
use crate::devices::settings::{AUTHORITIES, DeviceAuthority};

#[derive(Deserialize)]
struct Body {
    certificate: String,
}

/// The DER of a certificate in PEM.
pub(super) fn certificate(pem: &[u8]) -> Result<Vec<u8>, HttpError> {
    let wrong = || HttpError::invalid("this is not a certificate in PEM");
    let (_, pem) = parse_x509_pem(pem).map_err(|_| wrong())?;
    X509Certificate::from_der(&pem.contents).map_err(|_| wrong())?;
    Ok(pem.contents)
}

fn known(call: &Call, name: &str) -> Result<DeviceAuthority, HttpError> {
    let missing = || HttpError::new(ErrorCode::GenericNotFound, format!("there is no authority {name}"));
    call.settings.authorities.get(name).cloned().ok_or_else(missing)
}

/// Stores a changed authority under the version of this request's settings.
async fn change(call: &Call, name: &str, authority: DeviceAuthority) -> Result<(), HttpError> {
    let mut authorities: BTreeMap<String, DeviceAuthority> = call.settings.authorities.clone();
    authorities.insert(name.to_owned(), authority);
    store(call, AUTHORITIES, &authorities, call.settings.authorities_version).await.map(drop)
}

/// POST `/hub/authorities/{name}/code`.
pub(super) async fn new_code(call: &Call, name: &str) -> Answer {
    let mut bytes = [0; 24];
    call.hub().random(&mut bytes);
    let code = hex(&bytes).to_ascii_uppercase();
    let authority = DeviceAuthority { code: code.clone(), ..known(call, name)? };
    change(call, name, authority).await?;
    reply::json(&json!({ "code": code }))
}

/// POST `/hub/authorities/{name}/verify`: PEM, or JSON with it in `certificate`.
pub(super) async fn verify(call: &mut Call, name: &str) -> Answer {
    let authority = known(call, name)?;
    let body = call.service_body().await?;
    let pem = match call.media_type() == "application/json" {
        true => {
            let body: Body = fleetline_iothub::model::from_object(&body)
                .map_err(|error| HttpError::malformed("request", &error))?;
            body.certificate.into_bytes()
        }
        false => body.to_vec(),
    };
    let (owner, shown) = (certificate(authority.pem.as_bytes())?, certificate(&pem)?);
    check_proof(&owner, &shown, &authority.code)?;
    change(call, name, DeviceAuthority { verified: true, code: String::new(), ..authority }).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// Whether `shown` has the code as its name and the authority's signature.
fn check_proof(owner: &[u8], shown: &[u8], code: &str) -> Result<(), HttpError> {
    let wrong = |text: &str| HttpError::invalid(text);
    let parse = |der| {
        X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|_| wrong("not a certificate"))
    };
    let (owner, shown) = (parse(owner)?, parse(shown)?);
    let name = shown.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    if code.is_empty() || name != Some(code) {
        return Err(wrong("the certificate's common name is not the code that was drawn last"));
    }
    let algorithm = algorithm(&owner, &shown)
        .ok_or_else(|| wrong("the certificate is signed in a way that is not supported"))?;
    let key = UnparsedPublicKey::new(algorithm, owner.public_key().subject_public_key.data.as_ref());
    key.verify(shown.tbs_certificate.as_ref(), shown.signature_value.data.as_ref())
        .map_err(|_| wrong("the certificate is not signed by the authority"))
}

/// How the signature is checked: its own algorithm, and for elliptic curves the key's curve.
fn algorithm(
    owner: &X509Certificate<'_>,
    shown: &X509Certificate<'_>,
) -> Option<&'static dyn VerificationAlgorithm> {
    let parameters = owner.public_key().algorithm.parameters.as_ref();
    let curve =
        parameters.and_then(|any| any.as_oid().ok()).map(|oid| oid.to_id_string()).unwrap_or_default();
    let signed = shown.signature_algorithm.algorithm.to_id_string();
    Some(match (signed.as_str(), curve.as_str()) {
        ("1.2.840.113549.1.1.11", _) => &signature::RSA_PKCS1_2048_8192_SHA256,
        ("1.2.840.113549.1.1.12", _) => &signature::RSA_PKCS1_2048_8192_SHA384,
        ("1.2.840.113549.1.1.13", _) => &signature::RSA_PKCS1_2048_8192_SHA512,
        ("1.2.840.10045.4.3.2", "1.2.840.10045.3.1.7") => &signature::ECDSA_P256_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", "1.2.840.10045.3.1.7") => &signature::ECDSA_P256_SHA384_ASN1,
        ("1.2.840.10045.4.3.2", "1.3.132.0.34") => &signature::ECDSA_P384_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", "1.3.132.0.34") => &signature::ECDSA_P384_SHA384_ASN1,
        ("1.3.101.112", _) => &signature::ED25519,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
        PKCS_ED25519,
    };

    use super::*;

    fn named(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    /// Only the authority's own signature on the current code proves anything.
    #[test]
    fn proofs() {
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
            let authority = || {
                let key = KeyPair::generate_for(algorithm).unwrap();
                let mut params = named("root");
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                let certificate = params.self_signed(&key).unwrap();
                (certificate.der().to_vec(), Issuer::new(params, key))
            };
            let ((owner, issuer), (other, _)) = (authority(), authority());
            let key = KeyPair::generate().unwrap();
            let shown = named("CODE").signed_by(&key, &issuer).unwrap().der().to_vec();
            assert_eq!(check_proof(&owner, &shown, "CODE"), Ok(()));
            assert!(check_proof(&owner, &shown, "OTHER").is_err());
            assert!(check_proof(&owner, &shown, "").is_err());
            assert!(check_proof(&other, &shown, "CODE").is_err());
            let own = named("CODE").self_signed(&key).unwrap().der().to_vec();
            assert!(check_proof(&owner, &own, "CODE").is_err());
        }
        assert!(certificate(b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----").is_err());
        assert!(certificate(b"").is_err());
    }
}
