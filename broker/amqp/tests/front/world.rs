//! A hub, the front before it, devices and clients.

use std::sync::Arc;

use fleetline_amqp_front::{AmqpContext, AmqpIdentity, AmqpLimits, serve};
use fleetline_devices::{
    AuthKind, AuthRow, CertificateProof, CommandRow, Condition, DeviceKey, DeviceSpec, Op, PatchTwin,
    PutDevice, SendCommand,
};
use fleetline_gateway::devices::DeviceGateway;
use fleetline_gateway::devices::connections::Connections;
use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::devices::ingest::{Ingest, IngestOptions};
use fleetline_gateway::devices::login::ShownCertificate;
use fleetline_gateway::devices::settings::{HubSettings, default_policies};
use fleetline_gateway::http::PeerInfo;
use fleetline_iothub::sas::{SasKey, generate_token};
use tokio::io::DuplexStream;
use tokio::task::{JoinHandle, JoinSet};

use crate::client::Client;
use crate::hub::TestHub;

/// The key of all policies.
pub const POLICY_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// The key of all devices.
pub const DEVICE_KEY: &str = "BBECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

pub struct World {
    pub hub: Arc<TestHub>,
    pub context: Arc<AmqpContext>,
    pub connections: Arc<Connections>,
    _ingest: JoinSet<()>,
}

impl World {
    /// Two partitions, the devices `a` and `b`.
    pub async fn new() -> World {
        World::with(AmqpLimits::default(), IngestOptions::default(), |_| {}).await
    }

    pub async fn with(
        limits: AmqpLimits,
        ingest: IngestOptions,
        change: impl FnOnce(&mut AmqpIdentity),
    ) -> World {
        let settings = HubSettings {
            host_name: "hub.example".into(),
            host_names: vec!["hub.example".into()],
            policies: default_policies(|| POLICY_KEY.to_owned()),
            policies_version: 1,
            ..HubSettings::default()
        };
        let hub = TestHub::new(2, settings);
        World::over(hub, limits, ingest, change)
    }

    /// Another node before the same hub.
    pub fn over(
        hub: Arc<TestHub>,
        limits: AmqpLimits,
        ingest: IngestOptions,
        change: impl FnOnce(&mut AmqpIdentity),
    ) -> World {
        let connections = Connections::new(1);
        let is_first = hub.connections.set(connections.clone()).is_ok();
        let shared: Arc<dyn DeviceHub> = hub.clone();
        let (ingest, tasks) = Ingest::start(&shared, &connections, ingest);
        let gateway = DeviceGateway { hub: shared, connections: connections.clone(), ingest };
        let mut identity = AmqpIdentity {
            hub_name: "telemetry".into(),
            created_ms: 1_700_000_000_000,
            port: 5671,
            shows_hub_events: false,
        };
        change(&mut identity);
        let context = AmqpContext::new(Arc::new(gateway), hub.clone(), identity, limits);
        let world = World { hub, context, connections, _ingest: tasks };
        if is_first {
            world.add("a");
            world.add("b");
        }
        world
    }

    pub fn add(&self, device: &str) {
        self.put(DeviceKey::device(device), Condition::absent(), false);
    }

    pub fn disable(&self, device: &str) {
        self.put(DeviceKey::device(device), Condition::any(), true);
    }

    pub fn put(&self, key: DeviceKey, condition: Condition, disabled: bool) {
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

    /// A device with a certificate of this thumbprint.
    pub fn add_certified(&self, device: &str, sha256: &str) {
        let key = DeviceKey::device(device);
        let auth = AuthRow {
            kind: AuthKind::SelfSigned as i32,
            primary_thumbprint: sha256.into(),
            secondary_thumbprint: sha256.into(),
            ..AuthRow::default()
        };
        let spec = DeviceSpec { auth, ..DeviceSpec::default() };
        let put =
            PutDevice { key: key.clone(), spec, condition: Condition::absent(), ..PutDevice::default() };
        self.hub.apply_to(&key, Op::PutDevice(put));
    }

    pub fn command(&self, device: &str, command: CommandRow) {
        let key = DeviceKey::device(device);
        self.hub.apply_to(&key, Op::SendCommand(SendCommand { key: key.clone(), command }));
    }

    pub fn desire(&self, device: &str, patch: &str) {
        let key = DeviceKey::device(device);
        let desired = patch.as_bytes().to_vec().into();
        let patch =
            PatchTwin { key: key.clone(), desired, condition: Condition::any(), ..PatchTwin::default() };
        self.hub.apply_to(&key, Op::PatchTwin(patch));
    }

    fn peer(certificate: Option<&str>) -> PeerInfo {
        let shown = |sha256: &str| {
            let proof = CertificateProof {
                sha1: "00".into(),
                sha256: sha256.into(),
                common_name: "x".into(),
                chained: false,
            };
            Arc::new(ShownCertificate { proof, chain: Vec::new() })
        };
        PeerInfo {
            address: "10.1.2.3:4567".parse().unwrap(),
            certificate: certificate.map(shown),
            chained: Arc::new(|_| false),
        }
    }

    /// A connection that says nothing yet, and the task that serves it.
    pub fn pipe(&self, certificate: Option<&str>) -> (DuplexStream, JoinHandle<()>) {
        let (near, far) = tokio::io::duplex(256 << 10);
        let served = tokio::spawn(serve(self.context.clone(), far, World::peer(certificate)));
        (near, served)
    }

    /// A client that has opened its connection, without SASL, and a session on channel 0.
    pub async fn client(&self) -> Client {
        self.client_with(None).await
    }

    pub async fn client_with(&self, certificate: Option<&str>) -> Client {
        let (near, served) = self.pipe(certificate);
        let mut client = Client::new(near, served);
        client.open().await;
        client.begin(0).await;
        client
    }

    /// A client that has put these tokens.
    pub async fn client_of(&self, tokens: &[String]) -> Client {
        let mut client = self.client().await;
        client.cbs().await;
        for token in tokens {
            assert_eq!(client.put_token(token).await, 200);
        }
        client
    }

    /// A client of a device with its own token.
    pub async fn device(&self, device: &str) -> Client {
        self.client_of(&[self.token(device)]).await
    }

    /// A client of a service.
    pub async fn service(&self) -> Client {
        self.client_of(&[self.signed("hub.example", POLICY_KEY, 3600, Some("service"))]).await
    }

    /// A token of the device's own key.
    pub fn token(&self, device: &str) -> String {
        self.signed(&format!("hub.example/devices/{device}"), DEVICE_KEY, 1_000_000, None)
    }

    pub fn signed(&self, resource: &str, key: &str, seconds: i64, policy: Option<&str>) -> String {
        let expiry = (self.hub.now_ms() / 1000).saturating_add_signed(seconds);
        generate_token(resource, &SasKey::from_base64(key).unwrap(), expiry, policy)
    }

    /// A token as Event Hubs SDKs sign it: with the text of the key.
    pub fn signed_by_text(&self, resource: &str, policy: &str) -> String {
        let expiry = self.hub.now_ms() / 1000 + 3600;
        generate_token(resource, &SasKey::new(POLICY_KEY.as_bytes()).unwrap(), expiry, Some(policy))
    }
}
