//! Who is in which group, changed from outside: by backends and functions, on whichever node they ask.
//!
//! A change of a connection goes to the node that has it. A change of a user is written to the user's document
//! first, so that connections that come later find it, and then told to every node that has a connection
//! of the user. When a change is answered, publishers that look at the group find its new members.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleetline_signalr::connection_id::ConnectionId;
use fleetline_signalr::limits::USER_GROUP_TTL_SECS_DEFAULT;
use fleetline_types::NodeId;
use futures::future::join_all;
use thiserror::Error;

use crate::key::Key;
use crate::member::Member;
use crate::memberships::MembershipChange;
use crate::registry::{Cause, JoinError, Leave};
use crate::tier::Realtime;
use crate::wire::{Answer, Ask, Change, Look, Targets};

/// A change of who is in which group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupAction {
    /// Put a connection into a group.
    AddConnection {
        /// Which.
        connection: String,
        /// Where.
        group: String,
    },
    /// Take a connection out of a group.
    RemoveConnection {
        /// Which.
        connection: String,
        /// Where.
        group: String,
    },
    /// Take a connection out of all groups.
    RemoveConnectionFromAll {
        /// Which.
        connection: String,
    },
    /// Put a user into a group.
    AddUser {
        /// Whom.
        user: String,
        /// Where.
        group: String,
        /// How long: zero for as long as its present connections last, `None` for a year.
        ttl: Option<Duration>,
    },
    /// Take a user out of a group.
    RemoveUser {
        /// Whom.
        user: String,
        /// Where.
        group: String,
    },
    /// Take a user out of all groups.
    RemoveUserFromAll {
        /// Whom.
        user: String,
    },
}

/// A change that wasn't made, or not everywhere; it may be tried again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GroupError {
    /// Nodes or partitions that are concerned don't answer.
    #[error("the groups can't be changed now: {0}")]
    Unavailable(String),
    /// The connection is in too many groups.
    #[error("the connection is in too many groups")]
    TooMany,
}

fn unavailable(why: impl ToString) -> GroupError {
    GroupError::Unavailable(why.to_string())
}

impl Realtime {
    /// Changes who is in which group. Answers whether there was something to change: the connection, or for a
    /// removal the user's membership.
    ///
    /// # Errors
    /// When it was not done everywhere.
    pub async fn group_action(&self, hub: &str, action: GroupAction) -> Result<bool, GroupError> {
        let hub = hub.to_lowercase();
        let change = Change { hub: hub.clone(), may_forward: true, ..Change::default() };
        match action {
            GroupAction::AddConnection { connection, group } => {
                self.change_connection(Change { connection, group, is_add: true, ..change }).await
            }
            GroupAction::RemoveConnection { connection, group } => {
                self.change_connection(Change { connection, group, ..change }).await
            }
            GroupAction::RemoveConnectionFromAll { connection } => {
                self.change_connection(Change { connection, ..change }).await
            }
            GroupAction::AddUser { user, group, ttl } => {
                let until_ms = self.until(ttl);
                if ttl != Some(Duration::ZERO) {
                    let put = MembershipChange::Put { group: &group, until_ms };
                    self.memberships.change(&hub, &user, put).await.map_err(unavailable)?;
                }
                self.change_user(Change { user, group, is_add: true, until_ms, ..change }).await?;
                Ok(true)
            }
            GroupAction::RemoveUser { user, group } => {
                let remove = MembershipChange::Remove { group: &group };
                let before = self.memberships.change(&hub, &user, remove).await.map_err(unavailable)?;
                let was_in = before.has(&group);
                Ok(self.change_user(Change { user, group, ..change }).await? || was_in)
            }
            GroupAction::RemoveUserFromAll { user } => {
                let all = MembershipChange::RemoveAll;
                let before = self.memberships.change(&hub, &user, all).await.map_err(unavailable)?;
                let was_in = !before.groups.is_empty();
                Ok(self.change_user(Change { user, ..change }).await? || was_in)
            }
        }
    }

    /// Until when a user is in a group (wall time in milliseconds).
    fn until(&self, ttl: Option<Duration>) -> u64 {
        let default = Duration::from_secs(USER_GROUP_TTL_SECS_DEFAULT);
        match ttl {
            Some(Duration::ZERO) => u64::MAX,
            // "membership up to 1 year"
            ttl => {
                let ttl = ttl.unwrap_or(default).min(default);
                self.devices.now_ms().saturating_add(ttl.as_millis() as u64)
            }
        }
    }

