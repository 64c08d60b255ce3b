//! One node's place in the memory network.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use fleetline_types::NodeId;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::world::NotOpen;
use crate::{Lane, PeerAddress, PeerMessage, PeerTransport, ReplyFuture, TransportError};

/// A request costs this much in the queue besides its payload, as on the real transport.
const FRAME_COST: usize = 128;

/// The transport of one node, until it is killed, shut down or dropped.
pub struct MemTransport {
    shared: Weak<Shared>,
    node: NodeId,
    incarnation: u64,
    peers: Mutex<BTreeMap<NodeId, PeerAddress>>,
}

impl MemTransport {
    pub(super) fn new(shared: Arc<Shared>, node: NodeId, incarnation: u64) -> MemTransport {
        let shared = Arc::downgrade(&shared);
        MemTransport { shared, node, incarnation, peers: Mutex::new(BTreeMap::new()) }
    }

    fn shared(&self) -> Result<Arc<Shared>, TransportError> {
        self.shared.upgrade().ok_or(TransportError::Closed)
    }

    fn end(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.with(|world| world.kill_incarnation(self.node, self.incarnation));
        }
    }
}

#[async_trait]
impl PeerTransport for MemTransport {
    fn set_peer(&self, node: NodeId, address: PeerAddress) {
        self.peers.lock().insert(node, address);
    }

    fn remove_peer(&self, node: NodeId) {
        self.peers.lock().remove(&node);
        if let Some(shared) = self.shared.upgrade() {
            shared.with(|world| world.leave(self.node, self.incarnation, node));
        }
    }

    async fn send(
        &self,
        to: NodeId,
        lane: Lane,
        message: PeerMessage,
    ) -> Result<ReplyFuture, TransportError> {
        let known = self.peers.lock().contains_key(&to);
        let mut deadline = None;
        let (room, epoch, permits) = loop {
            let shared = self.shared()?;
            let opened = shared.with(|world| {
                let limit = world.options.frame_bytes_max;
                if message.len() > limit {
                    return Err(NotOpen::Never(TransportError::TooLarge { len: message.len(), limit }));
                }
                if !known {
                    return Err(NotOpen::Never(TransportError::UnknownPeer(to)));
                }
                let (room, epoch) = world.open(self.node, self.incarnation, to, lane)?;
                let permits = (FRAME_COST + message.len()).min(world.options.lane_queue_bytes_max);
                Ok((room, epoch, permits))
            });
            match opened {
                Ok(opened) => break opened,
                Err(NotOpen::Never(error)) => return Err(error),
                Err(NotOpen::Cut { changed, connect_timeout }) => {
                    drop(shared);
                    let at = *deadline.get_or_insert_with(|| Instant::now() + connect_timeout);
                    if timeout_at(at, changed).await.is_err() {
                        let reason = "no answer in time".to_owned();
                        return Err(TransportError::Unreachable { node: to, reason });
                    }
                }
            }
        };
        let Ok(permit) = room.acquire_many(permits as u32).await else {
            return Err(TransportError::Broken(to));
        };
        permit.forget();
        self.shared()?.with(|world| world.request(self.node, to, lane, epoch, permits, message))
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.shared.upgrade().is_some_and(|shared| {
            let world = shared.world.lock();
            world.is_alive(self.node, self.incarnation) && world.is_up(self.node, node)
        })
    }

    async fn shutdown(&self) {
        self.end();
    }
}

impl Drop for MemTransport {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for MemTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemTransport({} incarnation {})", self.node, self.incarnation)
    }
}
