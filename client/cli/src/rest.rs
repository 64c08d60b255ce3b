//! Requests to the hub's REST interface: one TLS connection, one request at a time.
//!
//! Called by the commands on devices. Opens its connection with the first request, and again when the hub
//! has closed it in between. Nothing is sent twice: a change whose answer is lost ends as
//! [`CliError::Unknown`].
//!
//! Not here: what a refusal means for its reader (`refusal`), which hub (`hub`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, IF_MATCH, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::CliError;
use crate::hub::Hub;
use crate::refusal;

/// The version of the interface that requests are written for.
const API_VERSION: &str = "2021-04-12";
/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long an answer may take, when the request itself waits for nothing.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer at the most.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    answer_max: Duration,
    /// Whether it may change something.
    changes: bool,
}

impl Call {
    /// A request for the place that these segments name; each is escaped.
    pub(crate) fn new(method: Method, segments: &[&str]) -> Call {
        let changes = method != Method::GET;
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Call { method, path: path(segments), headers, body, answer_max: ANSWER_MAX, changes }
    }

    /// It only reads, although its method doesn't say so.
    pub(crate) fn reads(mut self) -> Call {
        self.changes = false;
        self
    }

    /// With a JSON body.
    pub(crate) fn json(mut self, body: &Value) -> Call {
        self.body = body.to_string().into();
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        self
    }

    /// With a body of bytes.
    pub(crate) fn bytes(mut self, body: Bytes) -> Call {
        self.body = body;
        self
    }

    /// Only if the etag is still this one; `*` is any.
    pub(crate) fn if_match(self, etag: &str) -> Result<Call, CliError> {
        let bare = etag.trim().trim_matches('"');
        let quoted = if bare == "*" { bare.to_owned() } else { format!("\"{bare}\"") };
        self.header(IF_MATCH, &quoted)
    }

    /// With a header.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Result<Call, CliError> {
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
            CliError::Usage(format!("{name}: {value:?} has a control character, which no header can carry"))
        })?;
        self.headers.insert(name, value);
        Ok(self)
    }

    /// The hub itself waits for so long before it answers.
    pub(crate) fn hub_waits(mut self, time: Duration) -> Call {
        self.answer_max = ANSWER_MAX.saturating_add(time);
        self
    }

    fn request(&self, hub: &Hub) -> Result<Request<Full<Bytes>>, CliError> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(format!("{}?api-version={API_VERSION}", self.path))
            .header(HOST, &hub.name)
            .header(USER_AGENT, concat!("fleetline-cli/", env!("CARGO_PKG_VERSION")))
            .header(AUTHORIZATION, hub.authorization())
            .body(Full::new(self.body.clone()))
            .map_err(|error| CliError::Usage(format!("{}: {error}", self.path)))?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }

    /// What is known of the request when its answer doesn't come.
    fn lost(&self, error: &dyn std::fmt::Display) -> CliError {
        match self.changes {
            true => CliError::Unknown(format!("the hub did not answer: {error}")),
            false => CliError::Failed(format!("the hub did not answer: {error}")),
        }
    }
}

/// An answer that is no refusal.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// Its body as JSON.
    pub(crate) fn json(&self) -> Result<Value, CliError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| CliError::Failed(format!("the hub's answer can't be read: {error}")))
    }

    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A connection to the hub.
