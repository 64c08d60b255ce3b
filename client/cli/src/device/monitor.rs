//! What devices send, as it arrives: the stream, read by the native client and shown a line a record.
//!
//! Bodies and properties come from devices, so control characters in them are never given to a terminal.
//! Records of the hub itself (devices made, connected, twins changed) are passed over, unless asked for.
//!
//! System properties are shown by the names that readers of IoT Hub's built-in endpoint see. They come
//! only from a client that hands them out; [`Event::of`] is the place.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fleetline_client::{Client, PartitionId, ReceivedRecord, TimestampMs, partition_of_key};
use fleetline_iothub::bag::SystemProperty;
use fleetline_iothub::time::format_time;
use serde_json::{Map, Value, json};

use super::MonitorArgs;
use crate::stream::batches;
use crate::time::show;
use crate::{CliError, ContextArgs};

/// What the hub says of the source of what devices send.
const TELEMETRY: &str = "Telemetry";
/// Application properties that each record of the hub itself has.
const OF_EVENTS: [&str; 3] = ["opType", "operationTimestamp", "iothub-message-schema"];

/// A record, as it is shown.
struct Event {
    partition: PartitionId,
    offset: u64,
    device: Bytes,
    enqueued: TimestampMs,
    /// By [`SystemProperty::number`].
    system: Vec<(u8, Bytes)>,
    properties: Vec<(Bytes, Bytes)>,
    body: Bytes,
}

