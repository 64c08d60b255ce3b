//! A connection over a WebSocket: one future that reads, steps, writes, and sleeps.
//!
//! Broadcasts are written as the shared frames that they are, many to a system call, never copied unless the
//! stream can't take several slices. A frame whose write was cut short is finished before anything else.
//! Reading uses a buffer of the thread, so an idle connection holds none.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use fleetline_signalr::Protocol;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Sleep, sleep_until, timeout};

use super::Core;
use crate::frame::{FrameReader, Opcode, Piece, close_code, head_len, put_close, put_head};
use crate::outgoing::{Outgoing, opcode};

/// Bytes read at a time.
const READ_BYTES: usize = 16 << 10;
/// Reads, and writes, in a row before others get their turn.
const TURNS_MAX: usize = 8;
/// Frames written at a time; as many slices as one system call may take is 1,024.
const SLICES_MAX: usize = 64;
/// Bytes that are joined for a stream that takes one slice at a time.
const JOIN_BYTES: usize = 64 << 10;
/// Frames of its own that may wait for a client before it isn't read any more.
const OWN_FRAMES_MAX: usize = 64;
/// How long the last bytes may take, and how long the client's close frame is waited for.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// A stream of bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Any socket.
pub(crate) type Socket = Box<dyn Stream>;

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
    static JOIN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// An empty queue with room, so that a connection that writes at once takes no memory.
    static SPARE: Cell<VecDeque<Chunk>> = const { Cell::new(VecDeque::new()) };
}

/// A whole frame on its way out.
enum Chunk {
    /// Of this connection alone.
    Own(Bytes),
    /// Shared with others.
    Shared(Outgoing),
}

impl Chunk {
    fn bytes(&self, protocol: Protocol) -> &[u8] {
        match self {
            Chunk::Own(bytes) => bytes,
            Chunk::Shared(message) => message.frame(protocol),
        }
    }
}

/// The task of a connection over WebSockets.
pub(crate) struct SocketTask {
    core: Core,
    /// None while a resumable client is away.
    socket: Option<Socket>,
    frames: FrameReader,
    writing: VecDeque<Chunk>,
    /// Bytes of the first chunk that are written.
    written: usize,
    /// The stream may hold bytes of its own back (TLS).
    needs_flush: bool,
    timer: Pin<Box<Sleep>>,
    timer_ms: u64,
    /// The timer has fired for everything before.
    fired_ms: u64,
    /// The code of the close frame that the client sent, or of the one that it gets.
    close_code: u16,
    /// The client has closed; nothing more is read.
    is_closed_by_client: bool,
}

impl SocketTask {
    pub(crate) fn new(core: Core, socket: Socket) -> SocketTask {
        let timer_ms = core.deadline_ms().unwrap_or(u64::MAX);
        let timer = Box::pin(sleep_until(core.tier.instant(timer_ms)));
        SocketTask {
            core,
            socket: Some(socket),
            frames: FrameReader::new(),
            writing: VecDeque::new(),
            written: 0,
            needs_flush: false,
            timer,
            timer_ms,
            fired_ms: 0,
            close_code: close_code::NORMAL,
            is_closed_by_client: false,
        }
    }

