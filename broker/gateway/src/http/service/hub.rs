//! The hub's own settings, for operators: shared access policies, address rules, authorities of
//! devices. Our own requests; the public hub has a control plane for these.
//!
//! A setting is read with its version and written under the version that was read (`If-Match`). What
//! would lock the writer out is refused: there would be no way back in.

use std::collections::BTreeMap;

use fleetline_iothub::errors::ErrorCode;
use fleetline_iothub::model::{IfMatch, parse_if_match};
use fleetline_iothub::sas::SasKey;
use http::{StatusCode, header};
use serde::Serialize;

use super::super::call::Call;
use super::super::caller;
use super::super::errors::HttpError;
use super::super::reply::{self, Answer};
use super::super::router::HubCall;
use super::authorities;
use crate::devices::settings::{
    ACCESS, AUTHORITIES, Access, DeviceAuthority, HubSettings, POLICIES, Policy, REALTIME, Right,
};
use crate::hub::HubError;

/// Policies of a hub; as the public hub has it.
const POLICIES_MAX: usize = 16;
/// Address rules of a hub.
const RULES_MAX: usize = 100;
/// Authorities of a hub.
const AUTHORITIES_MAX: usize = 25;
/// Characters of a name of these.
const NAME_MAX: usize = 64;

/// Only who may do everything may change who may do what.
pub(in super::super) async fn answer(call: &mut Call, asked: HubCall) -> Answer {
    let action = match asked {
        HubCall::GetSetting(_) => "settings/read",
        _ => "settings/write",
    };
    for right in [Right::RegistryWrite, Right::ServiceConnect] {
        caller::service(call, &[right], action, None)?;
    }
    match asked {
        HubCall::GetSetting(name) => get(&call.settings, &name),
        HubCall::PutSetting(name) => put(call, &name).await,
        HubCall::AuthorityCode(name) => authorities::new_code(call, &name).await,
        HubCall::AuthorityVerify(name) => authorities::verify(call, &name).await,
    }
}

fn unknown(name: &str) -> HttpError {
    HttpError::new(ErrorCode::GenericNotFound, format!("there is no setting {name}"))
}

fn get(settings: &HubSettings, name: &str) -> Answer {
    match name {
        POLICIES => versioned(&settings.policies, settings.policies_version),
        ACCESS => versioned(&settings.access, settings.access_version),
        AUTHORITIES => versioned(&settings.authorities, settings.authorities_version),
        REALTIME => versioned(&settings.realtime, settings.realtime_version),
        other => Err(unknown(other)),
    }
}

fn versioned(value: &impl Serialize, version: u64) -> Answer {
    let mut response = reply::json(value)?;
    reply::put_etag(&mut response, &version.to_string());
    Ok(response)
}

async fn put(call: &mut Call, name: &str) -> Answer {
    let body = call.service_body().await?;
    match name {
        POLICIES => {
            let policies = read(&body)?;
            check_policies(&policies)?;
            let expected = expected(call, call.settings.policies_version)?;
            store(call, POLICIES, &policies, expected).await
        }
        ACCESS => {
            let access = read(&body)?;
            check_access(call, &access)?;
            let expected = expected(call, call.settings.access_version)?;
            store(call, ACCESS, &access, expected).await
        }
        AUTHORITIES => {
            let authorities = kept_proofs(&call.settings, read(&body)?)?;
            let expected = expected(call, call.settings.authorities_version)?;
            store(call, AUTHORITIES, &authorities, expected).await
        }
        REALTIME => {
            let realtime: serde_json::Map<String, serde_json::Value> = read(&body)?;
            check_realtime(&realtime)?;
            let expected = expected(call, call.settings.realtime_version)?;
            store(call, REALTIME, &realtime, expected).await
        }
        other => Err(unknown(other)),
    }
}

