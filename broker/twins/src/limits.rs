//! What a document may hold, and how its size is counted.
//!
//! The rules are those of the IoT Hub limits: 8 KiB of tags, 32 KiB each of desired and reported,
//! ten levels, keys of 1 KB, strings of 4 KB, integers of 53 bits. The counted size is not the
//! length of the text: names and values count, punctuation doesn't, and control characters, empty
//! objects and nulls in arrays are free. So a second limit bounds the text itself.

use serde_json::{Map, Value};

use crate::TwinError;

/// The smallest integer that a document may hold.
pub const INTEGER_MIN: i64 = -(1 << 52);
/// The largest integer that a document may hold.
pub const INTEGER_MAX: i64 = (1 << 52) - 1;

/// Limits of one document: tags, desired or reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentLimits {
    /// Size as [`counted_size`] counts it.
    pub bytes_max: usize,
    /// Levels of objects and arrays below the document itself; at most 40, so that the metadata,
    /// which nests twice as deep when stored, can be read back.
    pub depth_max: usize,
    /// Length of a key in bytes of UTF-8.
    pub key_bytes_max: usize,
    /// Length of a string value in characters.
    pub string_chars_max: usize,
    /// Length of the text of a change, and of the document's own text after it.
    pub text_bytes_max: usize,
}

impl DocumentLimits {
    /// Limits of tags.
    pub const TAGS: DocumentLimits = DocumentLimits::of(8 << 10);
    /// Limits of desired properties.
    pub const DESIRED: DocumentLimits = DocumentLimits::of(32 << 10);
    /// Limits of reported properties.
    pub const REPORTED: DocumentLimits = DocumentLimits::of(32 << 10);

    /// A character takes up to four bytes; the text may be twice as long as that.
    const fn of(bytes_max: usize) -> DocumentLimits {
        DocumentLimits {
            bytes_max,
            depth_max: 10,
            key_bytes_max: 1024,
            string_chars_max: 4096,
            text_bytes_max: 8 * bytes_max,
        }
    }

    /// Checks the size of a document as it would be after a change.
    pub(crate) fn check_size(&self, document: &Map<String, Value>) -> Result<(), TwinError> {
        let found = counted_size(document);
        if found > self.bytes_max {
            return Err(TwinError::TooLarge { what: "the document", found, limit: self.bytes_max });
        }
        let found = text_len(document);
        if found > self.text_bytes_max {
            let what = "the text of the document";
            return Err(TwinError::TooLarge { what, found, limit: self.text_bytes_max });
        }
        Ok(())
    }
}

/// Keys at the top of a section that the hub writes; in a change they are no part of the document.
pub(crate) fn is_reserved(key: &str) -> bool {
    key == "$version" || key == "$metadata"
}

/// The size of a document as its limit counts it: names and strings by characters without control
/// characters, numbers 8, booleans 4, objects and arrays by what they hold. `$version` and
/// `$metadata` at the top are free.
pub fn counted_size(document: &Map<String, Value>) -> usize {
    document.iter().filter(|(key, _)| !is_reserved(key)).map(|(key, value)| member_size(key, value)).sum()
}

fn member_size(key: &str, value: &Value) -> usize {
    chars_counted(key) + value_size(value)
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => chars_counted(text),
        Value::Array(items) => items.iter().map(value_size).sum(),
        Value::Object(members) => members.iter().map(|(key, value)| member_size(key, value)).sum(),
    }
}

fn chars_counted(text: &str) -> usize {
    text.chars().filter(|c| !c.is_control()).count()
}

/// The length of the document's text, without making it.
fn text_len(document: &Map<String, Value>) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Keys are strings and the counter takes every byte, so nothing can fail; if it did, the
    // document would count as too large.
    match serde_json::to_writer(&mut count, document) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    /// "names + values, numbers 8, bools 4, strings by characters without control characters,
    /// `$version` and `$metadata` are free".
    #[test]
    fn size_is_counted_by_the_table() {
        let table = [
            (json!({}), 0),
            (json!({"a": 1}), 9),
            (json!({"a": 1.5e300}), 9),
            (json!({"a": true, "bc": false}), 11),
            (json!({"a": ""}), 1),
            (json!({"a": "xyz"}), 4),
            (json!({"größe": "süß"}), 8),
            (json!({"a": "\u{1F600}"}), 2),
            (json!({"a": "x\n\t\u{0}\u{7f}\u{85}y"}), 3),
            (json!({"a": {"b": {"c": 1}}}), 11),
            (json!({"a": {}}), 1),
            (json!({"a": [1, true, "x", null, {"k": 2}]}), 1 + 8 + 4 + 1 + 9),
            (json!({"$version": 7, "$metadata": {"a": {"$lastUpdated": "x"}}, "a": 1}), 9),
            (json!({"a": {"$version": 7}}), 1 + 8 + 8),
        ];
        for (document, expected) in table {
            assert_eq!(counted_size(&map(document.clone())), expected, "{document}");
        }
    }

    #[test]
    fn text_is_measured_as_it_is_written() {
        let document = map(json!({"a": [1, 2.5, "\u{1}\"ü"], "b": {"c": null}}));
        assert_eq!(text_len(&document), serde_json::to_string(&document).unwrap().len());
    }

    /// What counts for nothing still can't grow without end.
    #[test]
    fn free_things_are_bounded_by_the_text() {
        let limits = DocumentLimits::TAGS;
        let nulls = |count: usize| map(json!({"a": vec![Value::Null; count]}));
        // {"a":[null,null]}: 5 bytes for each null, less one comma, and 8 around them.
        let most = (limits.text_bytes_max - 8 + 1) / 5;
        assert_eq!(limits.check_size(&nulls(most)), Ok(()));
        let refused = limits.check_size(&nulls(most + 1));
        assert!(matches!(refused, Err(TwinError::TooLarge { limit: 65536, .. })), "{refused:?}");
    }
}
