//! From an invocation to a batch: what the component gets.
//!
//! The engine builds an [`Invocation`] in the form that all workers understand (`functions.md` §4): a
//! value, and metadata beside it, parallel arrays when there are many events. `worker.rs` has it
//! converted here, on the thread that runs the component.
//!
//! Invariants: an array of metadata that is there has as many elements as there are events, otherwise the
//! invocation is refused: events with another event's sequence would do harm quietly. One that isn't there
//! leaves its fields empty, as when somebody invokes a function by hand.

use bytes::Bytes;
use fleetline_iothub::time::parse_time;
use fleetline_worker::{Binding, HttpMessage, Invocation, Value};
use serde_json::{Map, Value as Json};

use crate::state::STATE;
use crate::wit::types::{Batch, Event, HttpRequest, Tick, Trigger, TwinChange};

/// What starts a function of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TriggerKind {
    Events,
    Twin,
    Timer,
    Http,
}

impl TriggerKind {
    pub(crate) fn of(binding: &Binding) -> Option<Self> {
        let kinds = [
            ("eventHubTrigger", Self::Events),
            ("twinTrigger", Self::Twin),
            ("timerTrigger", Self::Timer),
            ("httpTrigger", Self::Http),
        ];
        kinds.iter().find(|(kind, _)| binding.is(kind)).map(|(_, found)| *found)
    }
}

/// Makes the batch. `Err` says what is wrong with the invocation.
pub(crate) fn batch(
    function: &str,
    trigger: &Binding,
    kind: TriggerKind,
    invocation: Invocation,
) -> Result<Batch, String> {
    let metadata = Metadata(invocation.metadata);
    let named = invocation.inputs.iter().position(|(name, _)| *name == trigger.name);
    let place = named.or_else(|| invocation.inputs.iter().position(|(name, _)| name != STATE));
    let mut inputs = invocation.inputs;
    let value = place.map_or(Value::Null, |place| inputs.swap_remove(place).1);
    let trigger = match kind {
        TriggerKind::Events => Trigger::Events(events(value, &metadata)?),
        TriggerKind::Twin => {
            let changes = events(value, &metadata)?.into_iter().map(twin_change);
            Trigger::TwinChanges(changes.collect::<Result<_, _>>()?)
        }
        TriggerKind::Timer => Trigger::Ticks(vec![tick(&value)?]),
        TriggerKind::Http => Trigger::Http(request(value)?),
    };
    Ok(Batch {
        function: function.to_owned(),
        invocation: invocation.id,
        partition: partition(&metadata),
        attempt: invocation.retry.map_or(0, |retry| retry.count),
        trigger,
    })
}

/// What the trigger says beside its value.
struct Metadata(Vec<(String, Value)>);

impl Metadata {
    /// A value as JSON. Text counts as JSON when it is some (§4: all metadata are JSON or text).
    fn json(&self, name: &str) -> Option<Json> {
        let (_, value) = self.0.iter().find(|(found, _)| found == name)?;
        let json: Option<Json> = match value {
            Value::Json(bytes) => serde_json::from_slice(bytes).ok(),
            Value::Text(text) => Some(serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into())),
            Value::Int(number) => Some((*number).into()),
            Value::TextList(list) => Some(list.clone().into()),
            Value::IntList(list) => Some(list.clone().into()),
            _ => None,
        };
        json.filter(|json| !json.is_null())
    }

    /// One value for each of `count` events: of the array, or the single value when `count` is 1.
    fn each(&self, name: &str, count: usize) -> Result<Vec<Json>, String> {
        match self.json(&format!("{name}Array")) {
            Some(Json::Array(list)) if list.len() == count => Ok(list),
            Some(Json::Array(list)) => {
                Err(format!("{name}Array has {} elements for {count} events", list.len()))
            }
            Some(_) => Err(format!("{name}Array is not an array")),
            None if count == 1 => Ok(vec![self.json(name).unwrap_or_default()]),
            None => Ok(vec![Json::Null; count]),
        }
    }
}

