//! The HTTPS front: the device API, the service API and the door to WebSockets, over HTTP/1.1.
//!
//! The node accepts connections, does TLS, and gives each one to [`serve`]. A request is routed
//! ([`router`](self)), its caller is checked before its body is read, and then it becomes a few
//! requests to the leaders (`devices::hub`).
//!
//! ```text
//! serve ─► router ─┬► device/   events, commands, uploads      (identity's token or certificate)
//!                  ├► service/  registry, twins, methods, …    (policy's token)
//!                  ├► objects/  uploaded files                 (signed address)
//!                  ├► websocket MQTT as a byte stream
//!                  └► mounts    other tiers of the node: realtime, functions, console
//! ```
//!
//! Invariants:
//! 1. 2xx is said only after a quorum has what was sent. What may or may not have happened is
//!    answered with a text that says so.
//! 2. Everything is bounded before memory is taken ([`HttpLimits`]); the head's bounds are the
//!    parser's, the body is read only once the caller is known.
//! 3. A refusal has the code, the header and the body of the public hub; the caller of a failed login
//!    hears no reason.
//!
//! Not here: TLS, listening, who is an authority (`PeerInfo::chained` answers that), HTTP/2.

mod body;
mod call;
mod caller;
mod case;
mod device;
mod errors;
mod message;
mod objects;
mod path;
mod reply;
mod router;
mod service;
mod stamp;
mod websocket;

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::devices::DeviceGateway;
use crate::devices::login::ShownCertificate;
use call::Call;

pub use objects::{ObjectFront, ObjectLimits};
pub use reply::Body;
pub use websocket::WebSocketStream;

/// A tier of the node that answers requests at paths of its own on this front.
///
/// The front has let the caller's address in; everything else (who is calling, how long a body may
/// be) is the mount's. An answer's body may go on for ever; when the caller is gone it is dropped.
pub trait HttpMount: Send + Sync + 'static {
    /// A name for metrics.
    fn kind(&self) -> &'static str;

    /// Whether it answers this.
    fn claims(&self, method: &Method, path: &str) -> bool;

    /// Answers.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: PeerInfo,
    ) -> BoxFuture<'static, Response<Body>>;
}

/// Takes over a WebSocket.
pub type WebSocketHandler = Arc<dyn Fn(WebSocketStream) -> BoxFuture<'static, ()> + Send + Sync>;

/// Says whether a certificate chains up to an authority of the hub, now.
pub type Chained = Arc<dyn Fn(&ShownCertificate) -> bool + Send + Sync>;

/// Who is at the other end of a connection.
#[derive(Clone)]
pub struct PeerInfo {
    /// Its address.
    pub address: SocketAddr,
    /// The certificate that it showed in the TLS handshake, if any.
    pub certificate: Option<Arc<ShownCertificate>>,
    /// Judges that certificate. Asked at each login, because authorities come and go.
    pub chained: Chained,
}

impl fmt::Debug for PeerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.certificate.as_ref().map(|shown| &shown.proof.common_name);
        f.debug_struct("PeerInfo").field("address", &self.address).field("certificate", &certificate).finish()
    }
}

/// Bounds of the HTTP front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Headers of a request. Default 100, as many as a message may have properties.
    pub headers_max: usize,
    /// Bytes of a request's head. Default 32 KiB; at least 8 KiB.
    pub head_bytes_max: usize,
    /// How long a head may take, and how long a connection may be idle. Default 10 s.
    pub head_timeout: Duration,
    /// How long a body may take, file uploads excepted. Default 60 s.
    pub body_timeout: Duration,
    /// Bytes of a device's batch as it is sent; decoded it may have as many as one message. Default
    /// 512 KiB: Base64 and names around 256 KiB.
    pub batch_body_max: usize,
    /// Bytes of a service's body. Default 1 MiB: a bulk request of 100 identities with twins.
    pub service_body_max: usize,
    /// How long a device's message may wait for its quorum before the outcome is called unknown.
    /// Default 60 s.
    pub commit_wait: Duration,
    /// Identities that one query request looks at before it answers with what it has and a
    /// continuation. Default 10,000.
    pub query_scan_max: usize,
    /// Bytes of a page of twins. Default 4 MiB; one row always fits.
    pub page_bytes_max: usize,
}

impl Default for HttpLimits {
    fn default() -> HttpLimits {
        HttpLimits {
            headers_max: 100,
            head_bytes_max: 32 << 10,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            batch_body_max: 512 << 10,
            service_body_max: 1 << 20,
            commit_wait: Duration::from_secs(60),
            query_scan_max: 10_000,
            page_bytes_max: 4 << 20,
        }
    }
}

/// What the front needs.
pub struct HttpContext {
    /// What the fronts of a node share.
    pub gateway: Arc<DeviceGateway>,
    /// Where uploaded files go; without it, uploads are refused.
    pub objects: Option<Arc<ObjectFront>>,
    /// Takes over WebSockets of MQTT clients.
    pub websocket: WebSocketHandler,
    /// Takes over WebSockets of AMQP clients; without it they are refused.
    pub amqp_websocket: Option<WebSocketHandler>,
    /// Who answers at other paths; the first that claims a request has it.
    pub mounts: Vec<Arc<dyn HttpMount>>,
    /// Bounds.
    pub limits: HttpLimits,
}

/// Serves one connection until it ends. A WebSocket goes on in a task of its own.
pub async fn serve<I>(context: Arc<HttpContext>, io: I, peer: PeerInfo)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = context.limits.clone();
    let (io, cased) = case::wrap(io);
    let answer = move |request: Request<Incoming>| {
        let (context, peer, cased) = (context.clone(), peer.clone(), cased.clone());
        async move {
            let response = respond(context, peer, request).await;
            cased.expect_head(&response);
            Ok::<_, Infallible>(response)
        }
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.head_bytes_max.max(8 << 10))
        .serve_connection(TokioIo::new(io), service_fn(answer))
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "http connection ended");
    }
}

async fn respond(
    context: Arc<HttpContext>,
    peer: PeerInfo,
    request: Request<Incoming>,
) -> Response<reply::Body> {
    let tracking = call::tracking_id(&context.gateway);
    let is_head = request.method() == Method::HEAD;
    let claims = |mount: &&Arc<dyn HttpMount>| mount.claims(request.method(), request.uri().path());
    let (kind, answer) = match context.mounts.iter().find(claims).cloned() {
        Some(mount) => (mount.kind(), mounted(&context, mount, peer, request).await),
        None => router::answer(Call::new(context, peer, request)).await,
    };
    let mut response = match answer {
        Ok(response) => response,
        Err(error) => error.into_response(&tracking),
    };
    let status = response.status().as_u16();
    metrics::counter!("fleetline_http_requests_total", "kind" => kind, "status" => status.to_string())
        .increment(1);
    if is_head {
        // Only files answer HEAD, without a body; a refusal has none either.
        *response.body_mut() = reply::no_body();
    }
    reply::put(&mut response, "x-ms-request-id", &tracking);
    response
}

/// Answers by a mount, when the caller's address may connect.
async fn mounted(
    context: &HttpContext,
    mount: Arc<dyn HttpMount>,
    peer: PeerInfo,
    request: Request<Incoming>,
) -> reply::Answer {
    caller::check_admitted(&context.gateway.hub.settings(), peer.address.ip())?;
    Ok(mount.answer(request, peer).await)
}
