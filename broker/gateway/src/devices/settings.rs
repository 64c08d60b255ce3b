//! The hub's settings that fronts need: its names, shared access policies, address rules,
//! authorities of devices.
//!
//! Stored in the control group as JSON under the names of the constants here; every node follows them.
//! Unknown fields are kept out of the way of older releases by being ignored.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fleetline_iothub::sas::{SasKey, SasToken};
use serde::{Deserialize, Serialize};

/// The setting that holds [`HubSettings::policies`].
pub const POLICIES: &str = "policies";
/// The setting that holds [`HubSettings::access`].
pub const ACCESS: &str = "access";
/// The setting that holds [`HubSettings::authorities`].
pub const AUTHORITIES: &str = "authorities";

/// The setting that holds [`HubSettings::realtime`].
pub const REALTIME: &str = "realtime";

/// What a policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Right {
    /// Read identities and statistics.
    RegistryRead,
    /// Change identities; includes reading.
    RegistryWrite,
    /// Twins, methods, commands, feedback, queries.
    ServiceConnect,
    /// Act as a device.
    DeviceConnect,
}

/// A shared access policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// What it allows.
    pub rights: Vec<Right>,
    /// Base64.
    pub primary_key: String,
    /// Base64.
    pub secondary_key: String,
    /// Device ids that it is limited to: exact, or with one `*` at the end. Empty: all.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Actions that it is limited to, by name (`twins/read`, `directMethods/invoke/action`, … as the
    /// public hub names them). Empty: all that its rights allow.
    #[serde(default)]
    pub actions: Vec<String>,
}

impl Policy {
    /// Whether it has a right. Writing identities includes reading them.
    pub fn allows(&self, right: Right) -> bool {
        let writes = self.rights.contains(&Right::RegistryWrite);
        self.rights.contains(&right) || (right == Right::RegistryRead && writes)
    }

    /// Whether it may act on this device.
    pub fn covers_device(&self, device: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => device.starts_with(prefix),
            None => device == pattern,
        };
        self.devices.is_empty() || self.devices.iter().any(fits)
    }

    /// Whether it may do this.
    pub fn covers_action(&self, action: &str) -> bool {
        self.actions.is_empty() || self.actions.iter().any(|allowed| allowed == action)
    }

    /// Whether the token is signed with one of its keys.
    pub fn signed(&self, token: &SasToken) -> bool {
        [&self.primary_key, &self.secondary_key]
            .into_iter()
            .any(|key| SasKey::from_base64(key).is_ok_and(|key| token.verify(&key)))
    }
}

/// An address rule. The first that fits decides; without one that fits, all may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpRule {
    /// `address/bits`, or one address.
    pub mask: String,
    /// Lets in; else keeps out.
    pub allow: bool,
}

/// Who may connect at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Access {
    /// In order.
    pub ip_rules: Vec<IpRule>,
    /// Refuses TLS 1.2.
    pub tls13_only: bool,
    /// More names that tokens and user names may give the hub.
    pub host_names: Vec<String>,
}

impl Access {
    /// Nobody may: what stands for rules that this release can't read.
    pub fn nobody() -> Access {
        let none = |mask: &str| IpRule { mask: mask.to_owned(), allow: false };
        Access { ip_rules: vec![none("0.0.0.0/0"), none("::/0")], tls13_only: true, host_names: Vec::new() }
    }
}

/// An authority whose certificates devices may show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceAuthority {
    /// Its certificate.
    pub pem: String,
    /// Its possession was proved; else it counts for nothing.
    pub verified: bool,
    /// The code that a proof's certificate must name.
    #[serde(default)]
    pub code: String,
}

/// The hub's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubSettings {
    /// The hub's own name, in connection strings.
    pub host_name: String,
    /// Names under which the hub is reached, lower case.
    pub host_names: Vec<String>,
    /// Policies by name, and the setting's version.
    pub policies: BTreeMap<String, Policy>,
    /// Version of the setting.
    pub policies_version: u64,
    /// Who may connect.
    pub access: Access,
    /// Version of the setting.
    pub access_version: u64,
    /// Authorities of devices by name.
    pub authorities: BTreeMap<String, DeviceAuthority>,
    /// Version of the setting.
    pub authorities_version: u64,
    /// Settings of the realtime hubs, which their tier reads itself; here for who shows and changes them.
    pub realtime: serde_json::Value,
    /// Version of the setting.
    pub realtime_version: u64,
}

impl HubSettings {
    /// Whether a token or user name may give the hub this name. An address of a machine is none that
    /// somebody else could have, so any is taken.
    pub fn is_host(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let own = |name: &String| name.eq_ignore_ascii_case(&host);
        self.host_names.iter().any(own)
            || self.access.host_names.iter().any(own)
            || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    }

