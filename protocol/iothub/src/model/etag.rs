//! Etags of identities and twins, and the `If-Match` header that quotes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The etag of an identity: Base64 of the decimal number, `MQ==` for 1.
pub fn format_etag(version: u64) -> String {
    STANDARD.encode(version.to_string())
}

/// The number of an identity's etag; `None` for what [`format_etag`] doesn't make.
pub fn parse_etag(etag: &str) -> Option<u64> {
    let version = String::from_utf8(STANDARD.decode(etag).ok()?).ok()?.parse().ok()?;
    (format_etag(version) == etag).then_some(version)
}

/// The etag of a twin: Base64 of eight bytes, big-endian, `AAAAAAAAAAE=` for 1.
pub fn twin_etag(version: u64) -> String {
    STANDARD.encode(version.to_be_bytes())
}

/// The number of a twin's etag; `None` for what [`twin_etag`] doesn't make.
pub fn parse_twin_etag(etag: &str) -> Option<u64> {
    let bytes = STANDARD.decode(etag).ok()?.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}

/// What an `If-Match` header asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// `*`: whatever is there.
    Any,
    /// This etag, without quotes. An empty one matches nothing.
    Tag(String),
}

/// Reads an `If-Match` header. Takes the tag bare, quoted and weak, and `*` bare and quoted: the SDKs
/// send all of these.
pub fn parse_if_match(header: &str) -> IfMatch {
    let tag = header.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    let quoted = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    match quoted.unwrap_or(tag) {
        "*" => IfMatch::Any,
        tag => IfMatch::Tag(tag.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_etags() {
        assert_eq!((format_etag(1), format_etag(0)), ("MQ==".into(), "MA==".into()));
        assert_eq!(twin_etag(1), "AAAAAAAAAAE=");
        for bad in ["", "1", "MQ", "MDE=", "KzE=", "LTE=", "AAAAAAAAAAE="] {
            assert_eq!(parse_etag(bad), None, "{bad}");
        }
        for bad in ["", "MQ==", "AAAAAAAAAAE", "AAAAAAAAAAAB"] {
            assert_eq!(parse_twin_etag(bad), None, "{bad}");
        }
    }

    #[test]
    fn if_match_comes_in_many_forms() {
        for any in ["*", "\"*\"", " * ", "W/\"*\""] {
            assert_eq!(parse_if_match(any), IfMatch::Any, "{any}");
        }
        for tag in ["MQ==", "\"MQ==\"", "W/\"MQ==\"", " \"MQ==\" "] {
            assert_eq!(parse_if_match(tag), IfMatch::Tag("MQ==".into()), "{tag}");
        }
        for (odd, tag) in [("", ""), ("\"", "\""), ("\"\"", ""), ("\"a", "\"a")] {
            assert_eq!(parse_if_match(odd), IfMatch::Tag(tag.into()), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn etags_survive(version in any::<u64>()) {
            prop_assert_eq!(parse_etag(&format_etag(version)), Some(version));
            prop_assert_eq!(parse_twin_etag(&twin_etag(version)), Some(version));
            let quoted = format!("\"{}\"", format_etag(version));
            prop_assert_eq!(parse_if_match(&quoted), IfMatch::Tag(format_etag(version)));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = (parse_etag(&text), parse_twin_etag(&text), parse_if_match(&text));
        }
    }
}
