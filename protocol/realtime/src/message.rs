//! The nine messages of the hub protocol, and the two ways to write them.
//!
//! A [`crate::Decoder`] makes messages of what a transport brings; [`Message::encode`] writes them, ready
//! for a socket: JSON with its record separator, MessagePack behind its length. Headers of messages
//! are read and dropped, and none are written; nobody gives them a meaning.

use bytes::Bytes;

use crate::error::ValueError;
use crate::limits::FRAME_BYTES_MAX;
use crate::value::{Arguments, Value};
use crate::{json, msgpack};

/// Ends each JSON message, and each handshake message.
pub const RECORD_SEPARATOR: u8 = 0x1e;

/// How messages of a connection are written; chosen by its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `json`: text.
    Json,
    /// `messagepack`: binary.
    MessagePack,
}

impl Protocol {
    /// The protocol that a handshake names.
    pub fn from_name(name: &str) -> Option<Protocol> {
        match name {
            "json" => Some(Protocol::Json),
            "messagepack" => Some(Protocol::MessagePack),
            _ => None,
        }
    }

    /// Its name in a handshake.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Json => "json",
            Protocol::MessagePack => "messagepack",
        }
    }
}

/// A message, from either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// 1: call a method; an answer is wanted if there is an id.
    Invocation(Invocation),
    /// 2: one more item of a stream.
    StreamItem(StreamItem),
    /// 3: the end of an invocation or of a stream.
    Completion(Completion),
    /// 4: call a method that answers with a stream. Always has an id.
    StreamInvocation(Invocation),
    /// 5: no more items of this stream, please.
    CancelInvocation {
        /// The stream invocation.
        invocation_id: String,
    },
    /// 6: the sender is alive.
    Ping,
    /// 7: the sender is about to end the connection.
    Close {
        /// What went wrong, if anything.
        error: Option<String>,
        /// Whether the client may come back by itself.
        allow_reconnect: bool,
    },
    /// 8: everything up to this number has been processed.
    Ack {
        /// The number of a message that counts.
        sequence_id: u64,
    },
    /// 9: the next message that counts has this number.
    Sequence {
        /// The number.
        sequence_id: u64,
    },
}

/// A call of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// Whom to answer; `None` if no answer is wanted. Never empty.
    pub invocation_id: Option<String>,
    /// The method.
    pub target: String,
    /// Its arguments.
    pub arguments: Arguments,
    /// Streams of the caller that the method reads.
    pub stream_ids: Vec<String>,
}

impl Invocation {
    /// A call that wants no answer.
    pub fn new(target: impl Into<String>, arguments: Arguments) -> Invocation {
        Invocation { invocation_id: None, target: target.into(), arguments, stream_ids: Vec::new() }
    }
}

/// One more item of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamItem {
    /// The stream: of the server an invocation's id, of a client one of its stream ids.
    pub invocation_id: String,
    /// The item.
    pub item: Value,
}

/// The end of an invocation or of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What ends.
    pub invocation_id: String,
    /// How.
    pub outcome: Outcome,
}

/// How an invocation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It failed; the text is for the caller.
    Error(String),
    /// It has no result.
    Void,
    /// Its result.
    Result(Value),
}

impl Message {
    /// The number of its type.
    pub fn kind(&self) -> u8 {
        match self {
            Message::Invocation(_) => 1,
            Message::StreamItem(_) => 2,
            Message::Completion(_) => 3,
            Message::StreamInvocation(_) => 4,
            Message::CancelInvocation { .. } => 5,
            Message::Ping => 6,
            Message::Close { .. } => 7,
            Message::Ack { .. } => 8,
            Message::Sequence { .. } => 9,
        }
    }

    /// Whether the message counts for resuming a connection: it has a number and is sent again.
    pub fn is_sequenced(&self) -> bool {
        self.kind() <= 5
    }

    /// Appends the message with its frame. Values in the other protocol are converted; `out` stays as it was
    /// if that fails.
    pub fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) -> Result<(), ValueError> {
        let body = self.body(protocol)?;
        if body.len() > FRAME_BYTES_MAX {
            return Err(ValueError::TooLong { bytes: body.len(), limit: FRAME_BYTES_MAX });
        }
        match protocol {
            Protocol::Json => {
                out.extend_from_slice(&body);
                out.push(RECORD_SEPARATOR);
            }
            Protocol::MessagePack => {
                msgpack::write_prefix(body.len(), out);
                out.extend_from_slice(&body);
            }
        }
        Ok(())
    }

    /// The message with its frame, as bytes of its own.
    pub fn to_bytes(&self, protocol: Protocol) -> Result<Bytes, ValueError> {
        let mut out = Vec::new();
        self.encode(protocol, &mut out)?;
        Ok(out.into())
    }

    /// The message without its frame: what an upstream is sent.
    pub fn body(&self, protocol: Protocol) -> Result<Vec<u8>, ValueError> {
        match protocol {
            Protocol::Json => json::body(self),
            Protocol::MessagePack => msgpack::body(self),
        }
    }
}
