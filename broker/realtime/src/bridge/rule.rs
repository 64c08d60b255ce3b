//! What one bridge lets through, and what it makes of it. No I/O.
//!
//! ```json
//! { "source": "twins",                            "records" (telemetry) or "twins" (twin changes)
//!   "filter": { "device": "truck-*",              exact, or with one * at the end
//!               "properties": { "level": "high" }, application properties that have to be so
//!               "body": { "properties.reported.state": "alarm" } },   paths in a JSON body
//!   "hub": "fleet",
//!   "group": "device/{deviceId}",                 or "user"; without either: everybody
//!   "target": "twinChanged",
//!   "fields": ["properties.reported"] }           parts of the body; none: all of it
//! ```
//!
//! The message has one argument: device, place in the stream, application properties and body. A body that is
//! not JSON travels as Base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fleetline_batch::RecordView;
use fleetline_iothub::bag::SystemProperty;
use fleetline_signalr::Encoded;
use fleetline_signalr::names::{HubName, NameError, check_group, check_user};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use thiserror::Error;

use crate::key::Destination;

/// Conditions and fields of a bridge; each is looked at for each record.
const PARTS_MAX: usize = 64;
/// What the hub's own records of twin changes say of their source.
const TWIN_SOURCE: &[u8] = b"twinChangeEvents";
/// What telemetry says, if it says anything.
const TELEMETRY_SOURCE: &[u8] = b"Telemetry";

/// A bridge that can't be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum BridgeError {
    #[error(transparent)]
    Hub(#[from] NameError),
    #[error("a bridge has group or user, not both")]
    TwoReceivers,
    #[error("a bridge needs a target")]
    NoTarget,
    #[error("a bridge has at most {PARTS_MAX} conditions and fields")]
    TooMany,
    #[error("the template {0:?} has an unknown placeholder")]
    Template(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Source {
    Records,
    Twins,
}

/// A bridge as it stands in the setting.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BridgeSettings {
    pub(crate) source: Source,
    #[serde(default)]
    pub(crate) filter: Filter,
    pub(crate) hub: String,
    #[serde(default)]
    pub(crate) group: Option<String>,
    #[serde(default)]
    pub(crate) user: Option<String>,
    pub(crate) target: String,
    #[serde(default)]
    pub(crate) fields: Vec<String>,
}

/// What has to be so.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Filter {
    pub(crate) device: Option<String>,
    pub(crate) properties: BTreeMap<String, String>,
    pub(crate) body: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Device,
    Module,
    Property(String),
}

/// A text with places for what a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template(Vec<Piece>);

impl Template {
    fn parse(text: &str) -> Result<Template, BridgeError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let bad = || BridgeError::Template(text.to_owned());
            let (name, after) = behind.split_once('}').ok_or_else(bad)?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(match (name, name.strip_prefix("property:")) {
                ("deviceId", _) => Piece::Device,
                ("moduleId", _) => Piece::Module,
                (_, Some(property)) => Piece::Property(property.to_owned()),
                _ => return Err(bad()),
            });
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Template(pieces))
    }

    /// The text for a record; `None` when the record doesn't say what is needed.
    fn fill(&self, record: &Record) -> Option<String> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Device => out.push_str(&record.device),
                Piece::Module => out.push_str(record.module.as_deref()?),
                Piece::Property(name) => out.push_str(record.property(name)?),
            }
        }
        Some(out)
    }
}

#[derive(Clone, Debug)]
enum Receiver {
    All,
    Group(Template),
    User(Template),
}

/// A bridge, prepared.
#[derive(Clone, Debug)]
pub(crate) struct Bridge {
    source: Source,
    filter: Filter,
    hub: HubName,
    receiver: Receiver,
    target: String,
    fields: Vec<String>,
}

/// Where a record is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) enqueued_ms: u64,
}

/// A record, read as far as bridges have asked.
pub(crate) struct Record {
    source: Source,
    is_known: bool,
    device: String,
    module: Option<String>,
    properties: Vec<(String, String)>,
    raw: Bytes,
    place: Place,
    /// The body as JSON; `None` inside when it isn't.
    body: Option<Option<Value>>,
}

