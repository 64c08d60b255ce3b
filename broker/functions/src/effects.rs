//! What a function wants done: its outputs, read in all the forms in which workers give them
//! (functions.md §4).
//!
//! | binding | value |
//! |---|---|
//! | `signalR` | a message `{"target","arguments",…}` or a group action `{"action",…}` |
//! | `twin` | `{"deviceId","moduleId"?,"tags"?,"properties":{"desired":{…}}}`, merged; `"replace":true` replaces |
//! | `command` | `{"deviceId","body"\|"bodyBase64",…}`; with `deviceId` in the binding, the value is the body |
//! | `eventHub` | a body; an object with `bodyBase64` is an event with `deviceId`, `properties`, `contentType` |
//! | `http`, `$return` | the response |
//!
//! Each may be a list. Node gives JSON, Python text, components both; all are taken. Numbers that pass
//! through keep their digits.
//!
//! A value that can't be read fails the invocation: nothing of it is done.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use fleetline_worker::{Binding, HttpMessage, InvocationResult, Value};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::expression::Scope;
use crate::options::EFFECTS_MAX;
use crate::realtime::{Destination, GroupAction, Member};
use crate::spec::FunctionSpec;

/// Name of the output that carries state (`broker/wasm`).
pub(crate) const STATE: &str = "$state";
const RETURN: &str = "$return";

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    Message { hub: String, destination: Destination, target: String, arguments: Bytes },
    Group { hub: String, action: GroupAction },
    Twin(TwinEffect),
    Command(Box<CommandEffect>),
    Event(EventEffect),
}

/// Changes a twin.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TwinEffect {
    pub(crate) device: String,
    pub(crate) module: String,
    /// JSON; empty for none.
    pub(crate) tags: Bytes,
    pub(crate) desired: Bytes,
    pub(crate) replace: bool,
}

/// Sends a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CommandEffect {
    pub(crate) device: String,
    pub(crate) module: String,
    pub(crate) body: Bytes,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) message_id: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) ttl_seconds: Option<u64>,
    pub(crate) ack: Option<String>,
}

/// Appends a record to the stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EventEffect {
    /// The device that it is of, which decides the partition.
    pub(crate) device: Option<String>,
    pub(crate) properties: Vec<(String, String)>,
    pub(crate) content_type: Option<String>,
    pub(crate) body: Bytes,
}

/// What came out of an invocation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Produced {
    pub(crate) effects: Vec<Effect>,
    pub(crate) response: Option<HttpMessage>,
    /// Changes of the function's state; `None` in it removes a key.
    pub(crate) state: BTreeMap<String, Option<Bytes>>,
    /// The value of `$return` when no binding takes it: an answer to a realtime client.
    pub(crate) returned: Option<Value>,
}

/// Reads the outputs of an invocation.
pub(crate) fn produced(
    spec: &FunctionSpec,
    scope: &Scope,
    result: InvocationResult,
) -> Result<Produced, String> {
    let mut all = Produced::default();
    for (name, value) in result.outputs {
        if name == STATE {
            all.state = crate::state::changes(&value)?;
            continue;
        }
        // Outputs that no binding names are dropped, as in the public host.
        if let Some(binding) = spec.outputs().find(|binding| binding.name == name) {
            take(&mut all, binding, scope, value)?;
        }
    }
    if let Some(value) = result.returned {
        match spec.outputs().find(|binding| binding.name == RETURN) {
            Some(binding) => take(&mut all, binding, scope, value)?,
            // The answer to a request may come without a binding (Node).
            None => match value {
                Value::Http(message) => all.response = Some(*message),
                value => all.returned = Some(value),
            },
        }
    }
    Ok(all)
}

fn take(all: &mut Produced, binding: &Binding, scope: &Scope, value: Value) -> Result<(), String> {
    let failed = |reason: String| format!("output {} ({}): {reason}", binding.name, binding.kind);
    if binding.is("http") {
        all.response = Some(response(value));
        return Ok(());
    }
    let reader = Reader::of(binding, scope).map_err(&failed)?;
    let items = items(value, binding.is("eventHub")).map_err(&failed)?;
    for item in items {
        if all.effects.len() >= EFFECTS_MAX {
            return Err(failed(format!("more than {EFFECTS_MAX} effects")));
        }
        all.effects.push(reader.read(item).map_err(&failed)?);
    }
    Ok(())
}

