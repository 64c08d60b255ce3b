//! A message on its way to many sockets, framed once per protocol.
//!
//! A frame from a server is not masked (RFC 6455 §5.1), so it is the same bytes for every client: head and
//! message are written once, and fan-out only counts a reference up. Transports without frames skip the head.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use fleetline_signalr::{Encoded, Message, Protocol};

use crate::frame::{Opcode, head_len, put_head};

/// What a message costs beside its text: names, brackets, counters.
const OVERHEAD: usize = 64;

/// A shared message.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    encoded: Encoded,
    /// About how many bytes it has in either protocol.
    weight: usize,
    json: OnceLock<Bytes>,
    msgpack: OnceLock<Bytes>,
}

impl Outgoing {
    pub(crate) fn new(encoded: Encoded) -> Outgoing {
        let weight = OVERHEAD
            + match encoded.as_message() {
                Message::Invocation(call) => call.target.len() + call.arguments.array().raw().len(),
                _ => 0,
            };
        Outgoing(Arc::new(Shared { encoded, weight, json: OnceLock::new(), msgpack: OnceLock::new() }))
    }

    /// What it counts against bounds, whatever its readers speak.
    pub(crate) fn weight(&self) -> usize {
        self.0.weight
    }

    pub(crate) fn encoded(&self) -> &Encoded {
        &self.0.encoded
    }

    /// The whole frame of a WebSocket.
    pub(crate) fn frame(&self, protocol: Protocol) -> &Bytes {
        let cell = match protocol {
            Protocol::Json => &self.0.json,
            Protocol::MessagePack => &self.0.msgpack,
        };
        cell.get_or_init(|| framed(&self.0.encoded.bytes(protocol), opcode(protocol)))
    }

    /// The message without a frame.
    pub(crate) fn payload(&self, protocol: Protocol) -> Bytes {
        self.0.encoded.bytes(protocol)
    }
}

/// In which frames a protocol travels.
pub(crate) fn opcode(protocol: Protocol) -> Opcode {
    match protocol {
        Protocol::Json => Opcode::Text,
        Protocol::MessagePack => Opcode::Binary,
    }
}

fn framed(payload: &[u8], opcode: Opcode) -> Bytes {
    let mut frame = BytesMut::with_capacity(head_len(payload.len()) + payload.len());
    put_head(&mut frame, opcode, payload.len());
    frame.put_slice(payload);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_head_and_message_once() {
        let encoded = Encoded::invocation("t", Bytes::from_static(b"[1]")).expect("json");
        let outgoing = Outgoing::new(encoded.clone());
        let json = outgoing.frame(Protocol::Json);
        assert_eq!(json[0], 0x81);
        assert_eq!(usize::from(json[1]), encoded.json().len());
        assert_eq!(json[2..], encoded.json()[..]);
        assert_eq!(json.as_ptr(), outgoing.clone().frame(Protocol::Json).as_ptr());
        let msgpack = outgoing.frame(Protocol::MessagePack);
        assert_eq!(msgpack[0], 0x82);
        assert_eq!(msgpack[2..], encoded.msgpack()[..]);
    }
}
