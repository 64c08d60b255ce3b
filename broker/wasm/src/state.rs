//! State of a function: what outlives a batch, for one function and partition.
//!
//! The engine keeps it. It puts the whole state into the invocation as input [`STATE`], takes the
//! changes from the result's output [`STATE`], and commits what [`apply_changes`] makes of both in the
//! entry that commits the batch's checkpoint. So state and checkpoint can't disagree (D7).
//!
//! ```text
//!   input   {"<key>": "<base64>", …}              every key
//!   output  {"<key>": "<base64>" | null, …}       keys that changed; null: removed. Absent: none did
//! ```
//!
//! Invariants: a state has at most [`STATE_KEYS_MAX`] keys of at most [`STATE_KEY_BYTES_MAX`] bytes with
//! values of at most [`STATE_VALUE_BYTES_MAX`]; one that hasn't is refused when it comes in. A key whose
//! value was set to what it was isn't a change.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Map, Value as Json};

use fleetline_worker::Value;

use crate::limits::{STATE_KEY_BYTES_MAX, STATE_KEYS_MAX, STATE_VALUE_BYTES_MAX};

/// Name of the input and the output that carry state. Bindings can't have it.
pub const STATE: &str = "$state";

/// Why a state, or a change of one, can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It isn't a JSON object with base64 texts.
    #[error("state is not an object of base64 texts: {0}")]
    Form(String),
    /// Too many keys.
    #[error("state would have {found} keys, more than {STATE_KEYS_MAX}")]
    TooManyKeys {
        /// How many.
        found: usize,
    },
    /// An empty key, or one that is too long.
    #[error("a key of state has {found} bytes; it may have 1 to {STATE_KEY_BYTES_MAX}")]
    BadKey {
        /// Its size.
        found: usize,
    },
    /// A value that is too large.
    #[error("a value of state has {found} bytes, more than {STATE_VALUE_BYTES_MAX}")]
    ValueTooLarge {
        /// Its size.
        found: usize,
    },
}

/// State during one invocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    values: BTreeMap<String, Bytes>,
    /// Keys that were set or removed, with what they were before.
    before: BTreeMap<String, Option<Bytes>>,
}

impl State {
    /// Reads a state from the input [`STATE`].
    ///
    /// # Errors
    /// When it has another form or breaks a bound.
    pub fn from_value(value: &Value) -> Result<Self, StateError> {
        let mut values = BTreeMap::new();
        for (key, value) in object(value)? {
            let value = decode(&key, value)?.ok_or_else(|| StateError::Form(format!("{key} is null")))?;
            check_value(&key, &value)?;
            values.insert(key, value);
        }
        check_count(values.len())?;
        Ok(Self { values, before: BTreeMap::new() })
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Bytes> {
        self.values.get(key)
    }

    /// Every key, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Sets the value of `key`.
    ///
    /// # Errors
    /// When a bound would be broken; nothing changes then.
    pub fn set(&mut self, key: String, value: Bytes) -> Result<(), StateError> {
        check_value(&key, &value)?;
        if !self.values.contains_key(&key) {
            check_count(self.values.len() + 1)?;
        }
        let before = self.values.insert(key.clone(), value);
        self.before.entry(key).or_insert(before);
        Ok(())
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: &str) {
        if let Some(before) = self.values.remove(key) {
            self.before.entry(key.to_owned()).or_insert(Some(before));
        }
    }

    /// What changed, as the output [`STATE`]; `None` when nothing did.
    #[must_use]
    pub fn changes(&self) -> Option<Value> {
        let changed = self.before.iter().filter(|(key, before)| self.values.get(*key) != before.as_ref());
        let text =
            |key: &String| self.values.get(key).map_or(Json::Null, |value| BASE64.encode(value).into());
        let changes: Map<String, Json> = changed.map(|(key, _)| (key.clone(), text(key))).collect();
        (!changes.is_empty()).then(|| Value::json(&Json::Object(changes)))
    }
}

/// The state after `changes`, both as they stand in inputs and outputs named [`STATE`].
///
/// # Errors
/// When one of them has another form, or the result breaks a bound. A result of a worker of this crate
/// doesn't.
pub fn apply_changes(state: &Value, changes: &Value) -> Result<Value, StateError> {
    let mut all = object(state)?;
    for (key, change) in object(changes)? {
        match decode(&key, change.clone())? {
            Some(value) => {
                check_value(&key, &value)?;
                all.insert(key, change);
            }
            None => drop(all.remove(&key)),
        }
    }
    check_count(all.len())?;
    Ok(Value::json(&Json::Object(all)))
}

fn object(value: &Value) -> Result<Map<String, Json>, StateError> {
    let text = match value {
        Value::Null => return Ok(Map::new()),
        Value::Json(bytes) | Value::Bytes(bytes) => bytes.as_ref(),
        Value::Text(text) => text.as_bytes(),
        _ => return Err(StateError::Form("another kind of value".into())),
    };
    serde_json::from_slice(text).map_err(|error| StateError::Form(error.to_string()))
}

fn decode(key: &str, value: Json) -> Result<Option<Bytes>, StateError> {
    match value {
        Json::Null => Ok(None),
        Json::String(text) => match BASE64.decode(text) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) => Err(StateError::Form(format!("{key}: {error}"))),
        },
        _ => Err(StateError::Form(format!("{key} is not a text"))),
    }
}

