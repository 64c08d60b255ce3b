//! Developing an app on this machine: its folder is run as if it were deployed, and loaded again when a
//! file in it changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fleetline_worker::LogLevel;
use serde_json::Value as Json;

use crate::app::index;
use crate::archive::belongs;
use crate::core::Printer;
use crate::error::FunctionsError;
use crate::functions::{Functions, LocalApp};
use crate::manifest::{Manifest, Version, check_name};
use crate::store::BlobRef;

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Files that are looked at; a folder with more is only looked at in part.
const FILES_MAX: usize = 20_000;
/// Folders of packages change with an installation, not with the app.
const NOT_WATCHED: [&str; 3] = ["node_modules", ".python_packages", "venv"];

impl Functions {
    /// Runs the app in `folder` under a name, and loads it again when it changes; `print` gets every line.
    /// Settings come from `local.settings.json`. Returns on a folder or name that can't be used; else when it
    /// is dropped.
    ///
    /// [`Functions::run`] has to run beside it.
    ///
    /// # Errors
    /// When the folder or the name can't be used.
    pub async fn run_local(
        self: Arc<Self>,
        name: &str,
        folder: PathBuf,
        print: Printer,
    ) -> Result<(), FunctionsError> {
        check_name(name)?;
        let folder = tokio::fs::canonicalize(&folder).await?;
        // Only the first one prints: there is one terminal.
        drop(self.core.printer.set(print));
        let mut loaded: Option<u64> = None;
        loop {
            let watched = folder.clone();
            let seen = tokio::task::spawn_blocking(move || fingerprint(&watched)).await;
            let seen = seen.map_err(|error| FunctionsError::Disk(error.to_string()))?;
            if loaded != Some(seen) {
                if loaded.is_some() {
                    self.core.say(
                        name,
                        "",
                        LogLevel::Information,
                        "files have changed, the app is loaded again",
                    );
                }
                loaded = Some(seen);
                if let Err(error) = self.load_local(name, &folder, seen).await {
                    self.core.say(name, "", LogLevel::Error, error.to_string());
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn load_local(
        self: &Arc<Self>,
        name: &str,
        folder: &Path,
        seen: u64,
    ) -> Result<(), FunctionsError> {
        let settings = local_settings(folder).await?;
        let (worker, stored) = index(&self.core, name, folder.to_owned(), settings.clone()).await?;
        let names: Vec<String> = stored.functions().into_iter().map(|(metadata, _)| metadata.name).collect();
        let version = Version {
            version: 1,
            archive: BlobRef::default(),
            metadata: BlobRef::default(),
            worker,
            at_ms: self.core.now_ms(),
        };
        let mut manifest =
            Manifest { versions: vec![version], active: 1, last_version: 1, settings, ..Manifest::default() };
        self.complete_keys(&mut manifest.keys, &names);
        let revision = format!("local-{seen:016x}");
        let (name_of, folder) = (name.to_owned(), folder.to_owned());
        self.set_local(LocalApp { name: name_of, manifest, folder, stored, revision });
        let text = format!("loaded {} functions: {}", names.len(), names.join(", "));
        self.core.say(name, "", LogLevel::Information, text);
        Ok(())
    }
}

/// `Values` of `local.settings.json`.
async fn local_settings(folder: &Path) -> Result<BTreeMap<String, String>, FunctionsError> {
    let text = match tokio::fs::read(folder.join("local.settings.json")).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let json: Json = serde_json::from_slice(&text)
        .map_err(|error| FunctionsError::Invalid(format!("local.settings.json can't be read: {error}")))?;
    let values = json.get("Values").and_then(Json::as_object);
    let text = |value: &Json| match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    Ok(values
        .map(|values| values.iter().map(|(name, value)| (name.clone(), text(value))).collect())
        .unwrap_or_default())
}

/// A number that changes when a file changes.
fn fingerprint(folder: &Path) -> u64 {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_local_settings = name == "local.settings.json";
            if all.len() >= FILES_MAX
                || (!belongs(&name) && !is_local_settings)
                || NOT_WATCHED.contains(&name.as_str())
            {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let changed =
                metadata.modified().ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
            all.push((entry.path(), metadata.len(), changed.map_or(0, |at| at.as_nanos())));
        }
    }
    all.sort();
    let text: String = all.iter().map(|(path, len, at)| format!("{}|{len}|{at}\n", path.display())).collect();
    crate::ids::number_of(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.py", "1");
        let first = fingerprint(folder.path());
        assert_eq!(first, fingerprint(folder.path()));
        std::fs::create_dir(folder.path().join("__pycache__")).unwrap();
        write("__pycache__/a.pyc", "1");
        assert_eq!(first, fingerprint(folder.path()));
        write("a.py", "12");
        let second = fingerprint(folder.path());
        write("local.settings.json", "{}");
        assert!(first != second && second != fingerprint(folder.path()));
    }
}
