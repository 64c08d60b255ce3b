//! Certificates of this node: the cluster's or those of an own PKI, read again when their files change.
//!
//! `node` opens them at start, before anything listens. [`keep`] looks at the files every half minute
//! and on SIGHUP, and renews a certificate of the cluster's authority when two thirds of its life have
//! passed: the authority's key is in the control state of every node, so none needs another for it, and
//! also a node that was away for too long helps itself.
//!
//! Invariants:
//! 1. What is read is checked whole before any of it is used; bad files change nothing, and are warned
//!    of once.
//! 2. A folder's cluster and node are in `node.json` before certificates are looked at. So the name that
//!    an own certificate must have is known and doesn't change, and a node whose folder was lost can't
//!    begin an empty cluster of the same name: a new folder has a new cluster.
//!
//! Not here: certificates of devices, which the hub's own authorities vouch for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fleetline_auth::{
    AuthError, Authority, DataCerts, Lifetime, LiveKey, LiveTls, Role, TlsBundle, certified_key, hosts_of,
    node_name, read_pem,
};
use fleetline_cluster::Settings;
use fleetline_config::NodeConfig;
use fleetline_types::NodeId;
use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};

use crate::control::Control;
use crate::data_dir::Identity;
use crate::error::NodeError;

/// How often the files are looked at.
const POLL: Duration = Duration::from_secs(30);

/// Where certificates come from.
struct Files {
    /// `certs` in the data folder.
    folder: PathBuf,
    /// Authority, certificate and key of an own PKI.
    own: Option<[PathBuf; 3]>,
    crl: Option<PathBuf>,
    /// Certificate and key of the fronts for devices.
    front: Option<[PathBuf; 2]>,
}

/// What the files say.
#[derive(Clone, PartialEq, Eq)]
struct Texts {
    bundle: TlsBundle,
    crl: Option<String>,
    front: Option<(String, String)>,
}

/// The certificates in use.
pub(crate) struct Certificates {
    files: Files,
    cluster: String,
    node: NodeId,
    /// What a renewed certificate names beside what the former one did.
    hosts: Vec<String>,
    live: LiveTls,
    front: Arc<LiveKey>,
    /// Its key is in the data folder of the node that made the cluster.
    authority: Option<Authority>,
    texts: Mutex<Texts>,
    /// The last thing that was warned of.
    complaint: Mutex<String>,
}

impl Certificates {
    /// Reads what `config` names, or what is in `folder`; there it is made when it is missing.
    ///
    /// # Errors
    /// When files can't be read or don't fit this node; the text names the option and what would be right.
    pub(crate) fn open(
        config: &NodeConfig,
        folder: PathBuf,
        identity: &Identity,
        hosts: &[String],
    ) -> Result<Arc<Certificates>, NodeError> {
        let files = Files::new(config, folder);
        let (cluster, node) = (identity.cluster.clone(), identity.node_id());
        let (stored, authority) = match files.own {
            Some(_) => (None, None),
            None => {
                let made = DataCerts::load_or_create(&files.folder, &cluster, node, hosts);
                let made = made.map_err(|error| NodeError::Certificates(error.to_string()))?;
                (Some(made.bundle), made.authority)
            }
        };
        let texts = files.read(stored.as_ref())?;
        let front = files.check(&texts, &cluster, node, SystemTime::now())?;
        let live = LiveTls::new(&texts.bundle, texts.crl.as_deref()).map_err(|error| files.wrong(&error))?;
        Ok(Arc::new(Certificates {
            files,
            cluster,
            node,
            hosts: hosts.to_vec(),
            live,
            front: LiveKey::new(front),
            authority,
            texts: Mutex::new(texts),
            complaint: Mutex::default(),
        }))
    }

    /// For peers and the native front.
    pub(crate) fn live(&self) -> &LiveTls {
        &self.live
    }

    /// `config` with the certificate of the fronts for devices, whichever it is at a handshake.
    pub(crate) fn of_front(&self, config: &rustls::ServerConfig) -> Arc<rustls::ServerConfig> {
        let mut config = config.clone();
        config.cert_resolver = self.front.clone();
        Arc::new(config)
    }

    /// Certificate and key of the fronts for devices now, as PEM.
    pub(crate) fn front_pem(&self) -> (String, String) {
        let texts = self.texts.lock();
        let of_node = || (texts.bundle.certificate_pem.clone(), texts.bundle.key_pem.clone());
        texts.front.clone().unwrap_or_else(of_node)
    }

