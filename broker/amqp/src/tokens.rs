//! Tokens that were put on a connection, and what they allow.
//!
//! A policy's token is judged here at once; a device's own goes to the leader of its partition, which
//! has the keys. Both are judged again for each link, by the settings and the keys of that moment.
//!
//! A token that is put again for the same resource and policy takes the former one's place: links that
//! rest on it live on.

use std::collections::{BTreeMap, HashMap};

use fleetline_devices::DeviceKey;
use fleetline_gateway::devices::login::{LoginError, Presented, device_login};
use fleetline_gateway::devices::settings::{HubSettings, Policy, Right};
use fleetline_iothub::names::{check_device_id, check_module_id};
use fleetline_iothub::sas::{ResourcePath, SasKey, SasToken};

/// Tokens that aren't of one device; a service has one or one a link.
const GENERAL_MAX: usize = 64;

/// A token.
#[derive(Debug)]
struct Token {
    text: String,
    sas: SasToken,
    device: Option<DeviceKey>,
}

/// What a token turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// A policy has signed it.
    Policy,
    /// Its device's leader has to judge it.
    Device(DeviceKey),
}

/// What a link rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    /// The certificate of the TLS handshake.
    Certificate,
    /// A token.
    Token(u64),
}

/// All tokens of a connection.
#[derive(Debug)]
pub(crate) struct Tokens {
    by_id: BTreeMap<u64, Token>,
    by_name: HashMap<(String, Option<String>), u64>,
    by_device: HashMap<String, Vec<u64>>,
    general: Vec<u64>,
    last: u64,
    max: usize,
    /// When the next one is over; it is asked for often.
    next_expiry: Option<u64>,
}

impl Tokens {
    pub(crate) fn new(max: usize) -> Tokens {
        Tokens {
            by_id: BTreeMap::new(),
            by_name: HashMap::new(),
            by_device: HashMap::new(),
            general: Vec::new(),
            last: 0,
            max,
            next_expiry: None,
        }
    }

    /// Takes a token that was judged; `false` when there are too many.
    pub(crate) fn put(&mut self, text: &str) -> bool {
        let taken = self.insert(text);
        self.look_at_expiry();
        taken
    }

    fn look_at_expiry(&mut self) {
        self.next_expiry = self.by_id.values().map(|token| token.sas.expiry).min();
    }

    fn insert(&mut self, text: &str) -> bool {
        let Ok(sas) = SasToken::parse(text) else { return false };
        let name = (sas.resource.to_lowercase(), sas.policy.clone());
        let device = device_of(&sas);
        let token = Token { text: text.to_owned(), device: device.clone(), sas };
        if let Some(id) = self.by_name.get(&name) {
            self.by_id.insert(*id, token);
            return true;
        }
        if self.by_id.len() >= self.max || (device.is_none() && self.general.len() >= GENERAL_MAX) {
            return false;
        }
        self.last += 1;
        self.by_id.insert(self.last, token);
        self.by_name.insert(name, self.last);
        match device {
            Some(key) => self.by_device.entry(key.device).or_default().push(self.last),
            None => self.general.push(self.last),
        }
        true
    }

