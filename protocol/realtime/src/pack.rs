//! MessagePack: a bounded reader that borrows, and a writer that can't fail.
//!
//! [`Unpack`] answers [`Token`]s; a length that a token claims is never trusted with memory, since every
//! element takes at least a byte of what is there. Strings have to be UTF-8. [`Pack`] writes the
//! shortest form of everything, as the clients' libraries do.

use std::convert::Infallible;

use rmp::Marker;
use rmp::encode::{self, ByteBuf, ValueWriteError};

/// One item of MessagePack. Arrays and maps are followed by their elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Nil,
    Bool(bool),
    Uint(u64),
    /// Below zero.
    Int(i64),
    Float(f64),
    Str(&'a str),
    Bin(&'a [u8]),
    Array(usize),
    Map(usize),
    Ext(i8, &'a [u8]),
}

/// Why bytes aren't MessagePack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnpackError {
    /// What was expected.
    Bad(&'static str),
    /// More levels than allowed.
    TooDeep,
}

type Result<T> = std::result::Result<T, UnpackError>;

const CUT: UnpackError = UnpackError::Bad("more bytes");

/// Reads from the start of a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unpack<'a> {
    rest: &'a [u8],
}

impl<'a> Unpack<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Unpack<'a> {
        Unpack { rest: bytes }
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn len8(&mut self) -> Result<usize> {
        Ok(usize::from(u8::from_be_bytes(self.fixed()?)))
    }

    fn len16(&mut self) -> Result<usize> {
        Ok(usize::from(u16::from_be_bytes(self.fixed()?)))
    }

    fn len32(&mut self) -> Result<usize> {
        usize::try_from(u32::from_be_bytes(self.fixed()?)).map_err(|_| CUT)
    }

    fn text(&mut self, count: usize) -> Result<Token<'a>> {
        let bytes = self.take(count)?;
        std::str::from_utf8(bytes).map(Token::Str).map_err(|_| UnpackError::Bad("a string in utf-8"))
    }

    fn ext(&mut self, count: usize) -> Result<Token<'a>> {
        let kind = i8::from_be_bytes(self.fixed()?);
        Ok(Token::Ext(kind, self.take(count)?))
    }

    /// The next item.
    pub(crate) fn token(&mut self) -> Result<Token<'a>> {
        let [first] = self.fixed()?;
        Ok(match Marker::from_u8(first) {
            Marker::FixPos(value) => Token::Uint(value.into()),
            Marker::FixNeg(value) => Token::Int(value.into()),
            Marker::Null => Token::Nil,
            Marker::Reserved => return Err(UnpackError::Bad("a marker that is in use")),
            Marker::False => Token::Bool(false),
            Marker::True => Token::Bool(true),
            Marker::U8 => Token::Uint(u8::from_be_bytes(self.fixed()?).into()),
            Marker::U16 => Token::Uint(u16::from_be_bytes(self.fixed()?).into()),
            Marker::U32 => Token::Uint(u32::from_be_bytes(self.fixed()?).into()),
            Marker::U64 => Token::Uint(u64::from_be_bytes(self.fixed()?)),
            Marker::I8 => signed(i8::from_be_bytes(self.fixed()?).into()),
            Marker::I16 => signed(i16::from_be_bytes(self.fixed()?).into()),
            Marker::I32 => signed(i32::from_be_bytes(self.fixed()?).into()),
            Marker::I64 => signed(i64::from_be_bytes(self.fixed()?)),
            Marker::F32 => Token::Float(f32::from_be_bytes(self.fixed()?).into()),
            Marker::F64 => Token::Float(f64::from_be_bytes(self.fixed()?)),
            marker => self.sized(marker)?,
        })
    }

    /// The rest of an item that has a length.
    fn sized(&mut self, marker: Marker) -> Result<Token<'a>> {
        Ok(match marker {
            Marker::FixStr(count) => self.text(count.into())?,
            Marker::Str8 => self.len8().and_then(|count| self.text(count))?,
            Marker::Str16 => self.len16().and_then(|count| self.text(count))?,
            Marker::Str32 => self.len32().and_then(|count| self.text(count))?,
            Marker::Bin8 => self.len8().and_then(|count| self.take(count)).map(Token::Bin)?,
            Marker::Bin16 => self.len16().and_then(|count| self.take(count)).map(Token::Bin)?,
            Marker::Bin32 => self.len32().and_then(|count| self.take(count)).map(Token::Bin)?,
            Marker::FixArray(count) => Token::Array(count.into()),
            Marker::Array16 => Token::Array(self.len16()?),
            Marker::Array32 => Token::Array(self.len32()?),
            Marker::FixMap(count) => Token::Map(count.into()),
            Marker::Map16 => Token::Map(self.len16()?),
            Marker::Map32 => Token::Map(self.len32()?),
            Marker::FixExt1 => self.ext(1)?,
            Marker::FixExt2 => self.ext(2)?,
            Marker::FixExt4 => self.ext(4)?,
            Marker::FixExt8 => self.ext(8)?,
            Marker::FixExt16 => self.ext(16)?,
            Marker::Ext8 => self.len8().and_then(|count| self.ext(count))?,
            Marker::Ext16 => self.len16().and_then(|count| self.ext(count))?,
            Marker::Ext32 => self.len32().and_then(|count| self.ext(count))?,
            _ => return Err(UnpackError::Bad("a marker with a length")),
        })
    }

    /// Walks over one value with all that it holds, `levels` deep at most, and answers its bytes.
    pub(crate) fn value(&mut self, levels: usize) -> Result<&'a [u8]> {
        let start = self.rest;
        self.walk(levels)?;
        Ok(&start[..start.len() - self.rest.len()])
    }

    fn walk(&mut self, levels: usize) -> Result<()> {
        let elements = match self.token()? {
            Token::Array(count) => count,
            Token::Map(count) => count.saturating_mul(2),
            _ => return Ok(()),
        };
        let levels = levels.checked_sub(1).ok_or(UnpackError::TooDeep)?;
        (0..elements).try_for_each(|_| self.walk(levels))
    }

    pub(crate) fn array(&mut self) -> Result<usize> {
        match self.token()? {
            Token::Array(count) => Ok(count),
            _ => Err(UnpackError::Bad("an array")),
        }
    }

    pub(crate) fn str(&mut self) -> Result<&'a str> {
        self.str_or_nil()?.ok_or(UnpackError::Bad("a string"))
    }

    pub(crate) fn str_or_nil(&mut self) -> Result<Option<&'a str>> {
        match self.token()? {
            Token::Str(text) => Ok(Some(text)),
            Token::Nil => Ok(None),
            _ => Err(UnpackError::Bad("a string")),
        }
    }

    pub(crate) fn uint(&mut self) -> Result<u64> {
        match self.token()? {
            Token::Uint(value) => Ok(value),
            _ => Err(UnpackError::Bad("a number of at least zero")),
        }
    }

    pub(crate) fn bool(&mut self) -> Result<bool> {
        match self.token()? {
            Token::Bool(value) => Ok(value),
            _ => Err(UnpackError::Bad("a boolean")),
        }
    }
}

