//! LEB128 varints and zigzag.
//!
//! A number takes one byte per seven bits, lowest bits first; the high bit of a byte says that
//! another one follows. Zigzag maps signed numbers near zero to small unsigned ones.

/// The most bytes that a varint can take.
pub const VARINT_BYTES_MAX: usize = 10;

/// Bytes that `value` takes as a varint.
pub const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// 0, -1, 1, -2, … → 0, 1, 2, 3, …
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

/// Puts `value` as a varint at the front of `buf` and says how many bytes it took.
pub(crate) fn encode(mut value: u64, buf: &mut [u8; VARINT_BYTES_MAX]) -> usize {
    let mut len = 0;
    while value >= 0x80 {
        buf[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    buf[len] = value as u8;
    len + 1
}

/// Why no varint stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VarintFault {
    /// The input ends before the varint does.
    Truncated,
    /// Too long, too large, or not minimal.
    Malformed,
}

/// Reads the varint at the front of `bytes`: its value and its length.
pub(crate) fn decode(bytes: &[u8]) -> Result<(u64, usize), VarintFault> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        let low = u64::from(byte & 0x7f);
        // The tenth byte holds bit 63 alone.
        if at == VARINT_BYTES_MAX - 1 && *byte > 1 {
            return Err(VarintFault::Malformed);
        }
        value |= low << (7 * at);
        if byte & 0x80 == 0 {
            // A zero as last of several bytes adds nothing: not the shortest form.
            return if *byte == 0 && at > 0 { Err(VarintFault::Malformed) } else { Ok((value, at + 1)) };
        }
    }
    Err(if bytes.len() < VARINT_BYTES_MAX { VarintFault::Truncated } else { VarintFault::Malformed })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Case = (&'static [u8], Result<(u64, usize), VarintFault>);

    /// Edges of every length, and the forms that are refused.
    #[test]
    fn table() {
        let cases: [Case; 12] = [
            (&[0], Ok((0, 1))),
            (&[0x7f], Ok((127, 1))),
            (&[0x80, 1], Ok((128, 2))),
            (&[0xff, 0x7f], Ok((16_383, 2))),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], Ok((u64::MAX, 10))),
            (&[], Err(VarintFault::Truncated)),
            (&[0x80], Err(VarintFault::Truncated)),
            (&[0x80, 0], Err(VarintFault::Malformed)),
            (&[0xff, 0x80, 0], Err(VarintFault::Malformed)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], Err(VarintFault::Malformed)),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0], Err(VarintFault::Malformed)),
            (&[0xff; 9], Err(VarintFault::Truncated)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(decode(bytes), expected, "{bytes:x?}");
        }
    }

    proptest! {
        /// Every number comes back, in as many bytes as announced; shifted so that all lengths occur.
        #[test]
        fn round_trip(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut buf = [0; VARINT_BYTES_MAX];
            let len = encode(value, &mut buf);
            prop_assert_eq!(len, varint_len(value));
            prop_assert_eq!(decode(&buf[..len]), Ok((value, len)));
        }

        /// What decodes is the shortest form: encoding gives the same bytes.
        #[test]
        fn one_form(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            if let Ok((value, len)) = decode(&bytes) {
                let mut buf = [0; VARINT_BYTES_MAX];
                let again = encode(value, &mut buf);
                prop_assert_eq!(&buf[..again], &bytes[..len]);
            }
        }

        /// Zigzag is a bijection, also at the edges.
        #[test]
        fn zigzag_round_trip(value in prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -3i64..3]) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
