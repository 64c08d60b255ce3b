//! Functions with HTTP triggers.
//!
//! The route and the key are judged before the body is read. Requests wait for a place with the worker; how
//! many may wait is bounded, beyond it they get 429. What the function answers is passed on as it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use fleetline_gateway::http::{Body, PeerInfo};
use fleetline_worker::{Cookie, HttpMessage, SameSite, Value};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Map, Value as Json, json};

use super::WebRequest;
use super::reply::{Refusal, full};
use crate::app::App;
use crate::civil::iso;
use crate::direct::{Call, CallError, call};
use crate::functions::Functions;
use crate::spec::{AuthLevel, FunctionSpec, HttpTrigger, Trigger};

/// A request that may run.
pub(crate) struct Admitted {
    spec: Arc<FunctionSpec>,
    parameters: Vec<(String, String)>,
}

/// Counts a request while it runs.
struct Outstanding(Arc<App>);

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Functions {
    /// Finds the function of a path, and judges the caller.
    pub(crate) fn admit(
        &self,
        app: &Arc<App>,
        request: &WebRequest,
        path: &[String],
    ) -> Result<Admitted, Refusal> {
        let nothing = || Refusal::not_found("no function has this route");
        let prefix: Vec<&str> = app.host.route_prefix.split('/').filter(|part| !part.is_empty()).collect();
        let fits = path.len() >= prefix.len()
            && prefix.iter().zip(path).all(|(wanted, found)| found.eq_ignore_ascii_case(wanted));
        let rest = path.get(prefix.len()..).filter(|_| fits).ok_or_else(nothing)?;
        let mut found = Vec::new();
        for spec in &app.functions {
            if let Some(Trigger::Http(http)) = spec.active()
                && let Some(parameters) = http.route.matches(rest)
            {
                found.push((http, spec, parameters));
            }
        }
        if found.is_empty() {
            return Err(nothing());
        }
        found.retain(|(http, ..): &(&HttpTrigger, _, _)| allows(http, &request.method));
        found.sort_by(|(one, ..), (other, ..)| one.route.by_precision(&other.route));
        let Some((http, spec, parameters)) = found.into_iter().next() else {
            return Err(Refusal::method(format!("no function of this route takes {}", request.method)));
        };
        match self.may_call(app, http.level, &spec.name, request) {
            true => Ok(Admitted { spec: spec.clone(), parameters }),
            false => Err(Refusal::unauthorized()),
        }
    }

    /// Whether the caller's key is good for a function.
    pub(crate) fn may_call(&self, app: &App, level: AuthLevel, function: &str, request: &WebRequest) -> bool {
        let keys = app.keys.read();
        let master = std::iter::once(&keys.master);
        match level {
            AuthLevel::Anonymous => true,
            AuthLevel::Admin => request.has_key(master),
            AuthLevel::Function => {
                let own = keys.functions.get(function).into_iter().flat_map(|own| own.values());
                request.has_key(master.chain(keys.host.values()).chain(own))
            }
        }
    }

    pub(crate) async fn run_http(
        self: &Arc<Self>,
        app: &Arc<App>,
        request: WebRequest,
        admitted: Admitted,
        peer: &PeerInfo,
    ) -> Result<Response<Body>, Refusal> {
        let most = app.host.http_outstanding.unwrap_or(self.core.options.http_outstanding);
        let most = app.host.http_concurrency.map_or(most, |limit| most.max(limit));
        let before = app.outstanding.fetch_add(1, Ordering::AcqRel);
        let outstanding = Outstanding(app.clone());
        if before >= most {
            return Err(Refusal::busy(format!("{before} requests of the app run or wait")));
        }
        let Admitted { spec, parameters } = admitted;
        let message = message(&request, parameters);
        let call_of = http_call(self.core.guid(), message, &request, &peer.address.ip().to_string());
        let outcome = call(app, &spec, call_of).await;
        drop(outstanding);
        let produced = outcome.map_err(refusal)?;
        let response = match (produced.response, produced.returned) {
            (Some(response), _) => response,
            (None, Some(value)) => crate::effects::response(value),
            (None, None) => HttpMessage { status: Some(204), ..HttpMessage::default() },
        };
        Ok(reply(response))
    }
}