fn partition(metadata: &Metadata) -> Option<String> {
    let context = metadata.json("PartitionContext")?;
    context.get("PartitionId").and_then(text)
}

fn events(value: Value, metadata: &Metadata) -> Result<Vec<Event>, String> {
    // Only the arrays say whether an array is a batch or one event whose body is an array.
    let is_batch = metadata.json("SystemPropertiesArray").is_some();
    let bodies = bodies(value, is_batch)?;
    let count = bodies.len();
    let mut sequences = metadata.each("SequenceNumber", count)?.into_iter();
    let mut offsets = metadata.each("Offset", count)?.into_iter();
    let mut times = metadata.each("EnqueuedTimeUtc", count)?.into_iter();
    let mut properties = metadata.each("Properties", count)?.into_iter();
    let mut system = metadata.each("SystemProperties", count)?.into_iter();
    let mut next = move || {
        let mut system = object(system.next());
        Event {
            sequence: sequences.next().as_ref().and_then(number).unwrap_or_default(),
            offset: offsets.next().as_ref().and_then(text).unwrap_or_default(),
            enqueued_ms: times.next().as_ref().and_then(moment).unwrap_or_default(),
            device_id: taken(&mut system, "iothub-connection-device-id"),
            module_id: taken(&mut system, "iothub-connection-module-id"),
            content_type: taken(&mut system, "content-type"),
            properties: pairs(object(properties.next())),
            system_properties: others(system),
            body: Vec::new(),
        }
    };
    Ok(bodies.into_iter().map(|body| Event { body, ..next() }).collect())
}

fn bodies(value: Value, is_batch: bool) -> Result<Vec<Vec<u8>>, String> {
    Ok(match value {
        Value::TextList(list) => list.into_iter().map(String::into_bytes).collect(),
        Value::BytesList(list) => list.into_iter().map(Vec::from).collect(),
        Value::Json(bytes) if is_batch => match serde_json::from_slice(&bytes) {
            Ok(Json::Array(list)) => list.into_iter().map(body).collect(),
            _ => return Err("a batch of events is not an array".into()),
        },
        Value::Text(text) => vec![text.into_bytes()],
        Value::Json(bytes) | Value::Bytes(bytes) => vec![bytes.into()],
        other => return Err(format!("{other:?} is no event")),
    })
}

