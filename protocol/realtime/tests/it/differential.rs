//! Our MessagePack against another library's, and JSON through MessagePack against JSON.

use bytes::Bytes;
use fleetline_signalr::Value;
use proptest::collection::vec;
use proptest::prelude::*;
use rmpv::Value as Other;

use crate::kit::{json_value, value};

/// The same value in the other library.
fn other(json: &serde_json::Value) -> Other {
    match json {
        serde_json::Value::Null => Other::Nil,
        serde_json::Value::Bool(value) => (*value).into(),
        serde_json::Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(value), _) => value.into(),
            (None, Some(value)) => value.into(),
            (None, None) => number.as_f64().unwrap().into(),
        },
        serde_json::Value::String(text) => text.as_str().into(),
        serde_json::Value::Array(values) => Other::Array(values.iter().map(other).collect()),
        serde_json::Value::Object(entries) => {
            Other::Map(entries.iter().map(|(key, value)| (key.as_str().into(), other(value))).collect())
        }
    }
}

/// Anything that MessagePack can say.
fn any_other() -> impl Strategy<Value = Other> {
    let leaf = prop_oneof![
        Just(Other::Nil),
        any::<bool>().prop_map(Other::from),
        any::<i64>().prop_map(Other::from),
        any::<u64>().prop_map(Other::from),
        any::<f32>().prop_map(Other::from),
        any::<f64>().prop_map(Other::from),
        any::<String>().prop_map(Other::from),
        vec(any::<u8>(), 0..300).prop_map(Other::from),
        (any::<i8>(), vec(any::<u8>(), 0..40)).prop_map(|(kind, bytes)| Other::Ext(kind, bytes)),
    ];
    leaf.prop_recursive(4, 40, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Other::Array),
            vec((inner.clone(), inner), 0..20).prop_map(Other::Map),
        ]
    })
}

fn written(value: &Other) -> Vec<u8> {
    let mut out = Vec::new();
    rmpv::encode::write_value(&mut out, value).unwrap();
    out
}

#[test]
fn sizes_at_their_edges() {
    for count in [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536] {
        let list = serde_json::Value::from(vec![0; count]);
        let map: serde_json::Map<_, _> = (0..count).map(|key| (key.to_string(), 0.into())).collect();
        for json in [list, map.into(), "x".repeat(count).into()] {
            let bytes = value(&json.to_string()).to_msgpack().unwrap();
            assert!(bytes == written(&other(&json)), "{count}");
            let back = Value::msgpack(bytes).unwrap().to_json().unwrap();
            assert!(serde_json::from_slice::<serde_json::Value>(&back).unwrap() == json, "{count}");
        }
    }
}

proptest! {
    #[test]
    fn json_becomes_what_the_other_writes(json in json_value()) {
        let bytes = value(&json.to_string()).to_msgpack().unwrap();
        prop_assert_eq!(&bytes[..], &written(&other(&json))[..]);
    }

    #[test]
    fn json_comes_back(json in json_value()) {
        let bytes = value(&json.to_string()).to_msgpack().unwrap();
        let back = Value::msgpack(bytes).unwrap().to_json().unwrap();
        prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&back).unwrap(), json);
    }

    /// All that the other library writes is a value, and what has a form in JSON is JSON.
    #[test]
    fn what_the_other_writes_is_read(value in any_other()) {
        let read = Value::msgpack(written(&value).into()).unwrap();
        if let Ok(json) = read.to_json() {
            serde_json::from_slice::<serde_json::Value>(&json).unwrap();
        }
    }

    /// Whether bytes are one value: both say the same, but that we refuse strings that aren't UTF-8 and the
    /// marker that isn't in use (the other reads nil).
    #[test]
    fn both_refuse_the_same(bytes in vec(prop_oneof![any::<u8>(), 0x80..0xe0_u8], 0..24)) {
        let bytes: Vec<u8> = bytes.into_iter().filter(|byte| *byte != 0xc1).collect();
        let mut rest = &bytes[..];
        let theirs = rmpv::decode::read_value(&mut rest);
        let is_theirs = theirs.as_ref().is_ok_and(|value| rest.is_empty() && is_utf8(value));
        prop_assert_eq!(Value::msgpack(Bytes::copy_from_slice(&bytes)).is_ok(), is_theirs);
    }
}

fn is_utf8(value: &Other) -> bool {
    match value {
        Other::String(text) => text.is_str(),
        Other::Array(values) => values.iter().all(is_utf8),
        Other::Map(entries) => entries.iter().all(|(key, value)| is_utf8(key) && is_utf8(value)),
        _ => true,
    }
}
