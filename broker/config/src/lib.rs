//! Options of a node: loading, validation, the effective configuration.
//!
//! A TOML file, then `FLEETLINE_*` variables, then flags: later ones win. Everything is checked
//! together, and every error names its key, the value and what would be right. Unknown keys are errors.
//!
//! Not here: flags themselves (`client/cli`), what the values do.
#![deny(missing_docs)]

mod certificates;
mod front;
mod meanings;
mod objects;
mod quantity;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use front::FrontListen;
pub use objects::ObjectPlace;
pub use quantity::{ByteSize, Period, QuantityError};

/// Options of a node. Durations read like `"1.5s"`, sizes like `"64 MiB"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// The data folder.
    pub data: PathBuf,
    /// Where clients connect (QUIC, UDP).
    pub listen: SocketAddr,
    /// Where other nodes connect (TCP).
    pub peer_listen: SocketAddr,
    /// Where metrics and health are served (HTTP, without authentication: keep it on loopback).
    pub ops_listen: SocketAddr,
    /// Where devices connect with MQTT over TLS (TCP) and over QUIC (UDP, same port).
    pub mqtt_listen: FrontListen,
    /// Where devices connect with MQTT without TLS.
    pub mqtt_plain_listen: FrontListen,
    /// Where HTTPS and WebSocket are served, to devices and services.
    pub https_listen: FrontListen,
    /// Where HTTP and WebSocket are served without TLS.
    pub http_plain_listen: FrontListen,
    /// Where devices, services and Event Hubs consumers connect with AMQP over TLS.
    pub amqp_listen: FrontListen,
    /// Where they connect with AMQP without TLS.
    pub amqp_plain_listen: FrontListen,
    /// The hub's name in connection strings; certificates and tokens name it. Empty: that of `advertise`
    /// when it is a name, else `localhost`.
    pub hub_name: String,
    /// The host or address by which clients and nodes reach this node; empty: that of `listen`.
    pub advertise: String,
    /// Failure zone; replicas are spread over zones. Empty: none.
    pub zone: String,
    /// Authorities (PEM) of an own PKI, trusted for nodes and clients. Empty: the cluster's own authority.
    pub tls_authority: PathBuf,
    /// This node's certificate of the own PKI (PEM), with intermediate ones behind it.
    pub tls_certificate: PathBuf,
    /// Its private key (PEM).
    pub tls_key: PathBuf,
    /// Revocation lists (PEM) for nodes and clients. Empty: none.
    pub tls_crl: PathBuf,
    /// Another certificate (PEM, with its chain) for MQTT and HTTPS. Empty: the node's.
    pub front_certificate: PathBuf,
    /// Its private key (PEM).
    pub front_key: PathBuf,
    /// Partitions of a new hub; fixed for its life.
    pub partitions: u32,
    /// Replicas that a partition should have once there are enough nodes: 1, 3 or 5.
    pub replicas: u32,
    /// How often an idle leader is heard of. Shorter notices silence sooner and costs CPU per group.
    pub heartbeat: Period,
    /// The shortest silence after which a follower campaigns. Too short: elections on a starved machine.
    pub election_min: Period,
    /// The longest; at least one and a half times the shortest.
    pub election_max: Period,
    /// How long a node may be away before its replicas are made anew elsewhere.
    pub dead_after: Period,
    /// Space that user data never uses, so that votes and clean-up always can.
    pub disk_reserve: ByteSize,
    /// Size of a log segment. Smaller frees space sooner, larger makes fewer files.
    pub log_segment: ByteSize,
    /// Recent entries kept in memory for followers and readers.
    pub log_cache: ByteSize,
    /// Bytes that may wait for the log's writer before appends are refused.
    pub log_queue: ByteSize,
    /// RocksDB's block cache.
    pub state_cache: ByteSize,
    /// Rows in memory before they are flushed. Larger: longer replay after a crash.
    pub state_memtable: ByteSize,
    /// How often state is flushed to disk, and the log may forget what it covers.
    pub flush_every: Period,
    /// Where files that devices upload are kept. Keys and endpoints come from `AWS_*` and `AZURE_*`.
    pub objects: ObjectPlace,
    /// Whether this node runs functions.
    pub functions: bool,
    /// The folder with what Python and Node workers need (made by `broker/workers/setup.sh`). Empty: only
    /// functions of WebAssembly run.
    pub workers: PathBuf,
    /// Which log lines are written, e.g. `info` or `info,fleetline_raft_driver=debug`.
    pub log_level: String,
    /// Log lines as `text` or `json`.
    pub log_format: String,
}

