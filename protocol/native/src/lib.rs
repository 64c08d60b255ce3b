//! The native protocol, `fleetline/1`: what services and the client crate speak to any node, over
//! QUIC.
//!
//! Bytes and meaning only: no sockets, no clock, no tokio. The server side is `broker/gateway`
//! (`quic`), the client side `client/service`; both use the same values ([`model`]), the same
//! outcomes ([`HubError`]) and the same mapping to the wire, so neither can drift from the other.
//!
//! A connection carries three kinds of bidirectional streams, told apart by their first frame:
//!
//! ```text
//!   client                                server
//!   HELLO                     ──────►               first stream of a connection, once
//!                             ◄──────     HELLO_ANSWER
//!
//!   CALL                      ──────►               one request, one answer
//!                             ◄──────     ANSWER | ERROR
//!
//!   APPEND_OPEN, APPEND 0, 1… ──────►               pipelined, answered in order
//!                             ◄──────     APPENDED 0 | ERROR 0, …
//!
//!   READ_OPEN                 ──────►
//!                             ◄──────     READ_OPENED, BATCH, BATCH, … while credit lasts
//!   CREDIT                    ──────►
//!                             ◄──────     … ERROR (offset gone, not a replica any more)
//! ```
//!
//! - [`frame`]: the layout of a frame, and a decoder that takes bytes in any portions.
//! - [`proto`]: the heads, from `proto/native.proto`; [`model`]: the values they stand for.
//! - [`error_map`]: the one table between [`HubError`] and its wire form.
//! - [`connection`]: ALPN name, versions, close and reset codes.
//! - [`limits`]: every bound of the protocol, with its reason.
#![deny(missing_docs)]

pub mod connection;
mod convert;
pub mod error;
pub mod error_map;
pub mod frame;
pub mod limits;
pub mod model;

/// Heads of frames as prost types, generated from `proto/native.proto`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/fleetline.native.v1.rs"));
}

pub use convert::{Reply, Request};
pub use error::{FrameError, HubError, ProtocolError};
pub use frame::{Frame, FrameDecoder, FrameKind};
