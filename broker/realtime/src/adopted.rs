//! Connections whose ids name this node while they live on another.
//!
//! A client negotiates at one node and may open its WebSocket at another, which tells the first. So that what
//! is sent to the connection's id finds it, the first keeps where it is. When that is forgotten (a restart),
//! senders ask all nodes.

use std::collections::HashMap;

use fleetline_types::NodeId;
use parking_lot::Mutex;

/// Connections that are kept: as many as a node may have. More are found by asking all nodes.
const KEPT_MAX: usize = 200_000;

/// Where they are.
#[derive(Default)]
pub(crate) struct Adopted(Mutex<HashMap<Box<str>, NodeId>>);

impl Adopted {
    /// Notes where a connection is; answers the node that has it already, if that is another.
    pub(crate) fn note(&self, connection: &str, node: NodeId) -> Option<NodeId> {
        let mut kept = self.0.lock();
        if let Some(before) = kept.get(connection).filter(|before| **before != node) {
            return Some(*before);
        }
        if kept.len() < KEPT_MAX {
            kept.insert(connection.into(), node);
        }
        None
    }

    /// It has ended there.
    pub(crate) fn forget(&self, connection: &str, node: NodeId) {
        let mut kept = self.0.lock();
        if kept.get(connection) == Some(&node) {
            kept.remove(connection);
        }
    }

    pub(crate) fn node_of(&self, connection: &str) -> Option<NodeId> {
        self.0.lock().get(connection).copied()
    }

    /// Forgets connections of nodes that are gone.
    pub(crate) fn keep_only(&self, alive: &[NodeId]) {
        self.0.lock().retain(|_, node| alive.contains(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_has_it() {
        let adopted = Adopted::default();
        assert_eq!(adopted.note("c", NodeId(2)), None);
        assert_eq!(adopted.note("c", NodeId(2)), None);
        assert_eq!(adopted.note("c", NodeId(3)), Some(NodeId(2)));
        adopted.forget("c", NodeId(3));
        assert_eq!(adopted.node_of("c"), Some(NodeId(2)));
        adopted.keep_only(&[NodeId(3)]);
        assert_eq!(adopted.node_of("c"), None);
    }
}
