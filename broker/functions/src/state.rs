//! A function's keyed state in one partition: documents that change with the checkpoint, in one entry.
//!
//! ```text
//! document   fn/s/<app>/<function>/<partition>/<key>
//! input      {"<key>": "<base64>", …}              every key
//! output     {"<key>": "<base64>" | null, …}       what changed; null: removed
//! ```
//!
//! Only workers that ask for it get it (`broker/wasm`). It is read when a partition is taken and kept in
//! memory while it is owned; what is kept is only ever what was committed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use fleetline_devices::{AskDocuments, Condition, Op, PutDocument, Request};
use fleetline_gateway::devices::hub::{DeviceHub, answered};
use fleetline_types::PartitionId;
use fleetline_worker::Value;
use serde_json::{Map, Value as Json};

use crate::error::FunctionsError;
use crate::options::{STATE_KEY_BYTES_MAX, STATE_KEYS_MAX, STATE_VALUE_BYTES_MAX};
use crate::store::ask_again;

/// Documents that are asked for at once: 32 of 64 KiB fit into an answer between nodes.
const READ_AT_ONCE: u32 = 32;

/// Changes of state, as an output carries them.
pub(crate) fn changes(value: &Value) -> Result<BTreeMap<String, Option<Bytes>>, String> {
    let failed = |reason: String| format!("output $state: {reason}");
    let map: Map<String, Json> = match value {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Json(bytes) => serde_json::from_slice(bytes).map_err(|error| failed(error.to_string()))?,
        Value::Text(text) => serde_json::from_str(text).map_err(|error| failed(error.to_string()))?,
        _ => return Err(failed("not a JSON object".to_owned())),
    };
    let mut changes = BTreeMap::new();
    for (key, value) in map {
        if key.is_empty() || key.len() > STATE_KEY_BYTES_MAX {
            return Err(failed(format!(
                "a key has {} bytes, 1 to {STATE_KEY_BYTES_MAX} are allowed",
                key.len()
            )));
        }
        let value = match value {
            Json::Null => None,
            Json::String(text) => {
                Some(Bytes::from(BASE64.decode(text).map_err(|error| failed(format!("{key}: {error}")))?))
            }
            _ => return Err(failed(format!("{key} is neither base64 nor null"))),
        };
        if value.as_ref().is_some_and(|value| value.len() > STATE_VALUE_BYTES_MAX) {
            return Err(failed(format!("{key} has more than {STATE_VALUE_BYTES_MAX} bytes")));
        }
        changes.insert(key, value);
    }
    Ok(changes)
}

/// See the module's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyedState {
    prefix: String,
    values: BTreeMap<String, Bytes>,
}

impl KeyedState {
    /// Reads it.
    pub(crate) async fn read(
        devices: &dyn DeviceHub,
        app: &str,
        function: &str,
        partition: PartitionId,
    ) -> Result<KeyedState, FunctionsError> {
        let prefix = format!("fn/s/{app}/{function}/{}/", partition.0);
        let mut state = KeyedState { prefix: prefix.clone(), values: BTreeMap::new() };
        let mut from = String::new();
        loop {
            let ask =
                AskDocuments { name: prefix.clone(), all: true, from: from.clone(), limit: READ_AT_ONCE };
            let answer = ask_again(|| devices.ask(partition, Request::Documents(ask.clone()))).await?;
            let documents = answered(answer)?.documents;
            let is_last = documents.len() < READ_AT_ONCE as usize || state.values.len() > STATE_KEYS_MAX;
            for document in documents {
                from = format!("{}\0", document.name);
                let key = document.name.strip_prefix(&prefix).unwrap_or_default().to_owned();
                state.values.insert(key, document.row.value);
            }
            if is_last {
                return Ok(state);
            }
        }
    }

    /// As an input.
    pub(crate) fn input(&self) -> Value {
        let text = |(key, value): (&String, &Bytes)| (key.clone(), Json::from(BASE64.encode(value)));
        Value::json(&Json::Object(self.values.iter().map(text).collect()))
    }

    /// Applies changes: to what is in memory.
    pub(crate) fn apply(&mut self, changes: &BTreeMap<String, Option<Bytes>>) {
        for (key, value) in changes {
            match value {
                Some(value) => drop(self.values.insert(key.clone(), value.clone())),
                None => drop(self.values.remove(key)),
            }
        }
    }

    /// What a commit has to do for changes; `Err` when there would be too many keys.
    pub(crate) fn operations(&self, changes: &BTreeMap<String, Option<Bytes>>) -> Result<Vec<Op>, String> {
        let mut after = self.clone();
        after.apply(changes);
        if after.values.len() > STATE_KEYS_MAX {
            return Err(format!("state would have {} keys, more than {STATE_KEYS_MAX}", after.values.len()));
        }
        let put = |(key, value): (&String, &Option<Bytes>)| {
            Op::PutDocument(PutDocument {
                name: format!("{}{key}", self.prefix),
                value: value.clone().unwrap_or_default(),
                condition: Condition::upsert(),
                delete: value.is_none(),
            })
        };
        Ok(changes.iter().map(put).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_become_documents() {
        let mut state = KeyedState { prefix: "fn/s/a/f/0/".into(), ..KeyedState::default() };
        let changed = changes(&Value::Json(r#"{"a":"Z28=","b":null}"#.into())).unwrap();
        let operations = state.operations(&changed).unwrap();
        let Op::PutDocument(put) = &operations[0] else { panic!() };
        assert_eq!((put.name.as_str(), put.value.as_ref(), put.delete), ("fn/s/a/f/0/a", &b"go"[..], false));
        assert!(matches!(&operations[1], Op::PutDocument(put) if put.delete));
        state.apply(&changed);
        assert_eq!(state.input(), Value::Json(r#"{"a":"Z28="}"#.into()));
        let many = (0..STATE_KEYS_MAX).map(|number| (number.to_string(), Some(Bytes::new()))).collect();
        assert!(state.operations(&many).unwrap_err().contains("65 keys"));
    }

    #[test]
    fn refusals() {
        for bad in [r#"{"":"Z28="}"#, r#"{"a":1}"#, r#"{"a":"?"}"#, "[]", "x"] {
            assert!(changes(&Value::Json(bad.into())).is_err(), "{bad}");
        }
        let large = format!(r#"{{"a":"{}"}}"#, BASE64.encode(vec![0; STATE_VALUE_BYTES_MAX + 1]));
        assert!(changes(&Value::Text(large)).is_err());
        assert!(changes(&Value::Null).unwrap().is_empty());
    }
}
