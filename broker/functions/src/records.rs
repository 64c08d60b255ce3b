//! Records of the stream, as triggers give them to functions (functions.md §4).
//!
//! ```text
//!   one      value                 SystemProperties, Properties, Offset, SequenceNumber, …
//!   many     list of values        SystemPropertiesArray, PropertiesArray, …, parallel to it
//! ```
//!
//! Python tells one from many only by which of `SystemProperties` and `SystemPropertiesArray` is there, and
//! takes sequence number, offset, key and time of a batch from inside each of its entries; Node reads the
//! arrays. So both are written, always.
//!
//! Which records a trigger gets ([`wanted`]):
//!
//! | trigger | gets |
//! |---|---|
//! | `eventHubTrigger` | telemetry, and the hub's events whose message source its `sources` names |
//! | `twinTrigger` | changes of twins |
//! | `eventGridTrigger` | lifecycle and connection events of devices |
//!
//! Nobody gets what a function could not process (`functionPoison`), and a function doesn't get what it has put into
//! the stream itself unless its binding says `own`.

use bytes::Bytes;
use fleetline_batch::RecordView;
use fleetline_devices::endpoints;
use fleetline_iothub::bag::SystemProperty;
use fleetline_worker::Value;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};

use crate::civil::iso;
use crate::spec::{DataType, StreamKind, StreamTrigger};

/// Message source of records that a function could not process.
pub(crate) const POISON_SOURCE: &str = "functionPoison";
/// Message source of records that functions put into the stream.
pub(crate) const OUTPUT_SOURCE: &str = "functionOutput";
/// Property of such a record: the app and the function that made it.
pub(crate) const ORIGIN_PROPERTY: &str = "iothub-function";
const TWIN_SOURCE: &str = "twinChangeEvents";
const HUB_SOURCES: [&str; 2] = ["deviceLifecycleEvents", "deviceConnectionStateEvents"];

/// A record with its place.
#[derive(Clone, Debug)]
pub(crate) struct StreamRecord {
    pub(crate) offset: u64,
    pub(crate) enqueued_ms: u64,
    pub(crate) view: RecordView,
}

impl StreamRecord {
    pub(crate) fn device(&self) -> String {
        String::from_utf8_lossy(&self.view.device).into_owned()
    }

    pub(crate) fn size(&self) -> usize {
        self.view.body.len() + self.view.device.len() + 64
    }

    fn system(&self, property: SystemProperty) -> Option<String> {
        let mut found = self.view.system().filter(|(id, _)| *id == property.number());
        found.next().map(|(_, value)| String::from_utf8_lossy(&value).into_owned())
    }

    fn source(&self) -> Option<Bytes> {
        let source = SystemProperty::MessageSource.number();
        self.view.system().find(|(id, _)| *id == source).map(|(_, value)| value)
    }

    fn property(&self, name: &str) -> Option<Bytes> {
        self.view.properties().find(|(found, _)| found == name.as_bytes()).map(|(_, value)| value)
    }
}

/// Whether a trigger gets a record. `origin` is the function's own, as [`ORIGIN_PROPERTY`] has it.
pub(crate) fn wanted(trigger: &StreamTrigger, origin: &str, record: &StreamRecord) -> bool {
    let source = record.source();
    let is_source = |name: &str| source.as_ref().is_some_and(|source| source.as_ref() == name.as_bytes());
    if is_source(POISON_SOURCE) {
        return false;
    }
    if is_source(OUTPUT_SOURCE)
        && !trigger.own
        && record.property(ORIGIN_PROPERTY).is_some_and(|found| found == origin.as_bytes())
    {
        return false;
    }
    let named = || {
        let source = source.as_ref().map(|source| String::from_utf8_lossy(source).to_ascii_lowercase());
        trigger.sources.iter().any(|wanted| Some(wanted) == source.as_ref())
    };
    match trigger.kind {
        StreamKind::Twins => is_source(TWIN_SOURCE),
        StreamKind::HubEvents if trigger.sources.is_empty() => {
            HUB_SOURCES.iter().any(|source| is_source(source)) && type_is_wanted(trigger, record)
        }
        StreamKind::HubEvents => named() && type_is_wanted(trigger, record),
        StreamKind::Events => {
            let bits = record.view.endpoints;
            let is_hub_event = bits & endpoints::EVENTS != 0 && bits & endpoints::TELEMETRY == 0;
            !is_hub_event || named()
        }
    }
}

fn type_is_wanted(trigger: &StreamTrigger, record: &StreamRecord) -> bool {
    let is_wanted =
        |kind: &str| trigger.types.is_empty() || trigger.types.contains(&kind.to_ascii_lowercase());
    event_type(record).is_some_and(is_wanted)
}

/// Where records come from, for metadata.
pub(crate) struct Origin<'a> {
    pub(crate) partition: u32,
    pub(crate) group: &'a str,
    pub(crate) hub: &'a str,
    pub(crate) host: &'a str,
}

