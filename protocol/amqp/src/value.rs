//! Values of the AMQP type system (part 1), read in place.
//!
//! [`Value::read`] takes one value off the front of a slice. What lies inside a list, map, array or
//! described value is checked at the same time, so that walking it later can't fail and can't be
//! surprised. Nothing is copied and nothing is allocated.
//!
//! Why not `serde_amqp`: version 0.18 reads nested values by recursion without a bound, so that a value
//! of 63 kB ends the process by a stack overflow, which a peer could send before it is known; and reading
//! a transfer costs nearly three times as much (`examples/transfer_cost.rs`). It serves as the other side
//! of differential tests instead.
//!
//! Invariants:
//! 1. Any bytes give a value or a [`DecodeError`]; never a panic, never a read over the end.
//! 2. Depth is bounded by [`DEPTH_MAX`]; the count of elements by the bytes that hold them, and where
//!    elements have no bytes by [`ZERO_WIDTH_MAX`].

use crate::error::DecodeError;
pub use crate::fields::Symbols;

/// How deep values may lie in each other. Clients nest four levels (a filter in a source in an attach).
pub const DEPTH_MAX: u32 = 24;
/// Elements of an array whose elements take no bytes: their count is a claim that nothing backs.
pub const ZERO_WIDTH_MAX: u32 = 256;

/// A value; compound ones point into the bytes that they were read from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `boolean`
    Bool(bool),
    /// `ubyte`
    Ubyte(u8),
    /// `ushort`
    Ushort(u16),
    /// `uint`
    Uint(u32),
    /// `ulong`
    Ulong(u64),
    /// `byte`
    Byte(i8),
    /// `short`
    Short(i16),
    /// `int`
    Int(i32),
    /// `long`
    Long(i64),
    /// `float`
    Float(f32),
    /// `double`
    Double(f64),
    /// `decimal32`, `decimal64` or `decimal128`, as its bytes
    Decimal(&'a [u8]),
    /// `char`
    Char(char),
    /// `timestamp`: milliseconds since 1970
    Timestamp(i64),
    /// `uuid`
    Uuid([u8; 16]),
    /// `binary`
    Binary(&'a [u8]),
    /// `string`
    String(&'a str),
    /// `symbol`
    Symbol(&'a str),
    /// `list`
    List(List<'a>),
    /// `map`
    Map(Map<'a>),
    /// `array`
    Array(Array<'a>),
    /// a described value
    Described(Described<'a>),
}

/// The elements of a list.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct List<'a> {
    pub(crate) raw: &'a [u8],
    pub(crate) count: u32,
}

/// The pairs of a map.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Map<'a> {
    raw: &'a [u8],
    /// Keys and values together.
    count: u32,
}

/// The elements of an array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    /// The constructor, with descriptors where elements have some.
    constructor: &'a [u8],
    code: u8,
    raw: &'a [u8],
    count: u32,
}

/// A described value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Described<'a> {
    descriptor: &'a [u8],
    value: &'a [u8],
}

impl<'a> Described<'a> {
    /// What describes it.
    pub fn descriptor(&self) -> Value<'a> {
        again(self.descriptor)
    }

    /// What is described.
    pub fn value(&self) -> Value<'a> {
        again(self.value)
    }
}

/// Reads what was checked before.
fn again(mut raw: &[u8]) -> Value<'_> {
    Value::read(&mut raw).unwrap_or(Value::Null)
}

/// Values one after the other.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    raw: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        Value::read(&mut self.raw).ok()
    }
}

impl<'a> List<'a> {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The elements.
    pub fn iter(&self) -> Values<'a> {
        Values { raw: self.raw, left: self.count }
    }
}

impl<'a> Map<'a> {
    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.count as usize / 2
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The pairs.
    pub fn iter(&self) -> impl Iterator<Item = (Value<'a>, Value<'a>)> + use<'a> {
        let mut values = Values { raw: self.raw, left: self.count };
        std::iter::from_fn(move || Some((values.next()?, values.next()?)))
    }

    /// The value under a key that is a string or a symbol.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.iter().find(|(found, _)| found.as_text() == Some(key)).map(|(_, value)| value)
    }
}

impl<'a> Array<'a> {
    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The elements, without their descriptors where they have some.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (mut raw, code, mut left) = (self.raw, self.code, self.count);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            read_as(code, &mut raw, DEPTH_MAX).ok()
        })
    }

    /// Whether its elements are symbols.
    pub(crate) fn is_of_symbols(&self) -> bool {
        matches!(self.code, 0xa3 | 0xb3)
    }

    /// Whether its elements are described.
    pub fn is_described(&self) -> bool {
        self.constructor.len() > 1
    }

    /// Constructor, bytes of the elements, and their count.
    pub(crate) fn parts(&self) -> (&'a [u8], &'a [u8], u32) {
        (self.constructor, self.raw, self.count)
    }
}

