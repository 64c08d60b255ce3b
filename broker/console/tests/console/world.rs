//! A console over a test hub, and callers of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fleetline_console::{
    Call, Console, ConsoleParts, Counters, FeedScope, FunctionsView, Live, Meters, Reply, sign_in_token,
};
use fleetline_devices::{
    AuthRow, Condition, ConnectionPlace, DeviceKey, DeviceSpec, Op, OpenSession, PutDevice,
};
use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::devices::settings::{HubSettings, default_policies};
use http::{HeaderMap, Method, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::hub::TestHub;

/// The key of all policies.
pub const POLICY_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// The key of all devices.
pub const DEVICE_KEY: &str = "BBECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A realtime tier that hands on what is published.
pub struct TestLive {
    pub watchers: AtomicUsize,
    sent: mpsc::UnboundedSender<(String, Value)>,
}

impl Live for TestLive {
    fn publish(&self, target: &str, arguments: Value) {
        self.sent.send((target.to_owned(), arguments)).unwrap();
    }

    fn watchers(&self) -> usize {
        self.watchers.load(Ordering::SeqCst)
    }

    fn negotiate(&self, user: &str) -> (String, String) {
        ("/client/?hub=console".to_owned(), format!("token-for-{user}"))
    }
}

struct TestFunctions;

#[async_trait::async_trait]
impl FunctionsView for TestFunctions {
    async fn status(&self) -> Value {
        json!({ "functions": [{ "name": "low-altitude", "state": "running" }] })
    }
}

struct TestMeters(AtomicUsize);

impl Meters for TestMeters {
    /// Five more records out at each look.
    fn read(&self) -> Counters {
        let looks = self.0.fetch_add(1, Ordering::SeqCst) as u64;
        Counters { connections: 9, records_out: looks * 5, bytes_out: looks * 500 }
    }
}

/// A console and what is around it.
pub struct World {
    pub hub: Arc<TestHub>,
    pub live: Arc<TestLive>,
    pub published: mpsc::UnboundedReceiver<(String, Value)>,
    pub console: Arc<Console>,
}

impl World {
    pub fn new() -> World {
        World::with(3, FeedScope::Held, true)
    }

    /// `whole`: with all tiers.
    pub fn with(partitions: u32, scope: FeedScope, whole: bool) -> World {
        let settings = HubSettings {
            host_name: "hub.example".into(),
            policies: default_policies(|| POLICY_KEY.to_owned()),
            ..HubSettings::default()
        };
        let hub = TestHub::new(partitions, settings);
        let (sent, published) = mpsc::unbounded_channel();
        let live = Arc::new(TestLive { watchers: AtomicUsize::new(0), sent });
        let console = Console::new(ConsoleParts {
            hub: hub.clone(),
            devices: hub.clone(),
            functions: whole.then(|| Arc::new(TestFunctions) as Arc<dyn FunctionsView>),
            live: whole.then(|| live.clone() as Arc<dyn Live>),
            meters: whole.then(|| Arc::new(TestMeters(AtomicUsize::new(0))) as Arc<dyn Meters>),
            scope,
            connect_sources: Vec::new(),
        });
        World { hub, live, published, console }
    }

    pub fn add_device(&self, id: &str) {
        self.put(DeviceKey::device(id), false);
    }

    pub fn put(&self, key: DeviceKey, disabled: bool) {
        let auth = AuthRow {
            primary_key: DEVICE_KEY.into(),
            secondary_key: DEVICE_KEY.into(),
            ..AuthRow::default()
        };
        let put = PutDevice {
            spec: DeviceSpec { auth, disabled, ..DeviceSpec::default() },
            condition: Condition::absent(),
            new_primary_key: DEVICE_KEY.into(),
            new_secondary_key: DEVICE_KEY.into(),
            tags: Bytes::from_static(br#"{"region":"alps"}"#),
            desired: Bytes::from_static(br#"{"interval":5,"units":"metric"}"#),
            key: key.clone(),
        };
        self.hub.apply_to(&key.device, Op::PutDevice(put));
    }

    /// Opens a session of a device.
    pub fn connect(&self, id: &str) {
        let place = ConnectionPlace { node: 1, incarnation: 1, connection: 4 };
        let open = OpenSession {
            key: DeviceKey::device(id),
            place,
            auth_version: self.hub.auth_version(id),
            ..OpenSession::default()
        };
        self.hub.apply_to(id, Op::OpenSession(open));
    }

    /// A token of a policy.
    pub fn token(&self, policy: &str) -> String {
        sign_in_token(policy, POLICY_KEY, Duration::from_secs(600), self.hub.now_ms() / 1000).unwrap()
    }

    /// A request as it is.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: &str,
        from: &str,
    ) -> Reply {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        let call = Call {
            method,
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
            address: from.parse().unwrap(),
        };
        self.console.respond(&call).await
    }

    /// Asks the API by a policy. Answers status and JSON.
    pub async fn ask(&self, policy: &str, method: Method, path: &str, body: &str) -> (u16, Value) {
        let path = format!("/console/api/{path}");
        let reply = self.send(method, &path, Some(&self.token(policy)), body, "10.1.2.3").await;
        (reply.status.as_u16(), serde_json::from_slice(&reply.body).unwrap())
    }

    /// GET by the policy `service`; it must be answered.
    pub async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("service", Method::GET, path, "").await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }
}
