//! A hub, the front before it, and devices.

use std::sync::Arc;

use fleetline_devices::{
    AuthKind, AuthRow, CommandRow, Condition, DeviceKey, DeviceSpec, Op, PatchTwin, PutDevice, SendCommand,
};
use fleetline_gateway::devices::DeviceGateway;
use fleetline_gateway::devices::connections::Connections;
use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::devices::ingest::{Ingest, IngestOptions};
use fleetline_gateway::devices::settings::{HubSettings, default_policies};
use fleetline_gateway::http::PeerInfo;
use fleetline_gateway::mqtt::{MqttContext, MqttLimits, serve};
use fleetline_iothub::sas::{SasKey, generate_token};
use fleetline_mqtt::{Connect, Version};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::task::JoinSet;

use crate::client::{Client, settle};
use crate::hub::Hub;

/// The key of all policies.
pub const POLICY_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// The key of all devices.
pub const DEVICE_KEY: &str = "BBECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A hub with its front.
pub struct World {
    pub hub: Arc<Hub>,
    pub context: Arc<MqttContext>,
    pub connections: Arc<Connections>,
    _ingest: JoinSet<()>,
}

impl World {
    /// One partition, the devices `a` and `b`.
    pub async fn new() -> World {
        World::with(MqttLimits::default(), IngestOptions::default()).await
    }

    pub async fn with(limits: MqttLimits, ingest: IngestOptions) -> World {
        let settings = HubSettings {
            host_name: "hub.example".into(),
            host_names: vec!["hub.example".into()],
            policies: default_policies(|| POLICY_KEY.to_owned()),
            policies_version: 1,
            ..HubSettings::default()
        };
        let hub = Hub::new(1, settings);
        let connections = Connections::new(1);
        hub.connections.set(connections.clone()).unwrap();
        let shared: Arc<dyn DeviceHub> = hub.clone();
        let (ingest, tasks) = Ingest::start(&shared, &connections, ingest);
        let gateway = DeviceGateway { hub: shared, connections: connections.clone(), ingest };
        let context = MqttContext::new(Arc::new(gateway), limits);
        let world = World { hub, context, connections, _ingest: tasks };
        world.add("a");
        world.add("b");
        settle().await;
        world
    }

    /// Makes a device with [`DEVICE_KEY`].
    pub fn add(&self, device: &str) {
        self.put(device, Condition::absent(), false);
    }

    pub fn disable(&self, device: &str) {
        self.put(device, Condition::any(), true);
    }

    fn put(&self, device: &str, condition: Condition, disabled: bool) {
        let key = DeviceKey::device(device);
        let auth = AuthRow {
            kind: AuthKind::Sas as i32,
            primary_key: DEVICE_KEY.into(),
            secondary_key: DEVICE_KEY.into(),
            ..AuthRow::default()
        };
        let spec = DeviceSpec { auth, disabled, ..DeviceSpec::default() };
        let put = PutDevice { key: key.clone(), spec, condition, ..PutDevice::default() };
        self.hub.apply_to(&key, Op::PutDevice(put));
    }

    /// Sends a command to a device.
    pub fn command(&self, device: &str, body: &[u8]) {
        let key = DeviceKey::device(device);
        let command = CommandRow { body: body.to_vec().into(), ..CommandRow::default() };
        self.hub.apply_to(&key, Op::SendCommand(SendCommand { key: key.clone(), command }));
    }

    /// Changes desired properties.
    pub fn desire(&self, device: &str, patch: &str) {
        let key = DeviceKey::device(device);
        let desired = patch.as_bytes().to_vec().into();
        let patch =
            PatchTwin { key: key.clone(), desired, condition: Condition::any(), ..PatchTwin::default() };
        self.hub.apply_to(&key, Op::PatchTwin(patch));
    }

    /// A new connection that says nothing yet.
    pub fn open(&self) -> Client {
        self.open_with(256 << 10)
    }

    /// The same; this many bytes fit into each direction of its stream.
    pub fn open_with(&self, bytes: usize) -> Client {
        self.open_through(bytes, |far| far)
    }

    /// The same; the server has its end of the stream through something.
    pub fn open_through<IO>(&self, bytes: usize, through: impl FnOnce(DuplexStream) -> IO) -> Client
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (near, far) = tokio::io::duplex(bytes);
        let address = "10.1.2.3:4567".parse().unwrap();
        let peer = PeerInfo { address, certificate: None, chained: Arc::new(|_| false) };
        tokio::spawn(serve(self.context.clone(), through(far), peer));
        Client::new(near, Version::V311)
    }

    /// A token of the device's own key, for a resource, that ends in so many seconds.
    pub fn token(&self, resource: &str, seconds: i64) -> String {
        self.signed(resource, DEVICE_KEY, seconds, None)
    }

    pub fn signed(&self, resource: &str, key: &str, seconds: i64, policy: Option<&str>) -> String {
        let expiry = (self.hub.now_ms() / 1000).saturating_add_signed(seconds);
        generate_token(resource, &SasKey::from_base64(key).unwrap(), expiry, policy)
    }

    /// Logs a device in on 3.1.1 with a session that is kept.
    pub async fn connect(&self, device: &str) -> Client {
        self.connected(device, Version::V311, |_| {}).await
    }

    /// Logs in; must be let in.
    pub async fn connected(
        &self,
        device: &str,
        version: Version,
        change: impl FnOnce(&mut Connect<'_>),
    ) -> Client {
        let (client, answer) = self.login(device, version, change).await;
        assert!(answer.starts_with("connack 0x00"), "{answer}");
        client
    }

    /// Logs in and gives the answer.
    pub async fn login(
        &self,
        device: &str,
        version: Version,
        change: impl FnOnce(&mut Connect<'_>),
    ) -> (Client, String) {
        let client = self.open();
        self.login_on(client, device, version, change).await
    }

    /// Logs in on an open connection and gives the answer.
    pub async fn login_on(
        &self,
        mut client: Client,
        device: &str,
        version: Version,
        change: impl FnOnce(&mut Connect<'_>),
    ) -> (Client, String) {
        let token = self.token(&format!("hub.example/devices/{device}"), 100_000_000);
        let username = format!("hub.example/{device}/?api-version=2021-04-12");
        let mut connect = Connect::new(version, device);
        connect.clean_start = false;
        connect.username = Some(&username);
        connect.password = Some(token.as_bytes());
        if version == Version::V5 {
            connect.properties.session_expiry = 3600;
        }
        change(&mut connect);
        client.connect(&connect).await;
        let answer = client.next().await;
        (client, answer)
    }
}