    /// Whether the fronts for devices show a certificate that the node's authority doesn't vouch for.
    pub(crate) fn has_own_front(&self) -> bool {
        self.files.front.is_some()
    }

    /// The authorities of an own PKI; `None` when the cluster has its own authority.
    pub(crate) fn own_authority(&self) -> Option<String> {
        self.files.own.as_ref().map(|_| self.texts.lock().bundle.authority_pem.clone())
    }

    /// What a new cluster keeps of its authority, certificate and key, on a node that may make one. The
    /// key is empty when certificates come from elsewhere.
    pub(crate) fn of_new_cluster(&self) -> Option<(String, String)> {
        let made = || self.authority.as_ref().map(|made| (made.certificate_pem().to_owned(), made.key_pem()));
        self.own_authority().map(|authority| (authority, String::new())).or_else(made)
    }

    /// Takes what the files say, if they changed. `true` when they did.
    ///
    /// # Errors
    /// What is wrong with them; what was in use stays so.
    pub(crate) fn reload(&self, now: SystemTime) -> Result<bool, NodeError> {
        let mut texts = self.texts.lock();
        let found = self.files.read(self.files.own.is_none().then_some(&texts.bundle))?;
        if found == *texts {
            return Ok(false);
        }
        self.take(&found, now)?;
        *texts = found;
        Ok(true)
    }

    /// Renews the node's certificate, if it is one of the cluster's authority and time for it. `true` when
    /// it was.
    ///
    /// # Errors
    /// When it can't be made or stored.
    pub(crate) fn renew(&self, authority: &Authority, now: SystemTime) -> Result<bool, NodeError> {
        let wrong = |error: AuthError| NodeError::Certificates(format!("renewal: {error}"));
        let mut texts = self.texts.lock();
        let former = &texts.bundle;
        let due = Lifetime::of(&former.certificate_pem).map_err(wrong)?.is_due(now);
        if self.files.own.is_some() || !due {
            return Ok(false);
        }
        let mut hosts = hosts_of(&former.certificate_pem).map_err(wrong)?;
        hosts.extend(self.hosts.iter().cloned());
        let bundle = authority.issue(&Role::Node(self.node), &hosts).map_err(wrong)?;
        if bundle.authority_pem.trim() != former.authority_pem.trim() {
            return Err(NodeError::Certificates("renewal: the cluster has another authority".to_owned()));
        }
        let renewed = Texts { bundle, ..texts.clone() };
        self.files.check(&renewed, &self.cluster, self.node, now)?;
        DataCerts::store(&self.files.folder, &renewed.bundle, None).map_err(wrong)?;
        self.take(&renewed, now)?;
        *texts = renewed;
        Ok(true)
    }

    /// Checks what was read and shows it from now on.
    fn take(&self, texts: &Texts, now: SystemTime) -> Result<(), NodeError> {
        let front = self.files.check(texts, &self.cluster, self.node, now)?;
        let replaced = self.live.replace(&texts.bundle, texts.crl.as_deref());
        replaced.map_err(|error| self.files.wrong(&error))?;
        self.front.set(front);
        Ok(())
    }

    /// One look at the files, and at the clock.
    fn tend(&self, settings: &Settings, now: SystemTime) {
        let mut complaint = String::new();
        match self.reload(now) {
            Ok(true) => tracing::info!("certificates have changed and are in use"),
            Ok(false) => {}
            Err(error) => complaint = format!("{error}; the former ones stay in use"),
        }
        if !settings.authority_key_pem.is_empty() && self.files.own.is_none() {
            let authority = Authority::from_pem(&settings.authority_pem, &settings.authority_key_pem);
            let renewed = authority
                .map_err(|error| NodeError::Certificates(error.to_string()))
                .and_then(|authority| self.renew(&authority, now));
            match renewed {
                Ok(true) => tracing::info!("this node's certificate was renewed"),
                Ok(false) => {}
                Err(error) => complaint = error.to_string(),
            }
        }
        if complaint.is_empty() && self.ends_soon(now) {
            complaint = "certificate of this node or its fronts ends soon; put a new one in its place".into();
        }
        self.complain(complaint);
    }

    fn ends_soon(&self, now: SystemTime) -> bool {
        let texts = self.texts.lock();
        let front = texts.front.as_ref().map(|(certificate, _)| certificate);
        let mut used = [Some(&texts.bundle.certificate_pem), front].into_iter().flatten();
        used.any(|pem| Lifetime::of(pem).is_ok_and(|lifetime| lifetime.is_late(now)))
    }

