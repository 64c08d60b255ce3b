//! Devices on this node: questions to leaders, answers as one, and what a leader does after commits.
//!
//! [`NodeDevices`] is the [`DeviceHub`] of this node's fronts. A question goes to the node that leads
//! the device's partition, over the peers' links when that is another one; the other node's
//! [`NodeDevices`] answers it (`answer`). Wakes and method calls go the other way, to the node
//! that has the device's connection (`effects`).

mod answer;
mod effects;
mod envelope;
mod passing;
mod seek;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_cluster::{ControlCommand, ControlState};
use fleetline_devices::{ConnectionPlace, DeviceAnswer, Request};
use fleetline_env::Clock;
use fleetline_gateway::devices::connections::Connections;
use fleetline_gateway::devices::hub::{DeviceHub, GatewayAnswer, GatewayCall, Leaders};
use fleetline_gateway::devices::settings::{ACCESS, AUTHORITIES, Access, HubSettings, POLICIES, REALTIME};
use fleetline_gateway::hub::{Appended, HubError};
use fleetline_raft_driver::{CallError, Driver, PeerService};
use fleetline_raft_transport::Lane;
use fleetline_types::{GroupId, NodeId, PartitionId};
use parking_lot::RwLock;
use prost::Message;
use tokio::sync::watch;

use crate::anywhere::Anywhere;
use crate::control::Control;
use crate::hosting::Hosting;
pub(crate) use seek::seek;

/// How long one node may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a gateway may take to hear a wake.
const WAKE: Duration = Duration::from_secs(1);
/// How often leaders are looked at.
const LEADERS_EVERY: Duration = Duration::from_millis(100);

/// Operations of calls between nodes; numbers are never reused.
pub(crate) mod operation {
    pub(crate) const ASK: u32 = 1;
    pub(crate) const APPEND: u32 = 2;
    pub(crate) const GATEWAY: u32 = 3;
    /// Of `anywhere`: a request of the native protocol, a read, a tier's call.
    pub(crate) const CALL: u32 = 4;
    pub(crate) const READ: u32 = 5;
    pub(crate) const TIER: u32 = 6;
}

/// The devices' side of a node.
pub(crate) struct NodeDevices {
    driver: Arc<Driver>,
    control: Control,
    hosting: Arc<Hosting>,
    clock: Arc<dyn Clock>,
    partitions: u32,
    incarnation: u64,
    host_name: String,
    host_names: Vec<String>,
    settings: RwLock<Arc<HubSettings>>,
    leaders: watch::Sender<Leaders>,
    /// This node's own connections; set before any front listens.
    connections: OnceLock<Arc<Connections>>,
    late: effects::Late,
    /// Answers other nodes' questions about the stream; set before any front listens.
    anywhere: OnceLock<Weak<Anywhere>>,
}

/// What it is made of.
pub(crate) struct DevicesParts {
    pub(crate) driver: Arc<Driver>,
    pub(crate) control: Control,
    pub(crate) hosting: Arc<Hosting>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) partitions: u32,
    pub(crate) host_name: String,
    pub(crate) host_names: Vec<String>,
}

impl NodeDevices {
    pub(crate) fn new(parts: DevicesParts) -> Arc<NodeDevices> {
        let DevicesParts { driver, control, hosting, clock, partitions, host_name, host_names } = parts;
        let devices = NodeDevices {
            settings: RwLock::default(),
            leaders: watch::channel(Leaders::default()).0,
            connections: OnceLock::new(),
            late: effects::Late::default(),
            anywhere: OnceLock::new(),
            incarnation: rand::random(),
            driver,
            control,
            hosting,
            clock,
            partitions,
            host_name,
            host_names,
        };
        devices.read_settings();
        devices.read_leaders();
        Arc::new(devices)
    }

    /// Lets other nodes reach these connections.
    pub(crate) fn set_connections(self: &Arc<Self>, connections: Arc<Connections>) {
        if self.connections.set(connections).is_err() {
            tracing::error!("connections were set twice");
        }
        self.driver.set_service(Arc::new(Service { devices: self.clone() }));
    }