    /// Whether a user is in a group, for good or with a present connection.
    ///
    /// # Errors
    /// When that can't be known now.
    pub async fn is_user_in_group(&self, hub: &str, user: &str, group: &str) -> Result<bool, GroupError> {
        let hub = hub.to_lowercase();
        if self.memberships.read(&hub, user).await.map_err(unavailable)?.has(group) {
            return Ok(true);
        }
        let nodes = self.nodes_of(&Key::user(&hub, user)).await;
        let look = Look { hub, user: user.to_owned(), group: group.to_owned(), ..Look::default() };
        self.look_at(nodes, look).await
    }

    /// Whether a hub, user or group has a connection anywhere.
    pub(crate) async fn has_members(&self, key: &Key) -> Result<bool, GroupError> {
        if self.registry.has(key) {
            return Ok(true);
        }
        let nodes = self.nodes_of(key).await;
        self.look_at(nodes, Look { key: key.as_str().to_owned(), ..Look::default() }).await
    }

    /// Whether a connection is there, on any node.
    ///
    /// # Errors
    /// When that can't be known now.
    pub async fn has_connection(&self, hub: &str, connection: &str) -> Result<bool, GroupError> {
        let hub = hub.to_lowercase();
        if self.registry.connection_of(&hub, connection).is_some() {
            return Ok(true);
        }
        if ConnectionId::parse(connection).is_err() {
            return Ok(false);
        }
        let nodes = self.peers.alive().into_iter().collect();
        let look = Look { hub, connection: connection.to_owned(), ..Look::default() };
        self.look_at(nodes, look).await
    }

    async fn look_at(&self, nodes: BTreeSet<NodeId>, look: Look) -> Result<bool, GroupError> {
        let asks = nodes.into_iter().map(|node| {
            let look = look.clone();
            async move {
                match node == self.peers.me {
                    true => Ok(self.on_look(&look)),
                    false => self.peers.call(node, Ask::Look(look)).await,
                }
            }
        });
        let answers = join_all(asks).await;
        if answers.iter().any(|answer| matches!(answer, Ok(answer) if answer.found)) {
            return Ok(true);
        }
        match answers.into_iter().find_map(Result::err) {
            Some(error) => Err(unavailable(error)),
            None => Ok(false),
        }
    }

    pub(crate) fn on_look(&self, look: &Look) -> Answer {
        if !look.connection.is_empty() {
            return Answer::found(self.registry.connection_of(&look.hub, &look.connection).is_some());
        }
        if !look.user.is_empty() {
            let group = Key::group(&look.hub, &look.group);
            let members = self.registry.members(&Key::user(&look.hub, &look.user));
            return Answer::found(members.is_some_and(|set| set.all().iter().any(|one| one.is_in(&group))));
        }
        Answer::found(Key::parse(&look.key).is_some_and(|key| self.registry.has(&key)))
    }

    /// Nodes that may have members of a key.
    pub(crate) async fn nodes_of(&self, key: &Key) -> BTreeSet<NodeId> {
        let (nodes, covered) = match self.peers.leader(key.partition(self.registry.partitions())).0 {
            Some(leader) if leader == self.peers.me => self.targets(key).unwrap_or_default(),
            Some(leader) if self.peers.alive().contains(&leader) => {
                let ask = Ask::Targets(Targets { key: key.as_str().to_owned() });
                match self.peers.call(leader, ask).await {
                    Ok(answer) if answer.is_done() => (
                        answer.nodes.into_iter().map(NodeId).collect(),
                        answer.covered.into_iter().map(NodeId).collect(),
                    ),
                    _ => Default::default(),
                }
            }
            _ => Default::default(),
        };
        // Of nodes that the leader doesn't see, nobody knows.
        let unknown = self.peers.alive().into_iter().filter(|node| !covered.contains(node));
        nodes.iter().copied().chain(unknown).collect()
    }

