//! Which peers are connected, in either direction, and with which disk.
//!
//! Every connection joins when its handshake is done and leaves when it ends. The handler hears of
//! the first join and of the last leave of a peer.
//!
//! Invariants:
//! 1. Up and down of a peer alternate, and the handler hears them in the order they happened:
//!    `telling` is held from the change to the end of the call.
//! 2. All live connections of a peer have the same disk incarnation: a second process with the
//!    same node id and another disk is refused while the first is connected.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleetline_types::NodeId;
use parking_lot::Mutex;

use crate::PeerHandler;

pub(crate) struct Presence {
    handler: Arc<dyn PeerHandler>,
    telling: Mutex<()>,
    peers: Mutex<BTreeMap<NodeId, Present>>,
}

struct Present {
    connections: usize,
    disk_incarnation: String,
}

impl Presence {
    pub(crate) fn new(handler: Arc<dyn PeerHandler>) -> Presence {
        Presence { handler, telling: Mutex::new(()), peers: Mutex::new(BTreeMap::new()) }
    }

    /// Counts a connection in; the guard counts it out.
    ///
    /// # Errors
    /// The disk incarnation of the connections that are there, when it is another.
    pub(crate) fn join(self: &Arc<Self>, node: NodeId, disk_incarnation: &str) -> Result<Joined, String> {
        let telling = self.telling.lock();
        let first = {
            let mut peers = self.peers.lock();
            let present = peers
                .entry(node)
                .or_insert_with(|| Present { connections: 0, disk_incarnation: disk_incarnation.to_owned() });
            if present.disk_incarnation != disk_incarnation {
                return Err(present.disk_incarnation.clone());
            }
            present.connections += 1;
            present.connections == 1
        };
        if first {
            self.handler.on_peer_up(node);
        }
        drop(telling);
        Ok(Joined { presence: self.clone(), node })
    }

    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        self.peers.lock().contains_key(&node)
    }

    fn leave(&self, node: NodeId) {
        let _telling = self.telling.lock();
        let last = {
            let mut peers = self.peers.lock();
            let Some(present) = peers.get_mut(&node) else { return };
            present.connections -= 1;
            let last = present.connections == 0;
            if last {
                peers.remove(&node);
            }
            last
        };
        if last {
            self.handler.on_peer_down(node);
        }
    }
}

/// One counted connection.
pub(crate) struct Joined {
    presence: Arc<Presence>,
    node: NodeId,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.presence.leave(self.node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Lane, PeerMessage, Replier};

    #[derive(Default)]
    struct Heard(Mutex<Vec<(&'static str, u64)>>);

    impl PeerHandler for Heard {
        fn on_request(&self, _: NodeId, _: Lane, _: PeerMessage, _: Replier) {}
        fn on_peer_up(&self, node: NodeId) {
            self.0.lock().push(("up", node.0));
        }
        fn on_peer_down(&self, node: NodeId) {
            self.0.lock().push(("down", node.0));
        }
    }

    /// Only the first join and the last leave are told; another disk is refused meanwhile only.
    #[test]
    fn first_and_last() {
        let heard = Arc::new(Heard::default());
        let presence = Arc::new(Presence::new(heard.clone()));
        let first = presence.join(NodeId(2), "a").unwrap();
        let second = presence.join(NodeId(2), "a").unwrap();
        assert_eq!(presence.join(NodeId(2), "b").err().as_deref(), Some("a"));
        drop(first);
        assert!(presence.is_up(NodeId(2)));
        drop(second);
        assert!(!presence.is_up(NodeId(2)));
        let _third = presence.join(NodeId(2), "b").unwrap();
        assert_eq!(*heard.0.lock(), [("up", 2), ("down", 2), ("up", 2)]);
    }
}