/// A response; a value that is none is the body of one.
pub(crate) fn response(value: Value) -> HttpMessage {
    match value {
        Value::Http(message) => *message,
        Value::Null => HttpMessage { status: Some(204), ..HttpMessage::default() },
        value => HttpMessage { body: Some(value), ..HttpMessage::default() },
    }
}

/// One element of an output.
enum Item {
    Json(Box<RawValue>),
    Text(String),
    Bytes(Bytes),
}

/// The elements of a value. With `bodies`, what isn't JSON is an element itself.
fn items(value: Value, bodies: bool) -> Result<Vec<Item>, String> {
    Ok(match value {
        Value::Null => Vec::new(),
        Value::Text(text) => text_items(text, bodies)?,
        Value::Json(found) => {
            let raw: Box<RawValue> =
                serde_json::from_slice(&found).map_err(|error| format!("not JSON: {error}"))?;
            elements(raw)?
        }
        Value::Bytes(found) if bodies => vec![Item::Bytes(found)],
        Value::Bytes(found) => {
            let text = String::from_utf8(found.into()).map_err(|_| "bytes that are not UTF-8".to_owned())?;
            text_items(text, bodies)?
        }
        Value::TextList(list) if bodies => list.into_iter().map(Item::Text).collect(),
        Value::TextList(list) => {
            let lists =
                list.into_iter().map(|text| text_items(text, bodies)).collect::<Result<Vec<_>, _>>()?;
            lists.into_iter().flatten().collect()
        }
        Value::BytesList(list) if bodies => list.into_iter().map(Item::Bytes).collect(),
        Value::IntList(list) if bodies => list.iter().map(|number| Item::Text(number.to_string())).collect(),
        Value::DoubleList(list) if bodies => {
            list.iter().map(|number| Item::Text(number.to_string())).collect()
        }
        Value::Int(number) if bodies => vec![Item::Text(number.to_string())],
        Value::Double(number) if bodies => vec![Item::Text(number.to_string())],
        other => return Err(format!("{other:?} can't be given to it")),
    })
}

