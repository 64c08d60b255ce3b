//! What peers send: decoded and passed to the groups of this node.
//!
//! Called on connection tasks, so nothing here blocks: appends go to the group's inbox (one task a
//! group keeps their order and pipelines them into openraft), everything rarer gets a task.

use std::sync::{Arc, Weak};

use fleetline_peer::MessageKind;
use fleetline_peer::pb;
use fleetline_raft_group::{AppendRequest, Group};
use fleetline_raft_transport::{Lane, PeerHandler, PeerMessage, Replier};
use fleetline_types::{GroupId, LogIndex, NodeId};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use openraft::raft::TransferLeaderRequest;
use prost::Message;
use tokio::sync::mpsc;

use crate::confirm;
use crate::driver::{Driver, GroupEntry};
use crate::messages::{self, MessageError};

/// Appends that wait in a group's inbox at the most; a leader keeps fewer on their way.
const INBOX_MAX: usize = 256;
/// Appends of one group that openraft is given before it has answered the first.
const PIPELINE_MAX: usize = 64;
/// Payload bytes that one answer to a fetch carries at the most.
const FETCH_BYTES_MAX: u64 = 4 << 20;

/// An append that waits for its group.
pub(crate) struct InboxItem {
    request: AppendRequest,
    group: GroupId,
    replier: Replier,
}

/// Starts the inbox task of a group; it ends when the sender is dropped.
pub(crate) fn start_inbox(group: Group) -> mpsc::Sender<InboxItem> {
    let (sender, mut inbox) = mpsc::channel::<InboxItem>(INBOX_MAX);
    tokio::spawn(async move {
        let mut open = FuturesOrdered::new();
        loop {
            tokio::select! {
                biased;
                Some((id, replier, answer)) = open.next(), if !open.is_empty() => {
                    reply_append(id, replier, answer);
                }
                item = inbox.recv(), if open.len() < PIPELINE_MAX => {
                    let Some(InboxItem { request, group: id, replier }) = item else {
                        break;
                    };
                    let raft = group.raft().clone();
                    open.push_back(async move { (id, replier, raft.append_entries(request).await) });
                }
            }
        }
        while let Some((id, replier, answer)) = open.next().await {
            reply_append(id, replier, answer);
        }
    });
    sender
}

fn reply_append<E: std::fmt::Display>(
    group: GroupId,
    replier: Replier,
    answer: Result<fleetline_raft_group::AppendResponse, E>,
) {
    let head = match answer {
        Ok(response) => messages::append_response_to_pb(&response),
        Err(error) => messages::append_refused(error.to_string()),
    };
    replier.reply(messages::head_message(group, MessageKind::Append, &head));
}

/// The driver's ear.
pub(crate) struct Inbound {
    /// Weak, because the transport that holds this handler is held by the driver.
    pub(crate) driver: Weak<Driver>,
}

impl PeerHandler for Inbound {
    fn on_request(&self, from: NodeId, _lane: Lane, message: PeerMessage, replier: Replier) {
        let Some(driver) = self.driver.upgrade() else {
            return;
        };
        let (group, kind) = (message.group, message.kind);
        if let Err(error) = dispatch(&driver, from, message, replier) {
            tracing::warn!(%from, %group, kind, %error, "malformed request of a peer");
            metrics::counter!("fleetline_peer_malformed_total").increment(1);
        }
    }

    fn on_peer_up(&self, node: NodeId) {
        tracing::debug!(%node, "peer is up");
        if let Some(driver) = self.driver.upgrade() {
            driver.peer_is_up(node);
        }
    }

    fn on_peer_down(&self, node: NodeId) {
        tracing::info!(%node, "peer is down");
        if let Some(driver) = self.driver.upgrade() {
            driver.peer_is_down(node);
        }
    }
}

