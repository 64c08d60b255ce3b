//! What the cluster keeps about an app: a setting of the hub, `function-app/<app>`, in JSON.
//!
//! It names archives by the blobs that hold them (`store.rs`) and is changed by compare-and-set, so that
//! two operators don't undo each other's work. A removed app leaves an empty setting.

use std::collections::{BTreeMap, BTreeSet};

use fleetline_gateway::tiers::{Cluster, RawSetting};
use serde::{Deserialize, Serialize};

use crate::error::{FunctionsError, is_unknown};
use crate::store::BlobRef;

/// What the names of apps' settings begin with.
pub(crate) const PREFIX: &str = "function-app/";
/// Bytes of a setting of the hub (`broker/cluster`).
const SETTING_BYTES_MAX: usize = 48 << 10;
/// How often a change that met another one is tried.
const TRIES: u32 = 8;

/// One stored version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Version {
    pub(crate) version: u64,
    /// The archive.
    pub(crate) archive: BlobRef,
    /// What its worker said of its functions.
    pub(crate) metadata: BlobRef,
    /// Which kind of worker runs it.
    pub(crate) worker: String,
    /// When it was deployed, in milliseconds since 1970.
    pub(crate) at_ms: u64,
}

/// Secrets by which callers show that they may call functions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Keys {
    /// May everything.
    pub(crate) master: String,
    /// May call every function; by name.
    pub(crate) host: BTreeMap<String, String>,
    /// May call one function; by function and name.
    pub(crate) functions: BTreeMap<String, BTreeMap<String, String>>,
}

/// An app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Manifest {
    /// Oldest first.
    pub(crate) versions: Vec<Version>,
    /// The version that runs.
    pub(crate) active: u64,
    /// The highest number that was given.
    pub(crate) last_version: u64,
    pub(crate) settings: BTreeMap<String, String>,
    /// Functions that are turned off.
    pub(crate) disabled: BTreeSet<String>,
    pub(crate) keys: Keys,
}

impl Manifest {
    pub(crate) fn active(&self) -> Option<&Version> {
        self.version(self.active)
    }

    pub(crate) fn version(&self, number: u64) -> Option<&Version> {
        self.versions.iter().find(|version| version.version == number)
    }

    /// What decides how it runs: everything but keys.
    pub(crate) fn revision(&self) -> String {
        let metadata = self.active().map(|version| version.metadata.id.clone()).unwrap_or_default();
        let rest = serde_json::to_string(&(self.active, &self.settings, &self.disabled)).unwrap_or_default();
        crate::ids::guid_of(&[&metadata, &rest])
    }

    /// Blobs that it names.
    pub(crate) fn blobs(&self) -> Vec<BlobRef> {
        self.versions.iter().flat_map(|version| [version.archive.clone(), version.metadata.clone()]).collect()
    }
}

/// Whether this can be an app's name: it stands in addresses and as the first label of a host name.
pub(crate) fn check_name(app: &str) -> Result<(), FunctionsError> {
    let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let bytes = app.as_bytes();
    let fits = (1..=40).contains(&bytes.len())
        && bytes.iter().all(|byte| is_good(*byte))
        && bytes[0].is_ascii_lowercase()
        && !app.ends_with('-');
    match fits {
        true => Ok(()),
        false => Err(FunctionsError::Invalid(format!(
            "{app:?} is no name of an app: 1 to 40 small letters, digits and dashes, a letter first"
        ))),
    }
}

/// Reads a setting; `None` when there is no such app.
pub(crate) fn read(setting: &RawSetting) -> Result<Option<Manifest>, FunctionsError> {
    if setting.value.is_empty() {
        return Ok(None);
    }
    let failed = |error| FunctionsError::Invalid(format!("setting {} can't be read: {error}", setting.name));
    serde_json::from_slice(&setting.value).map(Some).map_err(failed)
}

