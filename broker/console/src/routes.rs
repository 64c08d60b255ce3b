//! Which part of the console answers a request.
//!
//! Pure: a [`Call`] is a request with its body read, an answer is a [`Reply`]; sockets are the mount's.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};

use crate::access::{Caller, Deed, verify};
use crate::api;
use crate::assets;
use crate::console::Console;
use crate::error::ConsoleError;
use crate::reply::Reply;

/// A request, whole.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its method.
    pub method: Method,
    /// Its path as it came, without the query.
    pub path: String,
    /// Its query as it came.
    pub query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; empty for methods that take none.
    pub body: Bytes,
    /// Where it comes from.
    pub address: IpAddr,
}

impl Call {
    /// The first value of a parameter of the query, decoded.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').map(|part| part.split_once('=').unwrap_or((part, "")));
        let (_, value) = pairs.into_iter().find(|(found, _)| *found == name)?;
        decode(&value.replace('+', "%20"))
    }

    /// A parameter that is a number; `default` when it isn't there, cut to `max`.
    pub(crate) fn number(&self, name: &str, default: usize, max: usize) -> Result<usize, ConsoleError> {
        match self.parameter(name) {
            None => Ok(default),
            Some(text) => match text.parse::<usize>() {
                Ok(number) => Ok(number.clamp(1, max)),
                Err(_) => Err(ConsoleError::Invalid(format!("{name} is not a number"))),
            },
        }
    }

    fn token(&self) -> Option<&str> {
        let value = self.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }
}

/// Percent-decodes once; `None` for a broken escape or what isn't UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| (byte? as char).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push((high << 4 | low) as u8);
    }
    String::from_utf8(out).ok()
}

/// Whether a method has a body here.
pub(crate) fn takes_body(method: &Method) -> bool {
    *method == Method::PATCH
}

/// Answers. Refusals are answers too.
pub(crate) async fn respond(console: &Console, call: &Call) -> Reply {
    match call.path.strip_prefix("/console/api/") {
        Some(rest) => match api_answer(console, call, rest).await {
            Ok(reply) => reply,
            Err(error) => Reply::error(&error),
        },
        None => asset(call),
    }
}

fn asset(call: &Call) -> Reply {
    if call.method != Method::GET && call.method != Method::HEAD {
        return Reply::error(&ConsoleError::Method);
    }
    if call.path == "/console" {
        return Reply::empty(StatusCode::PERMANENT_REDIRECT).with(header::LOCATION, "/console/");
    }
    // The table of names is all there is: no path of a file system is ever made.
    let name = call.path.strip_prefix("/console/").unwrap_or_default();
    match assets::find(if name.is_empty() { "index.html" } else { name }) {
        Some(asset) => asset.reply(call.headers.get(header::IF_NONE_MATCH)),
        None => Reply::error(&ConsoleError::NotFound("this path".to_owned())),
    }
}

/// Who calls. Too many failures of an address are answered before anything is verified.
pub(crate) fn caller(console: &Console, call: &Call) -> Result<Caller, ConsoleError> {
    let now_ms = console.devices.now_ms();
    if let Some(seconds) = console.failures.wait(call.address, now_ms) {
        return Err(ConsoleError::Throttled(seconds));
    }
    let settings = console.devices.settings();
    // A page without a token asks once and shows its sign-in; that isn't a failure.
    let token = call.token().ok_or(ConsoleError::Unauthorized)?;
    verify(token, &settings, now_ms / 1000).ok_or_else(|| {
        console.failures.count(call.address, now_ms);
        metrics::counter!("fleetline_http_login_refused_total", "reason" => "console").increment(1);
        ConsoleError::Unauthorized
    })
}

async fn api_answer(console: &Console, call: &Call, rest: &str) -> Result<Reply, ConsoleError> {
    let caller = caller(console, call)?;
    let segments: Vec<&str> = rest.split('/').collect();
    let method = &call.method;
    let (get, patch, post) = (*method == Method::GET, *method == Method::PATCH, *method == Method::POST);
    match segments.as_slice() {
        ["session"] if get => Ok(Reply::json(&caller.session())),
        ["status"] if get => {
            caller.check(Deed::Status)?;
            Ok(Reply::json(&api::status::get(console).await))
        }
        ["groups"] if get => {
            caller.check(Deed::Status)?;
            Ok(Reply::json(&api::groups::get(console).await))
        }
        ["functions"] if get => {
            caller.check(Deed::Status)?;
            let functions = console.functions.as_ref().ok_or(ConsoleError::Absent("functions"))?;
            Ok(Reply::json(&functions.status().await))
        }
        ["positions"] if get => {
            caller.check(Deed::Live)?;
            Ok(Reply::json(&console.feed.positions()))
        }
        ["negotiate"] if post => {
            caller.check(Deed::Live)?;
            Ok(Reply::json(&api::negotiate(console, &caller)?))
        }
        ["devices"] if get => Ok(Reply::json(&api::devices::list(console, &caller, call).await?)),
        ["devices", device] if get => {
            let device = id(device)?;
            Ok(Reply::json(&api::devices::get(console, &caller, call, &device).await?))
        }
        ["devices", device, "twin"] if patch => {
            let device = id(device)?;
            Ok(Reply::json(&api::twins::change(console, &caller, call, &device).await?))
        }
        ["devices", device, "telemetry"] if get => {
            let device = id(device)?;
            Ok(Reply::json(&api::telemetry::get(console, &caller, call, &device).await?))
        }
        ["session" | "status" | "groups" | "functions" | "positions" | "negotiate" | "devices"]
        | ["devices", _]
        | ["devices", _, "twin" | "telemetry"] => Err(ConsoleError::Method),
        _ => Err(ConsoleError::NotFound("this path".to_owned())),
    }
}

/// A device's id out of a path.
fn id(segment: &str) -> Result<String, ConsoleError> {
    let id = decode(segment)
        .ok_or_else(|| ConsoleError::Invalid("path has a broken percent escape".to_owned()))?;
    match fleetline_iothub::names::check_device_id(&id) {
        Ok(()) => Ok(id),
        Err(error) => Err(ConsoleError::Invalid(error.to_string())),
    }
}
