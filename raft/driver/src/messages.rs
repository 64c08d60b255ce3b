//! Between openraft's requests and the heads of peer messages.

use bytes::Bytes;
use fleetline_log::{LogEntry, Payload};
use fleetline_peer::pb::{self, EntryMeta};
use fleetline_peer::{BodyError, MessageKind, split_body};
use fleetline_raft_group::{
    AppendRequest, AppendResponse, LogIdOf, TypeConfig, Vote, entry_from_log, entry_to_log, log_id_from_raft,
    log_id_to_raft, vote_from_parts, vote_parts,
};
use fleetline_raft_transport::PeerMessage;
use fleetline_types::{GroupId, LogId, LogIndex, NodeId, Term};
use prost::Message;
use thiserror::Error;

/// A message of a peer that can't be understood.
#[derive(Debug, Error)]
pub(crate) enum MessageError {
    #[error("head of a peer message is malformed: {0}")]
    Head(#[from] prost::DecodeError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("peer message lacks its {0}")]
    Missing(&'static str),
    #[error("entry of a peer message is malformed: {0}")]
    Entry(#[from] fleetline_codec::DecodeError),
    #[error("peer answered with message kind {0}")]
    Kind(u8),
}

/// A message with only a head.
pub(crate) fn head_message(group: GroupId, kind: MessageKind, head: &impl Message) -> PeerMessage {
    PeerMessage { group, kind: kind as u8, head: head.encode_to_vec().into(), body: Vec::new() }
}

/// Decodes the head of an answer.
pub(crate) fn decode<M: Message + Default>(message: &PeerMessage) -> Result<M, MessageError> {
    Ok(M::decode(message.head.clone())?)
}

/// The body of a received message: transports deliver it as one slice.
pub(crate) fn whole_body(mut body: Vec<Bytes>) -> Bytes {
    match body.len() {
        0 => Bytes::new(),
        1 => body.swap_remove(0),
        _ => body.concat().into(),
    }
}

pub(crate) fn vote_to_pb(vote: &Vote) -> pb::Vote {
    let (term, node, committed) = vote_parts(vote);
    pb::Vote { term: term.0, node: node.0, committed }
}

pub(crate) fn vote_from_pb(vote: Option<pb::Vote>) -> Result<Vote, MessageError> {
    let vote = vote.ok_or(MessageError::Missing("vote"))?;
    Ok(vote_from_parts(Term(vote.term), NodeId(vote.node), vote.committed))
}

pub(crate) fn id_to_pb(id: &LogIdOf) -> pb::LogId {
    let id = log_id_from_raft(id);
    pb::LogId { term: id.term.0, index: id.index.0 }
}

pub(crate) fn id_from_pb(id: pb::LogId) -> LogIdOf {
    log_id_to_raft(LogId { term: Term(id.term), index: LogIndex(id.index) })
}

/// The meta and payload slices of an entry.
pub(crate) fn entry_parts(entry: LogEntry) -> (EntryMeta, Payload) {
    let meta = EntryMeta {
        term: entry.id.term.0,
        index: entry.id.index.0,
        kind: u32::from(entry.kind),
        head_len: entry.payload.head.len() as u32,
        body_len: entry.payload.body.len() as u32,
    };
    (meta, entry.payload)
}

/// Entries from their metas and the raw body.
pub(crate) fn entries_from_parts(metas: &[EntryMeta], body: Bytes) -> Result<Vec<LogEntry>, MessageError> {
    let parts = split_body(metas, body)?;
    let entry = |(meta, (head, body)): (&EntryMeta, (Bytes, Bytes))| LogEntry {
        id: LogId::new(meta.term, meta.index),
        kind: meta.kind as u8,
        payload: Payload { head, body },
    };
    Ok(metas.iter().zip(parts).map(entry).collect())
}

/// The head of an append without its entries.
pub(crate) fn append_head(request: &AppendRequest) -> pb::AppendRequest {
    pb::AppendRequest {
        vote: Some(vote_to_pb(&request.vote)),
        prev: request.prev_log_id.as_ref().map(id_to_pb),
        commit: request.leader_commit.as_ref().map(id_to_pb),
        entries: Vec::new(),
    }
}

/// An append with its entries: metas in the head, payload slices in the body.
pub(crate) fn append_to_message(group: GroupId, request: AppendRequest) -> PeerMessage {
    let mut head = append_head(&request);
    let mut body = Vec::with_capacity(request.entries.len() * 2);
    for entry in request.entries {
        let (meta, payload) = entry_parts(entry_to_log(entry));
        head.entries.push(meta);
        body.extend([payload.head, payload.body].into_iter().filter(|part| !part.is_empty()));
    }
    PeerMessage { group, kind: MessageKind::Append as u8, head: head.encode_to_vec().into(), body }
}

/// The reverse of [`append_to_message`].
pub(crate) fn append_from_parts(head: pb::AppendRequest, body: Bytes) -> Result<AppendRequest, MessageError> {
    let entries = entries_from_parts(&head.entries, body)?;
    Ok(AppendRequest {
        vote: vote_from_pb(head.vote)?,
        prev_log_id: head.prev.map(id_from_pb),
        leader_commit: head.commit.map(id_from_pb),
        entries: entries.into_iter().map(entry_from_log).collect::<Result<_, _>>()?,
    })
}

/// An answer to an append.
pub(crate) fn append_response_to_pb(response: &AppendResponse) -> pb::AppendResponse {
    use pb::append_response::Outcome;
    let mut answer = pb::AppendResponse::default();
    match response {
        AppendResponse::Success => answer.set_outcome(Outcome::Success),
        AppendResponse::PartialSuccess(matched) => {
            answer.set_outcome(Outcome::Partial);
            answer.matched = matched.as_ref().map(id_to_pb);
        }
        AppendResponse::Conflict => answer.set_outcome(Outcome::Conflict),
        AppendResponse::HigherVote(vote) => {
            answer.set_outcome(Outcome::HigherVote);
            answer.vote = Some(vote_to_pb(vote));
        }
    }
    answer
}

/// A refusal of an append.
pub(crate) fn append_refused(reason: String) -> pb::AppendResponse {
    let mut answer = pb::AppendResponse { reason, ..pb::AppendResponse::default() };
    answer.set_outcome(pb::append_response::Outcome::Refused);
    answer
}

/// What an answer to an append says: openraft's response, or why it was refused.
pub(crate) fn append_response_from_pb(
    answer: pb::AppendResponse,
) -> Result<Result<AppendResponse, String>, MessageError> {
    use pb::append_response::Outcome;
    Ok(Ok(match answer.outcome() {
        Outcome::Success => AppendResponse::Success,
        Outcome::Partial => AppendResponse::PartialSuccess(answer.matched.map(id_from_pb)),
        Outcome::Conflict => AppendResponse::Conflict,
        Outcome::HigherVote => AppendResponse::HigherVote(vote_from_pb(answer.vote)?),
        Outcome::Refused => return Ok(Err(answer.reason)),
        Outcome::Unspecified => return Err(MessageError::Missing("outcome")),
    }))
}

/// openraft's vote request.
pub(crate) type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
/// openraft's vote response.
pub(crate) type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;

pub(crate) fn vote_request_to_pb(request: &VoteRequest) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to_pb(&request.vote)),
        last: request.last_log_id.as_ref().map(id_to_pb),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from_pb(request: pb::VoteRequest) -> Result<VoteRequest, MessageError> {
    let mut vote = VoteRequest::new(vote_from_pb(request.vote)?, request.last.map(id_from_pb));
    vote.leadership_transfer = request.leadership_transfer;
    Ok(vote)
}

pub(crate) fn vote_response_to_pb(response: &VoteResponse) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote_to_pb(&response.vote)),
        granted: response.vote_granted,
        last: response.last_log_id.as_ref().map(id_to_pb),
        refused: String::new(),
    }
}

