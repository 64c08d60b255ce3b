//! Values from JSON to MessagePack and back.
//!
//! A backend speaks JSON to the REST API; clients may speak MessagePack. Going there, integers stay
//! integers and everything else a double; coming back, binaries become Base64 and timestamps ISO 8601, as
//! the public libraries write them, and what a double can't say in JSON (infinities) becomes null.
//!
//! Invariants: a text that [`check_json`] accepts is accepted by [`json_to_msgpack`], since the same walk
//! does both. Neither goes deeper than [`DEPTH_MAX`].

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::ValueError;
use crate::limits::DEPTH_MAX;
use crate::pack::{Pack, Token, Unpack, UnpackError};

/// Whether no more than `limit` arrays and objects lie inside each other. `text` need not be JSON.
pub(crate) fn is_json_deeper(text: &str, limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limit {
            return true;
        }
    }
    false
}

/// Checks that the text is one JSON value that [`json_to_msgpack`] can write.
pub(crate) fn check_json(text: &str) -> Result<(), ValueError> {
    walk_json(text, &mut Nothing)
}

/// Writes one JSON value as MessagePack.
pub(crate) fn json_to_msgpack(text: &str, out: &mut Pack) -> Result<(), ValueError> {
    walk_json(text, out)
}

fn walk_json<S: Sink>(text: &str, sink: &mut S) -> Result<(), ValueError> {
    if is_json_deeper(text, DEPTH_MAX) {
        return Err(ValueError::TooDeep { limit: DEPTH_MAX });
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let walked = Walk(sink).deserialize(&mut json).and_then(|()| json.end());
    walked.map_err(|error| ValueError::BadJson { detail: error.to_string() })
}

/// Who takes the items of a JSON text.
trait Sink {
    fn nil(&mut self) {}
    fn bool(&mut self, _: bool) {}
    fn uint(&mut self, _: u64) {}
    fn int(&mut self, _: i64) {}
    fn float(&mut self, _: f64) {}
    fn str(&mut self, _: &str) {}
    fn open(&mut self) -> usize {
        0
    }
    fn close_array(&mut self, _at: usize, _count: usize) {}
    fn close_map(&mut self, _at: usize, _count: usize) {}
}

/// Takes nothing: only the walk counts.
struct Nothing;

impl Sink for Nothing {}

impl Sink for Pack {
    fn nil(&mut self) {
        Pack::nil(self);
    }
    fn bool(&mut self, value: bool) {
        Pack::bool(self, value);
    }
    fn uint(&mut self, value: u64) {
        Pack::uint(self, value);
    }
    fn int(&mut self, value: i64) {
        Pack::int(self, value);
    }
    fn float(&mut self, value: f64) {
        Pack::float(self, value);
    }
    fn str(&mut self, text: &str) {
        Pack::str(self, text);
    }
    fn open(&mut self) -> usize {
        Pack::open(self)
    }
    fn close_array(&mut self, at: usize, count: usize) {
        self.close(at, |head| head.array(count));
    }
    fn close_map(&mut self, at: usize, count: usize) {
        self.close(at, |head| head.map(count));
    }
}

/// Hands one value, with all that it holds, to a sink.
struct Walk<'s, S>(&'s mut S);

