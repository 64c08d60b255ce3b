//! What became of a delivery (part 3, 3.4).

use crate::error::{DecodeError, Error};
use crate::fields::Fields;
use crate::performative::{PeerError, write_error};
use crate::value::{Map, Value};
use crate::write::Writer;

/// A delivery's state, as a peer gave it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DeliveryState<'a> {
    /// A part was received; says nothing of the outcome.
    Received,
    /// Taken.
    Accepted,
    /// Unfit.
    Rejected(Option<PeerError<'a>>),
    /// Given back, as if it had never been sent.
    Released,
    /// Given back, with changes.
    Modified {
        /// It was tried.
        delivery_failed: bool,
        /// Not again over this link.
        undeliverable_here: bool,
        /// Annotations to merge.
        annotations: Option<Map<'a>>,
    },
    /// Of an extension (transactions); the number of its descriptor.
    Other(u64),
}

impl<'a> DeliveryState<'a> {
    pub(crate) fn read(fields: &mut Fields<'a>) -> Result<Option<DeliveryState<'a>>, DecodeError> {
        let value = fields.next()?;
        if value.is_null() {
            return Ok(None);
        }
        DeliveryState::of(value).map(Some)
    }

    fn of(value: Value<'a>) -> Result<DeliveryState<'a>, DecodeError> {
        let (code, mut fields) = Fields::of(value)?;
        Ok(match code {
            0x23 => DeliveryState::Received,
            0x24 => DeliveryState::Accepted,
            0x25 => DeliveryState::Rejected(PeerError::read(&mut fields)?),
            0x26 => DeliveryState::Released,
            0x27 => DeliveryState::Modified {
                delivery_failed: fields.bool("delivery-failed")?.unwrap_or(false),
                undeliverable_here: fields.bool("undeliverable-here")?.unwrap_or(false),
                annotations: fields.map("message-annotations")?,
            },
            other => DeliveryState::Other(other),
        })
    }

    pub(crate) fn write(state: Option<&DeliveryState<'_>>, w: &mut Writer<'_>) {
        match state {
            None => w.skip(),
            Some(DeliveryState::Received) => w.described_list(0x23, |w| {
                w.uint(0);
                w.ulong(0);
            }),
            Some(DeliveryState::Accepted) => w.described_list(0x24, |_| {}),
            Some(DeliveryState::Rejected(error)) => {
                w.described_list(0x25, |w| PeerError::write(error.as_ref(), w));
            }
            Some(DeliveryState::Released) => w.described_list(0x26, |_| {}),
            Some(DeliveryState::Modified { delivery_failed, undeliverable_here, annotations }) => {
                w.described_list(0x27, |w| {
                    w.opt_bool(delivery_failed.then_some(true));
                    w.opt_bool(undeliverable_here.then_some(true));
                    match annotations {
                        Some(map) => w.value(&Value::Map(*map)),
                        None => w.skip(),
                    }
                });
            }
            Some(DeliveryState::Other(code)) => w.described_list(*code, |_| {}),
        }
    }

    /// Whether it is an outcome, and not only news on the way.
    pub fn is_outcome(&self) -> bool {
        !matches!(self, DeliveryState::Received | DeliveryState::Other(_))
    }
}

/// What becomes of a delivery by our word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken.
    Accepted,
    /// Refused, and why.
    Rejected(Error),
    /// Given back.
    Released,
}

impl Outcome {
    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        match self {
            Outcome::Accepted => w.described_list(0x24, |_| {}),
            Outcome::Rejected(error) => w.described_list(0x25, |w| write_error(Some(error), w)),
            Outcome::Released => w.described_list(0x26, |_| {}),
        }
    }
}

/// What a peer made of a delivery of ours, without what only it can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerOutcome {
    /// Taken.
    Accepted,
    /// Unfit; the condition that it gave, or empty.
    Rejected(String),
    /// Given back.
    Released,
    /// Given back after it was tried.
    Modified {
        /// It was tried.
        delivery_failed: bool,
        /// Not again over this link.
        undeliverable_here: bool,
    },
    /// Settled without a word.
    None,
}

impl PeerOutcome {
    /// Of a state; `None` when it isn't an outcome.
    pub(crate) fn of(state: Option<&DeliveryState<'_>>) -> Option<PeerOutcome> {
        Some(match state {
            None => PeerOutcome::None,
            Some(DeliveryState::Accepted) => PeerOutcome::Accepted,
            Some(DeliveryState::Rejected(error)) => {
                PeerOutcome::Rejected(error.map(|error| error.condition.to_owned()).unwrap_or_default())
            }
            Some(DeliveryState::Released) => PeerOutcome::Released,
            Some(DeliveryState::Modified { delivery_failed, undeliverable_here, .. }) => {
                PeerOutcome::Modified {
                    delivery_failed: *delivery_failed,
                    undeliverable_here: *undeliverable_here,
                }
            }
            Some(DeliveryState::Received | DeliveryState::Other(_)) => return None,
        })
    }
}