impl<'a> Value<'a> {
    /// Takes one value off the front of `input`.
    ///
    /// # Errors
    /// [`DecodeError`]; `input` is then anywhere.
    pub fn read(input: &mut &'a [u8]) -> Result<Value<'a>, DecodeError> {
        read(input, DEPTH_MAX)
    }

    /// Reads the one value that `input` is.
    ///
    /// # Errors
    /// [`DecodeError`], also when something follows.
    pub fn read_all(mut input: &'a [u8]) -> Result<Value<'a>, DecodeError> {
        let value = Value::read(&mut input)?;
        if input.is_empty() { Ok(value) } else { Err(DecodeError::Trailing) }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The text of a string or symbol.
    pub fn as_text(&self) -> Option<&'a str> {
        match self {
            Value::String(text) | Value::Symbol(text) => Some(text),
            _ => None,
        }
    }

    /// Any whole number, if it fits.
    pub fn as_i64(&self) -> Option<i64> {
        Some(match *self {
            Value::Ubyte(value) => value.into(),
            Value::Ushort(value) => value.into(),
            Value::Uint(value) => value.into(),
            Value::Ulong(value) => i64::try_from(value).ok()?,
            Value::Byte(value) => value.into(),
            Value::Short(value) => value.into(),
            Value::Int(value) => value.into(),
            Value::Long(value) | Value::Timestamp(value) => value,
            _ => return None,
        })
    }

    /// The map, if it is one.
    pub fn as_map(&self) -> Option<Map<'a>> {
        match self {
            Value::Map(map) => Some(*map),
            _ => None,
        }
    }
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], DecodeError> {
    let (taken, rest) = input.split_at_checked(count).ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(taken)
}

fn fixed<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (taken, rest) = input.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
    let taken = *taken;
    *input = rest;
    Ok(taken)
}

pub(crate) fn byte(input: &mut &[u8]) -> Result<u8, DecodeError> {
    Ok(fixed::<1>(input)?[0])
}

/// A size or count of one byte or four.
fn number(input: &mut &[u8], wide: bool) -> Result<u32, DecodeError> {
    match wide {
        true => Ok(u32::from_be_bytes(fixed(input)?)),
        false => Ok(byte(input)?.into()),
    }
}

pub(crate) fn read<'a>(input: &mut &'a [u8], depth: u32) -> Result<Value<'a>, DecodeError> {
    match byte(input)? {
        0x00 => {
            let deeper = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
            let start = *input;
            read(input, deeper)?;
            let descriptor = &start[..start.len() - input.len()];
            let start = *input;
            read(input, deeper)?;
            let value = &start[..start.len() - input.len()];
            Ok(Value::Described(Described { descriptor, value }))
        }
        code => read_as(code, input, depth),
    }
}

