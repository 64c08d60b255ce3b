//! An outgoing message that is written once per protocol, however many connections get it.
//!
//! Fan-out clones an [`Encoded`] (a counter goes up) and each connection takes the bytes of its protocol,
//! frame included, straight to its socket. The first connection of a protocol pays for writing.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::error::ValueError;
use crate::message::{Invocation, Message, Protocol};
use crate::value::Arguments;

/// A message, shared, with its bytes in each protocol that somebody asked for.
#[derive(Clone)]
pub struct Encoded(Arc<Shared>);

struct Shared {
    message: Message,
    json: OnceLock<Bytes>,
    msgpack: OnceLock<Bytes>,
}

impl Encoded {
    /// A call of `target` with these arguments, which are a JSON array, that wants no answer. Refuses
    /// arguments that one of the protocols can't say.
    pub fn invocation(target: &str, arguments_json: Bytes) -> Result<Encoded, ValueError> {
        let invocation = Invocation::new(target, Arguments::json(arguments_json)?);
        Ok(Encoded::trusted(Message::Invocation(invocation)))
    }

    /// Any message. Both forms are written at once, since a value of a client may have only one.
    pub fn message(message: Message) -> Result<Encoded, ValueError> {
        let (json, msgpack) = (message.to_bytes(Protocol::Json)?, message.to_bytes(Protocol::MessagePack)?);
        Ok(Encoded(Arc::new(Shared { message, json: json.into(), msgpack: msgpack.into() })))
    }

    /// A message whose values are JSON that has been checked.
    fn trusted(message: Message) -> Encoded {
        Encoded(Arc::new(Shared { message, json: OnceLock::new(), msgpack: OnceLock::new() }))
    }

    /// The bytes for a client that speaks JSON, with the separator.
    pub fn json(&self) -> Bytes {
        self.0.json.get_or_init(|| self.write(Protocol::Json)).clone()
    }

    /// The bytes for a client that speaks MessagePack, with the length.
    pub fn msgpack(&self) -> Bytes {
        self.0.msgpack.get_or_init(|| self.write(Protocol::MessagePack)).clone()
    }

    /// The bytes for a client that speaks `protocol`.
    pub fn bytes(&self, protocol: Protocol) -> Bytes {
        match protocol {
            Protocol::Json => self.json(),
            Protocol::MessagePack => self.msgpack(),
        }
    }

    /// Whether the message counts for resuming a connection.
    pub fn is_sequenced(&self) -> bool {
        self.0.message.is_sequenced()
    }

    /// What is written.
    pub fn as_message(&self) -> &Message {
        &self.0.message
    }

    /// Can't fail: the arguments were checked by the walk that writes them, and are far below 2 GiB.
    fn write(&self, protocol: Protocol) -> Bytes {
        let written = self.0.message.to_bytes(protocol);
        debug_assert!(written.is_ok(), "checked arguments have both forms");
        written.unwrap_or_default()
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Encoded").field(&self.0.message).finish()
    }
}
