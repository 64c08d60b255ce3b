//! The cluster's own certificate authority.
//!
//! One is made with the cluster; nodes that hold its key can admit others. Keys are P-256.
//! Certificates begin an hour in the past, because clocks differ.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
    date_time_ymd,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::identity::{DOMAIN, check_label, parse};
use crate::{AuthError, Identity, Role, TlsBundle};

const DAY: Duration = Duration::from_secs(24 * 3600);
const LIFETIME_AUTHORITY: Duration = Duration::from_secs(3653 * 24 * 3600);
/// How long certificates of nodes, administrators and clients are valid.
pub const LIFETIME_LEAF: Duration = Duration::from_secs(730 * 24 * 3600);
const CLOCK_SKEW: Duration = Duration::from_secs(3600);
const ORGANIZATION: &str = "fleetline";

/// Signs the certificates of one cluster.
pub struct Authority {
    cluster: String,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A key that its owner made, and the request to certify it.
pub struct CertificateRequest {
    /// For [`Authority::sign_csr`]; not secret.
    pub csr_pem: String,
    /// Stays with its owner.
    pub key_pem: String,
}

impl CertificateRequest {
    /// Makes a new P-256 key. The request holds only its public half: names are the authority's to
    /// give.
    ///
    /// # Errors
    /// When the system's random source fails.
    pub fn generate() -> Result<CertificateRequest, AuthError> {
        let key = KeyPair::generate().map_err(make)?;
        let request = CertificateParams::default().serialize_request(&key).map_err(make)?;
        Ok(CertificateRequest { csr_pem: request.pem().map_err(make)?, key_pem: key.serialize_pem() })
    }
}

impl Authority {
    /// Makes the authority of a new cluster, valid for ten years from now.
    ///
    /// # Errors
    /// When the name can't be one label of a DNS name, or the system's random source fails.
    pub fn create(cluster: &str) -> Result<Authority, AuthError> {
        Self::create_at(cluster, SystemTime::now())
    }

    /// As [`Authority::create`], at a time that is given.
    ///
    /// # Errors
    /// See [`Authority::create`].
    pub fn create_at(cluster: &str, now: SystemTime) -> Result<Authority, AuthError> {
        check_label(cluster)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
        params.distinguished_name.push(DnType::CommonName, cluster);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, LIFETIME_AUTHORITY);
        params.serial_number = Some(random_serial()?);
        let key = KeyPair::generate().map_err(make)?;
        let certificate_pem = params.self_signed(&key).map_err(make)?.pem();
        Ok(Authority { cluster: cluster.to_owned(), certificate_pem, issuer: Issuer::new(params, key) })
    }

    /// Takes an authority back from its files.
    ///
    /// # Errors
    /// When either can't be read, they don't belong together, or the certificate is not that of a
    /// cluster's authority.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Authority, AuthError> {
        let der = certificate_of_pem(certificate_pem)?;
        let cluster = authority_cluster(&der)?;
        let key = key_of_pem(key_pem)?;
        check_key(&der, &key, "authority")?;
        let issuer = Issuer::from_ca_cert_der(&der, key)
            .map_err(|error| AuthError::Malformed { what: "authority", reason: error.to_string() })?;
        Ok(Authority { cluster, certificate_pem: certificate_pem.to_owned(), issuer })
    }

    /// The cluster that it signs for.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Its certificate; not secret.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Its private key, for its file.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Certifies the key in `csr_pem` for `role`. `hosts` are host names and IP addresses by which
    /// a node is reached; `localhost` and 127.0.0.1 are always among them. All else in the request
    /// is ignored. The answer is the certificate as PEM.
    ///
    /// # Errors
    /// When the request or its own signature is bad, or a name can't be put into a certificate.
    pub fn sign_csr(&self, csr_pem: &str, role: &Role, hosts: &[String]) -> Result<String, AuthError> {
        self.sign_csr_at(csr_pem, role, hosts, SystemTime::now())
    }

    /// As [`Authority::sign_csr`], at a time that is given.
    ///
    /// # Errors
    /// See [`Authority::sign_csr`].
    pub fn sign_csr_at(
        &self,
        csr_pem: &str,
        role: &Role,
        hosts: &[String],
        now: SystemTime,
    ) -> Result<String, AuthError> {
        // The parser verifies the request's signature: who asks has the key.
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|error| AuthError::Malformed { what: "signing request", reason: error.to_string() })?;
        self.sign(&request.public_key, role, hosts, now)
    }

    /// A key and certificate for a client or an administrator.
    ///
    /// # Errors
    /// When the client's name can't be one label of a DNS name, or the random source fails.
    pub fn issue_client(&self, role: &Role) -> Result<TlsBundle, AuthError> {
        if matches!(role, Role::Node(_)) {
            let expected = "admin or client".to_owned();
            return Err(AuthError::WrongRole { found: role.to_string(), expected });
        }
        self.issue(role, &[])
    }

    /// A key and certificate for anybody, also for a node.
    ///
    /// # Errors
    /// When a name can't be put into a certificate, or the random source fails.
    pub fn issue(&self, role: &Role, hosts: &[String]) -> Result<TlsBundle, AuthError> {
        let key = KeyPair::generate().map_err(make)?;
        let certificate_pem = self.sign(&key, role, hosts, SystemTime::now())?;
        Ok(TlsBundle {
            authority_pem: self.certificate_pem.clone(),
            certificate_pem,
            key_pem: key.serialize_pem(),
        })
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        role: &Role,
        hosts: &[String],
        now: SystemTime,
    ) -> Result<String, AuthError> {
        if let Role::Client(name) = role {
            check_label(name)?;
        }
        let name = Identity { cluster: self.cluster.clone(), role: role.clone() }.name();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.subject_alt_names = vec![dns(&name)?];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if matches!(role, Role::Node(_)) {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names.extend(host_names(hosts)?);
        }
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, LIFETIME_LEAF);
        params.serial_number = Some(random_serial()?);
        Ok(params.signed_by(key, &self.issuer).map_err(make)?.pem())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.cluster)
    }
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateRequest")
    }
}

