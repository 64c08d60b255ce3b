//! Names of connections: the public id, and the token that proves who was given it.
//!
//! ```text
//!   id      base64url( version 1 │ node 8 │ random 12 )                28 characters
//!   token   id ‖ base64url( HMAC-SHA256(key, label ‖ id) cut to 16 )   50 characters
//! ```
//!
//! Requests of a connection bring only its token, to any node: the node in it says where to forward, and
//! nobody without the cluster's key can make one. The id alone, which other users may see, opens nothing.
//! Clients of negotiation version 0 know their token as their id; [`ConnectionId::parse`] reads that as well.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleetline_types::NodeId;
use ring::hmac;
use thiserror::Error;

const VERSION: u8 = 1;
/// Random bytes in an id: two of them meet after about 2^48 connections of a node.
pub const RANDOM_BYTES: usize = 12;
const ID_BYTES: usize = 1 + 8 + RANDOM_BYTES;
/// Three bytes are four characters, so an id is a prefix of its token.
const ID_CHARS: usize = ID_BYTES / 3 * 4;
/// As much of the code as keeps guessing hopeless.
const MAC_BYTES: usize = 16;
const TOKEN_CHARS: usize = ID_CHARS + 22;
const LABEL: &[u8] = b"fleetline signalr connection token 1\0";

/// The key of a cluster for connection tokens.
#[derive(Clone)]
pub struct ConnectionKey(hmac::Key);

impl ConnectionKey {
    /// A key of secret bytes, which all nodes share.
    pub fn new(secret: &[u8; 32]) -> ConnectionKey {
        ConnectionKey(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl fmt::Debug for ConnectionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionKey(..)")
    }
}

/// A text that names no connection of ours. Doesn't say why: that would help who guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no connection has that id")]
pub struct BadConnection;

/// The public id of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    text: String,
    node: NodeId,
}

impl ConnectionId {
    /// An id for a connection that `node` owns, of fresh random bytes.
    pub fn mint(node: NodeId, random: [u8; RANDOM_BYTES]) -> ConnectionId {
        let mut bytes = Vec::with_capacity(ID_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&node.0.to_be_bytes());
        bytes.extend_from_slice(&random);
        ConnectionId { text: URL_SAFE_NO_PAD.encode(bytes), node }
    }

    /// Reads an id, or the id in a token. Proves nothing: ids are public and anybody can make one up.
    pub fn parse(text: &str) -> Result<ConnectionId, BadConnection> {
        if text.len() != ID_CHARS && text.len() != TOKEN_CHARS {
            return Err(BadConnection);
        }
        let text = text.get(..ID_CHARS).ok_or(BadConnection)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadConnection)?;
        let Some(([VERSION], rest)) = bytes.split_first_chunk() else { return Err(BadConnection) };
        let (node, _) = rest.split_first_chunk().ok_or(BadConnection)?;
        Ok(ConnectionId { text: text.to_owned(), node: NodeId(u64::from_be_bytes(*node)) })
    }

    /// The node that owns the connection.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// As clients and backends see it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The secret that a client sends as `id` with each request.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionToken {
    text: String,
    id: ConnectionId,
}

impl ConnectionToken {
    /// The token of a connection.
    pub fn mint(key: &ConnectionKey, id: &ConnectionId) -> ConnectionToken {
        let mac = hmac::sign(&key.0, &signed(&id.text));
        let mut text = id.text.clone();
        URL_SAFE_NO_PAD.encode_string(&mac.as_ref()[..MAC_BYTES], &mut text);
        ConnectionToken { text, id: id.clone() }
    }

    /// Reads a token that this cluster has minted.
    pub fn parse(key: &ConnectionKey, text: &str) -> Result<ConnectionToken, BadConnection> {
        if text.len() != TOKEN_CHARS {
            return Err(BadConnection);
        }
        let token = ConnectionToken::mint(key, &ConnectionId::parse(text)?);
        // Compares codes of the texts under a key that nobody knows: takes the same time wherever they differ.
        let code = hmac::sign(&key.0, token.text.as_bytes());
        let is_same = hmac::verify(&key.0, text.as_bytes(), code.as_ref()).is_ok();
        if is_same { Ok(token) } else { Err(BadConnection) }
    }

    /// The public id of the same connection.
    pub fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// As the client sends it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for ConnectionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionToken({}..)", self.id)
    }
}

fn signed(id: &str) -> Vec<u8> {
    [LABEL, id.as_bytes()].concat()
}
