//! Calls of the user's HTTP endpoint: what clients do goes out, completions come back.
//!
//! Settings are a list of templates; the first whose patterns match gets the call. What of a URL or header
//! comes from a client can't leave its place: it is percent-encoded, and control characters are
//! replaced. The signature covers the connection's id only, as the public service has it, so an endpoint
//! still needs TLS.
//!
//! Not here: HTTP itself, identities (`Auth` of a template is handed on), and retries (there are none).

use bytes::Bytes;
use serde::Deserialize;
use thiserror::Error;

use crate::access_key::{AccessKeys, Algorithm};
use crate::convert::write_json;
use crate::error::ValueError;
use crate::limits::{ARGUMENTS_DEFAULT, DEPTH_MAX, Limits, UPSTREAM_REPLY_BYTES_MAX, UPSTREAMS_MAX};
use crate::message::{Completion, Invocation, Message, Outcome, Protocol, RECORD_SEPARATOR};
use crate::names::HubName;
use crate::token::Claim;
use crate::{json, msgpack, query};

/// Settings or calls that can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UpstreamError {
    /// More templates than are allowed.
    #[error("there are {count} upstreams, at most {limit} are allowed")]
    TooMany {
        /// How many.
        count: usize,
        /// The bound.
        limit: usize,
    },
    /// A template isn't `http://host…` or `https://host…`, or has a placeholder in its host.
    #[error("url template {index} is not an http or https url with a fixed host")]
    BadTemplate {
        /// Its place, from 0.
        index: usize,
    },
    /// A name would be `.` or `..` in a path: it would lead elsewhere.
    #[error("the name {name:?} can't be part of a url")]
    DotSegment {
        /// The name.
        name: &'static str,
    },
}

/// One upstream, as it stands in settings. Names are those of the public service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct UpstreamSettings {
    /// Where to post, with `{hub}`, `{category}` and `{event}` in path or query.
    pub url_template: String,
    /// Which hubs: `*`, a name, or several with commas between.
    #[serde(default = "any")]
    pub hub_pattern: String,
    /// Which categories: `connections`, `messages`.
    #[serde(default = "any")]
    pub category_pattern: String,
    /// Which events: `connected`, `disconnected`, or the target of a message.
    #[serde(default = "any")]
    pub event_pattern: String,
    /// How to authenticate at the endpoint; not looked at here.
    #[serde(default)]
    pub auth: Option<serde_json::Value>,
}

fn any() -> String {
    "*".to_owned()
}

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// A connection came or went.
    Connections,
    /// A client called a method.
    Messages,
}

impl Category {
    /// Its name in URLs, headers and patterns.
    pub fn name(self) -> &'static str {
        match self {
            Category::Connections => "connections",
            Category::Messages => "messages",
        }
    }
}

/// What a pattern lets through. There is no case in it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    OneOf(Vec<String>),
}

impl Pattern {
    fn parse(text: &str) -> Pattern {
        let names: Vec<String> =
            text.split(',').map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty()).collect();
        if names.is_empty() || names.iter().any(|name| name == "*") {
            Pattern::Any
        } else {
            Pattern::OneOf(names)
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Any => true,
            Pattern::OneOf(names) => names.contains(&name.to_lowercase()),
        }
    }
}

#[derive(Clone, Debug)]
struct Upstream {
    settings: UpstreamSettings,
    hubs: Pattern,
    categories: Pattern,
    events: Pattern,
}

/// All upstreams of a service, in their order.
#[derive(Clone, Debug, Default)]
pub struct Upstreams(Vec<Upstream>);

impl Upstreams {
    /// Checks settings.
    pub fn new(settings: Vec<UpstreamSettings>) -> Result<Upstreams, UpstreamError> {
        let (count, limit) = (settings.len(), UPSTREAMS_MAX);
        if count > limit {
            return Err(UpstreamError::TooMany { count, limit });
        }
        if let Some(index) = settings.iter().position(|one| !is_template(&one.url_template)) {
            return Err(UpstreamError::BadTemplate { index });
        }
        let prepare = |settings: UpstreamSettings| Upstream {
            hubs: Pattern::parse(&settings.hub_pattern),
            categories: Pattern::parse(&settings.category_pattern),
            events: Pattern::parse(&settings.event_pattern),
            settings,
        };
        Ok(Upstreams(settings.into_iter().map(prepare).collect()))
    }

