//! Who a certificate names.

use std::fmt;

use fleetline_types::NodeId;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::AuthError;

/// The ending of every name that says who somebody is.
pub(crate) const DOMAIN: &str = ".fleetline";

/// What the holder of a certificate is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A node of the cluster.
    Node(NodeId),
    /// An administrator.
    Admin,
    /// A service; the name is 1 to 63 of a-z, 0-9 and `-`.
    Client(String),
}

/// The holder of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of which cluster.
    pub cluster: String,
    /// As what.
    pub role: Role,
}

impl Identity {
    /// The DNS name that carries this identity.
    pub fn name(&self) -> String {
        format!("{}.{}{DOMAIN}", self.role, self.cluster)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Node(node) => write!(f, "node-{}", node.0),
            Role::Admin => f.write_str("admin"),
            Role::Client(name) => write!(f, "client-{name}"),
        }
    }
}

/// The DNS name of a node, by which its peers verify it.
pub fn node_name(node: NodeId, cluster: &str) -> String {
    Identity { cluster: cluster.to_owned(), role: Role::Node(node) }.name()
}

/// Reads who a certificate names. It says nothing about who signed it: TLS has verified that, or
/// the caller must.
///
/// # Errors
/// When the bytes are no certificate, or it doesn't have exactly one Fleetline name, or its
/// permitted usage doesn't fit the role.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, AuthError> {
    let certificate = parse(certificate)?;
    let names = fleetline_names(&certificate)?;
    let [name] = names.as_slice() else {
        return Err(AuthError::NotOneName(names.len()));
    };
    let identity = identity_of_name(name).ok_or_else(|| AuthError::UnknownName(name.clone()))?;
    check_usage(&certificate, &identity)?;
    Ok(identity)
}

/// The certificate in `der`.
pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, AuthError> {
    let malformed = |reason: String| AuthError::Malformed { what: "certificate", reason };
    let (rest, certificate) =
        X509Certificate::from_der(der.as_ref()).map_err(|error| malformed(error.to_string()))?;
    if rest.is_empty() { Ok(certificate) } else { Err(malformed("bytes behind its end".into())) }
}

/// Whether `name` can be one label of a DNS name, in the one spelling that we accept.
pub(crate) fn check_label(name: &str) -> Result<(), AuthError> {
    let letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let good = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| letter(byte) || *byte == b'-')
        && bytes.first().is_some_and(letter)
        && bytes.last().is_some_and(letter);
    if good { Ok(()) } else { Err(AuthError::BadName(name.to_owned())) }
}

fn fleetline_names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, AuthError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| AuthError::Malformed { what: "certificate", reason: error.to_string() })?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let names = names.filter_map(|name| match name {
        // Any spelling counts as one of ours, so that no spelling slips past the count.
        GeneralName::DNSName(name) if name.to_ascii_lowercase().trim_end_matches('.').ends_with(DOMAIN) => {
            Some((*name).to_owned())
        }
        _ => None,
    });
    Ok(names.collect())
}

fn identity_of_name(name: &str) -> Option<Identity> {
    let (role, cluster) = name.strip_suffix(DOMAIN)?.split_once('.')?;
    check_label(cluster).ok()?;
    let role = if role == "admin" {
        Role::Admin
    } else if let Some(id) = role.strip_prefix("node-") {
        Role::Node(NodeId(id.parse().ok()?))
    } else {
        let name = role.strip_prefix("client-")?;
        check_label(name).ok()?;
        Role::Client(name.to_owned())
    };
    let identity = Identity { cluster: cluster.to_owned(), role };
    // One spelling each: `node-07` and `node-+7` are not node 7.
    (identity.name() == name).then_some(identity)
}

fn check_usage(certificate: &X509Certificate<'_>, identity: &Identity) -> Result<(), AuthError> {
    let wrong = || AuthError::WrongUsage(identity.name());
    let usage = certificate.extended_key_usage().ok().flatten().ok_or_else(wrong)?.value;
    let serves = matches!(identity.role, Role::Node(_));
    if certificate.is_ca() || !usage.client_auth || usage.server_auth != serves || usage.any {
        return Err(wrong());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names have one spelling; what looks similar is nobody.
    #[test]
    fn names() {
        let node = |id| Role::Node(NodeId(id));
        for (name, role) in [
            ("node-7.plant.fleetline", node(7)),
            ("node-18446744073709551615.plant.fleetline", node(u64::MAX)),
            ("admin.plant.fleetline", Role::Admin),
            ("client-line-4.plant.fleetline", Role::Client("line-4".into())),
            ("client-node-7.plant.fleetline", Role::Client("node-7".into())),
        ] {
            let identity = Identity { cluster: "plant".into(), role };
            assert_eq!(identity_of_name(name), Some(identity.clone()), "{name}");
            assert_eq!(identity.name(), name);
        }
        for name in [
            "node-07.plant.fleetline",
            "node-+7.plant.fleetline",
            "node-.plant.fleetline",
            "node-18446744073709551616.plant.fleetline",
            "Admin.plant.fleetline",
            "admin.fleetline",
            "admin..fleetline",
            "admin.a.b.fleetline",
            "admin.plant.fleetline.",
            "client-.plant.fleetline",
            "client-a.b.plant.fleetline",
            "plant.fleetline",
            ".fleetline",
            "",
        ] {
            assert_eq!(identity_of_name(name), None, "{name}");
        }
    }

    /// Labels that DNS or our own names could misread are refused.
    #[test]
    fn labels() {
        for good in ["a", "plant-1", "0"] {
            assert!(check_label(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "é", &"x".repeat(64)] {
            assert!(check_label(bad).is_err(), "{bad}");
        }
    }

    /// Bytes that are no certificate are an error.
    #[test]
    fn garbage() {
        for bytes in [&[][..], &[0x30], &[0xff; 64], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
            assert!(identity_of(&CertificateDer::from(bytes)).is_err());
        }
    }
}
