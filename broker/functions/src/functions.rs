//! The functions tier of a node: follows the apps of the cluster, and hosts each of them.
//!
//! ```text
//!  settings function-app/* ─► reconcile ─► App + supervisor per app
//!                                            ├ scaler per stream function ─► member ─► runs
//!                                            └ timer per timer function
//!  HTTP mount, realtime events, calls of other nodes ─► App
//! ```
//!
//! A new revision of an app answers HTTP at once; its stream functions and timers begin when those of the
//! old one have ended, so that an app never runs in two revisions on one node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleetline_gateway::tiers::{Cluster, Tier};
use fleetline_worker::LogLevel;
use fleetline_workers::WorkerKind;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::app::{App, AppParts, Source};
use crate::core::Core;
use crate::error::FunctionsError;
use crate::manifest::{self, Manifest};
use crate::options::FunctionsOptions;
use crate::realtime::RealtimeOut;
use crate::spec::Trigger;
use crate::store;
use crate::stored::StoredApp;
use crate::stream::{Orders, Stop, StreamFunction, scale};
use crate::timers;

/// How often the tier looks around without being woken.
const ROUND: Duration = Duration::from_secs(1);

/// An app that is hosted here.
pub(crate) struct Hosted {
    app: Arc<App>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Hosted {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Hosted {
    fn new(app: Arc<App>, orders: Arc<Orders>, previous: Option<Hosted>) -> Hosted {
        let (sender, stop) = Stop::new();
        let task = tokio::spawn(supervise(app.clone(), orders, stop, previous));
        Hosted { app, stop: sender, task: Some(task) }
    }

    /// Ends it as softly as its options allow.
    async fn retire(mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            drop(task.await);
        }
    }
}

/// Runs what starts an app's functions by itself.
async fn supervise(app: Arc<App>, orders: Arc<Orders>, mut stop: Stop, previous: Option<Hosted>) {
    if let Some(previous) = previous {
        previous.retire().await;
    }
    let mut tasks = JoinSet::new();
    for spec in &app.functions {
        if let Some(function) = StreamFunction::new(&app, spec) {
            tasks.spawn(scale(function, orders.clone(), stop.clone()));
        }
        if let Some(Trigger::Timer(timer)) = spec.active() {
            tasks.spawn(timers::run(app.clone(), spec.clone(), timer.as_ref().clone(), stop.clone()));
        }
    }
    stop.stopped().await;
    // Members have a grace of their own, and need a moment to leave.
    let grace = app.core.options.revoke_grace + Duration::from_secs(5);
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, app = app.name, "a part of a function app failed");
            }
        }
    };
    drop(tokio::time::timeout(grace, all).await);
    tasks.shutdown().await;
    app.stop().await;
}

/// An app that is developed on this machine.
#[derive(Clone)]
pub(crate) struct LocalApp {
    pub(crate) name: String,
    pub(crate) manifest: Manifest,
    pub(crate) folder: PathBuf,
    pub(crate) stored: StoredApp,
    /// Changes with its files.
    pub(crate) revision: String,
}

/// Ends all apps when whoever runs the tier is dropped.
struct Ending<'a>(&'a Functions);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.hosted.write().clear();
    }
}

/// The functions tier of a node; see the module's header.
pub struct Functions {
    pub(crate) core: Arc<Core>,
    pub(crate) orders: Arc<Orders>,
    hosted: RwLock<BTreeMap<String, Hosted>>,
    /// An app that is developed on this machine.
    local: Mutex<Option<LocalApp>>,
    pub(crate) wake: Notify,
    /// Held while something is deployed: folders that no app names yet are left alone.
    pub(crate) deploying: tokio::sync::Mutex<()>,
}

impl Functions {
    /// The tier of the node that `cluster` speaks of; to be called before the node listens.
    pub fn new(
        cluster: Arc<dyn Cluster>,
        realtime: Arc<dyn RealtimeOut>,
        kinds: Vec<Arc<dyn WorkerKind>>,
        options: FunctionsOptions,
    ) -> Arc<Functions> {
        let functions = Arc::new(Functions {
            core: Core::new(cluster.clone(), realtime, kinds, options),
            orders: Arc::default(),
            hosted: RwLock::default(),
            local: Mutex::default(),
            wake: Notify::new(),
            deploying: tokio::sync::Mutex::default(),
        });
        cluster.serve_tier(Tier::Functions, functions.clone());
        functions
    }

