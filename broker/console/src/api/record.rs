//! A record as the page shows it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetline_batch::RecordView;
use fleetline_devices::endpoints;
use fleetline_iothub::bag::SystemProperty;
use serde_json::{Map, Value, json};

use crate::limits::{BODY_SHOWN_MAX, PROPERTIES_SHOWN_MAX};

/// Whether it is telemetry (else an event of the hub).
pub(crate) fn is_telemetry(record: &RecordView) -> bool {
    record.endpoints & endpoints::TELEMETRY != 0 || record.endpoints & endpoints::EVENTS == 0
}

/// All that is shown of a record.
pub(crate) fn whole(offset: u64, record: &RecordView) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let properties = record.properties().take(PROPERTIES_SHOWN_MAX);
    let properties: Map<String, Value> =
        properties.map(|(name, value)| (text(&name), text(&value).into())).collect();
    let named = |(number, value): (u8, bytes::Bytes)| {
        let name = SystemProperty::from_number(number)?.routed_name()?;
        // How it proved itself is one letter in a record, and of no use here.
        (!name.starts_with("iothub-connection-auth")).then(|| (name.to_owned(), text(&value).into()))
    };
    let system: Map<String, Value> = record.system().take(PROPERTIES_SHOWN_MAX).filter_map(named).collect();
    let (kind, body) = body(&record.body);
    json!({
        "offset": offset,
        "at": record.time.0,
        "bytes": record.body.len(),
        "kind": kind,
        "body": body,
        "properties": properties,
        "system": system,
    })
}

/// JSON as it is, text as text, else Base64; what is too long is cut and says so by its kind.
fn body(bytes: &[u8]) -> (&'static str, Value) {
    if bytes.len() <= BODY_SHOWN_MAX {
        if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
            return ("json", value);
        }
        return match std::str::from_utf8(bytes) {
            Ok(text) => ("text", text.into()),
            Err(_) => ("base64", STANDARD.encode(bytes).into()),
        };
    }
    let shown = &bytes[..BODY_SHOWN_MAX];
    match std::str::from_utf8(bytes) {
        Ok(_) => ("cut text", String::from_utf8_lossy(shown).trim_end_matches('\u{fffd}').into()),
        Err(_) => ("cut base64", STANDARD.encode(shown).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a body becomes.
    #[test]
    fn bodies() {
        let rows: [(&[u8], &str, Value); 5] = [
            (br#"{"lat": 46.5}"#, "json", json!({ "lat": 46.5 })),
            (b"21.5", "json", json!(21.5)),
            ("grün".as_bytes(), "text", json!("grün")),
            (b"", "text", json!("")),
            (&[0xff, 0x00], "base64", json!("/wA=")),
        ];
        for (bytes, kind, value) in rows {
            assert_eq!(body(bytes), (kind, value));
        }
        let long = "é".repeat(BODY_SHOWN_MAX);
        let (kind, cut) = body(&long.as_bytes()[..long.len()]);
        assert_eq!(kind, "cut text");
        assert_eq!(cut.as_str().unwrap().len(), BODY_SHOWN_MAX);
        let odd = format!("x{long}");
        assert_eq!(body(odd.as_bytes()).1.as_str().unwrap().len(), BODY_SHOWN_MAX - 1, "no half letter");
    }
}