fn dispatch(
    driver: &Arc<Driver>,
    from: NodeId,
    message: PeerMessage,
    replier: Replier,
) -> Result<(), MessageError> {
    let kind = MessageKind::from_byte(message.kind).ok_or(MessageError::Kind(message.kind))?;
    match kind {
        MessageKind::Append => on_append(driver, message, replier),
        MessageKind::Heartbeats => on_heartbeats(driver, &message, replier),
        MessageKind::Vote | MessageKind::PreVote => on_vote(driver, kind, &message, replier),
        MessageKind::Transfer => on_transfer(driver, &message, replier),
        MessageKind::FetchEntries => on_fetch(driver, &message, replier),
        MessageKind::Forward => on_forward(driver, message, replier),
        MessageKind::Call => crate::calls::on_call(driver, from, message, replier),
        MessageKind::SnapshotBegin | MessageKind::SnapshotChunk | MessageKind::SnapshotFinish => {
            crate::snapshot_transfer::receive(driver, from, kind, message, replier)
        }
    }
}

pub(crate) fn not_here(group: GroupId) -> String {
    format!("group {group} has no replica on this node")
}

fn on_append(driver: &Arc<Driver>, message: PeerMessage, replier: Replier) -> Result<(), MessageError> {
    let group = message.group;
    let head: pb::AppendRequest = messages::decode(&message)?;
    let body = messages::whole_body(message.body);
    let bytes = body.len() as u64;
    let request = messages::append_from_parts(head, body)?;
    let refused = |replier: Replier, reason: String| {
        replier.reply(messages::head_message(group, MessageKind::Append, &messages::append_refused(reason)));
    };
    let Some(entry) = driver.entry(group) else {
        refused(replier, not_here(group));
        return Ok(());
    };
    // The reserve is for votes and truncations; user data is refused while it is touched.
    if bytes > 0
        && let Err(error) = driver.log().admit(bytes)
    {
        refused(replier, error.to_string());
        return Ok(());
    }
    if let Err(full) = entry.inbox.try_send(InboxItem { request, group, replier }) {
        let (mpsc::error::TrySendError::Full(item) | mpsc::error::TrySendError::Closed(item)) = full;
        refused(item.replier, format!("inbox of group {group} is full"));
    }
    Ok(())
}

fn on_heartbeats(driver: &Arc<Driver>, message: &PeerMessage, replier: Replier) -> Result<(), MessageError> {
    let frame: pb::Heartbeats = messages::decode(message)?;
    let mut calls = Vec::with_capacity(frame.groups.len());
    for pb::GroupAppend { group, append } in frame.groups {
        let head = append.ok_or(MessageError::Missing("append"))?;
        calls.push((GroupId(group), messages::append_from_parts(head, bytes::Bytes::new())?));
    }
    let driver = driver.clone();
    tokio::spawn(async move {
        let answers = calls.into_iter().map(|(group, request)| {
            let entry = driver.entry(group);
            async move {
                let append = match entry {
                    None => messages::append_refused(not_here(group)),
                    Some(entry) => match entry.group.raft().append_entries(request).await {
                        Ok(response) => messages::append_response_to_pb(&response),
                        Err(error) => messages::append_refused(error.to_string()),
                    },
                };
                pb::GroupAppendResponse { group: group.0, append: Some(append) }
            }
        });
        let groups = futures::future::join_all(answers).await;
        let head = pb::HeartbeatsResponse { groups };
        replier.reply(messages::head_message(GroupId::CONTROL, MessageKind::Heartbeats, &head));
    });
    Ok(())
}

fn on_vote(
    driver: &Arc<Driver>,
    kind: MessageKind,
    message: &PeerMessage,
    replier: Replier,
) -> Result<(), MessageError> {
    let group = message.group;
    let request = messages::vote_request_from_pb(messages::decode(message)?)?;
    let entry = driver.voting_entry(group);
    tokio::spawn(async move {
        let answer = match entry {
            Err(reason) => Err(reason),
            Ok(entry) => {
                let raft = entry.group.raft();
                let answer = match kind {
                    MessageKind::PreVote => raft.pre_vote(request).await,
                    _ => raft.vote(request).await,
                };
                answer.map_err(|error| error.to_string())
            }
        };
        let head = match answer {
            Ok(response) => messages::vote_response_to_pb(&response),
            Err(refused) => pb::VoteResponse { refused, ..pb::VoteResponse::default() },
        };
        replier.reply(messages::head_message(group, kind, &head));
    });
    Ok(())
}