/// A trigger's value and metadata.
pub(crate) struct TriggerData {
    pub(crate) value: Value,
    pub(crate) metadata: Vec<(String, Value)>,
    /// The same for binding expressions.
    pub(crate) fields: Map<String, Json>,
    pub(crate) body: Map<String, Json>,
}

/// One record.
pub(crate) fn one(trigger: &StreamTrigger, origin: &Origin<'_>, record: &StreamRecord) -> TriggerData {
    let value = match trigger.kind {
        StreamKind::HubEvents => Value::json(&grid_event(origin, record)),
        _ => single_value(trigger.data_type, &record.view.body),
    };
    let mut fields = Map::new();
    if trigger.kind == StreamKind::HubEvents {
        fields.insert("data".to_owned(), grid_data(origin, record));
    } else {
        fields.insert("PartitionContext".to_owned(), context(origin, std::slice::from_ref(record)));
        fields.insert("EnqueuedTimeUtc".to_owned(), iso(record.enqueued_ms).into());
        fields.insert("Offset".to_owned(), record.offset.to_string().into());
        fields.insert("PartitionKey".to_owned(), partition_key(record));
        fields.insert("SequenceNumber".to_owned(), record.offset.into());
        fields.insert("Properties".to_owned(), properties(record));
        fields.insert("SystemProperties".to_owned(), system_properties(record));
    }
    let body = match serde_json::from_slice(&record.view.body) {
        Ok(Json::Object(body)) => body,
        _ => Map::new(),
    };
    TriggerData { value, metadata: metadata(&fields), fields, body }
}

/// Several records.
pub(crate) fn many(trigger: &StreamTrigger, origin: &Origin<'_>, records: &[StreamRecord]) -> TriggerData {
    let each = |make: fn(&StreamRecord) -> Json| Json::Array(records.iter().map(make).collect());
    let mut fields = Map::new();
    fields.insert("PartitionContext".to_owned(), context(origin, records));
    fields.insert("EnqueuedTimeUtcArray".to_owned(), each(|record| iso(record.enqueued_ms).into()));
    fields.insert("OffsetArray".to_owned(), each(|record| record.offset.to_string().into()));
    fields.insert("PartitionKeyArray".to_owned(), each(partition_key));
    fields.insert("SequenceNumberArray".to_owned(), each(|record| record.offset.into()));
    fields.insert("PropertiesArray".to_owned(), each(properties));
    fields.insert("SystemPropertiesArray".to_owned(), each(system_properties));
    let value = many_values(trigger.data_type, records);
    TriggerData { value, metadata: metadata(&fields), fields, body: Map::new() }
}

fn metadata(fields: &Map<String, Json>) -> Vec<(String, Value)> {
    fields.iter().map(|(name, value)| (name.clone(), Value::json(value))).collect()
}

/// JSON as it came, when it is some.
fn raw_json(body: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(body).ok()
}

fn single_value(data_type: DataType, body: &Bytes) -> Value {
    match data_type {
        DataType::Binary => Value::Bytes(body.clone()),
        DataType::Text => Value::Text(String::from_utf8_lossy(body).into_owned()),
        DataType::Any if raw_json(body).is_some() => Value::Json(body.clone()),
        DataType::Any => match std::str::from_utf8(body) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(body.clone()),
        },
    }
}

fn many_values(data_type: DataType, records: &[StreamRecord]) -> Value {
    let bodies = || records.iter().map(|record| &record.view.body);
    let texts = || bodies().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
    match data_type {
        DataType::Binary => Value::BytesList(bodies().cloned().collect()),
        DataType::Text => Value::TextList(texts()),
        DataType::Any => {
            let raw: Option<Vec<&RawValue>> = bodies().map(|body| raw_json(body)).collect();
            if let Some(text) = raw.and_then(|raw| serde_json::to_vec(&raw).ok()) {
                return Value::Json(text.into());
            }
            match bodies().all(|body| std::str::from_utf8(body).is_ok()) {
                true => Value::TextList(texts()),
                false => Value::BytesList(bodies().cloned().collect()),
            }
        }
    }
}

fn context(origin: &Origin<'_>, records: &[StreamRecord]) -> Json {
    let last = records.last();
    json!({
        "ConsumerGroupName": origin.group,
        "EventHubPath": origin.hub,
        "EventHubName": origin.hub,
        "FullyQualifiedNamespace": origin.host,
        "Owner": "",
        "PartitionId": origin.partition.to_string(),
        "RuntimeInformation": {
            "PartitionId": origin.partition.to_string(),
            "LastEnqueuedOffset": last.map(|record| record.offset.to_string()),
            "LastEnqueuedTimeUtc": last.map(|record| iso(record.enqueued_ms)),
            "LastSequenceNumber": last.map(|record| record.offset),
        },
    })
}

fn partition_key(record: &StreamRecord) -> Json {
    match record.view.device.is_empty() {
        true => Json::Null,
        false => record.device().into(),
    }
}

