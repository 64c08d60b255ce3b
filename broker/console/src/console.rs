//! The console of a node, and its place on the HTTPS front.

use std::sync::Arc;

use bytes::Bytes;
use fleetline_gateway::devices::hub::DeviceHub;
use fleetline_gateway::http::{Body, HttpMount, PeerInfo};
use fleetline_gateway::hub::Hub;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::api::status::Counts;
use crate::error::ConsoleError;
use crate::failures::Failures;
use crate::feed::Feed;
use crate::limits::{BODY_BYTES_MAX, BODY_TIME, SCANS_MAX};
use crate::live::{FeedScope, FunctionsView, Live, Meters};
use crate::reply::{Reply, content_policy};
use crate::routes::{Call, caller, respond, takes_body};

/// What a console stands on.
pub struct ConsoleParts {
    /// The broker: partitions and their records.
    pub hub: Arc<dyn Hub>,
    /// Devices, settings, the clock.
    pub devices: Arc<dyn DeviceHub>,
    /// Functions, when the node runs any.
    pub functions: Option<Arc<dyn FunctionsView>>,
    /// The realtime tier; without it the page polls.
    pub live: Option<Arc<dyn Live>>,
    /// Counters of this node that no stream tells.
    pub meters: Option<Arc<dyn Meters>>,
    /// Which partitions the feed follows.
    pub scope: FeedScope,
    /// Origins besides the page's own that it may connect to (`wss://live.example`).
    pub connect_sources: Vec<String>,
}

/// The operator's page and what is behind it. Mount it on the front and spawn [`Console::run`].
pub struct Console {
    pub(crate) hub: Arc<dyn Hub>,
    pub(crate) devices: Arc<dyn DeviceHub>,
    pub(crate) functions: Option<Arc<dyn FunctionsView>>,
    pub(crate) live: Option<Arc<dyn Live>>,
    pub(crate) feed: Feed,
    pub(crate) failures: Failures,
    /// Searches for telemetry that may run now.
    pub(crate) scans: Semaphore,
    /// The last counts of all partitions.
    pub(crate) counts: Mutex<Option<Counts>>,
    policy: String,
}

impl Console {
    /// A console over these parts.
    pub fn new(parts: ConsoleParts) -> Arc<Console> {
        let ConsoleParts { hub, devices, functions, live, meters, scope, connect_sources } = parts;
        Arc::new(Console {
            feed: Feed::new(hub.clone(), devices.clone(), meters, scope),
            policy: content_policy(&connect_sources),
            failures: Failures::default(),
            scans: Semaphore::new(SCANS_MAX),
            counts: Mutex::default(),
            hub,
            devices,
            functions,
            live,
        })
    }

    /// Feeds the realtime hub while somebody watches, until it is dropped. Ends at once on a node without
    /// a realtime tier.
    pub async fn run(self: Arc<Self>) {
        if let Some(live) = self.live.clone() {
            self.feed.run(live.as_ref()).await;
        }
    }

    /// Answers a request whose body has been read.
    pub async fn respond(&self, call: &Call) -> Reply {
        respond(self, call).await
    }

    async fn respond_to(&self, request: Request<Incoming>, peer: PeerInfo) -> Reply {
        let (parts, body) = request.into_parts();
        let mut call = Call {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body: Bytes::new(),
            address: peer.address.ip(),
        };
        if takes_body(&call.method) {
            // Nothing is read for somebody unknown.
            call.body = match async { read(caller(self, &call).map(|_| body)?).await }.await {
                Ok(body) => body,
                Err(error) => return Reply::error(&error),
            };
        }
        self.respond(&call).await
    }
}

/// The whole body, bounded in bytes and time.
async fn read(body: Incoming) -> Result<Bytes, ConsoleError> {
    match tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ConsoleError::TooLarge(BODY_BYTES_MAX)),
        Ok(Err(error)) => Err(ConsoleError::Invalid(format!("body can't be read: {error}"))),
        Err(_) => Err(ConsoleError::Slow),
    }
}

impl HttpMount for Console {
    fn kind(&self) -> &'static str {
        "console"
    }

    fn claims(&self, _method: &Method, path: &str) -> bool {
        path == "/console" || path.starts_with("/console/")
    }

    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: PeerInfo,
    ) -> BoxFuture<'static, Response<Body>> {
        async move { self.respond_to(request, peer).await.into_response(&self.policy) }.boxed()
    }
}
