//! Who is calling: what fronts check by themselves of tokens and certificates before they ask a leader.
//!
//! A token of a policy is judged here, because every node has the policies. A token of a device's own
//! key, and a certificate, go to the leader of the device's partition, which has the keys
//! (`fleetline_devices::check_proof`).

use fleetline_devices::{CertificateProof, DeviceKey, Proof, Shown};
use fleetline_iothub::sas::{ResourcePath, SasToken};
use thiserror::Error;

use super::settings::{HubSettings, Policy, Right};

/// Why a caller is refused before any leader is asked. For logs and metrics; the caller hears only that
/// it is not authorised.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoginError {
    /// Nothing was shown.
    #[error("neither a token nor a certificate was shown")]
    Missing,
    /// Not a token.
    #[error("token can't be read: {0}")]
    Malformed(String),
    /// Its time is over.
    #[error("token has expired")]
    Expired,
    /// It is for something else.
    #[error("token is for another resource")]
    OtherResource,
    /// No such policy, or the signature isn't of its keys.
    #[error("no policy of this name has signed the token")]
    Policy,
    /// The policy doesn't allow it.
    #[error("policy doesn't allow this")]
    Forbidden,
}

impl LoginError {
    /// A short name for the metric of refusals.
    pub fn reason(&self) -> &'static str {
        match self {
            LoginError::Missing => "missing",
            LoginError::Malformed(_) => "malformed",
            LoginError::Expired => "expired",
            LoginError::OtherResource => "other_resource",
            LoginError::Policy => "policy",
            LoginError::Forbidden => "forbidden",
        }
    }
}

/// A certificate that a client showed in the TLS handshake, and whose key it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownCertificate {
    /// What a leader judges, without `chained`.
    pub proof: CertificateProof,
    /// The chain as shown, the client's own first.
    pub chain: Vec<Vec<u8>>,
}

/// A login as far as a gateway can judge it.
#[derive(Clone, Debug, PartialEq)]
pub struct Presented {
    /// For the leader.
    pub proof: Proof,
    /// When it ends, in seconds since 1970.
    pub expires: Option<u64>,
}

/// Judges the login of a device or module. `chained` says whether a certificate chains up to an
/// authority of the hub.
///
/// # Errors
/// [`LoginError`].
pub fn device_login(
    settings: &HubSettings,
    now_secs: u64,
    key: &DeviceKey,
    token: Option<&str>,
    certificate: Option<&ShownCertificate>,
    chained: impl Fn(&ShownCertificate) -> bool,
) -> Result<Presented, LoginError> {
    let Some(text) = token.filter(|token| !token.is_empty()) else {
        let shown = certificate.ok_or(LoginError::Missing)?;
        let proof = CertificateProof { chained: chained(shown), ..shown.proof.clone() };
        return Ok(Presented { proof: Proof { shown: Some(Shown::Certificate(proof)) }, expires: None });
    };
    let path = match key.is_module() {
        true => ResourcePath::module(&key.device, &key.module),
        false => ResourcePath::device(&key.device),
    };
    let token = checked(settings, now_secs, text, &path)?;
    let expires = Some(token.expiry);
    let shown = match &token.policy {
        None => Shown::Token(text.to_owned()),
        Some(name) => {
            let policy = signer(settings, name, &token)?;
            if !policy.allows(Right::DeviceConnect) || !policy.covers_device(&key.device) {
                return Err(LoginError::Forbidden);
            }
            Shown::Policy(true)
        }
    };
    Ok(Presented { proof: Proof { shown: Some(shown) }, expires })
}

