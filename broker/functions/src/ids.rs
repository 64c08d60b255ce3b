//! Ids that are the same whenever the same thing is done again.

use ring::digest::{SHA256, digest};

/// A GUID that stands for these words (RFC 9562, version 8).
pub(crate) fn guid_of(words: &[&str]) -> String {
    let mut text = Vec::new();
    for word in words {
        text.extend((word.len() as u64).to_le_bytes());
        text.extend(word.as_bytes());
    }
    let hash = digest(&SHA256, &text);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex(&bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// A number that stands for these bytes.
pub(crate) fn number_of(bytes: &[u8]) -> u64 {
    let hash = digest(&SHA256, bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_ref()[..8]);
    u64::from_le_bytes(first)
}

/// The hash of an archive, in lower-case hex.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = b"0123456789abcdef";
    let pair =
        |byte: &u8| [char::from(digits[usize::from(byte >> 4)]), char::from(digits[usize::from(byte & 15)])];
    bytes.iter().flat_map(pair).collect()
}

/// Compares without telling by its time where two texts differ: their hashes are compared.
pub(crate) fn same_secret(one: &str, other: &str) -> bool {
    let (one, other) = (digest(&SHA256, one.as_bytes()), digest(&SHA256, other.as_bytes()));
    let pairs = one.as_ref().iter().zip(other.as_ref());
    pairs.fold(0u8, |differing, (a, b)| differing | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Receivers remember these: they may not change.
    #[test]
    fn guids_are_stable() {
        let one = guid_of(&["app", "fn", "3", "100"]);
        assert_eq!(one, guid_of(&["app", "fn", "3", "100"]));
        assert_ne!(one, guid_of(&["app", "fn", "31", "00"]));
        assert_eq!(one.len(), 36);
        assert_eq!((one.as_bytes()[14], &one[8..9]), (b'8', "-"));
        assert!(same_secret("a", "a") && !same_secret("a", "b") && !same_secret("", "b"));
    }
}
