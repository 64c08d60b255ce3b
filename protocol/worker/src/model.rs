//! Functions, invocations and their values, as the functions engine sees them.
//!
//! One model for every kind of worker: the FunctionRpc messages (`convert`) are one form of it, a
//! WASM component's types another. The engine builds an [`Invocation`] from a trigger, a worker
//! answers with an [`InvocationResult`]; [`FunctionMetadata`] is what a worker says of the functions
//! that it found in an app.
//!
//! Invariants: lists of pairs keep the order in which they were given, and a name may stand in one
//! twice only where HTTP allows it (headers, query). Bodies are `Bytes`, so a value that goes to
//! several places isn't copied. Nothing here reads a clock or knows a transport.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value as Json};

/// One value of a binding (`TypedData` on the wire, §6.3).
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// No value: an output that wasn't set, a parameter without a value.
    #[default]
    Null,
    /// Text.
    Text(String),
    /// A JSON document as UTF-8 bytes. Not checked: what a worker calls JSON is passed on.
    Json(Bytes),
    /// Bytes without a meaning known to the host.
    Bytes(Bytes),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// An HTTP request (in) or response (out).
    Http(Box<HttpMessage>),
    /// Several texts: a batch.
    TextList(Vec<String>),
    /// Several byte strings: a batch.
    BytesList(Vec<Bytes>),
    /// Several whole numbers.
    IntList(Vec<i64>),
    /// Several numbers.
    DoubleList(Vec<f64>),
}

impl Value {
    /// JSON text of `document`.
    #[must_use]
    pub fn json(document: &Json) -> Self {
        Self::Json(Bytes::from(document.to_string()))
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Bytes that the value holds, for limits. Names and numbers count with their size in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Text(text) => text.len(),
            Self::Json(bytes) | Self::Bytes(bytes) => bytes.len(),
            Self::Int(_) | Self::Double(_) => 8,
            Self::Http(message) => message.size(),
            Self::TextList(list) => list.iter().map(String::len).sum(),
            Self::BytesList(list) => list.iter().map(Bytes::len).sum(),
            Self::IntList(list) => list.len() * 8,
            Self::DoubleList(list) => list.len() * 8,
        }
    }
}

/// An HTTP request as it goes to a function, or the response that comes back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpMessage {
    /// Method in upper case. Empty in a response.
    pub method: String,
    /// The whole URL. Empty in a response.
    pub url: String,
    /// Headers; names in lower case when they go to a worker (§4).
    pub headers: Vec<(String, String)>,
    /// Query parameters, decoded.
    pub query: Vec<(String, String)>,
    /// Parameters of the route.
    pub params: Vec<(String, String)>,
    /// The body; `None` when there is none. Requests carry `Bytes` or `Text`, responses anything.
    pub body: Option<Value>,
    /// Status of a response; `None` in a request, and in a response that leaves it to the host (200,
    /// or 204 without a body).
    pub status: Option<u16>,
    /// Cookies that a response sets.
    pub cookies: Vec<Cookie>,
}

impl HttpMessage {
    /// Bytes that the message holds, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        let pairs = self.headers.iter().chain(&self.query).chain(&self.params);
        let text: usize = pairs.map(|(name, value)| name.len() + value.len()).sum();
        text + self.url.len() + self.body.as_ref().map_or(0, Value::size)
    }
}

/// A cookie that a response sets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// Its value, as it stands in the header.
    pub value: String,
    /// Domain that it is sent to.
    pub domain: Option<String>,
    /// Path that it is sent to.
    pub path: Option<String>,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// Only over TLS.
    pub secure: Option<bool>,
    /// Not for scripts.
    pub http_only: Option<bool>,
    /// Whether it goes along with requests from other sites.
    pub same_site: SameSite,
    /// Seconds that it lives.
    pub max_age: Option<f64>,
}

/// The attribute `SameSite` of a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SameSite {
    /// The attribute is absent.
    #[default]
    Unset,
    /// `Lax`.
    Lax,
    /// `Strict`.
    Strict,
    /// `None`, said outright.
    None,
}

/// Which way a binding goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Into the function: a trigger or an input.
    In,
    /// Out of the function.
    Out,
    /// Both.
    InOut,
}

impl Direction {
    /// Reads `in`, `out` or `inout` in any case: Python writes upper case, Node lower (§2).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "in" => Some(Self::In),
            "out" => Some(Self::Out),
            "inout" => Some(Self::InOut),
            _ => None,
        }
    }
}

/// One binding of a function: its trigger, an input or an output.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// Name of the parameter, or `$return`.
    pub name: String,
    /// What it is: `eventHubTrigger`, `signalR`, … Compare with [`Binding::is`].
    pub kind: String,
    /// Which way it goes.
    pub direction: Direction,
    /// Everything that the app wrote about it, `name`, `type` and `direction` among it. Enums are in
    /// whatever case the worker writes (§2): read them with [`Binding::text`] and compare in any case.
    pub raw: Map<String, Json>,
}