fn properties(record: &StreamRecord) -> Json {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    record
        .view
        .properties()
        .map(|(name, value)| (text(&name), Json::from(text(&value))))
        .collect::<Map<_, _>>()
        .into()
}

/// How the sender has proved itself, spelt out as the public hub does.
fn auth_method(stored: &str, is_module: bool) -> String {
    let scope = if is_module { "module" } else { "device" };
    let (scope, kind, issuer) = match stored {
        "s" => (scope, "sas", "iothub"),
        "p" => ("hub", "sas", "iothub"),
        "x" => (scope, "x509Certificate", "external"),
        other => return other.to_owned(),
    };
    format!(r#"{{"scope":"{scope}","type":"{kind}","issuer":"{issuer}","acceptingIpFilterRule":null}}"#)
}

/// All that the hub says of a record, under the names that readers of the public hub know.
fn system_properties(record: &StreamRecord) -> Json {
    let enqueued = iso(record.enqueued_ms);
    let mut map = Map::new();
    map.insert("SequenceNumber".to_owned(), record.offset.into());
    map.insert("Offset".to_owned(), record.offset.to_string().into());
    map.insert("PartitionKey".to_owned(), partition_key(record));
    map.insert("EnqueuedTimeUtc".to_owned(), enqueued.clone().into());
    map.insert("x-opt-sequence-number".to_owned(), record.offset.into());
    map.insert("x-opt-offset".to_owned(), record.offset.to_string().into());
    map.insert("x-opt-enqueued-time".to_owned(), enqueued.clone().into());
    if !record.view.device.is_empty() {
        map.insert("iothub-connection-device-id".to_owned(), record.device().into());
    }
    let is_module = record.system(SystemProperty::ConnectionModuleId).is_some();
    for (id, value) in record.view.system() {
        let Some(property) = SystemProperty::from_number(id) else { continue };
        let Some(name) = property.routed_name() else { continue };
        let value = String::from_utf8_lossy(&value);
        let value = match property {
            SystemProperty::ConnectionAuthMethod => auth_method(&value, is_module),
            _ => value.into_owned(),
        };
        map.insert(name.to_owned(), value.into());
    }
    map.entry("iothub-enqueuedtime").or_insert_with(|| enqueued.into());
    map.entry("iothub-message-source").or_insert_with(|| "Telemetry".into());
    Json::Object(map)
}

/// The type of a hub event in Event Grid's names.
fn event_type(record: &StreamRecord) -> Option<&'static str> {
    let operation = record.property("opType")?;
    Some(match operation.as_ref() {
        b"createDeviceIdentity" => "Microsoft.Devices.DeviceCreated",
        b"deleteDeviceIdentity" => "Microsoft.Devices.DeviceDeleted",
        b"deviceConnected" => "Microsoft.Devices.DeviceConnected",
        b"deviceDisconnected" => "Microsoft.Devices.DeviceDisconnected",
        b"createModuleIdentity" => "Microsoft.Devices.ModuleCreated",
        b"deleteModuleIdentity" => "Microsoft.Devices.ModuleDeleted",
        b"moduleConnected" => "Microsoft.Devices.ModuleConnected",
        b"moduleDisconnected" => "Microsoft.Devices.ModuleDisconnected",
        b"updateTwin" => "Microsoft.Devices.TwinUpdated",
        b"replaceTwin" => "Microsoft.Devices.TwinReplaced",
        _ => return None,
    })
}

fn grid_data(origin: &Origin<'_>, record: &StreamRecord) -> Json {
    let mut data = Map::new();
    data.insert("hubName".to_owned(), origin.host.split('.').next().unwrap_or_default().into());
    data.insert("deviceId".to_owned(), record.device().into());
    if let Some(module) = record.system(SystemProperty::ConnectionModuleId) {
        data.insert("moduleId".to_owned(), module.into());
    }
    let body: Json = serde_json::from_slice(&record.view.body).unwrap_or(Json::Null);
    let is_connection = event_type(record).is_some_and(|kind| kind.ends_with("onnected"));
    let name = if is_connection { "deviceConnectionStateEventInfo" } else { "twin" };
    data.insert(name.to_owned(), body);
    Json::Object(data)
}

/// A hub event in Event Grid's schema.
fn grid_event(origin: &Origin<'_>, record: &StreamRecord) -> Json {
    let device = record.device();
    let subject = match record.system(SystemProperty::ConnectionModuleId) {
        Some(module) => format!("devices/{device}/modules/{module}"),
        None => format!("devices/{device}"),
    };
    json!({
        "id": crate::ids::guid_of(&["event", origin.host, &origin.partition.to_string(), &record.offset.to_string()]),
        "topic": format!("/hubs/{}", origin.host),
        "subject": subject,
        "eventType": event_type(record).unwrap_or("Microsoft.Devices.Event"),
        "eventTime": iso(record.view.time.0),
        "data": grid_data(origin, record),
        "dataVersion": "",
        "metadataVersion": "1",
    })
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
