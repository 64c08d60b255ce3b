//! `%SETTING%` and binding expressions: `{deviceId}`, `{rand-guid}`, `{headers.x-name}`, …
//!
//! An expression names something that the trigger says: its metadata, a property of its JSON body (with
//! dots for what lies deeper), a part of the route, or one of the names that always exist. Names are
//! compared in any case. One that isn't found fails the invocation, as in the public host: an output that
//! silently went elsewhere would be worse.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::civil::iso;

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Nothing of that name.
    #[error("binding expression {{{0}}} has no value here")]
    Unknown(String),
    /// A brace without its other half.
    #[error("{0:?} has a brace without its other half")]
    Brace(String),
}

/// Replaces each `%NAME%` by the setting of that name. What isn't set stays as it is.
pub(crate) fn with_settings(text: &str, settings: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('%') {
        out.push_str(before);
        let Some((name, after)) = behind.split_once('%') else {
            out.push('%');
            rest = behind;
            continue;
        };
        match settings.get(name) {
            Some(value) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('%');
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The same in all texts of a binding.
pub(crate) fn json_with_settings(value: &mut Json, settings: &BTreeMap<String, String>) {
    match value {
        Json::String(text) if text.contains('%') => *text = with_settings(text, settings),
        Json::Array(list) => list.iter_mut().for_each(|item| json_with_settings(item, settings)),
        Json::Object(map) => map.values_mut().for_each(|item| json_with_settings(item, settings)),
        _ => {}
    }
}

/// What expressions of one invocation can name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// What the trigger says beside its value, and parts of the route.
    pub(crate) metadata: Map<String, Json>,
    /// The trigger's value, when it is a JSON object.
    pub(crate) body: Map<String, Json>,
    pub(crate) now_ms: u64,
    /// Random numbers for GUIDs; each use draws a new one from it.
    pub(crate) seed: u64,
    pub(crate) function: String,
}

impl Scope {
    /// Replaces the expressions in `text`.
    pub(crate) fn expand(&self, text: &str) -> Result<String, ExpressionError> {
        if !text.contains(['{', '}']) {
            return Ok(text.to_owned());
        }
        let mut out = String::new();
        let mut rest = text;
        let mut drawn = 0u64;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let (brace, behind) = (rest.as_bytes()[at], &rest[at + 1..]);
            // Doubled braces stand for themselves.
            if behind.as_bytes().first() == Some(&brace) {
                out.push(char::from(brace));
                rest = &behind[1..];
                continue;
            }
            let Some((name, after)) = behind.split_once('}').filter(|_| brace == b'{') else {
                return Err(ExpressionError::Brace(text.to_owned()));
            };
            drawn += 1;
            out.push_str(&self.value(name.trim(), drawn)?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, name: &str, drawn: u64) -> Result<String, ExpressionError> {
        let (word, format) = match name.split_once(':') {
            Some((word, format)) => (word.trim(), Some(format.trim())),
            None => (name, None),
        };
        match word.to_ascii_lowercase().as_str() {
            "rand-guid" | "sys.randguid" => {
                let guid = crate::ids::guid_of(&["rand", &self.seed.to_string(), &drawn.to_string()]);
                // .NET's formats: N has no dashes.
                return Ok(match format {
                    Some("N" | "n") => guid.replace('-', ""),
                    _ => guid,
                });
            }
            "datetime" | "sys.utcnow" => {
                return Ok(match format {
                    Some(format) => formatted(self.now_ms, format),
                    None => iso(self.now_ms),
                });
            }
            "sys.methodname" => return Ok(self.function.clone()),
            "deviceid" => {
                if let Some(id) = self.system("iothub-connection-device-id") {
                    return Ok(id);
                }
            }
            "moduleid" => {
                if let Some(id) = self.system("iothub-connection-module-id") {
                    return Ok(id);
                }
            }
            _ => {}
        }
        let found = path(&self.metadata, name).or_else(|| path(&self.body, name));
        found.and_then(text).ok_or_else(|| ExpressionError::Unknown(name.to_owned()))
    }

    fn system(&self, name: &str) -> Option<String> {
        path(&self.metadata, "SystemProperties").and_then(|system| system.get(name)).and_then(text)
    }
}

fn text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// What lies at `a.b.c`; a name with dots of its own is found as a whole first.
fn path<'a>(map: &'a Map<String, Json>, name: &str) -> Option<&'a Json> {
    let find = |map: &'a Map<String, Json>, name: &str| {
        map.get(name).or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v))
    };
    if let Some(found) = find(map, name) {
        return Some(found);
    }
    let (head, rest) = name.split_once('.')?;
    match find(map, head)? {
        Json::Object(inner) => path(inner, rest),
        _ => None,
    }
}

