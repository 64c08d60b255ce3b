//! `attach` and `detach`.

use super::{PeerError, mandatory, write_map, write_symbols};
use crate::error::DecodeError;
use crate::fields::Fields;
use crate::terminus::{Source, Target, Terminus};
use crate::value::{Map, Symbols, Value};
use crate::write::Writer;

/// Which end of a link sends a performative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that sends messages.
    Sender,
    /// The end that receives messages.
    Receiver,
}

impl Role {
    pub(crate) fn of(is_receiver: bool) -> Role {
        if is_receiver { Role::Receiver } else { Role::Sender }
    }

    /// The other end.
    #[must_use]
    pub fn other(self) -> Role {
        Role::of(self == Role::Sender)
    }
}

/// How the sender settles (2.8.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SenderSettle {
    /// It waits for the receiver's word.
    Unsettled = 0,
    /// Everything is settled when it is sent.
    Settled = 1,
    /// Either.
    #[default]
    Mixed = 2,
}

/// How the receiver settles (2.8.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ReceiverSettle {
    /// It settles with its word.
    #[default]
    First = 0,
    /// It gives its word, and settles when the sender has settled.
    Second = 1,
}

/// `attach` (2.7.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Attach<'a> {
    /// The link's name.
    pub name: &'a str,
    /// The number under which its sender speaks of the link in this session.
    pub handle: u32,
    /// Which end its sender is.
    pub role: Role,
    /// How the sender settles.
    pub snd_settle_mode: SenderSettle,
    /// How the receiver settles.
    pub rcv_settle_mode: ReceiverSettle,
    /// Where messages come from; `None` refuses the link, or there is none.
    pub source: Option<Source<'a>>,
    /// The source as it was written; empty when there is none.
    pub source_raw: &'a [u8],
    /// Where messages go to.
    pub target: Option<Terminus<'a>>,
    /// The target as it was written; empty when there is none.
    pub target_raw: &'a [u8],
    /// Deliveries that its sender remembers.
    pub unsettled: Option<Map<'a>>,
    /// It doesn't remember all.
    pub incomplete_unsettled: bool,
    /// Mandatory for senders.
    pub initial_delivery_count: Option<u32>,
    /// The largest message that its sender takes.
    pub max_message_size: Option<u64>,
    /// Extensions that it offers.
    pub offered_capabilities: Symbols<'a>,
    /// Extensions that it wants.
    pub desired_capabilities: Symbols<'a>,
    /// Anything.
    pub properties: Option<Map<'a>>,
}

impl<'a> Attach<'a> {
    /// One with these mandatory fields.
    pub fn new(name: &'a str, handle: u32, role: Role) -> Attach<'a> {
        Attach {
            name,
            handle,
            role,
            snd_settle_mode: SenderSettle::default(),
            rcv_settle_mode: ReceiverSettle::default(),
            source: None,
            source_raw: &[],
            target: None,
            target_raw: &[],
            unsettled: None,
            incomplete_unsettled: false,
            initial_delivery_count: (role == Role::Sender).then_some(0),
            max_message_size: None,
            offered_capabilities: Symbols::None,
            desired_capabilities: Symbols::None,
            properties: None,
        }
    }

    pub(super) fn read(fields: &mut Fields<'a>) -> Result<Attach<'a>, DecodeError> {
        let name = mandatory(fields.string("name")?, "name")?;
        let handle = mandatory(fields.uint("handle")?, "handle")?;
        let role = Role::of(mandatory(fields.bool("role")?, "role")?);
        let snd_settle_mode = match fields.ubyte("snd-settle-mode")? {
            Some(0) => SenderSettle::Unsettled,
            Some(1) => SenderSettle::Settled,
            Some(2) | None => SenderSettle::Mixed,
            Some(_) => return Err(DecodeError::BadField { field: "snd-settle-mode" }),
        };
        let rcv_settle_mode = match fields.ubyte("rcv-settle-mode")? {
            Some(0) | None => ReceiverSettle::First,
            Some(1) => ReceiverSettle::Second,
            Some(_) => return Err(DecodeError::BadField { field: "rcv-settle-mode" }),
        };
        let (source, source_raw) = fields.next_raw()?;
        let (target, target_raw) = fields.next_raw()?;
        let unsettled = fields.map("unsettled")?;
        let incomplete_unsettled = fields.bool("incomplete-unsettled")?.unwrap_or(false);
        let initial_delivery_count = fields.uint("initial-delivery-count")?;
        if role == Role::Sender && initial_delivery_count.is_none() {
            // "This MUST NOT be null if role is sender."
            return Err(DecodeError::MissingField { field: "initial-delivery-count" });
        }
        Ok(Attach {
            name,
            handle,
            role,
            snd_settle_mode,
            rcv_settle_mode,
            source: read_unless_null(source, Source::of)?,
            source_raw,
            target: read_unless_null(target, Terminus::of)?,
            target_raw,
            unsettled,
            incomplete_unsettled,
            initial_delivery_count,
            max_message_size: fields.ulong("max-message-size")?,
            offered_capabilities: Symbols::read(fields, "offered-capabilities")?,
            desired_capabilities: Symbols::read(fields, "desired-capabilities")?,
            properties: fields.map("properties")?,
        })
    }

    /// Writes it; source and target as `source_raw` and `target_raw` have them.
    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.whole_list(0x12, 14, |w| {
            w.string(self.name);
            w.uint(self.handle);
            w.bool(self.role == Role::Receiver);
            w.ubyte(self.snd_settle_mode as u8);
            w.ubyte(self.rcv_settle_mode as u8);
            w.raw_or_skip(self.source_raw);
            w.raw_or_skip(self.target_raw);
            write_map(self.unsettled, w);
            w.opt_bool(self.incomplete_unsettled.then_some(true));
            w.opt_uint(self.initial_delivery_count);
            w.opt_ulong(self.max_message_size);
            write_symbols(self.offered_capabilities, w);
            write_symbols(self.desired_capabilities, w);
            write_map(self.properties, w);
        });
    }

    /// The address of the node: of the source when its sender wants to receive, else of the target.
    pub fn address(&self) -> Option<&'a str> {
        match self.role {
            Role::Receiver => self.source.as_ref().and_then(|source| source.address),
            Role::Sender => match &self.target {
                Some(Terminus::Target(Target { address, .. })) => *address,
                _ => None,
            },
        }
    }
}

fn read_unless_null<'a, T>(
    value: Value<'a>,
    of: impl FnOnce(Value<'a>) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if value.is_null() { Ok(None) } else { of(value).map(Some) }
}

/// `detach` (2.7.7).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detach<'a> {
    /// The link.
    pub handle: u32,
    /// It is over, not only interrupted.
    pub closed: bool,
    /// Why, if there is something wrong.
    pub error: Option<PeerError<'a>>,
}

impl<'a> Detach<'a> {
    pub(super) fn read(fields: &mut Fields<'a>) -> Result<Detach<'a>, DecodeError> {
        Ok(Detach {
            handle: mandatory(fields.uint("handle")?, "handle")?,
            closed: fields.bool("closed")?.unwrap_or(false),
            error: PeerError::read(fields)?,
        })
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.whole_list(0x16, 3, |w| {
            w.uint(self.handle);
            w.opt_bool(self.closed.then_some(true));
            PeerError::write(self.error.as_ref(), w);
        });
    }
}