const MIB: u64 = 1 << 20;

impl Default for NodeConfig {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        NodeConfig {
            data: PathBuf::from("./fleetline-data"),
            listen: local(4433),
            peer_listen: local(4434),
            ops_listen: local(4480),
            mqtt_listen: FrontListen::Auto,
            mqtt_plain_listen: FrontListen::Off,
            https_listen: FrontListen::Auto,
            http_plain_listen: FrontListen::Off,
            amqp_listen: FrontListen::Auto,
            amqp_plain_listen: FrontListen::Off,
            hub_name: String::new(),
            advertise: String::new(),
            zone: String::new(),
            tls_authority: PathBuf::new(),
            tls_certificate: PathBuf::new(),
            tls_key: PathBuf::new(),
            tls_crl: PathBuf::new(),
            front_certificate: PathBuf::new(),
            front_key: PathBuf::new(),
            partitions: 4,
            replicas: 3,
            heartbeat: Period::from_millis(500),
            election_min: Period::from_millis(1500),
            election_max: Period::from_millis(3000),
            dead_after: Period::from_millis(300_000),
            disk_reserve: ByteSize(256 * MIB),
            log_segment: ByteSize(64 * MIB),
            log_cache: ByteSize(64 * MIB),
            log_queue: ByteSize(64 * MIB),
            state_cache: ByteSize(32 * MIB),
            state_memtable: ByteSize(32 * MIB),
            flush_every: Period::from_millis(30_000),
            objects: ObjectPlace::Data,
            functions: true,
            workers: PathBuf::new(),
            log_level: "info".to_owned(),
            log_format: "text".to_owned(),
        }
    }
}