    /// As the leader of the key's partition: nodes that may have members, and all that it knows of.
    fn targets(&self, key: &Key) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
        let partition = key.partition(self.registry.partitions());
        let term = self.peers.leads(partition)?;
        let (now, alive) = (self.clock.now_ms(), self.peers.alive());
        let may_have = |node: &NodeId| match *node == self.peers.me {
            true => self.registry.has(key),
            false => self.publisher.directory.may_have(*node, partition, term, key.as_str(), now),
        };
        Some((alive.iter().copied().filter(may_have).collect(), alive))
    }

    pub(crate) fn on_targets(&self, ask: &Targets) -> Answer {
        let numbers = |nodes: Vec<NodeId>| nodes.into_iter().map(|node| node.0).collect();
        match Key::parse(&ask.key).and_then(|key| self.targets(&key)) {
            Some((nodes, covered)) => {
                Answer { nodes: numbers(nodes), covered: numbers(covered), ..Answer::done() }
            }
            None => Answer::not_done(Answer::NOT_LEADER),
        }
    }

    async fn change_connection(&self, change: Change) -> Result<bool, GroupError> {
        let Ok(id) = ConnectionId::parse(&change.connection) else { return Ok(false) };
        if self.registry.connection(&change.connection).is_some() || id.node() == self.peers.me {
            let answer = self.on_change(change.clone()).await;
            if answer.found || !answer.is_done() {
                return done(answer);
            }
        } else if self.peers.alive().contains(&id.node()) {
            let answer =
                self.peers.call(id.node(), Ask::Change(change.clone())).await.map_err(unavailable)?;
            if answer.found || !answer.is_done() {
                return done(answer);
            }
        }
        // Its node is gone, or has forgotten where it is.
        let others =
            self.peers.alive().into_iter().filter(|node| *node != self.peers.me && *node != id.node());
        let change = Change { may_forward: false, ..change };
        let answers = join_all(others.map(|node| self.peers.call(node, Ask::Change(change.clone())))).await;
        for answer in answers {
            let answer = answer.map_err(unavailable)?;
            if answer.found || !answer.is_done() {
                return done(answer);
            }
        }
        Ok(false)
    }

    async fn change_user(&self, change: Change) -> Result<bool, GroupError> {
        let nodes = self.nodes_of(&Key::user(&change.hub, &change.user)).await;
        let asks = nodes.into_iter().map(|node| {
            let change = change.clone();
            async move {
                match node == self.peers.me {
                    true => Ok(self.on_change(change).await),
                    false => self.peers.call(node, Ask::Change(change)).await,
                }
            }
        });
        let mut found = false;
        for answer in join_all(asks).await {
            found |= done(answer.map_err(unavailable)?)?;
        }
        Ok(found)
    }

    /// Makes a change on this node.
    pub(crate) async fn on_change(&self, change: Change) -> Answer {
        if change.connection.is_empty() {
            let user = Key::user(&change.hub, &change.user);
            let members = self.registry.members(&user).map(|set| set.all()).unwrap_or_default();
            return self.change_members(&members, &change, true).await;
        }
        if let Some(member) = self.registry.connection_of(&change.hub, &change.connection) {
            return self.change_members(&[member], &change, false).await;
        }
        match self.publisher.adopted.node_of(&change.connection) {
            Some(node) if change.may_forward && node != self.peers.me => {
                let ask = Ask::Change(Change { may_forward: false, ..change });
                self.peers.call(node, ask).await.unwrap_or_else(|_| Answer::not_done(Answer::AGAIN))
            }
            _ => Answer::found(false),
        }
    }

    async fn change_members(&self, members: &[Arc<Member>], change: &Change, by_user: bool) -> Answer {
        if !change.is_add {
            let mut found = !by_user && !members.is_empty();
            for member in members {
                found |= self.take_out(member, change, by_user);
            }
            return Answer::found(found);
        }
        let key = Key::group(&change.hub, &change.group);
        let cause = if by_user { Cause::User { until: change.until_ms } } else { Cause::Own };
        let mut found = false;
        for member in members {
            match self.join(member, &key, cause) {
                Ok(()) => found = true,
                Err(error) if by_user => tracing::debug!(%error, ?key, "a connection of a user can't join"),
                Err(JoinError::TooMany) => return Answer::not_done(Answer::BUSY),
                Err(JoinError::Gone) => {}
            }
        }
        match found && self.ensure(std::slice::from_ref(&key)).await.is_err() {
            true => Answer::not_done(Answer::AGAIN),
            false => Answer::found(found),
        }
    }

    /// Takes a member out of a group, or of all. Whether it was in one.
    fn take_out(&self, member: &Member, change: &Change, by_user: bool) -> bool {
        let groups = match change.group.is_empty() {
            true => self.registry.groups_of(member),
            false => vec![Key::group(&change.hub, &change.group)],
        };
        let which = if by_user { Leave::User } else { Leave::All };
        let mut found = false;
        for group in groups {
            found |= member.is_in(&group);
            if let Some(gone) = self.registry.leave(member, &group, which) {
                self.interest.on_change(gone);
            }
        }
        found
    }
}

fn done(answer: Answer) -> Result<bool, GroupError> {
    match answer.outcome {
        Answer::DONE => Ok(answer.found),
        Answer::BUSY => Err(GroupError::TooMany),
        _ => Err(unavailable("the directory of the group doesn't answer")),
    }
}