/// Judges a service's token for a right, an action (as [`Policy::actions`] names them) and, when the
/// request is about one, a device. Gives the policy.
///
/// # Errors
/// [`LoginError`].
pub fn service_login<'a>(
    settings: &'a HubSettings,
    now_secs: u64,
    token: Option<&str>,
    rights: &[Right],
    action: &str,
    device: Option<&str>,
) -> Result<&'a Policy, LoginError> {
    let text = token.filter(|token| !token.is_empty()).ok_or(LoginError::Missing)?;
    let path = device.map_or(ResourcePath::Hub, ResourcePath::device);
    // Services sign for the hub as a whole, or for what begins with the path.
    let token = checked(settings, now_secs, text, &ResourcePath::Hub).or_else(|error| match error {
        LoginError::OtherResource => checked(settings, now_secs, text, &path),
        error => Err(error),
    })?;
    let name = token.policy.as_deref().ok_or(LoginError::Policy)?;
    let policy = signer(settings, name, &token)?;
    let allowed = rights.iter().any(|right| policy.allows(*right))
        && policy.covers_action(action)
        && device.map_or(policy.devices.is_empty(), |device| policy.covers_device(device));
    allowed.then_some(policy).ok_or(LoginError::Forbidden)
}

fn checked(
    settings: &HubSettings,
    now_secs: u64,
    text: &str,
    path: &ResourcePath<'_>,
) -> Result<SasToken, LoginError> {
    let token = SasToken::parse(text).map_err(|error| LoginError::Malformed(error.to_string()))?;
    if token.is_expired(now_secs, 0) {
        return Err(LoginError::Expired);
    }
    match token.covers(&|host| settings.is_host(host), path) {
        true => Ok(token),
        false => Err(LoginError::OtherResource),
    }
}

fn signer<'a>(settings: &'a HubSettings, name: &str, token: &SasToken) -> Result<&'a Policy, LoginError> {
    let policy = settings.policies.get(name).ok_or(LoginError::Policy)?;
    policy.signed(token).then_some(policy).ok_or(LoginError::Policy)
}

#[cfg(test)]
mod tests {
    use fleetline_iothub::sas::{SasKey, generate_token};

    use super::super::settings::default_policies;
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn settings() -> HubSettings {
        let policies = default_policies(|| KEY.to_owned());
        HubSettings { policies, host_names: vec!["hub".into()], ..HubSettings::default() }
    }

    fn token(resource: &str, policy: Option<&str>) -> String {
        generate_token(resource, &SasKey::from_base64(KEY).unwrap(), 1000, policy)
    }

    fn device(token: &str) -> Result<Presented, LoginError> {
        device_login(&settings(), 900, &DeviceKey::device("d"), Some(token), None, |_| false)
    }

    /// A device's own token goes to the leader; a policy's is judged here, with its right.
    #[test]
    fn devices() {
        let own = device(&token("hub/devices/d", None)).unwrap();
        assert!(matches!(own.proof.shown, Some(Shown::Token(_))) && own.expires == Some(1000));
        let policy = device(&token("hub/devices", Some("device"))).unwrap();
        assert_eq!(policy.proof.shown, Some(Shown::Policy(true)));
        assert_eq!(device(&token("hub/devices", Some("service"))), Err(LoginError::Forbidden));
        assert_eq!(device(&token("hub/devices", Some("nobody"))), Err(LoginError::Policy));
        assert_eq!(device(&token("hub/devices/dd", None)), Err(LoginError::OtherResource));
        assert_eq!(device(&token("other/devices/d", None)), Err(LoginError::OtherResource));
        let late =
            device_login(&settings(), 1001, &DeviceKey::device("d"), Some(&token("hub", None)), None, |_| {
                true
            });
        assert_eq!(late, Err(LoginError::Expired));
        assert_eq!(device(""), Err(LoginError::Missing));
    }

    /// Services need a policy, its right, and a token for the hub.
    #[test]
    fn services() {
        let login = |token: &str, right| {
            service_login(&settings(), 900, Some(token), &[right], "twins/read", None).map(drop)
        };
        assert_eq!(login(&token("hub", Some("service")), Right::ServiceConnect), Ok(()));
        assert_eq!(login(&token("hub", Some("service")), Right::RegistryRead), Err(LoginError::Forbidden));
        assert_eq!(login(&token("hub", None), Right::RegistryRead), Err(LoginError::Policy));
        assert_eq!(
            login(&token("hub/devices/d", Some("service")), Right::ServiceConnect),
            Err(LoginError::OtherResource)
        );
    }
}
