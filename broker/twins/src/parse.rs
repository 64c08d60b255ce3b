//! From text to a checked document, before anything is proposed.
//!
//! Three steps, each bounded by the one before: the length of the text; a walk over its bytes that
//! knows only strings, brackets and numbers and bounds the depth without recursion; then the JSON
//! parser and a check of keys and values. What passes may still be refused by the merge, since only
//! the document that results has a size.

use serde_json::{Map, Value};

use crate::error::shown;
use crate::limits::{INTEGER_MAX, INTEGER_MIN, is_reserved};
use crate::merge::merge_into;
use crate::{DocumentLimits, TwinError};

/// Levels of objects and arrays that any text may have. Below the depth at which the JSON parser
/// gives up (128), above what a twin with its metadata needs.
pub const TEXT_DEPTH_MAX: usize = 64;

/// Digits that an integer may have before it is worth reading; the range needs 16.
const INTEGER_DIGITS_MAX: usize = 18;

/// Checks the text of a change of one document: a JSON object within the limits.
///
/// `$version` and `$metadata` at the top are kept for the caller and not checked, except that they
/// count towards length and depth of the text.
pub fn parse_patch(text: &[u8], limits: &DocumentLimits) -> Result<Map<String, Value>, TwinError> {
    let patch = parse_object(text, limits.text_bytes_max)?;
    check_patch(&patch, limits)?;
    Ok(patch)
}

/// Parses a text of bounded length and depth that must be a JSON object. For bodies that hold
/// several documents; each of them goes through [`check_patch`] then.
pub fn parse_object(text: &[u8], text_bytes_max: usize) -> Result<Map<String, Value>, TwinError> {
    if text.len() > text_bytes_max {
        return Err(TwinError::TooLarge { what: "the text", found: text.len(), limit: text_bytes_max });
    }
    scan(text)?;
    match serde_json::from_slice(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(other) => Err(TwinError::NotAnObject { found: kind(&other) }),
        Err(error) => Err(TwinError::NotJson { reason: shown(&error.to_string()) }),
    }
}

/// Checks a change of one document: keys, values and depth, and that what it brings is not alone
/// larger than the whole document may be.
pub fn check_patch(patch: &Map<String, Value>, limits: &DocumentLimits) -> Result<(), TwinError> {
    for (key, value) in patch.iter().filter(|(key, _)| !is_reserved(key)) {
        check_member(&Place { key, above: None, depth: 1 }, value, limits)?;
    }
    // What a patch sets is there after it, whatever the document was.
    let mut alone = Map::new();
    merge_into(&mut alone, patch);
    limits.check_size(&alone)
}

/// Where a value stands, to name it in an error.
struct Place<'a> {
    key: &'a str,
    above: Option<&'a Place<'a>>,
    /// The level of the value, if it is an object or array; 1 for a member of the document.
    depth: usize,
}

impl Place<'_> {
    fn path(&self) -> String {
        match self.above {
            Some(above) => format!("{}.{}", above.path(), shown(self.key)),
            None => shown(self.key),
        }
    }
}

fn check_member(place: &Place<'_>, value: &Value, limits: &DocumentLimits) -> Result<(), TwinError> {
    if let Some(reason) = key_fault(place.key, limits) {
        return Err(TwinError::BadKey { key: place.path(), reason });
    }
    check_value(place, value, limits)
}

fn check_value(place: &Place<'_>, value: &Value, limits: &DocumentLimits) -> Result<(), TwinError> {
    if let Some(reason) = value_fault(value, limits) {
        return Err(TwinError::BadValue { key: place.path(), reason });
    }
    match value {
        Value::Object(_) | Value::Array(_) if place.depth > limits.depth_max => {
            Err(TwinError::TooDeep { limit: limits.depth_max })
        }
        Value::Object(members) => members.iter().try_for_each(|(key, value)| {
            check_member(&Place { key, above: Some(place), depth: place.depth + 1 }, value, limits)
        }),
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_value(&Place { depth: place.depth + 1, ..*place }, item, limits)),
        _ => Ok(()),
    }
}

/// "Keys: at most 1 KB, no control characters, no `.`, `$` or space."
fn key_fault(key: &str, limits: &DocumentLimits) -> Option<&'static str> {
    if key.len() > limits.key_bytes_max {
        return Some("is too long");
    }
    key.chars().find_map(|c| match c {
        '.' => Some("has a dot"),
        '$' => Some("has a dollar sign"),
        ' ' => Some("has a space"),
        c if c.is_control() => Some("has a control character"),
        _ => None,
    })
}

