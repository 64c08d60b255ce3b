//! Hub messages as MessagePack: an array whose first element is the type.
//!
//! Values stay slices of the frame. More elements than we know are skipped, as is a message of a type that
//! isn't known. We write the six elements of an invocation that the specification has; from a client
//! five will do, as older ones send.

use bytes::Bytes;

use crate::error::{DecodeError, ValueError};
use crate::json::at_most;
use crate::limits::{HEADERS_MAX, Limits, PREFIX_BYTES_MAX};
use crate::message::{Completion, Invocation, Message, Outcome, Protocol, StreamItem};
use crate::pack::{Pack, Token, Unpack, UnpackError};
use crate::value::{Arguments, Value};

/// Reads one message without its length; `None` for a type that isn't known.
pub(crate) fn decode(frame: &Bytes, limits: &Limits) -> Result<Option<Message>, DecodeError> {
    let mut reader = Reader { frame, limits, from: Unpack::new(frame), left: 0 };
    reader.left = reader.plain(|from| from.array())?;
    let message = reader.message()?;
    while reader.left > 0 {
        reader.element()?;
        reader.value()?;
    }
    match reader.from.left() {
        0 => Ok(message),
        count => Err(DecodeError::Trailing { count }),
    }
}

struct Reader<'a> {
    frame: &'a Bytes,
    limits: &'a Limits,
    from: Unpack<'a>,
    /// Elements of the message's array that haven't been read.
    left: usize,
}

impl<'a> Reader<'a> {
    /// Reads something, with the error of this crate.
    fn plain<T>(
        &mut self,
        read: impl FnOnce(&mut Unpack<'a>) -> Result<T, UnpackError>,
    ) -> Result<T, DecodeError> {
        read(&mut self.from).map_err(|error| match error {
            UnpackError::Bad(what) => DecodeError::BadMsgpack { what },
            UnpackError::TooDeep => DecodeError::TooDeep { limit: self.limits.depth_max },
        })
    }

    /// Counts an element that is about to be read.
    fn element(&mut self) -> Result<(), DecodeError> {
        self.left = self
            .left
            .checked_sub(1)
            .ok_or(DecodeError::BadMsgpack { what: "more elements of the message" })?;
        Ok(())
    }

    fn str(&mut self) -> Result<&'a str, DecodeError> {
        self.element()?;
        self.plain(|from| from.str())
    }

    fn str_or_nil(&mut self) -> Result<Option<&'a str>, DecodeError> {
        self.element()?;
        self.plain(|from| from.str_or_nil())
    }

    fn uint(&mut self) -> Result<u64, DecodeError> {
        self.element()?;
        self.plain(|from| from.uint())
    }

    /// A value inside an element that has been counted.
    fn value(&mut self) -> Result<Value, DecodeError> {
        let levels = self.limits.depth_max;
        let bytes = self.plain(|from| from.value(levels))?;
        Ok(Value::trusted(Protocol::MessagePack, self.frame.slice_ref(bytes)))
    }

    fn message(&mut self) -> Result<Option<Message>, DecodeError> {
        self.element()?;
        let kind = match self.plain(|from| from.token())? {
            Token::Uint(kind) => kind,
            Token::Int(_) => return Ok(None),
            _ => return Err(DecodeError::BadMsgpack { what: "a message type" }),
        };
        Ok(Some(match kind {
            1 => Message::Invocation(self.invocation("invocation")?),
            2 => {
                let invocation_id = self.head("stream item")?;
                self.element()?;
                Message::StreamItem(StreamItem { invocation_id, item: self.value()? })
            }
            3 => Message::Completion(self.completion()?),
            4 => {
                let invocation = self.invocation("stream invocation")?;
                id("stream invocation", invocation.invocation_id.as_deref())?;
                Message::StreamInvocation(invocation)
            }
            5 => Message::CancelInvocation { invocation_id: self.head("cancel invocation")? },
            6 => Message::Ping,
            7 => self.close()?,
            8 => Message::Ack { sequence_id: self.uint()? },
            9 => Message::Sequence { sequence_id: self.uint()? },
            _ => return Ok(None),
        }))
    }

    /// Headers: strings to strings, or nil; dropped.
    fn headers(&mut self) -> Result<(), DecodeError> {
        self.element()?;
        let count = match self.plain(|from| from.token())? {
            Token::Map(count) => count,
            Token::Nil => 0,
            _ => return Err(DecodeError::BadMsgpack { what: "headers" }),
        };
        at_most("headers", count, HEADERS_MAX)?;
        for _ in 0..count * 2 {
            self.plain(|from| from.str())?;
        }
        Ok(())
    }

    /// Headers, and an id that has to be there.
    fn head(&mut self, message: &'static str) -> Result<String, DecodeError> {
        self.headers()?;
        let text = self.str_or_nil()?;
        id(message, text)
    }

    fn invocation(&mut self, message: &'static str) -> Result<Invocation, DecodeError> {
        self.headers()?;
        let invocation_id = self.str_or_nil()?.filter(|id| !id.is_empty()).map(str::to_owned);
        let target = self.str()?;
        if target.is_empty() {
            return Err(DecodeError::Missing { message, what: "target" });
        }
        let arguments = self.arguments()?;
        let stream_ids = if self.left > 0 { self.stream_ids()? } else { Vec::new() };
        Ok(Invocation { invocation_id, target: target.to_owned(), arguments, stream_ids })
    }

    fn arguments(&mut self) -> Result<Arguments, DecodeError> {
        self.element()?;
        let mut peeked = self.from;
        let Ok(Token::Array(count)) = peeked.token() else {
            return Err(DecodeError::BadMsgpack { what: "an array of arguments" });
        };
        at_most("arguments", count, self.limits.arguments_max)?;
        // The array of the arguments is a level of its own.
        let levels = self.limits.depth_max.saturating_add(1);
        let bytes = self.plain(|from| from.value(levels))?;
        let array = Value::trusted(Protocol::MessagePack, self.frame.slice_ref(bytes));
        Ok(Arguments::trusted(array, count))
    }

    fn stream_ids(&mut self) -> Result<Vec<String>, DecodeError> {
        self.element()?;
        let count = match self.plain(|from| from.token())? {
            Token::Array(count) => count,
            Token::Nil => 0,
            _ => return Err(DecodeError::BadMsgpack { what: "an array of stream ids" }),
        };
        at_most("streams", count, self.limits.stream_ids_max)?;
        (0..count).map(|_| self.plain(|from| from.str()).map(str::to_owned)).collect()
    }

    fn completion(&mut self) -> Result<Completion, DecodeError> {
        let invocation_id = self.head("completion")?;
        let outcome = match self.uint()? {
            1 => Outcome::Error(self.str()?.to_owned()),
            2 => Outcome::Void,
            3 => {
                self.element()?;
                Outcome::Result(self.value()?)
            }
            kind => return Err(DecodeError::CompletionKind { kind }),
        };
        Ok(Completion { invocation_id, outcome })
    }

    fn close(&mut self) -> Result<Message, DecodeError> {
        let error = self.str_or_nil()?.map(str::to_owned);
        let mut allow_reconnect = false;
        if self.left > 0 {
            self.element()?;
            allow_reconnect = self.plain(|from| from.bool())?;
        }
        Ok(Message::Close { error, allow_reconnect })
    }
}