fn signed<'a>(value: i64) -> Token<'a> {
    u64::try_from(value).map_or(Token::Int(value), Token::Uint)
}

/// Appends items to a buffer.
#[derive(Default)]
pub(crate) struct Pack(ByteBuf);

impl Pack {
    pub(crate) fn into_vec(self) -> Vec<u8> {
        self.0.into_vec()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_slice().len()
    }

    pub(crate) fn nil(&mut self) {
        self.0.as_mut_vec().push(Marker::Null.to_u8());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.0.as_mut_vec().push(if value { Marker::True } else { Marker::False }.to_u8());
    }

    pub(crate) fn uint(&mut self, value: u64) {
        written(encode::write_uint(&mut self.0, value));
    }

    pub(crate) fn int(&mut self, value: i64) {
        written(encode::write_sint(&mut self.0, value));
    }

    pub(crate) fn float(&mut self, value: f64) {
        written(encode::write_f64(&mut self.0, value));
    }

    pub(crate) fn str(&mut self, text: &str) {
        written(encode::write_str(&mut self.0, text));
    }

    pub(crate) fn str_or_nil(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.str(text),
            None => self.nil(),
        }
    }

    pub(crate) fn array(&mut self, count: usize) {
        written(encode::write_array_len(&mut self.0, length(count)));
    }

    pub(crate) fn map(&mut self, count: usize) {
        written(encode::write_map_len(&mut self.0, length(count)));
    }

    /// Appends bytes that are MessagePack already.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.as_mut_vec().extend_from_slice(bytes);
    }

    /// Leaves room for the head of an array or map whose count isn't known yet; see [`Pack::close`].
    pub(crate) fn open(&mut self) -> usize {
        self.nil();
        self.len() - 1
    }

    /// Puts `head` (written by `head` into an empty buffer) where [`Pack::open`] left room. What has been
    /// written behind it moves if there are more than 15 elements.
    pub(crate) fn close(&mut self, at: usize, head: impl FnOnce(&mut Pack)) {
        let mut bytes = Pack::default();
        head(&mut bytes);
        self.0.as_mut_vec().splice(at..=at, bytes.into_vec());
    }
}

/// Counts are of things in memory that took a byte each, and messages are bounded far below 4 GiB.
fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Writing into memory can't fail, and the type says so.
fn written<T>(result: std::result::Result<T, ValueWriteError<Infallible>>) {
    match result {
        Ok(_) => {}
        Err(ValueWriteError::InvalidMarkerWrite(never) | ValueWriteError::InvalidDataWrite(never)) => {
            match never {}
        }
    }
}