/// "String values at most 4 KB; integers within -4503599627370496 .. 4503599627370495."
fn value_fault(value: &Value, limits: &DocumentLimits) -> Option<&'static str> {
    match value {
        Value::String(text) if text.chars().count() > limits.string_chars_max => {
            Some("is a string that is too long")
        }
        Value::Number(number) => {
            let integer = number.is_i64() || number.is_u64();
            let within = number.as_i64().is_some_and(|n| (INTEGER_MIN..=INTEGER_MAX).contains(&n));
            (integer && !within).then_some("is an integer out of range")
        }
        _ => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Bounds the depth of a text, and refuses integers that the parser would silently turn into
/// floating-point numbers. Takes any bytes; whether they are JSON is for the parser to say.
fn scan(text: &[u8]) -> Result<(), TwinError> {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(&byte) = text.get(at) {
        at += match byte {
            b'"' => string_len(&text[at..]),
            b'-' | b'0'..=b'9' => number_len(&text[at..])?,
            _ => 1,
        };
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > TEXT_DEPTH_MAX {
            return Err(TwinError::TooDeep { limit: TEXT_DEPTH_MAX });
        }
    }
    Ok(())
}

/// The length of the string that `text` begins with, both quotes included.
fn string_len(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    text.len()
}

fn number_len(text: &[u8]) -> Result<usize, TwinError> {
    let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let len = text.iter().position(|byte| !in_number(byte)).unwrap_or(text.len());
    let digits = text[..len].iter().filter(|byte| byte.is_ascii_digit()).count();
    let integer = !text[..len].iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    if integer && digits > INTEGER_DIGITS_MAX {
        let key = shown(&String::from_utf8_lossy(&text[..len]));
        return Err(TwinError::BadValue { key, reason: "is an integer out of range" });
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const LIMITS: DocumentLimits = DocumentLimits::REPORTED;

    fn check(text: &str) -> Result<Map<String, Value>, TwinError> {
        parse_patch(text.as_bytes(), &LIMITS)
    }

    fn bad_key(key: &str, reason: &'static str) -> Option<TwinError> {
        Some(TwinError::BadKey { key: key.to_owned(), reason })
    }

    fn bad_value(key: &str, reason: &'static str) -> Option<TwinError> {
        Some(TwinError::BadValue { key: key.to_owned(), reason })
    }

    #[test]
    fn keys_by_the_table() {
        let table = [
            (r#"{"a-b_c:d/e": 1}"#, None),
            (r#"{"größe": {"日本": 1}}"#, None),
            (r#"{"": 1}"#, None),
            (r#"{"a.b": 1}"#, bad_key("a.b", "has a dot")),
            (r#"{"x": {"a b": 1}}"#, bad_key("x.a b", "has a space")),
            (r#"{"x": [{"$a": 1}]}"#, bad_key("x.$a", "has a dollar sign")),
            (r#"{"$a": 1}"#, bad_key("$a", "has a dollar sign")),
            (r#"{"x": {"$version": 1}}"#, bad_key("x.$version", "has a dollar sign")),
            (r#"{"a\u0000": 1}"#, bad_key("a?", "has a control character")),
            (r#"{"a\u001f": 1}"#, bad_key("a?", "has a control character")),
            (r#"{"a\u007f": 1}"#, bad_key("a?", "has a control character")),
            (r#"{"a\u009f": 1}"#, bad_key("a?", "has a control character")),
            // Deleting names a key too.
            (r#"{"a.b": null}"#, bad_key("a.b", "has a dot")),
        ];
        for (text, expected) in table {
            assert_eq!(check(text).err(), expected, "{text}");
        }
        let long = |bytes: usize| format!(r#"{{"{}": 1}}"#, "ü".repeat(bytes / 2) + &"x".repeat(bytes % 2));
        assert!(check(&long(1024)).is_ok());
        let shown = format!("{}...", "ü".repeat(64));
        assert_eq!(check(&long(1025)).err(), bad_key(&shown, "is too long"));
    }

    /// The hub's own keys pass at the top, whatever they hold: clients send back what they read.
    #[test]
    fn reserved_keys_pass_at_the_top() {
        let text = r#"{"$version": 99999999999999999, "$metadata": {"a": {"$lastUpdated": "x y"}}, "a": 1}"#;
        let found = check(text).unwrap();
        assert_eq!(found.get("$version"), Some(&json!(99_999_999_999_999_999u64)));
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn integers_by_the_table() {
        let outside = "is an integer out of range";
        let table = [
            ("4503599627370495", None),
            ("4503599627370496", bad_value("a", outside)),
            ("-4503599627370496", None),
            ("-4503599627370497", bad_value("a", outside)),
            ("18446744073709551615", bad_value("18446744073709551615", outside)),
            ("-9223372036854775808", bad_value("-9223372036854775808", outside)),
            ("999999999999999999", bad_value("a", outside)),
            // The parser would make a floating-point number of it.
            ("18446744073709551616", bad_value("18446744073709551616", outside)),
            ("-0", None),
            ("4503599627370496.5", None),
            ("1e300", None),
        ];
        for (number, expected) in table {
            assert_eq!(check(&format!(r#"{{"a": {number}}}"#)).err(), expected, "{number}");
        }
        // A string or key that looks like one is none.
        assert!(check(r#"{"a": "\"18446744073709551616", "18446744073709551616": 1}"#).is_ok());
        assert!(matches!(check(r#"{"a": 1e400}"#), Err(TwinError::NotJson { .. })));
    }

    #[test]
    fn strings_by_characters() {
        let text = |chars: usize| format!(r#"{{"a": {{"b": ["{}"]}}}}"#, "ü".repeat(chars));
        assert!(check(&text(4096)).is_ok());
        assert_eq!(check(&text(4097)).err(), bad_value("a.b", "is a string that is too long"));
    }

    /// Ten levels below the document, of objects and arrays alike.
    #[test]
    fn depth_at_the_edge() {
        let objects = |depth: usize| format!("{{{}1{}}}", r#""a":{"#.repeat(depth), "}".repeat(depth));
        let objects = |depth: usize| objects(depth).replacen("{1", r#"{"v":1"#, 1);
        let arrays = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        for text in [&objects as &dyn Fn(usize) -> String, &arrays] {
            assert!(check(&text(10)).is_ok(), "{}", text(10));
            assert_eq!(check(&text(11)), Err(TwinError::TooDeep { limit: 10 }), "{}", text(11));
        }
    }

    /// Depth is bounded before anything recurses, closed or not; brackets in strings don't count.
    #[test]
    fn hostile_depth_is_refused() {
        let table = [
            format!("{}{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000)),
            "[".repeat(10_000),
            format!(r#"{{"a":{}}}"#, "[{\"b\":".repeat(10_000)),
            r#"{"$metadata":"#.repeat(10_000),
        ];
        for text in table {
            assert_eq!(check(&text), Err(TwinError::TooDeep { limit: TEXT_DEPTH_MAX }));
        }
        assert!(check(&format!(r#"{{"a": "{}\\\""}}"#, "[{".repeat(1000))).is_ok());
        // As deep as the walk lets through, the parser does too.
        let deepest = format!(r#"{{"$metadata":{}{}}}"#, "[".repeat(63), "]".repeat(63));
        assert!(check(&deepest).is_ok());
    }

    #[test]
    fn text_is_bounded_first() {
        let nulls = format!(r#"{{"a":[{}null]}}"#, "null,".repeat((1 << 20) / 5));
        let found = nulls.len();
        assert_eq!(check(&nulls), Err(TwinError::TooLarge { what: "the text", found, limit: 262_144 }));
        let spaces = |len: usize| format!("{{}}{}", " ".repeat(len - 2));
        assert!(check(&spaces(262_144)).is_ok());
        assert!(matches!(check(&spaces(262_145)), Err(TwinError::TooLarge { found: 262_145, .. })));
    }

    /// 32 KiB as counted are taken, one more is not; a patch that only deletes is never too large.
    #[test]
    fn size_of_the_patch_at_the_edge() {
        let members = |last: usize| {
            let full: Vec<_> = (0..7).map(|n| format!(r#""{n}":"{}""#, "x".repeat(4096))).collect();
            format!(r#"{{{},"7":"{}","8":""}}"#, full.join(","), "x".repeat(last))
        };
        let edge = 32_768 - 7 * 4096 - 9;
        assert!(check(&members(edge)).is_ok());
        let expected = TwinError::TooLarge { what: "the document", found: 32_769, limit: 32_768 };
        assert_eq!(check(&members(edge + 1)), Err(expected));
        let deletes: Vec<_> = (0..20_000).map(|n| format!(r#""{n}":null"#)).collect();
        assert!(check(&format!("{{{}}}", deletes.join(","))).is_ok());
    }

    #[test]
    fn other_texts_are_refused() {
        let kinds = [
            ("null", "null"),
            ("true", "a boolean"),
            ("1", "a number"),
            (r#""x""#, "a string"),
            ("[]", "an array"),
        ];
        for (text, found) in kinds {
            assert_eq!(check(text), Err(TwinError::NotAnObject { found }), "{text}");
        }
        let broken: [&[u8]; 13] = [
            b"",
            b" ",
            b"{",
            b"}",
            b"{\"a\":}",
            b"{\"a\":1,}",
            b"{'a':1}",
            b"{\"a\":01}",
            b"{} {}",
            b"{\"a\":NaN}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":\"\\ud800\"}",
            b"\xef\xbb\xbf{}",
        ];
        for text in broken {
            let found = parse_patch(text, &LIMITS);
            assert!(matches!(found, Err(TwinError::NotJson { .. })), "{found:?} for {}", text.escape_ascii());
        }
    }

    proptest! {
        /// Any bytes are answered, and what is taken is what the parser reads.
        #[test]
        fn any_bytes_are_answered(text in "[\\[\\]{}\",:\\\\a$. 0-9eE+-]{0,60}") {
            if let Ok(found) = check(&text) {
                prop_assert_eq!(Value::Object(found), serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
