//! Property bags: the properties of a message as text at the end of an MQTT topic.
//!
//! ```text
//! %24.ct=application%2Fjson&%24.ce=utf-8&room=4%2F12
//! ```
//!
//! The MQTT front end calls [`parse_into`] for every telemetry message and [`write()`] (through
//! [`crate::topics`]) for what goes to devices. Every SDK writes bags a little differently; all of them
//! are read.
//!
//! Invariants:
//! 1. Parsing borrows. It allocates for a value or name only when that has an escape in it; the usual
//!    spellings of system keys and of JSON's media type cost nothing.
//! 2. After parsing, no name occurs twice (the first counts), and nothing that only the server may say
//!    ([`SystemProperty::is_server_stamped`]) is left.
//! 3. Writing emits unreserved characters, `%`, `=` and `&` only: no device can meet a raw `/`.
//!
//! Not here: the size of a message, the meaning of a value (dates, ids).

mod property;

use std::borrow::Cow;

use thiserror::Error;

pub use self::property::{SystemProperty, is_stamped_name};
use crate::limits;
use crate::percent;
pub use crate::time::format_time;

/// A text that isn't a property bag. `index` counts its parts from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BagError {
    /// More properties than a message may have.
    #[error("message has more than {limit} properties")]
    TooMany {
        /// The bound.
        limit: usize,
    },
    /// A property without a name.
    #[error("property {index} has no name")]
    EmptyName {
        /// Its place.
        index: usize,
    },
    /// A percent escape that is broken or doesn't make UTF-8.
    #[error("property {index} has a broken percent escape")]
    BadEscape {
        /// Its place.
        index: usize,
    },
}

/// The properties of one message. Keep one per connection: [`Bag::recycle`] hands its memory on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bag<'a> {
    /// System properties in the order of the text, each at most once.
    pub system: Vec<(SystemProperty, Cow<'a, str>)>,
    /// Application properties in the order of the text, each name at most once.
    pub application: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Bag<'a> {
    /// An empty bag.
    pub fn new() -> Bag<'a> {
        Bag::default()
    }

    /// Forgets the properties, keeps the memory.
    pub fn clear(&mut self) {
        self.system.clear();
        self.application.clear();
    }

    /// Forgets the properties and keeps the memory for a message with another lifetime.
    ///
    /// A `Bag<'a>` can't take what lives shorter than `'a`. Collecting an empty vector into one of
    /// equal layout keeps its allocation, so a connection's loop allocates for its first messages only.
    pub fn recycle<'b>(mut self) -> Bag<'b> {
        self.clear();
        Bag {
            system: self.system.into_iter().map(|(property, _)| (property, Cow::Borrowed(""))).collect(),
            application: self
                .application
                .into_iter()
                .map(|_| (Cow::Borrowed(""), Cow::Borrowed("")))
                .collect(),
        }
    }

    /// The value of a system property.
    pub fn system_value(&self, property: SystemProperty) -> Option<&str> {
        self.system.iter().find(|(found, _)| *found == property).map(|(_, value)| value.as_ref())
    }

    /// The value of an application property.
    pub fn application_value(&self, name: &str) -> Option<&str> {
        self.application.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_ref())
    }

    fn put_system(&mut self, property: SystemProperty, value: Cow<'a, str>) {
        if !property.is_server_stamped() && self.system_value(property).is_none() {
            self.system.push((property, value));
        }
    }

    fn put_application(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) {
        if !is_stamped_name(&name) && self.application_value(&name).is_none() {
            self.application.push((name, value));
        }
    }
}

/// Reads the bag of a telemetry topic into `out`, which is cleared first and is empty after an error.
///
/// Drops one trailing `/` (Node, Java and .NET put it there) and one leading `?`, splits at `&`, each part
/// at its first `=`, and decodes both sides. A literal `+` stays. A part without `=` has an empty value
/// (.NET for null), an empty part is nothing. `$.` names that the protocol doesn't know stay application
/// properties.
pub fn parse_into<'a>(bag: &'a str, out: &mut Bag<'a>) -> Result<(), BagError> {
    out.clear();
    let parsed = parse_parts(bag, out);
    if parsed.is_err() {
        out.clear();
    }
    parsed
}

fn parse_parts<'a>(bag: &'a str, out: &mut Bag<'a>) -> Result<(), BagError> {
    let bag = bag.strip_suffix('/').unwrap_or(bag);
    let bag = bag.strip_prefix('?').unwrap_or(bag);
    for (index, part) in bag.split('&').filter(|part| !part.is_empty()).enumerate() {
        if index == limits::PROPERTIES_MAX {
            return Err(BagError::TooMany { limit: limits::PROPERTIES_MAX });
        }
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        parse_part(name, value, out).map_err(|problem| match problem {
            PartError::EmptyName => BagError::EmptyName { index },
            PartError::BadEscape => BagError::BadEscape { index },
        })?;
    }
    Ok(())
}

enum PartError {
    EmptyName,
    BadEscape,
}

fn parse_part<'a>(name: &'a str, value: &'a str, out: &mut Bag<'a>) -> Result<(), PartError> {
    if name.is_empty() {
        return Err(PartError::EmptyName);
    }
    // The two usual spellings of a system key are known without decoding.
    let suffix = name.strip_prefix("%24.").or_else(|| name.strip_prefix("$."));
    if let Some(property) = suffix.and_then(SystemProperty::from_mqtt_suffix) {
        out.put_system(property, decode_system(property, value)?);
        return Ok(());
    }
    let name = decode(name)?;
    let value = decode(value)?;
    match SystemProperty::from_mqtt_key(&name) {
        Some(property) => out.put_system(property, value),
        None => out.put_application(name, value),
    }
    Ok(())
}

/// JSON's media type is what nearly every message has, and all but one SDK escape it.
fn decode_system(property: SystemProperty, value: &str) -> Result<Cow<'_, str>, PartError> {
    match (property, value) {
        (SystemProperty::ContentType, "application%2Fjson" | "application%2fjson") => {
            Ok(Cow::Borrowed("application/json"))
        }
        _ => decode(value),
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, PartError> {
    percent::decode(text).map_err(|_| PartError::BadEscape)
}

/// Appends a bag for a device to `out`: system properties that MQTT has a key for, then application
/// properties, as `name=value` joined with `&`, both sides escaped, never a name without `=`.
///
/// An application property with the name of a system key is left out: a device would take it for one.
pub fn write(out: &mut String, system: &[(SystemProperty, &str)], application: &[(&str, &str)]) {
    write_after(out, "", system, application);
}

/// As [`write()`], with `separator` in front of the first property.
pub(crate) fn write_after(
    out: &mut String,
    separator: &'static str,
    system: &[(SystemProperty, &str)],
    application: &[(&str, &str)],
) {
    let system = system.iter().filter_map(|&(property, value)| Some((property.mqtt_key()?, value)));
    let is_plain = |&(name, _): &(&str, &str)| SystemProperty::from_mqtt_key(name).is_none();
    let application = application.iter().copied().filter(is_plain);
    let mut separator = separator;
    for (name, value) in system.chain(application) {
        out.push_str(separator);
        percent::encode_into(out, name);
        out.push('=');
        percent::encode_into(out, value);
        separator = "&";
    }
}

#[cfg(test)]
mod tests;
