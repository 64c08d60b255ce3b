//! One connection as the rest of its node sees it: who it is, what waits for it, where it is a member.
//!
//! The connection's task owns the session and the socket (`connection/`); everybody else has a [`Member`].

use std::sync::atomic::AtomicBool;

use fleetline_signalr::connection_id::ConnectionId;
use fleetline_signalr::names::HubName;
use fleetline_signalr::negotiate::Transport;
use fleetline_signalr::token::Claim;
use parking_lot::Mutex;

use crate::key::Key;
use crate::limits::RealtimeLimits;
use crate::mailbox::Mailbox;
use crate::outbox::Outbox;

/// What is known of a client from its token and its request. Kept for upstreams and functions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientInfo {
    /// Its user, if the token names one.
    pub(crate) user: Option<String>,
    /// Claims of its token, in order.
    pub(crate) claims: Vec<Claim>,
    /// The query of its request, without `?` and without secrets.
    pub(crate) query: String,
}

/// Where a connection is a member.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Its places in the sets of its hub, its user and its groups.
    pub(crate) sets: Vec<Place>,
    /// It has left; it joins nothing any more.
    pub(crate) is_gone: bool,
}

/// A place in a set of members.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) key: Key,
    pub(crate) slot: u32,
    /// It was put there itself.
    pub(crate) is_own: bool,
    /// It is there because its user is, until then (wall time in milliseconds).
    pub(crate) by_user_until: Option<u64>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: ConnectionId,
    pub(crate) hub: HubName,
    pub(crate) client: ClientInfo,
    pub(crate) transport: Transport,
    /// It can come back on another WebSocket.
    pub(crate) is_resumable: AtomicBool,
    pub(crate) outbox: Outbox,
    /// What HTTP requests and new sockets bring to the connection's task.
    pub(crate) mailbox: Mailbox,
    pub(crate) places: Mutex<Places>,
}

impl Member {
    pub(crate) fn new(
        id: ConnectionId,
        hub: HubName,
        client: ClientInfo,
        transport: Transport,
        limits: &RealtimeLimits,
    ) -> Member {
        Member {
            id,
            hub,
            client,
            transport,
            is_resumable: AtomicBool::new(false),
            outbox: Outbox::new(limits.queue_bytes_max, limits.queue_messages_max),
            mailbox: Mailbox::default(),
            places: Mutex::default(),
        }
    }

    /// The key of its hub.
    pub(crate) fn hub_key(&self) -> Key {
        Key::hub(self.hub.as_str())
    }

    /// The key of its user, if it has one.
    pub(crate) fn user_key(&self) -> Option<Key> {
        self.client.user.as_ref().map(|user| Key::user(self.hub.as_str(), user))
    }

    /// Whether it is in the group because its user is, or by itself.
    pub(crate) fn is_in(&self, key: &Key) -> bool {
        self.places.lock().sets.iter().any(|place| place.key == *key)
    }
}