fn check_value(key: &str, value: &[u8]) -> Result<(), StateError> {
    if key.is_empty() || key.len() > STATE_KEY_BYTES_MAX {
        return Err(StateError::BadKey { found: key.len() });
    }
    if value.len() > STATE_VALUE_BYTES_MAX {
        return Err(StateError::ValueTooLarge { found: value.len() });
    }
    Ok(())
}

fn check_count(found: usize) -> Result<(), StateError> {
    if found > STATE_KEYS_MAX {
        return Err(StateError::TooManyKeys { found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        Value::Json(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn changes_hold_what_differs_only() {
        let mut state = State::from_value(&json(r#"{"a":"AQ==","b":"Ag==","c":"Aw=="}"#)).unwrap();
        assert_eq!(state.changes(), None);
        state.set("a".into(), Bytes::from_static(&[1])).unwrap();
        assert_eq!(state.changes(), None, "set to what it was");
        state.set("a".into(), Bytes::from_static(&[9])).unwrap();
        state.delete("b");
        state.set("d".into(), Bytes::from_static(&[4])).unwrap();
        state.set("e".into(), Bytes::from_static(&[5])).unwrap();
        state.delete("e");
        state.delete("never");
        let changes = state.changes().unwrap();
        assert_eq!(changes, json(r#"{"a":"CQ==","b":null,"d":"BA=="}"#));
        let after = apply_changes(&json(r#"{"a":"AQ==","b":"Ag==","c":"Aw=="}"#), &changes).unwrap();
        assert_eq!(after, json(r#"{"a":"CQ==","c":"Aw==","d":"BA=="}"#));
        let read = State::from_value(&after).unwrap();
        assert_eq!(read.values, state.values);
    }

    #[test]
    fn bounds_hold_and_leave_state_as_it_was() {
        let mut state = State::default();
        for key in 0..STATE_KEYS_MAX {
            state.set(key.to_string(), Bytes::new()).unwrap();
        }
        let before = state.clone();
        let full = StateError::TooManyKeys { found: STATE_KEYS_MAX + 1 };
        assert_eq!(state.set("one more".into(), Bytes::new()), Err(full));
        assert_eq!(state.set(String::new(), Bytes::new()), Err(StateError::BadKey { found: 0 }));
        let long = "k".repeat(STATE_KEY_BYTES_MAX + 1);
        assert_eq!(state.set(long.clone(), Bytes::new()), Err(StateError::BadKey { found: long.len() }));
        let large = Bytes::from(vec![0; STATE_VALUE_BYTES_MAX + 1]);
        let refused = StateError::ValueTooLarge { found: large.len() };
        assert_eq!(state.set("0".into(), large), Err(refused));
        assert_eq!(state, before);
        state.set("0".into(), Bytes::from(vec![7; STATE_VALUE_BYTES_MAX])).unwrap();
        state.delete("1");
        state.set("one more".into(), Bytes::new()).unwrap();
    }

    #[test]
    fn other_forms_are_refused() {
        let wrong = [r#"{"a":1}"#, r#"{"a":"?"}"#, r#"{"a":null}"#, "[]", "", r#"{"":"AQ=="}"#];
        for text in wrong {
            assert!(State::from_value(&json(text)).is_err(), "{text}");
        }
        assert!(State::from_value(&Value::Int(1)).is_err());
        assert_eq!(State::from_value(&Value::Null), Ok(State::default()));
    }
}
