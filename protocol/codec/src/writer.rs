//! Writing the forms that `Reader` reads.

use bytes::BufMut;

use crate::varint::{self, VARINT_BYTES_MAX};
use crate::zigzag;

/// Appends to a growing buffer (`Vec<u8>`, `BytesMut`). Nothing can fail: bounds are the caller's,
/// who knows its format; the reader checks them again.
#[derive(Debug)]
pub struct Writer<'a, B: BufMut> {
    out: &'a mut B,
}

impl<'a, B: BufMut> Writer<'a, B> {
    /// A writer that appends to `out`.
    pub fn new(out: &'a mut B) -> Writer<'a, B> {
        Writer { out }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.out.put_u8(value);
        self
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.out.put_u16_le(value);
        self
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.out.put_u32_le(value);
        self
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.out.put_u64_le(value);
        self
    }

    /// Eight bytes, big-endian: for keys, which sort as bytes.
    pub fn u64_be(&mut self, value: u64) -> &mut Self {
        self.out.put_u64(value);
        self
    }

    /// A byte that is 0 or 1.
    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// A varint.
    pub fn varint(&mut self, value: u64) -> &mut Self {
        if value < 0x80 {
            return self.u8(value as u8);
        }
        let mut buf = [0; VARINT_BYTES_MAX];
        let len = varint::encode(value, &mut buf);
        self.bytes(&buf[..len])
    }

    /// A signed varint (zigzag).
    pub fn varint_signed(&mut self, value: i64) -> &mut Self {
        self.varint(zigzag(value))
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.put_slice(bytes);
        self
    }

    /// Bytes behind their length.
    pub fn prefixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).bytes(bytes)
    }

    /// Text behind its length in bytes.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.prefixed(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::Reader;

    proptest! {
        /// What is written is read back, from both kinds of buffer.
        #[test]
        fn round_trip(a: u8, b: u16, c: u32, d: u64, e: u64, f: i64, g: bool, h: Vec<u8>, i: String) {
            let mut vec = Vec::new();
            write(&mut vec, a, b, c, d, e, f, g, &h, &i);
            let mut bytes = BytesMut::new();
            write(&mut bytes, a, b, c, d, e, f, g, &h, &i);
            prop_assert_eq!(&vec[..], &bytes[..]);

            let mut r = Reader::new(&vec);
            prop_assert_eq!(r.u8("a"), Ok(a));
            prop_assert_eq!(r.u16("b"), Ok(b));
            prop_assert_eq!(r.u32("c"), Ok(c));
            prop_assert_eq!(r.u64("d"), Ok(d));
            prop_assert_eq!(r.u64_be("d"), Ok(d));
            prop_assert_eq!(r.varint("e"), Ok(e));
            prop_assert_eq!(r.varint_signed("f"), Ok(f));
            prop_assert_eq!(r.flag("g"), Ok(g));
            prop_assert_eq!(r.prefixed("h", h.len()), Ok(&h[..]));
            prop_assert_eq!(r.text("i", i.len()), Ok(&i[..]));
            prop_assert_eq!(r.finish("all"), Ok(()));
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn write<B: BufMut>(
        out: &mut B,
        a: u8,
        b: u16,
        c: u32,
        d: u64,
        e: u64,
        f: i64,
        g: bool,
        h: &[u8],
        i: &str,
    ) {
        let mut w = Writer::new(out);
        w.u8(a).u16(b).u32(c).u64(d).u64_be(d).varint(e).varint_signed(f).flag(g).prefixed(h).text(i);
    }
}
