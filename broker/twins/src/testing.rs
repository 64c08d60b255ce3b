//! Documents for the tests of this crate.

use proptest::prelude::*;
use serde_json::{Map, Value};

/// The members of an object.
pub(crate) fn map(value: &Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// Documents of few keys, so that two of them meet often; with `nulls`, patches.
pub(crate) fn document(nulls: bool) -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![
        3 => any::<bool>().prop_map(Value::from),
        3 => (-9i64..9).prop_map(Value::from),
        1 => any::<f64>().prop_filter("JSON has only finite numbers", |n| n.is_finite()).prop_map(Value::from),
        3 => "[a-cü\\n\"]{0,3}".prop_map(Value::from),
        1 => prop::collection::vec(any::<bool>().prop_map(Value::from), 0..3).prop_map(Value::from),
        (if nulls { 4 } else { 0 }) => Just(Value::Null),
    ];
    let object = |inner| prop::collection::btree_map("[a-d]", inner, 0..4);
    let value = leaf.prop_recursive(3, 24, 4, move |inner| {
        object(inner).prop_map(|members| Value::Object(members.into_iter().collect()))
    });
    object(value.boxed()).prop_map(|members| members.into_iter().collect())
}