impl Binding {
    /// Reads a binding as it stands in `function.json` and in `raw_bindings`.
    pub fn parse(raw: Map<String, Json>) -> Result<Self, BindingError> {
        let text = |key: &'static str| match find(&raw, key) {
            Some(Json::String(text)) if !text.is_empty() => Ok(text.clone()),
            Some(other) => Err(BindingError::Wrong { key, found: other.to_string() }),
            None => Err(BindingError::Missing { key }),
        };
        let kind = text("type")?;
        // HTTP triggers of old apps leave the name out; it then is `req` (function.json schema).
        let name = match text("name") {
            Err(BindingError::Missing { .. }) if kind.eq_ignore_ascii_case("httpTrigger") => "req".to_owned(),
            other => other?,
        };
        let direction = match text("direction") {
            Ok(text) => Direction::parse(&text)
                .ok_or(BindingError::Wrong { key: "direction", found: text.chars().take(40).collect() })?,
            // A binding without a direction goes in, as a trigger does.
            Err(BindingError::Missing { .. }) => Direction::In,
            Err(other) => return Err(other),
        };
        Ok(Self { name, kind, direction, raw })
    }

    /// Whether the binding's type is `kind`, in any case.
    #[must_use]
    pub fn is(&self, kind: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind)
    }

    /// Whether the binding starts the function.
    #[must_use]
    pub fn is_trigger(&self) -> bool {
        self.kind.len() > 7 && self.kind.to_ascii_lowercase().ends_with("trigger")
    }

    /// Whether it carries a result of the function.
    #[must_use]
    pub fn is_output(&self) -> bool {
        matches!(self.direction, Direction::Out | Direction::InOut)
    }

    /// A property that is text. Names of properties are found in any case.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.property(key).and_then(Json::as_str)
    }

    /// A property. Names of properties are found in any case.
    #[must_use]
    pub fn property(&self, key: &str) -> Option<&Json> {
        find(&self.raw, key)
    }

    /// Whether property `key` is the text `value`, in any case.
    #[must_use]
    pub fn text_is(&self, key: &str, value: &str) -> bool {
        self.text(key).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }
}

fn find<'a>(raw: &'a Map<String, Json>, key: &str) -> Option<&'a Json> {
    raw.get(key).or_else(|| raw.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, v)| v))
}

/// Why a binding can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// A property that every binding has is missing.
    #[error("a binding has no {key}")]
    Missing {
        /// The property.
        key: &'static str,
    },
    /// A property has a value that isn't allowed.
    #[error("a binding has {key} {found}")]
    Wrong {
        /// The property.
        key: &'static str,
        /// What was found.
        found: String,
    },
}

/// How often and when a failed invocation is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries after the first; `None`: for ever (`-1` on the wire).
    pub max: Option<u32>,
    /// Time between tries.
    pub strategy: RetryStrategy,
}

/// Time between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryStrategy {
    /// Always the same.
    Fixed {
        /// Time between tries.
        delay: Duration,
    },
    /// Grows from try to try.
    Exponential {
        /// Before the second try.
        min: Duration,
        /// Longest.
        max: Duration,
    },
}

/// A function that a worker found in an app.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FunctionMetadata {
    /// What an [`Invocation`] names. The same after a restart of the worker.
    pub id: String,
    /// Name of the function.
    pub name: String,
    /// Name in the script, for models that have one.
    pub entry_point: String,
    /// The script, relative to `directory`.
    pub script_file: String,
    /// Folder of the function.
    pub directory: String,
    /// Its bindings, one of them the trigger.
    pub bindings: Vec<Binding>,
    /// What the app says about retries.
    pub retry: Option<RetryPolicy>,
}

impl FunctionMetadata {
    /// The binding that starts the function.
    #[must_use]
    pub fn trigger(&self) -> Option<&Binding> {
        self.bindings.iter().find(|binding| binding.is_trigger())
    }
}

/// Which try an invocation is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RetryContext {
    /// 0 for the first.
    pub count: u32,
    /// Tries allowed after the first; -1: for ever.
    pub max: i32,
    /// Why the last try failed.
    pub error: Option<FunctionError>,
}

/// One call of a function.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Invocation {
    /// A GUID, unique among invocations that run.
    pub id: String,
    /// [`FunctionMetadata::id`].
    pub function: String,
    /// Values of the trigger and the inputs, by the bindings' names.
    pub inputs: Vec<(String, Value)>,
    /// What the trigger says beside its value (§4).
    pub metadata: Vec<(String, Value)>,
    /// W3C `traceparent`.
    pub trace_parent: Option<String>,
    /// Which try it is; `None` when the function has no retry policy.
    pub retry: Option<RetryContext>,
}

impl Invocation {
    /// Bytes of all values, for limits.
    #[must_use]
    pub fn size(&self) -> usize {
        let pairs = self.inputs.iter().chain(&self.metadata);
        pairs.map(|(name, value)| name.len() + value.size()).sum()
    }
}

/// What a function threw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FunctionError {
    /// Its message.
    pub message: String,
    /// Where, as the language prints it.
    pub stack: String,
    /// Its type, as the language names it.
    pub kind: String,
}

/// How an invocation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It returned.
    Success,
    /// It threw.
    Failure(FunctionError),
    /// It was told to stop, and did.
    Cancelled,
}

/// What an invocation gave.
#[derive(Debug, Clone, PartialEq)]
pub struct InvocationResult {
    /// How it ended.
    pub outcome: Outcome,
    /// Values of the output bindings, by name.
    pub outputs: Vec<(String, Value)>,
    /// Value of the binding `$return`, or the response to an HTTP trigger.
    pub returned: Option<Value>,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// For tracing a single step.
    Trace,
    /// For looking for a fault.
    Debug,
    /// The course of things.
    Information,
    /// Unexpected, but it goes on.
    Warning,
    /// Something failed.
    Error,
    /// Nothing goes on.
    Critical,
}

/// One line that a function or its worker wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The invocation that wrote it, where known.
    pub invocation: Option<String>,
    /// How much it matters.
    pub level: LogLevel,
    /// Who wrote it, by the language's own naming.
    pub category: String,
    /// The text, cut to the host's limit.
    pub message: String,
    /// Whether the worker wrote it, not the app.
    pub is_system: bool,
}