    /// The first upstream that wants this event.
    pub fn find(&self, hub: &HubName, category: Category, event: &str) -> Option<&UpstreamSettings> {
        let wants = |one: &&Upstream| {
            one.hubs.matches(hub.as_str())
                && one.categories.matches(category.name())
                && one.events.matches(event)
        };
        self.0.iter().find(wants).map(|one| &one.settings)
    }
}

fn is_template(url: &str) -> bool {
    let behind = |scheme: &str| {
        let start = url.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &url[scheme.len()..])
    };
    let Some(rest) = behind("https://").or_else(|| behind("http://")) else { return false };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_plain = !host.is_empty() && !host.contains(['{', '}', '@']);
    is_plain && !url.contains(|c: char| c.is_control() || c == ' ')
}

impl UpstreamSettings {
    /// Where to post. A name is one part of the URL, whatever is in it.
    pub fn url(&self, hub: &HubName, category: Category, event: &str) -> Result<String, UpstreamError> {
        let mut out = String::with_capacity(self.url_template.len() + event.len());
        let mut rest = self.url_template.as_str();
        while let Some(at) = rest.find('{') {
            let (before, behind) = rest.split_at(at);
            out.push_str(before);
            let values = [("{hub}", hub.as_str()), ("{category}", category.name()), ("{event}", event)];
            match values.into_iter().find(|(place, _)| behind.starts_with(place)) {
                Some((place, value)) => {
                    query::encode_into(&mut out, checked(value)?);
                    rest = &behind[place.len()..];
                }
                None => {
                    out.push('{');
                    rest = &behind[1..];
                }
            }
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// Dots aren't escaped, and HTTP libraries resolve a segment of dots.
fn checked(value: &str) -> Result<&str, UpstreamError> {
    match value {
        "." => Err(UpstreamError::DotSegment { name: "." }),
        ".." => Err(UpstreamError::DotSegment { name: ".." }),
        value => Ok(value),
    }
}

/// What happened at a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamEvent {
    /// It came.
    Connected,
    /// It went.
    Disconnected {
        /// Why, if it wasn't the client's wish.
        error: Option<String>,
    },
    /// It called a method.
    Message(Invocation),
}

impl UpstreamEvent {
    /// Its category.
    pub fn category(&self) -> Category {
        match self {
            UpstreamEvent::Connected | UpstreamEvent::Disconnected { .. } => Category::Connections,
            UpstreamEvent::Message(_) => Category::Messages,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            UpstreamEvent::Connected => "connected",
            UpstreamEvent::Disconnected { .. } => "disconnected",
            UpstreamEvent::Message(invocation) => &invocation.target,
        }
    }

    /// Content type and body for a client that speaks `protocol`. A message goes in the client's own, without
    /// its frame; everything else is JSON.
    pub fn body(&self, protocol: Protocol) -> Result<(&'static str, Vec<u8>), ValueError> {
        match self {
            UpstreamEvent::Connected => Ok((JSON, br#"{"type":10}"#.to_vec())),
            UpstreamEvent::Disconnected { error: None } => Ok((JSON, br#"{"type":11}"#.to_vec())),
            UpstreamEvent::Disconnected { error: Some(error) } => {
                let mut out = br#"{"type":11,"error":"#.to_vec();
                write_json(&mut out, error);
                out.push(b'}');
                Ok((JSON, out))
            }
            UpstreamEvent::Message(invocation) => {
                let body = Message::Invocation(invocation.clone()).body(protocol)?;
                let content_type = match protocol {
                    Protocol::Json => JSON,
                    Protocol::MessagePack => MSGPACK,
                };
                Ok((content_type, body))
            }
        }
    }
}

const JSON: &str = "application/json";
const MSGPACK: &str = "application/x-msgpack";

/// The connection that a call is about.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Its hub.
    pub hub: &'a HubName,
    /// Its public id.
    pub connection_id: &'a str,
    /// Its user, if known.
    pub user_id: Option<&'a str>,
    /// What its token says of the user.
    pub claims: &'a [Claim],
    /// The query that it connected with, without its `?` and without tokens.
    pub query: &'a str,
}

/// The headers of a call, besides `Content-Type` and authentication.
pub fn headers(caller: &Caller<'_>, event: &UpstreamEvent, keys: &AccessKeys) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("X-ASRS-Connection-Id", printable(caller.connection_id)),
        ("X-ASRS-Hub", caller.hub.to_string()),
        ("X-ASRS-Category", event.category().name().to_owned()),
        ("X-ASRS-Event", printable(event.name())),
        ("X-ASRS-Signature", signature(caller.connection_id, keys)),
        ("X-ASRS-Client-Query", format!("?{}", printable(caller.query))),
    ];
    if let Some(user_id) = caller.user_id {
        headers.push(("X-ASRS-User-Id", printable(user_id)));
    }
    if !caller.claims.is_empty() {
        headers.push(("X-ASRS-User-Claims", claims_text(caller.claims)));
    }
    headers
}

/// One signature of the connection's id per key, so that either opens.
pub fn signature(connection_id: &str, keys: &AccessKeys) -> String {
    let sign = |key: &crate::access_key::AccessKey| {
        let tag = key.sign(Algorithm::Hs256, connection_id.as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256={hex}")
    };
    keys.iter().map(sign).collect::<Vec<_>>().join(",")
}

/// `type: value` with commas between. A reader splits at each comma, so one inside is escaped: else what a
/// user may choose (a display name) could add a claim.
fn claims_text(claims: &[Claim]) -> String {
    let escape = |text: &str| printable(text).replace(',', "%2C");
    let one = |claim: &Claim| format!("{}: {}", escape(&claim.kind), escape(&claim.value));
    claims.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A text that can't end a header: control characters are replaced.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// What the client is answered, whose invocation had `invocation_id`, for an upstream's reply. An upstream
/// that could not be reached counts as status 500.
pub fn outcome(protocol: Protocol, invocation_id: &str, status: u16, body: Bytes) -> Outcome {
    if !(200..300).contains(&status) {
        return Outcome::Error(format!("Invocation failed, status code {status}"));
    }
    if body.is_empty() || status == 204 {
        return Outcome::Void;
    }
    let bad = |what: &str| Outcome::Error(format!("Invocation failed, {what}"));
    if body.len() > UPSTREAM_REPLY_BYTES_MAX {
        return bad("the answer is too long");
    }
    match read_completion(protocol, body) {
        Some(Completion { invocation_id: id, outcome }) if id == invocation_id => outcome,
        Some(_) => bad("the answer is for another invocation"),
        None => bad("the answer is not a completion"),
    }
}

/// A completion in the client's protocol, with or without the frame of a hub message.
fn read_completion(protocol: Protocol, body: Bytes) -> Option<Completion> {
    let limits = Limits {
        message_bytes_max: UPSTREAM_REPLY_BYTES_MAX,
        depth_max: DEPTH_MAX,
        arguments_max: ARGUMENTS_DEFAULT,
        stream_ids_max: 0,
    };
    let completion = |message| match message {
        Ok(Some(Message::Completion(completion))) => Some(completion),
        _ => None,
    };
    match protocol {
        Protocol::Json => {
            let end = body.len() - usize::from(body.ends_with(&[RECORD_SEPARATOR]));
            completion(json::decode(&body.slice(..end), &limits))
        }
        // A length is never read as a completion: where it looks like the array of one, the array behind it
        // stands where headers have to.
        Protocol::MessagePack => completion(msgpack::decode(&body, &limits)).or_else(|| {
            let prefix = msgpack::prefix_len(&body)?;
            completion(msgpack::decode(&body.slice(prefix..), &limits))
        }),
    }
}
