//! Messages: sections as slices of the payload, and a writer that puts sections around opaque bodies
//! (part 3, 3.2).
//!
//! [`Message::parse`] finds the sections and checks their form; what is in them is looked at when it is
//! asked for. A body is never copied here, and never decoded when it is data.

use std::borrow::Cow;

use crate::error::DecodeError;
use crate::fields::{Fields, descriptor_code};
use crate::value::{List, Map, Value};
use crate::write::Writer;

/// Format of the standard's own message.
pub const FORMAT_MESSAGE: u32 = 0;
/// Format of a batch: the body's data sections are whole messages.
pub const FORMAT_BATCH: u32 = 0x8001_3700;

/// The sections of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Message<'a> {
    header: List<'a>,
    /// Annotations for the next hop.
    pub delivery_annotations: Map<'a>,
    /// Annotations for everybody on the way.
    pub message_annotations: Map<'a>,
    properties: List<'a>,
    /// What the application has attached.
    pub application_properties: Map<'a>,
    /// What it is all about.
    pub body: Body<'a>,
}

/// A message's body.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Body<'a> {
    /// There is none; the standard forbids that, some clients send it.
    #[default]
    None,
    /// One data section or more, as they were written.
    Data(Data<'a>),
    /// One value.
    Value(Value<'a>),
    /// Lists; not looked into.
    Sequence,
}

/// Data sections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Data<'a> {
    raw: &'a [u8],
    len: usize,
}

impl<'a> Data<'a> {
    /// The content of each section.
    pub fn sections(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut raw = self.raw;
        std::iter::from_fn(move || match Value::read(&mut raw).ok()? {
            Value::Described(described) => match described.value() {
                Value::Binary(bytes) => Some(bytes),
                _ => None,
            },
            _ => None,
        })
    }

    /// All content; copied only when there is more than one section.
    pub fn joined(&self) -> Cow<'a, [u8]> {
        let mut sections = self.sections();
        let first = sections.next().unwrap_or_default();
        match sections.next() {
            None => Cow::Borrowed(first),
            Some(second) => {
                let mut all = [first, second].concat();
                sections.for_each(|section| all.extend_from_slice(section));
                Cow::Owned(all)
            }
        }
    }
}

/// `header` (3.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// It shall survive.
    pub durable: bool,
    /// Milliseconds that it is worth something.
    pub ttl: Option<u32>,
    /// How often it was tried in vain.
    pub delivery_count: u32,
}

/// `properties` (3.2.4).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Properties<'a> {
    /// A ulong, uuid, binary or string.
    pub message_id: Value<'a>,
    /// Who made it.
    pub user_id: Option<&'a [u8]>,
    /// Where it goes to.
    pub to: Option<&'a str>,
    /// What it is about.
    pub subject: Option<&'a str>,
    /// Where answers go to.
    pub reply_to: Option<&'a str>,
    /// As `message_id`.
    pub correlation_id: Value<'a>,
    /// Media type.
    pub content_type: Option<&'a str>,
    /// Coding.
    pub content_encoding: Option<&'a str>,
    /// Milliseconds since 1970.
    pub absolute_expiry_time: Option<i64>,
    /// Milliseconds since 1970.
    pub creation_time: Option<i64>,
    /// Its group.
    pub group_id: Option<&'a str>,
    /// Place in the group.
    pub group_sequence: Option<u32>,
    /// Group of answers.
    pub reply_to_group_id: Option<&'a str>,
}

impl Default for Properties<'_> {
    fn default() -> Self {
        Properties {
            message_id: Value::Null,
            user_id: None,
            to: None,
            subject: None,
            reply_to: None,
            correlation_id: Value::Null,
            content_type: None,
            content_encoding: None,
            absolute_expiry_time: None,
            creation_time: None,
            group_id: None,
            group_sequence: None,
            reply_to_group_id: None,
        }
    }
}