/// A body that stood as an element of an array.
fn body(element: Json) -> Vec<u8> {
    match element {
        Json::String(text) => text.into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

/// Names of system properties that are fields of an event already.
const FIELDS: &[&str] = &[
    "x-opt-sequence-number",
    "x-opt-offset",
    "x-opt-enqueued-time",
    "SequenceNumber",
    "Offset",
    "EnqueuedTimeUtc",
    "PartitionKey",
];

fn others(mut system: Map<String, Json>) -> Vec<(String, String)> {
    FIELDS.iter().for_each(|name| drop(system.remove(*name)));
    pairs(system)
}

/// The event of a twin's change as the change. The hub writes both (`broker/devices`, `events.rs`).
fn twin_change(event: Event) -> Result<TwinChange, String> {
    let operation =
        event.properties.iter().find(|(name, _)| name == "opType").map(|(_, value)| value.clone());
    Ok(TwinChange {
        device_id: event.device_id.ok_or("a twin's change has no device")?,
        module_id: event.module_id,
        sequence: event.sequence,
        offset: event.offset,
        enqueued_ms: event.enqueued_ms,
        operation: operation.ok_or("a twin's change has no opType")?,
        change: String::from_utf8(event.body).map_err(|_| "a twin's change is not text")?,
    })
}

fn tick(value: &Value) -> Result<Tick, String> {
    let status: Json = match value {
        Value::Json(bytes) => serde_json::from_slice(bytes).map_err(|error| format!("timer: {error}"))?,
        Value::Text(text) => serde_json::from_str(text).map_err(|error| format!("timer: {error}"))?,
        Value::Null => Json::Null,
        other => return Err(format!("{other:?} is no timer")),
    };
    let schedule =
        |name: &str| find(&status, "ScheduleStatus").and_then(|found| find(found, name)).and_then(text);
    Ok(Tick {
        past_due: find(&status, "IsPastDue").and_then(Json::as_bool).unwrap_or_default(),
        last: schedule("Last"),
        next: schedule("Next"),
    })
}

/// A member by its name in any case: the public SDKs differ in it.
fn find<'a>(json: &'a Json, name: &str) -> Option<&'a Json> {
    json.as_object()?.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn request(value: Value) -> Result<HttpRequest, String> {
    let Value::Http(message) = value else {
        return Err("an HTTP trigger without a request".into());
    };
    let HttpMessage { method, url, headers, query, params, body, .. } = *message;
    let body = match body {
        None | Some(Value::Null) => Bytes::new(),
        Some(Value::Text(text)) => text.into(),
        Some(Value::Bytes(bytes) | Value::Json(bytes)) => bytes,
        Some(other) => return Err(format!("{other:?} is no body of a request")),
    };
    Ok(HttpRequest { method, url, headers, query, params, body: body.into() })
}

fn object(json: Option<Json>) -> Map<String, Json> {
    match json {
        Some(Json::Object(map)) => map,
        _ => Map::new(),
    }
}

fn pairs(map: Map<String, Json>) -> Vec<(String, String)> {
    map.into_iter().filter_map(|(name, value)| Some((name, text(&value)?))).collect()
}

fn taken(map: &mut Map<String, Json>, name: &str) -> Option<String> {
    map.remove(name).as_ref().and_then(text)
}

/// Text as it is, other values as their JSON, nothing for null.
fn text(json: &Json) -> Option<String> {
    match json {
        Json::Null => None,
        Json::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn number(json: &Json) -> Option<u64> {
    json.as_u64().or_else(|| json.as_str()?.parse().ok())
}

/// A moment as ISO 8601, or as milliseconds since 1970.
fn moment(json: &Json) -> Option<u64> {
    json.as_u64().or_else(|| parse_time(json.as_str()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trigger(kind: &str) -> Binding {
        let raw = json!({ "type": kind, "name": "input", "direction": "in" });
        Binding::parse(raw.as_object().unwrap().clone()).unwrap()
    }

    fn made(kind: &str, value: Value, metadata: Json) -> Result<Batch, String> {
        let metadata = metadata.as_object().unwrap();
        let metadata = metadata.iter().map(|(name, value)| (name.clone(), Value::json(value))).collect();
        let inputs = vec![(STATE.into(), Value::json(&json!({}))), ("input".into(), value)];
        let invocation = Invocation { id: "i".into(), inputs, metadata, ..Invocation::default() };
        let binding = trigger(kind);
        batch("f", &binding, TriggerKind::of(&binding).unwrap(), invocation)
    }

    fn events_of(batch: Result<Batch, String>) -> Vec<Event> {
        match batch.unwrap().trigger {
            Trigger::Events(events) => events,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_batch_takes_its_metadata_from_the_arrays() {
        let metadata = json!({
            "PartitionContext": { "PartitionId": "3" },
            "SequenceNumberArray": [7, 8],
            "OffsetArray": ["70", "80"],
            "EnqueuedTimeUtcArray": ["1970-01-01T00:00:01Z", "1970-01-01T00:00:02.5Z"],
            "PropertiesArray": [{ "a": "b", "n": 1 }, {}],
            "SystemPropertiesArray": [
                { "iothub-connection-device-id": "d1", "iothub-connection-module-id": "m",
                  "content-type": "application/json", "message-id": "x", "SequenceNumber": 7 },
                { "iothub-connection-device-id": "d2" }
            ],
        });
        let value = Value::BytesList(vec![Bytes::from_static(b"one"), Bytes::from_static(b"\xff")]);
        let batch = made("EventHubTrigger", value, metadata).unwrap();
        assert_eq!(batch.partition.as_deref(), Some("3"));
        let [one, two] = <[Event; 2]>::try_from(events_of(Ok(batch))).unwrap();
        assert_eq!((one.sequence, one.offset.as_str(), one.enqueued_ms), (7, "70", 1000));
        assert_eq!((one.device_id.as_deref(), one.module_id.as_deref()), (Some("d1"), Some("m")));
        assert_eq!(one.content_type.as_deref(), Some("application/json"));
        assert_eq!(one.properties, [("a".into(), "b".into()), ("n".into(), "1".into())]);
        assert_eq!(one.system_properties, [("message-id".into(), "x".into())]);
        assert_eq!(one.body, b"one");
        assert_eq!((two.sequence, two.enqueued_ms, two.body.as_slice()), (8, 2500, b"\xff".as_slice()));
        assert_eq!((two.device_id.as_deref(), two.module_id), (Some("d2"), None));
    }

    #[test]
    fn arrays_of_another_length_are_refused() {
        let value = || Value::TextList(vec!["a".into(), "b".into()]);
        for name in ["SequenceNumberArray", "OffsetArray", "PropertiesArray", "SystemPropertiesArray"] {
            assert!(made("eventHubTrigger", value(), json!({ name: [1] })).is_err(), "{name}");
            assert!(made("eventHubTrigger", value(), json!({ name: "x" })).is_err(), "{name}");
        }
        assert_eq!(events_of(made("eventHubTrigger", value(), json!({}))).len(), 2);
    }

    #[test]
    fn one_event_may_have_an_array_as_its_body() {
        let one = json!({ "SequenceNumber": 5, "Offset": "50", "SystemProperties": {} });
        let events = events_of(made("eventHubTrigger", Value::json(&json!([1, 2])), one));
        assert_eq!(
            (events.len(), events[0].sequence, events[0].body.as_slice()),
            (1, 5, b"[1,2]".as_slice())
        );
        let many = json!({ "SystemPropertiesArray": [{}, {}] });
        let events = events_of(made("eventHubTrigger", Value::json(&json!([{ "a": 1 }, "text"])), many));
        assert_eq!(
            events.iter().map(|event| event.body.as_slice()).collect::<Vec<_>>(),
            [b"{\"a\":1}".as_slice(), b"text"]
        );
    }

    #[test]
    fn a_twin_change_is_read_from_its_event() {
        let metadata = json!({
            "SequenceNumber": 9,
            "Properties": { "opType": "updateTwin", "deviceId": "d" },
            "SystemProperties": { "iothub-connection-device-id": "d" },
        });
        let change = json!({ "version": 4, "tags": { "a": 1 } });
        let batch = made("twinTrigger", Value::json(&change), metadata).unwrap();
        let Trigger::TwinChanges(changes) = batch.trigger else { panic!("{batch:?}") };
        assert_eq!((changes[0].device_id.as_str(), changes[0].operation.as_str()), ("d", "updateTwin"));
        assert_eq!((changes[0].change.as_str(), changes[0].sequence), (change.to_string().as_str(), 9));
        assert!(made("twinTrigger", Value::json(&change), json!({})).is_err());
    }

    #[test]
    fn timers_and_requests() {
        let status = json!({ "ScheduleStatus": { "Last": "a", "next": "b" }, "IsPastDue": true });
        let Trigger::Ticks(ticks) = made("timerTrigger", Value::json(&status), json!({})).unwrap().trigger
        else {
            panic!("no ticks")
        };
        assert_eq!(
            (ticks[0].past_due, ticks[0].last.as_deref(), ticks[0].next.as_deref()),
            (true, Some("a"), Some("b"))
        );
        let message = HttpMessage {
            method: "POST".into(),
            url: "http://h/x?y=1".into(),
            query: vec![("y".into(), "1".into())],
            body: Some(Value::Text("hi".into())),
            ..HttpMessage::default()
        };
        let batch = made("httpTrigger", Value::Http(Box::new(message)), json!({})).unwrap();
        let Trigger::Http(request) = batch.trigger else { panic!("{batch:?}") };
        assert_eq!((request.method.as_str(), request.body.as_slice()), ("POST", b"hi".as_slice()));
        assert!(made("httpTrigger", Value::Null, json!({})).is_err());
    }
}
