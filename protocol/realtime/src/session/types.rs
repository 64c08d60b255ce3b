//! What goes into a session and comes out of it, besides messages.

use bytes::Bytes;
use thiserror::Error;

use crate::error::DecodeError;
use crate::handshake::HandshakeError;
use crate::limits::{self, Limits};
use crate::message::{Completion, Invocation, Protocol, StreamItem};
use crate::replay::SequenceError;
#[cfg(doc)]
use crate::session::Session;

/// How a connection behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What its messages may be.
    pub limits: Limits,
    /// Time for the handshake.
    pub handshake_timeout_ms: u64,
    /// A ping follows on this time without a message of ours. Too long, and clients give up (30 s).
    pub keep_alive_ms: u64,
    /// A client that says nothing for this time is gone. Clients ping every 15 s.
    pub client_timeout_ms: u64,
    /// A resumable connection waits this long for its client.
    pub resume_grace_ms: u64,
    /// Bytes that a resumable connection keeps; then senders have to wait.
    pub replay_bytes_max: usize,
    /// Invocations of the client that have no completion yet; more are answered with an error at once.
    pub open_invocations_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            limits: Limits::default(),
            handshake_timeout_ms: limits::HANDSHAKE_TIMEOUT_MS_DEFAULT,
            keep_alive_ms: limits::KEEP_ALIVE_MS_DEFAULT,
            client_timeout_ms: limits::CLIENT_TIMEOUT_MS_DEFAULT,
            resume_grace_ms: limits::RESUME_GRACE_MS_DEFAULT,
            replay_bytes_max: limits::REPLAY_BYTES_DEFAULT,
            open_invocations_max: limits::OPEN_INVOCATIONS_DEFAULT,
        }
    }
}

/// Whether both sides said at negotiation that the connection may outlive its socket. It does if the
/// transport is WebSockets and the handshake asks for version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatefulReconnect {
    /// Not negotiated.
    Off,
    /// Negotiated.
    Negotiated,
}

/// What the shell has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write these bytes: whole messages, in one frame or with others.
    Send(Bytes),
    /// Tell the hub.
    Event(Event),
    /// Close the socket once everything is written. The last output.
    Close(CloseReason),
}

/// What the client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its handshake is good; it may be sent messages from now on.
    Opened {
        /// How it wants its messages.
        protocol: Protocol,
        /// Whether it can come back on another socket.
        is_resumable: bool,
    },
    /// It calls a method. If there is an id, [`Session::complete`] has to follow.
    Invocation(Invocation),
    /// It calls a method that answers with a stream: items, then [`Session::complete`].
    StreamInvocation(Invocation),
    /// One more item of a stream of its own.
    StreamItem(StreamItem),
    /// It wants no more items of this stream; the completion is still owed.
    CancelInvocation {
        /// The stream invocation; it is open.
        invocation_id: String,
    },
    /// It answers an invocation of ours, or ends a stream of its own.
    CompletionFromClient(Completion),
    /// It is alive.
    Ping,
    /// It has processed everything up to this number.
    Ack {
        /// The number.
        sequence_id: u64,
    },
    /// Its socket is gone, but it may come back: [`Session::on_new_socket`].
    Suspended,
    /// It is back; what it missed is on its way.
    Resumed,
    /// There is room again behind a [`Sent::Full`].
    Drained,
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CloseReason {
    /// The handshake was refused.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// A message was malformed or too large.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The client counts in a way that can't be.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// An invocation's id is too long.
    #[error("invocation id has {bytes} bytes, at most {limit} are allowed")]
    InvocationId {
        /// Its bytes.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The client asks for more refusals than it acknowledges.
    #[error("too many messages are not acknowledged")]
    Unacknowledged,
    /// Nothing came for too long.
    #[error("client timed out")]
    ClientTimeout,
    /// The client said so.
    #[error("client closed the connection")]
    ClientClosed {
        /// What it gave as the reason.
        error: Option<String>,
    },
    /// We said so ([`Session::close`]).
    #[error("server closed the connection")]
    ServerClosed,
    /// The socket is gone, for good or for too long.
    #[error("the socket is gone")]
    SocketLost,
}

/// What became of something to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// It is on its way, or kept for a client that may come back.
    Taken,
    /// The client hasn't acknowledged enough: it wasn't taken. [`Event::Drained`] says when to try again.
    Full,
    /// The connection isn't open: there was no handshake yet, or it is closed.
    NotOpen,
    /// No such invocation is open: it was never made, or has been answered.
    Unknown,
}

/// Why a client can't come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the connection can't be resumed")]
pub struct NotResumable;