    /// When the next one is over, in seconds since 1970.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.next_expiry
    }

    /// Forgets those that are over; gives their numbers.
    pub(crate) fn expire(&mut self, now_secs: u64) -> Vec<u64> {
        let is_over = |token: &Token| token.sas.is_expired(now_secs, 0);
        let over = self.by_id.iter().filter(|(_, token)| is_over(token)).map(|(id, _)| *id);
        let over: Vec<u64> = over.collect();
        for id in &over {
            let Some(token) = self.by_id.remove(id) else { continue };
            self.by_name.remove(&(token.sas.resource.to_lowercase(), token.sas.policy));
            self.general.retain(|known| known != id);
            if let Some(key) = token.device
                && let Some(ids) = self.by_device.get_mut(&key.device)
            {
                ids.retain(|known| known != id);
                if ids.is_empty() {
                    self.by_device.remove(&key.device);
                }
            }
        }
        self.look_at_expiry();
        over
    }

    /// The login of a device by one of the tokens.
    ///
    /// # Errors
    /// [`LoginError`] of the last that might have been meant.
    pub(crate) fn device(
        &self,
        settings: &HubSettings,
        now_secs: u64,
        key: &DeviceKey,
    ) -> Result<(Presented, Auth), LoginError> {
        let own = self.by_device.get(&key.device).map(Vec::as_slice).unwrap_or_default();
        let mut error = LoginError::Missing;
        for id in own.iter().chain(&self.general) {
            let Some(token) = self.by_id.get(id) else { continue };
            match device_login(settings, now_secs, key, Some(&token.text), None, |_| false) {
                Ok(presented) => return Ok((presented, Auth::Token(*id))),
                Err(found) => error = found,
            }
        }
        Err(error)
    }

    /// The policy of a token that covers `path`, with the right to connect as a service and the action.
    /// Policies that are limited to devices are judged by message.
    ///
    /// # Errors
    /// [`LoginError`] of the last that might have been meant.
    pub(crate) fn service(
        &self,
        settings: &HubSettings,
        now_secs: u64,
        path: &str,
        action: &str,
    ) -> Result<(String, Auth), LoginError> {
        let mut error = LoginError::Missing;
        for id in &self.general {
            let Some(token) = self.by_id.get(id) else { continue };
            match service(settings, now_secs, &token.sas, path, action) {
                Ok(policy) => return Ok((policy, Auth::Token(*id))),
                Err(found) => error = found,
            }
        }
        Err(error)
    }
}

fn service(
    settings: &HubSettings,
    now_secs: u64,
    sas: &SasToken,
    path: &str,
    action: &str,
) -> Result<String, LoginError> {
    if sas.is_expired(now_secs, 0) {
        return Err(LoginError::Expired);
    }
    if !sas.covers(&|host| settings.is_host(host), &ResourcePath::Path(path)) {
        return Err(LoginError::OtherResource);
    }
    let name = sas.policy.as_deref().ok_or(LoginError::Policy)?;
    let policy = settings.policies.get(name).ok_or(LoginError::Policy)?;
    if !signed(policy, sas) {
        return Err(LoginError::Policy);
    }
    match policy.allows(Right::ServiceConnect) && policy.covers_action(action) {
        true => Ok(name.to_owned()),
        false => Err(LoginError::Forbidden),
    }
}

/// "Event Hubs SDKs HMAC with the UTF-8 bytes of the key text": the decoded key, then the text.
fn signed(policy: &Policy, sas: &SasToken) -> bool {
    policy.signed(sas)
        || [&policy.primary_key, &policy.secondary_key]
            .into_iter()
            .any(|key| SasKey::new(key.as_bytes()).is_ok_and(|key| sas.verify(&key)))
}

/// Judges a token as far as that is possible without its device's leader.
///
/// # Errors
/// [`LoginError`].
pub(crate) fn judge(settings: &HubSettings, now_secs: u64, text: &str) -> Result<Judged, LoginError> {
    let sas = SasToken::parse(text).map_err(|error| LoginError::Malformed(error.to_string()))?;
    if sas.is_expired(now_secs, 0) {
        return Err(LoginError::Expired);
    }
    let (host, _) = split(&sas.resource);
    if !settings.is_host(&host.to_ascii_lowercase()) {
        return Err(LoginError::OtherResource);
    }
    match &sas.policy {
        Some(name) => {
            let policy = settings.policies.get(name).ok_or(LoginError::Policy)?;
            if signed(policy, &sas) { Ok(Judged::Policy) } else { Err(LoginError::Policy) }
        }
        None => device_of(&sas).map(Judged::Device).ok_or(LoginError::OtherResource),
    }
}

/// Host without port, and path, of a token's resource.
fn split(resource: &str) -> (&str, &str) {
    let rest = resource.split_once("://").map_or(resource, |(_, rest)| rest);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    (host, path)
}

