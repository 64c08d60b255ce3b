//! Between openraft's values and ours: entries, votes, log ids, memberships.
//!
//! The stored form of an entry is its [`EntryKind`] and a payload; a membership is stored as
//!
//! ```text
//! version u8 = 1 | configs varint | { count varint | node id varint … } … | nodes varint | node id varint …
//! ```

use std::collections::BTreeSet;

use bytes::Bytes;
use fleetline_codec::{DecodeError, Reader, Writer};
use fleetline_log::{LogEntry, Payload, VoteRecord};
use fleetline_types::{LogId, LogIndex, NodeId, Term};
use openraft::EntryPayload;
use openraft::impls::EmptyNode;
use openraft::impls::leader_id_std::LeaderId;
use openraft::vote::RaftLeaderId;

use crate::types::{Command, Entry, LogIdOf, Membership, Vote};

/// What an entry is. Numbers are stored and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A new leader's first entry.
    Blank = 1,
    /// A command for the state machine.
    Command = 2,
    /// A membership.
    Membership = 3,
}

/// Nodes that a stored membership may name at the most; bounds what is allocated for one.
const MEMBERSHIP_NODES_MAX: u64 = 1024;

/// Our form of a log id.
pub fn log_id_from_raft(id: &LogIdOf) -> LogId {
    LogId { term: Term(id.committed_leader_id().term), index: LogIndex(id.index) }
}

/// openraft's form of a log id.
pub fn log_id_to_raft(id: LogId) -> LogIdOf {
    let leader = LeaderId { term: id.term.0, voted_for: 0 };
    LogIdOf::new(leader.to_committed(), id.index.0)
}

/// Term, node and whether it is committed.
pub fn vote_parts(vote: &Vote) -> (Term, NodeId, bool) {
    (Term(vote.leader_id().term), NodeId(vote.leader_id().voted_for), vote.is_committed())
}

/// A vote from its parts.
pub fn vote_from_parts(term: Term, node: NodeId, committed: bool) -> Vote {
    match committed {
        true => Vote::new_committed(term.0, node.0),
        false => Vote::new(term.0, node.0),
    }
}

/// The stored form of a vote.
pub(crate) fn vote_to_record(vote: &Vote) -> VoteRecord {
    let (term, node, committed) = vote_parts(vote);
    let mut out = Vec::with_capacity(18);
    Writer::new(&mut out).u8(1).u64(term.0).u64(node.0).flag(committed);
    VoteRecord(out.into())
}

/// A vote from its stored form.
pub(crate) fn vote_from_record(record: &VoteRecord) -> Result<Vote, DecodeError> {
    let mut reader = Reader::new(&record.0);
    expect_version(&mut reader, "vote")?;
    let (term, node) = (Term(reader.u64("vote term")?), NodeId(reader.u64("vote node")?));
    let committed = reader.flag("vote committed")?;
    reader.finish("vote")?;
    Ok(vote_from_parts(term, node, committed))
}

pub(crate) fn expect_version(reader: &mut Reader<'_>, what: &'static str) -> Result<(), DecodeError> {
    match reader.u8(what)? {
        1 => Ok(()),
        found => Err(DecodeError::UnknownVersion { what, found: u32::from(found), highest: 1 }),
    }
}

/// The stored form of a membership.
pub(crate) fn membership_to_bytes(membership: &Membership) -> Bytes {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.u8(1).varint(membership.get_joint_config().len() as u64);
    for config in membership.get_joint_config() {
        writer.varint(config.len() as u64);
        for node in config {
            writer.varint(*node);
        }
    }
    writer.varint(membership.nodes().count() as u64);
    for (node, _) in membership.nodes() {
        writer.varint(*node);
    }
    out.into()
}

/// A membership from its stored form.
pub(crate) fn membership_from_bytes(bytes: &[u8]) -> Result<Membership, DecodeError> {
    let mut reader = Reader::new(bytes);
    expect_version(&mut reader, "membership")?;
    let node_set = |reader: &mut Reader<'_>| -> Result<BTreeSet<u64>, DecodeError> {
        let count = reader.varint_up_to("membership size", MEMBERSHIP_NODES_MAX)?;
        (0..count).map(|_| reader.varint("membership node")).collect()
    };
    let configs = reader.varint_up_to("membership configs", 8)?;
    let configs = (0..configs).map(|_| node_set(&mut reader)).collect::<Result<Vec<_>, _>>()?;
    let nodes = node_set(&mut reader)?;
    reader.finish("membership")?;
    Ok(Membership::new_with_defaults(configs, nodes))
}

/// The stored form of an entry.
pub fn entry_to_log(entry: Entry) -> LogEntry {
    let id = log_id_from_raft(&entry.log_id);
    let (kind, payload) = match entry.payload {
        EntryPayload::Blank => (EntryKind::Blank, Payload::default()),
        EntryPayload::Normal(Command { head, body }) => (EntryKind::Command, Payload { head, body }),
        EntryPayload::Membership(membership) => {
            (EntryKind::Membership, Payload { head: membership_to_bytes(&membership), body: Bytes::new() })
        }
    };
    LogEntry { id, kind: kind as u8, payload }
}

/// An entry from its stored form.
///
/// # Errors
/// For a kind or membership version that this build doesn't know.
pub fn entry_from_log(entry: LogEntry) -> Result<Entry, DecodeError> {
    let payload = match entry.kind {
        kind if kind == EntryKind::Blank as u8 => EntryPayload::Blank,
        kind if kind == EntryKind::Command as u8 => {
            EntryPayload::Normal(Command { head: entry.payload.head, body: entry.payload.body })
        }
        kind if kind == EntryKind::Membership as u8 => {
            EntryPayload::Membership(membership_from_bytes(&entry.payload.head)?)
        }
        kind => return Err(DecodeError::UnknownKind { what: "entry", found: u32::from(kind) }),
    };
    Ok(Entry { log_id: log_id_to_raft(entry.id), payload })
}

/// Node records carry nothing: addresses live in the control group.
pub(crate) fn empty_node() -> EmptyNode {
    EmptyNode {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Votes and memberships come back equal; a later version is refused, not guessed.
    #[test]
    fn round_trips() {
        for committed in [false, true] {
            let vote = vote_from_parts(Term(7), NodeId(3), committed);
            assert_eq!(vote_from_record(&vote_to_record(&vote)).unwrap(), vote);
        }
        let configs = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])];
        let membership = Membership::new_with_defaults(configs, BTreeSet::from([9]));
        let bytes = membership_to_bytes(&membership);
        assert_eq!(membership_from_bytes(&bytes).unwrap(), membership);
        let mut later = bytes.to_vec();
        later[0] = 2;
        assert!(membership_from_bytes(&later).is_err());
        assert!(membership_from_bytes(&[1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    }
}
