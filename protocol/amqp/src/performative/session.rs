//! `begin`, `flow` and `end`.

use super::{PeerError, mandatory, write_map, write_symbols};
use crate::error::DecodeError;
use crate::fields::Fields;
use crate::value::{Map, Symbols};
use crate::write::Writer;

/// `begin` (2.7.2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Begin<'a> {
    /// The channel of the peer that it answers; none when it begins a session.
    pub remote_channel: Option<u16>,
    /// Number of the first transfer that its sender will send.
    pub next_outgoing_id: u32,
    /// Transfers that its sender takes.
    pub incoming_window: u32,
    /// Transfers that its sender may send.
    pub outgoing_window: u32,
    /// The highest handle that its sender takes.
    pub handle_max: Option<u32>,
    /// Extensions that it offers.
    pub offered_capabilities: Symbols<'a>,
    /// Extensions that it wants.
    pub desired_capabilities: Symbols<'a>,
    /// Anything.
    pub properties: Option<Map<'a>>,
}

impl<'a> Begin<'a> {
    pub(super) fn read(fields: &mut Fields<'a>) -> Result<Begin<'a>, DecodeError> {
        Ok(Begin {
            remote_channel: fields.ushort("remote-channel")?,
            next_outgoing_id: mandatory(fields.uint("next-outgoing-id")?, "next-outgoing-id")?,
            incoming_window: mandatory(fields.uint("incoming-window")?, "incoming-window")?,
            outgoing_window: mandatory(fields.uint("outgoing-window")?, "outgoing-window")?,
            handle_max: fields.uint("handle-max")?,
            offered_capabilities: Symbols::read(fields, "offered-capabilities")?,
            desired_capabilities: Symbols::read(fields, "desired-capabilities")?,
            properties: fields.map("properties")?,
        })
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.whole_list(0x11, 8, |w| {
            w.opt_ushort(self.remote_channel);
            w.uint(self.next_outgoing_id);
            w.uint(self.incoming_window);
            w.uint(self.outgoing_window);
            w.opt_uint(self.handle_max);
            write_symbols(self.offered_capabilities, w);
            write_symbols(self.desired_capabilities, w);
            write_map(self.properties, w);
        });
    }
}

/// `flow` (2.7.4).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Flow {
    /// Number of the next transfer that its sender expects; none before it has seen `begin`.
    pub next_incoming_id: Option<u32>,
    /// Transfers that its sender takes.
    pub incoming_window: u32,
    /// Number of the next transfer of its sender.
    pub next_outgoing_id: u32,
    /// Transfers that its sender may send.
    pub outgoing_window: u32,
    /// The link that it is about; none when it is about the session alone.
    pub handle: Option<u32>,
    /// Deliveries so far on the link.
    pub delivery_count: Option<u32>,
    /// Credit of the link.
    pub link_credit: Option<u32>,
    /// Messages that wait at the link's sender.
    pub available: Option<u32>,
    /// The link's sender shall use up the credit.
    pub drain: bool,
    /// The other side shall answer with a flow.
    pub echo: bool,
}

impl Flow {
    pub(super) fn read(fields: &mut Fields<'_>) -> Result<Flow, DecodeError> {
        let flow = Flow {
            next_incoming_id: fields.uint("next-incoming-id")?,
            incoming_window: mandatory(fields.uint("incoming-window")?, "incoming-window")?,
            next_outgoing_id: mandatory(fields.uint("next-outgoing-id")?, "next-outgoing-id")?,
            outgoing_window: mandatory(fields.uint("outgoing-window")?, "outgoing-window")?,
            handle: fields.uint("handle")?,
            delivery_count: fields.uint("delivery-count")?,
            link_credit: fields.uint("link-credit")?,
            available: fields.uint("available")?,
            drain: fields.bool("drain")?.unwrap_or(false),
            echo: fields.bool("echo")?.unwrap_or(false),
        };
        fields.map("properties")?;
        Ok(flow)
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.whole_list(0x13, 11, |w| {
            w.opt_uint(self.next_incoming_id);
            w.uint(self.incoming_window);
            w.uint(self.next_outgoing_id);
            w.uint(self.outgoing_window);
            w.opt_uint(self.handle);
            w.opt_uint(self.delivery_count);
            w.opt_uint(self.link_credit);
            w.opt_uint(self.available);
            w.opt_bool(self.drain.then_some(true));
            w.opt_bool(self.echo.then_some(true));
        });
    }
}

/// `end` (2.7.8).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End<'a> {
    /// Why, if there is something wrong.
    pub error: Option<PeerError<'a>>,
}

impl<'a> End<'a> {
    pub(super) fn read(fields: &mut Fields<'a>) -> Result<End<'a>, DecodeError> {
        Ok(End { error: PeerError::read(fields)? })
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.whole_list(0x17, 1, |w| PeerError::write(self.error.as_ref(), w));
    }
}
