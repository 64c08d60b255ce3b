//! The test kit that every format runs: what a decoder owes, checked on any bytes.
//!
//! Called from property tests and fuzz targets of other crates (feature `kit`), with bytes that
//! they draw. Each function panics with the input in hex when the format breaks its promise, and
//! says whether the decoder took the input, so that a test can tell that it tried something.

use std::fmt::Debug;

/// One form per value: when `bytes` decode, the value encodes to the same bytes. True when they
/// did decode.
pub fn assert_one_form<T, E>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> bool {
    let Ok(value) = decode(bytes) else { return false };
    let again = encode(&value);
    assert!(again == bytes, "decoded from\n  {}\nencodes to\n  {}", hex(bytes), hex(&again));
    true
}

/// A value survives: what it encodes to decodes to an equal one, every shorter input is refused,
/// and so is a byte behind the end.
pub fn assert_round_trip<T: PartialEq + Debug, E: Debug>(
    value: &T,
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<T, E>,
) {
    let bytes = encode(value);
    match decode(&bytes) {
        Ok(found) => assert_eq!(&found, value, "from {}", hex(&bytes)),
        Err(error) => panic!("{value:?} encodes to {}, which is refused: {error:?}", hex(&bytes)),
    }
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "taken though cut to {len} bytes: {}", hex(&bytes));
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(decode(&longer).is_err(), "taken with a byte too many: {}", hex(&longer));
}

/// Damage is seen: no input that differs from `bytes` in one byte is taken. Tries all 255 other
/// values of the bytes at `places`.
pub fn assert_flips_detected<T, E>(
    bytes: &[u8],
    places: impl IntoIterator<Item = usize>,
    decode: impl Fn(&[u8]) -> Result<T, E>,
) {
    assert!(decode(bytes).is_ok(), "the undamaged input is refused: {}", hex(bytes));
    let mut damaged = bytes.to_vec();
    for place in places {
        for flip in 1..=255u8 {
            damaged[place] = bytes[place] ^ flip;
            assert!(decode(&damaged).is_err(), "byte {place} ^ {flip:#04x} went unseen in {}", hex(bytes));
        }
        damaged[place] = bytes[place];
    }
}

/// The input in hex, for messages.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;
    use crate::{DecodeError, Reader, Writer};

    fn decode(bytes: &[u8]) -> Result<u64, DecodeError> {
        let mut r = Reader::new(bytes);
        let value = r.varint("value")?;
        r.finish("value")?;
        Ok(value)
    }

    fn encode(value: &u64) -> Vec<u8> {
        let mut out = Vec::new();
        Writer::new(&mut out).varint(*value);
        out
    }

    /// The kit passes a sound format and says whether the input was one.
    #[test]
    fn passes_a_sound_format() {
        assert!(assert_one_form(&[0x80, 1], decode, encode));
        assert!(!assert_one_form(&[0x80, 0], decode, encode));
        assert_round_trip(&300, encode, decode);
    }

    /// The kit can fail: each check catches a format with that fault.
    #[test]
    fn catches_each_fault() {
        let lax = |bytes: &[u8]| Ok::<u64, ()>(u64::from(bytes.first().copied().unwrap_or(0) & 0x0f));
        let encode = |value: &u64| vec![*value as u8];
        assert!(catch_unwind(|| assert_one_form(&[0x13], lax, encode)).is_err());
        assert!(catch_unwind(|| assert_round_trip(&3, encode, lax)).is_err());
        assert!(catch_unwind(|| assert_flips_detected(&[3], [0], lax)).is_err());
    }
}
