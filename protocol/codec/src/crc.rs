//! CRC-32C (Castagnoli), with the processor's instruction where there is one.

/// The checksum of `bytes`.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// The checksum of what `crc` was made over, followed by `bytes`. Begin with 0.
pub fn checksum_append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// The checksum of two pieces behind each other, from the checksums of both and the length of the
/// second in bytes; neither is read.
pub fn checksum_combine(first: u32, second: u32, second_len: usize) -> u32 {
    crc32c::crc32c_combine(first, second, second_len)
}

/// The checksum after the beginning of what `crc` covers was replaced by another one of the same
/// length, without reading the `rest_len` bytes behind it. Damage in the rest stays visible: its
/// part of the checksum is carried over, not made anew.
pub fn checksum_replace_prefix(crc: u32, old: &[u8], new: &[u8], rest_len: usize) -> u32 {
    debug_assert_eq!(old.len(), new.len());
    // Linear: crc(prefix ++ rest) = shift(crc(prefix), rest_len) ^ crc(rest), so the difference of
    // the prefixes, shifted, is the difference of the whole.
    crc ^ checksum_combine(checksum(old) ^ checksum(new), 0, rest_len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The polynomial is Castagnoli's: RFC 3720 B.4 samples.
    #[test]
    fn rfc_3720_samples() {
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(checksum(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
    }

    proptest! {
        /// Replacing a prefix gives what a fresh checksum gives.
        #[test]
        fn replace_prefix_is_exact(
            pair in prop::collection::vec(any::<(u8, u8)>(), 0..80),
            rest in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let (old, new): (Vec<u8>, Vec<u8>) = pair.into_iter().unzip();
            let before = checksum_append(checksum(&old), &rest);
            let after = checksum_append(checksum(&new), &rest);
            prop_assert_eq!(checksum_replace_prefix(before, &old, &new, rest.len()), after);
        }
    }
}