impl<'de, S: Sink> DeserializeSeed<'de> for Walk<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Sink> Visitor<'de> for Walk<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.nil();
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.0.bool(value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.0.uint(value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.int(value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.0.float(value);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.str(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let (at, mut count) = (self.0.open(), 0);
        while elements.next_element_seed(Walk(self.0))?.is_some() {
            count += 1;
        }
        self.0.close_array(at, count);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let (at, mut count) = (self.0.open(), 0);
        while entries.next_key_seed(Walk(self.0))?.is_some() {
            entries.next_value_seed(Walk(self.0))?;
            count += 1;
        }
        self.0.close_map(at, count);
        Ok(())
    }
}

/// Writes one value of MessagePack, which has to be all of `bytes`, as JSON.
pub(crate) fn msgpack_to_json(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    let mut from = Unpack::new(bytes);
    value_to_json(&mut from, DEPTH_MAX, out)?;
    if from.left() > 0 {
        return Err(ValueError::BadMsgpack { what: "one value" });
    }
    Ok(())
}

fn value_to_json(from: &mut Unpack<'_>, levels: usize, out: &mut Vec<u8>) -> Result<(), ValueError> {
    match from.token()? {
        Token::Array(count) => array_to_json(from, count, deeper(levels)?, out),
        Token::Map(count) => map_to_json(from, count, deeper(levels)?, out),
        token => scalar_to_json(token, out),
    }
}

fn deeper(levels: usize) -> Result<usize, ValueError> {
    levels.checked_sub(1).ok_or(ValueError::TooDeep { limit: DEPTH_MAX })
}

fn array_to_json(
    from: &mut Unpack<'_>,
    count: usize,
    levels: usize,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    out.push(b'[');
    for index in 0..count {
        if index > 0 {
            out.push(b',');
        }
        value_to_json(from, levels, out)?;
    }
    out.push(b']');
    Ok(())
}

fn map_to_json(
    from: &mut Unpack<'_>,
    count: usize,
    levels: usize,
    out: &mut Vec<u8>,
) -> Result<(), ValueError> {
    out.push(b'{');
    for index in 0..count {
        if index > 0 {
            out.push(b',');
        }
        match from.token()? {
            Token::Str(key) => write_json(out, key),
            Token::Uint(key) => write_json(out, &key.to_string()),
            Token::Int(key) => write_json(out, &key.to_string()),
            _ => return Err(ValueError::BadKey),
        }
        out.push(b':');
        value_to_json(from, levels, out)?;
    }
    out.push(b'}');
    Ok(())
}

fn scalar_to_json(token: Token<'_>, out: &mut Vec<u8>) -> Result<(), ValueError> {
    match token {
        Token::Nil => out.extend_from_slice(b"null"),
        Token::Bool(value) => write_json(out, &value),
        Token::Uint(value) => write_json(out, &value),
        Token::Int(value) => write_json(out, &value),
        Token::Float(value) => write_json(out, &value),
        Token::Str(text) => write_json(out, text),
        Token::Bin(bytes) => write_json(out, &STANDARD.encode(bytes)),
        Token::Ext(TIMESTAMP, bytes) => write_json(out, &timestamp(bytes)?),
        Token::Ext(kind, _) => return Err(ValueError::Extension { kind }),
        Token::Array(_) | Token::Map(_) => return Err(ValueError::BadMsgpack { what: "a scalar" }),
    }
    Ok(())
}

/// Appends a string, number or boolean. Such values always have a form, and memory takes them.
pub(crate) fn write_json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let written = serde_json::to_writer(&mut *out, value);
    debug_assert!(written.is_ok(), "strings and numbers have a form in json");
}

/// The extension that MessagePack defines for moments.
const TIMESTAMP: i8 = -1;

/// The three forms of a timestamp (32, 64 and 96 bits) as ISO 8601 with nanoseconds.
fn timestamp(bytes: &[u8]) -> Result<String, ValueError> {
    let bad = ValueError::BadMsgpack { what: "a timestamp" };
    let (secs, nanos) = if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        (i64::from(u32::from_be_bytes(bytes)), 0)
    } else if let Ok(bytes) = <[u8; 8]>::try_from(bytes) {
        let both = u64::from_be_bytes(bytes);
        (i64::try_from(both & 0x3_ffff_ffff).map_err(|_| bad.clone())?, both >> 34)
    } else if let Some((nanos, secs)) = bytes.split_first_chunk::<4>() {
        let secs = <[u8; 8]>::try_from(secs).map_err(|_| bad.clone())?;
        (i64::from_be_bytes(secs), u64::from(u32::from_be_bytes(*nanos)))
    } else {
        return Err(bad);
    };
    if nanos > 999_999_999 {
        return Err(bad);
    }
    iso_8601(secs, nanos).ok_or(bad)
}

/// `2026-11-24T06:15:38.123Z`; `None` for years that don't have four digits. Counts eras of 400 years
/// (146,097 days) from 0000-03-01, so that the leap day is a year's last.
fn iso_8601(secs: i64, nanos: u64) -> Option<String> {
    let (days, of_day) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let shifted = days.checked_add(719_468)?;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let fraction = match nanos {
        0 => String::new(),
        nanos => format!(".{}", format!("{nanos:09}").trim_end_matches('0')),
    };
    let is_year = (0..=9_999).contains(&year);
    is_year.then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z"))
}

impl From<UnpackError> for ValueError {
    fn from(error: UnpackError) -> ValueError {
        match error {
            UnpackError::Bad(what) => ValueError::BadMsgpack { what },
            UnpackError::TooDeep => ValueError::TooDeep { limit: DEPTH_MAX },
        }
    }
}
