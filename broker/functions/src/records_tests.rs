//! Goldens of what functions get.

use fleetline_batch::{BatchBuilder, BatchReader, Compression, Producer, RecordRef};
use fleetline_types::TimestampMs;
use serde_json::json;

use super::*;

const ORIGIN: Origin<'static> = Origin { partition: 3, group: "$fn-a-f", hub: "hub", host: "hub.example" };

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn record(
    offset: u64,
    bits: u64,
    system: &[(SystemProperty, &str)],
    properties: Pairs<'_>,
    body: &[u8],
) -> StreamRecord {
    let system: Vec<(u8, &[u8])> = system.iter().map(|(id, value)| (id.number(), value.as_bytes())).collect();
    let properties: Vec<(&[u8], &[u8])> =
        properties.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let mut builder = BatchBuilder::new(1 << 20);
    builder
        .push(&RecordRef {
            device: b"pump-7",
            time: TimestampMs(1_795_500_938_000),
            endpoints: bits,
            system: &system,
            properties: &properties,
            body,
        })
        .unwrap();
    let batch = builder.finish(Producer::default(), Compression::None).unwrap();
    let view = BatchReader::new(batch).unwrap().next().unwrap().unwrap();
    StreamRecord { offset, enqueued_ms: 1_795_500_938_123, view }
}

fn telemetry(offset: u64, body: &str) -> StreamRecord {
    let system = [
        (SystemProperty::MessageId, "m1"),
        (SystemProperty::ContentType, "application/json"),
        (SystemProperty::ConnectionGenerationId, "637"),
        (SystemProperty::ConnectionAuthMethod, "s"),
    ];
    record(offset, endpoints::TELEMETRY, &system, &[("level", "high")], body.as_bytes())
}

