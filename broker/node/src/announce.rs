//! What a node tells of itself once it runs: its addresses to the cluster, and to clients on this machine what
//! they need.
//!
//! `node` starts it as a loop. It tries until all is told, which makes the node ready, and then writes
//! `client/hub.json` again whenever the hub's policies change. Not here: what the files look like (`data_dir`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine as _;
use fleetline_auth::{Authority, Role};
use fleetline_cluster::{ControlCommand, ControlReply, ControlState};
use fleetline_config::NodeConfig;
use fleetline_env::Entropy;
use fleetline_env::real::RealEntropy;
use fleetline_gateway::devices::settings::{POLICIES, default_policies};
use fleetline_raft_group::Blocking;
use fleetline_types::{NodeId, PartitionId};
use tokio::sync::watch;

use crate::control::Control;
use crate::data_dir::{DataDir, FrontPorts, HubContext, Identity};
use crate::error::NodeError;
use crate::hub::NodeHub;
use crate::joining::address;
use crate::node::FEATURE_LEVEL;
use crate::tiers::realtime_connection_string;

/// How long between attempts to tell the cluster.
const AGAIN: Duration = Duration::from_millis(300);
/// How long until a file that could not be written is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(30);

/// What is told, and to whom.
pub(crate) struct Announcer {
    pub(crate) config: NodeConfig,
    pub(crate) data: DataDir,
    pub(crate) identity: Identity,
    pub(crate) hub: Arc<NodeHub>,
    pub(crate) ports: FrontPorts,
}

impl Announcer {
    /// Tells the cluster this node's addresses and feature level, places a new hub's partitions, and writes
    /// what clients on this machine need. Goes on until all is done, and follows the policies then.
    pub(crate) async fn run(self) {
        let written = loop {
            match self.announce().await {
                Ok(written) => break written,
                Err(error) => tracing::debug!(error, "not announced yet"),
            }
            tokio::time::sleep(AGAIN).await;
        };
        self.hub.announced.store(true, Ordering::Relaxed);
        let changes = self.hub.control.watch();
        let this = &self;
        follow_policies(changes, written, |state| async move { this.write_hub_context(&state).await }).await;
    }

    /// Gives the version of the policies that are written.
    async fn announce(&self) -> Result<u64, String> {
        let text = |error: NodeError| error.to_string();
        let state = self.hub.control.view();
        if state.settings.cluster.is_empty() {
            return Err("the control state has not arrived yet".to_owned());
        }
        self.register(&state).await?;
        self.place_partitions().await;
        if !state.hub.contains_key(POLICIES) {
            make_policies(&self.hub.control).await?;
        }
        let state = self.hub.control.view();
        self.write_hub_context(&state).await.map_err(text)?;
        self.write_client_context(&state)?;
        let peers: BTreeMap<u64, String> =
            state.nodes.iter().map(|(node, member)| (node.0, member.peer_address.clone())).collect();
        self.data.write_identity(&Identity { peers, ..self.identity.clone() }).map_err(text)?;
        Ok(written_version(&state))
    }

    fn client_address(&self) -> String {
        address(&self.config.host(), self.config.listen.port())
    }

