//! Queries of URLs, and percent encoding.
//!
//! A query is a form: `+` stands for a space in it, in a path it stands for itself. A broken escape is kept
//! as it is, as browsers and ASP.NET Core do. Encoding escapes all but the unreserved characters of RFC
//! 3986 §2.3.

use std::borrow::Cow;

/// Names and values of a query without its `?`, decoded.
pub fn pairs(raw: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    raw.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decode_form(name), decode_form(value))
    })
}

fn decode_form(text: &str) -> Cow<'_, str> {
    if text.contains('+') { decode(&text.replace('+', " ")).into_owned().into() } else { decode(text) }
}

/// Decodes escapes. Bytes that aren't UTF-8 become U+FFFD.
pub(crate) fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        match (first, escape(behind)) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &behind[2..];
            }
            _ => out.push(first),
        }
    }
    String::from_utf8_lossy(&out).into_owned().into()
}

/// The byte that two hex digits at the start of `text` stand for.
fn escape(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|&digit| char::from(digit).to_digit(16));
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Appends `text` with everything escaped that isn't unreserved.
pub(crate) fn encode_into(out: &mut String, text: &str) {
    for byte in text.bytes() {
        push(out, byte);
    }
}

fn push(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if is_unreserved(byte) {
        out.push(char::from(byte));
    } else {
        out.push('%');
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

/// The path with needless escapes decoded and the others in capitals, so that two ways to write one path
/// are equal, and `%2F` stays apart from `/` (RFC 3986 §6.2.2).
pub(crate) fn normal_path(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        match (first, escape(behind)) {
            (b'%', Some(byte)) => {
                push(&mut out, byte);
                rest = &behind[2..];
            }
            // Written without an escape, though outside of ASCII, or a percent sign that escapes nothing.
            (first, _) if !first.is_ascii() || first == b'%' => push(&mut out, first),
            (first, _) => out.push(char::from(first)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_decoded_once() {
        let found: Vec<_> = pairs("a=1&b&&c=x+y%2B&%61=%2561&d==").collect();
        let found: Vec<_> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(found, [("a", "1"), ("b", ""), ("c", "x y+"), ("a", "%61"), ("d", "=")]);
    }

    #[test]
    fn broken_escapes_stay() {
        for text in ["%", "%2", "%zz", "a%G0"] {
            assert_eq!(decode(text), text);
        }
        assert_eq!(decode("%ff%41"), "\u{fffd}A");
    }

    #[test]
    fn one_path_has_one_form() {
        assert_eq!(normal_path("/users/a%20b%2fé/%7Ex"), "/users/a%20b%2F%C3%A9/~x");
        assert_ne!(normal_path("/a%2Fb"), normal_path("/a/b"));
        assert_eq!(normal_path("/50%"), normal_path("/50%25"));
    }

    proptest! {
        #[test]
        fn any_text_survives(text in any::<String>()) {
            let mut encoded = String::new();
            encode_into(&mut encoded, &text);
            prop_assert!(encoded.bytes().all(|byte| is_unreserved(byte) || byte == b'%'));
            prop_assert_eq!(decode(&encoded), text);
            prop_assert_eq!(normal_path(&encoded), encoded);
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let once = normal_path(&text);
            prop_assert_eq!(normal_path(&once), once);
            pairs(&text).for_each(drop);
        }
    }
}
