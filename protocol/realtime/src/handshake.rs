//! The first message of a connection: which protocol, which version. Always JSON, always with separator.
//!
//! ```text
//!   client  {"protocol":"messagepack","version":1}␞      server  {}␞   or  {"error":"…"}␞ and the end
//! ```
//!
//! What follows the separator in the same frame belongs to the hub protocol. A request is read by its
//! meaning: Python writes a space behind each colon.

use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;
use thiserror::Error;

use crate::convert::write_json;
use crate::limits::{HANDSHAKE_BYTES_MAX, HUB_PROTOCOL_VERSION_MAX};
use crate::message::{Protocol, RECORD_SEPARATOR};

/// Why a handshake is refused. The text is what the client is told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// No separator within [`HANDSHAKE_BYTES_MAX`].
    #[error("handshake request has more than {limit} bytes")]
    TooLong {
        /// The bound.
        limit: usize,
    },
    /// The first message isn't a handshake request.
    #[error("the first message is not a handshake request")]
    NotHandshake,
    /// A protocol that we don't speak.
    #[error("the protocol is not supported, json and messagepack are")]
    UnknownProtocol,
    /// A version above ours.
    #[error("version {version} of the protocol is not supported, the highest is {limit}")]
    Version {
        /// What was asked for.
        version: i64,
        /// The highest.
        limit: i64,
    },
    /// It didn't come in time.
    #[error("handshake timed out")]
    Timeout,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeRequest {
    /// How its messages are written.
    pub protocol: Protocol,
    /// The version, at most [`HUB_PROTOCOL_VERSION_MAX`]; 2 for one that may resume.
    pub version: i64,
}

#[derive(Deserialize)]
struct Body {
    protocol: String,
    version: i64,
}

impl HandshakeRequest {
    /// Reads a request without its separator.
    pub fn parse(body: &[u8]) -> Result<HandshakeRequest, HandshakeError> {
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(HandshakeError::NotHandshake);
        }
        let Body { protocol, version } =
            serde_json::from_slice(body).map_err(|_| HandshakeError::NotHandshake)?;
        let protocol = Protocol::from_name(&protocol).ok_or(HandshakeError::UnknownProtocol)?;
        let limit = HUB_PROTOCOL_VERSION_MAX;
        if version > limit {
            return Err(HandshakeError::Version { version, limit });
        }
        Ok(HandshakeRequest { protocol, version })
    }

    /// The request with its separator, as a client sends it.
    pub fn to_bytes(self) -> Bytes {
        let name = self.protocol.name();
        format!("{{\"protocol\":\"{name}\",\"version\":{}}}\u{1e}", self.version).into()
    }
}

/// Gathers a handshake from payloads.
#[derive(Debug, Default)]
pub struct HandshakeReader {
    kept: BytesMut,
}

impl HandshakeReader {
    /// Takes the next payload. With the request comes the rest of the payload, for a [`crate::Decoder`].
    pub fn feed(&mut self, mut payload: Bytes) -> Result<Option<(HandshakeRequest, Bytes)>, HandshakeError> {
        let separator = payload.iter().position(|&byte| byte == RECORD_SEPARATOR);
        let body = separator.unwrap_or(payload.len());
        if self.kept.len() + body >= HANDSHAKE_BYTES_MAX {
            return Err(HandshakeError::TooLong { limit: HANDSHAKE_BYTES_MAX });
        }
        self.kept.extend_from_slice(&payload[..body]);
        if separator.is_none() {
            return Ok(None);
        }
        payload.advance(body + 1);
        let request = HandshakeRequest::parse(&self.kept)?;
        self.kept.clear();
        Ok(Some((request, payload)))
    }
}

/// The answer to a good request.
pub const HANDSHAKE_OK: &[u8] = b"{}\x1e";

/// The answer to a bad one; the connection ends behind it. It has no `type`: that would make clients throw.
pub fn refusal(error: &HandshakeError) -> Bytes {
    let mut out = b"{\"error\":".to_vec();
    write_json(&mut out, &error.to_string());
    out.extend_from_slice(b"}\x1e");
    out.into()
}
