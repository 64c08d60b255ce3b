//! Paths and query strings, taken apart.
//!
//! Ids are decoded once. A `+` stays a plus: every SDK writes `%20` for a space, and Base64 in a
//! signature has pluses.

use super::errors::HttpError;

/// Parameters of a query string, decoded, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c`. What has a broken escape is kept as it is; the heads are bounded.
    pub(super) fn parse(text: &str) -> Query {
        let plain = |part: &str| decode(part).unwrap_or_else(|| part.to_owned());
        let parts = text.split('&').filter(|part| !part.is_empty());
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (plain(name), plain(value))
        };
        Query(parts.map(pair).collect())
    }

    /// The first value of a name, in any case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The parts of a path, not decoded. One trailing slash is nothing.
pub(super) fn segments(path: &str) -> Vec<&str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').collect()
}

/// Percent-decodes; `None` for a broken escape or what isn't UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| (byte? as char).to_digit(16);
        let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
        out.push((high << 4 | low) as u8);
    }
    String::from_utf8(out).ok()
}

/// A part of a path that is an id or a name.
pub(super) fn decode_segment(segment: &str) -> Result<String, HttpError> {
    decode(segment).ok_or_else(|| HttpError::invalid("path has a broken percent escape"))
}

/// Percent-encodes all but unreserved characters (RFC 3986 §2.3) and slashes.
pub(super) fn encode_path(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_once() {
        let rows =
            [("a%2Fb", Some("a/b")), ("a%252Fb", Some("a%2Fb")), ("a+b", Some("a+b")), ("%c3%A9", Some("é"))];
        for (text, decoded) in rows {
            assert_eq!(decode(text).as_deref(), decoded, "{text}");
        }
        for bad in ["%", "%2", "%zz", "%ff", "a%+1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        assert_eq!(decode(&encode_path("a b/ü%+")).as_deref(), Some("a b/ü%+"));
    }

    #[test]
    fn queries_and_paths_are_taken_apart() {
        let query = Query::parse("api-version=2021-04-12&reject&TOP=%31&&x=a=b&api-version=2");
        assert_eq!(query.get("API-version"), Some("2021-04-12"));
        assert_eq!(
            (query.get("reject"), query.get("top"), query.get("x")),
            (Some(""), Some("1"), Some("a=b"))
        );
        assert_eq!(query.get("none"), None);
        assert_eq!(segments("/devices/a%2Fb/"), ["devices", "a%2Fb"]);
        assert_eq!(segments("/"), [""]);
    }
}
