//! What functions have of realtime hubs.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fleetline_functions::{
    ConnectionInfo, Destination as To, GroupAction as Action, Member, RealtimeError, RealtimeOut,
};
use fleetline_realtime::{Destination, Encoded, GroupAction, GroupError, PublishError, Realtime};

/// Realtime hubs, as functions see them.
pub(super) struct Out(pub(super) Arc<Realtime>);

fn destination(to: To) -> Destination {
    match to {
        To::All => Destination::All { excluded: Vec::new() },
        To::User(user) => Destination::User(user),
        To::Group(name) => Destination::Group { name, excluded: Vec::new() },
        To::Connection(connection) => Destination::Connection(connection),
    }
}

fn action(action: Action) -> GroupAction {
    match action {
        Action::Add(Member::User(user), group) => GroupAction::AddUser { user, group, ttl: None },
        Action::Add(Member::Connection(connection), group) => {
            GroupAction::AddConnection { connection, group }
        }
        Action::Remove(Member::User(user), group) => GroupAction::RemoveUser { user, group },
        Action::Remove(Member::Connection(connection), group) => {
            GroupAction::RemoveConnection { connection, group }
        }
        Action::RemoveAll(Member::User(user)) => GroupAction::RemoveUserFromAll { user },
        Action::RemoveAll(Member::Connection(connection)) => {
            GroupAction::RemoveConnectionFromAll { connection }
        }
    }
}

#[async_trait]
impl RealtimeOut for Out {
    async fn send(&self, hub: &str, to: To, target: &str, arguments: Bytes) -> Result<(), RealtimeError> {
        let message = Encoded::invocation(target, arguments)
            .map_err(|error| RealtimeError::Refused(error.to_string()))?;
        self.0.publish(hub, &destination(to), message).map_err(|error| match error {
            PublishError::Busy => RealtimeError::Busy(error.to_string()),
        })
    }

    async fn group(&self, hub: &str, changed: Action) -> Result<(), RealtimeError> {
        self.0.group_action(hub, action(changed)).await.map(drop).map_err(|error| match error {
            GroupError::Unavailable(_) => RealtimeError::Busy(error.to_string()),
            GroupError::TooMany => RealtimeError::Refused(error.to_string()),
        })
    }

    fn negotiate(
        &self,
        hub: &str,
        user: Option<&str>,
        claims: &[(String, String)],
        ttl: Duration,
    ) -> Result<ConnectionInfo, RealtimeError> {
        let (url, access_token) = self
            .0
            .negotiate(hub, user, claims, ttl)
            .ok_or_else(|| RealtimeError::Busy("the hub's keys aren't made yet".to_owned()))?;
        Ok(ConnectionInfo { url, access_token })
    }
}
