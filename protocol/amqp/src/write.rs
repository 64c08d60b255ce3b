//! Writing values: the shortest form of each, appended to the caller's buffer.
//!
//! Lists and maps are written by a closure and get their size afterwards: first in the long form, which
//! shrinks to the short one when the content fits. Nulls at the end of a list aren't written, as the
//! standard allows (1.4), but for performatives ([`Writer::whole_list`]).

use crate::value::{Map, Value};

/// Appends values to a buffer.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    count: u32,
    /// Nulls that are written only when something follows.
    nulls: u32,
}

impl<'b> Writer<'b> {
    /// Appends to `out`.
    pub fn new(out: &'b mut Vec<u8>) -> Writer<'b> {
        Writer { out, count: 0, nulls: 0 }
    }

    /// Begins an element; nulls before it are due now.
    fn begin(&mut self) {
        for _ in 0..self.nulls {
            self.out.push(0x40);
        }
        self.count += self.nulls + 1;
        self.nulls = 0;
    }

    fn plain(&mut self, code: u8, bytes: &[u8]) {
        self.begin();
        self.out.push(code);
        self.out.extend_from_slice(bytes);
    }

    /// A null of a list; left out at the end of one.
    pub fn skip(&mut self) {
        self.nulls += 1;
    }

    /// `null`, written in any case.
    pub fn null(&mut self) {
        self.plain(0x40, &[]);
    }

    /// `boolean`
    pub fn bool(&mut self, value: bool) {
        self.plain(if value { 0x41 } else { 0x42 }, &[]);
    }

    /// `ubyte`
    pub fn ubyte(&mut self, value: u8) {
        self.plain(0x50, &[value]);
    }

    /// `ushort`
    pub fn ushort(&mut self, value: u16) {
        self.plain(0x60, &value.to_be_bytes());
    }

    /// `uint`
    pub fn uint(&mut self, value: u32) {
        match (value, u8::try_from(value)) {
            (0, _) => self.plain(0x43, &[]),
            (_, Ok(small)) => self.plain(0x52, &[small]),
            _ => self.plain(0x70, &value.to_be_bytes()),
        }
    }

    /// `ulong`
    pub fn ulong(&mut self, value: u64) {
        match (value, u8::try_from(value)) {
            (0, _) => self.plain(0x44, &[]),
            (_, Ok(small)) => self.plain(0x53, &[small]),
            _ => self.plain(0x80, &value.to_be_bytes()),
        }
    }

    /// `int`
    pub fn int(&mut self, value: i32) {
        match i8::try_from(value) {
            Ok(small) => self.plain(0x54, &small.to_be_bytes()),
            Err(_) => self.plain(0x71, &value.to_be_bytes()),
        }
    }

    /// `long`
    pub fn long(&mut self, value: i64) {
        match i8::try_from(value) {
            Ok(small) => self.plain(0x55, &small.to_be_bytes()),
            Err(_) => self.plain(0x81, &value.to_be_bytes()),
        }
    }

    /// `timestamp`: milliseconds since 1970
    pub fn timestamp(&mut self, value: i64) {
        self.plain(0x83, &value.to_be_bytes());
    }

    /// `uuid`
    pub fn uuid(&mut self, value: &[u8; 16]) {
        self.plain(0x98, value);
    }

    fn variable(&mut self, short: u8, value: &[u8]) {
        self.begin();
        match u8::try_from(value.len()) {
            Ok(len) => self.out.extend_from_slice(&[short, len]),
            Err(_) => {
                self.out.push(short + 0x10);
                self.out.extend_from_slice(&(value.len() as u32).to_be_bytes());
            }
        }
        self.out.extend_from_slice(value);
    }

    /// `binary`
    pub fn binary(&mut self, value: &[u8]) {
        self.variable(0xa0, value);
    }

    /// `string`
    pub fn string(&mut self, value: &str) {
        self.variable(0xa1, value.as_bytes());
    }

    /// `symbol`; what isn't ASCII becomes `?`, as a symbol can't hold it.
    pub fn symbol(&mut self, value: &str) {
        if value.is_ascii() {
            self.variable(0xa3, value.as_bytes());
        } else {
            let ascii = value.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' });
            self.variable(0xa3, &ascii.collect::<Vec<u8>>());
        }
    }

    /// A value that is encoded already; nothing may be null here that [`Writer::skip`] would leave out.
    pub fn raw(&mut self, value: &[u8]) {
        self.begin();
        self.out.extend_from_slice(value);
    }

    /// An optional raw value: empty is null.
    pub fn raw_or_skip(&mut self, value: &[u8]) {
        if value.is_empty() { self.skip() } else { self.raw(value) }
    }

    fn compound(&mut self, short: u8, fill: impl FnOnce(&mut Writer<'_>)) {
        self.begin();
        let start = self.out.len();
        self.out.extend_from_slice(&[short + 0x10, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut inner = Writer::new(self.out);
        fill(&mut inner);
        let count = inner.count;
        self.close(start, short, count);
    }

    /// Writes size and count of what began at `start`, in the short form where it fits.
    fn close(&mut self, start: usize, short: u8, count: u32) {
        let content = self.out.len() - start - 9;
        match (u8::try_from(content + 1), u8::try_from(count)) {
            (Ok(size), Ok(count)) => {
                self.out.copy_within(start + 9.., start + 3);
                self.out.truncate(start + 3 + content);
                self.out[start..start + 3].copy_from_slice(&[short, size, count]);
            }
            _ => {
                let size = (content + 4) as u32;
                self.out[start + 1..start + 5].copy_from_slice(&size.to_be_bytes());
                self.out[start + 5..start + 9].copy_from_slice(&count.to_be_bytes());
            }
        }
    }

    /// `list`
    pub fn list(&mut self, fill: impl FnOnce(&mut Writer<'_>)) {
        self.begin();
        let start = self.out.len();
        self.out.extend_from_slice(&[0xd0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut inner = Writer::new(self.out);
        fill(&mut inner);
        match inner.count {
            0 => {
                self.out.truncate(start);
                self.out.push(0x45);
            }
            count => self.close(start, 0xc0, count),
        }
    }

    /// `map`: keys and values in turn.
    pub fn map(&mut self, fill: impl FnOnce(&mut Writer<'_>)) {
        self.compound(0xc1, fill);
    }

    /// A described list with all its `fields`, as performatives are written: the standard lets nulls at the
    /// end be left out, but some clients (pyamqp) take fields by their place without looking how many
    /// there are.
    pub fn whole_list(&mut self, code: u64, fields: u32, fill: impl FnOnce(&mut Writer<'_>)) {
        self.described(code, |w| {
            w.list(|w| {
                fill(w);
                let given = w.count + w.nulls;
                for _ in given..fields {
                    w.skip();
                }
                for _ in 0..w.nulls {
                    w.out.push(0x40);
                }
                w.count += w.nulls;
                w.nulls = 0;
            });
        });
    }

    /// A list described by a number; nulls at its end are left out.
    pub fn described_list(&mut self, code: u64, fill: impl FnOnce(&mut Writer<'_>)) {
        self.described(code, |w| w.list(fill));
    }

    /// A value described by a number.
    pub fn described(&mut self, code: u64, value: impl FnOnce(&mut Writer<'_>)) {
        self.begin();
        self.out.push(0x00);
        let mut inner = Writer::new(self.out);
        inner.ulong(code);
        value(&mut inner);
    }

    /// An array of symbols.
    pub fn symbols(&mut self, names: &[&str]) {
        self.texts(0xb3, names);
    }

    /// An array of strings.
    pub fn strings(&mut self, names: &[&str]) {
        self.texts(0xb1, names);
    }

    fn texts(&mut self, code: u8, names: &[&str]) {
        self.compound(0xe0, |w| {
            w.count = names.len() as u32;
            w.out.push(code);
            for name in names {
                w.out.extend_from_slice(&(name.len() as u32).to_be_bytes());
                w.out.extend_from_slice(name.as_bytes());
            }
        });
    }

    /// A value that was read.
    pub fn value(&mut self, value: &Value<'_>) {
        match *value {
            Value::Null => self.null(),
            Value::Bool(value) => self.bool(value),
            Value::Ubyte(value) => self.ubyte(value),
            Value::Ushort(value) => self.ushort(value),
            Value::Uint(value) => self.uint(value),
            Value::Ulong(value) => self.ulong(value),
            Value::Byte(value) => self.plain(0x51, &value.to_be_bytes()),
            Value::Short(value) => self.plain(0x61, &value.to_be_bytes()),
            Value::Int(value) => self.int(value),
            Value::Long(value) => self.long(value),
            Value::Float(value) => self.plain(0x72, &value.to_be_bytes()),
            Value::Double(value) => self.plain(0x82, &value.to_be_bytes()),
            Value::Decimal(bytes) => {
                let code = match bytes.len() {
                    4 => 0x74,
                    8 => 0x84,
                    _ => 0x94,
                };
                self.plain(code, bytes);
            }
            Value::Char(value) => self.plain(0x73, &u32::from(value).to_be_bytes()),
            Value::Timestamp(value) => self.timestamp(value),
            Value::Uuid(value) => self.uuid(&value),
            Value::Binary(value) => self.binary(value),
            Value::String(value) => self.string(value),
            Value::Symbol(value) => self.symbol(value),
            Value::List(list) => self.list(|w| list.iter().for_each(|value| w.value(&value))),
            Value::Map(map) => self.pairs(map),
            Value::Array(array) => {
                let (code, raw, count) = array.parts();
                self.compound(0xe0, |w| {
                    w.count = count;
                    w.out.extend_from_slice(code);
                    w.out.extend_from_slice(raw);
                });
            }
            Value::Described(described) => {
                self.begin();
                self.out.push(0x00);
                let mut inner = Writer::new(self.out);
                inner.value(&described.descriptor());
                inner.value(&described.value());
            }
        }
    }

    fn pairs(&mut self, map: Map<'_>) {
        self.map(|w| {
            for (key, value) in map.iter() {
                w.value(&key);
                w.value(&value);
            }
        });
    }
}

/// An optional field of a list.
macro_rules! optional {
    ($($(#[$doc:meta])* $name:ident, $plain:ident, $type:ty;)*) => {
        impl Writer<'_> {
            $(
                $(#[$doc])*
                pub fn $name(&mut self, value: Option<$type>) {
                    match value {
                        Some(value) => self.$plain(value),
                        None => self.skip(),
                    }
                }
            )*
        }
    };
}

optional! {
    /// An optional `boolean` of a list.
    opt_bool, bool, bool;
    /// An optional `ubyte` of a list.
    opt_ubyte, ubyte, u8;
    /// An optional `ushort` of a list.
    opt_ushort, ushort, u16;
    /// An optional `uint` of a list.
    opt_uint, uint, u32;
    /// An optional `ulong` of a list.
    opt_ulong, ulong, u64;
    /// An optional `timestamp` of a list.
    opt_timestamp, timestamp, i64;
    /// An optional `string` of a list.
    opt_string, string, &str;
    /// An optional `symbol` of a list.
    opt_symbol, symbol, &str;
    /// An optional `binary` of a list.
    opt_binary, binary, &[u8];
}
