//! Signed addresses of files: who has one may write and read that file until it expires.
//!
//! Signed is `"{blob}\n{expiry}"`, with keys derived from those of the policies that may do everything:
//! all nodes have them, and a key that is replaced in two steps invalidates nothing in between.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetline_iothub::bag::format_time;
use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::time::parse_time;
use ring::hmac;

use super::super::errors::HttpError;
use super::super::path::Query;
use crate::devices::settings::{HubSettings, Right};

/// Sets these keys apart from the ones that sign tokens.
const LABEL: &[u8] = b"fleetline address of an uploaded file";

/// What comes behind a file's address, with its question mark.
pub(in super::super) fn token(
    settings: &HubSettings,
    blob: &str,
    expiry_secs: u64,
) -> Result<String, HttpError> {
    let missing = || {
        let text = "no policy may do everything, so addresses of files can't be signed";
        HttpError::new(ErrorCode::DefaultStorageEndpointNotConfigured, text)
    };
    let key = keys(settings).next().ok_or_else(missing)?;
    let expiry = expiry_text(expiry_secs);
    let signature = STANDARD.encode(hmac::sign(&key, signed(blob, &expiry).as_bytes()));
    // The names are those that storage SDKs know and hand on; they take others for no part of a token.
    Ok(format!("?sv=2021-12-02&sr=b&sp=rcw&se={}&sig={}", escape(&expiry), escape(&signature)))
}

/// Whether a request's parameters are such a token for this file, and not expired.
pub(super) fn check(settings: &HubSettings, blob: &str, query: &Query, now_ms: u64) -> bool {
    let (Some(expiry), Some(signature)) = (query.get("se"), query.get("sig")) else {
        return false;
    };
    let Ok(signature) = STANDARD.decode(signature) else {
        return false;
    };
    let text = signed(blob, expiry);
    let is_signed = keys(settings).any(|key| hmac::verify(&key, text.as_bytes(), &signature).is_ok());
    is_signed && parse_time(expiry).is_some_and(|expires_ms| expires_ms > now_ms)
}

fn keys(settings: &HubSettings) -> impl Iterator<Item = hmac::Key> + '_ {
    let may_all = |policy: &&crate::devices::settings::Policy| {
        policy.rights.contains(&Right::RegistryWrite)
            && policy.rights.contains(&Right::ServiceConnect)
            && policy.devices.is_empty()
            && policy.actions.is_empty()
    };
    let secrets = settings
        .policies
        .values()
        .filter(may_all)
        .flat_map(|policy| [&policy.primary_key, &policy.secondary_key]);
    secrets.filter_map(|secret| {
        let secret = STANDARD.decode(secret.trim()).ok().filter(|secret| !secret.is_empty())?;
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), LABEL);
        Some(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    })
}

fn signed(blob: &str, expiry: &str) -> String {
    format!("{blob}\n{expiry}")
}

/// To the second, as storage SDKs parse it.
fn expiry_text(secs: u64) -> String {
    let text = format_time(secs.saturating_mul(1000));
    format!("{}Z", text.get(..19).unwrap_or(&text))
}

fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D").replace(':', "%3A")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::settings::default_policies;

    fn settings(key: &str) -> HubSettings {
        HubSettings { policies: default_policies(|| key.to_owned()), ..HubSettings::default() }
    }

    /// An address is for one file, ends in time, and dies with the keys.
    #[test]
    fn addresses() {
        let hub = settings("AAECAwQFBgcICQoLDA0ODw==");
        let token = token(&hub, "d/a b", 1_795_500_938).unwrap();
        assert!(token.starts_with("?sv=") && token.contains("se=2026-11-24T06%3A15%3A38Z"), "{token}");
        let query = Query::parse(&token[1..]);
        let before = 1_795_500_937_999;
        assert!(check(&hub, "d/a b", &query, before));
        assert!(!check(&hub, "d/a b", &query, before + 1));
        assert!(!check(&hub, "d/a", &query, before));
        assert!(!check(&settings("BBECAwQFBgcICQoLDA0ODw=="), "d/a b", &query, before));
        let later = Query::parse(&token[1..].replace("2026", "2036"));
        assert!(!check(&hub, "d/a b", &later, before));
        assert!(!check(&hub, "d/a b", &Query::parse("se=x"), before));
        assert!(super::token(&HubSettings::default(), "d/a", 1).is_err());
    }
}