/// All that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.0 {
            writeln!(f, "- {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl NodeConfig {
    /// Reads a file (or the defaults without one) and the `FLEETLINE_*` variables in `env`. Not yet
    /// validated: flags come on top.
    ///
    /// # Errors
    /// What can't be read or isn't known, all of it.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<NodeConfig, ConfigErrors> {
        let mut errors = Vec::new();
        let mut table = toml::Table::new();
        if let Some(path) = file {
            match std::fs::read_to_string(path) {
                Ok(text) => match text.parse::<toml::Table>() {
                    Ok(read) => table = read,
                    Err(error) => errors.push(format!("{}: {}", path.display(), error.message())),
                },
                Err(error) => errors.push(format!("{}: {error}", path.display())),
            }
        }
        let defaults = Self::defaults();
        let known: Vec<String> = defaults.keys().cloned().collect();
        for (name, value) in env {
            let Some(key) = name.strip_prefix("FLEETLINE_").map(str::to_ascii_lowercase) else {
                continue;
            };
            // Other variables with this prefix belong to other parts (FLEETLINE_CONTEXT, …).
            if let Some(default) = defaults.get(&key) {
                table.insert(key, value_like(default, &value));
            }
        }
        for key in table.keys().filter(|key| !known.contains(*key)) {
            let like = known.iter().min_by_key(|name| distance(name, key));
            let like = like.map(String::as_str).unwrap_or_default();
            errors.push(format!("{key}: no such option; did you mean {like}?"));
        }
        table.retain(|key, _| known.iter().any(|name| name == key));
        let mut config = NodeConfig::default();
        for (key, value) in table {
            match config.with(&key, value.clone()) {
                Ok(changed) => config = changed,
                Err(error) => errors.push(format!("{key} = {value}: {error}")),
            }
        }
        match errors.is_empty() {
            true => Ok(config),
            false => Err(ConfigErrors(errors)),
        }
    }

    fn defaults() -> toml::Table {
        toml::Table::try_from(NodeConfig::default()).unwrap_or_default()
    }

    fn with(&self, key: &str, value: toml::Value) -> Result<NodeConfig, String> {
        let mut table = toml::Table::try_from(self).map_err(|error| error.to_string())?;
        table.insert(key.to_owned(), value);
        table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
    }

    /// Checks everything together.
    ///
    /// # Errors
    /// All that is wrong, each with key, value and fix.
    pub fn validate(&self) -> Result<(), ConfigErrors> {
        let mut errors = Vec::new();
        let mut check = |ok: bool, text: String| {
            if !ok {
                errors.push(text);
            }
        };
        check(
            (1..=4096).contains(&self.partitions),
            format!("partitions = {}: a hub has 1 to 4096", self.partitions),
        );
        check(
            matches!(self.replicas, 1 | 3 | 5),
            format!("replicas = {}: use 1, 3 or 5 (an even number adds cost and no safety)", self.replicas),
        );
        let (min, max) = (self.election_min.millis(), self.election_max.millis());
        check(
            max >= min + min / 2,
            format!(
                "election_max = {}: use at least 1.5 times election_min ({})",
                self.election_max, self.election_min
            ),
        );
        check(
            min >= 2 * self.heartbeat.millis(),
            format!(
                "election_min = {}: use at least twice heartbeat ({})",
                self.election_min, self.heartbeat
            ),
        );
        check(self.heartbeat.millis() >= 20, format!("heartbeat = {}: use at least 20ms", self.heartbeat));
        check(
            (MIB..=1 << 30).contains(&self.log_segment.0),
            format!("log_segment = {}: use 1 MiB to 1 GiB", self.log_segment),
        );
        check(self.log_queue.0 >= 8 * MIB, format!("log_queue = {}: use at least 8 MiB", self.log_queue));
        check(
            self.state_memtable.0 >= MIB,
            format!("state_memtable = {}: use at least 1 MiB", self.state_memtable),
        );
        check(
            self.flush_every.millis() >= 100,
            format!("flush_every = {}: use at least 100ms", self.flush_every),
        );
        check(
            self.dead_after >= self.election_max,
            format!(
                "dead_after = {}: a node that is only slow must not lose its replicas, use at least election_max \
                 ({})",
                self.dead_after, self.election_max
            ),
        );
        check(
            !self.advertise.contains(|c: char| c.is_whitespace() || "/[]".contains(c))
                && self.advertise.matches(':').count() != 1,
            format!("advertise = {}: name a host or an address, without a port", self.advertise),
        );
        check(
            !self.hub_name.contains(|c: char| c.is_whitespace() || "/[]:".contains(c)),
            format!("hub_name = {}: name a host, without a port", self.hub_name),
        );
        check(
            self.mqtt_plain_listen != FrontListen::Auto,
            "mqtt_plain_listen = auto: a port without TLS must be asked for, name its address or off"
                .to_owned(),
        );
        check(
            matches!(self.log_format.as_str(), "text" | "json"),
            format!("log_format = {}: use text or json", self.log_format),
        );
        let mut addresses = [self.peer_listen, self.ops_listen];
        addresses.sort_unstable();
        check(
            addresses[0] != addresses[1] || addresses[0].port() == 0,
            format!("ops_listen = {}: peer_listen has the same address, use another port", self.ops_listen),
        );
        check(
            !self.listen.ip().is_unspecified() || !self.advertise.is_empty(),
            format!(
                "advertise is empty: listen = {} doesn't say how others reach this node, name a host",
                self.listen
            ),
        );
        errors.extend(self.certificates_apart());
        match errors.is_empty() {
            true => Ok(()),
            false => Err(ConfigErrors(errors)),
        }
    }

    /// The whole configuration as TOML that can be read again, each option with what it means and, where
    /// it was changed, with its default.
    pub fn effective(&self) -> String {
        let values = toml::Table::try_from(self).unwrap_or_default();
        let defaults = Self::defaults();
        let mut text = String::from(
            "# Options of a fleetline node. Flags win over FLEETLINE_* variables, those over the file.\n",
        );
        for (key, meaning) in meanings::MEANINGS {
            let (Some(value), Some(default)) = (values.get(*key), defaults.get(*key)) else {
                continue;
            };
            let origin = match value == default {
                true => "default".to_owned(),
                false => format!("default: {default}"),
            };
            text.push_str(&format!("\n# {meaning} ({origin})\n{key} = {value}\n"));
        }
        text
    }

    /// The hub's name in connection strings.
    pub fn hub_host(&self) -> String {
        let is_name = |host: &str| !host.is_empty() && host.parse::<std::net::IpAddr>().is_err();
        [&self.hub_name, &self.advertise]
            .into_iter()
            .find(|host| is_name(host))
            .cloned()
            .unwrap_or_else(|| "localhost".to_owned())
    }

    /// The host by which this node is reached.
    pub fn host(&self) -> String {
        match self.advertise.is_empty() {
            true => self.listen.ip().to_string(),
            false => self.advertise.clone(),
        }
    }
}

