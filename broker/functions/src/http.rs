//! The HTTP doors of function apps, as a mount of the node's HTTPS front.
//!
//! | path | what |
//! |---|---|
//! | `/functions/apps…` | management, with a token of a policy that may write the registry and connect as a service |
//! | `/apps/{app}/{prefix}/…` | functions with HTTP triggers; `{prefix}` is `api` unless `host.json` says otherwise |
//! | `/apps/{app}/runtime/webhooks/eventgrid` | events for functions with Event Grid triggers |
//! | `/api/…`, `/runtime/webhooks/…` | the same, when the first label of the `Host` is the app's name |
//!
//! `/api/health`, `/api/hubs/…` and `/api/v1/…` are the real-time tier's.

mod event_grid;
mod logs;
mod manage;
mod reply;
mod trigger;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleetline_gateway::http::{Body, HttpMount, PeerInfo};
use futures::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};

use crate::app::App;
use crate::functions::Functions;
use crate::ids::same_secret;
use crate::route::{query, segments};
use reply::Refusal;

/// A request with its body.
pub(crate) struct WebRequest {
    pub(crate) method: Method,
    /// The path, not decoded.
    pub(crate) path: String,
    pub(crate) raw_query: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl WebRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let mut found = self.query.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }

    /// `host[:port]` as the caller has written it.
    pub(crate) fn host(&self) -> &str {
        self.header(header::HOST.as_str()).unwrap_or_default()
    }

    /// The key that the caller shows.
    pub(crate) fn key(&self) -> Option<&str> {
        self.header("x-functions-key").or_else(|| self.parameter("code"))
    }

    /// Whether the caller has one of these keys. All are compared: how long it takes says nothing.
    pub(crate) fn has_key<'a>(&self, keys: impl Iterator<Item = &'a String>) -> bool {
        let Some(shown) = self.key() else { return false };
        keys.filter(|key| !key.is_empty()).fold(false, |found, key| same_secret(shown, key) | found)
    }
}

/// Who answers a path.
enum Place {
    Management(Vec<String>),
    App { app: Arc<App>, path: Vec<String> },
    Nobody,
}

/// Whether the real-time tier answers a path beneath `/api/`.
fn is_realtime(path: &str) -> bool {
    let is =
        |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    ["/api/health", "/api/hubs", "/api/v1"].into_iter().any(is)
}

impl HttpMount for Functions {
    fn kind(&self) -> &'static str {
        "functions"
    }

    fn claims(&self, _method: &Method, path: &str) -> bool {
        let begins = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if begins("/functions/apps") || begins("/apps") {
            return true;
        }
        // The host isn't known here: without apps there is nothing that could be meant.
        let is_webhook = begins("/runtime/webhooks");
        !is_realtime(path) && self.any_app(|app| is_webhook || is_of_prefix(app, path))
    }

    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: PeerInfo,
    ) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            let answer = self.route(request, peer).await;
            answer.unwrap_or_else(Refusal::into_response)
        })
    }
}

/// Whether a path can be an HTTP function's of this app, by its prefix.
fn is_of_prefix(app: &App, path: &str) -> bool {
    // An empty prefix would take all paths of the hub; such apps are reached by `/apps/{app}/`.
    let prefix = &app.host.route_prefix;
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(prefix.as_str()));
    !prefix.is_empty() && rest.is_some_and(|rest| rest.starts_with('/'))
}

impl Functions {
    async fn route(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: PeerInfo,
    ) -> Result<Response<Body>, Refusal> {
        let (parts, body) = request.into_parts();
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let place = self.place(parts.uri.path(), host)?;
        let raw_query = parts.uri.query().unwrap_or_default().to_owned();
        let mut request = WebRequest {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: query(&raw_query),
            raw_query,
            headers: parts.headers,
            body: Bytes::new(),
        };
        let options = &self.core.options;
        match place {
            Place::Nobody => Err(Refusal::not_found("no function app is here")),
            Place::Management(path) => {
                // Before the body is read.
                self.check_manager(&request, &path)?;
                request.body = read(body, options.archive_bytes_max, options.http_body_timeout).await?;
                self.manage(request, &path).await
            }
            Place::App { app, path }
                if path.first().is_some_and(|first| first.eq_ignore_ascii_case("runtime")) =>
            {
                request.body = read(body, options.http_body_max, options.http_body_timeout).await?;
                self.webhook(&app, request, &path[1..]).await
            }
            Place::App { app, path } => {
                let admitted = self.admit(&app, &request, &path)?;
                request.body = read(body, options.http_body_max, options.http_body_timeout).await?;
                self.run_http(&app, request, admitted, &peer).await
            }
        }
    }

    fn place(&self, path: &str, host: &str) -> Result<Place, Refusal> {
        let all = segments(path).ok_or_else(|| Refusal::bad("the path can't be decoded"))?;
        let texts: Vec<&str> = all.iter().map(String::as_str).collect();
        match texts.as_slice() {
            ["functions", "apps", ..] => return Ok(Place::Management(all[2..].to_vec())),
            ["apps", name, ..] => {
                return Ok(match self.app(name) {
                    Some(app) => Place::App { app, path: all[2..].to_vec() },
                    None => Place::Nobody,
                });
            }
            _ => {}
        }
        let label = host.split(['.', ':']).next().unwrap_or_default().to_ascii_lowercase();
        Ok(match self.app(&label) {
            Some(app) => Place::App { app, path: all },
            None => Place::Nobody,
        })
    }
}

/// Reads a body within bounds.
async fn read(mut body: Incoming, bytes_max: usize, time: Duration) -> Result<Bytes, Refusal> {
    let too_large = || Refusal::too_large(format!("the body is larger than {bytes_max} bytes"));
    // What says its length is refused before any of it is kept.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(time, Limited::new(&mut body, bytes_max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Refusal::bad(format!("the body can't be read: {error}"))),
        Err(_) => Err(Refusal::timed_out("the body did not come in time")),
    }
}
