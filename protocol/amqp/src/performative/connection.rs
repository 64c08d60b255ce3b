//! `open` and `close`.

use super::{PeerError, mandatory, write_map, write_symbols};
use crate::error::DecodeError;
use crate::fields::Fields;
use crate::value::{Map, Symbols, Value};
use crate::write::Writer;

/// `open` (2.7.1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Open<'a> {
    /// Who sends it.
    pub container_id: &'a str,
    /// The name of the host that it wants to reach.
    pub hostname: Option<&'a str>,
    /// The largest frame that its sender takes.
    pub max_frame_size: Option<u32>,
    /// The highest channel that its sender takes.
    pub channel_max: Option<u16>,
    /// Milliseconds of silence after which its sender gives up.
    pub idle_time_out: Option<u32>,
    /// Languages of its texts.
    pub outgoing_locales: Symbols<'a>,
    /// Languages that it takes.
    pub incoming_locales: Symbols<'a>,
    /// Extensions that it offers.
    pub offered_capabilities: Symbols<'a>,
    /// Extensions that it wants.
    pub desired_capabilities: Symbols<'a>,
    /// Anything.
    pub properties: Option<Map<'a>>,
}

impl<'a> Open<'a> {
    pub(super) fn read(fields: &mut Fields<'a>) -> Result<Open<'a>, DecodeError> {
        Ok(Open {
            container_id: mandatory(fields.string("container-id")?, "container-id")?,
            hostname: fields.string("hostname")?,
            max_frame_size: fields.uint("max-frame-size")?,
            channel_max: fields.ushort("channel-max")?,
            idle_time_out: fields.uint("idle-time-out")?,
            outgoing_locales: Symbols::read(fields, "outgoing-locales")?,
            incoming_locales: Symbols::read(fields, "incoming-locales")?,
            offered_capabilities: Symbols::read(fields, "offered-capabilities")?,
            desired_capabilities: Symbols::read(fields, "desired-capabilities")?,
            properties: fields.map("properties")?,
        })
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.whole_list(0x10, 10, |w| {
            w.string(self.container_id);
            w.opt_string(self.hostname);
            w.opt_uint(self.max_frame_size);
            w.opt_ushort(self.channel_max);
            w.opt_uint(self.idle_time_out);
            write_symbols(self.outgoing_locales, w);
            write_symbols(self.incoming_locales, w);
            write_symbols(self.offered_capabilities, w);
            write_symbols(self.desired_capabilities, w);
            write_map(self.properties, w);
        });
    }
}

/// `close` (2.7.9).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Close<'a> {
    /// Why, if there is something wrong.
    pub error: Option<PeerError<'a>>,
}

impl<'a> Close<'a> {
    pub(super) fn read(fields: &mut Fields<'a>) -> Result<Close<'a>, DecodeError> {
        Ok(Close { error: PeerError::read(fields)? })
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.whole_list(0x18, 1, |w| PeerError::write(self.error.as_ref(), w));
    }
}

impl Default for PeerError<'_> {
    fn default() -> Self {
        PeerError { condition: "", description: "", info: Value::Null }
    }
}