    /// Runs the connection to its end. What the end needs is taken when it comes: this future lives as long as
    /// the connection, and there are many.
    pub(crate) async fn run(mut self: Box<Self>) {
        poll_fn(|cx| self.poll(cx)).await;
        Box::pin(self.end()).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut moved = self.core.step(cx);
            moved |= self.poll_socket_change();
            if self.is_closed_by_client && !moved && !self.core.is_busy() {
                // Everything that came before the close frame is with whom it is for.
                self.core.on_broken();
            }
            if self.core.ended().is_some() {
                return Poll::Ready(());
            }
            match self.poll_read(cx) {
                Ok(read) => moved |= read,
                Err(_) => moved |= self.lose_socket(),
            }
            match self.poll_write(cx) {
                Ok(written) => moved |= written,
                Err(_) => moved |= self.lose_socket(),
            }
            if !moved && self.poll_timer(cx).is_pending() {
                break;
            }
        }
        self.give_back();
        Poll::Pending
    }

    /// The client may have come back on another socket.
    fn poll_socket_change(&mut self) -> bool {
        if !self.core.is_resumable() {
            return false;
        }
        let Some(socket) = self.core.member.mailbox.take_socket() else { return false };
        if !self.core.on_new_socket() {
            return false;
        }
        self.reset();
        self.socket = Some(socket);
        true
    }

    fn lose_socket(&mut self) -> bool {
        let had = self.socket.take().is_some();
        self.reset();
        if had {
            self.core.on_socket_lost();
        }
        had
    }

    fn reset(&mut self) {
        self.needs_flush = false;
        self.frames = FrameReader::new();
        self.writing.clear();
        self.written = 0;
        self.is_closed_by_client = false;
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut any = false;
        for _ in 0..TURNS_MAX {
            if self.core.is_busy() || self.is_closed_by_client || self.writing.len() > OWN_FRAMES_MAX {
                return Ok(any);
            }
            let Some(socket) = &mut self.socket else { return Ok(any) };
            let (core, frames, writing) = (&mut self.core, &mut self.frames, &mut self.writing);
            let read = READ.with_borrow_mut(|buffer| -> Poll<io::Result<Option<u16>>> {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(socket).poll_read(cx, &mut buffer))?;
                if buffer.filled().is_empty() {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(take_in(buffer.filled_mut(), core, frames, writing, cx))
            });
            match read {
                Poll::Pending => return Ok(any),
                Poll::Ready(closed) => {
                    any = true;
                    if let Some(code) = closed? {
                        self.is_closed_by_client = true;
                        self.close_code = code;
                        return Ok(true);
                    }
                }
            }
        }
        // Others get their turn; what is left in the socket comes then.
        cx.waker().wake_by_ref();
        Ok(false)
    }

    /// Writes what waits; `true` when something was written and more may come.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.socket.is_none() {
            return Ok(false);
        }
        let mut any = false;
        for _ in 0..TURNS_MAX {
            self.fill(cx);
            if self.writing.is_empty() {
                return self.poll_flush(cx, any);
            }
            match self.poll_write_once(cx) {
                Poll::Pending => return self.poll_flush(cx, any),
                Poll::Ready(written) => written?,
            }
            any = true;
            self.core.on_written();
        }
        cx.waker().wake_by_ref();
        self.poll_flush(cx, true).map(|_| false)
    }

    /// A stream with a buffer of its own (TLS) is flushed, again and again until it has; a plain socket has
    /// nothing to do.
    fn poll_flush(&mut self, cx: &mut Context<'_>, any: bool) -> io::Result<bool> {
        self.needs_flush |= any;
        if self.needs_flush
            && let Some(socket) = &mut self.socket
            && let Poll::Ready(flushed) = Pin::new(socket).poll_flush(cx)
        {
            flushed?;
            self.needs_flush = false;
        }
        Ok(any)
    }

    /// Takes more to write once everything is written.
    fn fill(&mut self, cx: &mut Context<'_>) {
        if !self.writing.is_empty() && !self.core.has_out() {
            return;
        }
        if self.writing.capacity() == 0 {
            self.writing = SPARE.take();
        }
        let opcode = opcode(self.core.protocol());
        while self.writing.len() <= OWN_FRAMES_MAX
            && let Some(payload) = self.core.take_out()
        {
            self.writing.push_back(Chunk::Own(frame(opcode, &payload)));
        }
        if self.writing.is_empty() && self.core.takes_broadcasts() {
            let writing = &mut self.writing;
            let outbox = &self.core.member.outbox;
            outbox.take(SLICES_MAX, cx.waker(), |message| writing.push_back(Chunk::Shared(message)));
        }
    }

    fn poll_write_once(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(socket) = &mut self.socket else { return Poll::Pending };
        let protocol = self.core.protocol();
        let chunks = self.writing.iter().map(|chunk| chunk.bytes(protocol));
        let first = self.written;
        let slices = chunks.enumerate().map(|(at, bytes)| if at == 0 { &bytes[first..] } else { bytes });
        let count = if self.writing.len() == 1 || socket.is_write_vectored() {
            let mut array = [IoSlice::new(&[]); SLICES_MAX];
            let mut len = 0;
            for (place, bytes) in array.iter_mut().zip(slices) {
                *place = IoSlice::new(bytes);
                len += 1;
            }
            ready!(Pin::new(socket).poll_write_vectored(cx, &array[..len]))?
        } else {
            ready!(JOIN.with_borrow_mut(|joined| {
                joined.clear();
                for bytes in slices {
                    if !joined.is_empty() && joined.len() + bytes.len() > JOIN_BYTES {
                        break;
                    }
                    joined.extend_from_slice(bytes);
                }
                let written = Pin::new(socket).poll_write(cx, joined);
                joined.shrink_to(JOIN_BYTES);
                written
            }))?
        };
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(count, protocol);
        Poll::Ready(Ok(()))
    }

    /// Forgets what was written.
    fn advance(&mut self, count: usize, protocol: Protocol) {
        self.written += count;
        while let Some(chunk) = self.writing.front() {
            let len = chunk.bytes(protocol).len();
            if self.written < len {
                return;
            }
            self.written -= len;
            self.writing.pop_front();
        }
    }

    /// Ready when the core has to be stepped because time has passed.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let wanted = self.wanted_ms();
        if wanted < self.timer_ms {
            self.arm(wanted);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let (wanted, now) = (self.wanted_ms(), self.core.tier.clock_ms());
            if wanted <= now {
                self.fired_ms = now + 1;
                self.timer_ms = u64::MAX;
                return Poll::Ready(());
            }
            self.arm(wanted);
        }
        Poll::Pending
    }

    fn wanted_ms(&self) -> u64 {
        self.core.deadline_ms().unwrap_or(u64::MAX).max(self.fired_ms)
    }

    fn arm(&mut self, at_ms: u64) {
        self.timer_ms = at_ms;
        self.timer.as_mut().reset(self.core.tier.instant(at_ms));
    }

    /// An idle connection keeps no buffers.
    fn give_back(&mut self) {
        self.core.give_back();
        if self.writing.is_empty() && self.writing.capacity() > 0 {
            SPARE.set(std::mem::take(&mut self.writing));
        }
    }

    /// Leaves the hub, and gives the client what it still has to get.
    async fn end(mut self: Box<Self>) {
        // Whoever looks at the hub now doesn't find it any more.
        self.core.tier.leave(&self.core.member);
        if self.core.is_resumable() {
            self.core.tier.bury(&self.core.member);
        }
        if let Some(socket) = self.socket.take() {
            let last = self.last_bytes();
            let _ = timeout(LAST_WAIT, say_goodbye(socket, last, self.is_closed_by_client)).await;
        }
        Box::new(self.core).finish().await;
    }

    /// The rest of a frame that is on its way, what the session says last, and a close frame.
    fn last_bytes(&mut self) -> Vec<u8> {
        let protocol = self.core.protocol();
        let mut last = Vec::new();
        for (at, chunk) in self.writing.iter().enumerate() {
            let bytes = chunk.bytes(protocol);
            last.extend_from_slice(if at == 0 { &bytes[self.written..] } else { bytes });
        }
        while let Some(payload) = self.core.take_out() {
            last.extend_from_slice(&frame(opcode(protocol), &payload));
        }
        put_close(&mut last, self.close_code);
        last
    }
}

