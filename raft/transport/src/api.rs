//! The transport as the driver sees it.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_types::{GroupId, NodeId};
use thiserror::Error;
use tokio::sync::oneshot;

/// Kinds of traffic that must not wait for each other; each has a connection of its own per pair
/// of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Heartbeats, votes, transfers of leadership, forwarded control requests.
    Control,
    /// Appends. Groups are spread over `Append(0)` and `Append(1)` by their number.
    Append(u8),
    /// Snapshots, repair.
    Bulk,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Lane; 4] = [Lane::Control, Lane::Append(0), Lane::Append(1), Lane::Bulk];

    /// The append lane of a group.
    pub fn append_of(group: GroupId) -> Lane {
        Lane::Append((group.0 % 2) as u8)
    }
}

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// `host:port` of its peer port.
    pub address: String,
}

/// A request or an answer: a small head (a prost message that `fleetline-peer` defines) and a body
/// of raw slices that are written behind each other and arrive as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerMessage {
    /// The group it is about; `GroupId::CONTROL` also for node-wide messages.
    pub group: GroupId,
    /// What it is; `fleetline-peer` gives the numbers.
    pub kind: u8,
    /// Encoded head.
    pub head: Bytes,
    /// Raw payload; never copied into another message.
    pub body: Vec<Bytes>,
}

impl PeerMessage {
    /// Bytes of head and body.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.iter().map(Bytes::len).sum::<usize>()
    }

    /// Whether there is neither head nor body.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a request got no answer. None of them says that it was not received.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransportError {
    /// There is no connection, and one could not be made now.
    #[error("node {node} can't be reached: {reason}")]
    Unreachable {
        /// Whom.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// The connection broke while the request was open.
    #[error("connection to node {0} broke while a request was open")]
    Broken(NodeId),
    /// The peer's address isn't known.
    #[error("no address is known for node {0}")]
    UnknownPeer(NodeId),
    /// The message is larger than the frame limit.
    #[error("message of {len} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its size.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The transport is shut down.
    #[error("transport is shut down")]
    Closed,
}

/// Resolves to the answer of one request.
#[derive(Debug)]
pub struct ReplyFuture {
    receiver: oneshot::Receiver<Result<PeerMessage, TransportError>>,
}

impl ReplyFuture {
    /// A future and the sender that resolves it. A dropped sender counts as `Closed`.
    pub fn channel() -> (oneshot::Sender<Result<PeerMessage, TransportError>>, ReplyFuture) {
        let (sender, receiver) = oneshot::channel();
        (sender, ReplyFuture { receiver })
    }
}

impl Future for ReplyFuture {
    type Output = Result<PeerMessage, TransportError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(cx).map(|answer| answer.unwrap_or(Err(TransportError::Closed)))
    }
}

/// Answers one request. Dropping it without an answer leaves the requester to its time-out.
pub struct Replier {
    send: Box<dyn FnOnce(PeerMessage) + Send>,
}

impl Replier {
    /// A replier that hands the answer to `send`. `send` must not block.
    pub fn new(send: impl FnOnce(PeerMessage) + Send + 'static) -> Replier {
        Replier { send: Box::new(send) }
    }

    /// Sends the answer.
    pub fn reply(self, message: PeerMessage) {
        (self.send)(message);
    }
}

impl Debug for Replier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Replier")
    }
}

/// Receives what peers send. Called on the connection's task, in order per lane: must not block.
pub trait PeerHandler: Send + Sync + 'static {
    /// A request of `from`.
    fn on_request(&self, from: NodeId, lane: Lane, message: PeerMessage, replier: Replier);

    /// A connection to or from `node` came up where there was none.
    fn on_peer_up(&self, node: NodeId);

    /// The last connection to or from `node` went away.
    fn on_peer_down(&self, node: NodeId);
}

/// Sends requests to peers.
#[async_trait]
pub trait PeerTransport: Send + Sync + Debug + 'static {
    /// Tells where a peer listens; connections are made when first needed, and kept.
    fn set_peer(&self, node: NodeId, address: PeerAddress);

    /// Forgets a peer and closes its connections.
    fn remove_peer(&self, node: NodeId);

    /// Sends a request. Waits for room in the lane's queue (and for the first connection); once it
    /// returns `Ok` the request is in order behind all earlier ones of that lane.
    async fn send(&self, to: NodeId, lane: Lane, message: PeerMessage)
    -> Result<ReplyFuture, TransportError>;

    /// Whether a live connection to or from `node` exists now.
    fn is_up(&self, node: NodeId) -> bool;

    /// Closes everything.
    async fn shutdown(&self);
}
