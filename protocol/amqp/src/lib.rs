//! AMQP 1.0: values, frames, performatives, messages, and the engine of one connection.
//!
//! The AMQP front gives [`Engine`] what a socket brings and takes from it what goes to the socket; the
//! engine keeps connection, sessions and links by the rules of the standard, bounded by [`Limits`], and
//! tells of attaches, deliveries, outcomes and credit as [`Event`]s. It is always the side that was
//! called: it begins no sessions and no links. Nothing is called from here: no sockets, no clock (time
//! is a number of milliseconds that the caller gives), no node behind an address.
//!
//! ```text
//!  value, write ── types ↔ bytes          message ── sections ↔ bytes
//!       │                                     │
//!  performative, sasl, terminus, state     (payload of transfers: opaque to the engine)
//!       │
//!  engine ── connection: headers, SASL, open, close, silence
//!            session: windows, transfer numbers, deliveries of ours without an outcome
//!            link: attach, credit, deliveries that come in parts, detach
//! ```
//!
//! Invariants:
//! 1. Any bytes give events, an error to the peer and the end of the connection, session or link that
//!    it concerns, never a panic; what a length or a count claims is never allocated before it is there.
//! 2. A payload that comes in one frame is lent from the input; the engine copies only deliveries that
//!    come in parts, up to [`Limits::partial_bytes_max`] a connection.
//! 3. One link's error ends that link; one session's error ends that session.
//! 4. Each loop over what a peer has numbered (a range of deliveries) is bounded by what exists.
//!
//! Parts of the standard are quoted where they are met ("2.6.7" is a section of part 2). Not here, on
//! purpose: transactions (a coordinator is refused by the front), resuming deliveries of an interrupted
//! link (a link that attaches again begins anew; the standard lets a peer forget), nodes that are made
//! on request, TLS inside the protocol.
#![deny(missing_docs)]

pub mod condition;
mod engine;
mod error;
mod fields;
pub mod frame;
mod limits;
pub mod message;
pub mod performative;
pub mod sasl;
mod state;
pub mod terminus;
pub mod value;
mod write;

pub use engine::{
    Accept, Blocked, Engine, EngineOptions, Event, LinkId, OpenInfo, Receipt, Received, Send, SentId,
};
pub use error::{DecodeError, Error, FrameError, Info};
pub use limits::Limits;
pub use state::{DeliveryState, Outcome, PeerOutcome};
pub use write::Writer;