pub(crate) fn vote_response_from_pb(
    response: pb::VoteResponse,
) -> Result<Result<VoteResponse, String>, MessageError> {
    if !response.refused.is_empty() {
        return Ok(Err(response.refused));
    }
    let vote = vote_from_pb(response.vote)?;
    Ok(Ok(VoteResponse::new(vote, response.last.map(id_from_pb), response.granted)))
}

#[cfg(test)]
mod tests {
    use fleetline_raft_group::{Command, Entry};
    use openraft::EntryPayload;

    use super::*;

    fn entry(index: u64, head: &'static [u8], body: &'static [u8]) -> Entry {
        let command = Command { head: Bytes::from_static(head), body: Bytes::from_static(body) };
        Entry { log_id: log_id_to_raft(LogId::new(3, index)), payload: EntryPayload::Normal(command) }
    }

    /// An append survives the wire: ids, votes and payload bytes, empty parts included.
    #[test]
    fn append_round_trip() {
        let request = AppendRequest {
            vote: vote_from_parts(Term(3), NodeId(2), true),
            prev_log_id: Some(log_id_to_raft(LogId::new(2, 6))),
            leader_commit: None,
            entries: vec![entry(7, b"head", b"body"), entry(8, b"", b"only body"), entry(9, b"x", b"")],
        };
        let message = append_to_message(GroupId(4), request.clone());
        let head: pb::AppendRequest = decode(&message).unwrap();
        let back = append_from_parts(head, whole_body(message.body)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{request:?}"));
        assert_eq!(back.entries, request.entries);
    }

    /// A body that doesn't fit its metas and a head without a vote are errors.
    #[test]
    fn malformed_appends() {
        let request = AppendRequest {
            vote: vote_from_parts(Term(3), NodeId(2), true),
            prev_log_id: None,
            leader_commit: None,
            entries: vec![entry(7, b"head", b"body")],
        };
        let message = append_to_message(GroupId(4), request);
        let head: pb::AppendRequest = decode(&message).unwrap();
        assert!(append_from_parts(head.clone(), Bytes::from_static(b"short")).is_err());
        let headless = pb::AppendRequest { vote: None, ..head };
        assert!(append_from_parts(headless, whole_body(message.body)).is_err());
    }
}