/// The device or module that a token is for.
fn device_of(sas: &SasToken) -> Option<DeviceKey> {
    let (_, path) = split(&sas.resource);
    let mut segments = path.trim_end_matches('/').split('/');
    segments.next().filter(|word| word.eq_ignore_ascii_case("devices"))?;
    let device = segments.next().filter(|id| check_device_id(id).is_ok())?;
    match (segments.next(), segments.next()) {
        (None, _) => Some(DeviceKey::device(device)),
        (Some(word), Some(module)) if word.eq_ignore_ascii_case("modules") => {
            check_module_id(module).ok()?;
            Some(DeviceKey::module(device, module))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use fleetline_gateway::devices::settings::default_policies;
    use fleetline_iothub::sas::generate_token;

    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn settings() -> HubSettings {
        let policies = default_policies(|| KEY.to_owned());
        HubSettings { policies, host_names: vec!["hub".into()], ..HubSettings::default() }
    }

    fn token(resource: &str, expiry: u64, policy: Option<&str>) -> String {
        generate_token(resource, &SasKey::from_base64(KEY).unwrap(), expiry, policy)
    }

    /// Keys of both worlds; scheme, port and case of the resource; foreign hosts and policies.
    #[test]
    fn judging() {
        let judge = |text: &str| judge(&settings(), 900, text);
        let text_key = SasKey::new(KEY.as_bytes()).unwrap();
        let of_events = generate_token("sb://HUB/h/ConsumerGroups/g", &text_key, 1000, Some("service"));
        assert_eq!(judge(&of_events), Ok(Judged::Policy));
        assert_eq!(judge(&token("hub:5671", 1000, Some("service"))), Ok(Judged::Policy));
        assert_eq!(judge(&token("hub/devices/d", 1000, None)), Ok(Judged::Device(DeviceKey::device("d"))));
        assert_eq!(
            judge(&token("hub/devices/d/modules/m", 1000, None)),
            Ok(Judged::Device(DeviceKey::module("d", "m")))
        );
        assert_eq!(judge(&token("other", 1000, Some("service"))), Err(LoginError::OtherResource));
        assert_eq!(judge(&token("hub", 1000, None)), Err(LoginError::OtherResource));
        assert_eq!(judge(&token("hub", 899, Some("service"))), Err(LoginError::Expired));
        assert_eq!(judge(&token("hub", 1000, Some("nobody"))), Err(LoginError::Policy));
        let foreign = SasKey::new(b"other").unwrap();
        let forged = generate_token("hub", &foreign, 1000, Some("service"));
        assert_eq!(judge(&forged), Err(LoginError::Policy));
        assert!(matches!(judge("Bearer x.y.z"), Err(LoginError::Malformed(_))));
    }

    /// A token covers what lies below its resource, one device's not another one's.
    #[test]
    fn covering() {
        let settings = settings();
        let mut tokens = Tokens::new(8);
        assert!(tokens.put(&token("hub/devices/a", 1000, None)));
        assert!(tokens.put(&token("sb://hub/h/ConsumerGroups", 1000, Some("service"))));
        let device = |tokens: &Tokens, id: &str| {
            tokens.device(&settings, 900, &DeviceKey::device(id)).map(|(_, auth)| auth)
        };
        assert_eq!(device(&tokens, "a"), Ok(Auth::Token(1)));
        assert!(device(&tokens, "ab").is_err());
        let service =
            |tokens: &Tokens, path: &str| tokens.service(&settings, 900, path, "x").map(|found| found.0);
        assert_eq!(service(&tokens, "h/consumergroups/g/partitions/1").as_deref(), Ok("service"));
        assert_eq!(service(&tokens, "h/consumergroupsX"), Err(LoginError::OtherResource));
        // A policy of devices is for all of them, and not for services.
        assert!(tokens.put(&token("hub", 1000, Some("device"))));
        assert_eq!(device(&tokens, "b"), Ok(Auth::Token(3)));
        assert_eq!(service(&tokens, "messages/devicebound"), Err(LoginError::Forbidden));
    }

    /// Renewing keeps the number; what is over is forgotten; there is a bound.
    #[test]
    fn renewing() {
        let settings = settings();
        let mut tokens = Tokens::new(2);
        assert!(tokens.put(&token("hub/devices/a", 1000, None)));
        assert!(tokens.put(&token("hub/devices/b", 2000, None)));
        assert!(!tokens.put(&token("hub/devices/c", 2000, None)));
        assert!(tokens.put(&token("HUB/devices/a", 3000, None)));
        assert_eq!(tokens.next_expiry(), Some(2000));
        assert_eq!(tokens.expire(1500), [0u64; 0]);
        assert_eq!(tokens.expire(2001), [2]);
        assert!(tokens.device(&settings, 2001, &DeviceKey::device("b")).is_err());
        assert_eq!(
            tokens.device(&settings, 2001, &DeviceKey::device("a")).map(|found| found.1),
            Ok(Auth::Token(1))
        );
        assert!(tokens.put(&token("hub/devices/c", 4000, None)));
    }
}
