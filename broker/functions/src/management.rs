//! What operators do with apps: deploy, roll back, remove, set, look at.
//!
//! Each change is one compare-and-set of the app's setting (`manifest.rs`); blobs are stored before it and
//! removed after it, so an app never names one that isn't there.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use fleetline_devices::{AskDocuments, Condition, Op, PutDocument, Request};
use fleetline_gateway::devices::hub::answered;
use fleetline_types::partition_of_key;
use serde_json::{Value as Json, json};

use crate::app::{index, unpack};
use crate::error::FunctionsError;
use crate::functions::Functions;
use crate::ids::sha256_hex;
use crate::logs::KeptLine;
use crate::manifest::{self, Keys, Manifest, Version, check_name};
use crate::options::{APP_KEYS_MAX, APP_SETTINGS_BYTES_MAX, APP_SETTINGS_MAX};
use crate::peers::{AppNumbers, LogQuery, PeerAnswer, PeerCall};
use crate::spec::Trigger;
use crate::stats::FunctionNumbers;
use crate::store;
use crate::stored::StoredApp;
use crate::timers::document_of;

/// Bytes of a key; as many as the public host draws.
const KEY_BYTES: usize = 40;
/// The name of a key that everybody gets.
const DEFAULT_KEY: &str = "default";
/// Documents that are removed at once.
const REMOVED_AT_ONCE: u32 = 32;

impl Functions {
    /// Stores an archive as a new version of an app, and makes it the active one. The app's worker is
    /// started once on this node to find out what functions there are.
    ///
    /// # Errors
    /// When the archive can't be used, no worker fits or starts, or the cluster doesn't answer.
    pub async fn deploy(self: &Arc<Self>, app: &str, archive: Bytes) -> Result<u64, FunctionsError> {
        self.deploy_with(app, archive, BTreeMap::new()).await
    }

    /// The same with settings, which are there when the worker is started: an app may need them while it is
    /// loaded. Settings of other names stay.
    ///
    /// # Errors
    /// As [`Functions::deploy`], and for settings that can't be kept.
    pub async fn deploy_with(
        self: &Arc<Self>,
        app: &str,
        archive: Bytes,
        added: BTreeMap<String, String>,
    ) -> Result<u64, FunctionsError> {
        check_name(app)?;
        let options = &self.core.options;
        if archive.len() > options.archive_bytes_max {
            let text = format!(
                "the archive has {} bytes, at most {} are taken",
                archive.len(),
                options.archive_bytes_max
            );
            return Err(FunctionsError::TooLarge(text));
        }
        let _deploying = self.deploying.lock().await;
        let apps = manifest::all(self.core.cluster.as_ref());
        if !apps.contains_key(app) && apps.len() >= options.apps_max {
            return Err(FunctionsError::TooLarge(format!(
                "there are {} apps, and no more are taken",
                apps.len()
            )));
        }
        let folder = options.scratch.join("apps").join(sha256_hex(&archive));
        unpack(&self.core, archive.clone(), folder.clone()).await?;
        let mut settings = apps.get(app).map(|manifest| manifest.settings.clone()).unwrap_or_default();
        settings.extend(added.clone());
        check_settings(&settings)?;
        let (worker, stored) = index(&self.core, app, folder, settings).await?;
        let devices = self.core.devices.as_ref();
        let metadata = store::put(devices, &stored.encode()?).await?;
        let blob = match store::put(devices, &archive).await {
            Ok(blob) => blob,
            Err(error) => {
                store::remove(devices, &metadata).await;
                return Err(error);
            }
        };
        let at_ms = self.core.now_ms();
        let names: Vec<String> = stored.functions().into_iter().map(|(metadata, _)| metadata.name).collect();
        let kept = options.versions_kept.max(1);
        let change = |before: Option<Manifest>| {
            let mut manifest = before.unwrap_or_default();
            let version = manifest.last_version + 1;
            manifest.settings.extend(added.clone());
            check_settings(&manifest.settings)?;
            manifest.versions.push(Version {
                version,
                archive: blob.clone(),
                metadata: metadata.clone(),
                worker: worker.clone(),
                at_ms,
            });
            (manifest.active, manifest.last_version) = (version, version);
            let surplus = manifest.versions.len().saturating_sub(kept);
            manifest.versions.drain(..surplus);
            self.complete_keys(&mut manifest.keys, &names);
            Ok(Some(manifest))
        };
        let after = self.change(app, change, &[blob.clone(), metadata.clone()]).await?;
        Ok(after.map(|manifest| manifest.active).unwrap_or_default())
    }

