//! Sources and targets: what a link is attached to (part 3, 3.5).

use crate::error::DecodeError;
use crate::fields::Fields;
use crate::value::{Map, Symbols, Value};
use crate::write::Writer;

/// `source` (3.5.3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source<'a> {
    /// Its address.
    pub address: Option<&'a str>,
    /// The peer shall make a node.
    pub dynamic: bool,
    /// What to select from it.
    pub filter: Option<Map<'a>>,
    /// Extensions.
    pub capabilities: Symbols<'a>,
}

impl<'a> Source<'a> {
    /// Of a described value.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn of(value: Value<'a>) -> Result<Source<'a>, DecodeError> {
        let (code, mut fields) = Fields::of(value)?;
        if code != 0x28 {
            return Err(DecodeError::UnknownDescriptor);
        }
        let address = read_address(&mut fields)?;
        skip_lifetime(&mut fields)?;
        let dynamic = fields.bool("dynamic")?.unwrap_or(false);
        fields.map("dynamic-node-properties")?;
        fields.symbol("distribution-mode")?;
        let filter = fields.map("filter")?;
        fields.next()?;
        Symbols::read(&mut fields, "outcomes")?;
        let capabilities = Symbols::read(&mut fields, "capabilities")?;
        fields.end()?;
        Ok(Source { address, dynamic, filter, capabilities })
    }

    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        Writer::new(out).described_list(0x28, |w| {
            w.opt_string(self.address);
            for _ in 0..3 {
                w.skip();
            }
            w.opt_bool(self.dynamic.then_some(true));
            w.skip();
            w.skip();
            match self.filter {
                Some(filter) => w.value(&Value::Map(filter)),
                None => w.skip(),
            }
        });
    }
}

/// `target` (3.5.4).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target<'a> {
    /// Its address.
    pub address: Option<&'a str>,
    /// The peer shall make a node.
    pub dynamic: bool,
    /// Extensions.
    pub capabilities: Symbols<'a>,
}

impl Target<'_> {
    /// Appends it.
    pub fn write(&self, out: &mut Vec<u8>) {
        Writer::new(out).described_list(0x29, |w| {
            w.opt_string(self.address);
            for _ in 0..3 {
                w.skip();
            }
            w.opt_bool(self.dynamic.then_some(true));
        });
    }
}

/// What messages go to.
#[derive(Clone, Debug, PartialEq)]
pub enum Terminus<'a> {
    /// A node.
    Target(Target<'a>),
    /// The coordinator of transactions.
    Coordinator,
}

impl<'a> Terminus<'a> {
    /// Of a described value.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn of(value: Value<'a>) -> Result<Terminus<'a>, DecodeError> {
        let (code, mut fields) = Fields::of(value)?;
        match code {
            0x29 => {}
            0x30 => return Ok(Terminus::Coordinator),
            _ => return Err(DecodeError::UnknownDescriptor),
        }
        let address = read_address(&mut fields)?;
        skip_lifetime(&mut fields)?;
        let dynamic = fields.bool("dynamic")?.unwrap_or(false);
        fields.map("dynamic-node-properties")?;
        let capabilities = Symbols::read(&mut fields, "capabilities")?;
        fields.end()?;
        Ok(Terminus::Target(Target { address, dynamic, capabilities }))
    }
}

/// `durable`, `expiry-policy`, `timeout`: nothing here lives longer than its connection.
fn skip_lifetime(fields: &mut Fields<'_>) -> Result<(), DecodeError> {
    fields.uint("durable")?;
    fields.symbol("expiry-policy")?;
    fields.uint("timeout")?;
    Ok(())
}

/// "address" may be of any type (3.5.3); here it is a string, or a symbol.
fn read_address<'a>(fields: &mut Fields<'a>) -> Result<Option<&'a str>, DecodeError> {
    match fields.next()? {
        Value::Null => Ok(None),
        value => value.as_text().map(Some).ok_or(DecodeError::WrongType { field: "address" }),
    }
}