/// Hands what was read to the session. The code of a close frame, if one came.
fn take_in(
    mut input: &mut [u8],
    core: &mut Core,
    frames: &mut FrameReader,
    writing: &mut VecDeque<Chunk>,
    cx: &mut Context<'_>,
) -> io::Result<Option<u16>> {
    loop {
        match frames.next(&mut input) {
            Ok(None) => return Ok(None),
            Ok(Some(Piece::Data(data))) => {
                core.receive(Bytes::copy_from_slice(data));
                // What is fed before the last payload is used up is copied.
                core.step(cx);
            }
            // RFC 6455 §5.5.3: a pong has the payload of its ping.
            Ok(Some(Piece::Ping(payload))) => writing.push_back(Chunk::Own(frame(Opcode::Pong, &payload))),
            Ok(Some(Piece::Pong)) => {}
            // RFC 6455 §5.5.1: "it typically echos the status code it received".
            Ok(Some(Piece::Close(code))) => return Ok(Some(code.unwrap_or(close_code::NORMAL))),
            Err(error) => {
                tracing::debug!(%error, "client breaks the websocket protocol");
                return Ok(Some(close_code::PROTOCOL));
            }
        }
    }
}

fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(head_len(payload.len()) + payload.len());
    put_head(&mut frame, opcode, payload.len());
    frame.put_slice(payload);
    frame.freeze()
}

/// Writes the last bytes. A client that hasn't closed gets the time to: bytes of it that nobody reads would
/// make the kernel throw away what was sent.
async fn say_goodbye(mut socket: Socket, last: Vec<u8>, is_closed_by_client: bool) -> io::Result<()> {
    socket.write_all(&last).await?;
    socket.flush().await?;
    if !is_closed_by_client {
        let mut frames = FrameReader::new();
        let is_over = |bytes: &mut [u8]| {
            let mut input = bytes;
            loop {
                match frames.next(&mut input) {
                    Ok(None) => return false,
                    Ok(Some(Piece::Close(_))) | Err(_) => return true,
                    Ok(Some(_)) => {}
                }
            }
        };
        drain(&mut socket, is_over).await?;
    }
    socket.shutdown().await
}

async fn drain(socket: &mut Socket, mut is_over: impl FnMut(&mut [u8]) -> bool) -> io::Result<()> {
    poll_fn(|cx| {
        loop {
            let over = READ.with_borrow_mut(|buffer| -> Poll<io::Result<bool>> {
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut *socket).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().is_empty() || is_over(buffer.filled_mut())))
            });
            if ready!(over)? {
                return Poll::Ready(Ok(()));
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::member::Member;

    /// There may be 100,000 of them on a node.
    #[test]
    fn connections_are_small() {
        let sizes = [size_of::<SocketTask>(), size_of::<Core>(), size_of::<Member>()];
        assert!(sizes.iter().sum::<usize>() <= 2_048, "{sizes:?}");
    }
}