    /// Makes an earlier version the active one.
    ///
    /// # Errors
    /// When it isn't kept any more, its worker doesn't start, or the cluster doesn't answer.
    pub async fn rollback(self: &Arc<Self>, app: &str, number: u64) -> Result<(), FunctionsError> {
        let settings = self.manifest(app)?.settings;
        self.again(app, number, settings).await
    }

    /// Replaces an app's settings. They become the environment of its worker, and `%NAME%` in bindings.
    ///
    /// # Errors
    /// When there are too many, its worker doesn't start with them, or the cluster doesn't answer.
    pub async fn set_settings(
        self: &Arc<Self>,
        app: &str,
        settings: BTreeMap<String, String>,
    ) -> Result<(), FunctionsError> {
        check_settings(&settings)?;
        let manifest = self.manifest(app)?;
        self.again(app, manifest.active, settings).await
    }

    /// Finds out once more what functions a version has, and makes it the active one with these settings.
    async fn again(
        self: &Arc<Self>,
        app: &str,
        number: u64,
        settings: BTreeMap<String, String>,
    ) -> Result<(), FunctionsError> {
        let _deploying = self.deploying.lock().await;
        let manifest = self.manifest(app)?;
        let missing = || FunctionsError::NotFound(format!("version {number} of app {app}"));
        let version = manifest.version(number).ok_or_else(missing)?.clone();
        let devices = self.core.devices.as_ref();
        let folder = self.core.options.scratch.join("apps").join(&version.archive.sha256);
        if !tokio::fs::try_exists(&folder).await? {
            let bytes = store::get(devices, app, &version.archive).await?;
            unpack(&self.core, bytes, folder.clone()).await?;
        }
        let (worker, stored) = index(&self.core, app, folder, settings.clone()).await?;
        let metadata = store::put(devices, &stored.encode()?).await?;
        let names: Vec<String> = stored.functions().into_iter().map(|(metadata, _)| metadata.name).collect();
        let change = |before: Option<Manifest>| {
            let mut manifest = before.ok_or_else(missing)?;
            let version =
                manifest.versions.iter_mut().find(|version| version.version == number).ok_or_else(missing)?;
            (version.metadata, version.worker) = (metadata.clone(), worker.clone());
            manifest.active = number;
            manifest.settings = settings.clone();
            self.complete_keys(&mut manifest.keys, &names);
            Ok(Some(manifest))
        };
        self.change(app, change, std::slice::from_ref(&metadata)).await.map(drop)
    }

    /// Removes an app: its versions, settings and keys, and what timers and states it had.
    ///
    /// # Errors
    /// When there is none, or the cluster doesn't answer.
    pub async fn delete(self: &Arc<Self>, app: &str) -> Result<(), FunctionsError> {
        let manifest = self.manifest(app)?;
        let functions = match manifest.active() {
            Some(version) => {
                let bytes = store::get(self.core.devices.as_ref(), app, &version.metadata).await;
                bytes.and_then(|bytes| StoredApp::decode(app, &bytes)).map(|stored| stored.functions())
            }
            None => Ok(Vec::new()),
        };
        self.change(app, |_| Ok(None), &[]).await?;
        for (metadata, _) in functions.unwrap_or_default() {
            self.remove_document(&document_of(app, &metadata.name)).await;
        }
        self.remove_states(app).await;
        Ok(())
    }

