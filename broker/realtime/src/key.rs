//! What messages can be addressed to, and the keys under which members are found.
//!
//! ```text
//!   hub     h/chat            partition of  chat
//!   user    u/chat/alice      partition of  chat/alice
//!   group   g/chat/room 1     partition of  chat/room 1
//! ```
//!
//! Names of hubs have no slash, so keys are unambiguous. Hubs and users are compared as they are written;
//! hub names arrive in lower case.

use std::fmt;
use std::sync::Arc;

use fleetline_types::{PartitionId, partition_of_key};

/// Whom a message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Every connection of the hub.
    All {
        /// Ids of connections that don't get it.
        excluded: Vec<String>,
    },
    /// Every connection of a user.
    User(String),
    /// Every connection in a group.
    Group {
        /// The group.
        name: String,
        /// Ids of connections that don't get it.
        excluded: Vec<String>,
    },
    /// One connection.
    Connection(String),
}

/// A set of members of a hub: all, of a user, of a group. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(Arc<str>);

impl Key {
    pub(crate) fn hub(hub: &str) -> Key {
        Key(format!("h/{hub}").into())
    }

    pub(crate) fn user(hub: &str, user: &str) -> Key {
        Key(format!("u/{hub}/{user}").into())
    }

    pub(crate) fn group(hub: &str, group: &str) -> Key {
        Key(format!("g/{hub}/{group}").into())
    }

    /// A key that another node wrote; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Key> {
        let (kind, rest) = text.split_once('/')?;
        let is_known = match kind {
            "h" => !rest.is_empty(),
            "u" | "g" => rest.contains('/'),
            _ => false,
        };
        is_known.then(|| Key(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a group's.
    pub(crate) fn is_group(&self) -> bool {
        self.0.starts_with("g/")
    }

    /// The hub that it is of.
    pub(crate) fn hub_name(&self) -> &str {
        let rest = &self.0[2..];
        rest.split_once('/').map_or(rest, |(hub, _)| hub)
    }

    /// The group's or user's name; empty for a hub.
    pub(crate) fn name(&self) -> &str {
        self.0[2..].split_once('/').map_or("", |(_, name)| name)
    }

    /// The partition whose leader keeps who has members of it.
    pub(crate) fn partition(&self, partitions: u32) -> PartitionId {
        partition_of_key(self.0[2..].as_bytes(), partitions)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        for key in [Key::hub("chat"), Key::user("chat", "a/b"), Key::group("chat", "room 1")] {
            assert_eq!(Key::parse(key.as_str()), Some(key.clone()));
            assert_eq!(key.hub_name(), "chat");
        }
        assert_eq!(Key::user("chat", "a/b").name(), "a/b");
        assert_eq!(Key::hub("chat").name(), "");
        for bad in ["", "h/", "u/chat", "x/chat/1", "h"] {
            assert_eq!(Key::parse(bad), None, "{bad}");
        }
    }

    /// A user's durable groups lie in the partition that its key belongs to.
    #[test]
    fn partitions_are_of_hub_and_name() {
        assert_eq!(Key::user("chat", "alice").partition(16), partition_of_key(b"chat/alice", 16));
        assert_eq!(Key::hub("chat").partition(16), partition_of_key(b"chat", 16));
    }
}
