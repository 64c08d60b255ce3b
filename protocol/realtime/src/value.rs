//! Values that nobody here looks into: arguments, results and items, as the bytes that came.
//!
//! A value knows its protocol and is well-formed in it; it is usually a slice of the frame that it came in.
//! Only a value that has to go out in the other protocol is converted (`convert.rs`).

use std::fmt;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::convert;
use crate::error::ValueError;
use crate::limits::DEPTH_MAX;
use crate::message::Protocol;
use crate::pack::{Pack, Unpack};

/// One JSON text or one item of MessagePack. Equal when the bytes are.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    protocol: Protocol,
    raw: Bytes,
}

impl Value {
    /// A JSON text. Refuses what can't be written as MessagePack (broken surrogates, numbers without a
    /// value), so that converting it can't fail.
    pub fn json(text: Bytes) -> Result<Value, ValueError> {
        convert::check_json(utf8(&text)?)?;
        Ok(Value::trusted(Protocol::Json, text))
    }

    /// One item of MessagePack.
    pub fn msgpack(bytes: Bytes) -> Result<Value, ValueError> {
        let mut from = Unpack::new(&bytes);
        from.value(DEPTH_MAX)?;
        if from.left() > 0 {
            return Err(ValueError::BadMsgpack { what: "one value" });
        }
        Ok(Value::trusted(Protocol::MessagePack, bytes))
    }

    /// A value of bytes that a decoder has found well-formed.
    pub(crate) fn trusted(protocol: Protocol, raw: Bytes) -> Value {
        Value { protocol, raw }
    }

    /// What the bytes are.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The bytes, as they came.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The value as JSON text; a cheap copy if it is that already.
    pub fn to_json(&self) -> Result<Bytes, ValueError> {
        if self.protocol == Protocol::Json {
            return Ok(self.raw.clone());
        }
        let mut out = Vec::with_capacity(self.raw.len() * 2);
        convert::msgpack_to_json(&self.raw, &mut out)?;
        Ok(out.into())
    }

    /// The value as MessagePack; a cheap copy if it is that already.
    pub fn to_msgpack(&self) -> Result<Bytes, ValueError> {
        if self.protocol == Protocol::MessagePack {
            return Ok(self.raw.clone());
        }
        let mut out = Pack::default();
        convert::json_to_msgpack(utf8(&self.raw)?, &mut out)?;
        Ok(out.into_vec().into())
    }

    /// The value in a protocol.
    pub fn to(&self, protocol: Protocol) -> Result<Bytes, ValueError> {
        match protocol {
            Protocol::Json => self.to_json(),
            Protocol::MessagePack => self.to_msgpack(),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Json => write!(f, "Json({})", String::from_utf8_lossy(&self.raw)),
            Protocol::MessagePack => write!(f, "MessagePack({:02x?})", &self.raw[..]),
        }
    }
}

/// The arguments of an invocation: a [`Value`] that is an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    array: Value,
    count: usize,
}

impl Arguments {
    /// Arguments as a JSON array. See [`Value::json`].
    pub fn json(text: Bytes) -> Result<Arguments, ValueError> {
        let array = Value::json(text)?;
        let count = json_elements(utf8(&array.raw)?).map(|elements| elements.len())?;
        Ok(Arguments { array, count })
    }

    /// No arguments.
    pub fn none() -> Arguments {
        Arguments::trusted(Value::trusted(Protocol::Json, Bytes::from_static(b"[]")), 0)
    }

    /// Arguments of an array that a decoder has found well-formed and counted.
    pub(crate) fn trusted(array: Value, count: usize) -> Arguments {
        Arguments { array, count }
    }

    /// All of them, as one array.
    pub fn array(&self) -> &Value {
        &self.array
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Each of them.
    pub fn values(&self) -> Result<Vec<Value>, ValueError> {
        let raw = &self.array.raw;
        let protocol = self.array.protocol;
        match protocol {
            Protocol::Json => {
                let elements = json_elements(utf8(raw)?)?;
                let slice = |element: &&RawValue| raw.slice_ref(element.get().as_bytes());
                Ok(elements.iter().map(|element| Value::trusted(protocol, slice(element))).collect())
            }
            Protocol::MessagePack => {
                let mut from = Unpack::new(raw);
                let count = from.array()?;
                let value = |_| Ok(Value::trusted(protocol, raw.slice_ref(from.value(DEPTH_MAX)?)));
                (0..count).map(value).collect()
            }
        }
    }
}

/// The elements of a JSON array.
fn json_elements(text: &str) -> Result<Vec<&RawValue>, ValueError> {
    if !text.trim_start().starts_with('[') {
        return Err(ValueError::NotArray);
    }
    serde_json::from_str(text).map_err(|error| ValueError::BadJson { detail: error.to_string() })
}

fn utf8(bytes: &[u8]) -> Result<&str, ValueError> {
    std::str::from_utf8(bytes).map_err(|error| ValueError::BadJson { detail: error.to_string() })
}
