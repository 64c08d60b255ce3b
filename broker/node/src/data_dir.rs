//! The data folder of a node.
//!
//! ```text
//! <data>/
//!   node.json        who this node is (written once, when it is created or has joined)
//!   disk-id          a random id of this folder, made on first start: a lost disk has another one
//!   reset-secret     what stateless reset tokens come from
//!   log/             the segment log, its lock and its durable mark
//!   state/           RocksDB
//!   snapshots/       <group>.snap: state parts; staging of what arrives
//!   certs/           authority, this node's certificate and key
//!   client/          what a client on this machine needs: endpoints, authority.pem, client.pem, client.key,
//!                    hub.json (ports, connection strings), hub-authority.pem
//!   objects/         files that devices upload
//! ```
//!
//! Files here are small and written whole: to a temporary name, synced, renamed, folder synced.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fleetline_env::Entropy;
use fleetline_gateway::devices::settings::Policy;
use fleetline_types::NodeId;
use serde::{Deserialize, Serialize};

use crate::error::NodeError;

/// Who a node is: durable, and never changed after it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Form of this file; this release writes and reads 1.
    pub format: u32,
    /// The cluster's id.
    pub cluster: String,
    /// The node's id.
    pub node: u64,
    /// How many partitions the hub has.
    pub partitions: u32,
    /// Where members listened when this was written: whom to find the control group by, until it tells.
    #[serde(default)]
    pub peers: BTreeMap<u64, String>,
}

impl Identity {
    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.node)
    }
}

/// Ports of this node's fronts; none where a front is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FrontPorts {
    /// MQTT over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mqtt: Option<u16>,
    /// MQTT without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mqtt_plain: Option<u16>,
    /// HTTPS, and MQTT over WebSocket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) https: Option<u16>,
    /// The same without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http_plain: Option<u16>,
    /// AMQP over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) amqp: Option<u16>,
    /// AMQP without TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) amqp_plain: Option<u16>,
}

/// What `client/hub.json` is made of.
#[derive(Debug)]
pub(crate) struct HubContext {
    /// The hub's name.
    pub(crate) host: String,
    /// Where it is reached on this node.
    pub(crate) ports: FrontPorts,
    /// The setting of that name; empty: there are none.
    pub(crate) policies: Bytes,
    /// The connection string of the realtime hubs; `None` before their keys are made.
    pub(crate) realtime: Option<String>,
    /// Whom to trust; `None`: an authority that isn't ours, so there is no file of it.
    pub(crate) authority_pem: Option<String>,
}

/// The data folder.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
    disk_id: String,
}

impl DataDir {
    /// Opens or creates the folder.
    ///
    /// # Errors
    /// When it can't be created or read; the text names the path.
    pub fn open(root: &Path, entropy: &dyn Entropy) -> Result<DataDir, NodeError> {
        for dir in ["", "log", "state", "snapshots", "certs", "client"] {
            let path = root.join(dir);
            std::fs::create_dir_all(&path).map_err(|error| NodeError::data(&path, error))?;
        }
        let path = root.join("disk-id");
        let disk_id = match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let id = format!("{:016x}{:016x}", entropy.next_u64(), entropy.next_u64());
                write_whole(&path, id.as_bytes(), 0o644)?;
                id
            }
            Err(error) => return Err(NodeError::data(&path, error)),
        };
        Ok(DataDir { root: root.to_owned(), disk_id })
    }

    /// The random id of this folder.
    pub fn disk_id(&self) -> &str {
        &self.disk_id
    }

    /// When the folder was made, in milliseconds since 1970; 0 when that can't be told.
    pub fn made_ms(&self) -> u64 {
        let made = std::fs::metadata(self.path("disk-id")).and_then(|found| found.modified());
        let since = made.ok().and_then(|made| made.duration_since(std::time::UNIX_EPOCH).ok());
        since.map_or(0, |since| since.as_millis() as u64)
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The secret that this folder's stateless reset tokens come from, made on first use.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn reset_secret(&self, entropy: &dyn Entropy) -> Result<[u8; 32], NodeError> {
        let path = self.path("reset-secret");
        match std::fs::read(&path) {
            Ok(bytes) => {
                bytes.try_into().map_err(|_| NodeError::data(&path, "isn't 32 bytes long, remove it"))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                entropy.fill(&mut secret);
                write_whole(&path, &secret, 0o600)?;
                Ok(secret)
            }
            Err(error) => Err(NodeError::data(&path, error)),
        }
    }

    /// Who this node is; `None` before it was created or has joined.
    ///
    /// # Errors
    /// When the file is there and can't be understood.
    pub fn identity(&self) -> Result<Option<Identity>, NodeError> {
        let path = self.path("node.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(NodeError::data(&path, error)),
        };
        let identity: Identity =
            serde_json::from_slice(&text).map_err(|error| NodeError::data(&path, error))?;
        match identity.format {
            1 => Ok(Some(identity)),
            format => Err(NodeError::data(
                &path,
                format!("format {format} is of a later release, upgrade this node"),
            )),
        }
    }

    /// Writes who this node is.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_identity(&self, identity: &Identity) -> Result<(), NodeError> {
        let path = self.path("node.json");
        let text = serde_json::to_vec_pretty(identity).map_err(|error| NodeError::data(&path, error))?;
        write_whole(&path, &text, 0o644)
    }

    /// Writes what a client on this machine needs to connect.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_client_context(
        &self,
        endpoints: &[String],
        authority_pem: &str,
        certificate_pem: &str,
        key_pem: &str,
    ) -> Result<(), NodeError> {
        self.write_endpoints(endpoints, authority_pem)?;
        write_whole(&self.path("client/client.pem"), certificate_pem.as_bytes(), 0o644)?;
        write_whole(&self.path("client/client.key"), key_pem.as_bytes(), 0o600)
    }

    /// Writes whom a client on this machine asks and whom it trusts; how it proves itself is its own to
    /// bring, when certificates come from elsewhere.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn write_endpoints(&self, endpoints: &[String], authority_pem: &str) -> Result<(), NodeError> {
        write_whole(&self.path("client/endpoints"), (endpoints.join("\n") + "\n").as_bytes(), 0o644)?;
        write_whole(&self.path("client/authority.pem"), authority_pem.as_bytes(), 0o644)
    }

    /// Writes what a device or service on this machine needs: the hub's name and ports, the authority to
    /// trust, and a connection string of each policy.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn write_hub_context(&self, hub: &HubContext) -> Result<(), NodeError> {
        let path = self.path("client/hub.json");
        let host = &hub.host;
        let policies: BTreeMap<String, Policy> = match hub.policies.is_empty() {
            true => BTreeMap::new(),
            false => serde_json::from_slice(&hub.policies).map_err(|error| NodeError::data(&path, error))?,
        };
        let string = |(name, policy): (&String, &Policy)| {
            let key = &policy.primary_key;
            let text = format!("HostName={host};SharedAccessKeyName={name};SharedAccessKey={key}");
            (name.clone(), serde_json::Value::from(text))
        };
        let strings: serde_json::Map<String, serde_json::Value> = policies.iter().map(string).collect();
        let authority = self.path("client/hub-authority.pem");
        let mut context =
            serde_json::json!({ "hostName": host, "ports": hub.ports, "connectionStrings": strings });
        if let Some(realtime) = &hub.realtime {
            context["realtime"] = realtime.as_str().into();
        }
        match &hub.authority_pem {
            Some(pem) => {
                write_whole(&authority, pem.as_bytes(), 0o644)?;
                let authority = std::path::absolute(&authority).unwrap_or(authority);
                context["authority"] = authority.display().to_string().into();
            }
            // One of before would be trusted in vain.
            None => match std::fs::remove_file(&authority) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(NodeError::data(&authority, error));
                }
                _ => {}
            },
        }
        let text = serde_json::to_vec_pretty(&context).map_err(|error| NodeError::data(&path, error))?;
        write_whole(&path, &text, 0o600)
    }
}

