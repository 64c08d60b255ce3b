//! Requests to the hub's REST interface: one TLS connection, one request at a time.
//!
//! Called by the commands on devices and function apps, and by `fleetline demo`. Opens its connection with the first request, and again when the hub
//! has closed it in between. Nothing is sent twice: a change whose answer is lost ends as
//! [`CliError::Unknown`].
//!
//! Not here: what a refusal means for its reader (`refusal`), which hub (`hub`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, IF_MATCH, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
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
pub struct Call {
    method: Method,
    path: String,
    /// Behind the version, escaped.
    query: String,
    headers: HeaderMap,
    body: Bytes,
    answer_max: Duration,
    /// Whether it may change something.
    changes: bool,
}

impl Call {
    /// A request for the place that these segments name; each is escaped.
    pub fn new(method: Method, segments: &[&str]) -> Call {
        let changes = method != Method::GET;
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Call {
            method,
            path: path(segments),
            query: String::new(),
            headers,
            body,
            answer_max: ANSWER_MAX,
            changes,
        }
    }

    /// With a parameter behind the question mark.
    pub fn query(mut self, name: &str, value: &str) -> Call {
        self.query.push_str(&format!("&{name}="));
        escape_into(&mut self.query, value);
        self
    }

    /// It only reads, although its method doesn't say so.
    pub fn reads(mut self) -> Call {
        self.changes = false;
        self
    }

    /// With a JSON body.
    pub fn json(mut self, body: &Value) -> Call {
        self.body = body.to_string().into();
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        self
    }

    /// With a body of bytes.
    pub fn bytes(mut self, body: Bytes) -> Call {
        self.body = body;
        self
    }

    /// Only if the etag is still this one; `*` is any.
    ///
    /// # Errors
    /// When it has a character that no header can carry.
    pub fn if_match(self, etag: &str) -> Result<Call, CliError> {
        let bare = etag.trim().trim_matches('"');
        let quoted = if bare == "*" { bare.to_owned() } else { format!("\"{bare}\"") };
        self.header(IF_MATCH, &quoted)
    }

    /// With a header.
    ///
    /// # Errors
    /// When it has a control character.
    pub fn header(mut self, name: HeaderName, value: &str) -> Result<Call, CliError> {
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
            CliError::Usage(format!("{name}: {value:?} has a control character, which no header can carry"))
        })?;
        self.headers.insert(name, value);
        Ok(self)
    }

    /// The hub itself waits for so long before it answers.
    pub fn hub_waits(mut self, time: Duration) -> Call {
        self.answer_max = ANSWER_MAX.saturating_add(time);
        self
    }

    fn request(&self, hub: &Hub) -> Result<Request<Full<Bytes>>, CliError> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(format!("{}?api-version={API_VERSION}{}", self.path, self.query))
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
pub struct Reply {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, whole.
    pub body: Bytes,
}

impl Reply {
    /// Its body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value, CliError> {
        serde_json::from_slice(&self.body)
            .map_err(|error| CliError::Failed(format!("the hub's answer can't be read: {error}")))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A connection to the hub.
pub struct Rest {
    hub: Hub,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Rest {
    /// To this hub; nothing is sent yet.
    pub fn new(hub: Hub) -> Rest {
        Rest { hub, sender: None }
    }

    /// The hub.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Sends a request and waits for its answer, which is no refusal.
    ///
    /// # Errors
    /// What the hub refused, or why it could not be asked.
    pub async fn call(&mut self, call: Call) -> Result<Reply, CliError> {
        let (status, reply) = self.answer(&call).await?;
        match status.is_success() {
            true => Ok(reply),
            false => Err(refused(&call, status, &reply.headers, &reply.body)),
        }
    }

    /// Sends a request and waits for its answer, whatever its status is.
    ///
    /// # Errors
    /// Why the hub could not be asked.
    pub async fn answer(&mut self, call: &Call) -> Result<(StatusCode, Reply), CliError> {
        let answer = async {
            let response = self.send(call).await?;
            whole(call, response).await
        };
        let Ok(answer) = timeout(call.answer_max, answer).await else {
            self.sender = None;
            return Err(call.lost(&format_args!("waited {} s", call.answer_max.as_secs())));
        };
        answer
    }

    /// Sends a request, and gives its answer piece by piece as it comes, for as long as the hub goes on.
    ///
    /// # Errors
    /// What the hub refused, or why there is no more of the answer.
    pub async fn follow(
        &mut self,
        call: Call,
        mut on_piece: impl FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let late = |_| call.lost(&format_args!("waited {} s", call.answer_max.as_secs()));
        let response = timeout(call.answer_max, self.send(&call)).await.map_err(late)??;
        if !response.status().is_success() {
            let (status, reply) = timeout(call.answer_max, whole(&call, response)).await.map_err(late)??;
            return Err(refused(&call, status, &reply.headers, &reply.body));
        }
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame.map_err(|error| call.lost(&error))?.into_data() {
                on_piece(&piece)?;
            }
        }
        Ok(())
    }

    /// Sends a request; what comes is the head of its answer.
    async fn send(&mut self, call: &Call) -> Result<Response<Incoming>, CliError> {
        let request = call.request(&self.hub)?;
        match self.sender().await?.send_request(request).await {
            Ok(response) => Ok(response),
            // The connection ended before any of it was written.
            Err(error) if error.is_canceled() => {
                Err(CliError::Failed(format!("the hub closed the connection: {error}")))
            }
            Err(error) => Err(call.lost(&error)),
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

/// An answer with all of its body.
async fn whole(call: &Call, response: Response<Incoming>) -> Result<(StatusCode, Reply), CliError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| call.lost(&error))?;
    Ok((head.status, Reply { headers: head.headers, body: body.to_bytes() }))
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

/// Joins segments to a path.
fn path(segments: &[&str]) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        escape_into(&mut path, segment);
    }
    path
}

/// Escapes all but the unreserved characters of RFC 3986 §2.3.
fn escape_into(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
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

    /// Parameters are escaped; an answer that goes on is given in pieces, and a refusal as everywhere.
    #[tokio::test]
    async fn pieces() {
        let mut fake = FakeHub::start(vec![said(200, "one\ntwo\n"), said(404, "gone")]).await;
        let mut rest = fake.rest();
        let call = || Call::new(Method::GET, &["logs"]).query("of", "a&b").query("last", "7");
        let mut text = Vec::new();
        let piece = |piece: &[u8]| {
            text.extend_from_slice(piece);
            Ok(())
        };
        rest.follow(call(), piece).await.unwrap();
        assert_eq!(text, b"one\ntwo\n");
        assert_eq!(fake.asked().await.line, "GET /logs?api-version=2021-04-12&of=a%26b&last=7");
        let refused = rest.follow(call(), |_| Ok(())).await.unwrap_err();
        assert!(refused.to_string().starts_with("gone (status 404)"), "{refused}");
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