/// Reads what follows the constructor `code`, which isn't 0.
fn read_as<'a>(code: u8, input: &mut &'a [u8], depth: u32) -> Result<Value<'a>, DecodeError> {
    Ok(match code {
        0x40 => Value::Null,
        0x41 => Value::Bool(true),
        0x42 => Value::Bool(false),
        0x43 => Value::Uint(0),
        0x44 => Value::Ulong(0),
        0x45 => Value::List(List::default()),
        0x50 => Value::Ubyte(byte(input)?),
        0x51 => Value::Byte(byte(input)? as i8),
        0x52 => Value::Uint(byte(input)?.into()),
        0x53 => Value::Ulong(byte(input)?.into()),
        0x54 => Value::Int((byte(input)? as i8).into()),
        0x55 => Value::Long((byte(input)? as i8).into()),
        0x56 => match byte(input)? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            other => return Err(DecodeError::BadBool(other)),
        },
        0x60 => Value::Ushort(u16::from_be_bytes(fixed(input)?)),
        0x61 => Value::Short(i16::from_be_bytes(fixed(input)?)),
        0x70 => Value::Uint(u32::from_be_bytes(fixed(input)?)),
        0x71 => Value::Int(i32::from_be_bytes(fixed(input)?)),
        0x72 => Value::Float(f32::from_be_bytes(fixed(input)?)),
        0x73 => Value::Char(char::from_u32(u32::from_be_bytes(fixed(input)?)).ok_or(DecodeError::BadText)?),
        0x74 => Value::Decimal(take(input, 4)?),
        0x80 => Value::Ulong(u64::from_be_bytes(fixed(input)?)),
        0x81 => Value::Long(i64::from_be_bytes(fixed(input)?)),
        0x82 => Value::Double(f64::from_be_bytes(fixed(input)?)),
        0x83 => Value::Timestamp(i64::from_be_bytes(fixed(input)?)),
        0x84 => Value::Decimal(take(input, 8)?),
        0x94 => Value::Decimal(take(input, 16)?),
        0x98 => Value::Uuid(fixed(input)?),
        0xa0 | 0xb0 => {
            let len = number(input, code == 0xb0)?;
            Value::Binary(take(input, len as usize)?)
        }
        0xa1 | 0xb1 => {
            let len = number(input, code == 0xb1)?;
            let text = std::str::from_utf8(take(input, len as usize)?);
            Value::String(text.map_err(|_| DecodeError::BadText)?)
        }
        0xa3 | 0xb3 => {
            let len = number(input, code == 0xb3)?;
            let text = std::str::from_utf8(take(input, len as usize)?);
            let text = text.ok().filter(|text| text.is_ascii());
            Value::Symbol(text.ok_or(DecodeError::BadText)?)
        }
        0xc0 | 0xd0 => {
            let (raw, count) = compound(input, code == 0xd0)?;
            walk(raw, count, depth)?;
            Value::List(List { raw, count })
        }
        0xc1 | 0xd1 => {
            let (raw, count) = compound(input, code == 0xd1)?;
            if count % 2 == 1 {
                return Err(DecodeError::BadCount(count));
            }
            walk(raw, count, depth)?;
            Value::Map(Map { raw, count })
        }
        0xe0 | 0xf0 => {
            let (raw, count) = compound(input, code == 0xf0)?;
            Value::Array(array(raw, count, depth)?)
        }
        other => return Err(DecodeError::UnknownConstructor(other)),
    })
}

/// The bytes behind size and count, and the count.
pub(crate) fn compound<'a>(input: &mut &'a [u8], wide: bool) -> Result<(&'a [u8], u32), DecodeError> {
    let size = number(input, wide)?;
    let mut raw = take(input, size as usize)?;
    let count = number(&mut raw, wide)?;
    Ok((raw, count))
}

/// Checks the elements of a list or map.
fn walk(mut raw: &[u8], count: u32, depth: u32) -> Result<(), DecodeError> {
    // Each element has a constructor of one byte at least.
    if count as usize > raw.len() {
        return Err(DecodeError::BadCount(count));
    }
    let deeper = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
    for _ in 0..count {
        read(&mut raw, deeper)?;
    }
    if raw.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
}