/// The text of a message id of any type: a uuid in lower case, binary as hexadecimal digits.
pub fn id_text(id: &Value<'_>) -> Option<String> {
    Some(match id {
        Value::String(text) => (*text).to_owned(),
        Value::Ulong(number) => number.to_string(),
        Value::Uuid(bytes) => uuid_text(bytes),
        Value::Binary(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        _ => return None,
    })
}

/// A uuid's canonical text.
pub fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

const HEADER: u64 = 0x70;
const DELIVERY_ANNOTATIONS: u64 = 0x71;
const MESSAGE_ANNOTATIONS: u64 = 0x72;
const PROPERTIES: u64 = 0x73;
const APPLICATION_PROPERTIES: u64 = 0x74;
const DATA: u64 = 0x75;
const SEQUENCE: u64 = 0x76;
const VALUE: u64 = 0x77;
const FOOTER: u64 = 0x78;

impl<'a> Message<'a> {
    /// Finds the sections.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn parse(mut payload: &'a [u8]) -> Result<Message<'a>, DecodeError> {
        let mut message = Message::default();
        let mut last = 0;
        while !payload.is_empty() {
            let start = payload;
            let Value::Described(section) = Value::read(&mut payload)? else {
                return Err(DecodeError::UnknownDescriptor);
            };
            let code = descriptor_code(section.descriptor()).ok_or(DecodeError::UnknownDescriptor)?;
            let repeats = code == last && matches!(code, DATA | SEQUENCE);
            let is_second_body = matches!(last, DATA | SEQUENCE | VALUE) && code <= VALUE;
            if !repeats && (code <= last || is_second_body) {
                return Err(DecodeError::SectionOrder);
            }
            let value = section.value();
            if code == DATA {
                let Value::Binary(_) = value else { return Err(DecodeError::WrongType { field: "data" }) };
                message.body = Body::Data(data_section(message.body, start, payload.len()));
            } else {
                message.take(code, value)?;
            }
            last = code;
        }
        if let Body::Data(data) = &mut message.body {
            data.raw = &data.raw[..data.len];
        }
        Ok(message)
    }

    fn take(&mut self, code: u64, value: Value<'a>) -> Result<(), DecodeError> {
        let map = |field| match value {
            Value::Map(map) => Ok(map),
            Value::Null => Ok(Map::default()),
            _ => Err(DecodeError::WrongType { field }),
        };
        let list = |field| match value {
            Value::List(list) => Ok(list),
            _ => Err(DecodeError::WrongType { field }),
        };
        match code {
            HEADER => self.header = list("header")?,
            DELIVERY_ANNOTATIONS => self.delivery_annotations = map("delivery-annotations")?,
            MESSAGE_ANNOTATIONS => self.message_annotations = map("message-annotations")?,
            PROPERTIES => self.properties = list("properties")?,
            APPLICATION_PROPERTIES => self.application_properties = map("application-properties")?,
            SEQUENCE => self.body = Body::Sequence,
            VALUE => self.body = Body::Value(value),
            FOOTER => drop(map("footer")?),
            _ => return Err(DecodeError::UnknownDescriptor),
        }
        Ok(())
    }

    /// Its header.
    ///
    /// # Errors
    /// [`DecodeError`] when a field has a wrong type.
    pub fn header(&self) -> Result<Header, DecodeError> {
        let mut fields = Fields::of_list(self.header);
        let durable = fields.bool("durable")?.unwrap_or(false);
        fields.ubyte("priority")?;
        let ttl = fields.uint("ttl")?;
        fields.bool("first-acquirer")?;
        let delivery_count = fields.uint("delivery-count")?.unwrap_or(0);
        fields.end()?;
        Ok(Header { durable, ttl, delivery_count })
    }

    /// Its properties.
    ///
    /// # Errors
    /// [`DecodeError`] when a field has a wrong type.
    pub fn properties(&self) -> Result<Properties<'a>, DecodeError> {
        let mut fields = Fields::of_list(self.properties);
        let properties = Properties {
            message_id: message_id(&mut fields, "message-id")?,
            user_id: fields.binary("user-id")?,
            to: text(&mut fields, "to")?,
            subject: text(&mut fields, "subject")?,
            reply_to: text(&mut fields, "reply-to")?,
            correlation_id: message_id(&mut fields, "correlation-id")?,
            content_type: text(&mut fields, "content-type")?,
            content_encoding: text(&mut fields, "content-encoding")?,
            absolute_expiry_time: fields.timestamp("absolute-expiry-time")?,
            creation_time: fields.timestamp("creation-time")?,
            group_id: text(&mut fields, "group-id")?,
            group_sequence: fields.uint("group-sequence")?,
            reply_to_group_id: text(&mut fields, "reply-to-group-id")?,
        };
        fields.end()?;
        Ok(properties)
    }

    /// The body's bytes: of data sections, or none.
    pub fn data(&self) -> Cow<'a, [u8]> {
        match &self.body {
            Body::Data(data) => data.joined(),
            _ => Cow::Borrowed(&[]),
        }
    }
}