    /// Tells the cluster where this node is, unless it knows.
    async fn register(&self, state: &ControlState) -> Result<(), String> {
        let this = self.identity.node_id();
        let (client, peer) =
            (self.client_address(), address(&self.config.host(), self.config.peer_listen.port()));
        let same = state.nodes.get(&this).is_some_and(|member| {
            member.client_address == client
                && member.peer_address == peer
                && member.zone == self.config.zone
                && member.feature_level == FEATURE_LEVEL
        });
        if same {
            return Ok(());
        }
        let command = ControlCommand::AddNode {
            disk_id: self.data.disk_id().to_owned(),
            client_address: client,
            peer_address: peer,
            zone: self.config.zone.clone(),
            feature_level: FEATURE_LEVEL,
        };
        match self.hub.control.propose(&command).await {
            Ok(ControlReply::Node(node)) if node == this => Ok(()),
            Ok(reply) => Err(format!("cluster knows this folder as {reply:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The node that makes the cluster has all partitions first.
    async fn place_partitions(&self) {
        let this = self.identity.node_id();
        for partition in (0..self.identity.partitions).map(PartitionId) {
            if this == NodeId(1) && !self.hub.control.view().placements.contains_key(&partition) {
                let command =
                    ControlCommand::SetPlacement { partition, replicas: vec![this], expected_epoch: 0 };
                if let Err(error) = self.hub.control.propose(&command).await {
                    tracing::debug!(%error, "partition is placed already");
                }
            }
        }
    }

    async fn write_hub_context(&self, state: &ControlState) -> Result<(), NodeError> {
        let certs = &self.hub.certificates;
        let authority = certs.own_authority().unwrap_or_else(|| state.settings.authority_pem.clone());
        let context = HubContext {
            host: self.config.hub_host(),
            ports: self.ports,
            policies: state.hub.get(POLICIES).map(|setting| setting.value.clone()).unwrap_or_default(),
            realtime: realtime_connection_string(&self.config, self.ports, state),
            authority_pem: (!certs.has_own_front()).then_some(authority),
        };
        let data = self.data.clone();
        Blocking::Pool.run(move || data.write_hub_context(&context)).await
    }

    fn write_client_context(&self, state: &ControlState) -> Result<(), String> {
        let settings = &state.settings;
        let client = self.client_address();
        if let Some(own) = self.hub.certificates.own_authority() {
            return self.data.write_endpoints(&[client], &own).map_err(|error| error.to_string());
        }
        if settings.authority_key_pem.is_empty() || self.data.path("client/client.pem").exists() {
            return Ok(());
        }
        let bundle = Authority::from_pem(&settings.authority_pem, &settings.authority_key_pem)
            .and_then(|authority| authority.issue_client(&Role::Admin))
            .map_err(|error| error.to_string())?;
        let written = self.data.write_client_context(
            &[client],
            &bundle.authority_pem,
            &bundle.certificate_pem,
            &bundle.key_pem,
        );
        written.map_err(|error| error.to_string())
    }
}

/// Changes with everything that is written: policies and the realtime hubs' keys.
fn written_version(state: &ControlState) -> u64 {
    let version = |name: &str| state.hub.get(name).map_or(0, |setting| setting.version);
    version(POLICIES) + version(fleetline_realtime::SETTING)
}

/// Has the state written whenever its policies have another version than what is written, until the control
/// group stops.
async fn follow_policies<F>(
    mut changes: watch::Receiver<Arc<ControlState>>,
    mut written: u64,
    write: impl Fn(Arc<ControlState>) -> F,
) where
    F: Future<Output = Result<(), NodeError>>,
{
    loop {
        let state = changes.borrow_and_update().clone();
        let version = written_version(&state);
        if version != written {
            match write(state).await {
                Ok(()) => written = version,
                Err(error) => {
                    tracing::warn!(%error, "the hub's policies are not written for clients here");
                    tokio::time::sleep(WRITE_AGAIN).await;
                    continue;
                }
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Gives a new hub its policies, with keys of its own. Whoever is first does it.
async fn make_policies(control: &Control) -> Result<(), String> {
    let key = || {
        let mut bytes = [0; 32];
        RealEntropy.fill(&mut bytes);
        base64::engine::general_purpose::STANDARD.encode(bytes)
    };
    let policies = serde_json::to_vec(&default_policies(key)).map_err(|error| error.to_string())?;
    let command = ControlCommand::PutHubSetting {
        name: POLICIES.to_owned(),
        value: policies.into(),
        expected_version: 0,
    };
    match control.propose(&command).await {
        // Another node was first; its policies arrive with the control state.
        Ok(_) | Err(fleetline_native::HubError::Invalid(_)) => {}
        Err(error) => return Err(error.to_string()),
    }
    match control.view().hub.contains_key(POLICIES) {
        true => Ok(()),
        false => Err("the hub's policies have not arrived yet".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use fleetline_cluster::HubSetting;
    use tokio::sync::mpsc;

    use super::*;

    fn state(version: u64) -> Arc<ControlState> {
        let setting = HubSetting { version, value: b"{}".as_slice().into() };
        let hub = BTreeMap::from([(POLICIES.to_owned(), setting)]);
        Arc::new(ControlState { hub, ..ControlState::default() })
    }

    /// Each version of the policies is written once, also one that came before anybody looked; what can't be
    /// written is tried again, and other changes write nothing.
    #[tokio::test(start_paused = true)]
    async fn policies_are_followed() {
        let (states, changes) = watch::channel(state(2));
        let (tell, mut writes) = mpsc::unbounded_channel();
        let failures = Cell::new(1);
        let following = follow_policies(changes, 1, |state| {
            tell.send(written_version(&state)).unwrap();
            std::future::ready(match written_version(&state) == 3 && failures.replace(0) > 0 {
                true => Err(NodeError::Stopped("the disk is full".to_owned())),
                false => Ok(()),
            })
        });
        let changing = async move {
            assert_eq!(writes.recv().await, Some(2));
            states.send_replace(state(2));
            states.send_replace(state(3));
            assert_eq!([writes.recv().await, writes.recv().await], [Some(3), Some(3)]);
            drop(states);
            writes
        };
        let ((), mut writes) = tokio::join!(following, changing);
        assert!(writes.try_recv().is_err());
    }
}
