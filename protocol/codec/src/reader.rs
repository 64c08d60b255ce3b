//! A cursor over bytes that can't run over, and one that hands out zero-copy `Bytes`.

use bytes::Bytes;

use crate::varint::{self, VarintFault};
use crate::{DecodeError, unzigzag};

/// A cursor over a slice. Every method names what it reads, for the error; on an error the cursor
/// has not moved.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of `data`.
    pub fn new(data: &'a [u8]) -> Reader<'a> {
        Reader { data, at: 0 }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.data.len() - self.at
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.data[self.at..]
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some(found) = self.rest().get(..len) else {
            return Err(DecodeError::Truncated { what, need: len, have: self.remaining() });
        };
        self.at += len;
        Ok(found)
    }

    /// A reader over the next `len` bytes alone; this one goes on behind them.
    pub fn sub(&mut self, what: &'static str, len: usize) -> Result<Reader<'a>, DecodeError> {
        Ok(Reader::new(self.bytes(what, len)?))
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let Some(found) = self.rest().first_chunk::<N>() else {
            return Err(DecodeError::Truncated { what, need: N, have: self.remaining() });
        };
        self.at += N;
        Ok(*found)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(what)?[0])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.array(what).map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Eight bytes, big-endian: the form of numbers in keys, which sort as bytes.
    pub fn u64_be(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(u64::from_be_bytes)
    }

    /// A byte that must be 0 or 1.
    pub fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        let before = self.at;
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => {
                self.at = before;
                Err(DecodeError::Invalid { what, reason: "a flag is 0 or 1" })
            }
        }
    }

    /// A varint in its shortest form.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let rest = self.rest();
        if let Some(byte) = rest.first().filter(|byte| **byte < 0x80) {
            self.at += 1;
            return Ok(u64::from(*byte));
        }
        match varint::decode(rest) {
            Ok((value, len)) => {
                self.at += len;
                Ok(value)
            }
            Err(VarintFault::Truncated) => {
                Err(DecodeError::Truncated { what, need: rest.len() + 1, have: rest.len() })
            }
            Err(VarintFault::Malformed) => Err(DecodeError::BadVarint { what }),
        }
    }

    /// A signed varint (zigzag).
    pub fn varint_signed(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.varint(what).map(unzigzag)
    }

    /// A varint of at most `limit`.
    pub fn varint_up_to(&mut self, what: &'static str, limit: u64) -> Result<u64, DecodeError> {
        let before = self.at;
        let value = self.varint(what)?;
        if value > limit {
            self.at = before;
            return Err(DecodeError::OverLimit { what, value, limit });
        }
        Ok(value)
    }

    /// A varint that fits 32 bits.
    pub fn varint_u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.varint_up_to(what, u64::from(u32::MAX)).map(|value| value as u32)
    }

    /// How many items follow, as a varint: at most `limit`, and the input is long enough for that
    /// many of `item_bytes_min` (≥ 1) bytes each, so memory for them may be reserved.
    pub fn count(
        &mut self,
        what: &'static str,
        limit: usize,
        item_bytes_min: usize,
    ) -> Result<usize, DecodeError> {
        let before = self.at;
        let count = self.varint_up_to(what, limit as u64)? as usize;
        let need = count.saturating_mul(item_bytes_min.max(1));
        if need > self.remaining() {
            let have = self.remaining();
            self.at = before;
            return Err(DecodeError::Truncated { what, need, have });
        }
        Ok(count)
    }

    /// Bytes behind their length (a varint of at most `limit`).
    pub fn prefixed(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], DecodeError> {
        let before = self.at;
        let len = self.varint_up_to(what, limit as u64)? as usize;
        let found = self.bytes(what, len);
        if found.is_err() {
            self.at = before;
        }
        found
    }

    /// UTF-8 text behind its length in bytes (a varint of at most `limit`).
    pub fn text(&mut self, what: &'static str, limit: usize) -> Result<&'a str, DecodeError> {
        let before = self.at;
        let bytes = self.prefixed(what, limit)?;
        std::str::from_utf8(bytes).map_err(|_| {
            self.at = before;
            DecodeError::Invalid { what, reason: "not UTF-8" }
        })
    }

    /// Ends reading.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when bytes are left.
    pub fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            count => Err(DecodeError::Trailing { what, count }),
        }
    }
}

/// A cursor over [`Bytes`] whose slices share the input's memory.
#[derive(Clone, Debug)]
pub struct BytesReader {
    data: Bytes,
    at: usize,
}

impl BytesReader {
    /// A reader at the beginning of `data`.
    pub fn new(data: Bytes) -> BytesReader {
        BytesReader { data, at: 0 }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.data.len() - self.at
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Reads numbers and the like by the methods of [`Reader`]; this reader moves along when `read`
    /// succeeds and stays when it fails.
    pub fn with<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let mut reader = Reader { data: &self.data, at: self.at };
        let value = read(&mut reader)?;
        self.at = reader.at;
        Ok(value)
    }