fn lifecycle(operation: &str, source: &str) -> StreamRecord {
    let system = [(SystemProperty::MessageSource, source)];
    record(9, endpoints::EVENTS, &system, &[("opType", operation)], br#"{"deviceId":"pump-7"}"#)
}

fn trigger(kind: StreamKind, data_type: DataType) -> StreamTrigger {
    StreamTrigger {
        kind,
        many: false,
        data_type,
        group: None,
        sources: Vec::new(),
        types: Vec::new(),
        own: false,
        hub_name: "hub".into(),
    }
}

fn system() -> Json {
    json!({
        "SequenceNumber": 41, "Offset": "41", "PartitionKey": "pump-7",
        "EnqueuedTimeUtc": "2026-11-24T06:15:38.1230000Z",
        "x-opt-sequence-number": 41, "x-opt-offset": "41",
        "x-opt-enqueued-time": "2026-11-24T06:15:38.1230000Z",
        "iothub-connection-device-id": "pump-7",
        "iothub-connection-auth-method":
            r#"{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}"#,
        "iothub-connection-auth-generation-id": "637",
        "iothub-enqueuedtime": "2026-11-24T06:15:38.1230000Z",
        "iothub-message-source": "Telemetry",
        "message-id": "m1", "content-type": "application/json",
    })
}

fn context_json() -> Json {
    json!({
        "ConsumerGroupName": "$fn-a-f", "EventHubPath": "hub", "EventHubName": "hub",
        "FullyQualifiedNamespace": "hub.example", "Owner": "", "PartitionId": "3",
        "RuntimeInformation": {
            "PartitionId": "3", "LastEnqueuedOffset": "41", "LastSequenceNumber": 41,
            "LastEnqueuedTimeUtc": "2026-11-24T06:15:38.1230000Z",
        },
    })
}

#[test]
fn one_record() {
    let data = one(&trigger(StreamKind::Events, DataType::Any), &ORIGIN, &telemetry(41, r#"{"t":1.50}"#));
    // As it came: the digits are the sender's.
    assert_eq!(data.value, Value::Json(r#"{"t":1.50}"#.into()));
    let expected = json!({
        "PartitionContext": context_json(),
        "EnqueuedTimeUtc": "2026-11-24T06:15:38.1230000Z",
        "Offset": "41", "PartitionKey": "pump-7", "SequenceNumber": 41,
        "Properties": { "level": "high" },
        "SystemProperties": system(),
    });
    assert_eq!(Json::Object(data.fields.clone()), expected);
    let of_metadata = |name: &str| data.metadata.iter().find(|(found, _)| found == name).unwrap().1.clone();
    assert_eq!(of_metadata("Offset"), Value::Json(r#""41""#.into()));
    assert!(data.metadata.iter().all(|(_, value)| matches!(value, Value::Json(_))));
}

#[test]
fn many_records() {
    let records = [telemetry(40, "1"), telemetry(41, r#"{"t":2}"#)];
    let data = many(&trigger(StreamKind::Events, DataType::Any), &ORIGIN, &records);
    assert_eq!(data.value, Value::Json(r#"[1,{"t":2}]"#.into()));
    assert_eq!(data.fields["SystemPropertiesArray"][1], system());
    assert_eq!(data.fields["PartitionContext"], context_json());
    assert_eq!(data.fields["SequenceNumberArray"], json!([40, 41]));
    assert_eq!(data.fields["OffsetArray"], json!(["40", "41"]));
    assert_eq!(data.fields["PartitionKeyArray"], json!(["pump-7", "pump-7"]));
    assert_eq!(data.fields["PropertiesArray"], json!([{ "level": "high" }, { "level": "high" }]));
    assert_eq!(data.fields["EnqueuedTimeUtcArray"].as_array().unwrap().len(), 2);
    assert_eq!(data.fields.len(), 7);
}

#[test]
fn values_by_type() {
    let bytes = record(1, 1, &[], &[], &[0xff]);
    let text = record(1, 1, &[], &[], b"hi");
    let value = |data_type, record| one(&trigger(StreamKind::Events, data_type), &ORIGIN, record).value;
    assert_eq!(value(DataType::Any, &text), Value::Text("hi".into()));
    assert_eq!(value(DataType::Any, &bytes), Value::Bytes(Bytes::from_static(&[0xff])));
    assert_eq!(value(DataType::Binary, &text), Value::Bytes("hi".into()));
    assert_eq!(value(DataType::Text, &telemetry(1, "{}")), Value::Text("{}".into()));
    let values = |data_type, records: &[StreamRecord]| {
        many(&trigger(StreamKind::Events, data_type), &ORIGIN, records).value
    };
    let both = [telemetry(1, "{}"), text.clone()];
    assert_eq!(values(DataType::Any, &both), Value::TextList(vec!["{}".into(), "hi".into()]));
    assert_eq!(values(DataType::Text, &both[..1]), Value::TextList(vec!["{}".into()]));
    let mixed = [text, bytes];
    assert_eq!(
        values(DataType::Any, &mixed),
        Value::BytesList(vec!["hi".into(), Bytes::from_static(&[0xff])])
    );
}

#[test]
fn hub_events_in_event_grid_form() {
    let data = one(
        &trigger(StreamKind::HubEvents, DataType::Any),
        &ORIGIN,
        &lifecycle("createDeviceIdentity", "deviceLifecycleEvents"),
    );
    let Value::Json(text) = data.value else { panic!() };
    let event: Json = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        event,
        json!({
            "id": event["id"], "topic": "/hubs/hub.example", "subject": "devices/pump-7",
            "eventType": "Microsoft.Devices.DeviceCreated", "eventTime": "2026-11-24T06:15:38.0000000Z",
            "data": { "hubName": "hub", "deviceId": "pump-7", "twin": { "deviceId": "pump-7" } },
            "dataVersion": "", "metadataVersion": "1",
        })
    );
    let connected = grid_data(&ORIGIN, &lifecycle("deviceConnected", "deviceConnectionStateEvents"));
    assert_eq!(connected["deviceConnectionStateEventInfo"], json!({ "deviceId": "pump-7" }));
}

#[test]
fn who_gets_what() {
    let created = lifecycle("createDeviceIdentity", "deviceLifecycleEvents");
    let twin = lifecycle("updateTwin", "twinChangeEvents");
    let poison = lifecycle("x", POISON_SOURCE);
    let output = record(
        1,
        endpoints::TELEMETRY,
        &[(SystemProperty::MessageSource, OUTPUT_SOURCE)],
        &[(ORIGIN_PROPERTY, "a/f")],
        b"1",
    );
    // A record of a client that isn't a device has no bits at all.
    let foreign = record(1, 0, &[], &[], b"1");
    let all = [&telemetry(1, "1"), &created, &twin, &poison, &output, &foreign];
    let found =
        |trigger: &StreamTrigger, origin: &str| all.map(|record| u8::from(wanted(trigger, origin, record)));
    let events = trigger(StreamKind::Events, DataType::Any);
    assert_eq!(found(&events, "a/f"), [1, 0, 0, 0, 0, 1]);
    assert_eq!(found(&events, "a/g"), [1, 0, 0, 0, 1, 1]);
    assert_eq!(found(&StreamTrigger { own: true, ..events.clone() }, "a/f"), [1, 0, 0, 0, 1, 1]);
    let named = StreamTrigger { sources: vec!["twinchangeevents".into(), "functionpoison".into()], ..events };
    assert_eq!(found(&named, "a/g"), [1, 0, 1, 0, 1, 1]);
    assert_eq!(found(&trigger(StreamKind::Twins, DataType::Any), "a/f"), [0, 0, 1, 0, 0, 0]);
    let grid = trigger(StreamKind::HubEvents, DataType::Any);
    assert_eq!(found(&grid, "a/f"), [0, 1, 0, 0, 0, 0]);
    let types = vec!["microsoft.devices.devicedeleted".to_owned()];
    assert_eq!(found(&StreamTrigger { types, ..grid }, "a/f"), [0; 6]);
}