impl Record {
    pub(crate) fn new(record: RecordView, place: Place) -> Record {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let system = |wanted: SystemProperty| {
            record.system().find(|(id, _)| *id == wanted as u8).map(|(_, value)| value)
        };
        let source = system(SystemProperty::MessageSource);
        let (source, is_known) = match source.as_deref() {
            Some(TWIN_SOURCE) => (Source::Twins, true),
            None | Some(TELEMETRY_SOURCE) => (Source::Records, true),
            Some(_) => (Source::Records, false),
        };
        Record {
            source,
            is_known,
            device: text(&record.device),
            module: system(SystemProperty::ConnectionModuleId).map(|module| text(&module)),
            properties: record.properties().map(|(name, value)| (text(&name), text(&value))).collect(),
            raw: record.body,
            place,
            body: None,
        }
    }

    fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn body(&mut self) -> Option<&Value> {
        let raw = &self.raw;
        self.body.get_or_insert_with(|| serde_json::from_slice(raw).ok()).as_ref()
    }
}

/// What a path like `a.b.c` leads to.
fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, name| match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    })
}

impl Bridge {
    pub(crate) fn new(settings: BridgeSettings) -> Result<Bridge, BridgeError> {
        let BridgeSettings { source, filter, hub, group, user, target, fields } = settings;
        if target.is_empty() {
            return Err(BridgeError::NoTarget);
        }
        if filter.properties.len() + filter.body.len() + fields.len() > PARTS_MAX {
            return Err(BridgeError::TooMany);
        }
        let receiver = match (group, user) {
            (None, None) => Receiver::All,
            (Some(group), None) => Receiver::Group(Template::parse(&group)?),
            (None, Some(user)) => Receiver::User(Template::parse(&user)?),
            (Some(_), Some(_)) => return Err(BridgeError::TwoReceivers),
        };
        Ok(Bridge { source, filter, hub: HubName::parse(&hub)?, receiver, target, fields })
    }

    pub(crate) fn hub(&self) -> &str {
        self.hub.as_str()
    }

    /// What a record becomes, and for whom; `None` when it isn't let through.
    pub(crate) fn pass(&self, record: &mut Record) -> Option<(Destination, Encoded)> {
        if !record.is_known || record.source != self.source || !self.fits(record) {
            return None;
        }
        let to = match &self.receiver {
            Receiver::All => Destination::All { excluded: Vec::new() },
            Receiver::Group(template) => {
                let name = template.fill(record).filter(|name| check_group(name).is_ok())?;
                Destination::Group { name, excluded: Vec::new() }
            }
            Receiver::User(template) => {
                Destination::User(template.fill(record).filter(|name| check_user(name).is_ok())?)
            }
        };
        let arguments = Value::Array(vec![self.argument(record)]).to_string();
        // A body that a client could not read (too deep) isn't sent.
        let message = Encoded::invocation(&self.target, arguments.into()).ok()?;
        Some((to, message))
    }

    fn fits(&self, record: &mut Record) -> bool {
        let device = match &self.filter.device {
            None => true,
            Some(pattern) => match pattern.strip_suffix('*') {
                Some(prefix) => record.device.starts_with(prefix),
                None => record.device == *pattern,
            },
        };
        let properties = &self.filter.properties;
        if !device || !properties.iter().all(|(name, value)| record.property(name) == Some(value)) {
            return false;
        }
        if self.filter.body.is_empty() {
            return true;
        }
        let Some(body) = record.body() else { return false };
        self.filter.body.iter().all(|(path, value)| at(body, path) == Some(value))
    }