/// The keys have to stay: without them no client and no service gets in. What else can't be read, the tier
/// leaves out and says so.
fn check_realtime(realtime: &serde_json::Map<String, serde_json::Value>) -> Result<(), HttpError> {
    let is_text = |value: Option<&serde_json::Value>| {
        value.and_then(serde_json::Value::as_str).is_some_and(|text| !text.is_empty())
    };
    let keys = realtime.get("accessKeys").and_then(|keys| keys.get("primary"));
    match is_text(keys) && is_text(realtime.get("connectionSecret")) {
        true => Ok(()),
        false => {
            let text = "accessKeys.primary and connectionSecret are needed: send what was read, changed";
            Err(HttpError::invalid(text))
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, HttpError> {
    fleetline_iothub::model::from_object(body).map_err(|error| HttpError::malformed("setting", &error))
}

/// The version that the writer has read.
fn expected(call: &Call, current: u64) -> Result<u64, HttpError> {
    let given = call.header(header::IF_MATCH.as_str()).map(parse_if_match);
    match given {
        Some(IfMatch::Any) => Ok(current),
        Some(IfMatch::Tag(tag)) => tag.parse().map_err(|_| outdated()),
        None => {
            Err(HttpError::new(ErrorCode::GenericPreconditionFailed, "If-Match with the version is needed"))
        }
    }
}

fn outdated() -> HttpError {
    HttpError::new(ErrorCode::PreconditionFailed, "the setting has changed since it was read")
}

fn version(settings: &HubSettings, name: &str) -> Option<u64> {
    match name {
        POLICIES => Some(settings.policies_version),
        ACCESS => Some(settings.access_version),
        AUTHORITIES => Some(settings.authorities_version),
        REALTIME => Some(settings.realtime_version),
        _ => None,
    }
}

/// Writes a setting under the version that was read.
pub(super) async fn store(call: &Call, name: &str, value: &impl Serialize, expected: u64) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| HttpError::internal(error.to_string()))?;
    let stored = call.hub().put_setting(name, body.into(), expected).await;
    stored.map_err(|error| match error {
        HubError::Fenced { .. } | HubError::OutOfSequence { .. } => outdated(),
        // The control group refuses an old version as it refuses a wrong value.
        HubError::Invalid(_) if version(&call.hub().settings(), name) != Some(expected) => outdated(),
        error => error.into(),
    })?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

fn check_name(name: &str) -> Result<(), HttpError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(plain) {
        true => Ok(()),
        false => Err(HttpError::invalid(format!("'{name}' is not a name"))),
    }
}

fn check_count(what: &str, found: usize, limit: usize) -> Result<(), HttpError> {
    match found > limit {
        true => Err(HttpError::invalid(format!("{found} {what}, at most {limit} are allowed"))),
        false => Ok(()),
    }
}

fn check_policies(policies: &BTreeMap<String, Policy>) -> Result<(), HttpError> {
    check_count("policies", policies.len(), POLICIES_MAX)?;
    for (name, policy) in policies {
        check_name(name)?;
        for key in [&policy.primary_key, &policy.secondary_key] {
            SasKey::from_base64(key)
                .map_err(|_| HttpError::invalid(format!("a key of {name} is not Base64")))?;
        }
    }
    let may_all = |policy: &Policy| {
        let rights = [Right::RegistryWrite, Right::ServiceConnect];
        rights.iter().all(|right| policy.rights.contains(right))
            && policy.devices.is_empty()
            && policy.covers_action("settings/write")
    };
    match policies.values().any(may_all) {
        true => Ok(()),
        false => Err(HttpError::invalid("no policy would be left that may change settings")),
    }
}

fn check_access(call: &Call, access: &Access) -> Result<(), HttpError> {
    check_count("address rules", access.ip_rules.len(), RULES_MAX)?;
    check_count("host names", access.host_names.len(), RULES_MAX)?;
    for rule in &access.ip_rules {
        if !is_mask(&rule.mask) {
            return Err(HttpError::invalid(format!(
                "'{}' is neither an address nor address/bits",
                rule.mask
            )));
        }
    }
    let then = HubSettings { access: access.clone(), ..HubSettings::default() };
    match then.admits(call.peer.address.ip()) {
        true => Ok(()),
        false => {
            Err(HttpError::invalid("these rules would keep out the address that this request comes from"))
        }
    }
}

fn is_mask(mask: &str) -> bool {
    let (address, bits) = mask.split_once('/').unwrap_or((mask, "0"));
    let most = match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u32>().is_ok_and(|bits| bits <= most)
}

/// The given authorities; which are proved, and by which code, is the hub's word and stays with the
/// certificate that it was about.
fn kept_proofs(
    settings: &HubSettings,
    given: BTreeMap<String, DeviceAuthority>,
) -> Result<BTreeMap<String, DeviceAuthority>, HttpError> {
    check_count("authorities", given.len(), AUTHORITIES_MAX)?;
    let kept = |(name, authority): (String, DeviceAuthority)| {
        check_name(&name)?;
        authorities::certificate(authority.pem.as_bytes())?;
        let known = settings.authorities.get(&name).filter(|known| known.pem == authority.pem);
        let authority = known.cloned().unwrap_or(DeviceAuthority {
            pem: authority.pem,
            verified: false,
            code: String::new(),
        });
        Ok((name, authority))
    };
    given.into_iter().map(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::settings::default_policies;

    /// Nobody locks everybody out, and keys work.
    #[test]
    fn policies_that_can_not_be() {
        let policies = default_policies(|| "a2V5".to_owned());
        assert!(check_policies(&policies).is_ok());
        let mut without = policies.clone();
        without.remove("iothubowner");
        assert!(check_policies(&without).is_err());
        let mut limited = policies.clone();
        limited.get_mut("iothubowner").unwrap().devices = vec!["a*".into()];
        assert!(check_policies(&limited).is_err());
        let mut keyless = policies.clone();
        keyless.get_mut("device").unwrap().secondary_key = String::new();
        assert!(check_policies(&keyless).is_err());
        let mut named = policies;
        named.insert("a b".into(), named["device"].clone());
        assert!(check_policies(&named).is_err());
    }

    #[test]
    fn masks() {
        for (mask, good) in [
            ("10.0.0.0/8", true),
            ("10.0.0.1", true),
            ("fd00::/8", true),
            ("10.0.0.0/33", false),
            ("x/8", false),
            ("", false),
        ] {
            assert_eq!(is_mask(mask), good, "{mask}");
        }
    }
}