    /// Lets other nodes ask about the stream.
    pub(crate) fn set_anywhere(&self, anywhere: &Arc<Anywhere>) {
        if self.anywhere.set(Arc::downgrade(anywhere)).is_err() {
            tracing::error!("the stream's side was set twice");
        }
    }

    /// Loops that follow settings and leaders and do a leader's duties, until the set is dropped.
    pub(crate) fn start(self: &Arc<Self>, loops: &mut tokio::task::JoinSet<()>) {
        loops.spawn(self.clone().follow_settings());
        loops.spawn(self.clone().follow_leaders());
        loops.spawn(self.clone().lead());
        loops.spawn(self.clone().tell_late());
    }

    async fn follow_settings(self: Arc<Self>) {
        let mut changes = self.control.watch();
        while changes.changed().await.is_ok() {
            changes.borrow_and_update();
            self.read_settings();
        }
    }

    fn read_settings(&self) {
        let settings = settings_of(&self.control.view(), &self.host_name, &self.host_names);
        *self.settings.write() = Arc::new(settings);
    }

    async fn follow_leaders(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(LEADERS_EVERY);
        loop {
            ticks.tick().await;
            self.read_leaders();
        }
    }

    /// Notes who leads, and has connections of partitions with a new leader look for what they missed.
    fn read_leaders(&self) {
        let state = self.control.view();
        let leader = |partition| match self.hosting.partition(partition) {
            Some(hosted) => hosted.group().leader(),
            None => {
                let placed = state.placements.get(&partition);
                (placed.and_then(|placed| placed.replicas.first().copied()), fleetline_types::Term(0))
            }
        };
        let now: Leaders = Arc::new((0..self.partitions).map(PartitionId).map(leader).collect());
        let before = self.leaders.borrow().clone();
        if before == now {
            return;
        }
        let changed: Vec<u32> = (0..self.partitions)
            .filter(|partition| {
                let at = *partition as usize;
                now[at].0.is_some() && before.get(at) != now.get(at)
            })
            .collect();
        self.leaders.send_replace(now);
        if let Some(connections) = self.connections.get() {
            effects::look_again(connections, self.partitions, &changed);
        }
    }

    /// Where to ask first.
    pub(crate) fn leader_of(&self, partition: PartitionId) -> Option<NodeId> {
        let known = self.leaders.borrow().get(partition.0 as usize).and_then(|(leader, _)| *leader);
        let hosted = self.hosting.partition(partition).and_then(|hosted| hosted.group().leader().0);
        hosted.or(known)
    }

    /// Tries nodes until one leads and answers. `once` is what may be asked only once when the outcome
    /// of asking is unknown.
    async fn at_leader<T, F>(
        &self,
        partition: PartitionId,
        once: bool,
        ask: impl FnMut(NodeId) -> F,
    ) -> Result<T, HubError>
    where
        F: Future<Output = Result<T, HubError>>,
    {
        seek(&format!("partition {}", partition.0), once, || self.leader_of(partition), ask).await
    }

    async fn call(
        &self,
        node: NodeId,
        lane: Lane,
        group: GroupId,
        operation: u32,
        body: Bytes,
    ) -> Result<Bytes, HubError> {
        let answer = self.driver.call(node, lane, group, operation, body, ANSWER).await;
        answer.map_err(|error| match error {
            CallError::NotSent { .. } => HubError::Unavailable(error.to_string()),
            CallError::Unknown { .. } => HubError::Unknown(error.to_string()),
        })
    }

    async fn append_here(&self, partition: PartitionId, batch: Bytes) -> Result<(Appended, u32), HubError> {
        let hosted = self.hosted(partition)?;
        let appended = hosted.append(batch).await?;
        Ok((appended, hosted.device_head().fence))
    }

