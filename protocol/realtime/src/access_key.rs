//! Keys of a SignalR resource: they sign tokens of clients and backends, and requests to upstreams.
//!
//! A key is used as the UTF-8 bytes of its text; it looks like Base64 but is not decoded. Two are valid at
//! a time, so that they can be rotated.

use std::fmt;

use ring::hmac;
use thiserror::Error;

/// A key without any characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the access key is empty")]
pub struct EmptyKey;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256; what the SDKs use.
    Hs256,
    /// HMAC with SHA-512; can be chosen in the .NET SDK.
    Hs512,
}

impl Algorithm {
    /// The algorithm that a token's header names. `none` and asymmetric ones are nobody's.
    pub(crate) fn from_name(name: &str) -> Option<Algorithm> {
        match name {
            "HS256" => Some(Algorithm::Hs256),
            "HS512" => Some(Algorithm::Hs512),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Hs512 => "HS512",
        }
    }
}

/// A secret, prepared once for both algorithms. Shows itself to nobody.
#[derive(Clone)]
pub struct AccessKey {
    sha256: hmac::Key,
    sha512: hmac::Key,
}

impl AccessKey {
    /// A key as it stands in a connection string.
    pub fn new(text: &str) -> Result<AccessKey, EmptyKey> {
        if text.is_empty() {
            return Err(EmptyKey);
        }
        Ok(AccessKey {
            sha256: hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes()),
            sha512: hmac::Key::new(hmac::HMAC_SHA512, text.as_bytes()),
        })
    }

    fn of(&self, algorithm: Algorithm) -> &hmac::Key {
        match algorithm {
            Algorithm::Hs256 => &self.sha256,
            Algorithm::Hs512 => &self.sha512,
        }
    }

    pub(crate) fn sign(&self, algorithm: Algorithm, text: &[u8]) -> hmac::Tag {
        hmac::sign(self.of(algorithm), text)
    }

    /// Takes the same time wherever the signature differs.
    fn verify(&self, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> bool {
        hmac::verify(self.of(algorithm), text, signature).is_ok()
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessKey(..)")
    }
}

/// The keys of a resource that are valid now.
#[derive(Clone, Debug)]
pub struct AccessKeys {
    /// Signs what we sign.
    pub primary: AccessKey,
    /// Valid as well, while keys are rotated.
    pub secondary: Option<AccessKey>,
}

impl AccessKeys {
    /// Both, the primary first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &AccessKey> {
        std::iter::once(&self.primary).chain(&self.secondary)
    }

    /// Whether one of them made the signature.
    pub(crate) fn verify(&self, algorithm: Algorithm, text: &[u8], signature: &[u8]) -> bool {
        self.iter().any(|key| key.verify(algorithm, text, signature))
    }
}
