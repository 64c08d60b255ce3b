//! How long a certificate is good for, and which hosts it names: what renewal needs to know.

use std::time::{SystemTime, UNIX_EPOCH};

use x509_parser::prelude::GeneralName;

use crate::AuthError;
use crate::authority::certificate_of_pem;
use crate::identity::{DOMAIN, parse};

/// From when until when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Its first second.
    pub from: i64,
    /// Its last.
    pub until: i64,
}

impl Lifetime {
    /// Of the first certificate in a PEM text.
    ///
    /// # Errors
    /// When it has none.
    pub fn of(certificate_pem: &str) -> Result<Lifetime, AuthError> {
        let der = certificate_of_pem(certificate_pem)?;
        let validity = parse(&der)?.validity().clone();
        Ok(Lifetime { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() })
    }

    /// Whether two thirds have passed: time to renew.
    pub fn is_due(&self, now: SystemTime) -> bool {
        self.has_passed(now, 2, 3)
    }

    /// Whether nine tenths have passed: whoever should have renewed didn't.
    pub fn is_late(&self, now: SystemTime) -> bool {
        self.has_passed(now, 9, 10)
    }

    fn has_passed(&self, now: SystemTime, part: i128, of: i128) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| i128::from(since.as_secs()));
        let (from, until) = (i128::from(self.from), i128::from(self.until));
        (now - from) * of >= (until - from) * part
    }
}

/// Host names and addresses in the first certificate of a PEM text, without the name that says who it
/// is: what a renewed one must name again.
///
/// # Errors
/// When it has no certificate.
pub fn hosts_of(certificate_pem: &str) -> Result<Vec<String>, AuthError> {
    let der = certificate_of_pem(certificate_pem)?;
    let certificate = parse(&der)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| AuthError::Malformed { what: "certificate", reason: error.to_string() })?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let hosts = names.filter_map(|name| match name {
        GeneralName::DNSName(name) if !name.ends_with(DOMAIN) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    });
    Ok(hosts.collect())
}
