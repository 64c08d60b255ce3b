//! A hub, a front before it, and tokens for both.

use std::sync::Arc;

use fleetline_devices::{CertificateProof, ConnectionPlace, DeviceKey, Op, OpenSession, SubscriptionRow};
use fleetline_gateway::devices::DeviceGateway;
use fleetline_gateway::devices::connections::Connections;
use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::devices::ingest::{Ingest, IngestOptions};
use fleetline_gateway::devices::login::ShownCertificate;
use fleetline_gateway::devices::settings::{HubSettings, default_policies};
use fleetline_gateway::http::{
    HttpContext, HttpLimits, ObjectFront, ObjectLimits, PeerInfo, WebSocketStream, serve,
};
use fleetline_iothub::sas::{SasKey, generate_token};
use futures::FutureExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::client::{Client, Reply};
use crate::hub::TestHub;

/// The key of all policies.
pub const POLICY_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// The key of devices that [`World::add_device`] makes.
pub const DEVICE_KEY: &str = "BBECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// What requests say.
pub const VERSION: &str = "api-version=2021-04-12";

/// A hub with its front.
pub struct World {
    pub hub: Arc<TestHub>,
    pub context: Arc<HttpContext>,
    pub connections: Arc<Connections>,
    _ingest: JoinSet<()>,
}

impl World {
    pub fn new() -> World {
        World::with(Arc::new(InMemory::new()), ObjectLimits::default(), HttpLimits::default())
    }

    pub fn with(store: Arc<dyn ObjectStore>, objects: ObjectLimits, limits: HttpLimits) -> World {
        let settings = HubSettings {
            host_name: "hub.example".into(),
            host_names: vec!["hub.example".into()],
            policies: default_policies(|| POLICY_KEY.to_owned()),
            policies_version: 1,
            ..HubSettings::default()
        };
        let hub = TestHub::new(3, settings);
        let connections = Connections::new(1);
        let shared: Arc<dyn DeviceHub> = hub.clone();
        let (ingest, tasks) = Ingest::start(&shared, &connections, IngestOptions::default());
        let gateway = DeviceGateway { hub: shared, connections: connections.clone(), ingest };
        let context = HttpContext {
            gateway: Arc::new(gateway),
            objects: Some(ObjectFront::new(store, objects)),
            websocket: Arc::new(|stream| echo(stream).boxed()),
            amqp_websocket: None,
            mounts: Vec::new(),
            limits,
        };
        World { hub, context: Arc::new(context), connections, _ingest: tasks }
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        self.serve(None, false)
    }

    /// A new connection of somebody who has shown a certificate.
    pub fn connect_with(&self, proof: CertificateProof, chained: bool) -> Client {
        self.serve(Some(Arc::new(ShownCertificate { proof, chain: Vec::new() })), chained)
    }

    fn serve(&self, certificate: Option<Arc<ShownCertificate>>, chained: bool) -> Client {
        let (near, far) = tokio::io::duplex(64 << 10);
        let address = "10.1.2.3:4567".parse().unwrap();
        let peer = PeerInfo { address, certificate, chained: Arc::new(move |_| chained) };
        tokio::spawn(serve(self.context.clone(), far, peer));
        Client { io: near }
    }

    fn token(&self, resource: &str, key: &str, policy: Option<&str>) -> String {
        let expiry = self.hub.now_ms() / 1000 + 3600;
        let token = generate_token(resource, &SasKey::from_base64(key).unwrap(), expiry, policy);
        format!("Authorization: {token}")
    }

    /// The header of a policy.
    pub fn policy(&self, name: &str) -> String {
        self.token("hub.example", POLICY_KEY, Some(name))
    }

    /// The header of a device's own key.
    pub fn own(&self, device: &str) -> String {
        self.token(&format!("hub.example/devices/{device}"), DEVICE_KEY, None)
    }

    /// A request of the hub's owner.
    pub async fn owner(&self, method: &str, target: &str, headers: &[&str], body: &str) -> Reply {
        self.request(&self.policy("iothubowner"), method, target, headers, body.as_bytes()).await
    }

    /// A request of a device.
    pub async fn device(
        &self,
        device: &str,
        method: &str,
        target: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Reply {
        self.request(&self.own(device), method, target, headers, body).await
    }

    /// A request on a connection of its own. The version is added.
    pub async fn request(
        &self,
        login: &str,
        method: &str,
        target: &str,
        headers: &[&str],
        body: &[u8],
    ) -> Reply {
        let separator = if target.contains('?') { '&' } else { '?' };
        let target = format!("{target}{separator}{VERSION}");
        let mut headers = headers.to_vec();
        headers.push(login);
        self.connect().call(method, &target, &headers, body).await
    }

    /// Makes a device with [`DEVICE_KEY`]; gives its JSON.
    pub async fn add_device(&self, device: &str) -> Value {
        let body = format!(
            "{{\"deviceId\":\"{device}\",\"authentication\":{{\"symmetricKey\":{{\"primaryKey\":\"{DEVICE_KEY}\",\
             \"secondaryKey\":\"{DEVICE_KEY}\"}}}}}}"
        );
        let reply = self.owner("PUT", &format!("/devices/{device}"), &[], &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// Gives a device a connected session that listens for methods.
    pub async fn connect_device(&self, device: &str) {
        let key = DeviceKey::device(device);
        let auth_version = self.auth_version(&key).await;
        let place = ConnectionPlace { connection: 7, ..self.hub.place() };
        let open = OpenSession { key: key.clone(), auth_version, place, ..OpenSession::default() };
        let opened = self.hub.apply_to(&key, Op::OpenSession(open)).reply.unwrap().opened.unwrap();
        let filter = SubscriptionRow { filter: "$iothub/methods/POST/#".into(), qos: 0 };
        let subscribe = fleetline_devices::Subscribe {
            key: key.clone(),
            epoch: opened.session.epoch,
            add: vec![filter],
            remove: Vec::new(),
        };
        assert_eq!(self.hub.apply_to(&key, Op::Subscribe(subscribe)).reply.unwrap().error, None);
    }

    async fn auth_version(&self, key: &DeviceKey) -> u64 {
        let ask = fleetline_devices::Ask { key: key.clone(), ..fleetline_devices::Ask::default() };
        let partition = self.context.gateway.partition_of(&key.device);
        let answer = self.hub.ask(partition, fleetline_devices::Request::Get(ask)).await.unwrap();
        answer.views[0].device.auth_version
    }

    /// Disables or enables a device behind the front's back.
    pub async fn disable(&self, device: &str) {
        let reply = self.owner("GET", &format!("/devices/{device}"), &[], "").await;
        let mut json = reply.json();
        json["status"] = "disabled".into();
        let reply =
            self.owner("PUT", &format!("/devices/{device}"), &["If-Match: *"], &json.to_string()).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

/// Sends back what comes.
async fn echo(mut stream: WebSocketStream) {
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
    let _ = stream.shutdown().await;
}
