//! Shared access signatures: the tokens that devices and services prove themselves with.
//!
//! `broker/auth` parses the token of a CONNECT, a CBS put-token or an `Authorization` header, finds the
//! key by policy or identity, and asks [`SasToken::verify`], [`SasToken::is_expired`] and
//! [`SasToken::covers`]. All three have to hold; none implies another.
//!
//! ```text
//! SharedAccessSignature sr={resource}&sig={base64 of HMAC-SHA256}&se={unix seconds}[&skn={policy}]
//! ```
//!
//! The signed text is `{sr}\n{se}` exactly as both stand in the token: the SDKs escape differently
//! (`%2F`, `%2f`, a bare host), so nothing is encoded again before it is checked.
//!
//! Invariants:
//! 1. `resource` is `resource_raw` decoded once. A second decoding never happens.
//! 2. `Debug` shows no signature, no key.
//!
//! Not here: what a policy may do, whether the device exists or is enabled.

mod key;
mod resource;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

pub use self::key::SasKey;
pub use self::resource::ResourcePath;
pub(crate) use self::resource::strip_port;
use crate::limits;
use crate::percent;

const PREFIX: &str = "SharedAccessSignature";

/// A token doesn't have the form of a shared access signature, or a key can't be one. Says nothing of
/// the contents: tokens are secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SasError {
    /// Longer than any token that an SDK makes.
    #[error("token has {bytes} bytes, at most {limit} are allowed")]
    TooLong {
        /// What came.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The token doesn't begin with `SharedAccessSignature` and a space.
    #[error("token is not a shared access signature")]
    BadPrefix,
    /// A part between two `&` isn't `name=value` with one of the four names.
    #[error("token has a field other than sr, sig, se and skn")]
    UnknownField,
    /// A field stands there twice.
    #[error("token has field {field} twice")]
    DuplicateField {
        /// Which.
        field: &'static str,
    },
    /// A field is missing or empty.
    #[error("token has no field {field}")]
    MissingField {
        /// Which.
        field: &'static str,
    },
    /// A field has a broken percent escape, or isn't what its name promises.
    #[error("field {field} of the token is malformed")]
    BadField {
        /// Which.
        field: &'static str,
    },
    /// A key that isn't Base64.
    #[error("key is not base64")]
    BadKey,
    /// A key of no bytes: with it, everybody could sign.
    #[error("key is empty")]
    EmptyKey,
}

/// A token, taken apart and not yet believed.
#[derive(Clone, PartialEq, Eq)]
pub struct SasToken {
    /// `sr` exactly as in the token; a part of the signed text.
    pub resource_raw: String,
    /// `sr`, percent-decoded once: `{host}[:port][/devices/{d}[/modules/{m}]]`.
    pub resource: String,
    /// `sig`, decoded to bytes. 32 of them, if the signature is good.
    pub signature: Vec<u8>,
    /// `se`: Unix seconds; at most [`limits::SAS_EXPIRY_SECS_MAX`].
    pub expiry: u64,
    /// `skn`: the policy's name; `None` for the key of a device (the C SDK then sends it empty).
    pub policy: Option<String>,
    /// `se` exactly as in the token; a part of the signed text.
    raw_expiry: String,
}

impl SasToken {
    /// Takes a token apart. Fields come in any order; unknown and repeated ones are refused.
    pub fn parse(token: &str) -> Result<SasToken, SasError> {
        if token.len() > limits::SAS_TOKEN_BYTES_MAX {
            return Err(SasError::TooLong { bytes: token.len(), limit: limits::SAS_TOKEN_BYTES_MAX });
        }
        let fields = Fields::split(after_prefix(token)?)?;
        let resource_raw = required(fields.resource, "sr")?;
        let signature_raw = required(fields.signature, "sig")?;
        let raw_expiry = required(fields.expiry, "se")?;
        let policy = decoded(fields.policy.unwrap_or(""), "skn")?;
        Ok(SasToken {
            resource_raw: resource_raw.to_owned(),
            resource: decoded(resource_raw, "sr")?,
            signature: parse_signature(signature_raw)?,
            expiry: parse_expiry(raw_expiry)?,
            policy: Some(policy).filter(|name| !name.is_empty()),
            raw_expiry: raw_expiry.to_owned(),
        })
    }

