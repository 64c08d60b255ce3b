//! The tier's settings: keys, upstreams, bridges, as JSON in the hub setting [`SETTING`].
//!
//! ```json
//! { "accessKeys": { "primary": "…", "secondary": "…" }, "connectionSecret": "…",
//!   "endpoints": ["https://other.name"], "allowedOrigins": ["https://app.example"],
//!   "hubs": { "chat": { "transports": ["WebSockets"] } },
//!   "upstreams": [ { "UrlTemplate": "https://f/{hub}/{category}/{event}", "HubPattern": "*" } ],
//!   "bridges": [ { "source": "twins", "hub": "fleet", "group": "device/{deviceId}", "target": "twinChanged" } ] }
//! ```
//!
//! The first node that finds no setting makes the keys (compare-and-set on the version that it read). Unknown
//! fields are ignored, so that an older release reads what a newer one wrote; a part that can't be read
//! is left out and logged, the others go on.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::tiers::RawSetting;
use fleetline_signalr::access_key::{AccessKey, AccessKeys};
use fleetline_signalr::connection_id::ConnectionKey;
use fleetline_signalr::negotiate::Transport;
use fleetline_signalr::upstream::{UpstreamSettings, Upstreams};
use ring::hmac;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::bridge::rule::{Bridge, BridgeSettings};

/// The name of the setting.
pub const SETTING: &str = "realtime";

/// Bridges of a hub: each looks at every record.
const BRIDGES_MAX: usize = 64;
/// Other names of the service.
const ENDPOINTS_MAX: usize = 64;

/// What one hub may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HubOptions {
    /// Names of transports that its clients may use; none: all.
    pub transports: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stored {
    access_keys: StoredKeys,
    connection_secret: String,
    endpoints: Vec<String>,
    allowed_origins: Vec<String>,
    hubs: BTreeMap<String, HubOptions>,
    upstreams: Vec<Value>,
    bridges: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StoredKeys {
    primary: String,
    secondary: String,
}

/// The settings, prepared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The version that they were read from.
    pub(crate) version: u64,
    /// Without them nobody gets in.
    pub(crate) keys: Option<AccessKeys>,
    /// The text of the primary key, for the connection string.
    pub(crate) primary: String,
    pub(crate) connection_key: Option<ConnectionKey>,
    pub(crate) endpoints: Vec<String>,
    /// Origins whose pages may call; none: all.
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) hubs: BTreeMap<String, HubOptions>,
    pub(crate) upstreams: Upstreams,
    pub(crate) bridges: Vec<Bridge>,
}

impl Settings {
    /// Reads the stored form. What is malformed gives settings that let nobody in.
    pub(crate) fn read(raw: &RawSetting) -> Settings {
        let mut settings = Settings { version: raw.version, ..Settings::default() };
        if raw.value.is_empty() {
            return settings;
        }
        match serde_json::from_slice(&raw.value) {
            Ok(stored) => settings.fill(stored),
            Err(error) => tracing::warn!(%error, "the realtime setting can't be read, nobody gets in"),
        }
        settings
    }

    fn fill(&mut self, stored: Stored) {
        let secondary = AccessKey::new(&stored.access_keys.secondary).ok();
        self.keys =
            AccessKey::new(&stored.access_keys.primary).ok().map(|primary| AccessKeys { primary, secondary });
        // A secret of its own outlives the rotation of keys; without one the primary key stands in.
        let secret = match stored.connection_secret.is_empty() {
            true => &stored.access_keys.primary,
            false => &stored.connection_secret,
        };
        self.connection_key = self.keys.is_some().then(|| connection_key(secret));
        self.primary = stored.access_keys.primary;
        self.endpoints = stored.endpoints;
        self.endpoints.truncate(ENDPOINTS_MAX);
        self.allowed_origins = stored.allowed_origins;
        self.hubs = stored.hubs.into_iter().map(|(name, hub)| (name.to_lowercase(), hub)).collect();
        self.upstreams = upstreams(stored.upstreams);
        self.bridges = bridges(stored.bridges);
    }

    /// Transports that clients of a hub may use, the best first.
    pub(crate) fn transports(&self, hub: &str) -> Vec<Transport> {
        let names = self.hubs.get(hub).map(|hub| &hub.transports[..]).unwrap_or_default();
        let is_allowed = |transport: &Transport| {
            names.is_empty() || names.iter().any(|name| name.eq_ignore_ascii_case(transport.name()))
        };
        Transport::ALL.into_iter().filter(is_allowed).collect()
    }

    /// Whether a page of this origin may call.
    pub(crate) fn allows_origin(&self, origin: &str) -> bool {
        let fits = |allowed: &String| allowed == "*" || allowed.eq_ignore_ascii_case(origin);
        self.allowed_origins.is_empty() || self.allowed_origins.iter().any(fits)
    }
}

