//! Who looks at the console, and what they may see.
//!
//! A caller shows a JWT (RFC 7519) signed with HMAC-SHA-256 (`HS256`, RFC 7518 §3.2) under a key of a
//! shared access policy of the hub: `aud` is [`AUDIENCE`], `sub` the policy's name, `exp` at most
//! [`TOKEN_TTL_MAX`] ahead. The page signs it itself from a connection string, or the command line does
//! ([`sign_in_url`]). What a policy may do here is what it may do on the hub's service API: rights,
//! devices and actions are judged the same way, so the console widens nobody's access.
//!
//! The same keys sign tokens of the hub (`SharedAccessSignature`). Neither can be taken for the other: what
//! is signed there has a line break in it, and what is signed here never has.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use fleetline_gateway::devices::settings::{HubSettings, Policy, Right};
use ring::hmac;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{ConsoleError, SignInError};
use crate::limits::{CLOCK_SKEW, TOKEN_BYTES_MAX, TOKEN_TTL_MAX};

/// The audience of a token for the console.
pub const AUDIENCE: &str = "console";

/// Bytes of a policy's name in a token.
const NAME_BYTES_MAX: usize = 128;

/// Somebody who has signed in.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The policy's name.
    pub(crate) name: String,
    /// When the token is over, in seconds since 1970.
    pub(crate) expires: u64,
    policy: Policy,
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    /// Extensions that must be understood (RFC 7515 §4.1.11); we understand none.
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    sub: String,
    exp: u64,
    nbf: Option<u64>,
}

/// The caller of a token, or nothing: who fails hears no reason.
pub(crate) fn verify(token: &str, settings: &HubSettings, now_secs: u64) -> Option<Caller> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (head, claims) = signed.split_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let head: Head = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()?;
    // RFC 8725 §3.1: the algorithm is ours to choose.
    if head.alg != "HS256" || head.crit.is_some() {
        return None;
    }
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    if claims.sub.len() > NAME_BYTES_MAX {
        return None;
    }
    let policy = settings.policies.get(&claims.sub)?;
    let signs = |key: &String| {
        // `verify` compares in constant time.
        key_of(key).is_ok_and(|key| hmac::verify(&key, signed.as_bytes(), &signature).is_ok())
    };
    if !signs(&policy.primary_key) && !signs(&policy.secondary_key) {
        return None;
    }
    let (skew, ttl) = (CLOCK_SKEW.as_secs(), TOKEN_TTL_MAX.as_secs());
    let in_time = now_secs < claims.exp
        && claims.exp <= now_secs.saturating_add(ttl + skew)
        && claims.nbf.is_none_or(|from| from <= now_secs.saturating_add(skew));
    (in_time && claims.aud == AUDIENCE).then(|| Caller {
        name: claims.sub,
        expires: claims.exp,
        policy: policy.clone(),
    })
}

/// A key of a policy as it is stored.
fn key_of(base64: &str) -> Result<hmac::Key, SignInError> {
    match STANDARD.decode(base64.trim()) {
        Ok(bytes) if !bytes.is_empty() => Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes)),
        _ => Err(SignInError::Key),
    }
}