fn on_transfer(driver: &Arc<Driver>, message: &PeerMessage, replier: Replier) -> Result<(), MessageError> {
    let group = message.group;
    let head: pb::TransferRequest = messages::decode(message)?;
    let from = messages::vote_from_pb(head.from)?;
    let request = TransferLeaderRequest::new(from, head.to, head.last.map(messages::id_from_pb));
    let entry = driver.voting_entry(group);
    tokio::spawn(async move {
        let refused = match entry {
            Err(reason) => reason,
            Ok(entry) => match entry.group.raft().handle_transfer_leader(request).await {
                Ok(Ok(())) => String::new(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            },
        };
        let head = pb::TransferResponse { refused };
        replier.reply(messages::head_message(group, MessageKind::Transfer, &head));
    });
    Ok(())
}

/// Entries that this replica has applied, and that are therefore committed, for a peer whose disk
/// lost them.
fn on_fetch(driver: &Arc<Driver>, message: &PeerMessage, replier: Replier) -> Result<(), MessageError> {
    let group = message.group;
    let head: pb::FetchEntries = messages::decode(message)?;
    if confirm::is_asked(&head) {
        confirm::answer(driver, group, replier);
        return Ok(());
    }
    let driver = driver.clone();
    tokio::spawn(async move {
        let mut answer = pb::FetchEntriesResponse::default();
        let mut body = Vec::new();
        match fetch(&driver, group, &head) {
            Ok(entries) => {
                for entry in entries {
                    let (meta, payload) = messages::entry_parts(entry);
                    answer.entries.push(meta);
                    body.extend([payload.head, payload.body].into_iter().filter(|part| !part.is_empty()));
                }
            }
            Err(refused) => answer.refused = refused,
        }
        let head = answer.encode_to_vec().into();
        replier.reply(PeerMessage { group, kind: MessageKind::FetchEntries as u8, head, body });
    });
    Ok(())
}

fn fetch(
    driver: &Driver,
    group: GroupId,
    head: &pb::FetchEntries,
) -> Result<Vec<fleetline_log::LogEntry>, String> {
    let entry = driver.entry(group).ok_or_else(|| not_here(group))?;
    let applied = entry.group.applied().borrow().ok_or_else(|| "nothing is applied here yet".to_owned())?;
    let end = LogIndex(head.last.saturating_add(1).min(applied.index.0 + 1));
    let range = LogIndex(head.first)..end;
    if range.start >= range.end {
        return Err(format!("entry {} is not applied here yet", head.first));
    }
    driver.log().read(group, range, FETCH_BYTES_MAX).map_err(|error| error.to_string())
}

fn on_forward(driver: &Arc<Driver>, message: PeerMessage, replier: Replier) -> Result<(), MessageError> {
    let group = message.group;
    let head: pb::Forward = messages::decode(&message)?;
    let meta = pb::EntryMeta { head_len: head.head_len, body_len: head.body_len, ..pb::EntryMeta::default() };
    let mut parts = fleetline_peer::split_body(&[meta], messages::whole_body(message.body))?;
    let (head, body) = parts.pop().ok_or(MessageError::Missing("command"))?;
    let entry: Option<Arc<GroupEntry>> = driver.entry(group);
    tokio::spawn(async move {
        let command = fleetline_raft_group::Command { head, body };
        let (head, body) = match entry {
            None => (crate::driver::forward_refused(not_here(group)), Vec::new()),
            Some(entry) => crate::driver::forward_answer(entry.group.propose(command).await),
        };
        let head = head.encode_to_vec().into();
        replier.reply(PeerMessage { group, kind: MessageKind::Forward as u8, head, body });
    });
    Ok(())
}