/// Writes a file whole and durably, or not at all.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> Result<(), NodeError> {
    let write = || -> std::io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::File::open(folder)?.sync_all()
    };
    write().map_err(|error| NodeError::data(path, error))
}

#[cfg(test)]
mod tests {
    use fleetline_env::memory::SeededEntropy;
    use fleetline_gateway::devices::settings::default_policies;

    use super::*;

    /// The folder keeps its id, and the identity comes back as written; a later format is refused.
    #[test]
    fn identity_survives() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), &SeededEntropy::new(1)).unwrap();
        let again = DataDir::open(dir.path(), &SeededEntropy::new(2)).unwrap();
        assert_eq!(first.disk_id(), again.disk_id());
        assert_eq!(again.identity().unwrap(), None);
        let identity =
            Identity { format: 1, cluster: "c".into(), node: 3, partitions: 4, peers: BTreeMap::new() };
        first.write_identity(&identity).unwrap();
        assert_eq!(again.identity().unwrap(), Some(identity.clone()));
        first.write_identity(&Identity { format: 2, ..identity }).unwrap();
        assert!(again.identity().is_err());
    }

    /// Clients find ports, connection strings and the authority; what is off or gone isn't named any more.
    #[test]
    fn hub_contexts() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path(), &SeededEntropy::new(1)).unwrap();
        let read = || -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(data.path("client/hub.json")).unwrap()).unwrap()
        };
        let policies = |key: &str| Bytes::from(serde_json::to_vec(&default_policies(|| key.into())).unwrap());
        let mut hub = HubContext {
            host: "hub.example".into(),
            ports: FrontPorts { mqtt: Some(8883), https: Some(8443), ..FrontPorts::default() },
            policies: policies("a2V5"),
            realtime: None,
            authority_pem: Some("pem".into()),
        };
        data.write_hub_context(&hub).unwrap();
        let first = read();
        assert_eq!(first["ports"], serde_json::json!({ "mqtt": 8883, "https": 8443 }));
        assert_eq!(std::fs::read(first["authority"].as_str().unwrap()).unwrap(), b"pem");
        let service =
            |key: &str| format!("HostName=hub.example;SharedAccessKeyName=service;SharedAccessKey={key}");
        assert_eq!(first["connectionStrings"]["service"], service("a2V5"));
        (hub.policies, hub.authority_pem) = (policies("bmV3"), None);
        data.write_hub_context(&hub).unwrap();
        assert_eq!(read()["connectionStrings"]["service"], service("bmV3"));
        assert!(read().get("authority").is_none() && !data.path("client/hub-authority.pem").exists());
        hub.policies = Bytes::from_static(b"[]");
        assert!(data.write_hub_context(&hub).is_err());
        assert_eq!(read()["connectionStrings"]["service"], service("bmV3"));
    }
}
