//! A key that signs and verifies, and shows itself to nobody.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use super::SasError;

/// A secret for HMAC-SHA256, prepared once so that a check costs only the hash of the token.
#[derive(Clone)]
pub struct SasKey(hmac::Key);

impl SasKey {
    /// A key of these bytes. Refuses an empty one.
    pub fn new(bytes: &[u8]) -> Result<SasKey, SasError> {
        if bytes.is_empty() {
            return Err(SasError::EmptyKey);
        }
        Ok(SasKey(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// A key as connection strings and the registry carry it.
    pub fn from_base64(text: &str) -> Result<SasKey, SasError> {
        SasKey::new(&STANDARD.decode(text.trim()).map_err(|_| SasError::BadKey)?)
    }

    pub(super) fn sign(&self, text: &[u8]) -> Vec<u8> {
        hmac::sign(&self.0, text).as_ref().to_vec()
    }

    pub(super) fn verify(&self, text: &[u8], signature: &[u8]) -> bool {
        hmac::verify(&self.0, text, signature).is_ok()
    }
}

impl fmt::Debug for SasKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SasKey(..)")
    }
}