    fn hosted(&self, partition: PartitionId) -> Result<Arc<fleetline_partition::Partition>, HubError> {
        self.hosting
            .partition(partition)
            .ok_or_else(|| HubError::NotLeader { what: format!("partition {}", partition.0), leader: None })
    }
}

/// The hub's settings out of the control state. What can't be read allows nothing: no policy, no
/// authority, no address.
fn settings_of(state: &ControlState, host_name: &str, host_names: &[String]) -> HubSettings {
    fn read<T: serde::de::DeserializeOwned + Default>(
        state: &ControlState,
        name: &str,
        unreadable: T,
    ) -> (T, u64) {
        let Some(setting) = state.hub.get(name) else { return (T::default(), 0) };
        if setting.value.is_empty() {
            return (T::default(), setting.version);
        }
        match serde_json::from_slice(&setting.value) {
            Ok(value) => (value, setting.version),
            Err(error) => {
                // It was checked before it was stored: a later release's form.
                tracing::error!(name, %error, "hub setting can't be read, so it allows nothing");
                (unreadable, setting.version)
            }
        }
    }
    let (policies, policies_version) = read(state, POLICIES, BTreeMap::new());
    let (access, access_version) = read(state, ACCESS, Access::nobody());
    let (authorities, authorities_version) = read(state, AUTHORITIES, BTreeMap::new());
    let (realtime, realtime_version) = read(state, REALTIME, serde_json::Value::Null);
    HubSettings {
        host_name: host_name.to_owned(),
        host_names: host_names.to_vec(),
        policies,
        policies_version,
        access,
        access_version,
        authorities,
        authorities_version,
        realtime,
        realtime_version,
    }
}

#[async_trait]
impl DeviceHub for NodeDevices {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    fn place(&self) -> ConnectionPlace {
        ConnectionPlace { node: self.driver.node().0, incarnation: self.incarnation, connection: 0 }
    }

    fn settings(&self) -> Arc<HubSettings> {
        self.settings.read().clone()
    }

    async fn put_setting(&self, name: &str, value: Bytes, expected_version: u64) -> Result<(), HubError> {
        let command = ControlCommand::PutHubSetting { name: name.to_owned(), value, expected_version };
        self.control.propose(&command).await.map(drop)
    }

    fn now_ms(&self) -> u64 {
        self.clock.wall().0
    }

    fn random(&self, bytes: &mut [u8]) {
        rand::fill(bytes);
    }

    async fn append(&self, partition: PartitionId, batch: Bytes) -> Result<(Appended, u32), HubError> {
        let this = self.driver.node();
        self.at_leader(partition, true, |node| {
            let batch = batch.clone();
            async move {
                if node == this {
                    return self.append_here(partition, batch).await;
                }
                let group = GroupId::of_partition(partition);
                let answer = self.call(node, Lane::append_of(group), group, operation::APPEND, batch).await?;
                envelope::read_appended(&answer)
            }
        })
        .await
    }

    async fn ask(&self, partition: PartitionId, request: Request) -> Result<DeviceAnswer, HubError> {
        let once = matches!(request, Request::Change(_) | Request::Commit(_));
        // Long answers don't stand before heartbeats and wakes.
        let lane = if matches!(request, Request::List(_)) { Lane::Bulk } else { Lane::Control };
        let this = self.driver.node();
        self.at_leader(partition, once, |node| {
            let request = request.clone();
            async move {
                if node == this {
                    return self.answer(partition, request).await;
                }
                let body = fleetline_devices::DeviceRequest { request: Some(request) }.encode_to_vec();
                let group = GroupId::of_partition(partition);
                let answer = self.call(node, lane, group, operation::ASK, body.into()).await?;
                envelope::read_answer(&answer)
            }
        })
        .await
    }