/// Formats of .NET that name objects by time: `yyyy-MM-dd`, `HH`, …
fn formatted(ms: u64, format: &str) -> String {
    let iso = iso(ms);
    // 2026-11-24T06:15:38.1230000Z
    let rows = [
        ("yyyy", 0..4),
        ("MM", 5..7),
        ("dd", 8..10),
        ("HH", 11..13),
        ("mm", 14..16),
        ("ss", 17..19),
        ("fff", 20..23),
        ("yy", 2..4),
    ];
    let mut out = String::new();
    let mut rest = format;
    'next: while let Some(first) = rest.chars().next() {
        for (name, range) in &rows {
            if let Some(behind) = rest.strip_prefix(name) {
                out.push_str(&iso[range.clone()]);
                rest = behind;
                continue 'next;
            }
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope() -> Scope {
        let object = |value: Json| value.as_object().cloned().unwrap();
        Scope {
            metadata: object(json!({
                "SystemProperties": { "iothub-connection-device-id": "pump-7" },
                "id": 5, "headers": { "x-user": "anna" }, "PartitionContext": { "PartitionId": "3" },
            })),
            body: object(json!({ "site": { "name": "Köln" }, "ok": true, "a.b": "whole" })),
            now_ms: 1_795_500_938_123,
            seed: 7,
            function: "fn".into(),
        }
    }

    #[test]
    fn expressions() {
        let rows = [
            ("plain", Ok("plain")),
            ("d/{deviceId}", Ok("d/pump-7")),
            ("{DEVICEID}-{id}", Ok("pump-7-5")),
            ("{headers.x-user}", Ok("anna")),
            ("{partitioncontext.partitionid}", Ok("3")),
            ("{site.name}/{ok}/{a.b}", Ok("Köln/true/whole")),
            ("{{literal}} {sys.methodName}", Ok("{literal} fn")),
            ("{datetime:yyyy-MM-dd HH:mm:ss.fff}", Ok("2026-11-24 06:15:38.123")),
            ("{DateTime}", Ok("2026-11-24T06:15:38.1230000Z")),
            ("{missing}", Err(ExpressionError::Unknown("missing".into()))),
            ("{site}", Err(ExpressionError::Unknown("site".into()))),
            ("{moduleId}", Err(ExpressionError::Unknown("moduleId".into()))),
            ("{open", Err(ExpressionError::Brace("{open".into()))),
            ("close}", Err(ExpressionError::Brace("close}".into()))),
        ];
        for (text, expected) in rows {
            assert_eq!(scope().expand(text), expected.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn guids_differ_within_a_text_and_stay_for_the_same_invocation() {
        let both = scope().expand("{rand-guid} {rand-guid:N}").unwrap();
        let (one, other) = both.split_once(' ').unwrap();
        assert!(one.len() == 36 && other.len() == 32 && one.replace('-', "") != other);
        assert_eq!(scope().expand("{rand-guid} {rand-guid:N}").unwrap(), both);
    }

    #[test]
    fn settings() {
        let settings =
            BTreeMap::from([("HUB".to_owned(), "live".to_owned()), ("N".to_owned(), "%HUB%".to_owned())]);
        let rows = [
            ("%HUB%", "live"),
            ("a-%HUB%-%HUB%", "a-live-live"),
            ("100%", "100%"),
            ("%NONE% %HUB%", "%NONE% live"),
            ("50% of %HUB%", "50% of live"),
            // What a setting says isn't read once more.
            ("%N%", "%HUB%"),
        ];
        for (text, expected) in rows {
            assert_eq!(with_settings(text, &settings), expected, "{text}");
        }
    }
}
