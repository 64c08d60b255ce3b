//! What function apps need of the real-time tier, and what that tier asks of them.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// Whom a message goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// All connections of the hub.
    All,
    /// All connections of a user.
    User(String),
    /// All connections in a group.
    Group(String),
    /// One connection.
    Connection(String),
}

/// Who joins or leaves groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// All connections of a user.
    User(String),
    /// One connection.
    Connection(String),
}

/// A change of groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupAction {
    /// Joins a group.
    Add(Member, String),
    /// Leaves a group.
    Remove(Member, String),
    /// Leaves all groups.
    RemoveAll(Member),
}

/// Why the real-time tier did not take something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RealtimeError {
    /// It can't now; later it may.
    #[error("the real-time tier is busy: {0}")]
    Busy(String),
    /// It never will.
    #[error("the real-time tier refused: {0}")]
    Refused(String),
}

/// How a client connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Where.
    pub url: String,
    /// With what.
    pub access_token: String,
}

/// The real-time tier, as function apps see it.
#[async_trait]
pub trait RealtimeOut: Send + Sync + 'static {
    /// Calls a method of connected clients. `arguments` is a JSON array.
    async fn send(
        &self,
        hub: &str,
        destination: Destination,
        target: &str,
        arguments: Bytes,
    ) -> Result<(), RealtimeError>;

    /// Changes groups.
    async fn group(&self, hub: &str, action: GroupAction) -> Result<(), RealtimeError>;

    /// Makes an address and a token by which a client may connect.
    fn negotiate(
        &self,
        hub: &str,
        user: Option<&str>,
        claims: &[(String, String)],
        ttl: Duration,
    ) -> Result<ConnectionInfo, RealtimeError>;
}

/// Something that a realtime client did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientEvent {
    /// The hub.
    pub hub: String,
    /// Its connection.
    pub connection: String,
    /// Its user, if it has one.
    pub user: Option<String>,
    /// `connections` or `messages`.
    pub category: String,
    /// `connected`, `disconnected`, or the name of the method that the client calls.
    pub event: String,
    /// The call's arguments: a JSON array. Empty for none.
    pub arguments: Bytes,
    /// Why the connection ended, if it did with an error.
    pub error: Option<String>,
    /// Claims of its token.
    pub claims: Vec<(String, String)>,
    /// The query of its first request.
    pub query: Vec<(String, String)>,
    /// The headers of its first request.
    pub headers: Vec<(String, String)>,
}

/// What a function answered to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientReply {
    /// Its return value, JSON text; empty when it has none.
    Result(Bytes),
    /// It failed.
    Error(String),
}