/// Checks an array: one constructor, then its elements.
fn array(mut raw: &[u8], count: u32, depth: u32) -> Result<Array<'_>, DecodeError> {
    let mut deeper = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
    let start = raw;
    let mut code = byte(&mut raw)?;
    while code == 0x00 {
        deeper = deeper.checked_sub(1).ok_or(DecodeError::TooDeep)?;
        read(&mut raw, deeper)?;
        code = byte(&mut raw)?;
    }
    let constructor = &start[..start.len() - raw.len()];
    let bound = match code {
        0x40..=0x45 => ZERO_WIDTH_MAX,
        // Every other element has a byte at least.
        _ => u32::try_from(raw.len()).unwrap_or(u32::MAX),
    };
    if count > bound {
        return Err(DecodeError::BadCount(count));
    }
    let elements = raw;
    for _ in 0..count {
        read_as(code, &mut raw, deeper)?;
    }
    match raw.is_empty() {
        true => Ok(Array { constructor, code, raw: elements, count }),
        false => Err(DecodeError::Trailing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nesting beyond the bound is refused, in whatever form it comes.
    #[test]
    fn depth_is_bounded() {
        let mut list = vec![0x45];
        let mut refused = None;
        for depth in 0..10_000 {
            let mut outer = vec![0xd0];
            outer.extend((list.len() as u32 + 4).to_be_bytes());
            outer.extend(1u32.to_be_bytes());
            outer.extend(&list);
            list = outer;
            if depth < 64 && refused.is_none() && Value::read_all(&list).is_err() {
                refused = Some(depth);
            }
        }
        assert_eq!(refused, Some(DEPTH_MAX as usize));
        assert_eq!(Value::read_all(&list), Err(DecodeError::TooDeep));
        // Described values: each zero byte begins one more.
        assert_eq!(Value::read_all(&[0; 60_000]), Err(DecodeError::TooDeep));
        let mut array = vec![0x45];
        for _ in 0..60 {
            let mut outer = vec![0xf0];
            outer.extend((array.len() as u32 + 4).to_be_bytes());
            outer.extend(1u32.to_be_bytes());
            outer.extend(&array);
            array = outer;
        }
        assert_eq!(Value::read_all(&array), Err(DecodeError::TooDeep));
    }

    /// A count is believed only as far as bytes back it.
    #[test]
    fn counts_are_bounded() {
        let array = |count: u32, code: u8| {
            let mut bytes = vec![0xf0, 0, 0, 0, 5];
            bytes.extend(count.to_be_bytes());
            bytes.push(code);
            bytes
        };
        for code in [0x40, 0x41, 0x43, 0x44, 0x45] {
            let hostile = array(u32::MAX, code);
            assert_eq!(Value::read_all(&hostile), Err(DecodeError::BadCount(u32::MAX)));
            assert!(Value::read_all(&array(ZERO_WIDTH_MAX, code)).is_ok());
        }
        assert_eq!(Value::read_all(&array(2, 0x50)), Err(DecodeError::BadCount(2)));
        assert_eq!(Value::read_all(&[0xc0, 2, 2, 0x40]), Err(DecodeError::BadCount(2)));
        assert_eq!(Value::read_all(&[0xc1, 2, 1, 0x40]), Err(DecodeError::BadCount(1)));
        assert_eq!(Value::read_all(&[0xc0, 3, 1, 0x40, 0x40]), Err(DecodeError::Trailing));
    }

    /// Each primitive in each of its forms.
    #[test]
    fn primitives() {
        let rows: &[(&[u8], Value<'_>)] = &[
            (&[0x40], Value::Null),
            (&[0x41], Value::Bool(true)),
            (&[0x56, 0], Value::Bool(false)),
            (&[0x50, 9], Value::Ubyte(9)),
            (&[0x60, 1, 2], Value::Ushort(258)),
            (&[0x43], Value::Uint(0)),
            (&[0x52, 200], Value::Uint(200)),
            (&[0x70, 0, 0, 1, 0], Value::Uint(256)),
            (&[0x44], Value::Ulong(0)),
            (&[0x53, 7], Value::Ulong(7)),
            (&[0x80, 0, 0, 0, 0, 0, 0, 0, 7], Value::Ulong(7)),
            (&[0x51, 0xff], Value::Byte(-1)),
            (&[0x61, 0xff, 0xfe], Value::Short(-2)),
            (&[0x54, 0xff], Value::Int(-1)),
            (&[0x71, 0xff, 0xff, 0xff, 0xff], Value::Int(-1)),
            (&[0x55, 0x80], Value::Long(-128)),
            (&[0x81, 0, 0, 0, 0, 0, 0, 1, 0], Value::Long(256)),
            (&[0x72, 0x3f, 0x80, 0, 0], Value::Float(1.0)),
            (&[0x82, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0], Value::Double(1.0)),
            (&[0x73, 0, 0, 0, 0x41], Value::Char('A')),
            (&[0x83, 0, 0, 0, 0, 0, 0, 0, 5], Value::Timestamp(5)),
            (&[0xa0, 2, 1, 2], Value::Binary(&[1, 2])),
            (&[0xb0, 0, 0, 0, 1, 1], Value::Binary(&[1])),
            (&[0xa1, 2, b'h', b'i'], Value::String("hi")),
            (&[0xb3, 0, 0, 0, 2, b'h', b'i'], Value::Symbol("hi")),
        ];
        for (bytes, value) in rows {
            assert_eq!(Value::read_all(bytes).as_ref(), Ok(value), "{bytes:02x?}");
            for cut in 0..bytes.len() {
                assert_eq!(Value::read_all(&bytes[..cut]), Err(DecodeError::Truncated), "{bytes:02x?}");
            }
        }
        assert_eq!(Value::read_all(&[0x56, 2]), Err(DecodeError::BadBool(2)));
        assert_eq!(Value::read_all(&[0xa1, 1, 0xff]), Err(DecodeError::BadText));
        assert_eq!(Value::read_all(&[0xa3, 2, 0xc3, 0xa4]), Err(DecodeError::BadText));
        assert_eq!(Value::read_all(&[0x73, 0, 0, 0xd8, 0]), Err(DecodeError::BadText));
        assert_eq!(Value::read_all(&[0x99]), Err(DecodeError::UnknownConstructor(0x99)));
    }
}