fn id(message: &'static str, id: Option<&str>) -> Result<String, DecodeError> {
    let id = id.filter(|id| !id.is_empty());
    id.map(str::to_owned).ok_or(DecodeError::Missing { message, what: "invocation id" })
}

/// Writes a message without its length.
pub(crate) fn body(message: &Message) -> Result<Vec<u8>, ValueError> {
    let mut out = Pack::default();
    let start = |out: &mut Pack, elements: usize| {
        out.array(elements);
        out.uint(message.kind().into());
    };
    match message {
        Message::Invocation(invocation) | Message::StreamInvocation(invocation) => {
            start(&mut out, 6);
            write_invocation(&mut out, invocation)?;
        }
        Message::StreamItem(StreamItem { invocation_id, item }) => {
            start(&mut out, 4);
            write_head(&mut out, Some(invocation_id));
            out.raw(&item.to_msgpack()?);
        }
        Message::Completion(Completion { invocation_id, outcome }) => {
            start(&mut out, if *outcome == Outcome::Void { 4 } else { 5 });
            write_head(&mut out, Some(invocation_id));
            write_outcome(&mut out, outcome)?;
        }
        Message::CancelInvocation { invocation_id } => {
            start(&mut out, 3);
            write_head(&mut out, Some(invocation_id));
        }
        Message::Ping => start(&mut out, 1),
        Message::Close { error, allow_reconnect } => {
            start(&mut out, 3);
            out.str_or_nil(error.as_deref());
            out.bool(*allow_reconnect);
        }
        Message::Ack { sequence_id } | Message::Sequence { sequence_id } => {
            start(&mut out, 2);
            out.uint(*sequence_id);
        }
    }
    Ok(out.into_vec())
}

/// Empty headers and an id.
fn write_head(out: &mut Pack, invocation_id: Option<&str>) {
    out.map(0);
    out.str_or_nil(invocation_id);
}

fn write_invocation(out: &mut Pack, invocation: &Invocation) -> Result<(), ValueError> {
    write_head(out, invocation.invocation_id.as_deref());
    out.str(&invocation.target);
    out.raw(&invocation.arguments.array().to_msgpack()?);
    out.array(invocation.stream_ids.len());
    for id in &invocation.stream_ids {
        out.str(id);
    }
    Ok(())
}

fn write_outcome(out: &mut Pack, outcome: &Outcome) -> Result<(), ValueError> {
    match outcome {
        Outcome::Error(error) => {
            out.uint(1);
            out.str(error);
        }
        Outcome::Void => out.uint(2),
        Outcome::Result(result) => {
            out.uint(3);
            out.raw(&result.to_msgpack()?);
        }
    }
    Ok(())
}

/// Appends a length of at most 31 bits, seven bits a byte, lowest first.
pub(crate) fn write_prefix(length: usize, out: &mut Vec<u8>) {
    let mut rest = length;
    while rest > 0x7f {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes of the length at the start of `framed`, if it says exactly what follows.
pub(crate) fn prefix_len(framed: &[u8]) -> Option<usize> {
    let used = framed.iter().take(PREFIX_BYTES_MAX).position(|byte| byte & 0x80 == 0)? + 1;
    let add = |length: usize, (index, byte): (usize, &u8)| length | usize::from(byte & 0x7f) << (7 * index);
    let length = framed[..used].iter().enumerate().fold(0, add);
    (used + length == framed.len()).then_some(used)
}
