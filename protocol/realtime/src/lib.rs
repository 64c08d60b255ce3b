//! SignalR without I/O: hub messages, sessions, negotiation, tokens, and the forms of REST and upstreams.
//!
//! `broker/realtime` calls these modules between its sockets and its fan-out: [`session::Session`] for each
//! connection, [`Encoded`] for what goes to many, [`negotiate`], [`token`] and [`rest`] for HTTP, [`upstream`]
//! for calls to the user's code. Nothing here opens a socket, reads a clock or rolls dice: milliseconds and
//! random bytes are arguments.
//!
//! Invariants:
//! 1. No input panics, and nothing that a peer sends is kept beyond a bound of [`limits`].
//! 2. Values (arguments, results, items) are opaque slices of the frame that they came in; they are
//!    converted only for a peer that speaks the other protocol.
//! 3. All bytes that come out are ready for a socket: separator or length included.
//! 4. Keys and tokens appear in no `Debug` output and in no error.
//!
//! Not here: who is in which hub or group, sending to many, HTTP and WebSocket framing.
#![deny(missing_docs)]

pub mod access_key;
pub mod audience;
pub mod connection_id;
pub mod connection_string;
mod convert;
mod decoder;
mod encoded;
mod error;
pub mod handshake;
mod json;
pub mod limits;
pub mod long_polling;
mod message;
mod msgpack;
pub mod names;
pub mod negotiate;
mod pack;
pub mod query;
mod replay;
pub mod rest;
pub mod session;
pub mod sse;
pub mod token;
pub mod transport;
pub mod upstream;
mod value;

pub use decoder::Decoder;
pub use encoded::Encoded;
pub use error::{DecodeError, ValueError};
pub use limits::Limits;
pub use message::{Completion, Invocation, Message, Outcome, Protocol, RECORD_SEPARATOR, StreamItem};
pub use replay::SequenceError;
pub use value::{Arguments, Value};