/// Sections lie one behind the other: the first one's place and the length up to here are enough.
fn data_section<'a>(before: Body<'a>, start: &'a [u8], left: usize) -> Data<'a> {
    match before {
        Body::Data(data) => {
            let gone = start.len() - left;
            Data { len: data.len + gone, ..data }
        }
        _ => Data { raw: start, len: start.len() - left },
    }
}

/// Symbols and strings are taken for each other: clients differ.
fn text<'a>(fields: &mut Fields<'a>, field: &'static str) -> Result<Option<&'a str>, DecodeError> {
    match fields.next()? {
        Value::Null => Ok(None),
        value => value.as_text().map(Some).ok_or(DecodeError::WrongType { field }),
    }
}

fn message_id<'a>(fields: &mut Fields<'a>, field: &'static str) -> Result<Value<'a>, DecodeError> {
    match fields.next()? {
        id @ (Value::Null | Value::Ulong(_) | Value::Uuid(_) | Value::Binary(_) | Value::String(_)) => Ok(id),
        _ => Err(DecodeError::WrongType { field }),
    }
}

/// The messages in a batch, as they were written.
///
/// # Errors
/// [`DecodeError`] when the body isn't data.
pub fn batch_messages<'a>(
    batch: &Message<'a>,
) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>, DecodeError> {
    match batch.body {
        Body::Data(data) => Ok(data.sections()),
        _ => Err(DecodeError::WrongType { field: "data" }),
    }
}

/// Writes a message section by section, in the standard's order, which the caller keeps.
#[derive(Debug)]
pub struct MessageWriter<'b> {
    out: &'b mut Vec<u8>,
}

