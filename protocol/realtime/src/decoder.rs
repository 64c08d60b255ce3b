//! Messages out of what a transport brings: several in a payload, or one in many payloads.
//!
//! The shell feeds frames of a WebSocket or bodies of POSTs; [`Decoder::next`] answers one message at a
//! time, so nothing is decoded ahead of who handles it. A message that lies whole in one payload is not
//! copied; only the start of one that goes on in the next payload is kept, up to the limit.

use bytes::{Buf, Bytes, BytesMut};

use crate::error::DecodeError;
use crate::limits::{FRAME_BYTES_MAX, Limits, PREFIX_BYTES_MAX};
use crate::message::{Message, Protocol, RECORD_SEPARATOR};
use crate::{json, msgpack};

/// Where the next message lies in what is there.
struct Frame {
    /// Bytes before the message.
    prefix: usize,
    /// Bytes of the message.
    body: usize,
    /// Bytes behind it that belong to it.
    suffix: usize,
}

/// Finds messages in a stream of bytes of one protocol.
#[derive(Debug)]
pub struct Decoder {
    protocol: Protocol,
    limits: Limits,
    /// The start of a message whose end hasn't come. invariant: holds no whole frame once `next` said `None`.
    kept: BytesMut,
    /// What follows on `kept`.
    input: Bytes,
    failed: Option<DecodeError>,
}

impl Decoder {
    /// A decoder at the start of a message.
    pub fn new(protocol: Protocol, limits: Limits) -> Decoder {
        Decoder { protocol, limits, kept: BytesMut::new(), input: Bytes::new(), failed: None }
    }

    /// Which protocol it reads.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Takes the next payload. Call [`Decoder::next`] until it answers `None` before the next one; what
    /// is fed earlier is copied.
    pub fn feed(&mut self, payload: Bytes) {
        if self.input.is_empty() {
            self.input = payload;
        } else {
            self.input = [&self.input[..], &payload[..]].concat().into();
        }
    }

    /// Forgets what has come of an unfinished message: the socket that brought it is gone.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.input.clear();
    }

    /// The next message; `None` when there isn't a whole one. Messages of types that aren't known are
    /// skipped. After an error there is no next message.
    #[expect(clippy::should_implement_trait, reason = "an iterator would end at None, this one goes on")]
    pub fn next(&mut self) -> Result<Option<Message>, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.next_known();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.clear();
        }
        result
    }

    fn next_known(&mut self) -> Result<Option<Message>, DecodeError> {
        while let Some(body) = self.next_body()? {
            let message = match self.protocol {
                Protocol::Json => json::decode(&body, &self.limits)?,
                Protocol::MessagePack => msgpack::decode(&body, &self.limits)?,
            };
            if message.is_some() {
                return Ok(message);
            }
        }
        Ok(None)
    }

    fn next_body(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let Some(frame) = self.find()? else {
            self.kept.extend_from_slice(&self.input);
            self.input.clear();
            return Ok(None);
        };
        let whole = frame.prefix + frame.body + frame.suffix;
        let mut bytes = if self.kept.is_empty() {
            self.input.split_to(whole)
        } else {
            let more = whole.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(&self.input.split_to(more));
            self.kept.split_to(whole).freeze()
        };
        bytes.advance(frame.prefix);
        bytes.truncate(frame.body);
        Ok(Some(bytes))
    }

    /// Where the next message lies in `kept` and `input` together; `None` if its end hasn't come.
    fn find(&self) -> Result<Option<Frame>, DecodeError> {
        match self.protocol {
            Protocol::Json => self.find_separator(),
            Protocol::MessagePack => self.find_length(),
        }
    }

    fn find_separator(&self) -> Result<Option<Frame>, DecodeError> {
        let at = self.input.iter().position(|&byte| byte == RECORD_SEPARATOR);
        self.check_length(self.kept.len() + at.unwrap_or(self.input.len()))?;
        Ok(at.map(|at| Frame { prefix: 0, body: self.kept.len() + at, suffix: 1 }))
    }

    fn find_length(&self) -> Result<Option<Frame>, DecodeError> {
        let mut body = 0_usize;
        for (index, byte) in self.kept.iter().chain(&self.input).enumerate() {
            body |= usize::from(byte & 0x7f) << (7 * index);
            if body > FRAME_BYTES_MAX {
                return Err(DecodeError::BadPrefix);
            }
            if byte & 0x80 == 0 {
                self.check_length(body)?;
                let prefix = index + 1;
                let is_whole = self.kept.len() + self.input.len() >= prefix + body;
                return Ok(is_whole.then_some(Frame { prefix, body, suffix: 0 }));
            }
            if index + 1 == PREFIX_BYTES_MAX {
                return Err(DecodeError::BadPrefix);
            }
        }
        Ok(None)
    }

    fn check_length(&self, bytes: usize) -> Result<(), DecodeError> {
        let limit = self.limits.message_bytes_max;
        if bytes > limit { Err(DecodeError::TooLong { bytes, limit }) } else { Ok(()) }
    }
}
