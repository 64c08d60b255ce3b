//! Percent encoding, as all the SDKs use it in tokens, user names and property bags.
//!
//! A literal `+` stays a `+`: the SDKs write `%20` for a space. Decoding borrows when there is nothing to
//! decode. Encoding escapes everything but the unreserved characters of RFC 3986 §2.3, with upper-case
//! digits, so that no reader can meet a separator.

use std::borrow::Cow;

use thiserror::Error;

/// The text has an escape that stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PercentError {
    /// A `%` isn't followed by two hex digits.
    #[error("broken percent escape at byte {at}")]
    BadEscape { at: usize },
    /// The decoded bytes aren't UTF-8.
    #[error("percent escapes decode to bytes that are not utf-8")]
    NotUtf8,
}

/// Decodes once. Borrows when `text` has no `%`.
pub(crate) fn decode(text: &str) -> Result<Cow<'_, str>, PercentError> {
    match text.find('%') {
        None => Ok(Cow::Borrowed(text)),
        Some(first) => decode_from(text, first).map(Cow::Owned),
    }
}

fn decode_from(text: &str, first: usize) -> Result<String, PercentError> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(&bytes[..first]);
    let mut at = first;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            out.push(byte);
            at += 1;
            continue;
        }
        let high = bytes.get(at + 1).and_then(|&digit| hex(digit));
        let low = bytes.get(at + 2).and_then(|&digit| hex(digit));
        let (Some(high), Some(low)) = (high, low) else { return Err(PercentError::BadEscape { at }) };
        out.push(high << 4 | low);
        at += 3;
    }
    String::from_utf8(out).map_err(|_| PercentError::NotUtf8)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Whether RFC 3986 §2.3 calls the character unreserved.
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Appends `text` with everything escaped that isn't unreserved.
pub(crate) fn encode_into(out: &mut String, text: &str) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text.as_bytes() {
        if is_unreserved(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decodes_once_and_borrows_plain_text() {
        assert!(matches!(decode("a+b c/d").unwrap(), Cow::Borrowed("a+b c/d")));
        assert_eq!(decode("a%2Fb%2fc").unwrap(), "a/b/c");
        assert_eq!(decode("a%252Fb").unwrap(), "a%2Fb");
        assert_eq!(decode("%C3%A9").unwrap(), "é");
    }

    #[test]
    fn refuses_broken_escapes() {
        for (text, at) in [("%", 0), ("a%2", 1), ("%zz", 0), ("ok%20%G0", 5), ("%2é", 0)] {
            assert_eq!(decode(text), Err(PercentError::BadEscape { at }), "{text}");
        }
        assert_eq!(decode("%ff"), Err(PercentError::NotUtf8));
        assert_eq!(decode("%c3"), Err(PercentError::NotUtf8));
    }

    proptest! {
        #[test]
        fn any_text_survives(text in any::<String>()) {
            let mut encoded = String::new();
            encode_into(&mut encoded, &text);
            prop_assert!(encoded.bytes().all(|byte| is_unreserved(byte) || byte == b'%'));
            prop_assert_eq!(decode(&encoded).unwrap(), text);
        }
    }
}