/// What a caller gets when there is no answer of the function. Its error's text is the app's own; the public host
/// doesn't show it either.
fn refusal(error: CallError) -> Refusal {
    match error {
        CallError::Failed(_) => Refusal::failed("the function failed"),
        CallError::Crashed(_) => Refusal::failed("the function's worker ended"),
        CallError::TimedOut(_) => {
            Refusal { status: StatusCode::GATEWAY_TIMEOUT, ..Refusal::failed("the function took too long") }
        }
        CallError::NotRun(reason) => Refusal::unavailable(reason),
    }
}

fn allows(http: &HttpTrigger, method: &Method) -> bool {
    http.methods.is_empty() || http.methods.iter().any(|allowed| allowed == method.as_str())
}

/// The request as workers get it (functions.md §4): names of headers in lower case.
fn message(request: &WebRequest, params: Vec<(String, String)>) -> HttpMessage {
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        // Keys are for the host.
        (name.as_str() != "x-functions-key").then(|| (name.as_str().to_owned(), value))
    };
    let query_text =
        if request.raw_query.is_empty() { String::new() } else { format!("?{}", request.raw_query) };
    HttpMessage {
        method: request.method.as_str().to_owned(),
        url: format!("https://{}{}{query_text}", request.host(), request.path),
        headers: request.headers.iter().filter_map(header).collect(),
        query: request.query.clone(),
        params,
        body: (!request.body.is_empty()).then(|| Value::Bytes(request.body.clone())),
        status: None,
        cookies: Vec::new(),
    }
}

fn http_call(id: String, message: HttpMessage, request: &WebRequest, address: &str) -> Call {
    let texts = |pairs: &[(String, String)]| -> Map<String, Json> {
        pairs.iter().map(|(name, value)| (name.clone(), Json::from(value.as_str()))).collect()
    };
    let mut fields = texts(&message.query);
    fields.extend(texts(&message.params));
    fields.insert("headers".to_owned(), texts(&message.headers).into());
    fields.insert("query".to_owned(), texts(&message.query).into());
    fields.insert("params".to_owned(), texts(&message.params).into());
    fields.insert("clientAddress".to_owned(), address.into());
    let metadata = ["headers", "query", "params"]
        .into_iter()
        .filter_map(|name| fields.get(name).map(|value| (name.to_owned(), Value::json(value))));
    let metadata = metadata.collect();
    let body = match serde_json::from_slice(&request.body) {
        Ok(Json::Object(body)) => body,
        _ => Map::new(),
    };
    Call { id, value: Value::Http(Box::new(message)), metadata, fields, body, retry: None }
}

/// The function's answer as one of HTTP. Names and values that can't stand in a head are left out.
fn reply(message: HttpMessage) -> Response<Body> {
    let (bytes, kind) = body(message.body);
    let status = message.status.unwrap_or(if bytes.is_empty() { 204 } else { 200 });
    // An empty answer that names no status is fine, too: 200 with nothing is what the public host says.
    let status = StatusCode::from_u16(status)
        .ok()
        .filter(|status| !status.is_informational())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    if let Some(kind) = kind {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    let mut seen = Vec::new();
    for (name, value) in message.headers {
        let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value.as_bytes()))
        else {
            continue;
        };
        // The connection is the front's, and so is the length.
        if matches!(
            name.as_str(),
            "content-length" | "transfer-encoding" | "connection" | "upgrade" | "keep-alive"
        ) {
            continue;
        }
        match seen.contains(&name) {
            true => drop(response.headers_mut().append(name, value)),
            false => {
                seen.push(name.clone());
                response.headers_mut().insert(name, value);
            }
        }
    }
    for cookie in message.cookies {
        if let Ok(value) = HeaderValue::from_str(&cookie_text(&cookie)) {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
    }
    response
}

fn body(value: Option<Value>) -> (Bytes, Option<&'static str>) {
    const TEXT: Option<&str> = Some("text/plain; charset=utf-8");
    const JSON: Option<&str> = Some("application/json; charset=utf-8");
    match value {
        None | Some(Value::Null) => (Bytes::new(), None),
        Some(Value::Text(text)) => (text.into(), TEXT),
        Some(Value::Json(json)) => (json, JSON),
        Some(Value::Bytes(bytes)) => (bytes, Some("application/octet-stream")),
        Some(Value::Int(number)) => (number.to_string().into(), TEXT),
        Some(Value::Double(number)) => (number.to_string().into(), TEXT),
        Some(Value::TextList(list)) => (json!(list).to_string().into(), JSON),
        Some(Value::IntList(list)) => (json!(list).to_string().into(), JSON),
        Some(Value::DoubleList(list)) => (json!(list).to_string().into(), JSON),
        Some(Value::BytesList(list)) => {
            let list: Vec<String> = list.iter().map(|bytes| BASE64.encode(bytes)).collect();
            (json!(list).to_string().into(), JSON)
        }
        Some(Value::Http(inner)) => body(inner.body),
    }
}

