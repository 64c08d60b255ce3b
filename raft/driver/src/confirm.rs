//! What a group's leader says of it, confirmed by a majority: its members, and how far its log goes.
//!
//! Asked by a node that wants to know whether it still belongs to a group (`broker/node`), and for a
//! replica that has forgotten (`amnesia`). On the wire it is a FETCH_ENTRIES for the entry that no log reaches, [`ASKED`]; a node that doesn't know this
//! meaning refuses it as not applied yet. The answer holds two entries: the one that set the members,
//! whole, and the last one without its content.
//!
//! Only a leader answers, after a round to its followers that began when it was asked: what it says
//! held at some moment after the question.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleetline_log::{LogEntry, Payload};
use fleetline_peer::MessageKind;
use fleetline_peer::pb;
use fleetline_raft_group::{Confirmed, Entry, entry_from_log, entry_to_log};
use fleetline_raft_transport::{Lane, PeerMessage, Replier};
use fleetline_types::{GroupId, NodeId};
use futures::FutureExt;
use futures::future::select_ok;
use openraft::EntryPayload;
use prost::Message;

use crate::driver::Driver;
use crate::inbound::not_here;
use crate::messages;

/// The index that asks.
const ASKED: u64 = u64::MAX;
/// The kind of the entry that only tells its id.
const ID_ONLY: u8 = 0;

/// Whether a fetch asks for this.
pub(crate) fn is_asked(head: &pb::FetchEntries) -> bool {
    head.first == ASKED
}

/// Answers a peer.
pub(crate) fn answer(driver: &Arc<Driver>, group: GroupId, replier: Replier) {
    let entry = driver.entry(group);
    tokio::spawn(async move {
        let said = match entry {
            Some(entry) => entry.group.confirm().await.map_err(|error| error.to_string()),
            None => Err(not_here(group)),
        };
        let mut head = pb::FetchEntriesResponse::default();
        let mut body = Vec::new();
        match said {
            Ok(said) => {
                for entry in to_entries(said) {
                    let (meta, payload) = messages::entry_parts(entry);
                    head.entries.push(meta);
                    body.extend([payload.head, payload.body].into_iter().filter(|part| !part.is_empty()));
                }
            }
            Err(refused) => head.refused = refused,
        }
        let head = head.encode_to_vec().into();
        replier.reply(PeerMessage { group, kind: MessageKind::FetchEntries as u8, head, body });
    });
}

/// Asks the replica here and those on `nodes`; the first that can answer does.
pub(crate) async fn ask(
    driver: &Arc<Driver>,
    group: GroupId,
    nodes: &BTreeSet<NodeId>,
    patience: Duration,
) -> Result<Confirmed, String> {
    let here = driver
        .group(group)
        .map(|group| async move { group.confirm().await.map_err(|error| error.to_string()) }.boxed());
    let peers = nodes.iter().copied().filter(|node| *node != driver.node());
    let peers = peers.map(|node| ask_peer(driver, node, group).boxed());
    let asked: Vec<_> = here.into_iter().chain(peers).collect();
    if asked.is_empty() {
        return Err(format!("nobody is known to have a replica of group {group}"));
    }
    match tokio::time::timeout(patience, select_ok(asked)).await {
        Ok(Ok((said, _))) => Ok(said),
        Ok(Err(reason)) => Err(reason),
        Err(_) => Err(format!("no leader of group {group} answered in time")),
    }
}

async fn ask_peer(driver: &Driver, peer: NodeId, group: GroupId) -> Result<Confirmed, String> {
    let request = pb::FetchEntries { first: ASKED, last: ASKED };
    let message = messages::head_message(group, MessageKind::FetchEntries, &request);
    let sent = driver.transport().send(peer, Lane::Control, message).await;
    let answer = sent.map_err(|error| error.to_string())?.await.map_err(|error| error.to_string())?;
    let head: pb::FetchEntriesResponse = messages::decode(&answer).map_err(|error| error.to_string())?;
    if !head.refused.is_empty() {
        return Err(format!("{peer}: {}", head.refused));
    }
    let entries = messages::entries_from_parts(&head.entries, messages::whole_body(answer.body))
        .map_err(|error| error.to_string())?;
    from_entries(entries).ok_or_else(|| format!("{peer} gave no membership"))
}

fn to_entries(said: Confirmed) -> [LogEntry; 2] {
    let set = Entry { log_id: said.membership, payload: EntryPayload::Membership(said.config) };
    [entry_to_log(set), LogEntry { id: said.last, kind: ID_ONLY, payload: Payload::default() }]
}

fn from_entries(entries: Vec<LogEntry>) -> Option<Confirmed> {
    let [set, last] = <[LogEntry; 2]>::try_from(entries).ok()?;
    let set = entry_from_log(set).ok()?;
    match set.payload {
        EntryPayload::Membership(config) => Some(Confirmed { membership: set.log_id, config, last: last.id }),
        _ => None,
    }
}
