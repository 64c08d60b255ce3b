//! The performatives of connections, sessions and links (part 2, 2.7): fields ↔ bytes.
//!
//! Reading borrows from the frame. What a field may hold beyond its type is checked where the engine
//! uses it; here only form is.

mod connection;
mod link;
mod session;
mod transfer;

pub use connection::{Close, Open};
pub use link::{Attach, Detach, ReceiverSettle, Role, SenderSettle};
pub use session::{Begin, End, Flow};
pub use transfer::{Disposition, Transfer};

use crate::error::DecodeError;
use crate::fields::Fields;
use crate::value::{Symbols, Value};
use crate::write::Writer;

/// One performative.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Performative<'a> {
    Open(Open<'a>),
    Begin(Begin<'a>),
    Attach(Box<Attach<'a>>),
    Flow(Flow),
    Transfer(Transfer<'a>),
    Disposition(Disposition<'a>),
    Detach(Detach<'a>),
    End(End<'a>),
    Close(Close<'a>),
}

impl<'a> Performative<'a> {
    /// Takes a performative off the front of a frame's body; what is left is payload.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn read(body: &mut &'a [u8]) -> Result<Performative<'a>, DecodeError> {
        let (code, mut fields) = Fields::read(body)?;
        let performative = match code {
            0x14 => Performative::Transfer(Transfer::read(&mut fields)?),
            0x13 => Performative::Flow(Flow::read(&mut fields)?),
            0x15 => Performative::Disposition(Disposition::read(&mut fields)?),
            0x10 => Performative::Open(Open::read(&mut fields)?),
            0x11 => Performative::Begin(Begin::read(&mut fields)?),
            0x12 => Performative::Attach(Box::new(Attach::read(&mut fields)?)),
            0x16 => Performative::Detach(Detach::read(&mut fields)?),
            0x17 => Performative::End(End::read(&mut fields)?),
            0x18 => Performative::Close(Close::read(&mut fields)?),
            _ => return Err(DecodeError::UnknownDescriptor),
        };
        fields.end()?;
        Ok(performative)
    }

    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        match self {
            Performative::Open(open) => open.write(&mut writer),
            Performative::Begin(begin) => begin.write(&mut writer),
            Performative::Attach(attach) => attach.write(&mut writer),
            Performative::Flow(flow) => flow.write(&mut writer),
            Performative::Transfer(transfer) => transfer.write(&mut writer),
            Performative::Disposition(disposition) => disposition.write(&mut writer),
            Performative::Detach(detach) => detach.write(&mut writer),
            Performative::End(end) => end.write(&mut writer),
            Performative::Close(close) => close.write(&mut writer),
        }
    }
}

/// The error of detach, end, close and rejected, as a peer gave it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerError<'a> {
    /// Its condition.
    pub condition: &'a str,
    /// For people; empty if there is none.
    pub description: &'a str,
    /// For programs.
    pub info: Value<'a>,
}

impl<'a> PeerError<'a> {
    pub(crate) fn read(fields: &mut Fields<'a>) -> Result<Option<PeerError<'a>>, DecodeError> {
        let value = fields.next()?;
        if value.is_null() {
            return Ok(None);
        }
        let (code, mut fields) = Fields::of(value)?;
        if code != 0x1d {
            return Err(DecodeError::UnknownDescriptor);
        }
        let condition = mandatory(fields.symbol("condition")?, "condition")?;
        let description = fields.string("description")?.unwrap_or_default();
        let info = fields.next()?;
        fields.end()?;
        Ok(Some(PeerError { condition, description, info }))
    }

    pub(crate) fn write(error: Option<&PeerError<'_>>, w: &mut Writer<'_>) {
        let Some(error) = error else { return w.skip() };
        w.whole_list(0x1d, 3, |w| {
            w.symbol(error.condition);
            w.opt_string(Some(error.description).filter(|text| !text.is_empty()));
            if !error.info.is_null() {
                w.value(&error.info);
            }
        });
    }
}

/// Writes an error of ours.
pub(crate) fn write_error(error: Option<&crate::Error>, w: &mut Writer<'_>) {
    let Some(error) = error else { return w.skip() };
    w.whole_list(0x1d, 3, |w| {
        w.symbol(&error.condition);
        w.opt_string(Some(error.description.as_str()).filter(|text| !text.is_empty()));
        if error.info.is_empty() {
            return;
        }
        w.map(|w| {
            for (key, info) in &error.info {
                w.symbol(key);
                match info {
                    crate::Info::Text(text) => w.string(text),
                    crate::Info::Number(number) => w.uint(*number),
                }
            }
        });
    });
}

pub(crate) fn mandatory<T>(value: Option<T>, field: &'static str) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::MissingField { field })
}

fn write_symbols(symbols: Symbols<'_>, w: &mut Writer<'_>) {
    match symbols {
        Symbols::None => w.skip(),
        Symbols::One(one) => w.symbol(one),
        Symbols::Many(many) => w.value(&Value::Array(many)),
    }
}

fn write_map(map: Option<crate::value::Map<'_>>, w: &mut Writer<'_>) {
    match map {
        Some(map) => w.value(&Value::Map(map)),
        None => w.skip(),
    }
}
