//! Frames of WebSockets (RFC 6455 §5), server side, without I/O.
//!
//! Messages of the hub protocol end by themselves (a separator, or a length before them), so where a frame
//! ends says nothing: data is handed on as it comes, unmasked in place, and nothing of it is kept. Only
//! heads and control frames are gathered, 14 and 125 bytes at most.
//!
//! Invariants: an unmasked frame, a reserved bit, an unknown opcode, a fragmented or long control frame and
//! a continuation of nothing are errors, as §5.1, §5.2, §5.4 and §5.5 demand. Text is checked as UTF-8 by
//! who reads its JSON.

use bytes::BufMut;
use thiserror::Error;

/// Bytes of a control frame's payload (§5.5).
const CONTROL_MAX: usize = 125;
/// Bytes of the longest head: two, eight of length, four of mask.
const HEAD_MAX: usize = 14;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn number(self) -> u8 {
        match self {
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }
}

/// Close codes (§7.4.1).
pub(crate) mod close_code {
    pub(crate) const NORMAL: u16 = 1000;
    pub(crate) const PROTOCOL: u16 = 1002;
}

/// Why the peer isn't speaking WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("websocket: {0}")]
pub(crate) struct FrameError(&'static str);

/// How many bytes the head of a frame from the server has.
pub(crate) fn head_len(payload: usize) -> usize {
    match payload {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Writes the head of a whole frame from the server: not masked.
pub(crate) fn put_head(out: &mut impl BufMut, opcode: Opcode, payload: usize) {
    out.put_u8(0x80 | opcode.number());
    match payload {
        0..=125 => out.put_u8(payload as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(payload as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(payload as u64);
        }
    }
}

/// Writes a close frame.
pub(crate) fn put_close(out: &mut impl BufMut, code: u16) {
    put_head(out, Opcode::Close, 2);
    out.put_u16(code);
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Some of a message's data.
    Data(&'a [u8]),
    /// A ping; to be answered with the same payload.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// The peer closes, with this code if it gave one.
    Close(Option<u16>),
}

/// Reads frames of a client.
#[derive(Debug)]
pub(crate) struct FrameReader {
    state: State,
    /// A message whose last frame hasn't come.
    in_message: bool,
}

#[derive(Debug)]
enum State {
    Head { bytes: [u8; HEAD_MAX], len: u8 },
    Data { left: u64, mask: [u8; 4], at: u8 },
    Control(Box<Control>),
}

#[derive(Debug)]
struct Control {
    opcode: Opcode,
    wanted: usize,
    mask: [u8; 4],
    payload: Vec<u8>,
}

struct Head {
    is_last: bool,
    opcode: u8,
    length: u64,
    mask: [u8; 4],
}

impl FrameReader {
    pub(crate) fn new() -> FrameReader {
        FrameReader { state: State::empty_head(), in_message: false }
    }

    /// Reads the next piece off `input`, which it unmasks and shortens; `None` when all of it is used up.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a mut [u8]) -> Result<Option<Piece<'a>>, FrameError> {
        loop {
            match &mut self.state {
                State::Head { bytes, len } => {
                    let wanted = head_wanted(&bytes[..usize::from(*len)]);
                    if usize::from(*len) < wanted {
                        let Some(byte) = take(input, 1).first() else { return Ok(None) };
                        bytes[usize::from(*len)] = *byte;
                        *len += 1;
                        continue;
                    }
                    let head = parse_head(&bytes[..usize::from(*len)])?;
                    self.begin(&head)?;
                }
                State::Data { left: 0, .. } => self.state = State::empty_head(),
                State::Data { left, mask, at } => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    if count == 0 {
                        return Ok(None);
                    }
                    let data = take(input, count);
                    unmask(data, *mask, *at);
                    *left -= count as u64;
                    *at = ((usize::from(*at) + count) % 4) as u8;
                    return Ok(Some(Piece::Data(data)));
                }
                State::Control(control) => {
                    let missing = control.wanted - control.payload.len();
                    control.payload.extend_from_slice(take(input, missing));
                    if control.payload.len() < control.wanted {
                        return Ok(None);
                    }
                    let (opcode, mask) = (control.opcode, control.mask);
                    let mut payload = std::mem::take(&mut control.payload);
                    unmask(&mut payload, mask, 0);
                    self.state = State::empty_head();
                    return piece(opcode, payload).map(Some);
                }
            }
        }
    }

    fn begin(&mut self, head: &Head) -> Result<(), FrameError> {
        let opcode = match head.opcode {
            0 if !self.in_message => return Err(FrameError("a continuation of nothing")),
            1 | 2 if self.in_message => return Err(FrameError("a message inside another")),
            0..=2 => {
                self.in_message = !head.is_last;
                self.state = State::Data { left: head.length, mask: head.mask, at: 0 };
                return Ok(());
            }
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(FrameError("an unknown opcode")),
        };
        if !head.is_last || head.length > CONTROL_MAX as u64 {
            return Err(FrameError("a control frame that is long or in parts"));
        }
        let (wanted, mask) = (head.length as usize, head.mask);
        self.state = State::Control(Box::new(Control { opcode, wanted, mask, payload: Vec::new() }));
        Ok(())
    }
}

impl State {
    fn empty_head() -> State {
        State::Head { bytes: [0; HEAD_MAX], len: 0 }
    }
}

fn take<'a>(input: &mut &'a mut [u8], count: usize) -> &'a mut [u8] {
    let count = count.min(input.len());
    let (taken, rest) = std::mem::take(input).split_at_mut(count);
    *input = rest;
    taken
}

/// How many bytes the head has that begins so.
fn head_wanted(bytes: &[u8]) -> usize {
    match bytes.get(1) {
        None => 2,
        Some(second) => match second & 0x7f {
            126 => 8,
            127 => 14,
            _ => 6,
        },
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head, FrameError> {
    let [first, second, rest @ ..] = bytes else { return Err(FrameError("a short head")) };
    if first & 0x70 != 0 {
        return Err(FrameError("a reserved bit without an extension"));
    }
    if second & 0x80 == 0 {
        return Err(FrameError("a frame that is not masked"));
    }
    let (length, mask) = rest.split_at(rest.len() - 4);
    let number = length.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let length = if length.is_empty() { u64::from(second & 0x7f) } else { number };
    if length >> 63 != 0 {
        return Err(FrameError("a length with its highest bit set"));
    }
    let mask = [mask[0], mask[1], mask[2], mask[3]];
    Ok(Head { is_last: first & 0x80 != 0, opcode: first & 0x0f, length, mask })
}

fn unmask(data: &mut [u8], mask: [u8; 4], at: u8) {
    let mut turned = mask;
    turned.rotate_left(usize::from(at));
    let (words, rest) = data.as_chunks_mut::<4>();
    let mask = u32::from_ne_bytes(turned);
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ mask).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(turned) {
        *byte ^= mask;
    }
}

fn piece<'a>(opcode: Opcode, payload: Vec<u8>) -> Result<Piece<'a>, FrameError> {
    match (opcode, &payload[..]) {
        (Opcode::Ping, _) => Ok(Piece::Ping(payload)),
        (Opcode::Close, []) => Ok(Piece::Close(None)),
        (Opcode::Close, [high, low, ..]) => Ok(Piece::Close(Some(u16::from_be_bytes([*high, *low])))),
        (Opcode::Close, _) => Err(FrameError("half a close code")),
        _ => Ok(Piece::Pong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    /// A frame as a client sends it.
    fn client(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            len @ 0..=125 => out.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                out.push(0x80 | 126);
                out.extend((len as u16).to_be_bytes());
            }
            len => {
                out.push(0x80 | 127);
                out.extend((len as u64).to_be_bytes());
            }
        }
        out.extend(MASK);
        out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    /// All data, and the other pieces, of bytes that come `step` at a time.
    fn read(bytes: &[u8], step: usize) -> Result<(Vec<u8>, Vec<Piece<'static>>), FrameError> {
        let (mut reader, mut data, mut others) = (FrameReader::new(), Vec::new(), Vec::new());
        for chunk in bytes.to_vec().chunks_mut(step) {
            let mut input = chunk;
            while let Some(piece) = reader.next(&mut input)? {
                match piece {
                    Piece::Data(bytes) => data.extend_from_slice(bytes),
                    Piece::Ping(payload) => others.push(Piece::Ping(payload)),
                    Piece::Pong => others.push(Piece::Pong),
                    Piece::Close(code) => others.push(Piece::Close(code)),
                }
            }
            assert!(input.is_empty());
        }
        Ok((data, others))
    }

    #[test]
    fn cuts_of_any_size_give_the_same() {
        let long = vec![7; 70_000];
        let mut bytes = client(0x81, b"hello");
        bytes.extend(client(0x02, &[9; 200]));
        bytes.extend(client(0x89, b"are you there"));
        bytes.extend(client(0x80, b""));
        bytes.extend(client(0x82, &long));
        bytes.extend(client(0x8a, b""));
        bytes.extend(client(0x88, &[3, 232, b'x']));
        let data = [&b"hello"[..], &[9; 200], &long].concat();
        let others = [Piece::Ping(b"are you there".to_vec()), Piece::Pong, Piece::Close(Some(1000))];
        for step in [1, 2, 3, 7, 64, 1_000, bytes.len()] {
            assert_eq!(read(&bytes, step), Ok((data.clone(), others.iter().map(copy).collect())), "{step}");
        }
    }

    fn copy(piece: &Piece<'static>) -> Piece<'static> {
        match piece {
            Piece::Data(data) => Piece::Data(data),
            Piece::Ping(payload) => Piece::Ping(payload.clone()),
            Piece::Pong => Piece::Pong,
            Piece::Close(code) => Piece::Close(*code),
        }
    }

    #[test]
    fn what_the_standard_forbids_is_an_error() {
        let mut unmasked = client(0x81, b"x");
        unmasked[1] &= 0x7f;
        let huge = [&[0x82, 0xff][..], &[0xff; 8], &MASK].concat();
        let bad: [Vec<u8>; 9] = [
            unmasked,
            client(0xc1, b"x"),
            client(0x83, b"x"),
            client(0x80, b"x"),
            client(0x09, b"x"),
            client(0x89, &[0; 126]),
            client(0x88, &[3]),
            [client(0x01, b"x"), client(0x81, b"y")].concat(),
            huge,
        ];
        for (index, bytes) in bad.iter().enumerate() {
            assert!(read(bytes, 3).is_err(), "{index}");
        }
    }

    #[test]
    fn heads_have_the_shortest_length() {
        for (payload, head) in [(0, 2), (125, 2), (126, 4), (0xffff, 4), (0x1_0000, 10)] {
            let mut out = Vec::new();
            put_head(&mut out, Opcode::Binary, payload);
            assert_eq!((out.len(), head_len(payload)), (head, head));
        }
    }
}