    /// Turns a function on or off.
    ///
    /// # Errors
    /// When there is none of this name, or the cluster doesn't answer.
    pub async fn set_enabled(&self, app: &str, function: &str, enabled: bool) -> Result<(), FunctionsError> {
        let name = match self.app(app).and_then(|app| app.function(function).cloned()) {
            Some(spec) => spec.name.clone(),
            None => return Err(FunctionsError::NotFound(format!("function {function} of app {app}"))),
        };
        let change = |before: Option<Manifest>| {
            let mut manifest = before.ok_or_else(|| FunctionsError::NotFound(format!("app {app}")))?;
            match enabled {
                true => drop(manifest.disabled.remove(&name)),
                false => drop(manifest.disabled.insert(name.clone())),
            }
            Ok(Some(manifest))
        };
        self.change(app, change, &[]).await.map(drop)
    }

    /// Draws a key: a function's, or without one, a key for all of them (`_master`: the master key).
    ///
    /// # Errors
    /// When there are too many, or the cluster doesn't answer.
    pub async fn draw_key(
        &self,
        app: &str,
        function: Option<&str>,
        name: &str,
    ) -> Result<String, FunctionsError> {
        let key = self.new_key();
        if name.is_empty() || name.len() > 64 {
            return Err(FunctionsError::Invalid("a key's name has 1 to 64 bytes".to_owned()));
        }
        let change = |before: Option<Manifest>| {
            let mut manifest = before.ok_or_else(|| FunctionsError::NotFound(format!("app {app}")))?;
            let keys = &mut manifest.keys;
            match (function, name) {
                (Some(function), _) => {
                    let of = keys.functions.entry(function.to_owned()).or_default();
                    of.insert(name.to_owned(), key.clone());
                }
                (None, "_master") => keys.master.clone_from(&key),
                (None, _) => drop(keys.host.insert(name.to_owned(), key.clone())),
            }
            let count = keys.host.len() + keys.functions.values().map(BTreeMap::len).sum::<usize>();
            match count > APP_KEYS_MAX {
                true => Err(FunctionsError::TooLarge(format!("an app has at most {APP_KEYS_MAX} keys"))),
                false => Ok(Some(manifest)),
            }
        };
        self.change(app, change, &[]).await?;
        Ok(key)
    }

    /// What the cluster keeps about an app.
    pub(crate) fn manifest(&self, app: &str) -> Result<Manifest, FunctionsError> {
        check_name(app)?;
        let setting = self.core.cluster.setting(&format!("{}{app}", manifest::PREFIX));
        manifest::read(&setting)?.ok_or_else(|| FunctionsError::NotFound(format!("app {app}")))
    }

    /// Changes an app's setting; blobs that nothing names then are removed, `new` ones too when it fails.
    async fn change<F>(
        &self,
        app: &str,
        change: F,
        new: &[store::BlobRef],
    ) -> Result<Option<Manifest>, FunctionsError>
    where
        F: Fn(Option<Manifest>) -> Result<Option<Manifest>, FunctionsError> + Send + Sync,
    {
        let devices = self.core.devices.as_ref();
        match manifest::change(self.core.cluster.as_ref(), app, change).await {
            Ok((before, after)) => {
                let kept = after.as_ref().map(Manifest::blobs).unwrap_or_default();
                let before = before.map(|manifest| manifest.blobs()).unwrap_or_default();
                for blob in before.iter().filter(|blob| !kept.contains(blob)) {
                    store::remove(devices, blob).await;
                }
                self.wake.notify_one();
                Ok(after)
            }
            Err(error) => {
                // When its outcome is unknown the setting may name them.
                if !matches!(&error, FunctionsError::Hub(error) if crate::error::is_unknown(error)) {
                    for blob in new {
                        store::remove(devices, blob).await;
                    }
                }
                Err(error)
            }
        }
    }