/// A variable's value: a number where the option is one, else text.
fn value_like(default: &toml::Value, text: &str) -> toml::Value {
    match (default, text.parse::<i64>()) {
        (toml::Value::Integer(_), Ok(number)) => toml::Value::Integer(number),
        _ => toml::Value::String(text.to_owned()),
    }
}

/// How different two keys are: the letters that one has and the other hasn't.
fn distance(a: &str, b: &str) -> usize {
    let missing = |a: &str, b: &str| a.chars().filter(|c| !b.contains(*c)).count();
    missing(a, b) + missing(b, a) + a.len().abs_diff(b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// The defaults are sound, and what is printed reads back as the same.
    #[test]
    fn defaults() {
        let config = NodeConfig::default();
        config.validate().unwrap();
        let printed = file(&config.effective());
        assert_eq!(NodeConfig::load(Some(printed.path()), env(&[])).unwrap(), config);
        let changed = NodeConfig { zone: "a \"b\"".to_owned(), partitions: 9, ..config };
        let text = changed.effective();
        assert!(text.contains("(default: 4)\npartitions = 9\n"), "{text}");
        assert!(text.contains("(default)\nreplicas = 3\n"), "{text}");
        assert_eq!(NodeConfig::load(Some(file(&text).path()), env(&[])).unwrap(), changed);
    }

    /// Every option has a meaning that is printed with it, and there is none for what isn't one.
    #[test]
    fn every_option_is_explained() {
        let mut explained: Vec<&str> = meanings::MEANINGS.iter().map(|(key, _)| *key).collect();
        explained.sort_unstable();
        let defaults = NodeConfig::defaults();
        let mut options: Vec<&str> = defaults.keys().map(String::as_str).collect();
        options.sort_unstable();
        assert_eq!(explained, options);
    }

    /// A variable is read as its option's type: a zone may be called 7, and partitions may not be many.
    #[test]
    fn variables_have_the_type_of_their_option() {
        let config =
            NodeConfig::load(None, env(&[("FLEETLINE_ZONE", "7"), ("FLEETLINE_PARTITIONS", "7")])).unwrap();
        assert_eq!((config.zone.as_str(), config.partitions), ("7", 7));
        let errors = NodeConfig::load(None, env(&[("FLEETLINE_PARTITIONS", "many")])).unwrap_err();
        assert!(errors.0[0].starts_with("partitions = \"many\""), "{errors}");
    }

    /// Hosts with a port or a scheme, and patience shorter than an election, are refused.
    #[test]
    fn advertise_and_patience() {
        for (advertise, ok) in [
            ("node-1.example", true),
            ("10.0.0.1", true),
            ("fd00::1", true),
            ("node:4433", false),
            ("quic://node", false),
            ("[fd00::1]", false),
            ("a b", false),
        ] {
            let config = NodeConfig { advertise: advertise.to_owned(), ..NodeConfig::default() };
            assert_eq!(config.validate().is_ok(), ok, "{advertise}");
        }
        let hasty = NodeConfig { dead_after: Period::from_millis(1000), ..NodeConfig::default() };
        assert!(hasty.validate().unwrap_err().0[0].starts_with("dead_after = 1s"));
    }

    /// The environment wins over the file; variables of other parts are left alone.
    #[test]
    fn order() {
        let toml = file("partitions = 8\nzone = \"a\"\nheartbeat = \"250ms\"");
        let vars = env(&[("FLEETLINE_ZONE", "b"), ("FLEETLINE_CONTEXT", "x"), ("PATH", "y")]);
        let config = NodeConfig::load(Some(toml.path()), vars).unwrap();
        assert_eq!((config.partitions, config.zone.as_str()), (8, "b"));
        assert_eq!(config.heartbeat, Period::from_millis(250));
    }

    /// All errors come together, each with its key and a hint.
    #[test]
    fn errors_name_key_and_fix() {
        let toml = file("partitons = 8\nlog_segment = \"64 Megs\"\nlisten = 7");
        let errors = NodeConfig::load(Some(toml.path()), env(&[])).unwrap_err().0;
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(errors.iter().any(|error| error.contains("did you mean partitions?")));
        assert!(errors.iter().any(|error| error.starts_with("log_segment") && error.contains("MiB")));
        let bad = NodeConfig {
            partitions: 0,
            replicas: 2,
            election_max: Period::from_millis(1500),
            ..NodeConfig::default()
        };
        assert_eq!(bad.validate().unwrap_err().0.len(), 3);
        assert!(NodeConfig::load(Some(Path::new("/nowhere.toml")), env(&[])).is_err());
    }
}