    async fn call_gateway(&self, node: NodeId, call: GatewayCall) -> Result<GatewayAnswer, HubError> {
        if node == self.driver.node() {
            return Ok(self.at_gateway(call).await);
        }
        let method_ms = call.method.as_ref().map_or(0, |method| method.timeout_ms);
        let limit = WAKE + Duration::from_millis(method_ms);
        let body = call.encode_to_vec().into();
        let answer = self.driver.call(node, Lane::Control, GroupId::CONTROL, operation::GATEWAY, body, limit);
        let answer = answer.await.map_err(|error| match error {
            CallError::NotSent { .. } => HubError::Unavailable(error.to_string()),
            CallError::Unknown { .. } => HubError::Unknown(error.to_string()),
        })?;
        GatewayAnswer::decode(answer.as_ref()).map_err(|error| HubError::Internal(error.to_string()))
    }

    fn leaders(&self) -> watch::Receiver<Leaders> {
        self.leaders.subscribe()
    }
}

impl NodeDevices {
    async fn at_gateway(&self, call: GatewayCall) -> GatewayAnswer {
        let Some(connections) = self.connections.get() else {
            return GatewayAnswer::default();
        };
        call.wakes.iter().for_each(|wake| connections.wake(wake));
        let method = match call.method {
            Some(method) => Some(connections.call(method).await),
            None => None,
        };
        GatewayAnswer { method }
    }
}

/// Answers other nodes.
struct Service {
    devices: Arc<NodeDevices>,
}

impl Service {
    fn anywhere(&self) -> Result<Arc<Anywhere>, String> {
        let set = self.devices.anywhere.get().and_then(Weak::upgrade);
        set.ok_or_else(|| "the node is starting or stopping".to_owned())
    }
}

#[async_trait]
impl PeerService for Service {
    async fn on_call(
        &self,
        from: NodeId,
        group: GroupId,
        operation: u32,
        body: Bytes,
    ) -> Result<Bytes, String> {
        let partition = || group.partition().ok_or_else(|| format!("group {group} is no partition"));
        match operation {
            operation::ASK => {
                let request =
                    fleetline_devices::DeviceRequest::decode(body).map_err(|error| error.to_string())?;
                let request = request.request.ok_or("the request is of a later release")?;
                Ok(envelope::write_answer(self.devices.answer(partition()?, request).await))
            }
            operation::APPEND => {
                Ok(envelope::write_appended(self.devices.append_here(partition()?, body).await))
            }
            operation::GATEWAY => {
                let call = GatewayCall::decode(body).map_err(|error| error.to_string())?;
                Ok(self.devices.at_gateway(call).await.encode_to_vec().into())
            }
            operation::CALL => self.anywhere()?.on_call(body).await,
            operation::READ => self.anywhere()?.on_read(partition()?, body).await,
            operation::TIER => self.anywhere()?.on_tier(from, body).await,
            other => Err(format!("operation {other} is of a later release")),
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetline_cluster::HubSetting;

    use super::*;

    /// A setting in a form that this release can't read allows nothing; one that isn't there is empty.
    #[test]
    fn unreadable_settings_allow_nothing() {
        let of = |name: &str, value: &'static [u8]| {
            let setting = HubSetting { version: 3, value: Bytes::from_static(value) };
            let state =
                ControlState { hub: BTreeMap::from([(name.to_owned(), setting)]), ..ControlState::default() };
            settings_of(&state, "hub", &[])
        };
        let addresses = ["10.1.2.3".parse().unwrap(), "fd12::1".parse().unwrap()];
        let admitted = |settings: &HubSettings| addresses.map(|address| settings.admits(address));
        assert_eq!(admitted(&of(ACCESS, b"")), [true; 2]);
        assert_eq!(
            admitted(&of(ACCESS, br#"{"ipRules":[{"mask":"10.1.2.3","allow":false}]}"#)),
            [false, true]
        );
        for unreadable in [&b"{"[..], br#"{"ipRules":"all"}"#, br#"[1]"#] {
            let settings = of(ACCESS, unreadable);
            assert_eq!((admitted(&settings), settings.access_version), ([false; 2], 3));
        }
        assert!(of(POLICIES, br#"{"owner":1}"#).policies.is_empty());
        assert!(of(AUTHORITIES, br#"{"one":1}"#).authorities.is_empty());
    }
}