/// Text that holds a JSON object or list is looked into, also where it could be a body: Python gives lists
/// and envelopes as text (`Out[str]`).
fn text_items(text: String, bodies: bool) -> Result<Vec<Item>, String> {
    if bodies && !text.trim_start().starts_with(['[', '{']) {
        return Ok(vec![Item::Text(text)]);
    }
    match RawValue::from_string(text.clone()) {
        Ok(raw) => elements(raw),
        Err(_) if bodies => Ok(vec![Item::Text(text)]),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

fn elements(raw: Box<RawValue>) -> Result<Vec<Item>, String> {
    match raw.get() {
        "null" => return Ok(Vec::new()),
        text if !text.starts_with('[') => return Ok(vec![Item::Json(raw)]),
        _ => {}
    }
    let list: Vec<Box<RawValue>> = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
    Ok(list.into_iter().filter(|item| item.get() != "null").map(Item::Json).collect())
}

/// How one binding's elements are read.
enum Reader {
    SignalR { hub: String },
    Twin { device: Option<String> },
    Command { device: Option<String> },
    EventHub { device: Option<String> },
}

impl Reader {
    fn of(binding: &Binding, scope: &Scope) -> Result<Reader, String> {
        let expanded = |key: &str| -> Result<Option<String>, String> {
            let text = binding.text(key).filter(|text| !text.is_empty());
            text.map(|text| scope.expand(text).map_err(|error| error.to_string())).transpose()
        };
        if binding.is("signalR") {
            let hub = expanded("hubName")?.ok_or("the binding has no hubName")?;
            return Ok(Reader::SignalR { hub });
        }
        let device = expanded("deviceId")?;
        if binding.is("twin") {
            return Ok(Reader::Twin { device });
        }
        if binding.is("command") {
            return Ok(Reader::Command { device });
        }
        if binding.is("eventHub") {
            let device = device.or(expanded("partitionKey")?);
            return Ok(Reader::EventHub { device });
        }
        Err("outputs of this type are not supported".to_owned())
    }

    fn read(&self, item: Item) -> Result<Effect, String> {
        match self {
            Reader::SignalR { hub } => signalr(hub, &json(item)?),
            Reader::Twin { device } => twin(device.as_deref(), &json(item)?),
            Reader::Command { device } => command(device.as_deref(), item),
            Reader::EventHub { device } => event(device.as_deref(), item),
        }
    }
}

fn json(item: Item) -> Result<Box<RawValue>, String> {
    match item {
        Item::Json(raw) => {
            // Python may give JSON inside of a JSON text.
            match serde_json::from_str::<String>(raw.get()) {
                Ok(inner) => RawValue::from_string(inner).map_err(|error| format!("not JSON: {error}")),
                Err(_) => Ok(raw),
            }
        }
        Item::Text(text) => RawValue::from_string(text).map_err(|error| format!("not JSON: {error}")),
        Item::Bytes(_) => Err("bytes can't be given to it".to_owned()),
    }
}

fn parsed<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, String> {
    serde_json::from_str(raw.get()).map_err(|error| error.to_string())
}

/// Empty texts are as good as none.
fn some(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignalRItem<'a> {
    target: Option<String>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    action: Option<String>,
    user_id: Option<String>,
    group_name: Option<String>,
    connection_id: Option<String>,
}

fn signalr(hub: &str, raw: &RawValue) -> Result<Effect, String> {
    let item: SignalRItem<'_> = parsed(raw)?;
    let (user, group, connection) = (some(item.user_id), some(item.group_name), some(item.connection_id));
    let hub = hub.to_owned();
    // "arguments + target required distinguishes a message" (signalr.md §4).
    if let (Some(target), Some(arguments)) = (item.target, item.arguments) {
        if !arguments.get().starts_with('[') {
            return Err("arguments is not a list".to_owned());
        }
        // In the extension's order: connection, user, group, all.
        let destination = match (connection, user, group) {
            (Some(connection), _, _) => Destination::Connection(connection),
            (None, Some(user), _) => Destination::User(user),
            (None, None, Some(group)) => Destination::Group(group),
            (None, None, None) => Destination::All,
        };
        let arguments = Bytes::copy_from_slice(arguments.get().as_bytes());
        return Ok(Effect::Message { hub, destination, target, arguments });
    }
    let action = item.action.ok_or("neither a message (target, arguments) nor a group action")?;
    let member = match (connection, user) {
        (Some(connection), _) => Member::Connection(connection),
        (None, Some(user)) => Member::User(user),
        (None, None) => return Err("a group action has neither userId nor connectionId".to_owned()),
    };
    let action = match (action.to_ascii_lowercase().as_str(), group) {
        // .NET's enum as a number, too.
        ("add" | "0", Some(group)) => GroupAction::Add(member, group),
        ("remove" | "1", Some(group)) => GroupAction::Remove(member, group),
        ("removeall" | "2", _) => GroupAction::RemoveAll(member),
        ("add" | "remove" | "0" | "1", None) => return Err("a group action without groupName".to_owned()),
        (other, _) => return Err(format!("group action {other} is not known")),
    };
    Ok(Effect::Group { hub, action })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TwinItem<'a> {
    device_id: Option<String>,
    module_id: Option<String>,
    #[serde(borrow)]
    tags: Option<&'a RawValue>,
    #[serde(borrow)]
    properties: Option<TwinProperties<'a>>,
    #[serde(borrow)]
    desired: Option<&'a RawValue>,
    #[serde(default)]
    replace: bool,
}

#[derive(Deserialize)]
struct TwinProperties<'a> {
    #[serde(borrow)]
    desired: Option<&'a RawValue>,
}

fn twin(device: Option<&str>, raw: &RawValue) -> Result<Effect, String> {
    let item: TwinItem<'_> = parsed(raw)?;
    let device =
        some(item.device_id).or(device.map(str::to_owned)).ok_or("a twin change without deviceId")?;
    let section = |name: &str, raw: Option<&RawValue>| match raw {
        None => Ok(Bytes::new()),
        Some(raw) if raw.get().starts_with('{') => Ok(Bytes::copy_from_slice(raw.get().as_bytes())),
        Some(_) => Err(format!("{name} is not an object")),
    };
    let tags = section("tags", item.tags)?;
    let desired =
        section("desired", item.properties.and_then(|properties| properties.desired).or(item.desired))?;
    if tags.is_empty() && desired.is_empty() {
        return Err("a twin change with neither tags nor properties.desired".to_owned());
    }
    let module = item.module_id.unwrap_or_default();
    Ok(Effect::Twin(TwinEffect { device, module, tags, desired, replace: item.replace }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CommandItem<'a> {
    device_id: Option<String>,
    module_id: Option<String>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    body_base64: Option<String>,
    #[serde(default)]
    properties: BTreeMap<String, serde_json::Value>,
    message_id: Option<String>,
    correlation_id: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    ttl_seconds: Option<u64>,
    ack: Option<String>,
}

fn command(device: Option<&str>, item: Item) -> Result<Effect, String> {
    let raw = match item {
        Item::Bytes(body) => return whole_body(device, body),
        Item::Text(text) => return whole_body(device, text.into()),
        Item::Json(raw) => raw,
    };
    let found: Option<CommandItem<'_>> = match raw.get().starts_with('{') {
        true => Some(parsed(&raw)?),
        false => None,
    };
    let Some(found) =
        found.filter(|found| device.is_none() || found.body.is_some() || found.body_base64.is_some())
    else {
        return whole_body(device, body_of(&raw));
    };
    let device = some(found.device_id).or(device.map(str::to_owned)).ok_or("a command without deviceId")?;
    let body = match (found.body_base64, found.body) {
        (Some(text), _) => decode(&text)?,
        (None, Some(raw)) => body_of(raw),
        (None, None) => Bytes::new(),
    };
    Ok(Effect::Command(Box::new(CommandEffect {
        device,
        module: found.module_id.unwrap_or_default(),
        body,
        properties: pairs(found.properties)?,
        message_id: some(found.message_id),
        correlation_id: some(found.correlation_id),
        content_type: some(found.content_type),
        content_encoding: some(found.content_encoding),
        ttl_seconds: found.ttl_seconds,
        ack: some(found.ack),
    })))
}

fn whole_body(device: Option<&str>, body: Bytes) -> Result<Effect, String> {
    let device = device.ok_or("a command without deviceId")?.to_owned();
    Ok(Effect::Command(Box::new(CommandEffect { device, body, ..CommandEffect::default() })))
}

/// A JSON text's characters, or the JSON itself.
fn body_of(raw: &RawValue) -> Bytes {
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => text.into(),
        Err(_) => Bytes::copy_from_slice(raw.get().as_bytes()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventItem {
    body_base64: Option<String>,
    device_id: Option<String>,
    partition_key: Option<String>,
    content_type: Option<String>,
    properties: Option<BTreeMap<String, serde_json::Value>>,
}

fn event(device: Option<&str>, item: Item) -> Result<Effect, String> {
    let device = device.map(str::to_owned);
    let plain = |body: Bytes, content_type: Option<&str>| {
        let content_type = content_type.map(str::to_owned);
        Ok(Effect::Event(EventEffect {
            device: device.clone(),
            body,
            content_type,
            ..EventEffect::default()
        }))
    };
    let raw = match item {
        Item::Bytes(body) => return plain(body, None),
        Item::Text(text) => return plain(text.into(), None),
        Item::Json(raw) => raw,
    };
    if !raw.get().starts_with('{') {
        return plain(body_of(&raw), None);
    }
    // An object of the app's own may have fields of other types under these names: then it is a body.
    let envelope = serde_json::from_str::<EventItem>(raw.get()).ok();
    let Some((text, found)) = envelope.and_then(|mut found| Some((found.body_base64.take()?, found))) else {
        return plain(body_of(&raw), Some("application/json"));
    };
    let device = some(found.device_id).or(some(found.partition_key)).or(device);
    let properties = pairs(found.properties.unwrap_or_default())?;
    Ok(Effect::Event(EventEffect {
        device,
        properties,
        content_type: some(found.content_type),
        body: decode(&text)?,
    }))
}

fn decode(text: &str) -> Result<Bytes, String> {
    BASE64.decode(text).map(Bytes::from).map_err(|error| format!("bodyBase64: {error}"))
}

/// Properties are texts; numbers and flags are written as such.
fn pairs(map: BTreeMap<String, serde_json::Value>) -> Result<Vec<(String, String)>, String> {
    let pair = |(name, value): (String, serde_json::Value)| match value {
        serde_json::Value::String(text) => Ok((name, text)),
        serde_json::Value::Number(number) => Ok((name, number.to_string())),
        serde_json::Value::Bool(flag) => Ok((name, flag.to_string())),
        _ => Err(format!("property {name} is not a text")),
    };
    map.into_iter().map(pair).collect()
}

#[cfg(test)]
#[path = "effects_tests.rs"]
mod tests;
