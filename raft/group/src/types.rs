//! The types that openraft is run with. One config serves all groups: what differs between them
//! is behind the [`crate::Machine`] trait, so openraft is compiled once.

use std::fmt;

use bytes::Bytes;
use openraft::impls::EmptyNode;

use crate::runtime::FleetRuntime;
use crate::state_machine::StateMachine;

openraft::declare_raft_types!(
    /// The type config of all groups. Standard leader ids: at most one leader a term.
    pub TypeConfig:
        D = Command,
        R = Reply,
        NodeId = u64,
        Node = EmptyNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = FleetRuntime,
);

/// A replicated command: a small head that says what it is, and for a batch of records the
/// producer's bytes. Cloning counts references.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Command {
    /// The versioned stored form of the command; at most 65,535 bytes.
    pub head: Bytes,
    /// The batch, or nothing.
    pub body: Bytes,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({}+{} bytes)", self.head.len(), self.body.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a state machine answers to a command, in the stored form of its crate. Empty for entries
/// that aren't commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply(pub Bytes);

/// openraft with our types.
pub type Raft = openraft::Raft<TypeConfig, StateMachine>;
/// An entry.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// A vote.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// A log id.
pub type LogIdOf = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A membership.
pub type Membership = openraft::Membership<u64, EmptyNode>;
/// A membership with the log id that set it.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
/// A snapshot on its way to a peer.
pub type NetworkSnapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, crate::SnapshotHandle>;
/// An append request.
pub type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
/// An append response.
pub type AppendResponse = openraft::raft::AppendEntriesResponse<TypeConfig>;
