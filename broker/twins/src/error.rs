//! What can be wrong with a twin document, and the number that the answer carries for it.
//!
//! Messages go out to devices and services. In the answer of the service API they stand behind a
//! semicolon that clients split at, so no message holds one: what comes from the peer is shown
//! through [`shown`].

use thiserror::Error;

/// A document or a change of one is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TwinError {
    /// The text isn't JSON.
    #[error("the document is not valid JSON: {reason}")]
    NotJson {
        /// What the parser met, and where.
        reason: String,
    },
    /// The text is JSON, but not an object.
    #[error("the document is {found}, it must be a JSON object")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// Objects and arrays are nested too deep.
    #[error("the document is nested deeper than {limit} levels")]
    TooDeep {
        /// Levels allowed.
        limit: usize,
    },
    /// The text is too long, or the document would be too large after the change.
    #[error("{what} is {found} bytes, at most {limit} are allowed")]
    TooLarge {
        /// What was measured: the text, or the document as the limit counts it.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// A key is too long or holds a character that keys may not have.
    #[error("the key {key} {reason}")]
    BadKey {
        /// The key and those above it, shortened and made printable.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A string is too long, or an integer is out of range.
    #[error("the value of {key} {reason}")]
    BadValue {
        /// The key and those above it, shortened and made printable.
        key: String,
        /// What is wrong with the value.
        reason: &'static str,
    },
}

impl TwinError {
    /// The error number of the answer.
    pub fn code(&self) -> u32 {
        match self {
            TwinError::NotJson { .. } | TwinError::NotAnObject { .. } => 400_006,
            TwinError::TooDeep { .. }
            | TwinError::TooLarge { .. }
            | TwinError::BadKey { .. }
            | TwinError::BadValue { .. } => 400_004,
        }
    }

    /// The name of [`TwinError::code`].
    pub fn name(&self) -> &'static str {
        match self.code() {
            400_006 => "IotHubFormatError",
            _ => "ArgumentInvalid",
        }
    }
}

/// Characters of a key that a message shows.
const SHOWN_CHARS_MAX: usize = 64;

/// What came from the peer, fit for a message: short, printable, without a semicolon.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(SHOWN_CHARS_MAX)
        .map(|c| if c.is_control() || c == ';' || c == '"' { '?' } else { c })
        .collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every variant has a number, its name, and a message that a client can split at a semicolon.
    #[test]
    fn every_variant_has_its_answer() {
        let key = shown("a;b\u{7}\"c");
        let table = [
            (TwinError::NotJson { reason: "x".into() }, 400_006, "IotHubFormatError"),
            (TwinError::NotAnObject { found: "an array" }, 400_006, "IotHubFormatError"),
            (TwinError::TooDeep { limit: 10 }, 400_004, "ArgumentInvalid"),
            (TwinError::TooLarge { what: "the text", found: 2, limit: 1 }, 400_004, "ArgumentInvalid"),
            (TwinError::BadKey { key: key.clone(), reason: "has a dot" }, 400_004, "ArgumentInvalid"),
            (TwinError::BadValue { key, reason: "is too long" }, 400_004, "ArgumentInvalid"),
        ];
        for (error, code, name) in table {
            assert_eq!((error.code(), error.name()), (code, name), "{error:?}");
            assert!(!error.to_string().contains(';'), "{error}");
        }
    }

    #[test]
    fn long_text_is_shortened() {
        assert_eq!(shown(&"k".repeat(64)), "k".repeat(64));
        assert_eq!(shown(&"k".repeat(65)), format!("{}...", "k".repeat(64)));
    }
}