fn connection_key(secret: &str) -> ConnectionKey {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, b"fleetline realtime connection key 1");
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    ConnectionKey::new(&bytes)
}

fn upstreams(stored: Vec<Value>) -> Upstreams {
    let read = stored.into_iter().map(|value| serde_json::from_value::<UpstreamSettings>(pascal(value)));
    let settings: Result<Vec<_>, _> = read.collect();
    match settings
        .map_err(|error| error.to_string())
        .and_then(|settings| Upstreams::new(settings).map_err(|error| error.to_string()))
    {
        Ok(upstreams) => upstreams,
        Err(error) => {
            tracing::warn!(error, "upstreams can't be read, none is called");
            Upstreams::default()
        }
    }
}

/// Field names as the public service has them; `urlTemplate` is taken too.
fn pascal(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let name = |name: String| {
        let mut chars = name.chars();
        chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
    };
    Value::Object(fields.into_iter().map(|(field, value)| (name(field), value)).collect())
}

fn bridges(stored: Vec<Value>) -> Vec<Bridge> {
    let read = |value: Value| {
        let settings: BridgeSettings = serde_json::from_value(value).map_err(|error| error.to_string())?;
        Bridge::new(settings).map_err(|error| error.to_string())
    };
    let mut bridges = Vec::new();
    for (index, value) in stored.into_iter().enumerate().take(BRIDGES_MAX) {
        match read(value) {
            Ok(bridge) => bridges.push(bridge),
            Err(error) => tracing::warn!(index, error, "a bridge can't be read, it does nothing"),
        }
    }
    bridges
}

/// Settings for a hub that has none: fresh keys and nothing else.
pub(crate) fn fresh(hub: &dyn DeviceHub) -> Vec<u8> {
    let secret = || {
        let mut bytes = [0; 32];
        hub.random(&mut bytes);
        STANDARD.encode(bytes)
    };
    let value = json!({
        "accessKeys": { "primary": secret(), "secondary": secret() },
        "connectionSecret": secret(),
        "hubs": {},
        "upstreams": [],
        "bridges": [],
    });
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fleetline_signalr::names::HubName;
    use fleetline_signalr::upstream::Category;

    use super::*;

    fn read(text: &str) -> Settings {
        let value = Bytes::copy_from_slice(text.as_bytes());
        Settings::read(&RawSetting { name: SETTING.to_owned(), version: 7, value })
    }

    #[test]
    fn nothing_lets_nobody_in() {
        for text in ["", "{", "{}", r#"{"accessKeys":{"secondary":"x"}}"#] {
            let settings = read(text);
            assert!(settings.keys.is_none() && settings.connection_key.is_none(), "{text}");
            assert_eq!(settings.version, 7);
        }
    }

    #[test]
    fn parts_that_are_bad_leave_the_others() {
        let settings = read(
            r#"{"accessKeys":{"primary":"p"},"future":1,
                "upstreams":[{"UrlTemplate":"ftp://x"}],
                "bridges":[{"source":"nowhere"},{"source":"twins","hub":"Fleet","target":"t"}],
                "hubs":{"Chat":{"transports":["longPolling","nothing"]}}}"#,
        );
        assert!(settings.keys.is_some());
        let hub = HubName::parse("chat").expect("name");
        assert!(settings.upstreams.find(&hub, Category::Messages, "x").is_none());
        assert_eq!(settings.bridges.len(), 1);
        assert_eq!(settings.transports("chat"), [Transport::LongPolling]);
        assert_eq!(settings.transports("other"), Transport::ALL);
    }

    #[test]
    fn upstreams_are_read_in_both_spellings() {
        let settings = read(
            r#"{"accessKeys":{"primary":"p"},"upstreams":[
                {"urlTemplate":"https://a/{event}","hubPattern":"chat"},{"UrlTemplate":"https://b/"}]}"#,
        );
        let found = |hub| {
            let hub = HubName::parse(hub).expect("name");
            settings.upstreams.find(&hub, Category::Messages, "x").map(|found| found.url_template.clone())
        };
        assert_eq!(found("chat").as_deref(), Some("https://a/{event}"));
        assert_eq!(found("other").as_deref(), Some("https://b/"));
    }

    #[test]
    fn origins() {
        let any = read(r#"{"accessKeys":{"primary":"p"}}"#);
        assert!(any.allows_origin("https://x"));
        let some = read(r#"{"accessKeys":{"primary":"p"},"allowedOrigins":["https://App"]}"#);
        assert!(some.allows_origin("https://app") && !some.allows_origin("https://x"));
    }
}