impl<'b> MessageWriter<'b> {
    /// Appends to `out`.
    pub fn new(out: &'b mut Vec<u8>) -> MessageWriter<'b> {
        MessageWriter { out }
    }

    fn map(&mut self, code: u64, fill: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        Writer::new(self.out).described(code, |w| w.map(fill));
        self
    }

    /// The header.
    pub fn header(&mut self, header: &Header) -> &mut Self {
        Writer::new(self.out).described_list(HEADER, |w| {
            w.opt_bool(header.durable.then_some(true));
            w.skip();
            w.opt_uint(header.ttl);
            w.skip();
            w.opt_uint(Some(header.delivery_count).filter(|count| *count != 0));
        });
        self
    }

    /// Annotations for the receiver; keys and values in turn.
    pub fn delivery_annotations(&mut self, fill: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        self.map(DELIVERY_ANNOTATIONS, fill)
    }

    /// Annotations of the message; keys and values in turn.
    pub fn message_annotations(&mut self, fill: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        self.map(MESSAGE_ANNOTATIONS, fill)
    }

    /// The properties.
    pub fn properties(&mut self, properties: &Properties<'_>) -> &mut Self {
        let id = |id: &Value<'_>, w: &mut Writer<'_>| if id.is_null() { w.skip() } else { w.value(id) };
        Writer::new(self.out).described_list(PROPERTIES, |w| {
            id(&properties.message_id, w);
            w.opt_binary(properties.user_id);
            w.opt_string(properties.to);
            w.opt_string(properties.subject);
            w.opt_string(properties.reply_to);
            id(&properties.correlation_id, w);
            w.opt_symbol(properties.content_type);
            w.opt_symbol(properties.content_encoding);
            w.opt_timestamp(properties.absolute_expiry_time);
            w.opt_timestamp(properties.creation_time);
            w.opt_string(properties.group_id);
            w.opt_uint(properties.group_sequence);
            w.opt_string(properties.reply_to_group_id);
        });
        self
    }

    /// What the application attaches; keys and values in turn.
    pub fn application_properties(&mut self, fill: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        self.map(APPLICATION_PROPERTIES, fill)
    }

    /// A data section.
    pub fn data(&mut self, data: &[u8]) -> &mut Self {
        self.data_head(data.len());
        self.out.extend_from_slice(data);
        self
    }

    /// The head of a data section of this many bytes, which the caller puts behind it.
    pub fn data_head(&mut self, len: usize) -> &mut Self {
        match u8::try_from(len) {
            Ok(len) => self.out.extend_from_slice(&[0x00, 0x53, DATA as u8, 0xa0, len]),
            Err(_) => {
                self.out.extend_from_slice(&[0x00, 0x53, DATA as u8, 0xb0]);
                self.out.extend_from_slice(&(len as u32).to_be_bytes());
            }
        }
        self
    }

    /// A body that is one value.
    pub fn value(&mut self, value: impl FnOnce(&mut Writer<'_>)) -> &mut Self {
        Writer::new(self.out).described(VALUE, value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All sections, and a body of more than one.
    #[test]
    fn sections() {
        let mut out = Vec::new();
        let properties = Properties {
            message_id: Value::Uuid([7; 16]),
            to: Some("/devices/d"),
            content_type: Some("application/json"),
            creation_time: Some(5),
            ..Properties::default()
        };
        MessageWriter::new(&mut out)
            .header(&Header { durable: true, ttl: Some(9), delivery_count: 2 })
            .delivery_annotations(|w| {
                w.symbol("a");
                w.long(-1);
            })
            .message_annotations(|w| {
                w.symbol("x-opt-offset");
                w.string("12");
            })
            .properties(&properties)
            .application_properties(|w| {
                w.string("k");
                w.null();
            })
            .data(b"one")
            .data(&[9; 300]);
        let message = Message::parse(&out).unwrap();
        assert_eq!(message.header().unwrap(), Header { durable: true, ttl: Some(9), delivery_count: 2 });
        assert_eq!(message.properties().unwrap(), properties);
        assert_eq!(message.message_annotations.get("x-opt-offset"), Some(Value::String("12")));
        assert_eq!(message.delivery_annotations.get("a"), Some(Value::Long(-1)));
        assert_eq!(message.application_properties.get("k"), Some(Value::Null));
        assert_eq!(message.data().len(), 303);
        let parts: Vec<usize> = batch_messages(&message).unwrap().map(<[u8]>::len).collect();
        assert_eq!(parts, [3, 300]);
    }

    /// Sections out of order, twice, or of two kinds of body.
    #[test]
    fn wrong_order() {
        let part = |write: fn(&mut MessageWriter<'_>)| {
            let mut out = Vec::new();
            write(&mut MessageWriter::new(&mut out));
            out
        };
        let header = part(|w| {
            w.header(&Header::default());
        });
        let properties = part(|w| {
            w.properties(&Properties::default());
        });
        let data = part(|w| {
            w.data(b"x");
        });
        let value = part(|w| {
            w.value(|w| w.null());
        });
        for wrong in [
            [&properties[..], &header],
            [&header[..], &header],
            [&data[..], &properties],
            [&data[..], &value],
            [&value[..], &data],
            [&value[..], &value],
        ] {
            assert_eq!(Message::parse(&wrong.concat()), Err(DecodeError::SectionOrder));
        }
        assert_eq!(Message::parse(&[0x40]), Err(DecodeError::UnknownDescriptor));
        assert_eq!(Message::parse(&data).unwrap().data().as_ref(), b"x");
        assert_eq!(Message::parse(&[]).unwrap().body, Body::None);
    }

    /// Ids of all types have a text.
    #[test]
    fn ids() {
        let uuid = Value::Uuid([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(id_text(&uuid).unwrap(), "12345678-9abc-def0-0102-030405060708");
        assert_eq!(id_text(&Value::Ulong(7)).unwrap(), "7");
        assert_eq!(id_text(&Value::Binary(&[1, 0xab])).unwrap(), "01ab");
        assert_eq!(id_text(&Value::Null), None);
    }
}