    fn argument(&self, record: &mut Record) -> Value {
        let text = |(name, value): &(String, String)| (name.clone(), Value::from(value.as_str()));
        let properties: Map<String, Value> = record.properties.iter().map(text).collect();
        let base64 = STANDARD.encode(&record.raw);
        let body = match record.body() {
            None => Value::from(base64),
            Some(body) if self.fields.is_empty() => body.clone(),
            Some(body) => {
                let field = |path: &String| Some((path.clone(), at(body, path)?.clone()));
                Value::Object(self.fields.iter().filter_map(field).collect())
            }
        };
        let mut argument = json!({
            "deviceId": record.device,
            "partition": record.place.partition,
            "offset": record.place.offset,
            "enqueuedTime": record.place.enqueued_ms,
            "properties": properties,
            "body": body,
        });
        if let (Some(module), Value::Object(fields)) = (&record.module, &mut argument) {
            fields.insert("moduleId".to_owned(), module.as_str().into());
        }
        argument
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bridge(text: &str) -> Result<Bridge, String> {
        let settings: BridgeSettings = serde_json::from_str(text).map_err(|error| error.to_string())?;
        Bridge::new(settings).map_err(|error| error.to_string())
    }

    fn record(source: Source, device: &str, body: &str) -> Record {
        Record {
            source,
            is_known: true,
            device: device.to_owned(),
            module: None,
            properties: vec![("level".to_owned(), "high".to_owned())],
            raw: Bytes::copy_from_slice(body.as_bytes()),
            place: Place { partition: 1, offset: 2, enqueued_ms: 3 },
            body: None,
        }
    }

    fn argument(message: &Encoded) -> Value {
        let json = message.json();
        let value: Value = serde_json::from_slice(&json[..json.len() - 1]).expect("json");
        value["arguments"][0].clone()
    }

    #[test]
    fn filters_and_templates() {
        let bridge = bridge(
            r#"{"source":"records","hub":"Fleet","group":"device/{deviceId}/{property:level}","target":"t",
                "filter":{"device":"truck-*","properties":{"level":"high"},"body":{"a.b":1,"list.0":"x"}}}"#,
        )
        .expect("bridge");
        let good = r#"{"a":{"b":1},"list":["x"]}"#;
        let (to, message) = bridge.pass(&mut record(Source::Records, "truck-1", good)).expect("passes");
        let name = "device/truck-1/high".to_owned();
        assert_eq!(to, Destination::Group { name, excluded: Vec::new() });
        assert_eq!(bridge.hub(), "fleet");
        assert_eq!(argument(&message)["body"]["a"]["b"], 1);
        assert_eq!(argument(&message)["offset"], 2);
        for (source, device, body) in [
            (Source::Twins, "truck-1", good),
            (Source::Records, "car-1", good),
            (Source::Records, "truck-1", r#"{"a":{"b":2},"list":["x"]}"#),
            (Source::Records, "truck-1", "not json"),
        ] {
            assert!(bridge.pass(&mut record(source, device, body)).is_none(), "{device} {body}");
        }
        let mut other = record(Source::Records, "truck-1", good);
        other.is_known = false;
        assert!(bridge.pass(&mut other).is_none());
        assert!(bridge.pass(&mut record(Source::Records, "truck-a b", good)).is_none(), "no name of a group");
    }

    #[test]
    fn fields_and_bodies() {
        let all = bridge(r#"{"source":"twins","hub":"h","target":"t"}"#).expect("bridge");
        let some =
            bridge(r#"{"source":"twins","hub":"h","target":"t","fields":["a.b","x"]}"#).expect("bridge");
        let pass = |bridge: &Bridge, body| {
            argument(&bridge.pass(&mut record(Source::Twins, "d", body)).expect("passes").1)["body"].clone()
        };
        assert_eq!(pass(&all, r#"{"a":{"b":[1]}}"#), json!({"a":{"b":[1]}}));
        assert_eq!(pass(&some, r#"{"a":{"b":[1]},"c":1}"#), json!({"a.b":[1]}));
        assert_eq!(pass(&all, "\u{1}"), json!("AQ=="));
    }

    #[test]
    fn bad_bridges() {
        for text in [
            r#"{"source":"records","hub":"1","target":"t"}"#,
            r#"{"source":"records","hub":"h","target":""}"#,
            r#"{"source":"records","hub":"h","target":"t","group":"g","user":"u"}"#,
            r#"{"source":"records","hub":"h","target":"t","group":"{nothing}"}"#,
            r#"{"source":"records","hub":"h","target":"t","group":"{deviceId"}"#,
            r#"{"source":"else","hub":"h","target":"t"}"#,
        ] {
            assert!(bridge(text).is_err(), "{text}");
        }
    }
}