/// A token for the console. `key` is Base64, `now_secs` since 1970; a `ttl` above [`TOKEN_TTL_MAX`] is cut
/// to it.
pub fn sign_in_token(policy: &str, key: &str, ttl: Duration, now_secs: u64) -> Result<String, SignInError> {
    let key = key_of(key)?;
    let expires = now_secs.saturating_add(ttl.min(TOKEN_TTL_MAX).as_secs());
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(json!({ "alg": "HS256", "typ": "JWT" }));
    let claims = part(json!({ "aud": AUDIENCE, "exp": expires, "sub": policy }));
    let signed = format!("{head}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    Ok(format!("{signed}.{signature}"))
}

/// An address that opens the console signed in, for the command line. `base` is the front's
/// (`https://host:port`). The token stands in the fragment, which browsers don't send and servers don't log.
pub fn sign_in_url(
    base: &str,
    policy: &str,
    key: &str,
    ttl: Duration,
    now_secs: u64,
) -> Result<String, SignInError> {
    let token = sign_in_token(policy, key, ttl, now_secs)?;
    Ok(format!("{}/console/#token={token}", base.trim_end_matches('/')))
}

/// What a caller wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed<'a> {
    /// Nodes, partitions, consumer groups, functions.
    Status,
    /// A device's identity, without keys. (A service that may read twins sees the same there.)
    Identity(&'a str),
    /// A device's twin.
    Twin(&'a str),
    /// Changing a device's desired properties.
    ChangeTwin(&'a str),
    /// A device's telemetry.
    Telemetry(&'a str),
    /// The live feed, with records of any device.
    Live,
}

impl Deed<'_> {
    fn text(self) -> &'static str {
        match self {
            Deed::Status => "see the hub's status",
            Deed::Identity(_) => "see this device",
            Deed::Twin(_) => "read this device's twin",
            Deed::ChangeTwin(_) => "change this device's twin",
            Deed::Telemetry(_) => "read this device's telemetry",
            Deed::Live => "watch live",
        }
    }
}

impl Caller {
    /// Whether the policy allows it.
    pub(crate) fn may(&self, deed: Deed<'_>) -> bool {
        let policy = &self.policy;
        let reads = policy.allows(Right::RegistryRead);
        let serves = policy.allows(Right::ServiceConnect);
        let acts = |action| policy.covers_action(action);
        match deed {
            Deed::Status => (reads || serves) && acts("statistics/read"),
            Deed::Identity(device) => {
                let allowed = (reads && acts("devices/read")) || (serves && acts("twins/read"));
                allowed && policy.covers_device(device)
            }
            Deed::Twin(device) => serves && acts("twins/read") && policy.covers_device(device),
            Deed::ChangeTwin(device) => serves && acts("twins/write") && policy.covers_device(device),
            Deed::Telemetry(device) => serves && policy.actions.is_empty() && policy.covers_device(device),
            // The feed is one for all who watch, so it can't be cut for some.
            Deed::Live => serves && policy.actions.is_empty() && policy.devices.is_empty(),
        }
    }

    /// Whether the policy allows to see any device.
    pub(crate) fn may_some_identity(&self) -> bool {
        self.may(Deed::Identity(self.some_device()))
    }

    /// A device that the policy covers.
    fn some_device(&self) -> &str {
        self.policy.devices.first().map_or("", |pattern| pattern.trim_end_matches('*'))
    }

    /// Refuses what the policy doesn't allow.
    pub(crate) fn check(&self, deed: Deed<'_>) -> Result<(), ConsoleError> {
        let refusal = || ConsoleError::Forbidden { policy: self.name.clone(), what: deed.text() };
        self.may(deed).then_some(()).ok_or_else(refusal)
    }

    /// What the page should offer.
    pub(crate) fn session(&self) -> Value {
        let device = self.some_device();
        json!({
            "policy": self.name,
            "expires": self.expires,
            "rights": self.policy.rights,
            "devices": self.policy.devices,
            "may": {
                "status": self.may(Deed::Status),
                "devices": self.may_some_identity(),
                "twins": self.may(Deed::Twin(device)),
                "change": self.may(Deed::ChangeTwin(device)),
                "telemetry": self.may(Deed::Telemetry(device)),
                "live": self.may(Deed::Live),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use fleetline_gateway::devices::settings::default_policies;

    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const NOW: u64 = 1_795_500_938;
    const HOUR: Duration = Duration::from_secs(3600);

    fn settings() -> HubSettings {
        HubSettings { policies: default_policies(|| KEY.to_owned()), ..HubSettings::default() }
    }

    fn forge(head: Value, claims: Value) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(head), part(claims));
        let signature = hmac::sign(&key_of(KEY).unwrap(), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn who(token: &str) -> Option<String> {
        verify(token, &settings(), NOW).map(|caller| caller.name)
    }

    /// Either key of a policy signs; another key, another name, changed claims don't.
    #[test]
    fn signatures() {
        let token = sign_in_token("service", KEY, HOUR, NOW).unwrap();
        assert_eq!(who(&token).as_deref(), Some("service"));
        let other = "BBECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        assert_eq!(who(&sign_in_token("service", other, HOUR, NOW).unwrap()), None);
        assert_eq!(who(&sign_in_token("nobody", KEY, HOUR, NOW).unwrap()), None);
        let mut rotated = settings();
        rotated.policies.get_mut("service").unwrap().primary_key = other.to_owned();
        assert!(verify(&token, &rotated, NOW).is_some(), "the secondary key still signs");
        rotated.policies.get_mut("service").unwrap().secondary_key = other.to_owned();
        assert!(verify(&token, &rotated, NOW).is_none());
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (head, _) = signed.split_once('.').unwrap();
        let claims = json!({ "aud": AUDIENCE, "sub": "iothubowner", "exp": NOW + 60 }).to_string();
        let swapped = format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(who(&swapped), None);
        let mut emptied = settings();
        let policy = emptied.policies.get_mut("service").unwrap();
        (policy.primary_key, policy.secondary_key) = (String::new(), String::new());
        let empty = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b""), signed.as_bytes());
        let with_empty_key = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(empty));
        assert!(verify(&with_empty_key, &emptied, NOW).is_none(), "an empty key signs nothing");
    }

    /// What the claims and the head must be.
    #[test]
    fn claims() {
        let head = || json!({ "alg": "HS256" });
        let good = json!({ "aud": AUDIENCE, "sub": "service", "exp": NOW + 60 });
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            forge(head(), claims)
        };
        assert!(who(&forge(head(), good.clone())).is_some());
        assert!(who(&with("nbf", json!(NOW + 60))).is_some(), "within the skew");
        assert!(who(&with("exp", json!(NOW + TOKEN_TTL_MAX.as_secs()))).is_some());
        let bad = [
            with("exp", json!(NOW)),
            with("exp", json!(NOW + 2 * TOKEN_TTL_MAX.as_secs())),
            with("exp", json!("soon")),
            with("exp", Value::Null),
            with("nbf", json!(NOW + 3600)),
            with("aud", json!("https://hub/client")),
            with("aud", json!(["console"])),
            with("sub", json!(7)),
            forge(json!({ "alg": "none" }), good.clone()),
            forge(json!({ "alg": "HS512" }), good.clone()),
            forge(json!({ "alg": "HS256", "crit": ["b64"] }), good.clone()),
            forge(head(), json!([])),
            String::new(),
            ".".into(),
            "..".into(),
            "a.b.c".into(),
            format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode("{}")),
            "é".repeat(10),
            "x".repeat(TOKEN_BYTES_MAX + 1),
        ];
        for token in bad {
            assert_eq!(who(&token), None, "{token}");
        }
    }

    /// The command line's address holds a token that is taken, for a day at the most.
    #[test]
    fn address_for_the_command_line() {
        let url = sign_in_url("https://hub:8443/", "service", KEY, 100 * HOUR, NOW).unwrap();
        let token = url.strip_prefix("https://hub:8443/console/#token=").unwrap();
        let caller = verify(token, &settings(), NOW).unwrap();
        assert_eq!(caller.expires, NOW + TOKEN_TTL_MAX.as_secs());
        assert_eq!(sign_in_url("x", "p", "no base64", HOUR, NOW), Err(SignInError::Key));
        assert_eq!(sign_in_url("x", "p", "", HOUR, NOW), Err(SignInError::Key));
    }

    /// What each of a new hub's policies may do, and what limits take away.
    #[test]
    fn rights() {
        let caller = |name: &str, change: &dyn Fn(&mut Policy)| {
            let mut settings = settings();
            change(settings.policies.get_mut(name).unwrap());
            verify(&sign_in_token(name, KEY, HOUR, NOW).unwrap(), &settings, NOW).unwrap()
        };
        let deeds = [
            Deed::Status,
            Deed::Identity("d"),
            Deed::Twin("d"),
            Deed::ChangeTwin("d"),
            Deed::Telemetry("d"),
            Deed::Live,
        ];
        let may = |caller: Caller| deeds.map(|deed| caller.may(deed));
        let as_made = |name| may(caller(name, &|_| ()));
        assert_eq!(as_made("iothubowner"), [true; 6]);
        assert_eq!(as_made("service"), [true; 6]);
        assert_eq!(as_made("registryRead"), [true, true, false, false, false, false]);
        assert_eq!(as_made("registryReadWrite"), [true, true, false, false, false, false]);
        assert_eq!(as_made("device"), [false; 6]);
        let other_devices = caller("service", &|policy| policy.devices = vec!["plant-*".into()]);
        assert_eq!(may(other_devices.clone()), [true, false, false, false, false, false]);
        assert!(other_devices.may(Deed::ChangeTwin("plant-1")));
        assert_eq!(other_devices.session()["may"]["change"], true);
        let reader = caller("service", &|policy| policy.actions = vec!["twins/read".into()]);
        assert_eq!(may(reader), [false, true, true, false, false, false]);
    }
}