/// RFC 6265 §4.1.1.
fn cookie_text(cookie: &Cookie) -> String {
    let clean = |text: &str| text.replace([';', '\r', '\n'], "");
    let mut text = format!("{}={}", clean(&cookie.name), clean(&cookie.value));
    let mut add = |name: &str, value: String| text.push_str(&format!("; {name}{value}"));
    if let Some(domain) = &cookie.domain {
        add("Domain=", clean(domain));
    }
    if let Some(path) = &cookie.path {
        add("Path=", clean(path));
    }
    if let Some(ms) = cookie.expires_ms.and_then(|ms| u64::try_from(ms).ok()) {
        add("Expires=", http_date(ms));
    }
    if let Some(age) = cookie.max_age {
        add("Max-Age=", format!("{}", age as i64));
    }
    if cookie.secure == Some(true) {
        add("Secure", String::new());
    }
    if cookie.http_only == Some(true) {
        add("HttpOnly", String::new());
    }
    match cookie.same_site {
        SameSite::Unset => {}
        SameSite::Lax => add("SameSite=", "Lax".to_owned()),
        SameSite::Strict => add("SameSite=", "Strict".to_owned()),
        SameSite::None => add("SameSite=", "None".to_owned()),
    }
    text
}

/// RFC 9110 §5.6.7.
fn http_date(ms: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = iso(ms);
    let day = DAYS[usize::try_from(ms / 86_400_000 % 7).unwrap_or(0)];
    let month = text[5..7].parse::<usize>().ok().and_then(|month| MONTHS.get(month.wrapping_sub(1)));
    format!("{day}, {} {} {} {} GMT", &text[8..10], month.unwrap_or(&"Jan"), &text[..4], &text[11..19])
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn parts(message: HttpMessage) -> (u16, Vec<(String, String)>, Bytes) {
        let (head, body) = reply(message).into_parts();
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        (
            head.status.as_u16(),
            head.headers.iter().map(header).collect(),
            body.collect().await.unwrap().to_bytes(),
        )
    }

    #[tokio::test]
    async fn answers() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let text = HttpMessage { body: Some(Value::Text("hi".into())), ..HttpMessage::default() };
        let expected = (200, vec![pair("content-type", "text/plain; charset=utf-8")], Bytes::from("hi"));
        assert_eq!(parts(text.clone()).await, expected);
        let own = HttpMessage {
            status: Some(418),
            headers: vec![
                pair("Content-Type", "text/html"),
                pair("x-a", "1"),
                pair("X-A", "2"),
                pair("content-length", "999"),
                pair("bad name", "x"),
                pair("x-bad", "a\r\nset-cookie: b"),
            ],
            ..text
        };
        let headers = vec![pair("content-type", "text/html"), pair("x-a", "1"), pair("x-a", "2")];
        assert_eq!(parts(own).await, (418, headers, Bytes::from("hi")));
        assert_eq!(parts(HttpMessage::default()).await.0, 204);
        assert_eq!(parts(HttpMessage { status: Some(100), ..HttpMessage::default() }).await.0, 500);
        let json = HttpMessage { body: Some(Value::Json("{}".into())), ..HttpMessage::default() };
        assert_eq!(parts(json).await.1[0].1, "application/json; charset=utf-8");
    }

    #[test]
    fn cookies() {
        let cookie = Cookie {
            name: "a".into(),
            value: "b; evil\r\n".into(),
            path: Some("/".into()),
            expires_ms: Some(1_795_500_938_000),
            max_age: Some(60.0),
            secure: Some(true),
            http_only: Some(true),
            same_site: SameSite::Strict,
            ..Cookie::default()
        };
        assert_eq!(
            cookie_text(&cookie),
            "a=b evil; Path=/; Expires=Tue, 24 Nov 2026 06:15:38 GMT; Max-Age=60; Secure; HttpOnly; SameSite=Strict"
        );
    }
}