    /// The next `len` bytes, not copied.
    pub fn bytes(&mut self, what: &'static str, len: usize) -> Result<Bytes, DecodeError> {
        self.with(|reader| reader.bytes(what, len).map(drop))?;
        Ok(self.data.slice(self.at - len..self.at))
    }

    /// Bytes behind their length (a varint of at most `limit`), not copied.
    pub fn prefixed(&mut self, what: &'static str, limit: usize) -> Result<Bytes, DecodeError> {
        let len = self.with(|reader| reader.prefixed(what, limit).map(<[u8]>::len))?;
        Ok(self.data.slice(self.at - len..self.at))
    }

    /// The bytes not read yet, not copied.
    pub fn into_rest(self) -> Bytes {
        self.data.slice(self.at..)
    }

    /// Ends reading.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] when bytes are left.
    pub fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        Reader { data: &self.data, at: self.at }.finish(what)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers are little-endian and each method moves by exactly its width.
    #[test]
    fn fixed_numbers() {
        let bytes: Vec<u8> = (1..=24).collect();
        let mut r = Reader::new(&bytes);
        assert_eq!(r.u8("a"), Ok(0x01));
        assert_eq!(r.u16("b"), Ok(0x0302));
        assert_eq!(r.u32("c"), Ok(0x0706_0504));
        assert_eq!(r.u64("d"), Ok(0x0f0e_0d0c_0b0a_0908));
        assert_eq!(r.u64_be("e"), Ok(0x1011_1213_1415_1617));
        assert_eq!(r.clone().finish("all"), Err(DecodeError::Trailing { what: "all", count: 1 }));
        assert_eq!(r.u16("f"), Err(DecodeError::Truncated { what: "f", need: 2, have: 1 }));
        assert_eq!(r.u8("g"), Ok(0x18));
        assert_eq!(r.finish("all"), Ok(()));
    }

    /// Bounds are checked before anything is taken, and a failed read leaves the cursor.
    #[test]
    fn limits() {
        let mut r = Reader::new(&[5, b'h', b'e', b'l', b'l', b'o', 200, 1]);
        let over = DecodeError::OverLimit { what: "name", value: 5, limit: 4 };
        assert_eq!(r.prefixed("name", 4), Err(over));
        assert_eq!(r.position(), 0);
        assert_eq!(r.text("name", 5), Ok("hello"));
        let short = DecodeError::Truncated { what: "items", need: 200, have: 0 };
        assert_eq!(r.count("items", 1000, 1), Err(short));
        assert_eq!(r.varint_u32("items"), Ok(200));
        let mut r = Reader::new(&[2, 0xff, 0xfe]);
        assert_eq!(r.text("name", 9), Err(DecodeError::Invalid { what: "name", reason: "not UTF-8" }));
        assert_eq!(r.position(), 0);
        let mut r = Reader::new(&[2]);
        assert!(matches!(r.flag("kept"), Err(DecodeError::Invalid { .. })));
        assert_eq!(r.remaining(), 1);
        // A count whose bytes would overflow is too many, not a panic.
        let mut r = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        assert!(matches!(r.count("items", usize::MAX, usize::MAX), Err(DecodeError::Truncated { .. })));
    }

    /// Slices of `BytesReader` lie in the input's memory.
    #[test]
    fn bytes_reader_does_not_copy() {
        let data = Bytes::from(vec![3, b'a', b'b', b'c', 7, 7]);
        let mut r = BytesReader::new(data.clone());
        let name = r.prefixed("name", 9).unwrap();
        assert_eq!(name, "abc");
        assert_eq!(name.as_ptr(), data[1..].as_ptr());
        assert_eq!(r.with(|r| r.u8("x")), Ok(7));
        assert!(r.bytes("y", 2).is_err());
        assert_eq!(r.clone().finish("all"), Err(DecodeError::Trailing { what: "all", count: 1 }));
        assert_eq!(r.into_rest().as_ptr(), data[5..].as_ptr());
    }

    proptest! {
        /// No sequence of reads over any bytes panics or moves the cursor over the end.
        #[test]
        fn any_reads_stay_inside(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            reads in prop::collection::vec((0u8..10, any::<usize>()), 0..40),
        ) {
            let mut r = Reader::new(&bytes);
            for (read, n) in reads {
                let before = r.position();
                let failed = match read {
                    0 => r.u8("").is_err(),
                    1 => r.u16("").is_err(),
                    2 => r.u32("").is_err(),
                    3 => r.u64("").is_err(),
                    4 => r.varint("").is_err(),
                    5 => r.prefixed("", n).is_err(),
                    6 => r.text("", n).is_err(),
                    7 => r.count("", n, n).is_err(),
                    8 => r.bytes("", n % 20).is_err(),
                    _ => r.sub("", n).is_err(),
                };
                prop_assert!(r.position() <= bytes.len());
                if failed {
                    prop_assert_eq!(r.position(), before);
                }
            }
        }
    }
}