    /// Warns, unless it did so last time.
    fn complain(&self, complaint: String) {
        let mut last = self.complaint.lock();
        if !complaint.is_empty() && complaint != *last {
            tracing::warn!("{complaint}");
        }
        *last = complaint;
    }
}

impl Files {
    fn new(config: &NodeConfig, folder: PathBuf) -> Files {
        let set = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
        let both = |one: &Path, other: &Path| Some([set(one)?, set(other)?]);
        let pair = both(&config.tls_certificate, &config.tls_key);
        Files {
            folder,
            own: set(&config.tls_authority)
                .zip(pair)
                .map(|(authority, [certificate, key])| [authority, certificate, key]),
            crl: set(&config.tls_crl),
            front: both(&config.front_certificate, &config.front_key),
        }
    }

    /// Reads all that is configured; `stored` is the node's bundle when that isn't.
    fn read(&self, stored: Option<&TlsBundle>) -> Result<Texts, NodeError> {
        let read = |key: &str, path: &Path, secret| {
            read_pem(path, secret).map_err(|error| NodeError::Certificates(format!("{key}: {error}")))
        };
        let bundle = match (&self.own, stored) {
            (Some([authority, certificate, key]), _) => TlsBundle {
                authority_pem: read("tls_authority", authority, false)?,
                certificate_pem: read("tls_certificate", certificate, false)?,
                key_pem: read("tls_key", key, true)?,
            },
            (None, Some(stored)) => stored.clone(),
            (None, None) => return Err(NodeError::Certificates("node has none".to_owned())),
        };
        let crl = self.crl.as_ref().map(|path| read("tls_crl", path, false)).transpose()?;
        let front = match &self.front {
            Some([certificate, key]) => {
                Some((read("front_certificate", certificate, false)?, read("front_key", key, true)?))
            }
            None => None,
        };
        Ok(Texts { bundle, crl, front })
    }

    /// Checks that others will believe this node, and gives the key of the fronts for devices.
    fn check(
        &self,
        texts: &Texts,
        cluster: &str,
        node: NodeId,
        now: SystemTime,
    ) -> Result<Arc<rustls::sign::CertifiedKey>, NodeError> {
        let bundle = &texts.bundle;
        let name = node_name(node, cluster);
        bundle.check(cluster, &Role::Node(node)).map_err(|error| {
            let fix = match self.own {
                Some(_) => format!(
                    "; it must have exactly one such DNS name, {name}, and extended key usage of client and server"
                ),
                None => String::new(),
            };
            NodeError::Certificates(format!("{}{error}{fix}", self.origin()))
        })?;
        // One of the cluster's authority may have ended while the node was away: it is renewed then.
        if self.own.is_some() || texts.crl.is_some() {
            bundle.verify(texts.crl.as_deref(), now).map_err(|error| self.wrong(&error))?;
        }
        match &texts.front {
            Some((certificate, key)) => certified_key(certificate, key)
                .map_err(|error| NodeError::Certificates(format!("front_certificate, front_key: {error}"))),
            None => {
                certified_key(&bundle.certificate_pem, &bundle.key_pem).map_err(|error| self.wrong(&error))
            }
        }
    }

    /// The options that a fault of the node's own certificate or its trust may come from.
    fn origin(&self) -> String {
        let own = self.own.as_ref().map(|[authority, certificate, _]| {
            format!("tls_certificate = {}, tls_authority = {}", certificate.display(), authority.display())
        });
        let crl = self.crl.as_ref().map(|path| format!("tls_crl = {}", path.display()));
        let options: Vec<String> = own.into_iter().chain(crl).collect();
        if options.is_empty() { String::new() } else { format!("{}: ", options.join(", ")) }
    }

    fn wrong(&self, error: &AuthError) -> NodeError {
        NodeError::Certificates(format!("{}{error}", self.origin()))
    }
}

/// Looks at the files every half minute and on SIGHUP, for as long as the node runs.
pub(crate) async fn keep(certificates: Arc<Certificates>, control: Control) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => Some(hangup),
        Err(error) => {
            tracing::warn!(%error, "SIGHUP can't be heard; certificates are looked at every half minute");
            None
        }
    };
    let mut ticks = tokio::time::interval(POLL);
    loop {
        let asked = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = ticks.tick() => {}
            _ = asked => {}
        }
        let (certificates, state) = (certificates.clone(), control.view());
        let looked =
            tokio::task::spawn_blocking(move || certificates.tend(&state.settings, SystemTime::now()));
        if let Err(error) = looked.await {
            tracing::error!(%error, "certificates could not be looked at");
        }
    }
}

#[cfg(test)]
mod tests;
