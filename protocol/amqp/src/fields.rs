//! Fields of described lists, by type; fields that hold any number of symbols; numbers of descriptors.

use crate::error::DecodeError;
use crate::value::{Array, DEPTH_MAX, List, Map, Value, byte, compound, read};

/// The fields of a described list, in order; those that aren't there are null.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    raw: &'a [u8],
    left: u32,
}

impl<'a> Fields<'a> {
    /// Reads a descriptor and the list behind it, which has been read by nobody.
    pub(crate) fn read(input: &mut &'a [u8]) -> Result<(u64, Fields<'a>), DecodeError> {
        if byte(input)? != 0x00 {
            return Err(DecodeError::UnknownDescriptor);
        }
        let code = descriptor_code(read(input, DEPTH_MAX)?).ok_or(DecodeError::UnknownDescriptor)?;
        let (raw, left) = match byte(input)? {
            0x45 => (&[][..], 0),
            wide @ (0xc0 | 0xd0) => compound(input, wide == 0xd0)?,
            _ => return Err(DecodeError::WrongType { field: "fields" }),
        };
        if left as usize > raw.len() {
            return Err(DecodeError::BadCount(left));
        }
        Ok((code, Fields { raw, left }))
    }

    /// The fields of a value that was read.
    pub(crate) fn of(value: Value<'a>) -> Result<(u64, Fields<'a>), DecodeError> {
        let Value::Described(described) = value else { return Err(DecodeError::UnknownDescriptor) };
        let code = descriptor_code(described.descriptor()).ok_or(DecodeError::UnknownDescriptor)?;
        match described.value() {
            Value::List(list) => Ok((code, Fields::of_list(list))),
            _ => Err(DecodeError::WrongType { field: "fields" }),
        }
    }

    /// The fields of a list that was read.
    pub(crate) fn of_list(list: List<'a>) -> Fields<'a> {
        Fields { raw: list.raw, left: list.count }
    }

    pub(crate) fn next(&mut self) -> Result<Value<'a>, DecodeError> {
        if self.left == 0 {
            return Ok(Value::Null);
        }
        self.left -= 1;
        Value::read(&mut self.raw)
    }

    /// The next field and its bytes; empty when it is null.
    pub(crate) fn next_raw(&mut self) -> Result<(Value<'a>, &'a [u8]), DecodeError> {
        let start = self.raw;
        let value = self.next()?;
        let raw = if value.is_null() { &[][..] } else { &start[..start.len() - self.raw.len()] };
        Ok((value, raw))
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match (self.left, self.raw.is_empty()) {
            (0, true) => Ok(()),
            (0, false) => Err(DecodeError::Trailing),
            _ => Err(DecodeError::TooManyFields),
        }
    }
}

macro_rules! field {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $pattern:pat => $value:expr;)*) => {
        impl<'a> Fields<'a> {
            $(
                $(#[$doc])*
                pub(crate) fn $name(&mut self, field: &'static str) -> Result<Option<$type>, DecodeError> {
                    match self.next()? {
                        Value::Null => Ok(None),
                        $pattern => Ok(Some($value)),
                        _ => Err(DecodeError::WrongType { field }),
                    }
                }
            )*
        }
    };
}

field! {
    bool: bool = Value::Bool(value) => value;
    ubyte: u8 = Value::Ubyte(value) => value;
    ushort: u16 = Value::Ushort(value) => value;
    uint: u32 = Value::Uint(value) => value;
    ulong: u64 = Value::Ulong(value) => value;
    timestamp: i64 = Value::Timestamp(value) => value;
    binary: &'a [u8] = Value::Binary(value) => value;
    string: &'a str = Value::String(value) => value;
    symbol: &'a str = Value::Symbol(value) => value;
    map: Map<'a> = Value::Map(value) => value;
}

/// A field with `multiple="true"`: null, one symbol, or an array of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Symbols<'a> {
    /// None.
    #[default]
    None,
    /// One.
    One(&'a str),
    /// Any number.
    Many(Array<'a>),
}

impl<'a> Symbols<'a> {
    pub(crate) fn read(fields: &mut Fields<'a>, field: &'static str) -> Result<Symbols<'a>, DecodeError> {
        match fields.next()? {
            Value::Null => Ok(Symbols::None),
            Value::Symbol(one) => Ok(Symbols::One(one)),
            // An empty array may have any constructor.
            Value::Array(array) if array.is_empty() || array.is_of_symbols() => Ok(Symbols::Many(array)),
            _ => Err(DecodeError::WrongType { field }),
        }
    }

    /// Whether it names this one.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Symbols::None => false,
            Symbols::One(one) => *one == name,
            Symbols::Many(many) => many.iter().any(|value| value == Value::Symbol(name)),
        }
    }
}

/// The number of a descriptor, or the number that stands for its symbol.
pub(crate) fn descriptor_code(descriptor: Value<'_>) -> Option<u64> {
    match descriptor {
        Value::Ulong(code) => Some(code),
        Value::Symbol(name) => NAMES.iter().find(|(known, _)| *known == name).map(|(_, code)| *code),
        _ => None,
    }
}

/// Symbolic descriptors (the standard gives each type both).
const NAMES: &[(&str, u64)] = &[
    ("amqp:open:list", 0x10),
    ("amqp:begin:list", 0x11),
    ("amqp:attach:list", 0x12),
    ("amqp:flow:list", 0x13),
    ("amqp:transfer:list", 0x14),
    ("amqp:disposition:list", 0x15),
    ("amqp:detach:list", 0x16),
    ("amqp:end:list", 0x17),
    ("amqp:close:list", 0x18),
    ("amqp:error:list", 0x1d),
    ("amqp:received:list", 0x23),
    ("amqp:accepted:list", 0x24),
    ("amqp:rejected:list", 0x25),
    ("amqp:released:list", 0x26),
    ("amqp:modified:list", 0x27),
    ("amqp:source:list", 0x28),
    ("amqp:target:list", 0x29),
    ("amqp:coordinator:list", 0x30),
    ("amqp:sasl-mechanisms:list", 0x40),
    ("amqp:sasl-init:list", 0x41),
    ("amqp:sasl-challenge:list", 0x42),
    ("amqp:sasl-response:list", 0x43),
    ("amqp:sasl-outcome:list", 0x44),
    ("amqp:header:list", 0x70),
    ("amqp:delivery-annotations:map", 0x71),
    ("amqp:message-annotations:map", 0x72),
    ("amqp:properties:list", 0x73),
    ("amqp:application-properties:map", 0x74),
    ("amqp:data:binary", 0x75),
    ("amqp:amqp-sequence:list", 0x76),
    ("amqp:amqp-value:*", 0x77),
    ("amqp:footer:map", 0x78),
];
