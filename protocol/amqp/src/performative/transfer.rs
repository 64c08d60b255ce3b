//! `transfer` and `disposition`.

use super::{Role, mandatory};
use crate::error::DecodeError;
use crate::fields::Fields;
use crate::state::DeliveryState;
use crate::write::Writer;

/// `transfer` (2.7.5); its payload follows it in the frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transfer<'a> {
    /// The link.
    pub handle: u32,
    /// Number of the delivery in the session; mandatory in its first transfer.
    pub delivery_id: Option<u32>,
    /// The sender's name of the delivery; mandatory in its first transfer.
    pub delivery_tag: Option<&'a [u8]>,
    /// What the payload is; 0 is the standard's message.
    pub message_format: Option<u32>,
    /// The sender has settled it.
    pub settled: Option<bool>,
    /// More transfers of this delivery follow.
    pub more: bool,
    /// The delivery is given up.
    pub aborted: bool,
}

impl<'a> Transfer<'a> {
    pub(super) fn read(fields: &mut Fields<'a>) -> Result<Transfer<'a>, DecodeError> {
        let mut transfer = Transfer {
            handle: mandatory(fields.uint("handle")?, "handle")?,
            delivery_id: fields.uint("delivery-id")?,
            delivery_tag: fields.binary("delivery-tag")?,
            message_format: fields.uint("message-format")?,
            settled: fields.bool("settled")?,
            more: fields.bool("more")?.unwrap_or(false),
            aborted: false,
        };
        fields.ubyte("rcv-settle-mode")?;
        DeliveryState::read(fields)?;
        fields.bool("resume")?;
        transfer.aborted = fields.bool("aborted")?.unwrap_or(false);
        fields.bool("batchable")?;
        if transfer.delivery_tag.is_some_and(|tag| tag.len() > 32) {
            // "delivery-tag: a binary of up to 32 octets" (2.8.7)
            return Err(DecodeError::BadField { field: "delivery-tag" });
        }
        Ok(transfer)
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.whole_list(0x14, 11, |w| {
            w.uint(self.handle);
            w.opt_uint(self.delivery_id);
            w.opt_binary(self.delivery_tag);
            w.opt_uint(self.message_format);
            w.opt_bool(self.settled);
            w.opt_bool(self.more.then_some(true));
            for _ in 0..3 {
                w.skip();
            }
            w.opt_bool(self.aborted.then_some(true));
        });
    }
}

/// `disposition` (2.7.6).
#[derive(Clone, Debug, PartialEq)]
pub struct Disposition<'a> {
    /// Which end of the links sends it.
    pub role: Role,
    /// First delivery.
    pub first: u32,
    /// Last delivery; the first when there is none.
    pub last: Option<u32>,
    /// Its sender has settled them.
    pub settled: bool,
    /// What became of them.
    pub state: Option<DeliveryState<'a>>,
}

impl<'a> Disposition<'a> {
    pub(super) fn read(fields: &mut Fields<'a>) -> Result<Disposition<'a>, DecodeError> {
        let disposition = Disposition {
            role: Role::of(mandatory(fields.bool("role")?, "role")?),
            first: mandatory(fields.uint("first")?, "first")?,
            last: fields.uint("last")?,
            settled: fields.bool("settled")?.unwrap_or(false),
            state: DeliveryState::read(fields)?,
        };
        fields.bool("batchable")?;
        Ok(disposition)
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.whole_list(0x15, 6, |w| {
            w.bool(self.role == Role::Receiver);
            w.uint(self.first);
            w.opt_uint(self.last);
            w.opt_bool(self.settled.then_some(true));
            DeliveryState::write(self.state.as_ref(), w);
        });
    }
}