    /// Follows the cluster's apps until it is dropped; apps end with it.
    pub async fn run(self: Arc<Self>) {
        let mut changes = self.core.cluster.changes();
        let _all = Ending(&self);
        let mut seen = None;
        loop {
            changes.mark_unchanged();
            let now = self.versions();
            if seen.as_ref() != Some(&now) {
                seen = self.reconcile().await.then_some(now);
            }
            let apps: Vec<Arc<App>> = self.apps();
            futures::future::join_all(apps.iter().map(|app| app.rest())).await;
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                _ = changes.changed() => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Ends all apps as softly as they can; for a node that stops.
    pub async fn stop(&self) {
        let all = std::mem::take(&mut *self.hosted.write());
        futures::future::join_all(all.into_values().map(Hosted::retire)).await;
    }

    pub(crate) fn apps(&self) -> Vec<Arc<App>> {
        self.hosted.read().values().map(|hosted| hosted.app.clone()).collect()
    }

    /// Whether one of the apps is so.
    pub(crate) fn any_app(&self, is_so: impl Fn(&App) -> bool) -> bool {
        self.hosted.read().values().any(|hosted| is_so(&hosted.app))
    }

    /// The app of this name, as it runs here.
    pub(crate) fn app(&self, name: &str) -> Option<Arc<App>> {
        self.hosted.read().get(name).map(|hosted| hosted.app.clone())
    }

    /// What decides what is hosted, in short: nothing is read again while it stays.
    fn versions(&self) -> (Vec<(String, u64)>, String) {
        let settings = self.core.cluster.settings_with(manifest::PREFIX);
        let local = self.local.lock().as_ref().map(|local| local.revision.clone());
        let versions = settings.into_iter().map(|setting| (setting.name, setting.version));
        (versions.collect(), local.unwrap_or_default())
    }

    /// Hosts what there is, and nothing else; whether all of it could be loaded.
    async fn reconcile(self: &Arc<Self>) -> bool {
        let mut is_complete = true;
        let mut wanted = manifest::all(self.core.cluster.as_ref());
        wanted.retain(|_, manifest| manifest.active().is_some());
        let local = self.local.lock().clone();
        if let Some(local) = &local {
            wanted.insert(local.name.clone(), local.manifest.clone());
        }
        let gone: Vec<String> =
            self.hosted.read().keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in gone {
            let Some(hosted) = self.hosted.write().remove(&name) else { continue };
            // In a task: whoever is slow to end doesn't keep others waiting.
            tokio::spawn(hosted.retire());
        }
        for (name, manifest) in &wanted {
            let here = self.app(name);
            let revision = match &local {
                Some(local) if local.name == *name => local.revision.clone(),
                _ => manifest.revision(),
            };
            if let Some(app) = here.filter(|app| app.revision == revision) {
                *app.keys.write() = manifest.keys.clone();
                continue;
            }
            match self.parts(name, manifest, &revision, &local).await {
                Ok(parts) => self.host(parts),
                Err(error) => {
                    is_complete = false;
                    tracing::warn!(app = name, %error, "function app can't be loaded now");
                    self.core.say(name, "", LogLevel::Error, format!("the app can't be loaded now: {error}"));
                }
            }
        }
        let functions: BTreeSet<(String, String)> = self
            .apps()
            .iter()
            .flat_map(|app| app.functions.iter().map(|spec| (app.name.clone(), spec.name.clone())))
            .collect();
        self.core.keep_only(|app, function| match function {
            Some(function) => functions.contains(&(app.to_owned(), function.to_owned())),
            None => wanted.contains_key(app),
        });
        self.clean(&wanted).await;
        is_complete
    }

    async fn parts(
        &self,
        name: &str,
        manifest: &Manifest,
        revision: &str,
        local: &Option<LocalApp>,
    ) -> Result<AppParts, FunctionsError> {
        let version = manifest
            .active()
            .ok_or_else(|| FunctionsError::NotFound(format!("an active version of app {name}")))?;
        let (source, stored) = match local {
            Some(local) if local.name == name => (Source::Folder(local.folder.clone()), local.stored.clone()),
            _ => {
                let bytes = store::get(self.core.devices.as_ref(), name, &version.metadata).await?;
                (Source::Stored(version.archive.clone()), StoredApp::decode(name, &bytes)?)
            }
        };
        Ok(AppParts {
            name: name.to_owned(),
            revision: revision.to_owned(),
            version: version.version,
            kind: version.worker.clone(),
            source,
            settings: manifest.settings.clone(),
            stored,
            disabled: manifest.disabled.clone(),
            keys: manifest.keys.clone(),
        })
    }

    fn host(&self, parts: AppParts) {
        let name = parts.name.clone();
        let app = App::new(self.core.clone(), parts);
        tracing::info!(
            app = name,
            version = app.version,
            functions = app.functions.len(),
            "function app is hosted"
        );
        for spec in &app.functions {
            if let Err(error) = &spec.trigger {
                self.core.say(&name, &spec.name, LogLevel::Error, format!("the function can't run: {error}"));
                self.core.stats(&name, &spec.name).note_error(self.core.now_ms(), error);
            }
        }
        let mut all = self.hosted.write();
        let previous = all.remove(&name);
        all.insert(name, Hosted::new(app, self.orders.clone(), previous));
    }

    /// Develops an app on this machine: it is as if it were deployed, from a folder.
    pub(crate) fn set_local(&self, local: LocalApp) {
        *self.local.lock() = Some(local);
        self.wake.notify_one();
    }

    /// Removes unpacked folders of archives that no app names.
    async fn clean(&self, wanted: &BTreeMap<String, Manifest>) {
        let Ok(_guard) = self.deploying.try_lock() else { return };
        let named: BTreeSet<&str> = wanted
            .values()
            .flat_map(|manifest| manifest.versions.iter().map(|version| version.archive.sha256.as_str()))
            .collect();
        let folder = self.core.options.scratch.join("apps");
        let Ok(mut entries) = tokio::fs::read_dir(&folder).await else { return };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let name = entry.file_name().to_string_lossy().into_owned();
            // Unfinished ones begin with a dot; whoever made them removes them.
            if name.starts_with('.') || named.contains(name.as_str()) {
                continue;
            }
            if let Err(error) = tokio::fs::remove_dir_all(entry.path()).await {
                tracing::debug!(%error, folder = name, "an unpacked app can't be removed");
            }
        }
    }
}