    fn new_key(&self) -> String {
        let mut bytes = [0; KEY_BYTES];
        self.core.devices.random(&mut bytes);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Draws the keys that are missing, and drops those of functions that aren't there any more.
    pub(crate) fn complete_keys(&self, keys: &mut Keys, functions: &[String]) {
        if keys.master.is_empty() {
            keys.master = self.new_key();
        }
        keys.host.entry(DEFAULT_KEY.to_owned()).or_insert_with(|| self.new_key());
        keys.functions.retain(|function, _| functions.contains(function));
        for function in functions.iter().take(APP_KEYS_MAX / 2) {
            let of = keys.functions.entry(function.clone()).or_default();
            of.entry(DEFAULT_KEY.to_owned()).or_insert_with(|| self.new_key());
        }
    }

    async fn remove_document(&self, name: &str) {
        let partition = partition_of_key(name.as_bytes(), self.core.devices.partitions());
        self.remove_at(partition, name.to_owned()).await;
    }

    async fn remove_at(&self, partition: fleetline_types::PartitionId, name: String) {
        let put = PutDocument { name, value: Bytes::new(), condition: Condition::upsert(), delete: true };
        if let Err(error) = self.core.devices.change(partition, Op::PutDocument(put)).await {
            tracing::debug!(%error, "a document of a removed app stays behind");
        }
    }

    async fn remove_states(&self, app: &str) {
        for partition in self.core.partitions() {
            loop {
                let ask = AskDocuments {
                    name: format!("fn/s/{app}/"),
                    all: true,
                    from: String::new(),
                    limit: REMOVED_AT_ONCE,
                };
                let answer = self.core.devices.ask(partition, Request::Documents(ask)).await;
                let Ok(Ok(answer)) = answer.map(answered) else { break };
                let is_last = answer.documents.len() < REMOVED_AT_ONCE as usize;
                for document in answer.documents {
                    self.remove_at(partition, document.name).await;
                }
                if is_last {
                    break;
                }
            }
        }
    }

    /// All apps, in short.
    pub fn list(&self) -> Json {
        let of = |(name, manifest): (String, Manifest)| {
            let active = manifest.active();
            json!({
                "name": name,
                "activeVersion": manifest.active,
                "worker": active.map(|version| version.worker.clone()),
                "deployedMs": active.map(|version| version.at_ms),
                "functions": self.app(&name).map_or(0, |app| app.functions.len()),
            })
        };
        let apps = manifest::all(self.core.cluster.as_ref()).into_iter().map(of);
        json!({ "apps": apps.collect::<Vec<_>>() })
    }

    /// All about all apps, for consoles.
    pub async fn status_all(&self) -> Json {
        let names: Vec<String> = manifest::all(self.core.cluster.as_ref()).into_keys().collect();
        let all = futures::future::join_all(names.iter().map(|name| self.status(name))).await;
        json!({ "apps": all.into_iter().filter_map(Result::ok).collect::<Vec<_>>() })
    }

    /// All about an app: versions, and what all nodes count of its functions.
    ///
    /// # Errors
    /// When there is none.
    pub async fn status(&self, app: &str) -> Result<Json, FunctionsError> {
        let manifest = self.manifest(app)?;
        let mut nodes = Vec::new();
        let mut sums: BTreeMap<String, FunctionNumbers> = BTreeMap::new();
        for (node, answer) in self.ask_all(&PeerCall::Numbers(app.to_owned())).await {
            let Some(PeerAnswer::Numbers(numbers)) = answer else {
                nodes.push(json!({ "node": node.0, "worker": "unknown" }));
                continue;
            };
            let AppNumbers { worker, running, cold_starts, functions, .. } = numbers;
            nodes.push(
                json!({ "node": node.0, "worker": worker, "running": running, "coldStarts": cold_starts }),
            );
            for (function, numbers) in functions {
                sums.entry(function).or_default().add(&numbers);
            }
        }
        let versions: Vec<Json> = manifest.versions.iter().map(version_json).collect();
        let hosted = self.app(app);
        let functions: Vec<Json> = match &hosted {
            Some(app) => app.functions.iter().map(|spec| function_json(app, spec, &sums)).collect(),
            None => Vec::new(),
        };
        Ok(json!({
            "name": app,
            "activeVersion": manifest.active,
            "versions": versions,
            "nodes": nodes,
            "functions": functions,
        }))
    }

    /// The last lines of an app, of all nodes.
    ///
    /// # Errors
    /// When there is no such app.
    pub async fn logs(
        &self,
        app: &str,
        function: Option<&str>,
        most: usize,
    ) -> Result<Vec<KeptLine>, FunctionsError> {
        self.manifest(app)?;
        let (lines, _) = self.logs_behind(app, function, most, &BTreeMap::new()).await;
        Ok(lines)
    }

    /// Lines behind those that were seen of each node, and what was seen then.
    pub(crate) async fn logs_behind(
        &self,
        app: &str,
        function: Option<&str>,
        most: usize,
        seen: &BTreeMap<u64, u64>,
    ) -> (Vec<KeptLine>, BTreeMap<u64, u64>) {
        // Each node counts for itself.
        let query =
            LogQuery { app: app.to_owned(), function: function.map(str::to_owned), seen: seen.clone(), most };
        let mut seen = seen.clone();
        let mut lines = Vec::new();
        for (node, answer) in self.ask_all(&PeerCall::Logs(query)).await {
            let Some(PeerAnswer::Logs(found)) = answer else { continue };
            if let Some(last) = found.iter().map(|line| line.number).max() {
                seen.insert(node.0, last);
            }
            lines.extend(found);
        }
        lines.sort_by_key(|line| (line.at_ms, line.node, line.number));
        lines.drain(..lines.len().saturating_sub(most));
        (lines, seen)
    }
}

fn check_settings(settings: &BTreeMap<String, String>) -> Result<(), FunctionsError> {
    let bytes: usize = settings.iter().map(|(name, value)| name.len() + value.len()).sum();
    if settings.len() > APP_SETTINGS_MAX || bytes > APP_SETTINGS_BYTES_MAX {
        return Err(FunctionsError::TooLarge(format!(
            "{} settings of {bytes} bytes, at most {APP_SETTINGS_MAX} of {APP_SETTINGS_BYTES_MAX} are kept",
            settings.len()
        )));
    }
    // They become an environment.
    let is_bad = |(name, value): (&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    match settings.iter().any(is_bad) {
        true => Err(FunctionsError::Invalid("a setting's name is empty or has = in it".to_owned())),
        false => Ok(()),
    }
}

fn version_json(version: &Version) -> Json {
    json!({
        "version": version.version,
        "sha256": version.archive.sha256,
        "bytes": version.archive.size,
        "worker": version.worker,
        "deployedMs": version.at_ms,
    })
}

fn function_json(
    app: &crate::app::App,
    spec: &crate::spec::FunctionSpec,
    sums: &BTreeMap<String, FunctionNumbers>,
) -> Json {
    let numbers = sums.get(&spec.name).cloned().unwrap_or_default();
    let state = match (&spec.trigger, spec.disabled) {
        (Err(_), _) => "broken",
        (Ok(_), true) => "disabled",
        (Ok(_), false) => "enabled",
    };
    let url = match spec.active() {
        Some(Trigger::Http(http)) => {
            let parts = [app.host.route_prefix.as_str(), http.route.text()];
            let path: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            Some(format!("/apps/{}/{}", app.name, path.join("/")))
        }
        _ => None,
    };
    json!({
        "name": spec.name,
        "trigger": spec.trigger_name(),
        "state": state,
        "reason": spec.trigger.as_ref().err(),
        "url": url,
        "invocations": numbers.invocations,
        "failures": numbers.failures,
        "poison": numbers.poison,
        "refusedEffects": numbers.refused_effects,
        "lastError": numbers.last_error,
        "lastErrorMs": (numbers.last_error_ms > 0).then_some(numbers.last_error_ms),
        "p50Ms": numbers.quantile_ms(0.5),
        "p99Ms": numbers.quantile_ms(0.99),
        "lag": numbers.lag,
        "instances": numbers.members,
        "desiredInstances": numbers.desired,
    })
}