    /// Whether `key` made this signature. Compares in constant time.
    pub fn verify(&self, key: &SasKey) -> bool {
        key.verify(string_to_sign(&self.resource_raw, &self.raw_expiry).as_bytes(), &self.signature)
    }

    /// Whether the token's time is over, for clocks that may be apart by `skew_secs`.
    pub fn is_expired(&self, now_secs: u64, skew_secs: u64) -> bool {
        now_secs > self.expiry.saturating_add(skew_secs)
    }

    /// Whether the token's resource holds `path`: `hosts` accepts its host (asked in lower case, without
    /// port), and what follows the host is a prefix of `path` segment by segment: `/a/b` covers `/a/b/c`
    /// and not `/a/bc`. Ids are compared exactly, the words between them without regard to case.
    pub fn covers(&self, hosts: &dyn Fn(&str) -> bool, path: &ResourcePath<'_>) -> bool {
        resource::covers(&self.resource, hosts, path)
    }
}

impl fmt::Debug for SasToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SasToken")
            .field("resource", &self.resource)
            .field("expiry", &self.expiry)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Makes a token for `resource` (not yet escaped). The counterpart of [`SasToken::parse`].
pub fn generate_token(resource: &str, key: &SasKey, expiry_secs: u64, policy: Option<&str>) -> String {
    let mut raw = String::new();
    percent::encode_into(&mut raw, resource);
    let signature = key.sign(string_to_sign(&raw, &expiry_secs.to_string()).as_bytes());
    let mut token = format!("{PREFIX} sr={raw}&sig=");
    percent::encode_into(&mut token, &STANDARD.encode(signature));
    token.push_str(&format!("&se={expiry_secs}"));
    if let Some(policy) = policy {
        token.push_str("&skn=");
        percent::encode_into(&mut token, policy);
    }
    token
}

fn string_to_sign(resource_raw: &str, expiry_raw: &str) -> String {
    format!("{resource_raw}\n{expiry_raw}")
}

fn after_prefix(token: &str) -> Result<&str, SasError> {
    let token = token.trim();
    let (prefix, rest) = token.split_at_checked(PREFIX.len()).ok_or(SasError::BadPrefix)?;
    if !prefix.eq_ignore_ascii_case(PREFIX) || !rest.starts_with([' ', '\t']) {
        return Err(SasError::BadPrefix);
    }
    Ok(rest.trim_start())
}

/// The four fields as they stand in the token.
#[derive(Default)]
struct Fields<'a> {
    resource: Option<&'a str>,
    signature: Option<&'a str>,
    expiry: Option<&'a str>,
    policy: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn split(text: &'a str) -> Result<Fields<'a>, SasError> {
        let mut fields = Fields::default();
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').ok_or(SasError::UnknownField)?;
            let (slot, field) = match name {
                "sr" => (&mut fields.resource, "sr"),
                "sig" => (&mut fields.signature, "sig"),
                "se" => (&mut fields.expiry, "se"),
                "skn" => (&mut fields.policy, "skn"),
                _ => return Err(SasError::UnknownField),
            };
            if slot.replace(value).is_some() {
                return Err(SasError::DuplicateField { field });
            }
        }
        Ok(fields)
    }
}

fn required<'a>(value: Option<&'a str>, field: &'static str) -> Result<&'a str, SasError> {
    value.filter(|value| !value.is_empty()).ok_or(SasError::MissingField { field })
}

fn decoded(value: &str, field: &'static str) -> Result<String, SasError> {
    percent::decode(value).map(|text| text.into_owned()).map_err(|_| SasError::BadField { field })
}

fn parse_signature(raw: &str) -> Result<Vec<u8>, SasError> {
    let text = decoded(raw, "sig")?;
    STANDARD.decode(text).map_err(|_| SasError::BadField { field: "sig" })
}

fn parse_expiry(raw: &str) -> Result<u64, SasError> {
    let expiry = parse_decimal(raw).filter(|&expiry| expiry <= limits::SAS_EXPIRY_SECS_MAX);
    expiry.ok_or(SasError::BadField { field: "se" })
}

/// Digits only: `u64::from_str` would take a sign.
fn parse_decimal(raw: &str) -> Option<u64> {
    raw.bytes().all(|byte| byte.is_ascii_digit()).then(|| raw.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