pub(crate) struct Rest {
    hub: Hub,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Rest {
    pub(crate) fn new(hub: Hub) -> Rest {
        Rest { hub, sender: None }
    }

    /// The hub.
    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call(&mut self, call: Call) -> Result<Reply, CliError> {
        let request = call.request(&self.hub)?;
        let sender = self.sender().await?;
        let answer = async {
            let response = match sender.send_request(request).await {
                Ok(response) => response,
                // The connection ended before any of it was written.
                Err(error) if error.is_canceled() => {
                    return Err(CliError::Failed(format!("the hub closed the connection: {error}")));
                }
                Err(error) => return Err(call.lost(&error)),
            };
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            Ok((head, body.map_err(|error| call.lost(&error))?.to_bytes()))
        };
        let waited = timeout(call.answer_max, answer).await;
        let (head, body) = match waited {
            Ok(answer) => answer?,
            Err(_) => {
                self.sender = None;
                return Err(call.lost(&format_args!("waited {} s", call.answer_max.as_secs())));
            }
        };
        match head.status {
            status if status.is_success() => Ok(Reply { headers: head.headers, body }),
            status => Err(refused(&call, status, &head.headers, &body)),
        }
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, CliError> {
        let open = match self.sender.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let sender = match open {
            Some(sender) => sender,
            None => timeout(CONNECT_MAX, connect(&self.hub)).await.map_err(|_| {
                unreachable(&self.hub, &format_args!("no answer within {} s", CONNECT_MAX.as_secs()))
            })??,
        };
        Ok(self.sender.insert(sender))
    }
}

fn refused(call: &Call, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> CliError {
    let refusal = refusal::Refusal::read(status, headers, body);
    match call.changes && refusal.is_unknown() {
        true => CliError::Unknown(refusal.to_string()),
        false => CliError::Failed(refusal.to_string()),
    }
}

async fn connect(hub: &Hub) -> Result<SendRequest<Full<Bytes>>, CliError> {
    let bare = |name: &str| name.trim_start_matches('[').trim_end_matches(']').to_owned();
    let stream =
        TcpStream::connect((bare(&hub.host), hub.port)).await.map_err(|error| unreachable(hub, &error))?;
    let name = ServerName::try_from(bare(&hub.name))
        .map_err(|error| CliError::Usage(format!("hub's name {}: {error}", hub.name)))?;
    let stream = TlsConnector::from(Arc::clone(&hub.tls)).connect(name, stream).await.map_err(|error| {
        CliError::Failed(format!(
            "no TLS with {}:{} for the hub {}: {error}\nhint: is it the hub's HTTPS port (--https HOST:PORT), and \
             was its certificate signed by the authority of --authority?",
            hub.host, hub.port, hub.name
        ))
    })?;
    let (sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(hub, &error))?;
    // What goes wrong there is told to whoever waits for an answer.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

fn unreachable(hub: &Hub, error: &dyn std::fmt::Display) -> CliError {
    CliError::Failed(format!(
        "no connection to {}:{}: {error}\nhint: does a node serve HTTPS there? `fleetline serve` takes port 443 only \
         if it may; give it --https-listen ADDR:PORT, and this command --https HOST:PORT (or the environment FLEETLINE_HTTPS)",
        hub.host, hub.port
    ))
}

/// Joins segments to a path. All but the unreserved characters of RFC 3986 §2.3 are escaped.
fn path(segments: &[&str]) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        for byte in segment.bytes() {
            match byte {
                b'-' | b'.' | b'_' | b'~' => path.push(char::from(byte)),
                _ if byte.is_ascii_alphanumeric() => path.push(char::from(byte)),
                _ => path.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use fleetline_iothub::sas::{SasKey, SasToken};
    use serde_json::json;

    use super::*;
    use crate::fake::{FakeHub, KEY, said};

    /// A request carries version, token, condition and body; ids are escaped. A second one goes over the
    /// same connection, a third opens another when the hub has closed it.
    #[tokio::test]
    async fn requests() {
        let mut fake =
            FakeHub::start(vec![said(200, "{\"a\":1}"), said(204, "").closing(), said(200, "[]")]).await;
        let mut rest = fake.rest();
        let put =
            Call::new(Method::PUT, &["devices", "a#b/é"]).json(&json!({"x": 1})).if_match("AA==").unwrap();
        assert_eq!(rest.call(put).await.unwrap().json().unwrap(), json!({"a": 1}));
        let delete = Call::new(Method::DELETE, &["devices", "d"]).if_match("*").unwrap();
        assert!(rest.call(delete).await.unwrap().body.is_empty());
        rest.call(Call::new(Method::GET, &["devices", "d", "modules"])).await.unwrap();

        let asked = fake.asked().await;
        assert_eq!(asked.line, "PUT /devices/a%23b%2F%C3%A9?api-version=2021-04-12");
        assert_eq!(asked.body, b"{\"x\":1}");
        assert_eq!(asked.header("if-match"), "\"AA==\"");
        assert_eq!(asked.header("host"), "localhost");
        let token = SasToken::parse(asked.header("authorization")).unwrap();
        assert!(token.verify(&SasKey::from_base64(KEY).unwrap()));
        assert_eq!((token.resource.as_str(), token.policy.as_deref()), ("localhost", Some("iothubowner")));
        let asked = fake.asked().await;
        assert_eq!((asked.header("if-match"), asked.connection), ("*", 0));
        let asked = fake.asked().await;
        assert_eq!(asked.line, "GET /devices/d/modules?api-version=2021-04-12");
        assert_eq!(asked.connection, 1);
    }

    /// An answer that is cut off leaves a change unknown and a read failed; nobody there is always failed.
    #[tokio::test]
    async fn lost_answers() {
        let fake = FakeHub::start(vec![said(0, ""), said(0, "")]).await;
        let mut rest = fake.rest();
        let put = rest.call(Call::new(Method::PUT, &["devices", "d"])).await.unwrap_err();
        assert_eq!(put.exit_code(), 3, "{put}");
        let get = rest.call(Call::new(Method::GET, &["devices", "d"])).await.unwrap_err();
        assert_eq!(get.exit_code(), 1, "{get}");
        let mut nobody = fake.rest_to_nobody().await;
        let put = nobody.call(Call::new(Method::PUT, &["devices", "d"])).await.unwrap_err();
        assert_eq!(put.exit_code(), 1);
        assert!(put.to_string().contains("--https HOST:PORT"), "{put}");
    }

    /// A hub with another authority's certificate hears no request.
    #[tokio::test]
    async fn strangers_are_not_trusted() {
        let (fake, other) = (FakeHub::start(vec![said(200, "")]).await, FakeHub::start(Vec::new()).await);
        let mut rest = fake.rest_trusting(&other);
        let refused = rest.call(Call::new(Method::GET, &["devices"])).await.unwrap_err();
        assert!(refused.to_string().contains("--authority"), "{refused}");
    }

    /// Values that would end a header are refused before anything is sent.
    #[test]
    fn headers_are_checked() {
        let call = Call::new(Method::POST, &["x"]).if_match("a\r\nx: y");
        assert_eq!(call.unwrap_err().exit_code(), 2);
    }
}