pub(super) async fn run(context: &ContextArgs, args: &MonitorArgs) -> Result<(), CliError> {
    let client = context.connect().await?;
    let mut batches = batches(&client, partitions(&client, args.id.as_deref()), args.from);
    let mut left = args.max.unwrap_or(u64::MAX);
    let mut out = std::io::stdout();
    while left > 0
        && let Some(batch) = batches.recv().await
    {
        let batch = batch?;
        for record in batch.records() {
            let record = record.map_err(CliError::Failed)?;
            let event = Event::of(batch.partition(), record);
            if !event.is_wanted(args) {
                continue;
            }
            let line = if args.json { event.json().to_string() } else { event.line() };
            left -= 1;
            // Whoever read the output has gone: as good as enough.
            if writeln!(out, "{line}").is_err() || left == 0 {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// All records of a device are in one partition.
fn partitions(client: &Client, device: Option<&str>) -> Vec<PartitionId> {
    let count = client.metadata().partitions;
    match device {
        Some(device) => vec![partition_of_key(device.as_bytes(), count)],
        None => (0..count).map(PartitionId).collect(),
    }
}

impl Event {
    fn of(partition: PartitionId, record: ReceivedRecord) -> Event {
        Event {
            partition,
            offset: record.offset.0,
            device: record.device,
            enqueued: record.enqueued,
            system: record.system,
            properties: record.properties,
            body: record.body,
        }
    }

    fn is_wanted(&self, args: &MonitorArgs) -> bool {
        let of_device = args.id.as_ref().is_none_or(|id| id.as_bytes() == self.device);
        of_device && (args.events || !self.is_of_hub())
    }

    /// Whether the hub itself says this. Its word counts; without it, what all its events have.
    fn is_of_hub(&self) -> bool {
        let has = |name: &&str| self.properties.iter().any(|(found, _)| found == name.as_bytes());
        match self.system(SystemProperty::MessageSource) {
            Some(source) => source != TELEMETRY,
            None => OF_EVENTS.iter().all(has),
        }
    }

    fn system(&self, property: SystemProperty) -> Option<&Bytes> {
        self.system.iter().find(|(number, _)| *number == property.number()).map(|(_, value)| value)
    }

    /// `TIME  DEVICE[/MODULE]  BODY  name=value …  [system properties]`.
    fn line(&self) -> String {
        let mut line = format!("{}  {}", show(self.enqueued), printable(&self.device));
        if let Some(module) = self.system(SystemProperty::ConnectionModuleId) {
            line.push_str(&format!("/{}", printable(module)));
        }
        match std::str::from_utf8(&self.body) {
            Ok(_) => line.push_str(&format!("  {}", printable(&self.body))),
            Err(_) => line.push_str(&format!("  base64:{}", STANDARD.encode(&self.body))),
        }
        for (name, value) in &self.properties {
            line.push_str(&format!("  {}={}", printable(name), printable(value)));
        }
        let shown = self.system.iter().filter(|(number, _)| !is_stamp(*number));
        let shown = shown.map(|(number, value)| format!("{}={}", system_name(*number), printable(value)));
        let shown: Vec<String> = shown.collect();
        if !shown.is_empty() {
            line.push_str(&format!("  [{}]", shown.join(" ")));
        }
        line
    }

    fn json(&self) -> Value {
        let text = |bytes: &Bytes| Value::from(String::from_utf8_lossy(bytes));
        let properties = self.properties.iter();
        let properties: Map<String, Value> = properties
            .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), text(value)))
            .collect();
        let system: Map<String, Value> =
            self.system.iter().map(|(number, value)| (system_name(*number), text(value))).collect();
        let mut json = json!({
            "partition": self.partition.0, "offset": self.offset, "device": text(&self.device),
            "enqueued": format_time(self.enqueued.0), "properties": properties, "system": system,
        });
        // Bytes that are no text have no form in JSON but this one.
        match std::str::from_utf8(&self.body) {
            Ok(body) => json["body"] = body.into(),
            Err(_) => json["bodyBase64"] = STANDARD.encode(&self.body).into(),
        }
        json
    }
}

/// The name that most readers know: of routed messages, else of HTTP, else of MQTT.
fn system_name(number: u8) -> String {
    let property = SystemProperty::from_number(number);
    let name = property.and_then(|known| known.routed_name().or(known.http_header()).or(known.mqtt_key()));
    name.map_or_else(|| format!("system-{number}"), str::to_owned)
}

/// What the hub puts into every record says little on a line that names the device.
fn is_stamp(number: u8) -> bool {
    SystemProperty::from_number(number).is_some_and(SystemProperty::is_server_stamped)
        && number != SystemProperty::MessageSource.number()
}

/// Text that can't move a terminal's cursor: control characters are escaped.
fn printable(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for c in String::from_utf8_lossy(bytes).chars() {
        match c.is_control() {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::parsed;
    use super::*;

    fn event(body: &[u8], properties: &[(&str, &str)], system: &[(SystemProperty, &str)]) -> Event {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Event {
            partition: PartitionId(3),
            offset: 7,
            device: bytes("t-7"),
            enqueued: TimestampMs(951_827_445_250),
            system: system.iter().map(|(property, value)| (property.number(), bytes(value))).collect(),
            properties: properties.iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
            body: Bytes::copy_from_slice(body),
        }
    }

    /// A line for people.
    #[test]
    fn lines() {
        let system = [
            (SystemProperty::ContentType, "application/json"),
            (SystemProperty::Schema, "s"),
            (SystemProperty::OutputName, "o"),
            (SystemProperty::ConnectionAuthMethod, "s"),
            (SystemProperty::ConnectionModuleId, "m"),
        ];
        for (event, expected) in [
            (event(b"21.5", &[], &[]), "t-7  21.5"),
            (event(b"21.5", &[("level", "high"), ("x", "")], &[]), "t-7  21.5  level=high  x="),
            (
                event(b"{}", &[], &system),
                "t-7/m  {}  [content-type=application/json iothub-messageschema=s $.on=o]",
            ),
            (event(b"a\nb\x1b[2J", &[("k\x07", "\r")], &[]), "t-7  a\\nb\\u{1b}[2J  k\\u{7}=\\r"),
            (event(b"\xff\x00", &[], &[]), "t-7  base64:/wA="),
            (event("für".as_bytes(), &[], &[]), "t-7  für"),
        ] {
            assert_eq!(event.line(), format!("2000-02-29 12:30:45.250  {expected}"));
        }
    }

    /// An object for programs: all system properties by name, a body of text or of bytes.
    #[test]
    fn objects() {
        let system = [(SystemProperty::MessageId, "1"), (SystemProperty::ConnectionGenerationId, "g")];
        let mut full = event(b"a\n", &[("k", "v")], &system);
        full.system.push((200, Bytes::from_static(b"later")));
        assert_eq!(
            full.json(),
            json!({
                "partition": 3, "offset": 7, "device": "t-7", "enqueued": "2000-02-29T12:30:45.2500000Z",
                "properties": {"k": "v"}, "body": "a\n",
                "system": {
                    "message-id": "1", "iothub-connection-auth-generation-id": "g", "system-200": "later",
                },
            })
        );
        let bytes = event(b"\xff\x00", &[], &[]).json();
        assert_eq!((&bytes["bodyBase64"], &bytes["body"]), (&"/wA=".into(), &Value::Null));
    }

    /// Only the device that is asked for, by its whole id; the hub's own records only on request, and
    /// a device can't hide by naming its properties alike where the hub says otherwise.
    #[test]
    fn what_is_wanted() {
        let own = [("opType", "x"), ("operationTimestamp", "t"), ("iothub-message-schema", "s")];
        let telemetry = event(b"", &[("opType", "x")], &[]);
        let of_hub = event(b"", &own, &[]);
        let upload = event(b"", &[], &[(SystemProperty::MessageSource, "fileNotifications")]);
        let alike = event(b"", &own, &[(SystemProperty::MessageSource, "Telemetry")]);
        for (line, expected) in [
            (&[][..], [true, false, false, true]),
            (&["t-7"], [true, false, false, true]),
            (&["t-70"], [false; 4]),
            (&["t-7", "--events"], [true; 4]),
        ] {
            let args = parsed::<MonitorArgs>(line);
            let found = [&telemetry, &of_hub, &upload, &alike].map(|event| event.is_wanted(&args));
            assert_eq!(found, expected, "{line:?}");
        }
    }
}