/// All apps.
pub(crate) fn all(cluster: &dyn Cluster) -> BTreeMap<String, Manifest> {
    let mut apps = BTreeMap::new();
    for setting in cluster.settings_with(PREFIX) {
        let app = setting.name[PREFIX.len()..].to_owned();
        match read(&setting) {
            Ok(Some(manifest)) => drop(apps.insert(app, manifest)),
            Ok(None) => {}
            Err(error) => tracing::warn!(app, %error, "function app can't be read"),
        }
    }
    apps
}

/// Changes an app; `change` sees what is there (`None`: nothing) and gives what shall be. It may be
/// called several times. Answers with what was there before and what is there now.
pub(crate) async fn change<F>(
    cluster: &dyn Cluster,
    app: &str,
    change: F,
) -> Result<(Option<Manifest>, Option<Manifest>), FunctionsError>
where
    F: Fn(Option<Manifest>) -> Result<Option<Manifest>, FunctionsError> + Send + Sync,
{
    let name = format!("{PREFIX}{app}");
    let mut changes = cluster.changes();
    for _ in 0..TRIES {
        changes.mark_unchanged();
        let setting = cluster.setting(&name);
        let before = read(&setting)?;
        let after = change(before.clone())?;
        let value = match &after {
            Some(manifest) => {
                serde_json::to_vec(manifest).map_err(|error| FunctionsError::Invalid(error.to_string()))?
            }
            None => Vec::new(),
        };
        if value.len() > SETTING_BYTES_MAX {
            let text = format!(
                "all about app {app} has {} bytes, at most {SETTING_BYTES_MAX} are kept",
                value.len()
            );
            return Err(FunctionsError::TooLarge(text));
        }
        let wanted = setting.version + 1;
        match cluster.devices().put_setting(&name, value.clone().into(), setting.version).await {
            Ok(()) => return Ok((before, after)),
            Err(error) => {
                // The outcome shows in the setting once this node has heard of it.
                let seen = async {
                    loop {
                        let now = cluster.setting(&name);
                        if now.version >= wanted {
                            return now;
                        }
                        if changes.changed().await.is_err() {
                            return now;
                        }
                    }
                };
                let seen = tokio::time::timeout(std::time::Duration::from_secs(2), seen).await;
                match seen {
                    Ok(now) if now.version == wanted && now.value == value => return Ok((before, after)),
                    Ok(_) => {}
                    Err(_) if is_unknown(&error) => return Err(error.into()),
                    Err(_) if cluster.setting(&name).version == setting.version => return Err(error.into()),
                    Err(_) => {}
                }
            }
        }
    }
    Err(FunctionsError::Conflict(app.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "fleet-view2", "a-1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "1a", "-a", "a-", "a.b", "a/b", "ä", &"a".repeat(41)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    /// Clusters hold this: what was written once has to be readable.
    #[test]
    fn stored_form() {
        let text = r#"{"versions":[{"version":3,"archive":{"id":"aa-01","sha256":"aa","size":70000},
            "metadata":{"id":"bb-02","sha256":"bb","size":10},"worker":"python","atMs":5}],"active":3,
            "lastVersion":3,"settings":{"A":"b"},"disabled":["f"],
            "keys":{"master":"m","host":{"default":"h"},"functions":{"f":{"default":"k"}}},"later":1}"#;
        let setting =
            RawSetting { name: "function-app/x".into(), version: 1, value: text.as_bytes().to_vec().into() };
        let manifest = read(&setting).unwrap().unwrap();
        assert_eq!(manifest.active().unwrap().archive.size, 70_000);
        let again = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(read(&RawSetting { value: again.into(), ..setting }).unwrap().unwrap(), manifest);
        let other = Manifest { keys: Keys::default(), ..manifest.clone() };
        assert_eq!(manifest.revision(), other.revision());
        let other = Manifest { disabled: BTreeSet::new(), ..manifest.clone() };
        assert_ne!(manifest.revision(), other.revision());
    }
}