    /// Whether this address may connect.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let first = self.access.ip_rules.iter().find(|rule| mask_fits(&rule.mask, address));
        first.is_none_or(|rule| rule.allow)
    }
}

/// Whether `address` is in `mask`; a mask that can't be read fits nothing.
fn mask_fits(mask: &str, address: IpAddr) -> bool {
    let (network, bits) = match mask.split_once('/') {
        Some((network, bits)) => (network, bits.parse::<u32>().ok()),
        None => (mask, Some(128)),
    };
    let (Ok(network), Some(bits)) = (network.parse::<IpAddr>(), bits) else {
        return false;
    };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let shift = 32 - bits.min(32);
            (u64::from(network.to_bits()) >> shift) == (u64::from(address.to_bits()) >> shift)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let shift = 128 - bits.min(128);
            let cut = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
            cut(network.to_bits()) == cut(address.to_bits())
        }
        _ => false,
    }
}

/// The policies that every new hub has, with these keys (primary and secondary each).
pub fn default_policies(mut key: impl FnMut() -> String) -> BTreeMap<String, Policy> {
    use Right::{DeviceConnect, RegistryRead, RegistryWrite, ServiceConnect};
    let all = [RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect];
    let rows: [(&str, &[Right]); 5] = [
        ("iothubowner", &all),
        ("service", &[ServiceConnect]),
        ("device", &[DeviceConnect]),
        ("registryRead", &[RegistryRead]),
        ("registryReadWrite", &[RegistryRead, RegistryWrite]),
    ];
    let policy = |(name, rights): (&str, &[Right])| {
        let policy = Policy {
            rights: rights.to_vec(),
            primary_key: key(),
            secondary_key: key(),
            devices: Vec::new(),
            actions: Vec::new(),
        };
        (name.to_owned(), policy)
    };
    rows.into_iter().map(policy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(rules: &[(&str, bool)]) -> HubSettings {
        let rule = |(mask, allow): &(&str, bool)| IpRule { mask: (*mask).to_owned(), allow: *allow };
        let access = Access { ip_rules: rules.iter().map(rule).collect(), ..Access::default() };
        HubSettings { access, host_names: vec!["hub.example".into()], ..HubSettings::default() }
    }

    /// The first rule that fits decides; a mask that can't be read fits nothing.
    #[test]
    fn address_rules() {
        type Rules = &'static [(&'static str, bool)];
        let rows: [(Rules, &str, bool); 8] = [
            (&[], "10.1.2.3", true),
            (&[("10.0.0.0/8", false)], "10.1.2.3", false),
            (&[("10.0.0.0/8", false)], "11.1.2.3", true),
            (&[("10.1.0.0/16", true), ("0.0.0.0/0", false)], "10.1.2.3", true),
            (&[("10.1.0.0/16", true), ("0.0.0.0/0", false)], "10.2.2.3", false),
            (&[("10.1.2.3", false)], "::ffff:10.1.2.3", false),
            (&[("fd00::/8", false)], "fd12::1", false),
            (&[("nonsense/8", false), ("::/0", true)], "10.1.2.3", true),
        ];
        for (rules, address, admitted) in rows {
            assert_eq!(settings(rules).admits(address.parse().unwrap()), admitted, "{rules:?} {address}");
        }
    }

    /// No address is let in by rules that let in nobody.
    #[test]
    fn nobody() {
        let settings = HubSettings { access: Access::nobody(), ..HubSettings::default() };
        for address in ["127.0.0.1", "10.1.2.3", "::1", "::ffff:10.1.2.3", "fd12::1"] {
            assert!(!settings.admits(address.parse().unwrap()), "{address}");
        }
    }

    /// Policies may be limited to devices and actions; writing identities includes reading them.
    #[test]
    fn policies() {
        let mut policies = default_policies(|| "a2V5".to_owned());
        let writer = policies.get_mut("registryReadWrite").unwrap();
        assert!(writer.allows(Right::RegistryRead) && !writer.allows(Right::ServiceConnect));
        assert!(writer.covers_device("a") && writer.covers_action("twins/read"));
        writer.devices = vec!["plant-*".into(), "one".into()];
        writer.actions = vec!["twins/read".into()];
        assert!(
            writer.covers_device("plant-7") && writer.covers_device("one") && !writer.covers_device("ones")
        );
        assert!(writer.covers_action("twins/read") && !writer.covers_action("twins/write"));
    }

    /// Names and addresses of the hub.
    #[test]
    fn names() {
        let hub = settings(&[]);
        assert!(hub.is_host("HUB.example") && hub.is_host("127.0.0.1") && !hub.is_host("other.example"));
    }
}
