//! A cursor over the body of one packet: MQTT's own data types, big-endian and length-prefixed.
//!
//! It never reads over its end and takes no memory. `what` names the field for the error.

use crate::DecodeError;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, what: &'static str, len: usize) -> Result<&'a [u8], DecodeError> {
        let (found, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(found)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (found, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(*found)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.array(what).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_be_bytes)
    }

    /// A variable byte integer: up to four bytes of seven bits, lowest first.
    ///
    /// [MQTT5-1.5.5-1]: it is in its shortest form.
    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let mut value = 0;
        for place in 0..4 {
            let byte = self.u8(what)?;
            value |= u32::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                if byte == 0 && place > 0 {
                    return Err(DecodeError::BadVarInt { what });
                }
                return Ok(value);
            }
        }
        Err(DecodeError::BadVarInt { what })
    }

    /// Binary data behind a length of two bytes.
    pub(crate) fn binary(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u16(what)?;
        self.take(what, usize::from(len))
    }

    /// A string whose characters the caller checks further (topics look for wildcards in the same
    /// pass as for U+0000).
    ///
    /// [MQTT-1.5.3-1], [MQTT5-1.5.4-1]: it is UTF-8 and holds no surrogates.
    /// [MQTT-1.5.3-3], [MQTT5-1.5.4-3]: a byte order mark is a character like others and stays.
    pub(crate) fn text(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.binary(what)?).map_err(|_| DecodeError::BadUtf8 { what })
    }

    /// A string.
    ///
    /// [MQTT-1.5.3-2], [MQTT5-1.5.4-2]: it holds no U+0000.
    pub(crate) fn string(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let text = self.text(what)?;
        if text.as_bytes().contains(&0) {
            return Err(DecodeError::NulCharacter { what });
        }
        Ok(text)
    }

    /// A string pair, of which [MQTT5-1.5.7-1] demands the same as of strings.
    pub(crate) fn pair(&mut self, what: &'static str) -> Result<(&'a str, &'a str), DecodeError> {
        Ok((self.string(what)?, self.string(what)?))
    }

    /// A block behind a variable byte integer that gives its length.
    pub(crate) fn block(&mut self, what: &'static str) -> Result<Reader<'a>, DecodeError> {
        let len = self.varint(what)?;
        self.take(what, len as usize).map(Reader::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_at_their_edges() {
        let cases: [(&[u8], Option<u32>); 10] = [
            (&[0x00], Some(0)),
            (&[0x7f], Some(127)),
            (&[0x80, 0x01], Some(128)),
            (&[0xff, 0x7f], Some(16_383)),
            (&[0x80, 0x80, 0x80, 0x01], Some(2_097_152)),
            (&[0xff, 0xff, 0xff, 0x7f], Some(268_435_455)),
            (&[0xff, 0xff, 0xff, 0xff, 0x01], None),
            (&[0x80, 0x00], None), // [MQTT5-1.5.5-1]: not the shortest form of 0
            (&[0x80], None),
            (&[], None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Reader::new(bytes).varint("number").ok(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn strings_are_utf8_without_nul_and_keep_their_byte_order_mark() {
        let cases: [(&[u8], Result<&str, DecodeError>); 6] = [
            (&[0, 2, b'o', b'k'], Ok("ok")),
            (&[0, 3, 0xef, 0xbb, 0xbf], Ok("\u{feff}")),
            (&[0, 3, 0xed, 0xa0, 0x80], Err(DecodeError::BadUtf8 { what: "name" })), // U+D800
            (&[0, 2, 0xc0, 0x80], Err(DecodeError::BadUtf8 { what: "name" })),       // overlong U+0000
            (&[0, 1, 0], Err(DecodeError::NulCharacter { what: "name" })),
            (&[0, 3, b'o', b'k'], Err(DecodeError::Truncated { what: "name" })),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Reader::new(bytes).string("name"), expected, "{bytes:?}");
        }
    }
}
