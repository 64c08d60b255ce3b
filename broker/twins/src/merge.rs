//! The merge of a change into a document, as in RFC 7396 (JSON Merge Patch).
//!
//! "If the provided merge patch contains members that do not appear within the target, those
//! members are added. If the target does contain the member, the value is replaced. Null values in
//! the merge patch are given special meaning to indicate the removal of existing values" (section
//! 1). Arrays are replaced whole, with any null in them. One thing differs: `$version` and
//! `$metadata` at the top are no part of the document and are passed over.
//!
//! Recursion is as deep as the patch, which came through `parse.rs`.

use serde_json::{Map, Value};

use crate::limits::is_reserved;

/// Merges `patch` into `document`.
pub(crate) fn merge_into(document: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch.iter().filter(|(key, _)| !is_reserved(key)) {
        merge_member(document, key, value);
    }
}

fn merge_member(target: &mut Map<String, Value>, key: &str, value: &Value) {
    match value {
        Value::Null => {
            target.remove(key);
        }
        Value::Object(patch) => {
            let mut inner = match target.remove(key) {
                Some(Value::Object(members)) => members,
                // "If Target is not an Object: Target = {}" (section 2).
                _ => Map::new(),
            };
            for (key, value) in patch {
                merge_member(&mut inner, key, value);
            }
            target.insert(key.to_owned(), Value::Object(inner));
        }
        other => {
            target.insert(key.to_owned(), other.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::{document, map};

    /// The examples of RFC 7396 appendix A whose target and patch are objects.
    #[test]
    fn rfc_7396_appendix_a() {
        let table = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (target, patch, expected) in table {
            check(&target, &patch, &expected);
        }
    }

    /// What the RFC doesn't show: arrays are whole, the hub's own keys are passed over, but only
    /// at the top.
    #[test]
    fn rules_beyond_the_appendix() {
        let table = [
            (json!({"a":[1,2,3]}), json!({"a":[null,{"b":null}]}), json!({"a":[null,{"b":null}]})),
            (json!({"a":1}), json!({"a":{"b":1}}), json!({"a":{"b":1}})),
            (json!({"a":{"b":1}}), json!({"a":2}), json!({"a":2})),
            (json!({"a":{"b":1}}), json!({"a":{}}), json!({"a":{"b":1}})),
            (json!({"a":1}), json!({}), json!({"a":1})),
            (json!({"a":1}), json!({"$version":4,"$metadata":{"a":1}}), json!({"a":1})),
            (json!({"a":1}), json!({"$version":null,"b":2}), json!({"a":1,"b":2})),
            (json!({}), json!({"a":{"$version":4}}), json!({"a":{"$version":4}})),
        ];
        for (target, patch, expected) in table {
            check(&target, &patch, &expected);
        }
    }

    fn check(target: &Value, patch: &Value, expected: &Value) {
        let mut found = map(target);
        merge_into(&mut found, &map(patch));
        assert_eq!(&Value::Object(found), expected, "{target} merged with {patch}");
    }

    /// The model: a document as its set of paths to leaves, where a leaf is anything but an object
    /// with members. Merging is removing and adding paths.
    type Paths = std::collections::BTreeMap<Vec<String>, Value>;

    fn paths_of(at: &[String], value: &Value, out: &mut Paths) {
        match value {
            Value::Object(members) => {
                // The object itself, so that empty ones are seen too.
                out.insert(at.to_vec(), json!({}));
                for (key, value) in members {
                    paths_of(&[at, std::slice::from_ref(key)].concat(), value, out);
                }
            }
            leaf => {
                out.insert(at.to_vec(), leaf.clone());
            }
        }
    }

    /// Patches path by path, from the top down: null removes what begins with the path, an object
    /// removes only a leaf that stands in its place, any other value removes all and stands there.
    fn model_merge(document: &mut Paths, patch: &Paths) {
        for (path, value) in patch {
            let was_object = document.get(path) == Some(&json!({}));
            if !(value == &json!({}) && was_object) {
                document.retain(|other, _| !other.starts_with(path));
            }
            if !value.is_null() {
                document.insert(path.clone(), value.clone());
            }
        }
    }

    proptest! {
        #[test]
        fn merge_is_what_the_model_says(target in document(false), patch in document(true)) {
            let (mut expected, mut changes) = (Paths::new(), Paths::new());
            paths_of(&[], &Value::Object(target.clone()), &mut expected);
            paths_of(&[], &Value::Object(patch.clone()), &mut changes);
            model_merge(&mut expected, &changes);
            let mut merged = target;
            merge_into(&mut merged, &patch);
            let mut found = Paths::new();
            paths_of(&[], &Value::Object(merged), &mut found);
            prop_assert_eq!(found, expected);
        }

        /// A patch is applied once or twice with the same outcome.
        #[test]
        fn merging_again_changes_nothing(target in document(false), patch in document(true)) {
            let mut once = target;
            merge_into(&mut once, &patch);
            let mut twice = once.clone();
            merge_into(&mut twice, &patch);
            prop_assert_eq!(once, twice);
        }
    }
}