/// The first certificate in a PEM text.
pub(crate) fn certificate_of_pem(pem: &str) -> Result<CertificateDer<'static>, AuthError> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| AuthError::Malformed { what: "certificate", reason: error.to_string() })
}

/// The cluster whose authority this certificate is.
pub(crate) fn authority_cluster(der: &CertificateDer<'_>) -> Result<String, AuthError> {
    let certificate = parse(der)?;
    let subject = certificate.subject();
    let organization = subject.iter_organization().next().and_then(|name| name.as_str().ok());
    let cluster = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
    match (certificate.is_ca(), organization, cluster) {
        (true, Some(ORGANIZATION), Some(cluster)) if check_label(cluster).is_ok() => Ok(cluster.to_owned()),
        _ => Err(AuthError::NotAnAuthority),
    }
}

pub(crate) fn key_of_pem(pem: &str) -> Result<KeyPair, AuthError> {
    // The parser's words could quote the key, so they are not passed on.
    KeyPair::from_pem(pem).map_err(|_| AuthError::Malformed {
        what: "private key",
        reason: "no PKCS#8 key in PEM form".to_owned(),
    })
}

pub(crate) fn check_key(
    der: &CertificateDer<'_>,
    key: &KeyPair,
    whose: &'static str,
) -> Result<(), AuthError> {
    let certificate = parse(der)?;
    let certified = &certificate.public_key().subject_public_key.data;
    if certified.as_ref() == key.public_key_raw() { Ok(()) } else { Err(AuthError::KeyMismatch(whose)) }
}

fn host_names(hosts: &[String]) -> Result<Vec<SanType>, AuthError> {
    let mut names = vec![dns("localhost")?, SanType::IpAddress(IpAddr::from([127, 0, 0, 1]))];
    for host in hosts {
        let lower = host.to_ascii_lowercase();
        let name = match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if lower.trim_end_matches('.').ends_with(DOMAIN) => {
                return Err(AuthError::BadHost(host.clone()));
            }
            Err(_) if lower.split('.').all(|label| check_label(label).is_ok()) => dns(&lower)?,
            Err(_) => return Err(AuthError::BadHost(host.clone())),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn dns(name: &str) -> Result<SanType, AuthError> {
    Ia5String::try_from(name).map(SanType::DnsName).map_err(|_| AuthError::BadHost(name.to_owned()))
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    // A clock gone wild must not leave the range of years that certificates can say.
    let since_epoch = since_epoch.min(DAY * 365 * 7000);
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + since_epoch + lifetime;
}

fn random_serial() -> Result<SerialNumber, AuthError> {
    let mut serial = [0u8; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| AuthError::Make("no random numbers".into()))?;
    // A serial number is positive and must not begin with a zero byte.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}

fn make(error: rcgen::Error) -> AuthError {
    AuthError::Make(error.to_string())
}
